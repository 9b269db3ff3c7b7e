"""torchsde as the integrator of the simulated objective: Euler-Maruyama on the same noise as `simulated.roll_out`.

For first-order priors it is the same stepping, so both agree to rounding; for underdamped priors Euler-Maruyama moves
positions by the old momentum and needs steps well below M / gamma, and both agree as the step goes to 0.
"""

from __future__ import annotations

import torch
import torchsde

from nld_models.prior import Prior, UnderdampedPrior
from nld_models.simulated import Control, Paths, limited


class PathMeasure:
    """The controlled SDE in torchsde's terms; the last coordinate gathers the path KL, 1/2 integral |v|^2 dt."""

    noise_type = "diagonal"
    sde_type = "ito"

    def __init__(
        self, prior: Prior, control: Control, seeds: int, substeps: int, clip: float | torch.Tensor | None
    ) -> None:
        self.prior, self.control, self.seeds, self.substeps, self.clip = prior, control, seeds, substeps, clip

    def f(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Drift, (S B, state_dim + 1) -> the same."""
        prior, step = self.prior, round(float(t) * self.substeps)
        interval, j = divmod(step, self.substeps)
        state = y.view(self.seeds, -1, y.shape[-1])[..., :-1]
        if j == 0 and self.clip is not None and y.requires_grad:
            y.register_hook(self._limited)
        v = self.control(state, interval, j / self.substeps)
        rate = 0.5 * v.square().sum(-1, keepdim=True)
        if isinstance(prior, UnderdampedPrior):
            x, p = state.chunk(2, -1)
            force = -prior.energy.gradient(x) - prior.gamma() * p / prior.mass() + self._noise_scale() * v
            return torch.cat([p / prior.mass(), force, rate], -1).flatten(0, 1)
        return torch.cat([prior.drift(state) + self._noise_scale() * v, rate], -1).flatten(0, 1)

    def g(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Noise scale of every coordinate, (S B, state_dim + 1)."""
        noisy = y.new_zeros(self.seeds, len(y) // self.seeds, y.shape[-1])
        first = self.prior.state_dim - self.prior.dim
        scale = self._noise_scale().expand(*noisy.shape[:2], self.prior.dim)
        return torch.cat([noisy[..., :first], scale, noisy[..., :1]], -1).flatten(0, 1)

    def _limited(self, gradient: torch.Tensor) -> torch.Tensor:
        """As `clip_adjoint`; the last coordinate's gradient is a weight of the loss and stays."""
        split = gradient.view(self.seeds, -1, gradient.shape[-1])
        assert self.clip is not None
        return torch.cat([limited(split[..., :-1], self.clip), split[..., -1:]], -1).flatten(0, 1)

    def _noise_scale(self) -> torch.Tensor:
        if isinstance(self.prior, UnderdampedPrior):
            return (2 * self.prior.gamma() / self.prior.beta(3)).sqrt()
        return (2 * self.prior.diffusion(3)).sqrt()


class GivenNoise(torchsde.BaseBrownian):
    """A Brownian path by its increments over equal steps: normal (S, n_steps, B, d), of variance 1 each."""

    def __init__(self, normal: torch.Tensor, state_dim: int, substeps: int) -> None:
        seeds, self.n_steps, batch, dim = normal.shape
        self.substeps = substeps
        padding = (state_dim - dim, 1)  # positions of underdamped priors, and the path KL, have no noise
        increments = torch.nn.functional.pad(normal / substeps**0.5, padding)
        self.increments = increments.transpose(0, 1).reshape(self.n_steps, seeds * batch, state_dim + 1)

    def __call__(
        self, ta: torch.Tensor, tb: torch.Tensor | None = None, return_U: bool = False, return_A: bool = False
    ) -> torch.Tensor:
        """The increment from ta to tb, one step apart."""
        return self.increments[round(float(ta) * self.substeps)]

    def __repr__(self) -> str:
        return f"GivenNoise({self.n_steps} steps of 1 / {self.substeps})"

    @property
    def dtype(self) -> torch.dtype:
        return self.increments.dtype

    @property
    def device(self) -> torch.device:
        return self.increments.device

    @property
    def shape(self) -> torch.Size:
        return self.increments.shape[1:]

    @property
    def levy_area_approximation(self) -> str:
        return "none"


def roll_out_torchsde(
    prior: Prior,
    control: Control,
    start: torch.Tensor,
    normal: torch.Tensor,
    substeps: int,
    clip: float | torch.Tensor | None = None,
) -> Paths:
    """`simulated.roll_out` by torchsde."""
    seeds, batch, _ = start.shape
    n_intervals = normal.shape[1] // substeps
    y = torch.cat([start, start.new_zeros(seeds, batch, 1)], -1).flatten(0, 1)
    sde = PathMeasure(prior, control, seeds, substeps, clip)
    # In float64, so that the sums of the steps are the times of the observations.
    times = torch.arange(n_intervals + 1, dtype=torch.float64)
    noise = GivenNoise(normal, prior.state_dim, substeps)
    found = torchsde.sdeint(sde, y, times, bm=noise, method="euler", dt=1 / substeps)
    found = found.view(n_intervals + 1, seeds, batch, -1).permute(1, 2, 0, 3)
    return Paths(found[..., :-1], found[..., -1].diff(dim=2))
