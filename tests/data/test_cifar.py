import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from hosnn.data import cifar
from hosnn.data.cifar import cifar10, cifar100
from hosnn.data.cifar_files import (
    CIFAR10_PYTHON,
)
from hosnn.data.split import Split
from hosnn.errors import DataError

from .colour_formats import (
    TEST,
    TINY_COLOUR,
    TRAIN,
    batches,
    hashes,
    stand_in_for_cifar,
    write_archive,
)
from .formats import parquet_table, write_parquet


def fingerprint(labels: torch.Tensor) -> str:
    return hashlib.sha256(bytes(labels.tolist())).hexdigest()


PARTS = tuple(fingerprint(part.labels) for part in batches(TRAIN, 5))


def on_the_hub(split: Split, *, fine: bool = False):
    """The Hub's column names, and no index."""
    names = {"image": "img", "label": "fine_label" if fine else "label"}
    return parquet_table(split, with_index=False).rename_columns(names)


def write_hub_files(folder: Path, train: Split, test: Split = TEST, *, fine: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(on_the_hub(train, fine=fine), folder / "train-00000-of-00001.parquet")
    pq.write_table(on_the_hub(test, fine=fine), folder / "test-00000-of-00001.parquet")
    return folder


def in_archive_order(train: Split) -> Split:
    """Batches 4, 3, 2, 5, 1, as the archive has them and the Hub's copy with it."""
    parts = batches(train, 5)
    return train.subset(torch.cat([parts[at].index for at in (3, 2, 1, 4, 0)]))


@pytest.mark.parametrize("arranged", [lambda train: train, in_archive_order], ids=["in order", "by batches"])
def test_the_hubs_files_give_the_same_data_in_the_original_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arranged: Callable[[Split], Split]
) -> None:
    stand_in_for_cifar(monkeypatch, label_parts=PARTS)
    write_hub_files(tmp_path / "plain_text", arranged(TRAIN))
    assert cifar10(tmp_path).sha256 == TINY_COLOUR.sha256


def test_rows_in_no_known_order_raise_unless_they_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_cifar(monkeypatch, label_parts=PARTS)
    shuffled = TRAIN.subset(torch.randperm(20, generator=torch.Generator().manual_seed(0)))
    write_hub_files(tmp_path, shuffled)
    with pytest.raises(DataError, match="neither in the original order"):
        cifar10(tmp_path)
    write_parquet(tmp_path / "train-00000-of-00001.parquet", shuffled, with_index=True)
    assert cifar10(tmp_path).sha256 == TINY_COLOUR.sha256


def test_cifar_100_on_the_hub_has_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_cifar(monkeypatch)
    write_hub_files(tmp_path / "cifar100", TRAIN, fine=True)
    assert cifar100(tmp_path).sha256 == TINY_COLOUR.sha256


def serve_from_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original host, played by file:// addresses; the Hub is out of reach."""
    archive = write_archive(folder, CIFAR10_PYTHON) / CIFAR10_PYTHON.archive
    stand_in_for_cifar(monkeypatch, sha256=None, published=hashes(archive))
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, host=folder.as_uri() + "/"))

    def no_hub(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_hub)


def test_the_archive_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_from_disk(tmp_path / "host", monkeypatch)
    first = cifar10()
    assert first.source.startswith("original host: CIFAR batches in")
    assert first.sha256 == TINY_COLOUR.sha256
    monkeypatch.setenv("HOSNN_OFFLINE", "1")
    assert cifar10().source.startswith("hosnn cache")


def test_a_damaged_cache_is_mended_by_the_next_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_from_disk(tmp_path / "host", monkeypatch)
    cifar10()
    cached = tmp_path / "hosnn-cache" / "cifar10" / CIFAR10_PYTHON.archive
    cached.write_bytes(cached.read_bytes()[:-2000])
    assert cifar10().source.startswith("original host")


def test_a_host_that_sends_something_else_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_from_disk(tmp_path / "host", monkeypatch)
    (tmp_path / "host" / CIFAR10_PYTHON.archive).write_bytes(b"please log in")
    with pytest.raises(DataError, match=r"sent a file with SHA-256 .*something else answers there") as caught:
        cifar10()
    assert "hf download uoft-cs/cifar10" in str(caught.value)
    assert list((tmp_path / "hosnn-cache" / "cifar10").iterdir()) == []


def test_the_hubs_cache_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_cifar(monkeypatch, label_parts=PARTS)
    repository, commit = (
        tmp_path / "hub-cache" / "datasets--uoft-cs--cifar10",
        "0123456789abcdef0123456789abcdef01234567",
    )
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    write_hub_files(repository / "snapshots" / commit / "plain_text", in_archive_order(TRAIN))
    dataset = cifar10()
    assert dataset.source.startswith("Hugging Face cache")
    assert dataset.sha256 == TINY_COLOUR.sha256


def test_the_hub_comes_before_the_host_where_its_files_have_published_hashes() -> None:
    for publication in (cifar.CIFAR10, cifar.CIFAR100):
        names = [source.name for source in publication.sources()]
        assert names == ["Hugging Face cache", "hosnn cache", "Hugging Face Hub", "original host"]
