"""Parallel tempering: replicas at several temperatures that exchange positions, on a ladder that places itself.

S. Syed, A. Bouchard-Cote, G. Deligiannidis and A. Doucet, J. R. Stat. Soc. B 84, 321 (2022): even and odd pairs in
turn, levels at equal steps of the communication barrier, the summed rejection between neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.sampling.convergence import split_r_hat
from landscape.sampling.driver import Kernel, run, warm_up
from landscape.sampling.mala import Mala
from landscape.sampling.metropolis import Beta, Chains
from landscape.sampling.step_size import StepSize, curvature_along

SWAP_ACCEPTANCE = 0.6  # wanted between neighbours
MIXED = 1.03  # R-hat below which the chains of the hottest level count as having forgotten their starts
PILOT_SWEEPS = 500  # at least: in fewer, R-hat stays above that limit even where chains move freely
MOST_HALVINGS = 10  # of beta, down to the hottest level
MOST_LEVELS = 40
STAGES = 4  # of running, measuring and placing the levels anew


@dataclass(frozen=True)
class Tempering:
    """K levels at inverse temperatures beta * ratios, ratios[0] = 1; the chains of level k are rows k C .. (k + 1) C.

    One step: a local move, exchanges between levels 0-1, 2-3, ..., a local move, exchanges between 1-2, 3-4, .... An
    exchange is accepted with probability min(1, exp((beta_k - beta_l)(E_k - E_l))). Only the first C rows are draws
    from exp(-beta E). ratios (K,), falling; local : with one step a level.
    """

    ratios: torch.Tensor
    local: Mala

    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratios", self.ratios.to(torch.float64))
        if self.ratios[0] != 1 or not bool((self.ratios.diff() < 0).all() and (self.ratios > 0).all()):
            raise UsageError(f"the ratios of a ladder begin with 1 and fall towards 0, not {self.ratios.tolist()}")

    def betas(self, beta: Beta, n_rows: int) -> torch.Tensor:
        """The inverse temperature of every row, (n_rows,)."""
        return beta * self.ratios.repeat_interleave(n_rows // len(self.ratios))

    def step(
        self, energy: Energy, beta: Beta, state: Chains, generator: torch.Generator
    ) -> tuple[Chains, torch.Tensor]:
        """See `Kernel.step`; the acceptance is that of the local moves."""
        betas = self.betas(beta, len(state.x))
        total = torch.zeros_like(betas)
        for parity in range(2):
            state, acceptance = self.local.step(energy, betas, state, generator)
            state = self._exchanged(state, betas, parity, generator)
            total += 0.5 * acceptance
        return state, total

    def _exchanged(self, state: Chains, betas: torch.Tensor, parity: int, generator: torch.Generator) -> Chains:
        levels = len(self.ratios)
        row = torch.arange(len(state.x)).reshape(levels, -1)
        low = torch.arange(parity, levels - 1, 2)
        if not len(low):
            return state
        accept = log_exchange(state.energy.reshape(levels, -1), betas.reshape(levels, -1))[low]
        uniform = torch.rand(accept.shape, dtype=torch.float64, generator=generator)
        take = uniform.log() < accept
        lower, upper = row[low], row[low + 1]
        row[low], row[low + 1] = torch.where(take, upper, lower), torch.where(take, lower, upper)
        return state.rows(row.reshape(-1))

    def adapted(self, acceptance: torch.Tensor, step: int) -> Tempering:
        """See `Kernel.adapted`: of the local moves."""
        return replace(self, local=self.local.adapted(acceptance, step))

    def settled(self) -> Tempering:
        """See `Kernel.settled`."""
        return replace(self, local=self.local.settled())

    def stabilised(self, curvature: StepSize) -> Tempering:
        """See `Kernel.stabilised`; curvature at the coldest level."""
        return replace(self, local=self.local.stabilised(curvature * self.ratios))


def log_exchange(energy: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
    """log of the exchange probabilities between neighbouring levels: energies, betas (K, C) -> (K - 1, C)."""
    log_ratio = (betas[:-1] - betas[1:]) * (energy[:-1] - energy[1:])
    return log_ratio.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).clamp_max(0)


def exchange_acceptance(kernel: Tempering, beta: float, energies: torch.Tensor) -> np.ndarray:
    """Mean exchange probability between neighbouring levels, (K - 1,), from energies (n_sweeps, n_rows)."""
    levels = len(kernel.ratios)
    rows = energies.reshape(len(energies), levels, -1).transpose(0, 1).reshape(levels, -1)
    betas = (beta * kernel.ratios)[:, None].expand_as(rows)
    return log_exchange(rows, betas).exp().mean(1).numpy()


def hottest_ratio(energy: Energy, beta: float, x: torch.Tensor, n_sweeps: int, generator: torch.Generator) -> float:
    """The part of beta at which chains from x (n, d) forget their starts within n_sweeps moves, or 500 if that is more.

    beta is halved, at most ten times, until chains of Metropolis-adjusted Langevin moves from x have R-hat below 1.03
    in every coordinate. The starts must lie in all the basins between which the chains are to move.
    """
    state, ratio, n_sweeps = Chains.init(energy, x), 1.0, max(n_sweeps, PILOT_SWEEPS)
    for _ in range(MOST_HALVINGS):
        pilot = Mala(None, 1.0).stabilised(beta * ratio * curvature_along(energy, state.x, generator))
        settled, kernels = warm_up([pilot], energy, beta * ratio, state, n_sweeps // 2, generator)
        _, seen = _recorded(kernels[0], energy, beta * ratio, settled, n_sweeps, generator, lambda chains: chains.x)
        r_hat = split_r_hat(seen.numpy())
        if np.isfinite(r_hat).all() and r_hat.max() < MIXED:
            break
        ratio /= 2
    return ratio


def find_ladder(
    energy: Energy, beta: float, state: Chains, hottest: float, n_sweeps: int, generator: torch.Generator
) -> tuple[Tempering, Chains]:
    """A ladder from 1 down to `hottest` whose neighbours exchange with about the same probability, .6 or more.

    state : C chains; returns the kernel and its K C rows. Four times: run with adaptation, measure the rejections r_k
    between neighbours, put ceil(sum r / .4) + 1 levels (40 at most) at equal steps of their running sum.
    """
    levels = max(2, 1 + math.ceil(2 * math.log2(1 / hottest)))
    ratios = torch.as_tensor(np.geomspace(1, hottest, min(levels, MOST_LEVELS)))
    n, curvature = len(state.x), beta * curvature_along(energy, state.x, generator)
    kernel = Tempering(ratios, Mala(None, torch.ones_like(ratios))).stabilised(curvature)
    rows = state.rows(torch.arange(n).repeat(len(ratios)))
    for stage in range(STAGES):
        rows, (adapted,) = warm_up([kernel], energy, beta, rows, n_sweeps // 2, generator)
        assert isinstance(adapted, Tempering)
        kernel = adapted
        rows, energies = _recorded(kernel, energy, beta, rows, n_sweeps // 2, generator, lambda chains: chains.energy)
        if stage == STAGES - 1:
            break
        accepted = exchange_acceptance(kernel, beta, energies)
        old, new = kernel.ratios, torch.as_tensor(_placed(kernel.ratios.numpy(), accepted))
        log_step = torch.as_tensor(kernel.local.step_size).log().numpy()
        log_step = np.interp(-new.log().numpy(), -old.log().numpy(), log_step)
        kernel = Tempering(new, replace(kernel.local, step_size=torch.as_tensor(np.exp(log_step))))
        # Every level goes on from the chains of the old level next to it in temperature.
        nearest = (new.log()[:, None] - old.log()).abs().argmin(1)
        rows = rows.rows((nearest[:, None] * n + torch.arange(n)).reshape(-1))
    return kernel, rows


def _recorded(
    kernel: Kernel, energy: Energy, beta: float, state: Chains, n_sweeps: int, generator: torch.Generator,
    what: Callable[[Chains], torch.Tensor],
) -> tuple[Chains, torch.Tensor]:  # fmt: skip
    """Run, and stack what was seen of the chains after each sweep."""
    seen: list[torch.Tensor] = []
    state, _ = run([kernel], energy, beta, state, n_sweeps, generator, lambda chains: seen.append(what(chains)))
    return state, torch.stack(seen)


def _placed(ratios: np.ndarray, acceptance: np.ndarray) -> np.ndarray:
    """New ratios at equal steps of the summed rejection, which is taken to grow evenly in log ratio in between."""
    barrier = np.concatenate([[0], np.cumsum(np.maximum(1 - acceptance, 1e-3))])
    levels = int(np.clip(math.ceil(barrier[-1] / (1 - SWAP_ACCEPTANCE)) + 1, 2, MOST_LEVELS))
    places = np.interp(np.linspace(0, barrier[-1], levels), barrier, np.log(ratios))
    new = np.exp(places)
    new[0], new[-1] = 1.0, ratios[-1]
    return new
