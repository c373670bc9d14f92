"""Attacks made of attacks."""

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.robustness.apgd import APGD
from hosnn.robustness.ensembles import EOT, Noise, Transfer, Worst
from hosnn.robustness.gradient import PGD, at_clean, fgsm
from hosnn.robustness.losses import margin
from hosnn.robustness.model import Attack, Model, Repeated, counted
from hosnn.robustness.random import SampleRandom
from hosnn.robustness.threats import Linf, Threat
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
    each = [fooled(model, member(model, x, y, rng(200)), y) for member in members]
    assert torch.equal(worst, torch.stack(each).any(0))
    assert all(0 < one.sum() < worst.sum() for one in each)


def test_worst_shows_members_only_what_still_stands() -> None:
    (x, y), model = samples(), linear()
    seen: list[Tensor] = []

    def watching(model: object, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        seen.append(rng.index)
        return x

    first = PGD(LINF, steps=5)
    Worst((first, watching))(model, x, y, rng())
    standing = ~fooled(model, first(model, x, y, rng()), y)
    assert 0 < standing.sum() < 16 and torch.equal(seen[0], rng().index[standing])


def test_transfer_does_not_look_at_its_victim() -> None:
    x, y = samples()

    def victim(x: Tensor) -> Tensor:
        pytest.fail("the victim was looked at")

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
    """The mean of many looks points along the clean gradient; one look points anywhere."""
    x, y = samples(64)
    attack = fgsm(LINF, margin)
    wanted = attack(linear(), x, y, rng(64)) - x
    alike = []
    for looks in (attack, EOT(attack, 400)):
        moved = looks(Noisy(4.0), x, y, rng(64)) - x
        alike.append(float(((moved * wanted) > 0).double().mean()))
    assert alike[0] < 0.75 and alike[1] > 0.9


def test_eot_counts_every_look() -> None:
    x, free = samples()[0], Threat(Linf(0.0))
    right = linear()(x).argmax(1)  # with no budget no sample ever drops out
    for attack in (PGD(free, steps=3, start=at_clean), APGD(free, steps=2)):
        with counted() as once:
            attack(linear(), x, right, rng())
        with counted() as often:
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
    assert seen == [Repeated(model, 5)]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Worst(())
    for times in (0, -3):
        with pytest.raises(ConfigError, match="at least 1 look"):
            EOT(fgsm(LINF), times)
