"""Decoder and likelihood: p(x_k | z_k) = N(decoder(z_k), diag(noise^2)), the noise learned, one a channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from nld_models.networks import StackedLinear, StackedMLP

DecoderKind = Literal["linear", "mlp"]
DECODERS: tuple[DecoderKind, ...] = ("linear", "mlp")


class GaussianDecoder(nn.Module):
    """Latent points (S, ..., d) to channel means (S, ..., c), and the log likelihood of observations.

    "linear": a z + b, as published. "mlp": one hidden tanh layer, for states whose means lie on no d-plane.
    """

    def __init__(
        self, generators: Sequence[torch.Generator], kind: DecoderKind, dim: int, n_channels: int, hidden: int
    ) -> None:
        super().__init__()
        self.mean: nn.Module = (
            StackedLinear(generators, dim, n_channels)
            if kind == "linear"
            else StackedMLP(generators, dim, hidden, n_channels)
        )
        self.log_noise = nn.Parameter(torch.zeros(len(generators), n_channels, dtype=torch.float64))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """(S, ..., d) -> (S, ..., c)."""
        flat = z.reshape(len(z), -1, z.shape[-1])
        return self.mean(flat).view(*z.shape[:-1], -1)

    def log_likelihood(self, x: torch.Tensor, mask: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """log p(x | z), the channels summed: (S, B, T, c), mask alike, (S, B, T, d) -> (S, B, T).

        Channels not observed are integrated out, which for independent noise means left out.
        """
        log_noise = self.log_noise[:, None, None, :]
        scaled = (x - self.decode(z)) * torch.exp(-log_noise)
        density = -0.5 * scaled.square() - log_noise - 0.5 * math.log(2 * math.pi)
        return (density * mask).sum(-1)
