"""What an analysis holds in place of Hessians where the dimension is too large for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from landscape.dynamics import Dynamics
from landscape.energy import Energy
from landscape.rates.log_determinant import LogDeterminantOptions, LogDeterminants, log_determinants
from landscape.rates.unstable import unstable_growth
from landscape.search.stationary import StationaryPoints

Array = np.ndarray
Progress = Callable[[str], None]
ROUGH = 0.2  # relative standard error of a rate above which there is a warning


@dataclass(frozen=True, eq=False)
class Large:
    """log_dets (n, p), brackets (n,) : of the states, saddle_log_dets (m, p), saddle_brackets (m,) : of the saddles,
    see `LogDeterminants`. unstable_rates, losses (m,) : `unstable_growth` at the saddles, nan where there is none, for
    the dynamics with these gamma (d,) and mass (d,), None if overdamped.
    """

    log_dets: Array
    brackets: Array
    saddle_log_dets: Array
    saddle_brackets: Array
    unstable_rates: Array
    losses: Array
    gamma: Array
    mass: Array | None

    @property
    def determinants(self) -> tuple[LogDeterminants, LogDeterminants]:
        """Of the states, and of the saddles."""
        saddles = LogDeterminants(self.saddle_log_dets, self.saddle_brackets)
        return LogDeterminants(self.log_dets, self.brackets), saddles

    def growth(self, dynamics: Dynamics) -> tuple[Array, Array] | None:
        """Unstable rates and losses where they were computed for this gamma and mass, else None."""
        d = len(self.gamma)
        mass = dynamics.mass_vector(d)
        same = np.array_equal(self.gamma, dynamics.gamma_vector(d)) and (mass is None) == (self.mass is None)
        if same and mass is not None:
            same = np.array_equal(np.asarray(self.mass), mass)
        return (self.unstable_rates, self.losses) if same else None

    @staticmethod
    def measured(
        energy: Energy, dynamics: Dynamics, minima: StationaryPoints, saddles: StationaryPoints, joins: Array,
        options: LogDeterminantOptions, seed: int, progress: Progress | None = None,
    ) -> Large:  # fmt: skip
        """Determinants at all points, with the errors of the rates between joins (m, 2) and of the weights in mind;
        and how fast the dynamics leaves the saddles."""
        n = len(minima)
        ends = [(i, n + k) for k, pair in enumerate(joins.tolist()) for i in pair if i >= 0]
        pairs = np.array([*ends, *((0, i) for i in range(1, n))], int).reshape(-1, 2)
        x, modes = np.concatenate([minima.x, saddles.x]), np.concatenate([minima.modes, saddles.modes])
        found = log_determinants(energy, x, modes, pairs, options, seed=seed, progress=progress)
        rates, losses = unstable_growth(energy, dynamics, saddles.x, saddles.modes[:, 0])
        return Large(
            found.samples[:n], found.bracket[:n], found.samples[n:], found.bracket[n:], rates, losses,
            dynamics.gamma_vector(energy.dim), dynamics.mass_vector(energy.dim),
        )  # fmt: skip


def rough_rates(log_errors: Array) -> list[str]:
    """A warning where rates are known with a large error only; log_errors (m, 2), nan where there is none."""
    known = log_errors[~np.isnan(log_errors)]
    if not len(known) or not known.max() > ROUGH:
        return []
    worst = "an unknown error" if np.isinf(known.max()) else f"relative standard errors of up to {known.max():.0%}"
    return [
        f"rates have {worst} (log-determinants from {'random directions'}): raise max_probes in [determinants], or "
        "set dense = true there, which forms each Hessian"
    ]
