"""Settings of spiking layers in a checkpoint: extrapolation, learned thresholds and gradient rules.

In config.json:

    homeostasis   `beyond` and `learn` of the layers with thresholds of their own; under `layers`, those that differ
    rules         layer -> gradient rule, where it is not that of the network's description
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hosnn.errors import CheckpointError, ConfigError, HosnnError
from hosnn.nn.neurons import LIF, TALIF, Extrapolation, hidden_neurons, neurons
from hosnn.nn.thresholds import ThresholdLIF
from hosnn.signature.homeostasis import replace_layer
from hosnn.spiking.gradient_rule import GradientRule, WholeLayerRule
from hosnn.training.configuration import describe, is_readable, rebuild


def describe_homeostasis(network: nn.Module) -> dict[str, Any] | None:
    """Settings of the layers with thresholds of their own, JSON-ready; None if there are none."""
    settings = {
        name: {"beyond": layer.beyond.value, "learn": isinstance(layer, ThresholdLIF) and layer.learns}
        for name, layer in neurons(network).items()
        if isinstance(layer, (TALIF, ThresholdLIF))
    }
    if not settings:
        return None
    first = next(iter(settings.values()))
    different = {name: setting for name, setting in settings.items() if setting != first}
    return first | ({"layers": different} if different else {})


def describe_rules(network: nn.Module) -> dict[str, Any]:
    """Gradient rules that differ from the network's blueprint, by layer; none for a network without a blueprint.

    Raises CheckpointError for a rule that could not be read back.
    """
    blueprint = getattr(network, "blueprint", None)
    if blueprint is None:
        return {}
    rules: dict[str, Any] = {}
    for name, layer in neurons(network).items():
        if layer.rule == getattr(blueprint, "rule", None):
            continue
        if not is_readable(layer.rule):
            raise CheckpointError(
                f"the layer {name} is differentiated by {layer.rule!r}, which a checkpoint cannot hold; expected a "
                "rule and a surrogate of hosnn; save the network it was made from, and use "
                "hosnn.estimators.with_rule again after loading"
            )
        rules[name] = describe(layer.rule)
    return rules


def restore(network: nn.Module, tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: Any) -> None:
    """Give a freshly built network the checkpoint's kinds of layers and gradient rules, in place; weights come later.

    Raises CheckpointError if the checkpoint is damaged.
    """
    try:
        for name, rule in (config.get("rules") or {}).items():
            _restore_rule(neurons(network), name, rebuild(rule))
        homeostasis = config.get("homeostasis") or {}
        settings = {
            name: _setting(homeostasis | (homeostasis.get("layers") or {}).get(name, {}))
            for name in hidden_neurons(network)
        }
    except (HosnnError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source / 'config.json'} has a homeostasis or gradient rule that is unknown here: {error}"
        ) from error
    for name, layer in hidden_neurons(network).items():
        own = {part: tensors.get(f"{name}.{part}") for part in ("signature", "adaptation", "threshold")}
        signature, adaptation, threshold = own.values()
        beyond, learn = settings[name]
        try:
            if signature is not None and adaptation is not None:
                replace_layer(network, name, TALIF.from_lif(layer, signature, adaptation, beyond))
            elif threshold is not None:
                replace_layer(network, name, ThresholdLIF.from_lif(layer, threshold, learn, beyond))
        except HosnnError as error:
            raise CheckpointError(f"{source} holds a damaged layer {name}: {error}") from error


def _setting(description: Mapping[str, Any]) -> tuple[Extrapolation, bool]:
    return Extrapolation(description.get("beyond", Extrapolation.ERROR.value)), bool(description.get("learn", False))


def _restore_rule(layers: Mapping[str, LIF], name: str, rule: Any) -> None:
    if name not in layers or not isinstance(rule, (GradientRule, WholeLayerRule)):
        raise ConfigError(f"the layer {name!r} with the rule {rule!r}; the network has the layers {sorted(layers)}")
    layers[name].rule = rule
