"""The disconnectivity graph: which minima merge at which energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.text import Text

from landscape.errors import UsageError
from landscape.network import DisconnectivityTree, disconnectivity_tree
from landscape.plots.bars import log_axis
from landscape.plots.labels import Room
from landscape.plots.layout import heaviest, log_weights
from landscape.plots.style import INK, SMALL, label_axes, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from landscape.store import Analysis

DECADES = 8.0  # weights this far below the heaviest have the last colour
COLORS = "viridis_r"  # heavy is dark, so that the lines that matter stand out from white
LIGHTEST = 0.08  # part of the colours left out: the light end cannot be seen on white
LABELLED = 14  # states that are numbered, if there is room; all of a small network
SMALL_NETWORK = 40


@dataclass(frozen=True, eq=False)
class DisconnectivityArtists:
    """What `plot_disconnectivity` drew.

    tree : the merges. height (n + k,) : of its nodes, in the units of the axis. risers : vertical lines, from each of
    `riser_nodes` (n + k,) up to its merge, or a stub; crossings : horizontal lines, from above each of `crossing_nodes`
    (2 k,) to the middle of its merge, at the height of that. labels : numbers of the heaviest states.
    """

    ax: Axes
    tree: DisconnectivityTree
    height: np.ndarray
    riser_nodes: np.ndarray
    risers: LineCollection
    crossing_nodes: np.ndarray
    crossings: LineCollection
    labels: list[Text]


def plot_disconnectivity(
    analysis: Analysis, *, unit: Literal["kT", "energy"] = "kT", weights: str | None = None, ax: Axes | None = None
) -> DisconnectivityArtists:
    """Each minimum is a line that rises from its energy to the saddle over which it merges with another group.

    Merge heights are the exact minimax energies. Heights are in kT above the lowest minimum, or in the energy's own
    units. Colour: log10 of the weight below a line (column `weights`, by default the best one known). Parts that no
    saddle joins stay apart. UsageError for an unknown unit.
    """
    if unit not in ("kT", "energy"):
        raise UsageError(f'heights are in "kT" or in units of "energy", not {unit!r}')
    ax = new_axes(ax)
    network = analysis.network
    tree = disconnectivity_tree(network.energies, network.joins, network.saddle_energies)
    height, words = tree.node_energies, f"energy ({analysis.energy.get('units') or 'units of the energy'})"
    if unit == "kT":
        height = analysis.dynamics.beta * (height - network.energies.min())
        words = "energy above the lowest minimum (kT)"
    logs, method = log_weights(analysis, weights)
    decades = _node_weights(tree, logs) / np.log(10)
    norm = _scale(decades)
    light_first = np.argsort(decades, kind="stable")  # heavy lines end up on top
    child = light_first[tree.parents[light_first] >= 0]
    span = max(float(np.ptp(height)), 1e-12)
    risers, crossings = _lines(tree, height, 0.04 * span, light_first, child, _shades(decades, norm))
    ax.add_collection(crossings)
    ax.add_collection(risers)
    n = network.n_states
    below = 0.08 if n <= SMALL_NETWORK else 0.16  # room for labels
    ax.set_xlim(-0.03 * n - 0.5, 1.03 * n - 0.5)
    ax.set_ylim(height.min() - below * span, height.max() + 0.06 * span)
    ax.set_xticks([])
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    label_axes(ax, "", words, f"Disconnectivity graph of {n:,} {'minimum' if n == 1 else 'minima'}")
    _bar(ax, norm, f"{method} weight below the line")
    labels = _labels(ax, tree.positions, height, heaviest(logs, n if n <= SMALL_NETWORK else LABELLED))
    return DisconnectivityArtists(ax, tree, height, light_first, risers, child, crossings, labels)


def _lines(
    tree: DisconnectivityTree, height: np.ndarray, stub: float, nodes: np.ndarray, child: np.ndarray, shades: np.ndarray
) -> tuple[LineCollection, LineCollection]:
    """Vertical lines of the nodes and horizontal ones of those with a merge above them, in the given order."""
    n, x = len(tree.energies), tree.positions
    up = np.where(tree.parents >= 0, height[tree.parents], height + stub)
    rises = [((x[k], height[k]), (x[k], up[k])) for k in nodes.tolist()]
    turns = [((x[k], up[k]), (x[tree.parents[k]], up[k])) for k in child.tolist()]
    width = 1.8 if n <= SMALL_NETWORK else 1.0 if n <= 300 else 0.45
    thin = width if n <= 300 else 0.25
    crossings = LineCollection(turns, colors=shades[child], linewidths=thin, capstyle="projecting")
    return LineCollection(rises, colors=shades[nodes], linewidths=width), crossings


def _node_weights(tree: DisconnectivityTree, logs: np.ndarray) -> np.ndarray:
    """log of the weight of all leaves under each node (n + k,)."""
    n = len(logs)
    total = np.concatenate([logs, np.zeros(len(tree.children))])
    for merge, (a, b) in enumerate(tree.children):
        total[n + merge] = np.logaddexp(total[a], total[b])
    return total


def _scale(decades: np.ndarray) -> Normalize:
    """The scale of colours for log10 weights."""
    top = float(decades.max())
    return Normalize(max(top - DECADES, float(decades[np.isfinite(decades)].min()) - 0.3), top)


def _shades(decades: np.ndarray, norm: Normalize) -> np.ndarray:
    """Colours (n + k, 4)."""
    part = np.clip(np.asarray(norm(decades), dtype=float), 0, 1)
    return np.asarray(colormaps[COLORS](LIGHTEST + (1 - LIGHTEST) * part))


def _bar(ax: Axes, norm: Normalize, words: str) -> None:
    """A colour bar for lines that have their colours one by one."""
    shades = ListedColormap(colormaps[COLORS](np.linspace(LIGHTEST, 1, 256)))
    bar = ax.figure.colorbar(ScalarMappable(norm, shades), ax=ax, shrink=0.8, pad=0.02)
    bar.set_label(words, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    log_axis(bar.ax.yaxis)


def _labels(ax: Axes, x: np.ndarray, height: np.ndarray, states: np.ndarray) -> list[Text]:
    """Numbers under the lines, the heaviest first, where there is room for them."""
    room, labels = Room(ax), []
    drop = 0.012 * float(np.ptp(ax.get_ylim()))
    for state in states.tolist():
        label = ax.text(0, 0, str(state), ha="center", va="top", fontsize=SMALL, color=INK)
        if room.place(label, [(x[state], height[state] - k * drop) for k in (1, 3.5, 6, 8.5)]):
            labels.append(label)
            ax.vlines(x[state], label.get_position()[1], height[state], color=INK, linewidth=0.3)
    return labels
