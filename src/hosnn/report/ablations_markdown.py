"""The ablations of one model as Markdown."""

from hosnn.evaluation.ablations import Ablations
from hosnn.report.comparison_markdown import comparison_markdown
from hosnn.results.text import percent


def ablations_markdown(found: Ablations) -> str:
    """Tables and tests as Markdown."""
    layers = list(dict.fromkeys(layer for rates in found.rates.values() for layer in rates))
    rates = [
        f"| {model} | {' | '.join(f'{rates[layer]:.3f}' if layer in rates else '–' for layer in layers)} |"
        for model, rates in found.rates.items()
    ]
    parts = [
        comparison_markdown(found.compared),
        "Spikes per neuron and time step on clean training images.\n",
        "\n".join([f"| network | {' | '.join(layers)} |", "| --- |" + " ---: |" * len(layers), *rates]),
    ]
    if found.corruptions:
        kinds = next(iter(found.corruptions.values())).corruptions
        lines = [
            f"| {model} | {percent(each.clean)} | {percent(each.mean)} | "
            + " | ".join(percent(each.of(kind)) for kind in kinds)
            + " |"
            for model, each in found.corruptions.items()
        ]
        count = next(iter(found.corruptions.values())).samples
        parts += [
            f"\nAccuracy in percent on {count:,} corrupted images, mean over five severities.\n",
            "\n".join(
                [f"| network | clean | mean | {' | '.join(kinds)} |", "| --- |" + " ---: |" * (2 + len(kinds)), *lines]
            ),
        ]
    if found.steps:
        steps = next(iter(found.steps.values())).steps
        lines = [
            f"| {model}{f' ({each.beyond})' if each.beyond else ''} | "
            + " | ".join(percent(accuracy) for accuracy in each.accuracies)
            + " |"
            for model, each in found.steps.items()
        ]
        parts += [
            "\nAccuracy in percent on clean images at other numbers of time steps than in training.\n",
            "\n".join([f"| network | {' | '.join(map(str, steps))} |", "| --- |" + " ---: |" * len(steps), *lines]),
        ]
    parts += [f"\nLeft out: {reason}." for reason in found.left_out]
    return "\n".join(parts) + "\n"
