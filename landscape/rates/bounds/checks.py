"""Reasons not to trust a bracket: channels without samples, heavy weights, lost flux, folded tubes.

What can be noticed: a saddle or path that is known but missing from the sampler; a region that an independent hot
trajectory from A passes through on its way to B and in which a single sample would have carried a large part of the
upper bound. What cannot: a channel so narrow, or so far away, that neither the search nor those trajectories ever find
it. The lower bound stays valid even then; the upper one may fall below the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from landscape.rates.bounds.dirichlet import TestFunction
from landscape.rates.bounds.proposal import ROWS, Draw, GaussianMixture
from landscape.rates.bounds.region import Region, Tensor
from landscape.rates.bounds.thomson import Tube

LOCAL = 2000  # points drawn around each saddle
SEEN = 0.5  # sampled over true mass around a saddle from which on it counts as seen
ALONG = 1.5  # spread of the local points along the unstable direction, in (beta |lambda|)^(-1/2)
RELEVANT = 0.01  # part of the upper bound that a saddle's Eyring-Kramers capacity must reach to matter
HOT = 2.5  # barrier in units of the hot trajectories' temperature
CHAINS, STEPS, STEP = 64, 1000, 0.1
ALARM = 0.05  # share of the upper bound that one sample at a point of a hot trajectory may carry


@dataclass(frozen=True)
class SaddleSeen:
    """capacity (m,) : log of each saddle's Eyring-Kramers capacity times Z. ratio (m,) : mass around it by the sampler
    over that by local draws. seen (m,), relevant (m,)."""

    log_capacity: np.ndarray
    ratio: np.ndarray
    seen: np.ndarray
    relevant: np.ndarray


def saddles_seen(
    region: Region, saddles: Tensor, distinct: np.ndarray, found: Draw, log_upper: float, generator: torch.Generator
) -> SaddleSeen:
    """Whether the sampler reached each saddle (m, d); distinct (m,) : whether it joins two different states.

    Around a saddle, inside the ellipsoid y' |beta H| y < d + 2 sqrt(2 d), int exp(-beta E) is estimated from the
    sampler's points and from local Gaussian ones.
    """
    m, d = len(saddles), region.dim
    reach = d + 2 * math.sqrt(2 * d)
    values, vectors = torch.linalg.eigh(region.hessian(saddles))
    size = values.abs().maximum(1e-4 * values.abs().amax(1, keepdim=True))
    root = vectors * size.sqrt()[:, None]
    energy = region.reduced(saddles)
    normal = torch.randn(m, LOCAL, d, generator=generator, dtype=torch.float64)
    log_normal = -0.5 * normal.square().sum(2) - math.log(ALONG) - 0.5 * d * math.log(2 * math.pi)
    log_normal = log_normal + 0.5 * size.log().sum(1)[:, None]
    z = torch.cat([ALONG * normal[..., :1], normal[..., 1:]], 2)
    local = saddles[:, None] + torch.einsum("mij,mnj->mni", vectors / size.sqrt()[:, None], z)
    at = region.reduced(local.flatten(0, 1)).reshape(m, LOCAL) - energy[:, None]
    mass = (torch.exp(-at - log_normal) * (z.square().sum(2) < reach)).mean(1)
    sampled = torch.zeros(m, dtype=torch.float64)
    for k in range(m):
        near = torch.einsum("ij,ni->nj", root[k], found.y - saddles[k]).square().sum(1) < reach
        sampled[k] = torch.exp(found.log_weight(-1, float(energy[k]))[near]).sum() / len(found.y)
    ratio = (sampled / mass).numpy()
    log_capacity = -energy - math.log(region.beta) + values[:, 0].abs().log() + (0.5 * d - 1) * math.log(2 * math.pi)
    log_capacity = (log_capacity - 0.5 * size.log().sum(1)).numpy()
    relevant = (log_capacity > log_upper + math.log(RELEVANT)) & distinct
    return SaddleSeen(log_capacity, ratio, ratio > SEEN, relevant)


def hot_crossings(
    region: Region,
    function: TestFunction,
    mixture: GaussianMixture,
    log_upper: float,
    highest: float,
    n: int,
    generator: torch.Generator,
) -> tuple[int, float, np.ndarray | None]:
    """Trajectories from A at a temperature at which they cross: crossings to B, and the point at which one sample of
    the n would have carried the largest share of the upper bound, with that share. highest : beta E of the pass.
    """
    start = region.center[list(region.source)].repeat(math.ceil(CHAINS / len(region.source)), 1)[:CHAINS]
    barrier = highest - float(region.reduced(start).min())
    cold = min(1.0, HOT / max(barrier, HOT))  # hot beta over beta
    y, from_a, crossings, worst, where = start.clone(), torch.ones(CHAINS, dtype=torch.bool), 0, -math.inf, None
    curvature = float(torch.linalg.eigvalsh(region.hessian(start)).abs().max())
    step = STEP / curvature
    kick = math.sqrt(2 * step / cold)
    kept: list[Tensor] = []
    for count in range(STEPS):
        move = -step * region.gradient(y)
        limit = 3 * kick * math.sqrt(region.dim)
        move = move * (limit / move.norm(dim=1, keepdim=True).clamp_min(limit))
        y = y + move + kick * torch.randn(y.shape, generator=generator, dtype=torch.float64)
        lost = ~y.isfinite().all(1)
        y[lost] = start[lost]
        in_a = (region.levels(y, region.source)[0] < 1).any(1) | lost
        in_b = (region.levels(y, region.target)[0] < 1).any(1)
        crossings += int((in_b & from_a).sum())
        from_a = (from_a & ~in_b) | in_a
        if count % 3 == 0:
            kept.append(y)
    points = torch.cat(kept)
    points = points[region.outside(points)]
    reduced = region.reduced(points)
    near = reduced < highest + 3
    points, reduced = points[near], reduced[near]
    if len(points):
        log_q = torch.cat([mixture.log_density(rows) for rows in points.split(ROWS)])
        slope = function(points)[1].square().sum(1).clamp_min(1e-300).log()
        share = slope - reduced - log_q - math.log(region.beta) - log_upper - math.log(n)
        worst, where = float(share.max()), (points[share.argmax()] / region.scale).numpy()
    return crossings, math.exp(min(worst, 700.0)), where


def folded(tubes: tuple[Tube, ...]) -> int:
    """Pieces of tubes whose map S has a determinant that is not positive."""
    return sum(int((torch.linalg.det(tube.root) <= 0).sum()) for tube in tubes)


def self_crossings(tube: Tube) -> int:
    """Pairs of nodes of a tube that lie far apart along it but within two thermal spreads of each other.

    Harmless for these flows (curves may cross), but they waste current.
    """
    inverse = torch.linalg.inv(tube.root)
    difference = tube.mean[:, None] - tube.mean
    near = torch.einsum("kij,lkj->lki", inverse, difference).square().sum(2) < 4
    length = torch.cat([tube.mean.new_zeros(1), tube.mean.diff(dim=0).norm(dim=1).cumsum(0)])
    apart = (length[:, None] - length).abs() > 3 * difference.norm(dim=2).clamp_min(1e-300)
    return int((near & near.mT & apart).sum()) // 2
