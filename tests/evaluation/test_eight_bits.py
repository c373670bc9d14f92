"""Evaluations under threats to images of 8 bits, and what a report says of them and of norms with fewer attacks."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hosnn.checks.run_checks import all_checks
from hosnn.data import fashion_mnist_sample
from hosnn.errors import ConfigError
from hosnn.estimators import AdaptiveSharpness, WithMembraneMargin
from hosnn.evaluation.evaluate import evaluate
from hosnn.evaluation.store import file_stem
from hosnn.protocols.builtin import PROTOCOLS, full, protocol_by_name, smoke, standard
from hosnn.protocols.protocol import Protocol
from hosnn.report.evaluation_markdown import markdown_evaluation
from hosnn.report.evaluation_summary import finding, limitations
from hosnn.results.evaluation import Evaluation, Panel
from hosnn.robustness.apgd import APGD
from hosnn.robustness.fab import FAB
from hosnn.robustness.focused import FocusedSAPGD
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.threats import Threat
from tests.evaluation.synthetic import attack_result, guesses, rich

GRID = Threat.parse("linf:8/255@8bit")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def pictures() -> tuple[Tensor, Tensor]:
    return fashion_mnist_sample().test.batch(torch.arange(12))


def short(made: Protocol) -> Protocol:
    """Its panel of 8 bits alone, after its second attack."""
    panels = tuple(panel for panel in made.panels if panel.name == "8bit")
    return replace(made, attacks=made.attacks[1:2], panels=panels, search=None, model_check_samples=0)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name not in ("paper", "choices")])
@pytest.mark.parametrize("threat", ["linf:8/255@8bit", "l2:1@8bit", "l1:12@8bit", "linf:8/255/step@8bit"])
def test_a_protocol_under_a_threat_to_8_bits_attacks_images_of_8_bits_only(name: str, threat: str) -> None:
    made = protocol_by_name(name, Threat.parse(threat))
    specs = [*made.attacks, *(spec for panel in made.panels for spec in panel.attacks)]
    assert {spec.threat.bits for spec in specs} == {8} and "8bit" not in [panel.name for panel in made.panels]


@pytest.mark.parametrize("name", ["paper", "choices"])
def test_the_authors_attacks_leave_the_pixel_range_and_cannot_be_restricted_to_8_bits(name: str) -> None:
    with pytest.raises(ConfigError, match="leave out @8bit"):
        protocol_by_name(name, GRID)


def test_an_evaluation_runs_on_images_of_8_bits() -> None:
    result = evaluate(network(), pictures(), smoke(GRID))
    assert result.threat == "linf:8/255@8bit" == result.row("PGD-20").threat
    assert Evaluation.from_json(result.to_json()) == result
    assert "at 8/255 (8-bit images), model classifies" in finding(replace(result, checks=()))
    assert file_stem("smoke", result.threat) == "smoke-linf_8_255_8bit"


def test_images_of_more_bits_raise_before_the_model_is_called() -> None:
    def model(x: Tensor) -> Tensor:
        raise AssertionError("called")

    x, y = pictures()
    with pytest.raises(ConfigError, match=r"12 of 12 images with pixels that are not multiples of 1/255.*leave out"):
        evaluate(model, (x * 0.9, y), smoke(GRID))


@pytest.mark.parametrize("threat", ["linf:8/255", "l2:1.5", "l1:12", "linf:8/255/step"])
def test_standard_and_full_repeat_their_longest_attack_on_images_of_8_bits(threat: str) -> None:
    for made in (standard(Threat.parse(threat)), full(Threat.parse(threat))):
        panels = {panel.name: panel.attacks for panel in made.panels}
        free, (grid,) = panels["steps"][-1], panels["8bit"]
        assert grid.threat == replace(free.threat, bits=8) and grid.threat.relaxed == made.threat
        assert grid.estimator == free.estimator and grid.steps == free.steps and type(grid.attack) is type(free.attack)


def test_images_that_8_bits_do_not_hold_skip_the_panel_with_the_reason() -> None:
    (x, y), made = pictures(), short(standard())
    assert len(evaluate(network(), (x, y), made).panel("8bit")) == 1
    result = evaluate(network(), (x * 0.9, y), made)
    assert result.panel("8bit") == ()
    reason = "SA-PGD, 400 steps, images of 8 bits: the images have pixels that are not multiples of 1/255"
    assert reason in result.skipped and reason in " ".join(limitations(result))


def with_eight_bits(right: int) -> Evaluation:
    """A result whose attack on images of 8 bits leaves the first `right` of 100."""
    result = rich()  # of whose first 100 images 83 are robust
    row = attack_result("SA-PGD, images of 8 bits", guesses(result.labels[:100], right), "linf:8/255@8bit")
    return replace(result, panels=(*result.panels, Panel("8bit", (row,))))


def test_the_report_says_what_8_bits_change() -> None:
    said = " ".join(limitations(with_eight_bits(58)))
    assert "Restricted to images of 8 bits, APGD-CE-100 leaves 58 of 100 images correct, and 55 without" in said
    assert "## Adversarial images of 8 bits" in markdown_evaluation(with_eight_bits(58))
    assert "8 bits" not in " ".join(limitations(rich()))


@pytest.mark.parametrize("right", [100, 50])
def test_an_image_broken_with_8_bits_is_broken_without(right: int) -> None:
    result = with_eight_bits(right)
    alone = replace(result, panels=result.panels[-1:])
    check = next(check for check in all_checks(alone, None) if check.name == "panels")
    assert check.value == sum(result.robust[right:100]) / 100


def test_in_l1_and_l2_another_attack_takes_the_place_of_sa_pgd_and_the_report_names_all() -> None:
    result = replace(rich(), threat="l2:3/2")
    said = " ".join(limitations(result))
    assert "Not defined in l2 and left out: SA-PGD (Auto-PGD in its place). The attacks in l2 are APGD-CE," in said
    assert "left out" not in " ".join(limitations(rich()))


@pytest.mark.parametrize(("threat", "attack"), [("linf:8/255", SAPGD), ("l2:1.5", APGD), ("l1:12", FAB)])
def test_in_every_norm_the_first_attack_and_the_curves_are_of_an_attack_that_is_strong_in_it(
    threat: str, attack: type
) -> None:
    made = standard(Threat.parse(threat))
    panels = {panel.name: panel.attacks for panel in made.panels}
    first = made.attacks[0].attack
    assert isinstance(first.attack if isinstance(first, WithMembraneMargin) else first, (attack, FocusedSAPGD))
    assert {type(spec.attack) for spec in (*panels["steps"], *panels["8bit"])} == {attack}
    assert {type(spec.attack) for spec in panels["eps"]} == {FAB if attack is FAB else APGD}
    assert made.attacks[0].estimator == AdaptiveSharpness()
