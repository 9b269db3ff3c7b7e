"""Samplers of exp(-beta E): kernels that move a batch of independent chains, and one loop that drives them."""

from landscape.sampling.driver import Kernel, run, warm_up
from landscape.sampling.hamiltonian import Ghmc, Hmc
from landscape.sampling.independence import Independence, StudentMixture, harmonic_mixture
from landscape.sampling.langevin import Baoab, Lmc
from landscape.sampling.mala import Mala, preconditioner
from landscape.sampling.metropolis import Chains, metropolis

__all__ = [
    "Baoab",
    "Chains",
    "Ghmc",
    "Hmc",
    "Independence",
    "Kernel",
    "Lmc",
    "Mala",
    "StudentMixture",
    "harmonic_mixture",
    "metropolis",
    "preconditioner",
    "run",
    "warm_up",
]
