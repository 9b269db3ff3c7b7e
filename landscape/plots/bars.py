"""Weights by every method side by side, and the relaxation timescales."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D

from landscape.errors import UsageError
from landscape.plots.layout import heaviest, log_weights
from landscape.plots.style import INK, OKABE_ITO, SMALL, label_axes, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from landscape.store import Analysis

# Column of the network, words, colour and marker: told apart without colour, too.
METHODS = (
    ("zeroth", "0th order", OKABE_ITO[5], "v"),
    ("second", "2nd order", OKABE_ITO[1], "s"),
    ("sampled", "sampled", OKABE_ITO[0], "o"),
    ("exact", "exact (importance sampling)", OKABE_ITO[3], "D"),
)
MAX_STATES = 16
SPREAD = 0.6  # of the distance between two states that the methods of one take up
LOGARITHMIC = 30.0  # ratio of the heaviest to the lightest weight from which on the axis is logarithmic
MAX_TIMESCALES = 30
SOLVABLE = 300  # states up to which timescales are computed for a picture: a few seconds


@dataclass(frozen=True, eq=False)
class WeightArtists:
    """What `plot_weights` drew: the states `shown` (k,), and for each method, by its column, an error-bar container
    with the `values` (k,) and standard `errors` (k,), NaN where there is none."""

    ax: Axes
    shown: np.ndarray
    values: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    bars: dict[str, ErrorbarContainer]


@dataclass(frozen=True, eq=False)
class TimescaleArtists:
    """What `plot_timescales` drew: log10 of the `shown` timescales (k,), as the markers of `line`; of how many `total`,
    with `infinite` ones and `unresolved` ones, which are not drawn."""

    ax: Axes
    shown: np.ndarray
    line: Line2D
    total: int
    infinite: int
    unresolved: int


def plot_weights(analysis: Analysis, *, max_states: int = MAX_STATES, ax: Axes | None = None) -> WeightArtists:
    """The weights of the heaviest states by every method that there is, side by side, with one standard error."""
    ax = new_axes(ax)
    columns = analysis.network.weights
    methods = [method for method in METHODS if method[0] in columns and np.isfinite(columns[method[0]]).any()]
    shown = heaviest(log_weights(analysis)[0], max_states)
    values, errors, bars = {}, {}, {}
    step = SPREAD / max(len(methods), 1)
    for k, (name, words, color, marker) in enumerate(methods):
        values[name] = columns[name][shown]
        errors[name] = columns[f"{name}_se"][shown] if f"{name}_se" in columns else np.full(len(shown), np.nan)
        known = np.isfinite(errors[name]).any()
        bars[name] = ax.errorbar(
            np.arange(len(shown)) + (k - (len(methods) - 1) / 2) * step, values[name],
            yerr=errors[name] if known else None, fmt=marker, color=color, markersize=5, markeredgecolor=INK,
            markeredgewidth=0.5, elinewidth=1.4, capsize=3, label=f"{words} ± standard error" if known else words,
        )  # fmt: skip
    positive = np.concatenate([v[v > 0] for v in values.values()])
    if positive.max() > LOGARITHMIC * positive.min():
        ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(bottom=0.5 * float(positive.min()))
    elif positive.max() > 2 * positive.min():
        ax.set_ylim(bottom=0)
    ax.set_xticks(range(len(shown)), [str(state) for state in shown])
    ax.set_xlim(-0.6, len(shown) - 0.4)
    total = len(analysis.states.energy)
    cut = "" if len(shown) == total else f" (the {len(shown)} heaviest of {total:,})"
    label_axes(ax, f"state{cut}", "weight", "Weights of the states")
    ax.grid(axis="y", linewidth=0.4, alpha=0.6)
    ax.legend(fontsize=SMALL, loc="best")
    return WeightArtists(ax, shown, values, errors, bars)


def plot_timescales(
    analysis: Analysis, *, max_timescales: int = MAX_TIMESCALES, ax: Axes | None = None
) -> TimescaleArtists:
    """The slowest relaxation timescales -1/eigenvalue of the rate matrix, on a logarithmic axis without limits.

    UsageError for a single state, or where no timescale is finite.
    """
    logs = analysis.network.log_timescales
    finite = logs[np.isfinite(logs)]
    if not len(finite):
        raise UsageError("there is no finite timescale to draw: states that saddles join are needed")
    ax = new_axes(ax)
    shown = finite[:max_timescales] / np.log(10)
    rank = 1 + np.arange(len(shown))
    ax.vlines(rank, shown.min() - 0.15, shown, color=OKABE_ITO[5], linewidth=1)
    (line,) = ax.plot(rank, shown, "o", color=OKABE_ITO[0], markersize=6)
    ax.set_ylim(shown.min() - 0.15, shown.max() + max(0.1 * float(np.ptp(shown)), 0.1))
    ax.set_xlim(0.4, len(shown) + 0.6)
    ax.set_xticks(rank[:: max(1, len(rank) // 10)])
    log_axis(ax.yaxis)
    unit = analysis.energy.get("time_unit") or "unit of time"
    infinite, unresolved = int(np.isposinf(logs).sum()), int(np.isnan(logs).sum())
    notes = [f"{len(shown)} of {len(logs)}"] if len(shown) < len(logs) else []
    notes += [f"{infinite} infinite: parts that no saddle joins"] if infinite else []
    notes += [f"{unresolved} not resolved"] if unresolved else []
    ax.grid(axis="y", linewidth=0.4, alpha=0.6)
    counted = f" ({'; '.join(notes)})" if notes else ""
    label_axes(ax, f"relaxation process, slowest first{counted}", f"timescale ({unit})", "Relaxation timescales")
    return TimescaleArtists(ax, shown, line, len(logs), infinite, unresolved)


def log_axis(axis: Any) -> None:
    """Ticks of an axis whose data are decimal logarithms and whose limits are set: round numbers, at least two."""
    low, high = sorted(axis.get_view_interval())
    every = max(1, math.ceil((high - low) / 8))
    powers = np.arange(math.floor(low), math.ceil(high) + 1)
    ticks = powers[powers % every == 0].astype(float)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), np.arange(1, 10, 0.2), np.arange(1, 10, 0.02)):
        if np.count_nonzero((ticks >= low) & (ticks <= high)) >= 3 - (high - low < 0.01):
            break
        ticks = (powers[:, None] + np.log10(digits)).ravel()
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    ticks = ticks[:: max(1, len(ticks) // 8)]
    axis.set_ticks(ticks, labels=[_power_of_ten(value) for value in ticks])


def _power_of_ten(log: float) -> str:
    """10^log as a plain number from .001 to 1000, else with an exponent."""
    exponent = math.floor(log + 1e-9)
    digits = f"{10 ** (log - exponent):.3g}"
    if -3 <= exponent <= 3:
        return f"{10**log:.3g}"
    return f"$10^{{{exponent}}}$" if digits == "1" else f"${digits}\\times 10^{{{exponent}}}$"
