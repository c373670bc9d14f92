"""Arrays of one's own: .npz, .pt and what a function returns; no file of arrays runs code."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hosnn.data import Dataset, load_dataset
from hosnn.errors import HosnnError

from .formats import random_split

TRAIN, TEST = random_split(20, 1, (3, 6, 7)), random_split(6, 2, (3, 6, 7))
X, Y = TRAIN.images, TRAIN.labels


class Hostile:
    """Unpickling it creates a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


def sizes(data: Dataset) -> tuple[int, ...]:
    return tuple(map(len, (data.train, data.validation, data.test)))


def everything(data: Dataset) -> torch.Tensor:
    """All images in order of their position in one pile."""
    images = torch.cat([split.images for split in (data.train, data.validation, data.test)])
    return images[torch.cat([split.index for split in (data.train, data.validation, data.test)]).argsort()]


def test_one_pile_of_any_kind_gives_the_same_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", x=X, y=Y)
    np.savez_compressed(tmp_path / "packed.npz", images=X.permute(0, 2, 3, 1), labels=Y[:, None].to(torch.int32))
    torch.save((X, Y), tmp_path / "pair.pt")
    torch.save({"data": X, "targets": Y.byte()}, tmp_path / "dict.pth")
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\ndef pets():\n    a = np.load('PLACE/plain.npz')\n    return a['x'], a['y']\n".replace(
            "PLACE", str(tmp_path)
        )
    )
    loaded = {name: load_dataset(f"{tmp_path}/{name}") for name in ("plain.npz", "packed.npz", "pair.pt", "dict.pth")}
    loaded["function"] = load_dataset(f"{tmp_path}/mine.py:pets")
    assert len({data.sha256 for data in loaded.values()}) == 1
    assert {sizes(data) for data in loaded.values()} == {(14, 2, 4)}
    assert torch.equal(everything(loaded["pair.pt"]), X)
    assert [data.name for data in loaded.values()] == [
        *("own:plain", "own:packed", "own:pair", "own:dict"),
        "own:mine-pets",
    ]
    assert {data.title.endswith(" (unverified)") for data in loaded.values()} == {True}
    assert {data.classes for data in loaded.values()} == {("0", "1")}


@pytest.mark.parametrize("validation", ["", "validation", "val"])
@pytest.mark.parametrize("order", ["{}_{}", "{1}_{0}"], ids=["x_train", "train_x"])
def test_parted_arrays_stay_parted(tmp_path: Path, validation: str, order: str) -> None:
    arrays: dict[str, torch.Tensor] = {}
    for part, split in {"train": TRAIN, "test": TEST, validation: TEST}.items():
        if part:
            arrays |= {order.format("x", part): split.images, order.format("y", part): split.labels}
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    data = load_dataset(str(tmp_path / "data.npz"))
    assert torch.equal(data.test.images, TEST.images)
    assert sizes(data) == ((20, 6, 6) if validation else (18, 2, 6))


def test_floats_in_0_to_1_stay_floats_and_frames_stay_frames(tmp_path: Path) -> None:
    frames = torch.rand(20, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.save((frames.double(), Y), tmp_path / "frames.pt")
    data = load_dataset(str(tmp_path / "frames.pt"))
    assert (data.steps, data.image_shape) == (3, (2, 4, 4))
    torch.testing.assert_close(data.train.batch(torch.arange(5))[0], frames[data.train.index[:5]], rtol=0, atol=0)


def npz(**arrays: Any) -> Callable[[Path], object]:
    return lambda path: np.savez(path.with_suffix(".npz"), **arrays)


def pt(content: Any) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path.with_suffix(".pt"))


def raw(ending: str, content: bytes) -> Callable[[Path], object]:
    return lambda path: path.with_suffix(ending).write_bytes(content)


def hostile_npz(path: Path) -> None:
    array = np.empty(1, object)
    array[0] = Hostile(path.parent / "owned")
    np.savez(path.with_suffix(".npz"), x=array, y=Y, allow_pickle=True)


def hostile_pt(path: Path) -> None:
    torch.save((Hostile(path.parent / "owned"), Y), path.with_suffix(".pt"))


def hostile_old_pt(path: Path) -> None:
    torch.save((Hostile(path.parent / "owned"), Y), path.with_suffix(".pt"), _use_new_zipfile_serialization=False)


def hostile_pickle(ending: str) -> Callable[[Path], object]:
    return lambda path: path.with_suffix(ending).write_bytes(pickle.dumps(Hostile(path.parent / "owned")))


def npy_called_npz(path: Path) -> None:
    with path.with_suffix(".npz").open("wb") as file:
        np.save(file, X)


def huge_npz(path: Path) -> None:
    """An archive whose array claims a terabyte."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,), }"
    with zipfile.ZipFile(path.with_suffix(".npz"), "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


MISSING = r"expected x \[N, C, H, W\] and y \[N\], or x_train"
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "npz with a pickled object": (hostile_npz, r"cannot be read as a NumPy archive without running code"),
    "pickle called npz": (hostile_pickle(".npz"), "cannot be read as a NumPy archive without running code"),
    "pt with a hostile object": (hostile_pt, "cannot be read as tensors without running code"),
    "old pt with a hostile object": (hostile_old_pt, "cannot be read as tensors without running code"),
    "pickle called pt": (hostile_pickle(".pt"), "cannot be read as tensors without running code"),
    "npz of something else": (npz(a=X, b=Y), rf"holds a, b; {MISSING}"),
    "npz of nothing": (npz(), rf"holds nothing; {MISSING}"),
    "npz without labels": (npz(x=X), rf"holds x; {MISSING}"),
    "a pile and parts": (npz(x=X, y=Y, x_test=X, y_test=Y), MISSING),
    "train without test": (npz(x_train=X, y_train=Y), "has no test images"),
    "test without train": (npz(x_test=X, y_test=Y), "has no train images"),
    "fewer labels": (npz(x=X, y=Y[:-1]), "20 images and 19 labels"),
    "images in 0..255 as floats": (npz(x=X.float(), y=Y), "divide by 255"),
    "soft labels": (npz(x=X, y=torch.rand(20, 3)), "soft labels have no class"),
    "labels from -1": (npz(x=X, y=Y - 1), r"in -1\.\.0; expected 0"),
    "parts of several sizes": (npz(x_train=X, y_train=Y, x_test=X[..., 1:], y_test=Y), r"expected \[3, 6, 7\]"),
    "labels that are no class numbers": (npz(x=X, y=Y + 10**12), "labels go up to 1000000000001, expected fewer than"),
    "a class only to test on": (
        npz(x_train=X, y_train=Y.clamp(max=1), x_test=X, y_test=Y.clamp(max=1) + 1),
        "the test split has images of class .2., of which the train split has none",
    ),
    "one image of a class": (
        npz(x=X, y=torch.tensor([*[0] * 19, 1])),
        "only 1 image of class .1. for the splits, too few",
    ),
    "npz that is not one": (raw(".npz", b"please log in"), "cannot be read as a NumPy archive"),
    "npy called npz": (npy_called_npz, "cannot be read as a NumPy"),
    "npz that claims a terabyte": (huge_npz, "claims 1,000,000,000,000 bytes"),
    "empty npz": (raw(".npz", b""), "cannot be read as a NumPy archive"),
    "empty pt": (raw(".pt", b""), "cannot be read as tensors"),
    "pt that is not one": (raw(".pt", b"please log in"), "cannot be read as tensors"),
    "pt of a tensor": (pt(X), rf"gave Tensor; expected \(x, y\), or a dict with {MISSING[9:]}"),
    "pt of three tensors": (pt((X, Y, Y)), r"gave tuple; expected \(x, y\)"),
    "pt of a network": (pt(torch.nn.Linear(2, 2).state_dict()), "holds weight, bias; expected"),
    "an unknown ending": (raw(".csv", b"1,2"), "is no data set by its ending; expected a folder of class folders"),
}


@pytest.mark.parametrize(("write", "message"), BAD.values(), ids=BAD)
def test_other_files_are_refused_by_name_and_run_nothing(
    tmp_path: Path, write: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / "pets")
    (path,) = tmp_path.glob("pets.*")
    with pytest.raises(HosnnError, match=rf"pets\..*{message}"):
        load_dataset(str(path))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("ending", ["npz", "npz, packed", "pt"])
def test_damage_raises_by_name_or_changes_nothing(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"pets.{ending[:3].rstrip(',')}"
    if ending == "pt":
        torch.save((X[:8], Y[:8]), path)
    else:
        (np.savez_compressed if "packed" in ending else np.savez)(path, x=X[:8] // 128, y=Y[:8])
    whole = path.read_bytes()
    expected = load_dataset(str(path))
    damaged = [whole[:length] for length in range(0, len(whole), 61)]
    damaged += [whole[:at] + bytes([whole[at] ^ 0x14]) + whole[at + 1 :] for at in range(0, len(whole), 23)]
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert len(load_dataset(str(path))) == len(expected)
        except HosnnError as error:
            assert "pets." in str(error)
            refused += 1
    assert refused > len(damaged) // 4


FUNCTIONS = """
import numpy as np
import torch
from torch.utils.data import TensorDataset

x = torch.zeros(12, 1, 4, 4)
y = torch.arange(12) % 3

def pair(): return x, y
def listed(): return [x, y]
def parts(): return {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
def nothing(): pass
def text(): return "cifar10"
def raises(): raise RuntimeError("the disk is gone")
def leaves(): raise SystemExit(3)
def needs(argument): return x, y
def wrong_size(): return x, y[:5]
constant = 5
"""


@pytest.mark.parametrize("function", ["pair", "listed", "parts"])
def test_what_a_function_returns_is_taken(tmp_path: Path, function: str) -> None:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    data = load_dataset(f"{tmp_path}/mine.py:{function}")
    assert (data.name, data.num_classes, data.image_shape) == (f"own:mine-{function}", 3, (1, 4, 4))
    assert data.source == f"{tmp_path}/mine.py:{function}"


BAD_FUNCTIONS = {
    "nothing": r"gave NoneType; expected \(x, y\)",
    "text": r"gave str; expected \(x, y\)",
    "raises": r"raised RuntimeError: the disk is gone; expected it to return \(x, y\)",
    "leaves": r"raised SystemExit: 3",
    "needs": "raised TypeError: .*argument",
    "wrong_size": "12 images and 5 labels",
    "constant": "has no function 'constant'",
    "absent": "has no function 'absent'",
}


@pytest.mark.parametrize(("function", "message"), BAD_FUNCTIONS.items(), ids=BAD_FUNCTIONS)
def test_what_a_function_does_wrong_is_told_by_its_name(tmp_path: Path, function: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    with pytest.raises(HosnnError, match=rf"mine\.py.*{message}"):
        load_dataset(f"{tmp_path}/mine.py:{function}")


def test_a_file_that_is_not_there_or_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(HosnnError, match=r"there is no Python file .*absent\.py"):
        load_dataset(f"{tmp_path}/absent.py:pets")
    (tmp_path / "broken.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(HosnnError, match=r"broken\.py raised ModuleNotFoundError"):
        load_dataset(f"{tmp_path}/broken.py:pets")
    with pytest.raises(HosnnError, match=r"broken\.py is no data set by its ending; expected .*file\.py:function"):
        load_dataset(f"{tmp_path}/broken.py")
    buffer = io.BytesIO()
    torch.save((X, Y), buffer)
    (tmp_path / "a:b.pt").write_bytes(buffer.getvalue())
    assert load_dataset(f"{tmp_path}/a:b.pt").name == "own:a-b"
