"""Cheap warnings about rate formulas, from stationary points alone: flat saddles, and time steps that are too long."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from landscape.dynamics import Dynamics
from landscape.energy import Periodic
from landscape.energy.group import Symmetry

SOFTER = 0.25  # a flat saddle is softer across the path than a quarter of the softest direction of its wells,
QUARTIC = 0.05  # and its quartic term then matters this much
POINTED = 4.0  # barrier over that of a quartic double well with the same top and width: a top flatter than its sides
LONG_STEP = 0.1  # time step times the fastest rate from which on rates are those of the step, not of continuous time


def flat_saddles(
    beta: float,
    minima: np.ndarray,
    eigenvalues: np.ndarray,
    energies: np.ndarray,
    saddles: np.ndarray,
    saddle_eigenvalues: np.ndarray,
    saddle_energies: np.ndarray,
    joins: np.ndarray,
    widths: np.ndarray | None = None,
) -> np.ndarray:
    """(m,) bool: the harmonic saddle of the formula is in doubt. minima (n, d), saddles (m, d), joins (m, 2).

    Across the path: the smallest positive eigenvalue lambda is below a quarter of the softest one of the two wells, and
    the next term of the expansion, 3 C / (beta lambda^2), is above .05, with C = |lambda_-| / 4 L^2 as in a quartic
    double well of the same top and half width L. Along it: the barrier is over four times |lambda_-| L^2 / 4, that of
    this double well, so that the top is flatter than the sides tell. Saddles with an unknown end are not flagged.
    widths (m, 2) : from each saddle to its ends, `end_distances`; by default between the points as they are.
    """
    found = np.zeros(len(joins), dtype=bool)
    for row, (i, j) in enumerate(np.asarray(joins)):
        if min(i, j) < 0:
            continue
        values = np.sort(saddle_eigenvalues[row])
        top, across = abs(values[0]), values[1:]
        width = np.linalg.norm(minima[[i, j]] - saddles[row], axis=1) if widths is None else widths[row]
        barrier = saddle_energies[row] - energies[[i, j]]
        found[row] = bool((barrier > POINTED * top * width**2 / 4).all())
        if len(across):
            quartic = 3 * top / (4 * beta * width.min() ** 2 * across[0] ** 2)
            soft = across[0] < SOFTER * eigenvalues[[i, j]].min()
            found[row] |= bool(soft and quartic > QUARTIC)
    return found


def end_distances(
    symmetry: Symmetry | None,
    minima: np.ndarray,
    saddles: np.ndarray,
    joins: np.ndarray,
    paths: Iterable[tuple[int, np.ndarray, np.ndarray]] = (),
) -> np.ndarray | None:
    """Distances (m, 2) of saddles (m, d) from the copies of the minima (n, d) that they join; None without a symmetry.

    In a periodic energy the nearest copies; of particles those at the ends of a saddle's path, nan for one without.
    paths : the number of the saddle, images (k, d) and their energies (k,).
    """
    if isinstance(symmetry, Periodic):
        return np.linalg.norm(symmetry.shortest(minima[joins] - saddles[:, None]), axis=2)
    if symmetry is None:
        return None
    widths = np.full((len(saddles), 2), np.nan)
    for row, images, energy in paths:
        widths[row] = np.linalg.norm(images[[0, -1]] - images[energy.argmax()], axis=1)
    return widths


def reduced_time_step(time_step: float, dynamics: Dynamics, eigenvalues: np.ndarray) -> np.ndarray:
    """Time step times the fastest rate at points with Hessian eigenvalues (k, d), (k,): it should be far below 1.

    Overdamped: largest |eigenvalue| over the smallest gamma. Underdamped: the larger of the fastest oscillation
    (largest |eigenvalue| over the smallest mass)^(1/2) and the largest collision rate. Bounds where gamma or mass
    differ between coordinates.
    """
    top = np.abs(np.asarray(eigenvalues, dtype=float)).max(axis=1, initial=0.0)
    d = max(np.size(dynamics.gamma), np.size(getattr(dynamics, "mass", 1.0)))  # as many coordinates as they tell apart
    mass, collisions = dynamics.mass_vector(d), dynamics.collision_rate(d)
    if mass is None or collisions is None:
        return np.asarray(time_step * top / dynamics.gamma_vector(d).min())
    return np.asarray(time_step * np.maximum(np.sqrt(top / mass.min()), collisions.max()))


def is_long(
    time_step: float | None,
    dynamics: Dynamics,
    eigenvalues: np.ndarray,
    saddle_eigenvalues: np.ndarray,
    joins: np.ndarray,
) -> np.ndarray:
    """(m,) bool: `reduced_time_step` is above .1 at the saddle or at one of its ends; all False without a time step."""
    long = np.zeros(len(joins), dtype=bool)
    if time_step is None or not len(joins):
        return long
    ends = np.append(reduced_time_step(time_step, dynamics, eigenvalues) > LONG_STEP, False)  # for an end at -1
    return ends[joins].any(axis=1) | (reduced_time_step(time_step, dynamics, saddle_eigenvalues) > LONG_STEP)
