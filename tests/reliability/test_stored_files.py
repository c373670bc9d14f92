"""Every file is checked by one schema before it is used: what was changed is named, never computed with."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hosnn.errors import CheckpointError, ConfigError, HosnnError, SignatureError
from hosnn.results.evaluation import Evaluation
from hosnn.signature import Signature
from hosnn.tensor_files import to_bytes
from hosnn.training.checkpoint import load, load_state
from tests.reliability.stored import KINDS

Edit = Callable[[Any], Any]


def edited(kind: str, folder: Path, edit: Edit) -> Path:
    """A file of this kind whose JSON was edited."""
    path = KINDS[kind].write(folder)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


CHANGES: dict[str, tuple[str, Edit, str]] = {
    "no rows": ("result", lambda it: it["rows"].clear(), "its summary has"),
    "a row twice": ("result", lambda it: it["rows"].append(it["rows"][0]), "occurs twice"),
    "a label less": ("result", lambda it: it["labels"].pop(), "labels has 199 entries for 200 images"),
    "another label": ("result", lambda it: it["labels"].__setitem__(0, 5), "its summary has"),
    "an image twice": ("result", lambda it: it["index"].__setitem__(0, 1), "some twice"),
    "no images": ("small result", lambda it: it["index"].clear(), "none at all"),
    "short predictions": ("result", lambda it: it["rows"][0]["predictions"].pop(), "199 predictions for 200"),
    "a short panel": ("result", lambda it: it["panels"][1]["rows"][0]["predictions"].pop(), "as many as the others"),
    "no number for eps": ("result", lambda it: it["rows"][0].update(threat="linf:8/0"), "no budget"),
    "a tie nowhere": ("result", lambda it: it["rows"][0].update(tied=[200]), "beyond the 200 images"),
    "an unknown attack": ("comparison", lambda it: it["columns"].append(["x", "paper", "CW"]), "no attack 'CW'"),
    "another name": ("comparison", lambda it: _rename(it["cells"][0]["evaluations"]), "under the name"),
    "no cells": ("comparison", lambda it: it["cells"].clear(), "no cells"),
    "a negative step": ("position", lambda it: it.update(step=-5), "at step"),
    "a step of another generation": ("position", lambda it: it.update(step=99999), "step is 99999"),
    "nothing": ("position", lambda it: it.clear(), "it has no step"),
    "one entry more": ("position", lambda it: it.update(more=1), "it has more, which is unknown"),
    "an accuracy in percent": ("position", lambda it: it.update(best=88.0), "at best"),
    "a pointer out of the folder": ("pointer", lambda it: it.update(last="../../x"), "at last"),
    "an absolute pointer": ("pointer", lambda it: it.update(best="/abs"), "at best"),
    "a flag as text": ("config", lambda it: it["network"].update(spiking_output="no"), "spiking_output got 'no'"),
    "a number of steps as 5.0": ("config", lambda it: it["network"].update(steps=5.0), "steps got 5.0"),
    "std of NaN": ("config", lambda it: it["network"].update(std=[float("nan")]), "NaN"),
    "std of 0": ("config", lambda it: it["network"].update(std=[0.0]), "stds above 0"),
    "a huge network": ("config", lambda it: it["network"].update(hidden=1_000_000), "another architecture"),
    "an unknown entry": ("config", lambda it: it.update(author="me"), "it has author"),
    "no provenance": ("config", lambda it: it.pop("provenance"), "it has no provenance"),
}


def _rename(evaluations: dict[str, Any]) -> None:
    evaluations["full"] = evaluations.pop("sweep")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named(change: str, tmp_path: Path) -> None:
    kind, edit, says = CHANGES[change]
    path = edited(kind, tmp_path, edit)
    with pytest.raises(HosnnError, match=says):
        KINDS[kind].read(path)


TEXTS = {
    "not UTF-8": b'{"format": "\xff"}',
    "nested too deeply": b"[" * 100_000 + b"]" * 100_000,
    "a name twice": b'{"format": 1, "format": 2}',
    "empty": b"",
    "a number": b"5",
    "null": b"null",
    "a number too long": b"9" * 5000,
}


@pytest.mark.parametrize("kind", ["result", "comparison", "config", "position", "pointer"])
@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_such_file_is_refused(text: str, kind: str, tmp_path: Path) -> None:
    path = KINDS[kind].write(tmp_path)
    path.write_bytes(TEXTS[text])
    with pytest.raises(HosnnError, match=path.name):
        KINDS[kind].read(path)


@pytest.mark.parametrize("kind", ["result", "config", "position", "pointer"])
def test_a_byte_order_mark_changes_nothing(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind].write(tmp_path)
    before = KINDS[kind].read(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert KINDS[kind].read(path) == before


LINES = {
    **TEXTS,
    "cut off": b'{"attack": "PGD", "block": 3, "pred',
    "a list": b"[1, 2]",
    "a header": b'{"evaluation": {}}',
    "a block without predictions": b'{"attack": "PGD", "block": 0}',
    "a negative step": b'{"step": -5, "epoch": 1, "loss": 1.0, "validation_accuracy": 0.5, "lr": 0.1}',
}


@pytest.mark.parametrize("kind", ["journal", "log"])
@pytest.mark.parametrize("line", LINES)
def test_a_damaged_line_costs_that_line(line: str, kind: str, tmp_path: Path) -> None:
    path = KINDS[kind].write(tmp_path)
    whole = KINDS[kind].read(path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:-1], LINES[line], lines[-1]]))
    assert KINDS[kind].read(path) == whole


def test_a_changed_prediction_in_a_journal_is_attacked_again(tmp_path: Path) -> None:
    path = KINDS["journal"].write(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"[2, 2, -1]", b"[7, 2, -1]"))
    blocks = KINDS["journal"].read(path)
    assert blocks[2] is None and None not in (blocks[0], blocks[1], blocks[3])


def test_a_line_without_its_newline_is_not_joined_with_the_next(tmp_path: Path) -> None:
    from hosnn.evaluation.journal import Journal
    from tests.reliability.stored import IDENTITY

    path = KINDS["journal"].write(tmp_path)
    whole = KINDS["journal"].read(path)
    path.write_bytes(path.read_bytes()[:-1])
    journal = Journal(path, IDENTITY)
    journal.put("more", 0, {"predictions": [1], "tied": [], "seconds": 0.0, "forward": 1, "backward": 1})
    assert KINDS["journal"].read(path) == whole and Journal(path, IDENTITY).get("more", 0, 1) is not None


def tensors_edited(kind: str, folder: Path, change: Callable[[torch.Tensor], torch.Tensor], part: str) -> Path:
    path = KINDS[kind].write(folder)
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    metadata = json.loads(path.read_bytes()[8 : 8 + length]).get("__metadata__", {})
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if part in name)
    path.write_bytes(to_bytes(tensors | {name: change(tensors[name])}, metadata))
    return path


def _first(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return change


TENSORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "NaN": _first(float("nan")),
    "infinity": _first(float("inf")),
    "1e30": _first(1e30),
    "integers": lambda tensor: tensor.int(),
    "booleans": lambda tensor: tensor.bool(),
    "complex": lambda tensor: tensor.to(torch.complex64),
    "float8": lambda tensor: tensor.to(torch.float8_e4m3fn),
    "float16": lambda tensor: tensor.half(),
    "empty": lambda tensor: tensor[:0],
    "a step less": lambda tensor: tensor[:-1],
}


@pytest.mark.parametrize("change", TENSORS)
@pytest.mark.parametrize("part", [".mean", ".variance"])
def test_signatures_of_impossible_numbers_are_refused(change: str, part: str, tmp_path: Path) -> None:
    path = tensors_edited("signature", tmp_path, TENSORS[change], part)
    with pytest.raises(SignatureError, match=r"signature\.safetensors"):
        Signature.load(path)


def test_a_negative_variance_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="no negative number"):
        Signature.load(tensors_edited("signature", tmp_path, _first(-1e-3), ".variance"))


@pytest.mark.parametrize("samples", [0, -5, "x", 4.0, None, True])
def test_signatures_say_of_how_many_images_they_are(samples: Any, tmp_path: Path) -> None:
    path = KINDS["signature"].write(tmp_path)
    signature = Signature.load(path)
    replace(signature, samples=samples).save(path)
    with pytest.raises(SignatureError, match="samples"):
        Signature.load(path)


def test_a_signature_has_one_form_in_bytes(tmp_path: Path) -> None:
    signature = Signature.load(KINDS["signature"].write(tmp_path))
    for number in range(8):
        signature.save(tmp_path / f"{number}.safetensors")
    assert len({(tmp_path / f"{number}.safetensors").read_bytes() for number in range(8)}) == 1


@pytest.mark.parametrize("change", ["NaN", "infinity", "integers", "booleans", "complex", "float8", "float16", "empty"])
@pytest.mark.parametrize("part", ["dense3.0.weight", "neurons1.signature"])
def test_weights_of_another_type_are_refused(change: str, part: str, tmp_path: Path) -> None:
    path = tensors_edited("weights", tmp_path, TENSORS[change], part)
    with pytest.raises(CheckpointError):
        load(path.parent)


def test_a_huge_network_is_refused_before_it_is_built(tmp_path: Path) -> None:
    """10^9 hidden neurons would need terabytes."""
    path = edited("config", tmp_path, lambda it: it["network"].update(hidden=10**9))
    with pytest.raises(CheckpointError, match="another architecture"):
        load(path.parent)


def test_a_training_state_that_is_at_its_end_too_early_is_refused(tmp_path: Path) -> None:
    from hosnn.training.stored import check_end

    run = KINDS["position"].write(tmp_path).parent
    position = dict(load_state(run.parent, run.name).position)
    check_end(position, 9, tmp_path)
    for wrong, total in ((position | {"finished": True}, 9), (position, 3), (position, 2)):
        with pytest.raises(CheckpointError, match="expected"):
            check_end(wrong, total, tmp_path)


def test_a_stored_result_of_other_images_is_not_taken_for_the_one_asked_for(tmp_path: Path) -> None:
    from hosnn.evaluation.store import check_belongs
    from hosnn.protocols.builtin import smoke
    from hosnn.robustness.threats import DEFAULT_THREAT
    from tests.training.toy import toy_data

    data, protocol = toy_data(), smoke(DEFAULT_THREAT)
    images: dict[str, Any] = {"index": tuple(data.test.index.tolist()), "labels": tuple(data.test.labels.tolist())}
    result = Evaluation.load(KINDS["small result"].write(tmp_path))
    row = replace(result.rows[0], predictions=images["labels"])
    rows = tuple(replace(row, attack=spec.name) for spec in protocol.attacks)
    good = replace(result, **images, clean=images["labels"], rows=rows)
    check_belongs(good, data, protocol, tmp_path)
    for changed in (
        replace(good, rows=()),
        replace(good, rows=rows[1:]),
        replace(good, labels=(3, *images["labels"][1:])),
        replace(good, index=(99, *images["index"][1:])),
    ):
        with pytest.raises(ConfigError, match="was changed"):
            check_belongs(changed, data, protocol, tmp_path)
