"""Text that stays clear of other text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from matplotlib.text import Text
from matplotlib.transforms import Bbox

from landscape.tables import power


def quantity(log: float, digits: int = 3) -> str:
    """exp(log) for people: plain from .001 to 10,000, else with an exponent, also where float64 cannot hold it."""
    if math.isnan(log) or math.isinf(log):
        return "unknown" if math.isnan(log) else "infinite" if log > 0 else "0"
    if math.log(1e-3) <= log < math.log(1e4):
        return f"{math.exp(log):.{digits}g}"
    return power(log)


def settle(ax: Any) -> None:
    """Let the layout of the figure be worked out, so that places in pixels are what they will be."""
    ax.get_figure(root=True).draw_without_rendering()


class Room:
    """The free room in an axes, in pixels of its figure as it is now: what is placed is remembered.

    Made after all else is drawn and the limits are set, since it is the layout of that moment that counts.
    """

    def __init__(self, ax: Any, taken: Iterable[Bbox] = ()) -> None:
        settle(ax)
        self._ax = ax
        self._taken = list(taken)

    def place(self, text: Text, candidates: Iterable[tuple[float, float]]) -> bool:
        """Move the text to the first of the candidates (in its own coordinates) where it is clear of all before it and
        inside the axes; where there is none it is taken away, and False returned."""
        inside = self._ax.get_window_extent()
        for position in candidates:
            text.set_position(position)
            box = text.get_window_extent().padded(4, 1.5)
            if (
                inside.x0 <= box.x0
                and box.x1 <= inside.x1
                and inside.y0 <= box.y0
                and box.y1 <= inside.y1
                and not any(box.overlaps(other) for other in self._taken)
            ):
                self._taken.append(box)
                return True
        text.remove()
        return False
