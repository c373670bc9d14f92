"""Which attacks of a protocol apply: by the threat's norm when it is built, by the model when it is run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from hosnn.estimators import Through
from hosnn.protocols.protocol import AttackKind, AttackSpec, Protocol
from hosnn.results.evaluation import Network
from hosnn.robustness.apgd import APGD
from hosnn.robustness.fab import FAB
from hosnn.robustness.hop_skip_jump import HopSkipJump
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.square import Square
from hosnn.robustness.threats import Threat


@dataclass(frozen=True)
class AttackFamily:
    """Attacks of one kind: their name in descriptions, the norms they are used in, what takes their place by norm."""

    name: str
    norms: tuple[str, ...]
    replacements: Mapping[str, str] = field(default_factory=dict)


AUTO_PGD = AttackFamily("Auto-PGD", APGD.norms, {"l1": "plain PGD"})
SA_PGD = AttackFamily("SA-PGD", SAPGD.norms, {"l2": "Auto-PGD", "l1": "FAB-T"})
FAB_T = AttackFamily("FAB-T", FAB.norms)
SQUARE = AttackFamily("Square", Square.norms)
HOP_SKIP_JUMP = AttackFamily("HopSkipJump", HopSkipJump.norms)

ESTIMATOR_IN_NAME = r",? ((full )?BPTT( w=\S+)?|ASSG)$"
"""The end of the names of attacks that the built-in protocols run through several estimators."""

ESTIMATOR_IN_DESCRIPTION = "surrogate|estimator|BPTT|TSSL-BP|gradients? through"


def applicable(family: AttackFamily, threat: Threat) -> bool:
    """Whether protocols use these attacks under the threat."""
    return threat.ball.name in family.norms


def undefined(threat: Threat) -> list[str]:
    """Attacks of `standard` and `full` that are not defined in the threat's norm, each with what takes its place."""
    norm = threat.ball.name
    return [
        family.name + (f" ({family.replacements[norm]} in its place)" if norm in family.replacements else "")
        for family in (AUTO_PGD, SA_PGD, FAB_T, SQUARE)
        if not applicable(family, threat)
    ]


def restriction(threat: Threat) -> str:
    """The end of a protocol's description: attacks left out because of the threat's norm; empty if there are none."""
    missing = undefined(threat)
    return f"; not defined in {threat.ball.name} and left out: {', '.join(missing)}" if missing else ""


def fit_to_task(protocol: Protocol, network: Network, classes: int, images: Tensor) -> tuple[Protocol, tuple[str, ...]]:
    """The protocol without attacks that cannot apply to the network, to its number of classes or to the images
    [N, ...], and what was left out, with the reason."""
    skipped: dict[str, str] = {}

    def applies(spec: AttackSpec) -> bool:
        reason = _obstacle(spec, network, classes, images)
        if reason:
            skipped[spec.name] = reason
        return not reason

    attacks = tuple(filter(applies, protocol.attacks))
    panels = tuple(replace(panel, attacks=tuple(filter(applies, panel.attacks))) for panel in protocol.panels)
    search = protocol.search if network.layers and network.gradient else None
    if protocol.search and not search:
        skipped["search for estimators"] = "no hosnn spiking layer with a gradient found"
    fitted = replace(protocol, attacks=attacks, panels=tuple(panel for panel in panels if panel.attacks), search=search)
    return fitted, tuple(f"{name}: {reason}" for name, reason in skipped.items())


def _obstacle(spec: AttackSpec, network: Network, classes: int, images: Tensor) -> str:
    """Why the attack cannot apply; empty if it can."""
    if spec.kind is AttackKind.WHITE_BOX and not network.gradient:
        return "the model has no gradient to its input"
    if spec.spiking and not network.layers:
        return "no hosnn spiking layer found"
    if spec.adaptive and not network.adaptive:
        return "no adapting threshold found"
    if spec.classes > classes:
        return f"its loss needs {spec.classes} classes, the model has {classes}"
    if not bool(spec.threat.on_grid(images).all()):
        return f"the images have pixels that are not multiples of 1/{spec.threat.levels}"
    return ""


def uses_estimators(protocol: Protocol) -> bool:
    """Whether an attack of the protocol differentiates a network by another rule than its own."""
    specs = (*protocol.attacks, *(spec for panel in protocol.panels for spec in panel.attacks))
    return protocol.search is not None or any(
        spec.estimator is not None or isinstance(spec.attack, Through) for spec in specs
    )


def without_estimators(protocol: Protocol) -> Protocol:
    """The protocol for a model without hosnn's spiking layers, of which only its own gradient can be followed.

    Attacks have no estimator, and neither their names nor the description speak of one.
    """
    panels = tuple(replace(panel, attacks=_by_own_gradient(panel.attacks)) for panel in protocol.panels)
    description = protocol.description
    if re.search(ESTIMATOR_IN_DESCRIPTION, description):
        description = f"the attacks of {protocol.name} that apply to every model, by the model's own gradient"
    return replace(protocol, attacks=_by_own_gradient(protocol.attacks), panels=panels, description=description)


def _by_own_gradient(specs: tuple[AttackSpec, ...]) -> tuple[AttackSpec, ...]:
    changed: list[AttackSpec] = []
    for spec in specs:
        attack = spec.attack.attack if isinstance(spec.attack, Through) else spec.attack
        if spec.estimator is None and attack is spec.attack:
            changed.append(spec)
            continue
        name, method = (re.sub(ESTIMATOR_IN_NAME, "", text) for text in (spec.name, spec.method))
        taken = {other.name for other in (*changed, *specs) if other is not spec}
        numbered = (name, *(f"{name}, run {number}" for number in range(2, len(specs) + 2)))
        free = next(candidate for candidate in numbered if candidate not in taken)
        changed.append(replace(spec, attack=attack, estimator=None, name=free, method=method))
    return tuple(changed)
