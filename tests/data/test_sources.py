import gzip
import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hosnn.data import Dataset, fashion_mnist_files
from hosnn.data.download import fetch_file
from hosnn.data.fashion_mnist_files import FASHION_MNIST, fashion_mnist
from hosnn.data.sources import describe, find_in_folder, system_data_folders
from hosnn.errors import DataError
from hosnn.places import cache_folder

from .formats import TEST, TINY, TRAIN, random_split, write_idx_files, write_parquet, write_parquet_files


def stand_in(monkeypatch: pytest.MonkeyPatch, host: str = fashion_mnist_files.HOST, **changes: Any) -> None:
    """The tiny set in place of the full one, in the same places and under the same published hashes."""
    specification = replace(TINY, **{"published": FASHION_MNIST.specification.published, **changes})
    monkeypatch.setattr(
        fashion_mnist_files, "FASHION_MNIST", replace(FASHION_MNIST, specification=specification, host=host)
    )


@pytest.fixture(autouse=True)
def tiny_instead_of_the_full_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch)
    monkeypatch.setattr("hosnn.data.sources.system_data_folders", lambda: [tmp_path / "share"])


def write_hub_cache(cache: Path) -> None:
    repository, commit = cache / "datasets--zalando-datasets--fashion_mnist", "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    assert FASHION_MNIST.hub is not None
    _, train, test = FASHION_MNIST.hub
    write_parquet(snapshot / train, TRAIN, with_index=False)
    write_parquet(snapshot / test, TEST, with_index=False)


def serve_from_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original host, played by file:// addresses."""
    host = write_idx_files(folder).as_uri() + "/"
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in FASHION_MNIST.files}
    stand_in(monkeypatch, host, published=sums)


def no_hub(*_: object, **__: object) -> None:
    raise ConnectionError("no route to the hub\nand much more text")


PLACES: dict[str, Callable[[Path], object]] = {
    "Debian package": lambda root: write_idx_files(root / "share" / "datasets" / "fashion-mnist"),
    "Hugging Face cache": lambda root: write_hub_cache(root / "hub-cache"),
    "hosnn cache": lambda root: write_idx_files(root / "hosnn-cache" / "tiny"),
}


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_sources_come_in_order_and_give_the_same_data(tmp_path: Path, first: int) -> None:
    for write in list(PLACES.values())[first:]:
        write(tmp_path)
    dataset = fashion_mnist()
    assert dataset.source.startswith(list(PLACES)[first])
    assert dataset.sha256 == TINY.sha256
    reference = fashion_mnist(write_idx_files(tmp_path / "reference"))
    for split in ("train", "validation", "test"):
        for column in ("images", "labels", "index"):
            assert torch.equal(getattr(getattr(dataset, split), column), getattr(getattr(reference, split), column))


def test_the_network_comes_last_and_there_the_hub_first() -> None:
    assert [source.name for source in FASHION_MNIST.sources() if source.needs_network] == [
        "Hugging Face Hub",
        "original host",
    ]
    assert [source.needs_network for source in FASHION_MNIST.sources()] == [False] * 3 + [True] * 2


def test_published_hashes_count_where_the_content_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_idx_files(tmp_path / "named")
    assert fashion_mnist(folder).sha256 == TINY.sha256
    stand_in(monkeypatch, sha256=None)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz has MD5 \w+, expected 8d4fb7e6\w+ as published"):
        fashion_mnist(folder)


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "gzipped IDX": write_idx_files,
    "plain IDX": lambda folder: write_idx_files(folder, gzipped=False),
    "Parquet": write_parquet_files,
    "the Hub's folder": lambda folder: write_parquet_files(folder / "fashion_mnist").parent,
    "torchvision's folder": lambda folder: write_idx_files(folder / "FashionMNIST" / "raw").parents[1],
}


@pytest.mark.parametrize("write", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_goes_before_everything_else(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    for write_elsewhere in PLACES.values():
        write_elsewhere(tmp_path)
    dataset = fashion_mnist(write(tmp_path / "named"))
    assert dataset.source.startswith("folder: ")
    assert str(tmp_path / "named") in dataset.source
    assert dataset.origin.startswith("folder: ") and str(tmp_path) not in dataset.origin


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda folder: None, "does not exist"),
    "a file": (lambda folder: folder.write_text("x"), "is not a folder"),
    "empty": (lambda folder: folder.mkdir(), "has no data, expected train-images-idx3-ubyte"),
    "another data set": (lambda folder: write_idx_files(folder, random_split(12, seed=9)), "has sha256"),
    "damaged": (lambda folder: damage(write_idx_files(folder)), "cannot be read as an IDX file"),
}


def damage(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(("write", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_bad_folder_is_an_error_even_when_another_source_has_the_data(
    tmp_path: Path, write: Callable[[Path], object], message: str
) -> None:
    for write_elsewhere in PLACES.values():
        write_elsewhere(tmp_path)
    write(tmp_path / "named")
    with pytest.raises(DataError, match=message):
        fashion_mnist(tmp_path / "named")


def test_a_damaged_source_is_noted_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage(write_idx_files(tmp_path / "share" / "datasets" / "fashion-mnist"))
    write_hub_cache(tmp_path / "hub-cache")
    with caplog.at_level(logging.WARNING):
        assert fashion_mnist().source.startswith("Hugging Face cache")
    assert "skipping Debian package dataset-fashion-mnist" in caplog.text
    assert "train-images-idx3-ubyte.gz" in caplog.text


@pytest.mark.parametrize("switch", ["HOSNN_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_and_absent_is_one_error_that_lists_every_source(monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    monkeypatch.setenv(switch, "1")
    with pytest.raises(DataError) as caught:
        fashion_mnist()
    text = str(caught.value)
    assert all(f"\n  - {source.name}: " in text for source in fashion_mnist_files.FASHION_MNIST.sources())
    assert text.count(f"not tried, {switch}=1 is set") == 2
    assert "apt install dataset-fashion-mnist" in text
    assert "hf download zalando-datasets/fashion_mnist --repo-type dataset" in text


def test_the_original_host_comes_last_and_fills_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_from_disk(tmp_path / "host", monkeypatch)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_hub)
    assert fashion_mnist().source.startswith("original host")
    monkeypatch.setenv("HOSNN_OFFLINE", "1")
    assert fashion_mnist().source.startswith("hosnn cache")
    assert sorted(path.name for path in (cache_folder() / "tiny").iterdir()) == sorted(FASHION_MNIST.files)


def test_a_damaged_cache_is_mended_by_the_next_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_from_disk(tmp_path / "host", monkeypatch)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_hub)
    damage(write_idx_files(cache_folder() / "tiny"))
    assert fashion_mnist().source.startswith("original host")
    assert fashion_mnist().source.startswith("hosnn cache")


def test_failing_downloads_are_listed_with_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_hub)
    stand_in(monkeypatch, (tmp_path / "nothing-here").as_uri() + "/")
    with pytest.raises(DataError) as caught:
        fashion_mnist()
    assert "Hub: zalando-datasets/fashion_mnist cannot be downloaded: no route to the hub\n" in str(caught.value)
    assert "original host: file:" in str(caught.value)


def test_a_download_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"please log in")
    target = tmp_path / "cache" / "train"
    with pytest.raises(DataError, match=r"sent a file with MD5 .* something else answers there"):
        fetch_file((tmp_path / "page").as_uri(), target, "0" * 32)
    assert list(target.parent.iterdir()) == []
    fetch_file((tmp_path / "page").as_uri(), target, hashlib.md5(b"please log in").hexdigest())
    assert target.read_bytes() == b"please log in"


def test_a_download_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hosnn.data.download.LARGEST_FILE", 3)
    (tmp_path / "page").write_bytes(b"please log in")
    with pytest.raises(DataError, match="more than 3 bytes"):
        fetch_file((tmp_path / "page").as_uri(), tmp_path / "cache" / "train", "0" * 32)


def test_an_unwritable_cache_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be downloaded to"):
        fetch_file((tmp_path / "file").as_uri(), tmp_path / "file" / "train", "0" * 32)


def test_describe_tells_what_is_there_without_reading_it(tmp_path: Path) -> None:
    damage(write_idx_files(tmp_path / "share" / "datasets" / "fashion-mnist"))
    found = {status.source: status for status in describe("tiny", fashion_mnist_files.FASHION_MNIST.sources())}
    assert [status.found for status in found.values()] == [True, False, False, False, False]
    assert str(tmp_path) in found["Debian package dataset-fashion-mnist"].detail
    assert found["original host"].detail == "tried if no local source has it"


def test_a_gzipped_file_wins_over_nothing_and_a_plain_one_over_gzip(tmp_path: Path) -> None:
    write_idx_files(tmp_path, random_split(12, seed=9), gzipped=True)
    write_idx_files(tmp_path, gzipped=False)
    contents = find_in_folder(tmp_path, FASHION_MNIST.layout).read(TINY)
    assert torch.equal(contents.train.images, TRAIN.images)


def test_system_folders_follow_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    standard = ["/usr/local/share", "/usr/share"]
    monkeypatch.delenv("XDG_DATA_DIRS", raising=False)
    assert list(map(str, system_data_folders())) == standard
    monkeypatch.setenv("XDG_DATA_DIRS", "/opt/share:relative:/usr/share")
    assert list(map(str, system_data_folders())) == ["/opt/share", "/usr/share", "/usr/local/share"]


def test_a_source_whose_hash_differs_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, sha256="0" * 64)
    with pytest.raises(DataError, match=r"0{64} was expected"):
        fashion_mnist(write_parquet_files(tmp_path / "named"))


def test_a_plain_file_named_gz_is_read(tmp_path: Path) -> None:
    for path in write_idx_files(tmp_path / "named").iterdir():
        path.write_bytes(gzip.decompress(path.read_bytes()))
    assert isinstance(fashion_mnist(tmp_path / "named"), Dataset)
