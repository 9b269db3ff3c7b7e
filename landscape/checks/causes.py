"""What may be wrong with a formula's rate: flags of its main saddle, the shape of its well, known corrections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from landscape.checks.flags import end_distances, flat_saddles
from landscape.checks.verdicts import (
    ANHARMONIC,
    ANHARMONIC_REASON,
    FLAT_SADDLE_REASON,
    LOW_BARRIER,
    LOW_BARRIER_REASON,
    LOW_FRICTION_REASON,
    UNKNOWN_REASON,
)
from landscape.checks.wells import anharmonicity
from landscape.dynamics import Dynamics
from landscape.energy import Energy, Periodic
from landscape.errors import LandscapeError
from landscape.network import TransitionNetwork
from landscape.rates import LangerRates
from landscape.rates.corrections import corrected_rates

GRACE = 5.0  # seconds over the budget in which corrections of doubtful rates may still begin


@dataclass(frozen=True, eq=False)
class Subject:
    """What is checked: n states and m saddles with their network and the formula's rates through every saddle.

    eigenvalues (n, d), saddles (m, d), saddle_eigenvalues (m, d), saddle_hessians (m, d, d) or None.
    path_saddle (p,), path_images (p, k, d) : minimum energy paths.
    """

    network: TransitionNetwork
    rates: LangerRates
    eigenvalues: np.ndarray
    saddles: np.ndarray
    saddle_eigenvalues: np.ndarray
    saddle_hessians: np.ndarray | None
    path_saddle: np.ndarray
    path_images: np.ndarray

    @property
    def minima(self) -> np.ndarray:
        """A copy (n, d) that torch may take."""
        return np.array(self.network.coordinates)

    def ways(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """The counted saddles between two states, and on which side of each i lies (0 or 1)."""
        joins = self.network.joins
        found = self.network.counted & (joins == i).any(axis=1) & (joins == j).any(axis=1)
        rows = np.flatnonzero(found)
        return rows, np.where(joins[rows, 0] == i, 0, 1)


@dataclass(frozen=True, eq=False)
class Causes:
    """For m pairs of states, by the saddle that carries most of the rate.

    low_friction, flat, low_barrier (m,) bool. anharmonic (m,) : log of the well's partition function over the harmonic
    one. corrected, string (m,) : log rates with the corrections that are known, and by the reduction to one dimension
    along the path; nan where there is none. names : the corrections that change the rate by more than 15 %.
    """

    low_friction: np.ndarray
    flat: np.ndarray
    low_barrier: np.ndarray
    anharmonic: np.ndarray
    corrected: np.ndarray
    string: np.ndarray
    names: tuple[str, ...]

    def reason(self, k: int) -> str:
        """The cause of a doubtful rate: the first of low friction (by its flag or its correction), low barrier, flat
        saddle (by the exact integrals over it, or by its flag), anharmonic well; else unknown.
        """
        if self.low_friction[k] or LOW_FRICTION_REASON in self.names[k]:
            return LOW_FRICTION_REASON
        if self.low_barrier[k]:
            return LOW_BARRIER_REASON
        if self.flat[k] or FLAT_SADDLE_REASON in self.names[k]:
            return FLAT_SADDLE_REASON
        return ANHARMONIC_REASON if abs(self.anharmonic[k]) > ANHARMONIC else UNKNOWN_REASON


def find_causes(
    energy: Energy,
    dynamics: Dynamics,
    subject: Subject,
    pairs: np.ndarray,
    wanted: np.ndarray,
    left: Callable[[], float],
) -> Causes:
    """`Causes` of the pairs (m, 2), each of which shares a saddle.

    Corrections are computed for the pairs that are `wanted` (m,) bool, saddle by saddle as long as time is `left`.
    """
    network, rates, m = subject.network, subject.rates, len(pairs)
    minima = subject.minima
    hessians = np.asarray(energy.hessian(minima))
    deviation = anharmonicity(energy, minima, hessians, dynamics.beta, torch.Generator().manual_seed(0))
    flat = flat_saddles(
        dynamics.beta, minima, subject.eigenvalues, network.energies, subject.saddles, subject.saddle_eigenvalues,
        network.saddle_energies, network.joins,
        end_distances(energy.symmetry, minima, subject.saddles, network.joins),
    )  # fmt: skip
    rows = {int(row) for pair in pairs[wanted] for row in subject.ways(*pair)[0]}
    log_rates, log_string, reasons = _corrected(energy, dynamics, subject, sorted(rows), left)
    main, corrected, string = np.zeros(m, dtype=int), np.full(m, np.nan), np.full(m, np.nan)
    for k, (i, j) in enumerate(pairs):
        ways, side = subject.ways(i, j)
        main[k] = ways[np.argmax(rates.log_rates[ways, side])]
        with np.errstate(invalid="ignore"):  # nan where a saddle has none
            corrected[k] = np.logaddexp.reduce(log_rates[ways, side])
            string[k] = np.logaddexp.reduce(log_string[ways, side])
    names = [reasons.get(int(row), ()) for row in main]
    reduced = dynamics.beta * network.barriers[main].min(axis=1) if m else np.zeros(0)
    return Causes(
        rates.low_friction[main], flat[main], reduced < LOW_BARRIER, deviation[pairs[:, 0]], corrected, string,
        tuple(", ".join(name) for name in names),
    )  # fmt: skip


def _corrected(
    energy: Energy, dynamics: Dynamics, subject: Subject, rows: list[int], left: Callable[[], float]
) -> tuple[np.ndarray, np.ndarray, dict[int, tuple[str, ...]]]:
    """Log corrected rates and those along the path (M, 2) of all M saddles, nan except for those `rows` that could be
    corrected while time was left, and the corrections that matter at each of these."""
    log_rates, log_string = (np.full((subject.network.n_saddles, 2), np.nan) for _ in range(2))
    reasons: dict[int, tuple[str, ...]] = {}
    for row in rows:
        if left() < -GRACE:
            break
        paths = subject.path_images[subject.path_saddle == row]
        try:
            minima, saddle = _around(energy, subject, row)
            found = corrected_rates(
                energy, dynamics, minima, saddle[None], subject.network.joins[[row]], paths,
                np.zeros(len(paths), dtype=int),
            )  # fmt: skip
        except LandscapeError:  # a verdict does not need them
            continue
        log_rates[row], reasons[row] = found.log_rates[0], found.reasons[0]
        if not isinstance(energy.symmetry, Periodic):  # where its tails would go round and round
            log_string[row] = found.log_string[0]
    return log_rates, log_string, reasons


def _around(energy: Energy, subject: Subject, row: int) -> tuple[np.ndarray, np.ndarray]:
    """The minima (n, d) and saddle `row` (d,); in a periodic energy the copies of all three through which its path
    leads, or where it has none those nearest to the saddle."""
    minima, saddle, symmetry = subject.minima, subject.saddles[row], energy.symmetry
    if not isinstance(symmetry, Periodic):
        return minima, saddle
    ends, paths = subject.network.joins[row], subject.path_images[subject.path_saddle == row]
    if not len(paths):
        minima[ends] = symmetry.nearest(minima[ends], np.stack([saddle, saddle]))
        return minima, saddle
    away = symmetry.shortest(paths[0] - saddle)
    top = int(np.linalg.norm(away, axis=1).argmin())
    minima[ends] = paths[0][[0, -1]]
    return minima, paths[0][top] - away[top]
