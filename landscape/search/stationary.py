"""Stationary points: Newton polish, index, merging, and the catalogue that a search fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from landscape.energy import Energy, ParticleSymmetry
from landscape.energy.modulo import eigh_modulo
from landscape.search.driver import State, Status, iterate
from landscape.search.krylov import polish_by_products
from landscape.search.modes import ModeOptions, mean_curvature
from landscape.tasks.task import matrix_doubles, task

DEGENERATE_X = 5e-3  # degenerate points within this (1 + |x|), at equal energy, are one: both sides of a quartic one
MERGE_X, MERGE_E = 1e-5, 1e-8  # |dx| < MERGE_X (1 + |x|) and |dE| < MERGE_E (1 + |E|) is one point
MAX_TIES = 100  # unpolished rows of nearly equal energy that are compared with each other, modulo a symmetry
PAIRS = 1_000_000  # of rows compared at once
COARSE = 10.0  # factor on MERGE_X by which rows that are not yet polished count as duplicates
MISMATCH, NOISE = 0.5, 20.0  # of the energy near a point: relative, and in units of the last place of 1 + |E|
DEGENERATE = 1e-6  # a Hessian eigenvalue below this part of the largest one counts as zero
NEARBY = 1e-3  # how far from a point, in units of 1 + |x|, its Hessian is compared
NEWTON_TOLERANCE = 1e-9  # a point is stationary when its Newton step is below this times (1 + |x|)
FAST = 0.01  # a step of Newton's method that leaves less than this of the gradient
NEWTON_ITERATIONS = 60  # degenerate points are approached by a constant factor (2/3 for x^4) an iteration


@dataclass(frozen=True)
class StationaryPoints:
    """Polished stationary points, lowest energy first.

    x (n, d); energy (n,); gradient_norm (n,); hessian (n, d, d); eigenvalues (n, d) ascending, with an exact 0 for
    each zero mode that belongs to a declared symmetry, which is left out of index and degeneracy;
    index (n,): number of negative eigenvalues; degenerate (n,): an eigenvalue is zero within 1e-6 of the largest;
    hits (n,): how many rows of the search ended here. modes (n, 0, d).
    In dimensions too large for Hessians (`Energy.matrix_free`) hessian is (n, 0, 0); eigenvalues (n, k + 1) are the k
    lowest and the largest in size; modes (n, k, d) belong to the k lowest; and index counts to k.
    """

    x: np.ndarray
    energy: np.ndarray
    gradient_norm: np.ndarray
    hessian: np.ndarray
    eigenvalues: np.ndarray
    index: np.ndarray
    degenerate: np.ndarray
    hits: np.ndarray
    modes: np.ndarray

    def __len__(self) -> int:
        return len(self.energy)

    def select(self, mask_or_order: np.ndarray) -> StationaryPoints:
        """The rows picked by a boolean mask or an order."""
        return StationaryPoints(**{name: value[mask_or_order] for name, value in vars(self).items()})

    def of_index(self, index: int) -> StationaryPoints:
        """The nondegenerate points with `index` negative eigenvalues."""
        return self.select((self.index == index) & ~self.degenerate)

    def ordered(self) -> StationaryPoints:
        """By energy; energies equal to 1e-8 relative by coordinates rounded to 1e-5, whatever the seed."""
        return self.select(canonical_order(self.energy, self.x))

    def lowest_modes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hessian eigenvalues (m, k) of some rows, ascending, and their vectors (m, d, k): all d of them where Hessians
        are kept, else the lowest."""
        if self.hessian.shape[1]:
            values, vectors = np.linalg.eigh(self.hessian[rows])
            return values, vectors
        return self.eigenvalues[rows, :-1], self.modes[rows].swapaxes(1, 2)

    @staticmethod
    def empty(dim: int, matrix_free: bool = False) -> StationaryPoints:
        width, k = (0, min(ModeOptions().n_modes, dim)) if matrix_free else (dim, 0)
        return StationaryPoints(
            np.zeros((0, dim)), np.zeros(0), np.zeros(0), np.zeros((0, width, width)), np.zeros((0, width or k + 1)),
            np.zeros(0, int), np.zeros(0, bool), np.zeros(0, int), np.zeros((0, k, dim)),
        )  # fmt: skip


def canonical_order(energy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Order of points by energy, ties (within 1e-8 (1 + |E|)) by coordinates rounded to 1e-5."""
    by_energy = np.argsort(energy, kind="stable")
    sorted_energy = energy[by_energy]
    jump = np.diff(sorted_energy) > MERGE_E * (1 + np.abs(sorted_energy[:-1]))
    level = np.concatenate([[0], np.cumsum(jump)]) if len(energy) else np.zeros(0)
    keys = np.round(x[by_energy] / 1e-5)
    return by_energy[np.lexsort((*keys.T[::-1], level))]


def group_rows(x: np.ndarray, energy: np.ndarray, factor: float = 1.0) -> np.ndarray:
    """Label rows that are one point: |dx| < factor MERGE_X (1 + |x|), |dE| < factor^2 MERGE_E (1 + |E|); (n,) ints.

    Chains of such rows are one point as well. Rows are first hashed on a grid of cells within both tolerances, so that
    100,000 copies of three points do not become 10^9 pairs.
    """
    n = len(x)
    if n == 0:
        return np.zeros(0, int)
    spacing, level = factor * MERGE_X, factor**2 * MERGE_E
    # asinh E has the slope 1 / sqrt(1 + E^2): cells as wide as the tolerance allows at every E.
    keys = np.column_stack([x * (x.shape[1] ** 0.5 / spacing), np.arcsinh(energy) / level])
    _, first, cell = np.unique(np.round(keys + 0.371), axis=0, return_index=True, return_inverse=True)
    head = _heads(x[first], energy[first], spacing, level)
    kept, place = np.unique(head, return_inverse=True)
    points, energies = x[first[kept]], energy[first[kept]]
    size = 1 + np.linalg.norm(points, axis=1)
    edges = coo_array((len(points), len(points)), dtype=bool)
    pairs = cKDTree(points).query_pairs(spacing * size.max(), output_type="ndarray")
    for part in range(0, len(pairs), PAIRS):
        a, b = pairs[part : part + PAIRS].T
        near = np.linalg.norm(points[a] - points[b], axis=1) < spacing * np.minimum(size[a], size[b])
        near &= np.abs(energies[a] - energies[b]) < level * (1 + np.minimum(np.abs(energies[a]), np.abs(energies[b])))
        edges = edges + coo_array((near[near], (a[near], b[near])), shape=edges.shape)
    return connected_components(edges, directed=False)[1].astype(int)[place][cell.reshape(-1)]


def _heads(x: np.ndarray, energy: np.ndarray, spacing: float, level: float) -> np.ndarray:
    """For each row (n, d) one of some sqrt(n) rows that is no further than half the tolerances, itself where none is.

    In many dimensions the copies of a point fall into cells of their own, and the pairs of 100,000 of them fill any
    memory; after this few are left.
    """
    rows = np.arange(len(x))
    some = rows[:: max(1, round(0.25 * len(x) ** 0.5))]
    size, high = 1 + np.linalg.norm(x, axis=1), 1 + np.abs(energy)
    gap, nearest = cKDTree(x[some]).query(x, distance_upper_bound=0.5 * spacing * size.max())
    at = some[np.minimum(nearest, len(some) - 1)]
    copies = gap < 0.5 * spacing * np.minimum(size, size[at])
    copies &= np.abs(energy - energy[at]) < 0.5 * level * np.minimum(high, high[at])
    return np.where(copies, at, rows)


def classify(eigenvalues: np.ndarray, nearby: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Index (n,) and degeneracy (n,) of points with these Hessian eigenvalues (n, d).

    An eigenvalue below 1e-6 of the largest counts as zero; `nearby` (n,), the norm of the Hessian beside the point,
    takes
    the place of the largest where that is larger.
    """
    largest = np.abs(eigenvalues).max(1, initial=0.0)
    if nearby is not None:
        largest = np.maximum(largest, nearby)
    flat = (np.abs(eigenvalues) < DEGENERATE * largest[:, None]) | (largest[:, None] == 0)
    return ((eigenvalues < 0) & ~flat).sum(1), flat.any(1)


@task(rows={"x": 2}, doubles=matrix_doubles, calls=lambda x: 2 * x.shape[1])
def newton_polish(energy: Energy, x: torch.Tensor, max_iterations: int = NEWTON_ITERATIONS) -> State:
    """Newton's method on grad E = 0 from points that are already close, whatever their index.

    A step that does not lower |grad E| is halved (networks with CELU or ReLU have kinks in the Hessian, where full
    steps chatter). A row has converged when its Newton step is below 1e-9 (1 + |x|) and no longer improves; degenerate
    directions are measured by the gradient alone. Returns x, energy, gradient, hessian, eigenvalues, modes, status:
    as in `StationaryPoints`, also where d is too large for Hessians (`polish_by_products`).
    """
    if energy.matrix_free:
        return polish_by_products(energy, x)
    value, gradient = energy.value_and_gradient(x)
    hessian = energy.hessian(x)
    finite = value.isfinite() & gradient.isfinite().all(1) & hessian.isfinite().all(-1).all(-1)
    hessian = torch.where(finite[:, None, None], hessian, torch.eye(x.shape[1], dtype=x.dtype, device=x.device))
    eigenvalues, vectors = eigh_modulo(energy.symmetry, x, hessian)
    state: State = {
        "x": x.clone(), "energy": value, "gradient": gradient, "hessian": hessian,
        "eigenvalues": eigenvalues, "vectors": vectors, "step": torch.ones_like(value),
        "stale": torch.zeros_like(finite),
        "status": torch.where(finite, int(Status.RUNNING), int(Status.NOT_FINITE)),
    }  # fmt: skip
    outputs = ("x", "energy", "gradient", "hessian", "eigenvalues")
    polished = iterate(lambda s: _newton_step(energy, s), state, outputs, max_iterations)
    return polished | {"modes": x.new_zeros(len(x), 0, x.shape[1])}


def _newton_step(energy: Energy, state: State) -> State:
    x, gradient, eigenvalues, vectors = (state[k] for k in ("x", "gradient", "eigenvalues", "vectors"))
    largest = eigenvalues.abs().amax(1, keepdim=True)
    floor = DEGENERATE * largest
    curvature = torch.where(eigenvalues.abs() > floor, eigenvalues, torch.inf)  # no step along flat directions
    newton = -torch.einsum("nij,nj->ni", vectors, torch.einsum("nij,ni->nj", vectors, gradient) / curvature)
    size = 1 + x.norm(dim=1)
    norm = gradient.norm(dim=1)
    limit = 0.1 * size
    length = newton.norm(dim=1)
    newton = newton * (limit / torch.maximum(length, limit))[:, None]
    trial = x + state["step"][:, None] * newton
    value, trial_gradient = energy.value_and_gradient(trial)
    better = trial_gradient.norm(dim=1) < norm  # False for NaN
    # The gradient is measured without |x|: a long valley far out is not stationary, however flat.
    close = (length <= NEWTON_TOLERANCE * size) & (norm <= NEWTON_TOLERANCE * largest[:, 0])
    new = dict(state)
    take = better[:, None]
    new["x"] = torch.where(take, trial, x)
    new["energy"] = torch.where(better, value, state["energy"])
    new["gradient"] = torch.where(take, trial_gradient, gradient)
    new["step"] = torch.where(better, torch.ones_like(norm), 0.5 * state["step"])
    status = state["status"].clone()
    # Done when rounding stops the gradient from shrinking, or nothing is left of it (symmetric points converge to
    # exact zeros).
    trial_norm = trial_gradient.norm(dim=1)
    status[close & (~better | (trial_norm > 0.5 * norm) | (trial_norm < 1e-15 * largest[:, 0] * size))] = (
        Status.CONVERGED
    )
    status[~close & (new["step"] < 1e-6)] = Status.UNFINISHED
    new["status"] = status
    moved = better & ~((length <= 1e-3 * NEWTON_TOLERANCE * size) & close)  # below that the Hessian does not change
    # A Hessian serves for as long as its steps converge fast; the point that they end at gets its own.
    fast = trial_norm < FAST * norm
    stale = moved | state["stale"]
    renew = stale & (~fast | (status != Status.RUNNING))
    new["stale"] = stale & ~renew
    if bool(renew.any()):
        hessian = energy.hessian(new["x"][renew])
        hessian = torch.where(hessian.isfinite(), hessian, 0)
        values, basis = eigh_modulo(energy.symmetry, new["x"][renew], hessian)
        for name, part in (("hessian", hessian), ("eigenvalues", values), ("vectors", basis)):
            new[name] = state[name].clone()
            new[name][renew] = part
    return new


class Catalogue:
    """All stationary points that a search has found so far, merged; rows come in unpolished and are polished once.

    Points keep their number for life; `points()` gives them as arrays in that order.
    """

    def __init__(self, energy: Energy) -> None:
        self.energy = energy
        self._size = 0
        self._room = StationaryPoints.empty(energy.dim, energy.matrix_free)  # the first `_size` rows are in use

    def __len__(self) -> int:
        return self._size

    def points(self) -> StationaryPoints:
        """A view: rows stay as they are, but `hits` goes on counting."""
        return StationaryPoints(**{name: value[: self._size] for name, value in vars(self._room).items()})

    def count(self, index: int) -> int:
        found = self.points()
        return int(((found.index == index) & ~found.degenerate).sum())

    def add(self, x: torch.Tensor, hits: Literal["minima", "others", "none"] = "none") -> np.ndarray:
        """Polish and merge rows (n, d). Returns the number of the point of each row, -1 where the polish failed.

        hits : the points that these rows count for: minima, when starts descended; others, when walks sought saddles.
        """
        rows = x.detach().cpu().numpy()
        if len(rows) == 0:
            return np.full(0, -1)
        labels, known = self._recognised(rows) if self.energy.symmetry is None else self._recognised_modulo(rows)
        fresh = np.flatnonzero(labels >= 0)
        _, first, place = np.unique(labels[fresh], return_index=True, return_inverse=True)
        numbers = known.copy()
        if len(first):
            polished = newton_polish(self.energy, x[torch.as_tensor(fresh[first], device=x.device)])
            numbers[fresh] = self._merge(polished)[place]
        if hits != "none":
            reached = numbers[numbers >= 0]
            index = self._room.index[reached]
            np.add.at(self._room.hits, reached[index == 0 if hits == "minima" else index > 0], 1)
        return numbers

    def _recognised(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n, d) not yet polished: labels (n,) of those that are one point, -1 for copies of points in the
        catalogue, and the numbers (n,) of these.

        A copy is near a nondegenerate point, at the energy that the point's Hessian foretells there.
        """
        energy, found = self.energy.value(rows), self.points()
        known, sharp = np.full(len(rows), -1), np.flatnonzero(~found.degenerate)
        if len(sharp):
            at = sharp[cKDTree(found.x[sharp]).query(rows)[1]]
            away = rows - found.x[at]
            near = np.linalg.norm(away, axis=1) < COARSE * MERGE_X * (1 + np.linalg.norm(rows, axis=1))
            noise = NOISE * torch.finfo(self.energy.dtype).eps * (1 + np.abs(energy))
            rise = energy - found.energy[at]
            for number in np.unique(at[near]):  # few points, and no matrix a row
                same = np.flatnonzero(near & (at == number))
                if self.energy.matrix_free:
                    image = self.energy.hvp(np.broadcast_to(found.x[number], away[same].shape), away[same])
                else:
                    image = away[same] @ found.hessian[number]
                foretold = 0.5 * (image * away[same]).sum(1)
                copies = np.abs(rise[same] - foretold) <= MISMATCH * np.abs(foretold) + noise[same]
                known[same[copies]] = number
        labels, fresh = np.full(len(rows), -1), known < 0
        labels[fresh] = group_rows(rows[fresh], energy[fresh], COARSE)
        return labels, known

    def _recognised_modulo(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `_recognised`, for rows compared modulo the symmetry."""
        energies, found, symmetry = self.energy.value(rows), self.points(), self.energy.symmetry
        labels, known = np.full(len(rows), -1), np.full(len(rows), -1)
        assert symmetry is not None
        level = COARSE**2 * MERGE_E * (1 + np.abs(energies))
        heads: list[int] = []
        for k in np.argsort(energies, kind="stable"):
            near = 2 * COARSE * MERGE_X * (1 + float(np.linalg.norm(rows[k])))
            close = np.flatnonzero(np.abs(found.energy - energies[k]) < level[k])
            same = close[np.isfinite(symmetry.separation(found.x[close], rows[k], near))]
            if len(same):
                known[k] = same[0]
                continue
            recent = [i for i in heads[-MAX_TIES:] if abs(energies[i] - energies[k]) < level[k]]
            alike = np.isfinite(symmetry.separation(rows[recent], rows[k], near)) if recent else np.zeros(0, bool)
            if alike.any():
                labels[k] = labels[recent[int(alike.argmax())]]
            else:
                labels[k] = len(heads)
                heads.append(k)
        return labels, known

    def credit(self, numbers: np.ndarray, hits: np.ndarray) -> None:
        """Add hits (n,) to the points with these numbers (n,); -1 is none."""
        known = numbers >= 0
        np.add.at(self._room.hits, numbers[known], hits[known])

    def _merge(self, polished: State) -> np.ndarray:
        """Numbers of polished rows, -1 where the polish did not converge; what is new joins the catalogue."""
        good = np.nonzero((polished["status"] == Status.CONVERGED).cpu().numpy())[0]
        outputs = ("x", "energy", "gradient", "hessian", "eigenvalues", "modes")
        x, energy, gradient, hessian, eigenvalues, modes = (polished[k].cpu().numpy()[good] for k in outputs)
        index, degenerate = classify(eigenvalues, self._nearby_curvature(polished["x"][good], hessian))
        numbers = np.full(len(polished["status"]), -1)
        if self.energy.symmetry is not None:
            x = self.energy.symmetry.canonical(x)
            eigenvalues = self.energy.symmetry.spectrum(x, eigenvalues)
        for k, row in enumerate(good):
            known = self._find(x[k], energy[k], int(index[k]), bool(degenerate[k]))
            if known < 0:
                known = self._append(
                    x=x[k], energy=energy[k], gradient_norm=np.linalg.norm(gradient[k]), hessian=hessian[k],
                    eigenvalues=eigenvalues[k], index=index[k], degenerate=degenerate[k], hits=0, modes=modes[k],
                )  # fmt: skip
            numbers[row] = known
        return numbers

    def _nearby_curvature(self, x: torch.Tensor, hessian: np.ndarray) -> np.ndarray:
        """Size of the Hessian a little way off, by which a Hessian that vanishes as a whole (x^4) is known as zero: its
        norm, without Hessians the root mean square of its eigenvalues, since the norm of a flat spectrum is far larger
        than any of them in many dimensions.

        Where translations are declared the way leads to a copy, which has the same Hessian.
        """
        symmetry = self.energy.symmetry
        if not len(x) or (isinstance(symmetry, ParticleSymmetry) and symmetry.translation):
            return np.linalg.norm(hessian, axis=(1, 2))
        offset = NEARBY * (1 + x.norm(dim=1, keepdim=True)) / x.shape[1] ** 0.5
        size = mean_curvature(self.energy.hvp, torch.cat([x - offset, x + offset]), x.shape[1])
        size = size if self.energy.matrix_free else x.shape[1] ** 0.5 * size
        return size.nan_to_num(0.0, 0.0).reshape(2, -1).amax(0).cpu().numpy()

    def _append(self, **row: np.ndarray | np.generic | int) -> int:
        if self._size == len(self._room):  # twice the room, so that n points cost n copies, not n^2
            more = max(16, self._size)
            grown = {}
            for name, value in vars(self._room).items():
                grown[name] = np.concatenate([value, np.zeros((more, *value.shape[1:]), value.dtype)])
            self._room = StationaryPoints(**grown)
        for name, value in row.items():
            getattr(self._room, name)[self._size] = value
        self._size += 1
        return self._size - 1

    def _find(self, x: np.ndarray, energy: float, index: int, degenerate: bool) -> int:
        """The known point that this one is, -1 for none.

        Degenerate ones are compared without index and within DEGENERATE_X: along a flat direction Newton's method
        converges slowly, and a gradient of 1e-10 leaves a quartic minimum undetermined to some 1e-3 on either side.
        """
        found = self.points()
        both = found.degenerate & degenerate
        near = np.where(both, DEGENERATE_X, MERGE_X) * (1 + np.linalg.norm(x))
        same = ((found.index == index) | both) & (np.abs(found.energy - energy) < MERGE_E * (1 + abs(energy)))
        if self.energy.symmetry is None:
            same &= np.linalg.norm(found.x - x, axis=1) < near
        elif same.any():
            at = np.flatnonzero(same)
            same[at] = np.isfinite(self.energy.symmetry.separation(found.x[at], x, float(near[at].max())))
        return int(np.argmax(same)) if same.any() else -1
