"""The simulated objective: posterior paths rolled out with the prior's drift plus a control, for every prior.

Let v be the control in units of the noise: of the noisy coordinates dz = (f + sigma v) dt + sigma dW. Girsanov's
theorem gives KL(path measures) = KL(initial) + 1/2 E integral |v|^2 dt. One step of length h, R standard normal:

    first order    z' = z + h (f(z) + sigma v) + sigma h^(1/2) R,                            sigma^2 = 2 D
    underdamped    p' = a p - (1 - a) (M / gamma) grad E(x) + s (h^(1/2) v + R),
                   x' = x + h p' / M,           a = exp(-gamma h / M), s^2 = (1 - a^2) M / beta

with the friction exact for a force held for a step, and positions moved by the new momentum (by the old one, a
posterior would answer an observation a step late). In both the control shifts the mean of a Gaussian step by
h^(1/2) v of its standard deviations, so h |v|^2 / 2 is the exact KL of the step: the ELBO is a bound for the stepped
model, at any h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nld_models.encoder import PathEncoder
from nld_models.matching import stack_draws
from nld_models.observation import GaussianDecoder
from nld_models.posterior import log_density
from nld_models.prior import Prior, UnderdampedPrior
from nld_models.stationary import StationaryNoise, stationary
from nld_models.windows import Batch

# v (S, B, d) of states (S, B, state_dim) in an interval, at a share of it.
Control = Callable[[torch.Tensor, int, float], torch.Tensor]


@dataclass(frozen=True)
class PathNoise(StationaryNoise):
    """The random numbers of one evaluation of the loss; slice k depends on generator k alone.

    start (S, B, state_dim), steps (S, (T - 1) substeps, B, d) : standard normal.
    """

    start: torch.Tensor
    steps: torch.Tensor

    @classmethod
    def draw(
        cls,
        generators: Sequence[torch.Generator],
        batch: int,
        n_steps: int,
        dim: int,
        state_dim: int,
        n: int,
        dtype: torch.dtype,
    ) -> PathNoise:
        return cls(
            start=stack_draws(torch.randn, generators, dtype, batch, state_dim),
            steps=stack_draws(torch.randn, generators, dtype, n_steps, batch, dim),
            picks=stack_draws(torch.rand, generators, dtype, n),
            partition=stack_draws(torch.randn, generators, dtype, n, dim),
        )


@dataclass(frozen=True)
class Paths:
    """states (S, B, T, state_dim) at the observations; kl (S, B, T - 1) of each interval, in nats."""

    states: torch.Tensor
    kl: torch.Tensor


Integrate = Callable[[Prior, Control, torch.Tensor, torch.Tensor, int, float | torch.Tensor | None], Paths]


def roll_out(
    prior: Prior,
    control: Control,
    start: torch.Tensor,
    normal: torch.Tensor,
    substeps: int,
    clip: float | torch.Tensor | None = None,
) -> Paths:
    """Posterior paths from start (S, B, state_dim), by steps of 1 / substeps with noise (S, n_steps, B, d).

    clip : largest norm of a sample's adjoint at an observation, a number or one a seed (S,); None for no limit.
    """
    # A copy, so that what else depends on the start is not clipped with the path.
    state, h = start.clone(), 1 / substeps
    step = stepper(prior, h)
    states, kls = [state], []
    for interval in range(normal.shape[1] // substeps):
        state = clip_adjoint(state, clip)
        squares = state.new_zeros(state.shape[:2])
        for j in range(substeps):
            v = control(state, interval, j * h)
            squares = squares + v.square().sum(-1)
            state = step(state, h**0.5 * v + normal[:, interval * substeps + j])
        states.append(state)
        kls.append(0.5 * h * squares)
    return Paths(torch.stack(states, 2), torch.stack(kls, 2))


def stepper(prior: Prior, h: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """(states (S, B, state_dim), shifted noise h^(1/2) v + R (S, B, d)) -> states one step later."""
    if not isinstance(prior, UnderdampedPrior):
        sd = (2 * h * prior.diffusion(3)).sqrt()
        return lambda z, shifted: z + h * prior.drift(z) + sd * shifted
    gamma, mass, beta = prior.gamma(), prior.mass(), prior.beta(3)
    decay = torch.exp(-h * gamma / mass)
    kick = -torch.expm1(-h * gamma / mass) * mass / gamma
    sd = (-torch.expm1(-2 * h * gamma / mass) * mass / beta).sqrt()

    def underdamped(state: torch.Tensor, shifted: torch.Tensor) -> torch.Tensor:
        x, p = state.chunk(2, -1)
        p = decay * p - kick * prior.energy.gradient(x) + sd * shifted
        return torch.cat([x + h * p / mass, p], -1)

    return underdamped


def clip_adjoint(state: torch.Tensor, clip: float | torch.Tensor | None) -> torch.Tensor:
    """States (S, B, state_dim), to be used from here on; each sample's gradient that comes back to them is limited."""
    if clip is None or not state.requires_grad:
        return state
    state.register_hook(lambda gradient: limited(gradient, clip))
    # An alias: the hook of a tensor also acts when a force is its derivative.
    return state.view_as(state)


def limited(gradient: torch.Tensor, clip: float | torch.Tensor) -> torch.Tensor:
    """Gradients (S, B, n), none longer than clip, a number or one a seed."""
    largest = torch.as_tensor(clip).to(gradient).reshape(-1, 1, 1)
    norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    return gradient * (largest / norm.clamp_min(1e-30)).clamp_max(1.0)


def posterior_control(encoder: PathEncoder, prior: Prior, contexts: torch.Tensor, x: torch.Tensor) -> Control:
    steering, scale = encoder.steering(contexts, x), (2 * prior.diffusion(3)).sqrt()
    return lambda state, interval, s: encoder.control(steering, state, interval, s, scale)


def simulated_terms(
    encoder: PathEncoder,
    decoder: GaussianDecoder,
    prior: Prior,
    batch: Batch,
    noise: PathNoise,
    substeps: int,
    adjoint_clip: float,
    integrate: Integrate = roll_out,
) -> dict[str, torch.Tensor]:
    """The terms of the loss of `model`, each (S,), in nats a frame.

    adjoint_clip : in units of the loss of one frame of one sequence, so that it does not depend on the batch.
    """
    contexts = encoder.contexts(batch.x, batch.mask)
    mean, log_sd = encoder.start(contexts, batch.x)
    start = mean + log_sd.exp() * noise.start
    n_frames = batch.frames.sum((1, 2)).to(start)
    control = posterior_control(encoder, prior, contexts, batch.x)
    paths = integrate(prior, control, start, noise.steps, substeps, adjoint_clip / n_frames)
    z = paths.states[..., : prior.dim]
    likelihood = (decoder.log_likelihood(batch.x, batch.mask, z) * batch.frames).sum((1, 2))
    found = stationary(prior, batch, paths.states, noise)
    # As in matching, the stationary density belongs to equilibrated frames alone, if there are any.
    first = (batch.equilibrated if prior.stationary else batch.frames)[:, :, 0]
    first = torch.where(first.any(1, keepdim=True), first, batch.frames[:, :, 0])
    gap = log_density(log_sd, noise.start) - prior.log_density(start, found.log_z)
    windows = batch.frames[:, :, 0].sum(1).to(start)
    return {
        "reconstruction": likelihood / n_frames,
        "path_kl": (paths.kl * batch.frames[:, :, 1:]).sum((1, 2)) / n_frames,
        "initial_kl": (gap * first).sum(1) / first.sum(1) * windows / n_frames,
        "stationarity": found.term,
    }


def posterior_paths(
    encoder: PathEncoder,
    prior: Prior,
    x: torch.Tensor,
    mask: torch.Tensor,
    substeps: int,
    generator: torch.Generator | None,
) -> torch.Tensor:
    """Positions (S, B, T, d) of one posterior path each; generator None : without any noise."""
    contexts = encoder.contexts(x, mask)
    mean, log_sd = encoder.start(contexts, x)
    n_steps, shape = (x.shape[2] - 1) * substeps, (len(x), x.shape[1], prior.dim)
    steps = mean.new_zeros(1, 1, 1, 1).expand(shape[0], n_steps, *shape[1:])
    if generator is not None:
        mean = mean + log_sd.exp() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        steps = torch.randn(shape[0], n_steps, *shape[1:], generator=generator, dtype=mean.dtype)
    control = posterior_control(encoder, prior, contexts, x)
    return roll_out(prior, control, mean, steps, substeps).states[..., : prior.dim]
