"""Positions of a batch of chains, and the Metropolis-Hastings decision that every exact kernel shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from landscape.energy import Energy


@dataclass(frozen=True)
class Chains:
    """One position a chain, with what the kernels need to know about it; float64 on the CPU.

    x (n, d); energy (n,), infinite where the energy or its gradient is not finite; gradient (n, d), zero there.
    """

    x: torch.Tensor
    energy: torch.Tensor
    gradient: torch.Tensor

    @classmethod
    def init(cls, energy: Energy, x: torch.Tensor) -> Chains:
        """Evaluate the energy at x (n, d): one gradient a row."""
        x = x.to(device="cpu", dtype=torch.float64)
        value, gradient = (part.to(device="cpu", dtype=torch.float64) for part in energy.value_and_gradient(x))
        finite = value.isfinite() & gradient.isfinite().all(1)
        return cls(x, value.where(finite, torch.inf), gradient.where(finite[:, None], 0.0))

    def where(self, take: torch.Tensor, other: Chains) -> Chains:
        """Rows of self where `take` (n,) holds, of other elsewhere."""
        column = take[:, None]
        return Chains(
            self.x.where(column, other.x),
            self.energy.where(take, other.energy),
            self.gradient.where(column, other.gradient),
        )


def metropolis(
    state: Chains, proposal: Chains, log_proposal_ratio: torch.Tensor, beta: float, generator: torch.Generator
) -> tuple[Chains, torch.Tensor]:
    """Accept each row of the proposal with probability min(1, exp(-beta (E' - E)) q(x | x') / q(x' | x)).

    log_proposal_ratio : log q(x | x') - log q(x' | x), (n,). A proposal without a finite energy is never accepted, one
    from a row without a finite energy always. Returns the new chains and the acceptance probabilities (n,).
    """
    log_ratio = -beta * (proposal.energy - state.energy) + log_proposal_ratio
    log_ratio = log_ratio.where(state.energy.isfinite(), torch.inf).where(proposal.energy.isfinite(), -torch.inf)
    log_ratio = log_ratio.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    uniform = torch.rand(len(log_ratio), dtype=torch.float64, generator=generator)
    return proposal.where(uniform.log() < log_ratio, state), log_ratio.clamp_max(0).exp()
