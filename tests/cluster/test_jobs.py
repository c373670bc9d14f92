"""How jobs end, without Ray: results, errors of a user, stops; what is said where Ray or its cluster is missing."""

import signal
import socket
import sys
import time

import pytest

from hosnn.cli.main import main
from hosnn.cluster.jobs import Cluster, Failed, Job, Stopped, _attempt, _check_address, _check_room, run_jobs
from hosnn.deadline import Deadline, Interrupted
from hosnn.errors import ConfigError, TrainingError


def square(number: int, deadline: Deadline) -> int:
    if number < 0:
        raise TrainingError("negative; use another number")
    if number == 0:
        raise ZeroDivisionError("nothing")
    return number**2


def patient(deadline: Deadline) -> None:
    end = time.monotonic() + 60
    while not deadline.reached and time.monotonic() < end:
        time.sleep(0.01)
    raise Interrupted("in the middle", deadline)


def pressed(deadline: Deadline) -> None:
    signal.raise_signal(signal.SIGINT)
    patient(deadline)


def test_a_task_gives_its_result_or_says_why_it_has_none(capsys: pytest.CaptureFixture[str]):
    assert _attempt(Job("3", square, (3,)), None) == 9
    assert _attempt(Job("-1", square, (-1,)), None) == Failed("negative; use another number")
    assert _attempt(Job("0", square, (0,)), None) == Failed("ZeroDivisionError: nothing")
    assert "Traceback" in capsys.readouterr().err, "what is no user's error can be looked up in the worker's log"


def test_a_task_whose_time_is_up_or_whose_user_presses_ctrl_c_is_stopped():
    assert _attempt(Job("late", patient, ()), time.time() - 1) == Stopped()
    assert _attempt(Job("short", patient, ()), time.time() + 0.05) == Stopped()
    assert _attempt(Job("pressed", pressed, ()), None) == Stopped()


def test_what_waits_for_a_task_ends_as_that_does():
    task = Job("3", square, (3,), after="first")
    assert _attempt(task, None, None) == 9
    assert _attempt(task, None, Failed("no data")) == Failed("first, which it starts from, failed: no data")
    assert _attempt(task, None, Stopped()) == Stopped()


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'hosnn\[ray\]'"):
        list(run_jobs([Job("3", square, (3,))], Cluster(), Deadline()))
    assert main(["sweep", "demo:lif_clean", "--runs", str(tmp_path)]) == 2
    assert "hosnn[ray]" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["here", "here:", ":6379", "host:port", "ray://host:10001"])
def test_an_address_must_be_one(address: str):
    with pytest.raises(ValueError, match="HOST:PORT"):
        _check_address(address)


def test_a_head_that_is_not_there_is_noticed_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        _check_address(f"127.0.0.1:{port}")
    _check_address("auto")


def test_a_task_that_fits_on_no_machine_is_refused():
    def node(cpus: int, gpus: int, alive: bool = True) -> dict[str, object]:
        return {"Alive": alive, "Resources": {"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {})}}

    _check_room([node(8, 0), node(2, 1)], Cluster(cpus=2, gpus=0.5))
    with pytest.raises(ConfigError, match="4 CPU cores and 1 GPUs; the largest machine that Ray sees has 8 and 1"):
        _check_room([node(8, 0), node(2, 1)], Cluster(cpus=4, gpus=1))
    with pytest.raises(ConfigError, match="has 0 and 0"):
        _check_room([node(8, 8, alive=False)], Cluster())
