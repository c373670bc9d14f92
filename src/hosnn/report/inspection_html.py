"""The page of one inspection, with an explorer of single neurons.  A pure function of the result and the samples."""

import math
from collections.abc import Sequence
from typing import Any

from hosnn.names import inline
from hosnn.report.inspection_figures import energy_figure, errors_figure, layers_drawn, thresholds_figure
from hosnn.report.inspection_tables import activity, drift, drift_sentences, energy, energy_sentence, errors, stability
from hosnn.report.page import page, pictures_of, script_of
from hosnn.results.inspection import Inspection
from hosnn.results.neuron_samples import LayerSamples, NeuronSamples
from hosnn.results.text import describe_machine

DIGITS = 4
"""Significant digits of the explorer's numbers."""


def render_inspection(result: Inspection, samples: NeuronSamples | None = None, classes: Sequence[str] = ()) -> str:
    """The page of one network.

    samples  neurons for the explorer, from `hosnn.inspection.samples.sample_neurons`; None: no explorer
    classes  names of the classes, by number; without a name the number is shown
    """
    return page(
        "inspection.html",
        title=f"{result.model}: a look inside",
        subject=f"{result.images:,} images of {result.dataset}, {result.steps} time steps.",
        finding=energy_sentence(result),
        limitations=[],
        protocols=[],
        sections=_sections(result),
        explorer=None if samples is None else explorer_data(samples, classes),
        sampled="" if samples is None else what_was_sampled(samples),
        script=None if samples is None else script_of("explorer.js"),
        facts=_facts(result),
    )


def explorer_data(samples: NeuronSamples, classes: Sequence[str] = ()) -> dict[str, Any]:
    """What the explorer's script reads, as JSON: names without control characters, numbers rounded, no NaN."""
    names = [inline(name) for name in samples.conditions]

    def class_name(number: int) -> str:
        return inline(classes[number]) if number < len(classes) else f"class {number}"

    return {
        "steps": samples.steps,
        "conditions": names,
        "images": [
            {
                "name": f"image {image.index} ({class_name(image.label)})",
                "label": class_name(image.label),
                "predictions": [class_name(number) for number in image.predictions],
            }
            for image in samples.images
        ],
        "layers": [_layer_data(layer) for layer in samples.layers],
    }


def _layer_data(layer: LayerSamples) -> dict[str, Any]:
    positions = zip(layer.positions, layer.rates, strict=True)
    return {
        "name": inline(layer.layer),
        "neurons": [f"{', '.join(map(str, position))} ({rate:.2f} spikes per step)" for position, rate in positions],
        **{
            name: _rounded(getattr(layer, name)) for name in ("signature", "current", "membrane", "threshold", "spikes")
        },
    }


def _rounded(values: Any) -> Any:
    """Nested tuples of numbers as lists, to DIGITS significant digits; None for what is not finite."""
    if values is None:
        return None
    if isinstance(values, float | int):
        rounded = float(f"{values:.{DIGITS}g}") if math.isfinite(values) else None
        return int(rounded) if rounded is not None and rounded.is_integer() else rounded
    return [_rounded(value) for value in values]


def what_was_sampled(samples: NeuronSamples) -> str:
    """Which neurons, images and time steps the explorer has, in words."""
    images = len(samples.images)
    of_steps = f", the first {samples.steps} of {samples.of_steps:,} time steps"
    steps = "" if samples.steps == samples.of_steps else of_steps
    layers = "; ".join(
        f"{layer.layer}: {len(layer.positions)} of {layer.neurons:,} neurons ({layer.firing:,} fire)"
        for layer in samples.layers
    )
    return (
        f"The explorer has a sample: {images} {'image' if images == 1 else 'images'}, evenly spread over the classes"
        f"{steps}, and in each layer neurons evenly spaced in the order of their rate on these images, at most a "
        f"quarter of them silent as long as others fire. {inline(layers)}."
    )


def _sections(result: Inspection) -> list[dict[str, Any]]:
    """Tables and pictures in the order of the page, each with what it needs to be read."""
    names = [layer.layer for layer in result.conditions[0].layers]
    drawn = len(layers_drawn(names))
    left_out = "" if drawn == len(names) else f" Drawn are at most {drawn} layers, evenly spaced."
    sections: list[dict[str, Any]] = [
        {
            "title": "Activity",
            "table": activity(result),
            "text": ACTIVITY,
            "pictures": pictures_of(
                "Thresholds", f"Mean threshold over neurons and images.{left_out}", thresholds_figure(result)
            ),
        },
        {
            "title": "Errors of the membrane",
            "table": errors(result),
            "text": ERRORS,
            "pictures": [
                *pictures_of(
                    "Distance from the signature",
                    f"Mean square of u - u*. Dashed: the same network with k = 0 in all layers.{left_out}",
                    errors_figure(result, "from_signature"),
                ),
                *pictures_of(
                    "Effect of the disturbance",
                    f"Mean square of u - u clean. Dashed: the same network with k = 0 in all layers.{left_out}",
                    errors_figure(result, "from_clean"),
                ),
            ],
        },
    ]
    if result.adaptive:
        sections.append({"title": "Stability", "table": stability(result), "pictures": [], "text": STABILITY})
    if result.drift:
        text = " ".join([DRIFT, *(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in drift_sentences(result))])
        sections.append({"title": "Drift of the signature", "table": drift(result), "pictures": [], "text": text})
    if result.energy is not None:
        caption = (
            "45 nm, 32-bit numbers; memory access is left out. ANN, once: the same layers with multiply-accumulates."
        )
        pictures = pictures_of("Energy by part", caption, energy_figure(result))
        sections.append(
            {"title": "Operations and energy", "table": energy(result), "pictures": pictures, "text": ENERGY}
        )
    return sections


ACTIVITY = (
    "Rate: spikes per neuron and time step. Silent: neurons that fire on no image. Saturated: neurons that fire at "
    "95 % or more of all steps. Thresholds: means over neurons and images at the first and the last step."
)
ERRORS = (
    "Mean squares over neurons and images at the first and the last time step, of the network and of its copy with "
    "k = 0 in all layers. u - u*: distance from the signature. u - u clean: effect of the disturbance. Removed: 1 - "
    "error/error', where error' is that of the layer with k = 0 on the currents it receives; negative: the feedback "
    "adds error."
)
STABILITY = (
    "Learned k, and the share of neurons whose linearised error is stable at their firing rate on clean images, "
    "with the rate frozen and responding to the threshold. Open loop: the threshold acts on nothing."
)
DRIFT = (
    "Mean squares of the distance between mean membranes on these images, with k = 0, and the stored signature, and "
    "what chance alone gives with so few images."
)
ENERGY = (
    "Per image, over all time steps, under NeuroBench's names. Spikes are counted before the synaptic trace. An "
    "offset's own additions are not counted, only what it changes."
)


def _facts(result: Inspection) -> list[tuple[str, str]]:
    facts = [
        ("Model", result.model),
        ("Model SHA-256", result.model_sha256),
        ("Data", f"{result.dataset}, {result.images:,} images"),
        ("Data SHA-256", result.dataset_sha256 or "not a named data set"),
        ("Seed", str(result.seed)),
        ("Versions", ", ".join(f"{package} {version}" for package, version in result.versions.items())),
        ("Hardware", describe_machine(result.machine)),
    ]
    return [(name, text) for name, text in facts if text]
