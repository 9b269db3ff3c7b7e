"""Log-determinants of Hessians from Hessian-vector products: stochastic Lanczos quadrature with error bars.

log |det H| = sum of log |lambda| over modes that are known + trace of log(P H P) over the rest, P the projection away
from them. The trace is the mean of z.log(P H P)z over random directions z, each of which Lanczos turns into a Gauss
quadrature (Golub and Meurant 1994; Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38, 1075 (2017)). All points see
the same directions, so that differences of log-determinants, which is what rates and weights need, scatter far
less than each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import LinAlgError, eigh_tridiagonal, solveh_banded

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.search.lanczos import Product, Tridiagonals
from landscape.search.modes import BLOCK, known_modes

LOOKED_AT = 3  # directions a point whose brackets say how many steps are enough for all
STRIDE = 16  # Lanczos steps between two looks at the quadratures
SHARP = 1e-5  # residual of a mode that is taken exactly, in units of sqrt(|theta| lowest): its error is the square
BRACKET = 0.5  # width of a quadrature's bracket at which Lanczos stops, in units of target_se
MARGIN = 0.5  # the spectrum left over lies above this part of its lowest Ritz value, as far as brackets are concerned


@dataclass(frozen=True)
class LogDeterminantOptions:
    """How `log_determinants` works.

    target_se : standard error of half of each difference that matters, which is that of the logarithm of a rate, at
    which it stops. min_probes, max_probes : random directions. max_steps : Lanczos steps, one Hessian-vector product
    each, of a direction. known_modes : products a point that look for modes at both ends to be taken exactly.
    dense : form each Hessian after all (d products, d^2 numbers, one point at a time): exact.
    """

    target_se: float = 0.05
    min_probes: int = 16
    max_probes: int = 256
    max_steps: int = 400
    known_modes: int = 96
    dense: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target_se) and self.target_se > 0):
            raise UsageError(f"target_se of the determinants is greater than 0, not {self.target_se!r}")
        if not 2 <= self.min_probes <= self.max_probes or min(self.max_steps, self.known_modes) < 1:
            raise UsageError(
                "determinants need 2 <= min_probes <= max_probes, max_steps >= 1 and known_modes >= 1, not "
                f"{self.min_probes!r}, {self.max_probes!r}, {self.max_steps!r}, {self.known_modes!r}"
            )


@dataclass(frozen=True, eq=False)
class LogDeterminants:
    """log |det H| of n points as m common random directions saw it.

    samples (n, m) : their mean over m is the estimate. bracket (n,) : half the width of the interval that holds the
    quadratures for certain; infinite where the Hessian has negative modes besides the known ones.
    """

    samples: np.ndarray
    bracket: np.ndarray

    @staticmethod
    def exact(values: np.ndarray) -> LogDeterminants:
        """Known values (n,), without an error."""
        return LogDeterminants(np.asarray(values, float)[:, None], np.zeros(len(values)))

    @property
    def values(self) -> np.ndarray:
        """(n,)"""
        return self.samples.mean(1)

    @property
    def errors(self) -> np.ndarray:
        """Standard errors (n,) of `values`, brackets added."""
        return _standard_error(self.samples) + self.bracket

    def error_of_difference(self, i: np.ndarray, other: LogDeterminants, j: np.ndarray) -> np.ndarray:
        """Standard error of log|det H_i| - log|det H_j|, j among the points of `other`: of the same directions."""
        return _standard_error(self.samples[i] - other.samples[j]) + self.bracket[i] + other.bracket[j]

    def select(self, rows: np.ndarray | slice) -> LogDeterminants:
        return LogDeterminants(self.samples[rows], self.bracket[rows])


def _standard_error(samples: np.ndarray) -> np.ndarray:
    m = samples.shape[-1]
    return np.zeros(samples.shape[:-1]) if m == 1 else samples.std(-1, ddof=1) / math.sqrt(m)


def log_determinants(
    energy: Energy,
    x: np.ndarray,
    modes: np.ndarray,
    pairs: np.ndarray,
    options: LogDeterminantOptions | None = None,
    *,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> LogDeterminants:
    """log |det H| at the stationary points x (n, d), whose lowest modes (n, k, d) hold every negative one.

    Probes are added until the differences of all `pairs` (m, 2) have standard errors of at most 2 target_se, or
    max_probes are used; the error bars say what was reached. Directions are drawn from `seed`.
    """
    options = options or LogDeterminantOptions()
    points = torch.as_tensor(x, dtype=energy.dtype, device=energy.device)
    if options.dense:
        return LogDeterminants.exact(
            np.array([float(torch.linalg.slogdet(energy.hessian(p[None]))[1]) for p in points])
        )
    known = torch.as_tensor(modes, dtype=energy.dtype, device=energy.device)
    found = known_modes_at(energy.hvp, points, known, options.known_modes)
    trials = []
    # Sharp modes taken out at both ends help where they lie far out, and hurt where each point has others there.
    for ends in (True, False):
        spectrum = _Known.of(ends, *found)
        estimate = _quadratures(energy.hvp, points, spectrum, _directions(energy, seed, 0, options.min_probes), options)
        trials.append((_worst(_together(estimate, spectrum), pairs), spectrum, estimate))
        if not spectrum.rest.any():
            break
    worst, spectrum, estimate = min(trials, key=lambda trial: trial[0])
    while worst > options.target_se and estimate[0].shape[1] < options.max_probes:
        first = estimate[0].shape[1]
        more = min(first, options.max_probes - first)
        further = _quadratures(energy.hvp, points, spectrum, _directions(energy, seed, first, more), options)
        estimate = np.concatenate([estimate[0], further[0]], 1), np.concatenate([estimate[1], further[1]], 1)
        worst = _worst(_together(estimate, spectrum), pairs)
        if progress is not None:
            progress(f"determinants: {first + more} random directions, standard error of log rates {worst:.3f}")
    return _together(estimate, spectrum)


def _together(estimate: tuple[np.ndarray, ...], spectrum: _Known) -> LogDeterminants:
    samples, widths = estimate
    return LogDeterminants(samples, widths.mean(1) + spectrum.leak)


def _worst(found: LogDeterminants, pairs: np.ndarray) -> float:
    """The largest standard error of half a difference, of those that further directions can lower."""
    errors = 0.5 * found.error_of_difference(pairs[:, 0], found, pairs[:, 1])
    return float(errors[np.isfinite(errors)].max(initial=0.0))


def _directions(energy: Energy, seed: int, first: int, count: int) -> torch.Tensor:
    """Random directions number `first` and on, (count, d): each from a generator of its own."""
    rows = [
        torch.randn(energy.dim, generator=torch.Generator().manual_seed(seed * 2**20 + k), dtype=torch.float64)
        for k in range(first, first + count)
    ]
    return torch.stack(rows).to(energy.device, energy.dtype)


@dataclass(frozen=True)
class _Known:
    """What is known exactly of n Hessians: log_det (n,), the sum over modes taken out; these modes, outside (n, j, d)
    (zero vectors fill up); rest (n,): how many remain; floor (n,): a lower bound of what remains; leak (n,): an upper
    bound on the error that inexact modes make."""

    log_det: np.ndarray
    outside: torch.Tensor
    rest: np.ndarray
    floor: np.ndarray
    leak: np.ndarray

    @staticmethod
    def of(
        ends: bool, values: torch.Tensor, vectors: torch.Tensor, residuals: torch.Tensor, n_negative: torch.Tensor,
        n_low: torch.Tensor, n_high: torch.Tensor,
    ) -> _Known:  # fmt: skip
        """All negative modes, and with `ends` as many sharp ones at either end as every point has: taken out of one
        point only, a mode would no longer cancel in a difference."""
        m, d = vectors.shape[1:]
        low, high = (int(n_low.min()), int(n_high.min())) if ends else (0, 0)
        rank = torch.arange(m, device=values.device) - n_negative[:, None]
        taken = (rank < low) | (torch.arange(m, device=values.device) >= m - high)
        if m == d:  # the subspace is the whole space
            taken = torch.ones_like(taken)
        lowest = torch.where(values > 0, values, torch.inf).amin(1)
        last = values.gather(1, (n_negative + low - 1).clamp_min(0)[:, None])[:, 0]
        floor = torch.where(torch.full_like(n_negative, low) > 0, (1 - 1e-3) * last, MARGIN * lowest)
        leak = torch.where(taken, residuals.square() / (values.abs() * floor[:, None]), 0).sum(1)
        # Rows with fewer modes than others keep zero vectors, which project nothing away.
        most = int(taken.sum(1).max())
        order = (~taken).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
        outside = vectors.gather(1, order[:, :, None].expand(-1, -1, d))
        outside = torch.where(taken.gather(1, order)[:, :, None], outside, 0)
        log_det = torch.where(taken, values.abs().log(), 0).sum(1)
        return _Known(
            log_det.cpu().numpy(), outside, d - taken.sum(1).cpu().numpy(), floor.cpu().numpy(), leak.cpu().numpy()
        )


def known_modes_at(product: Product, points: torch.Tensor, seeds: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """What `_sharp_ends` tells of `known_modes`, for as many points at a time as memory allows."""
    rows = _rows(2 * (size + seeds.shape[1]), seeds.shape[2])
    parts = zip(points.split(rows), seeds.split(rows), strict=True)
    found = [_sharp_ends(*known_modes(product, x, modes, size)) for x, modes in parts]
    return tuple(torch.cat([part[k] for part in found]) for k in range(6))


def _sharp_ends(
    values: torch.Tensor, vectors: torch.Tensor, residuals: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The arguments, and how many modes are negative, how many positive ones are sharp from below, and from above."""
    positive = values > 0
    lowest = torch.where(positive, values, torch.inf).amin(1, keepdim=True)
    sharp = residuals <= SHARP * (values.abs() * MARGIN * lowest).sqrt()
    n_negative = (~positive).sum(1)
    n_low = (sharp | ~positive).long().cumprod(1).sum(1) - n_negative
    n_high = (sharp & positive).flip(1).long().cumprod(1).sum(1)
    # A space that is sharp throughout must not be counted twice.
    n_high = torch.minimum(n_high, values.shape[1] - n_negative - n_low)
    return values, vectors, residuals, n_negative, n_low.clamp_min(0), n_high


def _rows(vectors: int, dim: int) -> int:
    return max(1, BLOCK // (vectors * dim))


def _quadratures(
    product: Product, points: torch.Tensor, known: _Known, directions: torch.Tensor, options: LogDeterminantOptions
) -> tuple[np.ndarray, np.ndarray]:
    """log |det H| as each direction (p, d) sees it at each point, (n, p), and half the width of its bracket, (n, p)."""
    n, p, d = len(points), len(directions), directions.shape[1]
    values, widths = np.zeros(n * p), np.zeros(n * p)
    for at in torch.arange(n, device=points.device).split(_rows(known.outside.shape[1] + 6 * p, d)):
        start = directions.repeat(len(at), 1)
        lanczos = Tridiagonals(product, points[at].repeat_interleave(p, 0), start, known.outside[at])
        point = at.repeat_interleave(p).cpu().numpy()
        row = int(at[0]) * p + np.arange(len(point))
        some = np.flatnonzero((np.arange(len(point)) % p < LOOKED_AT) & (known.rest[point] > 0))
        while len(some) and lanczos.n_steps < options.max_steps:
            lanczos.extend(min(STRIDE, options.max_steps - lanczos.n_steps))
            width = [
                log_quadrature(*lanczos.row(int(k)), known.floor[point[k]])[1] * known.rest[point[k]] for k in some
            ]
            some = some[(np.array(width) > BRACKET * options.target_se) & np.isfinite(width)]
        for k in np.flatnonzero(known.rest[point] > 0):
            mean, half = log_quadrature(*lanczos.row(int(k)), known.floor[point[k]])
            values[row[k]], widths[row[k]] = mean * known.rest[point[k]], half * known.rest[point[k]]
    return values.reshape(n, p) + known.log_det[:, None], widths.reshape(n, p)


def log_quadrature(diagonal: np.ndarray, off_diagonal: np.ndarray, onward: float, floor: float) -> tuple[float, float]:
    """The middle of a bracket around e.log(H)e, and half its width, from the Lanczos matrix T of H started at the unit
    vector e; `onward` is the entry of T that leads to the next step, `floor` > 0 below the spectrum.

    Gauss quadrature lies above, as all even derivatives of the logarithm are negative, and Gauss-Radau quadrature with
    a node at the floor below (Golub and Meurant 1994). Infinitely wide where T is not positive: then H is not, either.
    """
    above, positive = _log_rule(diagonal, off_diagonal)
    if onward == 0 or not positive:
        return above, 0.0 if positive else math.inf
    shifted = np.zeros((2, len(diagonal)))
    shifted[0, 1:], shifted[1] = off_diagonal, diagonal - floor
    right = np.zeros(len(diagonal))
    right[-1] = onward**2
    try:
        last = floor + solveh_banded(shifted, right)[-1]
    except LinAlgError:  # the floor lies above a Ritz value: there is no bound from below
        return above, math.inf
    below, positive = _log_rule(np.append(diagonal, last), np.append(off_diagonal, onward))
    if not positive:
        return above, math.inf
    return 0.5 * (above + below), 0.5 * abs(above - below)


def _log_rule(diagonal: np.ndarray, off_diagonal: np.ndarray) -> tuple[float, bool]:
    """Gauss quadrature of log |lambda|, and whether all nodes are positive."""
    if not (np.isfinite(diagonal).all() and np.isfinite(off_diagonal).all()):
        return math.nan, False
    nodes, vectors = eigh_tridiagonal(diagonal, off_diagonal)
    sizes = np.log(np.abs(nodes).clip(np.finfo(float).tiny))
    return float(vectors[0] ** 2 @ sizes), bool(nodes[0] > 0)
