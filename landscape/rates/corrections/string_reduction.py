"""The one-dimensional reduction along a minimum energy path: a free energy, and its passage time by quadrature.

In coordinates in which friction is 1 (x gamma^(1/2)), with arclength s along the path phi(s) and H_perp the Hessian
across it,

    F(s) = E(phi(s)) + (1 / 2 beta) log det(beta H_perp(s) / 2 pi),   D = 1 / beta,

    1 / k_ij = int_a^b ds exp(beta F) / D * int ds' q_i exp(-beta F),
    q_i(s') = int_s'^b exp(beta F) / int_a^b exp(beta F),

a and b where the path leaves core i and enters core j (the minima themselves for level 0: 1/k is then the mean first
passage time from minimum to minimum). Exact in one dimension, at every barrier, and for wells whose transverse
directions are harmonic and do not couple. On a bent path it is not: transverse anharmonicity and the widening of bends
are missing. Read as a capacity it is .85, .78 and .73 of the exact one on Mueller-Brown at kT = 10, 15 and 20, where
Eyring-Kramers is 1.13, 1.19 and 1.20 of it.

W. Ren, E. Vanden-Eijnden, J. Chem. Phys. 138, 134105 (2013); the same with committors as in `landscape.rates.cores`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load on first use

from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy
from landscape.errors import UnsupportedError, UsageError

POINTS = 1200  # of the quadrature between the ends of a path
TAIL = 400  # and beyond each end, out to
HIGHEST = 30.0  # above the minimum there, in units of 1/beta
GROWTH = 60  # doublings of the length of a tail
FLOOR = 1e-3  # least transverse curvature, in units of the largest at the path's ends: flatter ones are unphysical here


@dataclass(frozen=True)
class StringRates:
    """Reduction along p paths. log_rates (p, 2) : from the first to the last end, and back, 1/time.

    log_capacity (p,) : log of Z times the capacity, 1/(beta int exp(beta F)), comparable with Eyring-Kramers'
    log(mu / 2 pi) - beta E_s + .5 log((2 pi / beta)^d / |det H_s|), in the units of exp(-beta E) length^d / time.
    arclength, free_energy (p, k) : s and F at the images, friction-weighted. concave (p,) : share of the resistance
    that lies where a transverse curvature was not positive and was raised to a floor: above a tenth or so the
    reduction means nothing. nan where a path holds values that are not finite.
    """

    log_rates: np.ndarray
    log_capacity: np.ndarray
    arclength: np.ndarray
    free_energy: np.ndarray
    concave: np.ndarray


def string_rates(
    energy: Energy, dynamics: Dynamics, images: np.ndarray, *, level: float = 0.0, radius: float | None = None
) -> StringRates:
    """Rates by the reduction along paths (p, k, d) between minima, k >= 5 images each, ends included.

    level : of the cores beta (x - x_i)' H_i (x - x_i) < level at whose surfaces a passage begins and ends; radius :
    instead of it, discs |x - x_i| < radius. The energy is evaluated on a spline through the images, their Hessians
    at the images. UsageError for shapes that do not fit; UnsupportedError for underdamped or non-reversible dynamics.
    """
    if not isinstance(dynamics, Overdamped) or not dynamics.reversible:
        raise UnsupportedError("the reduction along a string is for reversible overdamped dynamics")
    paths = np.asarray(images, dtype=float)
    if paths.ndim != 3 or paths.shape[1] < 5 or paths.shape[2] != energy.dim:
        raise UsageError(f"paths have shape (p, k, {energy.dim}) with k >= 5 images, not {paths.shape}")
    if not level >= 0 or (radius is not None and not radius > 0):
        raise UsageError(f"a core has a level of at least 0, or a radius above 0, not {level!r}, {radius!r}")
    p, k, d = paths.shape
    root = np.sqrt(dynamics.gamma_vector(d))
    hessians = energy.hessian(paths.reshape(-1, d)).reshape(p, k, d, d) / root[:, None] / root
    rates, capacity, concave = np.full((p, 2), np.nan), np.full(p, np.nan), np.full(p, np.nan)
    length, free = np.full((p, k), np.nan), np.full((p, k), np.nan)
    for n in range(p):
        if not (np.isfinite(hessians[n]).all() and np.isfinite(paths[n]).all()):
            continue
        string = _String(energy, dynamics.beta, paths[n] * root, root, hessians[n])
        rates[n], capacity[n], concave[n] = string.solve(level, radius)
        length[n], free[n] = string.s, string.free
    return StringRates(rates, capacity, length, free, concave)


class _String:
    """One path in friction-weighted coordinates y = x gamma^(1/2), as a spline in its arclength."""

    def __init__(self, energy: Energy, beta: float, y: np.ndarray, root: np.ndarray, hessians: np.ndarray) -> None:
        self.energy, self.beta, self.root, self.d = energy, beta, root, y.shape[1]
        self.s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(y, axis=0), axis=1))])
        if not (np.diff(self.s) > 0).all():
            raise UsageError("a path has images that coincide; let the string method space them")
        self.curve, self.hessians = scipy.interpolate.CubicSpline(self.s, y), hessians
        tangent = self.curve(self.s, 1)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        self.entropy, self.concave = self._transverse(tangent)
        self.base = float(self._energy(y[:1])[0])
        self.free = self._energy(y) - self.base + self.entropy(self.s) / beta
        self.tangent = tangent

    def _transverse(self, tangent: np.ndarray) -> tuple[scipy.interpolate.CubicSpline, np.ndarray]:
        """.5 log det(beta H_perp / 2 pi) as a spline, and at which images a curvature had to be raised (k,)."""
        k, d = tangent.shape
        if d == 1:
            return scipy.interpolate.CubicSpline(self.s, np.zeros(k)), np.zeros(k, dtype=bool)
        # the complement of the tangent: the last d - 1 right singular vectors
        frame = np.linalg.svd(tangent[:, None, :])[2][:, 1:]
        values = np.linalg.eigvalsh(frame @ self.hessians @ frame.transpose(0, 2, 1))
        floor = FLOOR * max(values[0].max(), values[-1].max())
        logs = np.log(np.maximum(values, floor) * self.beta / (2 * math.pi))
        return scipy.interpolate.CubicSpline(self.s, 0.5 * logs.sum(axis=1)), (values < floor).any(axis=1)

    def _energy(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(self.energy.value(y / self.root))

    def solve(self, level: float, radius: float | None) -> tuple[np.ndarray, float, float]:
        """log k there and back, log Z cap, share of the resistance where the path is concave."""
        s = np.linspace(0, self.s[-1], 2 * (POINTS // 2) + 1)
        y = self.curve(s)
        reduced = self.beta * (self._energy(y) - self.base) + self.entropy(s)
        first, last = self._edges(s, y, level, radius)
        # passages begin at a and end at b: what lies inside the cores has no resistance
        peak = float(reduced.max())
        speed = np.linalg.norm(self.curve(s, 1), axis=1)
        up = np.exp(reduced - peak) * speed
        resistance = scipy.integrate.cumulative_simpson(up, x=s, initial=0.0)
        a, b = np.interp([first, last], s, resistance)
        q = 1 - np.clip((resistance - a) / (b - a), 0, 1)
        log_resistance = math.log(self.beta * (b - a)) + peak
        raised = np.interp(s, self.s, self.concave.astype(float)) > 0
        share = float((up * raised).sum() / up.sum())
        log_rates = np.full(2, np.nan)
        for side, committor in enumerate((q, 1 - q)):
            low = float(reduced.min())
            inside = np.log(np.trapezoid(committor * np.exp(low - reduced) * speed, s)) - low
            log_rates[side] = -log_resistance - np.logaddexp(inside, self._tail(side))
        return log_rates, -log_resistance - self.beta * self.base, share

    def _edges(self, s: np.ndarray, y: np.ndarray, level: float, radius: float | None) -> tuple[float, float]:
        """Arclengths at which the path first leaves the core at its start, and last enters the one at its end."""
        edges = []
        for end, order in ((0, slice(None)), (-1, slice(None, None, -1))):
            apart = y - y[end]
            if radius is None:
                size = self.beta * np.einsum("ni,ij,nj->n", apart, self.hessians[end], apart) - level
            else:
                size = np.square(apart / self.root).sum(axis=1) - radius**2
            size, at = size[order], s[order]
            out = int((size > 0).argmax())
            if out == 0:
                edges.append(float(at[0]))
                continue
            part = -size[out - 1] / (size[out] - size[out - 1])
            edges.append(float(at[out - 1] + part * (at[out] - at[out - 1])))
        if not edges[0] < edges[1]:
            raise UsageError("the cores at both ends of a path meet: choose a smaller level or radius")
        return edges[0], edges[1]

    def _tail(self, side: int) -> float:
        """log of the population beyond an end, along the tangent there, up to HIGHEST above it."""
        end = -side
        direction = self.tangent[end] * (1.0 if side else -1.0)
        start = self.curve(self.s[end])
        base = float(self._energy(start[None])[0])
        length = 1 / math.sqrt(self.beta * max(float(direction @ self.hessians[end] @ direction), 1e-300))
        for _ in range(GROWTH):
            if not self.beta * (float(self._energy((start + length * direction)[None])[0]) - base) < HIGHEST:
                break
            length *= 1.2
        t = np.linspace(0, length, TAIL + 1)
        rise = self.beta * (self._energy(start + t[:, None] * direction) - base)
        rise = np.where(np.isfinite(rise), rise, np.inf)
        offset = self.beta * (base - self.base) + float(self.entropy(self.s[end]))
        return float(np.log(np.trapezoid(np.exp(-rise), t))) - offset
