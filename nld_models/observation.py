"""Decoder and likelihood: p(x_k | z_k) = N(decoder(z_k), diag(noise^2)), the noise learned: one number a channel, or
one that depends on the latent point, for states that differ in their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from nld_models.networks import StackedLinear, StackedMLP

DecoderKind = Literal["linear", "mlp"]
NoiseKind = Literal["constant", "state"]
DECODERS: tuple[DecoderKind, ...] = ("linear", "mlp")
NOISES: tuple[NoiseKind, ...] = ("constant", "state")
LARGEST_CHANGE = 2.0  # of a log noise with the latent point: no channel's noise can vanish on a few points


class GaussianDecoder(nn.Module):
    """Latent points (S, ..., d) to channel means (S, ..., c), and the log likelihood of observations.

    "linear": a z + b, as published. "mlp": one hidden tanh layer, for states whose means lie on no d-plane.
    noise "state": log noise = one number a channel + 2 tanh(MLP(z)), for states with covariances of their own.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        kind: DecoderKind,
        dim: int,
        n_channels: int,
        hidden: int,
        noise: NoiseKind = "constant",
    ) -> None:
        super().__init__()
        self.mean: nn.Module = (
            StackedLinear(generators, dim, n_channels)
            if kind == "linear"
            else StackedMLP(generators, dim, hidden, n_channels)
        )
        self.log_noise = nn.Parameter(torch.zeros(len(generators), n_channels, dtype=torch.float64))
        self.spread = StackedMLP(generators, dim, hidden, n_channels, gain=0.1) if noise == "state" else None

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """(S, ..., d) -> (S, ..., c)."""
        return _pointwise(self.mean, z)

    def noise(self, z: torch.Tensor) -> torch.Tensor:
        """Log noise, (S, ..., d) -> (S, ..., c), or (S, 1, ..., c) where it is constant."""
        constant = self.log_noise.view(len(z), *[1] * (z.ndim - 2), -1)
        return constant if self.spread is None else constant + LARGEST_CHANGE * torch.tanh(_pointwise(self.spread, z))

    def log_likelihood(self, x: torch.Tensor, mask: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """log p(x | z), the channels summed: (S, B, T, c), mask alike, (S, B, T, d) -> (S, B, T).

        Channels not observed are integrated out, which for independent noise means left out.
        """
        log_noise = self.noise(z)
        scaled = (x - self.decode(z)) * torch.exp(-log_noise)
        density = -0.5 * scaled.square() - log_noise - 0.5 * math.log(2 * math.pi)
        return (density * mask).sum(-1)


def _pointwise(network: nn.Module, z: torch.Tensor) -> torch.Tensor:
    """A network of (S, n, d) applied to (S, ..., d)."""
    return network(z.reshape(len(z), -1, z.shape[-1])).view(*z.shape[:-1], -1)
