"""SA-PGD on the nearest samples: how passes are spent, its starts, what it keeps, and that it beats a single run."""

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L2, Linf
from hosnn.robustness.focused import FocusedSAPGD, FromBest, smooth_signs
from hosnn.robustness.losses import margin, misclassified
from hosnn.robustness.model import count_passes
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.threats import Threat
from tests.robustness.models import Wavy, linear, samples

LINF = Threat(Linf(0.1))


def rng(count: int = 16) -> SampleRandom:
    return SampleRandom(0, torch.arange(count) + 100)


class Far(nn.Module):
    """Every sample is right by a distance that grows with its number, far beyond any perturbation; it counts calls."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        self.inputs.append(x.detach().clone())
        lead = 100 * x.flatten(1)[:, 0] + x.flatten(1).mean(1)
        return torch.stack([lead, torch.zeros_like(lead)], 1)


def test_the_nearest_share_gets_the_further_runs() -> None:
    x, y = torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.long)
    x[:, 0, 0, 0] = torch.tensor([0.9, 0.5, 0.8, 0.45, 0.7, 0.95, 0.6, 0.99])
    model = Far()
    with count_passes() as passes:
        FocusedSAPGD(LINF, steps=2, near_steps=3, share=0.25)(model, x, y, rng(8))
    assert model.batches == [8] * 3 + [2] * 4 * 4
    assert passes.forward == passes.backward == 8 * 3 + 4 * 2 * 4
    attacked = (FocusedSAPGD(LINF, 1, 1, 0.25)(model, x, y, rng(8)) - x).abs().flatten(1).amax(1)
    assert (attacked <= 0.1 + 1e-6).all()


def test_copies_are_attacked_at_once_from_points_of_their_own() -> None:
    x, y = torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.long)
    x[:, 0, 0, 0] = torch.tensor([0.9, 0.5, 0.8, 0.45, 0.7, 0.95, 0.6, 0.99])
    alone, model = Far(), Far()
    FocusedSAPGD(LINF, 2, 3, 0.25, (smooth_signs, None))(alone, x, y, rng(8))
    found = FocusedSAPGD(LINF, 2, 3, 0.25, (smooth_signs, None), copies=3)(model, x, y, rng(8))
    assert model.batches == [8] * 3 + [6] * 4 * 2 and LINF.allows(found, x).all()
    first, own = model.inputs[3].view(3, 2, 1, 4, 4), alone.inputs[3]
    assert torch.equal(first[0], own) and not torch.equal(first[1], own) and not torch.equal(first[1], first[2])


def test_a_sample_is_broken_if_any_of_its_copies_is() -> None:
    x, y = samples(64, classes=2)
    broken = [
        misclassified(Wavy()(FocusedSAPGD(LINF, 2, 3, 1.0, (smooth_signs,), copies=n)(Wavy(), x, y, rng(64))), y)
        for n in (1, 6)
    ]
    assert (broken[1] | ~broken[0]).all() and broken[1].sum() > broken[0].sum()


def test_it_breaks_at_least_what_its_first_run_breaks_and_more() -> None:
    x, y = samples(64, classes=2)
    once = misclassified(Wavy()(SAPGD(LINF, 20, loss=margin)(Wavy(), x, y, rng(64))), y)
    often = misclassified(Wavy()(FocusedSAPGD(LINF, 20, 40, 1.0)(Wavy(), x, y, rng(64))), y)
    assert (often | ~once).all() and often.sum() > once.sum()


def test_the_optimum_of_a_linear_model_is_reached() -> None:
    x, y = samples()
    best = SAPGD(LINF, 100, loss=margin)(linear(), x, y, rng())
    found = FocusedSAPGD(LINF, 50, 50)(linear(), x, y, rng())
    assert LINF.allows(found, x).all()
    assert torch.equal(misclassified(linear()(best), y), misclassified(linear()(found), y))


def test_a_tie_is_kept_over_a_larger_loss() -> None:
    """The classes tie where the first pixel is above 0.55; the loss is largest just before."""

    class Tied(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            gap = 2.5 - 4 * x.flatten(1)[:, 0]
            lead = torch.where(gap <= 0.3, 0 * gap, gap)
            return torch.stack([lead, torch.zeros_like(lead)], 1)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return -(logits[:, 0] - 0.35).abs()

    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.long)
    for attack in (FocusedSAPGD(LINF, 10, 10, loss=loss), SAPGD(LINF, 10, loss=loss)):
        logits = Tied()(attack(Tied(), x, y, rng(3)))
        assert torch.equal(logits[:, 0], logits[:, 1])


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (3, 3, 5, 7), (2, 4, 2, 6, 6), (3, 2, 3), (3, 7)])
def test_smooth_starts_have_size_eps_and_few_changes_of_sign(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    start = smooth_signs(LINF.ball, x, rng(shape[0]))
    assert start.shape == x.shape and (start.abs() - 0.1).abs().max() < 1e-6
    other = smooth_signs(LINF.ball, x, rng(shape[0]).fold("other"))
    assert not torch.equal(start, other)
    if min(shape[-2:]) >= 28:
        changes = (start[..., 1:] != start[..., :-1]).float().mean()
        assert changes < 0.3, "noise at full resolution changes its sign at every second pixel"


def test_samples_that_are_tied_take_no_further_runs_where_ties_are_lost() -> None:
    """The classes tie at every point, so that all is reached at the first."""

    class AlwaysTied(Far):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return 0 * logits

    x, y = torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.long)
    for past_ties, further in ((True, 2), (False, 0)):
        model = AlwaysTied()
        FocusedSAPGD(LINF, 2, 3, 0.25, (None,), past_ties=past_ties)(model, x, y, rng(8))
        assert model.batches == [8] * 3 + [further] * 4 * (further > 0)


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (3, 2, 3, 6, 6), (3, 40)])
def test_a_start_from_the_best_point_replaces_a_region_of_its_perturbation(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    points = x + 0.03
    start = FromBest(share=0.3).at(points)
    perturbation = start(LINF.ball, x, rng(3))
    kept = (perturbation - 0.03).abs() < 1e-6
    assert ((perturbation.abs() - 0.1).abs() < 1e-6)[~kept].all()
    assert (~kept).flatten(1).float().mean(1).tolist() == pytest.approx([0.3] * 3, abs=0.03)
    again = start(LINF.ball, x, rng(3).fold("again"))
    assert not torch.equal(perturbation, again), "every run has another region"
    two = torch.tensor([0, 1])
    alone = FromBest(share=0.3).at(points[two])(LINF.ball, x[two], rng(3).subset(two))
    assert torch.equal(alone, perturbation[two]), "a sample's start does not depend on its neighbours"


def test_runs_from_the_best_point_begin_at_the_same_point_only_without_a_region() -> None:
    x, y = torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.long)
    x[:, 0, 0, 0] = 0.5
    begun = []
    for start in (None, FromBest()):
        model = Far()
        FocusedSAPGD(LINF, steps=30, near_steps=1, share=1.0, starts=(start,) * 4)(model, x, y, rng(8))
        begun.append(model.inputs[31::2])
    itself, moved = begun
    assert len(itself) == len(moved) == 4
    assert all(torch.equal(itself[0], other) for other in itself[1:])
    assert all(not torch.equal(moved[0], other) for other in moved[1:])


def test_wrong_settings_are_refused() -> None:
    for share, step_size in ((0.0, 0.5), (1.0, 0.5), (0.3, 0.0)):
        with pytest.raises(ConfigError, match="FromBest got"):
            FromBest(share, step_size)
    for settings in ({"steps": 0}, {"near_steps": 0}, {"share": 0.0}, {"share": 1.5}):
        with pytest.raises(ConfigError, match="FocusedSAPGD got"):
            FocusedSAPGD(LINF, **settings)
    with pytest.raises(ConfigError, match="linf only"):
        FocusedSAPGD(Threat(L2(1.0)))
