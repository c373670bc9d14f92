"""Events to frames, against a slow and plain reference."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hosnn.data.events import Binning, Bins, Values, frames_of, read_events
from hosnn.errors import ConfigError, DataError

SIZE = (5, 7)  # H, W


class Event(NamedTuple):
    x: int
    y: int
    polarity: int
    time: int


def written(events: Sequence[Event]) -> bytes:
    """The bytes of an N-MNIST file."""
    return b"".join(struct.pack(">BBI", e.x, e.y, e.polarity << 23 | e.time)[:2] + bits(e) for e in events)


def bits(event: Event) -> bytes:
    return (event.polarity << 23 | event.time).to_bytes(3, "big")


def reference(events: Sequence[Event], binning: Binning) -> np.ndarray:
    """One event after the other, as the documentation has it."""
    height, width = SIZE
    frames = np.zeros((binning.steps, 2, height, width), np.uint8)
    first, last = events[0].time, events[-1].time
    for number, event in enumerate(events):
        if binning.bins is Bins.COUNT:
            step = number * binning.steps // len(events)
        elif event.time == last and last > first:
            step = binning.steps - 1
        else:
            step = next(
                t
                for t in range(binning.steps)
                if (event.time - first) * binning.steps < (t + 1) * (last - first) or last == first
            )
        most = binning.maximum if binning.values is Values.COUNTS else 1
        place = (step, event.polarity, event.y, event.x)
        frames[place] = min(most, frames[place] + 1)
    return frames


def made(events: Sequence[Event], binning: Binning) -> np.ndarray:
    return frames_of(read_events(written(events), SIZE, "x"), SIZE, binning)


EVENT = st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 1))
TIMES = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**23 - 1)), min_size=1, max_size=40)
BINNINGS = st.builds(
    Binning,
    steps=st.integers(1, 12),
    bins=st.sampled_from(Bins),
    values=st.sampled_from(Values),
    maximum=st.integers(1, 4),
)


@settings(deadline=None, max_examples=300)
@given(times=TIMES, binning=BINNINGS, data=st.data())
def test_frames_are_those_of_the_reference(times: list[int], binning: Binning, data: st.DataObject) -> None:
    places = data.draw(st.lists(EVENT, min_size=len(times), max_size=len(times)))
    events = [Event(*place, time) for place, time in zip(places, sorted(times), strict=True)]
    frames = made(events, binning)
    np.testing.assert_array_equal(frames, reference(events, binning))
    assert frames.shape == (binning.steps, 2, *SIZE) and frames.dtype == np.uint8
    assert frames.max() <= binning.divisor


def at(*times: int) -> list[Event]:
    """Events in different pixels, so that none is cut."""
    return [Event(number % 7, number // 7, number % 2, time) for number, time in enumerate(times)]


def per_step(events: Sequence[Event], binning: Binning) -> list[int]:
    return made(events, binning).sum((1, 2, 3)).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("times", "equal_time", "equal_count"),
    [
        ((5,), [1, 0, 0, 0], [1, 0, 0, 0]),
        ((5, 5, 5, 5), [4, 0, 0, 0], [1, 1, 1, 1]),
        ((0, 1), [1, 0, 0, 1], [1, 0, 1, 0]),
        ((0, 4, 8), [1, 0, 1, 1], [1, 1, 1, 0]),  # at a half exactly: the later bin
        ((0, 1, 2, 3, 4), [1, 1, 1, 2], [2, 1, 1, 1]),
        ((100, 101, 102, 103, 104), [1, 1, 1, 2], [2, 1, 1, 1]),  # time counts from the first event
        ((0, 0, 0, 1_000_000), [3, 0, 0, 1], [1, 1, 1, 1]),
        ((0, 249, 250, 1000), [2, 1, 0, 1], [1, 1, 1, 1]),
    ],
)
def test_where_bins_begin_and_end(times: tuple[int, ...], equal_time: list[int], equal_count: list[int]) -> None:
    assert per_step(at(*times), Binning(steps=4, bins=Bins.TIME)) == equal_time
    assert per_step(at(*times), Binning(steps=4, bins=Bins.COUNT)) == equal_count


def test_channel_0_is_darker_and_1_brighter_and_counts_are_cut_at_the_maximum() -> None:
    events = [Event(3, 1, 1, 0)] * 5 + [Event(6, 4, 0, 0)]
    frames = made(events, Binning(steps=1, maximum=3))
    assert (frames[0, 1, 1, 3], frames[0, 0, 4, 6], frames.sum()) == (3, 1, 4)
    assert made(events, Binning(steps=1, maximum=9))[0, 1, 1, 3] == 5
    binary = Binning(steps=1, values=Values.BINARY)
    assert made(events, binary).sum() == 2 and binary.divisor == 1


def test_an_event_is_read_bit_by_bit() -> None:
    events = read_events(bytes([6, 4, 0x80 | 0x12, 0x34, 0x56, 0, 1, 0x7F, 0xFF, 0xFF]), SIZE, "x")
    assert len(events) == 2
    assert [events.x.tolist(), events.y.tolist(), events.polarity.tolist()] == [[6, 0], [4, 1], [1, 0]]
    assert events.time.tolist() == [0x123456, 0x7FFFFF]


GOOD = written(at(0, 1, 2))
BAD = {
    "empty": (b"", r"has 0 bytes, expected a multiple of 5"),
    "cut off": (GOOD[:-1], r"has 14 bytes, expected a multiple of 5"),
    "one byte more": (GOOD + b"\0", r"has 16 bytes, expected a multiple of 5"),
    "x outside": (GOOD + written([Event(7, 0, 0, 9)]), "event 3 is at x = 7, y = 0, expected a picture of 7x5"),
    "y outside": (written([Event(0, 5, 1, 0)]) + GOOD, "event 0 is at x = 0, y = 5"),
    "backwards": (
        written([Event(0, 0, 0, 5), Event(0, 0, 0, 9), Event(0, 0, 0, 8)]),
        r"time runs backwards after event 1 \(9 to 8 microseconds\)",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_bad_recording_is_refused_by_name(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"^Train/3/00007\.bin:? .*{message}|^Train/3/00007\.bin {message}"):
        read_events(content, SIZE, "Train/3/00007.bin")


@settings(deadline=None)
@given(BINNINGS)
def test_a_binning_is_read_as_it_is_printed(binning: Binning) -> None:
    assert Binning.parse(str(binning)) == binning


def test_what_is_left_out_keeps_its_default() -> None:
    assert Binning.parse("") == Binning()
    assert Binning.parse("steps=5") == Binning(steps=5)
    assert Binning.parse("values=binary,bins=count") == Binning(bins=Bins.COUNT, values=Values.BINARY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step=5", "events got 'step=5'; expected steps=N, bins=time or count"),
        ("steps=five", "events got 'steps=five'"),
        ("steps", "events got 'steps'"),
        ("bins=equal", "events got 'bins=equal'"),
        ("steps=5,values=Counts", "events got 'values=Counts'"),
        ("steps=0", r"steps = 0, maximum = 8; expected 1 to 1000 and 1 to 255"),
        ("steps=1001", "steps = 1001"),
        ("maximum=0", "maximum = 0"),
        ("maximum=256", "maximum = 256"),
    ],
)
def test_other_text_is_a_config_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Binning.parse(text)
