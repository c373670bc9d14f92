"""Attacks aimed at homeostasis itself: an attack's own loss plus what an insider would want of the neurons.

Shapes: T time, B batch, N neuron dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.estimators.model_wrappers import Wrapped, innermost
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Attack, Model
from hosnn.spiking.kernels.eager import LayerRecord, record_layers
from hosnn.spiking.state import AdaptiveThreshold

Loss = Callable[..., Tensor]


class AdaptiveLoss(Protocol):
    """What an attack wants of a network's neurons, one number per sample: (layers in order of call) -> [B]."""

    def __call__(self, layers: Sequence[LayerRecord], /) -> Tensor: ...


@dataclass(frozen=True)
class LowerThresholds:
    """Thresholds down, so that neurons fire at little:  mean over layers of  -mean_{t,n}(θ[t] - θ[0]) / rms(u*).

    The unit, the signature's root mean square, is the network's own, so that the term is of order 1.  An estimator that
    cuts the threshold path gives this term no gradient.
    Raises ConfigError for a network without TALIF layers.
    """

    def __call__(self, layers: Sequence[LayerRecord], /) -> Tensor:
        return _mean(
            [
                (seen.dynamics.threshold - _per_sample(seen.run.threshold)) / _size(signature)
                for seen, signature in _adapting(layers, self)
            ]
        )


@dataclass(frozen=True)
class SilenceNeurons:
    """Firing rates down:  mean over layers of  -log(mean_{t,n} s[t] + 0.001), at most 6.9, whatever the rate was.

    top_only  the last layer alone: a network whose output is silent has nothing to say
    Raises ConfigError for a network without hosnn spiking layers.
    """

    top_only: bool = False

    def __call__(self, layers: Sequence[LayerRecord], /) -> Tensor:
        if not layers:
            raise _no_layers(self, "LIF or TALIF")
        chosen = layers[-1:] if self.top_only else layers
        return _mean([-(_per_sample(seen.run.spikes) + 1e-3).log() for seen in chosen])


@dataclass(frozen=True)
class SignatureDeviation:
    """The error that homeostasis is there to hold down, up:  mean over layers of  mean_{t,n}(u - u*)^2 / mean(u*^2).

    Raises ConfigError for a network without TALIF layers.
    """

    def __call__(self, layers: Sequence[LayerRecord], /) -> Tensor:
        return _mean(
            [
                _per_sample((seen.run.membrane - signature[:, None]).square()) / _size(signature) ** 2
                for seen, signature in _adapting(layers, self)
            ]
        )


@dataclass(frozen=True)
class AgainstHomeostasis:
    """Run `attack` with the loss  L + weight · term  in place of its own L, on the same forward pass.

    attack  has a field `loss`, or wraps attacks that have (a field `attack` or `attacks`)
    Scores are untouched, so that an attack judges success by the true ones.
    Raises ConfigError for an attack without a loss or a network without the layers that the term speaks of.
    """

    attack: Attack
    term: AdaptiveLoss
    weight: float = 1.0

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        record = _Record()
        found = _with_loss(self.attack, lambda loss: _WithTerm(loss, self.term, self.weight, record))
        if found is None:
            raise ConfigError(
                f"AgainstHomeostasis got {self.attack!r}, which has no loss to add a term to; expected an attack with "
                "a field `loss`, such as PGD, or one that wraps such attacks"
            )
        return found(innermost(model, lambda inside: _Watched(inside, record)), x, y, rng)


class _Record:
    """What the layers did in the last forward, and the scores it gave."""

    def __init__(self) -> None:
        self.scores: Tensor | None = None
        self.layers: list[LayerRecord] = []


@dataclass(frozen=True)
class _Watched(Wrapped):
    record: _Record

    def __call__(self, x: Tensor) -> Tensor:
        with record_layers() as layers:
            found = self.model(x)
        self.record.scores, self.record.layers = found, layers
        return found


@dataclass(frozen=True)
class _WithTerm:
    loss: Loss
    term: AdaptiveLoss
    weight: float
    record: _Record

    def __call__(self, found: Tensor, *labels: Tensor) -> Tensor:
        if found is not self.record.scores:
            raise ConfigError(
                "AgainstHomeostasis: the attack took its loss of scores other than the last ones of the model under "
                "attack, so the neurons' part is not known; attack the network itself, by gradients, not a transfer "
                "source or a mean of several looks"
            )
        return self.loss(found, *labels) + self.weight * self.term(self.record.layers)


def _with_loss(attack: Any, change: Callable[[Loss], Loss]) -> Attack | None:
    """The attack with every loss in it changed; None if there is none."""
    if not is_dataclass(attack) or isinstance(attack, type):
        return None
    names = {field.name for field in fields(attack)}
    parts: dict[str, Any] = {}
    if "loss" in names:
        parts["loss"] = change(attack.loss)  # type: ignore[attr-defined]
    elif "attack" in names:
        parts["attack"] = _with_loss(attack.attack, change)  # type: ignore[attr-defined]
        if parts["attack"] is None:
            return None
    elif "attacks" in names:
        parts["attacks"] = tuple(_with_loss(member, change) for member in attack.attacks)  # type: ignore[attr-defined]
        if None in parts["attacks"]:
            return None
    else:
        return None
    if getattr(attack, "probe", None) is not None:
        parts["probe"] = _with_loss(attack.probe, change)  # type: ignore[attr-defined]
    changed: Any = replace(attack, **parts)
    return changed  # type: ignore[no-any-return]


def _adapting(layers: Sequence[LayerRecord], term: AdaptiveLoss) -> list[tuple[LayerRecord, Tensor]]:
    found = [
        (seen, seen.threshold.signature)
        for seen in layers
        if isinstance(seen.threshold, AdaptiveThreshold) and bool((seen.threshold.adaptation > 0).any())
    ]
    if not found:
        raise _no_layers(term, "TALIF")
    return found


def _no_layers(term: AdaptiveLoss, kind: str) -> ConfigError:
    return ConfigError(
        f"{term!r} speaks of {kind} layers, but the model has none; leave this attack out, or make the network "
        "homeostatic first (hosnn.homeostatic)"
    )


def _per_sample(values: Tensor) -> Tensor:
    """Mean over time and neurons: [T, B, *N] -> [B]."""
    return values.transpose(0, 1).flatten(1).mean(1)


def _size(signature: Tensor) -> Tensor:
    return signature.square().mean().sqrt().clamp(min=1e-6)


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean(0)
