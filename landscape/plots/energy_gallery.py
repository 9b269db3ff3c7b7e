"""The energy pictures of the gallery."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from landscape.dynamics import Overdamped
from landscape.plots.drift import drift_of, plot_drift_line, plot_flow_lines, plot_quiver
from landscape.plots.energy import plot_contour
from landscape.plots.grids import EnergyGrid, levels_of, reachable_box
from landscape.plots.picture import Picture, Scene
from landscape.plots.planes import coordinate_subspace, viewing_direction
from landscape.plots.profile import plot_line, plot_profiles, profile_shape
from landscape.plots.surface import plot_surface
from landscape.plots.volume import plot_volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 6  # states, paths that a text names before it says how many more there are


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def _states_text(scene: Scene) -> str:
    states = scene.analysis.states
    kt = levels_of(scene.analysis).kt(states.energy)
    if len(kt) == 1:
        return "one minimum"
    return f"{len(kt):,} minima, at {_listed([f'{value:.3g}' for value in kt.tolist()])} kT above the lowest"


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}" + ("" if n == 1 else "s")


def _where(grid: EnergyGrid) -> str:
    return "" if grid.subspace.is_whole_space else f" on {grid.subspace.name}"


def _two_dimensions(scene: Scene) -> str:
    return "one dimension has no plane: take the profile" if scene.analysis.dim == 1 else _no_plane(scene)


def _three_dimensions(scene: Scene) -> str:
    d = scene.analysis.dim
    return f"it is drawn in three dimensions, and this energy has {d}" if d < 3 else _one_copy_each(scene, 3)


def _no_plane(scene: Scene) -> str:
    return "" if scene.plane_choice is not None else _one_copy_each(scene, 2)


def _one_copy_each(scene: Scene, k: int) -> str:
    """Why no subspace of k dimensions is chosen for states that stand for all of their copies, if they do."""
    if scene.analysis.modulo is None or scene.analysis.dim <= k:
        return ""
    return "of a state and all its copies it would show one, wherever that lies: take the profile or the network"


def _contour(scene: Scene, figure: Figure) -> str:
    grid = scene.plane
    _compress(figure)
    plot_contour(scene.analysis, grid, ax=figure.add_subplot())
    return (
        f"Contours of the energy{_where(grid)}, every {grid.levels.step:g} kT up to {grid.levels.limit:g} kT, grey "
        f"above; {_states_text(scene)}; {_count(len(scene.analysis.saddles.x), 'saddle')} and "
        f"{_count(len(scene.analysis.paths.saddle), 'path')}."
    )


def _basins(scene: Scene, figure: Figure) -> str:
    grid = scene.plane
    _compress(figure)
    plot_contour(scene.analysis, grid, fill="basins", ax=figure.add_subplot())
    share = [f"state {k} {100 * np.mean(grid.basins == k) / max(np.mean(grid.basins >= 0), 1e-12):.0f} %"
             for k in np.unique(grid.basins[grid.basins >= 0]).tolist()]  # fmt: skip
    return (
        f"Basins of attraction{_where(grid)}, a colour each, below {grid.levels.limit:g} kT; their shares of the area "
        f"shown: {_listed(share)}. Full colour: the sub-level set of each state below its lowest saddle, if it has one."
    )


def _surface(scene: Scene, figure: Figure) -> str:
    grid = scene.plane
    plot_surface(scene.analysis, grid, ax=figure.add_subplot(projection="3d"))
    return f"The energy{_where(grid)} as a surface, cut at {grid.levels.limit:g} kT; {_states_text(scene)}."


def _volume(scene: Scene, figure: Figure) -> str:
    grid = scene.space
    drawn = plot_volume(scene.analysis, grid, ax=figure.add_subplot(projection="3d"))
    inner = [f"state {mesh.state} below {mesh.kt[0]:.3g} kT" for mesh in drawn.meshes if mesh.state >= 0]
    outer = [f"{mesh.kt[0]:.3g} kT" for mesh in drawn.meshes if mesh.state < 0]
    text = f"3-D contours of the energy{_where(grid)}: {_listed(inner)}" if inner else "3-D contours of the energy"
    return text + (f"; around all of them the surface at {outer[0]}." if outer else ".")


def _no_volume(scene: Scene) -> str:
    reason = _three_dimensions(scene)
    if not reason and find_spec("skimage") is None:
        return 'it needs scikit-image: install it with pip install "learned-landscape[report]"'
    return reason


def _profile(scene: Scene, figure: Figure) -> str:
    analysis = scene.analysis
    if analysis.dim == 1 and scene.energy is not None:
        drawn = plot_line(analysis, scene.energy, limit=scene.limit, ax=figure.add_subplot())
        return (
            f"The energy over its one dimension up to {drawn.grid.levels.limit:g} kT, with basins and harmonic wells; "
            f"{_states_text(scene)}."
        )
    panels = plot_profiles(analysis, figure=figure)
    barriers = [f"{p.states[0]}-{p.states[1]}: {p.barriers[0]:.3g} and {p.barriers[1]:.3g} kT" for p in panels]
    return f"Energy along minimum energy paths. Barriers from either end, {_listed(barriers)}."


def _profile_height(scene: Scene) -> float:
    """Inches: each row of panels has room for its labels."""
    rows = profile_shape(len(scene.analysis.paths.saddle))[0]
    return 4.6 if rows == 1 or scene.analysis.dim == 1 else 2.8 * rows + 0.4


def _no_profile(scene: Scene) -> str:
    if len(scene.analysis.paths.saddle) or (scene.analysis.dim == 1 and scene.energy is not None):
        return ""
    reason = "one state only" if len(scene.analysis.states.x) == 1 else "no saddle joins two states"
    return f"there is no path: {reason}"


def _drift(scene: Scene, figure: Figure) -> str:
    analysis, energy = scene.analysis, scene.energy
    assert energy is not None
    drift, minima = drift_of(analysis.dynamics, energy), analysis.states.x
    if analysis.dim == 1:
        box = reachable_box(analysis, energy, coordinate_subspace(1), levels_of(analysis, scene.limit))
        title = "" if isinstance(analysis.dynamics, Overdamped) else _drift_title(scene)
        plot_drift_line(drift, box, minima=minima, ax=figure.add_subplot(), title=title)
        return (
            f"The {_drift_title(scene, plain=True)} over its one dimension, with {_count(len(minima), 'stable point')}."
        )
    _compress(figure)
    return _two_drifts(scene, figure, scene.plane, None)


def _drift_in_space(scene: Scene, figure: Figure) -> str:
    return _two_drifts(scene, figure, scene.space, "3d")


def _two_drifts(scene: Scene, figure: Figure, grid: EnergyGrid, projection: str | None) -> str:
    assert scene.energy is not None
    drift, minima = drift_of(scene.analysis.dynamics, scene.energy), scene.analysis.states.x
    box = np.array([[tick[0], tick[-1]] for tick in grid.ticks])
    left, right = (figure.add_subplot(1, 2, number, projection=projection) for number in (1, 2))
    view = viewing_direction(grid.subspace.project(minima)) if projection else None
    plot_quiver(drift, grid.subspace, box, view=view, ax=left, title=_drift_title(scene))
    flow = plot_flow_lines(drift, grid.subspace, box, minima=minima, ax=right, title="flow lines")
    astray = "; grey lines end elsewhere" if (flow.ends < 0).any() else ""
    projected = "" if grid.subspace.is_whole_space else ", projected"
    return (
        f"The {_drift_title(scene, plain=True)}{_where(grid)}{projected}: arrows coloured by speed, and flow lines in "
        f"the colours of the states in which they end, {len(minima):,} in all{astray}."
    )


def _drift_title(scene: Scene, plain: bool = False) -> str:
    """Underdamped dynamics has no drift of positions: what is drawn is that of its limit of high friction."""
    dynamics = scene.analysis.dynamics
    if not isinstance(dynamics, Overdamped):
        return (
            "drift -grad E / gamma of the limit of high friction"
            if plain
            else (r"drift at high friction, $-\nabla E/\gamma$")
        )
    return "drift" if dynamics.rotation is None else "drift with its rotation"


def _compress(figure: Figure) -> None:
    """Axes that keep their proportions would leave gaps."""
    figure.set_layout_engine("compressed")


ENERGY_PICTURES: tuple[Picture, ...] = (
    Picture("contour", "Energy landscape", _contour, _two_dimensions, needs_energy=True, size=(6.4, 5.6)),
    Picture("basins", "Basins of attraction", _basins, _two_dimensions, needs_energy=True, size=(6.0, 5.6)),
    Picture("surface", "Energy surface", _surface, _two_dimensions, needs_energy=True, size=(6.8, 5.8)),
    Picture("volume", "3-D contours of the energy", _volume, _no_volume, needs_energy=True, size=(6.4, 5.8)),
    Picture("profile", "Energy along the paths", _profile, _no_profile, size=(9.0, 4.6), height=_profile_height),
    Picture("drift", "Drift", _drift, _no_plane, needs_energy=True, size=(10.0, 4.8)),
    Picture("drift3d", "Drift in three dimensions", _drift_in_space, _three_dimensions, needs_energy=True,
            size=(10.0, 4.8)),
)  # fmt: skip
