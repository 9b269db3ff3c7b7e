"""From observations to the posterior of the latent path: its Gaussian marginals (matching), or its control (simulated).

One observation is one time unit. A GRU makes the context c_k of x_0..x_k: online; or of x_T..x_k: reversed. Networks
alone, without any SDE.

Marginals q(z_t | x) = N(mu(t), sigma(t)^2): node k (t = k) has its mean and sd from the context c_k. To the mean a
linear map of x_k is added, which starts as the slow coordinates of the data. Inside the interval from k to k + 1, at
t = k + s,

    m(s) = (1 - s) m_k + s m_{k+1} + s (1 - s) b(c_k, c_{k+1}, s),       m = (mu, log sigma),

with an MLP b. So mu and sigma are smooth inside intervals, continuous across nodes, and known with their time
derivatives in closed form. A jump between two observations is the bubble b's work. (Underdamped paths
need one derivative more, see `inertial`.)

Control: from k to k + 1, at t = k + s, a pull to a target of c_{k+1} and x_{k+1}, plus an MLP of the state, c_{k+1}
and s. So the state at observation k has seen x_k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from nld_models.networks import StackedLinear, StackedMLP, uniform

Direction = Literal["online", "reversed"]
DIRECTIONS: tuple[Direction, ...] = ("online", "reversed")
START_LOG_SD = -1.5  # narrow against the unit scale of the latent space: exp(-1.5) = .22
START_PULL = 2.0  # of the control to its target, a time unit: it starts as a posterior that follows the data


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
    """Gated recurrent unit (Cho et al. 2014) over time: (S, B, T, n_in) -> contexts (S, B, T, H); c_k sees x_0..x_k,
    or x_T..x_k if reversed.

    One batched product a time step serves all seeds: half the time of S calls of torch's own GRU at H = 48.
    """

    def __init__(
        self, generators: Sequence[torch.Generator], n_in: int, n_hidden: int, direction: Direction = "online"
    ) -> None:
        super().__init__()
        self.n_hidden, self.direction = n_hidden, direction
        self.input = StackedLinear(generators, n_in, 3 * n_hidden)
        self.recurrent = StackedLinear(generators, n_hidden, 3 * n_hidden)

    def forward(self, x: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        """observed (S, B, T) bool : the frames with any value. In reverse, those after the last count as absent."""
        if self.direction == "reversed":
            return self._read(x.flip(2), observed.flip(2).cummax(2).values).flip(2)
        return self._read(x, None)

    def _read(self, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        seeds, batch, time, _ = x.shape
        flat = x.transpose(1, 2).reshape(seeds, time * batch, -1)
        inputs = self.input(flat).view(seeds, time, batch, -1).unbind(1)
        h = x.new_zeros(seeds, batch, self.n_hidden)
        parts = (2 * self.n_hidden, self.n_hidden)
        contexts = []
        for k, here in enumerate(inputs):
            # Split, not sliced: slices' gradients are padded with zeros and added up.
            (gates, inner), (old_gates, old_inner) = here.split(parts, -1), self.recurrent(h).split(parts, -1)
            reset, update = torch.sigmoid(gates + old_gates).chunk(2, -1)
            candidate = torch.tanh(torch.addcmul(inner, reset, old_inner))
            h = torch.lerp(candidate, h, update)
            if present is not None:
                h = h * present[:, :, k, None]
            contexts.append(h)
        return torch.stack(contexts, 2)


class Encoder(nn.Module):
    """Contexts, and a linear map of each observation to the latent space.

    mask_input : the GRU also sees which values were observed (needed when some are missing).
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        n_channels: int,
        dim: int,
        n_context: int,
        mask_input: bool,
        direction: Direction = "online",
    ) -> None:
        super().__init__()
        self.dim, self.mask_input = dim, mask_input
        self.context = GRUContext(generators, n_channels * (2 if mask_input else 1), n_context, direction)
        self.skip = nn.Parameter(torch.zeros(len(generators), n_channels, dim, dtype=torch.float64))

    def contexts(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(S, B, T, c), mask alike -> (S, B, T, H). Values not observed must be 0."""
        return self.context(torch.cat([x, mask.to(x)], -1) if self.mask_input else x, mask.any(-1))

    @torch.no_grad()
    def start_from(self, coordinates: torch.Tensor) -> None:
        """Let the linear map start as coordinates (c, m), m <= d; the others as they are."""
        self.skip[:, :, : coordinates.shape[1]] = coordinates.to(self.skip)

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        """(S, B, T, c) -> (S, B, T, d)."""
        return torch.bmm(x.flatten(1, 2), self.skip).view(*x.shape[:3], -1)


class PosteriorEncoder(Encoder):
    """Observations (S, B, T, c) -> contexts, node marginals, marginals at any time inside the intervals."""

    node_values, bubbles = 2, 2  # a coordinate

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        n_channels: int,
        dim: int,
        n_context: int,
        mask_input: bool,
        direction: Direction = "online",
    ) -> None:
        super().__init__(generators, n_channels, dim, n_context, mask_input, direction)
        self.node = StackedMLP(generators, n_context, n_context, self.node_values * dim, gain=0.1)
        self.left = StackedLinear(generators, n_context, n_context)
        self.right = StackedLinear(generators, n_context, n_context)
        self.clock = uniform(generators, (1, 1, n_context), 1.0)
        self.bubble = StackedLinear(generators, n_context, self.bubbles * dim, gain=0.1)

    def nodes(self, contexts: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """(S, B, T, H), (S, B, T, c) -> (S, B, T, node_values d): mean, log sd, ... at the observations."""
        seeds, batch, time, _ = contexts.shape
        rows, d = (seeds, batch * time, -1), self.dim
        out = self.node(contexts.reshape(rows)).view(seeds, batch, time, -1)
        return torch.cat([out[..., :d] + self.linear(x), out[..., d : 2 * d] + START_LOG_SD, out[..., 2 * d :]], -1)

    def hidden(self, contexts: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Hidden layer of the bubbles at times k + s, s (S, B, T - 1, 1): (S, B, T - 1, H)."""
        seeds, batch, time, _ = contexts.shape
        flat = contexts.reshape(seeds, batch * time, -1)
        left = self.left(flat).view(seeds, batch, time, -1)[:, :, :-1]
        right = self.right(flat).view(seeds, batch, time, -1)[:, :, 1:]
        return torch.tanh(left + right + s * self.clock)

    def between(self, contexts: torch.Tensor, nodes: torch.Tensor, s: torch.Tensor) -> Marginals:
        """Marginals at times k + s, s (S, B, T - 1) in (0, 1), one in each interval; derivatives by time."""
        s = s.unsqueeze(-1)
        hidden = self.hidden(contexts, s)
        bubble = per_row(self.bubble, hidden)
        bubble_rate = per_row(self.slope, (1 - hidden.square()) * self.clock)
        start, end = nodes[:, :, :-1], nodes[:, :, 1:]
        value = torch.lerp(start, end, s) + s * (1 - s) * bubble
        rate = end - start + (1 - 2 * s) * bubble + s * (1 - s) * bubble_rate
        d = self.dim
        return Marginals(value[..., :d], value[..., d:], rate[..., :d], rate[..., d:])

    def slope(self, hidden_rate: torch.Tensor) -> torch.Tensor:
        """Time derivative of the bubbles, from that of their hidden layer: (S, n, H) -> (S, n, bubbles d)."""
        return torch.bmm(hidden_rate, self.bubble.weight)


def per_row(function: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """A function (S, n, H) -> (S, n, m) on values (S, B, T, H)."""
    return function(values.flatten(1, 2)).view(*values.shape[:3], -1)


@dataclass(frozen=True)
class Steering:
    """What the control is made of: targets (S, B, T, d), and the contexts' part of its hidden layer (S, B, T, H)."""

    targets: torch.Tensor
    features: torch.Tensor


class PathEncoder(Encoder):
    """Observations (S, B, T, c) -> the Gaussian a posterior path starts from, and its control at any time and state.

    state_dim : coordinates of a state, d of them positions.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        n_channels: int,
        dim: int,
        state_dim: int,
        n_context: int,
        mask_input: bool,
        direction: Direction = "online",
    ) -> None:
        super().__init__(generators, n_channels, dim, n_context, mask_input, direction)
        self.state_dim = state_dim
        self.first = StackedMLP(generators, n_context, n_context, 2 * state_dim, gain=0.1)
        self.target = StackedMLP(generators, n_context, n_context, dim, gain=0.1)
        self.log_pull = nn.Parameter(torch.full((len(generators), 1, dim), math.log(START_PULL), dtype=torch.float64))
        self.from_context = StackedLinear(generators, n_context, n_context)
        self.from_state = StackedLinear(generators, state_dim, n_context)
        self.clock = uniform(generators, (1, n_context), 1.0)
        self.out = StackedLinear(generators, n_context, dim, gain=0.1)

    def start(self, contexts: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log sd of the first state, (S, B, state_dim) each."""
        mean, log_sd = self.first(contexts[:, :, 0]).chunk(2, -1)
        rest = mean.new_zeros(*mean.shape[:2], self.state_dim - self.dim)
        return mean + torch.cat([self.linear(x[:, :, :1])[:, :, 0], rest], -1), log_sd + START_LOG_SD

    def steering(self, contexts: torch.Tensor, x: torch.Tensor) -> Steering:
        flat, shape = contexts.flatten(1, 2), contexts.shape[:3]
        targets = self.target(flat).view(*shape, -1) + self.linear(x)
        return Steering(targets, self.from_context(flat).view(*shape, -1))

    def control(
        self, steering: Steering, state: torch.Tensor, interval: int, s: float, noise_scale: torch.Tensor
    ) -> torch.Tensor:
        """v (S, B, d) at states (S, B, state_dim), at t = interval + s: the drift of a noise coordinate in units of
        its noise. noise_scale : sqrt(2 D), broadcast against (S, B, d)."""
        hidden = torch.tanh(self.from_state(state) + steering.features[:, :, interval + 1] + s * self.clock)
        pull = self.log_pull.exp() * (steering.targets[:, :, interval + 1] - state[..., : self.dim])
        return pull / noise_scale + self.out(hidden)
