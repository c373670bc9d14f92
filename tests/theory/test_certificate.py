"""The certificate of a layer against the linear dynamics of each neuron."""

import pytest
import torch

from hosnn.errors import ConfigError, ShapeError
from hosnn.spiking.state import Reset
from hosnn.theory import certify, frozen_rate, regular_boundary, responding_rate


@pytest.mark.parametrize("reset", Reset)
@pytest.mark.parametrize("retention", [1.0, 0.8])
def test_every_neuron_is_sorted_as_its_own_dynamics_say(reset: Reset, retention: float):
    generator = torch.Generator().manual_seed(0)
    rates = torch.rand(300, generator=generator, dtype=torch.float64)
    k = 8 * torch.rand(300, generator=generator, dtype=torch.float64) - 2
    h = torch.rand(300, generator=generator, dtype=torch.float64)
    certificate = certify(rates, k, 5.0, reset, h, retention)
    stable = [
        responding_rate(5.0, *triple, reset, retention).is_stable
        for triple in zip(rates.tolist(), h.tolist(), k.tolist(), strict=True)
    ]
    assert (certificate.inside, certificate.outside) == (sum(stable), 300 - sum(stable))


def test_silent_and_open_neurons_have_a_count_of_their_own():
    rates, k = torch.tensor([0.0, 0.5, 0.5, 1.0, 1.0]), torch.tensor([0.2, 0.2, 0.0, 4.4, 4.6])
    soft = certify(rates, k, 5.0, Reset.SOFT)
    assert (soft.neurons, soft.silent, soft.open_loop, soft.inside, soft.outside) == (5, 1, 1, 2, 1)
    assert soft.share_inside == pytest.approx(0.4) and soft.share_silent == pytest.approx(0.2)
    hard = certify(rates, k, 5.0, Reset.HARD)
    assert (hard.silent, hard.open_loop, hard.inside, hard.regular) == (1, 4, 0, 0)


def test_regular_firing_asks_for_more_at_low_rates():
    bound = regular_boundary(5.0, 4)
    assert bound < max(frozen_rate(5.0, 0.25, 1.0).stable_adaptation or (0.0,))
    for k, count in ((0.99 * bound, 1), (1.01 * bound, 0)):
        certificate = certify(torch.tensor([0.25]), torch.tensor(k), 5.0, Reset.SOFT)
        assert (certificate.inside, certificate.regular) == (1, count)


def test_any_shape_of_layer_and_one_k_for_all():
    certificate = certify(torch.full((3, 4, 4), 0.3), torch.tensor(0.2), 5.0, Reset.SOFT)
    assert certificate.inside == certificate.neurons == 48


@pytest.mark.parametrize("rates", [torch.tensor([]), torch.tensor([0.5, 1.2]), torch.tensor([float("nan")])])
def test_rates_that_are_none_are_refused(rates: torch.Tensor):
    with pytest.raises(ShapeError, match="spikes per time step"):
        certify(rates, torch.tensor(0.2), 5.0, Reset.SOFT)


def test_a_time_constant_below_a_step_is_refused():
    with pytest.raises(ConfigError, match="tau_membrane"):
        certify(torch.tensor([0.5]), torch.tensor(0.2), 0.5, Reset.SOFT)
