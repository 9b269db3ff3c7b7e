"""Connected pieces of masks on a grid, in whose coordinates the ends may meet."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from landscape.errors import UsageError


def pieces(inside: np.ndarray, wraps: tuple[bool, ...]) -> np.ndarray:
    """Numbers of the connected pieces of a mask, 0 outside, as in `ndimage.label`, where the ends of axes may meet."""
    numbers, n = ndimage.label(inside)
    ends = [(np.take(numbers, 0, axis=k), np.take(numbers, -1, axis=k)) for k in np.flatnonzero(wraps)]
    pairs = [np.stack([a, b])[:, (a > 0) & (b > 0)] for a, b in ends]
    if not pairs:
        return np.asarray(numbers)
    joined = np.concatenate(pairs, axis=1)
    graph = sparse.coo_array((np.ones(joined.shape[1]), joined), shape=(n + 1, n + 1))
    group = csgraph.connected_components(graph, directed=False)[1]
    return np.where(numbers > 0, group[numbers] + 1, 0)


def pass_level(reduced: np.ndarray, seeds: np.ndarray, wraps: tuple[bool, ...]) -> float:
    """The lowest level at which all seeds, multi-indices (k, d), lie in one piece of {reduced <= level}, to .1."""
    finite = reduced[np.isfinite(reduced)]
    low, high = float(reduced[tuple(seeds.T)].max()), float(finite.max())
    if not math.isfinite(low):
        raise UsageError("the energy is not finite at a core")

    def joined(level: float) -> bool:
        return len(np.unique(pieces(reduced <= level, wraps)[tuple(seeds.T)])) == 1

    if joined(low):
        return low
    if not joined(high):
        raise UsageError("the cores are not connected by cells of finite energy: choose another box")
    while high - low > 0.1:
        middle = min(0.5 * (low + high), low + 20.0)  # the top of a box can be astronomically high
        low, high = (low, middle) if joined(middle) else (middle, high)
    return high


def main_piece(keep: np.ndarray, reduced: np.ndarray, wraps: tuple[bool, ...]) -> np.ndarray:
    """The piece of the mask `keep` that holds the lowest point of `reduced`, as a mask."""
    numbers = pieces(keep, wraps)
    return np.asarray(numbers == numbers[np.unravel_index(int(np.argmin(reduced)), reduced.shape)])
