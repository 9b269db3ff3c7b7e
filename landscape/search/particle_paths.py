"""Minimum energy paths of clusters: from one minimum, in one piece, to a copy of the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from landscape.energy import Energy
from landscape.search.driver import Status
from landscape.search.particles import descents, spacing_of, symmetry_of
from landscape.search.stationary import StationaryPoints
from landscape.search.string import Paths, StringOptions, join_halves, make_paths, resample

MOST_PATHS = 100  # of the lowest saddles; an image costs as much as a step of a search


def cluster_paths(
    energy: Energy,
    states: np.ndarray,
    saddles: np.ndarray,
    joins: np.ndarray,
    sides: Callable[[np.ndarray], tuple[torch.Tensor, torch.Tensor]],
    found: StationaryPoints,
    options: StringOptions,
) -> tuple[Paths, np.ndarray]:
    """Paths through the lowest saddles with two known ends, and which of `joins` (m, 2) these are.

    states (n, d) in their order; saddles (m,) : catalogue numbers, lowest first, of points in `found`; sides : of some
    of these, points beside both sides of each, pairs together, and Hessians there. The first image
    is states[joins[k, 0]] itself; the last is the copy of states[joins[k, 1]] to which the saddle leads from there.
    """
    chosen = np.flatnonzero((joins >= 0).all(1))[:MOST_PATHS]
    m, d = options.n_images, energy.dim
    if not len(chosen):
        none = np.zeros((0, m))
        nothing = np.zeros(0)
        return Paths(np.zeros((0, m, d)), none, none, nothing, nothing.astype(int), np.zeros((0, d)), nothing,
                     nothing.astype(int)), np.zeros(0, int)  # fmt: skip
    top = found.x[saddles[chosen]]
    halves = _descents(energy, states, joins[chosen], top, *sides(saddles[chosen]))
    n_left = m // 2 + 1
    left = torch.cat([resample(half.flip(0)[None], n_left) for half in halves[0::2]])
    right = torch.cat([resample(half[None], m - n_left + 1) for half in halves[1::2]])
    joined = join_halves(energy, left, right, options)
    begun = _from_the_state(energy, joined["images"].cpu().numpy(), states[joins[chosen, 0]])
    joined["images"] = torch.as_tensor(begun).to(joined["images"])
    converged = np.full(len(chosen), int(Status.CONVERGED))
    return make_paths(joined, begun[:, n_left - 1], found.energy[saddles[chosen]], converged), chosen


def _descents(
    energy: Energy, states: np.ndarray, joins: np.ndarray, top: np.ndarray, beside: torch.Tensor, hessian: torch.Tensor
) -> list[torch.Tensor]:
    """2 n polylines (k, d): from each saddle top (n, d) to copies of the two states that it joins, in their order."""
    symmetry = symmetry_of(energy)
    ended = descents(energy, beside, hessian, spacing_of(symmetry, states), traced=True)
    ends = ended["x"].cpu().numpy()
    halves = []
    for k, (a, b) in enumerate(joins):
        rows = [2 * k, 2 * k + 1]
        copies = [symmetry.nearest(np.stack([states[a], states[b]]), ends[[row, row]]) for row in rows]
        gap = [
            [float(np.linalg.norm(copy - ends[row])) for copy in both] for row, both in zip(rows, copies, strict=True)
        ]
        if gap[0][0] + gap[1][1] > gap[0][1] + gap[1][0]:
            rows, copies = rows[::-1], copies[::-1]
        for row, end in ((rows[0], copies[0][0]), (rows[1], copies[1][1])):
            trace = ended["trace"][row]
            first, last = (torch.as_tensor(point).to(trace)[None] for point in (top[k], end))
            halves.append(torch.cat([first, trace, last]))
    return halves


def _from_the_state(energy: Energy, images: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Paths (n, m, d), each turned and renumbered as a whole so that it begins at states (n, d)."""
    symmetry = symmetry_of(energy)
    turned = np.empty_like(images)
    for k, (path, state) in enumerate(zip(images, states, strict=True)):
        atoms = path.reshape(len(path), symmetry.n_particles, symmetry.dim)
        center = atoms[0].mean(0) if symmetry.translation else np.zeros(symmetry.dim)
        target = symmetry.centered(state[None])[0]
        move = symmetry.alignment(target, atoms[0] - center)
        offset = state.reshape(target.shape) - target
        turned[k] = (move(atoms - center) + offset).reshape(path.shape)
    return turned
