"""Weighted draws from exp(-beta E): importance sampling from a mixture, in one step or along a tempered path.

The path is p_t(x) = q(x)^(1 - t) exp(-t beta E(x)) from the normalised mixture q at t = 0 to the target at t = 1
(annealed importance sampling: Neal, Statistics and Computing 11 (2001) 125). With a single level it is plain importance
sampling. Every walker is independent of the others, and E[w f(x)] = integral of f exp(-beta E) whatever the levels.

The mixture's components q_k, with their weights alpha_k inside, are kept as an auxiliary variable: p_t(x, k) =
p_t(x) q_k(x) / q(x). Given x a walker draws k; given k it moves by a Metropolis-adjusted Langevin step with the scale
of component k, so that wells of any shape are walked at their own pace. Both leave p_t(x) as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from landscape.energy import Energy
from landscape.sampling import Chains, StudentMixture
from landscape.sampling.independence import block_sizes, inverse_factors, own_products, whitened
from landscape.sampling.mala import TARGET_ACCEPTANCE

PILOT_STEP = 1.2  # first step of the walkers times d^(1/6): somewhat below the best one for a Gaussian
GAIN = 0.5  # of the adaptation of the steps, on the logarithm
BISECTIONS = 40


@dataclass(frozen=True)
class WeightedDraws:
    """x (n, d) and log_weights (n,), -inf where the energy is not finite; independent rows."""

    x: torch.Tensor
    log_weights: torch.Tensor


@dataclass(frozen=True)
class TemperedPath:
    """levels (T,): 0 < t_1 < ... < t_T = 1. step_sizes (T, k): of the moves at each level, for each component; the
    last row is not used. moves: Langevin steps at each level."""

    levels: torch.Tensor
    step_sizes: torch.Tensor
    moves: int

    @property
    def cost(self) -> int:
        """Evaluations of the energy for one draw."""
        return 1 + self.moves * (len(self.levels) - 1)


def direct_path(mixture: StudentMixture) -> TemperedPath:
    """Plain importance sampling: one level."""
    return TemperedPath(torch.ones(1, dtype=torch.float64), torch.ones(1, len(mixture.means)).double(), 0)


def weighted_draws(
    energy: Energy, beta: float, mixture: StudentMixture, path: TemperedPath, n: int, generator: torch.Generator
) -> WeightedDraws:
    """n independent weighted draws along the path; path.cost evaluations each."""
    x = mixture.sample(n, generator)
    if len(path.levels) == 1:
        value = energy.value(x).to(device="cpu", dtype=torch.float64)
        log_weights = (-beta * value - mixture.log_density(x)).where(value.isfinite(), -torch.inf)
        return WeightedDraws(x, log_weights)
    walkers = _Walkers(energy, beta, mixture, Chains.init(energy, x), generator)
    log_weights = torch.zeros(n, dtype=torch.float64)
    before = 0.0
    for level, steps in zip(path.levels[:-1], path.step_sizes[:-1], strict=True):
        log_weights += (float(level) - before) * walkers.log_ratio()
        before = float(level)
        for _ in range(path.moves):
            walkers.move(before, steps)
    return WeightedDraws(walkers.chains.x, log_weights + (1 - before) * walkers.log_ratio())


def plan_path(
    energy: Energy, beta: float, mixture: StudentMixture, *, n: int, loss: float, moves: int, max_levels: int,
    generator: torch.Generator,
) -> tuple[TemperedPath, torch.Tensor] | None:  # fmt: skip
    """Levels at which n pilot walkers lose a share `loss` of their effective number each, and steps that fit.

    Also where the pilot walkers end, (n, d): drawn from exp(-beta E) about, not independent, as they are resampled at
    every level. None where max_levels do not reach t = 1.
    """
    walkers = _Walkers(energy, beta, mixture, Chains.init(energy, mixture.sample(n, generator)), generator)
    steps = torch.full((len(mixture.means),), PILOT_STEP * energy.dim ** (-1 / 6), dtype=torch.float64)
    levels: list[float] = []
    sizes: list[torch.Tensor] = []
    t = 0.0
    while t < 1 and len(levels) < max_levels:
        ratio = walkers.log_ratio()
        if not bool(ratio.isfinite().any()):
            return None
        ahead = _next_step(ratio, 1 - t, loss)
        t = 1.0 if ahead >= (1 - t) * (1 - 1e-9) else t + ahead
        walkers.resample(torch.softmax(ahead * ratio, 0))
        for _ in range(moves):
            acceptance, component = walkers.move(t, steps)
            excess = torch.bincount(component, weights=acceptance - TARGET_ACCEPTANCE, minlength=len(steps))
            walkers_there = torch.bincount(component, minlength=len(steps)).clamp_min(1)
            steps = steps * (GAIN * excess / walkers_there).exp()
        levels.append(t)
        sizes.append(steps)
    if t < 1:
        return None
    return TemperedPath(torch.tensor(levels, dtype=torch.float64), torch.stack(sizes), moves), walkers.chains.x


def _next_step(log_ratio: torch.Tensor, room: float, loss: float) -> float:
    """The largest step up to `room` at which the weights exp(step log_ratio) keep 1 - loss of their number."""

    def kept(step: float) -> float:
        w = step * log_ratio
        return math.exp(float(2 * torch.logsumexp(w, 0) - torch.logsumexp(2 * w, 0))) / len(w)

    low, high = 0.0, room
    if kept(room) >= 1 - loss:
        return room
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if kept(middle) >= 1 - loss else (low, middle)
    return high


class _Walkers:
    """Walkers on the path: where they are, with log q_k and the gradient of log q there."""

    def __init__(
        self, energy: Energy, beta: float, mixture: StudentMixture, chains: Chains, generator: torch.Generator
    ) -> None:
        self.energy, self.beta, self.mixture, self.generator = energy, beta, mixture, generator
        self.inverses = inverse_factors(mixture.factors)
        self.chains = chains
        self.log_components = mixture.log_components(chains.x)
        self.slope = self._slope(chains.x, self.log_components)

    def log_ratio(self) -> torch.Tensor:
        """log of exp(-beta E) / q at the walkers, (n,)."""
        return -self.beta * self.chains.energy - torch.logsumexp(self.log_components, 1)

    def resample(self, shares: torch.Tensor) -> None:
        rows = torch.multinomial(shares, len(shares), replacement=True, generator=self.generator)
        self.chains = self.chains.rows(rows)
        self.log_components, self.slope = self.log_components[rows], self.slope[rows]

    def move(self, t: float, step_sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw each walker's component, then one Langevin step at level t: acceptance and component, (n,) each."""
        shares = torch.softmax(self.log_components, 1)
        component = torch.multinomial(shares, 1, generator=self.generator)[:, 0]
        size = step_sizes[component][:, None]
        old, parts, slope = self.chains, self.log_components, self.slope
        noise = torch.randn(old.x.shape, dtype=torch.float64, generator=self.generator)
        drift = 0.5 * size * self._pull(t, old, slope, component)
        new = Chains.init(self.energy, old.x + size * own_products(self.mixture.factors, component, drift + noise))
        new_parts = self.mixture.log_components(new.x)
        new_slope = self._slope(new.x, new_parts)
        # The noise that would bring the walker back, but for its sign.
        back = noise + drift + 0.5 * size * self._pull(t, new, new_slope, component)
        log_accept = self._log_density(t, new, new_parts, component) - self._log_density(t, old, parts, component)
        log_accept = log_accept + 0.5 * (noise.square().sum(1) - back.square().sum(1))
        log_accept = log_accept.where(new.energy.isfinite() & log_accept.isfinite(), -torch.inf)
        uniform = torch.rand(len(log_accept), dtype=torch.float64, generator=self.generator)
        take = uniform.log() < log_accept
        self.chains = new.where(take, old)
        self.log_components = new_parts.where(take[:, None], parts)
        self.slope = new_slope.where(take[:, None], slope)
        return log_accept.clamp_max(0).exp(), component

    def _log_density(
        self, t: float, chains: Chains, log_components: torch.Tensor, component: torch.Tensor
    ) -> torch.Tensor:
        """log p_t(x, k), (n,)."""
        guide = log_components.gather(1, component[:, None])[:, 0] - t * torch.logsumexp(log_components, 1)
        return guide - t * self.beta * chains.energy

    def _slope(self, x: torch.Tensor, log_components: torch.Tensor) -> torch.Tensor:
        """Gradient of log q, (n, d)."""
        means, shares, slope = self.mixture.means, torch.softmax(log_components, 1), torch.zeros_like(x)
        points, some = block_sizes(means)
        for k in range(0, len(means), some):
            own = slice(k, k + some)
            for n in range(0, len(x), points):
                rows = slice(n, n + points)
                z = whitened(x[rows], means[own], self.inverses[own])
                pull = shares[rows, own].T[:, None] * self._strength(z) * z
                slope[rows] -= pull.flatten(0, 1).T @ self.inverses[own].flatten(0, 1)
        return slope

    def _pull(self, t: float, chains: Chains, slope: torch.Tensor, component: torch.Tensor) -> torch.Tensor:
        """Gradient of log p_t(x, k) in the coordinates of component k, (n, d)."""
        pull = own_products(self.mixture.factors.mT, component, -t * (slope + self.beta * chains.gradient))
        z = own_products(self.inverses, component, chains.x - self.mixture.means[component])
        return pull - self._strength(z) * z

    def _strength(self, z: torch.Tensor) -> torch.Tensor:
        """Of the pull of a t distribution towards its mean, in its own coordinates, the second axis of z."""
        dof = self.mixture.dof
        return (dof + z.shape[1]) / (dof + z.square().sum(1, keepdim=True))
