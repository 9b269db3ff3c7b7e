"""Whether an energy grows outwards around everything that a search has found."""

from __future__ import annotations

import torch

from landscape.search.basins import LARGE_DIRECTIONS
from landscape.search.explore import Explorer

CONFINING_RADII = (2.0, 3.0, 5.0, 30.0)
OVERFLOW = 1e200  # an energy this large, with a gradient too large for floating point, has grown


def confines(explorer: Explorer) -> bool:
    """Whether the energy grows outwards, (x - c) . grad E > 0, on spheres around everything found.

    Of periodic coordinates nothing is asked: spheres are those of the others, at random values of these.
    """
    energy = explorer.energy
    low, high = explorer._box(explorer.scale)
    center, radius = 0.5 * (low + high), 0.5 * (high - low).norm()
    n = LARGE_DIRECTIONS if energy.matrix_free else max(64, 16 * energy.dim)
    unit = torch.randn(n, energy.dim, generator=explorer.generator, dtype=torch.float64).to(center)
    if explorer.periodic is not None:
        mask = torch.as_tensor(explorer.periodic.mask, device=unit.device)
        if bool(mask.all()):
            return True
        within, unit = torch.where(mask, unit, 0.0), torch.where(mask, 0.0, unit)
        center, radius = center + within * explorer.scale, 0.5 * (high - low)[~mask].norm()
    unit = unit / unit.norm(dim=1, keepdim=True)
    before = torch.zeros(n, dtype=unit.dtype, device=unit.device)
    for factor in CONFINING_RADII:
        value, gradient = energy.value_and_gradient(center + factor * radius * unit)
        overflow = (value == torch.inf) | ((value > OVERFLOW) & ~gradient.isfinite().all(1))
        # dE / d log r: positive, and in the end not dying away as towards a plateau
        growth = factor * radius * (gradient * unit).sum(1)
        least = 0.5 * before if factor == CONFINING_RADII[-1] else torch.zeros_like(growth)
        if not bool((overflow | ((growth > 0) & (growth >= least))).all()):
            return False
        before = growth.nan_to_num(0.0, 0.0, 0.0)
    return True
