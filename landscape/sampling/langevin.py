"""Langevin dynamics without a Metropolis decision: LMC and BAOAB. Cheap, and off by what their steps are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch

from landscape.energy import Energy
from landscape.sampling.metropolis import Beta, Chains, check_persistence, column, momentum_of
from landscape.sampling.step_size import StepSize, check_step, per_chain

LMC_STABILITY = 0.05  # step times largest curvature; 2 is the limit. The variance there comes out 2.6 % too wide
BAOAB_STABILITY = 0.5  # step times the root of the largest curvature; 2 is the limit


class Unadjusted:
    """What kernels share that accept every move: there is no acceptance to adapt to."""

    exact: ClassVar[bool] = False

    def adapted(self, acceptance: torch.Tensor, step: int) -> Self:
        return self

    def settled(self) -> Self:
        return self


@dataclass(frozen=True)
class Lmc(Unadjusted):
    """Langevin Monte Carlo: x' = x - eta beta grad E(x) + sqrt(2 eta) z, z standard normal.

    step_size : eta, a length squared; or one a group of chains, (g,). In a harmonic direction of curvature lambda (of
    beta E) the variance is 1 / (lambda (1 - eta lambda / 2)) instead of 1 / lambda: of first order in eta.
    """

    step_size: StepSize

    def __post_init__(self) -> None:
        check_step(self.step_size)

    def step(
        self, energy: Energy, beta: Beta, state: Chains, generator: torch.Generator
    ) -> tuple[Chains, torch.Tensor]:
        """See `Kernel.step`."""
        eta = per_chain(self.step_size, len(state.x))
        noise = torch.randn(state.x.shape, dtype=torch.float64, generator=generator)
        x = state.x - eta * column(beta) * state.gradient + (2 * eta) ** 0.5 * noise
        return Chains.init(energy, x), torch.ones(len(x), dtype=torch.float64)

    def stabilised(self, curvature: StepSize) -> Lmc:
        """See `Kernel.stabilised`."""
        return replace(self, step_size=LMC_STABILITY / curvature)


@dataclass(frozen=True)
class Baoab(Unadjusted):
    """Underdamped Langevin dynamics of unit mass with potential beta E: half kick, half drift, friction and noise
    p' = c p + sqrt(1 - c^2) z, half drift, half kick (Leimkuhler and Matthews, Appl. Math. Res. Express, 34, 2013).

    step_size : h, a length; or one a group of chains. persistence : c = exp(-friction h). Errors of averages are of
    order h^2; positions in a harmonic well have none, whatever the stable step.
    """

    step_size: StepSize
    persistence: float = 0.9

    def __post_init__(self) -> None:
        check_step(self.step_size)
        check_persistence(self.persistence)

    def step(
        self, energy: Energy, beta: Beta, state: Chains, generator: torch.Generator
    ) -> tuple[Chains, torch.Tensor]:
        """See `Kernel.step`."""
        h, force = per_chain(self.step_size, len(state.x)), column(beta)
        p = momentum_of(state, generator) - 0.5 * h * force * state.gradient
        x = state.x + 0.5 * h * p
        noise = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        p = self.persistence * p + math.sqrt(1 - self.persistence**2) * noise
        new = Chains.init(energy, x + 0.5 * h * p)
        return new.with_momentum(p - 0.5 * h * force * new.gradient), torch.ones(len(x), dtype=torch.float64)

    def stabilised(self, curvature: StepSize) -> Baoab:
        """See `Kernel.stabilised`."""
        return replace(self, step_size=BAOAB_STABILITY / curvature**0.5)
