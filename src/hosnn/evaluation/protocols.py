"""Evaluation protocols: which attacks, on how many images, under which threat.  Data, not code paths.

paper   the HoSNN authors' own evaluation, each of its choices a switch; for comparison with published numbers only
smoke   ours, small: a first look in about a minute
sweep   PGD-40 through full BPTT, 2 restarts, five surrogate widths, worst case per sample
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from hosnn.errors import ConfigError, nearest
from hosnn.estimators import InNormalisedUnits, OnFrames, OnTraces, Through, TraceCrossEntropy
from hosnn.robustness.ensembles import Noise
from hosnn.robustness.gradient import PGD, at_clean, bim, fgsm, r_fgsm
from hosnn.robustness.losses import Loss, cross_entropy
from hosnn.robustness.model import Attack
from hosnn.robustness.threats import Linf, Threat, format_eps
from hosnn.spiking.gradient import GradientRule, bptt, tssl_bp
from hosnn.spiking.surrogate import Sigmoid

CURVE = tuple(Fraction(level, 255) for level in (2, 4, 8, 16, 32, 64))
WIDTHS = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Entry:
    """One attack of a protocol and the threat its results must respect."""

    name: str
    attack: Attack
    threat: Threat


@dataclass(frozen=True)
class Protocol:
    """What an evaluation does.

    samples        images of the test split, a fixed class-balanced choice; None for all
    cascade        each attack sees only what the ones before it left standing
    curve          the same attack at growing eps, on the first `curve_samples`
    block_size     work is cut into fixed blocks of this many images, so that reruns and resumes give the same bits
    """

    name: str
    description: str
    threat: Threat
    entries: tuple[Entry, ...]
    samples: int | None
    cascade: bool = False
    curve: tuple[Entry, ...] = ()
    curve_samples: int = 500
    block_size: int = 50

    @property
    def settings(self) -> str:
        """SHA-256 of the attacks and how they are run, without numbers of images and block size."""
        chosen = (self.entries, self.cascade, self.curve, self.curve_samples)
        return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(chosen)).encode()).hexdigest()

    def resized(self, samples: int | None = None, curve_samples: int | None = None) -> "Protocol":
        """The same attacks on other numbers of images; None keeps the own ones, 0 curve samples drop the curve."""
        return replace(
            self,
            samples=self.samples if samples is None else samples,
            curve_samples=self.curve_samples if curve_samples is None else curve_samples,
            curve=() if curve_samples == 0 else self.curve,
        )


@dataclass(frozen=True)
class PaperChoices:
    """The authors' choices, each of which a reader will ask about; all True reproduces their evaluation.

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
        """The attack that `make` gives, under these choices."""
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


def _pgd7(threat: Threat, loss: Loss) -> PGD:
    return PGD(threat, steps=7, step_size=1 / 3, start=at_clean, keep_best=False, loss=loss)


def paper(threat: Threat = Threat(Linf(8 / 255)), choices: PaperChoices = PaperChoices()) -> Protocol:  # noqa: B008
    """FGSM, R-FGSM, BIM-7 and PGD-7 (steps of eps/3, no random start) as in the authors' code, on all test images.

    Source: authors' code, tools/attack.py (August 2023).
    """
    if choices.scalar_std and not (choices.std and choices.mean and choices.unclamped):
        raise ConfigError(
            "PaperChoices(scalar_std=True) needs mean and std per channel (give the network's own) and unclamped=True"
        )
    threat = choices.threat(threat)

    widest = max(choices.std) * len(choices.std) / sum(choices.std) if choices.scalar_std else 1.0

    def entry(name: str, make: Callable[[Threat, Loss], Attack], at: Threat = threat) -> Entry:
        return Entry(name, choices.wrap(make, at), at.scaled(widest))

    return Protocol(
        "paper",
        f"the authors' attacks: {choices}",
        threat,
        (entry("FGSM", fgsm), entry("R-FGSM", r_fgsm), entry("BIM-7", bim_7), entry("PGD-7", _pgd7)),
        samples=None,
        curve=tuple(entry(f"PGD-7 @ {format_eps(float(eps))}", _pgd7, threat.with_eps(float(eps))) for eps in CURVE),
    )


def bim_7(threat: Threat, loss: Loss) -> PGD:
    """Seven steps of eps/7."""
    return bim(threat, 7, loss)


def smoke(threat: Threat = Threat(Linf(8 / 255))) -> Protocol:  # noqa: B008
    """A first look: noise, FGSM and PGD-20 through full BPTT, one perturbation per image, on 256 images."""

    return Protocol(
        "smoke",
        "one perturbation per image, valid pixels, gradients through leak, reset and threshold",
        threat,
        (
            _entry("noise", Noise(threat), threat),
            _entry("FGSM", fgsm(threat), threat),
            _entry("PGD-20", PGD(threat), threat),
        ),
        samples=256,
        curve=tuple(
            _entry(f"PGD-20 @ {format_eps(float(eps))}", PGD(at), at)
            for eps in CURVE
            for at in [threat.with_eps(float(eps))]
        ),
        curve_samples=128,
    )


def sweep(threat: Threat = Threat(Linf(8 / 255))) -> Protocol:  # noqa: B008
    """PGD-40 with 2 restarts through full BPTT at five sigmoid widths, worst case per sample, on 1,000 images."""
    pgd = PGD(threat, steps=40, step_size=0.1, restarts=2)
    return Protocol(
        "sweep",
        "PGD-40, 2 restarts, full BPTT, surrogate widths 0.05 to 1, worst case per sample",
        threat,
        tuple(_entry(f"PGD-40 BPTT w={width:g}", pgd, threat, bptt(Sigmoid(width))) for width in WIDTHS),
        samples=1000,
        cascade=True,
    )


def _entry(name: str, attack: Attack, threat: Threat, rule: GradientRule | None = None) -> Entry:
    """An attack through full BPTT unless said otherwise, on frames if the threat perturbs every time step."""
    return Entry(name, Through(rule or bptt(), OnFrames(attack) if threat.per_step else attack), threat)


PROTOCOLS: dict[str, Callable[[Threat], Protocol]] = {"smoke": smoke, "paper": paper, "sweep": sweep}


def protocol(name: str, threat: Threat) -> Protocol:
    """A built-in protocol by name.  Raises ConfigError for an unknown one, with the nearest name."""
    make = PROTOCOLS.get(name)
    if make is None:
        raise ConfigError(
            f"unknown protocol {name!r}; expected one of {', '.join(PROTOCOLS)}; did you mean "
            f"{nearest(name, PROTOCOLS)!r}?"
        )
    return make(threat)
