"""What the tensors of a checkpoint do not tell of its spiking layers: how they go on, learn and are differentiated.

In config.json:

    homeostasis   beyond and learn, of every layer that has its own thresholds, and under `layers` those that differ
    rules         layer -> gradient rule, where it is not that of the network's description
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hosnn.errors import CheckpointError, ConfigError, HosnnError
from hosnn.nn.neurons import LIF, TALIF, Extrapolation, hidden_neurons, neurons
from hosnn.nn.thresholds import ThresholdLIF
from hosnn.signature.homeostasis import replace_layer
from hosnn.spiking.gradient_rule import GradientRule
from hosnn.training.configuration import describe, rebuild


def describe_homeostasis(network: nn.Module) -> dict[str, Any] | None:
    """How the layers with thresholds of their own were set, JSON-ready; None if there are none."""
    each = {
        name: {"beyond": layer.beyond.value, "learn": isinstance(layer, ThresholdLIF) and layer.learns}
        for name, layer in neurons(network).items()
        if isinstance(layer, (TALIF, ThresholdLIF))
    }
    if not each:
        return None
    most = next(iter(each.values()))
    different = {name: setting for name, setting in each.items() if setting != most}
    return most | ({"layers": different} if different else {})


def describe_rules(network: nn.Module) -> dict[str, Any]:
    """The rules that the network's blueprint does not tell, by layer; none for a network without one.

    Raises CheckpointError for a rule that could not be read back.
    """
    blueprint = getattr(network, "blueprint", None)
    if blueprint is None:
        return {}
    found: dict[str, Any] = {}
    for name, layer in neurons(network).items():
        if layer.rule == getattr(blueprint, "rule", None):
            continue
        try:
            found[name] = describe(layer.rule)
            readable = rebuild(found[name]) == layer.rule
        except ConfigError:
            readable = False
        if not readable:
            raise CheckpointError(
                f"the layer {name} is differentiated by {layer.rule!r}, which a checkpoint cannot hold; expected a "
                "GradientRule with a surrogate of hosnn; save the network it was made from, and make it again with "
                "hosnn.estimators.with_rule after loading"
            )
    return found


def restore(network: nn.Module, tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: Any) -> None:
    """Make the layers of a freshly built network what the checkpoint says, in place, but for their numbers.

    Raises CheckpointError for what is damaged.
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
            f"{source / 'config.json'} describes no homeostasis or gradient rules known here: {error}"
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
    if name not in layers or not isinstance(rule, GradientRule):
        raise ConfigError(f"the layer {name!r} with the rule {rule!r}; the network has the layers {sorted(layers)}")
    layers[name].rule = rule
