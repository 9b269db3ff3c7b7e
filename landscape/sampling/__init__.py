"""Samplers of exp(-beta E): kernels that move a batch of independent chains, and one loop that drives them."""

from landscape.sampling.annealing import Level, anneal, noise_levels, temperature_levels
from landscape.sampling.convergence import ChainDiagnostics, Crossings, count_crossings, diagnose_chains
from landscape.sampling.driver import Kernel, run, warm_up
from landscape.sampling.hamiltonian import Ghmc, Hmc
from landscape.sampling.independence import Ahead, Independence, StudentMixture, harmonic_mixture
from landscape.sampling.langevin import Baoab, Lmc
from landscape.sampling.mala import Mala, preconditioner
from landscape.sampling.metropolis import Chains, metropolis
from landscape.sampling.sampler import SampleOptions, Samples, sample
from landscape.sampling.step_size import curvature_along, largest_curvature
from landscape.sampling.tempering import Tempering, find_ladder, hottest_ratio

__all__ = [
    "Ahead",
    "Baoab",
    "ChainDiagnostics",
    "Chains",
    "Crossings",
    "Ghmc",
    "Hmc",
    "Independence",
    "Kernel",
    "Level",
    "Lmc",
    "Mala",
    "SampleOptions",
    "Samples",
    "StudentMixture",
    "Tempering",
    "anneal",
    "count_crossings",
    "curvature_along",
    "diagnose_chains",
    "find_ladder",
    "harmonic_mixture",
    "hottest_ratio",
    "largest_curvature",
    "metropolis",
    "noise_levels",
    "preconditioner",
    "run",
    "sample",
    "temperature_levels",
    "warm_up",
]
