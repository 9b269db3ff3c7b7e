"""Transition rates of Langevin dynamics: formulas, and what they are checked against.

Names are imported on first use: an analysis without checks needs the formulas alone, not grids, bounds and simulations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from landscape.lazy import on_first_use

if TYPE_CHECKING:
    from landscape.rates.bounds import BracketOptions, RateBracket, bracket_rate
    from landscape.rates.cores import Cores, discs, make_cores, relaxation_rates
    from landscape.rates.corrections import CorrectedRates, corrected_rates, flat_saddle_rates, string_rates
    from landscape.rates.counting import CountedRates
    from landscape.rates.grid import GridGenerator, find_box, grid_generator
    from landscape.rates.grid_rates import (
        GridRates,
        Spectrum,
        committors,
        core_rates,
        eigenfunctions,
        eigenvalues,
        mean_passage_times,
        reference_rates,
        reference_spectrum,
    )
    from landscape.rates.klein_kramers import (
        KleinKramersRates,
        KleinKramersSpectrum,
        klein_kramers_rates,
        klein_kramers_spectrum,
    )
    from landscape.rates.kramers import (
        LangerRates,
        is_degenerate,
        langer_rates,
        log_abs_determinant,
        log_eyring_kramers,
        log_kramers,
        log_rate,
        reduced_energy_loss,
    )
    from landscape.rates.langevin_monte_carlo import LmcConstants, lmc_constants, local_smoothness
    from landscape.rates.log_determinant import LogDeterminantOptions, LogDeterminants, log_determinants
    from landscape.rates.log_sobolev import log_sobolev_of_network
    from landscape.rates.passages import (
        PassageOptions,
        PassageRates,
        TimeStepEffect,
        rates_at_step,
        simulate_passages,
        time_step_effect,
    )
    from landscape.rates.unstable import unstable_growth
else:
    __getattr__, __dir__ = on_first_use(
        __name__,
        {
            "bounds": ("BracketOptions", "RateBracket", "bracket_rate"),
            "cores": ("Cores", "discs", "make_cores", "relaxation_rates"),
            "corrections": ("CorrectedRates", "corrected_rates", "flat_saddle_rates", "string_rates"),
            "counting": ("CountedRates",),
            "grid": ("GridGenerator", "find_box", "grid_generator"),
            "grid_rates": (
                "GridRates",
                "Spectrum",
                "committors",
                "core_rates",
                "eigenfunctions",
                "eigenvalues",
                "mean_passage_times",
                "reference_rates",
                "reference_spectrum",
            ),
            "klein_kramers": (
                "KleinKramersRates",
                "KleinKramersSpectrum",
                "klein_kramers_rates",
                "klein_kramers_spectrum",
            ),
            "kramers": (
                "LangerRates",
                "is_degenerate",
                "langer_rates",
                "log_abs_determinant",
                "log_eyring_kramers",
                "log_kramers",
                "log_rate",
                "reduced_energy_loss",
            ),
            "langevin_monte_carlo": ("LmcConstants", "lmc_constants", "local_smoothness"),
            "log_determinant": ("LogDeterminantOptions", "LogDeterminants", "log_determinants"),
            "log_sobolev": ("log_sobolev_of_network",),
            "passages": (
                "PassageOptions",
                "PassageRates",
                "TimeStepEffect",
                "rates_at_step",
                "simulate_passages",
                "time_step_effect",
            ),
            "unstable": ("unstable_growth",),
        },
    )

__all__ = [
    "BracketOptions",
    "Cores",
    "CorrectedRates",
    "CountedRates",
    "GridGenerator",
    "GridRates",
    "KleinKramersRates",
    "KleinKramersSpectrum",
    "LangerRates",
    "LmcConstants",
    "LogDeterminantOptions",
    "LogDeterminants",
    "PassageOptions",
    "PassageRates",
    "RateBracket",
    "Spectrum",
    "TimeStepEffect",
    "bracket_rate",
    "committors",
    "core_rates",
    "corrected_rates",
    "discs",
    "eigenfunctions",
    "eigenvalues",
    "find_box",
    "flat_saddle_rates",
    "grid_generator",
    "is_degenerate",
    "klein_kramers_rates",
    "klein_kramers_spectrum",
    "langer_rates",
    "lmc_constants",
    "local_smoothness",
    "log_abs_determinant",
    "log_determinants",
    "log_eyring_kramers",
    "log_kramers",
    "log_rate",
    "log_sobolev_of_network",
    "make_cores",
    "mean_passage_times",
    "rates_at_step",
    "reduced_energy_loss",
    "reference_rates",
    "reference_spectrum",
    "relaxation_rates",
    "simulate_passages",
    "string_rates",
    "time_step_effect",
    "unstable_growth",
]
