"""Adversarial objectives that see clean and perturbed images together: TRADES, MART, and a penalty on sensitivity.

Shapes: images [B, C, H, W], labels y [B], logits and log-probabilities [B, K], losses [B].
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.nn.layers import SpikingNetwork
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Ball, per_sample
from hosnn.robustness.model import input_gradient, scores
from hosnn.robustness.pgd import PGD
from hosnn.runtime import own_randomness
from hosnn.training.objectives import Adversarial, CrossEntropy, Objective, check_craft_in, check_per_step, crafting


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each sample, from log-probabilities."""
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


@identified("near_clean")
def near_clean(ball: Ball, x: Tensor, rng: SampleRandom) -> Tensor:
    """Start at x plus normal noise of standard deviation 0.001: at x itself the divergence has no gradient."""
    return ball.project(0.001 * rng.normal(x))


@dataclass(frozen=True)
class DivergenceFrom:
    """What TRADES' attack maximises: KL(p(x) || p(x')), given log p(x)."""

    log_p: Tensor
    loss: CrossEntropy

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return divergence(self.log_p, self.loss.log_probabilities(logits))


@identified("TRADES")
@dataclass(frozen=True)
class TRADES(Objective):
    """loss(x) + beta KL(p(x) || p(x')), x' found by ascending the divergence, not the loss (Zhang et al. 2019).

    attack  PGD; its loss is replaced, and it has to take all of its steps on all samples (keep_best=False)
    loss    its scale is that of p too:  p = softmax(scale · logits)
    beta    published: 6, with 10 steps of eps/4 from `near_clean`
    Running statistics of BatchNorm are updated by both x and x'.
    """

    attack: PGD
    loss: CrossEntropy = CrossEntropy()  # noqa: RUF009  (a frozen value)
    beta: float = 6.0
    craft_in: Literal["train", "eval", "train-moving"] = "eval"

    def __post_init__(self) -> None:
        check_craft_in(self)
        check_positive(self, "beta")
        if not isinstance(self.attack, PGD) or self.attack.keep_best or self.attack.restarts > 1:
            raise ConfigError(f"TRADES got the attack {self.attack}; expected PGD with keep_best=False and one run")
        if not isinstance(self.loss, CrossEntropy):
            raise ConfigError(f"TRADES got the loss {self.loss}; expected CrossEntropy")

    def perturbed(self, network: nn.Module, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        check_per_step(self.attack, x)
        with crafting(network, self.craft_in):
            log_p = self.loss.log_probabilities(scores(network, x))
            return replace(self.attack, loss=DivergenceFrom(log_p, self.loss))(network, x, y, rng)

    def losses(self, network: SpikingNetwork, x: Tensor, perturbed: Tensor, y: Tensor) -> Tensor:
        clean = network(x)
        log_p, log_q = (self.loss.log_probabilities(logits) for logits in (clean, network(perturbed)))
        return self.loss.of_logits(clean, y) + self.beta * divergence(log_p, log_q)


@identified("MART")
@dataclass(frozen=True)
class MART(Adversarial):
    """Boosted cross-entropy on x' plus a divergence that counts most where the clean image is misclassified:

        -log p_y(x') - log(1 - max_{j != y} p_j(x')) + beta KL(p(x) || p(x')) (1 - p_y(x))

    loss  gives p = softmax(scale · logits); label smoothing is not part of MART
    beta  published: 6 for ResNet-18, 5 in the authors' code
    Running statistics of BatchNorm are updated by both x and x'.
    Source: Wang et al. 2020, "Improving adversarial robustness requires revisiting misclassified examples".
    """

    loss: CrossEntropy
    beta: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "beta")
        if not isinstance(self.loss, CrossEntropy) or self.loss.smoothing:
            raise ConfigError(f"MART got the loss {self.loss}; expected CrossEntropy without label smoothing")

    def losses(self, network: SpikingNetwork, x: Tensor, perturbed: Tensor, y: Tensor) -> Tensor:
        log_p, log_q = (self.loss.log_probabilities(network(images)) for images in (x, perturbed))
        own, others = log_q.gather(1, y[:, None])[:, 0], log_q.scatter(1, y[:, None], -float("inf")).amax(1)
        boosted = -own - torch.log1p(-others.exp().clamp(max=1 - 1e-6))
        doubt = 1 - log_p.gather(1, y[:, None])[:, 0].exp()
        return boosted + self.beta * divergence(log_p, log_q) * doubt


@identified("SparseGradients")
@dataclass(frozen=True)
class SparseGradients(Adversarial):
    """Adversarial training with a penalty on the label's logit f_y along its own gradient, by a finite difference:

        loss(x') + weight/2 ((f_y(x' + h v) - f_y(x')) / h)²,   v = g / ||g||_2,   g the gradient of f_y at x'

    Made for spiking networks, whose robustness grows as their input gradients get sparser.  This is the penalty of the
    authors' code; the paper speaks of the l1 norm of the gradient of the label's probability.
    weight  lambda      h  step of the difference, in units of pixels; published: 0.01
    All passes have the same dropout, and only that of the loss updates running statistics of BatchNorm.
    Source: Liu et al. 2024, "Enhancing adversarial robustness in SNNs with sparse gradients", ICML.
    """

    loss: CrossEntropy
    weight: float = 0.002
    h: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "weight", "h")
        if not isinstance(self.loss, CrossEntropy):
            raise ConfigError(f"SparseGradients got the loss {self.loss}; expected CrossEntropy")

    def losses(self, network: SpikingNetwork, x: Tensor, perturbed: Tensor, y: Tensor) -> Tensor:
        with crafting(network, "train"):
            with own_randomness():
                gradient = input_gradient(network, perturbed, y, label_logit).gradient
            norm = gradient.flatten(1).norm(dim=1)
            direction = gradient / per_sample(torch.where(norm > 0, norm, 1), gradient)
            with own_randomness():
                moved = label_logit(network(perturbed + self.h * direction), y)
        logits = network(perturbed)
        change = (moved - label_logit(logits, y)) / self.h
        return self.loss.of_logits(logits, y) + self.weight / 2 * change.square()


def label_logit(logits: Tensor, y: Tensor) -> Tensor:
    """The logit of the label."""
    return logits.gather(1, y[:, None])[:, 0]


@identified("Orthogonal")
@dataclass(frozen=True)
class Orthogonal(Adversarial):
    """Adversarial training that keeps the rows of every weight matrix near orthonormal, by a step after each step:

        W <- (1 + beta) W - beta W Wᵀ W

    It limits how far spikes of one layer can move the currents of the next (SNN-RAT).  The authors leave out weight
    decay, and in dense layers of 200 and more neurons take a random 30 % of the rows at a time; here it is all of them.
    beta  published: 0.004
    Source: Ding et al. 2022, "SNN-RAT: Robustness-enhanced spiking neural network through regularized adversarial
    training", NeurIPS; the retraction: Cisse et al. 2017, "Parseval networks".
    """

    beta: float = 0.004

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "beta")

    @torch.no_grad()
    def after_step(self, network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                rows = module.weight.flatten(1)
                retracted = (1 + self.beta) * rows - self.beta * rows @ (rows.T @ rows)
                module.weight.copy_(retracted.view_as(module.weight))


def check_positive(objective: Objective, *names: str) -> None:
    """Raises ConfigError unless these fields of the objective are positive numbers."""
    wrong = [f"{name} = {getattr(objective, name)}" for name in names if not 0 < getattr(objective, name) < math.inf]
    if wrong:
        raise ConfigError(f"{type(objective).__name__} got {', '.join(wrong)}; expected positive numbers")
