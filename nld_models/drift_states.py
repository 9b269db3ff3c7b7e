"""States of a generic neural SDE: the attracting fixed points of its drift, in the place of an energy's minima.

dz = f(z) dt + sqrt(2 D) dW with a free drift f has neither an energy nor a known stationary density. What is left of a
landscape: a point follows the flow dz/dt = f(z), as it follows the gradient flow of an energy, and its state is the
fixed point that it reaches; weights and rates are counted in simulations. Basin masses, expansions about a minimum,
saddles and Langer's formula are not defined. Points whose flow goes round for ever belong to no state.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import solve_continuous_lyapunov

from nld_models.errors import ConfigError
from nld_models.kinetics import lagged_counts
from nld_models.model import LatentModel
from nld_models.prior import FreePrior
from nld_models.resolution import fastest_rate

STARTS, START_SPREAD = 500, 1.5  # of the search: draws from the learned start, spread wider
FLOW_STEP = 1.0  # of the flow (Runge-Kutta of order 4): its length times the fastest rate
DRAW_STEP = 0.3  # of draws from the prior (Heun)
MAX_FLOW = 1000  # steps of the flow: what has reached nothing by then belongs to no state
AT_REST = 1e-6  # of the starts' spread: the search's flow ends where no step is longer
NEWTON_STEPS = 30
MERGE = 1e-3  # fixed points closer than this share of the starts' spread are one
TRAP_POINTS, TRAP_SHRINK = 4096, 0.8
CHAINS, BURN_IN, THINNING = 2000, 100.0, 5.0  # of draws from the prior; times in observations


@dataclass(frozen=True, eq=False)
class DriftStates:
    """The states of one seed of a free drift.

    prior : of that seed alone, in float64. attractors (n, d) : attracting fixed points, the one that most starts reach
    first. metrics (n, d, d) : a point z belongs to state i as soon as (z - a_i)' metrics_i (z - a_i) < 1, where the
    flow was seen to point inwards (of `TRAP_POINTS` random points). rate : the fastest of the linearised drift, in 1 /
    observation. trained_in : precision of simulations.
    """

    prior: FreePrior
    attractors: np.ndarray
    metrics: np.ndarray
    rate: float
    trained_in: torch.dtype

    @property
    def n_states(self) -> int:
        return len(self.attractors)

    def label(self, z: np.ndarray) -> np.ndarray:
        """State of each latent point by the drift's flow: (..., d) -> (...) integers, -1 where it reaches none."""
        flat = torch.from_numpy(np.asarray(z, dtype=float).reshape(-1, self.attractors.shape[1]))
        labels = torch.full((len(flat),), -1)
        rows, x = torch.arange(len(flat)), flat
        for _ in range(MAX_FLOW):
            here = self._caught(x)
            labels[rows] = here
            rows, x = rows[here < 0], x[here < 0]
            if not len(rows) or not self.n_states:
                break
            x = flow_step(self.prior, x, FLOW_STEP / self.rate)
        return labels.numpy().reshape(z.shape[:-1])

    def time_step(self, resolution: float) -> float:
        """The time step at which `resolution` = step times the fastest rate."""
        return resolution / self.rate

    def counts(
        self, start: torch.Tensor, lag: float, time_step: float, generator: torch.Generator, settle: float = 2.0
    ) -> np.ndarray:
        """(n, n) counts of state i after `settle`, state j after `settle + lag`, over paths from start (m, d)."""
        before = self._simulate(start.to(self.trained_in), settle, time_step, generator)
        after = self._simulate(before, lag, time_step, generator)
        labels = np.stack([self.label(points.double().numpy()) for points in (before, after)], 1)
        return lagged_counts(labels, self.n_states, 1)

    def draw(self, n: int, generator: torch.Generator) -> np.ndarray:
        """n points of the simulated prior, (n, d), after a burn-in from its learned start; neighbours are of different
        paths. Whether the process is in equilibrium by then is not known."""
        step = self.time_step(DRAW_STEP)
        x = self._simulate(self.start(min(n, CHAINS), generator).to(self.trained_in), BURN_IN, step, generator)
        drawn = [x]
        while len(drawn) * len(x) < n:
            drawn.append(self._simulate(drawn[-1], THINNING, step, generator))
        return torch.cat(drawn)[:n].double().numpy()

    def start(self, n: int, generator: torch.Generator, spread: float = 1.0) -> torch.Tensor:
        """n draws from the learned Gaussian that windows start from, (n, d), its standard deviation times `spread`."""
        normal = torch.randn(n, self.prior.dim, generator=generator, dtype=torch.float64)
        return self.prior.start_mean + spread * self.prior.start_log_sd.exp() * normal

    def _caught(self, x: torch.Tensor) -> torch.Tensor:
        """(m, d) -> (m,): the state whose trap holds the point, -1 for none."""
        caught = torch.full((len(x),), -1)
        for k, (attractor, metric) in enumerate(zip(self.attractors, self.metrics, strict=True)):
            away = x - torch.from_numpy(attractor)
            caught[((away @ torch.from_numpy(metric)) * away).sum(1) < 1] = k
        return caught

    def _simulate(self, x: torch.Tensor, duration: float, time_step: float, generator: torch.Generator) -> torch.Tensor:
        """Heun's method from x (m, d); weak order 2, since the noise is additive."""
        steps = max(1, int(np.ceil(duration / time_step - 1e-9)))
        h = duration / steps
        prior = copy.deepcopy(self.prior).to(x.dtype)
        sd = (2 * h * prior.diffusion(2)).sqrt()
        with torch.no_grad():
            for _ in range(steps):
                noise = sd * torch.randn(x.shape, generator=generator, dtype=x.dtype)
                slope = prior.drift(x[None])[0]
                x = x + 0.5 * h * (slope + prior.drift((x + h * slope + noise)[None])[0]) + noise
        return x


def find_drift_states(model: LatentModel, seed_index: int, *, seed: int = 0) -> DriftStates:
    """Attracting fixed points of one seed's drift: the flow from many starts, then Newton's method.

    ConfigError for a model whose prior has an energy.
    """
    if not isinstance(model.prior, FreePrior):
        raise ConfigError("a prior with an energy has minima; attracting fixed points are for prior nsde")
    prior = copy.deepcopy(model.prior).double().requires_grad_(False)
    for parameter in prior.parameters():
        parameter.data = parameter.data[seed_index : seed_index + 1].clone()
    generator = torch.Generator().manual_seed(seed)
    nothing = np.empty((0, prior.dim))
    states = DriftStates(prior, nothing, np.empty((0, prior.dim, prior.dim)), 1.0, model.dtype)
    starts = states.start(STARTS, generator, START_SPREAD)
    rate = float(fastest_rate(prior, starts[None])[0])
    x, spread = starts, float(starts.std(0).mean())
    for _ in range(MAX_FLOW):
        before, x = x, flow_step(prior, x, FLOW_STEP / rate)
        if float((x - before).abs().max()) < AT_REST * spread:
            break
    found = _attracting(prior, x, MERGE * spread)
    metrics = [_trap(prior, attractor, found, generator) for attractor in found]
    shape = (len(found), prior.dim, prior.dim)
    return DriftStates(prior, found.numpy(), np.array(metrics).reshape(shape), rate, model.dtype)


@torch.no_grad()
def flow_step(prior: FreePrior, x: torch.Tensor, h: float) -> torch.Tensor:
    """One step of dz/dt = f(z) by the classical Runge-Kutta method, (m, d) -> (m, d)."""

    def f(y: torch.Tensor) -> torch.Tensor:
        return prior.drift(y[None])[0]

    a = f(x)
    b = f(x + 0.5 * h * a)
    c = f(x + 0.5 * h * b)
    return x + h / 6 * (a + 2 * b + 2 * c + f(x + h * c))


def jacobian(prior: FreePrior, x: torch.Tensor) -> torch.Tensor:
    """Of the drift at (m, d), (m, d, d)."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        values = prior.drift(leaf[None])[0]
        rows = [torch.autograd.grad(values[:, i].sum(), leaf, retain_graph=True)[0] for i in range(x.shape[1])]
    return torch.stack(rows, 1)


def _attracting(prior: FreePrior, ends: torch.Tensor, closest: float) -> torch.Tensor:
    """Attracting fixed points that Newton's method reaches from the flow's ends, each once, (n, d)."""
    x = ends
    for _ in range(NEWTON_STEPS):
        step = torch.linalg.lstsq(jacobian(prior, x), prior.drift(x[None])[0][..., None]).solution[..., 0]
        x = x - step
    # A flow that goes round may lead Newton's method anywhere: only what it was about to reach counts.
    near = torch.linalg.vector_norm(x - ends, dim=1) < closest
    stable = torch.linalg.eigvals(jacobian(prior, x)).real.amax(1) < 0
    x = x[near & stable]
    found: list[torch.Tensor] = []
    shares: list[int] = []
    while len(x):
        same = torch.linalg.vector_norm(x - x[0], dim=1) < closest
        found.append(x[0])
        shares.append(int(same.sum()))
        x = x[~same]
    order = sorted(range(len(found)), key=lambda k: -shares[k])
    return torch.stack([found[k] for k in order]) if found else ends[:0]


def _trap(prior: FreePrior, attractor: torch.Tensor, others: torch.Tensor, generator: torch.Generator) -> np.ndarray:
    """The metric of an ellipsoid around an attractor in which the flow points inwards.

    P solves J' P + P J = -1 (Lyapunov); the ellipsoid z' P z < rho is shrunk until f' P z < 0 at random points of it.
    """
    d = len(attractor)
    metric = torch.from_numpy(solve_continuous_lyapunov(jacobian(prior, attractor[None])[0].numpy().T, -np.eye(d)))
    away = others - attractor
    distances = ((away @ metric) * away).sum(1)
    far = distances[distances > 0]
    rho = float(far.min()) if len(far) else 100.0 * float(metric.diagonal().sum())
    normal = torch.randn(TRAP_POINTS, d, generator=generator, dtype=torch.float64)
    radius = torch.rand(TRAP_POINTS, 1, generator=generator, dtype=torch.float64) ** (1 / d)
    inside = radius * torch.nn.functional.normalize(normal, dim=1)
    # Columns of the inverse factor carry the unit ball to the ellipsoid of rho = 1.
    ball = inside @ torch.linalg.inv(torch.linalg.cholesky(metric))
    for _ in range(200):
        points = rho**0.5 * ball
        slope = prior.drift((attractor + points)[None])[0]
        if bool((((slope @ metric) * points).sum(1) < 0).all()):
            break
        rho *= TRAP_SHRINK
    return (metric / rho).numpy()
