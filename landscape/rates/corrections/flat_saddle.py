"""Flat and quartic saddles: exact integrals in place of Gaussian ones along the soft directions and over the top.

At a saddle s, in coordinates in which friction is 1, with Hessian eigenvalues lambda_1 < 0 < lambda_2 <= ...,

    k = (1/beta) [prod over j > 1 of Z_j] / Z_1 * (det H_i)^(1/2) (beta / 2 pi)^(d/2) exp(-beta (E_s - E_i)),
    Z_j = int exp(-beta u_j(y)) dy,   Z_1 = int exp(+beta u_1(y)) dy.

With quadratic u this is Eyring-Kramers. Where lambda_2 is small (or 0, or two are, as where a chain of bistable sites
loses its saddles) u_2 is the energy of the ridge: along the soft directions, all other coordinates relaxed,

    u(y) = lambda_2 y^2 / 2 + C y^4 + ...,   C = E_2222 / 24 - sum over j of E_22j^2 / (8 lambda_j)

(derivatives at s), weighted by the change of the other curvatures. For a pure quartic Z is a Bessel function
(`log_quartic_integral`: the universal functions Psi+ and Psi- of Berglund and Gentz). Beyond a pitchfork the ridge has
several saddles; each owns the part of it out to the next maximum, so that their sum is the whole ridge.

N. Berglund, B. Gentz, Markov Processes Relat. Fields 16, 549 (2010).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, ive, kve

from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy
from landscape.errors import UnsupportedError, UsageError
from landscape.rates.kramers import is_degenerate

HIGHEST = 20.0  # rays end where beta u exceeds it; an integral that ends below a third of it by itself is not trusted
ALIKE = 3.0  # the second softest mode is taken along with the softest where its curvature is at most this many times it
ZERO = 1e-6  # a curvature below this part of the largest is 0
ANGLES = 24  # rays over two soft modes
RADII = 160  # points of a ray, in steps of
STEP = 1 / 8  # the distance at which beta E has changed by 1
NEWTON = 2  # steps of relaxation at each radius, which start from the radius before
DROP = 1e-3  # a ray has passed a maximum when beta u has fallen by this much, and ends when it has by
PAST = 5.0
QUARTIC_RANGE = 2.0  # the quartic is fitted where beta u is below it


@dataclass(frozen=True)
class FlatSaddleRates:
    """Rates over m saddles with exact integrals along soft modes.

    log_rates (m, 2) : from both ends, 1/time. log_ridge (m,) : log of the ridge integral over its Gaussian value, -inf
    where that is infinite. log_top (m,) : log of the Gaussian value of Z_1 over Z_1, inf where that is infinite; 0
    where the dynamics is not overdamped. soft (m,) : how many soft modes, 1 or 2, were integrated (0 in one dimension).
    quartic (m,) : C of the softest, energy over length^4 of the friction-weighted coordinates; nan in one dimension.
    nan where there is no answer, and reason (m texts) says why.
    """

    log_rates: np.ndarray
    log_ridge: np.ndarray
    log_top: np.ndarray
    soft: np.ndarray
    quartic: np.ndarray
    reason: tuple[str, ...]


def log_quartic_integral(curvature: float, quartic: float, beta: float) -> float:
    """log int exp(-beta (curvature y^2 / 2 + quartic y^4)) dy over the line, quartic > 0 (or = 0 < curvature).

    With z = beta curvature^2 / (32 quartic): (curvature / 8 quartic)^(1/2) e^z K_1/4(z) for curvature > 0,
    pi (|curvature| / 16 quartic)^(1/2) e^z (I_-1/4(z) + I_1/4(z)) below 0, Gamma(1/4) / 2 (beta quartic)^-1/4 at 0.
    UsageError where the integral diverges.
    """
    if not (beta > 0 and quartic >= 0 and (quartic > 0 or curvature > 0) and math.isfinite(curvature)):
        raise UsageError(f"a quartic integral needs beta > 0 and a quartic term > 0, not {beta!r} and {quartic!r}")
    z = math.inf if quartic == 0 else beta * curvature**2 / (32 * quartic)
    if z > 1e8:  # only the bottoms of the wells are left
        if curvature > 0:
            return 0.5 * math.log(2 * math.pi / (beta * curvature))
        return math.log(2) + 0.5 * math.log(math.pi / (beta * -curvature)) + 2 * z
    if z < 1e-14:
        return float(gammaln(0.25)) - math.log(2) - 0.25 * math.log(beta * quartic)
    if curvature > 0:
        return 0.5 * math.log(curvature / (8 * quartic)) + math.log(kve(0.25, z))
    both = math.log(ive(-0.25, z) + ive(0.25, z))
    return math.log(math.pi) + 0.5 * math.log(-curvature / (16 * quartic)) + 2 * z + both


def flat_saddle_rates(
    energy: Energy, dynamics: Dynamics, minima: np.ndarray, saddles: np.ndarray, joins: np.ndarray
) -> FlatSaddleRates:
    """Rates over saddles (m, d), degenerate ones too, between the minima (n, d) that joins (m, 2) names (-1: none).

    Underdamped dynamics keeps its Gaussian top: Kramers' growth rate times the exact ridge. With friction that differs
    between coordinates its ridge is that of the overdamped dynamics. UnsupportedError for non-reversible dynamics.
    """
    if not dynamics.reversible:
        raise UnsupportedError("flat saddles are corrected for reversible dynamics; leave the rotation out")
    x, wells = np.asarray(saddles, dtype=float), np.asarray(minima, dtype=float)
    m, d = x.shape
    ends = np.asarray(joins, dtype=int).reshape(m, 2)
    scale = 1 / np.sqrt(dynamics.gamma_vector(d))
    curvature = energy.hessian(wells) * scale[:, None] * scale
    with np.errstate(invalid="ignore", divide="ignore"):
        spectrum = np.linalg.eigvalsh(curvature)
        log_well = 0.5 * np.log(spectrum).sum(axis=1) + dynamics.beta * energy.value(wells)
    log_well[is_degenerate(spectrum) | (spectrum < 0).any(axis=1)] = np.nan
    height, hessians = energy.value(x), energy.hessian(x)
    rates, columns, reasons = np.full((m, 2), np.nan), np.full((m, 4), np.nan), []
    for k in range(m):
        ridge = _Saddle(energy, dynamics, x[k], hessians[k], scale)
        log_flux, columns[k], reason = ridge.solve()
        reasons.append(reason)
        known = ends[k] >= 0
        rates[k, known] = log_flux - dynamics.beta * height[k] + log_well[ends[k, known]]
    ridges, tops, soft, quartic = columns.T
    return FlatSaddleRates(rates, ridges, tops, soft, quartic, tuple(reasons))


class _Saddle:
    """One saddle in friction-weighted coordinates y: x = x_s + scale * (V y)."""

    def __init__(
        self, energy: Energy, dynamics: Dynamics, x: np.ndarray, hessian: np.ndarray, scale: np.ndarray
    ) -> None:
        self.energy, self.dynamics, self.x, self.scale = energy, dynamics, x, scale
        self.values, vectors = np.linalg.eigh(hessian * scale[:, None] * scale)
        self.frame = scale[:, None] * vectors
        self.zero = ZERO * float(np.abs(self.values).max())

    def solve(self) -> tuple[float, np.ndarray, str]:
        """log of the flux factor (without the well and exp(-beta E_s)); ridge, top, soft, quartic; reason."""
        nothing = np.full(4, np.nan)
        beta, values, d = self.dynamics.beta, self.values, len(self.values)
        if (values < -self.zero).sum() > 1:
            return math.nan, nothing, "more than one negative eigenvalue: no saddle"
        soft = [1] if d > 1 else []
        if d > 2 and values[2] <= max(ALIKE * values[1], self.zero):
            soft = [1, 2]
        if (values[1 + len(soft) :] <= self.zero).any():
            return math.nan, nothing, "more than two flat directions"
        log_ridge, quartic = self._ridge(soft) if soft else (0.0, math.nan)
        gaussian = math.log(2 * math.pi / beta)
        with np.errstate(divide="ignore"):
            log_values = np.log(np.maximum(values[1:], 0))
            gap = log_ridge - 0.5 * float((gaussian - log_values[: len(soft)]).sum())
        stiff = 0.5 * float((gaussian - log_values[len(soft) :]).sum())
        if isinstance(self.dynamics, Overdamped):
            log_top = self._top(soft)
            conductance = -math.log(beta) - log_top
            top = 0.5 * (gaussian - math.log(-values[0])) - log_top if values[0] < -self.zero else math.inf
        elif values[0] >= -self.zero:
            return math.nan, nothing, "flat top: only overdamped dynamics has an answer"
        else:
            conductance, top = math.log(self._growth()) - math.log(beta) - 0.5 * (gaussian + math.log(-values[0])), 0.0
        log_flux = log_ridge + stiff + conductance - 0.5 * d * gaussian
        reason = "" if math.isfinite(log_flux) else "the ridge or the way down could not be followed"
        return log_flux, np.array([gap, top, len(soft), quartic]), reason

    def _growth(self) -> float:
        """mu with eigenvalues that are zero, or negative by rounding, made positive."""
        back = np.linalg.inv(self.frame)
        values = self.values.copy()
        values[1:] = np.maximum(values[1:], self.zero)
        return float(self.dynamics.unstable_rate((back.T * values) @ back))

    def _ridge(self, soft: list[int]) -> tuple[float, float]:
        """log of the ridge integral over the soft modes, and C of the softest."""
        beta, n = self.dynamics.beta, len(soft)
        angle = np.arange(ANGLES) * 2 * math.pi / ANGLES
        directions = np.array([[1.0], [-1.0]]) if n == 1 else np.stack([np.cos(angle), np.sin(angle)], axis=1)
        rays = directions @ np.eye(len(self.values))[soft]
        radius, rise, spectrum = self._follow(rays, soft, up=True)
        others = self._others(soft)
        # flux over the ridge: |lambda_1|^(1/2) times the widths of the stiff modes
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = 0.5 * np.log(np.abs(self.values[others])).sum() - 0.5 * np.log(np.abs(spectrum)).sum(axis=2)
            weight += np.log(np.maximum(-spectrum[:, :, 0], 0)) - math.log(max(-self.values[0], 1e-300))
        if self.values[0] >= -self.zero:
            weight = np.zeros_like(rise)
        total = _integrate(radius, beta * rise, weight, n - 1)
        share = 1.0 if n == 1 else 2 * math.pi / ANGLES
        plus, minus = (0, 1) if n == 1 else (0, ANGLES // 2)
        even = 0.5 * (rise[plus] + rise[minus])
        quartic = _quartic(radius, even - 0.5 * self.values[1] * radius**2, beta * even)
        log_total = float(np.log(total.sum() * share)) if np.isfinite(total).all() else math.nan
        return log_total, quartic

    def _top(self, soft: list[int]) -> float:
        """log Z_1, the resistance of the way down on both sides; soft modes stay at 0, the others follow."""
        rays, along = np.array([[1.0], [-1.0]]) @ np.eye(len(self.values))[:1], [0, *soft]
        radius, rise, spectrum = self._follow(rays, along, up=False)
        with np.errstate(invalid="ignore", divide="ignore"):
            stiff = np.log(self.values[self._others(along)])
            weight = 0.5 * (np.log(spectrum).sum(axis=2) - stiff.sum())
        total = _integrate(radius, -self.dynamics.beta * rise, weight, 0)
        return float(np.log(total.sum())) if np.isfinite(total).all() else math.nan

    def _others(self, along: list[int]) -> list[int]:
        return [j for j in range(len(self.values)) if j not in along]

    def _follow(self, rays: np.ndarray, along: list[int], up: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Radii (n,), E - E_s (k, n) on rays with all other coordinates stationary, and their curvatures (k, n, c)."""
        others, sign = self._others(along), 1.0 if up else -1.0
        step = STEP * self._thermal_radius(rays)
        radius = step * np.arange(RADII + 1)
        y, live = np.zeros_like(rays), np.arange(len(rays))
        rise = np.full((len(rays), len(radius)), np.nan)
        spectrum = np.full((*rise.shape, len(others)), np.nan)
        rise[:, 0], spectrum[:, 0] = 0.0, self.values[others]
        base = float(self.energy.value(self.x[None])[0])
        for n in range(1, RADII + 1):
            y[live] += step * rays[live]
            for _ in range(NEWTON if others else 0):
                live = self._relax(y, live, others, 10 * radius[n])
            rise[live, n] = self.energy.value(self._points(y[live])) - base
            if others:
                inner = self._block(y[live], others)
                fine = np.isfinite(inner).all(axis=(1, 2))
                live, inner = live[fine], inner[fine]
                spectrum[live, n] = np.linalg.eigvalsh(inner)
            height = self.dynamics.beta * sign * rise[:, : n + 1]
            live = live[(height[live, n] < HIGHEST) & (height[live, n] > height[live].max(axis=1) - PAST)]
            if not len(live):
                break
        return radius, rise, spectrum

    def _relax(self, y: np.ndarray, live: np.ndarray, others: list[int], farthest: float) -> np.ndarray:
        """One Newton step of the other coordinates of y in place; the rays for which that was possible."""
        gradient = (self.energy.gradient(self._points(y[live])) @ self.frame)[:, others]
        inner = self._block(y[live], others)
        fine = np.isfinite(inner).all(axis=(1, 2)) & np.isfinite(gradient).all(axis=1)
        fine[fine] = np.linalg.det(inner[fine]) != 0
        live = live[fine]
        move = np.linalg.solve(inner[fine], gradient[fine, :, None])[:, :, 0]
        near = np.linalg.norm(move, axis=1) < farthest
        y[np.ix_(live[near], others)] -= move[near]
        return live[near]

    def _block(self, y: np.ndarray, others: list[int]) -> np.ndarray:
        """Second derivatives between the other coordinates, (n, c, c)."""
        return np.asarray(self._hessian(y)[:, others][:, :, others])

    def _thermal_radius(self, rays: np.ndarray) -> float:
        """The least distance along a ray at which |beta (E - E_s)| reaches 1, nothing relaxed."""
        largest = float(np.abs(self.values).max())
        first = 1 / math.sqrt(self.dynamics.beta * largest) if largest > 0 else 1e-3 / float(self.scale.max())
        size = np.full(len(rays), first)
        base = self.energy.value(self.x[None])[0]
        for _ in range(60):
            change = self.dynamics.beta * np.abs(self.energy.value(self._points(size[:, None] * rays)) - base)
            if (change >= 1).any():
                break
            size = 1.2 * size
        return float(size[0])

    def _points(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(self.x + y @ self.frame.T)

    def _hessian(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(self.frame.T @ self.energy.hessian(self._points(y)) @ self.frame)


def _integrate(radius: np.ndarray, reduced: np.ndarray, log_weight: np.ndarray, power: int) -> np.ndarray:
    """int r^power exp(-reduced + log_weight) dr along each ray (k, n), out to its first maximum: (k,); nan if lost."""
    result, step = np.full(len(reduced), np.nan), radius[1]
    for k, (u, w) in enumerate(zip(reduced, log_weight, strict=True)):
        n = int(np.isfinite(u).argmin()) or len(u)
        u, w = u[:n], np.where(np.isfinite(w[:n]), w[:n], -np.inf)
        fallen = np.maximum.accumulate(u) - u > DROP
        if fallen.any():
            end = int(u[: int(fallen.argmax())].argmax())
        elif u[-1] > HIGHEST / 3:
            end = n - 1
        else:
            continue
        f = radius[: end + 1] ** power * np.exp(w[: end + 1] - u[: end + 1])
        total = step * (f.sum() - 0.5 * f[0] - 0.5 * f[-1])
        if power == 1:
            total += step**2 / 12  # Euler and Maclaurin's correction for the slope 1 at r = 0
        if fallen.any() and 0 < end < n - 1:
            left, middle, right = u[end - 1 : end + 2]
            total += f[-1] * step * 0.5 * (right - left) / max(2 * middle - left - right, 1e-300)
        result[k] = total
    return result


def _quartic(y: np.ndarray, beyond: np.ndarray, reduced: np.ndarray) -> float:
    """C of beyond = C y^4 + C' y^6 by least squares where the reduced energy is below QUARTIC_RANGE."""
    inside = np.isfinite(beyond) & (np.nan_to_num(reduced, nan=np.inf) < QUARTIC_RANGE) & (y > 0)
    if inside.sum() < 3:
        return math.nan
    top = y[inside].max()
    s = y[inside] / top
    return float(np.linalg.lstsq(np.stack([s**4, s**6], axis=1), beyond[inside], rcond=None)[0][0] / top**4)
