"""What each loss says of scores, and what it leaves out of account."""

import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.robustness.losses import (
    Loss,
    PerStep,
    TargetedLoss,
    WithTarget,
    cross_entropy,
    dlr,
    margin,
    scaled_cross_entropy,
    targeted_cross_entropy,
    targeted_dlr,
    targeted_margin,
)
from hosnn.robustness.model import input_gradient
from tests.robustness.models import linear, samples

UNTARGETED: list[Loss] = [cross_entropy, scaled_cross_entropy, margin, dlr]
TARGETED: list[TargetedLoss] = [targeted_cross_entropy, targeted_margin, targeted_dlr]
SCALE_FREE: list[Loss] = [dlr, scaled_cross_entropy]


def drawn(count: int = 50, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels, and targets other than the labels."""
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(count, classes, generator=rng, dtype=torch.float64)
    y = torch.arange(count) % classes
    return scores, y, (y + torch.randint(1, classes, (count,), generator=rng)) % classes


def slope(loss: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    scores = scores.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(scores).sum(), scores)
    return gradient


def test_cross_entropy_and_margin_say_what_they_say() -> None:
    scores, y, _ = drawn()
    assert torch.equal(margin(scores, y) > 0, scores.argmax(1) != y)
    expected = -(scores.exp() / scores.exp().sum(1, keepdim=True))[torch.arange(50), y].log()
    torch.testing.assert_close(cross_entropy(scores, y), expected)
    seen = input_gradient(linear(), *samples(), margin)
    assert seen.gradient.shape == (16, 1, 3, 4) and seen.loss.shape == (16,) and seen.scores.shape == (16, 3)


def test_dlr_is_the_published_ratio() -> None:
    """Croce & Hein 2020, equation 7: by hand, then sample by sample."""
    scores = torch.tensor([[5.0, 3.0, 1.0, 0.0], [5.0, 3.0, 1.0, 0.0]])
    torch.testing.assert_close(dlr(scores, torch.tensor([0, 2])), torch.tensor([-2 / 4, 4 / 4]))
    scores, y, _ = drawn()
    for z, label, value in zip(scores, y, dlr(scores, y), strict=True):
        ordered = z.sort(descending=True).values
        others = torch.cat([z[:label], z[label + 1 :]])
        torch.testing.assert_close(value, -(z[label] - others.max()) / (ordered[0] - ordered[2]))
    assert torch.equal(dlr(scores, y) > 0, scores.argmax(1) != y)


def test_targeted_dlr_is_the_published_ratio() -> None:
    """Croce & Hein 2020, equation 8."""
    scores = torch.tensor([[5.0, 3.0, 1.0, 0.0]])
    value = targeted_dlr(scores, torch.tensor([0]), torch.tensor([2]))
    torch.testing.assert_close(value, torch.tensor([-(5 - 1) / (5 - (1 + 0) / 2)]))


@pytest.mark.parametrize("loss", TARGETED)
def test_a_targeted_loss_rises_along_the_targets_score(loss: TargetedLoss) -> None:
    scores, y, target = drawn()
    rows = torch.arange(50)
    # While the label is the answer, which is when an attack looks.
    scores[rows, y] = scores.amax(1) + 1
    gradient = slope(lambda z: loss(z, y, target), scores)
    assert (gradient[rows, target] > 0).all()
    if loss is not targeted_dlr:  # its denominator grows with the label's score too
        assert (gradient[rows, y] < 0).all()


def test_targeted_margin_is_positive_exactly_at_the_target() -> None:
    scores, y, target = drawn()
    assert torch.equal(targeted_margin(scores, y, target) > 0, scores.argmax(1) == target)
    torch.testing.assert_close(targeted_cross_entropy(scores, y, target), scores.log_softmax(1)[range(50), target])


@pytest.mark.parametrize("loss", SCALE_FREE)
def test_shift_and_scale_change_nothing(loss: Loss) -> None:
    """Powers of two and shifts small enough that float64 holds them; cross-entropy itself is not scale free."""
    scores, y, _ = drawn()
    for scale in (2.0**-40, 0.25, 1e4, 2.0**60):
        torch.testing.assert_close(loss(scores * scale, y), loss(scores, y))
        there, here = slope(lambda z: loss(z, y), scores * scale), slope(lambda z: loss(z, y), scores)
        torch.testing.assert_close(there * scale, here)
    torch.testing.assert_close(loss(scores + 100, y), loss(scores, y))
    assert not torch.allclose(cross_entropy(scores * 4, y), cross_entropy(scores, y))


def test_targeted_dlr_is_free_of_shift_and_scale() -> None:
    scores, y, target = drawn()
    torch.testing.assert_close(targeted_dlr(1e4 * scores + 100, y, target), targeted_dlr(scores, y, target))


def test_scaled_cross_entropy_is_cross_entropy_at_a_fixed_scale() -> None:
    scores, y, _ = drawn()
    spread = scores.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(scaled_cross_entropy(scores, y), cross_entropy(scores / spread, y))
    torch.testing.assert_close(
        slope(lambda z: scaled_cross_entropy(z, y), scores), slope(lambda z: cross_entropy(z / spread, y), scores)
    )


def test_scaled_cross_entropy_keeps_a_gradient_where_cross_entropy_has_none() -> None:
    scores, y, _ = drawn()
    scores = (scores.float() * 1e4).scatter_add(1, y[:, None], torch.full((50, 1), 1e5))
    assert (slope(lambda z: cross_entropy(z, y), scores) == 0).all(), "exactly zero: saturated"
    for loss in SCALE_FREE:
        assert (slope(lambda z: loss(z, y), scores).abs().amax(1) > 0).all()  # noqa: B023


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("loss", UNTARGETED)
def test_ties_give_finite_values_and_gradients(loss: Loss, dtype: torch.dtype) -> None:
    y = torch.tensor([0, 1, 2, 3])
    for row in ([0.0] * 4, [1.0, 1.0, 1.0, 0.0], [2.0, 2.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0]):
        scores = torch.tensor([row] * 4, dtype=dtype)
        assert loss(scores, y).isfinite().all() and slope(lambda z: loss(z, y), scores).isfinite().all()


@pytest.mark.parametrize("loss", TARGETED)
def test_targeted_ties_give_finite_values_and_gradients(loss: TargetedLoss) -> None:
    y, target = torch.tensor([0, 1]), torch.tensor([3, 0])
    for row in ([0.0] * 5, [1.0, 1.0, 1.0, 1.0, 0.0], [2.0, 2.0, 0.0, 0.0, 0.0]):
        scores = torch.tensor([row] * 2)
        assert loss(scores, y, target).isfinite().all()
        assert slope(lambda z: loss(z, y, target), scores).isfinite().all()
    gradient = slope(lambda z: loss(z, y, target), torch.zeros(2, 5))
    assert (gradient[[0, 1], target] > 0).all(), "all scores equal: still towards the target"


def test_too_few_classes_raise() -> None:
    y, target = torch.tensor([0]), torch.tensor([1])
    with pytest.raises(ConfigError, match=r"dlr got 2 classes.*at least 3.*margin"):
        dlr(torch.zeros(1, 2), y)
    with pytest.raises(ConfigError, match=r"targeted_dlr got 3 classes.*at least 4.*targeted_margin"):
        targeted_dlr(torch.zeros(1, 3), y, target)
    with pytest.raises(ConfigError, match=r"scaled_cross_entropy got 2 classes.*at least 3.*cross-entropy"):
        scaled_cross_entropy(torch.zeros(1, 2), y)
    assert dlr(torch.zeros(1, 3), y).isfinite() and targeted_dlr(torch.zeros(1, 4), y, target).isfinite()


@pytest.mark.parametrize("loss", UNTARGETED)
def test_per_step_is_the_mean_over_time(loss: Loss) -> None:
    outputs = torch.stack([drawn()[0], drawn()[0] ** 2, -drawn()[0]])
    y = drawn()[1]
    expected = (loss(outputs[0], y) + loss(outputs[1], y) + loss(outputs[2], y)) / 3
    torch.testing.assert_close(PerStep(loss)(outputs, y), expected)
    with pytest.raises(ConfigError, match=r"\[T, B, K\]"):
        PerStep(loss)(outputs[0], y)


def test_per_step_is_a_value() -> None:
    """Equal, printable and storable: the hash of a protocol is taken of what it prints."""
    assert PerStep(dlr) == PerStep(dlr) != PerStep(margin)
    assert repr(PerStep(dlr)).startswith("PerStep(loss=<function dlr")
    assert pickle.loads(pickle.dumps(PerStep(dlr))) == PerStep(dlr)


@pytest.mark.parametrize("loss", TARGETED)
def test_aimed_fixes_each_samples_target(loss: TargetedLoss) -> None:
    scores, y, target = drawn()
    assert torch.equal(WithTarget(loss, target)(scores, y), loss(scores, y, target))
