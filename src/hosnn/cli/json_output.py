"""With --json standard output holds one JSON document and nothing else."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

_streams: list[TextIO | None] = []
"""Standard output as it was before it was redirected."""


@contextmanager
def json_alone(arguments: Sequence[str]) -> Iterator[None]:
    """Inside, if the arguments have --json, only `print_json` prints to standard output: what anything else prints,
    such as a user's own model, goes to standard error."""
    if "--json" not in arguments:
        yield
        return
    _streams.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _streams.pop()


def print_json(content: Any) -> None:
    """Print the document to standard output, if it is open."""
    stream = _streams[-1] if _streams else sys.stdout
    if stream is not None:
        print(json.dumps(content), file=stream)
