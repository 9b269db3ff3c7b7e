"""Transition rates of overdamped and underdamped Langevin dynamics."""

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

__all__ = [
    "LangerRates",
    "is_degenerate",
    "langer_rates",
    "log_abs_determinant",
    "log_eyring_kramers",
    "log_kramers",
    "log_rate",
    "reduced_energy_loss",
]
