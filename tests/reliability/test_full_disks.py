"""A disk that is full at any point of a command: a clear error, whole files, and the same command ends as undisturbed.

The disk is a file system of 3 MB in memory, which takes the rights to mount one; elsewhere these tests are skipped.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hosnn.cli.main import main
from tests.reliability.commands import COMMANDS, DONE, arguments, complete_only, contents, make_small, save_networks

SHARES = tuple((point / 10) ** 2 for point in range(10))
"""Of the space that a command needs.  The small ones lie closer, for a page at the end is half of all."""


@pytest.fixture(autouse=True)
def small_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system of 3 MB can be mounted here: {getattr(error, 'stderr', error)}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def used(disk: Path) -> int:
    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def allow(disk: Path, size: int) -> None:
    """Leave `size` bytes for everything else on the disk."""
    ballast, status = disk / "ballast", os.statvfs(disk)
    with ballast.open("ab") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, status.f_blocks * status.f_frsize - size)


def undisturbed(command: list[str], disk: Path, out: Path) -> tuple[dict[str, Any], int]:
    """What a command leaves on a disk with space for it, and how much of the disk that takes."""
    before = used(disk)
    assert main(command) in DONE
    left, size = contents(out), used(disk) - before
    shutil.rmtree(out)
    return left, size


def prepared(verb: str, disk: Path, tmp_path: Path) -> tuple[list[str], Path, dict[str, Any], int]:
    """A command, its folder on the disk, and what `undisturbed` says of it."""
    out = disk / "out"
    command = arguments(verb, save_networks(tmp_path / "networks"), out)
    return command, out, *undisturbed(command, disk, out)


def fails(command: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    status, said = main(command), capsys.readouterr()
    assert (status, "No space left on device" in " ".join((said.err + said.out).split())) == (2, True), said
    complete_only(out)


@pytest.mark.slow
@pytest.mark.parametrize("verb", COMMANDS)
def test_full_again_and_again(verb: str, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command that is given eleven times, each time with a little more space."""
    command, out, expected, size = prepared(verb, disk, tmp_path)
    for share in SHARES:
        allow(disk, int(share * size))
        fails(command, out, capsys)
    (disk / "ballast").unlink()
    assert main(command) in DONE
    assert contents(out) == expected


@pytest.mark.slow
@pytest.mark.parametrize("verb", COMMANDS)
def test_full_once(verb: str, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, out, expected, size = prepared(verb, disk, tmp_path)
    for share in SHARES:
        allow(disk, int(share * size))
        fails(command, out, capsys)
        (disk / "ballast").unlink()
        assert main(command) in DONE
        assert contents(out) == expected, f"full at {share:.0%}"
        shutil.rmtree(out)
