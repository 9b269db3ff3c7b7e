"""Where a transition can go: minimum energy paths as chains of Gaussians, their resistances, and how current divides.

A leg is one minimum energy path through one saddle. Its nodes carry the thermal spread across the path, from which the
one-dimensional resistance R = int exp(beta F) ds follows, with F the free energy along the leg. The legs form a network
between minima; a unit potential between source and target gives each leg its current, and the current, taken apart into
simple paths from source to target, the channels that carry it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from landscape.errors import UsageError
from landscape.rates.bounds.region import Region, Tensor
from landscape.search.string import arclengths, resample

SPACING = 0.35  # between nodes, in widths (beta |lambda|)^(-1/2) of the leg's barrier
THICKNESS = 0.5  # of a node along its leg, in the same widths
NODES = (12, 240)  # least and most on a leg
FLATTEST = 0.8  # least curvature across a leg in units of the least one at its ends and its top
MOST_CHANNELS = 8
BENT = 0.02  # part of the squared tangents that makes a direction one in which the legs bend
NEGLIGIBLE = 1e-4  # part of the current below which a further channel is not followed


@dataclass(frozen=True)
class Leg:
    """Nodes along one minimum energy path: mean (k, d), tangent (k, d), covariance (k, d, d), log_resistance
    (k - 1,) of the pieces between them. ends : labels of the two minima, mean[0] at the first. saddle : its index.
    """

    mean: Tensor
    tangent: Tensor
    covariance: Tensor
    log_resistance: Tensor
    ends: tuple[int, int]
    saddle: int


@dataclass(frozen=True)
class Channel:
    """A simple path from A to B: legs (index, +1 or -1 for the direction) in order, its part of the current, and the
    labels of the cores at its ends."""

    legs: tuple[tuple[int, int], ...]
    part: float
    source: int
    target: int


@dataclass(frozen=True)
class Network:
    """Legs, the channels through them, and the potential of each leg's nodes, 1 on A and 0 on B: list of (k,)."""

    legs: tuple[Leg, ...]
    channels: tuple[Channel, ...]
    potential: tuple[Tensor, ...]


def make_leg(region: Region, images: Tensor, ends: tuple[int, int], saddle: int, width: float) -> Leg:
    """A leg from images (m, d) in scaled coordinates; width : of its barrier."""
    length = float(arclengths(images[None])[0, -1])
    count = int(np.clip(math.ceil(length / (SPACING * width)) + 1, *NODES))
    mean = resample(images[None], count)[0]
    thickness = max(THICKNESS * width, length / (count - 1) / 0.7)
    tangent = _tangents(mean)
    top = int(region.reduced(mean).argmax())
    covariance = _spread(region.hessian(mean), tangent, thickness, [0, top, count - 1], length)
    return with_resistance(region, Leg(mean, tangent, covariance, mean.new_zeros(count - 1), ends, saddle))


def with_resistance(region: Region, leg: Leg) -> Leg:
    """The leg with the resistances of its nodes' free energies: log int exp(beta E) / (area across) ds."""
    along = torch.einsum("ki,kij,kj->k", leg.tangent, torch.linalg.inv(leg.covariance), leg.tangent)
    # det Sigma = (variance along at fixed transverse position) x (determinant across)
    log_area = 0.5 * (torch.linalg.slogdet(leg.covariance)[1] + along.log())
    free = region.reduced(leg.mean) - log_area
    pieces = leg.mean.diff(dim=0).norm(dim=1).clamp_min(1e-300).log()
    middle = torch.logaddexp(free[1:], free[:-1]) - math.log(2) + pieces
    return replace(leg, log_resistance=middle - 0.5 * (region.dim - 1) * math.log(2 * math.pi))


def _tangents(mean: Tensor) -> Tensor:
    step = torch.cat([mean[1:2] - mean[:1], mean[2:] - mean[:-2], mean[-1:] - mean[-2:-1]])
    return step / step.norm(dim=1, keepdim=True).clamp_min(torch.finfo(step.dtype).tiny)


def main_directions(legs: Sequence[Leg]) -> Tensor:
    """The directions in which the legs run, (d, 2) or (d, 3), orthonormal, most important first; (1, 1) if d = 1."""
    tangents = torch.cat([leg.tangent for leg in legs])
    d = tangents.shape[1]
    values, vectors = torch.linalg.eigh(tangents.mT @ tangents / len(tangents))
    bends = min(2, max(1, int((values > BENT).sum()) - 1), d - 1)
    return vectors[:, -(bends + 1) :].flip(1)


def _spread(hessian: Tensor, tangent: Tensor, thickness: float, firm: list[int], length: float) -> Tensor:
    """Covariances (k, d, d): thermal across the leg, `thickness` along it.

    firm : nodes near stationary points, where curvatures across the leg are positive; the least of them bounds those
    elsewhere, where the Hessian may be flat or negative. No spread exceeds the leg's length.
    """
    d = tangent.shape[1]
    along = tangent[:, :, None] * tangent[:, None, :]
    across = torch.eye(d, dtype=hessian.dtype) - along
    # the tangent gets an eigenvalue above all others, so that the other d - 1 come first
    stiff = 10 * hessian.abs().sum(2).amax(1) + 1
    values, vectors = torch.linalg.eigh(across @ hessian @ across + stiff[:, None, None] * along)
    known = values[firm, : d - 1]
    known = known[known > length**-2]
    floor = FLATTEST * float(known.min()) if len(known) else length**-2
    inverse = vectors @ ((1 / values.clamp_min(floor))[:, :, None] * vectors.mT)
    return across @ inverse @ across + thickness**2 * along


def make_network(region: Region, legs: Sequence[Leg]) -> Network:
    """Potentials and channels; UsageError if no leg leads from the source to the target."""
    labels = sorted({end for leg in legs for end in leg.ends} | set(region.source + region.target))
    place = {label: k for k, label in enumerate(labels)}
    total = torch.stack([torch.logsumexp(leg.log_resistance, 0) for leg in legs]).numpy() if legs else np.zeros(0)
    conductance = np.exp(np.clip(total.min(initial=np.inf) - total, -600, 0)) if len(total) else total
    ends = np.array([[place[a] for a in leg.ends] for leg in legs], dtype=int).reshape(-1, 2)
    fixed = {place[k]: 1.0 for k in region.source} | {place[k]: 0.0 for k in region.target}
    voltage = _voltages(len(labels), ends, conductance, fixed)
    current = conductance * (voltage[ends[:, 0]] - voltage[ends[:, 1]])
    channels = _channels(region, labels, ends, current)
    if not channels:
        raise UsageError(
            f"no path known leads from cores {region.source} to cores {region.target}: give the saddles between them, "
            "with their paths"
        )
    potential = []
    for leg, (a, b) in zip(legs, ends, strict=True):
        part = torch.softmax(leg.log_resistance, 0).cumsum(0)
        part = torch.cat([part.new_zeros(1), part])
        potential.append(voltage[a] + (voltage[b] - voltage[a]) * part)
    return Network(tuple(legs), tuple(channels), tuple(potential))


def _voltages(n: int, ends: np.ndarray, conductance: np.ndarray, fixed: dict[int, float]) -> np.ndarray:
    """Kirchhoff's potentials (n,); parts that no leg joins to source or target float at 1/2."""
    laplacian = np.zeros((n, n))
    for (a, b), g in zip(ends, conductance, strict=True):
        if a != b:
            laplacian[[a, b], [a, b]] += g
            laplacian[[a, b], [b, a]] -= g
    voltage, free = np.full(n, 0.5), np.array([k for k in range(n) if k not in fixed], dtype=int)
    for k, value in fixed.items():
        voltage[k] = value
    scale = np.diag(laplacian)[free]
    joined = scale > 0
    free, scale = free[joined], scale[joined]
    if len(free):
        rows = laplacian[free] / scale[:, None]
        known = np.array(sorted(fixed))
        matrix, right = rows[:, free], -rows[:, known] @ voltage[known]
        voltage[free] = np.clip(np.linalg.lstsq(matrix, right, rcond=None)[0], 0, 1)
    return voltage


def _channels(region: Region, labels: list[int], ends: np.ndarray, current: np.ndarray) -> list[Channel]:
    """The current taken apart into paths, widest first, until what is left is negligible."""
    place = {label: k for k, label in enumerate(labels)}
    sources, targets = {place[k] for k in region.source}, {place[k] for k in region.target}
    left = current.copy()
    found: list[Channel] = []
    total = sum(c * ((a in sources) - (b in sources)) for (a, b), c in zip(ends.tolist(), current, strict=True))
    while len(found) < MOST_CHANNELS:
        path, width = _widest_path(len(labels), ends, left, sources, targets)
        if not path or width <= NEGLIGIBLE * total:
            break
        for leg, sign in path:
            left[leg] -= sign * width
        first, last = path[0], path[-1]
        start = ends[first[0], 0 if first[1] > 0 else 1]
        stop = ends[last[0], 1 if last[1] > 0 else 0]
        found.append(Channel(tuple(path), width, labels[start], labels[stop]))
    share = sum(channel.part for channel in found)
    return [replace(channel, part=channel.part / share) for channel in found]


def _widest_path(
    n: int, ends: np.ndarray, current: np.ndarray, sources: set[int], targets: set[int]
) -> tuple[list[tuple[int, int]], float]:
    """The path from a source to a target whose smallest current, followed in its direction, is largest."""
    width = np.array([np.inf if k in sources else 0.0 for k in range(n)])
    before: list[tuple[int, int] | None] = [None] * n
    open_nodes = set(range(n))
    while open_nodes:
        here = max(open_nodes, key=lambda k: width[k])
        open_nodes.remove(here)
        if width[here] <= 0 or here in targets:
            break
        for leg, (a, b) in enumerate(ends.tolist()):
            for tail, head, sign in ((a, b, 1), (b, a, -1)):
                through = min(width[here], sign * current[leg])
                if tail == here and head in open_nodes and through > width[head]:
                    width[head], before[head] = through, (leg, sign)
    else:
        return [], 0.0
    if here not in targets or width[here] <= 0:
        return [], 0.0
    path, node = [], here
    while (step := before[node]) is not None:
        path.append(step)
        node = ends[step[0], 0 if step[1] > 0 else 1]
    return path[::-1], float(width[here])
