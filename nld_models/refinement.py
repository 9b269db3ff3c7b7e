"""Second stage of training: the energy is changed, as little as possible, until its kinetics are those of the labels.

An ELBO with Gaussian marginals pays for every jump and every flicker of the posterior, and each energy it leads to has
single rates 20 to 60 % off. The labels of the posterior (its means, followed down the energy) are better than that:
over a lag of about one relaxation time their transitions are those of the data within a few per cent, whatever a label
does for a frame or two. So, without any true label:

    target   Q = log(T) / lag of the labels, and its stationary weights w
    now      the same from paths simulated in the learned landscape, and exact basin masses by importance sampling
    change   the energy network moves by the least path KL (`least_change`) such that
             - the flux F_ij = w_i k_ij of every pair of states with a saddle moves from now to target,
               d ln F_ij = -<dE> - d ln Z, the mean over N(x_s, |H_s|^-1), the density in which a crossing is decided
               (|grad q|^2 exp(-E) of Langer's committor q),
             - the basin masses are w,
             - the harmonic weights exp(-E_i) / sqrt(det H_i) are w as well: wells stay regular,

repeated until the simulated fluxes agree with the target within `TOLERANCE` and both weights within `WEIGHT_TOLERANCE`,
or `MAX_ROUNDS` are over. The best round counts. Encoder, decoder, friction and mass stay. Underdamped paths are
simulated with their momenta; that their fluxes change with the energy around the saddle as overdamped ones do is true
at strong friction, and otherwise a first guess that the rounds correct.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape.dynamics import Dynamics
from landscape.energy import Energy
from landscape.search import assign_basins, make_basins
from landscape.tasks import Workers
from landscape.weights.wells import Wells
from nld_models.checkpoint import SavedModel, model_tensors, read_file, write_file
from nld_models.data import DataError, SequenceData
from nld_models.evaluation import encode
from nld_models.kinetics import (
    Label,
    counting_lag,
    lagged_counts,
    rates_of,
    resolved_step,
    simulated_counts,
    stationary_of,
    transition_matrix,
)
from nld_models.landscape_adapter import LearnedStates, find_states
from nld_models.least_change import FlatNetwork, LeastChange
from nld_models.model import LatentModel

MAX_ROUNDS = 4
NEWTON_STEPS = 4
TOLERANCE = 0.08  # of a log flux; 8,000 paths leave a noise of about .03
WEIGHT_TOLERANCE = 0.008  # l1 distance of basin masses, or of harmonic weights, to w; the masses' noise is about .003
PATHS = 8000
STEP_RESOLUTION = 0.3  # Heun and BAOAB are of second order: an error of a few per cent of a rate at worst
MASS_POINTS = 2**17  # masses to about .002
SLOPE_POINTS = 2**13  # of them, for how the masses change
CLOUD = 128  # points in each transition region
COST_POINTS = 400
MAX_SHARE_OUTSIDE = 1e-3  # states with less of the labels than this are left as they are
MAX_CHANGE = 1.0  # kT: of the energy at the points of the data, in one step
MAX_MOVE = 0.3  # of a minimum in one Newton step
MIN_FLUX = 0.05  # of the largest: below, a pair's flux is not known well enough to be a target


@dataclass(frozen=True, eq=False)
class Latents:
    """Posterior means and standard deviations of one seed, (n, T, d), and which frames exist, (n, T)."""

    mean: np.ndarray
    sd: np.ndarray
    frames: np.ndarray

    def draws(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """n posterior samples at frames drawn at random, (n, d), float64."""
        mean, sd = self.mean[self.frames], self.sd[self.frames]
        rows = torch.randint(len(mean), (n,), generator=generator).numpy()
        noise = torch.randn(n, mean.shape[1], generator=generator, dtype=torch.float64)
        return torch.from_numpy(mean[rows]) + torch.from_numpy(sd[rows]) * noise


@dataclass(frozen=True, eq=False)
class Refinement:
    """What the second stage did to one seed.

    lag : frames, of target, before and after. states (n,) : rows of the analysis that took part. target, before, after
    (n, n) : rates of the labels, and of the simulated landscape at both ends. cost : path KL of the change, nats a
    frame. rounds : simulations. outcome : "refined", or why not.
    """

    lag: int
    states: np.ndarray
    target: np.ndarray
    before: np.ndarray
    after: np.ndarray
    cost: float
    rounds: int
    outcome: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data, null for what is not finite."""
        record = asdict(self) | {"states": self.states.tolist()}
        for name in ("target", "before", "after"):
            rows = getattr(self, name).tolist()
            record[name] = [[value if math.isfinite(value) else None for value in row] for row in rows]
        return record


def refine_model(
    saved: SavedModel,
    data: SequenceData,
    *,
    path: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
    processes: int = 1,
) -> tuple[SavedModel, tuple[Refinement, ...]]:
    """Refine every seed on its training data; a model that was refined before is returned as it is, with ().

    path : the model's file, rewritten when all seeds are done. A seed whose states would change in number stays as
    training left it, and its outcome says so. processes : seeds refined at once, each in a process of its own where
    there are several; these are spawned, so that a script needs the usual `if __name__ == "__main__"`. Each uses
    one thread, and where this process does too the result does not depend on their number.
    """
    if "refinement" in saved.document:
        return saved, ()
    report = progress or (lambda text: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(threads, processes))  # the seeds' products are shared out; their bits stay
    try:
        means, sds = encode(saved, data)
    finally:
        torch.set_num_threads(threads)
    seeds = saved.model.seeds
    latents = [Latents(means[k], sds[k], data.frames) for k in range(len(seeds))]
    found: list[tuple[nn.Module | None, Refinement]] = []
    if min(processes, len(seeds)) > 1:
        with Workers(min(processes, len(seeds))) as executor:
            report(f"refining seeds {seeds[0]} to {seeds[-1]}, {executor.n} at once")
            waiting = [executor.submit(_refine_seed, saved.model, k, latents[k]) for k in range(len(seeds))]
            for seed, future in zip(seeds, waiting, strict=True):
                found.append(future.result())
                report(f"refining seed {seed}: {found[-1][1].outcome} ({found[-1][1].rounds} rounds)")
    else:
        for k, seed in enumerate(seeds):
            found.append(_refine_seed(saved.model, k, latents[k], functools.partial(_tell, report, seed)))
    for k, (network, _) in enumerate(found):
        if network is not None:
            saved.model.prior.energy.restack(k, network)
    results = tuple(result for _, result in found)
    record = [{"seed": seed, **result.as_dict()} for seed, result in zip(seeds, results, strict=True)]
    document = {**saved.document, "refinement": record}
    if path is not None:
        tensors, _ = read_file(Path(path))
        write_file(Path(path), tensors | model_tensors(saved.model), document)
    return SavedModel(saved.model, saved.mean, saved.scale, document), results


def _refine_seed(
    model: LatentModel, k: int, latents: Latents, tell: Callable[[str], None] | None = None
) -> tuple[nn.Module | None, Refinement]:
    """The refined energy network of seed k, None where it stays as it is, and what was done."""
    generator = torch.Generator().manual_seed(2**33 + model.seeds[k])
    states = find_states(model, k, weights=False)
    network, found = refine(states, states.dynamics, latents, generator, tell)
    if not found.rounds:
        return None, found
    changed = copy.deepcopy(model)
    changed.prior.energy.restack(k, network)
    if find_states(changed, k, weights=False).n_states != states.n_states:
        return None, replace(found, after=found.before, cost=0.0, outcome="not refined: the states would change")
    return network, found


def _tell(report: Callable[[str], None], seed: int, text: str) -> None:
    report(f"refining seed {seed}: {text}")


def refine(
    states: LearnedStates,
    dynamics: Dynamics,
    latents: Latents,
    generator: torch.Generator,
    progress: Callable[[str], None] | None = None,
) -> tuple[nn.Module, Refinement]:
    """A copy of the energy network of `states` with the kinetics of the labels, frozen, in float64."""
    return _Refiner(states, dynamics, latents, generator, progress or (lambda text: None)).run()


class _Refiner:
    def __init__(
        self,
        states: LearnedStates,
        dynamics: Dynamics,
        latents: Latents,
        generator: torch.Generator,
        report: Callable[[str], None],
    ) -> None:
        self.dynamics, self.generator, self.report = dynamics, generator, report
        network = states.energy.function
        assert isinstance(network, nn.Module)
        self.module = copy.deepcopy(network).double().requires_grad_(False)
        self.energy = Energy(self.module, states.energy.dim, dtype=torch.float64)
        labels = np.full(latents.frames.shape, -1)
        labels[latents.frames] = states.label(latents.mean[latents.frames])
        share = np.bincount(labels[labels >= 0], minlength=states.n_states) / max(1, (labels >= 0).sum())
        self.states = np.flatnonzero(share > MAX_SHARE_OUTSIDE)
        self.n = len(self.states)
        self.new = np.full(states.n_states + 1, -1)  # the last entry is that of label -1
        self.new[self.states] = np.arange(self.n)
        self.labels = self.new[labels]
        self.analysis = states.analysis
        self.minima = self.analysis.states.x[self.states].copy()
        self.label: Label = lambda x: self.new[states.label(x)]
        self.draws = latents.draws(4 * PATHS, generator)

    def run(self) -> tuple[nn.Module, Refinement]:
        if self.n < 2:
            return self._nothing("fewer than two states in the data")
        self.lag = counting_lag(self.labels, self.n)
        counts = lagged_counts(self.labels, self.n, self.lag)
        if not (counts.sum(1) > 0).all():
            return self._nothing("a state that no label shows long enough")
        matrix = transition_matrix(counts)
        self.target = rates_of(matrix, self.lag)
        if not np.isfinite(self.target).all():
            return self._nothing("the label transitions have no rate matrix at their lag")
        self.weights = stationary_of(matrix)
        self.starts = self._balanced(self.draws)
        self._find_regions()
        if not self.pairs:
            return self._nothing("no saddle joins two states with a known flux")
        return self._rounds()

    def _balanced(self, draws: torch.Tensor) -> torch.Tensor:
        """Equal numbers of draws from every state, so that rates out of a rare one are counted as well."""
        labels, share = self.label(draws.numpy()), PATHS // self.n
        rows = [np.flatnonzero(labels == i) for i in range(self.n)]
        return torch.cat([draws[np.resize(found, share)] for found in rows if len(found)])

    def _find_regions(self) -> None:
        """Pairs with a saddle and a flux worth a target; points around their lowest saddle; points for the masses."""
        saddles, flux = self.analysis.saddles, self._flux(self.target, self.weights)
        self.pairs, self.clouds = [], []
        for i in range(self.n):
            for j in range(i + 1, self.n):
                ends = np.sort(self.new[saddles.joins], axis=1)
                rows = np.flatnonzero((ends == (i, j)).all(1))
                if not len(rows) or flux[i, j] < MIN_FLUX * flux.max():
                    continue
                row = rows[np.argmin(saddles.energy[rows])]
                values, vectors = np.linalg.eigh(self.energy.hessian(saddles.x[[row]])[0])
                spread = vectors / np.sqrt(self.dynamics.beta * np.abs(values))
                normal = torch.randn(CLOUD, len(spread), generator=self.generator, dtype=torch.float64)
                self.pairs.append((i, j))
                self.clouds.append(torch.from_numpy(saddles.x[row]) + normal @ torch.from_numpy(spread.T))
        hessians = self.energy.hessian(self.minima)
        mixture = Wells.at(self.energy, self.minima, hessians, self.dynamics.beta).mixture(1.3, 0.2, 0.5, 5)
        self.points = mixture.sample(MASS_POINTS, self.generator)
        self.log_proposal = mixture.log_density(self.points)
        self.point_labels = torch.from_numpy(self.label(self.points.numpy()))

    def _rounds(self) -> tuple[nn.Module, Refinement]:
        self.flat = FlatNetwork(self.module)
        # Between the wells as well, where the data say little: the change has to be smooth there too.
        seen = torch.cat([self.draws[:COST_POINTS], self.points[:COST_POINTS], *self.clouds])
        solver = LeastChange(self.flat, self.dynamics, seen)
        target = self._flux(self.target, self.weights)
        scores, rates, vectors = [], [], []
        outcome = "refined"
        for number in range(MAX_ROUNDS + 1):
            found = self._simulated_rates()
            if not np.isfinite(found).all():
                outcome = "refined as far as the simulated rates could be read"
                break
            v = self.flat.vector()
            masses = self._log_masses(v, slice(None))[0].exp().numpy()
            harmonic = self._log_harmonic(v).exp().numpy()
            flux = self._flux(found, masses)
            error = np.array([np.log(target[pair] / max(flux[pair], 1e-3 * target[pair])) for pair in self.pairs])
            farthest = float(np.abs(error).max())
            distance = max(float(np.abs(w - self.weights).sum()) for w in (masses, harmonic))
            scores.append(max(farthest / TOLERANCE, distance / WEIGHT_TOLERANCE))
            rates.append(found)
            vectors.append(v)
            self.report(f"round {number}: fluxes off by up to {np.expm1(farthest):.0%}, weights by {distance:.3f}")
            if scores[-1] < 1 or number == MAX_ROUNDS:
                break
            # Half steps after the first: what is left then is largely the noise of the simulation.
            gain = 1.0 if number == 0 else 0.5
            if not self._move(solver, torch.from_numpy(gain * np.clip(error, -1, 1))):
                outcome = "refined until a minimum was about to vanish"
                break
        if not scores:
            return self._nothing("the simulated landscape has no rate matrix at the lag of the labels")
        best = int(np.argmin(scores))
        self.flat.set(vectors[best])
        cost = solver.cost(vectors[best] - vectors[0])
        return self.module, Refinement(
            self.lag, self.states, self.target, rates[0], rates[best], cost, len(scores), outcome
        )

    def _simulated_rates(self) -> np.ndarray:
        # A 32-bit copy: paths are chaotic anyhow, and it takes half the time.
        energy = Energy(copy.deepcopy(self.module).float(), self.energy.dim, dtype=torch.float32)
        step = resolved_step(self.energy, self.dynamics, torch.from_numpy(self.minima), STEP_RESOLUTION)
        try:
            counts = simulated_counts(
                energy, self.dynamics, self.label, self.n, self.starts, self.lag, step, self.generator
            )
        except DataError:
            return np.full((self.n, self.n), np.nan)
        return rates_of(transition_matrix(counts), self.lag)

    def _move(self, solver: LeastChange, change: torch.Tensor) -> bool:
        """Newton steps to the goal; False, and the network as before, if a minimum is lost on the way."""
        before, minima = self.flat.vector(), self.minima.copy()
        target, pairs = torch.from_numpy(np.log(self.weights)), len(self.pairs)
        now, masses = self._conditions(before), self._log_masses(before, slice(None))[0]
        # What the few points say of the masses, corrected by what all of them say.
        goal = torch.cat([now[:pairs] + change, now[pairs : pairs + self.n] + target - masses, target])
        near = torch.cat([self.draws[:1000], *self.clouds])
        for _ in range(NEWTON_STEPS):
            v = self.flat.vector()
            step = solver.step(self._conditions, goal)
            moved = (self.flat.energy(v + step, near) - self.flat.energy(v, near)).abs().max()
            self.flat.set(v + step * min(1.0, MAX_CHANGE / max(float(moved), 1e-12)))
            if not self._follow_minima():
                self.flat.set(before)
                self.minima = minima
                return False
        basins = make_basins(self.energy, self.minima, self.generator)
        self.label = lambda x: assign_basins(self.energy, x, basins)
        self.point_labels = torch.from_numpy(self.label(self.points.numpy()))
        return True

    def _conditions(self, v: torch.Tensor) -> torch.Tensor:
        """Log fluxes up to constants, log masses by few points, log harmonic weights: (pairs + 2 n,)."""
        beta = self.dynamics.beta
        masses, log_z = self._log_masses(v, slice(SLOPE_POINTS))
        fluxes = [-beta * self.flat.energy(v, cloud).mean() - log_z for cloud in self.clouds]
        return torch.cat([torch.stack(fluxes), masses, self._log_harmonic(v)])

    def _log_harmonic(self, v: torch.Tensor) -> torch.Tensor:
        """Log of exp(-beta E_i) / sqrt(det H_i) at the minima, summing to 1: (n,)."""
        x = torch.from_numpy(self.minima)
        return torch.log_softmax(
            -self.dynamics.beta * self.flat.energy(v, x) - 0.5 * torch.logdet(self.flat.hessians(v, x)), 0
        )

    def _log_masses(self, v: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Log of the basins' shares (n,) and of the integral of exp(-beta E), by importance sampling."""
        log_weights = -self.dynamics.beta * self.flat.energy(v, self.points[rows]) - self.log_proposal[rows]
        labels = self.point_labels[rows]
        log_z = torch.logsumexp(log_weights, 0)
        shares = [torch.logsumexp(log_weights[labels == i], 0) - log_z for i in range(self.n)]
        return torch.stack(shares), log_z - math.log(len(labels))

    def _follow_minima(self) -> bool:
        """Newton's method from where the minima were; False if one is none any more."""
        x = self.minima
        for _ in range(4):
            hessians = self.energy.hessian(x)
            if not (np.linalg.eigvalsh(hessians) > 0).all():
                return False
            step = np.linalg.solve(hessians, self.energy.gradient(x)[..., None])[..., 0]
            length = np.linalg.norm(step, axis=1, keepdims=True)
            x = x - step * np.minimum(1.0, MAX_MOVE / np.maximum(length, 1e-12))
        self.minima = x
        return True

    @staticmethod
    def _flux(rates: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """w_i k_ij, both directions averaged, (n, n)."""
        flux = weights[:, None] * rates
        np.fill_diagonal(flux, 0.0)
        return 0.5 * (flux + flux.T)

    def _nothing(self, why: str) -> tuple[nn.Module, Refinement]:
        empty = np.full((self.n, self.n), np.nan)
        return self.module, Refinement(0, self.states, empty, empty, empty, 0.0, 0, why)
