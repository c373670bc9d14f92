"""Configuration values to JSON (`describe`) and back (`rebuild`), through a literal table of types.

Types, fields and functions appear under the names that they declare (`hosnn.identity`), not those in the code.
"""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from hosnn.errors import ConfigError
from hosnn.estimators.rates import BPTR, HART, RGA, ActivationBackward
from hosnn.identity import identity_fields, identity_name
from hosnn.nn.convnet import ConvNet
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.lenet import LeNet
from hosnn.nn.resnet import ResNet
from hosnn.spiking.gradient_rule import GradientRule
from hosnn.spiking.state import Dynamics
from hosnn.spiking.surrogate import SURROGATES, PotentialDependent

BLUEPRINTS = (LeNet, ConvNet, ResNet)
RULES = (GradientRule, BPTR, RGA, ActivationBackward, HART)
VALUES = (*BLUEPRINTS, Dynamics, *RULES, *SURROGATES, PotentialDependent)
TYPES = {identity_name(kind): kind for kind in VALUES}

INFINITY = "infinity"
"""An infinite number, for which JSON has no other form."""


def describe(value: Any) -> Any:
    """A configuration value as JSON: a dataclass becomes an object with its type, a function its name."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": identity_name(type(value))} | {name: describe(part) for name, part in identity_fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [describe(item) for item in value]
    if value == math.inf:
        return INFINITY
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if callable(value) and getattr(value, "__name__", "<lambda>") != "<lambda>":
        return getattr(value, "identity_name", value.__name__)
    raise ConfigError(f"cannot write {value!r} into a configuration; expected numbers, text, dataclasses or functions")


def is_readable(value: Any) -> bool:
    """Whether a configuration value can be written, and is the same when it is read back."""
    try:
        return bool(rebuild(describe(value)) == value)
    except ConfigError:
        return False


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
    settings = dict(description)
    name = settings.pop("type", "")
    kind = TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ConfigError(f"unknown type {description.get('type')!r}; expected one of {', '.join(sorted(TYPES))}")
    hints = get_type_hints(kind)
    names = {part.metadata.get("identity", part.name): part.name for part in fields(kind)}
    if not settings.keys() <= names.keys():
        raise ConfigError(
            f"{identity_name(kind)} has no field {sorted(settings.keys() - names.keys())}; it has {sorted(names)}"
        )
    return kind(**{names[name]: _typed(names[name], hints[names[name]], value) for name, value in settings.items()})


def _typed(name: str, hint: Any, value: Any) -> Any:
    """The value of a field.  Raises ConfigError for one of another type."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        if value not in [member.value for member in hint]:
            raise ConfigError(f"{name} got {value!r}; expected {' or '.join(repr(member.value) for member in hint)}")
        return hint(value)
    value = math.inf if hint is float and value == INFINITY else rebuild(value)
    if not _fits(hint, value):
        raise ConfigError(f"{name} got {value!r}; expected {getattr(hint, '__name__', hint)}")
    return value


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a field's type; an integer is a real number too, but no flag is a number."""
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        kinds = arguments[:1] * len(value) if isinstance(value, tuple) and arguments[1:] == (...,) else arguments
        return isinstance(value, tuple) and len(kinds) == len(value) and all(map(_fits, kinds, value))
    if arguments:  # X | None
        return any(_fits(kind, value) for kind in arguments)
    if hint is float:
        return type(value) in (int, float) and not math.isnan(value)
    return type(value) is hint if hint in (int, bool, str) else isinstance(value, hint)
