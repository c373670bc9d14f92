"""A model that treats every sample differently, so that attacks must tell it which samples are in a batch."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from tests.robustness.models import linear


class Personal:
    """scores = W x + offset of the sample: an attack that continues on part of its batch without `subset` fails."""

    def __init__(self, inner: nn.Module, offset: Tensor) -> None:
        self.inner, self.offset = inner, offset

    def __call__(self, x: Tensor) -> Tensor:
        assert len(x) == len(self.offset), "another number of samples than the model was narrowed to by `subset`"
        scores: Tensor = self.inner(x)
        return scores + self.offset

    def subset(self, chosen: Tensor, /) -> "Personal":
        return Personal(self.inner, self.offset[chosen])

    def state_frozen(self) -> AbstractContextManager[None]:
        return nullcontext()


def personal(count: int = 16, classes: int = 4) -> Personal:
    offset = torch.randn(count, classes, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return Personal(linear(classes), 0.3 * offset)
