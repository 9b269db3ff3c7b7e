"""The simulation-free objective (SDE matching), for first-order priors; see `posterior` for its equations.

The drift of the prior is all that differs between priors. A window may start at any frame of an equilibrated sequence,
so with a stationary prior its first point has the density exp(-beta E) / Z, and its KL is averaged over all possible
starts; with a free drift it is the KL of the window's first point to a learned Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nld_models.encoder import PosteriorEncoder
from nld_models.observation import GaussianDecoder
from nld_models.posterior import log_density, path_kl_rate, posterior_drift, sample
from nld_models.prior import Prior
from nld_models.stationary import StationaryNoise, at_rows, stationary
from nld_models.windows import Batch


@dataclass(frozen=True)
class MatchingNoise(StationaryNoise):
    """The random numbers of one evaluation of the loss; slice k depends on generator k alone.

    nodes (S, B, T, d), between (S, B, T - 1, d) : standard normal. times (S, B, T - 1) : uniform in [0, 1).
    """

    nodes: torch.Tensor
    between: torch.Tensor
    times: torch.Tensor

    @classmethod
    def draw(
        cls, generators: Sequence[torch.Generator], batch: int, time: int, dim: int, n: int, dtype: torch.dtype
    ) -> MatchingNoise:
        return cls(
            nodes=stack_draws(torch.randn, generators, dtype, batch, time, dim),
            between=stack_draws(torch.randn, generators, dtype, batch, time - 1, dim),
            times=stack_draws(torch.rand, generators, dtype, batch, time - 1),
            picks=stack_draws(torch.rand, generators, dtype, n),
            partition=stack_draws(torch.randn, generators, dtype, n, dim),
        )


def stack_draws(
    function: Callable[..., torch.Tensor], generators: Sequence[torch.Generator], dtype: torch.dtype, *shape: int
) -> torch.Tensor:
    """(S, *shape) : slice k from generator k."""
    return torch.stack([function(*shape, generator=generator, dtype=dtype) for generator in generators])


def matching_terms(
    encoder: PosteriorEncoder, decoder: GaussianDecoder, prior: Prior, batch: Batch, noise: MatchingNoise
) -> dict[str, torch.Tensor]:
    """The terms of the loss of `model`, each (S,), in nats a frame."""
    contexts = encoder.contexts(batch.x, batch.mask)
    nodes = encoder.nodes(contexts, batch.x)
    mean, log_sd = nodes.chunk(2, -1)
    z = mean + log_sd.exp() * noise.nodes
    n_frames = batch.frames.sum((1, 2)).to(z)
    likelihood = (decoder.log_likelihood(batch.x, batch.mask, z) * batch.frames).sum((1, 2))
    between = encoder.between(contexts, nodes, noise.times)
    inside = sample(between, noise.between)
    diffusion = prior.diffusion(4)
    drift = prior.drift(inside.flatten(1, 2)).view_as(inside)
    path = path_kl_rate(posterior_drift(between, noise.between, diffusion), drift, diffusion)
    found = stationary(prior, batch, z, noise)
    windows = batch.frames[:, :, 0].sum(1).to(z)

    def picked(values: torch.Tensor) -> torch.Tensor:
        return at_rows(values, found.rows) if prior.stationary else values[:, :, 0]

    log_posterior = log_density(picked(log_sd), picked(noise.nodes))
    initial = (log_posterior - prior.log_density(picked(z), found.log_z)).mean(1)
    return {
        "reconstruction": likelihood / n_frames,
        "path_kl": (path * batch.frames[:, :, 1:]).sum((1, 2)) / n_frames,
        "initial_kl": initial * windows / n_frames,
        "stationarity": found.term,
    }


def encode(encoder: PosteriorEncoder, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior means and standard deviations at the observations: (S, B, T, c), mask alike -> two of (S, B, T, d)."""
    mean, log_sd = encoder.nodes(encoder.contexts(x, mask), x).chunk(2, -1)
    return mean, log_sd.exp()
