"""The formula's rates against independent ones, with the verdict on each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from landscape.checks.verdicts import AGREES, DOUBTFUL, NOT_CHECKED, NOT_CONVERGED, UNDECIDED
from landscape.plots.labels import quantity
from landscape.plots.style import INK, OKABE_ITO, SMALL, label_axes, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from landscape.checks.record import Checks

# Verdict: colour and marker, told apart without colour, too.
MARKS = {
    AGREES: (OKABE_ITO[0], "o"),
    DOUBTFUL: (OKABE_ITO[3], "X"),
    UNDECIDED: (OKABE_ITO[1], "D"),
    NOT_CONVERGED: (OKABE_ITO[4], "s"),
    NOT_CHECKED: ("#7a7a7a", "|"),
}
MAX_ROWS = 30
BAND = "#dbe9f4"
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1, 1.15, 1.4, 2, 3, 5, 10, 20, 50, 100)


@dataclass(frozen=True, eq=False)
class VerdictArtists:
    """What `plot_verdicts` drew: `rows` (k,) of the checks from top to bottom, as points at `ratio` (k,), formula over
    reference, with `interval` (k, 2) lines; nan where there is no reference."""

    ax: Axes
    rows: np.ndarray
    ratio: np.ndarray
    interval: np.ndarray
    points: list[Line2D]
    lines: list[Line2D]


def plot_verdicts(checks: Checks, *, max_rows: int = MAX_ROWS, ax: Axes | None = None) -> VerdictArtists:
    """One row a directed transition: the formula's rate over the reference's, with its confidence interval.

    The band is where the two agree; at the left the transition with both rates, at the right the verdict and its
    reason. Of more rows than `max_rows` the worst are shown: those farthest from agreement, then those not checked.
    """
    ax = new_axes(ax, (8.4, 1.6 + 0.32 * min(max(len(checks.pairs), 1), max_rows)))
    rows = _worst(checks, max_rows)
    ratio, interval = checks.log_ratio[rows], checks.log_ratio_interval[rows]
    low, high = _limits(checks.tolerance, interval, ratio)
    ax.axvspan(-checks.tolerance, checks.tolerance, color=BAND, zorder=0)
    ax.axvline(0, color=INK, linewidth=0.8, zorder=1)
    points: list[Line2D] = []
    lines: list[Line2D] = []
    for y, row in enumerate(rows.tolist()):
        color, marker = MARKS[checks.verdict[row]]
        ends = np.clip(np.nan_to_num(interval[y], neginf=low, posinf=high), low, high)
        if np.isfinite(ratio[y]):
            lines += ax.plot(ends, [y, y], color=color, linewidth=2, zorder=2, solid_capstyle="butt")
            points += ax.plot([ratio[y]], [y], marker, color=color, markersize=7, markeredgecolor=INK, zorder=3)
            points[-1].set_markeredgewidth(0.5)
        reason = f": {checks.reason[row]}" if checks.reason[row] else ""
        ax.annotate(
            f"{checks.verdict[row]}{reason}", (1.02, y), xycoords=("axes fraction", "data"), va="center",
            fontsize=SMALL, color=INK, annotation_clip=False,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), [_row_label(checks, row) for row in rows.tolist()])
    ax.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    ax.set_xlim(low, high)
    ticks = _ticks(low, high)
    ax.set_xticks(np.log(ticks), [f"{tick:g}" for tick in ticks])
    cut = "" if len(rows) == len(checks.pairs) else f", the {len(rows)} worst of {len(checks.pairs)}"
    band = f"band: within ±{np.expm1(checks.tolerance):.0%}; lines: {checks.confidence:.0%} intervals"
    label_axes(ax, f"formula / reference ({band})", "", f"Formula against reference rates{cut}")
    return VerdictArtists(ax, rows, np.exp(ratio), np.exp(interval), points, lines)


def _worst(checks: Checks, count: int) -> np.ndarray:
    """All rows in their order, or the `count` worst: by the size of r, unknown ones last."""
    size = np.nan_to_num(np.abs(checks.log_ratio), nan=-1.0)
    return np.sort(np.argsort(-size, kind="stable")[:count])


def _limits(tolerance: float, interval: np.ndarray, ratio: np.ndarray) -> tuple[float, float]:
    """Limits of r that show the band, all estimates and the finite ends of their intervals, down to a factor of 100."""
    values = np.concatenate([interval.ravel(), ratio, [-2 * tolerance, 2 * tolerance]])
    values = np.clip(values[np.isfinite(values)], -np.log(100), np.log(100))
    return 1.1 * float(values.min()), 1.1 * float(values.max())


def _ticks(low: float, high: float) -> list[float]:
    """Factors to be written at the axis, apart from each other by a twelfth of it or more; 1 is always there."""
    chosen = [1.0]
    for tick in sorted(TICKS, key=lambda tick: abs(np.log(tick))):
        if low <= np.log(tick) <= high and min(abs(np.log(tick / other)) for other in chosen) > (high - low) / 12:
            chosen.append(tick)
    return sorted(chosen)


def _row_label(checks: Checks, row: int) -> str:
    i, j = checks.pairs[row]
    reference = checks.log_reference[row]
    known = f"{quantity(float(reference))} ({checks.method[row]})" if np.isfinite(reference) else "no reference"
    return f"{i} → {j}   {quantity(float(checks.log_formula[row]))} / {known}"
