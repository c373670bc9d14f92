"""Some neurons of a network on some images, step by step, under every condition: what the page of an inspection shows.

Shapes: C conditions, M images, n neurons of a layer, T time steps, as nested tuples.
"""

from dataclasses import dataclass

OverTime = tuple[float, ...]  # [T]
Runs = tuple[tuple[tuple[OverTime, ...], ...], ...]  # [C][M][n][T]


@dataclass(frozen=True, kw_only=True)
class LayerSamples:
    """Some neurons of one spiking layer.

    layer      its module path
    neurons    how many it has
    firing     how many of them fire on the sampled images without disturbance
    positions  of the sampled ones in the layer, without batch and time  [n]
    rates      their spikes per time step on the sampled images without disturbance  [n]
    signature  u*, potential  [n][T]; None for a layer without one
    current    I, with the offset if there is one, potential per step  [C][M][n][T]
    membrane   u, before reset, potential                              [C][M][n][T]
    threshold  θ, potential                                            [C][M][n][T]
    spikes     in {0, 1}                                               [C][M][n][T]
    """

    layer: str
    neurons: int
    firing: int
    positions: tuple[tuple[int, ...], ...]
    rates: tuple[float, ...]
    signature: tuple[OverTime, ...] | None
    current: Runs
    membrane: Runs
    threshold: Runs
    spikes: Runs


@dataclass(frozen=True, kw_only=True)
class ImageSample:
    """An image, and what the network says of it.

    index        its position in the original test split
    label        its class
    predictions  the class that the network predicts, under each condition  [C]
    """

    index: int
    label: int
    predictions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class NeuronSamples:
    """Some neurons of every spiking layer on the same images.

    conditions  names, clean first  [C]
    steps       T, the first ones of
    of_steps    all time steps
    """

    conditions: tuple[str, ...]
    images: tuple[ImageSample, ...]
    layers: tuple[LayerSamples, ...]
    steps: int
    of_steps: int
