"""Attacks built from other attacks (worst of several, several runs at once, transfer, expectation over transformation),
and random noise."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.identity import hashed_as, identified
from hosnn.rng import SampleRandom
from hosnn.robustness.grid import check_on_grid
from hosnn.robustness.losses import misclassified, tied
from hosnn.robustness.model import Attack, AveragedModel, Model, scores, subset
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


@identified("Copies")
@dataclass(frozen=True)
class Copies:
    """Several runs of an attack at once: it gets each sample `copies` times, each time with a random stream of its own.

    Where few samples are left that is several times faster than runs one after the other; but a sample that one run
    fooled is attacked to the end by the others.  The first run draws what it would draw alone.
    Returns per sample the first run's point that is misclassified, else the first whose label is tied, else the first.
    Attacks that keep state for each sample, such as Through(AdaptiveSharpness(), ...), are wrapped by Copies; they do
    not wrap it.
    """

    attack: Attack
    copies: int

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ConfigError(f"Copies got copies = {self.copies}; expected at least 1 run of the attack, e.g. 5")

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        rows = torch.arange(len(y), device=y.device).repeat(self.copies)
        streams = replace(rng, index=torch.cat([rng.index + (copy << 40) for copy in range(self.copies)]))
        model = subset(model, rows)
        points = self.attack(model, x[rows], y[rows], streams)
        outputs = scores(model, points)
        success = 2 * misclassified(outputs, y[rows]).int() + tied(outputs, y[rows]).int()
        chosen = success.view(self.copies, len(y)).argmax(0)
        return points.view(self.copies, len(y), *points.shape[1:])[chosen, torch.arange(len(y), device=y.device)]


@identified("Noise")
@dataclass(frozen=True)
class Noise:
    """A random point of the threat's ball: the baseline that every real attack must beat."""

    threat: Threat

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        check_on_grid(self.threat, x)
        with torch.no_grad():
            return self.threat.project(x + self.threat.ball.sample(x, rng.fold("noise")), x)
