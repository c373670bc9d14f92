"""Networks that hold, and networks that only seem to: each fakes robustness in one well-known way.

Images [N, 1, 8, 8] in [0, 1], four classes: which quadrant is brighter than the noise around it.
"""

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from hosnn.estimators import with_rule
from hosnn.nn.layers import ConstantCoding, MeanReadout, Normalise, OverTime, SpikingNetwork
from hosnn.nn.neurons import LIF, TALIF
from hosnn.signature import calibrate, homeostatic
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.state import Threshold
from hosnn.spiking.surrogate import Rectangle, Sigmoid

CLASSES = 4
SIDE = 8


def images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of 8 bits and labels.

    Neighbouring classes are 0.25 apart, so that eps = 0.1 is a threat and 8/255 nearly none.
    """
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    x = 0.15 + 0.45 * torch.rand(count, 1, SIDE, SIDE, generator=rng)
    half = SIDE // 2
    for row, label in enumerate(y.tolist()):
        top, left = half * (label // 2), half * (label % 2)
        x[row, :, top : top + half, left : left + half] += 0.25
    return (255 * x).round() / 255, y


def fit(model: nn.Module, steps: int, rate: float, data: tuple[Tensor, Tensor] | None = None) -> nn.Module:
    """Train in full batches, on `images` if no data is given, and return in eval mode."""
    x, y = images(256, seed=1) if data is None else data
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = functional.cross_entropy(10 * model(x) if isinstance(model, SpikingNetwork) else model(x), y)
        torch.autograd.backward(loss)
        optimiser.step()
    return model.eval()


@cache
def _ordinary() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.1))
        return fit(nn.Sequential(*layers, nn.Linear(8 * 16, 32), nn.ReLU(), nn.Linear(32, CLASSES)), 60, 0.01)


@cache
def _spiking() -> SpikingNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(
            OverTime(nn.Flatten(), nn.Linear(SIDE * SIDE, 64)),
            LIF(rule=bptt()),
            OverTime(nn.Linear(64, 32)),
            LIF(rule=bptt()),
            OverTime(nn.Linear(32, CLASSES)),
        )
        network = SpikingNetwork(Normalise((0.44,), (0.17,)), ConstantCoding(5), body, MeanReadout())
        return fit(network, 80, 0.01)  # type: ignore[return-value]


def ordinary() -> nn.Module:
    """A ReLU network."""
    return copy.deepcopy(_ordinary())


def spiking() -> SpikingNetwork:
    """A LIF network with an ordinary surrogate."""
    return copy.deepcopy(_spiking())


def adapting() -> SpikingNetwork:
    """A TA-LIF network."""
    network = spiking()
    x, _ = images(128, seed=2)
    return homeostatic(network, calibrate(network, [x]), adaptation=0.2)


class Around(nn.Module):
    """Something around an honest network."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = ordinary() if inner is None else inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


class Detached(Around):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class Halved(Around):
    """Logits in half precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).half()


class HalvedInside(Around):
    """The same, handed on as float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).bfloat16().float()


class HalvedUnseen(Around):
    """Logits of as few bits as bfloat16 has, without any operation in it."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        cut = (logits.detach().view(torch.int32) & -(1 << 16)).view(torch.float32)
        return logits + (cut - logits.detach())


def bounded(function: nn.Module) -> nn.Module:
    """An honest network whose scores go through a bounded function."""
    return nn.Sequential(ordinary(), function).eval()


class Quantised(Around):
    """Logits on a grid of a few levels, with a gradient that pretends otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits + ((logits / 2).round() * 2 - logits).detach()


class Loud(Around):
    """Logits so large that the softmax is 1 in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * super().forward(x)


class Noisy(Around):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


class Remembering(Around):
    """What it saw before weighs in, as in a spiking network whose membranes are not reset."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        answer = logits if self.last is None else logits + 0.5 * self.last
        self.last = logits.detach().mean(0)
        return answer


class CentredByBatch(Around):
    """Batch statistics in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 0.8 * x.mean((0, 1), keepdim=True) + 0.3)


class Clipped(Around):
    """Pixels outside a box narrower than their range have no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(0.35, 0.55))


class Rounded(Around):
    """Pixels rounded to a few levels: a derivative of zero."""

    levels = 5

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * self.levels).round() / self.levels)


class RoundedStraightThrough(Rounded):
    """The same with a derivative of one."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + ((x * self.levels).round() / self.levels - x).detach())  # type: ignore[no-any-return]


class Misleading(Around):
    """The gradient of another function than the one computed."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(3)
        self.register_buffer("elsewhere", torch.randn(SIDE * SIDE, CLASSES, generator=rng))

    def forward(self, x: Tensor) -> Tensor:
        other = x.flatten(1) @ self.get_buffer("elsewhere")
        return super().forward(x).detach() + other - other.detach()


class AdaptingInEval(TALIF):
    """Thresholds that hold still while training."""

    def threshold_over(self, steps: int) -> Threshold:
        return None if self.training else super().threshold_over(steps)


class SurrogateInTraining(LIF):
    """Without a gradient in eval mode, as in libraries that leave out the surrogate there."""

    def forward(self, currents: Tensor) -> Tensor:  # type: ignore[override]
        traces = super().forward(currents)
        return traces if self.training else traces.detach() + 0 * currents


def adapting_in_eval() -> nn.Module:
    network = adapting()
    for layer in network.modules():
        if isinstance(layer, TALIF):
            layer.__class__ = AdaptingInEval
    return network


def surrogate_in_training() -> nn.Module:
    network = spiking()
    for layer in network.modules():
        if isinstance(layer, LIF):
            layer.__class__ = SurrogateInTraining
    return network


def narrow_sigmoid() -> nn.Module:
    return with_rule(spiking(), bptt(Sigmoid(1e-4)))


def narrow_rectangle() -> nn.Module:
    return with_rule(spiking(), bptt(Rectangle(1e-6)))


def too_narrow() -> nn.Module:
    """A gradient everywhere, of hardly any use."""
    return with_rule(spiking(), bptt(Sigmoid(5e-3)))


class Indifferent(Around):
    """The two classes of the upper half share their logit."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        upper = logits[:, :2].amax(1, keepdim=True)
        return torch.cat([upper, upper, logits[:, 2:]], 1)


class Heaviside(nn.Module):
    """A spike without time, in another library's clothes."""

    def forward(self, x: Tensor) -> Tensor:
        soft = (4 * x).sigmoid()
        return soft + ((x > 0).to(x.dtype) - soft).detach()


class ForeignSpikes(nn.Sequential):
    """A network that fires by layers that are not ours."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(0)
        first = nn.Linear(SIDE * SIDE, 32)
        with torch.no_grad():
            first.weight.copy_(torch.randn(first.weight.shape, generator=rng))
            first.bias.zero_()
        super().__init__(nn.Flatten(), first, Heaviside(), nn.Linear(32, CLASSES))
