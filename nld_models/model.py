"""`LatentModel`: encoder, posterior, prior and decoder of S seeds, and the loss.

One family of models, which differ in the prior (see `prior`), trained by one of two objectives: simulation-free
matching (see `matching`) or simulated paths (see `simulated`). The negative ELBO a frame, for windows of sequences that
start at random times:

    loss = -reconstruction + kl_weight (path_kl + initial_kl) + stationarity_weight stationarity

    reconstruction = sum_k E_q log p(x_k | z_k) / frames
    path_kl        = 1/2 E integral |(f_post - f_prior) / sigma|^2 dt / frames
    initial_kl     = mean KL of a window's first state to the stationary density, windows / frames
    stationarity   = mean over frames of -log stationary density(state), states held fixed

The stationarity term is the cross-entropy of the prior's stationary density to the aggregated posterior: it moves the
energy and the mass only, and pulls the energy's weights to the time spent in each well. Both last terms leave out the
first `equilibration` of each sequence, which may remember how the recording began. A free drift has no known stationary
density: its paths start from a learned Gaussian, and its stationarity term is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from nld_models.encoder import PathEncoder, PosteriorEncoder
from nld_models.inertial import InertialEncoder
from nld_models.matching import MatchingNoise, encode, matching_terms
from nld_models.model_config import ModelConfig
from nld_models.observation import GaussianDecoder
from nld_models.prior import build_prior
from nld_models.simulated import PathNoise, posterior_paths, roll_out, simulated_terms
from nld_models.windows import Batch

Backend = Literal["own", "torchsde"]
BACKENDS: tuple[Backend, ...] = ("own", "torchsde")
N_DRAWS = 4  # posterior paths by which the spread of a simulated posterior is measured


@dataclass(frozen=True)
class Stepping:
    """How training rolls paths out: who integrates, and the largest adjoint, see `simulated`."""

    backend: Backend = "own"
    adjoint_clip: float = 100.0


class LatentModel(nn.Module):
    """A latent SDE of S seeds stacked; parameters have the seeds as first axis."""

    def __init__(
        self, config: ModelConfig, n_channels: int, mask_input: bool, seeds: Sequence[int], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.config, self.n_channels, self.mask_input, self.seeds = config, n_channels, mask_input, tuple(seeds)
        self.stepping = Stepping()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        d, units, direction = config.latent_dim, config.context, config.direction
        self.encoder: PosteriorEncoder | PathEncoder
        if config.objective == "matching":
            kind = InertialEncoder if config.prior == "underdamped" else PosteriorEncoder
            self.encoder = kind(generators, n_channels, d, units, mask_input, direction)
        else:
            state_dim = 2 * d if config.prior == "underdamped" else d
            self.encoder = PathEncoder(generators, n_channels, d, state_dim, units, mask_input, direction)
        self.decoder = GaussianDecoder(generators, config.decoder, d, n_channels, config.decoder_hidden, config.noise)
        self.prior = build_prior(generators, config)
        self.to(dtype)

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.skip.dtype

    @property
    def substeps(self) -> int:
        assert self.config.substeps is not None
        return self.config.substeps

    def draw_noise(
        self, generators: Sequence[torch.Generator], batch: int, time: int, n: int
    ) -> MatchingNoise | PathNoise:
        """The random numbers of one evaluation of `terms`: windows of `time` frames, n points for log Z."""
        d, state_dim = self.config.latent_dim, self.prior.state_dim
        if isinstance(self.encoder, PosteriorEncoder):
            return MatchingNoise.draw(generators, batch, time, d, state_dim, n, self.dtype)
        steps = (time - 1) * self.substeps
        return PathNoise.draw(generators, batch, steps, d, state_dim, n, self.dtype)

    def terms(self, batch: Batch, noise: MatchingNoise | PathNoise) -> dict[str, torch.Tensor]:
        """The terms of the loss at the top of this module, each (S,), in nats a frame."""
        if isinstance(self.encoder, PosteriorEncoder):
            assert isinstance(noise, MatchingNoise)
            return matching_terms(self.encoder, self.decoder, self.prior, batch, noise)
        assert isinstance(noise, PathNoise)
        integrate = roll_out
        if self.stepping.backend == "torchsde":
            from nld_models.sde import roll_out_torchsde as integrate
        return simulated_terms(
            self.encoder, self.decoder, self.prior, batch, noise, self.substeps, self.stepping.adjoint_clip, integrate
        )

    @torch.no_grad()
    def encode(self, x: torch.Tensor, mask: torch.Tensor, chunk: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and sd at every frame: (n, T, c), mask alike -> two of (S, n, T, d).

        Simulated posterior: the path without noise, and the root mean square distance of four paths from it.
        """
        generator = torch.Generator().manual_seed(0)
        means, sds = [], []
        for part, seen in self._stacked(x, mask, chunk):
            if isinstance(self.encoder, PosteriorEncoder):
                mean, sd = encode(self.encoder, part, seen)
            else:
                mean = self._path(part, seen, None)
                draws = [self._path(part, seen, generator) for _ in range(N_DRAWS)]
                sd = torch.stack([(draw - mean).square() for draw in draws]).mean(0).sqrt()
            means.append(mean)
            sds.append(sd)
        return torch.cat(means, 1), torch.cat(sds, 1)

    @torch.no_grad()
    def draw(self, x: torch.Tensor, mask: torch.Tensor, generator: torch.Generator, chunk: int = 500) -> torch.Tensor:
        """One posterior sample of the positions at every frame: (n, T, c), mask alike -> (S, n, T, d).

        Matching knows the marginals alone, so its samples are independent between frames; simulated ones are a path.
        """
        drawn = []
        for part, seen in self._stacked(x, mask, chunk):
            if isinstance(self.encoder, PosteriorEncoder):
                mean, sd = encode(self.encoder, part, seen)
                drawn.append(mean + sd * torch.randn(mean.shape, generator=generator, dtype=mean.dtype))
            else:
                drawn.append(self._path(part, seen, generator))
        return torch.cat(drawn, 1)

    def _stacked(self, x: torch.Tensor, mask: torch.Tensor, chunk: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Chunks of the sequences, the same for every seed."""
        pairs = zip(x.to(self.dtype).split(chunk), mask.split(chunk), strict=True)
        return [(part.expand(len(self.seeds), *part.shape), seen.expand(len(self.seeds), *seen.shape))
                for part, seen in pairs]  # fmt: skip

    def _path(self, x: torch.Tensor, mask: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        assert isinstance(self.encoder, PathEncoder)
        return posterior_paths(self.encoder, self.prior, x, mask, self.substeps, generator)


def total_loss(terms: Mapping[str, torch.Tensor], kl_weight: float, stationarity_weight: float) -> torch.Tensor:
    """The loss (S,) from its terms."""
    kl = terms["path_kl"] + terms["initial_kl"]
    return -terms["reconstruction"] + kl_weight * kl + stationarity_weight * terms["stationarity"]
