"""What a protocol attacks with under each norm, and what it states about itself."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.evaluation.evaluate import evaluate
from hosnn.protocols.attacks import attack_spec
from hosnn.protocols.builtin import PROTOCOLS, protocol_by_name, standard
from hosnn.protocols.protocol import AttackSpec, Protocol, steps_of, threat_of
from hosnn.results.roles import Role, Strength, role_by_name, strength_by_protocol
from hosnn.rng import SampleRandom
from hosnn.robustness.apgd import APGD, APGDTargeted
from hosnn.robustness.fab import FAB
from hosnn.robustness.hop_skip_jump import HopSkipJump
from hosnn.robustness.model import Model
from hosnn.robustness.pgd import PGD
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.square import Square
from hosnn.robustness.threats import DEFAULT_THREAT, NORMS, Threat

THREATS = ("linf:8/255", "l2:1.5", "l1:12", "linf:8/255/step")
EVERY = [protocol_by_name(name, Threat.parse(threat)) for name in PROTOCOLS for threat in THREATS]


def specs(made: Protocol) -> Iterator[AttackSpec]:
    yield from made.attacks
    for panel in made.panels:
        yield from panel.attacks


def parts(value: Any) -> Iterator[Any]:
    """An attack and all attacks inside it."""
    while value is not None:
        yield value
        value = getattr(value, "attack", None)


@pytest.mark.parametrize("attack", [APGD, APGDTargeted, SAPGD, FAB, Square, HopSkipJump])
@pytest.mark.parametrize("ball", NORMS)
def test_an_attack_can_be_made_in_exactly_the_norms_that_it_declares(attack: Any, ball: Any) -> None:
    threat = Threat(ball(0.5))
    if ball.name in attack.norms:
        assert attack(threat).threat == threat
    else:
        with pytest.raises(ConfigError, match=f"got the threat {threat}"):
            attack(threat)


@pytest.mark.parametrize("made", EVERY, ids=lambda made: f"{made.name} {made.threat}")
def test_every_attack_of_a_protocol_is_defined_in_its_norm(made: Protocol) -> None:
    for spec in specs(made):
        norm = spec.threat.ball.name
        assert all(norm in getattr(attack, "norms", (norm,)) for attack in parts(spec.attack))


@pytest.mark.parametrize("made", EVERY, ids=lambda made: f"{made.name} {made.threat}")
def test_threat_and_steps_of_a_spec_are_those_of_its_attack(made: Protocol) -> None:
    for spec in specs(made):
        assert spec.threat == threat_of(spec.attack)
        assert spec.steps in (0, steps_of(spec.attack))


def test_descriptions_name_what_a_norm_leaves_out() -> None:
    assert "left out" not in standard().description
    assert standard(Threat.parse("l2:1")).description.endswith(
        "; not defined in l2 and left out: SA-PGD (Auto-PGD in its place)"
    )
    assert standard(Threat.parse("l1:9")).description.endswith(
        "; not defined in l1 and left out: Auto-PGD (plain PGD in its place), SA-PGD (FAB-T in its place), Square"
    )


def test_roles_and_strengths_are_those_that_files_without_them_are_read_with() -> None:
    for made in EVERY:
        if made.name != "quick":  # younger than files without strengths
            assert made.strength == strength_by_protocol(made.name)
    made = protocol_by_name("full", DEFAULT_THREAT)
    controls = next(panel for panel in made.panels if panel.name == "controls")
    for spec in (*made.attacks, *controls.attacks, *protocol_by_name("smoke", DEFAULT_THREAT).attacks):
        if spec.role is not Role.SINGLE_STEP:  # younger than files without roles
            assert spec.role == role_by_name(spec.name), spec.name
    roles = [spec.role for spec in controls.attacks if spec.role]
    assert set(roles) == set(Role) - {Role.SCALE_FREE_LOSS} and len(set(roles)) == len(roles)
    assert [strength.rank for strength in Strength] == [0, 1, 2, 3, 4]


def test_an_attack_without_a_threat_needs_a_spec_written_out() -> None:
    @dataclass(frozen=True)
    class Shift:
        def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
            return x

    with pytest.raises(ConfigError, match="has no threat"):
        attack_spec("shift", Shift())
    assert AttackSpec(name="shift", attack=Shift(), threat=DEFAULT_THREAT).id == "shift"


def test_another_name_for_an_attack_changes_nothing_but_the_name() -> None:
    x, y = torch.rand(12, 1, 4, 4), torch.arange(12) % 3
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    spec = attack_spec("PGD", PGD(DEFAULT_THREAT, 3))
    plain = Protocol(name="test", description="", threat=DEFAULT_THREAT, attacks=(spec,), samples=None)
    renamed = replace(plain, attacks=(replace(spec, name="projected gradient"),))
    assert renamed.settings == plain.settings
    first, second = (evaluate(model, (x, y), each).rows[0] for each in (plain, renamed))
    assert second.attack == "projected gradient" and second.predictions == first.predictions
