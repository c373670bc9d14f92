"""The JSON schema of an evaluation's file, made from its types:  python -m hosnn.results.schema  writes it anew."""

from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from hosnn.files import json_text, write_text
from hosnn.results.document import adapter
from hosnn.results.evaluation import Evaluation

FILE = Path(__file__).with_name("evaluation-2.schema.json")
UNNEEDED_KEYS = ("default", "readOnly", "title")
"""Keys of the generated schema that readers of results do not need."""


class _AllRequired(GenerateJsonSchema):
    def field_is_required(self, field: Any, total: bool) -> bool:
        """Files hold every field, those with a default too."""
        return True


def evaluation_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of what `Evaluation.save` writes."""
    schema: dict[str, Any] = _plain(
        adapter(Evaluation).json_schema(mode="serialization", schema_generator=_AllRequired)
    )
    properties = schema["properties"]
    properties["format"] = {"const": Evaluation.FORMAT} | properties["format"]
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:{Evaluation.FORMAT.replace('-', ':', 1)}",
        "title": Evaluation.FORMAT,
        **{key: schema[key] for key in ("description", "type")},
        "properties": {name: properties[name] for name in Evaluation.DERIVED} | properties,
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
