"""Corrections to Langer's rates: low friction, flat and quartic saddles, the reduction to one dimension along a path.

    corrected_rates(energy, dynamics, minima, saddles, joins, paths=None, path_saddle=None) -> CorrectedRates

gives them all for the saddles of one landscape: natural logarithms, nan where one does not apply, and by `reasons` the
saddles at which one changes the rate by more than 15 %. `CorrectedRates.log_rates` (m, 2) is the formula times what is
known; `log_string` (m, 2) a separate estimate.
"""

from landscape.rates.corrections.corrected import CorrectedRates, corrected_rates
from landscape.rates.corrections.flat_saddle import FlatSaddleRates, flat_saddle_rates, log_quartic_integral
from landscape.rates.corrections.string_reduction import StringRates, string_rates
from landscape.rates.corrections.turnover import log_depopulation, log_turnover, mode_energy_loss, path_energy_loss

__all__ = [
    "CorrectedRates",
    "FlatSaddleRates",
    "StringRates",
    "corrected_rates",
    "flat_saddle_rates",
    "log_depopulation",
    "log_quartic_integral",
    "log_turnover",
    "mode_energy_loss",
    "path_energy_loss",
    "string_rates",
]
