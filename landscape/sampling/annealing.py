"""Annealed Langevin dynamics: LMC through a sequence of energies or noise levels, from broad to narrow.

Y. Song and S. Ermon, Advances in Neural Information Processing Systems 32 (2019), algorithm 1: at level i the step is
alpha_i = epsilon sigma_i^2 / sigma_L^2, in x' = x + (alpha_i / 2) score_i(x) + sqrt(alpha_i) z. Here eta_i = alpha_i/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.sampling.driver import run
from landscape.sampling.langevin import Lmc
from landscape.sampling.metropolis import Chains


@dataclass(frozen=True)
class Level:
    """One level: exp(-beta energy), walked by LMC with step_size eta."""

    energy: Energy
    beta: float
    step_size: float


def noise_levels(energies: Sequence[Energy], beta: float, sigmas: Sequence[float], step_size: float) -> list[Level]:
    """Levels of noise-conditional energies E_i at noise sigma_i, broad first: eta_i = step_size sigma_i^2 / sigma_L^2.

    step_size : eta of the last level. UsageError unless the sigmas are positive and fall, one an energy.
    """
    widths = np.asarray(sigmas, dtype=float)
    if widths.shape != (len(energies),) or not len(widths) or not (widths > 0).all() or (np.diff(widths) > 0).any():
        raise UsageError(f"annealing takes one noise level an energy, positive and falling, not {list(sigmas)}")
    steps = step_size * (widths / widths[-1]) ** 2
    return [Level(energy, beta, float(step)) for energy, step in zip(energies, steps, strict=True)]


def temperature_levels(energy: Energy, beta: float, hottest: float, n_levels: int, step_size: float) -> list[Level]:
    """One energy at rising beta_i, from hottest * beta to beta in equal ratios.

    The thermal width of a well is the noise level, sigma_i^2 = 1 / beta_i, so that Song and Ermon's rule is
    eta_i = step_size beta / beta_i: eta_i beta_i grad E, the drift, and with it stability, is the same at all levels.
    """
    if not (0 < hottest <= 1 and n_levels >= 1):
        raise UsageError(f"annealing takes 1 level or more from 0 < hottest <= 1, not {n_levels} from {hottest}")
    betas = beta * np.geomspace(hottest, 1, n_levels) if n_levels > 1 else np.array([beta])
    return [Level(energy, float(b), float(step_size * beta / b)) for b in betas]


def anneal(
    levels: Sequence[Level],
    x: torch.Tensor,
    n_steps: int,
    generator: torch.Generator,
    observe: Callable[[Chains], None] | None = None,
) -> Chains:
    """n_steps of LMC from x (n, d) at each level in turn. Returns the chains at the last level's energy.

    Chains that run into a non-finite energy are `stopped`, for the levels to come as well.
    """
    if not levels or n_steps < 1:
        raise UsageError(f"annealing takes a level and a step or more, not {len(levels)} levels of {n_steps} steps")
    stopped = torch.zeros(len(x), dtype=torch.bool)
    for level in levels:
        state = Chains.init(level.energy, x)
        state = Chains(state.x, state.energy, state.gradient, stopped)
        state, _ = run([Lmc(level.step_size)], level.energy, level.beta, state, n_steps, generator, observe)
        x, stopped = state.x, state.stopped
    return state


def default_levels(hottest: float) -> int:
    """Levels with ratios of temperature of at most 1.5."""
    return 1 + math.ceil(math.log(1 / hottest) / math.log(1.5)) if hottest < 1 else 1
