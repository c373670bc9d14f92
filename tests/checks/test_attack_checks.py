"""Checks of what attacks achieved, alone and assembled from an evaluation's rows."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from hosnn.checks import attack_checks
from hosnn.checks.run_checks import all_checks
from hosnn.results.check import Check
from hosnn.results.evaluation import AttackResult, Evaluation, Panel
from hosnn.results.roles import Role

SAMPLES = 200


def left(correct: int | Sequence[bool], samples: int = SAMPLES) -> tuple[int, ...]:
    """Predictions of which the first `correct`, or those marked, are right: labels are 0 to 9 in turn."""
    marked = [at < correct for at in range(samples)] if isinstance(correct, int) else correct
    return tuple(at % 10 if right else (at + 1) % 10 for at, right in enumerate(marked))


def row(
    name: str,
    correct: int | Sequence[bool],
    kind: str = "white-box",
    eps: float = 0.03,
    steps: int = 0,
    role: Role | None = None,
) -> AttackResult:
    return AttackResult(
        attack=name,
        threat="linf:0.03",
        eps=eps,
        predictions=left(correct),
        seconds=1.0,
        kind=kind,
        method=name,
        steps=steps,
        role=role,
    )


def controls(reference: int, **others: int | Sequence[bool]) -> list[AttackResult]:
    """Attacks named otherwise than in our protocols, found by role: which samples the reference and others leave."""
    roles = {"reference": reference} | others
    return [row(f"attack {name}", correct, role=Role(name.replace("_", "-"))) for name, correct in roles.items()]


def evaluation(rows: Sequence[AttackResult] = (), clean: int = 180, **panels: Sequence[AttackResult]) -> Evaluation:
    return Evaluation(
        protocol="made-up",
        description="",
        threat="linf:0.03",
        cascade=True,
        settings="0" * 64,
        model="model",
        model_sha256="",
        dataset="images",
        dataset_sha256="",
        seed=0,
        index=tuple(range(SAMPLES)),
        labels=tuple(at % 10 for at in range(SAMPLES)),
        clean=left(clean),
        rows=tuple(rows),
        panels=tuple(Panel(name, tuple(made)) for name, made in panels.items()),
        seconds=1.0,
        versions={},
        machine={},
    )


def found(result: Evaluation) -> dict[str, Check]:
    return {check.name: check for check in all_checks(result, None)}


@pytest.mark.parametrize(
    ("robust", "severity"),
    [([90, 60, 30, 0], "pass"), ([90, 60, 61, 0], "pass"), ([90, 60, 63, 0], "warn"), ([90, 30, 60, 0], "fail")],
)
def test_more_effort_must_not_help_the_defender(robust: list[int], severity: str) -> None:
    for check in (
        attack_checks.accuracy_against_eps,
        attack_checks.more_steps,
        attack_checks.more_restarts,
        attack_checks.single_step,
    ):
        assert check(robust, SAMPLES).severity == severity


@pytest.mark.parametrize(
    ("robust", "severity"), [(0, "pass"), (1, "pass"), (5, "warn"), (20, "warn"), (40, "fail"), (200, "fail")]
)
def test_without_a_bound_no_more_than_chance_may_stand(robust: int, severity: str) -> None:
    assert attack_checks.unbounded_attack(robust, SAMPLES, classes=10).severity == severity


@pytest.mark.parametrize(
    ("past", "samples", "severity"),
    [(3, 1000, "pass"), (10, 1000, "warn"), (30, 1000, "fail"), (1, 100, "pass"), (2, 100, "warn"), (3, 100, "fail")],
)
def test_convergence_in_points_but_never_by_a_single_image(past: int, samples: int, severity: str) -> None:
    assert attack_checks.convergence(50, 50 - past, past, (50, 100), samples).severity == severity


def test_convergence_counts_only_what_the_worst_case_leaves() -> None:
    shorter, longer = [at < 100 for at in range(SAMPLES)], [at < 90 for at in range(SAMPLES)]
    steps = [row("PGD", shorter, steps=50), row("PGD", longer, steps=100)]
    assert found(evaluation(steps=steps))["convergence"].severity == "fail"
    covered = found(evaluation([row("stronger", [at < 92 for at in range(SAMPLES)])], steps=steps))["convergence"]
    assert covered.value == pytest.approx(2 / SAMPLES)
    assert covered.severity == "warn"
    assert f"breaks 2 of {SAMPLES} images that the worst case leaves" in covered.figure


def test_a_longer_run_that_leaves_images_which_the_worst_case_lost_converged() -> None:
    """Whether more steps leave more images is another check's matter (`more steps`)."""
    shorter, longer = [at < 90 for at in range(SAMPLES)], [5 < at < 100 for at in range(SAMPLES)]
    worst = row("stronger", [10 <= at < 90 for at in range(SAMPLES)])
    checks = found(evaluation([worst], steps=[row("PGD", shorter, steps=50), row("PGD", longer, steps=100)]))
    assert (checks["convergence"].value, checks["convergence"].severity) == (0, "pass")
    assert checks["more steps"].severity != "pass"


@pytest.mark.parametrize(
    ("noise", "attacked", "severity"),
    [(178, 60, "pass"), (179, 170, "pass"), (130, 100, "warn"), (180, 180, "warn"), (120, 119, "fail")],
)
def test_noise_must_be_much_weaker_than_the_attack(noise: int, attacked: int, severity: str) -> None:
    assert attack_checks.random_noise(180, noise, attacked, SAMPLES).severity == severity


@pytest.mark.parametrize(
    ("unseen", "samples", "severity"),
    [(0, 1000, "pass"), (2, 1000, "pass"), (3, 1000, "warn"), (6, 1000, "fail"), (1, 100, "warn"), (2, 100, "fail")],
)
def test_attacks_without_gradients_should_find_nothing_new(unseen: int, samples: int, severity: str) -> None:
    assert attack_checks.queries_and_transfer(unseen, samples).severity == severity


def test_sample_size() -> None:
    assert attack_checks.sample_size(250, 500).severity == "warn"
    assert attack_checks.sample_size(500, 1000).severity == "pass"
    assert attack_checks.sample_size(5000, 10000).severity == "pass"
    assert attack_checks.sample_size(5000, 10000).value == pytest.approx(0.0098, abs=1e-4)


def test_surrogates_and_last_steps_count_images_once() -> None:
    first = [at < 100 for at in range(SAMPLES)]
    second = [10 <= at < 120 for at in range(SAMPLES)]
    result = evaluation(
        search=[row("wide", first), row("narrow", second)],
        controls=controls(90, last_point=[at < 90 or 95 <= at < 100 for at in range(SAMPLES)]),
    )
    assert found(result)["surrogates"].value == 10 / SAMPLES  # best 100, together 90
    assert found(result)["last step"].value == 5 / SAMPLES


def test_only_images_that_gradients_left_count_as_unseen() -> None:
    """Square takes 30: 20 of those that APGD took before, 4 wrong from the start, 6 new."""
    apgd = row("APGD", [at >= 20 for at in range(SAMPLES)])
    square = row("Square", [26 <= at < 176 for at in range(SAMPLES)], "queries")
    clean = evaluation([apgd, square], clean=176)
    check = found(clean)["queries and transfer"]
    assert check.value == 6 / SAMPLES
    assert check.severity == "fail"
    assert "queries and transfer" not in found(evaluation([apgd]))
    assert "queries and transfer" not in found(evaluation([square]))


def test_rows_may_come_in_any_order() -> None:
    curve = [row("PGD", count, eps=eps) for eps, count in ((1.0, 0), (0.01, 150), (0.03, 90))]
    steps = [row("PGD", count, steps=count_) for count_, count in ((100, 80), (10, 120), (50, 80))]
    checks = found(evaluation(eps=curve, steps=steps))
    for name in ("accuracy against eps", "unbounded attack", "more steps", "convergence"):
        assert checks[name].severity == "pass", name
    assert "50 to 100" in checks["convergence"].figure


def test_a_curve_that_ends_at_a_bound_says_nothing_about_unbounded_attacks() -> None:
    bounded = evaluation(eps=[row("PGD", 150, eps=0.01), row("PGD", 90, eps=0.25)])
    assert "unbounded attack" not in found(bounded)
    assert "accuracy against eps" in found(bounded)


@pytest.mark.parametrize(("denied", "severity"), [(0, "pass"), (1, "pass"), (2, "fail"), (40, "fail")])
def test_successes_that_the_verdict_denies_count_once(denied: int, severity: str) -> None:
    positions = tuple(range(denied))
    denying = replace(row("APGD", 90), denied=positions)
    result = evaluation([denying, replace(denying, attack="PGD")], eps=[replace(denying, attack="PGD @ 1")])
    check = found(result)["claimed successes"]
    assert (check.severity, check.value) == (severity, denied / SAMPLES)
    assert "claimed successes" not in found(evaluation([row("APGD", 90)]))


def test_many_steps_are_compared_with_one() -> None:
    assert found(evaluation(controls=controls(60, single_step=90)))["single step"].severity == "pass"
    assert found(evaluation(controls=controls(90, single_step=60)))["single step"].severity == "fail"


def test_noise_that_is_as_strong_as_pgd() -> None:
    checks = found(evaluation(controls=controls(119, noise=120, more_restarts=130)))
    assert checks["random noise"].severity == "fail"
    assert checks["more restarts"].severity == "fail"
    separate = replace(evaluation(controls(60, noise=178)), cascade=False)
    assert found(separate)["random noise"].severity == "pass"


def test_a_check_of_a_panel_that_the_protocol_does_not_have_is_absent() -> None:
    assert set(found(evaluation())) == {"attacks", "inside the threat", "sample size"}


def test_a_check_whose_data_a_panel_lacks_says_so() -> None:
    one = [row("PGD", 90)]
    checks = found(evaluation(eps=one, steps=one, search=one, controls=one))
    names = {"accuracy against eps", "more steps", "convergence", "surrogates", "random noise", "more restarts"}
    for name in (*names, "last step", "single step"):
        assert (checks[name].severity, checks[name].figure[:8]) == ("warn", "not run:"), name
    assert "last-point" in found(evaluation(controls=controls(90, noise=170)))["last step"].figure
    assert "not run" not in found(evaluation(controls=controls(90, noise=170)))["random noise"].figure


def test_every_check_that_is_not_run_has_the_name_it_has_when_run() -> None:
    one, two = [row("PGD", 90)], [row("PGD", 90, steps=5), row("PGD", 80, steps=10)]
    everything = controls(90, noise=170, single_step=120, more_restarts=80, last_point=90)
    missing = found(evaluation(eps=one, steps=one, search=one, controls=one))
    assert set(missing) <= set(found(evaluation(eps=two, steps=two, search=two, controls=everything)))


def test_renaming_an_attack_drops_no_check() -> None:
    result = evaluation(controls=controls(90, noise=170, more_restarts=80, last_point=90))
    renamed = tuple(replace(each, attack=f"renamed {at}") for at, each in enumerate(result.panel("controls")))
    assert all_checks(replace(result, panels=(Panel("controls", renamed),)), None) == all_checks(result, None)


def test_a_file_without_roles_has_those_of_the_names_its_attacks_had() -> None:
    def without_role(result: AttackResult) -> AttackResult:
        return replace(result, role=None)

    names = {Role.NOISE: "noise", Role.REFERENCE: "PGD-20", Role.MORE_RESTARTS: "PGD-20, 5 restarts"}
    names |= {Role.LAST_POINT: "PGD-20, last point", Role.SCALE_FREE_LOSS: "APGD-DLR"}
    result = evaluation(controls=[row(name, 90, role=role) for role, name in names.items()])
    content = result.to_json()
    assert Evaluation.from_json(content) == result
    for each in content["panels"][0]["rows"]:
        del each["role"]
    assert Evaluation.from_json(content) == result
    silent = replace(result, panels=(Panel("controls", tuple(map(without_role, result.panel("controls")))),))
    assert Evaluation.from_json(silent.to_json()) == silent


def test_images_checked_are_counted_over_all_rows() -> None:
    cascade = row("APGD", 90), replace(row("Square", 90, "queries"), predictions=(0, -1) * 100)
    checks = found(evaluation(cascade, eps=[row("PGD", 90), row("PGD", 80, eps=0.1)]))
    assert checks["inside the threat"].value == 200 + 100 + 400


def test_a_model_that_nothing_attacked_fails() -> None:
    assert found(evaluation())["attacks"].severity == "fail"
    assert found(evaluation([row("noise", 170, kind="control")]))["attacks"].severity == "fail"
    assert found(evaluation([row("Square", 170, kind="queries")]))["attacks"].severity == "warn"
    assert found(evaluation([row("PGD", 170)]))["attacks"].severity == "pass"


@pytest.mark.parametrize(("broken", "severity"), [(0, "pass"), (1, "pass"), (2, "warn"), (6, "warn"), (7, "fail")])
def test_what_panels_take_beyond_the_worst_case_is_counted_once(broken: int, severity: str) -> None:
    beyond = row("HopSkipJump", 100 - broken, kind="queries")
    elsewhere = replace(row("PGD @ 1", 0, eps=1.0), threat="linf:1")
    result = evaluation([row("PGD", 100)], decision=[beyond], matrix=[beyond], eps=[elsewhere])
    check = found(result)["panels"]
    assert (check.severity, check.value) == (severity, broken / SAMPLES)


def test_a_budget_that_takes_few_images_is_a_warning_not_a_failure() -> None:
    assert attack_checks.random_noise(180, 179, 178, SAMPLES).severity == "warn"
    assert attack_checks.random_noise(180, 160, 160, SAMPLES).severity == "fail"


@pytest.mark.parametrize("threat", ["l2:64", "l1:1000"])
def test_only_a_ball_that_holds_every_image_is_unbounded(threat: str) -> None:
    rows = [row("PGD", 90), replace(row("PGD @ 64", 90), threat=threat, eps=64.0)]
    assert "unbounded attack" not in found(replace(evaluation(eps=rows), threat=threat))


@pytest.mark.parametrize("first", ["queries", "white-box"])
def test_what_only_queries_break_counts_wherever_they_stand(first: str) -> None:
    """In a cascade a gradient attack after them is not given what they broke."""
    queries, gradient = row("Square", 60, kind="queries"), row("PGD", 180)
    rows = [queries, replace(gradient, predictions=left(60))] if first == "queries" else [gradient, queries]
    check = found(evaluation(rows))["queries and transfer"]
    assert "120 of 200" in check.figure and check.severity == "fail"


def test_an_image_that_is_tied_without_an_attack_is_not_broken_by_noise() -> None:
    tied = tuple(range(100, 120))
    panel = [row("PGD", 20, role=Role.REFERENCE), row("noise", 180, role=Role.NOISE)]
    panel = [replace(each, tied=tied) for each in panel]
    assert "breaks 0," in found(replace(evaluation(controls=panel), clean_tied=tied))["random noise"].figure
