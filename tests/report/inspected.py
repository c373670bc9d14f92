"""An inspection and samples as `hosnn inspect` would make them, of a small network, for the tests of its page."""

from functools import cache

import torch
from torch import Tensor, nn

from hosnn.evaluation.setup import Names
from hosnn.inspection.inspect import Disturbance, inspect
from hosnn.inspection.recording import Offset
from hosnn.inspection.samples import sample_neurons
from hosnn.nn.lenet import LeNet
from hosnn.results.inspection import Inspection
from hosnn.results.neuron_samples import NeuronSamples
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Model
from hosnn.signature import calibrate, homeostatic

CLASSES = ("ankle boot", "bag", "coat")


def noisy(model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
    return (x + 0.2 * rng.sign(x)).clamp(0, 1)


@cache
def inspected() -> tuple[Inspection, NeuronSamples]:
    """A homeostatic network under an attack and an offset."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(6, 1, 16, 16, generator=generator), torch.arange(6) % 3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = LeNet(channels=(3, 4), hidden=12, classes=3, image=(1, 16, 16)).build().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8)
    model = homeostatic(model, calibrate(model, [x]))
    disturbances: dict[str, Disturbance] = {"noise 0.2": noisy, "offset 0.3": Offset(0.3)}
    names = Names("small-homeostatic", "noise")
    return inspect(model, (x, y), disturbances, names=names), sample_neurons(model, (x, y), disturbances, neurons=10)
