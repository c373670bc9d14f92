"""All checks that an evaluation's results and the diagnosis of its model allow, in the order of a report."""

from collections.abc import Iterator, Sequence

from hosnn.checks import attack_checks, attacked_model_checks, model_checks
from hosnn.checks.binarization_test import BinarizationTest
from hosnn.checks.diagnosis import Diagnosis
from hosnn.checks.measurements import BLOCK
from hosnn.results.check import Check, not_run
from hosnn.results.evaluation import AttackResult, Evaluation
from hosnn.results.roles import Role
from hosnn.robustness.threats import Threat

GRADIENT_FREE = ("queries", "transfer")
"""Kinds of attacks that do not use the model's gradient."""


def all_checks(
    evaluation: Evaluation, diagnosis: Diagnosis | None, binarization: BinarizationTest | None = None
) -> tuple[Check, ...]:
    """Every check that the protocol has data for; a check whose data are missing from a panel says so."""
    return (
        *(() if diagnosis is None else _of_model(evaluation, diagnosis)),
        *_of_attacks(evaluation),
        *(() if binarization is None else (_of_binarization(binarization),)),
    )


def _of_model(evaluation: Evaluation, diagnosis: Diagnosis) -> Iterator[Check]:
    count, white_box = diagnosis.samples, [result for result in evaluation.rows if result.kind == "white-box"]
    # Our layers are attacked through other surrogates than their own, and some losses do not saturate.
    bptt_is_useful = diagnosis.bptt_fidelity is not None and diagnosis.bptt_fidelity >= model_checks.FAITHFUL
    through_surrogates = bptt_is_useful and any(result.estimator for result in white_box)
    scale_free = any(result.role is Role.SCALE_FREE_LOSS for result in white_box)

    def of_gradient(check: Check) -> Check:
        return model_checks.downgraded(check, "attacks used other surrogates") if through_surrogates else check

    no_gradient = "the model has no gradient"
    yield of_gradient(model_checks.gradient(diagnosis.has_gradient))
    if diagnosis.zero_gradients is None:
        yield not_run("zero gradients", no_gradient)
    else:
        yield of_gradient(model_checks.zero_gradients(diagnosis.zero_gradients, count))
    if diagnosis.fidelity is None:
        reason = "too few steps change anything" if diagnosis.has_gradient else no_gradient
        yield not_run("gradient fidelity", reason)
    else:
        yield of_gradient(model_checks.gradient_fidelity(diagnosis.fidelity, diagnosis.fidelity_eps))
    if diagnosis.saturated_loss is None:
        yield not_run("saturated loss", no_gradient)
    else:
        saturated = model_checks.saturated_loss(diagnosis.saturated_loss, count)
        yield (
            model_checks.downgraded(saturated, "some attacks used scale-invariant losses") if scale_free else saturated
        )
    yield model_checks.saturated_softmax(diagnosis.saturated_softmax, count)
    spiking = evaluation.network.spiking
    if diagnosis.score_range is not None:
        yield model_checks.range_of_scores(diagnosis.score_range, count, scale_free, spiking)
    if diagnosis.dead_pixels is None:
        yield not_run("dead pixels", "no image has a gradient" if diagnosis.has_gradient else no_gradient)
    else:
        yield of_gradient(model_checks.dead_pixels(diagnosis.dead_pixels))
    yield from _in_the_ball(diagnosis, any(result.estimator for result in white_box))
    yield from _of_inner_layers(evaluation, diagnosis)
    yield model_checks.zero_budget(diagnosis.changed_without_budget, min(count, BLOCK))
    yield model_checks.randomness(diagnosis.randomness)
    yield model_checks.state_between_calls(diagnosis.carried_state, diagnosis.reset_call)
    yield from _of_modes(evaluation, diagnosis)
    yield model_checks.coarse_logits(diagnosis.distinct_logits, diagnosis.logits_dtype, diagnosis.fits_16_bits, spiking)


def _in_the_ball(diagnosis: Diagnosis, through_surrogates: bool) -> Iterator[Check]:
    probe, bptt = diagnosis.inside, diagnosis.inside_bptt
    if probe is None:
        return
    bptt_is_useful = bptt is not None and bptt.fidelity is not None and bptt.fidelity >= model_checks.FAITHFUL

    def of_gradient(check: Check) -> Check:
        avoided = through_surrogates and bptt_is_useful
        return model_checks.downgraded(check, "attacks used other surrogates") if avoided else check

    counts = probe.correct, probe.points
    few_points = f"only {probe.correct} of {probe.points} points are classified correctly"
    reason = few_points if probe.points else "the threat has no budget"
    if probe.zero_gradients is None:
        yield not_run("zero gradients in the ball", reason)
    else:
        reason = "too few steps change anything"
        yield of_gradient(attacked_model_checks.zero_gradients_in_ball(probe.zero_gradients, *counts))
    if probe.fidelity is None:
        yield not_run("fidelity in the ball", reason)
    else:
        yield of_gradient(attacked_model_checks.fidelity_in_ball(probe.fidelity, probe.fidelity_eps, *counts))
    if probe.other_logits is not None and diagnosis.carried_state <= model_checks.REPEATABLE:
        yield attacked_model_checks.with_and_without_gradient(probe.other_logits, probe.points)


def _of_inner_layers(evaluation: Evaluation, diagnosis: Diagnosis) -> Iterator[Check]:
    if diagnosis.unmoved_inputs is not None:
        # Pooled spikes of foreign layers lie on a grid of their own.
        later = None if evaluation.network.spiking == "foreign" else diagnosis.unmoved_later
        yield model_checks.rounded_input(diagnosis.unmoved_inputs, later or 0.0)
    elif not evaluation.model_sha256:
        yield not_run("rounded input", "the model is a plain function, whose layers are not seen")
    yield model_checks.gradient_estimators(evaluation.network.spiking, evaluation.network.evidence)
    if evaluation.network.copies != "unknown":
        yield model_checks.copies(evaluation.network.copies, estimators=evaluation.network.layers > 0)


def _of_modes(evaluation: Evaluation, diagnosis: Diagnosis) -> Iterator[Check]:
    repeatable = max(diagnosis.randomness, diagnosis.carried_state) <= model_checks.REPEATABLE
    unrepeatable = "the model answers the same image differently"
    if diagnosis.batch_logits is not None and diagnosis.batch_classes is not None:
        yield model_checks.batch(diagnosis.batch_logits, diagnosis.batch_classes, diagnosis.samples)
    else:
        yield not_run("batch", unrepeatable)
    if diagnosis.training_logits is not None and diagnosis.training_gradients is not None:
        shares = diagnosis.training_logits, diagnosis.training_gradients
        yield model_checks.train_and_eval_mode(*shares, diagnosis.samples)
    elif not repeatable:
        yield not_run("train and eval mode", unrepeatable)
    elif evaluation.network.copies in ("different", "impossible"):
        yield not_run("train and eval mode", "no copy of the model answers as it does")
    elif not evaluation.model_sha256:
        yield not_run("train and eval mode", "the model is a plain function, which has no modes")


def _of_attacks(evaluation: Evaluation) -> Iterator[Check]:
    results = [*evaluation.rows, *(result for panel in evaluation.panels for result in panel.rows)]
    kinds = [result.kind for result in evaluation.rows]
    yield attack_checks.attacks(kinds.count("white-box"), sum(map(kinds.count, GRADIENT_FREE)))
    attacked = sum(prediction >= 0 for result in results for prediction in result.predictions)
    yield attack_checks.inside_threat(attacked, evaluation.clamped)
    yield from _of_ties(evaluation)
    yield from _of_claims(evaluation, results)
    yield from _of_growing_eps(evaluation)
    yield from _of_steps(evaluation)
    yield from _of_controls(evaluation)
    yield from _of_gradient_free_attacks(evaluation)
    yield from _of_panels(evaluation)
    yield from _of_search(evaluation)
    if evaluation.samples:
        yield attack_checks.sample_size(sum(evaluation.robust), evaluation.samples)


def _of_binarization(test: BinarizationTest) -> Check:
    return attack_checks.binarization_test(test.broken, test.broken_by_chance, test.separable, test.images)


def _of_panels(evaluation: Evaluation) -> Iterator[Check]:
    # A threat to images of 8 bits is part of the threat to images of real numbers.
    threats = {evaluation.threat, f"{evaluation.threat.partition('@')[0]}@8bit"}
    results = [result for panel in evaluation.panels for result in panel.rows if result.threat in threats]
    if not results:
        return
    samples = max(len(result.predictions) for result in results)
    broken = {at for result in results for at, right in enumerate(evaluation.correct_after(result)) if not right}
    yield attack_checks.panels(sum(evaluation.robust[at] for at in broken), samples)


def _of_ties(evaluation: Evaluation) -> Iterator[Check]:
    if evaluation.clean_tied is None:
        return
    tied = set(evaluation.clean_tied).union(*(result.tied or () for result in evaluation.rows))
    yield attack_checks.ties(len(tied), evaluation.samples)


def _of_claims(evaluation: Evaluation, results: Sequence[AttackResult]) -> Iterator[Check]:
    recorded = [result.denied for result in results if result.denied is not None]
    if recorded:
        yield attack_checks.claimed_successes(len(set().union(*recorded)), evaluation.samples)


def _of_growing_eps(evaluation: Evaluation) -> Iterator[Check]:
    results = sorted(evaluation.panel("eps"), key=lambda result: result.eps)
    if len(results) < 2:
        if results:
            yield not_run("accuracy against eps", "the panel has one eps only")
        return
    counts = _robust_counts(evaluation, results)
    yield attack_checks.accuracy_against_eps(counts, len(results[0].predictions))
    if results[-1].eps >= Threat.parse(evaluation.threat).ball.whole_range:
        classes = 1 + max(*evaluation.labels, *evaluation.clean)
        yield attack_checks.unbounded_attack(counts[-1], len(results[-1].predictions), classes)


def _of_steps(evaluation: Evaluation) -> Iterator[Check]:
    results = sorted(evaluation.panel("steps"), key=lambda result: result.steps)
    if len(results) < 2:
        if results:
            yield not_run("more steps", "the panel has one number of steps only")
            yield not_run("convergence", "the panel has one number of steps only")
        return
    counts, samples = _robust_counts(evaluation, results), len(results[0].predictions)
    yield attack_checks.more_steps(counts, samples)
    shorter, longer = (_robust(evaluation, result) for result in results[-2:])
    newly_broken = [before and not after for before, after in zip(shorter, longer, strict=True)]
    past = sum(new and robust for new, robust in zip(newly_broken, evaluation.robust, strict=False))
    lengths = results[-2].steps, results[-1].steps
    yield attack_checks.convergence(counts[-2], counts[-1], past, lengths, samples)


def _of_controls(evaluation: Evaluation) -> Iterator[Check]:
    panel = evaluation.panel("controls")
    results = panel if panel or evaluation.cascade else evaluation.rows
    by_role = {result.role: result for result in results if result.role is not None}
    checks = (
        ("random noise", Role.NOISE, _noise),
        ("single step", Role.SINGLE_STEP, _single_step),
        ("more restarts", Role.MORE_RESTARTS, _more_restarts),
        ("last step", Role.LAST_POINT, _last_point),
    )
    for name, role, check in checks:
        missing = [wanted for wanted in (Role.REFERENCE, role) if wanted not in by_role]
        if not missing:
            reference, control = (_robust(evaluation, by_role[wanted]) for wanted in (Role.REFERENCE, role))
            yield check(evaluation, reference, control)
        elif panel:
            yield not_run(name, f"no attack of the controls has the role {' or '.join(missing)}")


def _noise(evaluation: Evaluation, reference: Sequence[bool], noise: Sequence[bool]) -> Check:
    samples = len(reference)
    clean = sum(evaluation.not_lost_when_clean[:samples])
    return attack_checks.random_noise(clean, sum(noise), sum(reference), samples)


def _single_step(_: Evaluation, reference: Sequence[bool], single_step: Sequence[bool]) -> Check:
    return attack_checks.single_step([sum(single_step), sum(reference)], len(reference))


def _more_restarts(_: Evaluation, reference: Sequence[bool], restarted: Sequence[bool]) -> Check:
    return attack_checks.more_restarts([sum(reference), sum(restarted)], len(reference))


def _last_point(_: Evaluation, best_point: Sequence[bool], last_point: Sequence[bool]) -> Check:
    lost = sum(at_end and not on_the_way for on_the_way, at_end in zip(best_point, last_point, strict=True))
    return attack_checks.last_step(lost, len(best_point))


def _of_gradient_free_attacks(evaluation: Evaluation) -> Iterator[Check]:
    kinds = {result.kind for result in evaluation.rows}
    if "white-box" not in kinds or not kinds & set(GRADIENT_FREE):
        return
    standing = {at for at, right in enumerate(evaluation.not_lost_when_clean) if right}
    by_gradient: set[int] = set()
    gradient_free: set[int] = set()  # in a cascade: those broken before a gradient was tried on them
    for result in evaluation.rows:
        broken = {at for at, right in enumerate(evaluation.correct_after(result)) if not right} & standing
        if evaluation.cascade:
            standing -= broken
        if result.kind in GRADIENT_FREE:
            gradient_free |= broken
        elif result.kind == "white-box":
            by_gradient |= broken
    yield attack_checks.queries_and_transfer(len(gradient_free - by_gradient), evaluation.samples)


def _of_search(evaluation: Evaluation) -> Iterator[Check]:
    results = evaluation.panel("search")
    if len(results) < 2:
        if results:
            yield not_run("surrogates", "the search tried one estimator only")
        return
    alone = [_robust(evaluation, result) for result in results]
    together = sum(all(after) for after in zip(*alone, strict=True))
    yield attack_checks.surrogates(min(map(sum, alone)), together, len(alone[0]), len(results))


def _robust(evaluation: Evaluation, result: AttackResult) -> list[bool]:
    """Which samples are not lost when clean, nor after a panel's attack."""
    return [
        clean and after
        for clean, after in zip(evaluation.not_lost_when_clean, evaluation.correct_after(result), strict=False)
    ]


def _robust_counts(evaluation: Evaluation, results: Sequence[AttackResult]) -> list[int]:
    return [sum(_robust(evaluation, result)) for result in results]
