"""A guess of the basin of a point that learns: the labels of the nearest points whose gradient flow was followed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from landscape.sampling import StudentMixture

NEIGHBOURS = 12  # labelled points that vote
LEAST = 100  # labelled points below which the harmonic wells guess
RIDGE = 0.03  # of the planes' slopes, beside the sum of the weights


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
        """The nearest labelled points vote: x (m, d)."""
        scaled = x @ self._scale
        return self._vote(scaled, *self._tree.query(scaled, k=NEIGHBOURS))

    def guess_of_themselves(self) -> Guess:
        """The same for the labelled points, each without its own vote."""
        distance, place = self._tree.query(self._scaled, k=NEIGHBOURS + 1)
        return self._vote(self._scaled, distance[:, 1:], place[:, 1:])

    def _vote(self, x: np.ndarray, distance: np.ndarray, place: np.ndarray) -> Guess:
        label = self.label[place]
        first, second, doubt = label[:, 0].copy(), label[:, 0].copy(), np.zeros(len(label))
        mixed = np.flatnonzero((label != label[:, :1]).any(1))
        label = label[mixed]
        vote = _plane_votes(self._scaled[place[mixed]] - x[mixed, None], distance[mixed])
        # Each neighbour's sum over all that agree with it; few enough for all pairs.
        total = np.einsum("mj,mij->mi", vote, label[:, :, None] == label[:, None, :])
        rows = np.arange(len(label))
        best = total.argmax(1)
        first[mixed] = winner = label[rows, best]
        others = np.where(label == winner[:, None], -np.inf, total)
        runner_up = others.argmax(1)
        second[mixed] = label[rows, runner_up]
        doubt[mixed] = 0.5 * np.exp(-4 * (total[rows, best] - others[rows, runner_up]))
        return Guess(first, second, doubt)


def _plane_votes(away: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Weights (m, k), of sum 1, with which k neighbours at away (m, k, d), distance (m, k), predict a function at 0.

    A plane through it by least squares has its value there as sum_j v_j f_j, v ~ M^-1 1 with M = A A' + r W^-1, for
    any f: of the indicator of a basin whose boundary is smooth it says more than a mean. W: the weights
    (1 - |a|^2)^2 of the neighbours in units of the farthest's distance; r : RIDGE sum W, on the slopes. In few
    dimensions M^-1 1 = B 1 - B A (1 + A' B A)^-1 A' B 1 with B = W / r takes a matrix of d x d.
    """
    reach = 1.05 * distance[:, -1:, None] + 1e-300
    away = away / reach
    weight = (1 - (distance / reach[:, :, 0]) ** 2) ** 2
    part = weight / (RIDGE * weight.sum(1, keepdims=True))
    (k, d), away_t = away.shape[1:], away.transpose(0, 2, 1)
    if d < k:
        scaled = part[:, :, None] * away
        slope = np.linalg.solve(away_t @ scaled + np.eye(d), scaled.sum(1)[:, :, None])
        vote = part - (scaled @ slope)[:, :, 0]
    else:
        m = away @ away_t
        m[:, np.arange(k), np.arange(k)] += 1 / part
        vote = np.linalg.solve(m, np.ones((*part.shape, 1)))[:, :, 0]
    return vote / vote.sum(1, keepdims=True)


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
