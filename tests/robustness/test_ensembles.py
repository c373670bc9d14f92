"""Attacks made of attacks."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.robustness.apgd import APGD, APGDTargeted
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import EOT, Noise, Transfer, Worst
from hosnn.robustness.fab import FAB
from hosnn.robustness.losses import margin
from hosnn.robustness.model import Attack, AveragedModel, Model, count_passes
from hosnn.robustness.pgd import PGD, Restart, at_clean, fgsm, first_success
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.threats import Threat
from tests.robustness.models import Wavy, linear, samples

LINF = Threat(Linf(0.1))


def rng(count: int = 16, seed: int = 0) -> SampleRandom:
    return SampleRandom(seed, torch.arange(count) + 100)


def fooled(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        scores: Tensor = model(x_adv)
    return scores.argmax(1) != y


def test_worst_is_never_weaker_than_a_member() -> None:
    (x, y), model = samples(200, 2), Wavy()
    threat = Threat(Linf(0.02))
    members: tuple[Attack, ...] = (
        fgsm(threat),
        Noise(threat),
        PGD(threat, steps=3, step_size=0.3),
        Noise(Threat(Linf(0.01))),
    )
    worst = fooled(model, Worst(members)(model, x, y, rng(200)), y)
    alone = [Restart(member, number, "member") for number, member in enumerate(members)]
    each = [fooled(model, member(model, x, y, rng(200)), y) for member in alone]
    assert torch.equal(worst, torch.stack(each).any(0))
    assert all(0 < one.sum() < worst.sum() for one in each)


def test_worst_gives_members_only_samples_still_robust() -> None:
    (x, y), model = samples(), linear()
    seen: list[Tensor] = []

    def watching(model: object, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        seen.append(rng.index)
        return x

    first = PGD(LINF, steps=5)
    Worst((first, watching))(model, x, y, rng())
    robust = ~fooled(model, first(model, x, y, rng()), y)
    assert 0 < robust.sum() < 16 and torch.equal(seen[0], rng().index[robust])


def test_transfer_does_not_look_at_its_victim() -> None:
    x, y = samples()

    def victim(x: Tensor) -> Tensor:
        pytest.fail("the model under attack was called")

    source = linear(seed=3)
    assert torch.equal(Transfer(source, fgsm(LINF))(victim, x, y, rng()), fgsm(LINF)(source, x, y, rng()))


def test_noise_is_weaker_than_the_gradient() -> None:
    (x, y), model = samples(200), linear()
    noise, pgd = (fooled(model, attack(model, x, y, rng(200)), y).sum() for attack in (Noise(LINF), PGD(LINF)))
    assert noise < pgd


class Noisy(nn.Module):
    """A linear model with fresh noise in its slope, not in its scores, drawn from a generator of its own."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.inner, self.strength = linear(), strength
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        slope = torch.randn(x.shape, generator=self.generator, dtype=x.dtype) * self.strength
        scores: Tensor = self.inner(x)
        blur = (slope * (x - x.detach())).sum((1, 2, 3))[:, None]
        return scores + blur * torch.tensor([2.0, -1.0, 0.0], dtype=x.dtype)


def test_eot_sees_through_noise_that_one_look_does_not() -> None:
    """The mean of many calls points along the clean gradient; one call points anywhere."""
    x, y = samples(64)
    attack = fgsm(LINF, margin)
    wanted = attack(linear(), x, y, rng(64)) - x
    alike = []
    for variant in (attack, EOT(attack, 400)):
        moved = variant(Noisy(4.0), x, y, rng(64)) - x
        alike.append(float(((moved * wanted) > 0).double().mean()))
    assert alike[0] < 0.75 and alike[1] > 0.9


def test_eot_counts_every_look() -> None:
    x, free = samples()[0], Threat(Linf(0.0))
    right = linear()(x).argmax(1)  # with no budget no sample ever drops out
    for attack in (PGD(free, steps=3, start=at_clean), APGD(free, steps=2)):
        with count_passes() as once:
            attack(linear(), x, right, rng())
        with count_passes() as often:
            EOT(attack, 7)(linear(), x, right, rng())
        assert (once.forward, once.backward) == (48, 48)
        assert (often.forward, often.backward) == (7 * once.forward, 7 * once.backward)


def test_eot_of_a_model_without_noise_changes_nothing() -> None:
    x, y = samples()
    attack = PGD(LINF, steps=4)
    torch.testing.assert_close(EOT(attack, 3)(linear(), x, y, rng()), attack(linear(), x, y, rng()))


def test_eot_shows_its_attack_the_repeated_model() -> None:
    x, y = samples()
    seen: list[Model] = []

    def watching(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        seen.append(model)
        return x

    model = linear()
    EOT(watching, 5)(model, x, y, rng())
    assert seen == [AveragedModel(model, 5)]


def test_settings_out_of_range_raise() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Worst(())
    for times in (0, -3):
        with pytest.raises(ConfigError, match="at least 1 call"):
            EOT(fgsm(LINF), times)


def test_members_draw_random_numbers_of_their_own() -> None:
    """Members that share a random start are one attack twice; the first draws as it would alone."""
    x, _ = samples()
    right = linear()(x).argmax(1)
    drawn: list[Tensor] = []

    def drawing(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        drawn.append(rng.uniform(x))
        return x

    Worst((drawing, drawing, drawing))(linear(), x, right, rng())
    assert len(drawn) == 3 and torch.equal(drawn[0], rng().uniform(x))
    assert all(not torch.equal(drawn[i], drawn[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_transfer_crafts_in_eval_mode_and_gives_every_mode_back() -> None:
    x, y = samples()
    source = nn.Sequential(linear(seed=3), nn.Dropout(0.5), nn.Dropout(0.5))
    expected = fgsm(LINF)(source.eval(), x, y, rng())
    source.train()[2].eval()
    for one in (source, source.forward):
        assert torch.equal(Transfer(one, fgsm(LINF))(linear(), x, y, rng()), expected)
        assert [module.training for module in source] == [True, True, False] and source.training

    def failing(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        Transfer(source, failing)(linear(), x, y, rng())
    assert [module.training for module in source] == [True, True, False] and source.training


def test_threads_that_share_a_source_do_not_wake_each_others() -> None:
    """One is done while the other still crafts: the source stays in eval mode until the last is done."""
    (x, y), source = samples(), linear(seed=3).train()
    both, first_done = threading.Barrier(2, timeout=10), threading.Event()
    modes: list[bool] = []

    def short(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        both.wait()
        return x

    def long(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        both.wait()
        assert first_done.wait(10)
        modes.append(source.training)
        return x

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(Transfer(source, long), source, x, y, rng())
        pool.submit(Transfer(source, short), source, x, y, rng()).result()
        first_done.set()
        slow.result()
    assert modes == [False] and source.training


def test_transfer_brings_images_to_the_source() -> None:
    x, y = samples()
    source, seen = linear(seed=3).to("meta"), []

    def watching(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        seen.append((x.device.type, y.device.type))
        return torch.zeros(x.shape)

    assert Transfer(source, watching)(linear(), x, y, rng()).device == x.device
    assert seen == [("meta", "meta")]


class Resettable:
    """A linear model that counts how often an attack clears its state."""

    def __init__(self, runs: list[int], inner: nn.Module) -> None:
        self.runs, self.inner = runs, inner

    def __call__(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x)
        return scores

    def without_state(self) -> "Resettable":
        self.runs.append(1)
        return self


FREE = Threat(Linf(0.0))
RUNS: dict[str, tuple[Attack, int]] = {
    "PGD": (PGD(FREE, steps=2, restarts=3), 3),
    "APGD": (APGD(FREE, steps=2, restarts=3), 3),
    "APGD, once": (APGD(FREE, steps=2), 1),
    "SAPGD": (SAPGD(FREE, steps=2, restarts=2), 2),
    "APGD-T": (APGDTargeted(FREE, steps=2, restarts=2), 6),
    "FAB": (FAB(FREE, steps=2, restarts=2), 6),
    "worst": (Worst((fgsm(FREE), PGD(FREE, steps=1), APGD(FREE, steps=1, restarts=2))), 4),
    "EOT": (EOT(PGD(FREE, steps=2, restarts=3), 2), 3),
}


@pytest.mark.parametrize(("attack", "runs"), RUNS.values(), ids=RUNS)
def test_every_run_but_the_first_clears_the_models_state(attack: Attack, runs: int) -> None:
    """With eps = 0 every sample stays robust, so that no run is skipped."""
    x, began, inner = samples()[0], list[int](), linear(4)
    attack(Resettable(began, inner), x, inner(x).argmax(1), rng())
    assert len(began) == runs - 1


class TiedInside(nn.Module):
    """Two classes that tie exactly where the first pixel is 0.3, and whose label wins elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        distance = (x.flatten(1)[:, 0] - 0.3).abs()
        return torch.stack([distance, torch.zeros_like(distance)], 1)


@dataclass(frozen=True)
class To:
    """Move the first pixel there."""

    value: float

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        moved = x.clone()
        moved.flatten(1)[:, 0] = self.value
        return moved


def test_a_tie_that_one_attack_reached_is_not_lost_by_the_next() -> None:
    x, y = torch.full((4, 1, 2, 2), 0.5, dtype=torch.float64), torch.zeros(4, dtype=torch.long)
    for order in ((To(0.3), To(0.4)), (To(0.4), To(0.3))):
        reached = first_success(order, TiedInside(), x, y, rng(4))
        assert (reached.flatten(1)[:, 0] == 0.3).all()
