"""Attacks made of attacks: the worst of several, transfer from another model, averaging over noise; random noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.robustness.gradient import first_success
from hosnn.robustness.model import Attack, Model, Repeated
from hosnn.robustness.random import SampleRandom
from hosnn.robustness.threats import Threat


@dataclass(frozen=True)
class Worst:
    """Each sample is lost if any member attack finds an adversarial point; members see only samples still standing."""

    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ConfigError("Worst got no attacks; expected at least one")

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return first_success(self.attacks, model, x, y, rng)


@dataclass(frozen=True)
class Transfer:
    """Craft on `source`, a stand-in for the model (Papernot et al. 2017); the model attacked is not looked at."""

    source: Model
    attack: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return self.attack(self.source, x, y, rng)


@dataclass(frozen=True)
class EOT:
    """Attack the mean of `times` looks at a randomised model (expectation over transformation, Athalye et al. 2018).

    Gradients, losses and scores are means, and each look is a pass.  What wraps a network as such, a gradient rule or
    a perturbation per time step, goes around EOT, not into it.
    """

    attack: Attack
    times: int = 20

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ConfigError(f"EOT got times = {self.times}; expected at least 1 look at the model, e.g. 20")

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return self.attack(Repeated(model, self.times), x, y, rng)


@dataclass(frozen=True)
class Noise:
    """A random point of the threat's ball: the control that every real attack must beat."""

    threat: Threat

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        with torch.no_grad():
            return self.threat.project(x + self.threat.ball.sample(x, rng.fold("noise")), x)
