"""Basins: the minima of a landscape, and regions around them that the gradient flow never leaves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from landscape.energy import Energy, Periodic
from landscape.energy.symmetry import distances

DIRECTIONS = 64  # random directions (and at least 8 d) that test a region of capture
LARGE_DIRECTIONS = 256  # where d is too large for Hessians; then also those towards the other minima
RADII = 0.65 ** np.arange(7, -1, -1)  # sizes of balls that are tested, in units of the largest
USED, USED_DENSE, DENSE = 0.5, 0.75, 3  # part of a tested region that is used, and up to which dimension the larger one
EXTENTS = 0.5 ** np.arange(9, -1, -1)  # of ellipsoids: a bent valley may leave them small
NEIGHBOURS = 8  # minima whose ellipsoids might hold a point: as many nearest ones
AGREES = 0.7  # part of the model's gradient that the energy's may miss where a flow is captured ...
AT_THE_MINIMUM = 1e-3  # ... outside this part of the ellipsoid, where it is rounding
BLOCK = 2**22  # numbers in the matrices that are gathered together


@dataclass(frozen=True)
class Basins:
    """The minima and, around each, a ball and an ellipsoid that the gradient flow never leaves.

    x (n, d) : minima. radius (n,) : inside |y - x_i| < radius_i every tested point has (y - x_i) . grad E > 0,
    so the distance to x_i falls along the flow. scale : the length scale of the landscape. root (n, d, d) : U_i with
    U_i' U_i the Hessian at x_i, a row for each of its modes, the softest first, and extent (n,) : inside
    |U_i (y - x_i)| < extent_i that norm falls along the flow, likewise; along soft modes, where flows are slowest, this
    reaches much farther than the ball. Both are 0 where the Hessian is not positive, and None without Hessians.
    """

    x: torch.Tensor
    radius: torch.Tensor
    scale: float
    symmetry: Periodic | None = None
    root: torch.Tensor | None = None
    extent: torch.Tensor | None = None

    @property
    def center(self) -> torch.Tensor:
        """The mean of the minima, (d,)."""
        return self.x.mean(0)

    @cached_property
    def reach(self) -> torch.Tensor:
        """Half the distance from each minimum to the nearest other one, (n,); the scale for a single one."""
        return _separation(self.x, self.scale, self.symmetry).clamp_max(2 * self.scale) / 2

    def distances(self, points: torch.Tensor) -> torch.Tensor:
        """From points (m, d) to each minimum, (m, n)."""
        return distances(self.symmetry, points, self.x)

    def without(self, points: torch.Tensor) -> Basins:
        """The same with regions so small that they hold none of these other stationary points (m, d), nor come nearer
        than half the way: no random direction in ten dimensions need have met them."""
        apart = self.distances(points)
        radius = torch.minimum(self.radius, 0.5 * apart.amin(0))
        if self.root is None or self.extent is None:
            return replace(self, radius=radius)
        extent = self.extent.clone()
        near = apart.topk(min(NEIGHBOURS, len(self.x)), largest=False).indices
        for rows in torch.arange(len(points), device=points.device).split(max(1, BLOCK // self.root[0].numel())):
            for at in near[rows].unbind(1):
                away = points[rows] - self.x[at]
                if self.symmetry is not None:
                    away = self.symmetry.difference(points[rows], self.x[at])
                size = torch.bmm(self.root[at], away[:, :, None])[:, :, 0].norm(dim=1)
                extent.scatter_reduce_(0, at, 0.5 * size, "amin")
        return replace(self, radius=radius, extent=extent)

    def ordered(self, order: np.ndarray) -> Basins:
        """The same with the minima in another order: order (n,), the present numbers of the new ones."""
        at = torch.as_tensor(order, device=self.x.device)
        root, extent = (None if part is None else part[at] for part in (self.root, self.extent))
        return replace(self, x=self.x[at], radius=self.radius[at], root=root, extent=extent)

    def nearest(self, points: torch.Tensor, gradient: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Label of the region that holds each point (m, d), -1 for none, and the local length scale there, both (m,).

        gradient (m, d) : of the energy at the points; with it a region holds those only at which it is more like that
        of the minimum's quadratic model than not: in a bent valley a basin may end where no tested direction led.
        That scale is half the distance between the nearest minimum and its neighbour, or the distance to the nearest
        minimum if that is larger; wells that are close together in a wide landscape need shorter steps.
        """
        distance = self.distances(points)
        inside = distance < self.radius
        number = torch.where(inside.any(1), inside.to(torch.int8).argmax(1), -1)
        closest, which = distance.min(1)
        if self.root is not None and self.extent is not None:
            outside = torch.nonzero(number < 0)[:, 0]
            for rows in outside.split(max(1, BLOCK // self.root[0].numel())):
                at = which[rows]
                away = points[rows] - self.x[at]
                if self.symmetry is not None:
                    away = self.symmetry.difference(points[rows], self.x[at])
                size = torch.bmm(self.root[at], away[:, :, None])[:, :, 0].norm(dim=1)
                number[rows] = torch.where(size < self.extent[at], at, -1)
        if gradient is not None and self.root is not None:
            held = torch.nonzero(number >= 0)[:, 0]
            for rows in held.split(max(1, BLOCK // self.root[0].numel())):
                foreign = ~self._agrees(number[rows], points[rows], gradient[rows])
                number[rows] = number[rows].masked_fill(foreign, -1)
        return number, torch.maximum(closest, self.reach[which]).clamp_max(self.scale)

    def _agrees(self, at: torch.Tensor, points: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Whether gradients (m, d) at points (m, d) are those of the models of the minima `at` (m,) to AGREES, in the
        norm of the energy, along the softest mode, the softest two, ... and all of them (see `KnownPoints.compare`)."""
        assert self.root is not None and self.extent is not None
        root = self.root[at]
        away = points - self.x[at] if self.symmetry is None else self.symmetry.difference(points, self.x[at])
        u, slope = torch.bmm(root, torch.stack([away, gradient], 2)).unbind(2)
        stiffness = root.square().sum(2)  # the rows' squares are the eigenvalues
        w = slope / torch.where(stiffness > 0, stiffness, 1)  # no model, no errors: its ball alone counts
        error, size = (torch.stack([w - u, u]) ** 2).cumsum(2).unbind()
        here = (AT_THE_MINIMUM * self.extent[at]).square()
        return (error <= AGREES**2 * size + here[:, None]).all(1)


def _separation(x: torch.Tensor, scale: float, symmetry: Periodic | None = None) -> torch.Tensor:
    """Distance from each point (n, d) to the nearest other one, (n,); twice the scale for a single point.

    No more than the shortest period, where there is one: a point's own copy is no nearer.
    """
    if len(x) == 1:
        apart = x.new_full((1,), 2 * scale)
    elif symmetry is None:
        apart = torch.cdist(x, x).fill_diagonal_(torch.inf).amin(1)
    else:
        apart = distances(symmetry, x, x).fill_diagonal_(torch.inf).amin(1)
    return apart if symmetry is None else apart.clamp_max(float(symmetry.lengths.min()))


def length_scale(x: np.ndarray, fallback: float = 1.0, radial: bool = False) -> float:
    """Half the largest extent of a set of points along a coordinate, or `fallback` for a single one.

    radial : the largest distance from their mean instead, which in many dimensions is far more than any coordinate's.
    """
    extent = 0.5 * float(np.ptp(x, axis=0).max()) if len(x) else 0.0
    if radial and len(x):
        extent = float(np.linalg.norm(x - x.mean(0), axis=1).max())
    return extent if extent > 0 else fallback


def make_basins(
    energy: Energy,
    minima: np.ndarray,
    generator: torch.Generator,
    scale: float | None = None,
    known: Basins | None = None,
    outside: np.ndarray | None = None,
) -> Basins:
    """Find for each minimum (n, d) the largest tested ball and ellipsoid of capture; half of them is used, three
    quarters where the directions that are tested lie close together (d <= 3).

    They only save time: a flow that meets none of them is followed to its end. They are found by sampling (64 or 8 d
    directions at some sizes, both ends of all modes among them), from small ones up to half the distance to the
    nearest other minimum. `known` : regions of the first minima, which are not tested again: where another minimum has
    come near they shrink. Where d is too large for Hessians there are balls only, and 256 directions are tested, those
    towards the nearest other minima among them. outside (m, d) : stationary points of other indices, which no region
    may hold (`Basins.without`).
    """
    x = torch.as_tensor(minima, dtype=energy.dtype, device=energy.device)
    d = x.shape[1]
    scale = length_scale(minima, radial=energy.matrix_free) if scale is None else scale
    periodic = energy.symmetry if isinstance(energy.symmetry, Periodic) else None
    n_known = 0 if known is None else len(known.radius)
    m = LARGE_DIRECTIONS if energy.matrix_free else max(DIRECTIONS, 8 * d)

    used = USED_DENSE if d <= DENSE else USED
    half = 0.5 * _separation(x, scale, periodic)
    values, modes = None, None
    if energy.matrix_free:
        telling = _towards_others(x[n_known:], x, m // 4)
    else:
        fresh = torch.as_tensor(energy.hessian(x[n_known:])).reshape(-1, d, d)
        values, modes = torch.linalg.eigh(torch.where(fresh.isfinite(), fresh, 0))
        telling = torch.cat([modes.mT, -modes.mT], 1)  # stiff modes hide soft ones in most other directions
    tested = _tested(energy, x[n_known:], None, half[n_known:], telling, m, RADII, generator)
    if known is not None:
        tested = torch.cat([known.radius / used, tested])
    radius = used * torch.minimum(tested, half)
    if values is None or modes is None:
        return _with_none_of(outside, Basins(x, radius, scale, periodic))

    usable = (values > 0).all(1)
    root = torch.where(usable[:, None], values, 1).sqrt()[:, :, None] * modes.mT
    if known is not None and known.root is not None:
        root = torch.cat([known.root, root])
    apart = _apart(x, root, half, periodic)
    axes = torch.eye(d, dtype=x.dtype, device=x.device)
    axes = torch.cat([axes, -axes]).expand(len(values), -1, -1)  # of the ellipsoids
    tested = _tested(energy, x[n_known:], root[n_known:], 0.5 * apart[n_known:], axes, m, EXTENTS, generator)
    tested = torch.where(usable, tested, 0.0)
    root[n_known:] *= usable[:, None, None]
    if known is not None and known.extent is not None:
        tested = torch.cat([known.extent / used, tested])
    return _with_none_of(outside, Basins(x, radius, scale, periodic, root, used * torch.minimum(tested, 0.5 * apart)))


def _with_none_of(points: np.ndarray | None, basins: Basins) -> Basins:
    return basins if points is None or not len(points) else basins.without(torch.as_tensor(points).to(basins.x))


def _tested(
    energy: Energy,
    x: torch.Tensor,
    root: torch.Tensor | None,
    largest: torch.Tensor,
    telling: torch.Tensor,
    m: int,
    sizes: np.ndarray,
    generator: torch.Generator,
) -> torch.Tensor:
    """The largest r <= largest (n,) such that |U (y - x)| falls along the flow at every tested y with |U (y - x)| <= r.

    root (n, d, d) : U, with orthogonal rows, None for balls. telling (n, k, d) : unit vectors that take the place of
    k of the m random ones.
    """
    n, d = x.shape
    tested, growing = torch.zeros_like(largest), torch.arange(n, device=x.device)
    for part in sizes:
        if not len(growing):
            break
        unit = torch.randn(len(growing), m, d, generator=generator, dtype=torch.float64).to(x)
        unit = unit / unit.norm(dim=-1, keepdim=True)
        unit[:, : telling.shape[1]] = telling[growing]
        size = largest[growing] * float(part)
        scaled = unit * size[:, None, None]  # U (y - x)
        away = scaled if root is None else (scaled / root[growing].square().sum(2)[:, None]) @ root[growing]
        gradient = energy.gradient((x[growing, None] + away).reshape(-1, d)).reshape(-1, m, d)
        # d/dt |U (y - x)|^2 / 2 = -(U (y - x)) . U grad E
        pull = gradient if root is None else gradient @ root[growing].mT
        passed = ((pull * scaled).sum(-1) > 0).all(1)
        growing, size = growing[passed], size[passed]
        tested[growing] = size
    return tested


def _apart(x: torch.Tensor, root: torch.Tensor, half: torch.Tensor, symmetry: Periodic | None) -> torch.Tensor:
    """Least |U_i (x_j - x_i)| over the other minima, (n,); for a single one as far as its ball may reach at most."""
    n, d = x.shape
    least = root.norm(dim=2).amin(1) * 2 * half  # of all points at the distance of the nearest minimum
    if n == 1 or symmetry is not None:
        return least
    found = []
    for rows in torch.arange(n, device=x.device).split(max(1, BLOCK // (n * d))):
        away = x[None] - x[rows, None]
        size = (away @ root[rows].mT).norm(dim=-1)
        size[torch.arange(len(rows), device=x.device), rows] = torch.inf
        found.append(size.amin(1))
    return torch.cat(found)


def _towards_others(x: torch.Tensor, others: torch.Tensor, most: int) -> torch.Tensor:
    """Unit vectors from each point (n, d), the last ones of `others`, to its nearest others, (n, k, d).

    Few random directions in many dimensions have a part along the one in which a basin ends; these have.
    """
    k = min(most, len(others) - 1)
    if k < 1:
        return x.new_zeros(len(x), 0, x.shape[1])
    distance = torch.cdist(x, others)
    distance[:, len(others) - len(x) :].fill_diagonal_(torch.inf)
    away = others[distance.topk(k, largest=False).indices] - x[:, None]
    return away / away.norm(dim=-1, keepdim=True)
