"""Data of the report's example figures, as plain values: one neuron over time, a few attacked images.

Shapes: x images [B, C, H, W] in [0, 1], or frames [B, T, C, H, W]; T time, N neuron dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.data import Split
from hosnn.errors import ConfigError
from hosnn.nn.modes import device_of, evaluating
from hosnn.nn.neurons import TALIF, hidden_neurons
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Attack
from hosnn.signature.calibration import trajectories
from hosnn.spiking.state import AdaptiveThreshold, Trajectory

CANDIDATES = 50  # test images to choose from, per example


@dataclass(frozen=True, kw_only=True)
class NeuronTrace:
    """One neuron of one network over T time steps, on a clean image and on its attacked copy.  JSON-ready.

    neuron     its position in the layer, without batch and time
    signature  u*, None for a neuron with a fixed threshold
    membrane before reset, threshold and signature are potentials; 1 is the resting threshold
    """

    network: str
    layer: str
    neuron: tuple[int, ...]
    signature: tuple[float, ...] | None
    clean_membrane: tuple[float, ...]
    attacked_membrane: tuple[float, ...]
    clean_threshold: tuple[float, ...]
    attacked_threshold: tuple[float, ...]
    clean_spikes: tuple[int, ...]
    attacked_spikes: tuple[int, ...]

    @property
    def deviation(self) -> float:
        """mean over t of |attacked membrane - clean membrane|"""
        pairs = zip(self.attacked_membrane, self.clean_membrane, strict=True)
        return sum(abs(attacked - clean) for attacked, clean in pairs) / len(self.clean_membrane)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One test image, its attacked copy, and a network's predictions for both.  JSON-ready.

    image        [C][H][W] in [0, 1]
    adversarial  the same, or [T][C][H][W] where every time step has its own perturbation
    label, clean_prediction, adversarial_prediction  class names, or numbers as text
    index        the image's position in the original test split
    """

    image: Sequence[Any]
    adversarial: Sequence[Any]
    label: str
    clean_prediction: str
    adversarial_prediction: str
    network: str
    index: int


def neuron_traces(
    networks: Mapping[str, nn.Module], x: Tensor, x_adv: Mapping[str, Tensor], layer: str | None = None
) -> tuple[NeuronTrace, ...]:
    """The same neuron in every network, on the first image of `x` and of each network's own `x_adv`.

    The first network with fixed thresholds (else the first of all) decides which: of the neurons of `layer` (default:
    its first hidden layer) that spike on the clean image, the one whose membrane the attack moves most.

    networks, x_adv  by name; x_adv images or frames
    Raises ConfigError for an attacked image that is missing, a layer that is not there, or networks of unlike sizes.
    """
    missing = [name for name in networks if name not in x_adv]
    if not networks or missing:
        raise ConfigError(f"neuron_traces got no attacked image for {missing or 'any network'}; give x_adv by name")
    steps = {name: (_steps(network, x[:1]), _steps(network, x_adv[name][:1])) for name, network in networks.items()}
    reference = next((name for name, network in networks.items() if not _adapting(network)), next(iter(networks)))
    layer = layer or next(iter(steps[reference][0]))
    for name, (clean, _) in steps.items():
        if layer not in clean:
            raise ConfigError(f"{name} has no hidden spiking layer {layer!r}; it has {', '.join(clean)}")
    shapes = {name: tuple(clean[layer].membrane.shape[2:]) for name, (clean, _) in steps.items()}
    if len(set(shapes.values())) > 1:
        raise ConfigError(f"layer {layer!r} differs in size: {shapes}; neuron_traces compares one neuron in all")
    neuron = _most_moved(steps[reference][0][layer], steps[reference][1][layer])
    return tuple(
        _trace(name, networks[name], layer, neuron, clean[layer], attacked[layer])
        for name, (clean, attacked) in steps.items()
    )


def attacked_examples(
    model: nn.Module,
    split: Split,
    attack: Attack,
    count: int = 6,
    seed: int = 0,
    *,
    network: str = "model",
    classes: Sequence[str] = (),
) -> tuple[Example, ...]:
    """`count` test images that `model` gets right, of as many classes as there are, each attacked.

    They are chosen before the attack runs, so the attack may fail on some.  Fewer if the model gets fewer right.
    classes  names for the report; without, it shows class numbers
    """
    candidates = split.subset(min(len(split), CANDIDATES * count))
    device = device_of(model, candidates.labels)
    with evaluating(model):
        x, y = (part.to(device) for part in candidates.batch(torch.arange(len(candidates))))
        with torch.no_grad():
            correct = (model(x).argmax(1) == y).nonzero()[:, 0].tolist()
        chosen = torch.tensor(_classes_in_turn(correct, y.tolist())[:count], dtype=torch.int64, device=device)
        if len(chosen) == 0:
            return ()
        x, y, index = x[chosen], y[chosen], candidates.index.to(device)[chosen]
        x_adv = attack(model, x, y, SampleRandom(seed, index).fold("examples"))
        with torch.no_grad():
            predictions = model(x_adv).argmax(1).tolist()

    def class_name(number: int) -> str:
        return classes[number] if number < len(classes) else str(number)

    return tuple(
        Example(
            image=image.tolist(),
            adversarial=attacked.tolist(),
            label=class_name(label),
            clean_prediction=class_name(label),
            adversarial_prediction=class_name(prediction),
            network=network,
            index=position,
        )
        for image, attacked, label, prediction, position in zip(
            x.cpu(), x_adv.detach().cpu(), y.tolist(), predictions, index.tolist(), strict=True
        )
    )


def _classes_in_turn(rows: list[int], labels: list[int]) -> list[int]:
    """Rows reordered so that classes take turns."""
    count: dict[int, int] = {}
    order = []
    for row in rows:
        label = labels[row]
        order.append((count.get(label, 0), label, row))
        count[label] = count.get(label, 0) + 1
    return [row for _, _, row in sorted(order)]


def _steps(network: nn.Module, x: Tensor) -> dict[str, Trajectory]:
    """Membrane, threshold and spikes over time, by hidden layer."""
    device = device_of(network, x)
    with evaluating(network), torch.no_grad():
        return trajectories(network, x.to(device))


def _adapting(network: nn.Module) -> bool:
    return any(isinstance(layer, TALIF) for layer in hidden_neurons(network).values())


def _most_moved(clean: Trajectory, attacked: Trajectory) -> tuple[int, ...]:
    """Position of the neuron whose membrane the attack moves most, of those that spike on the clean image."""
    moved = (attacked.membrane - clean.membrane)[:, 0].abs().mean(0)
    spiking = clean.spikes[:, 0].sum(0) > 0
    if bool(spiking.any()):
        moved = torch.where(spiking, moved, -1.0)
    return tuple(int(position) for position in torch.unravel_index(moved.argmax(), moved.shape))


def _trace(
    name: str, network: nn.Module, layer: str, neuron: tuple[int, ...], clean: Trajectory, attacked: Trajectory
) -> NeuronTrace:
    def of_neuron(values: Tensor) -> tuple[float, ...]:
        """[T, *N] -> [T]"""
        return tuple(float(step[neuron]) for step in values)

    module = hidden_neurons(network)[layer]
    threshold = module.threshold_over(len(clean.membrane))  # only the layer knows how it extrapolates its signature
    signature = threshold.signature if isinstance(threshold, AdaptiveThreshold) else None
    return NeuronTrace(
        network=name,
        layer=layer,
        neuron=neuron,
        signature=None if signature is None else of_neuron(signature),
        clean_membrane=of_neuron(clean.membrane[:, 0]),
        attacked_membrane=of_neuron(attacked.membrane[:, 0]),
        clean_threshold=of_neuron(clean.threshold[:, 0]),
        attacked_threshold=of_neuron(attacked.threshold[:, 0]),
        clean_spikes=tuple(int(spike) for spike in of_neuron(clean.spikes[:, 0])),
        attacked_spikes=tuple(int(spike) for spike in of_neuron(attacked.spikes[:, 0])),
    )
