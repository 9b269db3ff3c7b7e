"""From observations to Gaussian marginals of the latent path, q(z_t | x) = N(mu(t), sigma(t)^2).

One observation is one time unit. Node k (t = k) has its mean and sd from the context c_k, which a GRU makes of
x_0..x_k: online. To the mean a linear map of x_k is added, which starts as the slow coordinates of the data. Inside the
interval from k to k + 1, at t = k + s,

    m(s) = (1 - s) m_k + s m_{k+1} + s (1 - s) b(c_k, c_{k+1}, s),       m = (mu, log sigma),

with an MLP b. So mu and sigma are smooth inside intervals, continuous across nodes, and known with their time
derivatives in closed form. A jump between two observations is the bubble b's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nld_models.networks import StackedLinear, StackedMLP, uniform


@dataclass(frozen=True)
class Marginals:
    """Means and log standard deviations of independent Gaussians, and their time derivatives; all (S, ..., d)."""

    mean: torch.Tensor
    log_sd: torch.Tensor
    mean_rate: torch.Tensor
    log_sd_rate: torch.Tensor

    @property
    def sd(self) -> torch.Tensor:
        return self.log_sd.exp()


class GRUContext(nn.Module):
    """Gated recurrent unit (Cho et al. 2014) over time: (S, B, T, n_in) -> contexts (S, B, T, H); c_k sees x_0..x_k.

    One batched product a time step serves all seeds: half the time of S calls of torch's own GRU at H = 48.
    """

    def __init__(self, generators: Sequence[torch.Generator], n_in: int, n_hidden: int) -> None:
        super().__init__()
        self.n_hidden = n_hidden
        self.input = StackedLinear(generators, n_in, 3 * n_hidden)
        self.recurrent = StackedLinear(generators, n_hidden, 3 * n_hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seeds, batch, time, _ = x.shape
        flat = x.transpose(1, 2).reshape(seeds, time * batch, -1)
        inputs = self.input(flat).view(seeds, time, batch, -1).unbind(1)
        h = x.new_zeros(seeds, batch, self.n_hidden)
        contexts = []
        for here in inputs:
            old = self.recurrent(h)
            split = 2 * self.n_hidden
            reset, update = torch.sigmoid(here[..., :split] + old[..., :split]).chunk(2, -1)
            candidate = torch.tanh(torch.addcmul(here[..., split:], reset, old[..., split:]))
            h = torch.lerp(candidate, h, update)
            contexts.append(h)
        return torch.stack(contexts, 2)


class PosteriorEncoder(nn.Module):
    """Observations (S, B, T, c) -> contexts, node marginals, marginals at any time inside the intervals.

    mask_input : the GRU also sees which values were observed (needed when some are missing).
    """

    def __init__(
        self, generators: Sequence[torch.Generator], n_channels: int, dim: int, n_context: int, mask_input: bool
    ) -> None:
        super().__init__()
        self.dim, self.mask_input = dim, mask_input
        self.context = GRUContext(generators, n_channels * (2 if mask_input else 1), n_context)
        self.node = StackedMLP(generators, n_context, n_context, 2 * dim, gain=0.1)
        self.skip = nn.Parameter(torch.zeros(len(generators), n_channels, dim, dtype=torch.float64))
        self.left = StackedLinear(generators, n_context, n_context)
        self.right = StackedLinear(generators, n_context, n_context)
        self.clock = uniform(generators, (1, 1, n_context), 1.0)
        self.bubble = StackedLinear(generators, n_context, 2 * dim, gain=0.1)

    def contexts(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(S, B, T, c), mask alike -> (S, B, T, H). Values not observed must be 0."""
        return self.context(torch.cat([x, mask.to(x)], -1) if self.mask_input else x)

    @torch.no_grad()
    def start_from(self, coordinates: torch.Tensor) -> None:
        """Let the means start as linear coordinates (c, m) of each observation, m <= d; the others as they are."""
        self.skip[:, :, : coordinates.shape[1]] = coordinates.to(self.skip)

    def nodes(self, contexts: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """(S, B, T, H), (S, B, T, c) -> (S, B, T, 2 d): mean and log sd at the observations."""
        seeds, batch, time, _ = contexts.shape
        rows = (seeds, batch * time, -1)
        out = self.node(contexts.reshape(rows)).view(seeds, batch, time, -1)
        linear = torch.bmm(x.reshape(rows), self.skip).view(seeds, batch, time, -1)
        # Start narrow against the unit scale of the latent space: exp(-1.5) = .22.
        return torch.cat([out[..., : self.dim] + linear, out[..., self.dim :] - 1.5], -1)

    def between(self, contexts: torch.Tensor, nodes: torch.Tensor, s: torch.Tensor) -> Marginals:
        """Marginals at times k + s, s (S, B, T - 1) in (0, 1), one in each interval; derivatives by time."""
        seeds, batch, time, _ = contexts.shape
        flat = contexts.reshape(seeds, batch * time, -1)
        left = self.left(flat).view(seeds, batch, time, -1)[:, :, :-1]
        right = self.right(flat).view(seeds, batch, time, -1)[:, :, 1:]
        s = s.unsqueeze(-1)
        hidden = torch.tanh(left + right + s * self.clock)
        rows = (seeds, batch * (time - 1), -1)
        bubble = self.bubble(hidden.reshape(rows)).view(seeds, batch, time - 1, -1)
        slope = ((1 - hidden.square()) * self.clock).reshape(rows)
        bubble_rate = torch.bmm(slope, self.bubble.weight).view_as(bubble)
        start, end = nodes[:, :, :-1], nodes[:, :, 1:]
        value = torch.lerp(start, end, s) + s * (1 - s) * bubble
        rate = end - start + (1 - 2 * s) * bubble + s * (1 - s) * bubble_rate
        d = self.dim
        return Marginals(value[..., :d], value[..., d:], rate[..., :d], rate[..., d:])
