"""A user without rights: the checkout can only be read, there is no home or a read-only one, and no TMPDIR.

Root can become such a user; for others these tests are skipped.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import hosnn
from hosnn.places import LIBRARIES
from tests.reliability.commands import DONE, SMALL

NOBODY = 65534

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everyone can enter, which pytest's own is not, with a folder that nobody may write."""
    folder = Path(tempfile.mkdtemp(prefix="hosnn-test-"))
    folder.chmod(0o755)
    (folder / "home").mkdir(mode=0o555)
    (folder / "work").mkdir()
    os.chown(folder / "work", NOBODY, NOBODY)
    caches = Path(tempfile.gettempdir()) / f"hosnn-{NOBODY}"
    were_there = caches.exists()
    yield folder
    shutil.rmtree(folder)
    if not were_there:
        shutil.rmtree(caches, ignore_errors=True)


def as_nobody(arguments: list[str], home: str | None, work: Path) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if name not in (*LIBRARIES, "HOME", "TMPDIR", "USER")}
    given.pop("HOSNN_CACHE", None)
    given |= {"PYTHONPATH": str(Path(hosnn.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=given if home is None else {**given, "HOME": home},
        cwd=work,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize("home", [None, "/nonexistent", "FOLDER/home"], ids=["no home", "not there", "read-only"])
def test_training_and_evaluating_work_and_write_nowhere_else(home: str | None, folder: Path) -> None:
    home, work = home and home.replace("FOLDER", str(folder)), folder / "work"
    try:
        imported = as_nobody(["-c", "import hosnn"], home, work)
    except PermissionError as error:
        pytest.skip(f"another user cannot run Python: {error}")
    if imported.returncode:
        pytest.skip(f"another user cannot read the checkout: {imported.stderr[-200:]}")
    settings = [argument for setting in SMALL for argument in ("--set", setting)]
    for command in (
        ["train", "demo:homeostatic_clean", *settings, "--runs", "runs"],
        ["evaluate", "runs/demo-homeostatic-clean", "--samples", "20"],
        ["doctor", "--no-read"],
    ):
        ended = as_nobody(["-m", "hosnn", *command], home, work)
        assert ended.returncode in DONE, ended
        assert "Traceback" not in ended.stderr and "Warning" not in ended.stderr
    assert not list((folder / "home").iterdir())
    assert [path.name for path in work.iterdir()] == ["runs"]
