"""The generator of overdamped dynamics on a grid, d <= 3: finite volumes with Scharfetter-Gummel fluxes.

From cell a to its neighbour b at distance h along coordinate k, with D_k = 1 / (beta gamma_k):

    Q_ab = D_k / h^2 * B(beta (E_b - E_a)),   B(u) = u / (exp(u) - 1).

Detailed balance with pi_a ~ exp(-beta E_a) is exact; eigenvalues, committors and rates have errors of order h^2.

A rotation J adds the divergence-free current -pi J grad E = (1/beta) J grad pi. Around every corner c that four cells
share in the plane of coordinates k, l it is a circulation of strength

    psi_c = J_kl pi_c / (beta h_k h_l),   pi_c the geometric mean of the four cells,

and Phi_ab, the sum of the circulations beside the face of a and b, adds Phi_ab / 2 pi_a to Q_ab and -Phi_ab / 2 pi_b to
Q_ba. As what flows into a cell flows out of it, pi stays exactly stationary and rows still sum to 0. Where |Phi_ab| / 2
exceeds the conductance pi_a Q_ab (steep walls on coarse grids), that is raised to it, so that no rate is negative. The
boundary reflects, but in a coordinate in which the energy is periodic and the box as long as its period: there the last
cell is a neighbour of the first. Cells far above every pass that matters are dropped, so a box need not fit tightly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, sparse

from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy, Periodic
from landscape.errors import UnsupportedError, UsageError
from landscape.rates.cores import Cores
from landscape.rates.pieces import main_piece, pass_level, pieces

CELLS = {1: 2000, 2: 240, 3: 56}  # along each coordinate
MARGIN = 20.0  # cells are dropped above the highest pass plus this, in units of 1/beta: 2e-9 of its flux
SURVEY = {1: 2000, 2: 128, 3: 40}  # cells along each coordinate while the box is being found
MAX_CELLS = 4_000_000
MAX_GROWTH = 60
CHUNK = 200_000


@dataclass(frozen=True)
class GridGenerator:
    """The generator Q on m cells, and what is needed to solve with it.

    box (d, 2), shape (d,), spacing (d,) : the grid. points (m, d) : centres of the cells kept.
    log_weight (m,) : log pi, normalised over the cells. bound : cells with beta (E - E_min) above it were dropped.
    edges (e, 2), axis (e,) : neighbouring cells, a before b, and the coordinate along which they lie.
    step (e,) : beta (E_b - E_a). diffusion (d,) : D_k = 1 / (beta gamma_k). circulation (e,) : Phi_ab over
    (pi_a pi_b)^(1/2), 1/time; None for reversible dynamics. wraps (d,) : coordinates whose ends meet; () for none.
    """

    box: np.ndarray
    shape: tuple[int, ...]
    points: np.ndarray
    log_weight: np.ndarray
    bound: float
    edges: np.ndarray
    axis: np.ndarray
    step: np.ndarray
    diffusion: np.ndarray
    circulation: np.ndarray | None = None
    wraps: tuple[bool, ...] = ()

    @property
    def reversible(self) -> bool:
        return self.circulation is None

    @property
    def spacing(self) -> np.ndarray:
        return np.asarray((self.box[:, 1] - self.box[:, 0]) / np.array(self.shape))

    @property
    def stationary(self) -> np.ndarray:
        """pi (m,), sums to 1."""
        return np.exp(self.log_weight)

    @property
    def hop(self) -> np.ndarray:
        """D_k / h_k^2 of each edge, (e,)."""
        return np.asarray((self.diffusion / self.spacing**2)[self.axis])

    @property
    def stirring(self) -> np.ndarray:
        """Circulation of each edge, (e,); 0 for reversible dynamics."""
        return np.zeros(len(self.edges)) if self.circulation is None else self.circulation

    @property
    def excess(self) -> np.ndarray:
        """What the symmetric coupling of each edge, over (pi_a pi_b)^(1/2), is raised by for a circulation that is
        stronger, (e,)."""
        return np.maximum(0.5 * np.abs(self.stirring) - self.hop * symmetric_bernoulli(self.step), 0)

    def matrix(self) -> sparse.csr_array:
        """Q (m, m), 1/time, rows sum to 0."""
        ratio = np.exp(-0.5 * np.clip(self.step, -700, 700))  # (pi_b / pi_a)^(1/2)
        forward = self.hop * bernoulli(self.step) + (self.excess + 0.5 * self.stirring) * ratio
        backward = self.hop * bernoulli(-self.step) + (self.excess - 0.5 * self.stirring) / ratio
        a, b = self.edges.T
        m = len(self.points)
        leave = np.bincount(a, forward, m) + np.bincount(b, backward, m)
        return _assembled(self.edges, forward, backward, -leave)

    def symmetrised(self) -> sparse.csr_array:
        """-pi^(1/2) Q pi^(-1/2) (m, m): symmetric if reversible, its symmetric part positive semidefinite; pi^(1/2) is
        its null vector from both sides."""
        couple = -self.hop * symmetric_bernoulli(self.step) - self.excess
        return _assembled(self.edges, couple - 0.5 * self.stirring, couple + 0.5 * self.stirring, self.leaving())

    def leaving(self, edges: np.ndarray | None = None) -> np.ndarray:
        """Rate out of every cell over all edges, or over those of a mask (e,), without circulation: (m,)."""
        kept = slice(None) if edges is None else edges
        a, b = self.edges[kept].T
        m, step, hop, excess = len(self.points), self.step[kept], self.hop[kept], self.excess[kept]
        ratio = np.exp(-0.5 * np.clip(step, -700, 700))
        up = np.bincount(a, hop * bernoulli(step) + excess * ratio, m)
        return np.asarray(up + np.bincount(b, hop * bernoulli(-step) + excess / ratio, m))

    def conductance(self) -> np.ndarray:
        """The symmetric part of pi_a Q_ab of each edge, (e,)."""
        log_a, log_b = self.log_weight[self.edges].T
        return np.exp(log_a) * self.hop * bernoulli(self.step) + np.exp(0.5 * (log_a + log_b)) * self.excess

    def current(self) -> np.ndarray:
        """Phi_ab of each edge, (e,): net probability current from a to b in the stationary state, 1/time."""
        return np.exp(0.5 * self.log_weight[self.edges].sum(axis=1)) * self.stirring

    def time_reversed(self) -> GridGenerator:
        """The generator of the stationary process run backwards in time: the circulation turns the other way."""
        return self if self.circulation is None else replace(self, circulation=-self.circulation)

    def cell_of(self, points: np.ndarray) -> np.ndarray:
        """The kept cell whose centre is nearest to each point (n, d), among the cells around it: (n,)."""
        index = self._wrapped(np.floor((np.atleast_2d(points) - self.box[:, 0]) / self.spacing).astype(int))
        table = self._table()
        if (index < 0).any() or (index >= self.shape).any() or (table[tuple(index.T)] < 0).any():
            raise UsageError("a point lies outside the cells of the grid: widen the box or raise the bound")
        return np.asarray(table[tuple(index.T)])

    def copies(self, points: np.ndarray) -> np.ndarray:
        """The copies of points (n, d) inside the box, in coordinates whose ends meet."""
        low, width = self.box[:, 0], np.ptp(self.box, axis=1)
        return np.where(np.array(self.wraps or False), low + np.mod(points - low, width), points)

    def interpolate(self, values: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Values (m,) given on the cells, at points (n, d): multilinear between cell centres, so of order h^2.

        UsageError where one of the surrounding cells was dropped or does not exist.
        """
        where = (np.atleast_2d(points) - self.box[:, 0]) / self.spacing - 0.5
        low = np.floor(where).astype(int)
        low = np.where(np.array(self.wraps or False), low, np.clip(low, 0, np.array(self.shape) - 2))
        part, table, result = where - low, self._table(), np.zeros(len(where))
        for corner in itertools.product((0, 1), repeat=len(self.shape)):
            weight = np.prod(np.where(corner, part, 1 - part), axis=1)
            cell = table[tuple(self._wrapped(low + corner).T)]
            if (cell[weight != 0] < 0).any() or (part < -0.5).any() or (part > 1.5).any():
                raise UsageError("a point lies outside the cells of the grid: widen the box or raise the bound")
            result += np.where(weight != 0, weight * values[cell], 0)
        return result

    def _wrapped(self, index: np.ndarray) -> np.ndarray:
        """Multi-indices (..., d), inside the shape where the ends meet."""
        return np.where(np.array(self.wraps or False), index % np.array(self.shape), index)

    def _table(self) -> np.ndarray:
        table = np.full(self.shape, -1)
        index = np.floor((self.points - self.box[:, 0]) / self.spacing).astype(int)
        table[tuple(index.T)] = np.arange(len(self.points))
        return table


def bernoulli(u: np.ndarray) -> np.ndarray:
    """B(u) = u / (exp(u) - 1), 1 at u = 0."""
    u = np.asarray(u, dtype=float)
    safe = np.where(u == 0, 1.0, np.minimum(u, 700))
    return np.where(u == 0, 1.0, safe / np.expm1(safe))


def symmetric_bernoulli(u: np.ndarray) -> np.ndarray:
    """(B(u) B(-u))^(1/2) = (u/2) / sinh(u/2)."""
    half = np.minimum(np.abs(np.asarray(u, dtype=float)) / 2, 350)
    return np.where(half == 0, 1.0, half / np.sinh(np.where(half == 0, 1.0, half)))


def grid_generator(
    energy: Energy,
    dynamics: Dynamics,
    *,
    box: Sequence[Sequence[float]] | np.ndarray | None = None,
    cells: int | Sequence[int] | None = None,
    cores: Cores | None = None,
    bound: float | None = None,
) -> GridGenerator:
    """Build the generator of `dynamics` (overdamped) for an energy of at most three dimensions.

    box : (d, 2) limits; None finds them around the cores (`find_box`). cells : along each coordinate, a number or d
    numbers; by default 2,000 in one dimension, 240 in two, 56 in three. bound : drop cells with beta (E - E_min)
    above it; by default 20 above the lowest level at which all cores (or, without cores, all grid minima) are
    connected. Of what is left, the piece that holds the lowest cell is kept. UsageError for a box or a number of cells
    that makes no sense; UnsupportedError for d > 3 or underdamped dynamics.
    """
    d = energy.dim
    _supported(dynamics, d)
    if box is None:
        if cores is None:
            raise UsageError("a grid needs a box, or cores around which to find one")
        limits, found = find_box(energy, dynamics.beta, cores, bound)
        bound = found if bound is None else bound
    else:
        limits = np.asarray(box, dtype=float)
    if limits.shape != (d, 2) or not (np.isfinite(limits).all() and (limits[:, 0] < limits[:, 1]).all()):
        raise UsageError(f"a box is {d} pairs of finite limits, low < high, not {np.asarray(box).tolist()}")
    shape = tuple(int(c) for c in np.broadcast_to(CELLS[d] if cells is None else cells, (d,)))
    if min(shape) < 4 or math.prod(shape) > MAX_CELLS:
        raise UsageError(
            f"a grid has 4 or more cells along each coordinate and at most {MAX_CELLS} in all, not {shape}"
        )
    wraps = _wraps(energy, limits)
    if any(wraps) and not dynamics.reversible:
        raise UnsupportedError("a grid of a periodic energy is for reversible dynamics: use simulated passages")
    points = _centers(limits, shape)
    reduced = _reduced(energy, dynamics.beta, points).reshape(shape)
    if bound is None:
        bound = pass_level(reduced, _seeds(reduced, limits, cores), wraps) + MARGIN
    keep = main_piece(reduced <= bound, reduced, wraps)
    table = np.full(shape, -1)
    table[keep] = np.arange(keep.sum())
    energies = reduced[keep]
    log_weight = -energies - np.log(np.exp(-energies).sum())
    edges, axis = _neighbours(table, wraps)
    step = energies[edges[:, 1]] - energies[edges[:, 0]]
    diffusion, rotation = 1 / (dynamics.beta * dynamics.gamma_vector(d)), dynamics.rotation_matrix(d)
    spacing = (limits[:, 1] - limits[:, 0]) / np.array(shape)
    current = None if rotation is None else _circulation(table, log_weight, rotation / dynamics.beta, spacing)
    return GridGenerator(
        limits, shape, points[keep.ravel()], log_weight, float(bound), edges, axis, step, diffusion,
        current, wraps,
    )  # fmt: skip


def find_box(energy: Energy, beta: float, cores: Cores, bound: float | None = None) -> tuple[np.ndarray, float]:
    """A box (d, 2) outside of which beta (E - E_min) exceeds the bound, and that bound.

    Grown from the cores on a coarse grid until no cell at a face lies in the part below the bound that is connected
    with them; the bound is 20 above the level that connects all cores, unless given. In a periodic coordinate it is one
    period, which ends in the middle of the largest gap between cores. UsageError if the box still grows after 60 steps:
    the energy does not confine.
    """
    d = energy.dim
    reach = np.sqrt(np.linalg.eigvalsh(np.linalg.inv(cores.form))[:, -1:])
    low, high = (cores.center - 2 * reach).min(axis=0), (cores.center + 2 * reach).max(axis=0)
    wraps = np.zeros(d, dtype=bool)
    if isinstance(energy.symmetry, Periodic):
        wraps, whole = energy.symmetry.mask, energy.symmetry.cell(cores.center)
        low, high = np.where(wraps, whole[:, 0], low), np.where(wraps, whole[:, 1], high)
    shape = (SURVEY[d],) * d
    for _ in range(MAX_GROWTH):
        limits = np.stack([low, high], axis=1)
        reduced = _reduced(energy, beta, _centers(limits, shape)).reshape(shape)
        seeds = _seeds(reduced, limits, cores)
        level = pass_level(reduced, seeds, tuple(wraps)) + MARGIN if bound is None else bound
        number = pieces(reduced <= level, tuple(wraps))
        inside = np.isin(number, np.unique(number[tuple(seeds.T)])) & (number > 0)
        rows = [np.flatnonzero(inside.any(axis=tuple(set(range(d)) - {k}))) for k in range(d)]
        width = high - low
        open_low = np.array([r[0] == 0 for r in rows]) & ~wraps
        open_high = np.array([r[-1] == s - 1 for r, s in zip(rows, shape, strict=True)]) & ~wraps
        if not (open_low | open_high).any():
            h = width / np.array(shape)
            first, last = np.array([r[0] for r in rows]), np.array([r[-1] for r in rows])
            ends = np.where(wraps, low, low + (first - 1) * h), np.where(wraps, high, low + (last + 2) * h)
            return np.stack(ends, axis=1), float(level)
        low, high = low - 0.25 * width * open_low, high + 0.25 * width * open_high
    raise UsageError(
        f"no box found: beta (E - E_min) stays below {level:.0f} out to {limits.tolist()}; the energy does not confine "
        "there, so give a box (its walls reflect)"
    )


def _supported(dynamics: Dynamics, d: int) -> None:
    if not isinstance(dynamics, Overdamped):
        raise UnsupportedError("the grid generator is for overdamped dynamics; see klein_kramers or simulated passages")
    if d > 3:
        raise UnsupportedError(f"a grid is possible up to 3 dimensions, not {d}; use simulated passages")


def _assembled(edges: np.ndarray, forward: np.ndarray, backward: np.ndarray, diagonal: np.ndarray) -> sparse.csr_array:
    (a, b), m = edges.T, len(diagonal)
    cells = np.arange(m)
    data, rows, columns = (forward, backward, diagonal), (a, b, cells), (b, a, cells)
    entries = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(entries, shape=(m, m))


def _circulation(table: np.ndarray, log_weight: np.ndarray, strength: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Phi_ab / (pi_a pi_b)^(1/2) of every edge, in the order of `grid_generator`: coordinate by coordinate.

    table : the number of each cell, -1 where dropped; a corner with a dropped cell has no circulation.
    strength (d, d) : J / beta. The current through a face of coordinate k is the sum over l of J_kl / beta times the
    difference of pi between its two corners along l.
    """
    d = table.ndim
    padded = np.append(log_weight, np.nan)  # entry -1
    parts = []
    for k in range(d):
        low = table[(slice(None),) * k + (slice(None, -1),)]
        high = table[(slice(None),) * k + (slice(1, None),)]
        face = 0.5 * (padded[low] + padded[high])
        total = np.zeros(face.shape)
        for other in range(d):
            if other == k or strength[k, other] == 0:
                continue
            near = np.moveaxis(face, other, 0)
            # log of pi at the corner over that of the face, on its far and on its near side
            far = np.concatenate([0.5 * np.diff(near, axis=0), np.full_like(near[:1], np.nan)])
            back = np.concatenate([np.full_like(near[:1], np.nan), -0.5 * np.diff(near, axis=0)])
            corners = np.nan_to_num(np.exp(far), nan=0.0) - np.nan_to_num(np.exp(back), nan=0.0)
            total += np.moveaxis(corners, 0, other) * strength[k, other] / (spacing[k] * spacing[other])
        parts.append(total[(low >= 0) & (high >= 0)])
    return np.concatenate(parts)


def _centers(limits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    axes = [low + (np.arange(n) + 0.5) * (high - low) / n for (low, high), n in zip(limits, shape, strict=True)]
    return np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)


def _reduced(energy: Energy, beta: float, points: np.ndarray) -> np.ndarray:
    """beta (E - E_min), (m,); infinite where the energy is not finite."""
    parts = [energy.value(points[i : i + CHUNK]) for i in range(0, len(points), CHUNK)]
    values = beta * np.concatenate(parts)
    values = np.where(np.isfinite(values), values, np.inf)
    if not np.isfinite(values).any():
        raise UsageError("the energy is finite nowhere on the grid: choose another box")
    return np.asarray(values - values.min())


def _seeds(reduced: np.ndarray, limits: np.ndarray, cores: Cores | None) -> np.ndarray:
    """Multi-indices (k, d) of the cells that must stay connected: those of the cores, or the grid minima below 40."""
    if cores is None:
        lowest = ndimage.minimum_filter(reduced, size=3, mode="nearest") == reduced
        return np.argwhere(lowest & (reduced < 2 * MARGIN))
    shape = np.array(reduced.shape)
    center, middle = cores.center, limits.mean(axis=1)
    if cores.symmetry is not None:
        center = middle + cores.offset(center, middle)
    index = np.floor((center - limits[:, 0]) / (limits[:, 1] - limits[:, 0]) * shape).astype(int)
    if (index < 0).any() or (index >= shape).any():
        raise UsageError("a core lies outside the box: widen the box or leave it out")
    return index


def _wraps(energy: Energy, limits: np.ndarray) -> tuple[bool, ...]:
    """Coordinates (d,) in which the box (d, 2) is as long as the energy's period."""
    if not isinstance(energy.symmetry, Periodic):
        return (False,) * energy.dim
    return tuple(bool(fits) for fits in np.isclose(np.ptp(limits, axis=1), energy.symmetry.lengths, rtol=1e-9))


def _neighbours(table: np.ndarray, wraps: tuple[bool, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (e, 2) of neighbouring cells, numbered in `table` (-1 for none), and the axis (e,) along which they lie."""
    pairs, axes = [], []
    for k in range(table.ndim):
        far = np.roll(table, -1, axis=k)
        if not wraps[k]:
            far[(slice(None),) * k + (-1,)] = -1
        a, b = table.ravel(), far.ravel()
        both = (a >= 0) & (b >= 0)
        pairs.append(np.stack([a[both], b[both]], axis=1))
        axes.append(np.full(both.sum(), k))
    return np.concatenate(pairs), np.concatenate(axes)
