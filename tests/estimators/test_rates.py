"""Whole-layer estimators on neurons small enough to differentiate by hand."""

import pytest
import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.estimators import BPTR, HART, RGA, ActivationBackward
from hosnn.spiking.gradient_rule import WholeLayerRule
from hosnn.spiking.kernels import eager
from hosnn.spiking.state import AdaptiveThreshold, Dynamics, Reset
from hosnn.spiking.surrogate import PiecewiseLinear, Sigmoid

STEPS = 5
WHOLE = pytest.mark.parametrize("rule", [BPTR(), RGA(), ActivationBackward(), HART()], ids=repr)


def spread_out(values: list[float]) -> Tensor:
    """Constant currents, one neuron each: [T, 1, N]."""
    return torch.tensor(values, dtype=torch.float64).expand(STEPS, 1, -1).clone()


def of_spikes(rule: WholeLayerRule, currents: Tensor, upstream: Tensor, dynamics: Dynamics = Dynamics()) -> Tensor:  # noqa: B008
    currents = currents.clone().requires_grad_()
    (found,) = torch.autograd.grad((eager.spikes(currents, dynamics, rule) * upstream).sum(), currents)
    return found


def upstream(currents: Tensor) -> Tensor:
    return torch.randn(currents.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_bptr_is_straight_through_where_the_neuron_fired_at_least_once() -> None:
    currents = spread_out([-1.0, 0.1, 0.35, 1.5])  # 0.35 fires late: its membrane tends to 1.75
    fired = eager.spikes(currents, Dynamics(), BPTR()).amax(0)
    assert fired[0].tolist() == [0, 0, 1, 1]
    g = upstream(currents)
    torch.testing.assert_close(of_spikes(BPTR(), currents, g), (g.mean(0) * fired).expand_as(g))


def test_rga_is_the_slope_of_a_rate_curve_that_reaches_one() -> None:
    leak, floor = Dynamics().membrane_decay, 0.2
    slope = (1 - floor * (1 - leak)) / (1 + leak)
    assert floor * (1 - leak) + slope * (1 + leak) == pytest.approx(1), "rate 1 at twice the threshold"
    currents = spread_out([-0.5, 0.1, 0.5, 1.9, 2.1])
    g = upstream(currents)
    expected = g.mean(0) * torch.tensor([0, floor, slope, slope, 0], dtype=torch.float64)
    torch.testing.assert_close(of_spikes(RGA(), currents, g), expected.expand_as(g))


def test_rga_scales_with_the_threshold() -> None:
    """Currents and threshold doubled: the same spikes, half the slope."""
    currents = spread_out([-0.5, 0.1, 0.5, 1.9, 2.1])
    g = upstream(currents)
    doubled = of_spikes(RGA(), 2 * currents, g, Dynamics(threshold=2.0))
    torch.testing.assert_close(doubled, of_spikes(RGA(), currents, g) / 2)


def test_rga_follows_the_adapted_threshold() -> None:
    """Errors of 3 at every step raise θ by 0.3 a step, to 1.9 on average; the knots of the curve move with it."""
    currents = spread_out([0.15, 0.5]).requires_grad_()
    membrane = eager.trajectory(currents.detach(), Dynamics(threshold=9.0), BPTR()).membrane[:, 0]
    k = torch.tensor(0.1, dtype=torch.float64)
    run = eager.trajectory(currents.detach(), Dynamics(), RGA(), AdaptiveThreshold(membrane - 3.0, k))
    threshold = run.threshold.mean(0)
    torch.testing.assert_close(threshold, torch.full_like(threshold, 1.9))
    assert not run.spikes.any()
    spikes = eager.spikes(currents, Dynamics(), RGA(), AdaptiveThreshold(membrane - 3.0, k))
    (found,) = torch.autograd.grad(spikes.sum(), currents)
    expected = torch.tensor([0.2, (1 - 0.2 * 0.2) / 1.8], dtype=torch.float64) / 1.9
    torch.testing.assert_close(found, expected.expand_as(found))


def test_activation_backward_is_a_relu_of_the_mean_current() -> None:
    currents = spread_out([-0.5, 0.01, 5.0])
    currents[0] -= torch.tensor([0.0, 0.1, 0.0])  # mean of the second: -0.01
    g = upstream(currents)
    relu = currents.mean(0).requires_grad_()
    (expected,) = torch.autograd.grad((relu.relu() * g.sum(0)).sum(), relu)
    torch.testing.assert_close(of_spikes(ActivationBackward(), currents, g).sum(0), expected)
    assert expected[0].ne(0).tolist() == [False, False, True]


@pytest.mark.parametrize("surrogate", [PiecewiseLinear(1.0), Sigmoid(0.3)], ids=repr)
def test_hart_is_the_mean_over_time_of_one_step_gradients(surrogate: PiecewiseLinear) -> None:
    currents = spread_out([0.3, 0.7, 1.4])
    g = upstream(currents)
    run = eager.trajectory(currents, Dynamics(), HART())
    one_step = [g[t] * surrogate.derivative(run.membrane[t] - run.threshold[t]) for t in range(STEPS)]
    expected = sum(one_step, torch.zeros_like(g[0])) / STEPS
    torch.testing.assert_close(of_spikes(HART(surrogate), currents, g), expected.expand_as(g))


@WHOLE
@pytest.mark.parametrize("reset", list(Reset))
def test_the_gradient_of_traces_is_that_of_spikes_through_the_synapse(rule: WholeLayerRule, reset: Reset) -> None:
    dynamics = Dynamics(reset=reset)
    currents = torch.randn(STEPS, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    g = upstream(currents)
    through_trace, of_trace = torch.zeros_like(g[0]), torch.empty_like(g)
    for t in reversed(range(STEPS)):
        through_trace = dynamics.synaptic_decay * through_trace + g[t]
        of_trace[t] = through_trace / dynamics.tau_synapse
    leaf = currents.clone().requires_grad_()
    (found,) = torch.autograd.grad((eager.traces(leaf, dynamics, rule) * g).sum(), leaf)
    torch.testing.assert_close(found, of_spikes(rule, currents, of_trace, dynamics))
    leaf = currents.clone().requires_grad_()
    (again,) = torch.autograd.grad((eager.trajectory(leaf, dynamics, rule).trace * g).sum(), leaf)
    assert torch.equal(again, found)


@WHOLE
def test_adaptation_rates_get_no_gradient(rule: WholeLayerRule) -> None:
    currents, k = spread_out([0.3, 0.7, 1.4]).requires_grad_(), torch.full((3,), 0.2, dtype=torch.float64)
    signature = torch.zeros(STEPS, 3, dtype=torch.float64)
    spikes = eager.spikes(currents, Dynamics(), rule, AdaptiveThreshold(signature, k.requires_grad_()))
    (found,) = torch.autograd.grad(spikes.sum(), k, allow_unused=True)
    assert found is None


@pytest.mark.parametrize("floor", [-0.1, 1.1, float("nan")])
def test_rga_refuses_a_floor_that_is_no_slope(floor: float) -> None:
    with pytest.raises(ConfigError, match="RGA got floor"):
        RGA(floor)


def test_a_whole_layer_rule_must_say_how() -> None:
    currents = spread_out([1.0]).requires_grad_()
    with pytest.raises(TypeError, match="WholeLayerRule does not define backward"):
        eager.spikes(currents, Dynamics(), WholeLayerRule()).sum().backward()  # type: ignore[no-untyped-call]
