"""The core of each state below its lowest saddle, and its mass from sampled chains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscape.errors import UsageError
from landscape.sampling.diagnostics import LabelledChains


@dataclass(frozen=True)
class SublevelBasins:
    """The core of each state: the connected piece of {E < ceiling_i} that holds minimum i.

    ceilings (n,) : energy of the lowest saddle of state i, infinite for a state without one, whose core is its basin.
    mass, standard_errors (n,) : equilibrium probability of the cores; they leave out what lies above the saddles, so
    they sum to less than 1.
    """

    ceilings: np.ndarray
    mass: np.ndarray
    standard_errors: np.ndarray


def lowest_saddles(n_states: int, joins: np.ndarray, saddle_energies: np.ndarray) -> np.ndarray:
    """Energy of the lowest saddle on the way out of each state, (n_states,); infinite without one.

    joins (m, 2) : the states at both ends of each saddle, -1 for an unknown one. A saddle from a state to itself is no
    way out.
    """
    ends, energies = np.asarray(joins, dtype=int).reshape(-1, 2), np.asarray(saddle_energies, dtype=float)
    lowest = np.full(n_states, np.inf)
    for side in range(2):
        out = (ends[:, 0] != ends[:, 1]) & (ends[:, side] >= 0)
        np.minimum.at(lowest, ends[out, side], energies[out])
    return lowest


def sublevel_basins(chains: LabelledChains, ceilings: np.ndarray) -> SublevelBasins:
    """Mass of the connected piece of {E < ceilings_i} around each minimum i, from the chains of a `SampledResult`.

    ceilings (n,) : see `lowest_saddles`. As the gradient flow only lowers E, a point of basin i with E below every
    saddle on the rim of the basin is joined to minimum i inside {E < ceiling_i}; and a path from the minimum that left
    the basin would have to cross its rim, whose lowest point is that saddle. So the piece is exactly the part of basin
    i below the ceiling.
    """
    levels = np.asarray(ceilings, dtype=float)
    if np.isnan(levels).any():
        raise UsageError("the ceiling of a state is an energy, or infinity for a state without a saddle, not nan")
    mass, error = chains.occupancy(len(levels), np.append(levels, np.inf))
    return SublevelBasins(levels, mass[:-1].clip(0), error[:-1])
