"""A benchmark as a value, a Markdown table and a figure.  Pure functions."""

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hosnn.benchmark.timing import Timing
from hosnn.report.phrases import NO_VALUE
from hosnn.report.plotting import NEURONS, WIDTH, new_figure
from hosnn.results.text import markdown_rule, table_row

FORMAT = "hosnn-speed-1"

HEADINGS = ("what", "contestant", "threads", "time", "quartiles", "peak memory", "same results")

EXPLANATIONS = (
    "time: over that of the first contestant of the same work, the median over rounds in which each has one turn",
    "peak memory: of one call, above what is allocated between calls, in a process of its own",
    "same results: share equal to ours; peers are compared with our LIF",
)

COLOURS = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#7A7A7A", "#8C564B", "#B8A000", "#5D3A9B", "#222222")
MARKERS = "osD^vP*Xph<>"


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """What `hosnn bench` measured, in the order of the work and of the contestants."""

    rows: tuple[Timing, ...]
    rounds: int
    versions: dict[str, str]
    peers: dict[str, str]
    machine: dict[str, str | int]

    def to_json(self) -> dict[str, Any]:
        rows = [asdict(row) for row in self.rows]
        return {
            "format": FORMAT,
            "rounds": self.rounds,
            "versions": self.versions,
            "peers": self.peers,
            "machine": self.machine,
            "rows": rows,
        }

    def by_case(self) -> dict[str, list[Timing]]:
        """Rows by case."""
        by_case: dict[str, list[Timing]] = {}
        for row in self.rows:
            by_case.setdefault(row.case, []).append(row)
        return by_case


def table_cells(row: Timing) -> list[str]:
    """A row of the table, one text per heading of `HEADINGS`."""
    if row.ratio is None or row.low is None or row.high is None:
        return [row.case, row.contestant, str(row.threads), row.refused or NO_VALUE, *[NO_VALUE] * 3]
    absolute = "" if row.seconds is None else f" ({1000 * row.seconds:.3g} ms)"
    return [
        row.case,
        row.contestant,
        str(row.threads),
        f"{_times(row.ratio)}{absolute}",
        f"{_times(row.low)} to {_times(row.high)}",
        NO_VALUE if row.memory is None else f"{row.memory / 2**20:.1f} MiB",
        NO_VALUE if row.agreement is None else f"{100 * row.agreement:.2f} %",
    ]


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x"


def benchmark_markdown(result: BenchmarkResult) -> str:
    """The table, with rounds, hardware and versions."""
    absent = [name for name, version in result.peers.items() if version == "not installed"]
    installed = [f"{name} {version}" for name, version in result.peers.items() if name not in absent]
    lines = [
        f"Rounds: {result.rounds}; {result.machine['processor']}, GPU: {result.machine['gpu']}.",
        f"hosnn {result.versions['hosnn']}, torch {result.versions['torch']}"
        + "".join(f", {peer}" for peer in installed)
        + (f"; not installed: {', '.join(absent)}" if absent else "")
        + ".",
        "",
        *(f"- {line}" for line in EXPLANATIONS),
        "",
        table_row(HEADINGS),
        markdown_rule(len(HEADINGS), texts=2),
        *(table_row(table_cells(row)) for row in result.rows),
    ]
    return "\n".join(lines) + "\n"


def timing_figure(result: BenchmarkResult) -> Figure:
    """Time over ours on a logarithmic axis, one row per case, one mark per contestant with its quartiles."""
    cases = result.by_case()
    names = list(dict.fromkeys(row.contestant for row in result.rows if row.ratio is not None))
    styles = {
        name: (NEURONS["TA-LIF"] if number == 0 else COLOURS[(number - 1) % len(COLOURS)], MARKERS[number % 12])
        for number, name in enumerate(names)
    }
    places = {name: 0.7 * (number + 0.5) / len(names) - 0.35 for number, name in enumerate(names)}
    figure = new_figure(WIDTH, 1.0 + 0.085 * len(names) * (1 + len(cases)) + 0.1 * len(names))
    axes = figure.subplots()
    for line, rows in enumerate(cases.values()):
        for row in rows:
            if row.ratio is None or row.low is None or row.high is None:
                continue
            (colour, marker), at = styles[row.contestant], line + places[row.contestant]
            axes.plot([row.low, row.high], [at, at], color=colour, lw=1)
            axes.plot([row.ratio], [at], marker, color=colour, markersize=6)
    axes.axvline(1, color="#888888", lw=0.8, ls=":")
    axes.set_xscale("log", base=2)
    low, high = axes.get_xlim()
    ticks = [2.0**power for power in range(-6, 11) if low <= 2.0**power <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(range(len(cases)), [textwrap.fill(case, 30) for case in cases], fontsize=9)
    for line in range(len(cases) - 1):
        axes.axhline(line + 0.5, color="#DDDDDD", lw=0.7)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.grid(axis="x", color="#DDDDDD", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("time over ours (less is faster)")
    figure.legend(
        handles=[
            Line2D([], [], color=colour, marker=marker, ls="", markersize=6.5) for colour, marker in styles.values()
        ],
        labels=names,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    return figure
