"""What `hosnn doctor` says of data sets: where they are, how many images, exact or not, hash right or wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hosnn.cli.main import main
from hosnn.data import catalogue
from hosnn.data.catalogue import NAMES
from hosnn.data.cifar_files import CIFAR10_PYTHON
from hosnn.data.survey import DatasetFinding, survey_datasets

from .colour_formats import TEST, TRAIN, stand_in_for_cifar, write_cifar
from .formats import write_parquet
from .test_one_identity import write_numbered


def finding(name: str, read: bool = True) -> DatasetFinding:
    (known,) = [known for known in survey_datasets(read) if known.name == name]
    return known


def cached(tmp_path: Path, name: str) -> Path:
    return tmp_path / "hosnn-cache" / name


def test_every_data_set_is_listed_once_and_what_is_absent_says_where_it_was_looked_for(tmp_path: Path) -> None:
    findings = survey_datasets(read=False)
    assert sorted(known.name for known in findings) == sorted(NAMES)
    svhn = finding("svhn", read=False)
    assert (svhn.source, svhn.images, svhn.hash, svhn.downloadable) == ("", None, "", True)
    assert "hosnn cache: nothing was downloaded yet" in svhn.detail
    assert not finding("nmnist", read=False).downloadable


def test_the_embedded_sample_is_read_and_right() -> None:
    sample = finding("fashion-mnist-sample")
    assert (sample.source, sample.images, sample.exact) == ("embedded sample", 7_000, "yes")
    assert sample.hash == "right (pixels and labels)"
    assert finding("fashion-mnist-sample", read=False).images is None


def test_a_set_with_its_published_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_cifar(monkeypatch)
    write_cifar(cached(tmp_path, "cifar10"), CIFAR10_PYTHON)
    known = finding("cifar10")
    assert (known.source, known.images, known.exact, known.hash) == (
        *("hosnn cache", 28),
        *("yes", "right (pixels and labels)"),
    )
    assert known.detail == f"CIFAR batches in {cached(tmp_path, 'cifar10')}"


def test_lossy_images_are_counted_and_unpublished_content_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_for_cifar(monkeypatch, sha256=None)
    folder = cached(tmp_path, "cifar10")
    folder.mkdir(parents=True)
    write_numbered(folder, TRAIN)
    known = finding("cifar10")
    assert (known.exact, known.hash) == ("all but 1", "none published")


def test_wrong_content_is_told_and_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture of this folder fails a test that reaches for the network."""
    stand_in_for_cifar(monkeypatch, sha256="0" * 64)
    write_cifar(cached(tmp_path, "cifar10"), CIFAR10_PYTHON)
    known = finding("cifar10")
    assert (known.source, known.images, known.exact, known.hash) == ("hosnn cache", None, "", "wrong, or damaged")
    assert "0" * 64 in known.detail


def test_a_damaged_source_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_cifar(monkeypatch)
    monkeypatch.setitem(catalogue.IMAGES, "cifar10", replace(catalogue.IMAGES["cifar10"], package="cifar"))
    monkeypatch.setattr("hosnn.data.sources.system_data_folders", lambda: [tmp_path / "share"])
    package = write_cifar(tmp_path / "share" / "datasets" / "cifar", CIFAR10_PYTHON)
    (package / "test_batch").write_bytes(b"please log in")
    write_parquet(cached(tmp_path, "cifar10") / "train.parquet", TRAIN)
    write_parquet(cached(tmp_path, "cifar10") / "test.parquet", TEST)
    assert (finding("cifar10").source, finding("cifar10").images) == ("hosnn cache", 28)


def test_doctor_prints_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in_for_cifar(monkeypatch)
    write_cifar(cached(tmp_path, "cifar100"), CIFAR10_PYTHON)  # of another set
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in report["data"]}
    assert rows["fashion-mnist-sample"]["images"] == 7_000
    assert rows["cifar100"]["source"] == "" and "has no data" in rows["cifar100"]["detail"]
    assert any(line.startswith("cifar100 is not on this machine") for line in report["advice"])
    assert main(["doctor", "--no-read"]) == 0
    assert "embedded" in capsys.readouterr().out


def test_a_folder_of_data_sets_is_looked_into_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_cifar(monkeypatch)
    write_cifar(tmp_path / "mine" / "cifar10", CIFAR10_PYTHON)
    (known,) = [known for known in survey_datasets(folder=tmp_path / "mine") if known.name == "cifar10"]
    assert (known.source, known.images, known.hash) == ("data folder", 28, "right (pixels and labels)")
    (absent,) = [known for known in survey_datasets(folder=tmp_path / "mine") if known.name == "svhn"]
    assert f"{tmp_path / 'mine' / 'svhn'} does not exist" in absent.detail
