"""The network 32C5-P2-64C5-P2-1024-10: training on FGSM, PGD-10, and inference.

Our network runs each layer over all time steps at once, with the fused kernel.  Contestants: the same network one time
step after the other in a Python loop with eager neurons; with eager neurons but all time steps at once; compiled; with
the neurons of other libraries; and its convolutions and matrix products alone, which are the limit.
Shapes: T time, B batch, C channels, H height, W width, K classes.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hosnn.benchmark.peers import PEERS, Layer, peer_layer
from hosnn.benchmark.timing import Call, Contestant, cores
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.nn.layers import OverTime, SpikingNetwork
from hosnn.nn.lenet import LeNet, lenet_32c5_64c5_1024
from hosnn.nn.neurons import LIF, Emit, constrain_, neurons
from hosnn.rng import SampleRandom
from hosnn.robustness.model import scores
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.threats import DEFAULT_THREAT
from hosnn.signature import calibrate, homeostatic
from hosnn.signature.homeostasis import replace_layer
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.kernels import backend
from hosnn.training.objectives import Adversarial, CrossEntropy

OURS, OUR_LIF = "hosnn TA-LIF", "hosnn LIF"
TWO_THREADS = "hosnn TA-LIF, 2 threads"
PER_STEP = "per-step loop, eager TA-LIF"
PER_STEP_FLOAT32 = f"{PER_STEP}, float32"
IN_PARTS = "hosnn TA-LIF, batch in 4 parts"
LIMIT = "convolutions and matrix products alone"

PGD_STEPS = 10
THREAT = DEFAULT_THREAT

Workload = Literal["FGSM training step", "PGD-10", "inference"]
Precision = Literal["float32", "bfloat16"]


class PerStep(nn.Module):
    """Layers applied to one time step after the other: [T, B, ...] -> [T, B, ...]; `OverTime` folds instead."""

    def __init__(self, layers: OverTime) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.layers(x_t) for x_t in x.unbind(0)])


class PeerNeurons(nn.Module):
    """Neurons of another library, to replace ours."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, currents: Tensor) -> Tensor:
        return self.layer(currents)


def stepwise(network: SpikingNetwork) -> SpikingNetwork:
    """A copy that applies convolutions, pooling and matrix products per time step; its outputs are the same."""
    copied = copy.deepcopy(network)
    for name, module in list(copied.named_modules()):
        if isinstance(module, OverTime):
            replace_layer(copied, name, PerStep(module))
    return copied


@dataclass(frozen=True)
class NetworkCase:
    """One workload on a batch of random images.

    Weights are the initial ones, doubled so that every layer fires; the signature is recorded on other random images.

    blueprint  the network; its gradient rule decides what the backward pass computes
    """

    workload: Workload
    batch: int = 64
    precision: Precision = "float32"
    device: str = "cpu"
    compiled: bool = True
    blueprint: LeNet | ConvNet = lenet_32c5_64c5_1024()  # noqa: RUF009  (a frozen value)

    @property
    def title(self) -> str:
        rule = ", full BPTT" if self.blueprint.rule == bptt() else ""
        return f"{self.workload}{rule}, {self.blueprint.title}, batch {self.batch}, {self.precision}"

    @property
    def reference(self) -> str:
        return OURS

    def contestants(self) -> dict[str, Contestant]:
        contestants = self._same_precision()
        if self.precision == "bfloat16":  # sums are in another order, so results differ too much to be compared
            contestants = {name: replace(value, like="") for name, value in contestants.items()}
            float32 = replace(self, precision="float32")
            contestants[PER_STEP_FLOAT32] = replace(float32.contestants()[PER_STEP], like="")
        return contestants

    def _same_precision(self) -> dict[str, Contestant]:
        contestants = {
            OURS: Contestant(lambda: self._call(self.homeostatic_network())),
            PER_STEP: Contestant(lambda: self._call(stepwise(self.homeostatic_network()), "eager"), like=OURS),
            "eager TA-LIF": Contestant(lambda: self._call(self.homeostatic_network(), "eager"), like=OURS),
            OUR_LIF: Contestant(lambda: self._call(self._lif())),
            LIMIT: Contestant(self._limit, memory=False),
        }
        if self.workload == "FGSM training step":
            contestants[IN_PARTS] = Contestant(lambda: self._call(self.homeostatic_network(), parts=4))
        if self.compiled:
            contestants["torch.compile of eager TA-LIF"] = Contestant(
                lambda: self._call(self.homeostatic_network(), "eager", compiled=True), like=OURS, memory=False
            )
            contestants["torch.compile of hosnn TA-LIF"] = Contestant(
                lambda: self._call(self.homeostatic_network(), compiled=True), like=OURS, memory=False
            )
        for name in PEERS:
            if self.compiled or "compiled" not in name:
                # Other surrogates give other gradients, so only inference can be compared.
                like = OUR_LIF if self.workload == "inference" else ""
                contestants[name] = Contestant(partial(self._with_neurons_of, name), like=like)
        if self.device == "cpu" and cores() > 1:
            contestants[TWO_THREADS] = Contestant(
                lambda: self._call(self.homeostatic_network()), threads=2, like=OURS, memory=False
            )
        return contestants

    def _network(self) -> SpikingNetwork:
        torch.manual_seed(0)
        network = self.blueprint.build()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(2)
        return network

    def homeostatic_network(self) -> SpikingNetwork:
        network = self._network().eval()
        return homeostatic(network, calibrate(network, [self.images(1)])).to(self.device)

    def _lif(self) -> SpikingNetwork:
        """Plain LIF with full BPTT that returns spikes, as the peers' neurons do."""
        network = self._network()
        for name, layer in neurons(network).items():
            replace_layer(network, name, LIF(layer.dynamics, bptt(), Emit.SPIKES, layer.fixed_threshold))
        return network.to(self.device)

    def _with_neurons_of(self, name: str) -> Call:
        network = self._lif()
        for path in neurons(network):
            replace_layer(network, path, PeerNeurons(peer_layer(name)))
        return self._call(network)

    def images(self, seed: int) -> Tensor:
        return torch.rand(self.batch, *self.blueprint.image, generator=torch.Generator().manual_seed(seed))

    def _autocast(self) -> AbstractContextManager[object]:
        half = self.precision == "bfloat16"
        return torch.autocast(self.device, torch.bfloat16) if half else nullcontext()

    def _call(
        self, network: SpikingNetwork, backend_name: str = "auto", compiled: bool = False, parts: int = 1
    ) -> Call:
        model: Any = torch.compile(network, dynamic=False) if compiled else network
        run = self._workload(network, model, parts)

        def run_on_backend() -> Tensor:
            with backend.choose(backend_name), self._autocast():
                return run()

        return run_on_backend

    def _workload(self, network: SpikingNetwork, model: Any, parts: int) -> Call:
        x = self.images(2).to(self.device)
        y = (torch.arange(self.batch) % self.blueprint.classes).to(self.device)
        rng = SampleRandom(0, torch.arange(self.batch))
        network.eval()
        if self.workload == "inference":
            return lambda: scores(model, x)
        if self.workload == "PGD-10":
            attack = PGD(THREAT, steps=PGD_STEPS, keep_best=False)  # otherwise its cost depends on its success
            return lambda: attack(model, x, y, rng)
        objective = Adversarial(fgsm(THREAT), CrossEntropy(), craft_in="eval")
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

        def train() -> Tensor:
            torch.manual_seed(0)  # dropout
            network.train()
            optimiser.zero_grad()
            total = torch.zeros(())
            for rows in torch.arange(self.batch).chunk(parts):
                x_adv = objective.perturbed(model, x[rows], y[rows], rng.subset(rows))
                loss = objective.losses(model, x[rows], x_adv, y[rows]).sum() / self.batch
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach().cpu()
            optimiser.step()
            constrain_(network)
            return total

        return train

    def _limit(self) -> Call:
        """Forward and backward passes of the convolutions and matrix products, each on all time steps at once."""
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        products = [(layer.to(dtype), x.to(dtype)) for layer, x in self._products()]

        def gradient(weights: bool) -> Tensor:
            for number, (layer, x) in enumerate(products):
                inputs = [] if weights and number == 0 else [x.requires_grad_()]
                out: Tensor = layer(x)
                torch.autograd.grad(out, [*inputs, *(layer.parameters() if weights else ())], torch.ones_like(out))
            return out

        @torch.no_grad()
        def inference() -> Tensor:
            for layer, x in products:
                out: Tensor = layer(x)
            return out

        def attack() -> Tensor:
            return [gradient(weights=False) for _ in range(PGD_STEPS)][-1]

        def training() -> Tensor:
            gradient(weights=False)
            return gradient(weights=True)

        by_workload: dict[Workload, Callable[[], Tensor]] = {"inference": inference, "PGD-10": attack}
        return by_workload.get(self.workload, training)

    def _products(self) -> list[tuple[nn.Module, Tensor]]:
        """Every convolution and linear layer, with a random input of the shape that it has in the network.

        Up to the first neurons nothing changes over time, so that layers there are run on the images once.
        """
        network, shapes = self._network().to(self.device).eval(), []
        before_neurons = list(takewhile(lambda module: not isinstance(module, LIF), network.modules()))
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(lambda layer, inputs, _: shapes.append((layer, inputs[0].shape)))
        scores(network, self.images(2).to(self.device))
        products: list[tuple[nn.Module, Tensor]] = []
        for layer, shape in shapes:
            x = torch.rand(self.batch if layer in before_neurons else shape[0], *shape[1:], device=self.device)
            products.append((layer, x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x))
            layer._forward_hooks.clear()
        return products


@dataclass(frozen=True)
class RobustNetworkCase(NetworkCase):
    """The network of a robust recipe, with its BatchNorm and its analogue first layers, beside its products alone and
    its ANN twin, which runs once and not over time steps."""

    @property
    def title(self) -> str:
        steps, analogue = self.blueprint.steps, getattr(self.blueprint, "analogue_layers", 0)
        return f"{super().title}, T={steps}, analogue layers: {analogue}"

    def contestants(self) -> dict[str, Contestant]:
        return {
            OURS: Contestant(lambda: self._call(self.homeostatic_network())),
            OUR_LIF: Contestant(lambda: self._call(self._network().to(self.device))),
            "eager TA-LIF": Contestant(lambda: self._call(self.homeostatic_network(), "eager")),
            "the ANN twin": Contestant(self._twin),
            LIMIT: Contestant(self._limit, memory=False),
        }

    def _twin(self) -> Call:
        assert isinstance(self.blueprint, ConvNet)
        case = replace(self, blueprint=replace(self.blueprint, twin=Twin.RELU))
        return case._call(case._network().to(self.device))
