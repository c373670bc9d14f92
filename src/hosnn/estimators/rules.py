"""Differentiating a spiking model by another rule than the one it was trained with; its forward stays bit-identical."""

import copy
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from hosnn.nn.neurons import neurons
from hosnn.robustness.model import Attack, Model
from hosnn.robustness.random import SampleRandom
from hosnn.spiking.gradient import GradientRule

M = TypeVar("M", bound=nn.Module)


def with_rule(model: M, rule: GradientRule) -> M:
    """The same network, sharing every parameter and buffer, whose spiking layers are differentiated by `rule`."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, memo=dict(shared))
    for layer in neurons(twin).values():
        layer.rule = rule
    return twin


@dataclass(frozen=True)
class Through:
    """Run `attack` on the model as differentiated by `rule`.  A model without spiking layers is attacked as it is."""

    rule: GradientRule
    attack: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        owner = getattr(model, "__self__", None)
        if isinstance(model, nn.Module):
            model = with_rule(model, self.rule)
        elif isinstance(owner, nn.Module):  # a method of a network, such as `outputs`
            model = getattr(with_rule(owner, self.rule), model.__name__)
        return self.attack(model, x, y, rng)
