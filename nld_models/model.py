"""`OverdampedNLD`: encoder, posterior, prior and decoder of S seeds, and the matching objective.

The negative ELBO a frame, for windows of sequences that start at random times:

    loss = -reconstruction + kl_weight (path_kl + initial_kl) + stationarity_weight stationarity

    reconstruction = sum_k E_q log p(x_k | z_k) / frames
    path_kl        = sum over intervals of E |f_post - f_prior|^2 / (4 D) / frames     (see `posterior`)
    initial_kl     = (mean over frames of E_q [log q(z) + E(z)] + log Z) windows / frames
    stationarity   = mean over frames of E(z) + log Z, z held fixed

A window may start at any frame of an equilibrated sequence, so its first point has the prior density exp(-E) / Z and
its KL is averaged over all possible starts. The stationarity term is the cross-entropy of exp(-E) / Z to the aggregated
posterior: it moves the energy only, and pulls its weights to the time spent in each well. Both leave out the first
`equilibration` of each sequence, which may remember how the recording began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from landscape.energy.architectures import build
from landscape.errors import EnergyError
from nld_models.encoder import PosteriorEncoder
from nld_models.errors import ConfigError
from nld_models.observation import DECODERS, DecoderKind, GaussianDecoder
from nld_models.posterior import log_density, path_kl_rate, posterior_drift, sample
from nld_models.prior import N_KERNELS, OverdampedPrior


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a model.

    latent_dim : d. architecture, energy : name and config (without dim) of the energy network, see
    `landscape.energy.architectures`. decoder : "mlp" or "linear"; decoder_hidden : its hidden units. context : units
    of the GRU and of the posterior's networks. initial_diffusion : D at the start, in latent length^2 a frame (a
    prototype found no wells from 4).
    """

    latent_dim: int = 2
    architecture: str = "mlp"
    energy: Mapping[str, Any] = field(
        default_factory=lambda: {"hidden": [64, 64], "activation": "tanh", "confinement": 0.1}
    )
    decoder: DecoderKind = "mlp"
    decoder_hidden: int = 32
    context: int = 48
    initial_diffusion: float = 0.5

    def __post_init__(self) -> None:
        for name in ("latent_dim", "decoder_hidden", "context"):
            check_count(name, getattr(self, name))
        if self.decoder not in DECODERS:
            raise ConfigError(f"decoder is one of {', '.join(DECODERS)}, not {self.decoder!r}")
        check_positive("initial_diffusion", self.initial_diffusion)
        if not isinstance(self.energy, Mapping) or "dim" in self.energy:
            raise ConfigError(f"energy is a table without dim (latent_dim gives it), not {self.energy!r}")
        object.__setattr__(self, "energy", MappingProxyType(dict(self.energy)))
        try:
            with torch.random.fork_rng(devices=[]):
                build(self.architecture, {"dim": self.latent_dim, **self.energy})
        except EnergyError as error:
            raise ConfigError(str(error)) from None

    def as_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"energy": dict(self.energy)}


@dataclass(frozen=True)
class Batch:
    """Windows of observations for S seeds.

    x, mask : (S, B, T, c), x is 0 where mask is False. frames : (S, B, T) bool, False beyond a sequence's end.
    equilibrated : (S, B, T) bool, the frames that the stationarity term and the initial KL may use.
    """

    x: torch.Tensor
    mask: torch.Tensor
    frames: torch.Tensor
    equilibrated: torch.Tensor


@dataclass(frozen=True)
class Noise:
    """The random numbers of one evaluation of the loss; slice k depends on generator k alone.

    nodes (S, B, T, d), between (S, B, T - 1, d), partition (S, n, d) : standard normal. times (S, B, T - 1), picks
    (S, n) : uniform in [0, 1).
    """

    nodes: torch.Tensor
    between: torch.Tensor
    times: torch.Tensor
    picks: torch.Tensor
    partition: torch.Tensor

    @classmethod
    def draw(
        cls, generators: Sequence[torch.Generator], batch: int, time: int, dim: int, n: int, dtype: torch.dtype
    ) -> Noise:
        def stack(function: Any, *shape: int) -> torch.Tensor:
            return torch.stack([function(*shape, generator=generator, dtype=dtype) for generator in generators])

        return cls(
            nodes=stack(torch.randn, batch, time, dim),
            between=stack(torch.randn, batch, time - 1, dim),
            times=stack(torch.rand, batch, time - 1),
            picks=stack(torch.rand, n),
            partition=stack(torch.randn, n, dim),
        )


class OverdampedNLD(nn.Module):
    """Neural Langevin Dynamics with an overdamped prior, S seeds stacked; parameters have the seeds as first axis."""

    def __init__(
        self, config: ModelConfig, n_channels: int, mask_input: bool, seeds: Sequence[int], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.config, self.n_channels, self.mask_input, self.seeds = config, n_channels, mask_input, tuple(seeds)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        d = config.latent_dim
        self.encoder = PosteriorEncoder(generators, n_channels, d, config.context, mask_input)
        self.decoder = GaussianDecoder(generators, config.decoder, d, n_channels, config.decoder_hidden)
        self.prior = OverdampedPrior(generators, config.architecture, d, config.energy, config.initial_diffusion)
        self.to(dtype)

    @property
    def dtype(self) -> torch.dtype:
        return self.prior.log_d.dtype

    def terms(self, batch: Batch, noise: Noise) -> dict[str, torch.Tensor]:
        """The terms of the loss at the top of this module, each (S,), in nats a frame."""
        encoder, prior = self.encoder, self.prior
        contexts = encoder.contexts(batch.x, batch.mask)
        nodes = encoder.nodes(contexts, batch.x)
        d = self.config.latent_dim
        mean, log_sd = nodes[..., :d], nodes[..., d:]
        z = mean + log_sd.exp() * noise.nodes
        n_frames = batch.frames.sum((1, 2)).to(z)
        likelihood = (self.decoder.log_likelihood(batch.x, batch.mask, z) * batch.frames).sum((1, 2))
        between = encoder.between(contexts, nodes, noise.times)
        inside = sample(between, noise.between)
        diffusion = prior.diffusion(4)
        drift = prior.drift(inside.flatten(1, 2)).view_as(inside)
        path = path_kl_rate(posterior_drift(between, noise.between, diffusion), drift, diffusion)
        intervals = batch.frames[:, :, 1:]
        entropy_term, energy, fixed, log_z = self._stationary(batch, z, log_sd, noise)
        windows = batch.frames[:, :, 0].sum(1).to(z)
        return {
            "reconstruction": likelihood / n_frames,
            "path_kl": (path * intervals).sum((1, 2)) / n_frames,
            "initial_kl": (entropy_term + energy + log_z) * windows / n_frames,
            "stationarity": fixed + log_z,
        }

    def _stationary(
        self, batch: Batch, z: torch.Tensor, log_sd: torch.Tensor, noise: Noise
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Means (S,) over drawn frames of log q(z), of E(z), of E at the same z held fixed; and log Z."""
        rows = pick_frames(batch, noise.picks).unsqueeze(-1).expand(-1, -1, z.shape[-1])

        def pick(values: torch.Tensor) -> torch.Tensor:
            return values.flatten(1, 2).gather(1, rows)

        drawn = pick(z)
        entropy_term = log_density(pick(log_sd), pick(noise.nodes)).mean(1)
        fixed = drawn.detach()
        # The picks are in random order, so the first ones are a random choice.
        kernels = torch.arange(min(N_KERNELS, fixed.shape[1])).expand(len(z), -1)
        log_z = self.prior.log_partition(fixed, kernels, noise.partition)
        return entropy_term, self.prior.energy(drawn).mean(1), self.prior.energy(fixed).mean(1), log_z

    @torch.no_grad()
    def encode(self, x: torch.Tensor, mask: torch.Tensor, chunk: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and sd at every frame, online: (n, T, c), mask alike -> two of (S, n, T, d)."""
        means, sds = [], []
        for part, seen in zip(x.to(self.dtype).split(chunk), mask.split(chunk), strict=True):
            stacked = part.expand(len(self.seeds), *part.shape)
            nodes = self.encoder.nodes(self.encoder.contexts(stacked, seen.expand(stacked.shape)), stacked)
            mean, log_sd = nodes.chunk(2, -1)
            means.append(mean)
            sds.append(log_sd.exp())
        return torch.cat(means, 1), torch.cat(sds, 1)


def total_loss(terms: Mapping[str, torch.Tensor], kl_weight: float, stationarity_weight: float) -> torch.Tensor:
    """The loss (S,) from its terms."""
    kl = terms["path_kl"] + terms["initial_kl"]
    return -terms["reconstruction"] + kl_weight * kl + stationarity_weight * terms["stationarity"]


def pick_frames(batch: Batch, picks: torch.Tensor) -> torch.Tensor:
    """Flat positions (S, n) in (B, T) of equilibrated frames, uniform for uniform picks; any frame if there is none."""
    rows = []
    for k in range(len(picks)):
        allowed = torch.nonzero(batch.equilibrated[k].flatten())[:, 0]
        if not len(allowed):
            allowed = torch.nonzero(batch.frames[k].flatten())[:, 0]
        rows.append(allowed[(picks[k] * len(allowed)).long().clamp_max(len(allowed) - 1)])
    return torch.stack(rows)


def check_count(name: str, value: Any, minimum: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigError(f"{name} is a whole number of at least {minimum}, not {value!r}")


def check_positive(name: str, value: Any, zero: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0 < value < float("inf") or (zero and value == 0)):
        raise ConfigError(f"{name} is a finite number above 0{' or 0' if zero else ''}, not {value!r}")
