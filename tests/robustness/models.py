"""Models with known answers.  Shapes: x [B, 1, 3, 4], scores [B, K]."""

import torch
from torch import Tensor, nn

SHAPE = (1, 3, 4)


def linear(classes: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """scores = W x, dW/dx constant: every attack's optimum has a closed form."""
    layer = nn.Linear(12, classes, bias=False, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, 12, generator=torch.Generator().manual_seed(seed), dtype=dtype))
    return nn.Sequential(nn.Flatten(), layer)


class Wavy(nn.Module):
    """Two classes in narrow stripes: whether an attack succeeds depends on where it starts."""

    def forward(self, x: Tensor) -> Tensor:
        wave = (40 * x.flatten(1).sum(1)).sin() - 0.5
        return torch.stack([torch.zeros_like(wave), wave], 1)


def samples(count: int = 16, classes: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(7)
    x = torch.rand(count, *SHAPE, generator=rng, dtype=torch.float64).to(dtype)
    return x, torch.randint(classes, (count,), generator=rng)
