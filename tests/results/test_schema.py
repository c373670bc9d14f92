"""The file of an evaluation: its schema, made from the types, and what is wrong where a file does not fit."""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from jsonschema import Draft202012Validator

from hosnn.errors import ConfigError
from hosnn.evaluation.evaluate import evaluate
from hosnn.protocols.builtin import smoke
from hosnn.results.check import SEVERITIES, Check
from hosnn.results.evaluation import FORMER_FORMAT, AttackResult, Evaluation, Network, Panel
from hosnn.results.reproduction import ReproductionResult
from hosnn.results.schema import FILE, evaluation_schema
from hosnn.robustness.balls import L1, L2, Linf
from hosnn.robustness.threats import Threat
from tests.evaluation.synthetic import Linear, evaluation, rich

SCHEMA = json.loads(FILE.read_text(encoding="utf-8"))
RESULTS = Path(__file__).parents[2] / "docs" / "results"
STORED = sorted(
    path
    for path in RESULTS.rglob("*.json")
    if json.loads(path.read_text(encoding="utf-8"))
    .get("format", "")
    .startswith(("hosnn-evaluation", "hosnn-comparison"))
)

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


def test_the_file_is_the_schema_of_the_types() -> None:
    assert SCHEMA == evaluation_schema(), "write it anew: python -m hosnn.results.schema"


def test_the_schema_is_a_schema_and_describes_every_field() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    every = list(objects(SCHEMA))
    assert len(every) == 6
    for each in every:
        assert each["additionalProperties"] is False
        assert set(each["required"]) == set(each["properties"])
        assert all("$ref" in field or len(field["description"]) > 10 for field in each["properties"].values())


def test_the_schema_has_the_fields_of_the_values() -> None:
    definitions = SCHEMA["$defs"]
    for kind in (AttackResult, Panel, Check, Network):
        assert set(definitions[kind.__name__]["properties"]) == {field.name for field in fields(kind)}
    assert set(SCHEMA["properties"]) == {field.name for field in fields(Evaluation)} | set(Evaluation.DERIVED)
    assert tuple(definitions["Check"]["properties"]["severity"]["enum"]) == SEVERITIES
    assert SCHEMA["properties"]["format"]["const"] == Evaluation.FORMAT == SCHEMA["title"]


@pytest.mark.parametrize("result", [rich(), evaluation("smoke", 20, 18, {"FGSM": 3})], ids=["rich", "bare"])
def test_made_up_results_validate_and_are_read_back(result: Evaluation, tmp_path: Path) -> None:
    assert problems(written(result)) == []
    result.save(tmp_path / "result.json")
    assert written(Evaluation.load(tmp_path / "result.json")) == written(result)  # NaN differs from itself


@pytest.mark.parametrize("path", STORED, ids=lambda path: str(path.relative_to(RESULTS)))
def test_stored_results_are_read_and_written_as_they_were(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    kind = ReproductionResult if content["format"] == ReproductionResult.FORMAT else Evaluation
    result = kind.load(path)
    assert holds(json.loads(json.dumps(result.to_json())), content)
    evaluations = (
        [result]
        if isinstance(result, Evaluation)
        else [each for cell in result.cells for each in cell.evaluations.values()]
    )
    assert evaluations and not any(problems(written(first(each))) for each in evaluations)


def holds(written: Any, stored: Any) -> bool:
    """Whether all that is in a stored file is written again, in today's format."""
    if isinstance(stored, list):
        return len(written) == len(stored) and all(map(holds, written, stored))
    if not isinstance(stored, dict):
        return bool(written == stored)
    if stored.get("format") == FORMER_FORMAT:
        stored = {key: value for key, value in stored.items() if key not in ("format", "curve")} | {
            "panels": [{"name": "eps", "rows": stored["curve"]}] if stored["curve"] else []
        }
    return all(key in written and holds(written[key], value) for key, value in stored.items())


def first(result: Evaluation, count: int = 10) -> Evaluation:
    """The same result on fewer images: validating every number of 10,000 takes long and says no more."""

    def cut(rows: tuple[AttackResult, ...]) -> tuple[AttackResult, ...]:
        return tuple(
            replace(row, predictions=row.predictions[:count], tied=within(row.tied), denied=within(row.denied))
            for row in rows
        )

    def within(positions: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if positions is None else tuple(at for at in positions if at < count)

    index, labels, clean = (whole[:count] for whole in (result.index, result.labels, result.clean))
    panels = tuple(Panel(panel.name, cut(panel.rows)) for panel in result.panels)
    tied = within(result.clean_tied)
    return replace(
        result, index=index, labels=labels, clean=clean, clean_tied=tied, rows=cut(result.rows), panels=panels
    )


def test_measured_results_validate_whatever_the_threat_is_and_the_model() -> None:
    x, y = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])
    model = Linear(torch.tensor([1.0, -2.0, 0.5, 0.0]))
    for network, threat, probes in (
        (model, Threat(Linf(8 / 255)), 2),
        (model, Threat(L2(0.5)), 2),
        (model.forward, Threat(L1(1e-5)), 0),
        (model.forward, Threat(Linf(0.0301), per_step=False), 0),
    ):
        assert problems(written(evaluate(network, (x, y), smoke(threat).resized(4, probes)))) == []


def test_every_way_to_print_a_threat_is_allowed() -> None:
    for ball in (Linf(8 / 255), Linf(1 / 3), L2(0.5), L2(12.0), L1(1e-7), L1(2000.5)):
        for per_step in (False, True):
            named = replace(evaluation("smoke", 4, 3, {}), threat=str(Threat(ball, per_step=per_step)))
            assert problems(written(named)) == []
            assert Evaluation.from_json(written(named)) == named


class Change(NamedTuple):
    """A wrong file, and what its error says; None for what is computed again instead of read."""

    what: str
    edit: Edit
    said: str | None


CHANGES = (
    Change("another format", lambda it: it.update(format="hosnn-evaluation-0"), "expected the format 'hosnn-eval"),
    Change("a stray field", lambda it: it.update(curve=[]), r"it has curve, which is unknown here"),
    Change(
        "a stray field of a row", lambda it: it["rows"][0].update(extra=1), r"it has rows\[0\].extra, which is unkn"
    ),
    Change("a field gone", lambda it: it["rows"][0].pop("predictions"), r"it has no rows\[0\].predictions"),
    Change("a class as text", lambda it: it["labels"].append("3"), r"at labels\[5\]: .*valid integer, got '3'"),
    Change("a class as a fraction", lambda it: it["labels"].append(0.5), r"at labels\[5\]: .*integer.*, got 0.5"),
    Change(
        "a prediction below -1",
        lambda it: it["rows"][0]["predictions"].append(-2),
        r"at rows\[0\].predictions\[5\]: .*greater than or equal to -1, got -2",
    ),
    Change("a clean image not seen", lambda it: it["clean"].append(-1), r"at clean\[5\]: "),
    Change("a share above 1", lambda it: it["summary"].update(worst_case_accuracy=1.5), "its summary has worst"),
    Change(
        "an interval of three", lambda it: it["summary"]["worst_case_interval_95"].append(0.5), "its summary has worst"
    ),
    Change(
        "an accuracy in percent",
        lambda it: it["summary"]["accuracy"].update({"APGD-CE": 60}),
        "its summary has accuracy",
    ),
    Change("another severity", lambda it: it["checks"][0].update(severity="maybe"), r"checks\[0\].severity: .*'maybe'"),
    Change("a check's number as text", lambda it: it["checks"][0].update(value="1 %"), r"checks\[0\].value: .*'1 %'"),
    Change(
        "another kind of attack",
        lambda it: it["panels"][0]["rows"][0].update(kind="gray-box"),
        r"at panels\[0\].rows\[0\].kind: .*white-box.*, got 'gray-box'",
    ),
    Change("another kind of network", lambda it: it["network"].update(spiking="yes"), r"at network.spiking: "),
    Change("a threat without a norm", lambda it: it.update(threat="8/255"), r"at threat: .*linf.*, got '8/255'"),
    Change("a short hash", lambda it: it.update(model_sha256="ab"), r"at model_sha256: .*, got 'ab'"),
    Change("time running backwards", lambda it: it["rows"][0].update(seconds=-1), r"at rows\[0\].seconds: "),
    Change("a panel without a name", lambda it: it["panels"][0].update(name=""), r"at panels\[0\].name: "),
    Change("machine facts nested", lambda it: it["machine"].update(gpu={"name": "x"}), r"at machine.gpu"),
)


@pytest.mark.parametrize("change", CHANGES, ids=[change.what for change in CHANGES])
def test_a_changed_field_does_not_validate_and_the_error_names_it(change: Change, tmp_path: Path) -> None:
    content = written(first(rich(), 5))
    change.edit(content)
    assert problems(content)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    if change.said is None:
        assert problems(written(Evaluation.load(path))) == []
        return
    with pytest.raises(ConfigError, match=rf"cannot read the evaluation .*result\.json: .*{change.said}"):
        Evaluation.load(path)


def test_several_faults_are_counted_and_long_values_cut() -> None:
    content = written(first(rich(), 5))
    content.update(model=["long"] * 100, seed=0.5)
    with pytest.raises(ConfigError, match=r"at model: .* got \['long', .{60,80}\.\.\.; 1 more such fault"):
        Evaluation.from_json(content)


@pytest.mark.parametrize("content", [None, 3, "text", [1], {}], ids=repr)
def test_what_is_no_evaluation_at_all_is_refused(content: Any) -> None:
    with pytest.raises(ConfigError, match="got"):
        Evaluation.from_json(content)


def test_no_field_can_be_left_out() -> None:
    whole = written(first(rich(), 5))
    for field in whole:
        content = copy.deepcopy(whole)
        del content[field]
        assert problems(content), field


def test_values_with_many_fields_take_them_by_name() -> None:
    for kind in (AttackResult, Network, Evaluation):
        assert all(field.kw_only for field in fields(kind))
