"""Recordings of event cameras: N-MNIST's files, and events gathered into frames over time.

Source: Orchard et al. 2015, doi:10.3389/fnins.2015.00437; file format: https://www.garrickorchard.com/datasets/n-mnist.
Legend: E events, T time bins, H height, W width.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hosnn.errors import ConfigError, DataError

EVENT_BYTES = 5
POLARITIES = 2


@dataclass(frozen=True, eq=False)
class Events:
    """One recording, in order of time.

    x, y      pixel column and row           [E] int64
    polarity  1: brighter, 0: darker         [E] int64
    time      microseconds since the start   [E] int64
    """

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    polarity: NDArray[np.int64]
    time: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of events."""
        return len(self.x)


class Bins(Enum):
    """How a recording's events are parted over time steps: into equal spans of time, or equal numbers of events."""

    TIME = "time"
    COUNT = "count"


class Values(Enum):
    """What a frame holds per pixel and polarity: the number of events, or whether there were any."""

    COUNTS = "counts"
    BINARY = "binary"


@dataclass(frozen=True)
class Binning:
    """How events become frames [T, 2, H, W]; it is part of a data set's identity.

    steps    T
    bins     equal time: bin t holds events with t/T <= (time - first) / (last - first) < (t+1)/T, the last event in the
             last bin; equal count: event e of E lies in bin e T // E
    values   counts (at most `maximum`, what is more is cut) or binary
    maximum  events per pixel, polarity and bin that count as 1: frames are divided by it, so that they lie in [0, 1]
    Raises ConfigError for numbers out of range.
    """

    steps: int = 10
    bins: Bins = Bins.TIME
    values: Values = Values.COUNTS
    maximum: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000 or not 1 <= self.maximum <= 255:
            raise ConfigError(
                f"Binning got steps = {self.steps}, maximum = {self.maximum}; expected 1 to 1000 and 1 to 255"
            )

    def __str__(self) -> str:
        """As `parse` reads it, e.g. "steps=10,bins=time,values=counts,maximum=8"."""
        return f"steps={self.steps},bins={self.bins.value},values={self.values.value},maximum={self.maximum}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`; what is left out keeps its default.  Raises ConfigError for anything else."""
        settings: dict[str, int | Bins | Values] = {}
        for setting in filter(None, text.split(",")):
            name, _, value = setting.partition("=")
            try:
                if name in ("steps", "maximum"):
                    settings[name] = int(value)
                elif name == "bins":
                    settings[name] = Bins(value)
                elif name == "values":
                    settings[name] = Values(value)
                else:
                    raise ValueError
            except ValueError:
                raise ConfigError(
                    f"events got {setting!r}; expected steps=N, bins=time or count, values=counts or binary and "
                    f"maximum=N, separated by commas, e.g. {cls()}"
                ) from None
        return cls(**settings)  # type: ignore[arg-type]

    @property
    def divisor(self) -> int:
        """What stored frames are divided by to lie in [0, 1]: `maximum`, 1 for binary frames."""
        return self.maximum if self.values is Values.COUNTS else 1


def read_events(content: bytes, size: tuple[int, int], origin: str) -> Events:
    """A recording from an N-MNIST .bin file: per event x, y, then 1 bit polarity and 23 bits microseconds, big-endian.

    size    (H, W) of the camera's picture
    origin  names the file in messages
    Raises DataError for a cut-off file, no event, a pixel outside, or time that runs backwards.
    """
    if not content or len(content) % EVENT_BYTES:
        raise DataError(
            f"{origin} has {len(content)} bytes, expected a multiple of {EVENT_BYTES} (x, y, polarity and time of an "
            "event); it is cut off or another file: get it again"
        )
    raw = np.frombuffer(content, np.uint8).reshape(-1, EVENT_BYTES).astype(np.int64)
    x, y, polarity = raw[:, 0], raw[:, 1], raw[:, 2] >> 7
    time = (raw[:, 2] & 0x7F) << 16 | raw[:, 3] << 8 | raw[:, 4]
    height, width = size
    outside = (x >= width) | (y >= height)
    if outside.any():
        first = int(outside.argmax())
        raise DataError(
            f"{origin}: event {first} is at x = {x[first]}, y = {y[first]}, expected a picture of {width}x{height}; is "
            "this another camera's recording?"
        )
    backwards = np.diff(time) < 0
    if backwards.any():
        first = int(backwards.argmax())
        raise DataError(
            f"{origin}: time runs backwards after event {first} ({time[first]} to {time[first + 1]} microseconds), "
            "expected events in order of time; sort them, or get the file again"
        )
    return Events(x, y, polarity, time)


def frames_of(events: Events, size: tuple[int, int], binning: Binning) -> NDArray[np.uint8]:
    """A recording as frames [T, 2, H, W]; channel 0 holds darker, 1 brighter.

    Counts above the maximum become the maximum.
    """
    steps, (height, width) = binning.steps, size
    count = len(events)
    if binning.bins is Bins.COUNT:
        at = np.arange(count) * steps // count
    else:
        span = int(events.time[-1] - events.time[0])
        at = (events.time - events.time[0]) * steps // max(span, 1)
        at = np.minimum(at, steps - 1)
    place = ((at * POLARITIES + events.polarity) * height + events.y) * width + events.x
    counts = np.bincount(place, minlength=steps * POLARITIES * height * width)
    most = binning.maximum if binning.values is Values.COUNTS else 1
    return np.minimum(counts, most).astype(np.uint8).reshape(steps, POLARITIES, height, width)
