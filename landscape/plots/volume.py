"""3-D contours: isosurfaces of an energy in the whole space or in a 3-D subspace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Patch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.plots.grids import EnergyGrid, energy_grid, sublevel_field, sublevel_states
from landscape.plots.marks import (
    legend_below,
    mark_minima,
    mark_paths,
    mark_saddles,
    path_handle,
    saddle_handle,
    shown_paths,
)
from landscape.plots.meshes import Mesh, isosurface
from landscape.plots.planes import Subspace, choose_space, viewing_direction
from landscape.plots.style import LIGHT, label_axes, new_axes, state_color

if TYPE_CHECKING:
    from landscape.store import Analysis

Array = np.ndarray

NAMED = 6  # states in the legend
OUTER = "#8c8c8c"  # the level around all states


@dataclass(frozen=True, eq=False)
class VolumeArtists:
    """What `plot_volume` drew: meshes, in the order in which they are painted, the level around all of them last, and a
    collection of each; minima_at (n, 3)."""

    ax: Any
    grid: EnergyGrid
    meshes: tuple[Mesh, ...]
    surfaces: tuple[Any, ...]
    minima: Any
    minima_at: Array
    saddles: Any
    paths: tuple[Any, ...]


def space_grid(
    analysis: Analysis, energy: Energy | EnergyGrid, space: Subspace | None = None, limit: float | None = None
) -> EnergyGrid:
    """The energy on a grid in the whole space (d = 3) or in three principal axes; `energy` itself if it is one already.

    UsageError where d < 3."""
    if isinstance(energy, EnergyGrid):
        if energy.subspace.dim != 3:
            raise UsageError(f"3-D contours need the grid of a 3-D subspace, not one of {energy.subspace.dim} axes")
        return energy
    subspace = choose_space(analysis) if space is None else space
    if subspace.dim != 3 or subspace.origin.size != analysis.dim:
        raise UsageError(f"3-D contours are drawn in a 3-D subspace of the space of the energy, not on {subspace.name}")
    return energy_grid(analysis, energy, subspace, limit=limit)


def contour_meshes(analysis: Analysis, grid: EnergyGrid) -> tuple[Mesh, ...]:
    """The sub-level set of each state below its lowest saddle, and the level of `outer_level` around all.

    UsageError where scikit-image is missing.
    """
    meshes = []
    for state in sublevel_states(analysis, grid):
        field, level = sublevel_field(analysis, grid, state)
        if level < grid.levels.limit:
            meshes.append(isosurface(grid, level, field, state))
    meshes.append(isosurface(grid, outer_level(analysis, grid)))
    return tuple(mesh for mesh in meshes if mesh is not None)


def outer_level(analysis: Analysis, grid: EnergyGrid) -> float:
    """In kT: the first multiple of kT above the highest saddle that joins two states and below the limit; without one,
    half the limit."""
    joins = analysis.saddles.joins
    kt = grid.levels.kt(analysis.saddles.energy[(joins >= 0).all(1) & (joins[:, 0] != joins[:, 1])])
    kt = kt[kt < grid.levels.limit]
    step = grid.levels.step
    level = step * math.floor(kt.max() / step + 1) if len(kt) else grid.levels.limit / 2
    return min(level, grid.levels.limit - step / 2)


def plot_volume(
    analysis: Analysis,
    energy: Energy | EnergyGrid,
    *,
    space: Subspace | None = None,
    limit: float | None = None,
    ax: Any = None,
) -> VolumeArtists:
    """3-D contours of an energy: the sub-level set of each state in its colour, and one level above the saddles.

    energy : or the grid that `space_grid` made of it. space : by default the whole space where d = 3, else three
    principal axes of minima and paths. UsageError where d < 3, or scikit-image is missing.
    """
    grid = space_grid(analysis, energy, space, limit)
    plane = grid.subspace
    at = plane.project(analysis.states.x)
    view = viewing_direction(at)
    meshes = _far_to_near(contour_meshes(analysis, grid), view)
    ax = new_axes(ax, (6.4, 5.8), three_d=True)
    ax.computed_zorder = False
    surfaces = []
    for number, mesh in enumerate(meshes):
        color = OUTER if mesh.state < 0 else state_color(mesh.state)
        surfaces.append(
            ax.plot_trisurf(
                *mesh.vertices.T, triangles=mesh.faces, color=color, alpha=0.11 if mesh.state < 0 else 0.45,
                linewidth=0, antialiased=True, lightsource=LIGHT, zorder=number / max(1, len(meshes)), rasterized=True,
            )
        )  # fmt: skip
    paths = mark_paths(ax, [plane.project(path) for path in analysis.paths.images[shown_paths(analysis)]])
    known = (analysis.saddles.joins >= 0).all(axis=1)
    saddles = mark_saddles(ax, plane.project(analysis.saddles.x[known]))
    minima, _ = mark_minima(ax, at, range(len(at)), plane.holds(analysis.states.x, grid.extent))
    ax.set_box_aspect([float(np.ptp(tick)) for tick in grid.ticks], zoom=0.95)
    ax.view_init(*view)
    label_axes(ax, plane.labels[0], plane.labels[1], z=plane.labels[2])
    legend_below(ax, _legend(analysis, meshes), drop=12.0)
    return VolumeArtists(ax, grid, meshes, tuple(surfaces), minima, at, saddles, tuple(paths))


def _far_to_near(meshes: tuple[Mesh, ...], view: tuple[float, float]) -> tuple[Mesh, ...]:
    """Those of states by their distance from the viewer: matplotlib paints one collection over the other."""
    elevation, azimuth = np.radians(view)
    towards = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    return tuple(sorted(meshes, key=lambda mesh: (mesh.state < 0, float((mesh.vertices @ towards).mean()))))


def _legend(analysis: Analysis, meshes: tuple[Mesh, ...]) -> list[Any]:
    wells = sorted((mesh for mesh in meshes if mesh.state >= 0), key=lambda mesh: mesh.state)
    handles: list[Any] = [
        Patch(color=(*state_color(mesh.state), 0.5), label=f"state {mesh.state}: below {mesh.kt[0]:.2g} $kT$")
        for mesh in wells[:NAMED]
    ]
    if len(wells) > NAMED:
        handles.append(Patch(color="none", label=f"and {len(wells) - NAMED} more states"))
    handles += [Patch(color=OUTER, alpha=0.35, label=f"{mesh.kt[0]:g} $kT$") for mesh in meshes if mesh.state < 0]
    if len(analysis.paths.images):
        handles += [path_handle("minimum energy path"), saddle_handle("saddle")]
    return handles
