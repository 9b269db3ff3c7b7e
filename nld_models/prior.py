"""Priors of the latent path. One observation is one time unit; D = 1 / (beta gamma).

| prior | equation | keeps |
|---|---|---|
| overdamped | dz = -gamma^-1 grad E dt + sqrt(2 D) dW | exp(-beta E) |
| rotated | dz = -(gamma^-1 + J) grad E dt + sqrt(2 D) dW, J constant and antisymmetric | exp(-beta E) |
| underdamped | dx = M^-1 p dt, dp = -grad E dt - gamma M^-1 p dt + sqrt(2 gamma / beta) dW | exp(-beta E), p Gaussian |
| nsde | dz = f(z) dt + sqrt(2 D) dW, f any network | nothing known |

The rotation keeps exp(-beta E) since its current J grad E exp(-beta E) has no divergence. gamma is one number a seed in
the first-order priors, since one for each coordinate would be undone by stretching that coordinate; gamma and M of the
underdamped prior are one number a coordinate, whose ratio no stretching changes. A state is z, or x and p side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from nld_models.model_config import ModelConfig
from nld_models.networks import StackedEnergy, StackedLinear

# log Z: a share of the proposal is broad, so that energy dug outside the data is seen; kernels sit on posterior draws.
BROAD_SHARE = 0.3
BROAD_SCALE = 2.0
N_KERNELS = 64


class Prior(nn.Module):
    """What all priors have. `state_dim` : coordinates of a state. `stationary` : its stationary density is known."""

    stationary = True
    energy: StackedEnergy  # of priors with one

    def __init__(self, generators: Sequence[torch.Generator], config: ModelConfig) -> None:
        super().__init__()
        self.dim = self.state_dim = config.latent_dim

    def diffusion(self, n_axes: int) -> torch.Tensor:
        """D with n_axes axes, (S, 1, ..., 1), or (S, 1, ..., d) if each coordinate has its own."""
        raise NotImplementedError

    def drift(self, z: torch.Tensor) -> torch.Tensor:
        """Drift of a first-order prior: (S, n, d) -> (S, n, d), in latent length a time unit."""
        raise NotImplementedError

    def log_density(self, state: torch.Tensor, log_z: torch.Tensor) -> torch.Tensor:
        """log of the density a path starts from: states (S, n, state_dim), log Z (S,) -> (S, n)."""
        raise NotImplementedError


class EnergyPrior(Prior):
    """A prior with energies E of S seeds, inverse temperatures, and log Z."""

    def __init__(self, generators: Sequence[torch.Generator], config: ModelConfig) -> None:
        super().__init__(generators, config)
        self.energy = StackedEnergy(generators, config.architecture, config.latent_dim, config.energy)
        self.log_beta = coefficient((len(generators),), config.beta, config.learns("beta"))

    def beta(self, n_axes: int) -> torch.Tensor:
        """beta as (S, 1, ..., 1) with n_axes axes."""
        return self.log_beta.exp().view(-1, *[1] * (n_axes - 1))

    def reduced_energy(self, z: torch.Tensor) -> torch.Tensor:
        """beta E: (S, n, d) -> (S, n)."""
        return self.beta(2) * self.energy(z)

    def log_density(self, state: torch.Tensor, log_z: torch.Tensor) -> torch.Tensor:
        return -self.reduced_energy(state) - log_z[:, None]

    def log_partition(self, draws: torch.Tensor, indices: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
        """log Z = log of the integral of exp(-beta E), (S,), by importance sampling around posterior draws.

        draws (S, m, d) : posterior samples without gradient. indices (S, N_KERNELS) : which of them carry a kernel.
        normals (S, n, d) : standard normal numbers. The proposal is

            r = (1 - a) mean_j N(draws_j, h^2 C) + a N(mean, (2 sd)^2),   a = BROAD_SHARE,

        C the diagonal of the draws' variances and h = N_KERNELS^(-1 / (d + 4)) (Scott's rule); the points are
        stratified between the two parts. log Z = logsumexp(-beta E(y) - log r(y)) - log n. For weights w its bias is
        -Var(w) / (2 n E[w]^2), which vanishes with n; its gradient is that of self-normalised importance sampling.
        """
        with torch.no_grad():
            y, log_r = self._proposal(draws, indices, normals)
        return torch.logsumexp(-self.reduced_energy(y) - log_r, 1) - math.log(y.shape[1])

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


class OverdampedPrior(EnergyPrior):
    """gamma = exp(-log_d) / beta_0, beta_0 the beta of the start: while beta stays, log_d is log D."""

    def __init__(self, generators: Sequence[torch.Generator], config: ModelConfig) -> None:
        super().__init__(generators, config)
        self.log_d = coefficient((len(generators),), config.initial_diffusion, config.learns("gamma"))
        self.log_beta_0 = math.log(config.beta)

    def diffusion(self, n_axes: int) -> torch.Tensor:
        return (self.log_d + self.log_beta_0 - self.log_beta).exp().view(-1, *[1] * (n_axes - 1))

    def mobility(self, n_axes: int) -> torch.Tensor:
        """gamma^-1 = beta D, (S, 1, ..., 1)."""
        return (self.log_d + self.log_beta_0).exp().view(-1, *[1] * (n_axes - 1))

    def drift(self, z: torch.Tensor) -> torch.Tensor:
        return -self.mobility(3) * self.energy.gradient(z)


class RotatedPrior(OverdampedPrior):
    """An overdamped prior with a learned rotation J, (S, d, d), 0 at the start."""

    def __init__(self, generators: Sequence[torch.Generator], config: ModelConfig) -> None:
        super().__init__(generators, config)
        d = config.latent_dim
        self.register_buffer("upper", torch.triu_indices(d, d, 1), persistent=False)
        self.upper: torch.Tensor
        self.entries = nn.Parameter(torch.zeros(len(generators), d * (d - 1) // 2, dtype=torch.float64))

    def rotation(self) -> torch.Tensor:
        """J, (S, d, d), antisymmetric."""
        half = self.entries.new_zeros(len(self.entries), self.dim, self.dim)
        half[:, self.upper[0], self.upper[1]] = self.entries
        return half - half.mT

    def drift(self, z: torch.Tensor) -> torch.Tensor:
        gradient = self.energy.gradient(z)
        return -self.mobility(3) * gradient - gradient @ self.rotation().mT


class UnderdampedPrior(EnergyPrior):
    """gamma and M are (S, d); a state is (x, p), and noise and control act on p alone."""

    def __init__(self, generators: Sequence[torch.Generator], config: ModelConfig) -> None:
        super().__init__(generators, config)
        shape = (len(generators), config.latent_dim)
        gamma = 1 / (config.beta * config.initial_diffusion)
        self.state_dim = 2 * config.latent_dim
        self.log_gamma = coefficient(shape, gamma, config.learns("gamma"))
        self.log_mass = coefficient(shape, gamma * config.momentum_time, config.learns("mass"))

    def gamma(self) -> torch.Tensor:
        """(S, 1, d)."""
        return self.log_gamma.exp()[:, None]

    def mass(self) -> torch.Tensor:
        """(S, 1, d)."""
        return self.log_mass.exp()[:, None]

    def diffusion(self, n_axes: int) -> torch.Tensor:
        found = torch.exp(-self.log_gamma - self.log_beta[:, None])
        return found.view(len(found), *[1] * (n_axes - 2), self.dim)

    def log_density(self, state: torch.Tensor, log_z: torch.Tensor) -> torch.Tensor:
        """-beta E(x) - log Z + log N(p; 0, M / beta)."""
        x, p = state.chunk(2, -1)
        log_variance = (self.log_mass - self.log_beta[:, None])[:, None]
        log_momentum = -0.5 * (p.square() * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi))
        return super().log_density(x, log_z) + log_momentum.sum(-1)


class FreePrior(Prior):
    """A neural SDE with a free drift; its paths start from a learned Gaussian."""

    stationary = False

    def __init__(self, generators: Sequence[torch.Generator], config: ModelConfig) -> None:
        super().__init__(generators, config)
        d, hidden = config.latent_dim, config.drift_hidden
        sizes = ((d, hidden), (hidden, hidden), (hidden, d))
        self.layers = nn.ModuleList(StackedLinear(generators, *size) for size in sizes)
        self.log_d = coefficient((len(generators),), config.initial_diffusion, config.learns("gamma"))
        self.start_mean = nn.Parameter(torch.zeros(len(generators), d, dtype=torch.float64))
        self.start_log_sd = nn.Parameter(torch.zeros(len(generators), d, dtype=torch.float64))

    def diffusion(self, n_axes: int) -> torch.Tensor:
        return self.log_d.exp().view(-1, *[1] * (n_axes - 1))

    def drift(self, z: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            z = torch.tanh(layer(z))
        return self.layers[-1](z)

    def log_density(self, state: torch.Tensor, log_z: torch.Tensor) -> torch.Tensor:
        """Of the learned Gaussian, which is normalised: log Z takes no part."""
        log_sd = self.start_log_sd[:, None]
        scaled = (state - self.start_mean[:, None]) * torch.exp(-log_sd)
        return (-0.5 * scaled.square() - log_sd - 0.5 * math.log(2 * math.pi)).sum(-1)


def coefficient(shape: Sequence[int], value: float, learned: bool) -> nn.Parameter:
    """The logarithm of a positive coefficient, equal everywhere at the start."""
    return nn.Parameter(torch.full(tuple(shape), math.log(value), dtype=torch.float64), requires_grad=learned)


def build_prior(generators: Sequence[torch.Generator], config: ModelConfig) -> Prior:
    kinds: dict[str, type[Prior]] = {
        "overdamped": OverdampedPrior, "underdamped": UnderdampedPrior, "rotated": RotatedPrior, "nsde": FreePrior
    }  # fmt: skip
    return kinds[config.prior](generators, config)
