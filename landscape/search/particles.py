"""Minima of particles whose translations, rotations and permutations are declared: a multi-start search of clouds.

A box of coordinates means nothing to a cluster. Starts are clouds: particles drawn uniformly from a ball about as large
as the clusters found, some of them flattened, since planar configurations are stationary far more often than chance
would visit them.
"""

from __future__ import annotations

import numpy as np
import torch

from landscape.energy import Energy, ParticleSymmetry
from landscape.errors import EnergyError, UsageError
from landscape.search.driver import State, Status
from landscape.search.lbfgs import LBFGS, relax
from landscape.search.minima import MinimaResult, MinimaSearch, Progress
from landscape.search.starts import Points, draw_finite
from landscape.search.stationary import (
    MERGE_E,
    MERGE_X,
    Catalogue,
    StationaryPoints,
    canonical_order,
    newton_polish,
)
from landscape.search.unseen import LARGE, unseen_probability
from landscape.search.updated_flow import updated_flow

# radii of clouds, times n_particles^(1 / dim), before anything is known; the second lot where the first finds nothing
PILOT_RADII = ((0.3, 1.0, 3.0), (0.01, 0.1, 10.0, 100.0))
REACH = 0.3  # length scale of the quick descent that ends a flow, in units of the spacing
POINT = 1e-6  # a cluster of this size is none
SETTLING = 40  # iterations after which overlaps are gone and planar clouds are planar still
PILOT_CLOUDS = 16  # at each of them
CLOUD_RADII = (0.6, 1.4)  # of the later clouds, in units of the lowest minimum's
FLATTENED = 0.5  # share of clouds that are flattened
HEIGHTS = (1e-3, 1e-1)  # part of its height that a flattened cloud keeps


def symmetry_of(energy: Energy) -> ParticleSymmetry:
    """The symmetry of an energy of particles."""
    assert isinstance(energy.symmetry, ParticleSymmetry)
    return energy.symmetry


def clouds(energy: Energy, radius: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Particles drawn uniformly from a ball of each radius (n,): (n, d). A share of the clouds is flattened."""
    symmetry, n = symmetry_of(energy), len(radius)
    shape = (n, symmetry.n_particles, symmetry.dim)
    unit = torch.randn(shape, generator=generator, dtype=torch.float64)
    unit = unit / unit.norm(dim=2, keepdim=True)
    draw = torch.rand((*shape[:2], 1), generator=generator, dtype=torch.float64)
    atoms = radius[:, None, None] * unit * draw ** (1 / symmetry.dim)
    flat, height = torch.rand(2, n, generator=generator, dtype=torch.float64)
    kept = HEIGHTS[0] * (HEIGHTS[1] / HEIGHTS[0]) ** height
    atoms[:, :, -1] *= torch.where(flat < FLATTENED, kept, 1.0)[:, None]
    x = atoms.reshape(n, -1).to(energy.device, energy.dtype)
    return x[energy.value(x).isfinite()]


def extent(symmetry: ParticleSymmetry, x: np.ndarray) -> float:
    """The largest distance of a particle from the centre, over configurations x (n, d)."""
    return float(np.linalg.norm(symmetry.centered(x), axis=2).max())


def find_particle_minima(
    energy: Energy,
    config: MinimaSearch,
    generator: torch.Generator,
    catalogue: Catalogue,
    progress: Progress | None = None,
) -> MinimaResult:
    """What `find_minima` does, for an energy with a `ParticleSymmetry`: isomers that it makes equal are one minimum.

    center is the origin, radius the largest distance of a particle from it. Arguments and errors as in `find_minima`.
    """
    report = progress or (lambda text: None)
    radius = _size(energy, catalogue, generator)
    known = _minima(catalogue)
    x = _starts(energy, config, radius, generator)
    ended = relax(energy, x, radius, config.descent)
    status = ended["status"].cpu().numpy().copy()
    number = np.full(len(x), -1)
    arrived = status == Status.CONVERGED
    number[arrived] = catalogue.add(ended["x"][torch.as_tensor(arrived, device=x.device)], hits="minima")
    status[arrived & (number < 0)] = Status.UNFINISHED
    found = catalogue.points()
    status[(number >= 0) & found.degenerate[number]] = Status.DEGENERATE
    numbers = _minima(catalogue)
    if not len(numbers):
        raise EnergyError(_nothing(energy))
    report(f"minima: {len(x)} clouds of particles, {len(numbers)} minima")
    return _result(energy, config, catalogue, status, number, known)


def _result(
    energy: Energy,
    config: MinimaSearch,
    catalogue: Catalogue,
    status: np.ndarray,
    number: np.ndarray,
    known: np.ndarray,
) -> MinimaResult:
    numbers, found = _minima(catalogue), catalogue.points()
    minima = found.select(numbers)
    order = canonical_order(minima.energy, minima.x)
    rank = np.full(len(found) + 1, -1)
    rank[numbers[order]] = np.arange(len(numbers))
    reached = np.where(np.isin(number, numbers), number, -1)
    warnings = [
        f"{int((status == code).sum())} of {len(status)} starts: {code.text}"
        for code in (Status.DIVERGED, Status.UNFINISHED, Status.NOT_FINITE, Status.DEGENERATE)
        if (status == code).any()
    ]
    unseen = None if isinstance(config.starts, Points) else unseen_probability(reached, known)
    if unseen is not None and unseen.upper > LARGE:
        warnings.append(
            f"up to {unseen.upper:.1%} of further starts may find a minimum that no start has found yet "
            f"({unseen.confidence:.0%} confidence; estimate {unseen.estimate:.1%} from {unseen.starts} starts); "
            "the saddle search goes on from those found"
        )
    return MinimaResult(
        minima.select(order), found.select(found.degenerate).ordered(), status, rank[reached],
        np.zeros(energy.dim), extent(symmetry_of(energy), minima.x), True, tuple(warnings), unseen,
    )  # fmt: skip


def _minima(catalogue: Catalogue) -> np.ndarray:
    """Catalogue numbers of the nondegenerate minima."""
    found: StationaryPoints = catalogue.points()
    return np.nonzero((found.index == 0) & ~found.degenerate)[0]


def _size(energy: Energy, catalogue: Catalogue, generator: torch.Generator) -> float:
    """The radius of the lowest cluster that clouds of very different sizes relax to; fills the catalogue."""
    symmetry = symmetry_of(energy)
    for pilot in PILOT_RADII:
        lengths = symmetry.n_particles ** (1 / symmetry.dim) * torch.tensor(pilot, dtype=torch.float64)
        radius = lengths.repeat_interleave(PILOT_CLOUDS)
        x = clouds(energy, radius, generator)
        if len(x):
            ended = relax(energy, x, float(radius.max()), LBFGS(max_iterations=300))
            catalogue.add(ended["x"][ended["status"] == Status.CONVERGED])
        minima = catalogue.points().of_index(0)
        if len(minima):
            break
    if not len(minima):
        raise EnergyError(_nothing(energy))
    size, most = extent(symmetry, minima.x[minima.energy.argmin()][None]), extent(symmetry, minima.x)
    if size < POINT * most:  # the lowest is a point at the origin of a trap
        size = most
    return size if size > POINT else 1.0


def _starts(energy: Energy, config: MinimaSearch, radius: float, generator: torch.Generator) -> torch.Tensor:
    if isinstance(config.starts, Points):
        x = torch.as_tensor(config.starts.x, dtype=energy.dtype, device=energy.device)
        if x.shape[1] != energy.dim:
            raise UsageError(f"start points have {x.shape[1]} columns, but the energy has dimension {energy.dim}")
        return x
    if config.starts is not None:
        return draw_finite(energy, config.starts, config.n_starts, generator)
    return random_clouds(energy, radius, config.n_starts, generator)


def random_clouds(energy: Energy, radius: float, n: int, generator: torch.Generator) -> torch.Tensor:
    """About n clouds (those with a finite energy), of radii around that of the clusters known."""
    low, high = CLOUD_RADII
    draw = torch.rand(n, generator=generator, dtype=torch.float64)
    return clouds(energy, radius * (low + (high - low) * draw), generator)


def settled_clouds(energy: Energy, radius: float, n: int, generator: torch.Generator) -> torch.Tensor:
    """Random clouds after the first part of a descent, where no particles overlap any more: starts for walks."""
    x = random_clouds(energy, radius, n, generator)
    return relax(energy, x, radius, LBFGS(max_iterations=SETTLING))["x"]


def spacing_of(symmetry: ParticleSymmetry, x: np.ndarray) -> float:
    """The median distance of a particle from its nearest neighbour, over configurations x (n, d)."""
    atoms = symmetry.centered(x)
    n = atoms.shape[1]
    if n < 2:
        return max(extent(symmetry, x), np.finfo(float).tiny)
    distance = np.linalg.norm(atoms[:, :, None] - atoms[:, None], axis=3) + np.diag(np.full(n, np.inf))
    return float(np.median(distance.min(2)))


def descents(energy: Energy, x: torch.Tensor, hessian: torch.Tensor, spacing: float, traced: bool = False) -> State:
    """From each row of x (n, d) the gradient flow until it is clear where it leads, then a quick descent in short
    steps: the state of that, and the `trace` of the flow. hessian (n, d, d) : at x or near it."""
    flowed = updated_flow(energy, x, hessian, spacing, traced)
    return flowed | relax(energy, flowed["x"], REACH * spacing, center=flowed["x"])


def assign_clusters(energy: Energy, x: torch.Tensor, minima: np.ndarray) -> np.ndarray:
    """Label configurations x (n, d) by the minimum (m, d) of which their gradient flow reaches a copy, -1 for none."""
    symmetry = symmetry_of(energy)
    ended = descents(energy, x, energy.hessian(x), spacing_of(symmetry, minima))
    polished = newton_polish(energy, ended["x"])
    arrived = (polished["status"] == Status.CONVERGED).cpu().numpy()
    points, energies = polished["x"].cpu().numpy(), polished["energy"].cpu().numpy()
    bottoms = np.asarray(energy.value(minima))
    labels = np.full(len(x), -1)
    for k in np.flatnonzero(arrived):
        close = np.flatnonzero(np.abs(bottoms - energies[k]) < MERGE_E * (1 + abs(energies[k])))
        within = MERGE_X * (1 + float(np.linalg.norm(points[k])))
        same = close[np.isfinite(symmetry.separation(minima[close], points[k], within))]
        labels[k] = same[0] if len(same) else -1
    return labels


def _nothing(energy: Energy) -> str:
    return (
        f"an analysis needs at least one minimum, but the search of {energy.source} found none: clouds of particles "
        "of all sizes tried fell apart, or came to rest where a Hessian eigenvalue is zero beyond those of the "
        "declared symmetry; declare that symmetry too, or give --starts-from near a cluster"
    )
