"""Contours and surfaces of an energy in the plane, with minima, saddles, paths, basins and sub-level sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.contour import QuadContourSet
from matplotlib.lines import Line2D
from matplotlib.text import Text

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.plots.grids import EnergyGrid, basin_shares, energy_grid, sublevel_field, sublevel_states
from landscape.plots.marks import (
    OUTLINE,
    legend_below,
    mark_minima,
    mark_paths,
    mark_saddles,
    minimum_handle,
    path_handle,
    saddle_handle,
    shown_paths,
)
from landscape.plots.planes import Subspace, choose_plane
from landscape.plots.style import (
    INK,
    KT_COLORMAP,
    MAX_ASPECT,
    SMALL,
    TEXT,
    UNREACHABLE,
    label_axes,
    new_axes,
    state_color,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from landscape.store import Analysis

Array = np.ndarray

KT_LABEL = "$kT$ above the lowest minimum"
TINT = 0.72  # how far the colour of a basin is mixed with white, outside of the sub-level set


@dataclass(frozen=True, eq=False)
class ContourArtists:
    """What `plot_contour` drew.

    grid : energies, levels and basins. fill : of the energy, one band a level ("energy"), or of the basins, by state
    ("basins"). lines : at the levels in kT. borders : of the basins. sublevel : outline of each state's sub-level set.
    minima_at, saddles_at (., 2) : coordinates in the picture; `shown_saddles` (m,) their numbers.
    paths : a line each, their coordinates projected.
    """

    ax: Axes
    grid: EnergyGrid
    fill: dict[int, QuadContourSet]
    lines: QuadContourSet
    above: QuadContourSet | None
    borders: tuple[QuadContourSet, ...]
    sublevel: dict[int, QuadContourSet]
    minima: PathCollection
    minima_at: Array
    saddles: PathCollection
    saddles_at: Array
    shown_saddles: Array
    paths: tuple[Line2D, ...]
    numbers: tuple[Text, ...]


def plot_contour(
    analysis: Analysis,
    energy: Energy | EnergyGrid,
    *,
    plane: Subspace | str | None = None,
    limit: float | None = None,
    fill: Literal["energy", "basins"] = "energy",
    ax: Axes | None = None,
) -> ContourArtists:
    """The energy of an analysis as contours, on a plane where d > 2.

    energy : or an `EnergyGrid` of a plane, so that several pictures share its evaluation; plane and limit are then its
    own. plane : a `Subspace`, or as `choose_plane` takes it. limit : highest energy shown in colour, in kT above the
    lowest minimum; what is above is grey. fill : colours of energies, or of basins, each with its sub-level set below
    the lowest saddle in full colour. Minima, saddles and paths off the plane are projected onto it: hollow or dashed.

    UsageError where d = 1, or for a plane that does not exist.
    """
    if fill not in ("energy", "basins"):
        raise UsageError(f'a contour is filled by "energy" or "basins", not {fill!r}')
    grid = plane_grid(analysis, energy, plane, limit)
    ax = new_axes(ax, (6.4, 5.6), layout="compressed")
    bands, lines, above = _fill_energy(ax, grid) if fill == "energy" else _fill_basins(ax, analysis, grid)
    borders = _borders(ax, grid) if fill == "energy" else ()
    sublevel = _outlines(ax, analysis, grid, fill)
    marks = _marks(ax, analysis, grid)
    span = [float(np.ptp(tick)) for tick in grid.ticks]
    ax.set_aspect("equal" if max(span) <= MAX_ASPECT * min(span) else "auto")
    label_axes(ax, *grid.subspace.labels)
    legend_below(ax, _legend(analysis, grid, fill))
    return ContourArtists(ax, grid, bands, lines, above, borders, sublevel, *marks)


def plane_grid(
    analysis: Analysis, energy: Energy | EnergyGrid, plane: Subspace | str | None = None, limit: float | None = None
) -> EnergyGrid:
    """The energy on a plane: `energy` itself if it is a grid already, which must be of a plane."""
    if isinstance(energy, EnergyGrid):
        if energy.subspace.dim != 2:
            raise UsageError(f"a contour needs the grid of a plane, not one of {energy.subspace.dim} axes")
        return energy
    subspace = plane if isinstance(plane, Subspace) else choose_plane(analysis, plane)
    if subspace.dim != 2 or subspace.origin.size != analysis.dim:
        raise UsageError(f"a contour is drawn on a plane in {analysis.dim} dimensions, not on {subspace.name}")
    return energy_grid(analysis, energy, subspace, limit=limit)


def _fill_energy(ax: Axes, grid: EnergyGrid) -> tuple[dict[int, QuadContourSet], QuadContourSet, QuadContourSet | None]:
    levels, (u, v) = grid.levels.values, grid.ticks
    extend = "both" if grid.kt.min() < 0 else "max"  # below the lowest minimum: the search has missed one
    bands = ax.contourf(u, v, grid.kt.T, levels, cmap=KT_COLORMAP, extend=extend, zorder=1)
    lines = ax.contour(u, v, grid.kt.T, levels, colors="white", linewidths=0.5, alpha=0.55, zorder=2)
    bar = ax.figure.colorbar(bands, ax=ax, extendfrac=0.05, shrink=0.92)
    bar.set_label(f"{KT_LABEL}; grey: above {grid.levels.limit:g}", fontsize=TEXT)
    bar.ax.tick_params(labelsize=SMALL)
    return {-1: bands}, lines, None


def _fill_basins(
    ax: Axes, analysis: Analysis, grid: EnergyGrid
) -> tuple[dict[int, QuadContourSet], QuadContourSet, QuadContourSet | None]:
    (u, v), kt, limit = grid.ticks, grid.kt, grid.levels.limit
    bands = {}
    for state, share in basin_shares(grid).items():
        # up to the limit's line, under the grey: the border of what is reachable must not be ragged
        bands[state] = ax.contourf(u, v, _spread(share).T, [0.0, np.inf], colors=[_tint(state)], zorder=1)
    above = None
    if (kt > limit).any():
        above = ax.contourf(u, v, kt.T, [limit, np.inf], colors=[UNREACHABLE], zorder=2)
    lines = ax.contour(u, v, kt.T, grid.levels.values, colors=INK, linewidths=0.4, alpha=0.5, zorder=3)
    return bands, lines, above


def _tint(state: int) -> tuple[float, float, float]:
    red, green, blue = (TINT + (1 - TINT) * c for c in state_color(state))
    return (red, green, blue)


def _spread(share: Array) -> Array:
    """Continue a field over its NaN by the nearest known value."""
    from scipy.ndimage import distance_transform_edt

    where = distance_transform_edt(np.isnan(share), return_distances=False, return_indices=True)
    return share[tuple(where)]


def _borders(ax: Axes, grid: EnergyGrid) -> tuple[QuadContourSet, ...]:
    shares = basin_shares(grid)
    if len(shares) < 2:
        return ()
    return tuple(
        ax.contour(*grid.ticks, np.ma.masked_invalid(share).T, [0.0], colors="white", linewidths=1.6, zorder=3)
        for share in shares.values()
    )


def _outlines(ax: Axes, analysis: Analysis, grid: EnergyGrid, fill: str) -> dict[int, QuadContourSet]:
    """The sub-level sets: outlines over energies, full colour over basins."""
    drawn = {}
    for state in sublevel_states(analysis, grid):
        field, level = sublevel_field(analysis, grid, state)
        if not field.min() < level:
            continue
        color = state_color(state)
        if fill == "basins":
            drawn[state] = ax.contourf(*grid.ticks, field.T, [-np.inf, level], colors=[color], alpha=0.75, zorder=2.5)
        else:
            drawn[state] = ax.contour(*grid.ticks, field.T, [level], colors=[color], linewidths=1.6, zorder=4)
            drawn[state].set_path_effects([OUTLINE])
    return drawn


def _marks(ax: Any, analysis: Analysis, grid: EnergyGrid) -> tuple[Any, ...]:
    plane, extent = grid.subspace, grid.extent
    paths = list(analysis.paths.images[shown_paths(analysis)])
    lines = mark_paths(ax, [plane.project(path) for path in paths], [_within(plane, path, extent) for path in paths])
    shown = np.flatnonzero((analysis.saddles.joins >= 0).all(axis=1))
    saddles = analysis.saddles.x[shown]
    diamonds = mark_saddles(ax, plane.project(saddles), plane.holds(saddles, extent))
    minima = analysis.states.x
    discs, numbers = mark_minima(ax, plane.project(minima), range(len(minima)), plane.holds(minima, extent))
    at = plane.project(minima), plane.project(saddles)
    return discs, at[0], diamonds, at[1], shown, tuple(lines), tuple(numbers)


def _within(plane: Subspace, points: Array, extent: float) -> bool:
    return bool(plane.holds(points, extent).all())


def _legend(analysis: Analysis, grid: EnergyGrid, fill: str) -> list[Any]:
    """An entry for every kind of thing that was drawn."""
    from matplotlib.patches import Patch

    plane, extent = grid.subspace, grid.extent
    inside = plane.holds(analysis.states.x, extent)
    handles: list[Any] = []
    if inside.any():
        handles.append(minimum_handle("minimum of state i"))
    if not inside.all():
        handles.append(minimum_handle("minimum off the plane", hollow=True))
    if len(analysis.saddles.x):
        flat = plane.holds(analysis.saddles.x, extent).all()
        handles.append(saddle_handle("saddle" if flat else "saddle (faint: off the plane)"))
    within = [_within(plane, path, extent) for path in analysis.paths.images[shown_paths(analysis)]]
    if any(within):
        handles.append(path_handle("minimum energy path"))
    if not all(within):
        handles.append(path_handle("path, projected", solid=False))
    if fill == "energy":
        if len(np.unique(grid.basins[grid.basins >= 0])) > 1:
            handles.append(Line2D([], [], color="white", linewidth=1.6, label="border of basins",
                                  path_effects=[_dark_rim()]))  # fmt: skip
        if sublevel_states(analysis, grid):
            label = "sub-level set below lowest saddle"
            handles.append(Line2D([], [], color=state_color(0), linewidth=1.6, label=label))
    else:
        bounded = sublevel_states(analysis, grid)
        if bounded:
            handles.append(Patch(color=(*state_color(0), 0.75), label="sub-level set below lowest saddle"))
        handles.append(Patch(color=_tint(0), label="rest of the basin" if bounded else "basin"))
        handles.append(Line2D([], [], color=INK, linewidth=0.6, alpha=0.6, label=f"every {grid.levels.step:g} $kT$"))
        if (grid.kt > grid.levels.limit).any():
            handles.append(Patch(color=UNREACHABLE, label=f"above {grid.levels.limit:g} $kT$"))
    return handles


def _dark_rim() -> Any:
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=2.6, foreground="#7a7a7a")
