"""What of a competitor's answer is true: polished by Newton's method, classified by the Hessian, merged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from problems import Problem

from landscape.energy import Energy, load_energy
from landscape.search.stationary import Catalogue

NEAR = 1e-2  # a point belongs to the stationary point that its polish reaches within this part of the box


@dataclass(frozen=True)
class Verified:
    """Distinct minima and index-1 saddles among the points given as such, and how many points were neither.

    first : the rows of the given saddles at which each of the distinct ones came first.
    """

    minima: np.ndarray
    saddles: np.ndarray
    wrong: int
    first: np.ndarray


def verified(problem: Problem, minima: list[list[float]], saddles: list[list[float]]) -> Verified:
    if problem.name.startswith("lj-"):
        energy = load_energy(f"potential:lennard-jones:n={problem.dim // 3}")
    else:
        energy = Energy(problem.function, problem.dim)
    catalogue = Catalogue(energy)
    kept, wrong = [], 0
    for points, index in ((minima, 0), (saddles, 1)):
        given = torch.as_tensor(np.reshape(points, (-1, problem.dim)), dtype=torch.float64)
        number = catalogue.add(given)
        found = catalogue.points()
        right = number >= 0
        right[right] = (found.index[number[right]] == index) & ~found.degenerate[number[right]]
        if energy.symmetry is None:  # else a known copy may lie elsewhere
            far = np.linalg.norm(found.x[number[right]] - given.numpy()[right], axis=1)
            right[right] = far < NEAR * (problem.high[0] - problem.low[0])
        wrong += int((~right).sum())
        distinct, first = np.unique(number[right], return_index=True)
        kept.append(distinct)
        rows = np.flatnonzero(right)[first]
    found = catalogue.points()
    return Verified(found.x[kept[0]], found.x[kept[1]], wrong, rows)


def near_pairs(x: np.ndarray, n: int) -> np.ndarray:
    """The n pairs of points (m, d) that lie nearest: (n, 2, d)."""
    first, second = np.triu_indices(len(x), 1)
    order = np.argsort(np.linalg.norm(x[first] - x[second], axis=1))[:n]
    return np.stack([x[first[order]], x[second[order]]], 1)
