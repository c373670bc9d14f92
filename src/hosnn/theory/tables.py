"""Tables of docs/theory.md in Markdown, from the numbers of `study`."""

from collections.abc import Iterable, Sequence
from typing import Any

from hosnn.theory.study.effort import Rows

TIMES = (5, 50, 500)
RESETS = ("soft", "hard")


def tables(results: dict[str, Any]) -> dict[str, str]:
    """File name (without suffix) -> Markdown."""
    return {
        "linear": linear(results["recursion"]["growth"]),
        "timing": timing(results["recursion"]["timing"]),
        "feedback": feedback(results["feedback"]["rows"]),
        "stability": stability(results["stability"]["summary"]),
        "growth": growth(results["growth"]),
        "remedies": remedies(results["remedies"]["rows"]),
        "capacity": capacity(results["remedies"]["capacity"]),
        "short-runs": short_runs(results["short_runs"]["rows"]),
    }


def linear(rows: Rows) -> str:
    """E[e²] of the frozen-rate recursion at a few times."""
    times = rows[0]["times"]
    lines = [
        [
            row["neuron"],
            row["disturbance"],
            *(
                _exact_and_simulated(exact, simulated)
                for exact, simulated in zip(row["exact"], row["simulated"], strict=True)
            ),
            "grows" if row["limit"] is None else f"{row['limit']:.4f}",
        ]
        for row in sorted(rows, key=lambda row: row["disturbance"])
    ]
    return _table(["neuron", "disturbance", *(f"t = {t}" for t in times), "limit"], lines)


def timing(rows: Rows) -> str:
    """Upper boundary of k by the timing of spikes."""
    lines = [
        [
            "every step" if row["period"] == 1 else f"every {row['period']} steps",
            *(f"{row[name]:.3f}" for name in ("frozen", "random", "regular", "spiking")),
        ]
        for row in rows
    ]
    return _table(["a spike", "frozen rate", "random spikes", "regular spikes", "real neuron"], lines)


def feedback(rows: Rows) -> str:
    """G at τ_m = 5."""
    lines = [
        [
            row["reset"],
            f"{row['rate']}",
            f"{row['noise']}",
            f"{row['sensitivity']:.2f}",
            _signed(row["frozen"]),
            _signed(row["responding"]),
            f"{_signed(row['measured'])} ± {row['half_width']:.2f}",
        ]
        for reset in RESETS
        for row in rows
        if row["reset"] == reset and row["tau"] == 5 and row["noise"] in (0.25, 0.5, 1.0, 2.0, 4.0)
    ]
    headings = ["reset", "r", "noise", "h", "G, frozen rate", "G, responding rate", "G, measured"]
    return _table(headings, lines)


def stability(rows: Rows) -> str:
    """How often the predictions agree with what populations did."""
    kinds = {"sign": "k = ±0.05", "upper": "k at an outer boundary"}
    thresholds = {"shared": "shared", "own": "own (as published)"}
    lines = [
        [
            row["reset"],
            kinds[row["kind"]],
            label,
            str(row[outcome]["decided"]),
            f"{row[outcome]['kept_with_positive_k']} of {row[outcome]['positive_k']}",
            str(row[outcome]["frozen_right"]),
            str(row[outcome]["responding_right"]),
        ]
        for reset in RESETS
        for row in rows
        if row["reset"] == reset
        for outcome, label in thresholds.items()
    ]
    headings = ["reset", "k", "threshold", "decided", "kept, k > 0", "frozen rate right", "responding rate right"]
    return _table(headings, lines)


def growth(results: dict[str, Any]) -> str:
    """E[e²] of real spikes at a few times: LIF, TA-LIF and the frozen rate's prediction for it."""
    at = [results["times"].index(t) for t in TIMES]
    lines = []
    for reset in RESETS:
        for regime in ("narrow", "wide", "saturated"):
            for disturbance in ("constant", "white", "wiener"):
                lif, talif = (
                    next(
                        row
                        for row in results["rows"]
                        if (row["reset"], row["regime"], row["disturbance"], row["adaptation"])
                        == (reset, regime, disturbance, k)
                    )
                    for k in (0.0, 0.2)
                )
                cells = [
                    *(_with_band(lif["mean"][place], lif["half_width"][place]) for place in at),
                    *(_with_band(talif["mean"][place], talif["half_width"][place]) for place in at),
                    f"{talif['frozen'][at[-1]]:.3f}",
                ]
                lines.append([reset, regime, disturbance, *cells])
    headings = ["reset", "noise", "disturbance", *(f"LIF, t = {t}" for t in TIMES)]
    return _table([*headings, *(f"TA-LIF, t = {t}" for t in TIMES), f"frozen rate, t = {TIMES[-1]}"], lines)


def remedies(rows: Rows) -> str:
    """Errors and thresholds under a constant disturbance, with leaks and bounds."""
    lines = [
        [
            row["reset"],
            row["regime"],
            row["variant"],
            _with_band(row["error"], row["error_half_width"]),
            *("–" if row[name] is None else f"{row[name]:.3f}" for name in ("frozen_error", "responding_error")),
            f"{row['largest_shift']:.1f}",
            f"{row['undisturbed_rate']:.2f} → {row['rate_at_end']:.2f}",
        ]
        for reset in RESETS
        for row in rows
        if row["reset"] == reset
    ]
    headings = ["reset", "noise", "threshold", "mean e", "frozen rate", "responding rate", "largest shift of θ", "r"]
    return _table(headings, lines)


def capacity(rows: Rows) -> str:
    """What a saturated neuron rejects."""
    lines = [[f"{row['share']:.2f}", f"{row['disturbance']:.2f}", f"{row['error']:.3f}"] for row in rows]
    return _table(["d / (u* - μ)", "d", "mean e"], lines)


def short_runs(rows: Rows) -> str:
    """T = 5."""
    lines = []
    for reset in RESETS:
        for row in rows:
            if row["reset"] != reset:
                continue
            disturbance = str(row["disturbance"] or "none")
            if disturbance == "constant":
                disturbance += " +" if row["sign"] > 0 else " −"
            lines.append(
                [
                    reset,
                    disturbance,
                    "LIF" if row["adaptation"] == 0 else f"{row['adaptation']:.3f}",
                    _with_band(row["error"], row["error_half_width"]),
                    _with_band(row["difference"], row["difference_half_width"]),
                    f"{row['spikes_changed']:.3f}",
                    f"{row['rate']:.3f}",
                ]
            )
    return _table(["reset", "disturbance", "k", "E[(u - u*)²]", "E[(u - u')²]", "spikes changed", "r"], lines)


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _with_band(mean: float, half: float) -> str:
    return f"{mean:.3f} ± {half:.3f}"


def _exact_and_simulated(exact: float, simulated: float) -> str:
    return f"{exact:.4f} ({simulated:.4f})"


def _signed(value: float) -> str:
    return f"{value + 0.0:+.2f}"
