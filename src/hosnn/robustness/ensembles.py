"""Attacks made of attacks: the worst of several, transfer from another model, random noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.robustness.gradient import first_success
from hosnn.robustness.model import Attack, Model
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
        return first_success(list(self.attacks), model, x, y, rng)


@dataclass(frozen=True)
class Transfer:
    """Craft on `source`, a stand-in for the model (Papernot et al. 2017); the model attacked is not looked at."""

    source: Model
    attack: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return self.attack(self.source, x, y, rng)


@dataclass(frozen=True)
class Noise:
    """A random point of the threat's ball: the control that every real attack must beat."""

    threat: Threat

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        with torch.no_grad():
            return self.threat.project(x + self.threat.ball.sample(x, rng.fold("noise")), x)
