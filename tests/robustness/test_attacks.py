"""One table drives every attack through the laws all attacks share; closed forms on linear models pin each."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.identity import identity_text
from hosnn.rng import SampleRandom
from hosnn.robustness.apgd import APGD, APGDTargeted
from hosnn.robustness.balls import L1, L2, Ball, Linf
from hosnn.robustness.ensembles import EOT, Noise, Transfer, Worst
from hosnn.robustness.losses import (
    PerStep,
    cross_entropy,
    margin,
    misclassified,
    targeted_cross_entropy,
    targeted_margin,
)
from hosnn.robustness.model import Attack, count_passes, input_gradient
from hosnn.robustness.pgd import PGD, at_clean, bim, fgsm, half_eps_signs, mi_fgsm, r_fgsm
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.threats import Threat
from tests.covering import each_value
from tests.robustness.models import Wavy, linear, samples

LINF, EUCLID, SPARSE = Threat(Linf(0.1)), Threat(L2(0.5)), Threat(L1(0.8))


def table(linf: Threat, euclid: Threat, sparse: Threat) -> dict[str, tuple[Threat, Attack]]:
    return {
        "fgsm": (linf, fgsm(linf)),
        "fgsm, L2": (euclid, fgsm(euclid)),
        "r-fgsm": (linf, r_fgsm(linf)),
        "bim": (linf, bim(linf, steps=4)),
        "pgd": (linf, PGD(linf, steps=5)),
        "pgd, L2": (euclid, PGD(euclid, steps=5)),
        "pgd, L1": (sparse, PGD(sparse, steps=5)),
        "pgd, margin": (linf, PGD(linf, steps=5, loss=margin)),
        "pgd, from x": (linf, PGD(linf, steps=5, start=at_clean)),
        "pgd, last point": (linf, PGD(linf, steps=5, keep_best=False)),
        "pgd, 3 restarts": (linf, PGD(linf, steps=2, restarts=3)),
        "pgd, signs, L2": (euclid, PGD(euclid, steps=2, start=half_eps_signs)),
        "pgd, momentum, L2": (euclid, PGD(euclid, steps=5, momentum=0.5)),
        "mi-fgsm": (linf, mi_fgsm(linf, steps=5)),
        "apgd": (linf, APGD(linf, steps=6)),
        "apgd, L2": (euclid, APGD(euclid, steps=6)),
        "apgd, margin, 2 restarts": (linf, APGD(linf, steps=3, restarts=2, loss=margin)),
        "apgd, targeted": (linf, APGDTargeted(linf, steps=3, loss=targeted_margin)),
        "apgd, targeted, L2": (euclid, APGDTargeted(euclid, steps=3, restarts=2, loss=targeted_cross_entropy)),
        "sapgd": (linf, SAPGD(linf, steps=6)),
        "sapgd, 2 restarts, from x": (linf, SAPGD(linf, steps=3, restarts=2, start=at_clean)),
        "eot": (linf, EOT(PGD(linf, steps=3), eot_samples=2)),
        "eot of apgd": (linf, EOT(APGD(linf, steps=3), eot_samples=2)),
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


OTHER_PRECISIONS = each_value(tuple(ATTACKS), (torch.bfloat16, torch.float32))


@pytest.mark.parametrize(("name", "dtype"), [*((name, torch.float16) for name in ATTACKS), *OTHER_PRECISIONS])
def test_attack_stays_inside_its_threat_in_every_precision(name: str, dtype: torch.dtype) -> None:
    threat, attack = ATTACKS[name]
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
def test_same_seed_same_result_and_inputs_are_unchanged(threat: Threat, attack: Attack) -> None:
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
        part = attack(model, x[rows], y[rows], rng().subset(rows))
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
def test_a_model_that_carries_no_gradient_raises(threat: Threat, attack: Attack) -> None:
    (x, y), inner = samples(), linear()

    def undifferentiable(x: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = inner(x)
        return scores

    for model in (lambda x: inner(x).detach(), undifferentiable):
        with pytest.raises(ConfigError, match="carry no gradient to its input"):
            attack(model, x, y, rng())


RANDOM = {
    name: ATTACKS[name]
    for name in (
        *("r-fgsm", "pgd", "pgd, L2", "pgd, L1", "noise", "noise, L2", "noise, L1"),
        *("apgd", "apgd, L2", "sapgd"),
    )
}


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


def test_settings_out_of_range_raise() -> None:
    for wrong in ({"steps": 0}, {"restarts": 0}, {"step_size": 0.0}, {"step_size": -1.0}, {"step_size": float("nan")}):
        with pytest.raises(ConfigError, match="at least 1 step and restart"):
            PGD(LINF, **wrong)
    for momentum in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="momentum"):
            PGD(LINF, momentum=momentum)
    with pytest.raises(FrozenInstanceError):
        PGD(LINF).steps = 3  # type: ignore[misc]


@EVERY
def test_an_attack_prints_the_same_in_every_process(threat: Threat, attack: Attack) -> None:
    """The hash of a protocol is taken of it, with the addresses of plain functions left out."""
    assert "lambda" not in repr(attack) and "<locals>" not in repr(attack)
    assert repr(attack) == repr(replace(attack))  # type: ignore[type-var]


@EVERY
def test_nothing_to_attack(threat: Threat, attack: Attack) -> None:
    x, y = samples()
    assert torch.equal(attack(linear(), x[:0], y[:0], rng().subset(torch.arange(0))), x[:0])


def test_no_momentum_is_plain_pgd_bit_for_bit() -> None:
    (x, y), model = samples(), linear()
    for ball in (Linf(0.1), L2(0.5), L1(0.8)):
        attack = PGD(Threat(ball), steps=7, momentum=0.0, keep_best=False)
        x_adv = attack.threat.project(x + ball.sample(x, rng().fold("start")), x)
        for _ in range(7):
            gradient = input_gradient(model, x_adv, y, cross_entropy).gradient
            x_adv = attack.threat.project(x_adv + 0.1 * ball.eps * ball.steepest(gradient), x)
        assert torch.equal(attack(model, x, y, rng()), x_adv)
    smooth = PGD(EUCLID, steps=7, keep_best=False)
    assert not torch.equal(replace(smooth, momentum=0.9)(model, x, y, rng()), smooth(model, x, y, rng()))


def test_mi_fgsm_climbs_along_the_sum_of_normalised_gradients() -> None:
    """Dong et al. 2018, equations 6 and 7, on a surface whose slope changes in size and direction."""
    (x, y), inner = samples(), linear()

    def model(x: Tensor) -> Tensor:
        scores: Tensor = 20 * (2 * inner(x)).sin()
        return scores

    for threat in (LINF, EUCLID):
        x_adv, direction = x, torch.zeros_like(x)
        for _ in range(4):
            gradient = input_gradient(model, x_adv, y, cross_entropy).gradient
            direction = 0.8 * direction + gradient / gradient.abs().mean((1, 2, 3), keepdim=True)
            x_adv = threat.project(x_adv + threat.ball.eps / 4 * threat.ball.steepest(direction), x)
        torch.testing.assert_close(mi_fgsm(threat, steps=4, decay=0.8)(model, x, y, rng()), x_adv)


def test_momentum_crosses_a_slope_that_points_both_ways() -> None:
    """Plain ascent goes to and fro about the top of a bump on the wide slope; momentum carries over the dip behind."""

    class Bumpy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            height = x[:, 0] + 0.02 * (2 * torch.pi * x[:, 0] / 0.05).sin()
            return torch.stack([torch.full_like(height, 0.65), height], 1)

    x, y = torch.full((1, 1), 0.485, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    plain = PGD(Threat(Linf(0.2)), steps=60, step_size=0.02, start=at_clean, loss=margin)
    lost = [fooled(Bumpy(), attack(Bumpy(), x, y, rng(1)), y).item() for attack in (plain, replace(plain, momentum=1))]
    assert lost == [False, True]


def test_a_sample_already_lost_costs_no_more_passes() -> None:
    """The cost is the number of steps up to each sample's first adversarial point."""
    (x, y), model = samples(200, 2), Wavy()
    attack = PGD(Threat(Linf(0.02)), steps=6, step_size=0.2)
    with count_passes() as passes:
        kept = attack(model, x, y, rng(200))
    cost, ended = 0, torch.zeros(200, dtype=torch.bool)
    for steps in range(6):
        cost += int((~ended).sum())
        if steps == 0:
            reached = attack.threat.project(x + attack.start(attack.threat.ball, x, rng(200).fold("start")), x)
        else:
            reached = replace(attack, steps=steps, keep_best=False)(model, x, y, rng(200))
        ended |= fooled(model, reached, y)
    assert (passes.forward, passes.backward) == (cost, cost) and 200 < cost < 1200
    assert fooled(model, kept, y)[ended].all()


def test_dropping_samples_changes_no_result() -> None:
    """Compared with the same steps taken by all samples to the end."""
    (x, y), model = samples(200, 2), Wavy()
    attack = PGD(Threat(Linf(0.02)), steps=6, step_size=0.2, momentum=0.5)
    steps = [replace(attack, steps=number, keep_best=False)(model, x, y, rng(200)) for number in range(1, 7)]
    start = attack.threat.project(x + attack.start(attack.threat.ball, x, rng(200).fold("start")), x)
    expected, ended = steps[-1].clone(), torch.zeros(200, dtype=torch.bool)
    for point in (start, *steps[:-1]):
        first = fooled(model, point, y) & ~ended
        expected[first] = point[first]
        ended |= first
    torch.testing.assert_close(attack(model, x, y, rng(200)), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "attack", [PGD(LINF, steps=4), PGD(LINF, steps=2, restarts=2), APGD(LINF, 4), SAPGD(LINF, 4)], ids=identity_text
)
def test_outputs_over_time_are_judged_by_their_mean(attack: Attack) -> None:
    """A model of 3 steps that all give the logits is attacked as the model that gives the logits."""
    (x, y), model = samples(), linear()

    def over_time(x: Tensor) -> Tensor:
        return torch.stack([model(x)] * 3)

    shown = replace(attack, loss=PerStep(cross_entropy))  # type: ignore[type-var]
    torch.testing.assert_close(shown(over_time, x, y, rng()), attack(model, x, y, rng()))


def test_one_step_may_say_otherwise_than_the_mean_over_time() -> None:
    outputs = torch.tensor([[[0.0, 2.0]], [[0.0, 2.0]], [[5.0, 0.0]]])
    for y, wrong in ((0, False), (1, True)):
        assert misclassified(outputs, torch.tensor([y])).tolist() == [wrong]
    assert misclassified(outputs[:2], torch.tensor([0])).tolist() == [True]


class OwnSamples:
    """A model that fails on samples other than those it was narrowed to by `subset`."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model, self.x = model, x

    def __call__(self, x: Tensor) -> Tensor:
        assert len(x) == len(self.x) and ((x - self.x).abs().flatten(1).amax(1) < 0.11).all(), "another sample"
        scores: Tensor = self.model(x)
        return scores

    def subset(self, chosen: Tensor) -> "OwnSamples":
        return OwnSamples(self.model, self.x[chosen])

    def state_frozen(self) -> AbstractContextManager[None]:
        return nullcontext()


LINF_ATTACKS = {name: entry for name, entry in ATTACKS.items() if entry[0] is LINF and name != "transfer"}


@pytest.mark.parametrize(("threat", "attack"), LINF_ATTACKS.values(), ids=LINF_ATTACKS)
def test_a_stateful_model_is_narrowed_to_the_samples_still_attacked(threat: Threat, attack: Attack) -> None:
    (x, y), model = samples(), linear()
    assert torch.equal(attack(OwnSamples(model, x), x, y, rng()), attack(model, x, y, rng()))
