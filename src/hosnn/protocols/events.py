"""The protocol for recordings of event cameras: at most so many events removed or added."""

from hosnn.errors import ConfigError
from hosnn.estimators import AdaptiveSharpness
from hosnn.protocols.attacks import attack_spec
from hosnn.protocols.protocol import MODEL_CHECK_IMAGES, AttackKind, AttackSpec, PanelPlan, Protocol
from hosnn.results.roles import Role, Strength
from hosnn.robustness.balls import Events
from hosnn.robustness.events import GreedyEvents, RandomEvents
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.surrogate import PiecewiseLinear, Sigmoid

STEPS = 40
"""Gradients of the greedy attack in the worst case; in the panel it takes `PANEL_STEPS`."""

PANEL_STEPS = 10


def events(threat: Threat) -> Protocol:
    """A random baseline and the greedy attack through three gradient estimators, each on all recordings, under a threat
    to events.

    Panel: accuracy against the number of events, from a quarter to four times as many.
    Raises ConfigError for another threat.
    """
    ball = threat.ball
    if not isinstance(ball, Events):
        raise ConfigError(
            f"protocol events got the threat {threat}; expected a number of events over the most at a place, by which "
            "frames are divided, e.g. --threat events:20/8"
        )
    numbers = sorted({max(round(ball.count * factor), 1) for factor in (0.25, 0.5, 1, 2, 4)})
    curve = tuple(
        _greedy(f"greedy @ {number} events", Threat(Events.of(number, ball.maximum)), PANEL_STEPS) for number in numbers
    )
    return Protocol(
        name="events",
        description=f"{ball.count} events of a recording removed or added, no two at the same place: at random, "
        f"and those of the largest gradient in at most {STEPS} steps",
        threat=threat,
        attacks=(
            attack_spec("random events", RandomEvents(threat), kind=AttackKind.QUERIES, role=Role.NOISE),
            _greedy("greedy, BPTT", threat, STEPS, Role.REFERENCE),
            attack_spec("greedy, ASSG", GreedyEvents(threat, STEPS), AdaptiveSharpness(), spiking=True),
            attack_spec("greedy, triangle 0.5", GreedyEvents(threat, STEPS), bptt(PiecewiseLinear(0.5)), spiking=True),
        ),
        samples=None,
        panels=(PanelPlan("eps", curve, samples=100),),
        model_check_samples=MODEL_CHECK_IMAGES,
        strength=Strength.GRADIENTS_ONLY,
    )


def _greedy(name: str, threat: Threat, steps: int, role: Role | None = None) -> AttackSpec:
    return attack_spec(name, GreedyEvents(threat, steps), bptt(Sigmoid(0.2)), method="greedy", role=role)
