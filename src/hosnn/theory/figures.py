"""Figures of docs/theory.md, drawn from the numbers of `study`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hosnn.report.plotting import INK, NEURONS, OTHERS, WIDTH, common_legend, new_figure
from hosnn.theory.growth import Disturbance, mean_square
from hosnn.theory.linear import frozen_rate
from hosnn.theory.timing import random_boundary, regular_boundary

ORANGE, BLUE = NEURONS["LIF"], NEURONS["TA-LIF"]
GREEN, PINK, SKY, GREY = OTHERS
RESETS = ("soft", "hard")


def figures(results: dict[str, Any]) -> dict[str, Figure]:
    """File name (without suffix) -> figure."""
    return {
        "boundary": boundary(results["recursion"]),
        "growth-linear": linear_growth(results["recursion"]),
        "feedback": feedback(results["feedback"]),
        **{f"growth-{reset}": spiking_growth(results["growth"], reset) for reset in RESETS},
        "remedies": remedies(results["remedies"]),
        "short-runs": short_runs(results["short_runs"]),
    }


def boundary(recursion: dict[str, Any]) -> Figure:
    """The upper end of the stable interval of k: frozen rate at three τ_m; spikes by timing at τ_m = 5."""
    figure = new_figure(WIDTH, 3.4)
    left, right = figure.subplots(1, 2)
    rates = np.linspace(0.08, 1, 100)
    for tau, colour in ((2.0, GREEN), (5.0, BLUE), (20.0, PINK)):
        decay = 1 - 1 / tau
        left.plot(rates, 2 * (1 + decay) / (decay * rates), color=colour, label=f"frozen rate, τ_m = {tau:.0f}")
        rows = [row for row in recursion["boundary"] if row["tau"] == tau]
        left.plot([row["rate"] for row in rows], [row["simulated_upper"] for row in rows], "o", color=colour, ms=4)
    left.plot([], [], "o", color=INK, ms=4, label="simulated recursion")
    right.plot(rates, [2 * 1.8 / (0.8 * rate) for rate in rates], color=BLUE, label="frozen rate, τ_m = 5")
    right.plot(rates, [regular_boundary(5.0, 1 / rate) for rate in rates], color=INK, label="regular spikes")
    coarse = rates[::5]
    right.plot(coarse, [random_boundary(5.0, rate) for rate in coarse], color=INK, ls="--", label="random spikes")
    rows = recursion["timing"]
    right.plot(
        [1 / row["period"] for row in rows],
        [row["spiking"] for row in rows],
        "s",
        color=ORANGE,
        ms=5,
        label="real neuron",
    )
    for k in (0.2, 2 / 3):
        right.axhline(k, color=GREY, lw=0.8, ls=":")
        right.text(0.99, k * 1.06, f"published k = {k:.2g}", ha="right", fontsize=8, color="#555555")
    for axes in (left, right):
        _logarithmic(axes)
        axes.set_ylim((3, 100) if axes is left else (0.1, 100))
        _label(axes, "firing rate r, spikes per step", "largest stable k")
    common_legend(figure, (left, right))
    return figure


def linear_growth(recursion: dict[str, Any]) -> Figure:
    """E[e²] over time in the frozen-rate model; points are Monte Carlo."""
    figure = new_figure(WIDTH, 3.1)
    panels = figure.subplots(1, 3)
    times = np.arange(1, 2001)
    for axes, disturbance in zip(panels, Disturbance, strict=True):
        for neuron, k in (("LIF", 0.0), ("TA-LIF", 0.2)):
            exact = mean_square(frozen_rate(5.0, 0.5, k), disturbance, 0.1, 2000)
            axes.plot(times, np.maximum(exact, 1e-8), color=NEURONS[neuron], label=f"{neuron}, exact")
            row = _row(recursion["growth"], neuron=neuron, disturbance=disturbance.value)
            axes.errorbar(
                row["times"],
                np.maximum(row["simulated"], 1e-8),
                yerr=1.96 * np.array(row["standard_error"]),
                fmt="o",
                ms=4,
                color=NEURONS[neuron],
                label=f"{neuron}, simulated",
            )
        axes.set_xscale("log")
        _logarithmic(axes)
        axes.set_title(_name(disturbance.value), fontsize=10)
        _label(axes, "time step", "E[e²]" if axes is panels[0] else "")
    common_legend(figure, panels)
    return figure


def feedback(measured: dict[str, Any]) -> Figure:
    """G against the noise at τ_m = 5: negative feedback above 0, positive below."""
    figure = new_figure(WIDTH, 3.6)
    panels = figure.subplots(1, 2)
    for axes, reset in zip(panels, RESETS, strict=True):
        for rate, colour in ((0.2, GREEN), (0.5, BLUE), (0.8, PINK)):
            rows = [
                row for row in measured["rows"] if row["reset"] == reset and row["tau"] == 5 and row["rate"] == rate
            ]
            noise = [row["noise"] for row in rows]
            axes.plot(noise, [row["responding"] for row in rows], color=colour, label=f"responding rate, r = {rate}")
            axes.plot(noise, [row["frozen"] for row in rows], color=colour, ls=":")
            axes.errorbar(
                noise,
                [row["measured"] for row in rows],
                yerr=[row["half_width"] for row in rows],
                fmt="o",
                ms=4,
                color=colour,
            )
        axes.plot([], [], color=INK, ls=":", label="frozen rate")
        axes.plot([], [], "o", color=INK, ms=4, label="measured on spikes")
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_xscale("log")
        axes.set_xticks([0.1, 0.25, 0.5, 1, 2, 4], ["0.1", "0.25", "0.5", "1", "2", "4"])
        axes.minorticks_off()
        axes.set_title(f"{reset} reset", fontsize=10)
        _label(axes, "noise of the membrane, resting thresholds", "feedback G" if reset == "soft" else "")
    common_legend(figure, panels)
    return figure


def spiking_growth(growth: dict[str, Any], reset: str) -> Figure:
    """E[e²] of real spikes over time: rows are disturbances, columns regimes."""
    figure = new_figure(WIDTH, 7.2)
    grid = figure.subplots(3, 3, sharex=True)
    kinds = ((0.0, ORANGE, "LIF"), (0.02, SKY, "TA-LIF, k = 0.02"), (0.2, BLUE, "TA-LIF, k = 0.2"))
    for place, (line, disturbance) in enumerate(zip(grid, Disturbance, strict=True)):
        for axes, regime in zip(line, ("narrow", "wide", "saturated"), strict=True):
            setting = {"reset": reset, "regime": regime}
            for k, colour, label in kinds:
                row = _row(growth["rows"], **setting, adaptation=k, disturbance=disturbance.value)
                mean, half = np.array(row["mean"]), np.array(row["half_width"])
                axes.fill_between(growth["times"], mean - half, mean + half, color=colour, alpha=0.25, linewidth=0)
                axes.plot(growth["times"], mean, color=colour, label=label)
            axes.plot(growth["times"], row["frozen"], color=INK, ls=":", label="frozen rate, k = 0.2")
            axes.set_xscale("log")
            _logarithmic(axes)
            if place == 0:
                axes.set_title(regime, fontsize=10)
            _label(
                axes,
                "time step" if place == 2 else "",
                f"{_name(disturbance.value)}\nE[e²]" if axes is line[0] else "",
            )
    common_legend(figure, grid.flat)
    return figure


def remedies(measured: dict[str, Any]) -> Figure:
    """How far thresholds move under a constant disturbance of .1, by variant."""
    figure = new_figure(WIDTH, 5.0)
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    colours = {"as published": BLUE, "leak 0.9": GREEN, "leak 0.5": SKY, "bounds 0.5 to 1.5": PINK}
    for place, (line, reset) in enumerate(zip(grid, RESETS, strict=True)):
        for axes, regime in zip(line, ("narrow", "wide"), strict=True):
            for variant, colour in colours.items():
                row = _row(measured["rows"], reset=reset, regime=regime, variant=variant)
                axes.plot(measured["times"], row["mean_shift"], "o-", ms=3, color=colour, label=variant)
            axes.set_xscale("log")
            _logarithmic(axes)
            axes.set_title(f"{reset} reset, {regime} noise", fontsize=10)
            _label(axes, "time step" if place == 1 else "", "mean |θ - θ[0]|" if axes is line[0] else "")
    common_legend(figure, grid.flat)
    return figure


def short_runs(measured: dict[str, Any]) -> Figure:
    """T = 5: how far a disturbance moves the membrane, by k."""
    figure = new_figure(WIDTH, 3.4)
    panels = figure.subplots(1, 2, sharey=True)
    cases = (("constant", 1.0, "+0.1"), ("constant", -1.0, "−0.1"), ("white", 1.0, "white"), ("wiener", 1.0, "Wiener"))
    names = ((0.0, "LIF", ORANGE), (0.2, "TA-LIF, k = 0.2", SKY), (1 / 1.5, "TA-LIF, k = 0.667", BLUE))
    for axes, reset in zip(panels, RESETS, strict=True):
        for place, (k, name, colour) in enumerate(names):
            chosen = [
                _row(measured["rows"], reset=reset, disturbance=kind, sign=sign, adaptation=k)
                for kind, sign, _ in cases
            ]
            axes.bar(
                np.arange(len(cases)) + 0.27 * (place - 1),
                [row["difference"] for row in chosen],
                0.25,
                yerr=[row["difference_half_width"] for row in chosen],
                color=colour,
                label=name,
            )
        axes.set_xticks(np.arange(len(cases)), [label for _, _, label in cases])
        axes.set_title(f"{reset} reset", fontsize=10)
        _label(axes, "disturbance of the current", "E[(u - u')²]" if reset == "soft" else "")
    common_legend(figure, panels)
    return figure


def _row(rows: Sequence[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    """The first row with these values."""
    return next(row for row in rows if all(row[name] == value for name, value in wanted.items()))


def _logarithmic(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers, also where it spans less than a decade; after the lines are drawn."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#DDDDDD", lw=0.7)
    axes.set_axisbelow(True)


def _name(disturbance: str) -> str:
    return "Wiener" if disturbance == "wiener" else disturbance
