"""Basin weights: the equilibrium probability of each state, by formula, by Markov chains, or by importance sampling.

A state is a minimum and its basin of attraction under dx/dt = -grad E; its weight is the integral of exp(-beta E) over
the basin, divided by the integral over all space.
"""

from landscape.weights.cell import one_period
from landscape.weights.cores import SublevelBasins, lowest_saddles, sublevel_basins
from landscape.weights.exact import ExactResult, exact_weights
from landscape.weights.harmonic import HarmonicWeights, second_order, second_order_errors, zeroth_order
from landscape.weights.intervals import weight_interval
from landscape.weights.plan import ExactWeights
from landscape.weights.sampled import MAX_UNASSIGNED, SampledResult, SampledWeights, sample_weights

__all__ = [
    "MAX_UNASSIGNED",
    "ExactResult",
    "ExactWeights",
    "HarmonicWeights",
    "SampledResult",
    "SampledWeights",
    "SublevelBasins",
    "exact_weights",
    "lowest_saddles",
    "one_period",
    "sample_weights",
    "second_order",
    "second_order_errors",
    "sublevel_basins",
    "weight_interval",
    "zeroth_order",
]
