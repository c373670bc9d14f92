"""The ablations of one model as Markdown."""

from collections.abc import Sequence

from hosnn.evaluation.ablations import Ablations
from hosnn.names import markdown
from hosnn.report.comparison_markdown import comparison_markdown
from hosnn.report.phrases import NO_VALUE
from hosnn.results.text import percent, table_row


def ablations_markdown(ablations: Ablations) -> str:
    """Accuracies under attack with their tests, firing rates, and accuracies on corrupted images and other steps."""
    parts = [
        comparison_markdown(ablations.compared),
        "Spikes per neuron and time step on clean training images.\n",
        _rates(ablations),
    ]
    if ablations.corruptions:
        first = next(iter(ablations.corruptions.values()))
        parts += [
            f"\nAccuracy in percent on {first.samples:,} corrupted images, mean over five severities.\n",
            _table(
                ("clean", "mean", *first.corruptions),
                [
                    (
                        model,
                        percent(accuracies.clean),
                        percent(accuracies.mean),
                        *(percent(accuracies.mean_of(kind)) for kind in first.corruptions),
                    )
                    for model, accuracies in ablations.corruptions.items()
                ],
            ),
        ]
    if ablations.steps:
        parts += [
            "\nAccuracy in percent on clean images at other numbers of time steps than in training.\n",
            _table(
                [str(count) for count in next(iter(ablations.steps.values())).steps],
                [
                    (
                        f"{model} ({accuracies.beyond})" if accuracies.beyond else model,
                        *map(percent, accuracies.accuracies),
                    )
                    for model, accuracies in ablations.steps.items()
                ],
            ),
        ]
    parts += [f"\nLeft out: {markdown(reason)}." for reason in ablations.left_out]
    return "\n".join(parts) + "\n"


def _rates(ablations: Ablations) -> str:
    """Firing rates by network and layer; networks may have different layers."""
    layers = list(dict.fromkeys(layer for rates in ablations.rates.values() for layer in rates))
    rows = [
        (model, *(f"{rates[layer]:.3f}" if layer in rates else NO_VALUE for layer in layers))
        for model, rates in ablations.rates.items()
    ]
    return _table(layers, rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Numbers by network; the first text of a row is the network's name."""
    lines = [f"| network | {' | '.join(headings)} |", "| --- |" + " ---: |" * len(headings)]
    return "\n".join([*lines, *(table_row([markdown(row[0]), *row[1:]]) for row in rows)])
