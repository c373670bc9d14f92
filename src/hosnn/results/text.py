"""Numbers and table rows as text."""

import re
from collections.abc import Mapping, Sequence

from hosnn.names import inline

BAR = re.compile(r"(?<!\\)\|")
"""A bar that is not escaped yet."""

NOT_RUN = "not run"

ATTACKS_ONLY = ", attacks only"
"""The end of a protocol's name when it is run without its panels and checks."""


def percent(share: float) -> str:
    """A fraction of 1 in percent, with one decimal and without a sign."""
    return f"{100 * share:.1f}"


def describe_machine(machine: Mapping[str, str | int]) -> str:
    """The hardware of an evaluation (`Evaluation.machine`) in one line."""
    gpu = machine.get("gpu", "none")
    return (
        f"{machine.get('processor', 'unknown processor')}, {machine.get('cores', '?')} cores, "
        f"{machine.get('threads', '?')} threads, {'no GPU' if gpu == 'none' else gpu}"
    )


def table_row(texts: Sequence[str]) -> str:
    """A row of a Markdown table.

    Line breaks and bars in its texts are harmless; texts from files pass through `hosnn.names.markdown` before.
    """
    return "| " + " | ".join(BAR.sub(r"\|", inline(text)) for text in texts) + " |"


def markdown_rule(columns: int, texts: int = 1) -> str:
    """The line below the headings of a Markdown table: `texts` columns of text at the left, then numbers."""
    return "|" + "|".join([" --- "] * texts + [" ---: "] * (columns - texts)) + "|"
