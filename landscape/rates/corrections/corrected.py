"""Every correction to Langer's rates over the saddles of one landscape, in one call.

    corrected_rates(energy, dynamics, minima, saddles, joins, paths=None, path_saddle=None) -> CorrectedRates

with minima (n, d), saddles (m, d), joins (m, 2), and from a saved analysis `paths.images` (p, k, d), `paths.saddle`
(p,). What comes back holds natural logarithms of shape (m, 2), from each end of the saddle; nan where a correction does
not apply, `reasons` where one matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from landscape.dynamics import Dynamics, Overdamped, Underdamped
from landscape.energy import Energy
from landscape.rates.cores import default_level
from landscape.rates.corrections.flat_saddle import flat_saddle_rates
from landscape.rates.corrections.string_reduction import string_rates
from landscape.rates.corrections.turnover import log_turnover, mode_energy_loss, path_energy_loss
from landscape.rates.kramers import langer_rates

MATTERS = math.log(1.15)  # the band in which two rates count as equal
UNPHYSICAL = 0.1  # share of a path's resistance at raised curvatures from which on its reduction is left out
LARGEST = math.log(1e3)  # a ridge farther than this from its Gaussian is no correction but another saddle


@dataclass(frozen=True)
class CorrectedRates:
    """Corrections over m saddles, natural logarithms.

    log_langer (m, 2) : the formula's rates, nan where it refuses.
    log_turnover (m,) : of the depopulation factor, <= 0; 0 for overdamped dynamics; nan where no orbit turns back.
    energy_loss, path_loss (m, 2) : Delta of both wells, in units of 1/beta, by the unstable mode and by friction along
    the path (nan without one); the lower of the two factors is taken, see `turnover`.
    log_flat_saddle (m,) : of the factor for soft modes across the saddle and for the shape of its top; finite beside a
    finite formula only. quartic (m,) : C of the softest mode; log_flat_rates (m, 2) : rates with these integrals, also
    where the saddle is degenerate and the formula refuses.
    log_string (m, 2) : rates by the reduction along the path (overdamped, reversible; nan without a path), a separate
    estimate, not a factor; between core surfaces.
    """

    log_langer: np.ndarray
    log_turnover: np.ndarray
    energy_loss: np.ndarray
    path_loss: np.ndarray
    log_flat_saddle: np.ndarray
    log_flat_rates: np.ndarray
    quartic: np.ndarray
    log_string: np.ndarray

    @property
    def log_rates(self) -> np.ndarray:
        """(m, 2): the formula times every factor that is known (the ridge's rate where the formula refuses)."""
        base = np.where(np.isfinite(self.log_flat_rates), self.log_flat_rates, self.log_langer)
        return np.asarray(base + np.nan_to_num(self.log_turnover, nan=0.0)[:, None])

    @property
    def reasons(self) -> tuple[tuple[str, ...], ...]:
        """For each saddle, which of "low friction", "flat saddle" changes its rate by more than 15 %."""
        with np.errstate(invalid="ignore"):
            slow = np.abs(self.log_turnover) > MATTERS
            flat = (np.abs(self.log_flat_saddle) > MATTERS) | (
                np.isnan(self.log_flat_saddle) & np.isfinite(self.log_flat_rates).any(axis=1)
            )
        names = (("low friction", slow), ("flat saddle", flat))
        return tuple(tuple(name for name, mask in names if mask[k]) for k in range(len(slow)))


def corrected_rates(
    energy: Energy,
    dynamics: Dynamics,
    minima: np.ndarray,
    saddles: np.ndarray,
    joins: np.ndarray,
    paths: np.ndarray | None = None,
    path_saddle: np.ndarray | None = None,
) -> CorrectedRates:
    """All corrections that apply to these dynamics; see `CorrectedRates`.

    minima (n, d), saddles (m, d), joins (m, 2) : the minima at both ends of a saddle, -1 for none. paths (p, k, d) :
    minimum energy paths from joins[., 0] to joins[., 1], and path_saddle (p,) the saddle that each leads over.
    With a rotation nothing but the formula is known.
    """
    wells, tops = np.asarray(minima, dtype=float), np.asarray(saddles, dtype=float)
    m, d = tops.shape
    ends = np.asarray(joins, dtype=int).reshape(m, 2)
    hessians = energy.hessian(tops)
    langer = langer_rates(
        dynamics, energy.value(wells), np.linalg.eigvalsh(energy.hessian(wells)), energy.value(tops),
        np.linalg.eigvalsh(hessians), hessians, ends,
    )  # fmt: skip
    turnover, loss = np.zeros(m), np.full((m, 2), np.inf)
    along = loss
    flat, ridge, quartic = np.full(m, np.nan), np.full((m, 2), np.nan), np.full(m, np.nan)
    string = np.full((m, 2), np.nan)
    if isinstance(dynamics, Underdamped):
        loss, along = np.full((m, 2), np.nan), np.full((m, 2), np.nan)
        rows = np.flatnonzero(np.isfinite(langer.log_rates).all(axis=1))
        if len(rows):
            loss[rows] = mode_energy_loss(energy, dynamics, tops[rows], hessians[rows], wells[ends[rows]])
        if paths is not None and len(paths):
            along[np.asarray(path_saddle, dtype=int)] = path_energy_loss(energy, dynamics, paths)
        turnover = np.fmin(log_turnover(loss), log_turnover(along))
    if dynamics.reversible and m:
        found = flat_saddle_rates(energy, dynamics, wells, tops, ends)
        factor = found.log_ridge + found.log_top
        fine = np.abs(np.nan_to_num(factor, nan=np.inf)) < LARGEST
        flat[fine] = factor[fine]
        ridge, quartic = found.log_rates, found.quartic
        ridge[~fine & np.isfinite(langer.log_rates).any(axis=1)] = np.nan
    if paths is not None and len(paths) and isinstance(dynamics, Overdamped) and dynamics.reversible:
        reduced = string_rates(energy, dynamics, np.asarray(paths), level=default_level(d))
        trusted = reduced.concave < UNPHYSICAL
        string[np.asarray(path_saddle, dtype=int)[trusted]] = reduced.log_rates[trusted]
    return CorrectedRates(langer.log_rates, turnover, loss, along, flat, ridge, quartic, string)
