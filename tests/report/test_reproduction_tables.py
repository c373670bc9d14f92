import re
from dataclasses import replace

import pytest
from rich.console import Console

from hosnn.report.reproduction_tables import (
    Column,
    headings,
    measured_accuracy,
    reproduction_markdown,
    rich_table,
    table_rows,
)
from hosnn.results.reproduction import NetworkKind, cells_by_kind
from hosnn.results.statistics import wilson
from tests.evaluation.synthetic import COLUMNS, comparison


def cells_of(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_markdown_is_a_table_of_the_numbers() -> None:
    head, rule, *rows = cells_of(reproduction_markdown(comparison()))
    assert {len(row) for row in (head, rule, *rows)} == {len(COLUMNS) + 2}
    assert head == ["network", *(f"{heading} (n = 1,000)" for heading, _, _ in COLUMNS), "source"]
    assert all(re.fullmatch(":?---:?", mark) for mark in rule)
    by_name = {row[0]: row[1:] for row in rows}
    low, high = wilson(761, 1000)
    assert by_name["TA-LIF, trained with FGSM 2/255"][2] == f"76.1 [{100 * low:.1f}, {100 * high:.1f}]"
    assert by_name["TA-LIF, trained with FGSM 2/255"][3].startswith("72.8 ")
    assert by_name["*published:* LIF, clean-trained"] == ["–", "–", "30.54", "–", "a paper"]


def test_a_published_number_stands_below_its_network() -> None:
    kinds = [(row.kind, row.measured) for row in table_rows(comparison())]
    measured = kinds.index((NetworkKind("TA-LIF", "FGSM 2/255"), True))
    assert kinds[measured + 1] == (NetworkKind("TA-LIF", "FGSM 2/255"), False)


def test_published_numbers_of_a_network_that_was_not_measured_are_shown_too() -> None:
    only = comparison()
    only = replace(only, cells=only.cells[:1])
    assert [(row.kind.neuron, row.measured) for row in table_rows(only)] == [
        ("LIF", True),
        ("LIF", False),
        ("TA-LIF", False),
    ]


def test_a_protocol_that_was_not_run_says_so() -> None:
    text = reproduction_markdown(comparison(sweep=False))
    assert "not run" in text and "nan" not in text.lower()
    assert str(headings(comparison(sweep=False))[-1]) == COLUMNS[-1][0]


def test_several_seeds_give_mean_and_range_and_are_listed() -> None:
    three = comparison(seeds=(0, 1, 2))
    accuracy = measured_accuracy(
        cells_by_kind(three)[NetworkKind("TA-LIF", "FGSM 2/255")], Column("", "paper", "PGD-7")
    )
    assert accuracy is not None
    assert (accuracy.mean, accuracy.low, accuracy.high) == pytest.approx((0.76, 0.759, 0.761))
    assert accuracy.seeds == (0, 1, 2)
    assert "76.0 (75.9–76.1)" in reproduction_markdown(three) and "seeds 0, 1, 2" in reproduction_markdown(three)


def test_a_value_of_some_seeds_tells_of_how_many() -> None:
    three = comparison(seeds=(0, 1, 2))
    lost = replace(three.cells[-1], evaluations={})
    assert "2 of 3 seeds" in reproduction_markdown(replace(three, cells=(*three.cells[:-1], lost)))


def test_names_cannot_break_the_table() -> None:
    odd = comparison()
    odd = replace(odd, cells=tuple(replace(cell, neuron="a|b\nc") for cell in odd.cells))
    assert {len(row) for row in cells_of(reproduction_markdown(odd))} == {len(COLUMNS) + 2}


def test_the_last_line_tells_protocols_seeds_versions_and_hardware() -> None:
    last = reproduction_markdown(comparison()).strip().splitlines()[-1]
    for part in ("paper (linf:8/255/step", "sweep", "Training seeds: 0", "torch 2.13.0", "Test processor, 2 cores"):
        assert part in last


def test_the_terminal_shows_the_same_numbers() -> None:
    console = Console(width=200, record=True, quiet=True)
    with console.capture() as shown:
        console.quiet = False
        console.print(rich_table(comparison()))
    text = shown.get()
    assert "76.1" in text and "74.91" in text and "[73.4, 78.6]" in text and "Made-up 2x2" in text


def test_wall_time_is_told_with_the_share_of_each_phase() -> None:
    timed = replace(comparison(), start_seconds=600.0)
    phases = timed.phases()
    assert phases["training of the start"] == 600
    assert phases["clean training"] == sum(c.training_seconds for c in timed.cells if c.training == "clean")
    assert phases["protocol paper"] == pytest.approx(sum(c.evaluations["paper"].seconds for c in timed.cells))
    total = sum(phases.values())
    text = reproduction_markdown(timed)
    assert f"Time {total / 60:.0f} minutes, summed over networks that may have run side by side: " in text
    assert f"training of the start {600 / total:.0%}, " in text


def test_the_caption_explains_both_kinds_of_brackets_where_a_column_has_fewer_seeds() -> None:
    several = comparison(seeds=(0, 1))
    assert "with one seed" not in reproduction_markdown(several)
    first, *others = several.cells
    fewer = {key: it for key, it in first.evaluations.items() if key == "paper"}
    result = replace(several, cells=(replace(first, evaluations=fewer), *others))
    assert "with one seed [Wilson 95 % interval]" in reproduction_markdown(result)
