"""A two-sided bracket of an overdamped rate, in any dimension, by Monte Carlo.

    rate from A to B = cap Z / Z_A,   lower bound of the capacity < cap < upper bound     (Thomson, Dirichlet)

Both bounds are integrals over the same points, drawn from one proposal. As int phi . grad f = -1 for every unit flow
phi and every test function f, the mean of -phi . grad f / q is known to be 1: it serves as a control variate, which
leaves only noise of the size of the gap between the bounds, and as a check that the sampler saw the whole channel.

A statistical bracket: it holds with the stated confidence, given that the sampler covers the channels that exist.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri

from landscape.dynamics import Dynamics
from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.rates.bounds.channels import Leg, Network, main_directions, make_leg, make_network
from landscape.rates.bounds.checks import ALARM, SaddleSeen, folded, hot_crossings, saddles_seen, self_crossings
from landscape.rates.bounds.dirichlet import TestFunction, first_guesses
from landscape.rates.bounds.population import Population, sample_population, well_components
from landscape.rates.bounds.proposal import Draw, GaussianMixture, draw, leg_components
from landscape.rates.bounds.region import Region, Tensor, make_region
from landscape.rates.bounds.thomson import UnitFlow, first_flow
from landscape.rates.cores import Cores

Progress = Callable[[float, str], None]
HEAVY = 0.01  # largest share of one weight above which a standard error is not to be trusted
FEW = 100.0  # effective samples below which an estimate is not to be trusted
LOST_FLUX = 0.03  # of a channel's unit flux
DEPTH = 25.0  # see `_training_weight`
TESTS = 4  # one-sided statements that share the error probability: both capacities, both ends of Z_A


@dataclass(frozen=True)
class BracketOptions:
    """training, samples : points to fit (half as many more to choose) and to evaluate the bounds on. population :
    points for Z_A, and trajectories for its correction. confidence : that the rate lies inside."""

    training: int = 16_000
    samples: int = 24_000
    population: int = 20_000
    trajectories: int = 600
    confidence: float = 0.95

    def __post_init__(self) -> None:
        counts = (self.training, self.samples, self.population, self.trajectories)
        if min(counts) < 100 or not 0 < self.confidence < 1:
            raise UsageError(f"a bracket needs 100 or more points of each kind and 0 < confidence < 1, not {self}")


@dataclass(frozen=True)
class Estimate:
    """value and standard error relative to it (with the control variate), raw_error : without it. weight_share : of the
    largest contribution; effective : sample size (sum w)^2 / sum w^2."""

    value: float
    error: float
    raw_error: float
    weight_share: float
    effective: float


@dataclass(frozen=True)
class RateBracket:
    """What `bracket_rate` returns. Logarithms throughout; rates in 1/time, capacities times Z with time units in them.

    log_capacity (2,) : log of the lower and upper bound on cap Z, point estimates; capacity_error (2,) : their standard
    errors in the logarithm. log_mass, mass_error : log Z_A and its standard error. log_rate (2,) : the interval of the
    rate, at `confidence`. certified : no check failed; reasons say which did.
    weight_share, effective (3,) : largest weight's share and effective sample size of upper bound, lower bound, Z_A.
    flux, flux_error (c,) : of each channel, as the sampler sees it; 1 where it sees all. channels : their saddles, in
    order. saddle_seen, saddle_relevant (m,), saddle_ratio (m,) : see `checks.SaddleSeen`. determinant_violations,
    self_crossings : of the tubes. hot_crossings, hot_share : see `checks.hot_crossings`. unfinished : trajectories of
    Z_A. evaluations : of the energy, values and gradients. seconds : used.
    """

    log_capacity: np.ndarray
    capacity_error: np.ndarray
    log_mass: float
    mass_error: float
    log_rate: np.ndarray
    confidence: float
    certified: bool
    reasons: tuple[str, ...]
    weight_share: np.ndarray
    effective: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray
    channels: tuple[tuple[int, ...], ...]
    saddle_seen: np.ndarray
    saddle_relevant: np.ndarray
    saddle_ratio: np.ndarray
    determinant_violations: int
    self_crossings: int
    hot_crossings: int
    hot_share: float
    unfinished: int
    evaluations: int
    seconds: float

    @property
    def rate(self) -> np.ndarray:
        """The interval (2,) of the rate, 1/time."""
        return np.exp(self.log_rate)

    @property
    def ratio(self) -> float:
        """Upper over lower end of the interval of the rate."""
        return math.exp(self.log_rate[1] - self.log_rate[0])


def bracket_rate(
    energy: Energy,
    dynamics: Dynamics,
    cores: Cores,
    source: Sequence[int],
    target: Sequence[int],
    saddles: np.ndarray,
    joins: np.ndarray,
    paths: Sequence[np.ndarray | None],
    generator: torch.Generator,
    options: BracketOptions | None = None,
    progress: Progress | None = None,
) -> RateBracket:
    """Bounds on the rate from A, the union of cores `source`, to B, that of cores `target`; other cores are ignored.

    saddles (m, d), joins (m, 2) : labels of the minima that each joins; a minimum's label is that of its core, and
    minima without one have further labels, -1 for unknown. paths : for each saddle the images (k, d) of a minimum
    energy path between the two minima, None if there is none; such a saddle is known to the checks only.
    progress(part, text) is called between the steps. Never certified when a check fails (`RateBracket.reasons`).
    UnsupportedError unless the dynamics is overdamped and reversible; UsageError for unfit input, or if no path leads
    from A to B.
    """
    options, began = options or BracketOptions(), time.perf_counter()
    report = progress or (lambda part, text: None)
    region = make_region(energy, dynamics, cores, tuple(source), tuple(target))
    before = _evaluations(energy)
    points, labels = _checked(region, saddles, joins, paths)
    legs, widths = _legs(region, points, labels, paths, cores)
    network = make_network(region, legs)
    level = _level(network, region)
    report(0.1, "first guess")
    guesses = first_guesses(region, network, _used_widths(network, widths))
    mixture = _adapted(region, network, guesses[0], level, options.training // 2, generator)
    report(0.2, "training test function and flow")
    fit, held = (draw(region, mixture, n, generator) for n in (options.training, options.training // 2))
    function = _best_trained(region, guesses, fit, held, level)
    flow = first_flow(region, network, level).trained(fit, _training_weight(region, fit, level, 1))
    report(0.5, "evaluating both bounds")
    found = draw(region, mixture, options.samples, generator)
    upper, resistance, flux = _evaluate(region, function, flow, found, level)
    report(0.7, "population of the source")
    population = sample_population(region, network, function, options.population, options.trajectories, generator)
    report(0.9, "checks")
    log_upper = math.log(max(upper.value, 1e-300)) - level
    distinct = (labels[:, 0] != labels[:, 1]) & (labels >= 0).all(axis=1)
    seen = saddles_seen(region, points, distinct, found, log_upper, generator)
    crossings, hot_share, where = hot_crossings(region, function, mixture, log_upper, level, options.samples, generator)
    violations = folded(flow.tubes)
    reasons = [
        *_estimate_reasons(upper, resistance, population),
        *_coverage_reasons(flux, network, seen),
        *([f"{violations} pieces of a tube are folded"] if violations else []),
        *_hot_reasons(hot_share, where),
    ]
    log_capacity, log_mass, log_rate = _interval(region, level, upper, resistance, population, options.confidence)
    if not (np.isfinite(log_rate).all() and log_rate[0] < log_rate[1]):
        reasons.append("the lower end of the interval is not below the upper one")
    report(1.0, "done")
    return RateBracket(
        log_capacity, np.array([resistance.error, upper.error]), log_mass, population.error, log_rate,
        options.confidence, not reasons, tuple(reasons),
        np.array([upper.weight_share, resistance.weight_share, population.weight_share]),
        np.array([upper.effective, resistance.effective, population.effective]),
        flux[0], flux[1], tuple(tuple(network.legs[k].saddle for k, _ in c.legs) for c in network.channels),
        seen.seen, seen.relevant, seen.ratio, violations, sum(map(self_crossings, flow.tubes)), crossings, hot_share,
        population.unfinished, _evaluations(energy) - before, time.perf_counter() - began,
    )  # fmt: skip


def _interval(
    region: Region, level: float, upper: Estimate, resistance: Estimate, population: Population, confidence: float
) -> tuple[np.ndarray, float, np.ndarray]:
    """log of both bounds on cap Z (2,), log Z_A, and log of the interval of the rate (2,); nan: void."""
    z = float(ndtri(1 - (1 - confidence) / TESTS))
    log_scale = -float(region.scale.log().sum())  # dx = dy / prod gamma^(1/2)
    bounds = np.array([resistance.value, upper.value])
    bounds = np.log(np.where(bounds > 0, bounds, np.nan)) * [-1, 1]
    log_capacity = bounds - level + log_scale
    log_mass, spread = population.log_mass + log_scale, z * population.error
    margin = np.array([-math.log1p(z * resistance.error), math.log1p(z * upper.error)])
    masses = np.log([1 + spread + population.high, max(1 - spread + population.low, 1e-3)])
    return log_capacity, log_mass, log_capacity + margin - log_mass - masses


def _evaluations(energy: Energy) -> int:
    return energy.evaluations.gradient_equivalents(energy.dim)


def _checked(
    region: Region, saddles: np.ndarray, joins: np.ndarray, paths: Sequence[np.ndarray | None]
) -> tuple[Tensor, np.ndarray]:
    points, labels = np.asarray(saddles, dtype=float), np.asarray(joins, dtype=int)
    m = len(points)
    if points.shape != (m, region.dim) or labels.shape != (m, 2) or len(paths) != m:
        raise UsageError(
            f"saddles (m, {region.dim}), joins (m, 2) and m paths belong together, not {points.shape}, {labels.shape}, "
            f"{len(paths)}"
        )
    for path in paths:
        if path is not None and (np.ndim(path) != 2 or np.shape(path)[1] != region.dim or len(path) < 3):
            raise UsageError(f"a path has 3 or more images (k, {region.dim}), not {np.shape(path)}")
    return torch.as_tensor(points) * region.scale, labels


def _legs(
    region: Region, points: Tensor, labels: np.ndarray, paths: Sequence[np.ndarray | None], cores: Cores
) -> tuple[list[Leg], list[float]]:
    """A leg for each saddle that joins two different, known minima by a path, and the widths of their barriers."""
    legs, widths = [], []
    curvature = torch.linalg.eigvalsh(region.hessian(points))[:, 0] if len(points) else torch.zeros(0)
    for k, path in enumerate(paths):
        a, b = int(labels[k, 0]), int(labels[k, 1])
        if path is None or a < 0 or b < 0 or a == b:
            continue
        if not float(curvature[k]) < 0:
            raise UsageError(f"saddle {k} has no direction downhill: lowest curvature {float(curvature[k]):.3g}")
        images = torch.as_tensor(np.array(path, dtype=float)) * region.scale
        known = [(label, at) for at, label in ((0, a), (-1, b)) if label < len(cores)]
        # turn a path that runs the other way: judged at one end that has a core
        if known:
            label, at = known[0]
            near, far = ((images[i] - region.center[label]).norm() for i in (at, -1 - at))
            images = images.flip(0) if far < near else images
        width = float((-curvature[k]).rsqrt())
        legs.append(make_leg(region, images, (a, b), k, width))
        widths.append(width)
    return legs, widths


def _level(network: Network, region: Region) -> float:
    """beta E at the pass: the lowest over channels of the highest node."""
    tops = [max(float(region.reduced(network.legs[k].mean).max()) for k, _ in c.legs) for c in network.channels]
    return min(tops)


def _used_widths(network: Network, widths: list[float]) -> Tensor:
    """Widths of the barriers on the channels."""
    used = sorted({k for channel in network.channels for k, _ in channel.legs})
    return torch.tensor([widths[k] for k in used], dtype=torch.float64)


def _adapted(
    region: Region, network: Network, guess: TestFunction, level: float, n: int, generator: torch.Generator
) -> GaussianMixture:
    """The proposal for both bounds: legs, weighted by where the first guess sees the Dirichlet form."""
    main = main_directions(network.legs)
    components = leg_components(network).joined(well_components(region, network))
    pilot = draw(region, components.inflated(main), n, generator)
    steep = guess(pilot.y)[1].square().sum(1)
    form = _integrand(steep, pilot.log_weight(-1, level), region.outside(pilot.y)).nan_to_num(0, 0, 0)
    # a few points where the guess is poor must not draw everything to themselves
    form = form.clamp_max(float(form.sum()) / FEW)
    return components.adapted(pilot.y, form).inflated(main)


def _training_weight(region: Region, found: Draw, level: float, sign: int) -> Tensor:
    """exp(sign (beta E - level)) / q outside A and B, 0 inside: (n,).

    Deep wells and high walls count as if they were `DEPTH` below and above the pass: training must see the pass.
    """
    excess = (found.reduced - level).clamp(-DEPTH, DEPTH)
    return torch.exp(sign * excess - found.log_q) * region.outside(found.y)


def _best_trained(region: Region, guesses: Sequence[TestFunction], fit: Draw, held: Draw, level: float) -> TestFunction:
    """The guess that, trained on `fit`, has the least Dirichlet form on `held`, which no estimate uses again."""
    weight, test = (_training_weight(region, found, level, -1) for found in (fit, held))
    functions = [guess.trained(fit.y, weight) for guess in guesses]
    forms = [float(test @ function(held.y)[1].square().sum(1)) for function in functions]
    return functions[int(np.argmin(np.nan_to_num(forms, nan=np.inf)))]


def _evaluate(
    region: Region, function: TestFunction, flow: UnitFlow, found: Draw, level: float
) -> tuple[Estimate, Estimate, tuple[np.ndarray, np.ndarray]]:
    """The Dirichlet form of f and the energy of the flow, times exp(+-level), and the flux of each tube with errors."""
    outside = region.outside(found.y)
    slope = function(found.y)[1]
    tubes = flow.tube_flows(found.y)
    phi = flow.at(found, tubes)
    steep, size = slope.square().sum(1), phi.square().sum(1)
    form = _integrand(steep, found.log_weight(-1, level), outside) / region.beta
    # an infinite energy where phi is not 0 makes the lower bound void
    work = _integrand(size, found.reduced - level - found.log_q, outside) * region.beta
    inverse_q = torch.exp(-found.log_q) * outside
    control = -(phi * slope).sum(1) * inverse_q
    each = -torch.einsum("nkd,nd->nk", tubes, slope) * inverse_q[:, None]
    flux = (each.mean(0).numpy(), each.std(0).numpy() / math.sqrt(len(each)))
    return _controlled(form, control), _controlled(work, control), flux


def _integrand(square: Tensor, log_weight: Tensor, outside: Tensor) -> Tensor:
    """square times exp(log_weight) outside A and B, and 0 wherever square is, however large the weight."""
    counts = (square > 0) & outside
    result = torch.zeros_like(square)
    result[counts] = torch.exp(log_weight[counts] + square[counts].log())
    return result


def _controlled(terms: Tensor, control: Tensor) -> Estimate:
    """The mean of terms, with the control variate whose mean is 1."""
    n = len(terms)
    both = torch.cov(torch.stack([control, terms]))
    factor = both[0, 1] / both[0, 0].clamp_min(torch.finfo(terms.dtype).tiny)
    better = terms - factor * (control - 1)
    value = float(better.mean())
    share, effective = float(terms.max() / terms.sum()), float(terms.sum() ** 2 / terms.square().sum())
    errors = [float(t.std()) / math.sqrt(n) / max(value, 1e-300) for t in (better, terms)]
    return Estimate(value, errors[0], errors[1], share, effective)


def _estimate_reasons(upper: Estimate, resistance: Estimate, population: Population) -> list[str]:
    reasons = []
    named = (("upper bound", upper), ("lower bound", resistance), ("population", population))
    for name, estimate in named:
        if not (estimate.weight_share <= HEAVY and estimate.effective >= FEW):
            reasons.append(
                f"{name}: one of the weights carries {estimate.weight_share:.1%}, effective sample size "
                f"{estimate.effective:.0f}: its standard error is not to be trusted; take more samples"
            )
    if population.unfinished and population.high - population.low > 0.05:
        reasons.append(f"{population.unfinished} trajectories reached neither core in time: Z_A is uncertain")
    return reasons


def _coverage_reasons(flux: tuple[np.ndarray, np.ndarray], network: Network, seen: SaddleSeen) -> list[str]:
    reasons = []
    for k, (value, error) in enumerate(zip(*flux, strict=True)):
        if not abs(value - 1) <= max(5 * error, LOST_FLUX):
            names = [network.legs[leg].saddle for leg, _ in network.channels[k].legs]
            reasons.append(f"the sampler sees {value:.1%} of the unit flux through saddles {names}")
    pathless = np.setdiff1d(np.flatnonzero(seen.relevant), [leg.saddle for leg in network.legs])
    for saddle in pathless.tolist():
        reasons.append(f"saddle {saddle} may carry a part of the rate, but has no path: a channel is left out")
    for saddle in np.flatnonzero(seen.relevant & ~seen.seen).tolist():
        reasons.append(
            f"the sampler sees {seen.ratio[saddle]:.1%} of the mass around saddle {saddle}, which may carry a part of "
            "the rate: the upper bound misses a channel; give its path"
        )
    return reasons


def _hot_reasons(share: float, where: np.ndarray | None) -> list[str]:
    if share <= ALARM or where is None:
        return []
    place = ", ".join(f"{value:.4g}" for value in where[:4]) + (", ..." if len(where) > 4 else "")
    return [
        f"a hot trajectory from the source passed ({place}), where one sample would carry {min(share, 9.99):.0%} of "
        "the upper bound: there may be a channel that the sampler does not know"
    ]
