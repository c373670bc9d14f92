import base64
import json
import re
from dataclasses import asdict, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hosnn.errors import ConfigError
from hosnn.evaluation.examples import Example, NeuronTrace
from hosnn.files import write_text
from hosnn.report.evaluation_html import MARKS, render_evaluation
from hosnn.report.glossary import GLOSSARY, PROTOCOL_EXPLANATIONS, Term, terms_in
from hosnn.report.reproduction_html import render_reproduction
from hosnn.report.reproduction_summary import finding, limitations, shared_accuracies
from hosnn.report.reproduction_tables import Column
from hosnn.results.check import Check
from hosnn.results.reproduction import NetworkKind, ReproductionResult, cells_by_kind
from tests.evaluation.synthetic import COLUMNS, comparison, evaluation, rich
from tests.report.test_figures import ADAPTING, EXAMPLE, TRACE

LOG = {"run-0-0": [{"step": 1, "epoch": 1, "loss": 0.5, "validation_accuracy": 0.5, "lr": 1e-3}]}


@cache
def rich_page() -> str:
    return render_evaluation(rich(), (EXAMPLE,), ("T-shirt", "Trouser"))


@cache
def whole_page() -> str:
    return render_reproduction(comparison(), (TRACE, ADAPTING), (EXAMPLE,), LOG)


class Page(HTMLParser):
    """Every address that a browser would fetch, and the text that it would show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_a_pure_function_and_holds_the_numbers() -> None:
    html = whole_page()
    assert html == render_reproduction(comparison(), (TRACE, ADAPTING), (EXAMPLE,), LOG)
    text = Page(html).text
    for number in ("76.1", "[73.4, 78.6]", "68.3", "30.54", "74.91", "72.8", "n = 1,000"):
        assert number in text
    assert Page(html).tags.count("img") == 5


def test_the_page_fetches_nothing() -> None:
    html = whole_page()
    page = Page(html)
    assert page.addresses and all(address.startswith("data:image/") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert "@import" not in html and "url(" not in html
    for address in page.addresses:
        picture = base64.b64decode(address.partition(",")[2]).decode()
        assert not re.search(r'(href|src)="http', picture)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("sweep", [True, False])
def test_nothing_is_nan_whatever_is_missing(seeds: tuple[int, ...], sweep: bool) -> None:
    text = Page(render_reproduction(comparison(seeds, sweep))).text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert ("not run" in text) != sweep


def test_a_comparison_without_cells_or_attacks_still_renders() -> None:
    full = comparison()
    assert "No network was measured" in render_reproduction(replace(full, cells=()))
    bare = replace(full, cells=tuple(replace(cell, evaluations={}) for cell in full.cells))
    assert "was not attacked yet" in render_reproduction(bare)


def test_names_are_escaped() -> None:
    odd = replace(comparison(), title="<script>alert(1)</script>", network="a & b")
    html = render_reproduction(odd, (replace_network(TRACE, "<b>x</b>"),), (replace(EXAMPLE, network="<i>y</i>"),))
    assert "<script" not in html and "<b>x" not in html and "<i>y" not in html
    assert "&lt;script&gt;" in html and "a &amp; b" in html


def replace_network(trace: NeuronTrace, name: str) -> NeuronTrace:
    return replace(trace, network=name)


def test_the_finding_is_computed() -> None:
    first, second = finding(comparison())
    assert first == (
        "Under the authors' PGD-7 at 8/255 per time step, TA-LIF trained with FGSM 2/255 keeps 76.1 % accuracy on "
        "1,000 images; under a stronger attack at 8/255 (PGD-40 BPTT, worst of 5 widths), it keeps 72.8 % accuracy "
        "on 1,000 images."
    )
    assert second == (
        "LIF trained the same way keeps 68.3 % and 69.0 %: TA-LIF is 7.8 points ahead (intervals do not overlap) and "
        "3.8 points ahead (intervals overlap)."
    )


def test_a_homeostatic_network_that_falls_behind_is_said_to() -> None:
    full = comparison()
    swapped = {"LIF": "TA-LIF", "TA-LIF": "LIF"}
    other = replace(full, cells=tuple(replace(cell, neuron=swapped[cell.neuron]) for cell in full.cells))
    assert "7.8 points behind" in finding(other)[1]


def test_attacks_in_another_ball_are_not_what_the_authors_attack_is_measured_by() -> None:
    """A worst case under L2, last in the table and lowest, is no sign that the authors' Linf attack is weak."""
    full = comparison()
    under_l2 = replace(evaluation("standard", 1000, 870, {"APGD": 100}), threat="l2:1/2", protocol="standard at l2:1/2")
    column = ("worst case, l2:0.5", "standard at l2:1/2", "worst")
    for there, columns in ((full.cells, COLUMNS), (comparison(sweep=False).cells, COLUMNS[:3])):
        cells = tuple(replace(cell, evaluations=dict(cell.evaluations) | {column[1]: under_l2}) for cell in there)
        beside = replace(full, cells=cells, columns=(*columns, column))
        alone = replace(full, cells=there, columns=columns)
        assert limitations(beside)[-1] == limitations(alone)[-1] or columns == COLUMNS[:3]
        assert not any("l2" in note and "authors" in note for note in limitations(beside))
        if columns == COLUMNS:
            assert finding(beside) == finding(alone)
        else:
            assert "at l2" in finding(beside)[0]  # the only other attack, named with its budget


def test_ties_counted_in_two_ways_do_not_make_the_authors_attack_weak() -> None:
    """A column of one attack of our own, ties lost, beside the authors' protocol, where their order decides."""
    plain = evaluation("paper", 100, 90, {"PGD-7": 80})
    lost = replace(
        evaluation("smoke", 100, 90, {"PGD-20": 80}),
        threat=plain.threat,
        clean_tied=(),
        rows=(replace(plain.row("PGD-7"), attack="PGD-20", tied=(0, 1, 2, 3, 4)),),
    )
    cell = replace(comparison().cells[0], evaluations={"paper": plain, "smoke": lost})
    authors, ours = Column("PGD-7", "paper", "PGD-7"), Column("PGD-20", "smoke", "PGD-20")
    shared = shared_accuracies([cell], authors, ours)
    assert shared is not None and shared.first == shared.second == 0.8


def test_notes_warn_of_small_samples_weak_protocols_and_single_seeds() -> None:
    said = " ".join(limitations(comparison()))
    assert "Small samples" in said and "overstates its robustness" in said and "one seed only" in said
    assert "No stronger protocol" not in said
    said = " ".join(limitations(comparison(seeds=(0, 1, 2), sweep=False, samples=1000)))
    assert "No stronger protocol" in said and "one seed only" not in said


def test_smoke_alone_is_not_a_stronger_attack() -> None:
    full = comparison(sweep=False)
    cells = tuple(
        replace(cell, evaluations=dict(cell.evaluations) | {"smoke": evaluation("smoke", 100, 90, {"PGD-20": 70})})
        for cell in full.cells
    )
    demo = replace(full, demonstration=True, cells=cells, columns=(*COLUMNS[:3], ("PGD-20", "smoke", "PGD-20")))
    assert "a short attack of our own at 8/255 (PGD-20)" in finding(demo)[0]
    said = " ".join(limitations(demo))
    assert "No stronger protocol" in said and "demonstration" in said


def test_protocols_are_compared_on_the_images_that_both_attacked() -> None:
    full = comparison()
    cell = cells_by_kind(full)[NetworkKind("TA-LIF", "FGSM 2/255")][0]
    few = evaluation("sweep", 100, 100, {"w=1": 50})
    mixed = replace(cell, evaluations=dict(cell.evaluations) | {"sweep": few})
    both = shared_accuracies([mixed], Column(*COLUMNS[2]), Column(*COLUMNS[3]))
    assert both is not None and both.samples == 100
    assert (both.first, both.second) == (1.0, 0.5)  # the first 100 of 1,000 all survive PGD-7 in this made-up result


def test_a_stored_comparison_renders_to_the_same_page(tmp_path: Path) -> None:
    full = comparison()
    full.save(tmp_path / "comparison.json")
    assert render_reproduction(ReproductionResult.load(tmp_path / "comparison.json")) == render_reproduction(full)


def test_traces_and_examples_survive_json() -> None:
    trace = NeuronTrace(**json.loads(json.dumps(asdict(ADAPTING))))
    example = Example(**json.loads(json.dumps(asdict(EXAMPLE))))
    assert render_reproduction(comparison(), (trace,), (example,)) == render_reproduction(
        comparison(), (ADAPTING,), (EXAMPLE,)
    )


def test_one_evaluation_has_its_page() -> None:
    html = render_evaluation(evaluation("smoke", 50, 45, {"noise": 44, "PGD-20": 30}, (40, 35, 30, 9, 3, 0)))
    text = Page(html).text
    assert (
        "classifies 60.0 % of 50 images correctly after every attack, and 90.0 % without attack" in text
        and "worst case per image" in text
    )
    assert "A small sample" in text and "No checks were run" in text
    assert Page(html).tags.count("img") == 2  # accuracy against eps, and the classes


def test_the_page_of_a_rich_evaluation_holds_all_of_it() -> None:
    html = rich_page()
    assert html == render_evaluation(rich(), (EXAMPLE,), ("T-shirt", "Trouser"))
    page = Page(html)
    assert page.tags.count("img") == 5 and page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    for section in SECTIONS:
        assert section in page.text
    for part in ("APGD-CE from the twin", "transfer", "[34.9, 48.4]", "120,000", "T-shirt", "class 2", "no twin"):
        assert part in page.text
    for check in rich().checks:
        assert check.name in page.text and check.figure in page.text and check.meaning in page.text
    assert "nan" not in page.text.lower().split()


SECTIONS = (
    *("Can the number be believed?", "Accuracy as the attacker's budget grows", "Accuracy as the attacker takes more"),
    *("Attack by gradient estimator", "Strongest gradient estimators", "Accuracy by class", "Attacked images"),
    *("Controls", "Attacks of the protocol that could not be run", "Cost:"),
)


def test_what_there_is_nothing_to_say_about_is_left_out() -> None:
    one_class = replace(evaluation("smoke", 2, 2, {"FGSM": 1}), labels=(0, 0), clean=(0, 0))
    text = Page(render_evaluation(one_class)).text
    assert not [section for section in SECTIONS if section in text]
    assert "gradient estimator" not in text and "passes" not in text


@pytest.mark.parametrize("severity", ["pass", "warn", "fail"])
def test_a_severity_is_told_in_words_and_not_by_colour_alone(severity: str) -> None:
    result = replace(rich(), checks=tuple(check for check in rich().checks if check.severity == severity))
    cell = re.search(rf'<td class="mark {severity}">(.*?)</td>', render_evaluation(result))
    assert cell is not None
    assert severity in Page(cell[1]).text and MARKS[severity] in Page(cell[1]).text
    assert len(set(MARKS.values())) == 3


def test_the_strongest_pair_is_the_darkest() -> None:
    cells = re.findall(r"rgba\(213, 94, 0, ([0-9.]+)\)\"( class=\"steep\")?>([0-9.]+)<", rich_page())
    assert len(cells) == 11
    shades = [(float(number), float(shade)) for shade, _, number in cells]
    assert [shade for _, shade in sorted(shades)] == sorted((shade for _, shade in shades), reverse=True)
    assert [number for _, mark, number in cells if mark] == ["50.0"]


def test_names_in_an_evaluation_are_escaped() -> None:
    odd = replace(
        rich(),
        model="<script>alert(1)</script>",
        skipped=("<b>x</b>",),
        rows=tuple(replace(row, estimator="<i>e</i>") for row in rich().rows),
        checks=(Check("<u>c</u>", "fail", "<u>f</u>", 1.0, "<u>m</u>"),),
    )
    html = render_evaluation(odd, (), ("<em>class</em>",))
    for tag in ("<script", "<b>x", "<i>e", "<u>", "<em>"):
        assert tag not in html


def test_terms_are_explained_where_they_occur_and_nowhere_else() -> None:
    terms = set(re.findall(r"<dt>([^<]+)</dt><dd>(?!<code>)", rich_page()))
    assert {"APGD", "DLR", "Square", "SA-PGD", "ASSG", "Transfer", "PGD", "BPTT", "Eps"} <= terms
    assert not {"FAB", "HopSkipJump", "FGSM", "TA-LIF"} & terms
    full = evaluation("full", 4, 3, {})
    assert {"HopSkipJump", "AutoAttack", "FAB", "Restart", "Surrogate ensemble"} <= set(
        re.findall(r"<dt>([^<]+)</dt>", render_evaluation(full))
    )


@pytest.mark.parametrize("term", GLOSSARY, ids=lambda term: term.term)
def test_every_term_is_found_in_a_text_that_uses_it(term: Term) -> None:
    name = term.term
    used = name if name.isupper() or name in PROPER else name[0].lower() + name[1:]
    assert term in terms_in(f"It says {used} here.")
    assert terms_in("Nothing to explain.") == []


PROPER = ("Square", "HopSkipJump", "AutoAttack")


def test_every_protocol_has_its_explanation() -> None:
    assert {"smoke", "paper", "sweep", "standard", "full"} <= set(PROTOCOL_EXPLANATIONS)


def test_writing_is_whole_or_an_error(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "report.html", "<p>ok</p>")
    assert (tmp_path / "new" / "report.html").read_text() == "<p>ok</p>"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_text(tmp_path / "file" / "report.html", "")
