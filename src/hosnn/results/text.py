"""Numbers and table rows as text."""

from collections.abc import Sequence

from hosnn.results.evaluation import Evaluation

NOT_RUN = "not run"


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def describe_machine(evaluation: Evaluation) -> str:
    known = evaluation.machine
    gpu = known.get("gpu", "none")
    return (
        f"{known.get('processor', 'unknown processor')}, {known.get('cores', '?')} cores, "
        f"{known.get('threads', '?')} threads, {'no GPU' if gpu == 'none' else gpu}"
    )


def inline(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


def table_row(texts: Sequence[str]) -> str:
    """A line of a Markdown table; no text can break it."""
    return "| " + " | ".join(inline(text).replace("|", "\\|") for text in texts) + " |"


def rule(columns: int, texts: int = 1) -> str:
    """The line below the headings of a Markdown table: `texts` columns at the left, then numbers."""
    return "|" + "|".join([" --- "] * texts + [" ---: "] * (columns - texts)) + "|"
