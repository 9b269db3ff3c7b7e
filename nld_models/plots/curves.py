"""Training curves: every term of the loss, of all seeds of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

from landscape.errors import UsageError
from landscape.plots.style import INK, SMALL, TITLE, label_axes, new_axes, state_color
from nld_models.checkpoint import read_file
from nld_models.errors import CheckpointError
from nld_models.training import Stopped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Array = np.ndarray
PREFIX = "curve."  # of the names in a model file
# Title and axis of each curve.
WORDS = {
    "loss": ("loss (negative ELBO)", "nats a frame"),
    "reconstruction": ("reconstruction", "nats a frame"),
    "path_kl": ("path KL", "nats a frame"),
    "initial_kl": ("initial KL", "nats a frame"),
    "stationarity": ("stationarity", "nats a frame"),
    "gradient_norm": ("gradient norm", "before clipping"),
    "diffusion_coefficient": ("diffusion coefficient $D$", "latent length² a frame"),
}
LOGARITHMIC = ("gradient_norm",)
AVERAGED = 20  # steps to both sides, together, in the running mean
COLUMNS = 3
STEEP = 0.05  # share of the steps, the first ones, that may lie outside the picture
NAMED_SEEDS = 8  # more are not named in the legend one by one


@dataclass(frozen=True, eq=False)
class Curves:
    """What training recorded. seeds (S,); values : name -> (S, steps), nan once a seed was stopped; stopped : those
    seeds; iterations : steps that were asked for."""

    seeds: Array
    values: Mapping[str, Array]
    stopped: tuple[Stopped, ...]
    iterations: int

    @property
    def steps(self) -> int:
        """Steps that were done."""
        return next(iter(self.values.values())).shape[1]


@dataclass(frozen=True, eq=False)
class CurveArtists:
    """What `plot_curve` drew, by seed: the recorded `lines`, their running `means`, and a cross `marks` at the last
    number of each seed that was stopped. x is the number of steps done."""

    ax: Axes
    lines: dict[int, Line2D]
    means: dict[int, Line2D]
    marks: dict[int, Line2D]


def read_curves(path: str | Path) -> Curves:
    """The curves in a file of `nld train`, finished or not. CheckpointError for a file without them."""
    tensors, document = read_file(Path(path))
    values = {name.removeprefix(PREFIX): tensor.numpy() for name, tensor in tensors.items() if name.startswith(PREFIX)}
    try:
        ordered = {name: values[name] for name in (*WORDS, *sorted(values)) if name in values}
        curves = Curves(
            np.array(document["seeds"]), ordered, tuple(Stopped(**entry) for entry in document["stopped"]),
            document["training"]["iterations"],
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is a damaged model file: {error}") from None
    if not ordered or any(curve.shape != (len(curves.seeds), curves.steps) for curve in ordered.values()):
        raise CheckpointError(f"{path} is a damaged model file: its training curves are missing or of unequal length")
    return curves


def plot_curve(curves: Curves, name: str, *, ax: Axes | None = None) -> CurveArtists:
    """One curve of every seed: the record as a thin line, its running mean over 21 steps as a thick one.

    The axis shows all but the steep first steps. UsageError for a name that was not recorded.
    """
    if name not in curves.values:
        raise UsageError(f"there is no training curve {name!r}: take one of {', '.join(curves.values)}")
    ax = new_axes(ax, (5.0, 3.6))
    values, done = curves.values[name], 1 + np.arange(curves.steps)
    stopped = {entry.seed for entry in curves.stopped}
    lines, means, marks = {}, {}, {}
    for k, seed in enumerate(curves.seeds.tolist()):
        color, label = state_color(k), f"seed {seed}, stopped" if seed in stopped else f"seed {seed}"
        (lines[seed],) = ax.plot(done, values[k], color=color, linewidth=0.5, alpha=0.4, label="_record")
        (means[seed],) = ax.plot(done, running_mean(values[k]), color=color, linewidth=1.4, label=label)
        known = np.flatnonzero(np.isfinite(values[k]))
        if seed in stopped and len(known):
            (marks[seed],) = ax.plot(
                done[known[-1]], values[k, known[-1]], "X", color=color, markeredgecolor=INK, markersize=9,
                zorder=4, label="_stopped",
            )  # fmt: skip
    if name in LOGARITHMIC:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        _show_most(ax, values)
    ax.set_xlim(0, max(curves.steps, 1))
    ax.grid(linewidth=0.4, alpha=0.6)
    title, unit = WORDS.get(name, (name.replace("_", " "), ""))
    label_axes(ax, "step", unit, title)
    return CurveArtists(ax, lines, means, marks)


def plot_curves(
    curves: Curves, names: Sequence[str] | None = None, *, figure: Figure | None = None
) -> dict[str, CurveArtists]:
    """Every curve, or those named, a panel each, with one legend: by name.

    figure : to draw in, a new one by default.
    """
    from matplotlib.figure import Figure

    chosen = list(curves.values) if names is None else list(names)
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    if figure is None:
        figure = Figure(figsize=(3.4 * columns, 2.5 * rows + 0.4), layout="constrained")
    drawn = {}
    for place, name in enumerate(chosen):
        drawn[name] = plot_curve(curves, name, ax=figure.add_subplot(rows, columns, place + 1))
    unfinished = f" of {curves.iterations}" if curves.steps < curves.iterations else ""
    figure.suptitle(f"Training, {curves.steps}{unfinished} steps", fontsize=TITLE)
    handles = _legend(next(iter(drawn.values())), curves)
    if rows * columns > len(chosen):  # in a panel that is left
        room = figure.add_subplot(rows, columns, len(chosen) + 1)
        room.set_axis_off()
        room.legend(handles=handles, loc="upper left", fontsize=SMALL, frameon=False)
    else:
        figure.legend(handles=handles, loc="outside lower center", ncol=4, fontsize=SMALL, frameon=False)
    return drawn


def running_mean(values: Array, width: int = AVERAGED) -> Array:
    """The mean of the finite numbers within half of `width` of each, (n,) -> (n,); nan where the number itself is."""
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    at = np.arange(len(values))
    start, end = np.maximum(at - width // 2, 0), np.minimum(at + width // 2 + 1, len(values))
    return np.where(finite, (total[end] - total[start]) / np.maximum(count[end] - count[start], 1), np.nan)


def _show_most(ax: Any, values: Array) -> None:
    """Limits that hold all but the first steps, which would flatten the rest."""
    later = values[:, int(STEEP * values.shape[1]) :]
    later = later[np.isfinite(later)]
    if len(later):
        low, high = float(later.min()), float(later.max())
        room = 0.06 * (high - low) or 0.06 * max(abs(high), 1e-6)
        ax.set_ylim(low - room, high + room)


def _legend(drawn: CurveArtists, curves: Curves) -> list[Any]:
    from matplotlib.lines import Line2D

    stopped = {entry.seed for entry in curves.stopped}
    named = sorted(drawn.means, key=lambda seed: seed not in stopped)[:NAMED_SEEDS]  # those that were stopped at least
    handles: list[Any] = [line for seed, line in drawn.means.items() if seed in named]
    if len(named) < len(drawn.means):
        more = len(drawn.means) - len(named)
        handles.append(Line2D([], [], linestyle="", label=f"and {more} more seed{'s' if more > 1 else ''}"))
    handles.append(Line2D([], [], color=INK, linewidth=1.4, label=f"running mean of {AVERAGED + 1} steps"))
    handles.append(Line2D([], [], color=INK, linewidth=0.5, alpha=0.4, label="each step"))
    if curves.stopped:
        handles.append(Line2D([], [], marker="X", linestyle="", color="#8c8c8c", markeredgecolor=INK, markersize=8,
                              label="stopped: not finite"))  # fmt: skip
    return handles
