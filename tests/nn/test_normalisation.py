"""Batch normalisation over time: what is shared, what belongs to a step, and whose statistics move."""

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError, ShapeError
from hosnn.nn.modes import statistics_held
from hosnn.nn.neurons import Extrapolation
from hosnn.nn.normalisation import TimeBatchNorm

EACH = pytest.mark.parametrize("steps", [None, 4], ids=["shared", "per-step"])
KINDS = pytest.mark.parametrize("dense", [False, True], ids=["images", "dense"])


def currents(steps: int = 4, dense: bool = False, seed: int = 0) -> Tensor:
    """Each step of another mean and spread, as time brings them."""
    shape = (steps, 5, 3) if dense else (steps, 5, 3, 6, 7)
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scale = torch.arange(1, steps + 1).view(-1, *[1] * (len(shape) - 1))
    return drawn * scale + scale


def trained(steps: int | None, dense: bool = False, **options: Extrapolation) -> TimeBatchNorm:
    layer = TimeBatchNorm(3, steps, dense, **options).double()
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 2)
    for seed in range(3):
        layer(currents(dense=dense, seed=seed))
    return layer


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.named_buffers()}


def unmoved(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())


@KINDS
def test_shared_statistics_are_those_of_time_and_batch_together(dense: bool) -> None:
    layer, x = TimeBatchNorm(3, dense=dense).double(), currents(dense=dense)
    everything = [0, 1] if dense else [0, 1, 3, 4]
    found = layer(x)
    torch.testing.assert_close(found.mean(everything), torch.zeros(3, dtype=x.dtype))
    torch.testing.assert_close(found.var(everything, correction=0), torch.ones(3, dtype=x.dtype), rtol=1e-4, atol=0)
    assert found[0].mean() < -0.3 < 0.3 < found[-1].mean(), "steps keep what tells them apart"
    torch.testing.assert_close(layer.each[0].running_mean, 0.1 * x.mean(everything))


@KINDS
def test_statistics_per_step_are_those_of_each_step(dense: bool) -> None:
    layer, x = TimeBatchNorm(3, 4, dense).double(), currents(dense=dense)
    one = [1] if dense else [1, 3, 4]
    found = layer(x)
    torch.testing.assert_close(found.mean(one), torch.zeros(4, 3, dtype=x.dtype))
    means = torch.stack([layer.get_buffer(f"each.{t}.running_mean") for t in range(4)])
    torch.testing.assert_close(means, 0.1 * x.mean(one))


@KINDS
@pytest.mark.parametrize("training", [False, True])
def test_normalising_per_step_is_normalising_each_step_alone(dense: bool, training: bool) -> None:
    layer, x = trained(4, dense).train(training), currents(dense=dense, seed=9)
    kind = nn.BatchNorm1d if dense else nn.BatchNorm2d
    alone = []
    for t, step in enumerate(x):
        norm = kind(3).double().train(training)
        norm.load_state_dict(layer.each[t].state_dict())
        alone.append(norm(step))
    assert torch.equal(layer(x), torch.stack(alone))


def test_in_eval_fewer_steps_are_the_first_of_them_and_an_image_does_not_depend_on_its_batch() -> None:
    x = currents(seed=9)
    for layer in (trained(None).eval(), trained(4).eval()):
        whole = layer(x)
        assert torch.equal(layer(x[:2]), whole[:2])
        torch.testing.assert_close(layer(x[:, 1:2]), whole[:, 1:2], rtol=0, atol=1e-14)


def test_more_steps_than_statistics_are_refused_unless_said_otherwise() -> None:
    x = currents(6)
    with pytest.raises(ShapeError, match=r"got 6 time steps but has statistics for 4.*HOLD_LAST"):
        trained(4)(x)
    torch.manual_seed(0)
    layer = trained(4, beyond=Extrapolation.HOLD_LAST).eval()
    assert torch.equal(layer(x)[5], layer.each[3](x[5]))
    layer.beyond = Extrapolation.REPEAT
    assert torch.equal(layer(x)[5], layer.each[1](x[5]))
    assert trained(None)(x).shape == x.shape


@EACH
def test_held_statistics_do_not_move_and_batches_are_still_normalised_by_themselves(steps: int | None) -> None:
    layer, x = trained(steps).train(), currents(seed=9)
    before = buffers(layer)
    with statistics_held(layer):
        held = layer(x)
        assert layer.training
    assert unmoved(layer, before)
    assert torch.equal(layer(x), held)
    assert not unmoved(layer, before), "afterwards they move again"


def test_statistics_are_held_whatever_happens_and_layers_that_keep_none_stay_so() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(RuntimeError, match="stop"), statistics_held(model):
        raise RuntimeError("stop")
    assert [layer.track_running_stats for layer in model] == [True, False]


def test_other_currents_are_refused_by_what_came_and_what_was_expected() -> None:
    with pytest.raises(ShapeError, match=r"got currents \(5, 3, 6, 7\); expected \[T, B, C, H, W\] with C = 3"):
        TimeBatchNorm(3)(torch.zeros(5, 3, 6, 7))
    with pytest.raises(ShapeError, match=r"got currents \(4, 5, 2\); expected \[T, B, C\] with C = 3"):
        TimeBatchNorm(3, dense=True)(torch.zeros(4, 5, 2))
    with pytest.raises(ShapeError, match="one value per channel"):
        TimeBatchNorm(3, 4, dense=True)(torch.zeros(4, 1, 3))
    frozen = TimeBatchNorm(3, 4, dense=True)
    frozen.each.eval()
    assert frozen.training and frozen(torch.zeros(4, 1, 3)).shape == (4, 1, 3)
    with pytest.raises(ConfigError, match="0 channels"):
        TimeBatchNorm(0)


@pytest.mark.parametrize("momentum", [None, 0.3])
def test_over_ranks_running_statistics_are_torchs_own(momentum: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without momentum they are the mean over all batches so far; here a single rank, so that sums are its own."""
    monkeypatch.setattr("hosnn.nn.normalisation.distributed.get_world_size", lambda: 1)
    monkeypatch.setattr("hosnn.nn.normalisation._sum_over_ranks", lambda value: value)
    alone, shared = (TimeBatchNorm(3).double() for _ in range(2))
    shared.over_ranks = True
    for layer in (alone, shared):
        layer.each[0].momentum = momentum  # type: ignore[assignment]
    for seed in range(3):
        torch.testing.assert_close(shared(currents(seed=seed)), alone(currents(seed=seed)))
    assert int(shared.get_buffer("each.0.num_batches_tracked")) == 3
    for name in ("running_mean", "running_var"):
        found = shared.get_buffer(f"each.0.{name}")
        torch.testing.assert_close(found, alone.get_buffer(f"each.0.{name}"))
    if momentum is None:
        means = torch.stack([currents(seed=seed).mean([0, 1, 3, 4]) for seed in range(3)])
        torch.testing.assert_close(shared.get_buffer("each.0.running_mean"), means.mean(0))
