"""32C5-P2-64C5-P2-1024-10 at work: training on FGSM, PGD-10, inference, and a whole evaluation.

Our network runs each layer over all time steps at once, neurons by the fused kernel.  Beside it: the same network one
time step after the other in a Python loop with eager neurons; with eager neurons alone; compiled; with the neurons of
other libraries; and its convolutions and matrix products alone, which are the limit.
Shapes: T time, B batch, C channels, H height, W width, K classes.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hosnn.benchmark.peers import PEERS, Layer, peer_layer
from hosnn.benchmark.timing import Call, Contestant, cores
from hosnn.evaluation.evaluate import evaluate
from hosnn.nn.layers import OverTime, SpikingNetwork
from hosnn.nn.lenet import LeNet, lenet_32c5_64c5_1024
from hosnn.nn.neurons import LIF, Emit, constrain_, neurons
from hosnn.protocols.builtin import standard
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


class Foreign(nn.Module):
    """Another library's layer in place of ours."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, currents: Tensor) -> Tensor:
        return self.layer(currents)


def stepwise(network: SpikingNetwork) -> SpikingNetwork:
    """A copy that applies convolutions, pooling and matrix products per time step; its outputs are the same."""
    twin = copy.deepcopy(network)
    for name, module in list(twin.named_modules()):
        if isinstance(module, OverTime):
            replace_layer(twin, name, PerStep(module))
    return twin


@dataclass(frozen=True)
class NetworkCase:
    """A batch of random images; initial weights, doubled so that every layer fires; a signature of other images.

    blueprint  its gradient rule is what eager neurons keep, and compute, more or less for
    """

    task: Workload
    batch: int = 64
    precision: Precision = "float32"
    device: str = "cpu"
    compiled: bool = True
    blueprint: LeNet = lenet_32c5_64c5_1024()  # noqa: RUF009  (a frozen value)

    @property
    def title(self) -> str:
        rule = ", full BPTT" if self.blueprint.rule == bptt() else ""
        return f"{self.task}{rule}, {self.blueprint.title}, batch {self.batch}, {self.precision}"

    @property
    def reference(self) -> str:
        return OURS

    def entries(self) -> dict[str, Contestant]:
        found = self._contestants()
        if self.precision == "bfloat16":  # orders of summing differ, and so do results: by more than is worth a word
            found = {name: replace(entry, like="") for name, entry in found.items()}
            full = replace(self, precision="float32")
            found[PER_STEP_FLOAT32] = replace(full.entries()[PER_STEP], like="")
        return found

    def _contestants(self) -> dict[str, Contestant]:
        found = {
            OURS: Contestant(lambda: self._work(self.homeostatic_network())),
            PER_STEP: Contestant(lambda: self._work(stepwise(self.homeostatic_network()), "eager"), like=OURS),
            "eager TA-LIF": Contestant(lambda: self._work(self.homeostatic_network(), "eager"), like=OURS),
            OUR_LIF: Contestant(lambda: self._work(self._lif())),
            LIMIT: Contestant(self._limit, memory=False),
        }
        if self.task == "FGSM training step":
            found[IN_PARTS] = Contestant(lambda: self._work(self.homeostatic_network(), parts=4))
        if self.compiled:
            found["torch.compile of eager TA-LIF"] = Contestant(
                lambda: self._work(self.homeostatic_network(), "eager", compiled=True), like=OURS, memory=False
            )
            found["torch.compile of hosnn TA-LIF"] = Contestant(
                lambda: self._work(self.homeostatic_network(), compiled=True), like=OURS, memory=False
            )
        for name in PEERS:
            if self.compiled or "compiled" not in name:
                # Other surrogates give other gradients, so only what is seen without any can be compared.
                like = OUR_LIF if self.task == "inference" else ""
                found[name] = Contestant(partial(self._with_neurons_of, name), like=like)
        if self.device == "cpu" and cores() > 1:
            found[TWO_THREADS] = Contestant(
                lambda: self._work(self.homeostatic_network()), threads=2, like=OURS, memory=False
            )
        return found

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
        """Plain neurons with full BPTT that hand on spikes, as the peers' do."""
        network = self._network()
        for name, layer in neurons(network).items():
            replace_layer(network, name, LIF(layer.dynamics, bptt(), Emit.SPIKES, layer.fixed_threshold))
        return network.to(self.device)

    def _with_neurons_of(self, name: str) -> Call:
        network = self._lif()
        for path in neurons(network):
            replace_layer(network, path, Foreign(peer_layer(name)))
        return self._work(network)

    def images(self, seed: int) -> Tensor:
        return torch.rand(self.batch, *self.blueprint.image, generator=torch.Generator().manual_seed(seed))

    def _autocast(self) -> AbstractContextManager[object]:
        half = self.precision == "bfloat16"
        return torch.autocast(self.device, torch.bfloat16) if half else nullcontext()

    def _work(self, network: SpikingNetwork, chosen: str = "auto", compiled: bool = False, parts: int = 1) -> Call:
        model: Any = torch.compile(network, dynamic=False) if compiled else network
        run = self._task(network, model, parts)

        def chosen_run() -> Tensor:
            with backend.choose(chosen), self._autocast():
                return run()

        return chosen_run

    def _task(self, network: SpikingNetwork, model: Any, parts: int) -> Call:
        x = self.images(2).to(self.device)
        y = (torch.arange(self.batch) % self.blueprint.classes).to(self.device)
        rng = SampleRandom(0, torch.arange(self.batch))
        network.eval()
        if self.task == "inference":
            return lambda: scores(model, x)
        if self.task == "PGD-10":
            attack = PGD(THREAT, steps=PGD_STEPS, keep_best=False)  # or its cost would depend on its success
            return lambda: attack(model, x, y, rng)
        objective = Adversarial(fgsm(THREAT), CrossEntropy(), craft_in="eval")
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)

        def train() -> Tensor:
            torch.manual_seed(0)  # dropout
            network.train()
            optimiser.zero_grad()
            total = torch.zeros(())
            for rows in torch.arange(self.batch).chunk(parts):
                moved = objective.perturbed(model, x[rows], y[rows], rng.subset(rows))
                loss = objective.loss(model, moved, y[rows]).sum() / self.batch
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach().cpu()
            optimiser.step()
            constrain_(network)
            return total

        return train

    def _limit(self) -> Call:
        """Forwards and backwards of the convolutions and matrix products, each on all time steps at once.

        Inputs do not change over time, so the first convolution is done once.
        """
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        work = [(layer.to(dtype), x.to(dtype)) for layer, x in self._products()]

        def gradient(weights: bool) -> Tensor:
            for number, (layer, x) in enumerate(work):
                inputs = [] if weights and number == 0 else [x.requires_grad_()]
                out: Tensor = layer(x)
                torch.autograd.grad(out, [*inputs, *(layer.parameters() if weights else ())], torch.ones_like(out))
            return out

        @torch.no_grad()
        def inference() -> Tensor:
            for layer, x in work:
                out: Tensor = layer(x)
            return out

        def attack() -> Tensor:
            return [gradient(weights=False) for _ in range(PGD_STEPS)][-1]

        def training() -> Tensor:
            gradient(weights=False)
            return gradient(weights=True)

        tasks: dict[Workload, Callable[[], Tensor]] = {"inference": inference, "PGD-10": attack}
        return tasks.get(self.task, training)

    def _products(self) -> list[tuple[nn.Module, Tensor]]:
        """Every convolution and linear layer, with an input of the shape it gets."""
        network, seen = self._network().to(self.device).eval(), []
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(lambda layer, inputs, _: seen.append((layer, inputs[0].shape)))
        scores(network, self.images(2).to(self.device))
        found: list[tuple[nn.Module, Tensor]] = []
        for number, (layer, shape) in enumerate(seen):
            x = torch.rand(self.batch if number == 0 else shape[0], *shape[1:], device=self.device)
            found.append((layer, x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x))
            layer._forward_hooks.clear()
        return found


@dataclass(frozen=True)
class EvaluationCase:
    """The protocol `standard` without panels on a few random images, whose labels are what the network says of them.

    Attacks go on as long as an image stands, so backends whose gradients differ in the last bits may do other work.
    """

    samples: int = 16
    device: str = "cpu"
    blueprint: LeNet = LeNet()  # noqa: RUF009

    @property
    def title(self) -> str:
        return f"evaluation `standard`, {self.blueprint.title}, {self.samples} images"

    @property
    def reference(self) -> str:
        return OURS

    def entries(self) -> dict[str, Contestant]:
        found = {
            OURS: Contestant(lambda: self._work("auto"), memory=False),
            "eager TA-LIF": Contestant(lambda: self._work("eager"), like=OURS, memory=False),
        }
        if self.device == "cpu" and cores() > 1:
            found[TWO_THREADS] = Contestant(lambda: self._work("auto", threads=2), threads=2, like=OURS, memory=False)
        return found

    def _work(self, chosen: str, threads: int = 1) -> Call:
        case = NetworkCase("inference", self.samples, device=self.device, blueprint=self.blueprint)
        network = case.homeostatic_network().eval()
        x = case.images(2)
        y = scores(network, x.to(self.device)).argmax(1).cpu()
        protocol = standard(THREAT).resized(self.samples, 0)
        search = replace(protocol.search, samples=self.samples) if protocol.search else None
        block = max(1, self.samples // 2)  # two blocks, so that two threads have work
        protocol = replace(protocol, search=search, probes=0, block_size=block)

        def run() -> Tensor:
            with backend.choose(chosen):
                rows = evaluate(network, (x, y), protocol, threads=threads).rows
            return torch.tensor([row.predictions for row in rows])

        return run
