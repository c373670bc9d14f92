"""Configuration values to JSON (`describe`) and back, by a literal table of types and by no other code."""

from collections.abc import Mapping
from dataclasses import Field, field, fields, is_dataclass
from enum import Enum
from typing import Any, get_type_hints

from hosnn.errors import ConfigError
from hosnn.nn.convnet import ConvNet
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.lenet import LeNet
from hosnn.nn.resnet import ResNet
from hosnn.spiking.gradient_rule import GradientRule
from hosnn.spiking.state import Dynamics
from hosnn.spiking.surrogate import SURROGATES

BLUEPRINTS = (LeNet, ConvNet, ResNet)
TYPES: dict[str, type] = {kind.__name__: kind for kind in (*BLUEPRINTS, Dynamics, GradientRule, *SURROGATES)}


def describe(value: Any) -> Any:
    """A configuration value as JSON: dataclasses become objects with their type, functions their name."""
    if is_dataclass(value) and not isinstance(value, type):
        told = {f.name: getattr(value, f.name) for f in fields(value) if not _is_left_out(f, getattr(value, f.name))}
        return {"type": type(value).__name__} | {name: describe(part) for name, part in told.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [describe(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if callable(value) and getattr(value, "__name__", "<lambda>") != "<lambda>":
        return value.__name__
    raise ConfigError(f"cannot write {value!r} into a configuration; expected numbers, text, dataclasses or functions")


def added(default: Any) -> Any:
    """A field that a class got after the first experiments were trained with it.

    It is told only where it differs from its default, which is what they did: they keep their identity.
    """
    return field(default=default, metadata={"added": True})


def _is_left_out(of: Field[Any], value: Any) -> bool:
    return bool(of.metadata.get("added")) and value == of.default


def network_from(description: Mapping[str, Any]) -> SpikingNetwork:
    """The untrained network a checkpoint's config describes.  Raises ConfigError if it describes none."""
    value = rebuild(description)
    if not isinstance(value, BLUEPRINTS):
        raise ConfigError(f"a network's description got {description!r}; expected the type of a hosnn network")
    return value.build()


def rebuild(description: Any) -> Any:
    """The inverse of `describe` for the types of `TYPES`.  Raises ConfigError for unknown types and fields."""
    if not isinstance(description, Mapping):
        return tuple(description) if isinstance(description, list) else description
    given = dict(description)
    kind = TYPES.get(given.pop("type", ""))
    if kind is None:
        raise ConfigError(f"unknown type {description.get('type')!r}; expected one of {', '.join(sorted(TYPES))}")
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}
    if not given.keys() <= known:
        raise ConfigError(f"{kind.__name__} has no field {sorted(given.keys() - known)}; it has {sorted(known)}")
    return kind(**{name: _typed(hints[name], value) for name, value in given.items()})


def _typed(hint: Any, value: Any) -> Any:
    return hint(value) if isinstance(hint, type) and issubclass(hint, Enum) else rebuild(value)
