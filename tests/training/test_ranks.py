"""Several processes train as one does: the same losses, every sample once, and when one dies all end, resumable."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from hosnn.errors import ConfigError, TrainingError
from hosnn.training.checkpoint import load, read_pointer
from tests.training.on_ranks import fabric_of, trained
from tests.training.toy import log_lines, position, same_bits, tensors

ROOT = Path(__file__).parents[2]
SHARED = ("robust", "normalised", "each-rank", "averaged", "shown", "penalised")
"""Trained by two processes in one session; "robust" trains "plain" first."""


@contextmanager
def processes(runs: Path, ranks: int, *what: str) -> Iterator[subprocess.Popen[str]]:
    runs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.training.on_ranks", str(runs), str(ranks), *what]
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, stdout=pipe, stderr=pipe, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def done(runs: Path, ranks: int, *what: str) -> list[dict[str, Any]]:
    """What each rank tells at the end."""
    with processes(runs, ranks, *what) as running:
        _, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    return [json.loads((runs / f"rank{number}.json").read_text()) for number in range(ranks)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    runs = tmp_path_factory.mktemp("two-ranks")
    return runs, done(runs, 2, *SHARED)


@pytest.mark.parametrize("name", ["robust", "normalised", "averaged", "penalised"])
def test_two_ranks_have_the_losses_of_one(name: str, shared: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    """Start, calibration, augmentation, attack, clipping, BatchNorm over ranks, k: in float64, over 21 steps."""
    alone = trained(name, tmp_path, fabric_of(1))
    for rank in shared[1]:
        assert len(alone) >= 21 and rank["losses"][name] == pytest.approx(alone, rel=0, abs=1e-10)
    mine, other = tensors(tmp_path / name), tensors(shared[0] / name)
    assert mine.keys() == other.keys()
    for key, tensor in mine.items():
        torch.testing.assert_close(other[key], tensor, rtol=0, atol=1e-8)
    found, whole = log_lines(shared[0] / name), log_lines(tmp_path / name)
    for accuracy in ("validation_accuracy", "probe"):
        assert [line.get(accuracy) for line in found] == [line.get(accuracy) for line in whole]


def test_in_float32_the_first_losses_agree(tmp_path: Path) -> None:
    alone = trained("float32", tmp_path / "alone", fabric_of(1, "32-true"), stop=1)
    shared = done(tmp_path / "shared", 2, "float32/1")[0]["losses"]["float32"]
    assert alone == pytest.approx(shared, rel=0, abs=1e-5)


def test_each_sample_is_shown_once_per_epoch(shared: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = (rank["shown"] for rank in shared[1])
    assert len(first) == len(second) == 21
    for epoch in range(7):
        batches = [*first[3 * epoch : 3 * epoch + 3], *second[3 * epoch : 3 * epoch + 3]]
        seen = [sample for batch in batches for sample in batch]
        assert len(seen) == len(set(seen)) == 48
    assert first[0] != first[3], "every epoch has an order of its own"


def test_statistics_of_each_rank_differ_from_those_of_the_batch(shared: tuple[Path, list[dict[str, Any]]]) -> None:
    """And the ranks agree on the running ones: a checkpoint has their mean, and both give the same losses."""
    losses = [rank["losses"] for rank in shared[1]]
    assert losses[0]["each-rank"] == losses[1]["each-rank"] != losses[0]["normalised"]


def test_parts_of_a_batch_give_the_step_of_the_whole(tmp_path: Path) -> None:
    fabric = fabric_of(1)
    whole, parts = (trained(name, tmp_path, fabric) for name in ("plain", "in-parts"))
    assert parts == pytest.approx(whole, rel=0, abs=1e-10)


def test_two_ranks_stop_together_and_go_on_to_the_same_bits(
    shared: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    stops = ("robust/5", "robust/19", "robust/4", "averaged/10")  # 2 of them: a signature
    losses = done(tmp_path, 2, *stops, "robust", "averaged")[0]["losses"]
    assert len(losses["robust"]) == 21 - 5 and len(losses["averaged"]) == 21 - 10
    for name in ("plain", "robust", "averaged"):
        same_bits(shared[0] / name, tmp_path / name)


def test_another_number_of_ranks_is_refused(tmp_path: Path) -> None:
    trained("plain", tmp_path, fabric_of(1), stop=4)
    before = tensors(tmp_path / "plain")
    with processes(tmp_path, 2, "plain") as running:
        _, errors = running.communicate(timeout=120)
    assert running.returncode == 2
    assert "was begun on 1 ranks, this is 2" in errors and "--devices 1" in errors
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(tmp_path / "plain").items())


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"16 images cannot be shared evenly by 1 ranks in 3 parts"):
        trained("uneven", tmp_path, fabric_of(1))
    assert not (tmp_path / "uneven").exists()


@pytest.mark.parametrize("failing", [0, 1])
def test_a_rank_that_cannot_even_begin_ends_all_with_its_word(failing: int, tmp_path: Path) -> None:
    with processes(tmp_path, 2, f"nothing-on-{failing}") as running:
        _, errors = running.communicate(timeout=120)
    assert running.returncode == 2 and "Traceback" not in errors, errors
    assert "error this rank has no data" in errors and f"rank {1 - failing} of 2 lost another rank" in errors


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_rank_ends_all_and_leaves_the_last_checkpoint(victim: int, tmp_path: Path) -> None:
    with processes(tmp_path, 2, "long") as running:
        assert running.stdout is not None and running.stderr is not None
        while read_pointer(tmp_path / "long" / "checkpoints") is None:
            assert running.stdout.readline(), running.stderr.read()
        other = children(running.pid)[0]
        os.kill((running.pid, other)[victim], signal.SIGKILL)
        if victim == 1:
            _, errors = running.communicate(timeout=60)
            assert running.returncode == 2 and "rank 0 of 2 lost another rank" in errors and "--resume" in errors
        end = time.monotonic() + 60
        while Path(f"/proc/{other}").exists() and "Z" not in Path(f"/proc/{other}/stat").read_text().split()[2]:
            assert time.monotonic() < end, "the other rank went on alone"
            time.sleep(0.1)
    assert load(tmp_path / "long", "last").network
    if victim == 1:
        step = position(tmp_path / "long")["step"]
        done(tmp_path, 2, "long/3")
        assert position(tmp_path / "long")["step"] == step + 3


def test_a_folder_that_the_first_rank_cannot_use_ends_all_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("in the way", encoding="utf-8")
    with processes(tmp_path, 2, "plain") as running:
        _, errors = running.communicate(timeout=120)
    assert running.returncode == 2 and errors.count("cannot use the folder") == 2, errors


def test_a_rank_that_ends_before_the_others_are_connected_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(_: Fabric) -> None:
        raise torch.distributed.DistNetworkError("Connection reset by peer\nmore")

    monkeypatch.setattr(Fabric, "launch", launch)
    with pytest.raises(TrainingError, match="rank 0 of 1 lost another rank while connecting: Connection reset by peer"):
        fabric_of(1)


def test_failures_that_are_none_of_communication_stay_what_they_are(tmp_path: Path) -> None:
    from hosnn.training.ranks import Ranks

    with pytest.raises(RuntimeError, match="gloo"), Ranks(fabric_of(1)).communicating("nothing is lost"):
        raise RuntimeError("gloo says no")
    assert issubclass(TrainingError, Exception)


TINY_DATA = """
import torch
def images():
    return torch.rand(240, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(240) % 4
"""


def test_the_command_line_trains_on_several_devices_and_speaks_once(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY_DATA)
    tiny = ("network.channels=2,3", "network.hidden=8", "optim.epochs=1", "start.optim.epochs=1")
    settings = [word for field in tiny for word in ("--set", field)]
    data, runs = f"{tmp_path / 'tiny.py'}:images", tmp_path / "runs"
    command = ["train", "demo:homeostatic_fgsm", "--data", data, *settings, "--runs", str(runs), "--accelerator", "cpu"]
    for launcher, devices in (
        (["-m", "hosnn"], ["--devices", "2"]),
        (["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "hosnn"], ["--seed", "1"]),
    ):
        done = subprocess.run(
            [sys.executable, *launcher, *command, *devices],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("best validation accuracy") == 1 and done.stdout.count("epoch 1:") == 2, done.stdout
    assert {position(folder)["ranks"] for folder in runs.iterdir()} == {2}
