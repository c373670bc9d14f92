"""The neural dynamic signature (NDS) as a value: mean and variance of every hidden membrane over clean data.

Shapes: T time, N neuron dimensions.  Potentials are dimensionless: 1 is the resting threshold.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from hosnn.errors import SignatureError
from hosnn.files import write_bytes
from hosnn.identity import digest
from hosnn.nn.layers import Normalise
from hosnn.nn.neurons import neurons

FORMAT = "hosnn-signature-1"


@dataclass(frozen=True)
class LayerSignature:
    """u* of one layer: the membrane before reset on clean data.

    mean      [T, *N] float64  potential
    variance  [T, *N] float64  potential squared, over samples (population)
    """

    mean: Tensor
    variance: Tensor

    def __repr__(self) -> str:  # the default would print millions of numbers for a network
        return f"{type(self).__name__}({list(self.mean.shape)})"


@dataclass(frozen=True)
class Signature:
    """The signature of a network, with its provenance.

    layers          by module path of the spiking layer
    samples         number of images it was recorded on
    dataset         name of their data set, and dataset_sha256 its hash
    model_sha256    `network_identity` of the network it was recorded from
    """

    layers: Mapping[str, LayerSignature]
    samples: int
    dataset: str
    dataset_sha256: str
    model_sha256: str

    @property
    def steps(self) -> int:
        """T, the number of time steps."""
        return len(next(iter(self.layers.values())).mean)

    def merge(self, other: "Signature") -> "Signature":
        """The signature of both sets of images together (Chan, Golub & LeVeque 1983).

        Raises SignatureError unless both come from the same network at the same number of steps.
        """
        if self.model_sha256 != other.model_sha256 or self._shapes() != other._shapes():
            raise SignatureError(
                "cannot merge signatures of different networks or numbers of time steps: "
                f"{self.model_sha256[:12]}, T = {self.steps} and {other.model_sha256[:12]}, T = {other.steps}; "
                "calibrate both halves on one network"
            )
        total = self.samples + other.samples
        share = other.samples / total
        layers = {}
        for name, mine in self.layers.items():
            theirs = other.layers[name]
            difference = theirs.mean - mine.mean
            layers[name] = LayerSignature(
                mine.mean + share * difference,
                (1 - share) * mine.variance + share * theirs.variance + share * (1 - share) * difference.square(),
            )
        dataset = self.dataset if self.dataset == other.dataset else f"{self.dataset} + {other.dataset}"
        same_data = self.dataset_sha256 == other.dataset_sha256
        joined = hashlib.sha256((self.dataset_sha256 + other.dataset_sha256).encode()).hexdigest()
        return Signature(layers, total, dataset, self.dataset_sha256 if same_data else joined, self.model_sha256)

    def save(self, path: Path) -> None:
        """Write to a safetensors file with its provenance in the header.  Raises SignatureError if it cannot."""
        tensors = {}
        for name, layer in self.layers.items():
            tensors[f"{name}.mean"] = layer.mean.contiguous()
            tensors[f"{name}.variance"] = layer.variance.contiguous()
        metadata = {"format": FORMAT, "provenance": json.dumps(self.provenance())}
        write_bytes(path, serialise(tensors, metadata), failure=_cannot_write)

    @classmethod
    def load(cls, path: Path) -> "Signature":
        """Read a file written by `save`.  Raises SignatureError if it is damaged or another kind of file."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise SignatureError(f"{path} is no {FORMAT} file; write one with `hosnn calibrate`")
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            provenance = json.loads(metadata["provenance"])
            names = sorted({key.rpartition(".")[0] for key in tensors}, key=provenance["layers"].index)
            layers = {name: LayerSignature(tensors[f"{name}.mean"], tensors[f"{name}.variance"]) for name in names}
            return cls(
                layers,
                provenance["samples"],
                provenance["dataset"],
                provenance["dataset_sha256"],
                provenance["model_sha256"],
            )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise SignatureError(
                f"cannot read the signature {path}: {error}; write it again with `hosnn calibrate`"
            ) from error

    def provenance(self) -> dict[str, object]:
        """The layers, data and network it was recorded from, ready for JSON."""
        return {
            "layers": list(self.layers),
            "steps": self.steps,
            "samples": self.samples,
            "dataset": self.dataset,
            "dataset_sha256": self.dataset_sha256,
            "model_sha256": self.model_sha256,
        }

    def _shapes(self) -> dict[str, torch.Size]:
        return {name: layer.mean.shape for name, layer in self.layers.items()}


def _cannot_write(path: Path, error: Exception) -> SignatureError:
    return SignatureError(f"cannot write the signature {path}: {error}; nothing was changed")


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names, shapes, types and bytes of a network's parameters and saved buffers."""
    content = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        content.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        content.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def network_identity(model: nn.Module) -> str:
    """SHA-256 of all that a membrane depends on besides the image: weights, neuron constants and normalisation.

    The gradient rule and the number of time steps are excluded: neither changes the membrane at a step.
    """
    constants = [(name, layer.dynamics, layer.emit.value) for name, layer in neurons(model).items()]
    unsaved = [(layer.mean.tolist(), layer.std.tolist()) for layer in model.modules() if isinstance(layer, Normalise)]
    return digest((fingerprint(model), constants, unsaved))
