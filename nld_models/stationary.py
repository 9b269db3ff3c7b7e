"""What both objectives take from a prior's stationary density: draws at equilibrated frames, log Z, cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nld_models.prior import N_KERNELS, EnergyPrior, Prior
from nld_models.windows import Batch, pick_frames


@dataclass(frozen=True)
class StationaryNoise:
    """picks (S, n) : uniform in [0, 1). partition (S, n, d) : standard normal."""

    picks: torch.Tensor
    partition: torch.Tensor


@dataclass(frozen=True)
class Stationary:
    """rows (S, n) : flat positions of the drawn frames. log_z (S,), 0 without a stationary density. term (S,) :
    mean of -log density of the positions, which are held fixed; 0 likewise."""

    rows: torch.Tensor
    log_z: torch.Tensor
    term: torch.Tensor


def stationary(prior: Prior, batch: Batch, states: torch.Tensor, noise: StationaryNoise) -> Stationary:
    """For posterior states (S, B, T, state_dim)."""
    rows = pick_frames(batch, noise.picks)
    if not isinstance(prior, EnergyPrior):
        nothing = states.new_zeros(len(states))
        return Stationary(rows, nothing, nothing)
    fixed = at_rows(states, rows).detach()
    positions = fixed[..., : prior.dim]
    # The picks are in random order, so the first ones are a random choice.
    kernels = torch.arange(min(N_KERNELS, fixed.shape[1])).expand(len(states), -1)
    log_z = prior.log_partition(positions, kernels, noise.partition)
    return Stationary(rows, log_z, prior.reduced_energy(positions).mean(1) + log_z)


def at_rows(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(S, B, T, m), flat positions (S, n) -> (S, n, m)."""
    return values.flatten(1, 2).gather(1, rows.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
