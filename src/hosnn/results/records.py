"""The outcomes of an evaluation as records, which pandas takes, and as a table of a few lines for people."""

import html
from collections.abc import Sequence
from typing import Any

from hosnn.results.evaluation_parts import AttackResult
from hosnn.results.statistics import proportion, wilson
from hosnn.results.text import percent

MOST = 12
"""Attacks with a line of their own in the table; of more, those that broke the most images."""

HEADINGS = ("attack", "accuracy, %", "95 % interval", "broken", "seconds")

Record = dict[str, Any]


def attack_records(results: Sequence[AttackResult], correct: Sequence[Sequence[bool]]) -> list[Record]:
    """A record for each result: its settings, the accuracy after it and what it cost.

    correct  per result, whether each image is right after it
    broken   in a record: images that are wrong after this result and right after all before it
    """
    records = []
    robust = [True] * max(map(len, correct), default=0)
    for result, right in zip(results, correct, strict=True):
        low, high = wilson(sum(right), len(right))
        still_robust = [before and after for before, after in zip(robust, right, strict=True)]
        records.append(
            {
                "attack": result.attack,
                "kind": result.kind,
                "estimator": result.estimator,
                "steps": result.steps,
                "threat": result.threat,
                "eps": result.eps,
                "images": len(right),
                "accuracy": proportion(right),
                "low": low,
                "high": high,
                "broken": sum(robust) - sum(still_robust),
                "forward": result.forward,
                "backward": result.backward,
                "seconds": result.seconds,
            }
        )
        robust = still_robust
    return records


def image_records(
    results: Sequence[AttackResult],
    correct: Sequence[Sequence[bool]],
    index: Sequence[int],
    labels: Sequence[int],
) -> list[Record]:
    """A record for each result and image: the class predicted (-1: none) and whether the image is right."""
    return [
        {
            "attack": result.attack,
            "kind": result.kind,
            "index": place,
            "label": label,
            "prediction": prediction,
            "correct": is_right,
        }
        for result, right in zip(results, correct, strict=True)
        for place, label, prediction, is_right in zip(index, labels, result.predictions, right, strict=True)
    ]


def text_table(title: str, records: Sequence[Record], end: str) -> str:
    """The records of all attacks as text: a title, aligned columns, a last line."""
    rows = [HEADINGS, *_rows(records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    return "\n".join([title, *lines, end])


def html_table(title: str, records: Sequence[Record], end: str) -> str:
    """The same table in HTML, for notebooks."""

    def row(texts: Sequence[str], cell: str) -> str:
        return f"<tr>{''.join(f'<{cell}>{html.escape(text)}</{cell}>' for text in texts)}</tr>"

    body = "".join(row(texts, "td") for texts in _rows(records))
    return (
        f"<p>{html.escape(title)}</p><table><thead>{row(HEADINGS, 'th')}</thead><tbody>{body}</tbody></table>"
        f"<p>{html.escape(end)}</p>"
    )


def _rows(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Clean images, at most MOST attacks in their order, the others in one row, the worst case."""
    clean, *attacks, worst = records
    by_broken = sorted(range(len(attacks)), key=lambda at: -attacks[at]["broken"])
    others = [attacks[at] for at in by_broken[MOST:]]
    rows = [_row(clean), *(_row(attacks[at]) for at in sorted(by_broken[:MOST]))]
    if others:
        broken, seconds = (sum(record[key] for record in others) for key in ("broken", "seconds"))
        rows.append((f"{len(others)} more attacks", "", "", f"{broken:,}", f"{seconds:,.0f}"))
    return [*rows, _row(worst)]


def _row(record: Record) -> tuple[str, str, str, str, str]:
    return (
        record["attack"],
        percent(record["accuracy"]),
        f"[{percent(record['low'])}, {percent(record['high'])}]",
        f"{record['broken']:,}" if record["broken"] else "",
        f"{record['seconds']:,.0f}",
    )
