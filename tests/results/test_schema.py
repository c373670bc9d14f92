import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

import hosnn.results.evaluation
from hosnn.evaluation.evaluate import evaluate
from hosnn.protocols.builtin import smoke
from hosnn.results.check import SEVERITIES, Check
from hosnn.results.evaluation import FORMAT, AttackResult, Evaluation, Network, Panel
from hosnn.results.reproduction import ReproductionResult
from hosnn.robustness.threats import L1, L2, Linf, Threat
from tests.evaluation.synthetic import Linear, evaluation, rich

SCHEMA = json.loads(
    (Path(hosnn.results.evaluation.__file__).parent / "schema" / "evaluation-2.schema.json").read_text(encoding="utf-8")
)
STORED = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*/comparison.json"))

Edit = Callable[[dict[str, Any]], object]


def problems(content: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(content)]


def written(result: Evaluation) -> Any:
    return json.loads(json.dumps(result.to_json(), allow_nan=False))


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema of an object inside a schema."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects(part)


def test_the_schema_is_a_schema_and_describes_every_field() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    every = list(objects(SCHEMA))
    assert len(every) == 6
    for each in every:
        assert each["additionalProperties"] is False
        assert set(each["required"]) == set(each["properties"])
        assert all(len(field["description"]) > 10 or "$ref" in field for field in each["properties"].values())


def test_the_schema_has_the_fields_of_the_values() -> None:
    definitions = SCHEMA["$defs"]
    for kind, schema in (
        (AttackResult, definitions["row"]),
        (Panel, definitions["panel"]),
        (Check, definitions["check"]),
    ):
        assert set(schema["properties"]) == {field.name for field in fields(kind)}
    assert set(SCHEMA["properties"]["network"]["properties"]) == {field.name for field in fields(Network)}
    added = {"format", "summary", "samples"}
    assert set(SCHEMA["properties"]) == {field.name for field in fields(Evaluation)} | added
    assert tuple(definitions["severity"]["enum"]) == SEVERITIES
    assert SCHEMA["properties"]["format"]["const"] == FORMAT == SCHEMA["title"]


@pytest.mark.parametrize("result", [rich(), evaluation("smoke", 20, 18, {"FGSM": 3})], ids=["rich", "bare"])
def test_made_up_results_validate(result: Evaluation) -> None:
    assert problems(written(result)) == []


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.parent.name)
def test_stored_results_validate_once_read(path: Path) -> None:
    found = [each for cell in ReproductionResult.load(path).cells for each in cell.evaluations.values()]
    assert found
    for each in found:
        assert problems(written(first(each))) == []


def first(result: Evaluation, count: int = 50) -> Evaluation:
    """The same result on fewer images: validating every number of 10,000 takes long and says no more."""

    def cut(rows: tuple[AttackResult, ...]) -> tuple[AttackResult, ...]:
        return tuple(replace(row, predictions=row.predictions[:count]) for row in rows)

    index, labels, clean = (whole[:count] for whole in (result.index, result.labels, result.clean))
    panels = tuple(Panel(panel.name, cut(panel.rows)) for panel in result.panels)
    return replace(result, index=index, labels=labels, clean=clean, rows=cut(result.rows), panels=panels)


@pytest.mark.parametrize("ball", [Linf(8 / 255), L2(0.5), L1(1e-5), Linf(0.0301)], ids=str)
def test_a_measured_result_validates(ball: Any) -> None:
    x, y = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])
    model = Linear(torch.tensor([1.0, -2.0, 0.5, 0.0]))
    assert problems(written(evaluate(model, (x, y), smoke(Threat(ball)).resized(4, 2)))) == []
    assert problems(written(evaluate(model.forward, (x, y), smoke(Threat(ball, per_step=False)).resized(4, 0)))) == []


def test_every_way_to_print_a_threat_is_allowed() -> None:
    for ball in (Linf(8 / 255), Linf(1 / 3), L2(0.5), L2(12.0), L1(1e-7), L1(2000.5)):
        for per_step in (False, True):
            named = replace(evaluation("smoke", 4, 3, {}), threat=str(Threat(ball, per_step=per_step)))
            assert problems(written(named)) == []


CHANGES: tuple[tuple[str, Edit], ...] = (
    ("another format", lambda it: it.update(format="hosnn-evaluation-1")),
    ("a stray field", lambda it: it.update(curve=[])),
    ("a stray field of a row", lambda it: it["rows"][0].update(extra=1)),
    ("a field gone", lambda it: it["rows"][0].pop("predictions")),
    ("a class as text", lambda it: it["labels"].append("3")),
    ("a class as a fraction", lambda it: it["labels"].append(0.5)),
    ("a prediction below -1", lambda it: it["rows"][0]["predictions"].append(-2)),
    ("a clean image not seen", lambda it: it["clean"].append(-1)),
    ("a share above 1", lambda it: it["summary"].update(worst_case_accuracy=1.5)),
    ("an interval of three", lambda it: it["summary"]["worst_case_interval_95"].append(0.5)),
    ("an accuracy in percent", lambda it: it["summary"]["accuracy"].update({"APGD-CE": 60})),
    ("another severity", lambda it: it["checks"][0].update(severity="maybe")),
    ("a check's number as text", lambda it: it["checks"][0].update(value="1 %")),
    ("another kind of attack", lambda it: it["panels"][0]["rows"][0].update(kind="gray-box")),
    ("another kind of network", lambda it: it["network"].update(spiking="yes")),
    ("a threat without a norm", lambda it: it.update(threat="8/255")),
    ("a short hash", lambda it: it.update(model_sha256="ab")),
    ("time running backwards", lambda it: it["rows"][0].update(seconds=-1)),
    ("a panel without a name", lambda it: it["panels"][0].update(name="")),
    ("machine facts nested", lambda it: it["machine"].update(gpu={"name": "x"})),
)


@pytest.mark.parametrize(("what", "change"), CHANGES, ids=[what for what, _ in CHANGES])
def test_a_changed_field_does_not_validate(what: str, change: Edit) -> None:
    content = written(first(rich(), 5))
    change(content)
    assert problems(content), what


def test_no_field_can_be_left_out() -> None:
    whole = written(first(rich(), 5))
    for field in whole:
        content = copy.deepcopy(whole)
        del content[field]
        assert problems(content), field
