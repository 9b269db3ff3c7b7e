"""Energy along minimum energy paths, and an energy of one dimension, with images, barriers and harmonic wells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text

from landscape.energy import Energy, ParticleSymmetry
from landscape.errors import UsageError
from landscape.plots.grids import EnergyGrid, energy_grid, levels_of
from landscape.plots.marks import legend_below, mark_minima, mark_saddles, minimum_handle, path_handle, saddle_handle
from landscape.plots.planes import coordinate_subspace
from landscape.plots.style import INK, PATH, SMALL, TEXT, UNREACHABLE, Levels, label_axes, new_axes, state_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from landscape.store import Analysis

Array = np.ndarray

WELL_HEIGHT = 0.7  # a harmonic well is drawn up to this part of its barrier
SADDLE_DEPTH = 0.5  # and the parabola of a saddle down to this part of the lower barrier
MOST_PANELS = 12  # of paths side by side
HARMONIC = (0, (2, 1.6))  # dashes


@dataclass(frozen=True, eq=False)
class ProfileArtists:
    """What `plot_profile` drew of one path; energies in kT above the lowest minimum.

    arclength, kt (m,) : of the images. states, saddle : the numbers of the two ends and of the saddle between. barriers
    (2,) : from either end. wells : the parabola of each end, and of the saddle, as drawn; those without Hessian are
    left out. labels : the two texts of the barriers.
    """

    ax: Axes
    line: Line2D
    images: Line2D
    arclength: Array
    kt: Array
    states: tuple[int, int]
    saddle: int
    barriers: tuple[float, float]
    wells: tuple[Line2D, ...]
    arrows: tuple[Annotation, ...]
    labels: tuple[Text, ...]


def plot_profile(analysis: Analysis, path: int = 0, *, legend: bool = True, ax: Axes | None = None) -> ProfileArtists:
    """Energy in kT along a minimum energy path, against the distance along it, with its images.

    path : its number in `analysis.paths`. The barrier from either end stands at the foot of its arrow. The dashed
    parabolas are the harmonic approximations that weights and rates rest on: E_i + s^2 t.H_i t / 2 along the path's
    tangent t at each end, and E_s + s^2 lambda / 2 at the saddle. UsageError for a path that there is not.
    """
    n_paths = len(analysis.paths.saddle)
    if not 0 <= path < n_paths:
        known = f"there are paths 0 to {n_paths - 1}" if n_paths else "there is none: a path joins two states"
        raise UsageError(f"no path {path}: {known}")
    levels = levels_of(analysis)
    saddle = int(analysis.paths.saddle[path])
    ends = (int(analysis.saddles.joins[saddle, 0]), int(analysis.saddles.joins[saddle, 1]))
    arclength, kt = analysis.paths.arclength[path], levels.kt(analysis.paths.energy[path])
    ax = new_axes(ax, (5.6, 4.2))
    style = "-" if analysis.paths.converged[path] else "--"
    (line,) = ax.plot(arclength, kt, color=PATH, linewidth=1.4, linestyle=style, zorder=3)
    (images,) = ax.plot(arclength, kt, color=PATH, marker="o", markersize=2.6, linestyle="", zorder=3)
    top = levels.kt(analysis.saddles.energy[saddle])
    peak = float(arclength[np.argmax(kt)])
    bottoms = levels.kt(analysis.states.energy[list(ends)])
    wells = _wells(ax, analysis, levels, path, ends, saddle, peak)
    arrows, labels = _barriers(ax, float(arclength[-1]), peak, bottoms, float(top))
    mark_saddles(ax, np.array([[peak, top]]))
    mark_minima(ax, np.column_stack([arclength[[0, -1]], bottoms]), ends)
    low, high = min(0.0, float(bottoms.min())), float(top)
    ax.set_ylim(low - 0.2 * (high - low), high + 0.14 * (high - low))
    settled = "" if analysis.paths.converged[path] else " (not settled)"
    label_axes(ax, "distance along the path", "energy ($kT$)", f"{ends[0]}-{ends[1]} over saddle {saddle}{settled}")
    if legend:
        legend_below(ax, _handles())
    barriers = (float(top - bottoms[0]), float(top - bottoms[1]))
    return ProfileArtists(ax, line, images, arclength, kt, ends, saddle, barriers, tuple(wells), arrows, labels)


def _wells(
    ax: Axes, analysis: Analysis, levels: Levels, path: int, ends: tuple[int, int], saddle: int, peak: float
) -> list[Line2D]:
    images, arclength = analysis.paths.images[path], analysis.paths.arclength[path]
    top = float(levels.kt(analysis.saddles.energy[saddle]))
    drawn = []
    if analysis.states.hessian is not None:
        symmetry = analysis.symmetry
        places = (
            (ends[0], 0.0, images[0], images[1] - images[0]),
            (ends[1], float(arclength[-1]), images[-1], images[-1] - images[-2]),
        )
        for state, at, end, step in places:
            if isinstance(symmetry, ParticleSymmetry):  # the path may end at another copy of the state
                step = symmetry.carried(step, end, analysis.states.x[state])
            tangent = step / np.linalg.norm(step)
            curvature = levels.beta * float(tangent @ analysis.states.hessian[state] @ tangent)
            bottom = float(levels.kt(analysis.states.energy[state]))
            drawn.append(_parabola(ax, at, bottom, curvature, WELL_HEIGHT * (top - bottom), state_color(state)))
    depth = SADDLE_DEPTH * float(np.min(top - levels.kt(analysis.states.energy[list(ends)])))
    curvature = levels.beta * float(analysis.saddles.eigenvalues[saddle].min())
    drawn.append(_parabola(ax, peak, float(top), curvature, depth, INK))
    return [line for line in drawn if line is not None]


def _parabola(ax: Axes, at: float, value: float, curvature: float, height: float, color: Any) -> Line2D | None:
    """value + curvature (s - at)^2 / 2 as far as it departs by `height`; None where there is nothing to draw."""
    if curvature == 0 or height <= 0:
        return None
    reach = math.sqrt(2 * height / abs(curvature))
    s = np.linspace(-reach, reach, 101)
    (line,) = ax.plot(at + s, value + 0.5 * curvature * s**2, color=color, linewidth=1.1, linestyle=HARMONIC, zorder=2)
    return line


def _barriers(
    ax: Axes, length: float, peak: float, bottoms: Array, top: float
) -> tuple[tuple[Annotation, ...], tuple[Text, ...]]:
    """An arrow from the level of either end up to the saddle, under the saddle, with the barrier at its foot."""
    arrows, labels = [], []
    for side, (end, bottom) in enumerate(zip((0.0, length), bottoms.tolist(), strict=True)):
        x = peak + (-0.012, 0.012)[side] * length
        ax.plot([end, x], [bottom, bottom], color=INK, linewidth=0.6, linestyle=":", zorder=1)
        arrow = ax.annotate("", (x, top), (x, bottom), zorder=2,
                            arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 0.8,
                                        "shrinkA": 0, "shrinkB": 3})  # fmt: skip
        label = ax.annotate(
            f"{top - bottom:.3g} $kT$", (x, bottom), (-4 if side == 0 else 4, -7), textcoords="offset points",
            ha="right" if side == 0 else "left", va="top", fontsize=SMALL, zorder=4,
        )  # fmt: skip
        arrows.append(arrow)
        labels.append(label)
    return tuple(arrows), tuple(labels)


def _handles() -> list[Line2D]:
    path = path_handle("minimum energy path and its images", images=True)
    return [path, saddle_handle("saddle"), _harmonic_handle()]


def _harmonic_handle() -> Line2D:
    return Line2D([], [], color=state_color(0), linewidth=1.1, linestyle=HARMONIC, label="harmonic approximation")


@dataclass(frozen=True, eq=False)
class LineArtists:
    """What `plot_line` drew: the energy on a grid of x, the curve up to the limit and what is above it, the minima."""

    ax: Axes
    grid: EnergyGrid
    line: Line2D
    above: Line2D
    basins: dict[int, tuple[Any, ...]]
    wells: tuple[Line2D, ...]
    minima: Any
    saddles: Any


def plot_line(
    analysis: Analysis, energy: Energy | EnergyGrid, *, limit: float | None = None, ax: Axes | None = None
) -> LineArtists:
    """An energy of one dimension in kT, with its basins as bands of colour, its minima, saddles and harmonic wells.

    What is above the limit is grey. UsageError unless d = 1.
    """
    if analysis.dim != 1:
        raise UsageError(f"this is the picture of an energy of one dimension, not of {analysis.dim}: draw its contour")
    if isinstance(energy, EnergyGrid):
        grid = energy
    else:
        grid = energy_grid(analysis, energy, coordinate_subspace(1), limit=limit)
    levels, x = grid.levels, grid.ticks[0]
    kt, reached = grid.kt, grid.kt <= levels.limit
    ax = new_axes(ax)
    basins = {
        state: _bands(ax, x, grid.basins == state, (*state_color(state), 0.18))
        for state in np.unique(grid.basins[grid.basins >= 0]).tolist()
    }
    _bands(ax, x, ~reached, UNREACHABLE)
    (above,) = ax.plot(x, np.where(reached, np.nan, kt), color="#8c8c8c", linewidth=1.2, zorder=2)
    (line,) = ax.plot(x, np.where(reached, kt, np.nan), color=INK, linewidth=1.5, zorder=3)
    wells = []
    for k, at in enumerate(analysis.states.x[:, 0].tolist()):
        curvature = levels.beta * float(analysis.states.eigenvalues[k, 0])
        bottom = float(levels.kt(analysis.states.energy[k]))
        well = _parabola(ax, at, bottom, curvature, levels.limit / 2, state_color(k))
        wells += [well] if well is not None else []
    at_saddles = np.column_stack([analysis.saddles.x[:, 0], levels.kt(analysis.saddles.energy)])
    saddles = mark_saddles(ax, at_saddles)
    at_minima = np.column_stack([analysis.states.x[:, 0], levels.kt(analysis.states.energy)])
    minima, _ = mark_minima(ax, at_minima, range(len(at_minima)))
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(-0.07 * levels.limit, 1.12 * levels.limit)
    label_axes(ax, "$x$", "energy above the lowest minimum ($kT$)")
    handles = [minimum_handle("minimum of state i"), _harmonic_handle()]
    handles += [saddle_handle("saddle")] if len(at_saddles) else []
    handles.append(Line2D([], [], color=UNREACHABLE, linewidth=6, label=f"above {levels.limit:g} $kT$"))
    legend_below(ax, handles, columns=4)
    return LineArtists(ax, grid, line, above, basins, tuple(wells), minima, saddles)


def _bands(ax: Axes, x: Array, where: Array, color: Any) -> tuple[Any, ...]:
    """A vertical band over each run of points where a condition holds, reaching half-way to the next point."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(int)))
    half = 0.5 * (x[1] - x[0])
    return tuple(
        ax.axvspan(x[first] - half, x[last - 1] + half, color=color, linewidth=0, zorder=0)
        for first, last in edges.reshape(-1, 2).tolist()
    )


def profile_shape(n_paths: int, most: int = MOST_PANELS) -> tuple[int, int]:
    """Rows and columns of the panels of `plot_profiles`."""
    count = min(n_paths, most)
    columns = 1 if count <= 1 else 2 if count in (2, 4) else 3
    return max(1, math.ceil(count / columns)), columns


def plot_profiles(analysis: Analysis, *, most: int = MOST_PANELS, figure: Any = None) -> tuple[ProfileArtists, ...]:
    """Every path in a panel of its own, those over the lowest saddles first, all on one scale of energy.

    most : panels. figure : to draw in, a new one by default. UsageError where there is no path.
    """
    from matplotlib.figure import Figure

    chosen = np.argsort(analysis.paths.saddle, kind="stable")[:most].tolist()  # saddles are numbered from the lowest
    if not chosen:
        raise UsageError("there is no path to draw: a path joins two states over a saddle")
    rows, columns = profile_shape(len(analysis.paths.saddle), most)
    if figure is None:
        figure = Figure(figsize=(3.4 * columns, 2.7 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for ax in axes[len(chosen) :]:
        ax.set_axis_off()
    drawn = tuple(plot_profile(analysis, path, legend=False, ax=ax) for path, ax in zip(chosen, axes, strict=False))
    low = min(artists.ax.get_ylim()[0] for artists in drawn)
    high = max(float(artists.kt.max()) for artists in drawn)
    axes[0].set_ylim(low, high + 0.14 * (high - low))
    for number, artists in enumerate(drawn):
        if number % columns:
            artists.ax.set_ylabel("")
    figure.legend(
        handles=_handles(),
        loc="outside lower center", ncol=3, fontsize=SMALL, frameon=False,
    )  # fmt: skip
    n_paths = len(analysis.paths.saddle)
    if n_paths > len(chosen):
        figure.suptitle(f"the {len(chosen)} paths of {n_paths} over the lowest saddles", fontsize=TEXT)
    return drawn
