"""ASSG: the state it keeps of each sample, for how long; and the search for A/2."""

import math
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.estimators import AdaptiveSharpness, SearchedSharpness, Through, with_rule
from hosnn.estimators.model_wrappers import WrappedModel, unwrapped
from hosnn.estimators.rules import differentiated
from hosnn.estimators.sharpness import AdaptiveSharpnessRule, DistanceTracker
from hosnn.nn.layers import ConstantCoding
from hosnn.nn.neurons import LIF, neurons
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import Worst
from hosnn.robustness.losses import cross_entropy
from hosnn.robustness.model import Attack, AveragedModel, Model, input_gradient, scores, subset, without_state
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import GradientRule, bptt
from hosnn.spiking.kernels import backend, cpu, eager
from hosnn.spiking.state import Dynamics, Reset
from hosnn.spiking.surrogate import Arctan
from tests.estimators.networks import Scores, adaptive, images, labels, plain

THREAT = Threat(Linf(0.1))


def rng(count: int = 6) -> SampleRandom:
    return SampleRandom(0, torch.arange(count))


def gradient(model: Model, x: Tensor, y: Tensor) -> Tensor:
    return input_gradient(model, x, y, cross_entropy).gradient


def distances(seed: int, samples: int = 3) -> Tensor:
    return torch.randn(samples, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_where_the_membrane_stands_still_the_sharpness_is_that_of_its_distance() -> None:
    """M -> |x| and D -> 0, so α = 2 tan(π A/2)/π / (|x| + 1e-4), however the attack began."""
    tracker, x = DistanceTracker(AdaptiveSharpness(0.4), 3), distances(0)
    expected = 2 * math.tan(0.4 * math.pi) / math.pi / (x.abs() + 1e-4)
    torch.testing.assert_close(tracker.sharpness("a", 0, x), expected, msg="at the first pass")
    tracker.sharpness("a", 0, distances(1))
    for _ in range(400):
        found = tracker.sharpness("a", 0, x)
    torch.testing.assert_close(found, expected)


def test_moments_follow_the_published_recursion() -> None:
    settings = AdaptiveSharpness(0.45, relax=1.2, momentum=0.7)
    tracker, first = DistanceTracker(settings, 3), distances(0).abs()
    tracker.sharpness("a", 0, distances(0))
    mean, deviation = first, torch.zeros_like(first)
    for seed in range(1, 5):
        size = distances(seed).abs()
        mean = 0.7 * mean + 0.3 * size
        deviation = 0.7 * deviation + 0.3 * (size - mean).abs()
        expected = 2 * math.tan(0.45 * math.pi) / math.pi / (mean + 1.2 * deviation + 1e-4)
        torch.testing.assert_close(tracker.sharpness("a", 0, distances(seed)), expected)


def test_layers_and_time_steps_are_remembered_apart() -> None:
    tracker = DistanceTracker(AdaptiveSharpness(), 3)
    alone = {key: DistanceTracker(AdaptiveSharpness(), 3) for key in (("a", 0), ("a", 1), ("b", 0))}
    for seed in range(3):
        for number, (key, other) in enumerate(alone.items()):
            x = distances(10 * seed + number)
            assert torch.equal(tracker.sharpness(*key, x), other.sharpness(*key, x))


def test_a_frozen_memory_changes_nothing_and_is_changed_by_nothing() -> None:
    frozen, other = DistanceTracker(AdaptiveSharpness(), 3), DistanceTracker(AdaptiveSharpness(), 3)
    for seed in range(4):
        with frozen.state_frozen():
            frozen.sharpness("a", 0, distances(100 + seed))
        assert torch.equal(frozen.sharpness("a", 0, distances(seed)), other.sharpness("a", 0, distances(seed)))


def test_samples_that_drop_out_take_nothing_along_and_leave_nothing() -> None:
    tracker, alone = DistanceTracker(AdaptiveSharpness(), 3), DistanceTracker(AdaptiveSharpness(), 2)
    chosen = torch.tensor([2, 0])
    for seed in range(3):
        tracker.sharpness("a", 0, distances(seed))
        alone.sharpness("a", 0, distances(seed)[chosen])
    for seed in range(3, 6):
        with tracker.forward_pass(chosen, 2):
            found = tracker.sharpness("a", 0, distances(seed, 2))
        assert torch.equal(found, alone.sharpness("a", 0, distances(seed, 2)))


def test_the_first_gradient_is_an_arctan_as_wide_as_each_distance() -> None:
    """One neuron, one step: h = α/(2 (1 + (π α x/2)²)), and α x is the same for every x."""
    network = plain()
    layer = next(iter(neurons(network).values()))
    twin = differentiated(network, AdaptiveSharpness(0.4), 1)
    rule = next(iter(neurons(unwrapped(twin)).values())).rule  # type: ignore[arg-type]
    assert isinstance(rule, GradientRule)
    for current in (0.2, 0.9, 1.3, 40.0):
        leaf = torch.full((1, 1, 1), current, dtype=torch.float64).requires_grad_()
        (found,) = torch.autograd.grad(eager.spikes(leaf, Dynamics(), rule).sum(), leaf)
        sharpness = 2 * math.tan(0.4 * math.pi) / math.pi / (abs(current - 1) + 1e-4)
        torch.testing.assert_close(found[0, 0], Arctan(2 / sharpness).derivative(leaf.detach()[0, 0] - 1))
        twin = differentiated(network, AdaptiveSharpness(0.4), 1)
        rule = next(iter(neurons(unwrapped(twin)).values())).rule  # type: ignore[arg-type]
        assert isinstance(rule, GradientRule)
    assert layer.rule == bptt(), "the network itself is left as it was"


@dataclass(frozen=True)
class SignSteps:
    """Gradient steps, the first `together` of them with every sample, the others with `chosen` alone."""

    together: int
    apart: int
    chosen: tuple[int, ...]
    at_once: bool = True  # drop samples once; False: from the first model, at every step anew

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        for _ in range(self.together):
            x = x + 0.05 * gradient(model, x, y).sign()
        chosen = torch.tensor(self.chosen)
        few, some = subset(model, chosen), x[chosen]
        for _ in range(self.apart):
            some = some + 0.05 * gradient(few if self.at_once else subset(model, chosen), some, y[chosen]).sign()
        return x.index_copy(0, chosen, some)


@pytest.mark.parametrize("build", [plain, adaptive])
@pytest.mark.parametrize("at_once", [True, False])
def test_rows_of_a_model_equal_those_samples_alone(build: type, at_once: bool) -> None:
    network, x, y = build(), images(), labels()
    chosen = torch.tensor([5, 2])
    whole = Through(AdaptiveSharpness(), SignSteps(2, 3, (5, 2), at_once))(network, x, y, rng())
    alone = Through(AdaptiveSharpness(), SignSteps(0, 5, (0, 1)))(network, x[chosen], y[chosen], rng().subset(chosen))
    torch.testing.assert_close(whole[chosen], alone, rtol=0, atol=1e-9)


def test_rows_of_rows_are_rows() -> None:
    network, x, y = adaptive(), images(), labels()
    for chosen in (torch.tensor([True, False, True, True, False, True]), torch.tensor([0, 2, 3, 5])):
        model = differentiated(network, AdaptiveSharpness(), 6)
        gradient(model, x, y)
        few = subset(subset(model, chosen), torch.tensor([3, 1]))
        other = differentiated(network, AdaptiveSharpness(), 6)
        gradient(other, x, y)
        at = torch.tensor([5, 2])
        assert torch.equal(gradient(few, 0.9 * x[at], y[at]), gradient(subset(other, at), 0.9 * x[at], y[at]))


@pytest.mark.parametrize("build", [plain, adaptive])
def test_a_new_run_may_have_a_sample_several_times_each_with_its_own_memory(build: type) -> None:
    network, x, y = build(), images(), labels()
    rows = torch.tensor([3, 1, 3, 0, 1, 3, 0, 3])  # more than there are samples
    model = subset(differentiated(network, AdaptiveSharpness(), 6), rows)
    walks = [x[rows] * (1 - 0.05 * number * torch.arange(8.0).view(-1, *[1] * (x.dim() - 1))) for number in range(3)]
    found = [gradient(model, walk, y[rows]) for walk in walks]
    few = subset(model, torch.tensor([5, 2]))
    found.append(gradient(few, x[[3, 3]], y[[3, 3]]))
    for copy in (0, 2, 5):
        alone = differentiated(network, AdaptiveSharpness(), 1)
        of_copy = [gradient(alone, walk[copy : copy + 1], y[3:4]) for walk in walks]
        if copy in (5, 2):
            of_copy.append(gradient(alone, x[3:4], y[3:4]))
            torch.testing.assert_close(found[-1][int(copy == 2)], of_copy[-1][0], rtol=0, atol=1e-9)
        for together, single in zip(found[:3], of_copy, strict=False):
            torch.testing.assert_close(together[copy], single[0], rtol=0, atol=1e-9)


def test_a_sample_several_times_in_a_run_that_goes_on_raises() -> None:
    model = differentiated(adaptive(), AdaptiveSharpness(), 6)
    gradient(model, images(), labels())
    with pytest.raises(ConfigError, match=r"one sample several times.*for a new run"):
        gradient(subset(model, torch.tensor([1, 1])), images()[[1, 1]], labels()[[1, 1]])


def test_memory_makes_a_difference_and_scores_do_not_feed_it() -> None:
    network, x, y = adaptive(), images(), labels()
    model = differentiated(network, AdaptiveSharpness(), 6)
    scores(model, 0.1 * x)
    first = gradient(model, x, y)
    assert torch.equal(first, gradient(differentiated(network, AdaptiveSharpness(), 6), x, y))
    gradient(model, 0.5 * x, y)
    assert not torch.equal(gradient(model, x, y), first)


def test_looking_several_times_at_a_fixed_model_is_looking_once() -> None:
    """EOT freezes the moments after the first call, or they would be updated at one point many times."""
    network, x, y = adaptive(), images(), labels()
    once = differentiated(network, AdaptiveSharpness(), 6)
    often = differentiated(AveragedModel(network, 3), AdaptiveSharpness(), 6)
    assert isinstance(often, AveragedModel)
    for scale in (1.0, 0.8, 0.6):
        torch.testing.assert_close(gradient(often, scale * x, y), gradient(once, scale * x, y), rtol=1e-12, atol=0)


def test_a_batch_of_another_size_raises() -> None:
    model = differentiated(plain(), AdaptiveSharpness(), 6)
    for shown in (model, subset(model, torch.tensor([0, 1]))):
        with pytest.raises(ConfigError, match=r"called the model with 5.*call subset"):
            shown(images(5))


def test_a_rule_that_remembers_needs_an_attack() -> None:
    network = plain()
    before = [layer.rule for layer in neurons(network).values()]
    Through(AdaptiveSharpness(), PGD(THREAT, steps=2))(network, images(), labels(), rng())
    assert [layer.rule for layer in neurons(network).values()] == before
    with pytest.raises(ConfigError, match=r"with_rule got AdaptiveSharpness.*use Through"):
        with_rule(network, AdaptiveSharpness())  # type: ignore[arg-type]
    changed = with_rule(network, bptt(Arctan()))
    assert torch.equal(
        Through(AdaptiveSharpness(), PGD(THREAT, steps=2))(changed, images(), labels(), rng()),
        Through(AdaptiveSharpness(), PGD(THREAT, steps=2))(network, images(), labels(), rng()),
    )


@pytest.mark.parametrize(
    "settings",
    [{"vanishing": 0.0}, {"vanishing": 0.5}, {"momentum": 1.0}, {"relax": -1.0}, {"relax": math.inf}],
    ids=str,
)
def test_settings_out_of_range_raise(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="AdaptiveSharpness got vanishing"):
        AdaptiveSharpness(**settings)


@dataclass(frozen=True)
class Tuned:
    """Reaches a margin that is best where A/2 is as wanted; writes down each A/2 it was asked to try."""

    wanted: tuple[float, ...]
    tried: list[Tensor] = field(default_factory=list, compare=False)

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        vanishing: Tensor = model.tracker.vanishing  # type: ignore[attr-defined]
        self.tried.append(vanishing)
        off = (vanishing - torch.tensor(self.wanted, dtype=x.dtype)).abs()
        return torch.ones_like(x) * (0.4 - off)[:, None, None, None]  # margin -0.1 - off: never adversarial


def test_the_search_closes_in_on_each_samples_own_sharpness() -> None:
    wanted, rounds = (0.36, 0.42, 0.49), 6
    tuned, x = Tuned(wanted), torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    SearchedSharpness(tuned, rounds=rounds)(Scores(), x, torch.zeros(3, dtype=torch.int64), rng(3))
    assert len(tuned.tried) == 2 * rounds + 2, "two probes a round, the best value and the default one"
    width = (0.49 - 0.35) * (2 / 3) ** rounds
    assert (tuned.tried[-2] - torch.tensor(wanted, dtype=x.dtype)).abs().max() <= width
    assert all(((0.35 <= tried) & (tried <= 0.49)).all() for tried in tuned.tried)


def test_the_search_is_never_weaker_than_none_and_treats_each_sample_alone() -> None:
    network, x = plain(), images(40)
    with torch.no_grad():
        y = network(x).argmax(1)
    threat = Threat(Linf(0.3))
    attack = PGD(threat, steps=3, step_size=0.5)
    search = SearchedSharpness(attack, probe=PGD(threat, steps=1, step_size=1.0), rounds=2)
    found = search(network, x, y, rng(40))
    assert threat.allows(found, x).all()
    without = Through(AdaptiveSharpness(), attack)(network, x, y, rng(40))
    with torch.no_grad():
        lost, expected = (network(point).argmax(1) != y for point in (found, without))
    assert expected.any() and (lost | ~expected).all()
    chosen = torch.tensor([3, 30, 0])
    alone = search(network, x[chosen], y[chosen], rng(40).subset(chosen))
    torch.testing.assert_close(alone, found[chosen], rtol=0, atol=1e-9)


def test_the_search_leaves_fooled_samples_in_peace() -> None:
    x = torch.stack([torch.full((1, 2, 2), 0.2), torch.full((1, 2, 2), 0.9)]).double()
    seen: list[int] = []

    @dataclass(frozen=True)
    class Still:
        def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
            seen.append(len(x))
            return x

    still: Attack = Still()
    found = SearchedSharpness(still, rounds=1)(Scores(), x, torch.zeros(2, dtype=torch.int64), rng(2))
    assert seen == [2, 1, 1, 1] and torch.equal(found, x)


@pytest.mark.parametrize("settings", [{"low": 0.45, "high": 0.4}, {"high": 0.5}, {"low": 0.0}, {"rounds": 0}], ids=str)
def test_a_search_over_nothing_raises(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="SearchedSharpness got"):
        SearchedSharpness(PGD(THREAT), **settings)  # type: ignore[arg-type]


class Twice(nn.Module):
    """Two synaptic layers, one after the other, into the same spiking layer or into one each."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.coding, self.first, self.second = ConstantCoding(5), nn.Linear(12, 12), nn.Linear(12, 12)
        self.spikes = LIF()
        self.others = self.spikes if shared else LIF()

    def forward(self, x: Tensor) -> Tensor:
        seen = self.coding(x).flatten(2)
        hidden: Tensor = self.others(12 * self.second(self.spikes(12 * self.first(seen))))
        return hidden.mean(0)[:, :3]


def test_a_layer_used_twice_is_remembered_once_for_each_place() -> None:
    shared, apart = Twice(True).double(), Twice(False).double()
    x, y = images(), labels()
    with torch.no_grad():
        assert torch.equal(shared(x), apart(x))
    models = [differentiated(network, AdaptiveSharpness(), 6) for network in (shared, apart)]
    for scale in (1.0, 0.7, 0.4):
        found = [gradient(model, scale * x, y) for model in models]
        assert torch.equal(*found) and found[0].abs().max() > 0


def test_every_member_of_an_ensemble_remembers_its_own_walk_only() -> None:
    network, x = adaptive(), images()
    y = network(x).argmax(1)
    seen: list[tuple[Tensor, Tensor]] = []

    def walking(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        for scale in (1.0, 0.5):
            last = gradient(model, scale * x, y)
        seen.append((rng.index, last))
        return x

    Through(AdaptiveSharpness(), Worst((walking, walking)))(network, x, y, rng())
    (index, first), (again, second) = seen
    assert torch.equal(index, again) and torch.equal(first, second)


def test_a_fresh_model_has_the_same_samples_and_the_old_one_its_memory() -> None:
    network, x, y = adaptive(), images(), labels()
    chosen, halved = torch.tensor([4, 1]), 0.5 * images()
    used, other = (differentiated(network, AdaptiveSharpness(), 6) for _ in range(2))
    for model in (used, other):
        gradient(model, x, y)
    new = without_state(subset(used, chosen))
    untouched = subset(differentiated(network, AdaptiveSharpness(), 6), chosen)
    assert torch.equal(gradient(new, halved[chosen], y[chosen]), gradient(untouched, halved[chosen], y[chosen]))
    assert torch.equal(gradient(used, halved, y), gradient(other, halved, y))


def test_a_search_takes_a_tie_for_what_the_model_says() -> None:
    """Of equal scores the first wins: margin 0 is misclassified for label 1 and is not for label 0."""
    seen: list[int] = []

    def still(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        seen.append(len(x))
        return x

    x = torch.full((2, 1, 2, 2), 0.5, dtype=torch.float64)
    SearchedSharpness(still, rounds=1)(Scores(), x, torch.tensor([1, 0]), rng(2))
    assert seen == [2, 1, 1, 1]


def test_a_wrapped_models_state_can_be_cleared_too() -> None:
    network, x, y = adaptive(), images(), labels()
    used = WrappedModel(differentiated(network, AdaptiveSharpness(), 6))
    gradient(used, 0.5 * x, y)
    expected = gradient(differentiated(network, AdaptiveSharpness(), 6), x, y)
    assert torch.equal(gradient(without_state(used), x, y), expected)
    assert not torch.equal(gradient(used, x, y), expected)


@pytest.mark.skipif(cpu.library() is None, reason="the native kernel was not built")
@pytest.mark.parametrize("reset", list(Reset))
def test_the_fused_kernel_remembers_and_differentiates_as_the_eager_step(reset: Reset) -> None:
    """Several passes on changing points and changing parts of the batch, some of them without learning."""
    torch.manual_seed(0)
    layer = LIF(Dynamics(reset=reset))
    points = [torch.rand(5, 4, 3, 6, 6) for _ in range(5)]
    parts = [torch.arange(4), torch.tensor([3, 0]), torch.tensor([0, 2]), torch.tensor([1]), torch.arange(4)]
    found: dict[str, list[Tensor]] = {}
    for how in ("eager", "cpu"):
        tracker = DistanceTracker(AdaptiveSharpness(), 4)
        layer.rule = AdaptiveSharpnessRule(layer="only", tracker=tracker)
        found[how] = []
        for number, (point, part) in enumerate(zip(points, parts, strict=True)):
            currents = point[:, part].requires_grad_()
            frozen = tracker.state_frozen() if number == 3 else nullcontext()
            with backend.choose(how), tracker.forward_pass(part, len(part)), frozen:
                found[how].append(torch.autograd.grad(layer(currents).square().sum(), currents)[0])
    for got, expected in zip(found["cpu"], found["eager"], strict=True):
        assert expected.any() and (got - expected).abs().max() <= 1e-5 * expected.abs().max()
