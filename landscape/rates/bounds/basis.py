"""Functions along the legs: a partition of unity for the test function, divergence-free fields for the flow.

Partition: p_k(y) = softmax_k(-|y - m_k|^2 / 2 w^2) times powers of clipped coordinates across the leg at node k. They
reach to infinity without decay, so that the test function has a sensible value everywhere.

Fields: around each centre, z = W (y - c) with z_0 along the leg and z_1, ..., z_r in the directions in which the legs
bend; G = (a product of Hermite polynomials) x exp(-|z|^2 / 2) (1 - |z|^2 / R^2)_+^2 x (a cutoff at high energy) has
compact support, and t (e . grad G) - e (t . grad G) for two fixed directions t, e has no divergence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from landscape.rates.bounds.channels import Leg, main_directions
from landscape.rates.bounds.region import Tensor

STRIDE = 2  # a centre at every second node of a leg
POWERS = 3  # of the coordinates across a leg, in the test function
DEGREE = {1: 6, 2: 4}  # of the polynomials across a leg in the flow, by the number of directions in which legs bend
LONG = 2.0  # reach of a field along its leg, in distances between centres
WIDE = 1.15  # reach of a field in the directions in which legs bend, in thermal spreads
LOW, HIGH = 4.0, 6.0  # see `cutoff`
CLIP = 3.0  # thermal spreads beyond which a coordinate across the leg levels off
CHUNK = 2_000_000  # numbers in one block of gradients


def support_radius(d: int) -> float:
    """R = (d + 3 sqrt(2 d) + 9)^(1/2): a Gaussian has less than 1e-3 of its mass outside."""
    return math.sqrt(d + 3 * math.sqrt(2 * d) + 9)


def envelope(square: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """eta(r^2) = exp(-r^2 / 2) (1 - r^2 / R^2)_+^2 and its derivative with respect to r^2."""
    gauss = torch.exp(-0.5 * square)
    rest = (1 - square / radius**2).clamp_min(0)
    return gauss * rest * rest, -gauss * rest * (0.5 * rest + 2 / radius**2)


@dataclass(frozen=True)
class Partition:
    """mean (m, d), width w, across (m, c, d) : rows map y - m_k to coordinates in thermal spreads; terms (t, c) :
    powers of these."""

    mean: Tensor
    width: float
    across: Tensor
    terms: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.mean) * len(self.terms)

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Functions (n, m t) and their gradients (n, m t, d)."""
        difference = y[:, None] - self.mean
        share = torch.softmax(-0.5 * difference.square().sum(2) / self.width**2, 1)
        pull = self.mean - (share @ self.mean)[:, None]
        slope = share[..., None] * pull / self.width**2
        level = torch.tanh(torch.einsum("mcd,nmd->nmc", self.across, difference) / CLIP)
        steep, z = 1 - level.square(), CLIP * level
        values, gradients = [], []
        for term in self.terms:
            used = [(j, k) for j, k in enumerate(term) if k]
            poly = torch.ones_like(share)
            for j, k in used:
                poly = poly * z[..., j] ** k
            gradient = poly[..., None] * slope
            for j, k in used:
                others = share * k * z[..., j] ** (k - 1) * steep[..., j]
                for i, power in used:
                    others = others * z[..., i] ** power if i != j else others
                gradient = gradient + others[..., None] * self.across[:, j]
            values.append(share * poly)
            gradients.append(gradient)
        return torch.stack(values, 2).flatten(1, 2), torch.stack(gradients, 2).flatten(1, 2)


@dataclass(frozen=True)
class Fields:
    """Centres (m, d), whitening W (m, d, d) and frames (m, d, d) whose columns are the directions of z.

    terms (t, d) : degrees of the polynomials in z, the same at every centre. planes (t,) : the column of the frame that
    is e in each term; t is column 0, along the leg.
    """

    center: Tensor
    whitening: Tensor
    frame: Tensor
    terms: tuple[tuple[int, ...], ...]
    planes: tuple[int, ...]
    radius: float

    def __len__(self) -> int:
        return len(self.center) * len(self.terms)

    def _local(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """g (n, m, t) and its gradient with respect to z (n, m, t, d)."""
        z = torch.einsum("mij,nmj->nmi", self.whitening, y[:, None] - self.center)
        eta, slope = envelope(z.square().sum(2), self.radius)
        top = max(max(term) for term in self.terms)
        hermite = [torch.ones_like(z), z]
        for k in range(2, top + 1):
            # normalised: He_k / sqrt(k!)
            hermite.append((z * hermite[-1] - math.sqrt(k - 1) * hermite[-2]) / math.sqrt(k))
        values, gradients = [], []
        for term in self.terms:
            used = [(j, k) for j, k in enumerate(term) if k]
            poly = torch.ones_like(eta)
            for j, k in used:
                poly = poly * hermite[k][..., j]
            gradient = 2 * (slope * poly)[..., None] * z
            for j, k in used:
                others = torch.ones_like(eta)
                for i, m in used:
                    others = others * (math.sqrt(k) * hermite[k - 1][..., j] if i == j else hermite[m][..., i])
                gradient[..., j] += others * eta
            values.append(poly * eta)
            gradients.append(gradient)
        return torch.stack(values, 2), torch.stack(gradients, 2)

    def __call__(self, y: Tensor, cut: Tensor, slope: Tensor) -> Tensor:
        """t (e . grad G) - e (t . grad G) with G = g times a cutoff, (n, m t, d); cut (n,), slope (n, d) : the cutoff
        and its gradient."""
        value, gradient = self._local(y)
        local = self.whitening @ self.frame  # columns: the frame's directions in z
        planes = list(self.planes)
        turned = torch.einsum("mij,ni->nmj", self.frame, slope)
        along = cut[:, None, None] * torch.einsum("nmti,mi->nmt", gradient, local[:, :, 0])
        along = along + value * turned[:, :, :1]
        aside = cut[:, None, None] * torch.einsum("nmti,mit->nmt", gradient, local[:, :, planes])
        aside = aside + value * turned[:, :, planes]
        field = aside[..., None] * self.frame[:, None, :, 0] - along[..., None] * self.frame[:, :, planes].mT
        return field.flatten(1, 2)


def cutoff(excess: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """A function of beta E that is 1 up to `LOW` above the pass and 0 from `HIGH` further on, (n,), and its gradient.

    excess (n,) : beta E less its value at the pass, gradient (n, d). In d dimensions the bulk around the pass lies
    about (d - 1) / 2 above it, give or take sqrt(d / 2).
    """
    d = gradient.shape[1]
    start = LOW + 0.5 * (d - 1) + 3 * math.sqrt(d)
    part = ((excess - start) / HIGH).clamp(0, 1)
    rise = -6 * part * (1 - part) / HIGH
    # where the cutoff is flat an infinite gradient does not count
    slope = torch.where((rise != 0)[:, None], rise[:, None] * gradient, 0)
    return (1 - part) ** 2 * (1 + 2 * part), slope


def chunks(n: int, numbers: int) -> Iterator[slice]:
    """Slices of n points, each of which needs so many numbers, that fit into memory."""
    rows = max(16, CHUNK // max(1, numbers))
    return (slice(k, min(k + rows, n)) for k in range(0, n, rows))


def make_partition(legs: tuple[Leg, ...], width: float) -> tuple[Partition, Tensor]:
    """The partition of unity on the nodes of the legs, and the rows of the nodes it uses among all of them."""
    d = legs[0].mean.shape[1]
    frames, bends, rows = _all_frames(legs)
    covariance = torch.cat([leg.covariance for leg in legs])[rows]
    spread = torch.einsum("kic,kij,kjc->kc", frames, covariance, frames).sqrt()
    across = (frames / spread[:, None]).mT[:, 1:]
    main = [k for k in itertools.product(range(POWERS + 1), repeat=bends) if sum(k) <= POWERS]
    terms = [(*k, *([0] * (d - 1 - bends))) for k in main]
    terms += [tuple(int(i == j) for i in range(d - 1)) for j in range(bends, d - 1)]
    return Partition(torch.cat([leg.mean for leg in legs])[rows], width, across, tuple(terms)), rows


def make_fields(legs: tuple[Leg, ...]) -> Fields | None:
    """The fields around the legs; None in one dimension, where a flow without divergence is a constant."""
    d = legs[0].mean.shape[1]
    if d == 1:
        return None
    frames, bends, rows = _all_frames(legs)
    local = frames.mT @ torch.cat([leg.covariance for leg in legs])[rows] @ frames
    wide = torch.tensor([1.0] + [WIDE] * bends + [1.0] * (d - 1 - bends), dtype=local.dtype)
    local = wide[:, None] * local * wide
    spacing = torch.cat([_spacing(leg).expand(len(leg.mean)) for leg in legs])[rows]
    local[:, 0, 1:] = local[:, 1:, 0] = 0
    local[:, 0, 0] = (LONG * STRIDE * spacing) ** 2
    factor = torch.linalg.cholesky(local)
    eye = torch.eye(d, dtype=factor.dtype).expand_as(factor)
    whitening = torch.linalg.solve_triangular(factor, eye, upper=False) @ frames.mT
    terms, planes = _terms(d, bends)
    center = torch.cat([leg.mean for leg in legs])[rows]
    return Fields(center, whitening, frames, terms, planes, support_radius(d))


def _spacing(leg: Leg) -> Tensor:
    return leg.mean.diff(dim=0).norm(dim=1).mean()


def _all_frames(legs: tuple[Leg, ...]) -> tuple[Tensor, int, Tensor]:
    """Frames (k, d, d) at every second node of each leg, the number of directions in which legs bend, and the rows."""
    tangents = torch.cat([leg.tangent for leg in legs])
    start, rows = 0, []
    for leg in legs:
        rows.append(start + torch.arange(0, len(leg.mean), STRIDE))
        start += len(leg.mean)
    chosen, main = torch.cat(rows), main_directions(legs)
    bends = main.shape[1] - 1
    if bends == 0:
        return tangents[chosen][:, :, None], 0, chosen
    return _frames(tangents[chosen], main, bends), bends, chosen


def _terms(d: int, bends: int) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    degree = DEGREE[bends]
    inner = [k for k in itertools.product(range(degree + 1), repeat=bends) if sum(k) <= degree]
    pure = [(0, *k, *([0] * (d - 1 - bends))) for k in inner]
    pairs = [(term, j) for j in range(1, 1 + bends) for term in pure]
    pairs += [(pure[0], j) for j in range(1 + bends, d)]
    return tuple(term for term, _ in pairs), tuple(j for _, j in pairs)


def _frames(tangent: Tensor, main: Tensor, bends: int) -> Tensor:
    """Orthonormal frames (k, d, d): tangent, the directions of `main` (d, bends + 1) across it, the rest."""
    d = tangent.shape[1]
    across = torch.eye(d, dtype=tangent.dtype) - tangent[:, :, None] * tangent[:, None, :]
    left = torch.linalg.svd(across @ main, full_matrices=False)[0][:, :, :bends]
    taken = torch.cat([tangent[:, :, None], left], 2)
    rest = torch.linalg.svd(taken, full_matrices=True)[0][:, :, bends + 1 :]
    return torch.cat([taken, rest], 2)
