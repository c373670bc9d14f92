"""The attacks that protocols are made of.  A function gives none under a threat for which its attack is undefined."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from hosnn.estimators import (
    BPTR,
    RGA,
    AdaptiveSharpness,
    AgainstHomeostasis,
    Estimator,
    LowerThresholds,
    OnFrames,
    Through,
)
from hosnn.protocols.protocol import AttackKind, AttackSpec, BestEstimator, PanelPlan
from hosnn.robustness.apgd import APGD, APGDTargeted
from hosnn.robustness.decision import HopSkipJump
from hosnn.robustness.ensembles import Noise, Transfer
from hosnn.robustness.losses import Loss, cross_entropy, dlr, margin
from hosnn.robustness.model import Attack
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.square import Square
from hosnn.robustness.threats import L1, L2, Linf, Threat, format_eps
from hosnn.signature import fingerprint
from hosnn.spiking.gradient_rule import bptt, tssl_bp

SUBSET = 200
"""Images of the panels: every attack of the matrix and of the checks runs in full on the same ones."""

PATIENT = 400
"""Steps of SA-PGD: through adaptive sharpness a spiking network goes on losing images for hundreds of steps."""

COLUMNS: tuple[tuple[str, Estimator | BestEstimator], ...] = (
    ("full BPTT", bptt()),
    ("TSSL-BP", tssl_bp()),
    ("best found", BestEstimator(0)),
    ("ASSG", AdaptiveSharpness()),
    ("RGA", RGA()),
    ("BPTR", BPTR()),
)
"""Of the matrix of attacks and estimators."""


def attack_spec(
    name: str,
    attack: Attack,
    threat: Threat,
    estimator: Estimator | BestEstimator | None = None,
    spiking: bool = False,
    adaptive: bool = False,
    kind: AttackKind = AttackKind.WHITE_BOX,
    steps: int = 0,
    method: str = "",
    classes: int = 2,
) -> AttackSpec:
    """An attack, on frames if the threat perturbs every time step."""
    return AttackSpec(
        name,
        OnFrames(attack) if threat.per_step else attack,
        threat,
        kind,
        estimator,
        spiking,
        adaptive,
        classes,
        method or name.partition(",")[0],
        steps,
    )


def undefined(threat: Threat) -> str:
    """What a description must add: which attacks are not defined in the threat's ball."""
    if isinstance(threat.ball, Linf):
        return ""
    missing = "SA-PGD" if isinstance(threat.ball, L2) else "Auto-PGD (plain PGD in its place), SA-PGD, FAB-T, Square"
    return f"; not defined in {threat.ball.name} and left out: {missing}"


def ascent(threat: Threat, steps: int, loss: Loss = cross_entropy, restarts: int = 1) -> Attack:
    """Auto-PGD, or plain PGD in the L1 ball, for which Auto-PGD is not defined."""
    if isinstance(threat.ball, L1):
        return PGD(threat, steps, restarts=restarts, loss=loss)
    return APGD(threat, steps, restarts, loss)


def apgd(threat: Threat, restarts: int = 1) -> Sequence[AttackSpec]:
    name = "PGD" if isinstance(threat.ball, L1) else "APGD"
    return (
        attack_spec(f"{name}-CE", ascent(threat, 100, restarts=restarts), threat, bptt(), steps=100),
        attack_spec(f"{name}-DLR", ascent(threat, 100, dlr, restarts), threat, bptt(), steps=100, classes=3),
    )


def targeted(threat: Threat, name: str, estimator: Estimator | BestEstimator) -> Sequence[AttackSpec]:
    if isinstance(threat.ball, L1):
        return ()
    spiking = isinstance(estimator, BestEstimator)
    return (attack_spec(name, APGDTargeted(threat), threat, estimator, spiking, steps=100, classes=4),)


def stable(threat: Threat, restarts: int = 1) -> Sequence[AttackSpec]:
    if not isinstance(threat.ball, Linf):
        return ()
    attack = SAPGD(threat, PATIENT, restarts, margin)
    return (attack_spec("SA-PGD", attack, threat, AdaptiveSharpness(), steps=PATIENT),)


def against_homeostasis(threat: Threat) -> Sequence[AttackSpec]:
    attack = AgainstHomeostasis(ascent(threat, 50), LowerThresholds(), 0.1)
    return (attack_spec("APGD, lower thresholds", attack, threat, AdaptiveSharpness(), True, True, steps=50),)


def transfers(threat: Threat, transfer_sources: Mapping[str, nn.Module]) -> Sequence[AttackSpec]:
    """Transfer from each twin; its name carries its weights' hash, so that other weights make another protocol.

    PGD to its last step: a point that only just fools the twin, where other attacks stop, seldom fools another model.
    """
    return tuple(
        attack_spec(
            f"transfer from {name} ({fingerprint(twin)[:8]})",
            Transfer(twin, Through(bptt(), PGD(threat, 20, keep_best=False, loss=margin))),
            threat,
            kind=AttackKind.TRANSFER,
            steps=20,
        )
        for name, twin in transfer_sources.items()
    )


def queries(threat: Threat, queries: int) -> Sequence[AttackSpec]:
    if isinstance(threat.ball, L1):
        return ()
    return (attack_spec("Square", Square(threat, queries), threat, kind=AttackKind.QUERIES, steps=queries),)


def panels(threat: Threat, transfer_sources: Mapping[str, nn.Module]) -> tuple[PanelPlan, ...]:
    """Transfer and Square once more here: in the cascade they see only what white-box attacks left."""
    best = BestEstimator(0)
    methods: dict[str, Attack] = {
        "FGSM": fgsm(threat),
        "PGD-20": PGD(threat),
        "APGD-20": ascent(threat, 20, margin),
    }
    if isinstance(threat.ball, Linf):
        methods["SA-PGD-20"] = SAPGD(threat, 20)
    matrix = tuple(
        attack_spec(f"{name}, {column}", attack, threat, rule, rule != bptt(), method=name)
        for column, rule in COLUMNS
        for name, attack in methods.items()
    )
    counts = [PATIENT // 2**halvings for halvings in (4, 3, 2, 1, 0)]
    if isinstance(threat.ball, Linf):
        steps = tuple(
            attack_spec(
                f"SA-PGD, {count} steps", SAPGD(threat, count, loss=margin), threat, AdaptiveSharpness(), steps=count
            )
            for count in counts
        )
    else:
        steps = tuple(
            attack_spec(f"APGD, {count} steps", ascent(threat, count, margin), threat, best, steps=count)
            for count in counts
        )
    controls = (
        attack_spec("noise", Noise(threat), threat, kind=AttackKind.CONTROL),
        attack_spec("PGD-20", PGD(threat), threat, best, steps=20),
        attack_spec("PGD-20, 5 restarts", PGD(threat, restarts=5), threat, best, steps=20),
        attack_spec("PGD-20, last point", PGD(threat, keep_best=False), threat, best, steps=20),
        *transfers(threat, transfer_sources),
        *queries(threat, 1000),
    )
    return (
        eps_panel(threat, lambda at: ascent(at, 20, margin), "APGD-20", best, SUBSET),
        PanelPlan("steps", steps, SUBSET),
        PanelPlan("matrix", matrix, SUBSET),
        PanelPlan("controls", controls, SUBSET),
    )


def eps_panel(
    threat: Threat, make: Callable[[Threat], Attack], name: str, estimator: Estimator | BestEstimator, samples: int
) -> PanelPlan:
    """The same attack at growing eps: a quarter to eight times the threat's and, in Linf, where 1 is all, unbounded."""
    budgets = {factor * threat.ball.eps for factor in (0.25, 0.5, 1, 2, 4, 8)}
    if isinstance(threat.ball, Linf):
        budgets = {min(eps, 1.0) for eps in budgets} | {1.0}
    return PanelPlan(
        "eps",
        tuple(
            attack_spec(f"{name} @ {format_eps(eps)}", make(at), at, estimator, method=name)
            for eps in sorted(budgets)
            for at in [threat.with_eps(eps)]
        ),
        samples,
    )


def decision_panel(threat: Threat) -> tuple[PanelPlan, ...]:
    """Labels alone: too many queries for all images, so on 200."""
    if isinstance(threat.ball, L1):
        return ()
    return (
        PanelPlan(
            "decision", (attack_spec("HopSkipJump", HopSkipJump(threat), threat, kind=AttackKind.QUERIES),), SUBSET
        ),
    )
