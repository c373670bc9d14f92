"""Write the tables of docs/results into the pages that show them: python docs/update.py

A page marks the place of a table with  <!-- docs/results/NAME/KIND.md -->  and  <!-- end -->, where KIND is

table         from comparison.json of `hosnn reproduce`
side-by-side  from the evaluations in NAME/*/*.json, as `hosnn compare` compares them
ablations     as `hosnn ablate` wrote it
peers         as bench/peers.py wrote it
bench         as `hosnn bench` wrote it
errors        from the inspections in NAME/*.json, as `hosnn inspect` wrote them
"""

import re
from pathlib import Path

from hosnn.report.comparison_markdown import comparison_markdown
from hosnn.report.inspection_markdown import inspections_markdown
from hosnn.report.reproduction_tables import reproduction_markdown
from hosnn.results.comparison import compare_models
from hosnn.results.evaluation import Evaluation
from hosnn.results.inspection import Inspection
from hosnn.results.reproduction import ReproductionResult

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PLACE = re.compile(r"(<!-- (docs/results/[\w/-]+)/([\w-]+)\.md -->\n).*?(<!-- end -->)", re.DOTALL)
TESTED = ("PGD-7, authors", "PGD-7 BPTT")
"""Attacks after which models are compared pairwise, besides the worst case, if they were run."""


def updated(page: str) -> str:
    """The page with every marked table rendered from its JSON."""

    def rendered(place: re.Match[str]) -> str:
        return f"{place[1]}\n{table(ROOT / place[2], place[3]).strip()}\n\n{place[4]}"

    return PLACE.sub(rendered, page)


def table(folder: Path, kind: str) -> str:
    """The table of that kind from the results in `folder`, as Markdown."""
    if kind == "table":
        return reproduction_markdown(ReproductionResult.load(folder / "comparison.json"))
    if kind == "side-by-side":
        results = evaluations(folder)
        attacks = {row.attack for evaluation in results for row in evaluation.rows}
        return comparison_markdown(compare_models(results, [name for name in TESTED if name in attacks]))
    if kind == "errors":
        return inspections_markdown([Inspection.load(path) for path in sorted(folder.glob("*.json"))])
    return (folder / f"{kind}.md").read_text(encoding="utf-8")


def evaluations(folder: Path) -> list[Evaluation]:
    """All evaluations in a folder of folders, those of `choices` first, models in the order of their names."""
    return [Evaluation.load(path) for path in sorted(folder.glob("*/*.json"), key=lambda path: (path.name, path))]


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
