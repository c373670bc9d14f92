"""Attacks built from other attacks (worst of several, transfer, expectation over transformation), and random noise."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.identity import hashed_as, identified
from hosnn.rng import SampleRandom
from hosnn.robustness.grid import check_on_grid
from hosnn.robustness.model import Attack, AveragedModel, Model
from hosnn.robustness.pgd import Restart, first_success
from hosnn.robustness.threats import Threat


@identified("Worst")
@dataclass(frozen=True)
class Worst:
    """Several attacks in turn, each on the samples that none before it fooled.

    Every member has a random stream of its own; the first draws what it would draw alone.
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
    """Craft on `source`, a substitute model (Papernot et al. 2017), without calling the model under attack.

    A source that is a network is used on its own device and in eval mode; afterwards it has its former mode again.
    """

    source: Model
    attack: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        network = self.source if isinstance(self.source, nn.Module) else getattr(self.source, "__self__", None)
        if not isinstance(network, nn.Module):
            return self.attack(self.source, x, y, rng)
        parameter = next(iter(network.parameters()), x)
        with _in_eval_mode(network):
            x_adv = self.attack(self.source, x.to(parameter.device), y.to(parameter.device), rng)
        return x_adv.to(x.device)


_modes: dict[nn.Module, tuple[int, dict[nn.Module, bool]]] = {}
"""Source networks in use: the number of attacks that use each, and the former mode of each of its modules."""

_modes_lock = threading.Lock()


@contextmanager
def _in_eval_mode(network: nn.Module) -> Iterator[None]:
    """The network in eval mode; the last of several threads that use it restores its modes."""
    with _modes_lock:
        users, modes = _modes.get(network, (0, {module: module.training for module in network.modules()}))
        _modes[network] = users + 1, modes
        for module in modes:
            module.training = False
    try:
        yield
    finally:
        with _modes_lock:
            users, modes = _modes.pop(network)
            if users > 1:
                _modes[network] = users - 1, modes
            else:
                for module, mode in modes.items():
                    module.training = mode


@identified("EOT")
@dataclass(frozen=True)
class EOT:
    """Attack the mean of several calls of a randomised model (expectation over transformation, Athalye et al. 2018).

    Gradients, losses and scores are means over the calls, and each call counts as a pass.  Attacks that need the
    network itself, such as Through (a gradient rule) or OnFrames, wrap EOT; EOT does not wrap them.
    """

    attack: Attack
    eot_samples: int = field(default=20, metadata=hashed_as("times"))

    def __post_init__(self) -> None:
        if self.eot_samples < 1:
            raise ConfigError(
                f"EOT got eot_samples = {self.eot_samples}; expected at least 1 call of the model, e.g. 20"
            )

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return self.attack(AveragedModel(model, self.eot_samples), x, y, rng)


@identified("Noise")
@dataclass(frozen=True)
class Noise:
    """A random point of the threat's ball: the baseline that every real attack must beat."""

    threat: Threat

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        check_on_grid(self.threat, x)
        with torch.no_grad():
            return self.threat.project(x + self.threat.ball.sample(x, rng.fold("noise")), x)
