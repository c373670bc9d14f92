"""Whether the tensors of a checkpoint can be a network's weights."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from hosnn.errors import CheckpointError
from hosnn.nn.neurons import hidden_neurons
from hosnn.signature.signature import LARGEST_POTENTIAL
from hosnn.tensor_files import REAL, Header

OF_THRESHOLDS = ("signature", "adaptation", "threshold")
"""Tensors that layers with thresholds of their own have in addition, whose shapes the description does not tell."""


def check_header(network: nn.Module, header: Header, source: Path) -> None:
    """Raises CheckpointError unless a file's tensors have the names and shapes of the network's.

    network  may be on the meta device: its numbers are not looked at
    """
    optional = {f"{name}.{part}" for name in hidden_neurons(network) for part in OF_THRESHOLDS}
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    saved = {name: entry.shape for name, entry in header.tensors.items() if name not in optional}
    check_shapes(expected, saved, source)


def check_thresholds(tensors: Mapping[str, Tensor], layers: Iterable[str], source: Path) -> None:
    """Raises CheckpointError unless signatures, k and thresholds of the layers are real numbers of a sensible size."""
    for name in (f"{layer}.{part}" for layer in layers for part in OF_THRESHOLDS):
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tensor.dtype not in REAL.values() or not tensor.numel():
            raise CheckpointError(
                f"{source} holds {name} as {tensor.dtype} {tuple(tensor.shape)}; expected real numbers; train it again"
            )
        if name.endswith(".signature") and float(tensor.abs().max()) > LARGEST_POTENTIAL:
            raise CheckpointError(
                f"{source} holds NaN or infinite numbers, or potentials beyond {LARGEST_POTENTIAL:g} thresholds, in "
                f"{name}; train it again"
            )


def check_shapes(expected: Mapping[str, tuple[int, ...]], saved: Mapping[str, tuple[int, ...]], source: Path) -> None:
    """Raises CheckpointError unless the saved tensors are the expected ones."""
    if expected == saved:
        return
    different = sorted(name for name in expected.keys() | saved.keys() if expected.get(name) != saved.get(name))
    first = different[0]
    raise CheckpointError(
        f"{source} holds another architecture than its network: {len(different)} tensors differ, first {first!r} "
        f"with shape {saved.get(first, 'missing')} where {expected.get(first, 'nothing')} was expected; load it "
        "with the network it was saved from"
    )


def check_types(network: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Give the network the precision of the tensors, in place.

    Raises CheckpointError unless each tensor is of its network's type, or all real numbers are of one other precision.
    """
    own = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    precisions = {tensor.dtype for name, tensor in tensors.items() if own[name].is_floating_point}
    if len(precisions) == 1 and precisions <= set(REAL.values()):
        network.to(next(iter(precisions)))
        own = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    for name, tensor in tensors.items():
        if tensor.dtype != own[name]:
            raise CheckpointError(
                f"{source} holds {name} as {tensor.dtype}, expected {own[name]}, and real numbers in one precision "
                f"({', '.join(sorted(str(kind).removeprefix('torch.') for kind in REAL.values()))}); train it again"
            )
