"""What the JSON files of a checkpoint hold, as types that are checked when they are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from hosnn.errors import CheckpointError, ConfigError
from hosnn.schema import Amount, Count, Flag, Name, Number, validated

FORMAT = "hosnn-checkpoint-1"
GENERATION = r"step-\d{8,}(-again)*"
"""Names of generations; no other folder can be meant by a pointer."""

_NO_OTHERS = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Generations:
    """current.json: names of the last generation and of the one with the best validation accuracy."""

    __pydantic_config__: ClassVar[ConfigDict] = _NO_OTHERS

    last: Annotated[str, Field(pattern=f"^{GENERATION}$")]
    best: Annotated[str, Field(pattern=f"^{GENERATION}$")]


@dataclass(frozen=True)
class Position:
    """training.json: how far training got.  Older runs recorded neither ranks nor precision."""

    __pydantic_config__: ClassVar[ConfigDict] = _NO_OTHERS

    step: Count
    finished: Flag
    best: Annotated[float, Field(strict=True, ge=-1, le=1)]
    loss: Number
    seconds: Amount
    cpu_seconds: Amount = 0.0
    ranks: Annotated[int, Field(strict=True, ge=1)] | None = None
    precision: Name | None = None
    stopped: Flag = False  # by the probe, before the last step


@dataclass(frozen=True)
class LayerSettings:
    """How a layer with thresholds of its own goes on beyond their last step, and whether they are learned."""

    __pydantic_config__: ClassVar[ConfigDict] = _NO_OTHERS

    beyond: str
    learn: Flag = False


@dataclass(frozen=True)
class HomeostasisSettings(LayerSettings):
    """The same of all such layers; `layers` holds those that differ.

    Older files also hold the recipe's homeostasis (type, adaptation, share), which nothing reads.
    """

    layers: Mapping[str, LayerSettings] = field(default_factory=dict)
    type: str = ""
    adaptation: Number = 0.0
    share: str = ""


@dataclass(frozen=True)
class Config:
    """config.json."""

    __pydantic_config__: ClassVar[ConfigDict] = _NO_OTHERS

    format: Literal["hosnn-checkpoint-1"]
    network: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    homeostasis: HomeostasisSettings | None = None
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def checked(kind: type[Any], content: Any) -> dict[str, Any]:
    """`content` itself, after a check against a type of this file.  Raises ConfigError naming what is wrong."""
    validated(kind, content)
    return dict(content)


def check_end(position: Mapping[str, Any], total: int, folder: Path) -> None:
    """Raises CheckpointError unless a run of `total` steps is finished exactly after these."""
    ended = position["step"] == total or position.get("stopped", False)
    if position["step"] > total or position["finished"] != ended:
        raise CheckpointError(
            f"{folder} is {'' if position['finished'] else 'not '}finished after {position['step']} steps, it says, "
            f"expected {total}: its training.json was changed, or its data; train it again in another folder"
        )


def checked_position(content: Any, generation: str) -> dict[str, Any]:
    """The content of a generation's training.json.  Raises ConfigError if it is damaged or of another generation."""
    position = checked(Position, content)
    if not generation.startswith(f"step-{position['step']:08d}"):
        raise ConfigError(f"step is {position['step']}, in the generation {generation}; the file was changed")
    return position
