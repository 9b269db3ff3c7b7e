"""Committors and eigenfunctions of overdamped dynamics in two dimensions, from the generator on a grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.ndimage import distance_transform_edt

from landscape.dynamics import Overdamped
from landscape.energy import Energy
from landscape.errors import UnsupportedError, UsageError
from landscape.plots.grids import CEILING, MARGIN, levels_of
from landscape.plots.layout import heaviest, log_weights
from landscape.plots.marks import legend_below
from landscape.plots.style import (
    INK,
    MAX_ASPECT,
    SMALL,
    UNREACHABLE,
    Levels,
    label_axes,
    new_axes,
    state_color,
    text_color,
)
from landscape.rates import Cores, GridGenerator, committors, eigenfunctions, grid_generator, make_cores
from landscape.store import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS = 240
COMMITTOR_COLORS, EIGENVECTOR_COLORS = "PuOr", "RdBu_r"


@dataclass(frozen=True, eq=False)
class FieldArtists:
    """What was drawn: points (m, 2), the centres of the cells, with `values` (m,).

    mesh : holds the same values, continued a little under the grey. above : what is grey, energies over the levels that
    are shown, or None. states : for a committor, the two it leads between. rate : of an eigenfunction, 1/time. minima
    (n, 2) : the copies that lie in the box where the energy is periodic.
    """

    ax: Axes
    points: np.ndarray
    values: np.ndarray
    mesh: QuadMesh
    above: QuadContourSet | None
    states: tuple[int, ...]
    rate: float
    minima: np.ndarray


def why_no_grid(analysis: Analysis) -> str:
    """ "" if fields can be drawn of this analysis, else the reason as a clause."""
    if analysis.dim != 2:
        return f"it is drawn in two dimensions, and this energy has {analysis.dim}"
    dynamics = analysis.dynamics
    if not isinstance(dynamics, Overdamped) or getattr(dynamics, "rotation", None) is not None:
        return "it comes from a grid, which is for overdamped reversible dynamics"
    return "" if len(analysis.states.energy) > 1 else "one state only: there is no way from one to another"


def plot_committor(
    analysis: Analysis,
    energy: Energy,
    *,
    source: int | None = None,
    target: int | None = None,
    cells: int = CELLS,
    limit: float | None = None,
    ax: Axes | None = None,
) -> FieldArtists:
    """The probability, from each point, of reaching the core of state `target` before that of `source`.

    By default from the heaviest state to the next one. Drawn with its level 1/2, over the energy's contours.
    limit : energies above it, in kT, are grey; by default as in a contour.
    UnsupportedError unless d = 2 and the dynamics is overdamped; UsageError for states that are not two of these.
    """
    chosen = _pair(analysis, source, target)
    cores = _cores(analysis, energy)
    grid = grid_generator(energy, analysis.dynamics, cores=cores, cells=cells)
    pair = list(chosen)
    ends = replace(cores, center=cores.center[pair], form=cores.form[pair], shrink=cores.shrink[pair])
    q = committors(grid, ends)[:, 1]
    ax = new_axes(ax, layout="compressed")
    mesh, above, levels = _draw(ax, analysis, energy, grid, q, COMMITTOR_COLORS, (0.0, 1.0), 0.5, limit)
    _bar(ax, mesh, f"probability to reach {chosen[1]} before {chosen[0]}; line: 1/2")
    _name(ax, f"Committor from state {chosen[0]} to state {chosen[1]}", levels, above)
    return FieldArtists(ax, grid.points, q, mesh, above, chosen, np.nan, grid.copies(analysis.states.x))


def plot_eigenvector(
    analysis: Analysis,
    energy: Energy,
    *,
    which: int = 1,
    cells: int = CELLS,
    limit: float | None = None,
    ax: Axes | None = None,
) -> FieldArtists:
    """The eigenfunction number `which` of the generator (1 is the slowest process), of mean square 1.

    It is nearly constant in each metastable set; the process it belongs to moves weight between its two signs.
    limit : as in `plot_committor`.
    UnsupportedError unless d = 2 and the dynamics is overdamped; UsageError unless 1 <= which <= number of states.
    """
    _check(analysis)
    n = len(analysis.states.energy)
    if not 1 <= which <= n:
        raise UsageError(f"the eigenfunctions of {n} states are numbered from 1 to {n}, not {which}")
    grid = grid_generator(energy, analysis.dynamics, cores=_cores(analysis, energy), cells=cells)
    rates, functions = eigenfunctions(grid, which)
    u = functions[:, which - 1]
    u = u * np.sign(u[np.abs(u).argmax()])
    ax = new_axes(ax, layout="compressed")
    reach = _reach(grid, u)
    mesh, above, levels = _draw(ax, analysis, energy, grid, u, EIGENVECTOR_COLORS, (-reach, reach), 0.0, limit)
    unit = analysis.energy.get("time_unit") or "units of time"
    _bar(ax, mesh, "eigenfunction (mean square 1); line: 0")
    _name(ax, f"Eigenfunction {which}: relaxation time {1 / rates[which - 1]:.4g} {unit}", levels, above)
    minima = grid.copies(analysis.states.x)
    return FieldArtists(ax, grid.points, u, mesh, above, (), float(rates[which - 1]), minima)


def _check(analysis: Analysis) -> None:
    reason = why_no_grid(analysis)
    if reason:
        raise UnsupportedError(f"this picture cannot be drawn: {reason}")


def _pair(analysis: Analysis, source: int | None, target: int | None) -> tuple[int, int]:
    _check(analysis)
    n = len(analysis.states.energy)
    order = [int(state) for state in heaviest(log_weights(analysis)[0], n)]
    first = next(state for state in order if state != target) if source is None else source
    second = next(state for state in order if state != first) if target is None else target
    if first == second or not (0 <= first < n and 0 <= second < n):
        raise UsageError(f"a committor leads between two different states from 0 to {n - 1}, not {first} and {second}")
    return first, second


def _cores(analysis: Analysis, energy: Energy) -> Cores:
    return make_cores(energy, analysis.dynamics, analysis.states.x, torch.Generator().manual_seed(0))


def _on_grid(grid: GridGenerator, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell centres along x (nx,) and y (ny,), and the values (nx, ny); dropped cells have those of the nearest one."""
    axes = [low + (np.arange(n) + 0.5) * h for (low, _), n, h in zip(grid.box, grid.shape, grid.spacing, strict=True)]
    table = np.full(grid.shape, np.nan)
    index = np.floor((grid.points - grid.box[:, 0]) / grid.spacing).astype(int)
    table[tuple(index.T)] = values
    nearest = distance_transform_edt(np.isnan(table), return_distances=False, return_indices=True)
    return axes[0], axes[1], table[tuple(nearest)]


def _draw(
    ax: Axes,
    analysis: Analysis,
    energy: Energy,
    grid: GridGenerator,
    values: np.ndarray,
    colors: str,
    limits: tuple[float, float],
    line: float,
    limit: float | None,
) -> tuple[QuadMesh, QuadContourSet | None, Levels]:
    """The values in colour with one level line, the energy as thin lines, the states by number; what is beyond the
    levels of the energy in grey."""
    minima = grid.copies(analysis.states.x)
    levels = levels_of(analysis, limit)
    x, y, table = _on_grid(grid, values)
    centres = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    ceiling = CEILING * levels.limit
    kt = np.nan_to_num(np.minimum(levels.kt(energy.value(centres)), ceiling), nan=ceiling).reshape(table.shape)
    mesh = ax.pcolormesh(
        x, y, table.T, cmap=colors, vmin=limits[0], vmax=limits[1], shading="nearest", rasterized=True
    )  # fmt: skip
    if table.min() < line < table.max():
        ax.contour(x, y, table.T, levels=[line], colors=INK, linewidths=1.6)
    # the grey lies over the colours, which makes its border a line of the energy and not the steps of the cells
    above = None
    if (kt > levels.limit).any():
        above = ax.contourf(x, y, kt.T, levels=[levels.limit, np.inf], colors=[UNREACHABLE], zorder=2.5)
    ax.contour(x, y, kt.T, levels=levels.values[1:], colors=INK, linewidths=0.4, alpha=0.45)
    for k in range(len(minima)):
        color = state_color(k)
        circle = {"boxstyle": "circle,pad=0.25", "facecolor": color, "edgecolor": INK, "linewidth": 0.6}
        ax.text(
            float(minima[k, 0]), float(minima[k, 1]), str(k), ha="center", va="center", fontsize=SMALL,
            color=text_color(color), zorder=5, bbox=circle, clip_on=True,
        )  # fmt: skip
    reached = kt <= levels.limit
    span = []
    for axis, ticks in enumerate((x, y)):
        ends = ticks[reached.any(axis=1 - axis)][[0, -1]]
        span.append(float(np.ptp(ends)))
        (ax.set_xlim, ax.set_ylim)[axis](*(ends + MARGIN * np.ptp(ends) * np.array([-1, 1])))
    ax.set_aspect("equal" if max(span) <= MAX_ASPECT * min(span) else "auto")
    return mesh, above, levels


def _name(ax: Axes, title: str, levels: Levels, above: QuadContourSet | None) -> None:
    label_axes(ax, "$x_1$", "$x_2$", title)
    handles: list[Any] = [
        Line2D([], [], color=INK, linewidth=0.6, alpha=0.6, label=f"energy, every {levels.step:g} $kT$")
    ]
    handles += [] if above is None else [Patch(color=UNREACHABLE, label=f"above {levels.limit:g} $kT$")]
    legend_below(ax, handles)


def _reach(grid: GridGenerator, values: np.ndarray) -> float:
    """The size that all but a hundred-thousandth of the probability stays below: rims that nothing reaches would wash
    the colours out."""
    order = np.argsort(np.abs(values))
    row = np.searchsorted(np.cumsum(grid.stationary[order]), 1 - 1e-5)
    return float(np.abs(values[order[min(int(row), len(values) - 1)]]))


def _bar(ax: Axes, mesh: QuadMesh, words: str) -> None:
    bar = ax.figure.colorbar(mesh, ax=ax)
    bar.set_label(words, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
