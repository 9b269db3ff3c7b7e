"""Segmented sequences against the truth: states over time, and the posterior mean below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import PolyCollection

from landscape.errors import UsageError
from landscape.plots.planes import Subspace, choose_plane
from landscape.plots.style import INK, SMALL, TITLE, label_axes, new_axes, state_color, text_color
from nld_models.checkpoint import SavedModel
from nld_models.data import SequenceData
from nld_models.evaluation import best_permutation, encode, label_frames
from nld_models.landscape_adapter import LearnedStates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

Array = np.ndarray
WRONG = "#1a1a1a"
UNKNOWN = "#ffffff"
STRIPS = ("truth", "learned", "wrong")
HEIGHT = {"truth": 0.8, "learned": 0.8, "wrong": 0.3}
NUMBERED = 0.03  # share of the width from which on a run carries its state's number
DASHES = ("-", "--", ":")
MOST_COORDINATES = 3  # more latent coordinates than this are projected onto the picture's plane


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Sequences as one seed of a model sees them.

    labels (n, T) : learned states, as `nld_models.evaluation.segment` gives them; -1 beyond a sequence's end and where
    the flow reaches no minimum. mean, sd (n, T, d) : of the posterior, online. truth (n, T) : -1 where unknown, or
    None. order (K,) : the learned state that stands for true state k by the best permutation over all frames, -1 for
    none; empty without truth. lengths (n,) : frames of each sequence.
    """

    labels: Array
    mean: Array
    sd: Array
    truth: Array | None
    order: Array
    lengths: Array
    n_states: int

    @property
    def translated(self) -> Array | None:
        """(n, T) the truth in numbers of learned states: -1 where it is unknown or no learned state stands for it."""
        if self.truth is None:
            return None
        if not len(self.order):
            return np.full(self.truth.shape, -1)
        return np.where(self.truth >= 0, self.order[np.maximum(self.truth, 0)], -1)

    def in_true_order(self) -> Segmentation:
        """The same with each learned state under the number of the true state for which it stands; others follow."""
        number = np.full(self.n_states + 1, -1)  # the last place is for -1
        standing = self.order >= 0
        number[self.order[standing]] = np.flatnonzero(standing)
        others = np.setdiff1d(np.arange(self.n_states), self.order)
        number[others] = len(self.order) + np.arange(len(others))
        order = np.where(standing, np.arange(len(self.order)), -1)
        return replace(self, labels=number[self.labels], order=order, n_states=len(self.order) + len(others))

    def accuracy(self, row: int) -> float:
        """Share of the frames of a sequence with known truth that are labelled right; nan where there are none."""
        translated = self.translated
        if self.truth is None or translated is None:
            return float("nan")
        known = self.truth[row] >= 0
        right = (self.labels[row] >= 0) & (self.labels[row] == translated[row])
        return float(right[known].mean()) if known.any() else float("nan")


def segmentation_of(saved: SavedModel, states: LearnedStates, data: SequenceData, seed_index: int) -> Segmentation:
    """Encode and label every sequence by one seed; data in the units of their file."""
    mean, sd = (found[seed_index] for found in encode(saved, data))
    labels = label_frames(states, mean, data)
    n_true = 0 if data.labels is None else int(data.labels.max()) + 1
    order = np.array([], dtype=int)
    if data.labels is not None and n_true:
        order = best_permutation(labels, data.labels, states.n_states, n_true)
    truth = data.labels if n_true else None
    return Segmentation(labels, mean, sd, truth, order, data.lengths, states.n_states)


@dataclass(frozen=True, eq=False)
class StripArtists:
    """What `plot_strips` drew: for each strip ("truth", "learned", "wrong") its runs of equal frames, `runs` (m, 3):
    state, first frame and frame after the last, and a `collection` of a rectangle each; `numbers` of wide runs."""

    ax: Axes
    runs: dict[str, Array]
    collections: dict[str, PolyCollection]
    numbers: list[Text]


@dataclass(frozen=True, eq=False)
class PosteriorArtists:
    """What `plot_posterior` drew: a line for each shown coordinate of the posterior mean, and bands of one sd."""

    ax: Axes
    lines: list[Line2D]
    bands: list[Any]


def plot_strips(found: Segmentation, row: int, *, ax: Axes | None = None) -> StripArtists:
    """True states, learned states and wrong frames of sequence `row` as strips over time, in the states' colours.

    A true state has the colour of the learned state that stands for it; the number in a run is of the learned state.
    Frames of unknown truth, or of no state, are white. Without truth there is the learned strip alone.
    """
    check_rows(len(found.labels), [row])
    ax = new_axes(ax, (8.0, 1.6))
    length, translated = int(found.lengths[row]), found.translated
    strips = {"learned": found.labels[row, :length]}
    if found.truth is not None and translated is not None:
        wrong = (found.truth[row] >= 0) & ((found.labels[row] < 0) | (found.labels[row] != translated[row]))
        strips = {"truth": translated[row, :length], **strips, "wrong": np.where(wrong[:length], 0, -1)}
    runs, collections, numbers, places = {}, {}, [], []
    top = 0.0
    for name in (name for name in STRIPS if name in strips):
        height = HEIGHT[name]
        runs[name] = runs_of(strips[name])
        shown = runs[name] if name != "wrong" else runs[name][runs[name][:, 0] >= 0]
        corners = [[(a, top), (b, top), (b, top - height), (a, top - height)] for _, a, b in shown.tolist()]
        colors = [WRONG if name == "wrong" else state_color(state) for state in shown[:, 0].tolist()]
        collections[name] = PolyCollection(corners, facecolors=colors, edgecolors="none")
        ax.add_collection(collections[name])
        places.append((top - height / 2, name))
        if name != "wrong":
            ax.plot([0, length, length, 0, 0], np.array([0, 0, -height, -height, 0]) + top, color=INK, linewidth=0.5)
            numbers += _numbers(ax, runs[name], top - height / 2, length)
        top -= height + 0.2
    ax.set_xlim(0, length)
    ax.set_ylim(top + 0.1, 0.1)
    ax.set_yticks([place for place, _ in places], [name for _, name in places], fontsize=SMALL)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=SMALL)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return StripArtists(ax, runs, collections, numbers)


def plot_posterior(
    found: Segmentation, row: int, *, plane: Subspace | None = None, ax: Axes | None = None
) -> PosteriorArtists:
    """The posterior mean of sequence `row` over time, a line a coordinate, with a band of one standard deviation.

    plane : the coordinates in it are drawn instead of the latent ones, without bands.
    """
    check_rows(len(found.labels), [row])
    ax = new_axes(ax, (8.0, 2.2))
    length = int(found.lengths[row])
    mean, sd = found.mean[row, :length], found.sd[row, :length]
    labels: Sequence[str] = [f"$z_{{{k + 1}}}$" for k in range(mean.shape[1])]
    if plane is not None:
        mean, labels = plane.project(mean), plane.labels
    middle = np.arange(length) + 0.5  # of the frames as the strips draw them
    lines, bands = [], []
    for k in range(mean.shape[1]):
        style = DASHES[k % len(DASHES)]
        (line,) = ax.plot(middle, mean[:, k], style, color=INK, linewidth=1.0, label=labels[k])
        lines.append(line)
        if plane is None:
            low, high = mean[:, k] - sd[:, k], mean[:, k] + sd[:, k]
            bands.append(ax.fill_between(middle, low, high, color="#9a9a9a", alpha=0.35, linewidth=0))
    ax.set_xlim(0, length)
    ax.grid(linewidth=0.4, alpha=0.6)
    label_axes(ax, "frame", "posterior mean")
    ax.legend(fontsize=SMALL, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return PosteriorArtists(ax, lines, bands)


def plot_segmentation(
    found: Segmentation, states: LearnedStates, rows: Sequence[int], *, figure: Figure | None = None
) -> dict[int, tuple[StripArtists, PosteriorArtists]]:
    """Strips and posterior mean of several sequences, one under the other: by row.

    More than three latent coordinates are shown in the plane of the energy pictures. figure : a new one by default.
    """
    check_rows(len(found.labels), rows)
    plane = choose_plane(states.analysis) if found.mean.shape[2] > MOST_COORDINATES else None
    return dict(zip(rows, _stack([(f"sequence {row}", found, row, plane) for row in rows], figure), strict=True))


def plot_models(
    found: Mapping[str, Segmentation], row: int, *, figure: Figure | None = None
) -> dict[str, tuple[StripArtists, PosteriorArtists]]:
    """One sequence as several models see it, one under the other: by the model's name, as in `found`.

    The states of each are numbered by the true states for which they stand, so that the truth looks the same in all.
    figure : a new one by default. UsageError without a model.
    """
    if not found:
        raise UsageError("there is no model to draw: give at least one by name")
    panels = [(f"{name}, sequence {row}", each.in_true_order(), row, None) for name, each in found.items()]
    return dict(zip(found, _stack(panels, figure), strict=True))


def _stack(
    panels: Sequence[tuple[str, Segmentation, int, Subspace | None]], figure: Figure | None
) -> list[tuple[StripArtists, PosteriorArtists]]:
    """Title, segmentation, row and plane of each pair of axes; one legend for all."""
    from matplotlib.figure import Figure

    if figure is None:
        figure = Figure(figsize=(8.5, 2.7 * len(panels) + 0.6), layout="constrained")
    heights = [part for _, found, _, _ in panels for part in ((1.0, 1.3) if found.truth is not None else (0.5, 1.3))]
    axes = figure.subplots(2 * len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    drawn = []
    for place, (title, found, row, plane) in enumerate(panels):
        above, below = axes[2 * place : 2 * place + 2]
        strips = plot_strips(found, row, ax=above)
        above.tick_params(axis="x", length=0, labelbottom=False)
        accuracy = found.accuracy(row)
        above.set_title(f"{title}: {100 * accuracy:.1f} % of frames right" if np.isfinite(accuracy) else title,
                        fontsize=TITLE)  # fmt: skip
        posterior = plot_posterior(found, row, plane=plane, ax=below)
        below.get_legend().remove()
        above.sharex(below)
        drawn.append((strips, posterior))
    fullest = max((found for _, found, _, _ in panels), key=lambda found: found.n_states)
    lines = max((posterior.lines for _, posterior in drawn), key=len)
    handles = [*state_legend(fullest), *lines]
    columns = 3 if any(plane is not None for *_, plane in panels) else 6  # the axes of a plane have long names
    figure.legend(handles=handles, loc="outside lower center", fontsize=SMALL, frameon=False, ncol=columns)
    return drawn


def state_legend(found: Segmentation) -> list[Any]:
    """An entry for every learned state, with the true state that it stands for, and for what is white."""
    from matplotlib.patches import Patch

    standing = {int(state): k for k, state in enumerate(found.order) if state >= 0}
    handles = []
    for state in range(found.n_states):
        extra = f" (true state {standing[state]})" if state in standing else " (no true state)" if standing else ""
        handles.append(Patch(color=state_color(state), label=f"state {state}{extra}"))
    inside = np.arange(found.labels.shape[1]) < found.lengths[:, None]
    translated = found.translated
    if (found.labels[inside] < 0).any() or (translated is not None and (translated[inside] < 0).any()):
        handles.append(Patch(facecolor=UNKNOWN, edgecolor=INK, linewidth=0.5, label="unknown, or no state"))
    return handles


def runs_of(labels: Array) -> Array:
    """Runs of equal neighbours, (m, 3): value, first place, place after the last."""
    if not len(labels):
        return np.empty((0, 3), dtype=int)
    starts = np.concatenate([[0], 1 + np.flatnonzero(np.diff(labels))])
    ends = np.concatenate([starts[1:], [len(labels)]])
    return np.column_stack([labels[starts], starts, ends])


def check_rows(n: int, rows: Sequence[int]) -> None:
    """UsageError unless there is at least one row, and all are sequences of n."""
    bad = [row for row in rows if not 0 <= row < n]
    if bad or not len(rows):
        raise UsageError(f"sequences are 0 to {n - 1} here, not {bad[0] if bad else 'none'}")


def _numbers(ax: Any, runs: Array, height: float, length: int) -> list[Any]:
    return [
        ax.text((a + b) / 2, height, str(state), ha="center", va="center", fontsize=SMALL,
                color=text_color(state_color(state)), clip_on=True)
        for state, a, b in runs.tolist() if state >= 0 and b - a >= NUMBERED * length
    ]  # fmt: skip
