"""N-MNIST from its original files and from Parquet."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hosnn.data import Dataset, load_dataset, nmnist, nmnist_files
from hosnn.data.events import Binning, Bins, Values
from hosnn.data.published_dataset import PublishedDataset
from hosnn.errors import ConfigError, DataError

TRAIN_SIZE, TEST_SIZE = 40, 20
RNG = np.random.default_rng(0)


def recording(events: int) -> bytes:
    rows = np.zeros((events, 5), np.uint8)
    rows[:, :2] = RNG.integers(30, 34, (events, 2))  # so near each other that counts exceed every maximum
    times = np.sort(RNG.integers(0, 300_000, events))
    rows[:, 2] = RNG.integers(0, 2, events) << 7 | times >> 16
    rows[:, 3], rows[:, 4] = times >> 8 & 0xFF, times & 0xFF
    return rows.tobytes()


RECORDINGS = {
    "Train": [recording(1000 + number) for number in range(TRAIN_SIZE)],
    "Test": [recording(990 + number) for number in range(TEST_SIZE)],
}
LABELS = {name: [number * 7 % 10 for number in range(len(known))] for name, known in RECORDINGS.items()}


@pytest.fixture(autouse=True)
def tiny_instead_of_the_full_set(monkeypatch: pytest.MonkeyPatch) -> None:
    real = nmnist_files._publication

    def publication(name: str, *_: Any) -> PublishedDataset:
        return real(name, TRAIN_SIZE, TEST_SIZE, 10, _[-1])

    monkeypatch.setattr(nmnist_files, "_publication", publication)


def write_files(folder: Path) -> Path:
    for name, recordings in RECORDINGS.items():
        for number, (content, label) in enumerate(zip(recordings, LABELS[name], strict=True)):
            path = folder / name / str(label) / f"{number + 1:05d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


def write_parquet(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, recordings in RECORDINGS.items():
        columns = {
            "events": [{"bytes": content, "path": None} for content in recordings],
            "label": pa.array(LABELS[name], pa.int64()),
            "index": pa.array(range(len(recordings)), pa.int32()),
        }
        pq.write_table(pa.table(columns), folder / f"{name.lower()}-subset.parquet")
    return folder


BINNINGS = (Binning(), Binning(steps=3, bins=Bins.COUNT), Binning(values=Values.BINARY), Binning(steps=5, maximum=2))


@pytest.mark.parametrize("binning", BINNINGS, ids=str)
def test_files_and_parquet_give_the_same_frames(tmp_path: Path, binning: Binning) -> None:
    name = "nmnist" if binning == Binning() else f"nmnist:{binning}"
    files, parquet = (load_dataset(name, write(tmp_path / write.__name__)) for write in (write_files, write_parquet))
    assert files.sha256 == parquet.sha256
    assert (files.name, parquet.name) == (name, name)
    for part in ("train", "validation", "test"):
        mine, other = getattr(files, part), getattr(parquet, part)
        assert torch.equal(mine.images, other.images) and torch.equal(mine.index, other.index)
    assert (files.steps, files.image_shape) == (binning.steps, (2, 34, 34))
    x, y = files.test.batch(torch.arange(TEST_SIZE))
    assert x.shape == (TEST_SIZE, binning.steps, 2, 34, 34)
    assert float(x.max()) == 1 and set((x * binning.divisor).flatten().tolist()) <= set(range(binning.divisor + 1))
    assert y.tolist() == LABELS["Test"]


def test_the_validation_split_is_balanced_and_the_same_for_every_binning(tmp_path: Path) -> None:
    folder = write_files(tmp_path)
    first, *others = (nmnist(binning, folder) for binning in BINNINGS)
    assert first.validation.labels.bincount().tolist() == [1] * 10
    assert [len(split) for split in (first.train, first.validation, first.test)] == [30, 10, 20]
    for other in others:
        assert torch.equal(other.validation.index, first.validation.index)
        assert (other.name != first.name) and (other.sha256 != first.sha256)


def test_a_binning_spelt_out_is_the_same_data_set(tmp_path: Path) -> None:
    folder = write_files(tmp_path)
    assert load_dataset(f"nmnist:{Binning()}", folder).name == "nmnist"
    assert load_dataset("nmnist:steps=5", folder).name == f"nmnist:{Binning(steps=5)}"
    with pytest.raises(ConfigError, match="events got 'bins=often'"):
        load_dataset("nmnist:bins=often", folder)


def test_no_published_hash_vouches_for_it(tmp_path: Path) -> None:
    assert load_dataset("nmnist", write_parquet(tmp_path)).title == "nmnist (unverified)"


def test_frames_are_kept_in_the_cache_by_their_binning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hosnn.data.cache.WORTH", 1)
    folders = (write_files(tmp_path / "files"), write_parquet(tmp_path / "parquet"))

    def load_all() -> list[Dataset]:
        return [nmnist(binning, folder) for binning in BINNINGS for folder in folders]

    first = load_all()
    monkeypatch.setattr(nmnist_files, "read_events", None)  # nothing is decoded again
    for one, another in zip(first, load_all(), strict=True):
        assert one.sha256 == another.sha256 and torch.equal(one.train.images, another.train.images)
        assert one.train.divisor == another.train.divisor


def without_test(folder: Path) -> None:
    (write_files(folder) / "Test").rename(folder / "elsewhere")


def one_recording_less(folder: Path) -> None:
    next((write_files(folder) / "Train" / "7").iterdir()).unlink()


def cut_off(folder: Path) -> None:
    path = write_files(folder) / "Train" / "7" / "00002.bin"
    path.write_bytes(path.read_bytes()[:-2])


def named_otherwise(folder: Path) -> None:
    (write_files(folder) / "Train" / "7" / "00002.bin").rename(folder / "Train" / "7" / "second.bin")


def pictures_in_parquet(folder: Path) -> None:
    for path in write_parquet(folder).iterdir():
        pq.write_table(pq.read_table(path).rename_columns({"events": "image"}), path)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda folder: None, "does not exist"),
    "empty": (lambda folder: folder.mkdir(), r"has no data, expected Train/0 to Train/9"),
    "no test recordings": (without_test, "lacks Test/0 to Test/9"),
    "one recording less": (one_recording_less, "Train has 39 recordings, expected 40"),
    "a recording cut off": (cut_off, r"00002\.bin has \d+ bytes, expected a multiple of 5"),
    "a recording without a number": (named_otherwise, "negative or repeated positions"),
    "Parquet of pictures": (pictures_in_parquet, "expected events: struct"),
}


@pytest.mark.parametrize(("write", "message"), BAD.values(), ids=BAD)
def test_a_bad_folder_is_refused_by_name(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    write(tmp_path / "named")
    with pytest.raises(DataError, match=rf"named.*{message}"):
        load_dataset("nmnist", tmp_path / "named")


def test_frames_are_never_beyond_what_they_are_divided_by(tmp_path: Path) -> None:
    data = load_dataset("nmnist:maximum=1", write_files(tmp_path))
    assert int(data.train.images.max()) == 1
    assert replace(data.train, divisor=1).batch(torch.tensor([0]))[0].max() == 1


def test_a_path_to_recordings_is_told_how_to_name_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data nmnist --data-folder"):
        load_dataset(str(write_parquet(tmp_path)))
