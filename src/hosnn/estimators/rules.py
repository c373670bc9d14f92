"""Differentiating a spiking model by another rule than the one it was trained with; its forward stays bit-identical."""

import copy
import threading
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from hosnn.errors import ConfigError
from hosnn.estimators.model_wrappers import Wrapped, innermost, inside, network_of
from hosnn.estimators.sharpness import AdaptiveSharpness, Memory, Remembered, Sharpened
from hosnn.nn.neurons import LIF, neurons
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Attack, Model
from hosnn.spiking.gradient_rule import Rule

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
    """Run `attack` on the model as differentiated by `rule`.  A model without spiking layers is attacked as it is.

    Raises ConfigError for a network that runs spiking layers which are not among its modules: they would keep the rule
    they have, and the attack would say nothing of the one asked for.
    """

    rule: Estimator
    attack: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return self.attack(differentiated(model, self.rule, len(x)), x, y, rng)


def differentiated(model: Model, estimator: Estimator, samples: int, vanishing: Tensor | None = None) -> Model:
    """`model` (a network, its method, or either inside wrappers) for one attack on `samples` samples.

    vanishing  [B], the adaptive sharpness of each sample, if it is not the estimator's for all
    """

    def change(found: Model) -> Model:
        network = network_of(found)
        if network is None or not neurons(network):
            return found
        if not isinstance(estimator, AdaptiveSharpness):
            return _told(found, with_rule(network, estimator))
        memory, twin = Memory(estimator, samples, vanishing), _twin(network)
        for name, layer in neurons(twin).items():
            layer.rule = Sharpened(layer=name, memory=memory)
        return Remembered(_told(found, twin), memory)

    return innermost(model, change)


def _twin(model: M) -> M:
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo=dict(shared))


def _told(model: Model, twin: nn.Module) -> "_Told":
    """The twin's own `model`: itself, or its method of that name, such as `outputs`."""
    return _Told(twin if isinstance(model, nn.Module) else getattr(twin, model.__name__))


@dataclass(frozen=True)
class _Told(Wrapped):
    """A twin whose layers were told a rule; its first call is watched for layers that were not.

    A copy has its own modules, but not its own closures: a function that the original captured runs the original's
    layers in the copy too.  The same holds of layers that a network keeps in a plain list.
    """

    checked: list[bool] = field(default_factory=list, compare=False)

    def __call__(self, x: Tensor) -> Tensor:
        if self.checked:
            return self.model(x)
        network = network_of(inside(self.model))  # a twin of this one, if another estimator was put inside
        own = set() if network is None else set(neurons(network).values())
        strangers: list[LIF] = []
        thread = threading.get_ident()

        def watch(module: nn.Module, _: object) -> None:
            if isinstance(module, LIF) and module not in own and threading.get_ident() == thread:
                strangers.append(module)

        handle = register_module_forward_pre_hook(watch)
        try:
            found = self.model(x)
        finally:
            handle.remove()
        if strangers:
            raise ConfigError(
                f"the network runs {len(strangers)} spiking layers where a copy of it cannot reach them (captured in a "
                "function, or kept in a plain list), so they would ignore the gradient estimator; make them modules of "
                "the network (attributes or nn.ModuleList) and call them as self.layer(..) in its forward"
            )
        self.checked.append(True)
        return found
