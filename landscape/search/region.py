"""The region that holds the minima of an energy: a cube that finds its scale, and starts within it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from landscape.energy import Energy
from landscape.errors import EnergyError
from landscape.search.descents import Descents
from landscape.search.driver import Status
from landscape.search.lbfgs import LBFGS, relax
from landscape.search.starts import Box, Gaussian, draw_finite

PILOT_SCALES = (0.1, 0.3, 1.0, 3.0)  # standard deviations of the coarse descent's starts
FAR_PILOTS = (10.0, 100.0, 1e3, 1e4)  # more of them, a few starts each, for landscapes in other units of length
N_FAR = 8
MAX_DOUBLINGS = 10
MAX_REPEATS = 4  # further draws at one width while the shell still finds new minima well inside
NEAR_DECADES = 3.0  # starts around known minima reach from the radius down to a thousandth of it


@dataclass(frozen=True, eq=False)
class Region:
    """The cube center +- radius, center (d,), that a search for minima has found to hold them."""

    center: np.ndarray
    radius: float


def find_scale(descents: Descents, n_starts: int, progress: Callable[[str], None]) -> None:
    """Double the cube until every minimum lies in its inner half and the outer shell yields nothing new.

    n_starts : of the search to come, of which a part is made here. Raises EnergyError where there is no such cube.
    """
    _coarse_descent(descents, max(16, n_starts // 16))
    if not bool(descents.free.any()):
        return
    n = max(64, n_starts // 8)
    doublings = repeats = 0
    while doublings <= MAX_DOUBLINGS:
        known = len(descents.minima())
        x = draw_finite(descents.energy, cube(descents), n, descents.generator)
        shell = ((x - descents.center)[:, descents.free].abs().amax(1) > 0.5 * descents.radius).cpu().numpy()
        reached = descents.to_minima(x)[0]
        minima = descents.minima()
        progress(f"minima: cube half-width {descents.radius:.3g}, {len(minima)} minima")
        gap = np.abs(minima.x - descents.center.cpu().numpy())[:, descents.free.cpu().numpy()]
        inside = bool((gap <= 0.5 * descents.radius).all())
        fresh = bool(np.isin(reached[shell], descents.minimum_numbers()[known:]).any())
        inside = inside and len(minima) > 0
        if inside and doublings > 0 and (not fresh or repeats == MAX_REPEATS):
            return
        if inside and doublings > 0:
            repeats += 1  # the shell found wells that the cube holds well inside: draw again, not wider
        else:
            descents.radius *= 2
            doublings += 1
    if not len(descents.minima()):
        return  # the search itself says why there is none
    raise EnergyError(
        f"the minima of an energy lie in a bounded region, but {descents.energy.source} has ever more of them up to "
        f"half-width {descents.radius:g} (a periodic energy? declare its periods); give --box, or starts of your own"
    )


def region_starts(descents: Descents, n: int) -> torch.Tensor:
    """n starts (n, d): half of them over the cube, the others over the box of the minima and around single minima,
    since inner basins are small seen from afar."""
    energy, generator = descents.energy, descents.generator
    inner = n // 4 if len(descents.minima()) else 0
    parts = [draw_finite(energy, cube(descents), n - 2 * inner, generator)]
    if inner:
        parts += [draw_finite(energy, _box_of_minima(descents), inner, generator), _near_minima(descents, inner)]
    return torch.cat(parts)


def cube(descents: Descents) -> Box:
    center, reach = descents.center.cpu().numpy(), np.full(descents.energy.dim, descents.radius)
    if descents.periodic is not None:  # one period is all there is
        reach = np.where(descents.periodic.mask, 0.5 * descents.periodic.lengths, reach)
    return Box(tuple(center - reach), tuple(center + reach))


def finite_or(energy: Energy, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The rows of x (n, d) at which the energy is finite, those of `other` elsewhere."""
    return torch.where(energy.value(x).isfinite()[:, None], x, other)


def random_directions(n: int, dim: int, generator: torch.Generator) -> torch.Tensor:
    """Unit vectors (n, d) in float64."""
    unit = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return unit / unit.norm(dim=1, keepdim=True)


def _coarse_descent(descents: Descents, n: int) -> None:
    """Put the cube around the lowest minimum of a few hundred descents, wide enough for all the minima they meet.

    The starts lie around the origin; n each at distances of order 1, a few each much farther out. A second round starts
    around the best point of the first, for wells far from the origin.
    """
    energy = descents.energy
    for center in (None, descents.center):
        x, reach = _pilot_starts(descents, n, center)
        ended = relax(energy, x, reach, LBFGS(max_iterations=200), center=center)
        descents.settle(ended)
        minima = descents.minima()
        usable = (ended["status"] != Status.DIVERGED) & ended["energy"].isfinite()
        if len(minima):
            best = torch.as_tensor(minima.x[minima.energy.argmin()])
        elif bool(usable.any()):
            best = ended["x"][torch.where(usable, ended["energy"], torch.inf).argmin()]
        else:
            raise EnergyError(descents.no_minimum())
        descents.center.copy_(best)
        near = float((descents.center).abs().max()) < PILOT_SCALES[-1]
        if near:
            break
    ends = torch.as_tensor(minima.x).to(x) if len(minima) else ended["x"][usable]
    if not bool(descents.free.any()):
        descents.radius = 0.5 * float(descents.periodic.lengths.max()) if descents.periodic else descents.radius
        return
    spread = float((ends - descents.center)[:, descents.free].abs().max())
    descents.radius = 2 * spread if spread > 1e-4 * (1 + float(descents.center.abs().max())) else 1.0


def _pilot_starts(descents: Descents, n: int, center: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Finite starts of the coarse descent and the length scale that each of them assumes."""
    energy, generator = descents.energy, descents.generator
    counts = torch.tensor([n] * len(PILOT_SCALES) + [N_FAR] * len(FAR_PILOTS))
    scale = torch.tensor(PILOT_SCALES + FAR_PILOTS, dtype=torch.float64).repeat_interleave(counts)
    unit = torch.randn(len(scale), energy.dim, generator=generator, dtype=torch.float64)
    x = (scale[:, None] * unit).to(energy.device, energy.dtype)
    if center is not None:
        x = x + center
    finite = energy.value(x).isfinite()
    if not bool(finite.any()):
        x = draw_finite(energy, Gaussian(0.0, PILOT_SCALES[-1]), n, generator)
        return x, torch.ones(n, dtype=x.dtype, device=x.device)
    return x[finite], scale.to(x).clamp_min(1.0)[finite]


def _box_of_minima(descents: Descents) -> Box:
    x = descents.minima().x
    low, high = x.min(0), x.max(0)
    margin = 0.25 * max(float((high - low).max()), 0.1 * descents.radius)
    return Box(tuple(low - margin), tuple(high + margin))


def _near_minima(descents: Descents, n: int) -> torch.Tensor:
    """n points around random minima, at distances spread evenly over the orders of magnitude below the radius."""
    energy, minima = descents.energy, descents.minima().x
    draw = torch.rand(n, 2, generator=descents.generator, dtype=torch.float64)
    unit = random_directions(n, energy.dim, descents.generator)
    chosen = torch.as_tensor(minima)[(draw[:, 0] * len(minima)).long()]
    x = chosen + descents.radius * 10 ** (-NEAR_DECADES * draw[:, 1:]) * unit
    return finite_or(energy, x.to(energy.device, energy.dtype), chosen.to(energy.device, energy.dtype))
