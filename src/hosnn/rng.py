"""Random numbers that depend on (seed, purpose, sample index) and on nothing else.

What an attack or an augmentation draws for an image must not depend on the batch, on the process that draws it or on
which other images are still robust; otherwise shards, resumed runs and reruns would differ.  So numbers come from a
counter-based generator (SplitMix64, Steele et al. 2014) in integer arithmetic, with the same bits on every device.
"""

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class SampleRandom:
    """One independent stream per sample.

    seed   any 64-bit integer
    index  the samples' positions in their data set  [B] int64
    Drawing twice from one value gives the same numbers; `fold` derives a value with independent ones.
    """

    seed: int
    index: Tensor

    def fold(self, *purpose: str | int) -> "SampleRandom":
        """Independent streams for another purpose, e.g. fold("restart", 1)."""
        digest = hashlib.sha256(repr((self.seed, purpose)).encode()).digest()
        return replace(self, seed=int.from_bytes(digest[:8], "little", signed=True))

    def subset(self, chosen: Tensor) -> "SampleRandom":
        """The streams of some of the samples: `chosen` is a mask or positions."""
        return replace(self, index=self.index[chosen.to(self.index.device)])

    def copies(self, count: int) -> "SampleRandom":
        """Streams for `count` copies of the samples, one after the other; the first copy has the samples' own."""
        return replace(self, index=torch.cat([self.index + (copy << 40) for copy in range(count)]))

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform on [0, 1) with 24 bits (fewer for half precision), in shape, dtype and device of `like` [B, ...]."""
        count = math.prod(like.shape[1:])
        index = self.index.to(like.device)
        stream = _mix(_mix(index + _mix_int(self.seed)) ^ _mix_int(~self.seed))
        counter = torch.arange(1, count + 1, device=like.device)
        bits = _mix(stream[:, None] + counter * _GOLDEN)
        kept_bits = min(24, 1 - round(math.log2(torch.finfo(like.dtype).eps)))
        numbers: Tensor = _shift(bits, 64 - kept_bits).to(like.dtype) / 2**kept_bits
        return numbers.view(like.shape)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal by the inverse distribution function, in the shape, dtype and device of `like`.

        Computed from 24 bits in float64 and rounded to the dtype, because half precision would never reach the tails.
        """
        numbers = self.uniform(torch.empty(like.shape, dtype=torch.float32, device=like.device))
        if like.device.type == "mps":  # it has no float64
            numbers = numbers.cpu()
        uniform = numbers.double() + 2.0**-25
        return (torch.erfinv(2 * uniform - 1) * math.sqrt(2)).to(like.dtype).to(like.device)

    def sign(self, like: Tensor) -> Tensor:
        """-1 or 1 with equal probability, in the shape, dtype and device of `like`."""
        return torch.where(self.uniform(like) < 0.5, -1.0, 1.0).to(like.dtype)


def _signed(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = _signed(0x94D049BB133111EB)


def _shift(value: Tensor, by: int) -> Tensor:
    """Logical right shift: torch has no unsigned 64-bit arithmetic on every device."""
    return (value >> by) & ((1 << (64 - by)) - 1)


def _mix(value: Tensor) -> Tensor:
    """SplitMix64's output function."""
    value = (value ^ _shift(value, 30)) * _MULTIPLIER_1
    value = (value ^ _shift(value, 27)) * _MULTIPLIER_2
    return value ^ _shift(value, 31)


def _mix_int(value: int) -> int:
    return int(_mix(torch.tensor(_signed(value))).item())
