"""Whether the tensors of a checkpoint can be a network's weights."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn, strided

from hosnn.errors import CheckpointError
from hosnn.nn.neurons import hidden_neurons
from hosnn.signature.signature import LARGEST_POTENTIAL
from hosnn.tensor_files import REAL, Header

OF_THRESHOLDS = ("signature", "adaptation", "threshold")
"""Tensors that layers with thresholds of their own have in addition, whose shapes the description does not tell."""


def tensors_to_save(network: nn.Module) -> dict[str, Tensor]:
    """The network's state on the CPU; tensors that share memory, such as tied weights, each with memory of its own.

    Raises CheckpointError for state that is no tensor, and for tensors of kinds that safetensors does not have.
    """
    tensors: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor) or value.is_quantized or value.layout is not strided or value.is_meta:
            kind = "a tensor without plain numbers" if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(
                f"cannot save {name!r}, which is {kind} (as in quantised layers, or from get_extra_state); a "
                "checkpoint holds plain tensors only: save the network as it was before it was quantised, or use "
                "torch.save"
            )
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if storage in memory else tensor
        memory.add(storage)
    return tensors


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
