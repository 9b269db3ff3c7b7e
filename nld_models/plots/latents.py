"""Latent trajectories over the landscape: posterior means of sequences, coloured by the state of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection

from landscape.plots.energy import plane_grid, plot_contour
from landscape.plots.grids import EnergyGrid, energy_grid
from landscape.plots.planes import coordinate_subspace
from landscape.plots.profile import plot_line
from landscape.plots.style import state_color
from nld_models.landscape_adapter import LearnedStates
from nld_models.plots.segmentation import Segmentation, check_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

Array = np.ndarray
AREA = 13.0  # of a frame's disc, points^2
TRACE = "#404040"


@dataclass(frozen=True, eq=False)
class LatentArtists:
    """What `plot_latents` drew, by row: the posterior means in the picture's coordinates `shown` (length, 2), a disc a
    frame in `points`, in the colour of its state, and the `trace` that joins them. grid : the energy below."""

    ax: Axes
    grid: EnergyGrid
    shown: dict[int, Array]
    points: dict[int, PathCollection]
    traces: dict[int, LineCollection]


def latent_grid(states: LearnedStates) -> EnergyGrid:
    """The learned energy on the line (d = 1) or on the plane on which `plot_latents` draws it."""
    if states.energy.dim == 1:
        return energy_grid(states.analysis, states.energy, coordinate_subspace(1))
    return plane_grid(states.analysis, states.energy)


def plot_latents(
    states: LearnedStates,
    found: Segmentation,
    rows: Sequence[int],
    *,
    grid: EnergyGrid | None = None,
    ax: Axes | None = None,
) -> LatentArtists:
    """The posterior means of some sequences over the learned energy.

    Where d > 2 both are seen in the plane of the energy pictures, the means projected onto it; where d = 1 the means
    lie on the curve of the energy. grid : as `latent_grid` makes it, to share its evaluation. Frames without a state
    are white.
    """
    check_rows(len(found.labels), rows)
    grid = latent_grid(states) if grid is None else grid
    plane = grid.subspace
    line = plane.dim == 1
    ax = plot_line(states.analysis, grid, ax=ax).ax if line else plot_contour(states.analysis, grid, ax=ax).ax
    shown, points, traces = {}, {}, {}
    for row in rows:
        length = int(found.lengths[row])
        mean, labels = found.mean[row, :length], found.labels[row, :length]
        heights = grid.levels.kt(states.energy.value(mean)) if line else None
        at = plane.project(mean) if heights is None else np.column_stack([mean[:, 0], heights])
        shown[row] = at
        traces[row] = LineCollection([at], colors=[TRACE], linewidths=0.6, alpha=0.0 if line else 0.7, zorder=5)
        ax.add_collection(traces[row], autolim=False)
        points[row] = ax.scatter(
            at[:, 0], at[:, 1], s=AREA, c=[state_color(state) for state in labels.tolist()], edgecolors="white",
            linewidths=0.35, zorder=5.5,
        )  # fmt: skip
    _hold(ax, np.concatenate(list(shown.values())))
    _add_to_legend(ax, line)
    return LatentArtists(ax, grid, shown, points, traces)


def off_plane(found: Segmentation, rows: Sequence[int], grid: EnergyGrid) -> float:
    """Root mean square distance of the posterior means of some sequences from the picture's plane."""
    means = np.concatenate([found.mean[row, : found.lengths[row]] for row in rows])
    return float(np.sqrt(np.mean(grid.subspace.distance(means) ** 2)))


def _hold(ax: Any, at: Array) -> None:
    """Widen the limits so that no point is lost."""
    for values, get, put in ((at[:, 0], ax.get_xlim, ax.set_xlim), (at[:, 1], ax.get_ylim, ax.set_ylim)):
        low, high = get()
        room = 0.02 * (high - low)
        put(min(low, float(values.min()) - room), max(high, float(values.max()) + room))


def _add_to_legend(ax: Any, line: bool) -> None:
    """One more entry in the legend that the energy picture has made, in its place."""
    from matplotlib.lines import Line2D

    from landscape.plots.marks import legend_below

    old = ax.get_legend()
    frame = Line2D([], [], color=TRACE, linewidth=0 if line else 0.6, marker="o", markersize=4,
                   markerfacecolor="#8c8c8c", markeredgecolor="white", label="posterior mean of a frame")  # fmt: skip
    handles = [*old.legend_handles, frame]
    old.remove()
    legend_below(ax, handles, columns=4 if line else 3)
