"""The neural dynamic signature (NDS) as a value: mean and variance of every hidden membrane over clean data.

Shapes: T time, N neuron dimensions.  Potentials are dimensionless: 1 is the resting threshold.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from hosnn.errors import SignatureError
from hosnn.files import parse_json, write_bytes
from hosnn.identity import digest, identity_text
from hosnn.nn.layers import Normalise
from hosnn.nn.neurons import neurons
from hosnn.schema import Hash, Name, validated
from hosnn.tensor_files import read_header, read_tensors, to_bytes

FORMAT = "hosnn-signature-1"

LARGEST_POTENTIAL = 1e6
"""In units of the resting threshold; networks trained to anything useful stay below 1,000."""

Positive = Annotated[int, Field(strict=True, ge=1)]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a signature file says of its signature, beside the tensors."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    layers: Annotated[tuple[Name, ...], Field(min_length=1)]
    steps: Positive
    samples: Positive
    dataset: str
    dataset_sha256: str
    model_sha256: Hash


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
            tensors[f"{name}.mean"] = layer.mean
            tensors[f"{name}.variance"] = layer.variance
        metadata = {"format": FORMAT, "provenance": json.dumps(self.provenance())}
        write_bytes(path, to_bytes(tensors, metadata), failure=_cannot_write)

    @classmethod
    def load(cls, path: Path) -> "Signature":
        """Read a file written by `save`.  Raises SignatureError if it is damaged or another kind of file."""
        try:
            metadata = read_header(path).metadata
            if metadata.get("format") != FORMAT:
                raise SignatureError(f"{path} is no {FORMAT} file; write one with `hosnn calibrate`")
            provenance = validated(Provenance, parse_json(metadata["provenance"].encode()))
            tensors = read_tensors(path)
            expected = [f"{name}.{part}" for name in provenance.layers for part in ("mean", "variance")]
            if sorted(tensors) != sorted(expected):
                raise ValueError(f"it has tensors {sorted(tensors)[:4]} .., expected mean and variance of its layers")
            layers = {
                name: _checked_layer(name, tensors[f"{name}.mean"], tensors[f"{name}.variance"], provenance.steps)
                for name in provenance.layers
            }
        except (OSError, KeyError, ValueError) as error:
            raise SignatureError(
                f"cannot read the signature {path}: {error}; write it again with `hosnn calibrate`"
            ) from error
        hashes = (provenance.dataset_sha256, provenance.model_sha256)
        return cls(layers, provenance.samples, provenance.dataset, *hashes)

    @staticmethod
    def is_in(path: Path) -> bool:
        """Whether a file says that it is a signature, damaged or not."""
        try:
            return read_header(path).metadata.get("format") == FORMAT
        except (OSError, ValueError):
            return False

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


def _checked_layer(name: str, mean: Tensor, variance: Tensor, steps: int) -> LayerSignature:
    """The signature of a layer.  Raises ValueError for numbers or shapes that no recording gives."""
    for part, tensor in (("mean", mean), ("variance", variance)):
        if tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name}.{part} is {tensor.dtype}, expected torch.float64")
        if tensor.dim() < 1 or len(tensor) != steps or tensor.shape != mean.shape or not tensor.numel():
            raise ValueError(f"{name}.{part} has shape {tuple(tensor.shape)}, expected [{steps}, *N] as its mean")
        if not bool(tensor.isfinite().all()) or float(tensor.abs().max()) > LARGEST_POTENTIAL:
            raise ValueError(f"{name}.{part} holds NaN, infinity or potentials beyond {LARGEST_POTENTIAL:g} thresholds")
    if float(variance.min()) < 0:
        raise ValueError(f"{name}.variance has the minimum {float(variance.min()):g}, expected no negative number")
    return LayerSignature(mean, variance)


def _cannot_write(path: Path, error: Exception) -> SignatureError:
    return SignatureError(f"cannot write the signature {path}: {error}; nothing was changed")


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names, shapes, types and bytes of a network's parameters and saved buffers.

    What else its state holds, such as packed weights of quantised layers, counts by its text.
    """
    content = hashlib.sha256()
    for name, value in sorted(model.state_dict().items(), key=itemgetter(0)):
        _add(content, name, value)
    return content.hexdigest()


def _add(content: "hashlib._Hash", name: str, value: object) -> None:
    """Add an entry of a network's state to a hash."""
    if isinstance(value, Mapping):
        value = tuple(value.items())
    if isinstance(value, (tuple, list)):
        for number, part in enumerate(value):
            _add(content, f"{name}.{number}", part)
    elif isinstance(value, Tensor) and value.is_quantized:
        _add(content, name, (identity_text(value.dequantize().tolist()), value.int_repr(), str(value.dtype)))
    elif isinstance(value, Tensor):
        tensor = value.to_dense() if value.layout is not torch.strided else value
        content.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        content.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    else:
        content.update(f"{name}{identity_text(value)}".encode())


SETTINGS = ("level", "gain", "tau_synapse", "kernel_size", "stride", "padding", "dilation", "groups", "eps")
"""Attributes of dead zones, poolings, codings, convolutions and normalisations that change what they compute."""


def network_identity(model: nn.Module) -> str:
    """SHA-256 of all that a membrane depends on besides the image: weights, constants of neurons and of other layers.

    The gradient rule and the number of time steps are excluded: neither changes the membrane at a step.
    """
    layers = neurons(model)
    constants = [(name, layer.dynamics, layer.emit.value) for name, layer in layers.items()]
    unsaved = [(layer.mean.tolist(), layer.std.tolist()) for layer in model.modules() if isinstance(layer, Normalise)]
    settings = [
        (name, type(module).__name__, [getattr(module, setting, None) for setting in SETTINGS])
        for name, module in model.named_modules()
        if name not in layers
    ]
    return digest((fingerprint(model), constants, unsaved, settings))
