"""Values with a JSON file of their own: written, read, checked and described by the types of their fields.

The values are plain dataclasses.  Pydantic validates them where JSON is read, not where our own code makes them.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, computed_field, model_validator

from hosnn.errors import ConfigError
from hosnn.files import read_json, write_json
from hosnn.schema import Amount, Count, Flag, Fraction, Hash, Integer, Name, Number, adapter, brief, validated

__all__ = ["Amount", "ContentHash", "Count", "Document", "Flag", "Fraction", "Integer", "Machine", "Name", "Number"]
__all__ += ["NumberOrNaN", "SettingsHash", "ThreatText", "Versions", "adapter"]

NumberOrNaN = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    Field(strict=True),
    PlainSerializer(lambda value: value if math.isfinite(value) else None, return_type=float | None),
]
"""NaN is null in a file, for JSON has no NaN."""
SettingsHash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
ContentHash = Hash
ThreatText = Annotated[
    str,
    Field(pattern=r"^((linf|l2|l1):[0-9.e+-]+(/[0-9.]+)?(/step)?(@[0-9]{1,2}bit)?|events:[0-9]+/[1-9][0-9]*)$"),
]
Versions = Mapping[str, str]
Machine = Mapping[str, str | Integer]


class Document:
    """A dataclass that is stored as a JSON file: its fields, and values derived from them for readers of the file.

    FORMAT   name and version of the file's format
    KIND     the name of such a file in error messages; ADVICE: their last words, what to do
    DERIVED  computed fields, written in addition to the fields and ignored when read
    Docstrings below the fields are the descriptions of the JSON schema.
    """

    FORMAT: ClassVar[str]
    KIND: ClassVar[str]
    ADVICE: ClassVar[str] = ""
    DERIVED: ClassVar[tuple[str, ...]] = ("format",)
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def format(self) -> str:
        """Name and version of this format."""
        return self.FORMAT

    def to_json(self) -> dict[str, Any]:
        """The content of its file."""
        content: dict[str, Any] = adapter(type(self)).dump_python(self, mode="json")
        return {name: content[name] for name in self.DERIVED} | content

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """The inverse of `to_json`.  Raises ConfigError for another format, or naming the first wrong field."""
        return validated(cls, content)

    def save(self, path: Path | str) -> None:
        """Write its file, whole or not at all.  Raises ConfigError if the place cannot be written."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote.  Raises ConfigError if it is something else."""
        return read_json(Path(path), cls.KIND, cls.from_json, cls.ADVICE)

    @classmethod
    def fields_in(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        """The fields in a file's content.  Raises ConfigError for another format."""
        if content.get("format") != cls.FORMAT:
            raise ConfigError(f"expected the format {cls.FORMAT!r}, got {content.get('format')!r}")
        return {name: value for name, value in content.items() if name not in cls.DERIVED}

    def check(self, content: Mapping[str, Any]) -> None:
        """Raises ConfigError if fields contradict each other, or the derived ones in the file's `content`."""

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, content: Any, validate: Any) -> Self:
        if not isinstance(content, Mapping):
            raise ConfigError(f"expected a JSON object with the format {cls.FORMAT!r}, got {brief(content)}")
        value: Self = validate(cls.fields_in(content))
        value.check(content)
        return value
