"""Names from files as text: nothing in them steers a terminal or is markup."""

import re

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and newline, and those that change the direction of text."""


def printable(text: str) -> str:
    """A text without the characters that steer a terminal, such as those that set its title or clear it."""
    return _STEERING.sub("", text)


def inline(text: str) -> str:
    """A text on one line."""
    return " ".join(printable(text).split())


def markdown(text: str) -> str:
    """A text on one line of Markdown, in which nothing is markup: no HTML, no emphasis, no link, no table cell."""
    return re.sub(r"([\\`*|]|<(?=[A-Za-z/!?])|(?<=\])\()", r"\\\1", inline(text))
