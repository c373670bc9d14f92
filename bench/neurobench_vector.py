"""Record what NeuroBench measures on small snnTorch networks, for tests/inspection/test_neurobench.py.

    python bench/neurobench_vector.py --out tests/inspection/neurobench.json

It needs the environment of bench/requirements-neurobench.txt (bench/README.md) and nothing of hosnn.  Weights and
pixels are multiples of 1/16 and the leak is 1/2, so that membranes are exact in 32 bits and no spike depends on
rounding.
"""

import argparse
import json
import platform
import random
import sys
from importlib.metadata import version
from pathlib import Path

try:
    import snntorch
    import torch
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import Footprint
    from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, NeuronOperations, SynapticOperations
    from neurobench.models import SNNTorchModel
    from torch import Tensor, nn
except ImportError as error:
    sys.exit(f"bench/neurobench_vector.py: {error}; make the environment that bench/README.md describes")

SIXTEENTH = 1 / 16
STEPS, IMAGES, CHANNELS, SIZE, HIDDEN, CLASSES = 6, 5, 3, 6, 12, 4
DECAY = 0.5
THRESHOLDS = {"zero": 1.0, "subtract": 1.375}
"""By snnTorch's name of the reset.  No membrane exceeds the second twofold: from what a subtraction leaves above the
threshold, snnTorch subtracts again a step later without a spike, which hosnn's soft reset does not."""
SHARE_OF_ZEROS = 0.25
PACKAGES = ("neurobench", "snntorch", "torch")


def numbers(draw: random.Random, *shape: int, low: int, high: int) -> Tensor:
    """Multiples of 1/16, a quarter of them 0."""
    count = torch.Size(shape).numel()
    drawn = [0 if draw.random() < SHARE_OF_ZEROS else draw.randint(low, high) for _ in range(count)]
    return torch.tensor(drawn, dtype=torch.float32).view(shape) * SIXTEENTH


def whole(values: Tensor) -> list[object]:
    """A tensor of multiples of 1/16 in sixteenths, as nested lists."""
    sixteenths: list[object] = (values / SIXTEENTH).int().tolist()
    return sixteenths


def drawn() -> tuple[dict[str, Tensor], Tensor]:
    """Weights of the convolution and of both dense layers, and images [n, 1, H, W]."""
    draw = random.Random(0)
    weights = {
        "convolution": numbers(draw, CHANNELS, 1, 3, 3, low=-4, high=8),
        "dense": numbers(draw, HIDDEN, CHANNELS * (SIZE - 2) ** 2, low=-4, high=7),
        "last": numbers(draw, CLASSES, HIDDEN, low=-6, high=12),
    }
    return weights, numbers(draw, IMAGES, 1, SIZE, SIZE, low=1, high=16)


def measure(weights: dict[str, Tensor], images: Tensor, reset: str) -> dict[str, object]:
    """NeuroBench's results on a network with these weights.

    reset  of the membrane, by snnTorch's name
    """

    def neurons(output: bool = False) -> nn.Module:
        settings = {"reset_mechanism": reset, "reset_delay": False, "init_hidden": True, "output": output}
        return snntorch.Leaky(beta=DECAY, threshold=THRESHOLDS[reset], **settings)

    convolution = nn.Conv2d(1, CHANNELS, 3, bias=False)
    dense, last = (nn.Linear(*weights[name].T.shape, bias=False) for name in ("dense", "last"))
    for layer, weight in zip((convolution, dense, last), weights.values(), strict=True):
        layer.weight.data = weight
    network = nn.Sequential(convolution, neurons(), nn.Flatten(), dense, neurons(), last, neurons(output=True))
    over_time = images[:, None].expand(-1, STEPS, -1, -1, -1)
    data = torch.utils.data.TensorDataset(over_time, torch.zeros(IMAGES, dtype=torch.int64))
    metrics = [ActivationSparsity, MembraneUpdates, NeuronOperations, SynapticOperations]
    loader = torch.utils.data.DataLoader(data, batch_size=IMAGES)
    results = Benchmark(SNNTorchModel(network), loader, [], [], [[Footprint], metrics]).run(quiet=True)
    connections = sum(weight.numel() * weight.element_size() for weight in weights.values())
    return {
        "reset": reset,
        "threshold": THRESHOLDS[reset],
        "neurobench": flat(results),
        "footprint_of_snntorch_neurons": results["Footprint"] - connections,
    }


def flat(results: dict[str, object]) -> dict[str, float]:
    """NeuroBench's results without nesting."""
    values: dict[str, float] = {}
    for name, value in results.items():
        values |= flat(value) if isinstance(value, dict) else {name: float(value)}
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    out: Path = parser.parse_args().out
    weights, images = drawn()
    content = {
        "command": f"python bench/neurobench_vector.py --out {out.as_posix()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "unit": "weights and pixels in sixteenths",
        "steps": STEPS,
        "decay": DECAY,
        "weights": {name: whole(weight) for name, weight in weights.items()},
        "images": whole(images),
        "networks": [measure(weights, images, reset) for reset in THRESHOLDS],
    }
    out.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
