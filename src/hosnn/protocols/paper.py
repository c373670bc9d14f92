"""The HoSNN authors' own evaluation, each of its choices a switch; for comparison with published numbers only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from hosnn.errors import ConfigError
from hosnn.estimators import InNormalisedUnits, OnFrames, OnTraces, Through, TraceCrossEntropy
from hosnn.protocols.protocol import MODEL_CHECK_IMAGES, AttackSpec, PanelPlan, Protocol, steps_of
from hosnn.results.roles import Strength
from hosnn.robustness.balls import format_eps
from hosnn.robustness.losses import Loss, cross_entropy
from hosnn.robustness.model import Attack
from hosnn.robustness.pgd import PGD, at_clean, bim, fgsm, r_fgsm
from hosnn.robustness.threats import DEFAULT_THREAT, Threat
from hosnn.spiking.gradient_rule import bptt, tssl_bp

CURVE = tuple(Fraction(level, 255) for level in (2, 4, 8, 16, 32, 64))
"""Budgets of the accuracy curve, in pixel units."""


@dataclass(frozen=True, kw_only=True)
class PaperChoices:
    """The authors' choices, each as a switch; the defaults reproduce their evaluation of one-channel images.

    truncated_gradient  TSSL-BP: no path through leak, reset or threshold, surrogate at the resting threshold
    per_step            every time step gets its own perturbation
    unclamped           perturbed pixels may leave [0, 1]
    trace_loss          cross-entropy over the output trace at every step, not over the logits
    scalar_std          eps is divided by one scalar std and applied to normalised images: `mean`, `std` per channel.
                        With one channel this changes nothing, so it matters for colour images only; the pixel
                        domain has no meaning in those units, so it needs `unclamped`
    """

    truncated_gradient: bool = True
    per_step: bool = True
    unclamped: bool = True
    trace_loss: bool = True
    scalar_std: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __str__(self) -> str:
        return ", ".join(
            (
                "gradient truncated (TSSL-BP)" if self.truncated_gradient else "full gradient (BPTT)",
                "one perturbation per time step" if self.per_step else "one perturbation per image",
                "no clamp to valid pixels" if self.unclamped else "valid pixels",
                "loss over output traces" if self.trace_loss else "loss over logits",
                *(["eps over one scalar std"] if self.scalar_std else []),
            )
        )

    def threat(self, threat: Threat) -> Threat:
        """The threat that these choices amount to."""
        return replace(threat, domain=None if self.unclamped else threat.domain, per_step=self.per_step)

    def wrap(self, make: Callable[[Threat, Loss], Attack], threat: Threat) -> Attack:
        """The attack that `make` builds, under these choices."""
        loss: Loss = TraceCrossEntropy() if self.trace_loss else cross_entropy
        inner = make(threat, loss)
        if self.scalar_std:
            scalar = sum(self.std) / len(self.std)
            inner = InNormalisedUnits(inner, self.mean, tuple(std / scalar for std in self.std))
        if self.trace_loss:
            inner = OnTraces(inner)
        if self.per_step:
            inner = OnFrames(inner)
        return Through(tssl_bp() if self.truncated_gradient else bptt(), inner)


def paper(threat: Threat = DEFAULT_THREAT, choices: PaperChoices = PaperChoices()) -> Protocol:
    """FGSM, R-FGSM, BIM-7 and PGD-7 (steps of eps/3, no random start) as in the authors' code, on all test images.

    Source: authors' code, tools/attack.py (August 2023).
    """
    if choices.scalar_std and not (choices.std and choices.mean and choices.unclamped):
        raise ConfigError(
            "PaperChoices(scalar_std=True) needs mean and std per channel (give the network's own) and unclamped=True"
        )
    threat = choices.threat(threat)
    # Divided by the scalar std, eps is wider in the channel of the largest std.
    widest = max(choices.std) * len(choices.std) / sum(choices.std) if choices.scalar_std else 1.0

    def spec(name: str, make: Callable[[Threat, Loss], Attack], threat: Threat = threat) -> AttackSpec:
        return AttackSpec(name=name, attack=choices.wrap(make, threat), threat=threat.scaled(widest))

    budgets = tuple(threat.with_eps(float(eps)) for eps in CURVE)
    curve = tuple(spec(f"PGD-7 @ {format_eps(budget.ball.eps)}", pgd_7, budget) for budget in budgets)
    return Protocol(
        name="paper",
        description=f"the authors' attacks: {choices}",
        threat=threat,
        attacks=(spec("FGSM", fgsm), spec("R-FGSM", r_fgsm), spec("BIM-7", bim_7), spec("PGD-7", pgd_7)),
        samples=None,
        panels=(PanelPlan("eps", curve, samples=500),),
        strength=Strength.PUBLISHED_ATTACKS,
        ties_lost=False,
    )


def pgd_7(threat: Threat, loss: Loss) -> PGD:
    """Seven steps of eps/3 from the clean image, to the last point."""
    return PGD(threat, steps=7, step_size=1 / 3, start=at_clean, keep_best=False, loss=loss)


def bim_7(threat: Threat, loss: Loss) -> PGD:
    """Seven steps of eps/7."""
    return bim(threat, 7, loss)


REPLACEMENTS = {
    "truncated_gradient": "full gradient",
    "per_step": "one perturbation per image",
    "unclamped": "valid pixels",
    "trace_loss": "loss over logits",
}
"""What replaces each of the authors' choices when it is switched off."""


def choices(threat: Threat = DEFAULT_THREAT) -> Protocol:
    """PGD-7 as the authors run it, with each of their choices switched off alone, then one after the other.

    The last has all of them switched off: PGD-7 through full BPTT on valid images.
    """
    switched_off: dict[str, Sequence[str]] = {"PGD-7, authors": ()}
    switched_off |= {f"PGD-7, {replacement}": (choice,) for choice, replacement in REPLACEMENTS.items()}
    order = tuple(REPLACEMENTS)
    for count in range(2, len(order)):
        replacements = ", ".join(REPLACEMENTS[choice] for choice in order[:count])
        switched_off[f"PGD-7, {replacements}"] = order[:count]
    switched_off["PGD-7 BPTT"] = order
    attacks = []
    for name, off in switched_off.items():
        settings: dict[str, Any] = dict.fromkeys(off, False)
        remaining = replace(PaperChoices(), **settings)
        own_threat = remaining.threat(threat)
        attack = remaining.wrap(pgd_7, own_threat)
        attacks.append(
            AttackSpec(
                name=name, attack=attack, threat=own_threat, spiking=True, method="PGD-7", steps=steps_of(attack)
            )
        )
    return Protocol(
        name="choices",
        description="the authors' PGD-7 with their choices switched off, each alone and one after the other",
        threat=PaperChoices().threat(threat),
        attacks=tuple(attacks),
        samples=1000,
        model_check_samples=MODEL_CHECK_IMAGES,
        ties_lost=False,
    )
