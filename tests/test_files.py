"""Files appear whole or not at all, whoever writes them and whatever goes wrong."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from hosnn.errors import CheckpointError, ConfigError
from hosnn.files import read_json, replacing, write_bytes, write_json, write_text

WRITERS: dict[str, Callable[[Path], None]] = {
    "json": lambda path: write_json(path, {"a": [1, 2]}),
    "text": lambda path: write_text(path, "ä\n"),
    "bytes": lambda path: write_bytes(path, b"\0\1", durable=True),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new folder" / "file"
    write(path)
    before = path.read_bytes()

    def full(file: Path, content: bytes) -> None:
        file.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match=r"cannot write .*file: .*No space left on device; choose another place"):
        write(path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1, 0.5]})
    write_json(tmp_path / "b.json", {"a": 1}, indent=2)
    assert (tmp_path / "a.json").read_bytes() == b'{"a":[1,0.5]}\n'
    assert (tmp_path / "b.json").read_bytes() == b'{\n  "a": 1\n}\n'
    assert read_json(tmp_path / "a.json", "thing", lambda content: content["a"]) == [1, 0.5]
    with pytest.raises(ConfigError, match=r"cannot read the thing .*a\.json: 'b'; try another"):
        read_json(tmp_path / "a.json", "thing", lambda content: content["b"], "; try another")


def test_the_caller_says_which_error_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="file/inside"):
        write_bytes(tmp_path / "file" / "inside", b"", failure=lambda path, error: CheckpointError(f"{path}: {error}"))


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_block_that_raises_replaces_nothing(error: BaseException, tmp_path: Path) -> None:
    for kind in ("file", "folder"):
        with pytest.raises(type(error)), replacing(tmp_path / kind) as temporary:
            temporary.write_text("half") if kind == "file" else temporary.mkdir()
            raise error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_replaces_a_folder_and_reaches_the_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for text in ("old", "new"):
        with replacing(tmp_path / "folder", durable=True) as temporary:
            temporary.mkdir()
            for name in ("a", "b"):
                (temporary / name).write_text(json.dumps(text))
    assert {path.read_text() for path in (tmp_path / "folder").iterdir()} == {'"new"'}
    assert len(synced) == 4 and list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_safetensors_from_memory_are_the_same_bytes_as_written_by_the_library(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(3, 2), "b.c": torch.arange(4)}
    save_file(tensors, tmp_path / "file", metadata={"format": "x"})
    assert (tmp_path / "file").read_bytes() == save(tensors, metadata={"format": "x"})


def test_a_file_never_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    (tmp_path / "result.json" / "precious").write_text("kept")
    with pytest.raises(ConfigError, match="cannot write"):
        write_json(tmp_path / "result.json", {})
    assert [path.name for path in tmp_path.rglob("*")] == ["result.json", "precious"]
