from dataclasses import replace
from pathlib import Path

import pytest

from hosnn.errors import ConfigError
from hosnn.results.reproduction import ReproductionResult
from tests.evaluation.synthetic import comparison


def test_json_gives_the_comparison_back(tmp_path: Path) -> None:
    made = comparison(seeds=(0, 1))
    made.save(tmp_path / "comparison.json")
    assert ReproductionResult.load(tmp_path / "comparison.json") == made


@pytest.mark.parametrize("dataset", ["fashion-mnist", "fashion-mnist-sample"])
def test_a_file_that_does_not_say_so_is_a_demonstration_if_its_data_is_a_sample(dataset: str) -> None:
    content = replace(comparison(), dataset=dataset, demonstration=True).to_json()
    assert ReproductionResult.from_json(content).demonstration
    del content["demonstration"]
    assert ReproductionResult.from_json(content).demonstration == ("sample" in dataset)


def test_a_file_without_strengths_has_those_of_its_protocols() -> None:
    content = comparison().to_json()
    for cell in content["cells"]:
        for evaluation in cell["evaluations"].values():
            del evaluation["strength"]
    assert ReproductionResult.from_json(content) == comparison()


@pytest.mark.parametrize("text", ["", "[1]", '{"format": "hosnn-comparison-1"}', '{"format": "other"}'])
def test_a_file_that_is_no_comparison_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ConfigError):
        ReproductionResult.load(tmp_path / "file.json")
