"""A network run one time step at a time, in memory that does not grow with the number of steps.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError, ShapeError
from hosnn.nn.body import Body
from hosnn.nn.encoder import AnalogueEncoder, DeadZone
from hosnn.nn.fusion import has_hooks, is_plain
from hosnn.nn.layers import (
    ConstantCoding,
    MeanReadout,
    Normalise,
    OverTime,
    SpikingNetwork,
    TimeDropout,
    WeightedReadout,
)
from hosnn.nn.neurons import LIF, TALIF, Extrapolation, neurons
from hosnn.nn.normalisation import TimeBatchNorm
from hosnn.nn.resnet import Residual
from hosnn.nn.thresholds import ThresholdLIF
from hosnn.spiking.coding import filter_step

Stage = Callable[[Tensor, Any, int], tuple[Tensor, Any]]
"""A part of a network at one time step: (input, state, t) -> (output, next state); the state is None at first."""


class Stream:
    """A network in eval mode that takes one frame at a time and gives the logits of all frames since the last reset.

        stream = hosnn.stream(hosnn.load("runs/my-network"), beyond=hosnn.Extrapolation.REPEAT)
        for frame in camera:
            logits = stream.step(frame)

    After t steps on the same image, or on t frames, `step` has returned what the network gives over t time steps:
    every neuron to the bit for the same currents, logits up to the rounding of matrix products of other sizes.
    There is no gradient.  Weights are the model's own; call `reset` after changing them.
    """

    def __init__(self, stages: tuple[Stage, ...], encodes: bool) -> None:
        self._chain, self._encodes = Chain(stages), encodes
        self.reset()

    def reset(self) -> None:
        """Forget all frames, before other images or another recording."""
        self._state: tuple[Any, ...] | None = None
        self._shape: torch.Size | None = None
        self._steps = 0

    @property
    def steps(self) -> int:
        """Time steps since the last reset."""
        return self._steps

    @property
    def output(self) -> Tensor | None:
        """The last layer's trace or current at the latest step [B, K], before the mean over time; None before a step.

        None, too, of a network without `MeanReadout`, whose `step` returns it.
        """
        readouts = [state for state in self._state or () if isinstance(state, ReadoutState)]
        return readouts[0].latest if readouts else None

    @torch.no_grad()
    def step(self, frame: Tensor) -> Tensor:
        """The logits [B, K] after one more frame, raw pixels [B, C, H, W] in [0, 1].

        Of a network without `MeanReadout`, the last layer's output at this step; of one without `ConstantCoding`,
        from the currents of this step [B, ..].
        Raises ShapeError for a frame of another shape than before, or where a layer has no values for this step and
        its extrapolation is ERROR; the stream is then as before.
        """
        if self._encodes and frame.dim() != 4:
            raise ShapeError(f"stream.step() got a frame {tuple(frame.shape)}; expected one time step [B, C, H, W]")
        if self._shape not in (None, frame.shape):
            raise ShapeError(
                f"stream.step() got a frame {tuple(frame.shape)} after frames {tuple(self._shape or ())}; call reset() "
                "before images of another size or number"
            )
        output, self._state = self._chain(frame, self._state, self._steps)
        self._shape, self._steps = frame.shape, self._steps + 1
        return output


def stream(model: nn.Module, beyond: Extrapolation | None = None) -> Stream:
    """`model`, one time step at a time.

    model   a `SpikingNetwork`, a sequence of hosnn's layers as in the README, or one layer of neurons; in eval mode
    beyond  how signatures, thresholds and statistics per time step are extended beyond the last one; None: as each
            layer says
    Raises ConfigError for a model in train mode, or with a module that cannot run one time step at a time.
    """
    if any(module.training and not isinstance(module, LIF) for module in model.modules()):
        raise ConfigError(
            "stream() got a model in train mode, in which dropout and normalisation depend on all time steps; call "
            "model.eval() first"
        )
    modules = list(modules_in_order("", model))
    encodes = any(isinstance(module, ConstantCoding) for _, module in modules)
    axes, stages = Axes.IMAGES if encodes else Axes.TIME, []
    for name, module in modules:
        stage, axes = _stage(name, module, axes, beyond)
        stages.append(stage)
    return Stream(tuple(stages), encodes)


class Axes(Enum):
    """What the batch form has at a place of the network: images, values over time, or logits."""

    IMAGES = "images"
    TIME = "time"
    LOGITS = "logits"


@dataclass(frozen=True)
class Chain:
    """Stages one after the other."""

    stages: tuple[Stage, ...]

    def __call__(self, x: Tensor, states: tuple[Any, ...] | None, t: int) -> tuple[Tensor, tuple[Any, ...]]:
        following = []
        for stage, state in zip(self.stages, states or [None] * len(self.stages), strict=True):
            x, state = stage(x, state, t)
            following.append(state)
        return x, tuple(following)


@dataclass(frozen=True)
class Stateless:
    """Modules without a time axis."""

    modules: tuple[nn.Module, ...]

    def __call__(self, x: Tensor, state: None, t: int) -> tuple[Tensor, None]:
        for module in self.modules:
            x = module(x)
        return x, None


@dataclass(frozen=True)
class Coding:
    """The synaptic filter of the input; its state is the filtered frame."""

    tau_synapse: float

    def __call__(self, frame: Tensor, trace: Tensor | None, t: int) -> tuple[Tensor, Tensor]:
        trace = filter_step(frame, torch.zeros_like(frame) if trace is None else trace, self.tau_synapse)
        return trace, trace


@dataclass(frozen=True)
class Neurons:
    """A layer of neurons, `LIF.step`."""

    layer: LIF
    beyond: Extrapolation | None

    def __call__(self, current: Tensor, state: Any, t: int) -> tuple[Tensor, Any]:
        return self.layer.step(current, state, t, self.beyond)


@dataclass(frozen=True)
class Normalisation:
    """Batch normalisation by running statistics, those of this step if each has its own."""

    layer: TimeBatchNorm
    beyond: Extrapolation | None

    def __call__(self, currents: Tensor, state: None, t: int) -> tuple[Tensor, None]:
        return self.layer.step(currents, t, self.beyond), None


@dataclass(frozen=True)
class ResidualStep:
    """`Residual`: neurons of the sum of main and shortcut."""

    main: Chain
    shortcut: Chain
    neurons: Neurons

    def __call__(self, x: Tensor, states: tuple[Any, ...] | None, t: int) -> tuple[Tensor, tuple[Any, ...]]:
        of_main, of_shortcut, of_neurons = states or (None, None, None)
        main, of_main = self.main(x, of_main, t)
        shortcut, of_shortcut = self.shortcut(x, of_shortcut, t)
        output, of_neurons = self.neurons(main + shortcut, of_neurons, t)
        return output, (of_main, of_shortcut, of_neurons)


class ReadoutState(NamedTuple):
    """The last layer's output at the latest step, and its mean (or weighted sum) over all steps, each [B, K]."""

    latest: Tensor
    mean: Tensor


def mean_step(output: Tensor, state: ReadoutState | None, t: int) -> tuple[Tensor, ReadoutState]:
    """The stage of `MeanReadout`: m[t] = m[t-1] + (a[t] - m[t-1])/t with t from 1, which does not overflow or drift."""
    mean = output.clone() if state is None else state.mean + (output - state.mean) / (t + 1)
    return mean, ReadoutState(output, mean)


@dataclass(frozen=True)
class WeightedSum:
    """The stage of `WeightedReadout`: the sum so far.  Raises ShapeError beyond its last time step."""

    weights: Tensor

    def __call__(self, output: Tensor, state: ReadoutState | None, t: int) -> tuple[Tensor, ReadoutState]:
        if t >= len(self.weights):
            raise ShapeError(f"WeightedReadout got more than its {len(self.weights)} time steps; reset the stream")
        total = self.weights[t] * output + (0 if state is None else state.mean)
        return total, ReadoutState(output, total)


def modules_in_order(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that run one after the other in a network of hosnn's layers, with their paths."""
    if is_plain(SpikingNetwork, module):
        parts = {part: getattr(module, part) for part in ("normalise", "encoder", "coding", "body", "readout")}
        parts = {part: child for part, child in parts.items() if child is not None}
    elif is_plain(Body, module) or is_plain(nn.Sequential, module):
        parts = dict(module.named_children())
    else:
        yield name, module
        return
    for part, child in parts.items():
        yield from modules_in_order(f"{name}.{part}" if name else part, child)


def _stage(name: str, module: nn.Module, axes: Axes, beyond: Extrapolation | None) -> tuple[Stage, Axes]:
    """The stage of a module, and the axes after it.  Raises ConfigError if it cannot run a step at a time."""
    if axes is Axes.IMAGES and is_plain(ConstantCoding, module):
        assert isinstance(module, ConstantCoding)
        return Coding(module.tau_synapse), Axes.TIME
    if axes is not Axes.TIME:
        known = isinstance(module, (Normalise, DeadZone, AnalogueEncoder))
        if known or type(module).__module__.startswith("torch.nn."):
            return _stateless(name, (module,)), axes
        raise _refused(name, module, f"before or after the time axis, where only torch's own modules can be ({axes})")
    if is_plain(MeanReadout, module):
        return mean_step, Axes.LOGITS
    if isinstance(module, WeightedReadout) and is_plain(WeightedReadout, module):
        return WeightedSum(module.weights.detach()), Axes.LOGITS
    return _stage_over_time(name, module, beyond), axes


def _stage_over_time(name: str, module: nn.Module, beyond: Extrapolation | None) -> Stage:
    if isinstance(module, LIF) and any(is_plain(kind, module) for kind in (LIF, TALIF, ThresholdLIF)):
        return Neurons(module, beyond)
    if isinstance(module, OverTime) and is_plain(OverTime, module):
        return _stateless(name, tuple(module))
    if isinstance(module, TimeBatchNorm) and is_plain(TimeBatchNorm, module):
        _check_statistics(name, module)
        return Normalisation(module, beyond)
    if is_plain(TimeDropout, module):
        return Stateless(())  # the identity in eval mode
    if isinstance(module, Residual) and is_plain(Residual, module):
        main, shortcut = (
            Chain(tuple(_stage_over_time(*place, beyond) for place in modules_in_order(f"{name}.{part}", body)))
            for part, body in (("main", module.main), ("shortcut", module.shortcut))
        )
        last = _stage_over_time(f"{name}.neurons", module.neurons, beyond)
        assert isinstance(last, Neurons)
        return ResidualStep(main, shortcut, last)
    raise _refused(name, module, "whose use of the time axis is not known here")


def _stateless(name: str, modules: tuple[nn.Module, ...]) -> Stateless:
    for module in modules:
        if any(map(has_hooks, module.modules())):
            raise _refused(name, module, "with hooks, which would see single time steps")
        if neurons(module):
            raise _refused(name, module, "with spiking neurons where there is no time axis")
        _check_statistics(name, module)
    return Stateless(modules)


def _check_statistics(name: str, module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
            raise _refused(name, part, "which normalises by each batch's statistics, those of all time steps together")


def _refused(name: str, module: nn.Module, why: str) -> ConfigError:
    return ConfigError(
        f"stream() cannot run {name or 'the model'} ({type(module).__name__}) one time step at a time: it got a module "
        f"{why}; build the network of hosnn's layers in nn.Sequential, without hooks, and put modules that need no "
        "time axis into OverTime"
    )
