"""Hamiltonian Monte Carlo, and its generalised form that keeps part of the momentum.

H(x, p) = beta E(x) + |p|^2 / 2; trajectories by the leapfrog method, which is reversible and keeps volume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.sampling.metropolis import Beta, Chains, check_persistence, column, metropolis, momentum_of
from landscape.sampling.step_size import AdaptiveStep, Averaging, StepSize, check_step, per_chain

HMC_ACCEPTANCE = 0.8  # between the asymptotic optimum .651 (Beskos et al. 2013) and what uneven curvature asks for
GHMC_ACCEPTANCE = 0.95  # every rejection turns a chain round, so they must be rare


@dataclass(frozen=True)
class Hmc(AdaptiveStep):
    """Fresh momenta, a leapfrog trajectory, accept or reject (Duane et al. 1987; Neal 2011).

    step_size : of the leapfrog, a length; or one a group of chains. n_leapfrog : mean number of its steps; the number
    is drawn evenly from 1 .. 2 n_leapfrog - 1 at each move, so that no trajectory closes on itself for ever. A step
    costs that many gradients a chain.
    """

    step_size: StepSize
    n_leapfrog: int = 10
    target: float = HMC_ACCEPTANCE
    averaging: Averaging | None = None

    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_step(self.step_size, self.target)
        _check_leapfrog(self.n_leapfrog)

    def step(
        self, energy: Energy, beta: Beta, state: Chains, generator: torch.Generator
    ) -> tuple[Chains, torch.Tensor]:
        """See `Kernel.step`."""
        p = torch.randn(state.x.shape, dtype=torch.float64, generator=generator)
        n = int(torch.randint(1, 2 * self.n_leapfrog, (), generator=generator))
        start = replace(state, momentum=None)
        end, p_end = leapfrog(energy, beta, start, p, per_chain(self.step_size, len(p)), n)
        return metropolis(start, end, 0.5 * (p.square().sum(1) - p_end.square().sum(1)), beta, generator)

    def stabilised(self, curvature: StepSize) -> Hmc:
        """See `Kernel.stabilised`."""
        return replace(self, step_size=0.5 * curvature**-0.5)


@dataclass(frozen=True)
class Ghmc(AdaptiveStep):
    """Partly refreshed momenta, a short trajectory, accept, or stay and turn round (Horowitz 1991; Lelievre, Rousset
    and Stoltz 2010, section 2.2).

    p' = c p + sqrt(1 - c^2) z with persistence c, n_leapfrog steps, then a Metropolis decision on H; a rejected chain
    keeps its position and reverses p', without which exp(-beta E) would not be kept.
    """

    step_size: StepSize
    n_leapfrog: int = 1
    persistence: float = 0.9
    target: float = GHMC_ACCEPTANCE
    averaging: Averaging | None = None

    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_step(self.step_size, self.target)
        _check_leapfrog(self.n_leapfrog)
        check_persistence(self.persistence)

    def step(
        self, energy: Energy, beta: Beta, state: Chains, generator: torch.Generator
    ) -> tuple[Chains, torch.Tensor]:
        """See `Kernel.step`."""
        noise = torch.randn(state.x.shape, dtype=torch.float64, generator=generator)
        p = self.persistence * momentum_of(state, generator) + math.sqrt(1 - self.persistence**2) * noise
        end, p_end = leapfrog(energy, beta, state, p, per_chain(self.step_size, len(p)), self.n_leapfrog)
        change = 0.5 * (p.square().sum(1) - p_end.square().sum(1))
        return metropolis(state.with_momentum(-p), end.with_momentum(p_end), change, beta, generator)

    def stabilised(self, curvature: StepSize) -> Ghmc:
        """See `Kernel.stabilised`."""
        return replace(self, step_size=0.5 * curvature**-0.5)


def leapfrog(
    energy: Energy, beta: Beta, state: Chains, p: torch.Tensor, step: StepSize, n: int
) -> tuple[Chains, torch.Tensor]:
    """n steps of p' = p - (h/2) beta grad E(x), x' = x + h p', p'' = p' - (h/2) beta grad E(x'), from (x, p).

    step : h, a number or a column (m, 1). Where the energy is not finite the force counts as 0, which keeps the map
    reversible.
    """
    half = 0.5 * step * column(beta)
    p = p - half * state.gradient
    for k in range(n):
        state = Chains.init(energy, state.x + step * p)
        p = p - (half if k == n - 1 else 2 * half) * state.gradient
    return state, p


def _check_leapfrog(n_leapfrog: int) -> None:
    if not isinstance(n_leapfrog, int) or n_leapfrog < 1:
        raise UsageError(f"a trajectory has a whole number of leapfrog steps, at least 1, not {n_leapfrog!r}")
