"""Networks of a reproduction compared image by image."""

from dataclasses import replace

import pytest

from hosnn.report.paired_networks import HEADS, paired_markdown, paired_networks
from hosnn.report.reproduction_html import render_reproduction
from hosnn.report.reproduction_tables import Column, measured_accuracy
from hosnn.results.paired_test import PairedTest
from tests.evaluation.synthetic import comparison, evaluation


def test_every_pair_of_each_seed_in_the_worst_case() -> None:
    pairs = paired_networks(comparison(seeds=(0, 1)))
    assert len(pairs) == 2 * 6 and {pair.heading for pair in pairs} == {"PGD-40 BPTT, worst of 5 widths"}
    hosnn = next(pair for pair in pairs if str(pair.second).startswith("TA-LIF, trained"))
    assert str(hosnn.first) == "LIF, clean-trained" and hosnn.paired.difference == pytest.approx((40 - 728) / 1000)
    assert (hosnn.paired.first_only, hosnn.paired.second_only) == (0, 688)


def test_p_values_are_corrected_for_all_pairs() -> None:
    two_seeds = comparison(seeds=(0, 12))  # every network of seed 12 loses 12 images more than that of seed 0
    lif, other = two_seeds.cells[1], two_seeds.cells[5]
    cells = (lif, replace(other, seed=0), replace(lif, neuron="TA-LIF"))
    alone = PairedTest.of([True] * 12, [False] * 12).p_value
    found = [pair.p_value for pair in paired_networks(replace(two_seeds, cells=cells))]
    assert found == pytest.approx([3 * alone, 1.0, 3 * alone])


def test_attacks_alone_are_not_paired_with_other_images() -> None:
    """The table shows them where the whole protocol was not run, but as worst cases of their own."""
    result = comparison(seeds=(0,), samples=1000)
    attacks_only = evaluation("sweep, attacks only", 500, 450, {"w=1": 100})
    last = result.cells[-1]
    alone = replace(last, evaluations={"paper": last.evaluations["paper"], attacks_only.protocol: attacks_only})
    shown = replace(result, cells=(*result.cells[:-1], alone))
    measured = measured_accuracy([alone], Column("", "sweep", "worst"))
    assert measured is not None and (measured.mean, measured.samples) == (0.2, 500)
    assert len(paired_networks(shown)) == 3
    whole = replace(shown, cells=tuple(replace(cell, evaluations=alone.evaluations) for cell in result.cells))
    assert len(paired_networks(whole)) == 6


def test_without_a_worst_case_there_is_no_table() -> None:
    weak = comparison(sweep=False)
    assert paired_networks(weak) == [] and paired_markdown(weak) == ""
    assert "image by image" not in render_reproduction(weak)


def test_page_and_markdown_show_the_same_texts() -> None:
    result = comparison()
    page, table = render_reproduction(result), paired_markdown(result)
    assert "image by image" in page
    assert table.count("\n|") == 2 + 6 and all(len(pair.texts) == len(HEADS) for pair in paired_networks(result))
    for text in ("-68.8 [", "688"):
        assert text in page and text in table
