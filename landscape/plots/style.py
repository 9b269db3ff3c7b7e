"""What all pictures share: colours safe for colour blindness, sizes, the levels of an energy, and new axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LightSource, ListedColormap, to_rgb
from matplotlib.figure import Figure

from landscape.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito (2008), in an order that keeps the first ones far apart also in grey; black is left for lines and text.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
INK = "#1a1a1a"  # text and lines
PATH = "#1a1a1a"  # minimum energy paths
SADDLE = "#D55E00"
UNREACHABLE = "#cfcfcf"  # energies above the limit
UNASSIGNED = "#ffffff"  # points in the basin of no known state
SMALL, TEXT, TITLE = 7.5, 9.0, 10.5  # font sizes in points
SIZE = (6.4, 4.8)  # inches
MAX_ASPECT = 3.0  # boxes longer than this fill the axes instead of keeping true proportions
LIGHT = LightSource(azdeg=300, altdeg=62)  # on surfaces in 3-D

# Shades in which the colours come again, when there are more states than colours: how far towards black or white.
_SHADES = ((None, 0.0), ("#000000", 0.4), ("#ffffff", 0.5))


def state_color(state: int) -> tuple[float, float, float]:
    """The colour of a state in every picture, RGB; -1 (no known state) is white. Repeats after 21 states."""
    if state < 0:
        return to_rgb(UNASSIGNED)
    red, green, blue = to_rgb(OKABE_ITO[state % len(OKABE_ITO)])
    towards, part = _SHADES[(state // len(OKABE_ITO)) % len(_SHADES)]
    if towards is None:
        return (red, green, blue)
    target = to_rgb(towards)
    mixed = [(1 - part) * own + part * other for own, other in zip((red, green, blue), target, strict=True)]
    return (mixed[0], mixed[1], mixed[2])


def state_colors(n: int) -> np.ndarray:
    """RGB of states 0 to n - 1, (n, 3)."""
    return np.array([state_color(k) for k in range(n)]).reshape(n, 3)


def text_color(background: Any) -> str:
    """Black or white, whichever is read more easily on a colour (relative luminance, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if luminance < 0.179 else "#000000"


def _kt_colormap() -> Colormap:
    # without the darkest end, on which black lines would be lost
    colors = colormaps["viridis"](np.linspace(0.12, 1.0, 256))
    return ListedColormap(colors, name="kT").with_extremes(over=UNREACHABLE, under=tuple(colors[0]), bad=UNREACHABLE)


KT_COLORMAP = _kt_colormap()


@dataclass(frozen=True, eq=False)
class Levels:
    """Levels of an energy in multiples of kT above `zero`, the energy of the lowest minimum.

    beta : inverse temperature. step : between levels, and limit : the highest level, both in kT; what is above it is
    called unreachable.
    """

    beta: float
    zero: float
    step: float
    limit: float

    def __post_init__(self) -> None:
        if not (self.beta > 0 and math.isfinite(self.zero) and 0 < self.step <= self.limit < math.inf):
            raise UsageError(
                f"levels need beta > 0, a finite zero and 0 < step <= limit, not beta {self.beta:g}, zero "
                f"{self.zero:g}, step {self.step:g}, limit {self.limit:g}"
            )

    @property
    def values(self) -> np.ndarray:
        """0, step, 2 step, ..., limit, in kT."""
        return self.step * np.arange(round(self.limit / self.step) + 1)

    def kt(self, energy: Any) -> np.ndarray:
        """beta (E - zero): energies in kT above the lowest minimum."""
        return self.beta * (np.asarray(energy, dtype=float) - self.zero)


def kt_levels(beta: float, minima: np.ndarray, saddles: np.ndarray, limit: float | None = None) -> Levels:
    """Levels that show the wells and the passes between them: 7 to 16 steps of 1, 2 or 5 times a power of ten kT.

    minima (n,), saddles (m,) : energies. limit : in kT, rounded up to a whole step; by default the highest saddle and
    half as much again, at least 5 kT more.
    """
    zero = float(np.min(minima))
    if limit is None:
        highest = beta * (max(float(np.max(minima)), float(np.max(saddles, initial=-math.inf))) - zero)
        limit = max(1.5 * highest, highest + 5.0)
    elif not (math.isfinite(limit) and limit > 0):
        raise UsageError(f"the limit of the energies shown is a positive number of kT, not {limit:g}")
    rough = limit / 16
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return Levels(beta, zero, step, step * math.ceil(limit / step - 1e-9))


def new_axes(
    ax: Axes | None,
    size: tuple[float, float] = SIZE,
    *,
    three_d: bool = False,
    layout: Literal["constrained", "compressed"] = "constrained",
) -> Any:
    """`ax`, or the axes of a new figure of this size (inches) that no global state knows.

    layout : of a new figure; "compressed" where axes keep an aspect ratio. three_d : 3-D axes are needed; UsageError
    where ax is not of that kind, or is and should not be.
    """
    if ax is None:
        figure = Figure(figsize=size, layout=layout)
        return figure.add_subplot(projection="3d" if three_d else None)
    if (ax.name == "3d") != three_d:
        wanted = 'figure.add_subplot(projection="3d")' if three_d else "figure.add_subplot()"
        raise UsageError(f"this picture needs {'3-D' if three_d else 'plane'} axes: make them with {wanted}")
    return ax


def label_axes(ax: Any, x: str, y: str, title: str = "", z: str = "") -> None:
    """Labels, title and ticks in the sizes of this package."""
    ax.set_xlabel(x, fontsize=TEXT)
    ax.set_ylabel(y, fontsize=TEXT)
    if z:
        ax.zaxis.set_rotate_label(False)  # which from some sides would stand on its head
        ax.set_zlabel(z, fontsize=TEXT, rotation=90)
    if title:
        ax.set_title(title, fontsize=TITLE)
    ax.tick_params(labelsize=SMALL)
