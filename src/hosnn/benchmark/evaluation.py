"""A whole evaluation: ours, with eager neurons, and on two threads."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hosnn.benchmark.networks import OURS, THREAT, TWO_THREADS, NetworkCase
from hosnn.benchmark.timing import Call, Contestant, cores
from hosnn.evaluation.evaluate import evaluate
from hosnn.nn.lenet import LeNet
from hosnn.protocols.builtin import standard
from hosnn.robustness.model import scores
from hosnn.spiking.kernels import backend


@dataclass(frozen=True)
class EvaluationCase:
    """The protocol `standard` without panels on a few random images, labelled as the network predicts.

    Attacks stop at an image once it is misclassified, so the amount of work may differ between backends whose gradients
    differ in the last bits.
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

    def contestants(self) -> dict[str, Contestant]:
        contestants = {
            OURS: Contestant(lambda: self._call("auto"), memory=False),
            "eager TA-LIF": Contestant(lambda: self._call("eager"), like=OURS, memory=False),
        }
        if self.device == "cpu" and cores() > 1:
            contestants[TWO_THREADS] = Contestant(
                lambda: self._call("auto", threads=2), threads=2, like=OURS, memory=False
            )
        return contestants

    def _call(self, backend_name: str, threads: int = 1) -> Call:
        case = NetworkCase("inference", self.samples, device=self.device, blueprint=self.blueprint)
        network = case.homeostatic_network().eval()
        x = case.images(2)
        y = scores(network, x.to(self.device)).argmax(1).cpu()
        protocol = standard(THREAT).resized(self.samples, 0)
        search = replace(protocol.search, samples=self.samples) if protocol.search else None
        block = max(1, self.samples // 2)  # two blocks, so that two threads have work
        protocol = replace(protocol, search=search, model_check_samples=0, block_size=block)

        def run() -> Tensor:
            with backend.choose(backend_name):
                rows = evaluate(network, (x, y), protocol, threads=threads).rows
            return torch.tensor([row.predictions for row in rows])

        return run
