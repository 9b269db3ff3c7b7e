"""The rate matrix as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from landscape.errors import UsageError
from landscape.plots.bars import log_axis
from landscape.plots.layout import heaviest, log_weights
from landscape.plots.style import SMALL, label_axes, new_axes, text_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from landscape.store import Analysis

MAX_STATES = 60
WRITTEN = 8  # states up to which the numbers are written into the cells
MINUS = "\u2212"  # as wide as a plus
DIAGONAL, NO_EDGE = "#9a9a9a", "#f2f2f2"


@dataclass(frozen=True, eq=False)
class MatrixArtists:
    """What `plot_rate_matrix` drew: rows and columns are the states `shown` (k,); image : log10 of the rates (k, k),
    masked where there is none and on the diagonal; texts : the numbers in the cells, row by row, or none."""

    ax: Axes
    shown: np.ndarray
    image: AxesImage
    texts: list[Text]


def plot_rate_matrix(analysis: Analysis, *, max_states: int = MAX_STATES, ax: Axes | None = None) -> MatrixArtists:
    """The rate matrix: row i, column j is the rate from i to j, coloured by its logarithm.

    The diagonal, minus the rate of leaving, is grey, as are cells without an edge, lighter. Up to 8 states the numbers
    with their signs stand in the cells; of more than `max_states` the heaviest are shown, in order of their numbers.
    UsageError for a single state.
    """
    network = analysis.network
    if network.n_states < 2:
        raise UsageError("a rate matrix is drawn for two states or more, not for one")
    ax = new_axes(ax)
    shown = np.sort(heaviest(log_weights(analysis)[0], max_states))
    logs = network.log_rate_matrix[np.ix_(shown, shown)] / np.log(10)
    masked = np.ma.masked_invalid(logs)
    map_ = colormaps["viridis"].with_extremes(bad=NO_EDGE)
    image = ax.imshow(masked, cmap=map_, interpolation="nearest", aspect="equal")
    if masked.count():
        # at least half a decade, so that rates that are all alike look alike
        middle, half = (masked.max() + masked.min()) / 2, max((masked.max() - masked.min()) / 2, 0.25)
        image.set_clim(middle - half, middle + half)
    texts = []
    for k in range(len(shown)):
        ax.add_patch(Rectangle((k - 0.5, k - 0.5), 1, 1, facecolor=DIAGONAL, edgecolor="none"))
    if len(shown) <= WRITTEN:
        texts = _numbers(ax, image, masked, network.rate_matrix[np.ix_(shown, shown)])
    step = max(1, -(-len(shown) // 20))
    ticks = range(0, len(shown), step)
    ax.set_xticks(ticks, [str(shown[k]) for k in ticks], rotation=90 if len(shown) > 12 else 0)
    ax.set_yticks(ticks, [str(shown[k]) for k in ticks])
    unit = analysis.energy.get("time_unit") or "unit of time"
    cut = "" if len(shown) == network.n_states else f"\nthe {len(shown)} heaviest of {network.n_states:,} states"
    label_axes(ax, "to state j", "from state i", f"Rate matrix{cut}")
    if masked.count():
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.85)
        bar.set_label(f"rate i to j (1/{unit})", fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL)
        log_axis(bar.ax.yaxis)
    return MatrixArtists(ax, shown, image, texts)


def _numbers(ax: Axes, image: AxesImage, masked: np.ma.MaskedArray, rates: np.ndarray) -> list[Text]:
    """Rates with sign, each in black or white, whichever is read on its cell; beyond float64 as a power of ten."""
    texts = []
    for i in range(len(rates)):
        for j in range(len(rates)):
            known = not np.ma.getmaskarray(masked)[i, j]
            color = image.cmap(image.norm(masked[i, j])) if known else DIAGONAL if i == j else NO_EDGE
            if known and not 1e-300 < rates[i, j] < 1e300:
                text = f"$10^{{{masked[i, j]:+.0f}}}$"
            else:
                text = f"{rates[i, j]:+.2g}".replace("-", MINUS) if rates[i, j] else "0"
            size = min(SMALL + 1, 60 / len(rates))
            texts.append(ax.text(j, i, text, ha="center", va="center", fontsize=size, color=text_color(color)))
    return texts
