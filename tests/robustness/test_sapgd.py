"""Stable adaptive PGD: its step against the published one, its optimum on a linear model, its strength."""

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L1, L2, Linf
from hosnn.robustness.losses import cross_entropy, margin
from hosnn.robustness.model import input_gradient
from hosnn.robustness.pgd import PGD, at_clean, fgsm
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.threats import Threat
from tests.robustness.models import linear, samples
from tests.robustness.test_apgd import clouds, fooled, network

LINF = Threat(Linf(0.1))


def rng(count: int = 16) -> SampleRandom:
    return SampleRandom(0, torch.arange(count) + 100)


def sure_of(labels: Tensor) -> nn.Module:
    """The labels lead everywhere, over two others whose slopes bend."""

    class Bent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = (2 * linear()(x)).sin()
            return scores.scatter_add(1, labels[:, None], torch.full((len(x), 1), 9.0, dtype=x.dtype))

    return Bent()


def test_the_step_is_the_published_one() -> None:
    """arXiv 2512.22522, written out; eta halves after ceil(0.22 · 8) = 2 and ceil(0.41 · 8) = 4 steps."""
    x, y = samples()
    model = sure_of(y)
    x_adv, first, second, points = x, torch.zeros_like(x), torch.zeros_like(x), [x]
    for eta in (0.1, 0.1, 0.05, 0.05, 0.025):
        gradient = input_gradient(model, x_adv, y, cross_entropy).gradient
        first = 0.5 * first + gradient / gradient.abs().mean((1, 2, 3), keepdim=True)
        second = 0.8 * second + gradient**2 / (gradient**2).mean((1, 2, 3), keepdim=True)
        step = (first / second.sqrt() * eta).clamp(-eta, eta)
        x_adv = LINF.project(x_adv + step, x)
        points.append(x_adv)
    seen: list[Tensor] = []

    def recording_model(x: Tensor) -> Tensor:
        seen.append(x.detach())
        scores: Tensor = model(x)
        return scores

    SAPGD(LINF, steps=8, start=at_clean)(recording_model, x, y, rng())
    assert len(seen) == 9
    for taken, published in zip(seen, points, strict=False):
        torch.testing.assert_close(taken, published)


def test_the_first_step_is_fgsm() -> None:
    """m / sqrt(v) is then at least 1 in size, so that clipping leaves the sign."""
    x, _ = samples()
    y = linear()(x).argmax(1)
    tiny = Threat(Linf(1e-4), domain=None)  # no label is lost on the way
    torch.testing.assert_close(
        SAPGD(tiny, steps=1, start=at_clean)(linear(), x, y, rng()), fgsm(tiny)(linear(), x, y, rng())
    )


@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_it_reaches_the_optimum_of_a_linear_model_from_any_start(loss: object) -> None:
    w = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        score = x @ w
        return torch.stack([score + 9, -score - 9], 1)

    x, y = torch.full((8, 4), 0.5, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    x_adv = SAPGD(LINF, steps=10, loss=loss)(model, x, y, rng(8))  # type: ignore[arg-type]
    torch.testing.assert_close(x_adv, (x - 0.1 * w.sign()).expand_as(x))


@pytest.mark.parametrize("tiny", [1e-30, 1e-200])
def test_a_tiny_gradient_still_gives_a_full_step(tiny: float) -> None:
    """Squares of gradients underflow long before gradients do."""
    w = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        score = tiny * (x @ w)
        return torch.stack([score + 9 * tiny, -score], 1)

    x, y = torch.full((8, 4), 0.5, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    x_adv = SAPGD(LINF, steps=10, loss=margin)(model, x, y, rng(8))
    torch.testing.assert_close(x_adv, (x - 0.1 * w.sign()).expand_as(x))


def test_a_gradient_of_zero_moves_nothing() -> None:
    x, y = samples()

    def flat(x: Tensor) -> Tensor:
        return torch.stack([1 + 0 * x.sum((1, 2, 3)), 0 * x.sum((1, 2, 3))], 1)

    assert torch.equal(SAPGD(LINF, steps=5, start=at_clean)(flat, x, 0 * y, rng()), x)


def test_it_is_not_weaker_than_pgd_of_as_many_passes() -> None:
    (x, y), threat = clouds(300, 2), Threat(Linf(0.05))
    found = [
        int(fooled(network(), attack(network(), x, y, rng(300)), y).sum())
        for attack in (SAPGD(threat, steps=29), PGD(threat, steps=30))
    ]
    assert 100 < found[1] and 0.98 * found[1] <= found[0] < 250


def test_settings_out_of_range_raise() -> None:
    for wrong in ({"steps": 0}, {"restarts": 0}):
        with pytest.raises(ConfigError, match="at least 1 of each"):
            SAPGD(LINF, **wrong)  # type: ignore[arg-type]
    for ball in (L2(0.5), L1(1.0)):
        with pytest.raises(ConfigError, match=r"supports linf only.*APGD"):
            SAPGD(Threat(ball))
