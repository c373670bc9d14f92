import re
from dataclasses import replace

from hosnn.report.evaluation_markdown import markdown_evaluation
from hosnn.report.evaluation_summary import finding
from hosnn.results.check import Check
from tests.evaluation.synthetic import ESTIMATORS, METHODS, evaluation, rich
from tests.report.test_reproduction_tables import cells_of


def sections(text: str) -> dict[str, list[list[str]]]:
    """The cells of each table, by heading."""
    parts = re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: cells_of(part) for part in parts}


def test_the_finding_is_the_first_sentence() -> None:
    lines = markdown_evaluation(rich()).splitlines()
    assert lines[0] == "# model-0: standard" and lines[2] == f"**{finding(rich())}**"


def test_every_table_is_a_table() -> None:
    found = sections(markdown_evaluation(rich()))
    tables = {title: rows for title, rows in found.items() if rows}
    assert len(tables) == 8
    for head, rule, *rows in tables.values():
        assert rows and {len(row) for row in rows} == {len(head)} == {len(rule)}
        assert all(re.fullmatch(":?---:?", mark) for mark in rule)


def test_the_tables_hold_the_numbers() -> None:
    found = sections(markdown_evaluation(rich(), ("T-shirt",)))
    attacks = {row[0]: row[1:] for row in found["Accuracy after each attack"]}
    assert attacks["APGD-CE, found 1"][:4] == ["white-box, rectangle 0.5", "100", "42.0 [35.4, 48.9]", "6"]
    assert attacks["worst case per image"][2:5] == ["41.5 [34.9, 48.4]", "", "120,000 / 100,000"]
    assert [row[0] for row in found["Can the number be believed?"][2:]] == ["fail", "warn", "pass", "pass", "pass"]
    (title,) = (title for title in found if title.startswith("Attack by gradient estimator"))
    assert found[title][0] == ["gradient estimator", *METHODS, "worst case"]
    assert [row[0] for row in found[title][2:]] == [*ESTIMATORS, "worst case"]
    assert "T-shirt" in [row[0] for row in found["Accuracy by class"]]
    assert ["APGD-CE", "100", "55.0 [45.2, 64.4]"] in found["Accuracy as the attacker takes more steps"]


def test_what_there_is_nothing_to_say_about_is_left_out() -> None:
    text = markdown_evaluation(replace(evaluation("smoke", 2, 2, {"FGSM": 1}), labels=(0, 0), clean=(0, 0)))
    assert list(sections(text)) == ["model-0: smoke", "Accuracy after each attack", "Where the numbers come from"]
    assert "nan" not in text.lower()


def test_names_cannot_break_the_file() -> None:
    odd = replace(
        rich(),
        model="a|b\n# c <script>",
        rows=tuple(replace(row, attack=f"{row.attack} | *x*\ny") for row in rich().rows),
        checks=tuple(Check(f"{at} | b", "pass", "`code`\n", 1.0, "it\nbreaks | \\ <b>") for at in rich().checks),
    )
    text = markdown_evaluation(odd)
    lines = [len(rows) for rows in sections(markdown_evaluation(rich())).values()]
    assert [len(rows) for rows in sections(text).values()] == lines
    for rows in sections(text).values():
        assert len({len(row) for row in rows}) <= 1
    assert not re.search(r"(?<!\\)<", text) and "\n# c" not in text


def test_the_file_ends_with_where_the_numbers_come_from() -> None:
    last = markdown_evaluation(rich()).partition("## Where the numbers come from")[2]
    for part in ("torch 2.13.0", "Test processor", "- Attack seed: 0", "- Settings SHA-256: 000", "linf:8/255"):
        assert part in last
