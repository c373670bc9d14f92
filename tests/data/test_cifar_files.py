import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hosnn.data import Dataset, cifar
from hosnn.data.cifar import cifar10, cifar100
from hosnn.data.cifar_files import (
    CIFAR10_BINARY,
    CIFAR10_PYTHON,
    CIFAR100_BINARY,
    CIFAR100_PYTHON,
    CifarFiles,
    CifarVersion,
    read_records,
)
from hosnn.data.published_dataset import PublishedDataset
from hosnn.data.split import Split
from hosnn.errors import DataError

from .colour_formats import (
    TEST,
    TINY_COLOUR,
    TRAIN,
    batches,
    binary_batch,
    pickled_batch,
    stand_in_for_cifar,
    write_archive,
    write_cifar,
)

VERSIONS = {
    "10 python": CIFAR10_PYTHON,
    "10 binary": CIFAR10_BINARY,
    "100 python": CIFAR100_PYTHON,
    "100 binary": CIFAR100_BINARY,
}
EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)


def load(version: CifarVersion, folder: Path) -> Dataset:
    return (cifar100 if "100" in version.folder else cifar10)(folder)


@EVERY_VERSION
@pytest.mark.parametrize("place", [".", "cifar"], ids=["the folder", "torchvision's folder"])
def test_what_is_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: CifarVersion, place: str
) -> None:
    stand_in_for_cifar(monkeypatch)
    write_cifar(tmp_path / (version.folder if place == "cifar" else "."), version)
    dataset = load(version, tmp_path)
    assert dataset.sha256 == TINY_COLOUR.sha256
    assert tuple(map(len, (dataset.train, dataset.validation, dataset.test))) == (16, 4, 8)
    assert dataset.train.images.dtype == torch.uint8
    assert dataset.image_shape == (3, 32, 32)
    assert torch.equal(dataset.test.images, TEST.images)
    assert dataset.source.startswith("folder: CIFAR batches in")


@EVERY_VERSION
def test_archives_are_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: CifarVersion) -> None:
    stand_in_for_cifar(monkeypatch)
    dataset = load(version, write_archive(tmp_path, version))
    assert dataset.sha256 == TINY_COLOUR.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == [version.archive, "unpacked"]


def test_records_say_what_is_wrong_with_their_length() -> None:
    content = binary_batch(TRAIN)
    for wrong in (content[:-1], b"", content + b"x"):
        with pytest.raises(DataError, match=rf"x has {len(wrong)} bytes, expected a multiple of 3073"):
            read_records(wrong, 3072, "x", label_bytes=1)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (write_cifar(folder, CIFAR10_PYTHON) / name).unlink()


def with_batch(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (write_cifar(folder, CIFAR10_PYTHON) / "data_batch_2").write_bytes(content)


def archive_of(members: dict[str, bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir()
        with tarfile.open(folder / CIFAR10_PYTHON.archive, "w:gz") as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    return write


def cut_archive(folder: Path) -> None:
    path = write_archive(folder, CIFAR10_PYTHON) / CIFAR10_PYTHON.archive
    path.write_bytes(path.read_bytes()[:-2000])


def not_an_archive(folder: Path) -> None:
    folder.mkdir()
    (folder / CIFAR10_PYTHON.archive).write_bytes(b"please log in")


def link_outside(folder: Path) -> None:
    folder.mkdir()
    with tarfile.open(folder / CIFAR10_PYTHON.archive, "w:gz") as archive:
        for name in (*CIFAR10_PYTHON.train, *CIFAR10_PYTHON.test):
            member = tarfile.TarInfo(f"{CIFAR10_PYTHON.folder}/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda folder: None, "does not exist, expected a folder with cifar-10-python"),
    "empty": (lambda folder: folder.mkdir(), "has no data, expected cifar-10-python"),
    "a batch missing": (without("data_batch_3"), "lacks data_batch_3, expected all of CIFAR's batches"),
    "the test batch missing": (without("test_batch"), "lacks test_batch"),
    "a batch cut off": (with_batch(pickled_batch(TRAIN)[:-500]), "data_batch_2 cannot be read as a batch"),
    "a batch too long": (with_batch(pickled_batch(TRAIN)), "has 36 images, expected 20"),
    "a hostile batch": (with_batch(b"cos\nsystem\n(Vtrue\ntR."), r"data_batch_2 .* calls os\.system"),
    "labels of CIFAR-100": (with_batch(pickled_batch(TRAIN, hundred=True)), "data_batch_2 .*no 'labels'"),
    "a label out of range": (
        with_batch(pickled_batch(Split.in_order(TRAIN.images[:4], torch.tensor([0, 1, 2, 0])))),
        "label 2 in row 6",
    ),
    "other pixels": (with_batch(pickled_batch(batches(TRAIN, 5)[0])), "has sha256"),
    "an archive cut off": (cut_archive, "cannot be read"),
    "an archive of something else": (
        archive_of({"cifar-10-batches-py/readme": b""}),
        "lacks data_batch_1, .*test_batch",
    ),
    "an archive with links": (link_outside, "lacks data_batch_1, .*test_batch"),
    "not an archive": (not_an_archive, r"tar\.gz cannot be read"),
}


@pytest.mark.parametrize(("write", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_bad_folder_raises_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object], message: str
) -> None:
    stand_in_for_cifar(monkeypatch)
    write(tmp_path / "named")
    with pytest.raises(DataError, match=f"named.*{message}"):
        cifar10(tmp_path / "named")


def test_a_huge_batch_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_cifar(monkeypatch)
    monkeypatch.setattr("hosnn.data.cifar_files.LARGEST_BATCH", 1000)
    for folder in (
        write_cifar(tmp_path / "files", CIFAR10_PYTHON),
        write_archive(tmp_path / "archive", CIFAR10_PYTHON),
    ):
        with pytest.raises(DataError, match="expected at most 1000"):
            cifar10(folder)


@pytest.mark.parametrize("publication", [cifar.CIFAR10, cifar.CIFAR100], ids=["cifar10", "cifar100"])
def test_what_is_downloaded_has_a_published_hash(publication: PublishedDataset) -> None:
    specification = publication.specification
    assert {len(specification.published[name]) for name in publication.files} == {64}
    assert len(set(specification.classes)) == len(specification.classes)


@pytest.mark.parametrize(
    ("batches_by_name", "version"),
    [(cifar.CIFAR10_BATCHES, CIFAR10_BINARY), (cifar.CIFAR100_BATCHES, CIFAR100_BINARY)],
    ids=["cifar10", "cifar100"],
)
def test_every_original_batch_has_a_published_hash(batches_by_name: dict[str, str], version: CifarVersion) -> None:
    assert tuple(batches_by_name) == (*version.train, *version.test)
    assert {len(text) for text in batches_by_name.values()} == {64}
    assert len(set(batches_by_name.values())) == len(batches_by_name)


def test_cifar_files_of_another_set_are_not_found(tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR100_PYTHON)
    assert CifarFiles.find(CIFAR10_PYTHON, tmp_path) is None
