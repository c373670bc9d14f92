"""Differentiating a spiking model by another rule than the one it was trained with; its forward stays bit-identical."""

import copy
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.estimators.sharpness import AdaptiveSharpness, Memory, Remembered, Sharpened
from hosnn.estimators.wrapping import innermost, network_of
from hosnn.nn.neurons import neurons
from hosnn.robustness.model import Attack, Model
from hosnn.robustness.random import SampleRandom
from hosnn.spiking.gradient import Rule

M = TypeVar("M", bound=nn.Module)

Estimator = Rule | AdaptiveSharpness
"""What changes the backward of a spiking model and nothing else."""


def with_rule(model: M, rule: Rule) -> M:
    """The same network, sharing every parameter and buffer, whose spiking layers are differentiated by `rule`.

    Raises ConfigError for an estimator that remembers samples during an attack; that needs `Through`.
    """
    if not isinstance(rule, Rule):
        raise ConfigError(
            f"with_rule got {rule!r}, which belongs to one run of an attack; use Through({rule!r}, attack)"
        )
    twin = _twin(model)
    for layer in neurons(twin).values():
        layer.rule = rule
    return twin


@dataclass(frozen=True)
class Through:
    """Run `attack` on the model as differentiated by `rule`.  A model without spiking layers is attacked as it is."""

    rule: Estimator
    attack: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return self.attack(differentiated(model, self.rule, len(x)), x, y, rng)


def differentiated(model: Model, estimator: Estimator, samples: int, vanishing: Tensor | None = None) -> Model:
    """`model` (a network, its method, or either inside wrappers) for one attack on `samples` samples.

    vanishing  [B], the adaptive sharpness of each sample, if it is not the estimator's for all
    """

    def change(inside: Model) -> Model:
        network = network_of(inside)
        if network is None or not neurons(network):
            return inside
        if not isinstance(estimator, AdaptiveSharpness):
            return _called_as(inside, with_rule(network, estimator))
        memory, twin = Memory(estimator, samples, vanishing), _twin(network)
        for name, layer in neurons(twin).items():
            layer.rule = Sharpened(layer=name, memory=memory)
        return Remembered(_called_as(inside, twin), memory)

    return innermost(model, change)


def _twin(model: M) -> M:
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo=dict(shared))


def _called_as(model: Model, twin: nn.Module) -> Model:
    """The twin's own `model`: itself, or its method of that name, such as `outputs`."""
    return twin if isinstance(model, nn.Module) else getattr(twin, model.__name__)
