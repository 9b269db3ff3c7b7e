"""What a check may cost, and how sure it is to be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from landscape.errors import UsageError


@dataclass(frozen=True)
class CheckOptions:
    """budget : seconds for everything together; a grid or operator that has begun is not cut off. confidence : of the
    intervals. target_error : relative standard error of the main rates at which a simulation ends. time_step : of the
    user's simulation or training, whose effect on each rate is wanted. scheme : the integrator it is taken with (see
    `landscape.rates.integrators`). seed : of all randomness.
    """

    budget: float = 60.0
    confidence: float = 0.95
    target_error: float = 0.02
    time_step: float | None = None
    scheme: str = "euler"
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.budget < math.inf and 0 < self.confidence < 1 and 0 < self.target_error < 1):
            raise UsageError(
                f"a check needs a budget above 0 s, a confidence and a target error between 0 and 1, not "
                f"{self.budget!r} s, {self.confidence!r} and {self.target_error!r}"
            )
        if self.time_step is not None and not 0 < self.time_step < math.inf:
            raise UsageError(f"a time step is finite and above 0, not {self.time_step!r}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**63:
            raise UsageError(f"a seed is a whole number from 0 to 2^63 - 1, not {self.seed!r}")
