"""Damaged files of every kind end in the right value or in a HosnnError, within seconds and without filling the memory.

`pytest tests/reliability/test_fuzz.py` tries 3,000 and more files, `-m slow` 100,000, others with each HOSNN_FUZZ_SEED.
"""

import copy
import os
import random
import resource
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hosnn.errors import ConfigError, HosnnError
from hosnn.evaluation.journal import FinishedBlock
from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import ReproductionResult
from hosnn.schema import validated
from hosnn.signature.signature import Provenance
from hosnn.training.configuration import rebuild
from hosnn.training.log import Epoch
from hosnn.training.stored import Config, Generations, Position
from tests.reliability.data_files import DATA_KINDS
from tests.reliability.mutation import damaged
from tests.reliability.stored import KINDS

ALL = {**KINDS, **DATA_KINDS}
FILES = {"result": 150, "comparison": 50, "weights": 150, "config": 250, "optimiser": 200, "signature": 250}
"""Damaged files by kind; 250 of the others, 6,300 in all."""

EXACT = (
    "result",
    "small result",
    "position",
    "optimiser",
    "npz",
    "pt",
    "parquet",
    "mat",
    "idx",
    "gzipped idx",
    "pickle",
    "cache",
)
"""Kinds of which any value that is read must be that of the whole file."""

SECONDS, BYTES = 2.0, 500e6

SEED = int(os.environ.get("HOSNN_FUZZ_SEED", "1"))
"""Of the 100,000 files."""


def right(kind: str, value: Any, whole: Any) -> bool:
    """Whether a value read from a damaged file may stand: lines may be lost, but none may be another."""
    if kind in EXACT:
        return bool(value == whole)
    if kind == "journal":
        return all(block in (None, intact) for block, intact in zip(value, whole, strict=True))
    return True


def attack_files(kind: str, count: int, folder: Path, seed: int) -> list[str]:
    """What went wrong with `count` damaged files of a kind."""
    rng, wrong = random.Random(f"{kind} {seed}"), []
    path = ALL[kind].write(folder)
    content, whole = path.read_bytes(), ALL[kind].read(path)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        path.write_bytes(damaged(content, rng))
        started = time.process_time()
        try:
            with warnings.catch_warnings(action="ignore"):
                value = ALL[kind].read(path)
            if not right(kind, value, whole):
                wrong.append(f"{number}: silently {value} for {whole}")
        except HosnnError:
            pass
        except Exception as error:  # the point of the test
            wrong.append(f"{number}: {type(error).__name__}: {str(error)[:200]}")
        if time.process_time() - started > SECONDS:
            wrong.append(f"{number}: took {time.process_time() - started:.1f} s")
    if 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) > BYTES:
        wrong.append("needed more than 500 MB")
    return wrong


@pytest.mark.parametrize("kind", ALL)
def test_a_damaged_file_ends_in_the_right_value_or_a_clear_error(kind: str, tmp_path: Path) -> None:
    assert attack_files(kind, FILES.get(kind, 250), tmp_path, seed=0) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
def test_a_hundred_thousand_damaged_files(kind: str, tmp_path: Path) -> None:
    assert attack_files(kind, 100_000 // len(ALL) + 1, tmp_path, seed=SEED) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
READERS = {
    kind.__name__: (lambda content, kind=kind: validated(kind, content))
    for kind in (Evaluation, ReproductionResult, FinishedBlock, Epoch, Position, Config, Generations, Provenance)
} | {"rebuild": rebuild}
VALID: dict[str, dict[str, Any]] = {
    "FinishedBlock": {"attack": "a", "block": 0, "predictions": [1], "tied": [0], "seconds": 1.0, "forward": 1}
    | {"backward": 1},
    "Epoch": {"step": 1, "epoch": 1, "loss": 0.5, "validation_accuracy": 0.5, "lr": 0.1},
    "Position": {"step": 1, "finished": True, "best": 0.5, "loss": 0.5, "seconds": 1.0},
    "Generations": {"last": "step-00000001", "best": "step-00000001"},
    "rebuild": {"type": "LeNet", "hidden": 3, "std": [0.5], "dynamics": {"type": "Dynamics"}},
}


@pytest.mark.parametrize("reader", READERS)
@given(content=JSON, key=st.integers(0, 9))
@settings(max_examples=40, deadline=None, database=None)
def test_any_json_is_a_value_or_a_config_error(reader: str, content: Any, key: int) -> None:
    """Alone, and in the place of an entry of valid content."""
    valid = copy.deepcopy(VALID.get(reader, {}))
    for attempt in (content, {**valid, list(valid)[key % len(valid)]: content} if valid else {}):
        try:
            READERS[reader](attempt)
        except ConfigError:
            pass
