"""Hops: further descents that begin around the minima met least often, while these lead to new ones.

A minimum that hardly any start has met lies in a corner of the landscape that starts drawn blindly miss, and so do its
neighbours. A displacement is drawn from a spread of lengths; where it leads is left to the descent (basin hopping in
batches, without its acceptance rule: every minimum known may be hopped from).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from landscape.energy.symmetry import distances
from landscape.search.basins import length_scale
from landscape.search.descents import Descents
from landscape.search.region import finite_or, random_directions
from landscape.search.unseen import repeat_misses

ROUND = 20  # a round has a part of so many of the starts
LEAST = 16  # rows a round
QUIET = 3  # rounds in a row that find nothing new end the hopping
NEAREST = 0.5  # shortest hop, in units of the distance to the nearest other minimum
MISSED = 0.05  # minima that a search may miss by its own estimate without hops


def hop(descents: Descents, n_starts: int, budget: int, progress: Callable[[str], None]) -> None:
    """Rounds of descents from known minima, no more than `budget` in all, in a search of n_starts.

    They begin where the starts met some minima so rarely that another search like this one would miss .05 of them or
    more on average (`repeat_misses`), and end after three rounds without a new minimum.
    """
    met = descents.catalogue.points().hits.astype(float)
    if repeat_misses(met[descents.minimum_numbers()]) < MISSED:
        return
    quiet, rows = 0, max(LEAST, n_starts // ROUND)
    while quiet < QUIET and (n := min(rows, budget)) > 0:
        known = len(descents.minima())
        reached = descents.to_minima(_hops(descents, met[descents.minimum_numbers()], n))[0]
        met = np.append(met, np.zeros(len(descents.catalogue) - len(met)))
        np.add.at(met, reached[reached >= 0], 1)
        quiet = quiet + 1 if len(descents.minima()) == known else 0
        budget -= n
        progress(f"minima: hops from the minima met least often, {len(descents.minima())} minima")


def _hops(descents: Descents, met: np.ndarray, n: int) -> torch.Tensor:
    """n points (n, d) beside minima, drawn in inverse proportion to how often they were met, met (n_minima,), plus one.

    Lengths are spread evenly over the orders of magnitude from half the distance to the nearest other minimum to half
    the extent of all of them; the radius, where there is a single one.
    """
    energy, generator = descents.energy, descents.generator
    minima = descents.minima().x
    x = torch.as_tensor(minima)
    chosen = torch.multinomial(torch.as_tensor(1 / (1 + met)), n, replacement=True, generator=generator)
    longest = length_scale(minima, descents.radius, radial=energy.matrix_free)
    if len(x) > 1:
        apart = distances(descents.periodic, x, x).fill_diagonal_(torch.inf)
        shortest = NEAREST * apart.amin(1)[chosen]
    else:
        shortest = torch.full((n,), NEAREST * longest, dtype=x.dtype)
    draw = torch.rand(n, generator=generator, dtype=torch.float64)
    length = shortest * (longest / shortest).clamp_min(1) ** draw
    y = x[chosen] + length[:, None] * random_directions(n, energy.dim, generator)
    return finite_or(energy, y.to(energy.device, energy.dtype), x[chosen].to(energy.device, energy.dtype))
