"""One table drives every attack through the laws all attacks share; closed forms on linear models pin each."""

from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.robustness.ensembles import Noise, Transfer, Worst
from hosnn.robustness.gradient import PGD, at_clean, bim, fgsm, half_eps_signs, r_fgsm
from hosnn.robustness.losses import cross_entropy, margin
from hosnn.robustness.model import Attack, input_gradient
from hosnn.robustness.random import SampleRandom
from hosnn.robustness.threats import L1, L2, Ball, Linf, Threat
from tests.robustness.models import Wavy, linear, samples

LINF, EUCLID, SPARSE = Threat(Linf(0.1)), Threat(L2(0.5)), Threat(L1(0.8))


def table(linf: Threat, euclid: Threat, sparse: Threat) -> dict[str, tuple[Threat, Attack]]:
    return {
        "fgsm": (linf, fgsm(linf)),
        "fgsm, L2": (euclid, fgsm(euclid)),
        "r-fgsm": (linf, r_fgsm(linf)),
        "bim": (linf, bim(linf)),
        "pgd": (linf, PGD(linf, steps=5)),
        "pgd, L2": (euclid, PGD(euclid, steps=5)),
        "pgd, L1": (sparse, PGD(sparse, steps=5)),
        "pgd, margin": (linf, PGD(linf, steps=5, loss=margin)),
        "pgd, from x": (linf, PGD(linf, steps=5, start=at_clean)),
        "pgd, last point": (linf, PGD(linf, steps=5, keep_best=False)),
        "pgd, 3 restarts": (linf, PGD(linf, steps=2, restarts=3)),
        "pgd, signs, L2": (euclid, PGD(euclid, steps=2, start=half_eps_signs)),
        "noise": (linf, Noise(linf)),
        "noise, L2": (euclid, Noise(euclid)),
        "noise, L1": (sparse, Noise(sparse)),
        "worst": (linf, Worst((fgsm(linf), Noise(linf), PGD(linf, steps=3)))),
        "transfer": (linf, Transfer(linear(seed=3), PGD(linf, steps=3))),
    }


ATTACKS = table(LINF, EUCLID, SPARSE)
EVERY = pytest.mark.parametrize(("threat", "attack"), ATTACKS.values(), ids=ATTACKS)


def rng(count: int = 16, seed: int = 0) -> SampleRandom:
    return SampleRandom(seed, torch.arange(count) + 100)


def fooled(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        scores: Tensor = model(x_adv)
    return scores.argmax(1) != y


@EVERY
@pytest.mark.parametrize("model", [linear(), Wavy()], ids=["linear", "wavy"])
def test_attack_stays_inside_its_threat(threat: Threat, attack: Attack, model: nn.Module) -> None:
    x, y = samples(classes=2)
    x[0], x[1] = 0.0, 1.0  # corners of the pixel range
    x_adv = attack(model, x, y, rng())
    assert threat.allows(x_adv, x, atol=1e-12).all()
    assert x_adv.shape == x.shape and x_adv.dtype is x.dtype and not x_adv.requires_grad
    assert not torch.equal(x_adv, x)


@EVERY
def test_attack_stays_inside_its_threat_where_the_gradient_is_not_finite(threat: Threat, attack: Attack) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = linear()(x)
            return scores + 0 * (x - x.detach()).square().sum((1, 2, 3), keepdim=False).sqrt()[:, None]

    x, y = samples()
    assert input_gradient(Broken(), x, y, cross_entropy).gradient.isnan().any()
    assert threat.allows(attack(Broken(), x, y, rng()), x).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@EVERY
def test_attack_stays_inside_its_threat_in_every_precision(threat: Threat, attack: Attack, dtype: torch.dtype) -> None:
    if isinstance(attack, Transfer):
        attack = replace(attack, source=linear(seed=3, dtype=dtype))
    x, y = samples(dtype=dtype)
    x_adv = attack(linear(dtype=dtype), x, y, rng())
    rounding = 12 * torch.finfo(dtype).eps
    assert x_adv.dtype is dtype and threat.allows(x_adv.double(), x.double(), atol=rounding).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_no_budget_returns_the_images_exactly(name: str) -> None:
    attack = table(*(threat.with_eps(0) for threat in (LINF, EUCLID, SPARSE)))[name][1]
    x, y = samples()
    x[0], x[1] = 0.0, 1.0
    assert torch.equal(attack(linear(), x, y, rng()), x)


@EVERY
def test_same_seed_same_result_and_inputs_are_left_alone(threat: Threat, attack: Attack) -> None:
    (x, y), model = samples(), linear()
    kept = x.clone(), y.clone()
    torch.manual_seed(1)
    first = attack(model, x, y, rng())
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(attack(model, x, y, rng()), first)
    assert torch.equal(torch.get_rng_state(), state), "an attack must not draw from the global generator"
    assert torch.equal(x, kept[0]) and torch.equal(y, kept[1]) and not x.requires_grad


@EVERY
def test_a_sample_is_attacked_the_same_in_any_batch(threat: Threat, attack: Attack) -> None:
    """In float64, up to the last rounding of a matrix product."""
    (x, y), model = samples(), linear()
    whole = attack(model, x, y, rng())
    for rows in (torch.tensor([5]), torch.tensor([9, 2, 14]), torch.arange(16).flip(0)):
        part = attack(model, x[rows], y[rows], rng().rows(rows))
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-13)


@EVERY
def test_gradients_of_weights_are_untouched(threat: Threat, attack: Attack) -> None:
    (x, y), model = samples(), linear()
    for holding in (False, True):
        parameters = list(model.parameters())
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter) if holding else None
        attack(model, x, y, rng())
        for parameter in parameters:
            assert parameter.requires_grad
            assert (parameter.grad is not None) is holding
            assert parameter.grad is None or torch.equal(parameter.grad, torch.ones_like(parameter))


@EVERY
def test_attacking_works_under_no_grad_and_keeps_the_models_mode(threat: Threat, attack: Attack) -> None:
    (x, y), model = samples(), linear()
    expected = attack(model, x, y, rng())
    with torch.no_grad():
        for training in (False, True):
            assert torch.equal(attack(model.train(training), x, y, rng()), expected)
            assert all(module.training is training for module in model.modules())


LOOKS_AT_GRADIENTS = {name: entry for name, entry in ATTACKS.items() if "noise" not in name and name != "transfer"}


@pytest.mark.parametrize(("threat", "attack"), LOOKS_AT_GRADIENTS.values(), ids=LOOKS_AT_GRADIENTS)
def test_a_model_that_carries_no_gradient_is_refused(threat: Threat, attack: Attack) -> None:
    (x, y), inner = samples(), linear()

    def undifferentiable(x: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = inner(x)
        return scores

    for model in (lambda x: inner(x).detach(), undifferentiable):
        with pytest.raises(ConfigError, match="carry no gradient to its input"):
            attack(model, x, y, rng())


RANDOM = {name: ATTACKS[name] for name in ("r-fgsm", "pgd", "pgd, L2", "pgd, L1", "noise", "noise, L2", "noise, L1")}


@pytest.mark.parametrize(("threat", "attack"), RANDOM.values(), ids=RANDOM)
def test_another_seed_or_sample_index_draws_other_numbers(threat: Threat, attack: Attack) -> None:
    (x, y), model = samples(), linear()
    first = attack(model, x, y, rng())
    assert not torch.equal(attack(model, x, y, rng(seed=1)), first)
    assert not torch.equal(attack(model, x, y, SampleRandom(0, torch.arange(16))), first)


def two_classes(w: Tensor) -> nn.Module:
    """Margin of class 0 over class 1 = 2 w · x."""

    class Margin(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = (x.flatten(1) * w).sum(1)
            return torch.stack([score, -score], 1)

    return Margin()


def optimum(ball: Ball, w: Tensor) -> Tensor:
    """The perturbation of norm eps that lowers w · x most."""
    if isinstance(ball, Linf):
        return -ball.eps * w.sign()
    if isinstance(ball, L2):
        return -ball.eps * w / w.square().sum().sqrt()
    return -ball.eps * w.sign() * (w.abs() == w.abs().max())


W = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.1), L1(0.1)], ids=str)
@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_fgsm_is_exact_on_a_linear_model(ball: Ball, loss: object) -> None:
    x, y = torch.full((3, 4), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    x_adv = fgsm(Threat(ball), loss)(two_classes(W), x, y, rng(3))  # type: ignore[arg-type]
    torch.testing.assert_close(x_adv, x + optimum(ball, W))


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.1), L1(0.1)], ids=str)
def test_pgd_reaches_the_optimum_of_a_linear_model_from_any_start(ball: Ball) -> None:
    x, y = torch.full((8, 4), 0.5, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    attack = PGD(Threat(ball), steps=250, keep_best=False)
    torch.testing.assert_close(
        attack(two_classes(W), x, y, rng(8)), (x + optimum(ball, W)).expand_as(x), atol=1e-8, rtol=0
    )


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.1), L1(0.1)], ids=str)
@pytest.mark.parametrize("tiny", [1e-30, 1e-200])
def test_a_tiny_gradient_still_gives_a_full_step(ball: Ball, tiny: float) -> None:
    """A step that underflows to zero would pass for robustness."""
    x, y = torch.full((3, 4), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    x_adv = fgsm(Threat(ball), margin)(two_classes(W * tiny), x, y, rng(3))
    torch.testing.assert_close(x_adv, x + optimum(ball, W))


def test_the_valid_domain_binds_before_the_ball() -> None:
    x, y = torch.tensor([[0.05, 0.95, 0.0, 1.0]], dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    x_adv = fgsm(Threat(Linf(0.1)))(two_classes(W), x, y, rng(1))
    torch.testing.assert_close(x_adv, torch.tensor([[0.0, 1.0, 0.0, 0.9]], dtype=torch.float64))
    free = fgsm(Threat(Linf(0.1), domain=None))(two_classes(W), x, y, rng(1))
    torch.testing.assert_close(free, x - 0.1 * W.sign())


def test_bim_takes_its_whole_budget_in_equal_steps() -> None:
    (x, y), model = samples(), linear()
    inside = 0.2 + 0.6 * x
    torch.testing.assert_close(
        bim(LINF, loss=margin)(two_classes(W.repeat(3)), inside, y * 0, rng()),
        fgsm(LINF, margin)(two_classes(W.repeat(3)), inside, y * 0, rng()),
    )
    assert (bim(LINF, 7).steps, bim(LINF, 7).step_size) == (7, 1 / 7)
    assert LINF.allows(bim(LINF, 3)(model, x, y, rng()), x).all()


def test_r_fgsm_moves_every_pixel_by_all_or_nothing() -> None:
    """eps/2 at random and eps/2 along the gradient: they add or cancel."""
    x = torch.full((64, 4), 0.5, dtype=torch.float64)
    moved = r_fgsm(LINF)(two_classes(W), x, torch.zeros(64, dtype=torch.int64), rng(64)) - x
    along = moved / optimum(Linf(0.1), W)
    assert ((along - 1).abs().minimum(along.abs()) < 1e-9).all()
    assert 0.35 < (along > 0.5).double().mean() < 0.65


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


@pytest.mark.parametrize("keep_best", [True, False])
def test_more_restarts_are_never_weaker(keep_best: bool) -> None:
    (x, y), model = samples(200, 2), Wavy()
    y = torch.ones_like(y)
    once = PGD(Threat(Linf(0.01)), steps=1, step_size=0.1, keep_best=keep_best)
    found = [fooled(model, replace(once, restarts=n)(model, x, y, rng(200)), y) for n in (1, 2, 3, 5)]
    for fewer, more in pairwise(found):
        assert (more | ~fewer).all() and more.sum() > fewer.sum()


def test_keeping_the_best_point_is_never_weaker_than_the_last() -> None:
    (x, y), model = samples(200, 2), Wavy()
    attack = PGD(Threat(Linf(0.02)), steps=4, step_size=0.7)
    kept = fooled(model, attack(model, x, y, rng(200)), y)
    last = fooled(model, replace(attack, keep_best=False)(model, x, y, rng(200)), y)
    assert (kept | ~last).all() and kept.sum() > last.sum()


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


def test_impossible_settings_are_refused() -> None:
    for wrong in ({"steps": 0}, {"restarts": 0}, {"step_size": 0.0}, {"step_size": -1.0}, {"step_size": float("nan")}):
        with pytest.raises(ConfigError, match="at least 1 step and restart"):
            PGD(LINF, **wrong)
    with pytest.raises(ConfigError, match="at least one"):
        Worst(())
    with pytest.raises(FrozenInstanceError):
        PGD(LINF).steps = 3  # type: ignore[misc]


def test_losses_say_what_they_say() -> None:
    scores, y = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 4
    assert torch.equal(margin(scores, y) > 0, scores.argmax(1) != y)
    expected = -(scores.exp() / scores.exp().sum(1, keepdim=True))[torch.arange(50), y].log()
    torch.testing.assert_close(cross_entropy(scores, y), expected)
    seen = input_gradient(linear(), *samples(), margin)
    assert seen.gradient.shape == (16, 1, 3, 4) and seen.loss.shape == (16,) and seen.scores.shape == (16, 3)
