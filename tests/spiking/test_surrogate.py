"""Surrogates: bumps of unit area that never hide a gradient by accident."""

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch

from hosnn.errors import ConfigError
from hosnn.spiking import surrogate as surrogate_module
from hosnn.spiking.surrogate import (
    SURROGATES,
    Arctan,
    Exponential,
    FastSigmoid,
    PiecewiseLinear,
    PotentialDependent,
    Rectangle,
    Sigmoid,
    StraightThrough,
    Surrogate,
    spread,
)
from tests.spiking.reference import SHAPES

WIDTHS = (0.1, 0.5, 2.0)
WITH_WIDTH = [kind for kind in SURROGATES if any(field.name == "width" for field in fields(kind))]
WIDE: list[Surrogate] = [replace(kind(), width=width) for kind in WITH_WIDTH for width in WIDTHS]  # type: ignore[call-arg]
TABLE = [StraightThrough(), *WIDE]
EVERY = pytest.mark.parametrize("surrogate", TABLE, ids=repr)
WITHOUT_SUPPORT = (PiecewiseLinear, Rectangle)  # zero outside their width, by definition


def test_the_table_names_every_surrogate_there_is() -> None:
    every = {kind for kind in vars(surrogate_module).values() if isinstance(kind, type) and issubclass(kind, Surrogate)}
    here = {kind for kind in every - {Surrogate} if not kind.__name__.startswith("_")}
    assert set(SURROGATES) == here - {PotentialDependent}
    assert {kind.__name__ for kind in SURROGATES} == set(SHAPES)


@pytest.mark.parametrize(
    "surrogate", [*TABLE, Exponential(0.5, peak=0.3), Sigmoid(0.2, clamp=8.0), PotentialDependent()]
)
def test_a_bump_in_units_of_a_threshold(surrogate: Surrogate) -> None:
    """h(x/θ)/θ, and so the same area."""
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)[None]
    found = surrogate.in_units_of(4.0).derivative(4 * x)
    torch.testing.assert_close(found, surrogate.derivative(x) / 4)
    assert torch.equal(surrogate.in_units_of(1.0).derivative(x), surrogate.derivative(x))


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_reaches_the_membrane_is_never_denormal_and_otherwise_untouched(dtype: torch.dtype) -> None:
    x = torch.zeros(6, dtype=dtype).requires_grad_()
    upstream = torch.tensor([1e-39, -1e-40, 1e-37, -1e-20, 1.0, float("nan")], dtype=dtype)
    (gradient,) = torch.autograd.grad((StraightThrough().spike(x) * upstream).sum(), x)
    least = torch.finfo(dtype).tiny
    expected = torch.where(upstream.abs() < least, torch.zeros_like(upstream), upstream)
    assert torch.equal(gradient.nan_to_num(7), expected.nan_to_num(7)) and gradient[-1].isnan()


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


@pytest.mark.parametrize("peak", [0.3, 1.0, 2.5])
def test_an_exponential_has_the_peak_it_is_given(peak: float) -> None:
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    expected = peak * np.exp(-np.abs(x.numpy()) / 0.5)
    np.testing.assert_allclose(Exponential(0.5, peak).derivative(x).numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(Exponential(0.5, peak=1 / (2 * 0.5)).derivative(x), Exponential(0.5).derivative(x))


@pytest.mark.parametrize("peak", [0, -1.0, float("nan"), float("inf")])
def test_a_peak_that_is_not_positive_and_finite_is_refused(peak: float) -> None:
    with pytest.raises(ConfigError, match="Exponential got peak"):
        Exponential(0.5, peak)


def potentials(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64) - 1


@pytest.mark.parametrize("shape", [(4, 50), (4, 3, 7, 5)])
def test_the_potential_dependent_width_is_the_spread_of_each_sample(shape: tuple[int, ...]) -> None:
    """A Gaussian density at x, centred at half its own width; of a convolution per channel."""
    x = potentials(*shape)
    x[0] *= 10
    found = PotentialDependent().derivative(x)
    for sample in range(len(x)):
        for part in (sample,) if len(shape) == 2 else ((sample, channel) for channel in range(shape[1])):
            sigma = np.std(x[part].numpy())
            expected = np.exp(-((x[part].numpy() - sigma / 2) ** 2) / (2 * sigma**2)) / np.sqrt(2 * np.pi) / sigma
            np.testing.assert_allclose(found[part].numpy(), expected, rtol=1e-10)


def test_the_potential_dependent_width_scales_with_the_potentials() -> None:
    x = potentials(4, 50)
    torch.testing.assert_close(PotentialDependent().derivative(7 * x), PotentialDependent().derivative(x) / 7)


@pytest.mark.parametrize("x", [torch.full((3, 5), 0.7), torch.full((3, 2, 1, 1), 0.7), torch.full((3,), 0.7)])
def test_where_potentials_do_not_spread_the_width_is_one(x: torch.Tensor) -> None:
    assert (spread(x) == 1).all()
    h = PotentialDependent().derivative(x)
    torch.testing.assert_close(h, torch.full_like(x, float(np.exp(-0.02) / np.sqrt(2 * np.pi))))
