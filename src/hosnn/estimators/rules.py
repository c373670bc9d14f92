"""Differentiate a spiking model by another rule than it was trained with; the forward pass stays bit-identical."""

import copy
import threading
import warnings
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from hosnn.errors import ConfigError, NoEffectWarning
from hosnn.estimators.model_wrappers import WrappedModel, network_of, replace_innermost, unwrapped
from hosnn.estimators.sharpness import AdaptiveSharpness, AdaptiveSharpnessModel, AdaptiveSharpnessRule, DistanceTracker
from hosnn.identity import identified
from hosnn.nn.neurons import LIF, neurons
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Attack, Model
from hosnn.spiking.gradient_rule import Rule

M = TypeVar("M", bound=nn.Module)

Estimator = Rule | AdaptiveSharpness
"""A gradient estimator: it changes the backward pass of a spiking model and nothing else."""


def with_rule(model: M, rule: Rule) -> M:
    """The same network, sharing every parameter and buffer, whose spiking layers are differentiated by `rule`.

    A network without spiking layers stays as it is, which a NoEffectWarning says.
    Raises ConfigError for an estimator that keeps state during an attack; that needs `Through`.
    """
    if not isinstance(rule, Rule):
        raise ConfigError(
            f"with_rule got {rule!r}, which keeps state for one run of an attack; expected a gradient rule such as "
            f"bptt(); use Through({rule!r}, attack)"
        )
    if not neurons(model):
        _warn_no_effect(model)
    network = _shared_copy(model)
    for layer in neurons(network).values():
        layer.rule = rule
    return network


def has_spiking_layers(model: Model) -> bool:
    """Whether gradient estimators change anything: the network inside `model` has spiking layers of this package."""
    network = network_of(unwrapped(model))
    return network is not None and bool(neurons(network))


def _warn_no_effect(model: Model) -> None:
    network = network_of(model)
    kind = type(model if network is None else network).__name__
    warnings.warn(
        f"a gradient estimator does nothing on {kind}, which has no hosnn spiking layer: it is differentiated by its "
        "own gradient; attack it without Through or with_rule, or build it with hosnn.LIF layers",
        NoEffectWarning,
        stacklevel=3,
    )


@identified("Through")
@dataclass(frozen=True)
class Through:
    """Run `attack` on the model, differentiated by `rule`.

    A model without spiking layers is attacked as it is, which a NoEffectWarning says.
    Raises ConfigError for a network that runs spiking layers which are not among its modules: they would keep their own
    rule, and the result would not be the estimator's.
    """

    rule: Estimator
    attack: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return self.attack(differentiated(model, self.rule, len(x)), x, y, rng)


def differentiated(model: Model, estimator: Estimator, samples: int, vanishing: Tensor | None = None) -> Model:
    """`model` (a network, its method, or either inside wrappers) for one attack on `samples` samples.

    vanishing  A/2 of `AdaptiveSharpness` for each sample [B]; None: the estimator's own for all
    """

    def change(innermost: Model) -> Model:
        network = network_of(innermost)
        if network is None or not neurons(network):
            _warn_no_effect(innermost)
            return innermost
        if not isinstance(estimator, AdaptiveSharpness):
            return _checked(innermost, with_rule(network, estimator))
        tracker, network = DistanceTracker(estimator, samples, vanishing), _shared_copy(network)
        for name, layer in neurons(network).items():
            layer.rule = AdaptiveSharpnessRule(layer=name, tracker=tracker)
        return AdaptiveSharpnessModel(_checked(innermost, network), tracker)

    return replace_innermost(model, change)


def _shared_copy(model: M) -> M:
    """A copy of the modules that shares all parameters and buffers."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo=dict(shared))


def _checked(model: Model, network: nn.Module) -> "_CheckedCopy":
    """`network`, or its method of the same name if `model` is a method, such as `outputs`."""
    return _CheckedCopy(network if isinstance(model, nn.Module) else getattr(network, model.__name__))


@dataclass(frozen=True)
class _CheckedCopy(WrappedModel):
    """A copied network; its first call checks that it runs no spiking layers but its own.

    A copy has its own modules but shares the original's closures: a function that captured a layer of the original runs
    that layer in the copy too.  The same holds for layers in a plain list.
    passed  empty until the check has passed
    """

    passed: list[bool] = field(default_factory=list, compare=False)

    def __call__(self, x: Tensor) -> Tensor:
        if self.passed:
            return self.model(x)
        network = network_of(unwrapped(self.model))  # a copy of this one, if an inner estimator copied it again
        own = set() if network is None else set(neurons(network).values())
        foreign: list[LIF] = []
        thread = threading.get_ident()

        def record(module: nn.Module, _: object) -> None:
            if isinstance(module, LIF) and module not in own and threading.get_ident() == thread:
                foreign.append(module)

        handle = register_module_forward_pre_hook(record)
        try:
            output = self.model(x)
        finally:
            handle.remove()
        if foreign:
            raise ConfigError(
                f"the network runs {len(foreign)} spiking layers where a copy of it cannot reach them (captured in a "
                "function, or kept in a plain list), so they would ignore the gradient estimator; make them modules of "
                "the network (attributes or nn.ModuleList) and call them as self.layer(..) in its forward"
            )
        self.passed.append(True)
        return output
