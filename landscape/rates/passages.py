"""Rates counted in simulated trajectories, in any dimension, and what a coarse time step does to them.

    k_ij = N_ij / T_i,  N_ij transitions from last core i to next other core j, T_i the time with last core i.

Every trajectory belongs to one core and tells of exits from there alone: when it enters another core, the exit is
counted and it goes on from its last point in its own core, with momenta (and a rotation) reversed. For a stationary
process read backwards is the one with momenta and rotation reversed, so that the points at which core i is last seen
on the way to j are those at which the reversed one enters it from j (W. E and E. Vanden-Eijnden, J. Stat. Phys. 123,
503 (2006)). Entries thus have their stationary distribution, however shallow or rare the well; nothing slower than
relaxation inside it is left, and after a burn-in E N_ij = k_ij E T_i for runs of any length, far shorter or longer than
a stay. With a rotation only stays in its true sense count, half of all.

Standard errors come from the differences between trajectories, which run in one batch, in rounds of equal numbers from
every core:

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
from scipy.special import ndtri

from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.rates.cores import Cores
from landscape.rates.counting import CountedRates, Detector, Tally, sample_cores
from landscape.rates.integrators import Integrator, Trajectories, largest_frequency, relaxation_time

STEP = {"overdamped": 0.1, "underdamped": 0.2}  # time step times the largest frequency
BURN_IN = 10.0  # relaxation times of the harmonic wells; near a saddle it takes longer
SHORT_WAY = 2 / 3  # mean times under way, in burn-ins, above which (flat saddles, small cores in many dimensions)
WAYS = 3.0  # such times are waited for instead
FIRST_ROUND = 2.0  # burn-ins; rounds then double, up to
LONGEST_ROUND = 2.0  # mean lifetimes of the shortest-lived core
COMPARED = 20  # counts on both sides from which two estimates of a rate are compared
FALSE_ALARM = 1e-3  # of the comparison of the two time steps, over all transitions together
CHECK_EVERY = 100  # steps between looks at the clock
CURVATURE_POINTS = 256
PILOT_SHARE = 0.25  # of the budget, at most, for the choice of a time step; a first round costs ten times as much

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class PassageOptions:
    """target_error : relative standard error at which to stop, for each transition that carries `main_share` or more of
    its core's exits. budget : seconds after which to stop in any case. trajectories : in one batch. time_step : None
    chooses .1 over the largest curvature (overdamped) or .2 over the largest frequency (underdamped) seen at 256
    points before and 256 points after the burn-in. confidence : of the intervals.
    """

    target_error: float = 0.03
    budget: float = 30.0
    trajectories: int = 2000
    time_step: float | None = None
    confidence: float = 0.95
    main_share: float = 0.1

    def __post_init__(self) -> None:
        if not (self.target_error > 0 and self.budget > 0 and self.trajectories >= 8 and 0 < self.confidence < 1):
            raise UsageError(
                f"passages need target_error > 0, budget > 0, 8 or more trajectories, 0 < confidence < 1, not {self}"
            )
        if not 0 <= self.main_share <= 1:
            raise UsageError(f"passages need a main_share between 0 and 1, not {self.main_share}")


@dataclass(frozen=True)
class PassageRates:
    """What `simulate_passages` returns.

    estimate : at time_step and half of it together, if these agree, else at the half step alone.
    at_step, at_half_step : each by itself. discrepancy (n, n) : difference of their log rates over its standard error,
    nan below 20 counts. compatible : no discrepancy is larger than chance allows (false alarm 1 in 1,000 over all).
    scheme, time_step : of the integrator. seconds : used. converged : the target error was reached, nothing diverged
    and the two steps are compatible; reason says why not. Rates are nan where time ended in the burn-in.
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


def _run(
    integrator: Integrator,
    detector: Detector,
    start: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor],
    burn_in: float,
    length: float,
    generator: torch.Generator,
    deadline: float,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Tally, torch.Tensor]:
    """Run a batch for burn_in + length, or until the deadline; count in the second part. Returns the final x too.

    tick : called at every look at the clock.
    """
    core, h = start[2], integrator.time_step
    n, cores = len(core), len(detector.center)
    state = integrator.init(start[0], start[1])
    if integrator.rotation is not None:  # stays last as long in either sense: in the long run each has half of the time
        side = torch.randint(2, (n, 1), generator=generator, device=generator.device)
        state = replace(state, sense=(2 * side - 1).to(state.x))
    inner = state  # each trajectory when it was last in its core
    first = math.ceil(burn_in / h)
    counts, transit = (torch.zeros(n, cores, dtype=torch.float64, device=core.device) for _ in range(2))
    times, left = (torch.zeros(n, dtype=torch.float64, device=core.device) for _ in range(2))
    now = 0.0
    for step in range(first + math.ceil(length / h)):
        if step % CHECK_EVERY == 0 and step > 0:
            tick()
            if time.perf_counter() > deadline:
                break
        state = integrator.step(state, generator)
        now = (step + 1) * h
        counted = torch.ones_like(core, dtype=torch.bool) if state.sense is None else state.sense[:, 0] > 0
        if step >= first:
            times += counted * h
        label = detector.labels(state.x, state.p)
        inside = label == core
        inner = state.where(inside, inner)
        left[inside] = now
        away = (label >= 0) & ~inside
        if not away.any():
            continue
        if step >= first:
            rows = torch.nonzero(away & counted)[:, 0]
            counts[rows, label[rows]] += 1
            transit[rows, label[rows]] += now - left[rows]
        state = inner.reversed().where(away, state)
        left[away] = now
    tally = Tally(cores)
    tally.add(*(t.cpu().numpy() for t in (core, counts, times, transit, _finite(state))))
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
    every hundred steps and after each round, part from 0 to 1. UsageError for fewer than two cores. The result repeats
    itself for the same generator if the target error is reached within the budget.
    """
    options = options or PassageOptions()
    began = time.perf_counter()
    scheme = "heun" if isinstance(dynamics, Overdamped) else "baoab"

    def tell() -> None:
        if progress is not None:
            progress(0.0, "time step")

    until = began + PILOT_SHARE * options.budget
    h = options.time_step or _chosen_step(energy, dynamics, cores, generator, scheme, until, tell)
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
    Integrator(energy, dynamics, scheme, time_step)  # refuses a wrong scheme or step before the reference is paid for
    if reference is None:
        shared = replace(options, budget=0.5 * options.budget)
        reference = simulate_passages(energy, dynamics, cores, generator, shared, progress)
        options = shared
    found = rates_at_step(energy, dynamics, cores, time_step, generator, options, scheme=scheme, progress=progress)
    true = reference.estimate
    seen = (found.counts > 0) & (true.counts > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(seen, found.rates / true.rates, np.nan)
        error = np.where(seen, np.hypot(found.standard_error / found.rates, true.standard_error / true.rates), np.nan)
    width = np.exp(ndtri(0.5 + 0.5 * options.confidence) * error)
    reason = reference.reason or _reason(found, options)
    if found.diverged:
        reason = f"{found.diverged} of {found.diverged + found.trajectories} trajectories overflow at this time step"
    interval = np.stack([factor / width, factor * width], axis=-1)
    return TimeStepEffect(factor, error, interval, float(time_step), scheme, found, reference, not reason, reason)


def rates_at_step(
    energy: Energy,
    dynamics: Dynamics,
    cores: Cores,
    time_step: float,
    generator: torch.Generator,
    options: PassageOptions | None = None,
    *,
    scheme: str = "euler",
    progress: Progress | None = None,
) -> CountedRates:
    """Rates of the chain that `scheme` makes at a given time step, as it is: looked at once a step, and no halving.

    Read backwards it is the same chain only up to its error in time, so that entries are a little off; see the module.

    UsageError for a scheme that is not of these dynamics, or a step that is not above 0.
    """
    options = options or PassageOptions()
    coarse = Integrator(energy, dynamics, scheme, time_step)
    deadline = time.perf_counter() + options.budget
    (tally,) = _rounds(energy, dynamics, cores, generator, [coarse], options, deadline, progress, False)
    return tally.rates(options.confidence)


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
) -> list[Tally]:
    """Rounds until the target error or the deadline is reached: one tally for each integrator.

    continuous : correct for looking at the cores only once a step.

    The first integrator gets all trajectories, every further one half as many.
    """
    if len(cores) < 2:
        raise UsageError(f"passages lead from one core to another, but there is {len(cores)}; give two or more")
    tallies = [Tally(len(cores)) for _ in integrators]
    # positions of underdamped trajectories are smooth: without a momentum part there is nothing to correct
    smooth = not isinstance(dynamics, Overdamped) and cores.momentum_form is None
    noises = [i.noise if continuous and not smooth else None for i in integrators]
    detectors = [Detector(cores, energy, noise) for noise in noises]
    burn_in = BURN_IN * relaxation_time(energy, dynamics, cores.center)
    length, began = FIRST_ROUND * burn_in, time.perf_counter()
    number = max(1, round(options.trajectories / len(cores)))
    part, text = 0.0, "first round"

    def tell() -> None:
        if progress is not None:
            used = (time.perf_counter() - began) / max(deadline - began, 1e-9)
            progress(min(1.0, max(part, used)), text)

    while True:
        for k, integrator in enumerate(integrators):
            start = sample_cores(energy, dynamics, cores, number if k == 0 else max(1, number // 2), generator)
            until = deadline - (deadline - time.perf_counter()) * (len(integrators) - 1 - k) / (len(integrators) - k)
            tallies[k] = tallies[k] + _run(integrator, detectors[k], start, burn_in, length, generator, until, tell)[0]
        together = tallies[0] if len(tallies) == 1 else tallies[0] + tallies[1]
        found = together.rates(options.confidence)
        way = _longest_way(found, options.main_share)
        if way > SHORT_WAY * burn_in and time.perf_counter() < deadline:
            # what was counted lacks those that had not been long enough under way: begin again
            tallies, burn_in = [Tally(len(cores)) for _ in integrators], WAYS * way
            length = max(length, burn_in)
            continue
        error = _worst_error(found, options.main_share)
        part = (options.target_error / error) ** 2
        text = f"{found.counts.sum()} transitions, relative standard error {error:.3f}"
        tell()
        if error <= options.target_error or time.perf_counter() > deadline or not together.trajectories:
            return tallies
        exits = found.rates.sum(axis=1).max()
        if length * exits < LONGEST_ROUND:
            length *= 2


def _longest_way(found: CountedRates, share: float) -> float:
    """The longest mean time between the last visit to a core and the next one, over the main transitions."""
    main = (found.counts >= COMPARED) & (found.counts >= share * found.counts.sum(axis=1, keepdims=True))
    i, j = np.nonzero(main)
    return float((found.transit[i, j] * found.time[i] / found.counts[i, j]).max(initial=0.0))


def _worst_error(found: CountedRates, share: float) -> float:
    """The largest relative standard error of the transitions that must reach the target; infinite if a core has none.

    Never less than the Poisson error: differences between trajectories say little when few counts are shared by many.
    """
    exits = found.counts.sum(axis=1)
    if not exits.all():
        return math.inf
    main = found.counts >= share * exits[:, None]
    main &= found.counts > 0
    relative = np.maximum(found.standard_error[main] / found.rates[main], 1 / np.sqrt(found.counts[main]))
    return float(relative.max())


def _reason(found: CountedRates, options: PassageOptions) -> str:
    error = _worst_error(found, options.main_share)
    if error <= options.target_error:
        return ""
    if not found.time.all():
        return "the time ended before trajectories from every core had relaxed and were counted: give a larger budget"
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
    limit = ndtri(1 - 0.5 * FALSE_ALARM / max(1, int(enough.sum())))
    return discrepancy, bool((np.abs(discrepancy[enough]) <= limit).all())


def _chosen_step(
    energy: Energy,
    dynamics: Dynamics,
    cores: Cores,
    generator: torch.Generator,
    scheme: str,
    deadline: float,
    tick: Callable[[], None],
) -> float:
    """`STEP` over the largest frequency at points of the cores and at those reached from there in a burn-in."""
    number = max(1, CURVATURE_POINTS // len(cores))
    start = sample_cores(energy, dynamics, cores, number, generator)
    fastest = largest_frequency(energy, dynamics, start[0])
    pilot = Integrator(energy, dynamics, scheme, STEP[dynamics.kind] / fastest)
    burn_in = BURN_IN * relaxation_time(energy, dynamics, cores.center)
    reached = _run(pilot, Detector(cores, energy), start, burn_in, 0.0, generator, deadline, tick)[1]
    reached = reached[reached.isfinite().all(1)]
    if len(reached):
        fastest = max(fastest, largest_frequency(energy, dynamics, reached))
    return STEP[dynamics.kind] / fastest
