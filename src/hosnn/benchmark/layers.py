"""One layer of neurons, forward and backward: our kernel, the eager loop, the compiler, peers, and a memory copy.

Shapes: T time, B batch, N neuron dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hosnn.benchmark.peers import PEERS, peer_layer
from hosnn.benchmark.timing import Call, Contestant, cores
from hosnn.nn.neurons import LIF, TALIF, Emit
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.kernels import backend, eager
from hosnn.spiking.kernels.kernel_spec import FusionContext
from hosnn.spiking.state import AdaptiveThreshold, Dynamics

BYTES = 20
"""Bytes that must be moved per element of the currents, in float32: the currents read twice, the output written, and
its gradient read, the currents' gradient written."""

OURS, OUR_LIF = "hosnn TA-LIF", "hosnn LIF"
TWO_THREADS = "hosnn TA-LIF, 2 threads"
REUSED = "hosnn TA-LIF, input buffer reused, copied before"
EAGER = "eager TA-LIF"
LIMIT = f"copy of {BYTES} bytes per element-step"

LAYER_SHAPES = (
    (5, 64, 1024),
    (5, 64, 32, 14, 14),
    (5, 16, 128, 32, 32),
    (32, 64, 32, 14, 14),
)
"""(T, B, *N) of the layers that are measured."""


@dataclass(frozen=True)
class LayerCase:
    """Forward and backward of one layer in float32: output from currents, dL/dI (and dL/dk) from dL/doutput.

    TA-LIF returns traces and learns one k per neuron; LIF, ours and the peers', returns spikes.  `REUSED` is our layer
    as after a convolution, where it may overwrite its input: a copy, whose making is part of the time.
    """

    shape: tuple[int, ...]
    device: str = "cpu"
    compiled: bool = True

    @property
    def title(self) -> str:
        steps, *others = self.shape
        return f"layer {'x'.join(map(str, others))}, T={steps}"

    @property
    def reference(self) -> str:
        return OURS

    def contestants(self) -> dict[str, Contestant]:
        contestants = {
            OURS: Contestant(lambda: self._ours("auto")),
            EAGER: Contestant(lambda: self._ours("eager"), like=OURS),
            "torch.compile of eager TA-LIF": Contestant(self._compiled, like=OURS),
            OUR_LIF: Contestant(lambda: self._run(LIF(rule=bptt(), emit=Emit.SPIKES))),
            **{name: Contestant(partial(self._peer, name), like=OUR_LIF) for name in PEERS},
            LIMIT: Contestant(self._copy, memory=False),
        }
        if not self.compiled:
            contestants = {name: value for name, value in contestants.items() if "compile" not in name}
        if self.device == "cpu":
            contestants[REUSED] = Contestant(self._input_reused, like=OURS)
        if self.device == "cpu" and cores() > 1:
            contestants[TWO_THREADS] = Contestant(lambda: self._ours("auto"), threads=2, memory=False)
        return contestants

    def _currents(self) -> Tensor:
        """Normally distributed input at which roughly every fifth neuron fires."""
        generator = torch.Generator().manual_seed(0)
        return (torch.randn(self.shape, generator=generator) * 0.8 + 0.2).to(self.device).requires_grad_()

    def _talif(self) -> TALIF:
        generator = torch.Generator().manual_seed(1)
        steps, _, *neurons = self.shape
        signature = 0.3 + 0.1 * torch.randn(steps, *neurons, generator=generator)
        return TALIF(signature, torch.full(tuple(neurons), 0.2), rule=bptt()).to(self.device)

    def _ours(self, backend_name: str) -> Call:
        layer = self._talif()
        run = self._run(layer, layer.adaptation)

        def run_on_backend() -> Tensor:
            with backend.choose(backend_name):
                return run()

        return run_on_backend

    def _peer(self, name: str) -> Call:
        return self._run(peer_layer(name))

    def _compiled(self) -> Call:
        layer, dynamics, rule = self._talif(), Dynamics(), bptt()

        def loop(currents: Tensor, signature: Tensor, adaptation: Tensor) -> Tensor:
            return eager.traces(currents, dynamics, rule, AdaptiveThreshold(signature, adaptation))

        compiled = torch.compile(loop, dynamic=False)
        return self._run(lambda currents: compiled(currents, layer.signature, layer.adaptation), layer.adaptation)

    def _run(self, layer: Callable[[Tensor], Tensor], *parameters: Tensor, currents: Tensor | None = None) -> Call:
        currents = self._currents() if currents is None else currents
        gradient = torch.randn(self.shape, generator=torch.Generator().manual_seed(2)).to(self.device)

        def run() -> Tensor:
            output = layer(currents)
            torch.autograd.grad(output, (currents, *parameters), gradient)
            return output.detach()

        return run

    def _input_reused(self) -> Call:
        layer, source = self._talif(), self._currents().detach()
        currents = torch.empty_like(source).requires_grad_()

        def copied_first(leaf: Tensor) -> Tensor:
            with torch.no_grad():
                leaf.copy_(source)
            return layer(leaf, FusionContext(input_reusable=True))  # type: ignore[no-any-return]

        return self._run(copied_first, layer.adaptation, currents=currents)

    def _copy(self) -> Call:
        """A copy of the same number of bytes: it reads one half of them and writes the other."""
        source = torch.randn(BYTES * self._currents().numel() // 8, device=self.device)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)
