"""Moves between wells: proposals drawn from a fixed mixture that covers all of them (independence
Metropolis-Hastings).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.sampling.metropolis import Beta, Chains, metropolis
from landscape.sampling.step_size import StepSize

# Hessian eigenvalues below this part of the largest count as this part, so that a flat direction keeps a finite width.
FLAT = 1e-4

BLOCK = 2**18  # numbers that are worked on together: more of them leave the processor's cache
LEAST_POINTS = 256  # that share the reading of a component's matrix


@dataclass(frozen=True)
class StudentMixture:
    """A mixture of k multivariate t distributions, whose tails are heavier than any Gaussian's.

    log_weights (k,), normalised; means (k, d); factors (k, d, d): lower Cholesky factors of the scale matrices; dof:
    degrees of freedom, a whole number of at least 1.
    """

    log_weights: torch.Tensor
    means: torch.Tensor
    factors: torch.Tensor
    dof: int

    @cached_property
    def _inverses(self) -> torch.Tensor:
        return inverse_factors(self.factors)

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """n independent draws, (n, d)."""
        component = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        normal = torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=generator)
        chi2 = torch.randn(n, self.dof, dtype=torch.float64, generator=generator).square().sum(1, keepdim=True)
        return self.means[component] + own_products(self.factors, component, normal) * (self.dof / chi2).sqrt()

    def log_components(self, x: torch.Tensor) -> torch.Tensor:
        """Log of weight times density of each component at x: (n, d) -> (n, k)."""
        d = self.means.shape[1]
        kernel = -0.5 * (self.dof + d) * torch.log1p(squared_distances(x, self.means, self._inverses) / self.dof)
        log_det = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        norm = math.lgamma(0.5 * (self.dof + d)) - math.lgamma(0.5 * self.dof) - 0.5 * d * math.log(self.dof * math.pi)
        return self.log_weights + norm - log_det + kernel

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """Log of the normalised density at x: (n, d) -> (n,)."""
        return torch.logsumexp(self.log_components(x), -1)


class Ahead:
    """Proposals of one mixture for one energy, drawn and evaluated for some steps of n chains at once: they do not
    depend on where the chains are, and in a large batch a point costs a half of what it does in one step's."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._waiting: list[tuple[Chains, torch.Tensor]] = []

    def next(
        self, mixture: StudentMixture, energy: Energy, n: int, generator: torch.Generator
    ) -> tuple[Chains, torch.Tensor]:
        """Proposals for n chains, and their log densities (n,)."""
        if not self._waiting:
            drawn = Chains.init(energy, mixture.sample(self.steps * n, generator))
            log_q = mixture.log_density(drawn.x)
            self._waiting = [(drawn.rows(slice(k, k + n)), log_q[k : k + n]) for k in range(0, self.steps * n, n)]
        return self._waiting.pop()


@dataclass(frozen=True)
class Independence:
    """Proposals that do not depend on the present position, so that a chain can change wells in one move.

    A step costs one gradient a chain (the gradient serves the local move that follows). ahead : for chains of one
    number in one energy.
    """

    mixture: StudentMixture
    ahead: Ahead | None = None

    exact: ClassVar[bool] = True

    def step(
        self, energy: Energy, beta: Beta, state: Chains, generator: torch.Generator
    ) -> tuple[Chains, torch.Tensor]:
        """See `Kernel.step`."""
        ahead = self.ahead or Ahead(1)
        proposal, log_q_new = ahead.next(self.mixture, energy, len(state.x), generator)
        return metropolis(state, proposal, self.mixture.log_density(state.x) - log_q_new, beta, generator)

    def adapted(self, acceptance: torch.Tensor, step: int) -> Independence:
        return self

    def settled(self) -> Independence:
        return self

    def stabilised(self, curvature: StepSize) -> Independence:
        return self


def inverse_factors(factors: torch.Tensor) -> torch.Tensor:
    """Inverses of lower triangular matrices, (k, d, d)."""
    eye = torch.eye(factors.shape[-1], dtype=factors.dtype).expand_as(factors)
    return torch.linalg.solve_triangular(factors, eye, upper=False)


def own_products(matrices: torch.Tensor, component: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Each vector times the matrix of its component: (k, d, d), (n,), (n, d) -> (n, d)."""
    if len(vectors) * matrices[0].numel() <= BLOCK:
        return torch.bmm(matrices[component], vectors[:, :, None])[:, :, 0]
    out = torch.empty_like(vectors)
    for k in component.unique().tolist():
        out[component == k] = vectors[component == k] @ matrices[k].mT
    return out


def whitened(x: torch.Tensor, means: torch.Tensor, inverses: torch.Tensor) -> torch.Tensor:
    """L_k^-1 (x_n - mean_k) with inverses L_k^-1: (n, d), (k, d), (k, d, d) -> (k, d, n), in one product of matrices.

    It is taken from the middle of the means, so that rounding is that of distances between these in widths of the
    narrowest: |L_k^-1 (x_n - mean_k)|^2 is right to 1e-9 where one is a millionth of the distance.
    """
    middle = means.mean(0)
    at_means = torch.bmm(inverses, (means - middle)[:, :, None]).flatten(0, 1)
    return torch.addmm(at_means, inverses.flatten(0, 1), (x - middle).T, beta=-1).view(*means.shape, len(x))


def block_sizes(means: torch.Tensor) -> tuple[int, int]:
    """Points and components (k, d) that are worked on together: more points where there are few components."""
    points = max(LEAST_POINTS, BLOCK // means.numel())
    return points, max(1, BLOCK // (points * means.shape[1]))


def squared_distances(x: torch.Tensor, means: torch.Tensor, inverses: torch.Tensor) -> torch.Tensor:
    """|L_k^-1 (x_n - mean_k)|^2 with inverses L_k^-1: (n, d), (k, d), (k, d, d) -> (n, k)."""
    points, some = block_sizes(means)
    parts = [
        torch.cat([whitened(part, mean, inverse).square_().sum(1) for part in x.split(points)], 1)
        for mean, inverse in zip(means.split(some), inverses.split(some), strict=True)
    ]
    return torch.cat(parts).T


def harmonic_covariances(hessians: torch.Tensor, beta: float) -> torch.Tensor:
    """(beta |H|)^-1 with the eigenvalues of |H| floored at 1e-4 of the largest: (k, d, d) -> (k, d, d)."""
    values, vectors = torch.linalg.eigh(hessians)
    size = values.abs()
    floor = (FLAT * size.amax(1, keepdim=True)).clamp_min(torch.finfo(size.dtype).tiny ** 0.5)
    return torch.einsum("kij,kj,klj->kil", vectors, 1 / (beta * size.maximum(floor)), vectors)


def harmonic_mixture(
    minima: torch.Tensor,
    covariances: torch.Tensor,
    weights: torch.Tensor,
    *,
    inflation: float = 1.2,
    broad_weight: float = 0.1,
    floor_weight: float = 0.3,
    dof: int = 8,
) -> StudentMixture:
    """One component a well, its covariance times inflation^2, and a broad one over all of them.

    minima (k, d), covariances (k, d, d), weights (k,): of the wells, harmonic. A part floor_weight of the wells' share
    is spread evenly, so that a well is not starved by a poor harmonic weight. The broad component has the covariance
    of all wells taken together, evenly weighted.
    """
    if not (inflation > 0 and 0 < broad_weight < 1 and 0 < floor_weight <= 1 and dof >= 1):
        raise UsageError(
            "a mixture needs inflation > 0, 0 < broad_weight < 1, 0 < floor_weight <= 1 and dof >= 1, not "
            f"{inflation}, {broad_weight}, {floor_weight}, {dof}"
        )
    k = len(minima)
    share = (1 - floor_weight) * weights / weights.sum() + floor_weight / k
    center = minima.mean(0)
    spread = minima - center
    broad = covariances.mean(0) + spread.mT @ spread / k
    scale = inflation**2 * torch.cat([covariances, broad[None]])
    log_weights = torch.cat([(1 - broad_weight) * share, share.new_tensor([broad_weight])]).log()
    return StudentMixture(log_weights, torch.cat([minima, center[None]]), torch.linalg.cholesky(scale), int(dof))
