"""Rates over a saddle in the limit of high barriers: Langer's formula, and Kramers and Eyring-Kramers as its cases.

    k(i over s) = mu / (2 pi) * sqrt(det H_i / |det H_s|) * exp(-beta (E_s - E_i))

mu is the growth rate of the dynamics linearised at the saddle (`Dynamics.unstable_rate`). Everything is a logarithm
here. With harmonic weights w_i = exp(-beta E_i) / sqrt(det H_i) these rates satisfy w_i k_ij = w_j k_ji through each
saddle.

J. S. Langer, Annals of Physics 54, 258 (1969); P. Hanggi, P. Talkner, M. Borkovec, Rev. Mod. Phys. 62, 251 (1990).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape.dynamics import Dynamics, Overdamped, Underdamped
from landscape.errors import UsageError
from landscape.rates.log_determinant import LogDeterminants
from landscape.search.stationary import DEGENERATE

LOG_2PI = math.log(2 * math.pi)
# Energy loss over one oscillation, in units of 1/beta, below which the barrier top is not kept in equilibrium by
# friction: on the quartic double well the formula is then more than a tenth too fast.
LOW_FRICTION = 6.0


@dataclass(frozen=True)
class LangerRates:
    """Rates over m saddles.

    log_rates : (m, 2), from each end of the saddle to the other, 1/time; nan where refused.
    log_unstable_rate : (m,), nan where refused.
    energy_loss : (m, 2), `reduced_energy_loss` from each end; infinite if overdamped, nan where refused.
    refused : m texts, "" where both rates stand, else the reason why at least one does not.
    log_errors : (m, 2), standard errors of log_rates, which are relative errors of the rates: 0 where whole Hessians
    were known, nan where refused.
    """

    log_rates: np.ndarray
    log_unstable_rate: np.ndarray
    energy_loss: np.ndarray
    refused: tuple[str, ...]
    log_errors: np.ndarray

    @property
    def low_friction(self) -> np.ndarray:
        """(m,) bool: friction is too weak for the formula, which then gives too fast a rate (energy diffusion)."""
        return np.nan_to_num(self.energy_loss, nan=np.inf).min(axis=1, initial=np.inf) < LOW_FRICTION


def is_degenerate(eigenvalues: np.ndarray) -> np.ndarray:
    """Whether the smallest |Hessian eigenvalue| is below 1e-6 of the largest: (..., d) -> (...). Non-finite counts as
    degenerate.
    """
    size = np.abs(np.asarray(eigenvalues, dtype=float))
    smallest, largest = size.min(axis=-1), size.max(axis=-1)
    return ~((smallest >= DEGENERATE * largest) & (largest > 0) & np.isfinite(largest))


def log_abs_determinant(eigenvalues: np.ndarray) -> np.ndarray:
    """log |det H| from Hessian eigenvalues, (..., d) -> (...). UsageError if one set is degenerate
    (`is_degenerate`).
    """
    values = np.asarray(eigenvalues, dtype=float)
    if is_degenerate(values).any():
        raise UsageError(
            "a stationary point with a Hessian eigenvalue below 1e-6 of the largest has no harmonic weight or rate; "
            "leave it out (see is_degenerate)"
        )
    return np.log(np.abs(values)).sum(axis=-1)


def log_rate(
    energy_min: Any, log_det_min: Any, energy_saddle: Any, log_abs_det_saddle: Any, unstable_rate: Any, beta: float
) -> Any:
    """log k by Langer's formula, in log(1/time). Arguments broadcast; a scalar answer is a float.

    energy_min, energy_saddle : energies E_i and E_s. log_det_min, log_abs_det_saddle : log det H_i and log |det H_s|.
    unstable_rate : mu > 0. UsageError for anything not finite, mu <= 0 or beta <= 0.
    """
    arguments = (energy_min, log_det_min, energy_saddle, log_abs_det_saddle, unstable_rate)
    e_min, det_min, e_saddle, det_saddle, mu = (np.asarray(a, dtype=float) for a in arguments)
    if not all(np.isfinite(a).all() for a in (e_min, det_min, e_saddle, det_saddle, mu)):
        raise UsageError(
            "a rate needs finite energies, log determinants and unstable rate, but nan or infinity came in"
        )
    if not ((mu > 0).all() and math.isfinite(beta) and beta > 0):
        raise UsageError(f"a rate needs an unstable rate and a beta greater than 0; beta is {beta!r}")
    result = np.log(mu) - LOG_2PI + 0.5 * (det_min - det_saddle) - beta * (e_saddle - e_min)
    return float(result) if result.ndim == 0 else result


def log_eyring_kramers(
    eigenvalues_min: np.ndarray, eigenvalues_saddle: np.ndarray, barrier: Any, beta: float, gamma: float = 1.0
) -> Any:
    """log k of overdamped dynamics with one friction coefficient, from Hessian eigenvalues (..., d) and E_s - E_i.

    k = |lambda_-| / (2 pi gamma) sqrt(det H_i / |det H_s|) exp(-beta barrier). UsageError as in `log_rate`, for
    degenerate points, and unless the minimum has no negative eigenvalue and the saddle exactly one.
    """
    return _isotropic(eigenvalues_min, eigenvalues_saddle, barrier, Overdamped(beta, gamma))


def log_kramers(curvature_min: Any, curvature_saddle: Any, barrier: Any, dynamics: Dynamics) -> Any:
    """log k in one dimension (Kramers 1940) from E''(minimum) > 0, E''(saddle) < 0 and E_s - E_i; arguments broadcast.

    k = mu / (2 pi) sqrt(E''_i / |E''_s|) exp(-beta barrier), mu = |E''_s| / gamma overdamped, and
    sqrt(gamma^2 / 4 m^2 + |E''_s| / m) - gamma / 2 m underdamped (moderate to high friction; see
    `reduced_energy_loss`).
    """
    low, top = np.asarray(curvature_min, dtype=float), np.asarray(curvature_saddle, dtype=float)
    return _isotropic(low[..., None], top[..., None], barrier, dynamics)


def langer_rates(
    dynamics: Dynamics,
    energies: np.ndarray,
    eigenvalues: np.ndarray,
    saddle_energies: np.ndarray,
    saddle_eigenvalues: np.ndarray,
    saddle_hessians: np.ndarray | None,
    joins: np.ndarray,
    log_dets: tuple[LogDeterminants, LogDeterminants] | None = None,
    growth: tuple[np.ndarray, np.ndarray] | None = None,
) -> LangerRates:
    """Rates over every saddle, from both of its ends.

    energies (n,), eigenvalues (n, d) : of the minima. saddle_energies (m,), saddle_eigenvalues (m, d), saddle_hessians
    (m, d, d), or None where they were not kept, which suffices for a gamma and mass that are the same in every
    coordinate.
    joins : (m, 2) integers, the minima at both ends; -1 for an end that reached none. A saddle whose ends are the same
    minimum gets its rates, to be left out of a network. Degenerate points, saddles that are not of index 1 and ends at
    -1 are refused by name, row by row; only wrong shapes and a friction that the eigenvalues alone cannot serve
    raise UsageError.

    Where d is too large for Hessians: eigenvalues hold the lowest and the largest ones only, log_dets are of minima and
    saddles, and growth, `unstable_growth` at the saddles, is needed unless gamma and mass are the same everywhere.
    """
    energies, saddle_energies = np.asarray(energies, dtype=float), np.asarray(saddle_energies, dtype=float)
    ends = np.asarray(joins, dtype=int).reshape(-1, 2)
    m = len(saddle_energies)
    spectrum = np.asarray(saddle_eigenvalues, dtype=float).reshape(m, -1) if m else np.zeros((0, 1))
    wells = np.asarray(eigenvalues, dtype=float)
    if len(ends) != m or wells.ndim != 2 or len(wells) != len(energies) or (ends >= len(energies)).any():
        raise UsageError(f"{m} saddles need {m} pairs of ends among {len(energies)} minima with eigenvalues (n, d)")
    bad_well = is_degenerate(wells) | (wells < 0).any(axis=1) | ~np.isfinite(energies)
    reasons = [_refusal(row, ends[row], spectrum[row], saddle_energies[row], bad_well) for row in range(m)]
    # A refused end takes only its own direction with it, a refused saddle both.
    saddle_ok = ~is_degenerate(spectrum) & ((spectrum < 0).sum(axis=1) == 1) & np.isfinite(saddle_energies)
    log_mu, log_rates, loss = np.full(m, np.nan), np.full((m, 2), np.nan), np.full((m, 2), np.nan)
    errors = np.full((m, 2), np.nan)
    rows = np.flatnonzero(saddle_ok)
    if len(rows):
        hessians = None if saddle_hessians is None else np.asarray(saddle_hessians, dtype=float)[rows]
        if growth is not None:
            mu, per_barrier = growth[0][rows], growth[1][rows]
        elif hessians is None:
            mu = np.asarray(dynamics.unstable_rate_of_eigenvalue(spectrum[rows].min(axis=1)))
            per_barrier = _energy_loss_per_barrier(dynamics, spectrum[rows], hessians)
        else:
            mu = np.asarray(dynamics.unstable_rate(hessians))
            per_barrier = _energy_loss_per_barrier(dynamics, spectrum[rows], hessians)
        log_mu[rows] = np.log(mu)
        if log_dets is None:
            low, top = np.where(bad_well[:, None], 1.0, wells), np.where(saddle_ok[:, None], spectrum, 1.0)
            exact = LogDeterminants.exact
            log_dets = exact(log_abs_determinant(low)), exact(log_abs_determinant(top))
        for side in range(2):
            start = ends[rows, side]
            fine = (start >= 0) & ~bad_well[start]
            at, well = rows[fine], start[fine]
            log_rates[at, side] = log_rate(
                energies[well], log_dets[0].values[well], saddle_energies[at], log_dets[1].values[at], mu[fine],
                dynamics.beta,
            )  # fmt: skip
            errors[at, side] = 0.5 * log_dets[0].error_of_difference(well, log_dets[1], at)
            loss[at, side] = per_barrier[fine] * dynamics.beta * (saddle_energies[at] - energies[well])
    return LangerRates(log_rates, log_mu, loss, tuple(reasons), errors)


def reduced_energy_loss(dynamics: Dynamics, barrier: Any, hessian: np.ndarray) -> Any:
    """Energy lost to friction over one oscillation at the height of the barrier, in units of 1/beta (estimate).

    2 pi beta barrier c / omega, with c = v.gamma v / v.Mv and omega^2 = -v.Hv / v.Mv along the direction v in which
    the dynamics leaves the saddle. Below about 6 (`LOW_FRICTION`) energy diffusion limits the rate, which the formulas
    of this module then overestimate. Infinite for overdamped dynamics. hessian : (d, d) or (n, d, d) at the saddle;
    barrier : E_s - E_i, a number or (n,).
    """
    single = np.ndim(hessian) == 2
    hessians = np.asarray(hessian, dtype=float)[None] if single else np.asarray(hessian, dtype=float)
    values = (
        _energy_loss_per_barrier(dynamics, np.linalg.eigvalsh(hessians), hessians) * dynamics.beta * np.asarray(barrier)
    )
    return float(values[0]) if single else values


def _energy_loss_per_barrier(dynamics: Dynamics, spectrum: np.ndarray, hessians: np.ndarray | None) -> np.ndarray:
    if not isinstance(dynamics, Underdamped):
        return np.full(len(spectrum), np.inf)
    d = spectrum.shape[1] if hessians is None else hessians.shape[1]  # spectra may lack zero modes
    gamma, mass = dynamics.gamma_vector(d), dynamics.mass_vector(d)
    if hessians is None:
        return 2 * math.pi * gamma[0] / np.sqrt(-spectrum.min(axis=1) * mass[0])
    v = dynamics.unstable_direction(hessians)
    curvature = -np.einsum("ni,nij,nj->n", v, hessians, v)
    return 2 * math.pi * ((v * v) @ gamma) / np.sqrt(curvature * ((v * v) @ mass))


def _isotropic(eigenvalues_min: Any, eigenvalues_saddle: Any, barrier: Any, dynamics: Dynamics) -> Any:
    low, top = np.asarray(eigenvalues_min, dtype=float), np.asarray(eigenvalues_saddle, dtype=float)
    if (low < 0).any() or ((top < 0).sum(axis=-1) != 1).any():
        raise UsageError("a rate leads from a minimum (no negative eigenvalue) over a saddle (exactly one)")
    rate = dynamics.unstable_rate_of_eigenvalue(top.min(axis=-1))
    return log_rate(0.0, log_abs_determinant(low), barrier, log_abs_determinant(top), rate, dynamics.beta)


def _refusal(row: int, ends: np.ndarray, spectrum: np.ndarray, energy: float, bad_well: np.ndarray) -> str:
    index = int((spectrum < 0).sum())
    if not math.isfinite(energy) or is_degenerate(spectrum):
        return f"saddle {row} is degenerate (an eigenvalue below 1e-6 of the largest): no rate formula applies"
    if index != 1:
        return f"stationary point {row} has {index} negative eigenvalues, not one: no rate formula applies"
    if (ends < 0).any():
        return f"saddle {row} leads to no known minimum on one side: no rate from there"
    degenerate = [int(end) for end in np.unique(ends) if bad_well[end]]
    if degenerate:
        return f"saddle {row} joins minimum {degenerate[0]}, which is degenerate or not a minimum: no rate from there"
    return ""
