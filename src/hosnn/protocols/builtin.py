"""The built-in evaluation protocols.

paper     the HoSNN authors' own evaluation (`paper.py`); for comparison with published numbers only
choices   the authors' PGD-7 with each of their choices switched off
smoke     a first look in about a minute
sweep     PGD-40 through full BPTT, 2 restarts, five surrogate widths, worst case per sample
quick     three attacks that differ, for screening
standard  what a publishable number needs: gradients through several estimators, queries, transfer, checks
full      everything, on all images
events    events of a recording removed or added (`events.py`)
"""

from collections.abc import Callable, Mapping

from torch import nn

from hosnn.errors import ConfigError, nearest
from hosnn.estimators import (
    ALTERNATIVES,
    BPTR,
    CUTS,
    ENSEMBLE,
    HART,
    RGA,
    SIGMOIDS,
    AdaptiveSharpness,
    Estimator,
    estimator_name,
)
from hosnn.estimators.catalogue import DAMPED
from hosnn.protocols.applicability import restriction
from hosnn.protocols.attacks import (
    SQUARE_QUERIES,
    against_homeostasis,
    apgd_ce,
    apgd_dlr,
    attack_spec,
    auto_pgd,
    fab,
    focused,
    long_runs,
    near_starts,
    pgd_name,
    sa_pgd,
    square,
    targeted,
    transfers,
)
from hosnn.protocols.events import events
from hosnn.protocols.panels import PANEL_IMAGES, decision_panel, eps_panel, panels
from hosnn.protocols.paper import choices, paper
from hosnn.protocols.protocol import MODEL_CHECK_IMAGES, AttackKind, BestEstimator, EstimatorSearch, Protocol
from hosnn.results.roles import Role, Strength
from hosnn.robustness.balls import Events
from hosnn.robustness.ensembles import Noise
from hosnn.robustness.losses import margin
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.threats import DEFAULT_THREAT, Threat
from hosnn.spiking.gradient_rule import bptt, tssl_bp
from hosnn.spiking.surrogate import Arctan, Exponential, PiecewiseLinear, Rectangle, Sigmoid

SIGMOID_WIDTHS = (0.05, 0.1, 0.2, 0.5, 1.0)
SHARPNESSES = tuple(AdaptiveSharpness(vanishing) for vanishing in (0.35, 0.38, 0.46))
CANDIDATES = ENSEMBLE + SIGMOIDS + CUTS + ALTERNATIVES + SHARPNESSES
"""Gradient estimators that `full` attacks through."""

SEARCHED: tuple[Estimator, ...] = (
    *(bptt(Sigmoid(width)) for width in (0.05, 0.1, 0.2)),
    *(bptt(PiecewiseLinear(width)) for width in (0.5, 1.0)),
    bptt(Arctan(0.3)),
    bptt(Rectangle(1.0)),
    bptt(Exponential(2.0, peak=DAMPED)),
    *CUTS,
    AdaptiveSharpness(0.38),
    HART(),
    RGA(),
    BPTR(),
    tssl_bp(),
)
"""Gradient estimators that the search of `standard` tries out: those that came near the best on any of our networks.
Adaptive sharpness at its default is not among them, because `standard` attacks through it anyway."""

BINARIZATION_IMAGES = 50
"""Images of the binarization test: one more or less is two points, and each costs 200 forward passes before attacks."""


def smoke(threat: Threat = DEFAULT_THREAT) -> Protocol:
    """A first look: noise, FGSM and PGD-20 through full BPTT, one perturbation per image, on 256 images."""
    return Protocol(
        name="smoke",
        description="one perturbation per image, valid pixels, gradients through leak, reset and threshold",
        threat=threat,
        attacks=(
            attack_spec("noise", Noise(threat), kind=AttackKind.CONTROL, role=Role.NOISE),
            attack_spec("FGSM", fgsm(threat), bptt(), counted=False, role=Role.SINGLE_STEP),
            attack_spec("PGD-20", PGD(threat), bptt(), role=Role.REFERENCE),
        ),
        samples=256,
        panels=(eps_panel(PGD, threat, "PGD-20", bptt(), 128),),
        model_check_samples=MODEL_CHECK_IMAGES,
        strength=Strength.FIRST_LOOK,
    )


def sweep(threat: Threat = DEFAULT_THREAT) -> Protocol:
    """PGD-40 with 2 restarts through full BPTT at five sigmoid widths, worst case per sample, on 1,000 images."""
    pgd = PGD(threat, steps=40, step_size=0.1, restarts=2)
    return Protocol(
        name="sweep",
        description="PGD-40, 2 restarts, full BPTT, surrogate widths 0.05 to 1, worst case per sample",
        threat=threat,
        attacks=tuple(attack_spec(f"PGD-40 BPTT w={width:g}", pgd, bptt(Sigmoid(width))) for width in SIGMOID_WIDTHS),
        samples=1000,
        cascade=True,
        model_check_samples=MODEL_CHECK_IMAGES,
        strength=Strength.GRADIENTS_ONLY,
        ties_lost=False,
    )


def quick(threat: Threat = DEFAULT_THREAT) -> Protocol:
    """Three attacks that differ, on 500 images: for screening networks."""
    return Protocol(
        name="quick",
        description="SA-PGD 60 with adaptive surrogate, APGD 30 on the margin through a triangle of width 0.5, APGD-CE "
        f"20; worst case per sample{restriction(threat)}",
        threat=threat,
        attacks=(
            *sa_pgd(threat, steps=60, role=Role.SCALE_FREE_LOSS),
            attack_spec("APGD, triangle 0.5", auto_pgd(threat, 30, margin), bptt(PiecewiseLinear(0.5)), spiking=True),
            apgd_ce(threat, steps=20),
        ),
        samples=500,
        cascade=True,
        model_check_samples=MODEL_CHECK_IMAGES,
        strength=Strength.GRADIENTS_ONLY,
    )


def standard(threat: Threat = DEFAULT_THREAT, transfer_sources: Mapping[str, nn.Module] | None = None) -> Protocol:
    """The protocol of a number that can be published, on 1,000 images.

    Each attack gets only the images that those before it left robust, so the strongest comes first: SA-PGD with the
    adaptive surrogate on all images, then six more runs of 300 steps on the quarter of each block nearest the boundary
    (where SA-PGD is undefined: APGD or FAB-T, 400 steps); the same, shorter, through the two surrogates that a search
    on 100 images selects; APGD-CE and APGD-DLR, 100 steps, through full BPTT; a loss aimed at adapting thresholds;
    transfer from `transfer_sources` by name; Square, 200 queries.  Panels on 200 images: accuracy against eps and
    against steps, the matrix of attacks and estimators, images of 8 bits, controls for the checks.
    """
    first = focused(threat, "SA-PGD, nearest", AdaptiveSharpness(), steps=60, near_steps=300, starts=near_starts(6))
    through_found = tuple(
        spec
        for rank in range(2)
        for spec in focused(
            threat,
            f"SA-PGD, nearest, surrogate {rank + 1}",
            BestEstimator(rank),
            steps=30,
            near_steps=200,
            starts=near_starts(2),
        )
        or (
            attack_spec(
                f"{pgd_name(threat)}, surrogate {rank + 1}",
                auto_pgd(threat, 50, margin),
                BestEstimator(rank),
                spiking=True,
            ),
        )
    )
    return Protocol(
        name="standard",
        description="SA-PGD 60 with adaptive surrogate, then 6 x 300 on the nearest images, the same shorter through "
        f"the two best surrogates, APGD-CE and APGD-DLR 100, transfer, Square {SQUARE_QUERIES}; worst case per "
        f"sample{restriction(threat)}",
        threat=threat,
        attacks=(
            *(first or sa_pgd(threat)),
            *through_found,
            apgd_ce(threat),
            apgd_dlr(threat),
            *against_homeostasis(threat),
            *transfers(threat, transfer_sources or {}),
            *square(threat, SQUARE_QUERIES),
        ),
        samples=1000,
        cascade=True,
        search=EstimatorSearch(auto_pgd(threat, 30, margin), SEARCHED, keep=2),
        panels=panels(threat, transfer_sources or {}),
        model_check_samples=PANEL_IMAGES,
        strength=Strength.PUBLISHABLE,
    )


def full(threat: Threat = DEFAULT_THREAT, transfer_sources: Mapping[str, nn.Module] | None = None) -> Protocol:
    """Everything, on all images: hours on a CPU.

    As `standard`, with 20 to 80 longer runs on the nearest images, every setting of the surrogate ensemble and every
    other estimator in the worst case, APGD-CE and APGD-DLR with 5 restarts, APGD-T, FAB-T and Square as AutoAttack's
    standard suite has them, HopSkipJump on 200 images, and the binarization test on 50.
    """
    every_estimator = tuple(
        attack_spec(f"APGD, {estimator_name(estimator)}", auto_pgd(threat, 40, margin), estimator, spiking=True)
        for estimator in CANDIDATES
    )
    return Protocol(
        name="full",
        description="SA-PGD 200, then 20 to 80 runs of 2000 on the nearest images, every estimator, AutoAttack's four "
        f"at their published settings, transfer; worst case per sample{restriction(threat)}",
        threat=threat,
        attacks=(
            *(long_runs(threat) or sa_pgd(threat, restarts=5)),
            apgd_ce(threat, restarts=5),
            apgd_dlr(threat, restarts=5),
            *targeted(threat, "APGD-T", bptt()),
            *targeted(threat, "APGD-T, surrogate 1", BestEstimator(0)),
            *every_estimator,
            *against_homeostasis(threat),
            *fab(threat),
            *transfers(threat, transfer_sources or {}),
            *square(threat, 5000),
        ),
        samples=None,
        block_size=100,
        cascade=True,
        search=EstimatorSearch(auto_pgd(threat, 15), CANDIDATES),
        panels=(*panels(threat, transfer_sources or {}), *decision_panel(threat)),
        model_check_samples=PANEL_IMAGES,
        binarization_samples=BINARIZATION_IMAGES,
        strength=Strength.EXHAUSTIVE,
    )


PROTOCOLS: dict[str, Callable[[Threat], Protocol]] = {
    "smoke": smoke,
    "paper": paper,
    "choices": choices,
    "sweep": sweep,
    "quick": quick,
    "standard": standard,
    "full": full,
}

ALL = PROTOCOLS | {"events": events}
"""With those of threats other than to images."""


def protocol_by_name(name: str, threat: Threat, transfer_sources: Mapping[str, nn.Module] | None = None) -> Protocol:
    """A built-in protocol by name.

    transfer_sources  models to transfer from, by name (standard and full)
    Raises ConfigError for an unknown name, with the nearest one, and for transfer sources where no attack transfers.
    """
    build = ALL.get(name)
    if build is None:
        raise ConfigError(
            f"unknown protocol {name!r}; expected one of {', '.join(ALL)}; did you mean {nearest(name, ALL)!r}?"
        )
    if isinstance(threat.ball, Events) and name != "events":
        raise ConfigError(
            f"protocol {name} got the threat {threat}; only the protocol events attacks by events: choose it"
        )
    if not transfer_sources:
        return build(threat)
    if name not in ("standard", "full"):
        raise ConfigError(f"protocol {name!r} got models to transfer from; only standard and full attack by transfer")
    return {"standard": standard, "full": full}[name](threat, transfer_sources)
