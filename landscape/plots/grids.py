"""An energy on a grid in a line, a plane or a 3-D subspace, with its levels, basins and sub-level sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.plots.planes import Subspace, landmarks
from landscape.plots.style import Levels, kt_levels
from landscape.search import assign_basins, make_basins
from landscape.weights import lowest_saddles

if TYPE_CHECKING:
    from landscape.store import Analysis

Array = np.ndarray

RESOLUTION = {1: 801, 2: 201, 3: 49}  # points along each axis
COARSE = {1: 201, 2: 61, 3: 21}  # where only the size of the box is looked for
MAX_NUMBERS = 8_000_000  # coordinates of all points of a grid
MOST_BASINS = 60  # that are drawn each by itself
WIDENINGS = 3  # times the box may grow by half on each side
MARGIN = 0.04  # of the box around what is reachable, and around minima and paths
CEILING = 3.0  # in limits: what is higher is drawn as if it were there, so that infinity can be drawn


@dataclass(frozen=True, eq=False)
class EnergyGrid:
    """Energies on a grid of k = subspace.dim axes.

    ticks : k arrays, the coordinates in the subspace. energy (n_1, ..., n_k), indexed in the order of the axes.
    basins : int64 of the same shape, the state whose basin holds each point at or below the limit, -1 for none known,
    and above it (where k = 3: above the highest of the lowest saddles of the states, since isosurfaces show no more).
    `energy_grid` finds them by `assign_basins`, in all d dimensions: a subspace cuts them.
    """

    subspace: Subspace
    ticks: tuple[Array, ...]
    energy: Array
    levels: Levels
    basins: Array

    @property
    def kt(self) -> Array:
        """Energies in kT above the lowest minimum; what is not finite, or far above the limit, at `CEILING` limits."""
        ceiling = CEILING * self.levels.limit
        return np.nan_to_num(np.minimum(self.levels.kt(self.energy), ceiling), nan=ceiling, neginf=0.0)

    @property
    def extent(self) -> float:
        """The longest side of the box."""
        return float(max(np.ptp(tick) for tick in self.ticks))

    def points(self) -> Array:
        """The points of the grid in R^d, (n_1 ... n_k, d), the last axis running fastest."""
        return self.subspace.lift(_mesh(self.ticks))


def levels_of(analysis: Analysis, limit: float | None = None) -> Levels:
    """Levels in kT of an analysis; `limit` as in `kt_levels`. Saddles that join nothing known are left out."""
    known = (analysis.saddles.joins >= 0).all(axis=1)
    return kt_levels(analysis.dynamics.beta, analysis.states.energy, analysis.saddles.energy[known], limit)


def energy_grid(
    analysis: Analysis,
    energy: Energy,
    subspace: Subspace,
    *,
    limit: float | None = None,
    resolution: int | None = None,
    box: Array | None = None,
) -> EnergyGrid:
    """Evaluate an energy on a subspace, in the box (k, 2) given, or one that holds all that is reachable.

    limit : in kT, as in `kt_levels`. UsageError for an energy of another dimension than the analysis.
    """
    if energy.dim != analysis.dim:
        raise UsageError(f"the analysis has dimension {analysis.dim}, the energy {energy.dim}: give that one's energy")
    k, levels = subspace.dim, levels_of(analysis, limit)
    box = reachable_box(analysis, energy, subspace, levels) if box is None else np.asarray(box, float)
    if box.shape != (k, 2) or not (box[:, 0] < box[:, 1]).all():
        raise UsageError(f"the box of a picture is ({k}, 2): low < high on each axis, not {box.tolist()}")
    if resolution is None:  # fewer points where each is large
        resolution = min(RESOLUTION[k], max(COARSE[k], int((MAX_NUMBERS / energy.dim) ** (1 / k))))
    grid = _evaluate(energy, subspace, levels, box, resolution)
    return replace(grid, basins=_basins(analysis, energy, grid))


def reachable_box(analysis: Analysis, energy: Energy, subspace: Subspace, levels: Levels) -> Array:
    """(k, 2): around the minima, saddles and paths as projected, and the part of {E <= limit} around them."""
    marks = subspace.project(landmarks(analysis))
    low, high = marks.min(0), marks.max(0)
    # the size of a well at the limit, where there are no two points to take a size from
    softest = float(np.abs(analysis.states.eigenvalues[0]).min())
    size = max(float((high - low).max()), np.sqrt(2 * levels.limit / (levels.beta * max(softest, 1e-12))))
    inner = np.stack([low, high], axis=1)
    box = inner + 0.5 * size * np.array([-1.0, 1.0])
    for _ in range(WIDENINGS):
        grid = _evaluate(energy, subspace, levels, box, COARSE[subspace.dim])
        reached = np.argwhere(grid.kt <= levels.limit)
        if not len(reached):
            break
        ends = np.array([tick[[first, last]] for tick, first, last in
                         zip(grid.ticks, reached.min(0), reached.max(0), strict=True)])  # fmt: skip
        inner = np.stack([np.minimum(low, ends[:, 0]), np.maximum(high, ends[:, 1])], axis=1)
        last_tick = np.array(grid.energy.shape) - 1
        cut = np.stack([reached.min(0) == 0, reached.max(0) == last_tick], axis=1)
        if not cut.any():
            break
        box = box + np.where(cut, 0.5, 0.0) * size * np.array([-1.0, 1.0])
    else:  # it has no end, as in a periodic energy: what is known is the picture
        inner = np.stack([low, high], axis=1) + 0.2 * size * np.array([-1.0, 1.0])
    return inner + MARGIN * float(np.ptp(inner, axis=1).max()) * np.array([-1.0, 1.0])


def _basins(analysis: Analysis, energy: Energy, grid: EnergyGrid) -> Array:
    labels = np.full(grid.energy.size, -1, dtype=np.int64)
    below = grid.levels.limit
    if grid.subspace.dim == 3:
        ceilings = grid.levels.kt(ways_out(analysis))
        below = min(below, max([0.0, *ceilings[np.isfinite(ceilings)].tolist()]))
    reachable = np.flatnonzero((grid.kt <= below).ravel())
    if len(reachable):
        generator = torch.Generator().manual_seed(0)
        basins = make_basins(energy, analysis.states.x, generator, outside=analysis.saddles.x)
        labels[reachable] = assign_basins(energy, grid.points()[reachable], basins)
    return labels.reshape(grid.energy.shape)


def ways_out(analysis: Analysis) -> Array:
    """(n,) the energy of the lowest saddle of each state; inf without one."""
    return lowest_saddles(len(analysis.states.x), analysis.saddles.joins, analysis.saddles.energy)


def sublevel_states(analysis: Analysis, grid: EnergyGrid) -> list[int]:
    """The states whose basins meet the grid and that have a saddle: those with a sub-level set to draw. Of more than
    `MOST_BASINS` the largest on the grid."""
    present, counts = np.unique(grid.basins[grid.basins >= 0], return_counts=True)
    largest = np.sort(present[np.argsort(-counts, kind="stable")[:MOST_BASINS]])
    return largest[np.isfinite(ways_out(analysis)[largest])].tolist()


def sublevel_field(analysis: Analysis, grid: EnergyGrid, state: int) -> tuple[Array, float]:
    """A field in kT whose contour at the level returned bounds the sub-level set of a state below its lowest saddle.

    That is the connected piece of {E < lowest saddle} around the minimum: all of its basin below that energy. In the
    grid's shape: the energy inside the basin, and nowhere below the level outside of it. A level above the limit is
    lowered to it: all of the basin that is shown.
    """
    level = min(float(grid.levels.kt(ways_out(analysis)[state])), grid.levels.limit)
    outside = np.maximum(grid.kt, level + 0.05 * grid.levels.step)
    return np.where(grid.basins == state, grid.kt, outside), level


def basin_shares(grid: EnergyGrid) -> dict[int, Array]:
    """For each state whose basin meets the grid, a field that is positive inside, with its zero on the border.

    The borders are smoothed over one spacing of the grid; NaN where no basin is known. Of more than `MOST_BASINS` the
    largest on the grid.
    """
    known = grid.basins >= 0
    present, counts = np.unique(grid.basins[known], return_counts=True)
    first, second = np.zeros(grid.basins.shape), np.zeros(grid.basins.shape)
    for state in present.tolist():  # one at a time: thousands of fields do not fit into memory
        own = _smooth(grid.basins == state)
        second = np.maximum(second, np.minimum(own, first))
        first = np.maximum(first, own)
    largest = np.sort(present[np.argsort(-counts, kind="stable")[:MOST_BASINS]]).tolist()
    shares = {state: _smooth(grid.basins == state) for state in largest}
    return {k: np.where(known, share - np.where(share < first, first, second), np.nan) for k, share in shares.items()}


def _smooth(inside: Array) -> Array:
    return gaussian_filter(inside.astype(float), 1.0, mode="nearest")


def _mesh(ticks: tuple[Array, ...]) -> Array:
    return np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1).reshape(-1, len(ticks))


def _evaluate(energy: Energy, subspace: Subspace, levels: Levels, box: Array, resolution: int) -> EnergyGrid:
    ticks = tuple(np.linspace(low, high, resolution) for low, high in box)
    # in pieces along the first axis: the points of a grid in very many dimensions need not fit into memory at once
    rows = max(1, 200_000 // (resolution ** (subspace.dim - 1) * max(1, subspace.origin.size // 10)))
    pieces = []
    for start in range(0, resolution, rows):
        part = (ticks[0][start : start + rows], *ticks[1:])
        pieces.append(np.asarray(energy.value(subspace.lift(_mesh(part)))))
    values = np.concatenate(pieces).reshape([resolution] * subspace.dim)
    return EnergyGrid(subspace, ticks, values, levels, np.full(values.shape, -1, dtype=np.int64))
