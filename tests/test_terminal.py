"""A lost terminal ends no work, and names from files do not steer one."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hosnn import terminal
from hosnn.names import printable
from hosnn.terminal import BROKEN_PIPE, LOST, Output, SafeConsole, outlived

WORK = """
import json, sys
from pathlib import Path
from types import ModuleType
sys.modules["hosnn"] = ModuleType("hosnn")  # without all of hosnn, whose imports take seconds
sys.modules["hosnn"].__path__ = [sys.argv[3]]
from hosnn.terminal import SafeConsole, outlived

def work(folder):
    console = SafeConsole()
    for number in range(3):
        console.print(f"step {number}: 50 % – θ " + "x" * 9000)
    Path(folder, "result").write_text("complete")
    print("done", flush=True)
    return int(sys.argv[2])

with outlived() as status:
    final = status(work(sys.argv[1]))
sys.exit(final)
"""


@pytest.mark.parametrize(
    ("redirection", "of_work", "status", "says"),
    [
        ("> /dev/full", 0, LOST, "No space left on device"),
        ("> /dev/full", 1, 1, ""),
        (">&- 2>&-", 0, 0, ""),
        ("| head -c 1 > /dev/null", 4, BROKEN_PIPE, ""),
        ("| head -c 1 > /dev/null", 130, 130, ""),
    ],
)
def test_work_is_done_whatever_becomes_of_the_output(
    redirection: str, of_work: int, status: int, says: str, tmp_path: Path
) -> None:
    command = f'"$PYTHON" -c "$WORK" "$FOLDER" {of_work} "$MODULE" {redirection}; exit ${{PIPESTATUS[0]}}'
    environment = os.environ | {"PYTHON": sys.executable, "WORK": WORK, "FOLDER": str(tmp_path)}
    environment["MODULE"] = str(Path(terminal.__file__).parent)
    ended = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == status, ended.stderr
    assert (tmp_path / "result").read_text() == "complete"
    assert says in ended.stderr and "Exception ignored" not in ended.stderr and "Traceback" not in ended.stderr


def test_a_terminal_of_ascii_gets_text() -> None:
    bytes_written = io.BytesIO()
    output = Output(io.TextIOWrapper(bytes_written, encoding="ascii"))
    output.write("50 % – θ\n")
    output.flush()
    assert bytes_written.getvalue() == b"50 % ? ?\n" and output.lost is None


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
def test_a_terminal_that_hangs_up_ends_nothing() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with outlived():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == before


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b]0;owned\x07\x1b[2Jnet", "]0;owned[2Jnet"),
        ("a\x9b31mb", "a31mb"),
        ("\u202etxt.exe", "txt.exe"),
        ("two\nlines\tof ä", "two\nlines\tof ä"),
    ],
)
def test_names_do_not_steer_the_terminal(name: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(name) == shown
    SafeConsole().print(name, markup=False)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["[/x]", "[bold", "runs/[a]", ":smile:"])
def test_brackets_and_colons_in_names_stay_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    SafeConsole().print(f"{name} is done")
    assert ("is done" in (out := capsys.readouterr().out)) and (name == "runs/[a]" or name in out)
