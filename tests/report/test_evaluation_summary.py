from dataclasses import replace

import pytest

from hosnn.report.evaluation_summary import finding, limitations, weakness
from hosnn.results.check import Check
from hosnn.results.evaluation import Evaluation, Network
from tests.evaluation.synthetic import CHECKS, evaluation, rich

SOUND = replace(rich(), checks=tuple(check for check in CHECKS if check.severity == "pass"))
WARNED = replace(rich(), checks=tuple(check for check in CHECKS if check.severity != "fail"))


def test_a_sound_finding_is_the_number_and_nothing_else() -> None:
    assert finding(SOUND) == (
        "Under the standard protocol at 8/255, model-0 classifies 41.5 % of 200 images correctly after every attack, "
        "and 90.0 % without attack."
    )


def test_a_failed_check_comes_first_and_says_why() -> None:
    said = finding(rich())
    assert said.startswith(
        "This number must not be believed, because 1 of 5 checks fails (large eps: 14.0 % left at eps 255/255): under "
    )
    assert "classifies 41.5 % of 200 images" in said and "ties" not in said


def test_a_warning_comes_last() -> None:
    said = finding(WARNED)
    assert said.startswith("Under the standard protocol")
    assert said.endswith("; 1 of 4 checks warns (ties: 1.5 % of 200 images).")


def test_many_failed_checks_are_counted_and_the_first_named() -> None:
    failed = tuple(Check(f"check {at}", "fail", f"{at} %", at, "It fails.") for at in range(5))
    said = finding(replace(rich(), checks=failed))
    assert "5 of 5 checks fail (check 0: 0 %; check 1: 1 %; check 2: 2 %; and 2 more)" in said


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Network(spiking="foreign"), "another library"),
        (Network(spiking="hosnn", layers=3, evidence="Heaviside emits spikes"), "not all spikes come from"),
        (Network(spiking="unknown", evidence="Neuron emits multiples of one value"), "may spike (Neuron emits"),
        (Network(spiking="hosnn", layers=3, gradient=False), "no gradient"),
        (Network(spiking="foreign", gradient=False), "no gradient"),
    ],
)
@pytest.mark.parametrize("result", [SOUND, WARNED, rich()], ids=["sound", "warned", "failed"])
def test_a_model_that_could_not_be_attacked_in_full_is_said_to_be(
    result: Evaluation, network: Network, why: str
) -> None:
    said = finding(replace(result, network=network))
    assert "the evaluation is weaker" in said and why in said
    assert said.startswith("This number must not be believed") == (result.verdict == "fail")
    assert len(limitations(replace(result, network=network))) == len(limitations(result)) + 1


def test_a_plain_function_is_one_nobody_could_look_into() -> None:
    unknown = replace(SOUND, network=Network(spiking="unknown"))
    assert "plain function" in weakness(replace(unknown, model_sha256=""))
    assert weakness(unknown) == ""  # an evaluation of the former format: not recorded
    assert weakness(replace(SOUND, network=Network(spiking="none"))) == ""


def test_limitations_warn_of_small_samples_weak_protocols_and_what_was_not_done() -> None:
    small = " ".join(limitations(evaluation("smoke", 50, 45, {"PGD-20": 30})))
    assert "A small sample: 50 images" in small and "weak attack" in small and "No checks" in small
    large = evaluation("standard", 5000, 4000, {"APGD-CE": 3000})
    assert limitations(replace(large, checks=SOUND.checks)) == []
    said = " ".join(limitations(replace(rich(), network=Network(spiking="hosnn", layers=3, random=True))))
    assert "EOT" in said and "1 attack of the protocol could not be run: transfer from the ANN twin" in said
    assert "only follows gradients" in " ".join(limitations(evaluation("sweep", 50, 45, {})))
