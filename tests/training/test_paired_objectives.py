"""Objectives over clean and perturbed images: their losses by other formulas, training, and interruptions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from hosnn.data import Dataset
from hosnn.errors import ConfigError
from hosnn.estimators import AdaptiveSharpness, Through
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.nn.layers import SpikingNetwork
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L2, Linf
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.training.estimated_objective import WeightsThrough
from hosnn.training.experiment import Experiment, Optimisation
from hosnn.training.free_objective import FreeAdversarial
from hosnn.training.membrane_objectives import NearThreshold, PerturbedMembranes
from hosnn.training.objectives import Adversarial, Clean, CrossEntropy, Objective, VanRossum
from hosnn.training.paired_objectives import MART, TRADES, Orthogonal, SparseGradients, divergence, near_clean
from hosnn.training.pipeline import run
from tests.training.toy import STEPS_PER_EPOCH, StopAfter, log_lines, same_bits

THREAT = Threat(Linf(0.05))
ATTACK = PGD(THREAT, steps=2, step_size=0.5, keep_best=False)
SCALED = CrossEntropy(scale=3.0)
OBJECTIVES: dict[str, Any] = {
    "smoothed": Adversarial(ATTACK, CrossEntropy(smoothing=0.1), "eval"),
    "TRADES": TRADES(replace(ATTACK, start=near_clean)),
    "MART": MART(ATTACK, CrossEntropy(), "train"),
    "sparse gradients": SparseGradients(ATTACK, CrossEntropy(), "eval"),
    "orthogonal": Orthogonal(ATTACK, CrossEntropy(), "eval"),
    "perturbed membranes": PerturbedMembranes(ATTACK, CrossEntropy(), "eval"),
    "near threshold": NearThreshold(ATTACK, CrossEntropy(), "eval"),
    "through ASSG": WeightsThrough(Adversarial(ATTACK, CrossEntropy(), "eval"), AdaptiveSharpness()),
    "free": FreeAdversarial(THREAT, CrossEntropy(), replays=2),
}
NETWORK = ConvNet(
    "4C3-P2-8-4",
    (1, 28, 28),
    (0.5,),
    (0.25,),
    steps=3,
    dropout=0.2,
    pool_gain=0.25,
    rule=bptt(),
    spiking_output=False,
    analogue_layers=1,
)


class Table(nn.Module):
    """A network whose logits are those of a table, first of the clean images, then of the perturbed ones."""

    def __init__(self, *logits: Tensor) -> None:
        super().__init__()
        self.logits = list(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.pop(0)


class Smooth(nn.Module):
    """logits = W x + (V x)², so that gradients are known."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.w, self.v = (nn.Parameter(torch.randn(4, 9, generator=rng).double()) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.dropout(x.flatten(1))
        logits: Tensor = flat @ self.w.T + (flat @ self.v.T).square()
        return logits


def logits() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    clean, moved = (torch.randn(5, 4, generator=rng).double() for _ in range(2))
    return clean, moved, torch.tensor([0, 1, 2, 3, 0])


def pixels(count: int = 5) -> Tensor:
    return torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(1)).double()


def softmax(values: Tensor, scale: float = 1.0) -> Any:
    exponents = np.exp(scale * values.numpy())
    return exponents / exponents.sum(1, keepdims=True)


def losses(objective: Objective, network: Any, x: Tensor, perturbed: Tensor, y: Tensor) -> Any:
    return objective.losses(network, x, perturbed, y).detach().numpy()


def streams(count: int = 5) -> SampleRandom:
    return SampleRandom(0, torch.arange(count))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_is_smoothed_over_all_classes(smoothing: float) -> None:
    z, _, y = logits()
    p, rows = softmax(z, 3), np.arange(5)
    expected = -(1 - smoothing) * np.log(p[rows, y]) - smoothing * np.log(p).mean(1)
    np.testing.assert_allclose(replace(SCALED, smoothing=smoothing).of_logits(z, y), expected)


def test_the_divergence_is_kullback_and_leiblers() -> None:
    first, second, _ = logits()
    p, q = softmax(first), softmax(second)
    found = divergence(first.log_softmax(1), second.log_softmax(1))
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(1))


@pytest.mark.parametrize("loss", [CrossEntropy(), SCALED, replace(SCALED, smoothing=0.2)], ids=str)
def test_trades_is_the_loss_of_clean_images_and_a_divergence(loss: CrossEntropy) -> None:
    clean, moved, y = logits()
    p, q, rows = softmax(clean, loss.scale), softmax(moved, loss.scale), np.arange(5)
    cross_entropy = -(1 - loss.smoothing) * np.log(p[rows, y]) - loss.smoothing * np.log(p).mean(1)
    expected = cross_entropy + 2.5 * (p * np.log(p / q)).sum(1)
    found = losses(TRADES(ATTACK, loss, beta=2.5), Table(clean, moved), clean, moved, y)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("loss", [CrossEntropy(), SCALED], ids=str)
def test_mart_counts_the_divergence_by_the_doubt_about_clean_images(loss: CrossEntropy) -> None:
    clean, moved, y = logits()
    p, q, rows = softmax(clean, loss.scale), softmax(moved, loss.scale), np.arange(5)
    others = q.copy()
    others[rows, y] = 0
    expected = -np.log(q[rows, y]) - np.log(1 - others.max(1))
    expected += 4.0 * (p * np.log(p / q)).sum(1) * (1 - p[rows, y])
    found = losses(MART(ATTACK, loss, "eval", beta=4.0), Table(clean, moved), clean, moved, y)
    np.testing.assert_allclose(found, expected)


def test_mart_stays_finite_where_another_class_has_all_probability() -> None:
    certain = torch.tensor([[0.0, 200.0]]).requires_grad_()
    network: Any = Table(certain, certain)
    loss = MART(ATTACK, CrossEntropy(), "eval").losses(network, certain, certain, torch.tensor([0]))
    assert loss.isfinite().all() and torch.autograd.grad(loss.sum(), certain)[0].isfinite().all()


def test_the_penalty_on_sensitivity_is_a_squared_directional_derivative() -> None:
    """Of f_y along its own gradient: exactly |g|² of a linear f_y, and a finite difference of a curved one."""
    network, x, y = Smooth().eval(), pixels(), logits()[2]
    objective = SparseGradients(ATTACK, SCALED, "eval", weight=0.7, h=0.02)
    v, w = (parameter.detach().numpy() for parameter in (network.v, network.w))
    flat, own = x.flatten(1).numpy(), y.numpy()

    def logit(images: Any) -> Any:
        return (images * w[own]).sum(1) + (images * v[own]).sum(1) ** 2

    gradient = w[own] + 2 * (flat * v[own]).sum(1, keepdims=True) * v[own]
    direction = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    change = (logit(flat + 0.02 * direction) - logit(flat)) / 0.02
    expected = SCALED.of_logits(network(x), y).detach().numpy() + 0.35 * change**2
    np.testing.assert_allclose(losses(objective, network, x, x, y), expected)
    assert 0.5 < np.mean(change / np.linalg.norm(gradient, axis=1)) < 1.5


def test_a_gradient_of_zero_costs_nothing() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * x.flatten(1)[:, :4]

    x, y = pixels(), logits()[2]
    found = losses(SparseGradients(ATTACK, CrossEntropy(), "eval"), Flat(), x, x, y)
    np.testing.assert_allclose(found, np.log(4))


def test_all_passes_of_the_penalty_have_the_same_dropout() -> None:
    """With other masks for f_y(x' + h v) and f_y(x') their difference over h would be noise of size 1/h."""
    network, x, y = Smooth(dropout=0.5).train(), pixels(), logits()[2]
    torch.manual_seed(0)
    coarse, fine = (SparseGradients(ATTACK, CrossEntropy(), "eval", 1.0, h) for h in (1e-3, 1e-5))
    found = []
    for objective in (coarse, fine):
        torch.manual_seed(3)
        found.append(losses(objective, network, x, x, y))
    np.testing.assert_allclose(found[0], found[1], rtol=0.05)
    before = torch.get_rng_state()
    losses(fine, network, x, x, y)
    assert not torch.equal(torch.get_rng_state(), before), "the next step has another mask"


def test_only_the_pass_of_the_loss_moves_statistics_of_the_penalty() -> None:
    network: SpikingNetwork = NETWORK.build().train()
    x, y = torch.rand(8, 1, 28, 28), torch.arange(8) % 4
    OBJECTIVES["sparse gradients"].losses(network, x, x, y)
    counts = {int(value) for name, value in network.named_buffers() if "num_batches" in name}
    assert counts == {1}


def test_the_retraction_takes_singular_values_to_one() -> None:
    class Weights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.dense = nn.Conv2d(3, 4, 3), nn.Linear(7, 5)

    network = Weights().double()
    before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    objective = Orthogonal(ATTACK, CrossEntropy(), "eval", beta=0.3)
    objective.after_step(network)
    for name, tensor in network.named_parameters():
        old = before[name].flatten(1).numpy() if tensor.dim() > 1 else None
        if old is None:
            assert torch.equal(tensor, before[name]), "biases stay"
            continue
        u, sigma, v = np.linalg.svd(old, full_matrices=False)
        expected = u * (1.3 * sigma - 0.3 * sigma**3) @ v
        np.testing.assert_allclose(tensor.detach().flatten(1).numpy(), expected, atol=1e-12)
    for _ in range(200):
        objective.after_step(network)
    singular = np.linalg.svd(network.dense.weight.detach().numpy(), compute_uv=False)
    np.testing.assert_allclose(singular, 1, atol=1e-6)


def test_trades_crafts_by_the_divergence_and_needs_no_label() -> None:
    network, x, y = Smooth().eval(), pixels(), logits()[2]
    objective = TRADES(PGD(THREAT, 10, 0.25, near_clean, keep_best=False), beta=6.0)
    found = objective.perturbed(network, x, y, streams())
    assert THREAT.allows(found, x).all()
    assert torch.equal(found, objective.perturbed(network, x, (y + 1) % 4, streams()))

    def distance(perturbed: Tensor) -> Tensor:
        return divergence(network(x).log_softmax(1), network(perturbed).log_softmax(1)).detach()

    random = x + 0.05 * streams().sign(x)
    assert (distance(found) > distance(THREAT.project(random, x))).float().mean() > 0.7
    scaled = replace(objective, loss=CrossEntropy(scale=20.0))
    assert not torch.equal(found, scaled.perturbed(network, x, y, streams())), "p depends on the scale"


@pytest.mark.parametrize("ball", [Linf(0.05), L2(0.05)], ids=str)
def test_trades_starts_beside_the_clean_image(ball: Any) -> None:
    x = pixels(200)
    delta = near_clean(ball, x, streams(200))
    assert (ball.size(delta) <= ball.eps + 1e-9).all() and 0.0008 < delta.std() < 0.0012
    assert abs(delta.mean()) < 1e-4


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_and_resumes_to_the_same_bits(
    name: str, tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    optim = Optimisation(epochs=4, batch_size=16, lr=0.01)
    experiment = Experiment(name="tried", data="toy", network=NETWORK, objective=OBJECTIVES[name], optim=optim)
    assert run(experiment, data, tmp_path / "whole", fabric).finished
    first, *_, last = [line["loss"] for line in log_lines(tmp_path / "whole" / "tried")]
    assert last < 0.9 * first
    stopped = run(experiment, data, tmp_path / "parts", fabric, StopAfter(STEPS_PER_EPOCH + 1))
    assert stopped.steps == STEPS_PER_EPOCH + 1
    assert run(experiment, data, tmp_path / "parts", fabric, resume=True).finished
    same_bits(tmp_path / "whole" / "tried", tmp_path / "parts" / "tried")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_twin_is_trained_by_every_objective_that_needs_no_membrane(name: str, data: Dataset) -> None:
    network: SpikingNetwork = replace(NETWORK, twin=Twin.RELU).build().train()
    x, y = data.train.batch(torch.arange(8))
    perturbed = OBJECTIVES[name].perturbed(network, x, y, streams(8))
    if isinstance(OBJECTIVES[name], (PerturbedMembranes, NearThreshold, WeightsThrough)):
        with pytest.raises(ConfigError, match="without spiking layers"):
            OBJECTIVES[name].losses(network, x, perturbed, y)
        return
    OBJECTIVES[name].losses(network, x, perturbed, y).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_clean_training_ignores_the_perturbed_images_hook() -> None:
    clean, moved, y = logits()
    objective = Clean(CrossEntropy())
    assert torch.equal(objective.perturbed(Table(), clean, y, streams()), clean)
    np.testing.assert_allclose(losses(objective, Table(moved), clean, moved, y), -np.log(softmax(moved)[range(5), y]))


WRONG: dict[str, tuple[Any, str]] = {
    "beta": (lambda: TRADES(ATTACK, beta=0.0), "beta = 0.0"),
    "keep best": (lambda: TRADES(PGD(THREAT)), "keep_best=False"),
    "restarts": (lambda: TRADES(replace(ATTACK, restarts=2)), "one run"),
    "TRADES's kernel loss": (lambda: TRADES(replace(ATTACK), loss=VanRossum()), "CrossEntropy"),  # type: ignore[arg-type]
    "another attack": (lambda: TRADES(lambda *_: None), "expected PGD"),  # type: ignore[arg-type]
    "mode": (lambda: TRADES(fgsm(THREAT), craft_in="sideways"), "craft_in"),  # type: ignore[arg-type]
    "MART's beta": (lambda: MART(ATTACK, CrossEntropy(), "eval", beta=-1.0), "beta = -1.0"),
    "MART's loss": (lambda: MART(ATTACK, CrossEntropy(smoothing=0.1), "eval"), "without label smoothing"),
    "MART's kernel loss": (lambda: MART(ATTACK, VanRossum(), "eval"), "CrossEntropy"),  # type: ignore[arg-type]
    "step": (lambda: SparseGradients(ATTACK, CrossEntropy(), "eval", h=0.0), "h = 0.0"),
    "weight": (lambda: SparseGradients(ATTACK, CrossEntropy(), "eval", float("nan")), "weight = nan"),
    "kernel loss": (lambda: SparseGradients(ATTACK, VanRossum(), "eval"), "CrossEntropy"),  # type: ignore[arg-type]
    "retraction": (lambda: Orthogonal(ATTACK, CrossEntropy(), "eval", float("inf")), "beta = inf"),
    "smoothing": (lambda: CrossEntropy(smoothing=1.0), "smoothing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_cannot_train_are_refused(name: str) -> None:
    make, match = WRONG[name]
    with pytest.raises(ConfigError, match=match):
        make()


def test_titles_tell_objectives_and_their_attacks_apart() -> None:
    weak = Through(bptt(), fgsm(Threat(Linf(2 / 255))))
    titles = {name: objective.title for name, objective in OBJECTIVES.items()}
    assert Clean(CrossEntropy()).title == "clean"
    assert Adversarial(weak, CrossEntropy(), "eval").title == "FGSM 2/255"
    assert titles["smoothed"] == "PGD-2 1/20"
    assert titles["TRADES"] == "TRADES, PGD-2 1/20"
    assert len(set(titles.values())) == len(titles)


@pytest.mark.parametrize("learned_readout", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_sure_mistakes_give_finite_losses_in_bfloat16(name: str, learned_readout: bool) -> None:
    """A probability of 0.999 is 1 in bfloat16, and MART takes the logarithm of what is left."""
    torch.manual_seed(0)
    network = replace(NETWORK, learned_readout=learned_readout).build().eval()
    with torch.no_grad():
        next(reversed([*network.body.parameters()])).mul_(300)
    x = torch.rand(8, 1, 28, 28)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
        y = logits.argmin(1)
        losses = OBJECTIVES[name].losses(network, x, (x + 0.01).clamp(max=1), y)
    assert logits.dtype == losses.dtype == torch.float32
    assert (logits.amax(1) - logits.amin(1)).max() > 8
    losses.sum().backward()
    assert losses.isfinite().all() and all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
