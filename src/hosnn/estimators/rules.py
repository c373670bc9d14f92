"""Differentiate a spiking model by another rule than it was trained with; the forward pass stays bit-identical."""

import copy
import threading
import warnings
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from hosnn.errors import ConfigError, NoEffectWarning
from hosnn.estimators.model_wrappers import WrappedModel, network_of, replace_innermost, unwrapped
from hosnn.estimators.sharpness import AdaptiveSharpness, AdaptiveSharpnessModel, AdaptiveSharpnessRule, DistanceTracker
from hosnn.identity import identified
from hosnn.nn.neurons import LIF, neurons
from hosnn.nn.unwrapping import unwrapped as without_wrappers
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Attack, Model
from hosnn.spiking.gradient_rule import Rule, bptt
from hosnn.spiking.kernels.backend import rules_observed

M = TypeVar("M", bound=nn.Module)

Estimator = Rule | AdaptiveSharpness
"""A gradient estimator: it changes the backward pass of a spiking model and nothing else."""


def with_rule(model: M, rule: Rule) -> M:
    """The same network, sharing every parameter and buffer, whose spiking layers are differentiated by `rule`.

    A network without spiking layers stays as it is, which a NoEffectWarning says.
    Raises ConfigError for an estimator that keeps state during an attack; that needs `Through`.
    """
    model = without_wrappers(model, "with_rule")
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
        innermost = without_wrappers(innermost, "Through")
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


def check_reach(model: Model, x: Tensor) -> None:
    """Raises ConfigError unless gradient estimators reach a network's spiking layers, found by its answers to x."""
    with torch.no_grad():
        differentiated(model, bptt(), len(x))(x)


def _shared_copy(model: M) -> M:
    """A copy of the modules that shares all parameters and buffers.  Raises ConfigError if it cannot be made."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    try:
        return copy.deepcopy(model, memo=dict(shared))
    except Exception as error:  # whatever a module that holds files, locks or graphs raises
        raise ConfigError(
            f"gradient estimators need a copy of the network, and {type(model).__name__} cannot be copied "
            f"({type(error).__name__}: {error}); give it no open files, locks or tensors with a graph"
        ) from error


def _checked(model: Model, network: nn.Module) -> "_CheckedCopy":
    """`network`, or its method of the same name if `model` is a method, such as `outputs`."""
    return _CheckedCopy(network if isinstance(model, nn.Module) else getattr(network, model.__name__))


@dataclass(frozen=True)
class _CheckedCopy(WrappedModel):
    """A copied network; its first call checks that it runs no spiking layers but its own, each by its own rule.

    A copy has its own modules but shares the original's closures: a function that captured a layer of the original, or
    took the place of its `forward`, runs that layer in the copy too.  The same holds for layers in a plain list.
    passed  empty until the check has passed
    """

    passed: list[bool] = field(default_factory=list, compare=False)

    def __call__(self, x: Tensor) -> Tensor:
        if self.passed:
            return self.model(x)
        network = network_of(unwrapped(self.model))  # a copy of this one, if an inner estimator copied it again
        own = {} if network is None else {layer: name for name, layer in neurons(network).items()}
        rules = {id(layer.rule) for layer in own}
        called: list[LIF] = []
        ignoring: list[str] = []
        thread = threading.get_ident()

        def record(module: nn.Module, _: object) -> None:
            if isinstance(module, LIF) and threading.get_ident() == thread:
                called.append(module)

        def observe(rule: Rule) -> None:
            if id(rule) not in rules and called and called[-1] in own:
                ignoring.append(own[called[-1]])

        handle = register_module_forward_pre_hook(record)
        try:
            with rules_observed(observe):
                output = self.model(x)
        finally:
            handle.remove()
        if ignoring:
            raise ConfigError(
                f"the forward of {', '.join(dict.fromkeys(ignoring))} was replaced by a function that runs the layer "
                "that it was made from, also in a copy of the network, so the gradient estimator would do nothing; "
                "remove the replacement (del layer.forward), or define forward in a class"
            )
        foreign = [layer for layer in called if layer not in own]
        if foreign:
            raise ConfigError(
                f"the network runs {len(foreign)} spiking layers where a copy of it cannot reach them (captured in a "
                "function, or kept in a plain list), so they would ignore the gradient estimator; make them modules of "
                "the network (attributes or nn.ModuleList) and call them as self.layer(..) in its forward"
            )
        self.passed.append(True)
        return output
