"""A guess of the basin of a point that learns: the labels of the nearest points whose gradient flow was followed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from landscape.sampling import StudentMixture

NEIGHBOURS = 5  # labelled points that vote
LEAST = 200  # labelled points below which the harmonic wells guess


class Guess(NamedTuple):
    """The likeliest well of each point, the second likeliest, and how probable the second is of the two: (m,) each."""

    first: np.ndarray
    second: np.ndarray
    doubt: np.ndarray


class Neighbours:
    """Labelled points x (m, d), label (m,) >= 0, in units in which the wells are as wide as long.

    scale (d, d) : x @ scale has those units.
    """

    def __init__(self, x: np.ndarray, label: np.ndarray, scale: np.ndarray) -> None:
        self.label, self._scale, self._scaled = label, scale, x @ scale

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._scaled)

    def guess(self, x: np.ndarray) -> Guess:
        """The nearest labelled points vote, each with the inverse of its distance: x (m, d)."""
        return self._vote(*self._tree.query(x @ self._scale, k=NEIGHBOURS))

    def guess_of_themselves(self) -> Guess:
        """The same for the labelled points, each without its own vote."""
        distance, place = self._tree.query(self._scaled, k=NEIGHBOURS + 1)
        return self._vote(distance[:, 1:], place[:, 1:])

    def _vote(self, distance: np.ndarray, place: np.ndarray) -> Guess:
        label = self.label[place]
        vote = 1 / (distance + 1e-9 * distance[:, -1:] + 1e-300)
        # Each neighbour's sum over all that agree with it; few enough for all pairs.
        total = np.einsum("mj,mij->mi", vote, label[:, :, None] == label[:, None, :])
        rows = np.arange(len(label))
        first = label[rows, total.argmax(1)]
        others = np.where(label == first[:, None], 0.0, total)
        best = others.argmax(1)
        second = np.where(others[rows, best] > 0, label[rows, best], first)
        doubt = others[rows, best] / (others[rows, best] + total.max(1))
        return Guess(first, second, doubt)


@dataclass(frozen=True)
class Guide:
    """What weighted draws teach chains: a mixture fitted to exp(-beta E) to propose from, and the labelled draws, None
    where the harmonic wells guess better."""

    mixture: StudentMixture
    neighbours: Neighbours | None


def harmonic_guess(energies: np.ndarray) -> Guess:
    """From reduced harmonic energies h (m, n) of the wells: the lowest two, g and s; doubt 1 / (1 + exp(h_s - h_g))."""
    rows, n = np.arange(len(energies)), energies.shape[1]
    if n == 1:
        return Guess(np.zeros(len(rows), int), np.zeros(len(rows), int), np.zeros(len(rows)))
    order = np.argpartition(energies, 1, axis=1)[:, :2]
    lowest = np.take_along_axis(energies, order, 1)
    order = np.take_along_axis(order, lowest.argsort(1), 1)
    gap = np.abs(lowest[:, 1] - lowest[:, 0])
    return Guess(order[:, 0], order[:, 1], np.exp(-np.logaddexp(0, gap)))
