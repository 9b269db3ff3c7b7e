"""Proposals for importance sampling: Gaussian mixtures along the legs, with inflated copies, adapted once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from landscape.rates.bounds.channels import Network
from landscape.rates.bounds.region import Region, Tensor

EVEN = 0.15  # part of the weight that is spread evenly over the components, whatever they seem to be worth
# part of the weight, growth of the variances in the directions in which the legs run, and in the others
COPIES = ((0.4, 0.0, 0.0), (0.27, 1.0, 0.0), (0.2, 5.0, 0.0), (0.13, 1.0, 0.7))
ROWS = 4096  # points whose densities under all components are held at once


@dataclass(frozen=True)
class GaussianMixture:
    """sum_k weight_k N(mean_k, covariance_k): weight (k,), mean (k, d), covariance (k, d, d)."""

    weight: Tensor
    mean: Tensor
    covariance: Tensor

    @cached_property
    def factor(self) -> Tensor:
        return torch.linalg.cholesky(self.covariance)

    @cached_property
    def _whitening(self) -> tuple[Tensor, Tensor, Tensor]:
        k, d = self.mean.shape
        eye = torch.eye(d, dtype=self.mean.dtype).expand(k, d, d)
        inverse = torch.linalg.solve_triangular(self.factor, eye, upper=False)
        offset = torch.einsum("kij,kj->ki", inverse, self.mean)
        log_norm = inverse.diagonal(dim1=1, dim2=2).log().sum(1) - 0.5 * d * math.log(2 * math.pi)
        return inverse.reshape(k * d, d).mT.contiguous(), offset.reshape(-1), log_norm

    def component_log_densities(self, y: Tensor) -> Tensor:
        """log N(y; mean_k, covariance_k): (n, d) -> (n, k)."""
        matrix, offset, log_norm = self._whitening
        z = torch.addmm(-offset, y, matrix)
        return log_norm - 0.5 * z.square().reshape(len(y), len(self.mean), -1).sum(2)

    def log_density(self, y: Tensor) -> Tensor:
        """(n, d) -> (n,)."""
        return torch.logsumexp(self.component_log_densities(y) + self.weight.log(), 1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws (n, d), stratified over the components: each gets n weight_k of them, up to one."""
        shift = torch.rand(1, generator=generator, dtype=torch.float64)
        edges = (n * self.weight.cumsum(0) / self.weight.sum() + shift).floor().long()
        edges[-1] = n
        component = torch.searchsorted(edges, torch.arange(n), right=True).clamp_max(len(self.weight) - 1)
        normal = torch.randn(n, self.mean.shape[1], generator=generator, dtype=torch.float64)
        return self.mean[component] + torch.einsum("nij,nj->ni", self.factor[component], normal)

    def adapted(self, y: Tensor, weight: Tensor) -> GaussianMixture:
        """The mixture with the component weights that importance-weighted points call for: one step of EM."""
        total = torch.zeros_like(self.weight)
        for rows in torch.arange(len(y)).split(ROWS):
            share = torch.softmax(self.component_log_densities(y[rows]) + self.weight.log(), 1)
            total += weight[rows] @ share
        return GaussianMixture(total / total.sum(), self.mean, self.covariance)

    def joined(self, other: GaussianMixture) -> GaussianMixture:
        """Both mixtures with half of the weight each."""
        weight = 0.5 * torch.cat([self.weight / self.weight.sum(), other.weight / other.weight.sum()])
        return GaussianMixture(
            weight, torch.cat([self.mean, other.mean]), torch.cat([self.covariance, other.covariance])
        )

    def inflated(self, main: Tensor) -> GaussianMixture:
        """A full-support proposal: weights partly spread evenly, and copies of every component with wider spreads.

        main (d, k) : the directions in which the legs run, where spreads are least like the harmonic ones.
        """
        even = torch.full_like(self.weight, 1 / len(self.weight))
        weight = (1 - EVEN) * self.weight / self.weight.sum() + EVEN * even
        inside = main @ main.mT
        rest = torch.eye(len(inside), dtype=inside.dtype) - inside
        parts = []
        for share, along, across in COPIES:
            stretch = math.sqrt(1 + along) * inside + math.sqrt(1 + across) * rest
            parts.append((share * weight, self.mean, stretch @ self.covariance @ stretch))
        return GaussianMixture(*(torch.cat(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Draw:
    """Points y (n, d), beta E there (n,), infinite where the energy is, its gradient (n, d), and log q (n,)."""

    y: Tensor
    reduced: Tensor
    gradient: Tensor
    log_q: Tensor

    def log_weight(self, sign: float, level: float) -> Tensor:
        """log of exp(sign (beta E - level)) / q, (n,); -inf where the energy is infinite."""
        value = sign * (self.reduced - level) - self.log_q
        return torch.where(self.reduced.isfinite(), value, -torch.inf)


def draw(region: Region, mixture: GaussianMixture, n: int, generator: torch.Generator) -> Draw:
    """n points from a mixture."""
    y = mixture.sample(n, generator)
    log_q = torch.cat([mixture.log_density(rows) for rows in y.split(ROWS)])
    return Draw(y, *region.reduced_and_gradient(y), log_q)


def leg_components(network: Network) -> GaussianMixture:
    """One Gaussian for each node of each leg, evenly weighted."""
    mean = torch.cat([leg.mean for leg in network.legs])
    covariance = torch.cat([leg.covariance for leg in network.legs])
    return GaussianMixture(torch.full((len(mean),), 1 / len(mean), dtype=torch.float64), mean, covariance)
