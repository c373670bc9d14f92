"""Write the tables of docs/results into the pages that show them:  python docs/update.py

A page marks the place with  <!-- docs/results/NAME/table.md -->  and  <!-- end -->.
"""

import re
from pathlib import Path

from hosnn.evaluation.comparison import Comparison
from hosnn.evaluation.tables import markdown

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PLACE = re.compile(r"(<!-- (docs/results/[\w-]+)/table\.md -->\n).*?(<!-- end -->)", re.DOTALL)


def updated(page: str) -> str:
    """The page with every marked table made anew from its JSON."""

    def table(place: re.Match[str]) -> str:
        comparison = Comparison.load(ROOT / place[2] / "comparison.json")
        return f"{place[1]}\n{markdown(comparison).strip()}\n\n{place[3]}"

    return PLACE.sub(table, page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
