"""Particle configurations modulo isometries and permutations: exact matches, point groups, and nearest copies.

A configuration is an array (n, dim) of n particles in 1, 2 or 3 dimensions, with one label of species a particle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

COLLINEAR = 1e-5  # particles within this part of their extent from a line (or a point) lie on it
TRIAL_ROTATIONS = 24  # orientations from which the nearest copy of another configuration is sought
MAX_ALTERNATIONS = 50  # of rotation and permutation, until neither changes


@dataclass(frozen=True)
class Isometry:
    """x -> x[permutation] @ matrix.T, with an orthogonal matrix (dim, dim)."""

    matrix: Array
    permutation: Array

    def __call__(self, x: Array) -> Array:
        """Apply to configurations (..., n, dim)."""
        return x[..., self.permutation, :] @ self.matrix.T


def sorted_distances(x: Array, species: Array, about_origin: bool) -> Array:
    """Invariants of configurations (k, n, dim): distances of pairs (and from the origin), sorted within each kind.

    A kind is a pair of species. If two configurations are an isometry and a permutation apart, up to shifts of the
    particles by at most e, no entry differs by more than 2 e.
    """
    n = x.shape[1]
    first, second = np.triu_indices(n, 1)
    distance = np.linalg.norm(x[:, first] - x[:, second], axis=2)
    if not species.any() and not about_origin:
        return np.sort(distance, axis=1)
    low, high = np.minimum(species[first], species[second]), np.maximum(species[first], species[second])
    kinds = low * n + high
    if about_origin:
        distance = np.concatenate([distance, np.linalg.norm(x, axis=2)], axis=1)
        kinds = np.concatenate([kinds, n * n + species])
    parts = [np.sort(distance[:, kinds == kind], axis=1) for kind in np.unique(kinds)]
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(x), 0))


def isometries(
    a: Array, b: Array, species: Array, signs: tuple[int, ...], rotate: bool, within: float
) -> list[Isometry]:
    """All that carry b to a with every particle closer than `within`, both about the same fixed origin.

    signs : determinants allowed of the matrices, (1,) or (1, -1). rotate : False allows the identity matrix alone.
    Two particles of `a` fix the orientation; particles of `b` with the same distances are tried in their place. Where
    all particles lie on a line in space (or at a point) rotations about it change nothing, and each permutation is
    given once for each sign.
    """
    matrices = _candidates(a, b, species, signs, within) if rotate else np.eye(a.shape[1])[None]
    if not len(matrices):
        return []
    turned = np.einsum("cij,nj->cni", matrices, b)
    gap = np.linalg.norm(a[None, :, None] - turned[:, None], axis=3)
    gap = np.where(species[:, None] == species[None], gap, np.inf)
    permutation = gap.argmin(2)
    fits = (gap.min(2) < within).all(1) & (np.sort(permutation, 1) == np.arange(len(a))).all(1)
    found: dict[tuple[int, ...], Isometry] = {}
    for k in np.flatnonzero(fits):
        sign = round(float(np.linalg.det(matrices[k])))
        found.setdefault((sign, *permutation[k].tolist()), Isometry(matrices[k], permutation[k]))
    return list(found.values())


def quick_isometry(a: Array, b: Array, species: Array, signs: tuple[int, ...], within: float) -> Isometry | None:
    """One isometry that carries b to a within `within`, by matching each particle's distances from all the others.

    None where these tell too little (particles that the point group exchanges) or there is none.
    """
    rows, others = (np.sort(np.linalg.norm(x[:, None] - x[None], axis=2), axis=1) for x in (a, b))
    gap = np.abs(rows[:, None] - others[None]).max(2)
    permutation = np.where(species[:, None] == species[None], gap, np.inf).argmin(1)
    if (np.bincount(permutation, minlength=len(a)) != 1).any():
        return None
    matrix = best_rotation(a, b[permutation], signs)
    if np.linalg.norm(a - b[permutation] @ matrix.T, axis=1).max() >= within:
        return None
    return Isometry(matrix, permutation)


def _candidates(a: Array, b: Array, species: Array, signs: tuple[int, ...], within: float) -> Array:
    """Orthogonal matrices (c, dim, dim) that may carry b to a."""
    dim, radius, other = a.shape[1], np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    extent = radius.max(initial=0.0)
    flips = np.stack([np.diag([1.0] * (dim - 1) + [float(sign)]) for sign in signs])
    if dim == 1 or extent <= COLLINEAR:
        return flips
    # the reference should be far out, and one of few at its distance, so that little has to be tried
    alike = (np.abs(radius[:, None] - radius) < within) & (species[:, None] == species)
    usable = np.flatnonzero(radius > 0.3 * extent)
    i = usable[np.argmin(alike.sum(1)[usable])]
    matches = np.flatnonzero((species == species[i]) & (np.abs(other - radius[i]) < within))
    partner = other_axis = None
    if dim == 3:
        apart = np.linalg.norm(np.cross(a[i], a), axis=1) / radius[i]
        if apart.max() > COLLINEAR * extent:
            usable = np.flatnonzero(apart > 0.3 * apart.max())
            j = usable[np.argmin(alike.sum(1)[usable])]
            near = np.flatnonzero((species == species[j]) & (np.abs(other - radius[j]) < within))
            length = np.linalg.norm(b[matches][:, None] - b[near], axis=2)
            fits = (np.abs(length - np.linalg.norm(a[i] - a[j])) < 2 * within) & (matches[:, None] != near)
            row, column = np.nonzero(fits)
            matches, partner, other_axis = matches[row], a[None, j], b[near[column]]
    if not len(matches):
        return np.zeros((0, dim, dim))
    first, second = _frames(a[None, i], partner)[0], _frames(b[matches], other_axis)
    return np.einsum("ij,sjk,clk->scil", first, flips, second).reshape(-1, dim, dim)


def _frames(u: Array, v: Array | None) -> Array:
    """Right-handed orthonormal bases (k, dim, dim; columns) whose first vectors are along u (k, dim), the second, in
    space, in the plane of u and v (of an axis that u is far from, where v is None)."""
    first = u / np.linalg.norm(u, axis=1, keepdims=True)
    if u.shape[1] == 2:
        return np.stack([first, first[:, ::-1] * [-1.0, 1.0]], axis=2)
    if v is None:
        v = np.eye(3)[np.abs(first).argmin(1)]
    second = v - (v * first).sum(1, keepdims=True) * first
    second = second / np.maximum(np.linalg.norm(second, axis=1, keepdims=True), np.finfo(float).tiny)
    return np.stack([first, second, np.cross(first, second)], axis=2)


def best_rotation(a: Array, b: Array, signs: tuple[int, ...]) -> Array:
    """The orthogonal matrix R with a sign in `signs` for its determinant that minimises |a - b R^T| (Kabsch 1976)."""
    u, _, vt = np.linalg.svd(a.T @ b)
    sign = round(float(np.linalg.det(u @ vt)))
    if sign not in signs:
        u[:, -1] *= -1
    return u @ vt


def nearest_copy(a: Array, b: Array, species: Array, signs: tuple[int, ...], rotate: bool) -> Isometry:
    """The isometry that brings b closest to a, as far as alternation finds it: from several orientations, permute by
    assignment, rotate by Kabsch's formula, until neither changes. Exact copies are found exactly by `isometries`."""
    from scipy.optimize import linear_sum_assignment  # here: .3 s that most analyses need not pay

    best, least = Isometry(np.eye(a.shape[1]), np.arange(len(a))), np.inf
    foreign = np.where(species[:, None] == species[None], 0.0, 1e6 * (1 + np.abs(a).max()) * (1 + np.abs(b).max()))
    for start in _orientations(a.shape[1], signs) if rotate else [np.eye(a.shape[1])]:
        matrix, permutation = start, np.zeros(0, int)
        for _ in range(MAX_ALTERNATIONS):
            new = linear_sum_assignment(foreign - a @ matrix @ b.T)[1]
            if len(permutation) and (new == permutation).all():
                break
            permutation = new
            if rotate:
                matrix = best_rotation(a, b[permutation], signs)
        distance = float(np.linalg.norm(a - b[permutation] @ matrix.T))
        if distance < least * (1 - 1e-9):
            best, least = Isometry(matrix, permutation), distance
    return best


def _orientations(dim: int, signs: tuple[int, ...]) -> list[Array]:
    """The identity and rotations spread over the group, each with every sign; always the same ones."""
    rng = np.random.default_rng(0)
    turns = [np.eye(dim)]
    while dim > 1 and len(turns) < TRIAL_ROTATIONS:
        q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
        q = q * np.sign(np.diag(r))
        q[:, -1] *= np.sign(np.linalg.det(q))
        turns.append(q)
    flips = [np.diag([1.0] * (dim - 1) + [float(sign)]) for sign in signs]
    return [turn @ flip for turn in turns for flip in flips]
