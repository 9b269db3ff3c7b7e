"""The posterior of an underdamped path with given Gaussian marginals of positions, and its encoder.

SDE matching (see `posterior`) for dx = v dt, dv = a dt + sqrt(2 D_v) dW, where noise and control act on the velocity
v = p / M alone. Each coordinate has marginals

    x = mu + sigma eps_1,       v = mu' + sigma' eps_1 + tau eps_2,       eps standard normal,

mu, sigma once and tau zero times continuously differentiable: a joint Gaussian whose mean moves with the mean velocity,
and whose cov(x, v) = sigma sigma' is half the rate of sigma^2, as dx = v dt demands. The acceleration that is linear in
the state and keeps these marginals follows from the rates of cov(x, v) and var(v),

    cov(x, v)' = var(v) + cov(x, a),        var(v)' = 2 cov(v, a) + 2 D_v:

    a_post = mu'' + (sigma'' - tau^2 / sigma) eps_1 + (tau' + tau sigma' / sigma - D_v / tau) eps_2.

Girsanov's theorem then gives the path KL to the prior, E integral |a_post - a_prior|^2 / (4 D_v) dt, with

    a_prior = -grad E / M - (gamma / M) v,       D_v = (gamma / M) / (beta M).

As M goes to 0 this becomes the path KL of the overdamped prior. tau is given in units of the thermal speed
(beta M)^(-1/2) of the prior: tau = speed exp(r).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nld_models.encoder import Marginals, PosteriorEncoder, per_row


@dataclass(frozen=True)
class InertialMarginals(Marginals):
    """Marginals, their second time derivatives, and r = log(tau / speed) with its rate; all (S, ..., d)."""

    mean_acceleration: torch.Tensor
    log_sd_acceleration: torch.Tensor
    log_spread: torch.Tensor
    log_spread_rate: torch.Tensor


def sample_state(m: InertialMarginals, eps: torch.Tensor, speed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions and velocities (..., d) from eps (..., 2 d)."""
    first, second = eps.chunk(2, -1)
    spread = speed * m.log_spread.exp()
    return m.mean + m.sd * first, m.mean_rate + m.sd * m.log_sd_rate * first + spread * second


def posterior_acceleration(
    m: InertialMarginals, eps: torch.Tensor, speed: torch.Tensor, collision_rate: torch.Tensor
) -> torch.Tensor:
    """a_post at the state of eps (..., 2 d): (..., d). speed, collision_rate = gamma / M : broadcast against (..., d).

    In logarithms sigma'' = sigma (l'' + l'^2), tau' = tau r', and D_v / tau^2 = collision_rate exp(-2 r).
    """
    first, second = eps.chunk(2, -1)
    spread = speed * m.log_spread.exp()
    bending = m.log_sd_acceleration + m.log_sd_rate.square() - (spread / m.sd).square()
    heating = m.log_spread_rate + m.log_sd_rate - collision_rate * torch.exp(-2 * m.log_spread)
    return m.mean_acceleration + m.sd * bending * first + spread * heating * second


class InertialEncoder(PosteriorEncoder):
    """A node has, from its context, m = (mu, log sigma), its rates, and r. Inside an interval m is the cubic with these
    ends plus 16 s^2 (1 - s)^2 b, and r a line plus 4 s (1 - s) b, with b of `PosteriorEncoder`."""

    node_values, bubbles = 5, 3

    def at_nodes(self, nodes: torch.Tensor) -> InertialMarginals:
        """(S, B, T, 5 d) -> marginals at the nodes; accelerations and the rate of r jump there, and are left at 0."""
        mean, log_sd, mean_rate, log_sd_rate, log_spread = nodes.chunk(5, -1)
        zero = torch.zeros_like(mean)
        return InertialMarginals(mean, log_sd, mean_rate, log_sd_rate, zero, zero, log_spread, zero)

    def between(self, contexts: torch.Tensor, nodes: torch.Tensor, s: torch.Tensor) -> InertialMarginals:
        s, d = s.unsqueeze(-1), self.dim
        hidden = self.hidden(contexts, s)
        slope = (1 - hidden.square()) * self.clock
        b = (
            per_row(self.bubble, hidden),
            per_row(self.slope, slope),
            per_row(self.slope, -2 * hidden * slope * self.clock),
        )
        end = 2 * d
        values, rates = nodes[..., :end], nodes[..., end : 2 * end]
        ends = values[:, :, :-1], rates[:, :, :-1], values[:, :, 1:], rates[:, :, 1:]
        inner = [part[..., :end] for part in b]
        w = 16 * (s * (1 - s)).square(), 32 * s * (1 - s) * (1 - 2 * s), 32 * (1 - 6 * s * (1 - s))
        bubble = (
            w[0] * inner[0],
            w[1] * inner[0] + w[0] * inner[1],
            w[2] * inner[0] + 2 * w[1] * inner[1] + w[0] * inner[2],
        )
        value, rate, acceleration = (
            sum((c * part for c, part in zip(row, ends, strict=True)), start)
            for row, start in zip(_hermite(s), bubble, strict=True)
        )
        left, right = nodes[:, :, :-1, 2 * end :], nodes[:, :, 1:, 2 * end :]
        spread = torch.lerp(left, right, s) + 4 * s * (1 - s) * b[0][..., end:]
        spread_rate = right - left + 4 * (1 - 2 * s) * b[0][..., end:] + 4 * s * (1 - s) * b[1][..., end:]
        return InertialMarginals(
            value[..., :d], value[..., d:], rate[..., :d], rate[..., d:], acceleration[..., :d], acceleration[..., d:],
            spread, spread_rate,
        )  # fmt: skip


def _hermite(s: torch.Tensor) -> Sequence[tuple[torch.Tensor, ...]]:
    """Weights of left value, left rate, right value and right rate in the cubic, its rate and its second derivative."""
    t = 1 - s
    return (
        (t * t * (1 + 2 * s), s * t * t, s * s * (3 - 2 * s), -s * s * t),
        (-6 * s * t, t * (1 - 3 * s), 6 * s * t, s * (3 * s - 2)),
        (12 * s - 6, 6 * s - 4, 6 - 12 * s, 6 * s - 2),
    )
