from pathlib import Path

import pytest
from lightning_fabric import Fabric

from hosnn.data import Dataset
from hosnn.training.pipeline import run
from tests.training.toy import ROBUST, cpu, toy_data


@pytest.fixture(scope="session")
def data() -> Dataset:
    return toy_data()


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return cpu()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Dataset, fabric: Fabric) -> Path:
    """runs/ with clean and robust trained to the end, never interrupted; not to be written to."""
    runs = tmp_path_factory.mktemp("uninterrupted")
    assert run(ROBUST, data, runs, fabric).finished
    return runs
