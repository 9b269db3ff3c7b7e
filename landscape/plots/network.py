"""The transition network: node area = weight, edge width = rate or flux, barriers written at the edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from landscape.errors import UsageError
from landscape.plots.labels import Room, settle
from landscape.plots.layout import MAX_NODES, Edges, apart, edges_between, heaviest, log_weights, positions
from landscape.plots.style import INK, SMALL, TEXT, TITLE, new_axes, state_color, text_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from landscape.store import Analysis

LARGEST_NODE = 1500.0  # area in points^2 of the heaviest state, if that leaves room
COVERED = 0.1  # most of the page that the nodes cover
GAP = 9.0  # points between the rims of two nodes
NUMBERED = 140.0  # smaller nodes have their number beside them
FINDABLE = 36.0  # nodes smaller than this get a ring, since their own area can hardly be seen
WIDTHS = (0.7, 6.0)  # points: of the smallest and the largest rate or flux; between them by its logarithm
CROWDED = 25  # edges from which on the widths shrink
DECADES = (3.0, 6.0)  # least and most that the widths span
EDGE = "#7a7a7a"
HALO = withStroke(linewidth=2, foreground="white")


@dataclass(frozen=True, eq=False)
class NetworkArtists:
    """What `plot_network` drew.

    shown (k,) : numbers of the states, heaviest first; weights (k,); position (k, 2). nodes : one marker a state, its
    area proportional to the weight. edges : see `Edges`; lines : their patches, two for an edge where rates are shown.
    node_labels, barrier_labels : those that found room; labels_left_out : how many barriers did not.
    """

    ax: Axes
    shown: np.ndarray
    weights: np.ndarray
    position: np.ndarray
    nodes: PathCollection
    edges: Edges
    lines: list[FancyArrowPatch]
    node_labels: list[Text]
    barrier_labels: list[Text]
    labels_left_out: int


def plot_network(
    analysis: Analysis,
    *,
    edges: Literal["flux", "rate"] = "flux",
    weights: str | None = None,
    max_states: int = MAX_NODES,
    ax: Axes | None = None,
) -> NetworkArtists:
    """The states as nodes and the transitions between them as edges.

    Node area is proportional to the weight (column `weights`: zeroth, second, sampled or exact; by default the best
    one known). Edges: width grows with the logarithm of the equilibrium flux pi_i k_ij, or of the rates, then with an
    arrow for each direction. A label "2.7 | 2.6" gives the reduced barriers in kT from the state with the lower number
    and from the other one. Of more than `max_states` states the heaviest are drawn; dashed edges lead through others.
    The layout is the same on every run. UsageError for an unknown `edges` or fewer than one state.
    """
    if edges not in ("flux", "rate") or max_states < 1:
        raise UsageError(f'edges are "flux" or "rate" and max_states at least 1, not {edges!r} and {max_states}')
    ax = new_axes(ax)
    network = analysis.network
    logs, words = log_weights(analysis, weights)
    shown = heaviest(logs, max_states)
    found = edges_between(network, analysis.dynamics.beta, shown)
    place = positions(network.coordinates[shown], found.ends)
    drawn = np.exp(logs[shown])
    _bare(ax, _title(len(shown), network.n_states), _notes(words, edges, found))
    page = _page(ax)
    area = min(LARGEST_NODE, COVERED * page.prod() * drawn.max() / drawn.sum()) * drawn / drawn.max()
    place = _fitted(ax, place, page, area)
    lines = _lines(ax, found, place, area, edges)
    colors = [state_color(int(state)) for state in shown]
    nodes = ax.scatter(place[:, 0], place[:, 1], s=area, c=colors, edgecolors=INK, linewidths=0.6, zorder=3)
    small = area < FINDABLE
    ax.scatter(
        place[small, 0], place[small, 1], s=FINDABLE, facecolors="none", edgecolors=EDGE, linewidths=0.8, zorder=2
    )
    numbers = [_number(ax, int(shown[k]), place[k], area[k], colors[k]) for k in range(len(shown))]
    room = Room(ax, _discs(ax, place, np.maximum(area, FINDABLE)))
    placed = zip(numbers, place, area, strict=True)
    kept = [label for label, at, a in placed if a >= NUMBERED or _beside(room, label, at, a)]
    barriers, left_out = _barriers(ax, room, found, place, shown)
    return NetworkArtists(ax, shown, drawn, place, nodes, found, lines, kept, barriers, left_out)


def _lines(ax: Axes, edges: Edges, place: np.ndarray, area: np.ndarray, kind: str) -> list[FancyArrowPatch]:
    """Patches from rim to rim: straight without heads, or a pair of arcs with heads for the two rates."""
    logs = edges.log_flux if kind == "flux" else edges.log_rate
    known = logs[np.isfinite(logs)]
    top = known.max() if len(known) else 0.0
    span = np.clip(top - known.min(initial=top), *(np.log(10) * np.array(DECADES)))
    part = np.clip((np.maximum(logs, top - span) - (top - span)) / span, 0, 1)
    widths = WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * part / max(1.0, len(edges.ends) / CROWDED)
    rim = np.sqrt(np.maximum(area, FINDABLE) / np.pi)
    lines = []
    for e, (a, b) in enumerate(edges.ends.tolist()):
        ways = [(a, b, 0), (b, a, 1)] if kind == "rate" and edges.direct[e] else [(a, b, 0)]
        for start, end, way in ways:
            line = FancyArrowPatch(
                tuple(place[start]), tuple(place[end]), shrinkA=rim[start], shrinkB=rim[end], color=EDGE, zorder=1,
                arrowstyle="-|>" if len(ways) == 2 else "-", mutation_scale=6 + 1.5 * widths[e, way],
                connectionstyle=f"arc3,rad={0.12 if len(ways) == 2 else 0}",
                linewidth=widths[e, way] if edges.direct[e] else WIDTHS[0],
                linestyle="-" if edges.direct[e] else (0, (4, 3)),
            )  # fmt: skip
            ax.add_patch(line)
            lines.append(line)
    return lines


def _number(ax: Axes, state: int, at: np.ndarray, area: float, color: tuple[float, float, float]) -> Text:
    inside = area >= NUMBERED
    return ax.text(
        float(at[0]), float(at[1]), str(state), ha="center", va="center", fontsize=TEXT if inside else SMALL, zorder=5,
        color=text_color(color) if inside else INK, path_effects=[] if inside else [HALO],
    )  # fmt: skip


def _discs(ax: Axes, place: np.ndarray, area: np.ndarray) -> list[Bbox]:
    """The pixels that the nodes cover."""
    scale = ax.figure.dpi / 72
    centres = ax.transData.transform(place)
    radii = np.sqrt(area / np.pi) * scale
    return [Bbox([at - radius, at + radius]) for at, radius in zip(centres, radii, strict=True)]


def _beside(room: Room, label: Text, at: np.ndarray, area: float) -> bool:
    """The number of a small node goes to one of eight places around it."""
    transform = label.get_transform()
    figure = label.get_figure()
    assert figure is not None
    reach = (np.sqrt(max(area, FINDABLE) / np.pi) + 0.75 * SMALL) * figure.dpi / 72
    centre = transform.transform(at)
    angles = np.deg2rad([45, 135, 315, 225, 0, 180, 90, 270])
    around = centre + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return room.place(label, [tuple(p) for p in transform.inverted().transform(around)])


def _barriers(ax: Axes, room: Room, edges: Edges, place: np.ndarray, shown: np.ndarray) -> tuple[list[Text], int]:
    """Barriers at the edges where there is room, those of the largest flux first."""
    labels, left_out = [], 0
    strength = np.where(edges.direct, edges.log_flux.max(axis=1, initial=-np.inf), -np.inf)
    for e in np.argsort(-strength, kind="stable"):
        a, b = edges.ends[e]
        first, second = edges.barrier[e] if shown[a] < shown[b] else edges.barrier[e][::-1]
        label = ax.text(
            0, 0, f"{first:.1f} | {second:.1f}", ha="center", va="center", fontsize=SMALL, color=INK, zorder=4,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip
        shares = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74)
        if room.place(label, [tuple(place[a] + share * (place[b] - place[a])) for share in shares]):
            labels.append(label)
        else:
            left_out += 1
    return labels, left_out


def _bare(ax: Axes, title: str, notes: str) -> None:
    """No frame; title above, notes below."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=TITLE, color=INK)
    ax.set_xlabel(notes, fontsize=SMALL, color=INK)


def _page(ax: Axes) -> np.ndarray:
    """Width and height of the axes in points, as the layout stands."""
    settle(ax)
    box = ax.get_window_extent()
    return np.array([box.width, box.height]) * 72 / ax.figure.dpi


def _fitted(ax: Axes, place: np.ndarray, page: np.ndarray, area: np.ndarray) -> np.ndarray:
    """The layout over the whole axes, nodes apart, in points; sets the limits."""
    radius = np.sqrt(np.maximum(area, FINDABLE) / np.pi)
    border = float(radius.max()) + 12.0
    spread = np.ptp(place, axis=0)
    # A chain stays a chain: no direction is stretched to more than three times the other's scale.
    scale = np.minimum((page - 2 * border) / np.maximum(spread, 1e-9), 3 * page.max() / max(float(spread.max()), 1e-9))
    place = apart((place - place.mean(axis=0)) * scale, radius + GAP / 2)
    middle = 0.5 * (place.min(axis=0) + place.max(axis=0))
    reach = np.maximum(0.5 * page, 0.5 * np.ptp(place, axis=0) + border)
    ax.set_xlim(middle[0] - reach[0], middle[0] + reach[0])
    ax.set_ylim(middle[1] - reach[1], middle[1] + reach[1])
    return place


def _title(shown: int, all_states: int) -> str:
    return f"{shown} states" if shown == all_states else f"the {shown} heaviest of {all_states:,} states"


def _notes(words: str, edges: str, found: Edges) -> str:
    width = "equilibrium flux" if edges == "flux" else "rate"
    lines = [f"node area: {words} weight; edge width: {width} (logarithmic)"]
    if len(found.ends):
        lines.append("at edges: barrier in kT from the lower-numbered state | from the other, where there is room")
    if not found.direct.all():
        lines.append("dashed: the lowest way, through states not shown")
    return "\n".join(lines)
