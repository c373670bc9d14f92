"""Write the tables of docs/results into the pages that show them: python docs/update.py

A page marks the place of a table with  <!-- docs/results/NAME/KIND.md -->  and  <!-- end -->, where KIND is

table         from comparison.json of `hosnn reproduce`
paired        from comparison.json: its networks compared image by image in the worst case, seed by seed
side-by-side  from the evaluations in NAME/*/*.json, as `hosnn compare` compares them
against       from the evaluations in NAME/*/*.json: each compared image by image with those in NAME/reference
ablations     as `hosnn ablate` wrote it
peers         as bench/peers.py wrote it
ingredients   as bench/ingredients.py wrote it
bench         as `hosnn bench` wrote it
old-and-new   from NAME/standard/*/standard*.json and NAME/former-standard/*/standard*.json, before and after a change
seeds         from NAME/standard/*/standard.json (seed 0) and NAME/seeds/SEED/*/standard-attacks-only.json: the neurons
              of each seed, compared image by image
budget        from NAME/*.json, as bench/budget.py wrote them
paper-rows    from NAME/comparison.json of every reproduction, NAME/standard/*/*.json and NAME/seeds/*/*/*.json
glossary      from hosnn.report.glossary
leaderboard   from NAME/*/*.json and NAME/reported.json
errors        from the inspections in NAME/*.json, as `hosnn inspect` wrote them
sweep         from NAME/sweep.json, as `hosnn sweep` wrote it
signatures    from NAME/study.json, as bench/signature_study.py wrote it
"""

import json
import re
from pathlib import Path

from hosnn.cluster.record import Sweep
from hosnn.cluster.tables import markdown_sweep
from hosnn.files import write_text
from hosnn.recipes.reproductions import ALL
from hosnn.report.comparison_markdown import against_markdown, comparison_markdown
from hosnn.report.glossary import GLOSSARY
from hosnn.report.inspection_markdown import inspections_markdown
from hosnn.report.leaderboard import leaderboard
from hosnn.report.paired_networks import paired_markdown
from hosnn.report.paper_rows import paper_rows
from hosnn.report.reproduction_tables import reproduction_markdown
from hosnn.results.comparison import compare_models
from hosnn.results.evaluation import Evaluation
from hosnn.results.inspection import Inspection
from hosnn.results.paired_test import PairedTest
from hosnn.results.reproduction import ReproductionResult
from hosnn.results.text import percent, table_row

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PLACE = re.compile(r"(<!-- (docs/results[\w/-]*)/([\w-]+)\.md -->\n)(?:(?!<!-- docs/).)*?(<!-- end -->)", re.DOTALL)
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
    if kind == "paired":
        return paired_markdown(ReproductionResult.load(folder / "comparison.json"))
    if kind == "side-by-side":
        results = evaluations(folder)
        attacks = {row.attack for evaluation in results for row in evaluation.rows}
        return comparison_markdown(compare_models(results, [name for name in TESTED if name in attacks]))
    if kind == "against":
        reference = Evaluation.load(next((folder / "reference").glob("*.json"))).model
        return against_markdown(compare_models(evaluations(folder), against=reference), reference)
    if kind == "old-and-new":
        return old_and_new(folder)
    if kind == "seeds":
        return seeds(folder)
    if kind == "paper-rows":
        files = [folder / name / "comparison.json" for name in ALL]
        results = [ReproductionResult.load(path) for path in files if path.exists()]
        beside = [result for name in ALL for result in evaluations(folder / name / "standard")]
        seeds_beside = (place for name in ALL for place in sorted((folder / name / "seeds").glob("*")))
        beside += [result for place in seeds_beside for result in evaluations(place)]
        return paper_rows(results, beside)
    if kind == "glossary":
        terms = sorted(GLOSSARY, key=lambda term: term.term.lower())
        return "\n".join(f"- **{term.term}**: {term.meaning}" for term in terms)
    if kind == "leaderboard":
        return leaderboard(folder)
    if kind == "budget":
        return budget(folder)
    if kind == "sweep":
        return markdown_sweep(Sweep.load(folder / "sweep.json"))
    if kind == "signatures":
        return signatures(folder)
    if kind == "errors":
        return inspections_markdown([Inspection.load(path) for path in sorted(folder.glob("*.json"))])
    return (folder / f"{kind}.md").read_text(encoding="utf-8")


FIRST = 200
"""Images of the panels, on which stronger attacks were compared before."""


def old_and_new(folder: Path) -> str:
    """The former `standard` beside the present one, for each network."""
    rows = []
    for path in sorted((folder / "standard").glob("*/standard*.json")):
        former = folder / "former-standard" / path.parent.name / path.name
        if not former.exists():
            continue
        new, old = Evaluation.load(path), Evaluation.load(former)
        judged = (old.robust, new.robust_by_argmax, new.robust)
        counts = [*map(sum, judged), *(sum(robust[:FIRST]) for robust in judged)]
        passes = [sum(evaluation.passes()) for evaluation in (old, new)]
        share = f"{passes[1] / passes[0]:.2f}"
        rows.append(table_row([new.model, *map(str, counts), share]))
    head = ("former", "new, by the order of classes", "new, ties lost")
    columns = (*(f"{name}, of 1,000" for name in head), *(f"{name}, of the first {FIRST}" for name in head))
    return "\n".join(
        [f"| network | {' | '.join(columns)} | passes, new over former |", "| --- |" + " ---: |" * 7, *rows]
    )


def seeds(folder: Path) -> str:
    """The worst case of both neurons for each seed, and the paired test between them."""
    files = {"0": folder / "standard" / "{}" / "standard.json"}
    for place in sorted((folder / "seeds").iterdir()):
        files[place.name.removeprefix("seed")] = place / "{}" / "standard-attacks-only.json"
    lines = [
        "| seed | ties | HoSNN | LIF | HoSNN minus LIF (95 % interval) | McNemar p |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for seed, path in files.items():
        hosnn, lif = (Evaluation.load(str(path).format(name)) for name in ("homeostatic-fgsm", "lif-fgsm"))
        for ties, first, second in (
            ("lost", hosnn.robust, lif.robust),
            ("by the order of classes", hosnn.robust_by_argmax, lif.robust_by_argmax),
        ):
            test = PairedTest.of(first, second)
            low, high = (100 * end for end in test.interval)
            difference = f"{100 * test.difference:+.1f} ({low:+.1f} to {high:+.1f})"
            accuracies = (percent(sum(robust) / len(robust)) for robust in (first, second))
            lines.append(table_row([seed, ties, *accuracies, difference, f"{test.p_value:.2g}"]))
    return "\n".join(lines)


def budget(folder: Path) -> str:
    """Images left against the budget: runs on the nearest images, `full`, and more passes on the nearest images, in
    multiples of what `full` spent on an image that it left."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    runs = [str(entry["runs"]) for entry in rows[0]["runs"]]
    heads = ["network", *(f"{count} runs" for count in runs), "`full`", "`full`, then more", "times its budget"]
    lines = [table_row(heads), "| --- |" + " ---: |" * (len(heads) - 1)]
    for row in rows:
        full, rounds = row["full"], row["tenfold"]
        counts = [*(entry["left"] for entry in row["runs"]), full["left"], rounds[-1]["left"]]
        times = sum(entry["passes_per_image"] for entry in rounds) / full["passes_per_standing_image"]
        lines.append(table_row([row["model"], *map(str, counts), f"{times:.1f}"]))
    return "\n".join(lines)


def signatures(folder: Path) -> str:
    """For each signature: its images, its drift, and accuracies before and after an epoch with it."""
    heads = ["signature", "images", "drift over chance"]
    heads += [f"{name}, {when}" for when in ("at once", "after an epoch") for name in ("clean", "PGD-7", "worst case")]
    lines = [table_row(heads), "| --- |" + " ---: |" * (len(heads) - 1)]
    for row in json.loads((folder / "study.json").read_text(encoding="utf-8"))["rows"]:
        measured = [percent(row[when][key]) for when in ("before", "after") for key in ("clean", "pgd_7", "worst_case")]
        drift = max(row["drift_over_chance"].values())
        lines.append(table_row([row["signature"], f"{row['images']:,}", f"{drift:,.1f}", *measured]))
    return "\n".join(lines)


def evaluations(folder: Path) -> list[Evaluation]:
    """All evaluations in a folder of folders, those of `choices` first, models in the order of their names."""
    return [Evaluation.load(path) for path in sorted(folder.glob("*/*.json"), key=lambda path: (path.name, path))]


if __name__ == "__main__":
    for path in PAGES:
        write_text(path, updated(path.read_text(encoding="utf-8")))
