"""The problem that both bounds are about, in coordinates in which the friction is 1.

With y = gamma^(1/2) x, coordinate by coordinate, dx = -gamma^-1 grad E dt + sqrt(2 / (beta gamma)) dW becomes
dy = -grad_y E dt + sqrt(2 / beta) dW. Everything in this package lives in y; rates do not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy
from landscape.errors import UnsupportedError, UsageError
from landscape.rates.cores import Cores

Tensor = torch.Tensor
RAMP = 1.0  # growth of a core's level (x - c)'F(x - c) over which the ramp rises to 1 - 1/e


@dataclass(frozen=True)
class Region:
    """The sets A (source cores) and B (target cores), and beta E, in scaled coordinates.

    scale (d,) : gamma^(1/2). center (n, d), form (n, d, d) : of all cores, scaled; a form may be singular (a cylinder).
    source, target : indices of the cores that make up A and B.
    """

    energy: Energy
    beta: float
    scale: Tensor
    center: Tensor
    form: Tensor
    source: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def dim(self) -> int:
        return self.energy.dim

    def reduced(self, y: Tensor) -> Tensor:
        """beta E at y (n, d): (n,); infinite where the energy is not finite."""
        value = self.beta * self.energy.value(y / self.scale).to(torch.float64)
        return torch.where(value.isfinite(), value, torch.inf)

    def reduced_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """`reduced` and its gradient with respect to y, (n,) and (n, d)."""
        value, gradient = self.energy.value_and_gradient(y / self.scale)
        value = self.beta * value.to(torch.float64)
        return torch.where(value.isfinite(), value, torch.inf), self.beta * gradient.to(torch.float64) / self.scale

    def gradient(self, y: Tensor) -> Tensor:
        """Gradient of beta E with respect to y: (n, d) -> (n, d)."""
        return self.beta * self.energy.gradient(y / self.scale).to(torch.float64) / self.scale

    def hessian(self, y: Tensor) -> Tensor:
        """Second derivative of beta E with respect to y: (n, d) -> (n, d, d)."""
        return self.beta * self.energy.hessian(y / self.scale).to(torch.float64) / (self.scale[:, None] * self.scale)

    def levels(self, y: Tensor, cores: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """(y - c)'F(y - c) of the given cores, (n, k), and its gradient (n, k, d)."""
        rows = list(cores)
        difference = y[:, None] - self.center[rows]
        gradient = 2 * torch.einsum("kij,nkj->nki", self.form[rows], difference)
        return 0.5 * (gradient * difference).sum(2), gradient

    def outside(self, y: Tensor) -> Tensor:
        """Whether y lies in neither A nor B: (n,)."""
        return (self.levels(y, self.source + self.target)[0] >= 1).all(1)

    def ramp(self, y: Tensor, cores: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """A function that is exactly 0 on the given cores and rises to 1 around them, (n,), and its gradient (n, d).

        r = product over cores of 1 - exp(-(level - 1)_+ / w).
        """
        level, slope = self.levels(y, cores)
        decay = torch.exp(-(level - 1).clamp_min(0) / RAMP)
        parts = 1 - decay
        rise = torch.where((level > 1)[:, :, None], decay[:, :, None] * slope / RAMP, 0)
        value, gradient = parts[:, 0], rise[:, 0]
        for k in range(1, len(cores)):
            gradient = gradient * parts[:, k, None] + value[:, None] * rise[:, k]
            value = value * parts[:, k]
        return value, gradient


def make_region(
    energy: Energy, dynamics: Dynamics, cores: Cores, source: tuple[int, ...], target: tuple[int, ...]
) -> Region:
    """The region of `dynamics`; UnsupportedError unless overdamped and reversible, UsageError for unfit core labels."""
    if not isinstance(dynamics, Overdamped):
        raise UnsupportedError("a bracket of a rate exists for overdamped dynamics; simulate passages instead")
    if getattr(dynamics, "rotation", None) is not None:
        raise UnsupportedError("a bracket of a rate needs reversible dynamics; leave the rotation out or simulate")
    if cores.symmetry is not None:
        raise UnsupportedError("a bracket of a rate is not supported where the energy is periodic; simulate passages")
    labels = source + target
    if not source or not target or len(set(labels)) != len(labels):
        raise UsageError(f"source and target are two disjoint, non-empty lists of cores, not {source} and {target}")
    if min(labels) < 0 or max(labels) >= len(cores):
        raise UsageError(f"source and target name cores from 0 to {len(cores) - 1}, not {source} and {target}")
    if cores.center.shape[1] != energy.dim:
        raise UsageError(f"cores of dimension {cores.center.shape[1]} do not fit an energy of {energy.dim}")
    scale = np.sqrt(dynamics.gamma_vector(energy.dim))
    return Region(
        energy, dynamics.beta, torch.as_tensor(scale), torch.as_tensor(cores.center * scale),
        torch.as_tensor(cores.form / (scale[:, None] * scale)), source, target,
    )  # fmt: skip
