"""The attacks that protocols are made of.  A function returns none in norms that its attack is not used in."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, cycle, islice

from torch import nn

from hosnn.estimators import (
    AdaptiveSharpness,
    AgainstHomeostasis,
    Estimator,
    LowerThresholds,
    OnFrames,
    Through,
    WithMembraneMargin,
    has_spiking_layers,
)
from hosnn.protocols.applicability import AUTO_PGD, FAB_T, HOP_SKIP_JUMP, SA_PGD, SQUARE, applicable
from hosnn.protocols.protocol import AttackKind, AttackSpec, BestEstimator, steps_of, threat_of
from hosnn.results.roles import Role
from hosnn.robustness.apgd import APGD, APGDTargeted
from hosnn.robustness.ensembles import Transfer
from hosnn.robustness.fab import FAB
from hosnn.robustness.focused import FocusedSAPGD, FromBest, smooth_signs
from hosnn.robustness.hop_skip_jump import HopSkipJump
from hosnn.robustness.losses import Loss, cross_entropy, dlr, margin
from hosnn.robustness.model import Attack
from hosnn.robustness.pgd import PGD, Start, on_sphere
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.square import Square
from hosnn.robustness.threats import Threat
from hosnn.signature import fingerprint
from hosnn.spiking.gradient_rule import bptt

FIRST_STARTS: tuple[Start | FromBest | None, ...] = (smooth_signs, None, on_sphere, None, smooth_signs, None)
LATER_STARTS: tuple[Start | FromBest | None, ...] = (on_sphere, FromBest(), smooth_signs, FromBest())
"""Where the first six runs on the nearest images start, and in turn all later ones.  None: at the best point so far;
later around it, because a run from a point that the last one did not improve ends where that one did."""

SQUARE_QUERIES = 200
"""Queries of Square in `standard`, where the attacks before it follow gradients: 1,000 broke no further image of the
networks in docs/fashion-mnist.md."""

SAPGD_STEPS = 400
"""Steps of SA-PGD: through adaptive sharpness it still breaks images of a spiking network after hundreds of steps."""


def attack_spec(
    name: str,
    attack: Attack,
    estimator: Estimator | BestEstimator | None = None,
    *,
    kind: AttackKind = AttackKind.WHITE_BOX,
    spiking: bool = False,
    adaptive: bool = False,
    classes: int = 2,
    method: str = "",
    counted: bool = True,
    role: Role | None = None,
) -> AttackSpec:
    """The spec of an attack; the attack is wrapped in OnFrames if its threat perturbs every time step.

    method   the attack without its estimator, for tables; default: the name up to the first comma
    counted  whether tables show the attack's steps or queries
    """
    threat = threat_of(attack)
    return AttackSpec(
        name=name,
        attack=OnFrames(attack) if threat.per_step else attack,
        threat=threat,
        kind=kind,
        estimator=estimator,
        spiking=spiking,
        adaptive=adaptive,
        classes=classes,
        method=method or name.partition(",")[0],
        steps=steps_of(attack) if counted else 0,
        role=role,
    )


def auto_pgd(threat: Threat, steps: int, loss: Loss = cross_entropy, restarts: int = 1) -> Attack:
    """Auto-PGD, or plain PGD in a norm for which Auto-PGD is not defined."""
    if applicable(AUTO_PGD, threat):
        return APGD(threat, steps, restarts, loss)
    return PGD(threat, steps, restarts=restarts, loss=loss)


def apgd_ce(threat: Threat, restarts: int = 1, steps: int = 100) -> AttackSpec:
    """On cross-entropy, through full BPTT."""
    return attack_spec(f"{pgd_name(threat)}-CE", auto_pgd(threat, steps, restarts=restarts), bptt())


def apgd_dlr(threat: Threat, restarts: int = 1) -> AttackSpec:
    """100 steps on the difference of logits ratio, through full BPTT."""
    attack = auto_pgd(threat, 100, dlr, restarts)
    return attack_spec(f"{pgd_name(threat)}-DLR", attack, bptt(), classes=3, role=Role.SCALE_FREE_LOSS)


def targeted(threat: Threat, name: str, estimator: Estimator | BestEstimator) -> Sequence[AttackSpec]:
    """Auto-PGD towards nine wrong classes in turn, 100 steps each."""
    if not applicable(AUTO_PGD, threat):
        return ()
    spiking = isinstance(estimator, BestEstimator)
    attack = APGDTargeted(threat)
    return (attack_spec(name, attack, estimator, spiking=spiking, classes=4, role=Role.SCALE_FREE_LOSS),)


def sa_pgd(
    threat: Threat, restarts: int = 1, steps: int = SAPGD_STEPS, role: Role | None = None
) -> Sequence[AttackSpec]:
    """Stable adaptive PGD through a surrogate of adaptive sharpness, or what takes its place in l2 and l1."""
    name, attack = strongest(threat, steps, restarts)
    if not applicable(SA_PGD, threat):
        name += f", {steps_of(attack)} steps, ASSG"
    return (attack_spec(name, attack, AdaptiveSharpness(), role=role),)


def focused(
    threat: Threat,
    name: str,
    estimator: Estimator | BestEstimator,
    *,
    steps: int,
    near_steps: int,
    starts: tuple[Start | FromBest | None, ...],
    share: float = 0.25,
    past_ties: bool = True,
    copies: int = 1,
) -> Sequence[AttackSpec]:
    """SA-PGD that spends most of its passes on the images nearest the boundary, with a loss that sees the membrane of
    the output neurons; none where SA-PGD is undefined.

    starts     of the runs on the nearest images; None: the best point so far
    share      of the images left, which these runs attack
    past_ties  whether these runs attack images whose label is tied already
    copies     of each image that are attacked at once, each from points of its own
    """
    if not applicable(SA_PGD, threat):
        return ()
    nearest = FocusedSAPGD(threat, steps, near_steps, share, starts, past_ties=past_ties, copies=copies)
    spiking = isinstance(estimator, BestEstimator)
    return (attack_spec(name, WithMembraneMargin(nearest), estimator, spiking=spiking, method="SA-PGD, nearest"),)


def near_starts(runs: int) -> tuple[Start | FromBest | None, ...]:
    """Starts of so many runs: from smooth, best and random points in turn, later from around the best one."""
    return tuple(islice(chain(FIRST_STARTS, cycle(LATER_STARTS)), runs))


def long_runs(threat: Threat) -> Sequence[AttackSpec]:
    """SA-PGD through adaptive sharpness in runs of 2,000 steps, five at once: 20 on each of the nearest quarter of the
    images, then 60 on each of the nearest of those left, half of them through a flatter surrogate.

    Of such runs one in a few hundred still breaks an image that all before it left: what counts is their number, where
    they pay.
    """
    around = (smooth_signs, FromBest())
    several = partial(focused, threat, near_steps=2000, past_ties=False, copies=5)
    again = partial(several, steps=60, starts=3 * around, share=0.15)
    return (
        *several("SA-PGD, nearest", AdaptiveSharpness(), steps=200, starts=2 * around),
        *again("SA-PGD, nearest again, flatter", AdaptiveSharpness(relax=3.0)),
        *again("SA-PGD, nearest again", AdaptiveSharpness()),
    )


def strongest(threat: Threat, steps: int, restarts: int = 1) -> tuple[str, Attack]:
    """The attack that breaks most images of spiking networks in the threat's norm, and its name.

    SA-PGD, in l2 Auto-PGD; in l1, where the steps of plain PGD change one pixel each and break little, FAB-T with a
    quarter of the steps for each target class.
    """
    if applicable(SA_PGD, threat):
        return "SA-PGD", SAPGD(threat, steps, restarts, margin)
    if applicable(AUTO_PGD, threat):
        return "APGD", APGD(threat, steps, restarts, margin)
    return "FAB-T", FAB(threat, max(steps // 4, 1), restarts=restarts)


def against_homeostasis(threat: Threat) -> Sequence[AttackSpec]:
    """Auto-PGD whose loss also lowers the thresholds."""
    attack = AgainstHomeostasis(auto_pgd(threat, 50), LowerThresholds(), 0.1)
    return (
        attack_spec(f"{pgd_name(threat)}, lower thresholds", attack, AdaptiveSharpness(), spiking=True, adaptive=True),
    )


def fab(threat: Threat) -> Sequence[AttackSpec]:
    if not applicable(FAB_T, threat):
        return ()
    return (attack_spec("FAB-T", FAB(threat), bptt(), role=Role.SCALE_FREE_LOSS),)


def transfers(threat: Threat, sources: Mapping[str, nn.Module]) -> Sequence[AttackSpec]:
    """Transfer from each source; the name carries its weights' hash, so that other weights make another protocol.

    PGD to its last step, because a point that barely fools the source, where other attacks stop, seldom transfers.
    """
    pgd = PGD(threat, 20, keep_best=False, loss=margin)
    return tuple(
        attack_spec(
            f"transfer from {name} ({fingerprint(source)[:8]})",
            Transfer(source, Through(bptt(), pgd) if has_spiking_layers(source) else pgd),
            kind=AttackKind.TRANSFER,
        )
        for name, source in sources.items()
    )


def square(threat: Threat, queries: int) -> Sequence[AttackSpec]:
    if not applicable(SQUARE, threat):
        return ()
    return (attack_spec("Square", Square(threat, queries), kind=AttackKind.QUERIES),)


def hop_skip_jump(threat: Threat) -> Sequence[AttackSpec]:
    if not applicable(HOP_SKIP_JUMP, threat):
        return ()
    return (attack_spec("HopSkipJump", HopSkipJump(threat), kind=AttackKind.QUERIES, counted=False),)


def pgd_name(threat: Threat) -> str:
    """What tables call `auto_pgd`."""
    return "APGD" if applicable(AUTO_PGD, threat) else "PGD"
