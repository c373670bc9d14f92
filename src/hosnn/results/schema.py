"""JSON schemas of evaluations and inspections, made from their types:  python -m hosnn.results.schema  writes them."""

from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from hosnn.files import json_text, write_text
from hosnn.results.document import Document, adapter
from hosnn.results.evaluation import Evaluation
from hosnn.results.inspection import Inspection

FILE = Path(__file__).with_name("evaluation-2.schema.json")
INSPECTION_FILE = Path(__file__).with_name("inspection-1.schema.json")
UNNEEDED_KEYS = ("default", "readOnly", "title")
"""Keys of the generated schema that readers of results do not need."""


class _AllRequired(GenerateJsonSchema):
    def field_is_required(self, field: Any, total: bool) -> bool:
        """Files hold every field, those with a default too."""
        return True


def evaluation_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of what `Evaluation.save` writes."""
    return schema_of(Evaluation)


def schema_of(kind: type[Document]) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of what `kind.save` writes."""
    schema: dict[str, Any] = _plain(adapter(kind).json_schema(mode="serialization", schema_generator=_AllRequired))
    properties = schema["properties"]
    properties["format"] = {"const": kind.FORMAT} | properties["format"]
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:{kind.FORMAT.replace('-', ':', 1)}",
        "title": kind.FORMAT,
        **{key: schema[key] for key in ("description", "type")},
        "properties": {name: properties[name] for name in kind.DERIVED} | properties,
        **{key: schema[key] for key in ("required", "additionalProperties", "$defs")},
    }


def _plain(schema: Any) -> Any:
    """A schema without UNNEEDED_KEYS, with each description on one line."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _plain(part) for key, part in schema.items() if key not in UNNEEDED_KEYS}
    if isinstance(plain.get("description"), str):
        plain["description"] = " ".join(plain["description"].split())
    return plain


if __name__ == "__main__":
    write_text(FILE, json_text(evaluation_schema(), indent=1))
    write_text(INSPECTION_FILE, json_text(schema_of(Inspection), indent=1))
