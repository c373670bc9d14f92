"""Surrogates: bumps of unit area that never hide a gradient by accident."""

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch

from hosnn.errors import ConfigError
from hosnn.spiking.surrogate import (
    SURROGATES,
    Arctan,
    Exponential,
    FastSigmoid,
    PiecewiseLinear,
    Rectangle,
    Sigmoid,
    StraightThrough,
    Surrogate,
)
from tests.spiking.reference import SHAPES

WIDTHS = (0.1, 0.5, 2.0)
WITH_WIDTH = [kind for kind in SURROGATES if any(field.name == "width" for field in fields(kind))]
WIDE: list[Surrogate] = [replace(kind(), width=width) for kind in WITH_WIDTH for width in WIDTHS]  # type: ignore[call-arg]
TABLE = [StraightThrough(), *WIDE]
EVERY = pytest.mark.parametrize("surrogate", TABLE, ids=repr)
WITHOUT_SUPPORT = (PiecewiseLinear, Rectangle)  # zero outside their width, by definition


def test_the_table_names_every_surrogate_there_is() -> None:
    assert set(SURROGATES) == set(Surrogate.__subclasses__())
    assert {kind.__name__ for kind in SURROGATES} == set(SHAPES)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bump_is_even_finite_and_not_negative(surrogate: Surrogate, dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(0, 3, 301), torch.tensor([10.0, 1e3, 1e10, 1e30])]).to(dtype)
    h = surrogate.derivative(x)
    assert h.dtype is dtype and h.isfinite().all() and (h >= 0).all()
    assert torch.equal(h, surrogate.derivative(-x))
    assert (h.diff() <= 0).all(), "the gradient is largest at the threshold and falls from there"


@EVERY
def test_bump_is_positive_at_the_threshold_and_far_from_it_unless_its_support_is_bounded(surrogate: Surrogate) -> None:
    assert surrogate.derivative(torch.zeros(1)).item() > 0
    far = surrogate.derivative(torch.tensor([-5.0, 5.0]))
    assert (far > 0).all() or isinstance(surrogate, WITHOUT_SUPPORT)


@pytest.mark.parametrize("surrogate", [Sigmoid(0.2), FastSigmoid(), Arctan(), Exponential()], ids=repr)
def test_unbounded_bumps_do_not_round_to_zero_in_float32(surrogate: Surrogate) -> None:
    """σ(1 - σ) evaluated as written is exactly 0 beyond |x|/w = 17; then an attack would see no gradient at all."""
    assert (surrogate.derivative(torch.tensor([-10.0, -4.0, 4.0, 10.0])) > 0).all()


@pytest.mark.parametrize("surrogate", WIDE, ids=repr)
def test_bump_has_unit_area(surrogate: Surrogate) -> None:
    edge = 10.0 ** torch.arange(-4, 7, dtype=torch.float64)  # trapezes on a grid refined towards 0
    area = 0.0
    for low, high in zip([0.0, *edge[:-1].tolist()], edge.tolist(), strict=True):
        middle = torch.linspace(low, high, 20001, dtype=torch.float64)
        middle = (middle[1:] + middle[:-1]) / 2
        area += float(surrogate.derivative(middle).mean() * (high - low))
    assert 2 * area == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("kind", SURROGATES)
def test_bump_has_the_shape_it_documents(kind: type[Surrogate]) -> None:
    x = torch.linspace(-4, 4, 801, dtype=torch.float64)
    x = x[(x.abs() - 0.5).abs() > 1e-9]  # the rectangle's own edge
    np.testing.assert_allclose(kind().derivative(x).numpy(), SHAPES[kind.__name__](x.numpy()), rtol=1e-6)


def test_clamped_sigmoid_stays_at_its_value_at_the_clamp() -> None:
    h = Sigmoid(0.2, clamp=8.0).derivative(torch.tensor([1.6, -1.6, 3.0, -100.0]))
    assert torch.equal(h, h[:1].expand(4)) and h[0] > 0


@EVERY
def test_spike_is_a_step_whose_gradient_is_the_bump(surrogate: Surrogate) -> None:
    x = torch.linspace(-2, 2, 41).requires_grad_()
    spikes = surrogate.spike(x)
    assert torch.equal(spikes, (x > 0).float())
    (gradient,) = torch.autograd.grad((3 * spikes).sum(), x)
    assert torch.equal(gradient, 3 * surrogate.derivative(x.detach()))


@EVERY
def test_gradient_can_be_taken_at_another_distance(surrogate: Surrogate) -> None:
    x, elsewhere = torch.linspace(-2, 2, 41).requires_grad_(), torch.linspace(1, -1, 41).requires_grad_()
    spikes = surrogate.spike(x, elsewhere)
    assert torch.equal(spikes, (x > 0).float())
    gradient, none = torch.autograd.grad(spikes.sum(), (x, elsewhere), allow_unused=True)
    assert torch.equal(gradient, surrogate.derivative(elsewhere.detach())) and none is None


@pytest.mark.parametrize("kind", WITH_WIDTH)
@pytest.mark.parametrize("width", [0, -0.2, float("nan"), float("inf")])
def test_a_width_that_is_not_positive_and_finite_is_refused(kind: type[Surrogate], width: float) -> None:
    with pytest.raises(ConfigError, match=f"{kind.__name__} got width"):
        replace(kind(), width=width)  # type: ignore[call-arg]


def test_a_surrogate_is_a_frozen_value() -> None:
    assert Sigmoid(0.2) == Sigmoid(0.2) and hash(Sigmoid(0.2)) == hash(Sigmoid(0.2)) and Sigmoid(0.2) != Sigmoid(0.3)
    with pytest.raises(FrozenInstanceError):
        Sigmoid(0.2).width = 0.3  # type: ignore[misc]
