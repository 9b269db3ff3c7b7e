"""`sample`: draws from exp(-beta E) by any of the methods, with steps that choose themselves and diagnostics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.sampling.annealing import anneal, default_levels, temperature_levels
from landscape.sampling.convergence import ChainDiagnostics, Crossings, count_crossings, diagnose_chains
from landscape.sampling.driver import Kernel, run, warm_up
from landscape.sampling.hamiltonian import Ghmc, Hmc
from landscape.sampling.langevin import LMC_STABILITY, Baoab, Lmc
from landscape.sampling.mala import Mala
from landscape.sampling.metropolis import Chains
from landscape.sampling.step_size import curvature_along
from landscape.sampling.tempering import Tempering, exchange_acceptance, find_ladder, hottest_ratio

METHODS = ("lmc", "mala", "hmc", "ghmc", "baoab", "annealed", "tempering")
UNADJUSTED = ("lmc", "baoab", "annealed")
SEGMENTS = 4  # of the warm-up; the curvature is looked at again before each
LABELLED_DRAWS = 200  # of each chain that are assigned to a basin, at most about twice as many
LEAST_CHAINS = 4

Label = Callable[[torch.Tensor], Any]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class SampleOptions:
    """How `sample` samples.

    method : one of METHODS. n_draws : of each chain. warm_up : sweeps before, discarded, in which steps are found.
    thin : sweeps between two draws, by default 10 for lmc and annealed, whose steps are small, and 1 for the others.
    step_size : of the kernel (a length; for lmc and annealed eta, a length squared), None to let it choose itself.
    n_leapfrog : of hmc. persistence : part of the momentum that ghmc and baoab keep.
    hottest : beta of the hottest level of annealed and tempering over beta, None to let it be found.
    """

    method: str = "mala"
    n_draws: int = 1000
    warm_up: int = 500
    thin: int | None = None
    step_size: float | None = None
    n_leapfrog: int = 10
    persistence: float = 0.9
    hottest: float | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"a sampling method is one of {', '.join(METHODS)}, not {self.method!r}")
        for name, least in (("n_draws", 8), ("warm_up", SEGMENTS), ("sweeps_per_draw", 1), ("n_leapfrog", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(f"{name} of sampling is a whole number of at least {least}, not {value!r}")
        if self.step_size is not None and not (math.isfinite(self.step_size) and self.step_size > 0):
            raise UsageError(f"a step size is finite and greater than 0, not {self.step_size!r}")
        if self.hottest is not None and not 0 < self.hottest < 1:
            raise UsageError(f"the hottest level is a part of beta between 0 and 1, not {self.hottest!r}")
        if self.step_size is not None and self.method == "tempering":
            raise UsageError("tempering has one step a temperature and finds them itself: leave the step size out")

    @property
    def sweeps_per_draw(self) -> int:
        return self.thin if self.thin is not None else 10 if self.method in ("lmc", "annealed") else 1


@dataclass(frozen=True)
class Samples:
    """What `sample` returns.

    x (n_draws, n_chains, d), energy (n_draws, n_chains). step_size (g,) : one a level for tempering, else one.
    acceptance : mean, of the local moves; nan where every move is accepted. stopped (n_chains,) : chains that ran into
    a non-finite energy; they are left out of the diagnostics. diagnostics : of the energy and each coordinate.
    crossings : None without labels. betas (K,), exchange (K - 1,) : the levels, coldest first, and how often
    neighbours exchange; one level for methods without. beta, method : as asked for. converged : nothing speaks
    against it, and reason says what does. notes : what else should be known.
    """

    x: np.ndarray
    energy: np.ndarray
    beta: float
    method: str
    step_size: np.ndarray
    acceptance: float
    stopped: np.ndarray
    diagnostics: ChainDiagnostics
    crossings: Crossings | None
    betas: np.ndarray
    exchange: np.ndarray
    converged: bool
    reason: str
    notes: tuple[str, ...]


def sample(
    energy: Energy,
    beta: float,
    starts: torch.Tensor | np.ndarray,
    options: SampleOptions,
    generator: torch.Generator,
    label: Label | None = None,
    n_basins: int = 0,
    progress: Progress | None = None,
) -> Samples:
    """Draw from exp(-beta E) by chains from `starts` (n_chains, d), all in one batch.

    label : positions (m, d), a float64 tensor -> (m,) integers below n_basins: the basin of each, -1 for none known.
    The starts should be spread over all basins: chains that agree with one another have then forgotten them.
    UsageError for fewer than 4 chains or a start without a finite energy.
    """
    x = torch.as_tensor(starts, dtype=torch.float64)
    if x.ndim != 2 or x.shape[1] != energy.dim or len(x) < LEAST_CHAINS:
        raise UsageError(f"chains start at {LEAST_CHAINS} or more points (n, {energy.dim}), not {tuple(x.shape)}")
    if not (math.isfinite(beta) and beta > 0):
        raise UsageError(f"beta is finite and greater than 0, not {beta!r}")
    state = Chains.init(energy, x)
    if not bool(state.energy.isfinite().all()):
        raise UsageError("chains need starts with a finite energy and gradient: choose others")
    session = _Session(energy, float(beta), options, generator, progress or (lambda text: None))
    return session.draw(*session.warmed(state), label, n_basins)


class _Session:
    """One call of `sample`: warm-up by method, then drawing."""

    def __init__(
        self, energy: Energy, beta: float, options: SampleOptions, generator: torch.Generator, progress: Progress
    ) -> None:
        self.energy, self.beta, self.options = energy, beta, options
        self.generator, self.progress = generator, progress

    def warmed(self, state: Chains) -> tuple[Chains, Kernel]:
        """The chains after the warm-up, and the kernel that it arrived at."""
        options = self.options
        if options.method == "tempering":
            return self._tempered(state)
        if options.method == "annealed":
            return self._annealed(state)
        kernel = self._kernel(options.step_size or 1.0)
        if options.step_size is not None:
            state, _ = run([kernel], self.energy, self.beta, state, options.warm_up, self.generator)
            return state, kernel
        for segment in range(SEGMENTS):
            self.progress(f"{options.method}: warm-up, part {segment + 1} of {SEGMENTS}")
            if segment == 0 or not kernel.exact:
                kernel = kernel.stabilised(self._curvature(state))
            sweeps = options.warm_up // SEGMENTS
            state, (kernel,) = warm_up([kernel], self.energy, self.beta, state, sweeps, self.generator)
        return state, kernel if kernel.exact else kernel.stabilised(self._curvature(state))

    def draw(self, state: Chains, kernel: Kernel, label: Label | None, n_basins: int) -> Samples:
        options, levels = self.options, len(kernel.ratios) if isinstance(kernel, Tempering) else 1
        n = len(state.x) // levels
        x = np.empty((options.n_draws, n, self.energy.dim))
        energy = np.empty((options.n_draws, n))
        thin, sweep, ladder = options.sweeps_per_draw, 0, np.zeros(levels - 1)

        def observe(chains: Chains) -> None:
            nonlocal sweep
            sweep += 1
            if levels > 1:
                assert isinstance(kernel, Tempering)
                ladder[:] += exchange_acceptance(kernel, self.beta, chains.energy[None])
            if sweep % thin == 0:
                draw = sweep // thin - 1
                x[draw], energy[draw] = chains.x[:n].numpy(), chains.energy[:n].numpy()
                self.progress(f"{options.method}: {draw + 1:,} of {options.n_draws:,} draws of {n} chains")

        sweeps = options.n_draws * thin
        state, accepted = run([kernel], self.energy, self.beta, state, sweeps, self.generator, observe)
        stopped = state.stopped[:n].numpy()
        crossings = None if label is None else self._crossings(x, label, n_basins)
        return self._summed_up(x, energy, kernel, accepted[0], stopped, crossings, ladder / sweeps)

    def _summed_up(
        self, x: np.ndarray, energy: np.ndarray, kernel: Kernel, acceptance: float, stopped: np.ndarray,
        crossings: Crossings | None, exchange: np.ndarray,
    ) -> Samples:  # fmt: skip
        at_work = ~stopped
        if at_work.sum() < 2:
            raise UsageError(
                f"{stopped.sum()} of {len(stopped)} chains ran into a non-finite energy: choose a smaller step size, "
                "or a method with a Metropolis decision (mala, hmc)"
            )
        names = ("energy", *(f"x_{k}" for k in range(x.shape[2])))
        values = np.concatenate([energy[:, at_work, None], x[:, at_work]], axis=2)
        diagnostics = diagnose_chains(values, names)
        doubts = diagnostics.doubts + (crossings.doubts if crossings is not None else [])
        if stopped.any():
            doubts.insert(0, f"{stopped.sum()} of {len(stopped)} chains ran into a non-finite energy: smaller steps")
        steps = torch.as_tensor(getattr(_local(kernel), "step_size", np.nan), dtype=torch.float64).reshape(-1).numpy()
        ratios = kernel.ratios.numpy() if isinstance(kernel, Tempering) else np.ones(1)
        return Samples(
            x, energy, self.beta, self.options.method, steps, acceptance if kernel.exact else math.nan, stopped,
            diagnostics, crossings, self.beta * ratios, exchange, not doubts, "; ".join(doubts), self._notes(),
        )  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        if self.options.method not in UNADJUSTED:
            return ()
        text = "every move is accepted, so the draws are of a distribution that is off by what the step is worth"
        if self.options.step_size is None and self.options.method != "baoab":
            text += (
                f": variances in the stiffest direction by up to {0.5 * LMC_STABILITY / (1 - 0.5 * LMC_STABILITY):.1%}"
            )
        return (text,)

    def _crossings(self, x: np.ndarray, label: Label, n_basins: int) -> Crossings:
        stride = max(1, len(x) // LABELLED_DRAWS)
        chosen = x[stride - 1 :: stride]
        self.progress(f"{self.options.method}: assigning draws to basins")
        labels = np.asarray(label(torch.as_tensor(chosen.reshape(-1, x.shape[2])))).reshape(chosen.shape[:2])
        return count_crossings(labels, max(n_basins, int(labels.max()) + 1), stride)

    def _curvature(self, state: Chains) -> float:
        return self.beta * curvature_along(self.energy, state.x, self.generator)

    def _kernel(self, step_size: float) -> Kernel:
        options = self.options
        kernels: dict[str, Callable[[], Kernel]] = {
            "lmc": lambda: Lmc(step_size),
            "mala": lambda: Mala(None, step_size),
            "hmc": lambda: Hmc(step_size, options.n_leapfrog),
            "ghmc": lambda: Ghmc(step_size, persistence=options.persistence),
            "baoab": lambda: Baoab(step_size, options.persistence),
        }
        return kernels[options.method]()

    def _hottest(self, state: Chains) -> float:
        self.progress(f"{self.options.method}: looking for the temperature at which chains move freely")
        if self.options.hottest is not None:
            return self.options.hottest
        return hottest_ratio(self.energy, self.beta, state.x, self.options.warm_up, self.generator)

    def _tempered(self, state: Chains) -> tuple[Chains, Kernel]:
        hottest = min(self._hottest(state), 0.5)
        self.progress("tempering: placing the levels")
        kernel, rows = find_ladder(self.energy, self.beta, state, hottest, self.options.warm_up, self.generator)
        return rows, kernel

    def _annealed(self, state: Chains) -> tuple[Chains, Kernel]:
        hottest = self._hottest(state)
        step = self.options.step_size or LMC_STABILITY / self._curvature(state)
        levels = temperature_levels(self.energy, self.beta, hottest, default_levels(hottest), step)
        self.progress(f"annealed: {len(levels)} levels")
        steps = math.ceil(self.options.warm_up / len(levels))
        end = anneal(levels, state.x, steps, self.generator)
        return replace(end, momentum=None), Lmc(step)


def _local(kernel: Kernel) -> Kernel:
    return kernel.local if isinstance(kernel, Tempering) else kernel
