"""Which known stationary point a search is about to reach, told from energies and gradients that it has anyway."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from landscape.energy import Energy, Periodic
from landscape.energy.symmetry import distances
from landscape.search.driver import ordinary
from landscape.search.stationary import NEWTON_TOLERANCE, NOISE, StationaryPoints

TOLERANCE = 0.1  # largest mismatch at which a point counts as reached
PRODUCT_TOLERANCE = 0.15  # the same of the gradient foretold by a Hessian-vector product
WORK_TOLERANCE = 0.03  # part of the work by which the energy may miss that of a quadratic function, for a product
NEAR = 0.5  # of the way to the next known point, and of the landscape's scale, within which products are taken
SOONEST, LATEST = 0.8, 0.1  # distance from which on a row that failed is tested again, in units of that of the failure
BLOCK = 2**22  # numbers in the matrices that are gathered together


@dataclass(frozen=True, eq=False)
class KnownPoints:
    """Nondegenerate stationary points x_i of any index with their quadratic models E_i + dx.H_i dx / 2, dx = y - x_i.

    numbers (k,) : in the catalogue. x (k, d). energy (k,). maps (k, 3, d, d) : |L|^(1/2) V and sign(L) |L|^(-1/2) V,
    where H = V' L V, softest modes first, which take dx and the gradient at y to the same vector if the model is right,
    and |H|^-1; (k, 1, d, d) : H alone, for products; (k, 0, 0, 0) where Hessians are not kept. floor (k,) : norm of the
    difference between those two vectors at x_i itself, which is known to the tolerance of its polish. radius (k,) : of
    balls in which nothing but x_i can be meant, as is known from elsewhere. symmetry : of a periodic energy, of whose
    copies the nearest counts.
    """

    numbers: torch.Tensor
    x: torch.Tensor
    energy: torch.Tensor
    maps: torch.Tensor
    floor: torch.Tensor
    radius: torch.Tensor
    symmetry: Periodic | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def has_models(self) -> bool:
        return self.maps.shape[1] == 3

    def to(self, like: torch.Tensor) -> KnownPoints:
        """The same on the device and in the precision of `like`."""
        x, energy, maps, floor, radius = (
            part.to(like) for part in (self.x, self.energy, self.maps, self.floor, self.radius)
        )
        return KnownPoints(self.numbers.to(like.device), x, energy, maps, floor, radius, self.symmetry)

    def nearest(self, y: torch.Tensor) -> torch.Tensor:
        """Places (n,) among these points of those nearest to y (n, d)."""
        if self.symmetry is not None:
            rows = max(1, BLOCK // self.x.numel())
            return torch.cat([distances(self.symmetry, part, self.x).argmin(1) for part in y.split(rows)])
        center, shifted, half_square = self._shifted
        if len(y) * len(self) <= BLOCK:
            return torch.addmm(half_square, shifted, (y - center).T, alpha=-1).min(0).indices
        return torch.cat([self.nearest(part) for part in y.split(max(1, BLOCK // len(self)))])

    @cached_property
    def apart(self) -> torch.Tensor:
        """Distance from each point to the next (k,), infinite for a single one."""
        return distances(self.symmetry, self.x, self.x).fill_diagonal_(torch.inf).amin(1)

    @cached_property
    def _table(self) -> torch.Tensor:
        """x_i, E_i, the rounding error of 2 E_i and the floor in a column (d + 3, k)."""
        noise = 2 * NOISE * torch.finfo(self.x.dtype).eps * (1 + self.energy.abs())
        return torch.cat([self.x.T, torch.stack([self.energy, noise, self.floor])])

    @cached_property
    def _has_balls(self) -> bool:
        return bool((self.radius > 0).any())

    @cached_property
    def _shifted(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The mean c of the points; x_i - c (k, d); |x_i - c|^2 / 2 (k, 1)."""
        center = self.x.mean(0)
        shifted = self.x - center
        return center, shifted, 0.5 * shifted.square().sum(1, keepdim=True)

    def recognise(
        self, y: torch.Tensor, energy: torch.Tensor, gradient: torch.Tensor, tolerance: float = TOLERANCE
    ) -> torch.Tensor:
        """Numbers (n,) of the points to which y (n, d), with energy (n,) and gradient (n, d), have come; -1: none."""
        at = self.nearest(y)
        return torch.where(self.compare(at, y, energy, gradient)[0] <= tolerance, self.numbers[at], -1)

    def compare(
        self, at: torch.Tensor, y: torch.Tensor, energy: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """How wrong the models of the points at places `at` (n,) are at y (n, d), and |H|^-1 times the gradient (n, d).

        With u = |L|^(1/2) V dx and w = sign(L) |L|^(-1/2) V grad E, the mismatch (n,) is the larger of |w - u| / |u|,
        how far Newton's step from y misses x_i in the norm of the energy, and |E - E_i - dx.grad E / 2| / (|u|^2 / 2),
        how far the energy is from that of a quadratic function with the gradients at x_i and y. The first is the
        largest over the softest mode, the softest two, ... and all of them: stiff modes, in which all wells are alike,
        must not hide that the point lies in another one along the soft modes. It is 0 within `radius`; nan where energy
        or gradient are not finite.
        """
        n, d = y.shape
        rows = max(1, BLOCK // max(1, self.maps.shape[1:].numel()))
        if n > rows:
            blocks = zip(at.split(rows), y.split(rows), energy.split(rows), gradient.split(rows), strict=True)
            found = [self.compare(*block) for block in blocks]
            return torch.cat([mismatch for mismatch, _ in found]), torch.cat([step for _, step in found])
        # Few operations, since their number is what a small batch waits for. Rows are last where the axis before is
        # summed.
        point = self._table.index_select(1, at)
        x, (level, noise, floor) = point[:d], point[d:].unbind()
        away = y.T - x if self.symmetry is None else self.symmetry.difference(y, x.T).T
        inside = (away * away).sum(0) < self.radius[at].square() if self._has_balls else None
        if not self.has_models:
            reached = torch.zeros_like(at, dtype=torch.bool) if inside is None else inside
            return torch.where(reached, 0.0, torch.inf).to(y), gradient
        maps = self.maps.index_select(0, at).view(3 * n, d, d)
        mapped = torch.bmm(maps, torch.stack([away.T, gradient, gradient], 1).view(3 * n, d, 1))
        u, w, step = mapped.view(n, 3, d).permute(1, 2, 0).contiguous().unbind()
        off = w - u
        sizes, errors = torch.stack([u, off]).square_().cumsum(1).unbind()  # softest modes first
        missed = ((errors.sqrt_() - floor) / sizes.sqrt()).amax(0)
        work = (away * gradient.T).sum(0)
        rise = torch.sub(work, energy - level, alpha=2).abs() - noise
        mismatch = torch.maximum(missed, rise / sizes[-1])
        return mismatch if inside is None else mismatch.masked_fill_(inside, 0), step.T

    def reached_by_products(
        self,
        energy: Energy,
        y: torch.Tensor,
        value: torch.Tensor,
        gradient: torch.Tensor,
        radius: torch.Tensor,
        due: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Without models, for minima: which rows y (n, d), with values (n,) and gradients (n, d), have come to the
        points nearest to them (n,), and at which distances (n,) from these each of them is to be tested next.

        A point is reached within its `radius`, and where the model's gradient H dx, one Hessian-vector product unless H
        is kept, is right to PRODUCT_TOLERANCE: |H dx - grad E| <= .15 |grad E| and |dx.H dx - dx.grad E| <= .15 dx.H
        dx. The product is taken where it is likely to pass: where the energy is that of a quadratic function,
        |E - E_i - dx.grad E / 2| <= .03 dx.grad E / 2; within half the way to the next point known and half of the
        landscape's scale, radius (n,), since farther out the stiff directions, in which all wells are alike, hide the
        soft ones that tell them apart; and within `due` (n,): the mismatch falls with the distance.
        """
        at = self.nearest(y)
        away = y - self.x[at] if self.symmetry is None else self.symmetry.difference(y, self.x[at])
        distance, work = away.norm(dim=1), (away * gradient).sum(1)
        level, eps = self.energy[at], torch.finfo(y.dtype).eps
        rise = (value - level - 0.5 * work).abs() - NOISE * eps * (1 + level.abs())
        near = NEAR * torch.minimum(self.apart[at], radius)
        likely = (work > 0) & (rise <= 0.5 * WORK_TOLERANCE * work) & (distance <= torch.minimum(near, due))
        reached, due = distance < self.radius[at], due.clone()
        tested = (likely & ~reached).nonzero()[:, 0]
        if len(tested):
            away, gradient = away[tested], gradient[tested]
            foretold = self._products(energy, at[tested], away)
            missed = (foretold - gradient).norm(dim=1) / gradient.norm(dim=1)
            size = (foretold * away).sum(1)
            missed = torch.maximum(missed, (size - work[tested]).abs() / size.clamp_min(torch.finfo(y.dtype).tiny))
            reached[tested] = missed <= PRODUCT_TOLERANCE
            due[tested] = distance[tested] * (PRODUCT_TOLERANCE / missed).clamp(LATEST, SOONEST)
        return reached, due

    def _products(self, energy: Energy, at: torch.Tensor, away: torch.Tensor) -> torch.Tensor:
        """H dx (n, d) of the points at places `at` (n,) for dx (n, d)."""
        if not len(self.maps[0]):
            return ordinary(energy.hvp, self.x[at], away)
        rows = max(1, BLOCK // self.maps[0].numel())
        parts = zip(at.split(rows), away.split(rows), strict=True)
        return torch.cat([torch.bmm(self.maps[place, 0], part[:, :, None])[:, :, 0] for place, part in parts])


def known_points(
    energy: Energy,
    found: StationaryPoints,
    rows: np.ndarray,
    radius: torch.Tensor | None = None,
    models: bool = True,
) -> KnownPoints | None:
    """The nondegenerate ones of some points of a catalogue (their numbers, (m,)), with balls of this radius (m,).

    models : whether the Hessians that are kept are to serve as models (`compare`), or for products alone.
    None where there is none of them, or where points have copies by more than periods.
    """
    sharp = ~found.degenerate[rows]
    if not (energy.symmetry is None or isinstance(energy.symmetry, Periodic)) or not sharp.any():
        return None
    numbers = np.asarray(rows)[sharp]
    x, kept, floor = found.x[numbers], found.hessian[numbers], np.zeros(len(numbers))
    maps = kept[:, None] if not energy.matrix_free else np.zeros((len(x), 0, 0, 0))
    if models and not energy.matrix_free:
        maps = np.zeros((len(x), 3, *kept.shape[1:]))
        values, vectors = np.linalg.eigh(kept)
        order = np.abs(values).argsort(1)
        values, vectors = np.take_along_axis(values, order, 1), np.take_along_axis(vectors, order[:, None], 2)
        root = np.sqrt(np.abs(values))
        maps[:, :2] = np.stack([root, np.sign(values) / root], 1)[:, :, :, None] * vectors.swapaxes(1, 2)[:, None]
        maps[:, 2] = (vectors / np.abs(values)[:, None]) @ vectors.swapaxes(1, 2)
        floor = NEWTON_TOLERANCE * root.max(1) * (1 + np.linalg.norm(x, axis=1))
    balls = torch.zeros(len(x)) if radius is None else radius[torch.as_tensor(sharp, device=radius.device)]
    places, level = torch.as_tensor(x), torch.as_tensor(found.energy[numbers])
    model = torch.as_tensor(maps), torch.as_tensor(floor)
    known = KnownPoints(torch.as_tensor(numbers), places, level, *model, balls, energy.symmetry)
    return known.to(torch.empty(0, dtype=energy.dtype, device=energy.device))
