from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hosnn.data import catalogue, svhn, svhn_files
from hosnn.data.specification import Verified
from hosnn.data.svhn_files import SVHN
from hosnn.errors import DataError

from .colour_formats import TEST, TINY_COLOUR, TRAIN, hashes, mat_array, mat_bytes, svhn_bytes, write_svhn
from .formats import write_parquet


def use(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """The tiny set stands for SVHN."""
    specification = replace(TINY_COLOUR, name="svhn", **changes)
    publication = replace(SVHN, specification=specification)
    monkeypatch.setattr(svhn_files, "SVHN", publication)
    monkeypatch.setitem(catalogue.IMAGES, "svhn", publication)


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool) -> None:
    use(monkeypatch)
    dataset = svhn(write_svhn(tmp_path, compressed=compressed))
    assert dataset.sha256 == TINY_COLOUR.sha256
    assert torch.equal(dataset.test.images, TEST.images)
    assert dataset.test.images.is_contiguous()
    assert dataset.source == f"folder: MATLAB files in {tmp_path}"


def test_the_hubs_files_give_the_same_data_unverified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, sha256=None)
    for name, split in (("train", TRAIN), ("test", TEST)):
        write_parquet(tmp_path / "cropped_digits" / f"{name}-00000-of-00001.parquet", split, with_index=False)
    dataset = svhn(tmp_path)
    assert dataset.sha256 == TINY_COLOUR.sha256
    assert (dataset.verified, dataset.title) == (Verified.NOTHING, "svhn (unverified)")


def with_train(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (write_svhn(folder) / "train_32x32.mat").write_bytes(content)


def with_labels(kind: int, numbers: bytes) -> Callable[[Path], object]:
    pixels = TRAIN.images.permute(0, 1, 3, 2).contiguous().numpy().tobytes()
    labels = mat_array("y", (20, 1), kind, numbers, flags=6)
    return with_train(mat_bytes(mat_array("X", (32, 32, 3, 20), 2, pixels), labels))


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda folder: None, "does not exist"),
    "empty": (lambda folder: folder.mkdir(), r"has no data, expected train_32x32\.mat and test_32x32\.mat, or train"),
    "one missing": (lambda folder: (write_svhn(folder) / "test_32x32.mat").unlink(), r"lacks test_32x32\.mat"),
    "cut off": (with_train(svhn_bytes(TRAIN)[:-700]), r"train_32x32\.mat cannot be read as a MATLAB 5 file"),
    "the test file twice": (with_train(svhn_bytes(TEST)), r"X of shape \[32, 32, 3, 8\], expected \[32, 32, 3, 20\]"),
    "other pixels": (with_train(svhn_bytes(replace(TRAIN, images=255 - TRAIN.images))), "has sha256"),
    "labels from 0": (with_labels(2, bytes([0, *[1] * 19])), "labels from 0 to 1, expected whole numbers 1 to 10"),
    "labels beyond 10": (with_labels(2, bytes([11, *[1] * 19])), "labels from 1 to 11"),
    "half labels": (with_labels(7, torch.full((20,), 1.5).numpy().tobytes()), r"labels from 1\.5 to 1\.5"),
    "a label without class": (with_labels(2, bytes([5, *[1] * 19])), "label 5 in row 0"),
    "pixels as doubles": (
        with_train(
            mat_bytes(mat_array("X", (32, 32, 3, 20), 7, bytes(4 * 61440)), mat_array("y", (20, 1), 2, bytes([1] * 20)))
        ),
        "stores X as float32, expected uint8",
    ),
}


@pytest.mark.parametrize(("write", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_bad_folder_raises_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object], message: str
) -> None:
    use(monkeypatch)
    write(tmp_path / "named")
    with pytest.raises(DataError, match=f"named.*{message}"):
        svhn(tmp_path / "named")


def test_a_file_with_another_hash_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(tmp_path)
    published = hashes(*tmp_path.iterdir())
    use(monkeypatch, sha256=None, published=published)
    assert svhn(tmp_path).sha256 == TINY_COLOUR.sha256
    (tmp_path / "test_32x32.mat").write_bytes(svhn_bytes(TRAIN.subset(torch.arange(8))))
    with pytest.raises(DataError, match=r"test_32x32\.mat has SHA-256 \w+, expected \w+ as published for svhn"):
        svhn(tmp_path)


def test_files_are_downloaded_from_the_host_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [source.name for source in SVHN.sources()][2:] == ["original host", "Hugging Face Hub"]
    host = write_svhn(tmp_path / "host")
    published = hashes(*host.iterdir())
    use(monkeypatch, sha256=None, published=published)
    monkeypatch.setattr(svhn_files, "SVHN", replace(svhn_files.SVHN, host=host.as_uri() + "/"))
    assert svhn().source.startswith("original host")
    monkeypatch.setenv("HOSNN_OFFLINE", "1")
    assert svhn().source.startswith("hosnn cache")
