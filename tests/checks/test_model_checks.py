import math
from collections.abc import Callable

import pytest

from hosnn.checks import attacked_model_checks, model_checks
from hosnn.results.check import SEVERITIES, Check, worst

BOUNDARIES: dict[str, tuple[Callable[[float], Check], float, float | None, float | None]] = {
    "zero gradients": (lambda share: model_checks.zero_gradients(share, 200), 0.01, 0.05, 0.2),
    "saturated loss": (lambda share: model_checks.saturated_loss(share, 200), 0.01, 0.05, 0.2),
    "saturated softmax": (lambda share: model_checks.saturated_softmax(share, 200), 0.5, 0.9, None),
    "range of scores": (lambda widest: model_checks.range_of_scores(widest, 200, False, "none"), 5.0, 1.0, None),
    "eps = 0": (lambda share: model_checks.zero_budget(share, 200), 0.0, None, 0.005),
    "randomness": (model_checks.randomness, 1e-5, 1e-2, None),
    "state between calls": (model_checks.state_between_calls, 1e-5, None, 1e-2),
    "batch": (lambda share: model_checks.batch(share, 0.0, 200), 0.05, 0.2, 0.9),
    "train and eval mode": (lambda share: model_checks.train_and_eval_mode(share, 0.0, 200), 0.01, 1.0, None),
    "gradient fidelity": (lambda share: model_checks.gradient_fidelity(share, 0.03), 0.99, 0.8, 0.5),
    "dead pixels": (model_checks.dead_pixels, 0.05, 0.3, 0.9),
    "rounded input": (model_checks.rounded_input, 0.1, 0.6, None),
    "zero gradients in the ball": (
        lambda share: attacked_model_checks.zero_gradients_in_ball(share, 300, 400),
        0.01,
        0.05,
        0.2,
    ),
    "fidelity in the ball": (
        lambda share: attacked_model_checks.fidelity_in_ball(share, 0.03, 300, 400),
        0.99,
        0.92,
        0.8,
    ),
    "with and without gradient": (
        lambda share: attacked_model_checks.with_and_without_gradient(share, 400),
        0.01,
        0.05,
        0.2,
    ),
}
"""Check by name: the function of one figure, and figures that must pass, warn and fail (None: cannot happen)."""


@pytest.mark.parametrize("name", BOUNDARIES)
def test_severity_follows_the_figure(name: str) -> None:
    make, *figures = BOUNDARIES[name]
    for figure, severity in zip(figures, SEVERITIES, strict=True):
        if figure is not None:
            check = make(figure)
            assert (check.name, check.severity, check.value) == (name, severity, figure)


@pytest.mark.parametrize("name", BOUNDARIES)
def test_a_worse_figure_is_never_judged_milder(name: str) -> None:
    make, good, warn, fail = BOUNDARIES[name]
    bad = fail if fail is not None else warn
    assert bad is not None
    judged = [SEVERITIES.index(make(good + (bad - good) * step / 100).severity) for step in range(101)]
    assert judged == sorted(judged)


@pytest.mark.parametrize("name", BOUNDARIES)
def test_what_is_not_a_number_never_passes(name: str) -> None:
    make = BOUNDARIES[name][0]
    assert make(math.nan).severity != "pass"


def test_a_class_changed_by_the_batch_weighs_more_than_a_logit() -> None:
    assert model_checks.batch(0.03, 0.03, 200).severity == "fail"
    assert model_checks.batch(0.03, 0.01, 200).severity == "pass"


@pytest.mark.parametrize(
    ("distinct", "dtype", "half", "spiking", "severity"),
    [
        (1.0, "float32", False, "none", "pass"),
        (0.1, "float32", False, "none", "warn"),
        (0.02, "float32", False, "none", "fail"),
        (0.02, "float32", True, "none", "fail"),
        (0.02, "float32", False, "hosnn", "pass"),
        (0.1, "float32", False, "hosnn", "pass"),
        (0.1, "float32", False, "foreign", "pass"),
        (1.0, "float16", True, "none", "warn"),
        (1.0, "float32", True, "hosnn", "warn"),
    ],
)
def test_a_grid_of_logits_is_excused_by_spikes_and_half_precision_by_nothing(
    distinct: float, dtype: str, half: bool, spiking: str, severity: str
) -> None:
    assert model_checks.coarse_logits(distinct, dtype, half, spiking).severity == severity


def test_gradients_and_estimators() -> None:
    assert model_checks.gradient(True).severity == "pass"
    assert model_checks.gradient(False).severity == "fail"
    assert [model_checks.gradient_estimators(kind).severity for kind in ("hosnn", "none", "foreign")] == [
        "pass",
        "pass",
        "warn",
    ]


def test_a_softened_failure_is_a_warning_that_says_why() -> None:
    failing = model_checks.zero_gradients(0.5, 200)
    downgraded = model_checks.downgraded(failing, "attacks went around")
    assert downgraded.severity == "warn"
    assert "attacks went around" in downgraded.figure
    assert worst([downgraded]) == "warn"
    for milder in (model_checks.zero_gradients(0.05, 200), model_checks.zero_gradients(0.0, 200)):
        assert model_checks.downgraded(milder, "attacks went around") == milder


def test_a_meaning_is_one_sentence() -> None:
    for make, good, *_ in BOUNDARIES.values():
        meaning = make(good).meaning
        assert meaning.endswith(".")
        assert ". " not in meaning
