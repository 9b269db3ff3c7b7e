"""One period of a periodic energy, as an energy that can be sampled: weights are integrals over it."""

from __future__ import annotations

import copy

import numpy as np
import torch

from landscape.energy import Energy, Periodic


def one_period(energy: Energy, minima: np.ndarray) -> tuple[Energy, np.ndarray]:
    """The energy within one cell of its periods, +inf outside, and the copies of minima (n, d) inside; both unchanged
    where no periods are declared.

    Over all of space exp(-beta E) has no integral. In each periodic coordinate the cell ends in the middle of the
    largest gap between minima, so that it cuts through as few wells as can be; what it does cut off one side of a well
    it has on the other side, where the same labels apply.
    """
    symmetry = energy.symmetry
    if not isinstance(symmetry, Periodic):
        return energy, minima
    low, high = symmetry.cell(minima).T
    x, mask = symmetry.canonical(minima), symmetry.mask
    x[:, mask] = low[mask] + np.mod(x[:, mask] - low[mask], symmetry.lengths[mask])
    plain = getattr(energy, "plain", energy)
    cell = copy.copy(plain)  # counts with the whole
    bounds = torch.as_tensor(np.stack([low, high]), dtype=energy.dtype, device=energy.device)

    def inside(points: torch.Tensor) -> torch.Tensor:
        within = ((points >= bounds[0]) & (points < bounds[1])).all(1)
        return torch.where(within, plain.function(points).reshape(len(points)), torch.inf)

    cell.function = inside
    return cell, x
