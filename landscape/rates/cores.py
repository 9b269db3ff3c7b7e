"""Cores: one small ellipsoid inside each basin, and with them one definition of the reference rate.

    C_i = { beta (x - x_i)' H_i (x - x_i) < level },  shrunk until the cores are disjoint and lie in their basins.

    k_ij = (transitions from last core i to next other core j) / (time during which core i was the last one visited).

The grid, the Klein-Kramers operator and the simulated passages all estimate this k_ij. For underdamped dynamics
a core is an ellipsoid of phase space, beta ((x - x_i)' H_i (x - x_i) + p' M^-1 p) < level: a trajectory that flies
through the middle of a well without losing its energy has not arrived there. Where every collision rate is above twice
the highest frequency of the wells nothing flies through, and the core is one in x again.

`level` is 1 as long as phase space has at most three dimensions. A harmonic well in three spends .1987 of its
time below 1, one in ten 1.7e-4: it would look as if it were hardly ever visited. In more than three dimensions
the level is therefore the .1987 quantile of chi-squared with that many degrees of freedom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammainc, gammaincinv

from landscape.dynamics import Dynamics
from landscape.energy import Energy, Periodic
from landscape.errors import UsageError
from landscape.search.basins import Basins, make_basins
from landscape.search.flow import assign_basins

SMALLEST_SHARE = float(gammainc(1.5, 0.5))
NO_FLIGHT = 2.0  # collision rates over frequencies from which on every mode of a well is overdamped
GAP = 0.9  # cores that would touch keep this part of the size at which they do
SHELLS = (1.0, 0.6)  # parts of the core's size at which its place in the basin is tested
SHRINK = 0.7
MAX_SHRINKS = 20
GOLDEN = 0.5 * (5**0.5 - 1)


@dataclass(frozen=True)
class Cores:
    """n disjoint ellipsoids (x - center_i)' form_i (x - center_i) + sum_k momentum_form_k p_k^2 < 1.

    center (n, d). form (n, d, d), positive definite. momentum_form (d,), None if momenta do not matter.
    shrink (n,) : the factor by which the semi-axes in x were reduced, 1 where nothing was in the way.
    symmetry : periods of x; each core is then one with all of its copies.
    """

    center: np.ndarray
    form: np.ndarray
    momentum_form: np.ndarray | None
    shrink: np.ndarray
    symmetry: Periodic | None = None

    def __len__(self) -> int:
        return len(self.center)

    def labels(self, x: np.ndarray, p: np.ndarray | None = None) -> np.ndarray:
        """The core that holds each point x (m, d), with momentum p (m, d) if given: (m,) integers, -1 for none."""
        difference = self.offset(np.asarray(x, dtype=float)[:, None], self.center)
        level = np.einsum("nij,mni,mnj->mn", self.form, difference, difference)
        if p is not None and self.momentum_form is not None:
            level += (np.square(p) @ self.momentum_form)[:, None]
        return np.where(level.min(axis=1) < 1, level.argmin(axis=1), -1)

    def offset(self, x: np.ndarray, center: np.ndarray) -> np.ndarray:
        """x - center (..., d), to the nearest copy of the centre."""
        return x - center if self.symmetry is None else self.symmetry.shortest(x - center)

    def crossing(self, outside: np.ndarray, inside: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The part (m,) of the way from points outside to points inside core `label` (m,) at which its surface lies."""
        form, start = self.form[label], self.offset(outside, self.center[label])
        step = self.offset(inside, outside)
        a = np.einsum("mi,mij,mj->m", step, form, step)
        half_b = np.einsum("mi,mij,mj->m", step, form, start)
        c = np.einsum("mi,mij,mj->m", start, form, start) - 1
        # the smaller root of a s^2 + 2 half_b s + c, written without a difference: half_b < 0 <= c
        return np.clip(c / (-half_b + np.sqrt(np.maximum(half_b**2 - a * c, 0))), 0, 1)


def discs(centers: np.ndarray, radius: float | np.ndarray) -> Cores:
    """Cores that are discs |x - center_i| < radius_i, or intervals; centers (n, d), radius a number or (n,).

    UsageError unless the radii are positive and the discs disjoint.
    """
    center = np.atleast_2d(np.asarray(centers, dtype=float))
    n, d = center.shape
    radii = np.broadcast_to(np.asarray(radius, dtype=float), (n,))
    if not (np.isfinite(center).all() and (radii > 0).all() and np.isfinite(radii).all()):
        raise UsageError("a disc needs a finite centre and a radius above 0")
    distance = np.linalg.norm(center[:, None] - center, axis=-1) + np.diag(np.full(n, np.inf))
    if (distance < radii[:, None] + radii).any():
        i, j = np.argwhere(distance < radii[:, None] + radii)[0]
        raise UsageError(f"discs {i} and {j} overlap; choose smaller radii, as a point must lie in one core at most")
    return Cores(center, np.eye(d) / radii[:, None, None] ** 2, None, np.ones(n))


def default_level(n: int) -> float:
    """Level of a core in a phase space of n dimensions: max(1, the .1987 quantile of chi-squared with n degrees)."""
    return 1.0 if n <= 3 else 2 * float(gammaincinv(0.5 * n, SMALLEST_SHARE))


def make_cores(
    energy: Energy,
    dynamics: Dynamics,
    minima: np.ndarray,
    generator: torch.Generator,
    *,
    basins: Basins | None = None,
    level: float | None = None,
) -> Cores:
    """The cores of minima (n, d), as the module describes them.

    Disjoint: each pair is scaled to .9 of the size at which the two ellipsoids touch (Perram-Wertheim contact function)
    if that is below 1. Inside the basin: at least 64 points (8 d) on each of two shells flow to x_i, else the core
    shrinks by .7. UsageError if a Hessian is not positive definite, or no core fits into a basin.
    """
    x = np.atleast_2d(np.asarray(minima, dtype=float))
    if x.shape[1] != energy.dim or not len(x):
        raise UsageError(f"minima have shape (n, {energy.dim}) with n >= 1 for this energy, not {x.shape}")
    d = x.shape[1]
    hessian = energy.hessian(x)
    values, vectors = np.linalg.eigh(hessian)
    if not (values > 0).all():
        row = int(np.argwhere(~(values > 0))[0, 0])
        raise UsageError(f"point {row} is no minimum: its Hessian has the eigenvalue {values[row].min():.3g}")
    mass = _flying_mass(dynamics, hessian)
    level = default_level(d if mass is None else 2 * d) if level is None else level
    if not level > 0:
        raise UsageError(f"the level of a core is above 0, not {level!r}")
    form = np.einsum("nik,nk,njk->nij", vectors, dynamics.beta * values / level, vectors)
    axes = np.sqrt(level / (dynamics.beta * values))
    periodic = energy.symmetry if isinstance(energy.symmetry, Periodic) else None
    shrink = np.minimum(1.0, GAP * touching_scale(x, form, axes[:, 0], periodic))
    basins = make_basins(energy, x, generator) if basins is None else basins
    shrink = _into_basin(energy, basins, x, vectors * axes[:, None], shrink, generator)
    momentum_form = None if mass is None else dynamics.beta / (level * mass)
    return Cores(x, form / shrink[:, None, None] ** 2, momentum_form, shrink, periodic)


def _flying_mass(dynamics: Dynamics, hessian: np.ndarray) -> np.ndarray | None:
    """The masses (d,) where momenta last long enough to matter in wells of these Hessians (n, d, d), else None."""
    d = hessian.shape[-1]
    mass, collisions = dynamics.mass_vector(d), dynamics.collision_rate(d)
    if mass is None or collisions is None:
        return None
    root = 1 / np.sqrt(mass)
    frequency = np.sqrt(np.linalg.eigvalsh(hessian * root[:, None] * root).max())
    return None if collisions.min() > NO_FLIGHT * frequency else mass


def touching_scale(
    center: np.ndarray, form: np.ndarray, reach: np.ndarray, symmetry: Periodic | None = None
) -> np.ndarray:
    """For each ellipsoid the smallest common scaling at which it touches another one: (n,), infinite where it is alone.

    scale^2 = max over s in (0, 1) of s (1 - s) r' ((1 - s) A_i^-1 + s A_j^-1)^-1 r, r = x_j - x_i, concave in s.
    reach (n,) : largest semi-axes; pairs farther apart than twice their sum are left out. symmetry : periods; the
    nearest copies touch, an ellipsoid's own among them.
    """
    result = np.full(len(center), np.inf)
    first, second = np.triu_indices(len(center), 1)
    r = center[second] - center[first]
    if symmetry is not None:
        extent = np.sqrt(np.diagonal(np.linalg.inv(form), axis1=1, axis2=2))
        result = (0.5 * symmetry.lengths / extent).min(1)
        r = symmetry.shortest(r)
    near = np.linalg.norm(r, axis=1) < 2 * (reach[first] + reach[second])
    first, second, r = first[near], second[near], r[near]
    if not len(first):
        return result
    inverse = np.linalg.inv(form)

    def contact(s: np.ndarray) -> np.ndarray:
        mixed = (1 - s)[:, None, None] * inverse[first] + s[:, None, None] * inverse[second]
        return s * (1 - s) * np.einsum("mi,mi->m", r, np.linalg.solve(mixed, r[:, :, None])[:, :, 0])

    low, high = np.zeros(len(r)), np.ones(len(r))
    for _ in range(60):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        rising = contact(left) < contact(right)
        low, high = np.where(rising, left, low), np.where(rising, high, right)
    scale = np.sqrt(contact(0.5 * (low + high)))
    np.minimum.at(result, first, scale)
    np.minimum.at(result, second, scale)
    return result


def relaxation_rates(rates: np.ndarray, transit: np.ndarray) -> np.ndarray:
    """Eigenvalues (n - 1,) of the dynamics seen through n cores, slowest first, 1/time: K u = lambda M u.

    K holds the rates k_ij (n, n), rows summing to 0. M_ij is the probability that core j is next if core i was last:
    transit (n, n) off the diagonal. With low barriers M is not 1, and the eigenvalues of K alone are too slow (quartic
    double well at 2.5 kT: by 5 % overdamped, by 14 % underdamped with gamma = 1); with M they are 3 % and .4 % off
    (a Galerkin value: too fast, with errors of second order). nan if a rate is unknown.
    Ch. Schuette et al., J. Chem. Phys. 134, 204105 (2011).
    """
    if not (np.isfinite(rates).all() and np.isfinite(transit).all()):
        return np.full(len(rates) - 1, np.nan)
    rates, transit = rates - np.diag(np.diag(rates)), transit - np.diag(np.diag(transit))
    generator = rates - np.diag(rates.sum(axis=1))
    mass = transit + np.diag(1 - transit.sum(axis=1))
    values = -np.linalg.eigvals(np.linalg.solve(mass, generator)).real
    return np.asarray(np.sort(np.delete(values, np.abs(values).argmin())))


def _into_basin(
    energy: Energy, basins: Basins, x: np.ndarray, axes: np.ndarray, shrink: np.ndarray, generator: torch.Generator
) -> np.ndarray:
    n, d = x.shape
    if n == 1:
        return shrink  # no other basin to stray into
    m = max(64, 8 * d) if d > 1 else 2
    unit = torch.randn(m, d, generator=generator, dtype=torch.float64, device=generator.device).cpu().numpy()
    unit = np.array([[1.0], [-1.0]]) if d == 1 else unit / np.linalg.norm(unit, axis=1, keepdims=True)
    shells = np.concatenate([part * unit for part in SHELLS])
    shrink, open_rows = shrink.copy(), np.arange(n)
    for _ in range(MAX_SHRINKS):
        offsets = np.einsum("nij,mj->nmi", axes[open_rows], shells) * shrink[open_rows, None, None]
        labels = assign_basins(energy, (x[open_rows, None] + offsets).reshape(-1, d), basins)
        stray = (labels.reshape(len(open_rows), -1) != open_rows[:, None]).any(axis=1)
        open_rows = open_rows[stray]
        if not len(open_rows):
            return shrink
        shrink[open_rows] *= SHRINK
    raise UsageError(
        f"no core fits around minimum {open_rows[0]} at {x[open_rows[0]]}: points near it flow elsewhere; "
        "polish or merge the minima first"
    )
