"""The Langevin prior of the latent path: dz = -D grad E(z) dt + sqrt(2 D) dW, with D = 1 / gamma and beta = 1.

It keeps the density exp(-E(z)) / Z. beta is fixed at 1 (only beta E enters). D is one learned number a seed: a D for
each coordinate would be undone by stretching that coordinate, which decoder and energy can do themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nld_models.networks import StackedEnergy

# log Z: a share of the proposal is broad, so that energy dug outside the data is seen; kernels sit on posterior draws.
BROAD_SHARE = 0.3
BROAD_SCALE = 2.0
N_KERNELS = 64


class OverdampedPrior(nn.Module):
    """Energies, diffusion coefficient D = exp(log_d), drift and log Z of S seeds."""

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        architecture: str,
        dim: int,
        config: Mapping[str, Any],
        initial_d: float,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.energy = StackedEnergy(generators, architecture, dim, config)
        self.log_d = nn.Parameter(torch.full((len(generators),), math.log(initial_d), dtype=torch.float64))

    def diffusion(self, n_axes: int) -> torch.Tensor:
        """D as (S, 1, ..., 1) with n_axes axes, to broadcast."""
        return self.log_d.exp().view(-1, *[1] * (n_axes - 1))

    def drift(self, z: torch.Tensor) -> torch.Tensor:
        """f_prior = -D grad E: (S, n, d) -> (S, n, d), in latent length a time unit."""
        return -self.diffusion(3) * self.energy.gradient(z)

    def log_partition(self, draws: torch.Tensor, indices: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
        """log Z = log of the integral of exp(-E), (S,), by importance sampling around posterior draws.

        draws (S, m, d) : posterior samples without gradient. indices (S, N_KERNELS) : which of them carry a kernel.
        normals (S, n, d) : standard normal numbers. The proposal is

            r = (1 - a) mean_j N(draws_j, h^2 C) + a N(mean, (2 sd)^2),   a = BROAD_SHARE,

        C the diagonal of the draws' variances and h = N_KERNELS^(-1 / (d + 4)) (Scott's rule); the points are
        stratified between the two parts. log Z = logsumexp(-E(y) - log r(y)) - log n. For weights w its bias is
        -Var(w) / (2 n E[w]^2), which vanishes with n; its gradient is that of self-normalised importance sampling.
        """
        with torch.no_grad():
            y, log_r = self._proposal(draws, indices, normals)
        return torch.logsumexp(-self.energy(y) - log_r, 1) - math.log(y.shape[1])

    def _proposal(
        self, draws: torch.Tensor, indices: torch.Tensor, normals: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (S, n, d) of r and log r there (S, n)."""
        n, d = normals.shape[1:]
        centre, sd = draws.mean(1, keepdim=True), draws.std(1, keepdim=True)
        centers = draws.gather(1, indices.unsqueeze(-1).expand(-1, -1, d))
        n_broad = round(BROAD_SHARE * n)
        width = indices.shape[1] ** (-1 / (d + 4)) * sd
        chosen = torch.arange(n - n_broad, device=draws.device) % indices.shape[1]
        narrow = centers[:, chosen] + width * normals[:, n_broad:]
        y = torch.cat([centre + BROAD_SCALE * sd * normals[:, :n_broad], narrow], 1)
        kernels = torch.cdist(y / width, centers / width).square()
        log_narrow = torch.logsumexp(-0.5 * kernels, 2) - math.log(indices.shape[1]) - width.log().sum(-1)
        broad = ((y - centre) / (BROAD_SCALE * sd)).square().sum(-1)
        log_broad = -0.5 * broad - (BROAD_SCALE * sd).log().sum(-1)
        # The shares are those of the points drawn, which rounding may move a little from BROAD_SHARE.
        share = n_broad / n
        mixture = torch.logaddexp(math.log1p(-share) + log_narrow, math.log(share) + log_broad)
        return y, mixture - 0.5 * d * math.log(2 * math.pi)
