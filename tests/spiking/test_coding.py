"""Coding in and reading out: the synaptic filter, its closed form, and the losses on traces."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hosnn.spiking.coding import encode_constant, filter_synaptic
from hosnn.spiking.decoding import mean_over_time, target_traces, trace_cross_entropy, van_rossum_loss


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@given(steps=st.integers(1, 12), tau=st.floats(1, 50))
@settings(max_examples=30, deadline=None)
def test_constant_coding_has_its_closed_form(steps: int, tau: float) -> None:
    """a[t] = x (1 - (1 - 1/τ_s)^t)"""
    x = random(2, 1, 3, 3)
    gain = 1 - (1 - 1 / tau) ** np.arange(1, steps + 1)
    expected = torch.from_numpy(gain)[:, None, None, None, None] * x
    torch.testing.assert_close(encode_constant(x, steps, tau), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_coding_equals_filtering_repeated_frames_bit_for_bit(dtype: torch.dtype) -> None:
    x = random(4, 1, 5, 5).to(dtype)
    assert torch.equal(encode_constant(x, 6, 3.0), filter_synaptic(torch.stack([x] * 6), 3.0))


def test_filter_is_the_recurrence_it_documents() -> None:
    frames, trace = random(5, 3), torch.zeros(3, dtype=torch.float64)
    for got, frame in zip(filter_synaptic(frames, 4.0), frames, strict=True):
        trace = 0.75 * trace + frame / 4
        assert torch.equal(got, trace)


def test_filter_without_memory_passes_frames_through() -> None:
    frames = random(5, 3)
    assert torch.equal(filter_synaptic(frames, 1.0), frames)


def test_filter_is_linear_and_causal() -> None:
    first, second = random(5, 3), random(5, 3).flip(0)
    both = filter_synaptic(2 * first + second, 3.0)
    torch.testing.assert_close(both, 2 * filter_synaptic(first, 3.0) + filter_synaptic(second, 3.0))
    later = torch.cat([first[:3], second[3:]])
    assert torch.equal(filter_synaptic(later, 3.0)[:3], filter_synaptic(first, 3.0)[:3])


def test_rate_readout_is_the_mean_over_time() -> None:
    outputs = random(5, 2, 3)
    torch.testing.assert_close(mean_over_time(outputs), outputs.sum(0) / 5)


def test_targets_are_the_filtered_spikes_of_the_label_and_silence_elsewhere() -> None:
    labels = torch.tensor([2, 0])
    targets = target_traces(labels, (0, 1, 1, 1, 1), 3, 3.0)
    assert targets.shape == (5, 2, 3)
    own = torch.tensor([0, *(1 - (2 / 3) ** np.arange(1, 5))]).float()
    torch.testing.assert_close(targets[:, 0, 2], own)
    torch.testing.assert_close(targets[:, 1, 0], own)
    assert targets.sum() == pytest.approx(2 * own.sum().item(), rel=1e-6), "other classes stay silent"


def test_van_rossum_distance_is_zero_only_on_target_and_per_sample() -> None:
    targets = target_traces(torch.tensor([0, 1]), (0, 1, 1), 2, 3.0)
    moved = targets.clone()
    moved[1, 1, 0] += 0.5
    torch.testing.assert_close(van_rossum_loss(moved, targets), torch.tensor([0.0, 0.125]))


def test_trace_cross_entropy_is_the_weighted_mean_over_steps() -> None:
    outputs, targets = random(4, 2, 3), target_traces(torch.tensor([1, 2]), (0, 1, 0, 1), 3, 2.0).double()
    expected = torch.zeros(2, dtype=torch.float64)
    for t in range(4):
        for b in range(2):
            probabilities = outputs[t, b].exp() / outputs[t, b].exp().sum()
            expected[b] -= (targets[t, b] * probabilities.log()).sum() / 4
    torch.testing.assert_close(trace_cross_entropy(outputs, targets), expected)
