"""The built-in evaluation protocols.

paper     the HoSNN authors' own evaluation (`paper.py`); for comparison with published numbers only
choices   the authors' PGD-7 with each of their choices switched off
smoke     a first look in about a minute
sweep     PGD-40 through full BPTT, 2 restarts, five surrogate widths, worst case per sample
standard  what a publishable number needs: gradients through several estimators, queries, transfer, checks
full      everything, on all images
"""

from collections.abc import Callable, Mapping

from torch import nn

from hosnn.errors import ConfigError, nearest
from hosnn.estimators import ALTERNATIVES, CUTS, ENSEMBLE, AdaptiveSharpness, title
from hosnn.estimators import WIDTHS as SIGMOIDS
from hosnn.protocols.attacks import (
    SUBSET,
    against_homeostasis,
    apgd,
    ascent,
    attack_spec,
    decision_panel,
    eps_panel,
    panels,
    queries,
    stable,
    targeted,
    transfers,
    undefined,
)
from hosnn.protocols.paper import choices, paper
from hosnn.protocols.protocol import LOOKED_AT, AttackKind, BestEstimator, Protocol, Search
from hosnn.robustness.ensembles import Noise
from hosnn.robustness.fab import FAB
from hosnn.robustness.losses import margin
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.threats import L1, Linf, Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.surrogate import Sigmoid

WIDTHS = (0.05, 0.1, 0.2, 0.5, 1.0)
SHARPNESSES = tuple(AdaptiveSharpness(vanishing) for vanishing in (0.35, 0.38, 0.46))
CANDIDATES = ENSEMBLE + SIGMOIDS + CUTS + ALTERNATIVES + SHARPNESSES
"""Gradient estimators that a search tries out; `full` attacks through all of them."""

ACTIVE = 50
"""Images of the active test: one image more or less is two points, and each costs 200 looks before any attack."""

DEFAULT = Threat(Linf(8 / 255))


def smoke(threat: Threat = DEFAULT) -> Protocol:
    """A first look: noise, FGSM and PGD-20 through full BPTT, one perturbation per image, on 256 images."""
    return Protocol(
        "smoke",
        "one perturbation per image, valid pixels, gradients through leak, reset and threshold",
        threat,
        (
            attack_spec("noise", Noise(threat), threat, kind=AttackKind.CONTROL),
            attack_spec("FGSM", fgsm(threat), threat, bptt()),
            attack_spec("PGD-20", PGD(threat), threat, bptt(), steps=20),
        ),
        samples=256,
        panels=(eps_panel(threat, lambda at: PGD(at), "PGD-20", bptt(), 128),),
        probes=LOOKED_AT,
    )


def sweep(threat: Threat = DEFAULT) -> Protocol:
    """PGD-40 with 2 restarts through full BPTT at five sigmoid widths, worst case per sample, on 1,000 images."""
    pgd = PGD(threat, steps=40, step_size=0.1, restarts=2)
    return Protocol(
        "sweep",
        "PGD-40, 2 restarts, full BPTT, surrogate widths 0.05 to 1, worst case per sample",
        threat,
        tuple(attack_spec(f"PGD-40 BPTT w={width:g}", pgd, threat, bptt(Sigmoid(width)), steps=40) for width in WIDTHS),
        samples=1000,
        cascade=True,
        probes=LOOKED_AT,
    )


def standard(threat: Threat = DEFAULT, transfer_sources: Mapping[str, nn.Module] | None = None) -> Protocol:
    """The protocol of a number that can be published, on 1,000 images.

    Each attack sees what those before it left standing, so the one that takes most comes first: SA-PGD, 400 steps, with
    the adaptive surrogate; APGD-CE and APGD-DLR, 100 steps, through full BPTT; APGD through the three surrogates that a
    search on 100 images finds; losses aimed at adapting thresholds; transfer from `twins` by name; Square, 1,000
    queries.  Panels on 200 images: accuracy against eps and against steps, the matrix of attacks and estimators,
    controls for the checks.
    """
    return Protocol(
        "standard",
        "SA-PGD 400 with adaptive surrogate, APGD-CE and APGD-DLR 100, the three best surrogates, transfer, Square "
        f"1,000; worst case per sample{undefined(threat)}",
        threat,
        (
            *stable(threat),
            *apgd(threat),
            *(
                attack_spec(
                    f"APGD, surrogate {rank + 1}",
                    ascent(threat, 50, margin),
                    threat,
                    BestEstimator(rank),
                    True,
                    steps=50,
                )
                for rank in range(3)
            ),
            *against_homeostasis(threat),
            *transfers(threat, transfer_sources or {}),
            *queries(threat, 1000),
        ),
        samples=1000,
        cascade=True,
        search=Search(ascent(threat, 15), CANDIDATES),
        panels=panels(threat, transfer_sources or {}),
        probes=SUBSET,
    )


def full(threat: Threat = DEFAULT, transfer_sources: Mapping[str, nn.Module] | None = None) -> Protocol:
    """Everything, on all images: hours on a CPU.

    As `standard`, with every setting of the surrogate ensemble and every other estimator in the worst case, 5
    restarts, APGD-CE, APGD-T, FAB-T and Square as AutoAttack's standard suite has them, HopSkipJump on 200 images, and
    the active test on 50.
    """
    ensemble = [
        attack_spec(f"APGD, {title(rule)}", ascent(threat, 40, margin), threat, rule, True, steps=40)
        for rule in CANDIDATES
    ]
    return Protocol(
        "full",
        "every estimator, 5 restarts, AutoAttack's four at their published settings, transfer; worst case per sample"
        f"{undefined(threat)}",
        threat,
        (
            *stable(threat, restarts=5),
            *apgd(threat, restarts=5),
            *targeted(threat, "APGD-T", bptt()),
            *(
                each
                for rank in range(3)
                for each in targeted(threat, f"APGD-T, surrogate {rank + 1}", BestEstimator(rank))
            ),
            *ensemble,
            *against_homeostasis(threat),
            *([] if isinstance(threat.ball, L1) else [attack_spec("FAB-T", FAB(threat), threat, bptt(), steps=100)]),
            *transfers(threat, transfer_sources or {}),
            *queries(threat, 5000),
        ),
        samples=None,
        cascade=True,
        search=Search(ascent(threat, 15), CANDIDATES),
        panels=(*panels(threat, transfer_sources or {}), *decision_panel(threat)),
        probes=SUBSET,
        active=ACTIVE,
    )


PROTOCOLS: dict[str, Callable[[Threat], Protocol]] = {
    "smoke": smoke,
    "paper": paper,
    "choices": choices,
    "sweep": sweep,
    "standard": standard,
    "full": full,
}


def protocol(name: str, threat: Threat, transfer_sources: Mapping[str, nn.Module] | None = None) -> Protocol:
    """A built-in protocol by name.

    twins  models to transfer from, by name (standard and full)
    Raises ConfigError for an unknown name, with the nearest one, and for twins where no attack transfers.
    """
    make = PROTOCOLS.get(name)
    if make is None:
        raise ConfigError(
            f"unknown protocol {name!r}; expected one of {', '.join(PROTOCOLS)}; did you mean "
            f"{nearest(name, PROTOCOLS)!r}?"
        )
    if not transfer_sources:
        return make(threat)
    if name not in ("standard", "full"):
        raise ConfigError(f"protocol {name!r} got models to transfer from; only standard and full attack by transfer")
    return {"standard": standard, "full": full}[name](threat, transfer_sources)
