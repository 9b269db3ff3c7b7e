"""The Metropolis-adjusted Langevin algorithm with a fixed preconditioner (Roberts and Tweedie 1996; Roberts and
Rosenthal 1998).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.sampling.metropolis import Chains, metropolis

# Acceptance at which the algorithm is fastest in many dimensions.
TARGET_ACCEPTANCE = 0.574


@dataclass(frozen=True)
class Mala:
    """x' = x - (step_size^2 / 2) beta C grad E(x) + step_size L z, z standard normal, C = L L^T; then accept or reject.

    factor : L, (d, d). step_size : dimensionless if C is a covariance of the target. A step costs one gradient a chain.
    """

    factor: torch.Tensor
    step_size: float
    target: float = TARGET_ACCEPTANCE

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step_size) and self.step_size > 0 and 0 < self.target < 1):
            raise UsageError(
                "a step size is greater than 0 and a target acceptance between 0 and 1, not "
                f"{self.step_size} and {self.target}"
            )

    def step(
        self, energy: Energy, beta: float, state: Chains, generator: torch.Generator
    ) -> tuple[Chains, torch.Tensor]:
        """See `Kernel.step`."""
        half = 0.5 * self.step_size * beta
        noise = torch.randn(state.x.shape, dtype=torch.float64, generator=generator)
        drift = half * state.gradient @ self.factor
        proposal = Chains.init(energy, state.x + self.step_size * (noise - drift) @ self.factor.mT)
        # The noise that would bring the proposal back.
        back = drift + half * proposal.gradient @ self.factor - noise
        log_ratio = 0.5 * (noise.square().sum(1) - back.square().sum(1))
        return metropolis(state, proposal, log_ratio, beta, generator)

    def adapted(self, acceptance: float, step: int) -> Mala:
        """Robbins-Monro on the logarithm of the step size, towards the target acceptance."""
        gain = 2.0 / math.sqrt(step + 1.0)
        return replace(self, step_size=self.step_size * math.exp(gain * (acceptance - self.target)))


def preconditioner(covariances: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cholesky factor of one covariance for all wells: the inverse of the weighted mean precision.

    covariances (k, d, d), weights (k,) -> (d, d). The harmonic mean keeps the step stable in the stiffest well that
    matters.
    """
    precision = torch.einsum("k,kij->ij", weights / weights.sum(), torch.linalg.inv(covariances))
    covariance = torch.linalg.inv(0.5 * (precision + precision.mT))
    return torch.linalg.cholesky(0.5 * (covariance + covariance.mT))
