"""Step sizes that choose themselves: a stable one from the largest curvature, then acceptance targets by averaging."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch

from landscape.energy import Energy
from landscape.errors import UsageError

StepSize = float | torch.Tensor  # one number, or one a group of chains, (g,)

MOST_LOG = 300.0  # a flat energy would let a step grow for ever
POWER_ITERATIONS = 30
CURVATURE_POINTS = 128  # chains whose curvature is measured
MARGIN = 1.1  # power iteration comes from below


@dataclass(frozen=True)
class Averaging:
    """Stochastic approximation of log step sizes towards a mean acceptance, with averaging (Robbins and Monro 1951;
    Polyak and Juditsky 1992).

    After the t-th observed acceptance a_t:  log step_t = log step_{t-1} + 2 t^(-1/2) (a_t - target). The average gives
    the t-th step the weight t^(-1/2), so that it looks back over about 2 sqrt(t) of them.
    log_step, log_average : one a group, (g,). count : t.
    """

    target: float
    log_step: torch.Tensor
    log_average: torch.Tensor
    count: int = 0

    @classmethod
    def start(cls, step_size: StepSize, target: float) -> Averaging:
        log_step = torch.as_tensor(step_size, dtype=torch.float64).log().reshape(-1)
        return cls(target, log_step, log_step)

    def updated(self, acceptance: torch.Tensor) -> Averaging:
        """Learn from the acceptance probabilities (n,) of the chains, which lie group by group."""
        mean = acceptance.reshape(len(self.log_step), -1).mean(1)
        weight = 1 / math.sqrt(self.count + 1)
        log_step = (self.log_step + 2 * weight * (mean - self.target)).clamp(-MOST_LOG, MOST_LOG)
        log_average = weight * log_step + (1 - weight) * self.log_average
        return replace(self, log_step=log_step, log_average=log_average, count=self.count + 1)


class AdaptiveStep:
    """What kernels share whose step follows the acceptance: frozen dataclasses with these three fields."""

    step_size: StepSize
    target: float
    averaging: Averaging | None

    def adapted(self, acceptance: torch.Tensor, step: int) -> Self:
        """See `Kernel.adapted`."""
        averaging = (self.averaging or Averaging.start(self.step_size, self.target)).updated(acceptance)
        step_size = _like(self.step_size, averaging.log_step)
        return replace(self, step_size=step_size, averaging=averaging)  # type: ignore[type-var]

    def settled(self) -> Self:
        """See `Kernel.settled`: the averaged step."""
        if self.averaging is None:
            return self
        step_size = _like(self.step_size, self.averaging.log_average)
        return replace(self, step_size=step_size, averaging=None)  # type: ignore[type-var]


def _like(old: StepSize, log_step: torch.Tensor) -> StepSize:
    return log_step.exp() if isinstance(old, torch.Tensor) else float(log_step.exp())


def check_step(step_size: StepSize, target: float = 0.5) -> None:
    """UsageError unless every step is finite and positive, and the target acceptance between 0 and 1."""
    steps = torch.as_tensor(step_size, dtype=torch.float64)
    if not (bool((steps.isfinite() & (steps > 0)).all()) and 0 < target < 1):
        raise UsageError(
            f"a step size is greater than 0 and a target acceptance between 0 and 1, not {step_size} and {target}"
        )


def per_chain(step_size: StepSize, n: int) -> StepSize:
    """The step of every chain, as a column (n, 1) if the groups differ. UsageError unless the groups are equal."""
    if not isinstance(step_size, torch.Tensor):
        return step_size
    if n % len(step_size):
        raise UsageError(f"{n} chains do not fall into {len(step_size)} equal groups: give one step a group")
    return step_size.repeat_interleave(n // len(step_size))[:, None]


def largest_curvature(energy: Energy, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Largest |Hessian eigenvalue| at each point x (m, d), in energy per length squared: (m,).

    Power iteration on Hessian-vector products, 30 a point, so that no Hessian is ever formed: a value from below, by a
    few per cent where the largest eigenvalues lie close together. nan where products are not finite.
    """
    v = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    size = torch.full((len(x),), torch.nan, dtype=torch.float64)
    for _ in range(POWER_ITERATIONS if x.shape[1] > 1 else 1):
        v = v / v.norm(dim=1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
        v = energy.hvp(x, v).to(device="cpu", dtype=torch.float64)
        size = v.norm(dim=1)
    return size


def curvature_along(energy: Energy, x: torch.Tensor, generator: torch.Generator) -> float:
    """Largest |Hessian eigenvalue| over at most 128 of the chains x (n, d), with a margin of a tenth.

    UsageError where it is nowhere finite and above 0: then only a step of the user's can be taken.
    """
    chosen = torch.randperm(len(x), generator=generator)[:CURVATURE_POINTS]
    values = largest_curvature(energy, x[chosen], generator)
    values = values[values.isfinite()]
    top = float(values.max()) if len(values) else 0.0
    if not top > 0:
        raise UsageError("the curvature of the energy is zero or not finite at every chain: give a step size")
    return MARGIN * top
