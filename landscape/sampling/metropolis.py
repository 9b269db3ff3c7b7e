"""Positions of a batch of chains, and the Metropolis-Hastings decision that every exact kernel shares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from landscape.energy import Energy
from landscape.errors import UsageError

Beta = float | torch.Tensor  # one inverse temperature, or one a chain, (n,)

_NONE = torch.zeros(0, dtype=torch.bool)  # stands for: no chain has stopped


@dataclass(frozen=True)
class Chains:
    """One position a chain, with what the kernels need to know about it; float64 on the CPU.

    x (n, d); energy (n,), infinite where the energy or its gradient is not finite; gradient (n, d), zero there.
    momentum : (n, d) for kernels that keep one from step to step, else None. stopped (n,) : the chain ran into a
    non-finite energy where no Metropolis decision could prevent it, and stays at its last finite position; by
    default none has.
    """

    x: torch.Tensor
    energy: torch.Tensor
    gradient: torch.Tensor
    stopped: torch.Tensor = _NONE
    momentum: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.stopped is _NONE:
            object.__setattr__(self, "stopped", torch.zeros(len(self.x), dtype=torch.bool))

    @classmethod
    def init(cls, energy: Energy, x: torch.Tensor, momentum: torch.Tensor | None = None) -> Chains:
        """Evaluate the energy at x (n, d): one gradient a row."""
        x = x.to(device="cpu", dtype=torch.float64)
        value, gradient = (part.to(device="cpu", dtype=torch.float64) for part in energy.value_and_gradient(x))
        finite = value.isfinite() & gradient.isfinite().all(1)
        return cls(x, value.where(finite, torch.inf), gradient.where(finite[:, None], 0.0), momentum=momentum)

    def where(self, take: torch.Tensor, other: Chains) -> Chains:
        """Rows of self where `take` (n,) holds, of other elsewhere."""
        column = take[:, None]
        momentum = self.momentum
        if momentum is not None and other.momentum is not None:
            momentum = momentum.where(column, other.momentum)
        return Chains(
            self.x.where(column, other.x),
            self.energy.where(take, other.energy),
            self.gradient.where(column, other.gradient),
            self.stopped.where(take, other.stopped),
            momentum,
        )

    def rows(self, index: torch.Tensor | slice) -> Chains:
        """The chains that `index` names, in its order."""
        momentum = None if self.momentum is None else self.momentum[index]
        return Chains(self.x[index], self.energy[index], self.gradient[index], self.stopped[index], momentum)

    def with_momentum(self, momentum: torch.Tensor) -> Chains:
        return replace(self, momentum=momentum)


def metropolis(
    state: Chains, proposal: Chains, log_proposal_ratio: torch.Tensor, beta: Beta, generator: torch.Generator
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


def column(value: float | torch.Tensor) -> float | torch.Tensor:
    """One number a chain as a column (n, 1), so that it multiplies positions; a plain number stays one."""
    return value[:, None] if isinstance(value, torch.Tensor) else value


def momentum_of(state: Chains, generator: torch.Generator) -> torch.Tensor:
    """The momenta of the chains (n, d); standard normal where they have none yet."""
    if state.momentum is not None:
        return state.momentum
    return torch.randn(state.x.shape, dtype=torch.float64, generator=generator)


def check_persistence(persistence: float) -> None:
    """UsageError unless a part of the momentum between 0 and 1, not all of it, is kept."""
    if not 0 <= persistence < 1:
        raise UsageError(f"the part of the momentum that is kept lies in [0, 1), not {persistence!r}")
