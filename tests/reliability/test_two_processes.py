"""The same command twice at a time in one folder: each ends well or with a clear error, and the rest is as of one."""

import shutil
from pathlib import Path

import pytest

from tests.reliability.commands import COMMANDS, DONE, arguments, complete_only, contents, save_networks, started

SECONDS = 600
"""How long a command of seconds may take on a busy machine."""


@pytest.mark.slow
@pytest.mark.parametrize("verb", COMMANDS)
def test_two_processes_in_one_folder_leave_what_one_would(verb: str, tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / "alone"
    command = arguments(verb, save_networks(tmp_path / "networks"), out)
    alone = started(command)
    said = alone.communicate(timeout=SECONDS)
    assert alone.returncode in DONE, said
    expected = contents(out)
    out.rename(kept)
    both = [started(command) for _ in range(2)]
    ends = [(process.communicate(timeout=SECONDS), process.returncode) for process in both]
    complete_only(out)
    assert any(status in DONE for _, status in ends), ends
    for (_, errors), status in ends:
        assert "Traceback" not in errors
        assert status in DONE or (status == 2 and "error" in errors), ends
    assert contents(out) == expected
    shutil.rmtree(kept)
