"""Inspecting a network: `hosnn.inspect`."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.data import Split
from hosnn.data.containers import images_and_labels
from hosnn.errors import ConfigError
from hosnn.evaluation.setup import Names
from hosnn.images import check_images
from hosnn.inspection.energy import energy_of
from hosnn.inspection.operations import EncoderInputs, encoder_layers
from hosnn.inspection.recording import Offset, Records, record, signatures_over
from hosnn.inspection.sums import NEAR, LayerSums
from hosnn.nn.layers import ConstantCoding
from hosnn.nn.modes import device_of, evaluating
from hosnn.nn.neurons import TALIF, neurons
from hosnn.nn.streaming import modules_in_order
from hosnn.nn.unwrapping import unwrapped
from hosnn.provenance import machine, versions
from hosnn.results.inspection import AdaptiveLayer, Condition, Drift, Energy, Inspection, Stability
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import misclassified
from hosnn.robustness.model import Attack
from hosnn.signature import Signature, fingerprint
from hosnn.signature.ablations import without_adaptation
from hosnn.theory.certificate import certify

CLEAN = "clean"
BLOCK = 5_000_000
"""Numbers per variable of all layers that a block of images may have; some twenty variables are in memory."""

Disturbance = Attack | Offset
Sums = dict[str, LayerSums]


def inspect(
    model: nn.Module,
    data: Any,
    disturbances: Mapping[str, Disturbance] | None = None,
    *,
    signature: Signature | None = None,
    others: Mapping[str, Tensor] | None = None,
    names: Names = Names(),  # noqa: B008  (a frozen value)
    seed: int = 0,
) -> Inspection:
    """What happens inside a spiking network, clean and disturbed, and what it costs.

    data          images and labels, as for `hosnn.evaluate`
    disturbances  by name: attacks, and constant currents (`Offset`)
    signature     for layers without one of their own, so that errors of LIF can be measured from it (`hosnn.calibrate`)
    others        by name: images of other data sets, to see whether the signature fits them  [n, C, H, W]
    The network with k = 0 sees the same disturbed images, which were crafted on `model`.
    Raises ConfigError for a model without spiking layers of hosnn, or with a layer that does not run once.
    """
    model = unwrapped(model, "inspect")
    require_neurons(model)
    split = data if isinstance(data, Split) else Split.in_order(*images_and_labels(data, "inspect"))
    check_images(split.batch(torch.arange(1))[0], origin="inspect")
    with evaluating(model):
        run = _Run(model, split, disturbances or {}, signature, seed)
        energies, missing = run.energies()
        return Inspection(
            model=names.model,
            model_sha256=fingerprint(model),
            dataset=names.dataset,
            dataset_sha256=names.dataset_sha256,
            images=len(split),
            steps=run.steps,
            seed=seed,
            conditions=run.conditions(),
            adaptive=_adaptive_layers(model, run.sums[CLEAN]),
            drift=run.drift(names.dataset, others or {}),
            energy=energies.pop(CLEAN, None),
            disturbed_energy=energies,
            energy_missing=missing,
            versions=versions(),
            machine=machine(),
        )


def require_neurons(model: nn.Module) -> None:
    """Raises ConfigError for a model without spiking layers of hosnn."""
    if not neurons(model):
        raise ConfigError(f"inspect got a {type(model).__name__} without hosnn.LIF layers; there is nothing to look at")


def disturbed(model: nn.Module, disturbance: Disturbance | None, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
    """The images that the network gets under a disturbance: attacked ones, or x itself."""
    return x if disturbance is None or isinstance(disturbance, Offset) else disturbance(model, x, y, rng)


class _Run:
    """All images once through the network and its copy with k = 0, under every condition, in blocks.

    sums     by condition and layer
    plain_sums  by layer, of the copy with k = 0 on clean images
    correct  by condition: numbers of images classified correctly
    inputs   by condition: nonzero values of the encoded images; empty without a coding
    encoder  by condition: nonzero inputs of the layers of weights that run before the coding
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        disturbances: Mapping[str, Disturbance],
        signature: Signature | None,
        seed: int,
    ) -> None:
        self.model, self.images = model, len(split)
        self.layers = neurons(model)
        self.adaptive = [name for name, layer in self.layers.items() if isinstance(layer, TALIF)]
        self.plain = without_adaptation(model) if self.adaptive else model
        conditions: dict[str, Disturbance | None] = {CLEAN: None, **disturbances}
        self.sums: dict[str, Sums] = {name: {layer: LayerSums() for layer in self.layers} for name in conditions}
        self.correct = dict.fromkeys(conditions, 0)
        self.inputs: dict[str, Tensor] = {}
        self.encoder: dict[str, dict[str, EncoderInputs]] = {name: {} for name in conditions}
        self.steps, self.block = self._sizes(split)
        self.signatures = signatures_over(model, self.steps, signature)
        self.plain_sums: Sums = {layer: LayerSums() for layer in self.signatures}
        for rows in split.blocks(self.block):
            x, y = (part.to(device_of(model)) for part in split.batch(rows))
            rng = SampleRandom(seed, split.index[rows.to(split.index.device)].to(x.device))
            clean: tuple[Records, Records] | None = None
            for name, disturbance in conditions.items():
                offset = disturbance if isinstance(disturbance, Offset) else None
                images = disturbed(model, disturbance, x, y, rng.fold(name))
                self._count_inputs(name, images)
                clean = self._add(name, images, y, offset, clean)

    def conditions(self) -> tuple[Condition, ...]:
        return tuple(
            Condition(
                name=name,
                accuracy=self.correct[name] / self.images,
                layers=tuple(layer.activity(path, path in self.adaptive) for path, layer in layers.items()),
            )
            for name, layers in self.sums.items()
        )

    def energies(self) -> tuple[dict[str, Energy], str]:
        """The energy by condition, or nothing and why it is not known."""
        if not self.inputs:
            return {}, "operations cannot be counted: the network has no ConstantCoding"
        try:
            return {
                name: energy_of(self.model, sums, self.inputs[name], self.steps, self.images, self.encoder[name])
                for name, sums in self.sums.items()
            }, ""
        except ConfigError as error:
            return {}, str(error)

    def drift(self, dataset: str, others: Mapping[str, Tensor]) -> tuple[Drift, ...]:
        """Of the images inspected, then of other data sets; none without a signature."""
        if not self.signatures:
            return ()
        drifts = [_drift(dataset, self.plain_sums, self.signatures)]
        for name, images in others.items():
            sums = {layer: LayerSums() for layer in self.signatures}
            for x in torch.split(images, self.block):
                records = record(self.plain, x.to(device_of(self.model)))[1]
                for layer, total in sums.items():
                    total.add(records[layer], self.layers[layer].dynamics)
            drifts.append(_drift(name, sums, self.signatures))
        return tuple(drifts)

    def _add(
        self,
        condition: str,
        x: Tensor,
        y: Tensor,
        offset: Offset | None,
        clean: tuple[Records, Records] | None,
    ) -> tuple[Records, Records]:
        """Add a block of images; returns the records of the clean condition, of the network and of that with k = 0."""
        logits, records = record(self.model, x, offset)
        self.correct[condition] += int((~misclassified(logits, y)).sum())
        plain = record(self.plain, x, offset)[1] if self.adaptive else records
        for name, layer in self.sums[condition].items():
            run, signature = records[name], self.signatures.get(name)
            before, plain_before = (run_of[name] for run_of in clean) if clean else (None, None)
            layer.add(run, self.layers[name].dynamics, moments=clean is None)
            layer.error.add(run.trajectory.membrane, signature, before.trajectory.membrane if before else None)
            if run.alone is not None:
                layer.alone.add(run.alone, signature, before.alone if before else None)
                of_plain = plain_before.trajectory.membrane if plain_before else None
                layer.without_adaptation.add(plain[name].trajectory.membrane, signature, of_plain)
        if clean is not None:
            return clean
        for name, layer in self.plain_sums.items():
            layer.add(plain[name], self.layers[name].dynamics)
        return records, plain

    def _count_inputs(self, condition: str, x: Tensor) -> None:
        found = self.encoder[condition]

        def add(name: str, values: Tensor) -> None:
            nonzero, before = (values != 0).sum(0).double(), found.get(name)
            total = nonzero if before is None else before.totals + nonzero
            found[name] = EncoderInputs(total, len(values) // len(x))

        handles = [
            layer.register_forward_pre_hook(lambda _, given, name=name: add(name, given[0]))
            for name, layer in encoder_layers(self.model).items()
        ]
        try:
            encoding = list(_encoding(self.model, x))
        finally:
            for handle in handles:
                handle.remove()
        encoded = next((value for module, value in encoding if isinstance(module, ConstantCoding)), None)
        if encoded is not None:
            nonzero = (encoded != 0).sum((0, 1)).double()
            self.inputs[condition] = self.inputs.get(condition, 0) + nonzero

    def _sizes(self, split: Split) -> tuple[int, int]:
        """T, and the number of images in a block."""
        x = split.batch(torch.arange(1))[0].to(device_of(self.model))
        runs = [run.trajectory.membrane for run in record(self.model, x)[1].values()]
        return len(runs[0]), max(1, min(250, BLOCK // sum(run.numel() for run in runs)))


def _encoding(model: nn.Module, x: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
    """The modules that run first, up to the coding if there is one, each with its output."""
    modules = [module for _, module in modules_in_order("", model)]
    if any(isinstance(module, ConstantCoding) for module in modules):
        with torch.no_grad():
            for module in modules:
                x = module(x)
                yield module, x
                if isinstance(module, ConstantCoding):
                    return


def _adaptive_layers(model: nn.Module, sums: Sums) -> tuple[AdaptiveLayer, ...]:
    return tuple(
        AdaptiveLayer(
            layer=name,
            neurons=sums[name].rates.numel(),
            lowest_adaptation=float(layer.adaptation.detach().min()),
            mean_adaptation=float(layer.adaptation.detach().expand(sums[name].rates.shape).mean()),
            highest_adaptation=float(layer.adaptation.detach().max()),
            frozen_rate=_stability(layer, sums[name], None),
            responding_rate=_stability(layer, sums[name], _sensitivity(layer, sums[name])),
        )
        for name, layer in neurons(model).items()
        if isinstance(layer, TALIF)
    )


def _stability(layer: TALIF, sums: LayerSums, sensitivity: Tensor | None) -> Stability:
    k, dynamics = layer.adaptation.detach(), layer.dynamics
    counts = certify(sums.rates, k, dynamics.tau_membrane, dynamics.reset, sensitivity)
    return Stability(inside=counts.inside, outside=counts.outside, open_loop=counts.open_loop, silent=counts.silent)


def _sensitivity(layer: TALIF, sums: LayerSums) -> Tensor:
    """h = θ[0] f of every neuron, f the density of u - θ at 0, by the share of membranes in a window around it."""
    assert sums.near is not None and sums.threshold is not None
    return sums.near / (sums.images * len(sums.threshold)) / (2 * NEAR)


def _drift(dataset: str, sums: Sums, signatures: Mapping[str, Tensor]) -> Drift:
    mean_square, by_chance = {}, {}
    for name, layer in sums.items():
        assert layer.membrane is not None and layer.squares is not None
        mean = layer.membrane / layer.images
        mean_square[name] = float((mean - signatures[name]).square().mean())
        variance = (layer.squares / layer.images - mean.square()).clamp(min=0)
        by_chance[name] = float(variance.mean()) / layer.images
    images = next(iter(sums.values())).images
    return Drift(dataset=dataset, images=images, mean_square=mean_square, by_chance=by_chance)
