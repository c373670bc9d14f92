"""Finding a recipe by `module:function`, and overriding fields of its experiment by `path=value`."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import hosnn.recipes
from hosnn.data import Dataset
from hosnn.errors import ConfigError, nearest
from hosnn.recipes.variants import with_dataset
from hosnn.training.experiment import Experiment

NOT_RECIPES = ("reproductions", "resolve", "robust_parts", "variants")
"""Modules of this package that hold no recipes."""


def built_in() -> dict[str, str]:
    """The recipes that come with hosnn: `module:function` -> first line of its docstring."""
    summaries = {}
    for module_info in pkgutil.iter_modules(hosnn.recipes.__path__):
        if module_info.name in NOT_RECIPES:
            continue
        module = importlib.import_module(f"hosnn.recipes.{module_info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                summaries[f"{module_info.name}:{name}"] = (function.__doc__ or "").partition("\n")[0]
    return summaries


def resolve(recipe: str) -> Experiment:
    """The experiment that a recipe returns: ours, e.g. `fashion_mnist:lif_fgsm`, or the user's `module:function`.

    Raises ConfigError for an unknown module or function, with the nearest name.
    """
    module_name, _, function_name = recipe.partition(":")
    ours = built_in()
    if not function_name:
        raise ConfigError(f"recipe got {recipe!r}; expected module:function{_nearest(recipe, ours)}")
    short = recipe.removeprefix("hosnn.recipes.")
    is_ours = any(name.startswith(short.partition(":")[0] + ":") for name in ours)
    if is_ours and short not in ours:
        raise ConfigError(f"unknown recipe {recipe!r}{_nearest(short, ours)}")
    path = f"hosnn.recipes.{short.partition(':')[0]}" if is_ours else module_name
    if not all(part.isidentifier() for part in path.split(".")):
        raise ConfigError(f"recipe got {recipe!r}; expected module:function{_nearest(recipe, ours)}")
    if not is_ours and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # `python -m hosnn` finds recipes in this folder; so should `hosnn`
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            raise
        raise ConfigError(f"unknown recipe {recipe!r}: no module {error.name!r}{_nearest(recipe, ours)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"unknown recipe {recipe!r}: {path} has no function {function_name!r}{_nearest(short, ours)}")
    if not _needs_no_arguments(function):
        raise ConfigError(
            f"{recipe} needs arguments; a recipe is a function without arguments that returns an Experiment"
        )
    experiment = function()
    if not isinstance(experiment, Experiment):
        raise ConfigError(f"{recipe} returned {type(experiment).__name__}; a recipe is a function -> Experiment")
    return experiment


def _needs_no_arguments(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    except ValueError:  # functions not written in Python may have no signature
        return True
    return True


def override(experiment: Experiment, settings: Sequence[str]) -> Experiment:
    """The experiment with fields changed, e.g. "optim.lr=3e-4" or "homeostasis.share=channel".

    An experiment shares network, data and seed with the one it starts from, so setting them changes both; other fields
    of the start are set as start.FIELD.
    Raises ConfigError for unknown fields (with the nearest name) and values of the wrong type.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set got {setting!r}; expected field=value, e.g. optim.lr=3e-4")
        experiment = _set_with_start(experiment, path.strip().split("."), text.strip(), path.strip())
    return experiment


def fitted_to(data: Dataset, experiment: Experiment, settings: Sequence[str]) -> Experiment:
    """The experiment on another data set (`with_dataset`), of which `settings` were set (`override`) and stay set.

    Raises ConfigError as both do.
    """
    fields_set = [(setting.partition("=")[0].strip().rpartition(".")[2], setting) for setting in settings]
    kept = [setting for field, setting in fields_set if field not in ("name", "data", "seed")]
    return override(with_dataset(experiment, data), kept)


def _set_with_start(experiment: Experiment, path: list[str], text: str, dotted: str) -> Experiment:
    """Set a field of the experiment, and of its start too if they share it; `dotted` is the path for messages."""
    if path[0] not in ("network", "data", "seed") or experiment.start is None:
        changed: Experiment = _set(experiment, path, text, dotted)
        return changed
    start = _set_with_start(experiment.start, path, text, dotted)
    return replace(experiment, start=start, **{path[0]: getattr(start, path[0])})


def _set(value: Any, path: list[str], text: str, dotted: str) -> Any:
    known = [field.name for field in fields(value)] if is_dataclass(value) else []
    if path[0] not in known:
        if not known:
            raise ConfigError(f"--set {dotted}: {value!r} has no fields to set; choose a recipe that has this part")
        raise ConfigError(f"{type(value).__name__} has no field {path[0]!r}; did you mean {nearest(path[0], known)!r}?")
    current = getattr(value, path[0])
    new = _set(current, path[1:], text, dotted) if len(path) > 1 else _parse(current, text, dotted)
    return replace(value, **{path[0]: new})


def _parse(current: Any, text: str, dotted: str) -> Any:
    """`text` as a value of the type of `current`, the field's value."""
    kind = type(current)
    try:
        if isinstance(current, bool):
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if isinstance(current, Enum):
            return kind(text)
        if isinstance(current, float):
            return float(Fraction(text)) if "/" in text else float(text)
        if isinstance(current, (int, str)):
            return kind(text)
        if isinstance(current, tuple) and current:
            return tuple(
                _parse(current[0], item.strip(), dotted) for item in text.strip("()").split(",") if item.strip()
            )
    except (ValueError, KeyError, ZeroDivisionError):
        expected = " or ".join(repr(member.value) for member in kind) if isinstance(current, Enum) else kind.__name__
        raise ConfigError(f"--set {dotted} got {text!r}; expected {expected}, e.g. {_example(current)}") from None
    raise ConfigError(
        f"--set {dotted}: a {kind.__name__} cannot be given as text; set one of its fields ({dotted}.FIELD=...) or "
        "write a recipe of your own"
    )


def _example(current: Any) -> Any:
    return current.value if isinstance(current, Enum) else current


def _nearest(name: str, known: dict[str, str]) -> str:
    return f"; did you mean {nearest(name, known)!r}?"
