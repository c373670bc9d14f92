"""Seeded damage to files: bytes, and parts of JSON."""

import json
import random
from collections.abc import Callable
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 5, 0.5, 5.0, -0.1, 10**30, 1e300, float("nan"), float("inf")),
    *("", "x", "../../x", "\x1b[2J", "<script>", "\0", "ä" * 100, [], {}, [1], {"type": "LeNet"}, [[[]]]),
)


def _flip(content: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def _overwrite(content: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(content))
    content[at : at + 8] = rng.choice((b"\xff" * 8, b"\0" * 8, rng.randbytes(8)))
    return content


def _cut(content: bytearray, rng: random.Random) -> bytearray:
    return content[: rng.randrange(len(content))]


def _remove(content: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(content))
    del content[at : at + rng.choice((1, 4, 32))]
    return content


def _repeat(content: bytearray, rng: random.Random) -> bytearray:
    at, length = rng.randrange(len(content)), rng.choice((1, 4, 64))
    content[at:at] = content[at : at + length]
    return content


def _insert(content: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(content))
    content[at:at] = rng.choice(
        (b"\n", b"[" * 2000, b"-", b"9" * 400, b"\xef\xbb\xbf", b"null", b'"', rng.randbytes(3))
    )
    return content


OF_BYTES: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    *(_flip, _flip, _overwrite, _cut, _remove, _repeat, _insert),
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with damage: where it is JSON, or lines of it, every second time to a value, else to bytes."""
    if content[:1] == b"{" and rng.random() < 0.5:
        return _json_damaged(content, rng)
    return bytes(rng.choice(OF_BYTES)(bytearray(content), rng))


def _json_damaged(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n") if content.count(b'\n{"') else [content]
    at = rng.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except ValueError:
        return content
    _change(value, rng)
    lines[at] = json.dumps(value).encode()
    return b"\n".join(lines)


def _change(value: Any, rng: random.Random) -> None:
    """Change, remove or add one entry somewhere inside a list or object, in place."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = value[key]
        if isinstance(inner, (dict, list)) and inner and rng.random() < 0.8:
            value = inner
            continue
        action = rng.randrange(4)
        if action == 0:
            del value[key]
        elif action == 1 and isinstance(value, dict):
            value[rng.choice(("", "more", f"{key} "))] = inner
        elif action == 1:
            value.append(inner)
        else:
            value[key] = rng.choice(ODD_VALUES)
        return
