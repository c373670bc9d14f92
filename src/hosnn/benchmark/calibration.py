"""The time to record a signature, compared with the forward passes alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hosnn.benchmark.timing import Call, Contestant
from hosnn.nn.convnet import ConvNet, paper_cifar10
from hosnn.nn.layers import SpikingNetwork
from hosnn.robustness.model import scores
from hosnn.signature import calibrate

FORWARD, CALIBRATION = "forward pass", "signature, its forward pass included"


@dataclass(frozen=True)
class SignatureCase:
    """The signature of the HoSNN authors' CIFAR-10 network, 3.1 million values, on one batch of random images."""

    batch: int = 50
    device: str = "cpu"
    blueprint: ConvNet = paper_cifar10()  # noqa: RUF009  (a frozen value)

    @property
    def title(self) -> str:
        return f"signature of {self.blueprint.title}, batch {self.batch}"

    @property
    def reference(self) -> str:
        return FORWARD

    def contestants(self) -> dict[str, Contestant]:
        return {
            FORWARD: Contestant(lambda: self._run(lambda network, x: scores(network, x))),
            CALIBRATION: Contestant(lambda: self._run(_recorded)),
        }

    def _run(self, work: Callable[[SpikingNetwork, Tensor], Tensor]) -> Call:
        torch.manual_seed(0)
        network = self.blueprint.build().eval().to(self.device)
        x = torch.rand(self.batch, *self.blueprint.image).to(self.device)
        return lambda: work(network, x)


def _recorded(network: SpikingNetwork, x: Tensor) -> Tensor:
    layers = calibrate(network, [x]).layers
    return next(iter(layers.values())).mean
