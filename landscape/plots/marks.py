"""Minima, saddles and paths, drawn over an energy in the same way in every picture, plane or 3-D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import ScaledTranslation

from landscape.plots.style import INK, PATH, SMALL, state_color, text_color

if TYPE_CHECKING:
    from landscape.store import Analysis

Array = np.ndarray

MOST_PATHS = 150
NUMBERED = 30  # more states than this are drawn small and without numbers
AREA, SMALL_AREA = 130.0, 18.0  # of a state's marker, points^2
OUTLINE = withStroke(linewidth=2.6, foreground="white")
ON_TOP = {"paths": 6, "saddles": 7, "minima": 8, "numbers": 9}  # zorder; 3-D axes must not compute their own


def mark_minima(ax: Any, positions: Array, states: Sequence[int], inside: Array | None = None) -> tuple[Any, list[Any]]:
    """A disc in the state's colour with its number, at positions (n, 2) or (n, 3); returns the discs and the numbers,
    which share one text where states fall on one place.

    inside (n,) bool : False draws a hollow one, for states that were projected into the picture.
    """
    positions = np.asarray(positions, float)
    inside = np.ones(len(positions), bool) if inside is None else inside
    numbered = len(positions) <= NUMBERED
    colors = [state_color(state) for state in states]
    faces = [color if within else (1.0, 1.0, 1.0) for color, within in zip(colors, inside, strict=True)]
    edges = [(1.0, 1.0, 1.0) if within else color for color, within in zip(colors, inside, strict=True)]
    keywords = {"depthshade": False} if positions.shape[1] == 3 else {}
    discs = ax.scatter(
        *positions.T, s=AREA if numbered else SMALL_AREA, c=faces, edgecolors=edges,
        linewidths=1.3 if numbered else 0.5, zorder=ON_TOP["minima"], **keywords,
    )  # fmt: skip
    texts = []
    for group in _together(positions) if numbered else []:
        k = group[0]
        texts.append(ax.text(
            *positions[k], ",".join(str(states[member]) for member in group), color=text_color(faces[k]),
            fontsize=SMALL if len(group) == 1 else SMALL - 1.5, ha="center", va="center", clip_on=True,
            zorder=ON_TOP["numbers"],
        ))  # fmt: skip
    return discs, texts


def _together(positions: Array) -> list[list[int]]:
    """Groups of positions that cannot be told apart, as projections of different states can fall on one place."""
    near = 0.01 * float(np.ptp(positions, axis=0).max(initial=0.0))
    groups: list[list[int]] = []
    for k, place in enumerate(positions):
        found = next((group for group in groups if np.linalg.norm(positions[group[0]] - place) <= near), None)
        if found is None:
            groups.append([k])
        else:
            found.append(k)
    return groups


def mark_saddles(ax: Any, positions: Array, inside: Array | None = None) -> Any:
    """A white diamond with a dark edge; half transparent for saddles that were projected into the picture."""
    positions = np.asarray(positions, float)
    inside = np.ones(len(positions), bool) if inside is None else inside
    faces = [(1.0, 1.0, 1.0, 1.0 if within else 0.35) for within in inside]
    keywords = {"depthshade": False} if positions.shape[1] == 3 else {}
    return ax.scatter(
        *positions.T, s=34 if len(positions) <= NUMBERED else 8, marker="D", c=faces, edgecolors=INK, linewidths=0.9,
        zorder=ON_TOP["saddles"], **keywords,
    )  # fmt: skip


def mark_paths(ax: Any, paths: Sequence[Array], inside: Sequence[bool] | None = None) -> list[Any]:
    """A dark line with a white rim along each path (m, 2) or (m, 3); dashed for paths that leave the plane."""
    within = [True] * len(paths) if inside is None else inside
    return [
        ax.plot(
            *np.asarray(path).T, color=PATH, linewidth=1.3, linestyle="-" if solid else (0, (4, 1.5)),
            path_effects=[OUTLINE], zorder=ON_TOP["paths"],
        )[0]
        for path, solid in zip(paths, within, strict=True)
    ]  # fmt: skip


def shown_paths(analysis: Analysis) -> Array:
    """The numbers of the paths that are drawn: all of them, or those over the lowest saddles where there are many."""
    return np.sort(np.argsort(analysis.paths.saddle, kind="stable")[:MOST_PATHS])


def minimum_handle(label: str, hollow: bool = False) -> Line2D:
    """What a legend shows for states."""
    face, edge = ("white", INK) if hollow else ("#8c8c8c", "white")
    return Line2D(
        [], [], marker="o", linestyle="", markersize=8, markerfacecolor=face, markeredgecolor=edge, label=label
    )


def saddle_handle(label: str) -> Line2D:
    """What a legend shows for saddles."""
    return Line2D([], [], marker="D", linestyle="", markersize=5, markerfacecolor="w", markeredgecolor=INK, label=label)


def path_handle(label: str, solid: bool = True, images: bool = False) -> Line2D:
    """What a legend shows for paths."""
    style: dict[str, Any] = {"marker": "o", "markersize": 2.6} if images else {}
    return Line2D([], [], color=PATH, linewidth=1.3, linestyle="-" if solid else (0, (4, 1.5)), label=label, **style)


def legend_below(ax: Any, handles: Sequence[Any], columns: int = 3, drop: float = 36.0) -> Any:
    """A legend `drop` points under the axes, where it hides nothing, in as many columns as fit, `columns` at most."""
    room = 72 * ax.figure.get_figwidth() * ax.get_position().width
    widest = SMALL * (0.55 * max(len(handle.get_label()) for handle in handles) + 4.0)
    columns = max(1, min(columns, len(handles), int(1.2 * room / widest)))
    under = ax.transAxes + ScaledTranslation(0, -drop / 72, ax.figure.dpi_scale_trans)
    return ax.legend(
        handles=list(handles), loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=under, borderaxespad=0.0,
        ncol=columns, fontsize=SMALL, frameon=False, handlelength=2.2, columnspacing=1.4,
    )  # fmt: skip
