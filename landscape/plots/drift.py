"""Drifts as arrows and as flow lines: in two dimensions, in three, and on a plane in more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import LogLocator, NullLocator
from mpl_toolkits.mplot3d.art3d import line_collection_2d_to_3d  # type: ignore[import-untyped]

from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.plots.marks import mark_minima
from landscape.plots.planes import Subspace, viewing_direction
from landscape.plots.style import INK, SMALL, TEXT, label_axes, new_axes, state_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray
Drift = Callable[[Array], Array]  # (n, d) -> (n, d), 1/time

ARROWS = {1: 41, 2: 21, 3: 7}  # along each axis
LINES = {2: 13, 3: 6}
SPEED_COLORS = "viridis"
LINE_COLOR = "#3b6ea5"
ASTRAY = "#8c8c8c"  # flow lines that end at no minimum that is drawn
FLOW_LENGTH, FLOW_STEPS = 1.5, 300  # of a flow line: in lengths of the longest side of the box, and steps


@dataclass(frozen=True, eq=False)
class QuiverArtists:
    """What `plot_quiver` drew: arrows at starts (n, k) in the picture's coordinates, along `vectors` (n, k), the drift
    there as projected. All arrows are equally long; their colour is the speed, |projected drift|, (n,)."""

    ax: Any
    arrows: Any
    starts: Array
    vectors: Array
    speeds: Array


@dataclass(frozen=True, eq=False)
class FlowArtists:
    """What `plot_flow_lines` drew: lines, a list of arrays (m, d) in R^d; shown is their projection, (m, k) each;
    ends (n,) the state at which each one ends, -1 for none that was given."""

    ax: Any
    collection: Any
    lines: tuple[Array, ...]
    shown: tuple[Array, ...]
    ends: Array


def drift_of(dynamics: Dynamics, energy: Energy) -> Drift:
    """The drift of positions, -(gamma^-1 + J) grad E, J the rotation of an overdamped dynamics that has one.

    For underdamped dynamics -gamma^-1 grad E: the drift that is left of it at high friction.
    """
    d = energy.dim
    mobility = dynamics.mobility(d) if isinstance(dynamics, Overdamped) else np.diag(1 / dynamics.gamma_vector(d))

    def drift(points: Array) -> Array:
        return -np.asarray(energy.gradient(points)) @ mobility.T

    return drift


def plot_quiver(
    drift: Drift,
    subspace: Subspace,
    box: Array,
    *,
    arrows: int | None = None,
    view: tuple[float, float] | None = None,
    ax: Any = None,
    title: str = "",
) -> QuiverArtists:
    """Arrows of a drift on a grid: in a plane (projected onto it where d > 2), or in a 3-D space.

    drift : (n, d) -> (n, d). box (k, 2) : in the coordinates of the subspace. arrows : along each axis. Arrows show the
    direction, their colours the speed on a logarithmic scale. view : elevation and azimuth in 3-D.
    UsageError for a drift of another shape.
    """
    box = _checked(box, subspace)
    k = subspace.dim
    count = ARROWS[k] if arrows is None else arrows
    starts = _start_grid(box, count)
    vectors = _evaluate(drift, subspace.lift(starts)) @ subspace.axes.T
    speeds = np.linalg.norm(vectors, axis=1)
    spacing = float((np.ptp(box, axis=1) / count).min())
    ax = new_axes(ax, (6.0, 5.0), three_d=k == 3, layout="compressed")
    length = 0.8 * spacing
    pieces = length * vectors / np.where(speeds > 0, speeds, 1.0)[:, None]
    norm = _speed_scale(speeds)
    keywords: dict[str, Any] = {"cmap": SPEED_COLORS, "norm": norm}
    if k == 2:
        drawn = ax.quiver(*(starts - pieces / 2).T, *pieces.T, speeds, angles="xy", scale_units="xy", scale=1,
                          width=0.0042, headwidth=4, headlength=5, headaxislength=4.5, **keywords)  # fmt: skip
        ax.set_xlim(*box[0])
        ax.set_ylim(*box[1])
        ax.set_aspect("equal")
    else:
        drawn = ax.quiver(*(starts - pieces / 2).T, *pieces.T, arrow_length_ratio=0.4, linewidth=0.9, **keywords)
        drawn.set_array(np.tile(speeds, 3))  # all shafts, then one side of all heads, then the other
        _turn(ax, box, viewing_direction(np.zeros((1, 3))) if view is None else view)
    _axis_names(ax, subspace, title)
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.85 if k == 2 else 0.55, pad=0.03 if k == 2 else 0.12)
    if isinstance(norm, LogNorm):
        bar.set_ticks(LogLocator(subs=(1.0, 2.0, 5.0)), minor=False)
        bar.ax.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
        bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_label("speed, distance per time", fontsize=TEXT)
    bar.ax.tick_params(labelsize=SMALL)
    return QuiverArtists(ax, drawn, starts, vectors, speeds)


def plot_flow_lines(
    drift: Drift,
    subspace: Subspace,
    box: Array,
    *,
    minima: Array | None = None,
    lines: int | None = None,
    view: tuple[float, float] | None = None,
    ax: Any = None,
    title: str = "",
) -> FlowArtists:
    """Solutions of dx/dt = drift(x) from a grid of starts in a plane or 3-D space, projected back onto it.

    They are followed in all d dimensions. minima (n, d) : of states, drawn in their places; a line that ends at one has
    its colour, and is grey where it ends elsewhere. lines : starts along each axis. view : elevation and azimuth in
    3-D, from where minima are seen apart by default. UsageError for a drift of another shape.
    """
    box = _checked(box, subspace)
    k = subspace.dim
    starts = subspace.lift(_start_grid(box, LINES[k] if lines is None else lines))
    extent = float(np.ptp(box, axis=1).max())
    found = flow_lines(drift, starts, FLOW_LENGTH * extent)
    shown = tuple(subspace.project(line) for line in found)
    ends = _ends(found, minima, 0.05 * extent)
    astray = LINE_COLOR if minima is None else ASTRAY
    colors = [state_color(end) if end >= 0 else astray for end in ends.tolist()]
    ax = new_axes(ax, (5.4, 5.0), three_d=k == 3, layout="compressed")
    if k == 2:
        collection = LineCollection(shown, colors=colors, linewidths=0.9, zorder=2)
        ax.add_collection(collection)
        _heads(ax, shown, colors)
        ax.set_xlim(*box[0])
        ax.set_ylim(*box[1])
        ax.set_aspect("equal")
    else:
        collection = LineCollection([line[:, :2] for line in shown], colors=colors, linewidths=0.9)
        line_collection_2d_to_3d(collection)
        collection.set_segments(shown)
        ax.add_collection3d(collection)
        points = np.zeros((1, 3)) if minima is None else subspace.project(minima)
        _turn(ax, box, viewing_direction(points) if view is None else view)
    if minima is not None:
        mark_minima(ax, subspace.project(minima), range(len(minima)), subspace.holds(minima, extent))
    _axis_names(ax, subspace, title)
    return FlowArtists(ax, collection, tuple(found), shown, ends)


def flow_lines(drift: Drift, starts: Array, length: float, steps: int = FLOW_STEPS) -> list[Array]:
    """The curve of dx/ds = v / |v| from each start (n, d), at equal steps of arclength: a list of n arrays (m, d).

    By the midpoint rule, all lines at once. A line ends after `length`, where the drift vanishes or is not finite, and
    where it turns back within a step, which it does around a stable point.
    """
    step = length / steps
    x = np.array(starts, dtype=float)
    curve, alive, ended = [x.copy()], np.ones(len(x), bool), np.full(len(x), steps)
    previous = np.zeros_like(x)
    for number in range(steps):
        direction = _direction(drift, x[alive])
        middle = _direction(drift, x[alive] + 0.5 * step * direction)
        stop = ((direction * previous[alive]).sum(1) < 0) | ((direction * middle).sum(1) <= 0)
        rows = np.flatnonzero(alive)
        ended[rows[stop]] = number
        alive[rows[stop]] = False
        if not alive.any():
            break
        x[alive] += step * middle[~stop]
        previous[alive] = middle[~stop]
        curve.append(x.copy())
    whole = np.stack(curve)
    return [whole[: last + 1, row] for row, last in enumerate(ended.tolist())]


def plot_drifts(
    drifts: Mapping[str, Drift], subspace: Subspace, box: Array, *, minima: Array | None = None, figure: Any = None
) -> dict[str, tuple[QuiverArtists, FlowArtists]]:
    """Drifts side by side, a column each: arrows above, flow lines below. Minima are drawn with the last one alone.

    drifts : name -> drift; an NSDE and an NLD, for instance. figure : to draw in, a new one by default.
    """
    from matplotlib.figure import Figure

    if not drifts:
        raise UsageError("there is no drift to draw: give at least one by name")
    three_d = subspace.dim == 3
    if figure is None:
        figure = Figure(figsize=(4.6 * len(drifts), 8.0), layout="constrained" if three_d else "compressed")
    axes = figure.subplots(2, len(drifts), squeeze=False, subplot_kw={"projection": "3d"} if three_d else None)
    view = viewing_direction(subspace.project(minima)) if three_d and minima is not None else None
    drawn = {}
    for column, (name, drift) in enumerate(drifts.items()):
        last = column == len(drifts) - 1
        arrows = plot_quiver(drift, subspace, box, view=view, ax=axes[0, column], title=f"{name}: drift")
        flow = plot_flow_lines(
            drift,
            subspace,
            box,
            minima=minima if last else None,
            view=view,
            ax=axes[1, column],
            title=f"{name}: flow lines",
        )
        drawn[name] = (arrows, flow)
    return drawn


@dataclass(frozen=True, eq=False)
class DriftLineArtists:
    """What `plot_drift_line` drew: the drift `values` at x, and the arrows of its direction on the axis."""

    ax: Axes
    x: Array
    values: Array
    line: Any
    arrows: Any


def plot_drift_line(
    drift: Drift, box: Array, *, minima: Array | None = None, ax: Axes | None = None, title: str = ""
) -> DriftLineArtists:
    """A drift in one dimension as a curve over x, with its direction as arrows on the line of zero.

    box : low and high. minima (n, 1) : of states, drawn in their places."""
    low, high = np.asarray(box, float).reshape(2).tolist()
    x = np.linspace(low, high, 401)
    values = _evaluate(drift, x[:, None])[:, 0]
    ax = new_axes(ax, (6.4, 3.8))
    ax.axhline(0.0, color=INK, linewidth=0.6, zorder=1)
    (line,) = ax.plot(x, values, color=LINE_COLOR, linewidth=1.5, zorder=2)
    at = _start_grid(np.array([[low, high]]), 25)[:, 0]
    signs = np.sign(_evaluate(drift, at[:, None])[:, 0])
    size = 0.6 * (high - low) / 25
    arrows = ax.quiver(at - size * signs / 2, np.zeros_like(at), size * signs, np.zeros_like(at), angles="xy",
                       scale_units="xy", scale=1, color=INK, width=0.004, zorder=3)  # fmt: skip
    if minima is not None:
        mark_minima(ax, np.column_stack([minima[:, 0], np.zeros(len(minima))]), range(len(minima)))
    ax.set_xlim(low, high)
    # inside the wells: at the walls the drift is so large that it would flatten all else
    inner = np.quantile(np.abs(values), 0.85) or 1.0
    ax.set_ylim(-1.3 * inner, 1.3 * inner)
    label_axes(ax, "$x$", "drift, distance per time", title)
    return DriftLineArtists(ax, x, values, line, arrows)


def _evaluate(drift: Drift, points: Array) -> Array:
    values = np.asarray(drift(points), dtype=float)
    if values.shape != points.shape:
        raise UsageError(f"a drift maps points (n, d) to (n, d), but {points.shape} gave {values.shape}")
    return values


def _direction(drift: Drift, points: Array) -> Array:
    values = _evaluate(drift, points)
    speed = np.linalg.norm(values, axis=1, keepdims=True)
    good = np.isfinite(speed) & (speed > 0)
    return np.where(good, values / np.where(good, speed, 1.0), 0.0)


def _checked(box: Array, subspace: Subspace) -> Array:
    box = np.asarray(box, float)
    if subspace.dim not in (2, 3):
        raise UsageError(f"a drift is drawn in a plane or in a 3-D space, not in {subspace.dim} dimensions")
    if box.shape != (subspace.dim, 2) or not (box[:, 0] < box[:, 1]).all():
        raise UsageError(f"the box of a picture is ({subspace.dim}, 2), low < high on each axis, not {box.tolist()}")
    return box


def _start_grid(box: Array, count: int) -> Array:
    """The centres of count^k equal cells of a box: (count^k, k)."""
    ticks = [low + (np.arange(count) + 0.5) * (high - low) / count for low, high in box]
    return np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1).reshape(-1, len(ticks))


def _speed_scale(speeds: Array) -> Any:
    """Logarithmic between the 2nd and 98th percentile: the walls of a landscape are steep without end."""
    positive = speeds[np.isfinite(speeds) & (speeds > 0)]
    if not len(positive):
        return Normalize(0.0, 1.0)
    low, high = np.quantile(positive, [0.02, 0.98])
    return LogNorm(low, high, clip=True) if high > 1.01 * low else Normalize(0.0, high)


def _ends(lines: list[Array], minima: Array | None, reach: float) -> Array:
    """The state near which each line ends, -1 for none."""
    if minima is None or not len(minima):
        return np.full(len(lines), -1)
    ends = np.stack([line[-1] for line in lines])
    distance = np.linalg.norm(ends[:, None] - np.asarray(minima, float)[None], axis=-1)
    return np.where(distance.min(1) < reach, distance.argmin(1), -1)


def _heads(ax: Any, lines: tuple[Array, ...], colors: list[Any]) -> None:
    """An arrow head on each line, after a third of it; short lines have none."""
    long = [(line, color) for line, color in zip(lines, colors, strict=True) if len(line) > 12]
    if not long:
        return
    at = np.array([line[len(line) // 3] for line, _ in long])
    along = np.array([line[len(line) // 3 + 1] - line[len(line) // 3] for line, _ in long])
    size = np.linalg.norm(along, axis=1, keepdims=True)
    ax.quiver(*at.T, *(along / np.where(size > 0, size, 1.0)).T, color=[color for _, color in long], angles="xy",
              scale=60, width=0.005, headwidth=4.5, headlength=5, headaxislength=4, zorder=3)  # fmt: skip


def _turn(ax: Any, box: Array, view: tuple[float, float]) -> None:
    ax.computed_zorder = False
    for name, bounds in zip("xyz", box.tolist(), strict=True):
        getattr(ax, f"set_{name}lim")(*bounds)
    ax.set_box_aspect(np.ptp(box, axis=1).tolist(), zoom=0.86)
    ax.view_init(*view)


def _axis_names(ax: Any, subspace: Subspace, title: str) -> None:
    labels = subspace.labels
    label_axes(ax, labels[0], labels[1], title, z=labels[2] if subspace.dim == 3 else "")
