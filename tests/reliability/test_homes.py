"""Homes that are read-only, missing or somebody else's: everything works, and caches lie in one place."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import hosnn
from hosnn.places import LIBRARIES, cache_folder, library_caches, place_caches, writable_cache

OURS = ["python", "-m", "hosnn"]


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    yield tmp_path / "tmp"


def placed(environment: dict[str, str]) -> set[Path]:
    place_caches(environment, OURS)
    return {path.parent for path in library_caches(environment)}


def test_all_caches_lie_in_one_folder_and_nothing_is_made(home: Path) -> None:
    assert placed({}) == {cache_folder({})} == {home / ".cache" / "hosnn"}
    assert not list(home.iterdir())


def test_the_users_folder_holds(tmp_path: Path) -> None:
    environment = {"HOSNN_CACHE": str(tmp_path / "mine")}
    assert placed(environment) == {tmp_path / "mine"} == {cache_folder(environment)}


@pytest.mark.parametrize("name", LIBRARIES)
def test_what_the_user_says_about_a_library_holds(name: str, home: Path) -> None:
    environment = {name: "/of/my/own"}
    place_caches(environment, OURS)
    assert environment[name] == "/of/my/own" and len(environment) == len(LIBRARIES)


def test_other_programs_that_import_hosnn_keep_their_caches(home: Path) -> None:
    environment: dict[str, str] = {}
    place_caches(environment, ["python", "train.py"])
    assert not environment


def test_without_a_home_they_are_temporary(homeless: None, temporary: Path) -> None:
    assert placed({}) == {cache_folder({})}
    assert cache_folder({}).parent == temporary


@pytest.mark.parametrize("obstacle", ["a file in its place", "no permission"])
def test_where_home_cannot_be_written_they_are_temporary(
    obstacle: str, home: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if obstacle == "no permission":  # by name, for root may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: home not in (path, *Path(path).parents))
    else:
        (home / ".cache").write_text("")
    assert writable_cache({}).parent == temporary
    assert placed({}) == {writable_cache({})}


def test_where_nothing_can_be_written_libraries_do_what_they_can(
    homeless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert placed({}) == set()


def test_the_command_writes_nowhere_else_and_doctor_names_the_place(tmp_path: Path) -> None:
    home, temporary, caches, work = (tmp_path / name for name in ("home", "temporary", "caches", "work"))
    for folder in (home, temporary, work):
        folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in LIBRARIES}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary), "HOSNN_CACHE": str(caches)}
    environment["PYTHONPATH"] = str(Path(hosnn.__file__).parents[1])
    command = [sys.executable, "-m", "hosnn", "doctor", "--no-read", "--json"]
    found = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, check=True)
    assert str(caches) in found.stdout and not found.stderr
    assert not [*home.rglob("*"), *temporary.rglob("*"), *work.rglob("*")]
