import copyreg
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hosnn.data.pickles import read_pickle
from hosnn.errors import DataError

from .colour_formats import TRAIN, pickled_array, pickled_batch

PIXELS = 3072
GOOD = pickled_batch(TRAIN)


def read(content: bytes, labels: str = "labels"):
    return read_pickle(content, PIXELS, "data_batch_1", labels=labels)


def test_a_batch_of_python_2_is_read():
    batch = read(GOOD)
    assert np.array_equal(batch.images, TRAIN.images.flatten(1).numpy())
    assert batch.labels.tolist() == TRAIN.labels.tolist()


def test_fine_labels_are_taken():
    assert read(pickled_batch(TRAIN, hundred=True), "fine_labels").labels.tolist() == TRAIN.labels.tolist()


def test_an_array_in_column_order_is_read():
    images = read(GOOD.replace(b"tb\x89", b"tb\x88")).images
    assert images.flags.c_contiguous
    assert images.ravel("F").tobytes() == TRAIN.images.numpy().tobytes()


class Trap:
    """Unpickled the usual way, creates the file it is given."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def by_text(module: str, name: str, argument: str) -> bytes:
    """The classic: a global by its name, called with one text."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def traps(marker: Path) -> dict[str, bytes]:
    call, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    array = pickled_array(TRAIN.images.flatten(1))
    return {
        **{f"protocol {number}": pickle.dumps({"data": Trap(os.system, call)}, number) for number in range(6)},
        "beside good entries": GOOD[:-2] + b"U\x01x" + by_text("os", "system", call)[:-1] + b"u.",
        "eval": by_text("builtins", "eval", code),
        "Python 2's exec": by_text("__builtin__", "exec", code),
        "hidden in numpy": by_text("numpy.testing", "rundocs", str(marker)),
        "another of numpy's": b"cnumpy.core.multiarray\nscalar\n.",
        "an attribute": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
        "an instance": f"(V{call}\nios\nsystem\n.".encode(),
        "before the array": by_text("os", "system", call)[:-1] + array + b".",
        "getattr": pickle.dumps(Trap(getattr, str, "format")),
    }


@pytest.mark.parametrize("name", traps(Path("x")))
def test_a_pickle_that_would_run_code_raises_and_runs_nothing(tmp_path: Path, name: str):
    marker = tmp_path / "ran"
    with pytest.raises(DataError, match=r"data_batch_1 is a pickle that calls \S+, which could run any code; it was"):
        read(traps(marker)[name])
    assert not marker.exists()


def test_the_traps_would_spring(tmp_path: Path):
    pickle.loads(traps(tmp_path / "ran")["protocol 2"])
    assert (tmp_path / "ran").exists()


def test_registered_extensions_raise_too():
    copyreg.add_extension("os", "system", 0x70)
    try:
        with pytest.raises(DataError, match=r"calls os\.system"):
            read(b"\x80\x02\x82\x70.")
    finally:
        copyreg.remove_extension("os", "system", 0x70)


def test_what_numpy_would_be_asked_for_is_only_kept():
    """A stand-in's state may be anything and changes nothing for the next file."""
    with pytest.raises(DataError, match="cannot be read as a batch"):
        read(b"\x80\x02cnumpy\nndarray\n}U\x09argumentsK\x01sb.")
    assert read(GOOD).labels.tolist() == TRAIN.labels.tolist()


def changed(old: bytes, new: bytes) -> bytes:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


BAD = {
    "empty": (b"", "pickle exhausted"),
    "not a pickle": (b"<html>please log in</html>", "opcode"),
    "not a dict": (b"\x80\x02K\x01.", "'int' object"),
    "no labels": (changed(b"U\x06labels", b"U\x06labelz"), "no 'labels'"),
    "no data": (changed(b"U\x04data", b"U\x04date"), "no 'data'"),
    "labels in words": (changed(b"U\x06labels](K\x00", b"U\x06labels](U\x01a"), "not a list of integers"),
    "a label too few": (changed(b"U\x06labels](K\x00", b"U\x06labels]("), "19 labels for 20 images"),
    "data not an array": (changed(b"U\x04datac", b"U\x04dataNU\x01xc"), "not a numpy array"),
    "floats": (changed(b"U\x02u1", b"U\x02f4"), "not unsigned bytes"),
    "another shape": (changed(b"K\x14M\x00\x0c", b"K\x14M\x00\x0b"), r"shape \(20, 2816\)"),
    "more rows than bytes": (changed(b"K\x14M\x00\x0c", b"K\x15M\x00\x0c"), r"shape \(21, 3072\) in 61440 bytes"),
    "images of another size": (pickled_batch(TRAIN).replace(b"M\x00\x0c", b"M\x00\x0d"), "shape"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_damaged_batch_raises_by_name(content: bytes, message: str):
    with pytest.raises(DataError, match=rf"data_batch_1 cannot be read as a batch of CIFAR \(.*{message}"):
        read(content)


def test_a_batch_cut_anywhere_raises():
    for length in (*range(0, len(GOOD), 997), len(GOOD) - 1):
        with pytest.raises(DataError, match="data_batch_1"):
            read(GOOD[:length])


def test_random_bytes_raise_a_data_error_or_are_read():
    rng = np.random.default_rng(0)
    for _ in range(300):
        noisy = bytearray(GOOD[:400])
        for at in rng.integers(0, 400, 3):
            noisy[at] = rng.integers(256)
        with pytest.raises(DataError, match="data_batch_1"):
            read(bytes(noisy))


def test_numpy_reads_the_same_from_these_fixtures():
    """The writer of the tests writes what numpy itself would rebuild."""
    kept = {("numpy.core.multiarray", "_reconstruct"): np.array(0).__reduce__()[0]}

    class Plain(pickle.Unpickler):
        def find_class(self, module_name: str, global_name: str):
            return kept.get((module_name, global_name)) or super().find_class(module_name, global_name)

    entries = Plain(io.BytesIO(GOOD), encoding="bytes").load()
    assert torch.equal(torch.from_numpy(entries[b"data"].copy()), TRAIN.images.flatten(1))
