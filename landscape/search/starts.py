"""Where a multi-start search begins: a box, a Gaussian, given points, or a cube that finds the energy's own scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from landscape.energy import Energy
from landscape.errors import EnergyError, UsageError

REDRAWS = 50  # rounds in which non-finite points are drawn anew


@dataclass(frozen=True)
class Box:
    """Uniform starts in low <= x <= high (numbers, or one value a coordinate)."""

    low: float | tuple[float, ...]
    high: float | tuple[float, ...]

    def __post_init__(self) -> None:
        low, high = np.asarray(self.low, float), np.asarray(self.high, float)
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise UsageError(f"a box needs finite bounds with low < high, not {self.low} and {self.high}")

    def draw(self, n: int, dim: int, generator: torch.Generator) -> torch.Tensor:
        low, high = (_per_coordinate(bound, dim, "a box bound") for bound in (self.low, self.high))
        unit = torch.rand(n, dim, generator=generator, dtype=torch.float64)
        return low + unit * (high - low)


@dataclass(frozen=True)
class Gaussian:
    """Starts from a normal distribution; mean and standard deviation are numbers, or one value a coordinate."""

    mean: float | tuple[float, ...] = 0.0
    standard_deviation: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        sd = np.asarray(self.standard_deviation, float)
        if not (np.isfinite(np.asarray(self.mean, float)).all() and np.isfinite(sd).all() and (sd > 0).all()):
            raise UsageError(f"a Gaussian needs a finite mean and a positive standard deviation, not {self}")

    def draw(self, n: int, dim: int, generator: torch.Generator) -> torch.Tensor:
        mean = _per_coordinate(self.mean, dim, "a Gaussian's mean")
        sd = _per_coordinate(self.standard_deviation, dim, "a Gaussian's standard deviation")
        return mean + sd * torch.randn(n, dim, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Points:
    """Given starts, shape (n, d)."""

    x: np.ndarray

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "x", np.array(self.x, float))
        except (TypeError, ValueError) as error:
            raise UsageError(f"start points are a finite array of shape (n, d) with n >= 1: {error}") from error
        if self.x.ndim != 2 or len(self.x) == 0 or not np.isfinite(self.x).all():
            raise UsageError(
                f"start points are a finite array of shape (n, d) with n >= 1, not of shape {self.x.shape}"
            )


def _per_coordinate(value: float | tuple[float, ...], dim: int, what: str) -> torch.Tensor:
    array = torch.as_tensor(np.asarray(value, float))
    if array.ndim and array.shape != (dim,):
        raise UsageError(f"{what} is one number or {dim} of them for this energy, not {tuple(array.shape)}")
    return array.expand(dim)


def draw_finite(energy: Energy, starts: Box | Gaussian, n: int, generator: torch.Generator) -> torch.Tensor:
    """n starts (n, d) at which the energy is finite; non-finite points are redrawn.

    Raises EnergyError where (almost) no finite point can be found.
    """
    kept: list[torch.Tensor] = []
    missing = n
    for _ in range(REDRAWS):
        x = starts.draw(missing, energy.dim, generator).to(energy.device, energy.dtype)
        kept.append(x[energy.value(x).isfinite()])
        missing -= len(kept[-1])
        if missing == 0:
            return torch.cat(kept)
    raise EnergyError(
        f"starts need finite energies, but of {n} points drawn from {starts} {missing} stayed non-finite "
        f"after {REDRAWS} redraws; give a smaller --box or --starts-from"
    )
