"""The Metropolis-adjusted Langevin algorithm with a fixed preconditioner (Roberts and Tweedie 1996; Roberts and
Rosenthal 1998).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from landscape.energy import Energy
from landscape.sampling.metropolis import Beta, Chains, column, metropolis
from landscape.sampling.step_size import AdaptiveStep, Averaging, StepSize, check_step, per_chain

# Acceptance at which the algorithm is fastest in many dimensions.
TARGET_ACCEPTANCE = 0.574


@dataclass(frozen=True)
class Mala(AdaptiveStep):
    """x' = x - (step_size^2 / 2) beta C grad E(x) + step_size L z, z standard normal, C = L L^T; then accept or reject.

    factor : L, (d, d); None for the identity. step_size : dimensionless if C is a covariance of the target, else a
    length; or one a group of chains, (g,). A step costs one gradient a chain.
    """

    factor: torch.Tensor | None
    step_size: StepSize
    target: float = TARGET_ACCEPTANCE
    averaging: Averaging | None = None

    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_step(self.step_size, self.target)

    def step(
        self, energy: Energy, beta: Beta, state: Chains, generator: torch.Generator
    ) -> tuple[Chains, torch.Tensor]:
        """See `Kernel.step`."""
        step = per_chain(self.step_size, len(state.x))
        half = 0.5 * step * column(beta)
        noise = torch.randn(state.x.shape, dtype=torch.float64, generator=generator)
        drift = half * self._pulled(state.gradient)
        proposal = Chains.init(energy, state.x + self._pushed(step * (noise - drift)))
        # The noise that would bring the proposal back.
        back = drift + half * self._pulled(proposal.gradient) - noise
        log_ratio = 0.5 * (noise.square().sum(1) - back.square().sum(1))
        return metropolis(state, proposal, log_ratio, beta, generator)

    def stabilised(self, curvature: StepSize) -> Mala:
        """See `Kernel.stabilised`: one thermal length of the stiffest direction.

        Without a preconditioner only.
        """
        return self if self.factor is not None else replace(self, step_size=curvature**-0.5)

    def _pulled(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient if self.factor is None else gradient @ self.factor

    def _pushed(self, step: torch.Tensor) -> torch.Tensor:
        return step if self.factor is None else step @ self.factor.mT


def preconditioner(covariances: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cholesky factor of one covariance for all wells: the inverse of the weighted mean precision.

    covariances (k, d, d), weights (k,) -> (d, d). The harmonic mean keeps the step stable in the stiffest well that
    matters.
    """
    precision = torch.einsum("k,kij->ij", weights / weights.sum(), torch.linalg.inv(covariances))
    covariance = torch.linalg.inv(0.5 * (precision + precision.mT))
    return torch.linalg.cholesky(0.5 * (covariance + covariance.mT))
