"""Rates counted in simulated trajectories, in any dimension, and what a coarse time step does to them.

    k_ij = N_ij / T_i,  N_ij transitions from last core i to next other core j, T_i the time with last core i.

Trajectories run in one batch, in rounds of equal numbers from every core, so that exits from rare states are
counted as well. Each starts from local equilibrium in its core and is left to itself for five relaxation times before
counting begins. Standard errors come from the differences between trajectories,

    var k = sum_r (N_ij^r - k T_i^r)^2 / T_i^2,

and intervals from the logarithm of k; below 50 counts they are exact Poisson intervals, widened by the overdispersion
seen between trajectories.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import chi2, norm

from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.rates.cores import Cores, relaxation_rates
from landscape.rates.integrators import Integrator, Trajectories, largest_frequency, relaxation_time

STEP = {"overdamped": 0.1, "underdamped": 0.2}  # time step times the largest frequency
BURN_IN = 5.0  # relaxation times
FIRST_ROUND = 4.0  # burn-ins; rounds then double, up to
LONGEST_ROUND = 2.0  # mean lifetimes of the shortest-lived core
FEW_COUNTS = 50
COMPARED = 20  # counts on both sides from which two estimates of a rate are compared
FALSE_ALARM = 1e-3  # of the comparison of the two time steps, over all transitions together
MAIN_EXIT = 0.1  # part of a core's exits from which on a transition must reach the target error
CHECK_EVERY = 100  # steps between looks at the clock
CURVATURE_POINTS = 256
MONITORING = 0.5826  # see _Detector

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class PassageOptions:
    """target_error : relative standard error at which to stop, for each transition that carries a tenth or more of its
    core's exits. budget : seconds after which to stop in any case. trajectories : in one batch. time_step : None
    chooses .1 over the largest curvature (overdamped) or .2 over the largest frequency (underdamped) seen at 256
    points before and 256 points after the burn-in. confidence : of the intervals.
    """

    target_error: float = 0.03
    budget: float = 30.0
    trajectories: int = 2000
    time_step: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not (self.target_error > 0 and self.budget > 0 and self.trajectories >= 8 and 0 < self.confidence < 1):
            raise UsageError(
                f"passages need target_error > 0, budget > 0, 8 or more trajectories, 0 < confidence < 1, not {self}"
            )


@dataclass(frozen=True)
class CountedRates:
    """Rates between n cores at one time step, or several taken together. (n, n) with rows from, columns to.

    rates, standard_error (n, n), interval (n, n, 2) : 1/time; 0 with the interval [0, upper] where nothing was counted.
    counts (n, n), time (n,) : N_ij and T_i. transit (n, n) : part of T_i spent between the last visit to core i and the
    next one, to another core j. trajectories : that were counted. diverged : that were lost to overflow.
    """

    rates: np.ndarray
    standard_error: np.ndarray
    interval: np.ndarray
    counts: np.ndarray
    time: np.ndarray
    transit: np.ndarray
    trajectories: int
    diverged: int

    def relaxation_rates(self) -> np.ndarray:
        """Eigenvalues (n - 1,) of the dynamics seen through the cores; see `landscape.rates.cores.relaxation_rates`."""
        return relaxation_rates(self.rates, self.transit)


@dataclass(frozen=True)
class PassageRates:
    """What `simulate_passages` returns.

    estimate : at time_step and half of it together, if these agree, else at the half step alone.
    at_step, at_half_step : each by itself. discrepancy (n, n) : difference of their log rates over its standard error,
    nan below 20 counts. compatible : no discrepancy is larger than chance allows (false alarm 1 in 1,000 over all).
    scheme, time_step : of the integrator. seconds : used. converged : the target error was reached, nothing diverged
    and the two steps are compatible; reason says why not.
    """

    estimate: CountedRates
    at_step: CountedRates
    at_half_step: CountedRates
    discrepancy: np.ndarray
    compatible: bool
    scheme: str
    time_step: float
    seconds: float
    converged: bool
    reason: str


@dataclass(frozen=True)
class TimeStepEffect:
    """What a coarse time step does to each rate. factor (n, n) : k(time_step) / k(time_step -> 0), nan where either was
    not seen; log_error (n, n) : standard error of log factor; interval (n, n, 2). at_step : the rates at time_step;
    reference : those of continuous time. converged, reason : as in `PassageRates`.
    """

    factor: np.ndarray
    log_error: np.ndarray
    interval: np.ndarray
    time_step: float
    scheme: str
    at_step: CountedRates
    reference: PassageRates
    converged: bool
    reason: str


class _Tally:
    """Sums over trajectories r of N, N^2, N T, T, T^2, from which rates and their variances follow, and of transits."""

    def __init__(self, n: int) -> None:
        self.count, self.count_square, self.count_time = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
        self.time, self.time_square, self.transit = np.zeros(n), np.zeros(n), np.zeros((n, n))
        self.trajectories, self.diverged = 0, 0

    def add(self, counts: np.ndarray, times: np.ndarray, transit: np.ndarray, finite: np.ndarray) -> None:
        counts, times = counts[finite], times[finite]
        self.transit += transit[finite].sum(axis=0)
        self.count += counts.sum(axis=0)
        self.count_square += (counts**2).sum(axis=0)
        self.count_time += (counts * times[:, :, None]).sum(axis=0)
        self.time += times.sum(axis=0)
        self.time_square += (times**2).sum(axis=0)
        self.trajectories += int(finite.sum())
        self.diverged += int((~finite).sum())

    def __add__(self, other: _Tally) -> _Tally:
        result = _Tally(len(self.time))
        for name in vars(result):
            setattr(result, name, getattr(self, name) + getattr(other, name))
        return result

    def rates(self, confidence: float) -> CountedRates:
        total = np.where(self.time > 0, self.time, np.nan)[:, None]
        k = self.count / total
        square = self.count_square - 2 * k * self.count_time + k**2 * self.time_square[:, None]
        error = np.sqrt(np.maximum(square, 0)) / total
        tail = 0.5 * (1 - confidence)
        with np.errstate(divide="ignore", invalid="ignore"):
            # variance of the count over the Poisson one; from a handful of counts it cannot be told
            spread = np.where(self.count >= 5, np.maximum(1.0, square / self.count), 1.0)
            low = np.where(self.count > 0, chi2.ppf(tail, 2 * self.count / spread), 0) * spread / (2 * total)
            high = chi2.ppf(1 - tail, 2 * self.count / spread + 2) * spread / (2 * total)
            width = np.exp(norm.ppf(1 - tail) * error / k)
        many = self.count >= FEW_COUNTS
        interval = np.stack([np.where(many, k / width, low), np.where(many, k * width, high)], axis=-1)
        diagonal = np.arange(len(k))
        k[diagonal, diagonal] = error[diagonal, diagonal] = interval[diagonal, diagonal] = 0
        count, transit = self.count.astype(int), self.transit / total
        return CountedRates(k, error, interval, count, self.time, transit, self.trajectories, self.diverged)


class _Detector:
    """The cores as tensors: which one holds each point.

    A trajectory looked at only every time step h enters a region later than the continuous one, as if the region's
    surface lay -zeta(1/2)/sqrt(2 pi) = .5826 standard deviations of a step's noise further inside (M. Broadie,
    P. Glasserman and S. Kou, Math. Finance 7, 325 (1997)). For a given `noise` (d,), the standard deviations of a
    step in x, or in p if the cores have a momentum part, the surface is moved out by as much. Uncorrected, the
    quartic double well at 1.5 kT and a step of .1 is left 6 % too rarely.
    """

    def __init__(self, cores: Cores, energy: Energy, noise: torch.Tensor | None = None) -> None:
        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(np.array(values), dtype=energy.dtype, device=energy.device)

        self.center, self.form = tensor(cores.center), tensor(cores.form)
        self.factor = tensor(np.linalg.cholesky(cores.form))
        self.momentum = None if cores.momentum_form is None else tensor(cores.momentum_form)
        self.noise = noise
        if noise is not None:
            top = float(np.linalg.eigvalsh(cores.form)[:, -1].max())
            if self.momentum is not None:
                top = float(self.momentum.max())
            self.reach = (1 + MONITORING * math.sqrt(top) * float(noise.max())) ** 2

    def labels(self, x: torch.Tensor, p: torch.Tensor | None) -> torch.Tensor:
        """(n,) integers, -1 for none. Cores are disjoint, so the smallest level decides."""
        scaled = torch.einsum("sji,nsj->nsi", self.factor, x[:, None] - self.center)
        level, label = scaled.square().sum(-1).min(1)
        if p is not None and self.momentum is not None:
            level = level + p.square() @ self.momentum
        inside = level < 1
        if self.noise is not None:
            rows = torch.nonzero(~inside & (level < self.reach))[:, 0]
            if p is None or self.momentum is None:
                normal = torch.einsum("nij,nj->ni", self.form[label[rows]], x[rows] - self.center[label[rows]])
            else:
                normal = p[rows] * self.momentum
            radius = level[rows].sqrt()
            inside[rows] = radius < 1 + MONITORING * (normal * self.noise).norm(dim=1) / radius
        return torch.where(inside, label, -1)


def sample_cores(
    energy: Energy, dynamics: Dynamics, cores: Cores, n: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """n points of local equilibrium in every core: x (n S, d), p (n S, d) or None, core (n S,).

    Uniform in the ellipsoid (of phase space, where cores have a momentum part), accepted with exp(-beta H).
    """
    d, form = energy.dim, cores.momentum_form
    mass = dynamics.mass_vector(d)
    inner = 2 * d if mass is not None and form is not None else d
    positions, momenta = [], []
    for i in range(len(cores)):
        back = np.linalg.inv(np.linalg.cholesky(cores.form[i]))
        found_x, found_p, found = [], [], 0
        while found < n:
            normal = torch.randn(4 * n + 64, 2 * d, generator=generator, dtype=torch.float64, device=generator.device)
            uniform = torch.rand(4 * n + 64, 2, generator=generator, dtype=torch.float64, device=generator.device)
            ball, free, radius = (t.cpu().numpy() for t in (normal[:, :inner], normal[:, d:], uniform))
            ball = ball / np.linalg.norm(ball, axis=1, keepdims=True) * radius[:, :1] ** (1 / inner)
            x = cores.center[i] + ball[:, :d] @ back
            exponent = -dynamics.beta * energy.value(x)
            p = np.zeros_like(x)
            if mass is not None and form is not None:
                p = ball[:, d:] / np.sqrt(form)
                exponent = exponent - 0.5 * dynamics.beta * (p**2 / mass).sum(axis=1)
            elif mass is not None:
                p = free * np.sqrt(mass / dynamics.beta)
            finite = np.isfinite(exponent)
            if not finite.any():
                raise UsageError(f"the energy is not finite in core {i}; check the core's centre and size")
            accepted = finite & (np.log(radius[:, 1]) < exponent - exponent[finite].max())
            found_x.append(x[accepted])
            found_p.append(p[accepted])
            found += int(accepted.sum())
        positions.append(np.concatenate(found_x)[:n])
        momenta.append(np.concatenate(found_p)[:n])

    def tensor(parts: list[np.ndarray]) -> torch.Tensor:
        return torch.as_tensor(np.concatenate(parts), dtype=energy.dtype, device=energy.device)

    label = torch.arange(len(cores), device=energy.device).repeat_interleave(n)
    return tensor(positions), None if mass is None else tensor(momenta), label


def _run(
    integrator: Integrator,
    detector: _Detector,
    start: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor],
    burn_in: float,
    length: float,
    generator: torch.Generator,
    deadline: float,
) -> tuple[_Tally, torch.Tensor]:
    """Run a batch for burn_in + length, or until the deadline; count in the second part. Returns the final x too."""
    state, last = integrator.init(start[0], start[1]), start[2].clone()
    n, cores, h = len(last), len(detector.center), integrator.time_step
    first = math.ceil(burn_in / h)
    counts, transit = (torch.zeros(n, cores * cores, dtype=torch.float64, device=last.device) for _ in range(2))
    times = torch.zeros(n, cores, dtype=torch.float64, device=last.device)
    since, left = (torch.zeros(n, dtype=torch.float64, device=last.device) for _ in range(2))
    now = 0.0
    for step in range(first + math.ceil(length / h)):
        if step % CHECK_EVERY == 0 and step > first and time.perf_counter() > deadline:
            break
        state = integrator.step(state, generator)
        now = max(0, step + 1 - first) * h
        label = detector.labels(state.x, state.p)
        rows = torch.nonzero((label >= 0) & (label != last))[:, 0]
        left[label == last] = now
        if not len(rows):
            continue
        old, new = last[rows], label[rows]
        if step >= first:
            times[rows, old] += now - since[rows]
            counts[rows, old * cores + new] += 1
            transit[rows, old * cores + new] += now - left[rows]
            since[rows] = now
        last[rows], left[rows] = new, now
    times[torch.arange(n, device=last.device), last] += now - since
    tally = _Tally(cores)
    counted, between = (t.reshape(n, cores, cores).cpu().numpy() for t in (counts, transit))
    tally.add(counted, times.cpu().numpy(), between, _finite(state).cpu().numpy())
    return tally, state.x


def _finite(state: Trajectories) -> torch.Tensor:
    # what has overflowed once stays not finite
    return state.x.isfinite().all(1) & (True if state.p is None else state.p.isfinite().all(1))


def simulate_passages(
    energy: Energy,
    dynamics: Dynamics,
    cores: Cores,
    generator: torch.Generator,
    options: PassageOptions | None = None,
    progress: Progress | None = None,
) -> PassageRates:
    """Rates between cores by simulation: Heun (overdamped) or BAOAB (underdamped), both of weak order 2.

    Every round runs `trajectories` at the time step and half as many at half of it. `progress(part, text)` is called
    after each round, part from 0 to 1. UsageError for fewer than two cores. The result repeats itself for the same
    generator if the target error is reached within the budget.
    """
    options = options or PassageOptions()
    began = time.perf_counter()
    scheme = "heun" if isinstance(dynamics, Overdamped) else "baoab"
    h = options.time_step or _chosen_step(energy, dynamics, cores, generator, scheme)
    integrators = [Integrator(energy, dynamics, scheme, step) for step in (h, 0.5 * h)]
    tallies = _rounds(energy, dynamics, cores, generator, integrators, options, began + options.budget, progress, True)
    step, half, both = (t.rates(options.confidence) for t in (*tallies, tallies[0] + tallies[1]))
    discrepancy, compatible = _compare(step, half)
    estimate = both if compatible else half
    reason = _reason(estimate, options)
    if not compatible:
        reason = f"rates at the time steps {h:.3g} and {h / 2:.3g} differ: take a shorter time step"
    if both.diverged:
        reason = f"{both.diverged} trajectories left every bound at the time step {h:.3g}: take a shorter one"
    return PassageRates(
        estimate, step, half, discrepancy, compatible, scheme, h, time.perf_counter() - began, not reason, reason
    )


def time_step_effect(
    energy: Energy,
    dynamics: Dynamics,
    cores: Cores,
    time_step: float,
    generator: torch.Generator,
    options: PassageOptions | None = None,
    *,
    scheme: str = "euler",
    reference: PassageRates | None = None,
    progress: Progress | None = None,
) -> TimeStepEffect:
    """The factor by which simulating with a given time step changes each rate: k(time_step) / k(continuous time).

    scheme : the integrator used with that step ("euler" as in the training of neural SDEs; see `integrators`).
    reference : rates of continuous time if there are any; otherwise half of the budget goes into them.
    """
    options = options or PassageOptions()
    coarse = Integrator(energy, dynamics, scheme, time_step)
    if reference is None:
        shared = replace(options, budget=0.5 * options.budget)
        reference = simulate_passages(energy, dynamics, cores, generator, shared, progress)
        options = shared
    deadline = time.perf_counter() + options.budget
    (tally,) = _rounds(energy, dynamics, cores, generator, [coarse], options, deadline, progress, False)
    found, true = tally.rates(options.confidence), reference.estimate
    seen = (found.counts > 0) & (true.counts > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(seen, found.rates / true.rates, np.nan)
        error = np.where(seen, np.hypot(found.standard_error / found.rates, true.standard_error / true.rates), np.nan)
    width = np.exp(norm.ppf(0.5 + 0.5 * options.confidence) * error)
    reason = reference.reason or _reason(found, options)
    if found.diverged:
        reason = f"{found.diverged} of {found.diverged + found.trajectories} trajectories overflow at this time step"
    interval = np.stack([factor / width, factor * width], axis=-1)
    return TimeStepEffect(factor, error, interval, float(time_step), scheme, found, reference, not reason, reason)


def _rounds(
    energy: Energy,
    dynamics: Dynamics,
    cores: Cores,
    generator: torch.Generator,
    integrators: list[Integrator],
    options: PassageOptions,
    deadline: float,
    progress: Progress | None,
    continuous: bool,
) -> list[_Tally]:
    """Rounds until the target error or the deadline is reached: one tally for each integrator.

    continuous : correct for looking at the cores only once a step.

    The first integrator gets all trajectories, every further one half as many.
    """
    if len(cores) < 2:
        raise UsageError(f"passages lead from one core to another, but there is {len(cores)}; give two or more")
    tallies = [_Tally(len(cores)) for _ in integrators]
    # positions of underdamped trajectories are smooth: without a momentum part there is nothing to correct
    smooth = not isinstance(dynamics, Overdamped) and cores.momentum_form is None
    noises = [i.noise if continuous and not smooth else None for i in integrators]
    detectors = [_Detector(cores, energy, noise) for noise in noises]
    burn_in = BURN_IN * relaxation_time(energy, dynamics, cores.center)
    length, began = FIRST_ROUND * burn_in, time.perf_counter()
    number = max(1, round(options.trajectories / len(cores)))
    while True:
        for k, integrator in enumerate(integrators):
            start = sample_cores(energy, dynamics, cores, number if k == 0 else max(1, number // 2), generator)
            until = deadline - (deadline - time.perf_counter()) * (len(integrators) - 1 - k) / (len(integrators) - k)
            tallies[k] = tallies[k] + _run(integrator, detectors[k], start, burn_in, length, generator, until)[0]
        together = tallies[0] if len(tallies) == 1 else tallies[0] + tallies[1]
        found = together.rates(options.confidence)
        error = _worst_error(found)
        now = time.perf_counter()
        used = (now - began) / max(deadline - began, 1e-9)
        if progress is not None:
            part = max(used, min(1.0, (options.target_error / error) ** 2))
            progress(min(1.0, part), f"{found.counts.sum()} transitions, relative standard error {error:.3f}")
        if error <= options.target_error or now > deadline or not together.trajectories:
            return tallies
        exits = found.rates.sum(axis=1).max()
        if length * exits < LONGEST_ROUND:
            length *= 2


def _worst_error(found: CountedRates) -> float:
    """The largest relative standard error of the transitions that must reach the target; infinite if a core has none.

    Never less than the Poisson error: differences between trajectories say little when few counts are shared by many.
    """
    exits = found.counts.sum(axis=1)
    if not exits.all():
        return math.inf
    main = found.counts >= MAIN_EXIT * exits[:, None]
    main &= found.counts > 0
    relative = np.maximum(found.standard_error[main] / found.rates[main], 1 / np.sqrt(found.counts[main]))
    return float(relative.max())


def _reason(found: CountedRates, options: PassageOptions) -> str:
    error = _worst_error(found)
    if error <= options.target_error:
        return ""
    silent = np.flatnonzero(found.counts.sum(axis=1) == 0)
    if len(silent):
        return f"no transition from core {silent[0]} was seen in time {found.time[silent[0]]:.3g}: give a larger budget"
    more = (error / options.target_error) ** 2
    return f"relative standard error {error:.3f}, above {options.target_error:g}: needs {more:.1f} times the budget"


def _compare(one: CountedRates, two: CountedRates) -> tuple[np.ndarray, bool]:
    enough = (one.counts >= COMPARED) & (two.counts >= COMPARED)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.log(one.rates / two.rates)
        error = np.hypot(one.standard_error / one.rates, two.standard_error / two.rates)
        discrepancy = np.where(enough, difference / error, np.nan)
    limit = norm.ppf(1 - 0.5 * FALSE_ALARM / max(1, int(enough.sum())))
    return discrepancy, bool((np.abs(discrepancy[enough]) <= limit).all())


def _chosen_step(energy: Energy, dynamics: Dynamics, cores: Cores, generator: torch.Generator, scheme: str) -> float:
    """`STEP` over the largest frequency at points of the cores and at those reached from there in a burn-in."""
    number = max(1, CURVATURE_POINTS // len(cores))
    start = sample_cores(energy, dynamics, cores, number, generator)
    fastest = largest_frequency(energy, dynamics, start[0])
    pilot = Integrator(energy, dynamics, scheme, STEP[dynamics.kind] / fastest)
    burn_in = BURN_IN * relaxation_time(energy, dynamics, cores.center)
    reached = _run(pilot, _Detector(cores, energy), start, burn_in, 0.0, generator, math.inf)[1]
    reached = reached[reached.isfinite().all(1)]
    if len(reached):
        fastest = max(fastest, largest_frequency(energy, dynamics, reached))
    return STEP[dynamics.kind] / fastest
