"""What theory says about unadjusted Langevin Monte Carlo on an analysed energy, with f = beta E:

    x_{k+1} = x_k - eta grad f(x_k) + sqrt(2 eta) xi_k,        KL_k = KL(law of x_k | exp(-f) / Z).

If exp(-f) / Z has the log-Sobolev constant alpha (KL <= I / (2 alpha), I the relative Fisher information) and
|grad f(x) - grad f(y)| <= L |x - y|, then for eta < alpha / (4 L^2)

    KL_{k+1} <= exp(-alpha eta) KL_k + 6 eta^2 d L^2

(S. Vempala and A. Wibisono, NeurIPS 32 (2019), lemma 3; B. Tzen, T. Liang and M. Raginsky, COLT (2018), on why chains
first settle locally). The constants are estimated from the landscape: curvatures inside wells, and between them the
Eyring-Kramers jump process (G. Menz and A. Schlichting, Ann. Probab. 42, 1809 (2014)). For wells of weights Z_1, Z_2

    gap = k_12 + k_21,    alpha = 2 Lambda(Z_1, Z_2) gap,    Lambda(a, b) = (a - b) / (log a - log b),

both with a relative error that vanishes as barriers grow in units of kT, and gap / alpha = 1 for equal wells but
|log Z_2| / 2 for a rare second one. All rates here are per unit of eta k: those of dX = -grad f dt + sqrt(2) dW.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.rates.log_sobolev import log_sobolev_of_network
from landscape.sampling import Chains, Lmc, Mala, largest_curvature, run, warm_up
from landscape.sampling.langevin import LMC_STABILITY

LEVEL = 20.0  # smoothness is looked for where beta (E - E_min) is at most this
TEMPERATURES = 8  # at which that set is explored, each twice the one before
EXPLORERS, EXPLORED_SWEEPS = 64, 100
CLIMBERS, CLIMBS = 64, 30
LOOK_RATIO = 1.25  # of one look at running chains to the next

Label = Callable[[torch.Tensor], np.ndarray]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class LmcConstants:
    """What the recursion needs to know; estimates all, for f = beta E.

    smoothness : L, the largest |eigenvalue| of beta H found where beta (E - E_min) <= level: local, and from below; a
    global one need not exist. well_curvature : the least eigenvalue of beta H at a minimum. log_gap, log_alpha :
    logarithms of the spectral gap and the log-Sobolev constant, 1/(eta k); -inf where parts are not connected.
    between : the passages between wells decide, not a well. start_kl (n,) : a bound on KL_0 for x_0 from
    N(minimum i, 1/L).
    """

    dim: int
    smoothness: float
    level: float
    well_curvature: float
    log_gap: float
    log_alpha: float
    between: bool
    start_kl: np.ndarray

    @property
    def log_largest_step(self) -> float:
        """log of alpha / (4 L^2), up to which the recursion is proven."""
        return self.log_alpha - math.log(4) - 2 * math.log(self.smoothness)


@dataclass(frozen=True)
class LmcPlan:
    """What the recursion says of one step. log_step : log eta; admissible : eta < alpha / (4 L^2).

    limit : the bound on KL for k -> infinity, 6 eta^2 d L^2 / (1 - exp(-alpha eta)). accuracy : the KL wanted, and
    log_iterations the logarithm of the iterations after which the bound falls below it; inf where it never does.
    """

    log_step: float
    admissible: bool
    limit: float
    accuracy: float
    start_kl: float
    log_iterations: float


@dataclass(frozen=True)
class LmcObserved:
    """What chains did. iterations (r,), kl (r,) : of the occupancies of the states, against their weights; in a single
    state that of a Gaussian with the chains' moments against the harmonic one. floor : what chance adds to kl on
    average. reached : the first look at which kl <= accuracy + floor, None if none was. start : the state of x_0.
    stopped : chains lost to a non-finite energy. step_size : eta.
    """

    iterations: np.ndarray
    kl: np.ndarray
    floor: float
    reached: int | None
    start: int
    stopped: int
    step_size: float


def lmc_constants(
    energies: np.ndarray,
    eigenvalues: np.ndarray,
    beta: float,
    smoothness: float,
    log_rates: np.ndarray | None = None,
    log_weights: np.ndarray | None = None,
    log_network_gap: float = -math.inf,
) -> LmcConstants:
    """The constants of exp(-beta E) with minima of these energies (n,) and Hessian eigenvalues (n, d).

    smoothness : L, of beta E (`local_smoothness`). For two wells or more: log_rates (n, n) between them, for the
    dynamics Overdamped(beta, gamma = 1 / beta), log_weights (n,) normalised, and log of the gap of that network.
    UsageError for minima that are degenerate, or rates that do not come with them.
    """
    levels, curvature = beta * np.asarray(energies, float), beta * np.asarray(eigenvalues, float)
    if curvature.ndim != 2 or len(curvature) != len(levels) or not (curvature > 0).all():
        raise UsageError("the constants of LMC need nondegenerate minima: energies (n,), eigenvalues (n, d) above 0")
    n, d = curvature.shape
    inside = float(np.log(curvature.min()))
    log_gap = log_alpha = inside
    if n > 1:
        if log_rates is None or log_weights is None:
            raise UsageError(f"{n} wells need log rates ({n}, {n}) and log weights between them")
        log_gap = min(inside, float(log_network_gap))
        log_alpha = min(inside, log_sobolev_of_network(log_rates, log_weights, log_gap))
    # log of the integral of exp(-f), the wells taken as harmonic.
    log_z = np.logaddexp.reduce(-levels + 0.5 * d * math.log(2 * math.pi) - 0.5 * np.log(curvature).sum(1))
    start_kl = levels + log_z - 0.5 * d * math.log(2 * math.pi / smoothness)
    return LmcConstants(
        d, smoothness, LEVEL, float(curvature.min()), log_gap, log_alpha, log_alpha < inside, np.maximum(start_kl, 0)
    )


def local_smoothness(
    energy: Energy, beta: float, points: np.ndarray, generator: torch.Generator, level: float = LEVEL
) -> float:
    """Largest |eigenvalue| of beta H found where beta (E - E_min) <= level; E_min the least energy of `points`.

    points (k, d) : the stationary points. The set is explored by chains from them at beta, beta/2, ... beta/128; at
    the stiffest points met, and at all of `points` inside, random steps inside the set then climb to stiffer ones.
    """
    known = torch.as_tensor(np.asarray(points), dtype=torch.float64)
    bottom = energy.value(known).min()

    def inside(x: torch.Tensor) -> torch.Tensor:
        return (beta * (energy.value(x) - bottom) <= level).cpu()

    x = torch.cat([known[inside(known)], _explored(energy, beta, known, inside, generator)])
    size = largest_curvature(energy, x, generator).nan_to_num(nan=0.0)
    best = size.topk(min(CLIMBERS, len(x))).indices
    x, size = x[best], size[best]
    reach = x.std(0, correction=0).clamp_min(1e-3 * (1 + x.abs().amax(0)))
    for climb in range(CLIMBS):
        step = 0.75**climb * reach * torch.randn(x.shape, dtype=torch.float64, generator=generator)
        new = x + step
        new_size = largest_curvature(energy, new, generator).nan_to_num(nan=0.0)
        better = inside(new) & (new_size > size)
        x, size = new.where(better[:, None], x), new_size.where(better, size)
    return beta * float(size.max())


def _explored(
    energy: Energy, beta: float, known: torch.Tensor, inside: Callable[[torch.Tensor], torch.Tensor],
    generator: torch.Generator,
) -> torch.Tensor:  # fmt: skip
    """Points of the set that chains at rising temperatures pass, a few thousand."""
    rows = EXPLORERS * TEMPERATURES
    start = known[inside(known)]
    state = Chains.init(energy, start[torch.arange(rows) % len(start)])
    betas = beta * 0.5 ** torch.arange(TEMPERATURES, dtype=torch.float64)
    top = float(largest_curvature(energy, start, generator).nan_to_num(nan=0.0).max()) or 1.0
    kernel = Mala(None, (betas * top) ** -0.5)
    per_row = betas.repeat_interleave(EXPLORERS)
    state, kernels = warm_up([kernel], energy, per_row, state, EXPLORED_SWEEPS, generator)
    seen: list[torch.Tensor] = []
    for _ in range(EXPLORED_SWEEPS // 10):
        state, _ = run(kernels, energy, per_row, state, 10, generator)
        seen.append(state.x)
    x = torch.cat(seen)
    return x[inside(x)]


def plan(constants: LmcConstants, accuracy: float, start: int, step_size: float | None = None) -> LmcPlan:
    """Iterations from N(minimum `start`, 1/L) until the recursion's bound is at most `accuracy`.

    Without a step of the user's: eta = min(alpha accuracy / (12 d L^2), alpha / (4 L^2)), with which the bound's limit
    is about half of the accuracy. UsageError unless accuracy > 0 and the step is positive.
    """
    if not (math.isfinite(accuracy) and accuracy > 0):
        raise UsageError(f"the accuracy is a Kullback-Leibler divergence greater than 0, not {accuracy!r}")
    if step_size is not None and not (math.isfinite(step_size) and step_size > 0):
        raise UsageError(f"a step size is finite and greater than 0, not {step_size!r}")
    c, d = constants, constants.dim
    log_l2 = 2 * math.log(c.smoothness)
    if step_size is None:
        log_step = min(c.log_alpha + math.log(accuracy / (12 * d)) - log_l2, c.log_largest_step)
    else:
        log_step = math.log(step_size)
    start_kl = float(c.start_kl[start])
    if c.log_alpha == -math.inf:  # parts that no saddle joins: the bound never falls
        return LmcPlan(log_step, False, math.inf, accuracy, start_kl, math.inf)
    log_rate = c.log_alpha + log_step
    # b = 6 eta^2 d L^2 / (1 - exp(-alpha eta)), in logarithms: alpha eta may be far below float64.
    rate = math.exp(log_rate) if log_rate > -700 else 0.0
    log_loss = math.log(-math.expm1(-rate)) if rate > 0 else log_rate
    limit = math.exp(min(math.log(6 * d) + 2 * log_step + log_l2 - log_loss, 700))
    if start_kl <= accuracy:
        log_iterations = -math.inf
    elif limit >= accuracy:
        log_iterations = math.inf
    else:
        log_iterations = math.log(math.log((start_kl - limit) / (accuracy - limit))) - log_rate
    return LmcPlan(log_step, log_step <= c.log_largest_step, limit, accuracy, start_kl, log_iterations)


def harmonic_bias(eigenvalues: np.ndarray, weights: np.ndarray, beta: float, step_size: float) -> float:
    """KL of what LMC converges to at this step, in the wells taken as harmonic; infinite beyond stability.

    In a direction of curvature lambda (of beta E) the variance is r / lambda with r = 1 / (1 - eta lambda / 2), and
    KL = sum (r - 1 - log r) / 2, averaged over the wells, eigenvalues (n, d), with weights (n,). The wells' own weights
    are taken as unchanged.
    """
    part = 0.5 * step_size * beta * np.asarray(eigenvalues, float)
    if not (part < 1).all():
        return math.inf
    ratio = 1 / (1 - part)
    return float(np.asarray(weights) @ (0.5 * (ratio - 1 - np.log(ratio))).sum(axis=1))


def observe(
    energy: Energy,
    beta: float,
    minima: np.ndarray,
    hessians: np.ndarray,
    weights: np.ndarray,
    start: int,
    smoothness: float,
    accuracy: float,
    label: Label,
    generator: torch.Generator,
    *,
    step_size: float | None = None,
    n_chains: int = 2000,
    max_iterations: int = 20_000,
    progress: Progress | None = None,
) -> LmcObserved:
    """Run LMC from N(minima[start], 1/L) and look, ever more seldom, at how far the chains are from equilibrium.

    minima (n, d), hessians (n, d, d) of E, weights (n,) of the states. label : positions (m, d) -> (m,) integers, -1
    for no known state, whose chains are left out. step_size : eta, by default .05 / L. Stops when kl is at most
    accuracy + floor, or at max_iterations.
    """
    eta = LMC_STABILITY / smoothness if step_size is None else step_size
    n = len(weights)
    normal = torch.randn(n_chains, energy.dim, dtype=torch.float64, generator=generator)
    state = Chains.init(energy, torch.as_tensor(minima[start]) + normal / math.sqrt(smoothness))
    d = energy.dim
    floor = (n - 1 if n > 1 else d + d * (d + 1) / 2) / (2 * n_chains)
    kernel, done, iterations, kl = Lmc(eta), 0, [0], [_distance(state, minima, hessians, weights, beta, label)]
    while kl[-1] > accuracy + floor and done < max_iterations and not bool(state.stopped.all()):
        more = min(max(1, math.ceil((LOOK_RATIO - 1) * done)), max_iterations - done)
        state, _ = run([kernel], energy, beta, state, more, generator)
        done += more
        iterations.append(done)
        kl.append(_distance(state, minima, hessians, weights, beta, label))
        if progress is not None:
            progress(f"LMC: {done:,} of at most {max_iterations:,} iterations, KL {kl[-1]:.3g}")
    reached = done if kl[-1] <= accuracy + floor else None
    return LmcObserved(np.array(iterations), np.array(kl), floor, reached, start, int(state.stopped.sum()), eta)


def _distance(
    state: Chains, minima: np.ndarray, hessians: np.ndarray, weights: np.ndarray, beta: float, label: Label
) -> float:
    x = state.x[~state.stopped]
    if len(x) < 2:
        return math.inf
    if len(weights) == 1:
        points = x.numpy()
        return gaussian_kl(points.mean(0), np.cov(points.T, ddof=0), minima[0], beta * hessians[0])
    labels = np.asarray(label(x))
    share = np.bincount(labels[labels >= 0], minlength=len(weights)) / max((labels >= 0).sum(), 1)
    seen = share > 0
    return float((share[seen] * np.log(share[seen] / weights[seen])).sum()) if seen.any() else math.inf


def gaussian_kl(mean: np.ndarray, covariance: np.ndarray, center: np.ndarray, precision: np.ndarray) -> float:
    """KL(N(mean, covariance) | N(center, precision^-1)): (d,), (d, d), (d,), (d, d).

    (tr(P C) - d - log det(P C) + (m - c)' P (m - c)) / 2.
    """
    product = np.atleast_2d(precision) @ np.atleast_2d(covariance)
    shift = np.asarray(mean) - np.asarray(center)
    sign, log_det = np.linalg.slogdet(product)
    if sign <= 0:
        return math.inf
    return float(0.5 * (np.trace(product) - len(product) - log_det + shift @ np.atleast_2d(precision) @ shift))
