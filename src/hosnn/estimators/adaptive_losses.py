"""Adaptive attacks on homeostasis: an attack's own loss plus a term over the neurons' activity.

Shapes: T time, B batch, N neuron dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.estimators.model_wrappers import WrappedModel, replace_innermost
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Attack, Model
from hosnn.spiking.kernels.eager import LayerRecord, record_layers
from hosnn.spiking.state import AdaptiveThreshold

AnyLoss = Callable[..., Tensor]
"""An attack's own loss, targeted or not: (scores, labels, ..) -> [B]."""


class AdaptiveLoss(Protocol):
    """A loss term over a network's neurons that an attack maximises: (layers in order of call) -> [B]."""

    def __call__(self, layers: Sequence[LayerRecord], /) -> Tensor: ...


@identified("LowerThresholds")
@dataclass(frozen=True)
class LowerThresholds:
    """Lowers thresholds:  mean over layers of  -mean_{t,n}(θ[t] - θ[0]) / rms(u*).

    Division by the signature's root mean square makes the term of order 1.  Its gradient is zero through an estimator
    that cuts the threshold path.
    Raises ConfigError for a network without TALIF layers.
    """

    def __call__(self, layers: Sequence[LayerRecord], /) -> Tensor:
        return _mean(
            [
                (layer.dynamics.threshold - _per_sample(layer.trajectory.threshold)) / _rms(signature)
                for layer, signature in _adapting(layers, self)
            ]
        )


@identified("SilenceNeurons")
@dataclass(frozen=True)
class SilenceNeurons:
    """Lowers firing rates:  mean over layers of  -log(mean_{t,n} s[t] + 0.001), at most 6.9 for silent layers.

    top_only  only the last layer, whose silence makes the logits constant
    Raises ConfigError for a network without hosnn spiking layers.
    """

    top_only: bool = False

    def __call__(self, layers: Sequence[LayerRecord], /) -> Tensor:
        if not layers:
            raise _no_layers(self, "LIF or TALIF")
        silenced = layers[-1:] if self.top_only else layers
        return _mean([-(_per_sample(layer.trajectory.spikes) + 1e-3).log() for layer in silenced])


@identified("SignatureError")
@dataclass(frozen=True)
class SignatureDeviation:
    """Raises the deviation from the signature:  mean over layers of  mean_{t,n}(u - u*)^2 / mean(u*^2).

    Raises ConfigError for a network without TALIF layers.
    """

    def __call__(self, layers: Sequence[LayerRecord], /) -> Tensor:
        return _mean(
            [
                _per_sample((layer.trajectory.membrane - signature[:, None]).square()) / _rms(signature) ** 2
                for layer, signature in _adapting(layers, self)
            ]
        )


@identified("AgainstHomeostasis")
@dataclass(frozen=True)
class AgainstHomeostasis:
    """Run `attack` with the loss  L + weight · term  in place of its own L, on the same forward pass.

    attack  has a field `loss`, or wraps attacks that have one (in a field `attack` or `attacks`)
    Scores are unchanged, so the attack still judges success by the network's own.
    Raises ConfigError for an attack without a loss, or a network without the layers that the term needs.
    """

    attack: Attack
    term: AdaptiveLoss
    weight: float = 1.0

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        last = _LastForward()
        attack = _with_loss(self.attack, lambda loss: _LossWithTerm(loss, self.term, self.weight, last))
        if attack is None:
            raise ConfigError(
                f"AgainstHomeostasis got {self.attack!r}, which has no loss to add a term to; expected an attack with "
                "a field `loss`, such as PGD, or one that wraps such attacks"
            )
        return attack(replace_innermost(model, lambda innermost: _RecordedModel(innermost, last)), x, y, rng)


class _LastForward:
    """The scores of the last forward pass and the records of its layers."""

    def __init__(self) -> None:
        self.scores: Tensor | None = None
        self.layers: list[LayerRecord] = []


@dataclass(frozen=True)
class _RecordedModel(WrappedModel):
    last: _LastForward

    def __call__(self, x: Tensor) -> Tensor:
        with record_layers() as layers:
            scores = self.model(x)
        self.last.scores, self.last.layers = scores, layers
        return scores


@dataclass(frozen=True)
class _LossWithTerm:
    loss: AnyLoss
    term: AdaptiveLoss
    weight: float
    last: _LastForward

    def __call__(self, scores: Tensor, *labels: Tensor) -> Tensor:
        if scores is not self.last.scores:
            raise ConfigError(
                "AgainstHomeostasis: the attack computed its loss from scores other than the last ones of the model "
                "under attack, so the term over its neurons is not known; attack the network itself by gradients, not "
                "a transfer source or the mean of several calls"
            )
        return self.loss(scores, *labels) + self.weight * self.term(self.last.layers)


def _with_loss(attack: Any, change: Callable[[AnyLoss], AnyLoss]) -> Attack | None:
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
    adapting = [
        (layer, layer.threshold.signature)
        for layer in layers
        if isinstance(layer.threshold, AdaptiveThreshold) and bool((layer.threshold.adaptation > 0).any())
    ]
    if not adapting:
        raise _no_layers(term, "TALIF")
    return adapting


def _no_layers(term: AdaptiveLoss, kind: str) -> ConfigError:
    return ConfigError(
        f"{term!r} needs {kind} layers, but the model has none; leave this attack out, or make the network homeostatic "
        "first (hosnn.homeostatic)"
    )


def _per_sample(values: Tensor) -> Tensor:
    """Mean over time and neurons: [T, B, *N] -> [B]."""
    return values.transpose(0, 1).flatten(1).mean(1)


def _rms(signature: Tensor) -> Tensor:
    return signature.square().mean().sqrt().clamp(min=1e-6)


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean(0)
