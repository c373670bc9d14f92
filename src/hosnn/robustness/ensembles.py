"""Attacks made of attacks: the worst of several, transfer from another model, averaging over noise; random noise."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Attack, Model, Repeated
from hosnn.robustness.pgd import Restart, first_success
from hosnn.robustness.threats import Threat


@identified("Worst")
@dataclass(frozen=True)
class Worst:
    """Each sample is lost if any member attack finds an adversarial point; members see only samples still standing.

    Every member draws random numbers of its own, the first those that it draws alone.
    """

    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ConfigError("Worst got no attacks; expected at least one")

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        members = [Restart(attack, number, "member") for number, attack in enumerate(self.attacks)]
        return first_success(members, model, x, y, rng)


@identified("Transfer")
@dataclass(frozen=True)
class Transfer:
    """Craft on `source`, a stand-in for the model (Papernot et al. 2017); the model attacked is not looked at.

    A network is crafted on where it lives and in eval mode, whatever its own mode, which it keeps.
    """

    source: Model
    attack: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        network = self.source if isinstance(self.source, nn.Module) else getattr(self.source, "__self__", None)
        if not isinstance(network, nn.Module):
            return self.attack(self.source, x, y, rng)
        parameter = next(iter(network.parameters()), x)
        with _evaluating(network):
            found = self.attack(self.source, x.to(parameter.device), y.to(parameter.device), rng)
        return found.to(x.device)


_modes: dict[nn.Module, tuple[int, dict[nn.Module, bool]]] = {}
"""Sources in use: by how many attacks, and the mode that each of their modules was in."""

_changing = threading.Lock()


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """The network in eval mode; the last of several threads that craft on it puts its modes back."""
    with _changing:
        users, modes = _modes.get(network, (0, {module: module.training for module in network.modules()}))
        _modes[network] = users + 1, modes
        for module in modes:
            module.training = False
    try:
        yield
    finally:
        with _changing:
            users, modes = _modes.pop(network)
            if users > 1:
                _modes[network] = users - 1, modes
            else:
                for module, mode in modes.items():
                    module.training = mode


@identified("EOT")
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


@identified("Noise")
@dataclass(frozen=True)
class Noise:
    """A random point of the threat's ball: the control that every real attack must beat."""

    threat: Threat

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        with torch.no_grad():
            return self.threat.project(x + self.threat.ball.sample(x, rng.fold("noise")), x)
