"""The simulation-free objective (SDE matching); see `posterior` for its equations, and `inertial` for those of the
underdamped prior.

The drift of the prior is all that differs between priors. A window may start at any frame of an equilibrated sequence,
so with a stationary prior its first point has the density exp(-beta E) / Z, and its KL is averaged over all possible
starts; with a free drift it is the KL of the window's first point to a learned Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nld_models.encoder import PosteriorEncoder
from nld_models.inertial import InertialEncoder, posterior_acceleration, sample_state
from nld_models.observation import GaussianDecoder
from nld_models.posterior import log_density, path_kl_rate, posterior_drift, sample
from nld_models.prior import Prior, UnderdampedPrior
from nld_models.stationary import StationaryNoise, at_rows, stationary
from nld_models.windows import Batch


@dataclass(frozen=True)
class MatchingNoise(StationaryNoise):
    """The random numbers of one evaluation of the loss; slice k depends on generator k alone.

    nodes (S, B, T, state_dim), between (S, B, T - 1, state_dim) : standard normal. times (S, B, T - 1) : uniform in
    [0, 1).
    """

    nodes: torch.Tensor
    between: torch.Tensor
    times: torch.Tensor

    @classmethod
    def draw(
        cls,
        generators: Sequence[torch.Generator],
        batch: int,
        time: int,
        dim: int,
        state_dim: int,
        n: int,
        dtype: torch.dtype,
    ) -> MatchingNoise:
        return cls(
            nodes=stack_draws(torch.randn, generators, dtype, batch, time, state_dim),
            between=stack_draws(torch.randn, generators, dtype, batch, time - 1, state_dim),
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
    process = inertial_process if isinstance(prior, UnderdampedPrior) else first_order_process
    states, log_sd, path = process(encoder, prior, contexts, nodes, noise)
    z = states[..., : prior.dim]
    n_frames = batch.frames.sum((1, 2)).to(z)
    likelihood = (decoder.log_likelihood(batch.x, batch.mask, z) * batch.frames).sum((1, 2))
    found = stationary(prior, batch, states, noise)
    windows = batch.frames[:, :, 0].sum(1).to(z)

    def picked(values: torch.Tensor) -> torch.Tensor:
        return at_rows(values, found.rows) if prior.stationary else values[:, :, 0]

    log_posterior = log_density(picked(log_sd), picked(noise.nodes))
    initial = (log_posterior - prior.log_density(picked(states), found.log_z)).mean(1)
    return {
        "reconstruction": likelihood / n_frames,
        "path_kl": (path * batch.frames[:, :, 1:]).sum((1, 2)) / n_frames,
        "initial_kl": initial * windows / n_frames,
        "stationarity": found.term,
    }


def first_order_process(
    encoder: PosteriorEncoder, prior: Prior, contexts: torch.Tensor, nodes: torch.Tensor, noise: MatchingNoise
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States at the nodes and the log sds of their Gaussians, (S, B, T, d) each; path KL of intervals (S, B, T - 1)."""
    mean, log_sd = nodes.chunk(2, -1)
    between = encoder.between(contexts, nodes, noise.times)
    inside = sample(between, noise.between)
    diffusion = prior.diffusion(4)
    drift = prior.drift(inside.flatten(1, 2)).view_as(inside)
    path = path_kl_rate(posterior_drift(between, noise.between, diffusion), drift, diffusion)
    return mean + log_sd.exp() * noise.nodes, log_sd, path


def inertial_process(
    encoder: PosteriorEncoder, prior: Prior, contexts: torch.Tensor, nodes: torch.Tensor, noise: MatchingNoise
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same for an underdamped prior, whose states are positions and momenta: (S, B, T, 2 d)."""
    assert isinstance(prior, UnderdampedPrior) and isinstance(encoder, InertialEncoder)
    mass, collision_rate = prior.mass()[:, None], (prior.gamma() / prior.mass())[:, None]
    speed = (prior.beta(4) * mass).rsqrt()
    here = encoder.at_nodes(nodes)
    x, velocity = sample_state(here, noise.nodes, speed)
    log_sd = torch.cat([here.log_sd, here.log_spread + (mass * speed).log()], -1)
    between = encoder.between(contexts, nodes, noise.times)
    inside, moving = sample_state(between, noise.between, speed)
    force = -prior.energy.gradient(inside.flatten(1, 2)).view_as(inside)
    path = path_kl_rate(
        posterior_acceleration(between, noise.between, speed, collision_rate),
        force / mass - collision_rate * moving,
        collision_rate * speed.square(),
    )
    return torch.cat([x, mass * velocity], -1), log_sd, path


def encode(encoder: PosteriorEncoder, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior means and standard deviations at the observations: (S, B, T, c), mask alike -> two of (S, B, T, d)."""
    nodes = encoder.nodes(encoder.contexts(x, mask), x)
    return nodes[..., : encoder.dim], nodes[..., encoder.dim : 2 * encoder.dim].exp()
