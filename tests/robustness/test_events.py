"""The threat to events, and the attacks on them: whole events, exact budgets, distinct places, and who is stronger."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hosnn.checks.ball_probe import probe_ball
from hosnn.checks.fidelity import best_fidelity, run_trials
from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Events
from hosnn.robustness.events import GreedyEvents, RandomEvents
from hosnn.robustness.losses import margin, misclassified
from hosnn.robustness.threats import Threat

SHAPE = (3, 2, 6, 5)  # time bins, polarities, height, width


def threat(count: int = 7, maximum: int = 4) -> Threat:
    return Threat.parse(f"events:{count}/{maximum}")


def frames(samples: int = 12, maximum: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    counts = torch.randint(0, maximum + 1, (samples, *SHAPE), generator=rng)
    sparse = counts * (torch.rand(counts.shape, generator=rng) < 0.4)
    return sparse / maximum, torch.arange(samples) % 3


def rng(samples: int = 12) -> SampleRandom:
    return SampleRandom(0, torch.arange(samples) + 5)


class Linear(nn.Module):
    """Logits of frames, linear, so that the best places are known."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(180, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1))
        return out


def events_changed(x_adv: Tensor, x: Tensor, maximum: int = 4) -> Tensor:
    """The changes in events, checked to be whole, at most one at a place, and to leave counts from 0 to the maximum."""
    changes = (x_adv - x) * maximum
    assert (changes - changes.round()).abs().max() < 1e-4
    assert changes.abs().max() < 1.5
    assert -1e-6 <= x_adv.min() and x_adv.max() <= 1 + 1e-6
    return changes.round().abs().flatten(1).sum(1)


@pytest.mark.parametrize("maximum", [1, 4, 10])
@pytest.mark.parametrize("attack", [GreedyEvents, RandomEvents])
def test_changes_are_whole_events_at_distinct_places_within_the_budget(attack: Any, maximum: int) -> None:
    x, y = frames(maximum=maximum)
    allowed = threat(7, maximum)
    x_adv = attack(allowed)(Linear(), x, y, rng())
    assert (events_changed(x_adv, x, maximum) <= 7).all()
    assert allowed.allows(x_adv, x).all()


@pytest.mark.parametrize("attack", [GreedyEvents, RandomEvents])
def test_a_budget_that_is_needed_is_used_up(attack: Any) -> None:
    x = frames()[0]
    y = Linear()(x).argmax(1)  # all are right, and 7 events of 1/4 move no logit far enough to change all
    x_adv = attack(threat())(Linear(), x, y, rng())
    standing = ~misclassified(Linear()(x_adv), y)
    assert standing.any() and (events_changed(x_adv, x)[standing] == 7).all()


def test_the_best_changes_of_a_linear_model_are_found() -> None:
    model = Linear()
    x, _ = frames()
    y = model(x).argmax(1)
    x_adv = GreedyEvents(threat(), steps=1)(model, x, y, rng())
    weight = model.layer.weight.detach()
    runner_up = model(x).detach().scatter(1, y[:, None], -torch.inf).argmax(1)
    slope = (weight[runner_up] - weight[y]).view_as(x)
    room = torch.where(slope > 0, x < 1, x > 0)
    expected = (slope.abs() * room).flatten(1).topk(7, 1).values.sum(1) / 4
    gained = ((x_adv - x) * slope).flatten(1).sum(1)
    torch.testing.assert_close(gained, expected)


def test_gradients_break_more_than_chance() -> None:
    x, _ = frames(60)
    y = Linear()(x).argmax(1)
    broken = {
        attack: int(misclassified(Linear()(attack(threat(12))(Linear(), x, y, rng(60))), y).sum())
        for attack in (GreedyEvents, RandomEvents)
    }
    assert broken[GreedyEvents] > broken[RandomEvents]


def test_a_budget_beyond_all_places_is_no_error() -> None:
    x, y = frames()
    for attack in (GreedyEvents, RandomEvents):
        x_adv = attack(threat(1000))(Linear(), x, y, rng())
        assert (events_changed(x_adv, x) <= 180).all()


def test_no_events_no_change() -> None:
    x, y = frames()
    for attack in (GreedyEvents, RandomEvents):
        assert torch.equal(attack(threat(0))(Linear(), x, y, rng()), x)


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    x, y = frames()
    two = torch.tensor([3, 7])
    for attack in (GreedyEvents(threat()), RandomEvents(threat(), tries=3)):
        together, alone = attack(Linear(), x, y, rng()), attack(Linear(), x[two], y[two], rng().subset(two))
        assert torch.equal(together[two], alone)


def test_projection_gives_the_nearest_allowed_changes() -> None:
    ball = Events.of(2, 4)
    delta = torch.tensor([[0.3, -0.2, 0.13, 0.0], [0.1, 0.12, -0.1, 0.11], [0.9, -0.9, 0.8, 0.0]])
    expected = torch.tensor([[0.25, -0.25, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.25, -0.25, 0.0, 0.0]])
    assert torch.equal(ball.project(delta), expected)
    assert torch.equal(ball.project(expected), expected)


def test_sizes_count_events_and_refuse_what_are_none() -> None:
    ball = Events.of(3, 4)
    delta = torch.tensor([[0.25, 0.0, -0.25], [0.25, 0.1, 0.0], [0.5, 0.0, 0.0]])
    assert ball.size(delta).tolist() == [0.5, float("inf"), float("inf")], "half an event; two at one place"


@pytest.mark.parametrize("text", ["events:20/8", "events:5/1", "events:0/8"])
def test_the_threat_has_a_text(text: str) -> None:
    parsed = Threat.parse(text)
    assert str(parsed) == text and isinstance(parsed.ball, Events)
    assert Threat.parse("events:5") == Threat.parse("events:5/1")


@pytest.mark.parametrize("text", ["events:2.5/8", "events:-1/8", "events:3/0", "events:x", "events:20/8@8bit"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Threat.parse(text)


def test_attacks_on_events_need_a_threat_to_events() -> None:
    for attack in (GreedyEvents, RandomEvents):
        with pytest.raises(ConfigError, match="expected one to events"):
            attack(Threat.parse("linf:8/255"))
    with pytest.raises(ConfigError, match="steps = 0"):
        GreedyEvents(threat(), steps=0)
    with pytest.raises(ConfigError, match="tries = 0"):
        RandomEvents(threat(), tries=0)


class Remembering(Linear):
    """Counts the passes since its state was cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.passes.append(self.seen)
        return super().forward(x)

    def subset(self, chosen: Tensor) -> "Remembering":
        return self

    def state_frozen(self) -> Any:
        return nullcontext()

    def without_state(self) -> "Remembering":
        self.seen = 0
        return self


def test_an_estimator_keeps_its_state_when_some_recordings_are_lost() -> None:
    model, (x, _) = Remembering(), frames()
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 3  # wrong from the beginning
    model.seen, model.passes = 0, []
    GreedyEvents(threat(), steps=6)(model, x, y, rng())
    assert len(model.passes) > 3 and model.passes == list(range(1, len(model.passes) + 1))


@pytest.mark.parametrize(("events", "steps", "gradients"), [(7, 40, 7), (41, 40, 40), (20, 10, 10)])
def test_the_budget_is_spread_over_all_steps(events: int, steps: int, gradients: int) -> None:
    (x, _), model = frames(), Remembering()
    model.layer.weight.data *= 0.01
    y = model(x).argmax(1)
    model.seen = 0
    x_adv = GreedyEvents(threat(events), steps=steps, loss=lambda scores, y: scores.sum(1))(model, x, y, rng())
    assert events_changed(x_adv, x).max() <= events
    assert model.seen <= gradients + 1


@pytest.mark.parametrize(
    ("count", "factor", "events"), [(7, 0.25, 2), (7, 4.0, 28), (1, 0.25, 1), (0, 4.0, 0), (7, 0.5, 4)]
)
def test_a_scaled_budget_is_whole_events_again(count: int, factor: float, events: int) -> None:
    assert threat(count).scaled(factor).ball == Events.of(events, 4)


def test_the_furthest_perturbation_is_the_best_whole_events() -> None:
    x = frames()[0].requires_grad_()
    (gradient,) = torch.autograd.grad(Linear()(x)[:, 0].sum(), x)
    x = x.detach()
    x_adv = x + Events.of(7, 4).furthest(gradient, x)
    assert (events_changed(x_adv, x) == 7).all()
    gain = ((x_adv - x) * gradient).flatten(1).sum(1)
    room = torch.where(gradient > 0, x < 1, x > 0)
    best = torch.where(room, gradient.abs(), 0).flatten(1).topk(7, dim=1).values.sum(1) / 4
    assert torch.allclose(gain, best)


def linear_model() -> tuple[Linear, Tensor, Tensor, Tensor]:
    """A linear model, frames that it is right on, their labels, and the gradients of the margin."""
    x, model = frames(40)[0].requires_grad_(), Linear()
    y = model(x).argmax(1)
    (gradients,) = torch.autograd.grad(margin(model(x), y).sum(), x)
    return model, x.detach(), y, gradients


def test_gradient_fidelity_is_measured_with_whole_events_and_is_full_for_a_linear_model() -> None:
    trials = run_trials(*linear_model(), threat(8), rng(40), 2)
    assert list(trials) == [2 / 4, 8 / 4, 32 / 4]  # a quarter of the budget, all of it, four times as much
    best = best_fidelity({size: found.wins[found.changed] for size, found in trials.items()})
    assert best is not None and best.share == 1.0
    assert all(found.changed.all() for found in trials.values())


def test_the_probe_inside_the_ball_finds_a_linear_models_gradient_faithful() -> None:
    probe = probe_ball(*linear_model(), threat(2), rng(40))
    assert probe.correct >= 100 and probe.fidelity == 1.0
