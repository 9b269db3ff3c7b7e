"""The lower bound on a capacity: the Thomson principle with exactly divergence-free flows.

    1 / (cap Z) = min over unit flows phi from A to B of beta int_{outside A and B} |phi|^2 exp(beta E) dy

A unit flow is a field without divergence outside A and B that carries 1 out of A and into B.

Tubes. For a path of affine maps y = m(s) + S(s) z, s from 0 to 1, and a density eta(z) of total mass 1, each point z
moves along its own curve, and together they carry

    phi(y) = int_0^1 rho_s(y) v_s(y) ds,   rho_s the density of m(s) + S(s) z,   v_s(y) = m' + S' S^-1 (y - m).

The continuity equation d rho / ds + div(rho v) = 0 gives div phi = rho_0 - rho_1: exactly zero outside A and B, as eta
has compact support and the tube starts inside A and ends inside B. Unlike the one map (s, u) -> y of a tube with a
scalar s and d - 1 transverse coordinates, this needs no injectivity: a tube that folds or crosses itself is still a
unit flow, as curves may cross, and phi is the sum of what they carry. S(s) is a convex combination of positive definite
matrices and so invertible for every s.

Channels. One tube each, phi = sum_k c_k phi_k with sum c_k = 1, and all of them evaluated at the same points: the
energy includes the cross terms wherever tubes overlap (as they do inside wells), so that nothing is assumed about
disjoint supports. For disjoint tubes the best c gives cap >= sum of the tubes' own bounds.

Corrections. For any antisymmetric matrix field A(y) of compact support div A is divergence-free and carries nothing:
phi + sum_m a_m div A_m is still a unit flow. The energy is quadratic in (c, a), so training is linear least squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy  # its parts load on first use
import torch

from landscape.rates.bounds.basis import Fields, chunks, cutoff, envelope, make_fields, support_radius
from landscape.rates.bounds.channels import Channel, Network
from landscape.rates.bounds.proposal import Draw
from landscape.rates.bounds.quadratic import QuadraticForm
from landscape.rates.bounds.region import Region, Tensor

ROWS = 1024  # points whose distances to all nodes of a tube are held at once


@dataclass(frozen=True)
class Tube:
    """mean (k, d) and root (k, d, d), symmetric positive definite: m and S at the nodes, linear in between."""

    mean: Tensor
    root: Tensor

    @property
    def radius(self) -> float:
        return support_radius(self.mean.shape[1])

    @cached_property
    def _quadrature(self) -> tuple[Tensor, ...]:
        """For each Gauss point: S^-1 (stacked), S^-1 m, velocity matrix, velocity offset, log weight."""
        nodes, weights = np.polynomial.legendre.leggauss(3)
        part = torch.as_tensor(0.5 * (nodes + 1))
        step, grow = self.mean.diff(dim=0), self.root.diff(dim=0)
        mean = (self.mean[:-1, None] + part[:, None] * step[:, None]).flatten(0, 1)
        root = (self.root[:-1, None] + part[:, None, None] * grow[:, None]).flatten(0, 1)
        inverse = torch.linalg.inv(root)
        matrix = grow.repeat_interleave(len(part), 0) @ inverse
        offset = step.repeat_interleave(len(part), 0) - torch.einsum("kij,kj->ki", matrix, mean)
        weight = torch.as_tensor(0.5 * weights).repeat(len(step))
        factor = weight / (torch.linalg.det(root) * envelope_mass(mean.shape[1]))
        return inverse, torch.einsum("kij,kj->ki", inverse, mean), matrix, offset, factor

    def __call__(self, y: Tensor) -> Tensor:
        """phi (n, d)."""
        inverse, center, matrix, offset, factor = self._quadrature
        k, d = center.shape
        stacked, flat = inverse.reshape(k * d, d).mT.contiguous(), matrix.reshape(k, d * d)
        parts = []
        for rows in y.split(ROWS):
            z = torch.addmm(-center.reshape(-1), rows, stacked)
            density = envelope(z.square().reshape(len(rows), k, d).sum(2), self.radius)[0] * factor
            drag = torch.einsum("nij,nj->ni", (density @ flat).reshape(-1, d, d), rows)
            parts.append(drag + density @ offset)
        return torch.cat(parts)


def envelope_mass(d: int) -> float:
    """int eta(|z|^2) dz over R^d."""
    radius = support_radius(d)
    surface = 2 * math.pi ** (d / 2) / math.gamma(d / 2)

    def shell(r: float) -> float:
        return float(r ** (d - 1) * math.exp(-0.5 * r * r) * (1 - (r / radius) ** 2) ** 2)

    return surface * float(scipy.integrate.quad(shell, 0, radius)[0])


def make_tube(region: Region, network: Network, channel: Channel) -> Tube:
    """A tube along a channel with the thermal spread of its nodes, that starts and ends inside the cores."""
    means: list[Tensor] = []
    covariances: list[Tensor] = []
    for leg, sign in channel.legs:
        nodes = (network.legs[leg].mean, network.legs[leg].covariance)
        mean, covariance = (t if sign > 0 else t.flip(0) for t in nodes)
        means.append(mean if not means else mean[1:])
        covariances.append(covariance if not covariances else covariance[1:])
    mean, covariance = torch.cat(means), torch.cat(covariances)
    radius = support_radius(region.dim)
    # the cut of the envelope takes 4 / R^2 from the inverse variance; give it back
    root = _root(covariance * (1 + 4 / radius**2))
    ends = []
    for core, k in ((channel.source, 0), (channel.target, -1)):
        inverse = torch.linalg.inv(root[k] @ root[k]) + 1.001 * radius**2 * region.form[core]
        ends.append((region.center[core], _root(torch.linalg.inv(inverse)[None])[0]))
    (first, first_root), (last, last_root) = ends
    mean = torch.cat([first[None], mean[1:-1], last[None]])
    root = torch.cat([first_root[None], root[1:-1], last_root[None]])
    return Tube(mean, root)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ (values.clamp_min(0).sqrt()[:, :, None] * vectors.mT)


@dataclass(frozen=True)
class UnitFlow:
    """sum_k part_k tube_k + sum_m coefficient_m div A_m, with parts that sum to 1; level : beta E at the pass."""

    tubes: tuple[Tube, ...]
    part: Tensor
    fields: Fields | None
    coefficient: Tensor
    level: float

    def tube_flows(self, y: Tensor) -> Tensor:
        """Each tube's own unit flow (n, k, d)."""
        return torch.stack([tube(y) for tube in self.tubes], 1)

    def corrections(self, found: Draw, rows: slice) -> Tensor:
        """The fields at some of the points, (n, p, d); p = 0 in one dimension."""
        if self.fields is None:
            return found.y.new_zeros(len(found.y[rows]), 0, found.y.shape[1])
        return self.fields(found.y[rows], *cutoff(found.reduced[rows] - self.level, found.gradient[rows]))

    def at(self, found: Draw, tubes: Tensor) -> Tensor:
        """phi (n, d); tubes : what `tube_flows` gave."""
        slices = chunks(len(found.y), 3 * (1 + len(self.coefficient)) * found.y.shape[1])
        more = [torch.einsum("npd,p->nd", self.corrections(found, rows), self.coefficient) for rows in slices]
        return torch.einsum("nkd,k->nd", tubes, self.part) + torch.cat(more)

    def trained(self, found: Draw, weight: Tensor) -> UnitFlow:
        """Minimise sum_n weight_n |phi(y_n)|^2; weight ~ exp(beta E) / q outside A and B, 0 inside."""
        k, d = len(self.tubes), found.y.shape[1]
        size = k - 1 + len(self.coefficient)
        if not size:
            return self
        flows, form = self.tube_flows(found.y), QuadraticForm(size)
        for rows in chunks(len(found.y), 3 * size * d):
            # parts sum to 1: what tubes 1, 2, ... gain, tube 0 loses
            columns = torch.cat([flows[rows, 1:] - flows[rows, :1], self.corrections(found, rows)], 1)
            form.add(columns, torch.einsum("nkd,k->nd", flows[rows], self.part), weight[rows])
        solution = form.solve()
        gain = torch.cat([-solution[: k - 1].sum()[None], solution[: k - 1]])
        return replace(self, part=self.part + gain, coefficient=solution[k - 1 :])


def first_flow(region: Region, network: Network, level: float) -> UnitFlow:
    """A tube for each channel with its part of the current, and no corrections yet; level : beta E at the pass."""
    tubes = tuple(make_tube(region, network, channel) for channel in network.channels)
    part = torch.tensor([channel.part for channel in network.channels], dtype=torch.float64)
    fields = make_fields(network.legs)
    return UnitFlow(tubes, part, fields, part.new_zeros(0 if fields is None else len(fields)), level)
