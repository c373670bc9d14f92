"""Networks that only seem to hold, where attacks go: inside the ball, in the passes of attacks, in copies of the model.

Images as in `planted`, of 8 bits, which tells a clean image from nearly every attacked one.
"""

from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.checks.planted import CLASSES, SIDE, Around, fit


def attacked(x: Tensor) -> Tensor:
    """Which images are not of 8 bits, as hardly any attacked image is.  [B, 1]"""
    levels = 255 * x.flatten(1)
    return ((levels - levels.round()).abs() > 1e-2).any(1, keepdim=True)


def one_hot(logits: Tensor) -> Tensor:
    return functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)


class HidesInside(Around):
    """Honest on clean images; of attacked ones it tells only the class, with the gradient of something else."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(3)
        self.register_buffer("elsewhere", torch.randn(SIDE * SIDE, CLASSES, generator=rng))

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        other = x.flatten(1) @ self.get_buffer("elsewhere")
        return torch.where(attacked(x), 5 * one_hot(logits) + other - other.detach(), logits)


class ConstantInside(Around):
    """A detector: every attacked image is of class 0."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        constant = torch.zeros_like(logits)
        constant[:, 0] = 10
        return torch.where(attacked(x), constant, logits)


class DeniesClaims(Around):
    """Cleans its input up, but only in passes without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        half = SIDE // 2
        means = functional.avg_pool2d(x, half)
        brightest = functional.one_hot(means.flatten(1).argmax(1), CLASSES).to(x.dtype).view_as(means)
        return super().forward(0.4 + 0.25 * functional.interpolate(brightest, scale_factor=half))


class QuantisedWithoutGradient(Around):
    """Logits on a grid in passes without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits if torch.is_grad_enabled() else (logits / 2).round() * 2


class RoundedBehindLinear(Around):
    """Rounded to a few levels after a linear layer, with a derivative of one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 1)
        with torch.no_grad():
            self.first.weight.fill_(-1.0)
            self.first.bias.fill_(1.0)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        turned = 1 - self.first(x)
        return super().forward(turned + ((5 * turned).round() / 5 - turned).detach())


class OneHot(Around):
    """Nothing but the class, with the gradient of the softmax."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        soft = logits.softmax(1)
        return soft + (one_hot(logits) - soft).detach()


class KWinners(nn.Module):
    """All but the largest `share` of each image's values are zero (Xiao et al. 2020, arXiv 1905.10510)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        count = max(1, int(self.share * x[0].numel()))
        least = x.flatten(1).topk(count, dim=1).values[:, -1]
        return torch.where(x >= least.view(-1, *[1] * (x.dim() - 1)), x, 0.0)


@cache
def _k_winners() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hidden = 256
        layers = (
            nn.Flatten(),
            nn.Linear(SIDE * SIDE, hidden),
            KWinners(0.08),
            nn.Linear(hidden, hidden),
            KWinners(0.08),
        )
        return fit(nn.Sequential(*layers, nn.Linear(hidden, CLASSES)), 60, 0.01)


def k_winners() -> nn.Module:
    return _k_winners()


class KeepsStateForEqualShapes(Around):
    """What it saw before weighs in, unless the batch has another shape."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        answer = logits + 0.5 * self.last if self.last is not None and len(self.last) == len(x) else logits
        self.last = logits.detach()
        return answer


class Registered(nn.Module):
    """A membrane that a list of the class, not the network, resets: a copy is not in that list."""

    made: ClassVar[list["Registered"]] = []
    membrane: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.made.append(self)

    @classmethod
    def reset(cls) -> None:
        for neuron in cls.made:
            neuron.membrane = None

    def forward(self, logits: Tensor) -> Tensor:
        kept = self.membrane
        self.membrane = logits.detach().mean(0)
        return logits if kept is None else logits + 0.5 * kept


class ResetByRegistry(Around):
    def __init__(self) -> None:
        super().__init__()
        self.neuron = Registered()

    def forward(self, x: Tensor) -> Tensor:
        Registered.reset()
        return self.neuron(super().forward(x))  # type: ignore[no-any-return]


class SharedMembrane(Around):
    """Copies share one membrane, which every call starts from rest: right alone, wrong beside another thread."""

    membrane: ClassVar[list[Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.membrane[:] = [x.mean((1, 2, 3))]
        logits = super().forward(x)
        return logits + 5 * self.membrane[0].mean()


def patterns(count: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of 8 bits and labels: a random pattern per class, with noise."""
    prototypes = torch.rand(classes, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    y = torch.arange(count) % classes
    noise = torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return (255 * (0.25 + 0.5 * prototypes[y] + 0.05 * noise).clamp(0, 1)).round() / 255, y


def perceptron(classes: int, *extra: nn.Module) -> nn.Module:
    """A ReLU network with one hidden layer, trained on `patterns`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Flatten(), nn.Linear(SIDE * SIDE, 64), *extra, nn.ReLU(), nn.Linear(64, classes))
        return fit(nn.Sequential(*layers), 60, 0.01, patterns(max(256, 4 * classes), classes, seed=1))
