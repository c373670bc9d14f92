"""Panels of the built-in protocols: attacks that all run in full on the first images, for curves, tables and checks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from hosnn.estimators import BPTR, RGA, AdaptiveSharpness, Estimator
from hosnn.protocols.applicability import AUTO_PGD, SA_PGD, applicable
from hosnn.protocols.attacks import (
    SAPGD_STEPS,
    SQUARE_QUERIES,
    attack_spec,
    hop_skip_jump,
    square,
    strongest,
    transfers,
)
from hosnn.protocols.protocol import AttackKind, AttackSpec, BestEstimator, PanelPlan, steps_of
from hosnn.results.roles import Role
from hosnn.robustness.apgd import APGD
from hosnn.robustness.balls import format_eps
from hosnn.robustness.ensembles import Noise
from hosnn.robustness.fab import FAB
from hosnn.robustness.losses import margin
from hosnn.robustness.model import Attack
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt, tssl_bp

PANEL_IMAGES = 200
"""Images of the panels: every attack of the matrix and of the checks runs in full on the same ones."""

MATRIX_COLUMNS: tuple[tuple[str, Estimator | BestEstimator], ...] = (
    ("full BPTT", bptt()),
    ("TSSL-BP", tssl_bp()),
    ("best found", BestEstimator(0)),
    ("ASSG", AdaptiveSharpness()),
    ("RGA", RGA()),
    ("BPTR", BPTR()),
)
"""Estimators of the matrix of attacks and estimators."""


def panels(threat: Threat, transfer_sources: Mapping[str, nn.Module]) -> tuple[PanelPlan, ...]:
    """Accuracy against eps and against steps, the matrix of attacks and estimators, images of 8 bits, controls."""
    name, estimator = _short(threat)[0], BestEstimator(0) if applicable(AUTO_PGD, threat) else AdaptiveSharpness()
    return (
        eps_panel(lambda threat: _short(threat)[1], threat, name, estimator, PANEL_IMAGES),
        steps_panel(threat),
        matrix_panel(threat),
        *eight_bit_panel(threat),
        controls_panel(threat, transfer_sources),
    )


def _short(threat: Threat) -> tuple[str, Attack]:
    """A short attack that is sound in the threat's norm, and its name; plain PGD is not in l1."""
    if applicable(AUTO_PGD, threat):
        return "APGD-20", APGD(threat, 20, loss=margin)
    return "FAB-T", FAB(threat, 50, targets=3)


def eps_panel(
    make: Callable[[Threat], Attack], threat: Threat, name: str, estimator: Estimator | BestEstimator, samples: int
) -> PanelPlan:
    """One attack at a quarter to eight times the threat's eps and, in linf, at the eps whose ball holds every image.

    make  builds the attack for a threat
    """
    largest = threat.ball.whole_range
    budgets = {min(factor * threat.ball.eps, largest) for factor in (0.25, 0.5, 1, 2, 4, 8)}
    if largest < float("inf"):
        budgets.add(largest)
    attacks = tuple(
        attack_spec(f"{name} @ {format_eps(eps)}", make(threat.with_eps(eps)), estimator, method=name, counted=False)
        for eps in sorted(budgets)
    )
    return PanelPlan("eps", attacks, samples)


def steps_panel(threat: Threat) -> PanelPlan:
    """The strongest attack with a sixteenth, an eighth, ... and all of its steps."""
    counts = [SAPGD_STEPS // 2**halvings for halvings in (4, 3, 2, 1, 0)]
    return PanelPlan("steps", tuple(_strongest(threat, count) for count in counts), PANEL_IMAGES)


def eight_bit_panel(threat: Threat) -> Sequence[PanelPlan]:
    """The last attack of `steps_panel`, restricted to adversarial images of 8 bits; none if the threat is restricted to
    a number of bits already, or to no pixel range."""
    if threat.bits is not None or threat.domain is None:
        return ()
    spec = _strongest(replace(threat, bits=8), SAPGD_STEPS)
    return (PanelPlan("8bit", (replace(spec, name=f"{spec.name}, images of 8 bits"),), PANEL_IMAGES),)


def _strongest(threat: Threat, count: int) -> AttackSpec:
    name, attack = strongest(threat, count)
    return attack_spec(f"{name}, {steps_of(attack)} steps", attack, AdaptiveSharpness())


def matrix_panel(threat: Threat) -> PanelPlan:
    """Each attack through each estimator."""
    methods: dict[str, Attack] = {
        "FGSM": fgsm(threat),
        "PGD-20": PGD(threat),
    }
    methods |= [_short(threat)]
    if applicable(SA_PGD, threat):
        methods["SA-PGD-20"] = SAPGD(threat, 20)
    attacks = tuple(
        attack_spec(f"{method}, {column}", attack, estimator, spiking=estimator != bptt(), method=method, counted=False)
        for column, estimator in MATRIX_COLUMNS
        for method, attack in methods.items()
    )
    return PanelPlan("matrix", attacks, PANEL_IMAGES)


def controls_panel(threat: Threat, transfer_sources: Mapping[str, nn.Module]) -> PanelPlan:
    """Noise, PGD and its variants for the checks; transfer and Square on all images of the panel.

    In the cascade transfer and Square see only the images that white-box attacks left.
    """
    best = BestEstimator(0)
    controls = (
        attack_spec("noise", Noise(threat), kind=AttackKind.CONTROL, role=Role.NOISE),
        attack_spec("PGD-20", PGD(threat), best, role=Role.REFERENCE),
        attack_spec("FGSM", fgsm(threat), best, counted=False, role=Role.SINGLE_STEP),
        attack_spec("PGD-20, 5 restarts", PGD(threat, restarts=5), best, role=Role.MORE_RESTARTS),
        attack_spec("PGD-20, last point", PGD(threat, keep_best=False), best, role=Role.LAST_POINT),
        *transfers(threat, transfer_sources),
        *square(threat, SQUARE_QUERIES),
    )
    return PanelPlan("controls", controls, PANEL_IMAGES)


def decision_panel(threat: Threat) -> tuple[PanelPlan, ...]:
    """An attack that sees only the predicted class; on 200 images only, because it needs many queries."""
    attacks = tuple(hop_skip_jump(threat))
    return (PanelPlan("decision", attacks, PANEL_IMAGES),) if attacks else ()
