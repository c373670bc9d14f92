"""Readers on files that we did not write: skipped where they are not beside the checkout, as ../shared/data."""

import hashlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hosnn.data import Dataset, Split, load_dataset
from hosnn.data.cifar import CIFAR10, CIFAR100
from hosnn.data.cifar_files import CIFAR100_BINARY, CIFAR100_PYTHON
from hosnn.data.events import Binning, Bins, Values, frames_of, read_events
from hosnn.data.matlab import read_mat
from hosnn.data.parquet import read_split, rows_of
from hosnn.data.pickles import read_pickle
from hosnn.data.pictures import decode
from hosnn.data.specification import Verified
from hosnn.data.svhn_files import SVHN_PREFIX
from hosnn.errors import DataError

from .colour_formats import pickled_batch

SHARED = Path(__file__).parents[3] / "shared"
DATA = SHARED / "data"
FIXTURES = DATA / "fixtures"
pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"{DATA} is not there")


@pytest.fixture(autouse=True, scope="module")
def cache_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Data sets that several tests share are read before a test's own cache is set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(
    ("name", "key", "specification"),
    [
        ("cifar-10-batches-py.batches.meta", b"label_names", CIFAR10.specification),
        ("cifar-100-python.meta", b"fine_label_names", CIFAR100.specification),
    ],
    ids=["cifar10", "cifar100"],
)
def test_class_names_are_those_of_the_original_files(name: str, key: bytes, specification) -> None:
    meta = pickle.loads((FIXTURES / "cifar" / name).read_bytes(), encoding="bytes")
    assert tuple(label.decode() for label in meta[key]) == specification.classes


def test_the_start_of_an_original_pickle_is_refused() -> None:
    path = FIXTURES / "cifar" / "test_batch.first-128KiB"
    with pytest.raises(DataError, match=r"^test_batch cannot be read as a batch of CIFAR \(.*get it again"):
        read_pickle(path.read_bytes(), 3072, "test_batch", labels="labels")


def picture(path: Path) -> torch.Tensor:
    pixels, exact = decode(path.read_bytes(), str(path), (32, 32))
    assert exact
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_first_test_images_are_those_that_others_ship(name: str) -> None:
    """Twenty test images of each set, as PNG files called SET_INDEX_LABEL."""
    paths = sorted((FIXTURES / "cifar" / "foolbox-png").glob(f"{name}_*.png"))
    assert len(paths) == 20
    rows = rows_of((DATA / name / "test.parquet",), ("image",))
    for path, (row, origin, encoded) in zip(paths, rows, strict=False):
        _, index, label = path.stem.split("_")
        assert (row.position, row.label) == (int(index), int(label))
        pixels = torch.from_numpy(decode(encoded, origin).pixels.transpose(2, 0, 1).copy())
        assert torch.equal(pixels, picture(path))


@pytest.fixture(scope="module")
def svhn_prefix() -> Dataset:
    return load_dataset("svhn-prefix", DATA / "svhn-prefix")


def whole_train(data: Dataset) -> Split:
    """Train and validation together, in the original order."""
    parts = (data.train, data.validation)
    images, labels, index = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels", "index")
    )
    return Split(images, labels, index).subset(index.argsort())


def pixels_sha256(split: Split) -> str:
    """Over the bytes of [N, H, W, C] in C order, as the data's own documentation has it."""
    digest = hashlib.sha256()
    for images in torch.split(split.images, 1000):
        digest.update(images.permute(0, 2, 3, 1).contiguous().numpy().data)
    return digest.hexdigest()


def test_svhn_prefix_is_what_its_documentation_says(svhn_prefix: Dataset) -> None:
    train = whole_train(svhn_prefix)
    assert pixels_sha256(train) == "d2e4ce66c0eb3456a46484675162dff75ae3e7489ee2fe8c94fa685737e1e0db"
    assert pixels_sha256(svhn_prefix.test) == "fb8e2a1e299d7f0674150de53b32f7e16afc51dd389fd5a078535a5fc4522035"
    assert train.labels.bincount().tolist() == [315, 871, 603, 507, 463, 428, 326, 321, 326, 274]
    assert svhn_prefix.test.labels.bincount().tolist() == [136, 366, 297, 233, 194, 169, 149, 151, 134, 123]
    assert (svhn_prefix.title, svhn_prefix.lossy, svhn_prefix.verified) == ("svhn-prefix", 0, Verified.PIXELS)
    assert svhn_prefix.sha256 == SVHN_PREFIX.specification.sha256
    assert [len(split) for split in (svhn_prefix.train, svhn_prefix.validation, svhn_prefix.test)] == [4034, 400, 1952]
    assert svhn_prefix.validation.labels.bincount().tolist() == [40] * 10


def test_official_crops_are_the_first_test_digits(svhn_prefix: Dataset) -> None:
    assert svhn_prefix.test.labels[:4].tolist() == [5, 2, 1, 0]
    for row, label in enumerate((5, 2, 1, 0)):
        assert torch.equal(svhn_prefix.test.images[row], picture(FIXTURES / "svhn" / f"svhn_digit_{label}.png"))


def test_the_prefix_is_not_taken_for_the_whole() -> None:
    with pytest.raises(DataError, match="4434 rows, expected 73257"):
        load_dataset("svhn", DATA / "svhn-prefix")


def test_a_recording_of_n_mnist_by_others_is_read() -> None:
    events = read_events((FIXTURES / "events" / "sample_nmnist.bin").read_bytes(), (34, 34), "sample")
    assert len(events) == 4325 and int(events.time[-1]) == 311_175
    assert [events.x[:3].tolist(), events.y[:3].tolist()] == [[7, 19, 21], [15, 18, 17]]
    assert [events.polarity[:3].tolist(), events.time[:3].tolist()] == [[1, 0, 0], [654, 2999, 3017]]
    frames = frames_of(events, (34, 34), Binning(maximum=255))
    assert frames.sum() == 4325


@pytest.mark.parametrize("name", ["sample_ncars.dat", "sample_aedat_header.aedat"])
def test_recordings_in_other_formats_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=rf"^{name}"):
        read_events((FIXTURES / "events" / name).read_bytes(), (34, 34), name)


def test_a_file_that_matlab_wrote_is_read() -> None:
    """ST-MNIST: spikes of tactile sensors over time, -1 and 1, in the last row their times."""
    path = FIXTURES / "events" / "sample_stmnist.mat"
    spikes = read_mat(path, {"spiketrain": (101, 2346)})["spiketrain"]
    assert spikes.dtype == np.float64
    assert set(np.unique(spikes[:100])) == {-1.0, 0.0, 1.0}
    assert (np.diff(spikes[100]) > 0).all()
    with pytest.raises(DataError, match=r"has spiketrain of shape \[101, 2346\], expected \[32, 32, 3, 5\]"):
        read_mat(path, {"spiketrain": (32, 32, 3, 5)})
    with pytest.raises(DataError, match=r"sample_stmnist\.mat has no array X"):
        read_mat(path, {"X": (101, 2346)})


BINNINGS = ("", ":steps=5", ":bins=count", ":values=binary,steps=3")


@pytest.mark.parametrize("settings", BINNINGS, ids=["default", *BINNINGS[1:]])
def test_the_first_recordings_of_n_mnist(settings: str) -> None:
    data = load_dataset(f"nmnist-small{settings}", DATA / "nmnist-small")
    binning = Binning.parse(settings.removeprefix(":"))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [900, 100, 100]
    assert data.validation.labels.bincount().tolist() == [10] * 10
    assert (data.steps, data.image_shape) == (binning.steps, (2, 34, 34))
    x, _ = data.test.batch(torch.arange(100))
    assert float(x.min()) == 0 and float(x.max()) == 1
    if binning.bins is Bins.COUNT and binning.values is Values.COUNTS:
        per_step = data.test.images.flatten(2).long().sum(2).float()  # equal but for counts that were cut
        assert (per_step.std(1) / per_step.mean(1)).max() < 0.1
    assert data.title.endswith(" (unverified)")


@pytest.fixture(scope="module")
def cifar100() -> Dataset:
    return load_dataset("cifar100", DATA / "cifar100")


@pytest.mark.slow
def test_cifar_100_is_complete_and_exact(cifar100: Dataset) -> None:
    train = whole_train(cifar100)
    assert pixels_sha256(train) == "4e457917601a66aed021f5fa37957b56c6319557c0a8ed5484de3c390af45430"
    assert pixels_sha256(cifar100.test) == "4cb8e5d9309da489bf6b19cc10cd96c3ae6f8daf225380b605aaee4c0d6aee19"
    assert (cifar100.title, cifar100.lossy, cifar100.verified) == ("cifar100", 0, Verified.PIXELS)
    assert train.labels.bincount().tolist() == [500] * 100
    assert [len(split) for split in (cifar100.train, cifar100.validation, cifar100.test)] == [45_000, 5_000, 10_000]


@pytest.mark.slow
def test_cifar_100_has_one_identity_as_parquet_binary_and_pickle(cifar100: Dataset, tmp_path: Path) -> None:
    tool = str(SHARED / "tools" / "parquet_to_cifar_bin.py")
    command = [sys.executable, tool, "cifar100", str(DATA / "cifar100"), str(tmp_path / "binary")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.count(" as published") == 2
    (tmp_path / "pickle").mkdir()
    for name, split in (("train", whole_train(cifar100)), ("test", cifar100.test)):
        (tmp_path / "pickle" / name).write_bytes(pickled_batch(split, hundred=True))
    for kind, version in (("binary", CIFAR100_BINARY), ("pickle", CIFAR100_PYTHON)):
        assert {path.name for path in (tmp_path / kind).iterdir()} == {*version.train, *version.test}
        other = load_dataset("cifar100", tmp_path / kind)
        assert other.sha256 == cifar100.sha256 and other.verified is Verified.PIXELS
        for part in ("train", "validation", "test"):
            mine, theirs = getattr(cifar100, part), getattr(other, part)
            assert torch.equal(mine.index, theirs.index)
            for one, another in zip(mine.batch(torch.arange(64)), theirs.batch(torch.arange(64)), strict=True):
                assert torch.equal(one, another)


@pytest.mark.slow
def test_cifar_10_is_exact_but_for_103_images() -> None:
    data = load_dataset("cifar10", DATA / "cifar10")
    train = whole_train(data)
    assert data.title == "cifar10, 103 of 60,000 images lossy"
    assert (data.lossy, data.verified) == (103, Verified.LABELS)
    assert pixels_sha256(data.test) == "4674ac8c77f372061aaf9216c8857c99599d5df0bb9f6b16a3de613ef8eb348a"
    assert train.labels.bincount().tolist() == [5000] * 10
    mean = train.images.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.49139964, 0.48215821, 0.44653068]).double(), atol=1e-7, rtol=0)


@pytest.mark.slow
def test_one_shard_of_cifar_10_alone_is_exact_but_for_its_own_jpegs() -> None:
    path = DATA / "cifar10" / "train-00000-of-00005.parquet"
    split, lossy = read_split((path,), CIFAR10.specification, 10_000)
    assert lossy == 10
    assert split.index.tolist() == list(range(10_000))


MEMORY = """
import sys, time
from pathlib import Path
from hosnn.data import load_dataset
start = time.monotonic()
load_dataset("cifar100", sys.argv[1])
seconds = time.monotonic() - start
# Not resource.getrusage: its peak includes that of the process this one was forked from.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(1024 * int(peak.split()[1]), seconds)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_reading_60000_pictures_takes_less_than_1_gb_and_the_cache_seconds() -> None:
    def measured() -> tuple[int, float]:
        command = [sys.executable, "-c", MEMORY, str(DATA / "cifar100")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        size, seconds = done.stdout.split()
        return int(size), float(seconds)

    once, again = measured(), measured()
    assert max(once[0], again[0]) < 1e9, (once, again)
    assert again[1] < once[1] / 2
