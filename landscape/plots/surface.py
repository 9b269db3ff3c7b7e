"""The energy over a plane as a surface in 3-D, with minima, saddles, paths, basins and sub-level sets on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from contourpy import contour_generator
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]
from scipy.interpolate import RegularGridInterpolator

from landscape.energy import Energy
from landscape.plots.energy import KT_LABEL, plane_grid
from landscape.plots.grids import EnergyGrid, basin_shares, sublevel_field, sublevel_states
from landscape.plots.marks import (
    legend_below,
    mark_minima,
    mark_paths,
    mark_saddles,
    path_handle,
    saddle_handle,
    shown_paths,
)
from landscape.plots.planes import Subspace
from landscape.plots.style import KT_COLORMAP, LIGHT, SMALL, UNREACHABLE, label_axes, new_axes, state_color

if TYPE_CHECKING:
    from landscape.store import Analysis

Array = np.ndarray

VIEW = (54.0, -62.0)  # elevation and azimuth, degrees: steep enough that no well hides behind its rim
FACES = 100  # along each axis
HEIGHT = 0.4  # of the box, in lengths of its longest side
DARKEST = 0.55  # brightness of a face that turns away from the light
ABOVE_ALPHA = 0.45  # of the grey above the limit, so that the wells behind it are seen


@dataclass(frozen=True, eq=False)
class SurfaceArtists:
    """What `plot_surface` drew.

    surface : of `polygons`, (., 3) each, up to the limit. heights : of the grid's points, kT, cut at the limit.
    minima_at, saddles_at (., 3) and paths : in the plane, and at their own energy in kT. borders of basins and outlines
    of sub-level sets lie on the surface.
    """

    ax: Any
    grid: EnergyGrid
    surface: Any
    polygons: tuple[Array, ...]
    heights: Array
    minima_at: Array
    saddles_at: Array
    paths: tuple[Any, ...]
    borders: tuple[Any, ...]
    sublevel: dict[int, tuple[Any, ...]]


def plot_surface(
    analysis: Analysis,
    energy: Energy | EnergyGrid,
    *,
    plane: Subspace | str | None = None,
    limit: float | None = None,
    ax: Any = None,
) -> SurfaceArtists:
    """The energy of an analysis over a plane as a surface; arguments and errors as in `plot_contour`.

    The surface is cut at the limit, and grey there. Minima, saddles and paths stand at their own energies: where d > 2
    those off the plane float.
    """
    grid = plane_grid(analysis, energy, plane, limit)
    levels = grid.levels
    ax = new_axes(ax, (6.8, 5.8), three_d=True)
    ax.computed_zorder = False  # marks are drawn over the surface, which is seen from above
    every = max(1, len(grid.ticks[0]) // FACES)
    heights = np.minimum(grid.kt, levels.limit)[::every, ::every]
    polygons, colors = _faces(grid, every)
    surface = Poly3DCollection(polygons, facecolors=colors, linewidth=0, antialiased=False, zorder=1, rasterized=True)
    ax.add_collection3d(surface, autolim=False)
    ax.set_xlim(*grid.ticks[0][[0, -1]])
    ax.set_ylim(*grid.ticks[1][[0, -1]])
    if (grid.kt > levels.limit).any():
        ax.contourf(*np.meshgrid(*grid.ticks, indexing="ij"), grid.kt, [levels.limit, np.inf], zdir="z",
                    offset=levels.limit, colors=[UNREACHABLE], alpha=ABOVE_ALPHA, zorder=1.5)  # fmt: skip
    borders, sublevel = _lines_on_surface(ax, analysis, grid)
    subspace, known = grid.subspace, (analysis.saddles.joins >= 0).all(axis=1)
    minima = np.column_stack([subspace.project(analysis.states.x), levels.kt(analysis.states.energy)])
    saddles = np.column_stack([subspace.project(analysis.saddles.x[known]), levels.kt(analysis.saddles.energy[known])])
    chosen = shown_paths(analysis)
    images = zip(analysis.paths.images[chosen], analysis.paths.energy[chosen], strict=True)
    paths = mark_paths(ax, [np.column_stack([subspace.project(x), levels.kt(e)]) for x, e in images])
    mark_saddles(ax, saddles)
    mark_minima(ax, minima, range(len(minima)))
    span = [float(np.ptp(tick)) for tick in grid.ticks]
    ax.set_box_aspect((span[0], span[1], HEIGHT * max(span)), zoom=1.0)
    ax.view_init(*VIEW)
    ax.set_zlim(min(0.0, float(heights.min())), levels.limit)
    label_axes(ax, subspace.labels[0], subspace.labels[1], z="energy ($kT$)")
    ax.zaxis.set_major_locator(MaxNLocator(4))
    _color_bar(ax, levels.limit)
    handles = _legend(analysis, bool(borders), bool(sublevel))
    if handles:
        legend_below(ax, handles, columns=2, drop=12.0)
    return SurfaceArtists(ax, grid, surface, tuple(polygons), heights, minima, saddles, tuple(paths), borders, sublevel)


def _faces(grid: EnergyGrid, every: int) -> tuple[list[Array], Array]:
    """Polygons (., 3) of the part at or below the limit, and their colours (m, 4): those of the cells' mean energies in
    the light of `LIGHT`."""
    kt, limit = grid.kt[::every, ::every], grid.levels.limit
    ticks = tuple(tick[::every] for tick in grid.ticks)
    points = np.stack([*np.meshgrid(*ticks, indexing="ij"), kt], axis=-1)
    cells = np.stack([points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]], axis=2)
    above = cells[..., 2] > limit
    colors = KT_COLORMAP(np.clip(cells[..., 2], 0, limit).mean(2) / limit * (1 - 1e-9))
    # shaded by the slope before the cut at the limit, which would make the rim ragged
    scale = HEIGHT * grid.extent / limit
    slopes = np.gradient(scale * cells[..., 2].mean(2), *(tick[:-1] for tick in ticks))
    light = LIGHT.direction @ np.stack([-slopes[0], -slopes[1], np.ones_like(slopes[0])]).reshape(3, -1)
    steep = np.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)
    colors[..., :3] *= (DARKEST + (1 - DARKEST) * np.clip(light.reshape(steep.shape) / steep, 0, 1))[..., None]
    shown = ~above.all(axis=-1)
    polygons = [
        _cut(cell, limit) if over else cell
        for cell, over in zip(cells[shown], np.count_nonzero(above[shown], axis=-1), strict=True)
    ]
    return polygons, colors[shown]


def _cut(polygon: Array, limit: float) -> Array:
    """The part of a polygon (m, 3) whose third coordinate is at most `limit`; at least one corner has to be."""
    kept = []
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if start[2] <= limit:
            kept.append(start)
        if (start[2] <= limit) != (end[2] <= limit):
            kept.append(start + (limit - start[2]) / (end[2] - start[2]) * (end - start))
    return np.array(kept)


def _lines_on_surface(
    ax: Any, analysis: Analysis, grid: EnergyGrid
) -> tuple[tuple[Any, ...], dict[int, tuple[Any, ...]]]:
    u, v = grid.ticks
    height = RegularGridInterpolator(grid.ticks, np.minimum(grid.kt, grid.levels.limit))
    borders: list[Any] = []
    shares = basin_shares(grid)
    if len(shares) > 1:
        for share in shares.values():
            for line in _contour(u, v, np.ma.masked_invalid(share), 0.0):
                borders += ax.plot(*line.T, height(line), color="white", linewidth=1.2, zorder=2)
    sublevel: dict[int, tuple[Any, ...]] = {}
    for state in sublevel_states(analysis, grid):
        field, level = sublevel_field(analysis, grid, state)
        drawn = [
            ax.plot(*line.T, np.full(len(line), level), color=state_color(state), linewidth=1.8, zorder=3)[0]
            for line in _contour(u, v, field, level)
        ]
        if drawn:
            sublevel[state] = tuple(drawn)
    return tuple(borders), sublevel


def _contour(u: Array, v: Array, field: Array, level: float) -> list[Array]:
    """The lines (n, 2) on which a field on the grid (u, v) has this value."""
    return [np.asarray(line) for line in contour_generator(u, v, field.T).lines(level)]


def _color_bar(ax: Any, limit: float) -> None:
    from matplotlib.cm import ScalarMappable

    bar = ax.figure.colorbar(
        ScalarMappable(Normalize(0, limit), KT_COLORMAP), ax=ax, shrink=0.6, pad=0.1, extend="max", extendfrac=0.05
    )
    bar.set_label(f"{KT_LABEL}; grey: above {limit:g}", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)


def _legend(analysis: Analysis, borders: bool, outlines: bool) -> list[Any]:
    handles: list[Any] = []
    if len(analysis.paths.images):
        handles += [path_handle("minimum energy path"), saddle_handle("saddle")]
    if borders:
        handles.append(Line2D([], [], color=UNREACHABLE, linewidth=1.6, label="border of basins (white)"))
    if outlines:
        label = "sub-level set below lowest saddle"
        handles.append(Line2D([], [], color=state_color(0), linewidth=1.8, label=label))
    return handles
