"""All checks that an evaluation's results and a look at its model allow, in the order in which to read them."""

from collections.abc import Iterator, Sequence

from hosnn.checks import attack_checks, model_checks
from hosnn.checks.binarization_test import BinarizationTest
from hosnn.checks.probes import Diagnosis
from hosnn.checks.queries import BLOCK
from hosnn.results.check import Check
from hosnn.results.evaluation import AttackResult, Evaluation

SCALE_FREE = ("DLR", "APGD-T", "FAB")
"""Attacks whose losses do not saturate, by their names."""

BLIND = ("queries", "transfer")
"""Kinds of attacks that do not use the model's gradient."""


def findings(
    evaluation: Evaluation, diagnosis: Diagnosis | None, active: BinarizationTest | None = None
) -> tuple[Check, ...]:
    """Every check whose data is there; without a diagnosis those that follow from the results alone."""
    return (
        *(() if diagnosis is None else _of_the_model(evaluation, diagnosis)),
        *_of_the_attacks(evaluation),
        *(() if active is None else _of_known_points(active)),
    )


def _of_the_model(evaluation: Evaluation, found: Diagnosis) -> Iterator[Check]:
    count, white_box = found.samples, [row for row in evaluation.rows if row.kind == "white-box"]
    # Our layers are attacked through other surrogates than their own, and some losses do not saturate.
    useful = found.replaced is not None and found.replaced >= model_checks.FAITHFUL
    replaced = useful and any(row.estimator for row in white_box)
    scale_free = any(name in row.attack for row in white_box for name in SCALE_FREE)

    def of_own_gradient(check: Check) -> Check:
        return model_checks.softened(check, "attacks used other surrogates") if replaced else check

    yield of_own_gradient(model_checks.no_gradient(found.gradient))
    if found.zero is not None:
        yield of_own_gradient(model_checks.zero_gradients(found.zero, count))
    if found.fidelity is not None:
        yield of_own_gradient(model_checks.gradient_fidelity(found.fidelity, found.fidelity_eps))
    if found.saturated is not None:
        saturated = model_checks.saturated_loss(found.saturated, count)
        yield model_checks.softened(saturated, "some attacks used losses free of scale") if scale_free else saturated
    yield model_checks.saturated_softmax(found.certain, count)
    if found.dead is not None:
        yield of_own_gradient(model_checks.dead_pixels(found.dead))
    if found.still is not None:
        yield model_checks.rounded_input(found.still)
    yield model_checks.foreign_spikes(evaluation.network.spiking)
    yield model_checks.zero_budget(found.moved, min(count, BLOCK))
    yield model_checks.randomness(found.random)
    yield model_checks.carried_state(found.state)
    if found.batch_logits is not None and found.batch_predictions is not None:
        yield model_checks.batch_dependence(found.batch_logits, found.batch_predictions, count)
    if found.training is not None and found.training_gradient is not None:
        yield model_checks.training_mode(found.training, found.training_gradient, count)
    yield model_checks.ties(found.ties, count)
    yield model_checks.coarse_logits(found.distinct, found.dtype, found.half, evaluation.network.spiking)


def _of_the_attacks(evaluation: Evaluation) -> Iterator[Check]:
    rows = [*evaluation.rows, *(row for panel in evaluation.panels for row in panel.rows)]
    kinds = [row.kind for row in evaluation.rows]
    yield attack_checks.attacked(kinds.count("white-box"), kinds.count("queries") + kinds.count("transfer"))
    yield attack_checks.inside_threat(sum(guess >= 0 for row in rows for guess in row.predictions), evaluation.clamped)
    yield from _of_growing_eps(evaluation)
    yield from _of_steps(evaluation)
    yield from _of_controls(evaluation)
    yield from _of_blind_attacks(evaluation)
    yield from _of_panels(evaluation)
    search = evaluation.panel("search")
    if len(search) > 1:
        alone = [_standing(evaluation, row) for row in search]
        together = sum(all(left) for left in zip(*alone, strict=True))
        yield attack_checks.surrogate_sensitivity(min(map(sum, alone)), together, len(alone[0]), len(search))
    if evaluation.samples:
        yield attack_checks.sample_size(sum(evaluation.robust), evaluation.samples)


def _of_known_points(active: BinarizationTest) -> Iterator[Check]:
    yield attack_checks.active_test(active.found, active.by_chance, active.built, active.images)


def _of_panels(evaluation: Evaluation) -> Iterator[Check]:
    rows = [row for panel in evaluation.panels for row in panel.rows if row.threat == evaluation.threat]
    if not rows:
        return
    samples = max(len(row.predictions) for row in rows)
    fallen = {at for row in rows for at, right in enumerate(evaluation.correct_after(row)) if not right}
    yield attack_checks.broken_by_panels(sum(evaluation.robust[at] for at in fallen), samples)


def _of_growing_eps(evaluation: Evaluation) -> Iterator[Check]:
    rows = sorted(evaluation.panel("eps"), key=lambda row: row.eps)
    if len(rows) < 2:
        return
    counts = _counts(evaluation, rows)
    yield attack_checks.growing_eps(counts, len(rows[0].predictions))
    if evaluation.threat.startswith("linf") and rows[-1].eps >= 1:  # of other balls none here holds every image
        classes = 1 + max(*evaluation.labels, *evaluation.clean)
        yield attack_checks.unbounded(counts[-1], len(rows[-1].predictions), classes)


def _of_steps(evaluation: Evaluation) -> Iterator[Check]:
    rows = sorted(evaluation.panel("steps"), key=lambda row: row.steps)
    if len(rows) < 2:
        return
    counts, samples = _counts(evaluation, rows), len(rows[0].predictions)
    yield attack_checks.more_steps(counts, samples)
    yield attack_checks.converged(counts[-2], counts[-1], (rows[-2].steps, rows[-1].steps), samples)


def _of_controls(evaluation: Evaluation) -> Iterator[Check]:
    controls = {row.attack: row for row in evaluation.panel("controls")}
    if not controls and not evaluation.cascade:
        controls = {row.attack: row for row in evaluation.rows}
    noise, once = controls.get("noise"), controls.get("PGD-20")
    often, last = controls.get("PGD-20, 5 restarts"), controls.get("PGD-20, last point")
    if once is None:
        return
    samples, left = len(once.predictions), sum(_standing(evaluation, once))
    if noise is not None:
        clean = sum(_clean(evaluation)[:samples])
        yield attack_checks.noise_control(clean, sum(_standing(evaluation, noise)), left, samples)
    if often is not None:
        yield attack_checks.more_restarts([left, sum(_standing(evaluation, often))], samples)
    if last is not None:
        pairs = zip(_standing(evaluation, once), _standing(evaluation, last), strict=True)
        yield attack_checks.lost_on_the_way(sum(at_end and not on_the_way for on_the_way, at_end in pairs), samples)


def _of_blind_attacks(evaluation: Evaluation) -> Iterator[Check]:
    seeing = [row for row in evaluation.rows if row.kind == "white-box"]
    blind = [row for row in evaluation.rows if row.kind in BLIND]
    if not seeing or not blind:
        return
    before = _survivors(evaluation, seeing)
    after = [one and other for one, other in zip(before, _survivors(evaluation, blind), strict=True)]
    yield attack_checks.blind_attacks(sum(before) - sum(after), evaluation.samples)


def _survivors(evaluation: Evaluation, rows: Sequence[AttackResult]) -> list[bool]:
    """Which samples are correct when clean and after all of `rows`.

    In a cascade a row has no predictions for samples already lost, which count as lost.
    """
    return [all(left) for left in zip(_clean(evaluation), *map(evaluation.correct_after, rows), strict=True)]


def _standing(evaluation: Evaluation, row: AttackResult) -> list[bool]:
    """Which samples are correct when clean and after a panel's row."""
    return [one and other for one, other in zip(_clean(evaluation), evaluation.correct_after(row), strict=False)]


def _counts(evaluation: Evaluation, rows: Sequence[AttackResult]) -> list[int]:
    return [sum(_standing(evaluation, row)) for row in rows]


def _clean(evaluation: Evaluation) -> list[bool]:
    return [guess == label for guess, label in zip(evaluation.clean, evaluation.labels, strict=True)]
