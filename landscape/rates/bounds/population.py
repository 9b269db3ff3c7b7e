"""The mass that belongs to A: Z_A = int q exp(-beta E), q the committor to A before B.

The integral of the test function f in place of q comes from importance sampling over wells and legs. What is missing,
int (q - f) exp(-beta E), is the mean of 1{A is reached first} - f(y) over trajectories from equilibrium points, which
is unbiased up to their time step. Trajectories that are not done in time count as either end: they widen the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from landscape.rates.bounds.channels import Network, main_directions
from landscape.rates.bounds.dirichlet import TestFunction
from landscape.rates.bounds.proposal import Draw, GaussianMixture, draw, leg_components
from landscape.rates.bounds.region import Region, Tensor

STEP = 0.1  # time step times the largest curvature
MOST_STEPS = 2000
FLAT = 1e-3  # curvatures of a well below this part of the largest, or negative, count as that


@dataclass(frozen=True)
class Population:
    """log_mass : log Z_A. error : its standard error, low, high : the range by which unfinished trajectories may move
    it, correction : what the trajectories added, all relative to Z_A. weight_share, effective : of the importance
    weights f exp(-beta E) / q. unfinished : trajectories that reached neither core.
    """

    log_mass: float
    error: float
    low: float
    high: float
    correction: float
    weight_share: float
    effective: float
    unfinished: int


def well_components(region: Region, network: Network) -> GaussianMixture:
    """Harmonic Gaussians at the cores' centres and the ends of the legs, evenly weighted."""
    ends = torch.cat([leg.mean[[0, -1]] for leg in network.legs])
    mean = torch.cat([region.center, ends])
    values, vectors = torch.linalg.eigh(region.hessian(mean))
    values = values.maximum(FLAT * values.abs().amax(1, keepdim=True))
    covariance = vectors @ ((1 / values)[:, :, None] * vectors.mT)
    return GaussianMixture(torch.full((len(mean),), 1 / len(mean), dtype=torch.float64), mean, covariance)


def _harmonic(region: Region, network: Network) -> GaussianMixture:
    """Wells and legs, weighted by exp(-beta E) sqrt(det)."""
    both = well_components(region, network).joined(leg_components(network))
    log_weight = -region.reduced(both.mean) + 0.5 * torch.linalg.slogdet(both.covariance)[1]
    return GaussianMixture(torch.softmax(log_weight, 0), both.mean, both.covariance)


def sample_population(
    region: Region, network: Network, function: TestFunction, n: int, trajectories: int, generator: torch.Generator
) -> Population:
    """Z_A of the module's text; see `Population`."""
    main, components = main_directions(network.legs), _harmonic(region, network)
    pilot = draw(region, components.inflated(main), n // 4, generator)
    level = float(pilot.reduced.min())
    log_weight = pilot.log_weight(-1, level)
    components = components_of(components, pilot, torch.exp(log_weight - log_weight.max()))
    found = draw(region, components.inflated(main), n, generator)
    weight = torch.exp(found.log_weight(-1, level))
    value = function(found.y)[0].clamp(0, 1)
    part = value * weight
    mean, error = float(part.mean()), float(part.std()) / math.sqrt(n)
    rows = torch.multinomial(weight, trajectories, replacement=True, generator=generator)
    reached = first_reached(region, found.y[rows], generator)
    open_rows = reached == 0
    known = torch.where(open_rows, 0.0, (reached > 0).to(torch.float64) - value[rows])
    shift = float(weight.mean()) * known
    low = -float(weight.mean()) * float((value[rows] * open_rows).mean())
    high = float(weight.mean()) * float(((1 - value[rows]) * open_rows).mean())
    correction, noise = float(shift.mean()), float(shift.std()) / math.sqrt(trajectories)
    total = max(mean + correction, 0.1 * mean)
    return Population(
        math.log(total) - level, math.hypot(error, noise) / total, low / total, high / total, correction / total,
        float(part.max() / part.sum()), float(part.sum() ** 2 / part.square().sum()), int(open_rows.sum()),
    )  # fmt: skip


def components_of(components: GaussianMixture, found: Draw, weight: Tensor) -> GaussianMixture:
    """Components adapted to weighted points, with a share of their harmonic weights kept."""
    adapted = components.adapted(found.y, weight)
    return GaussianMixture(0.8 * adapted.weight + 0.2 * components.weight, components.mean, components.covariance)


def first_reached(region: Region, y: Tensor, generator: torch.Generator) -> Tensor:
    """+1 for trajectories from y (n, d) that reach A first, -1 for B, 0 for neither within the most steps: (n,)."""
    answer = torch.zeros(len(y))
    step = STEP / _stiffest(region, y)
    kick, rows, y = math.sqrt(2 * step), torch.arange(len(y)), y.clone()
    for _ in range(MOST_STEPS):
        inside_a = (region.levels(y, region.source)[0] < 1).any(1)
        inside_b = (region.levels(y, region.target)[0] < 1).any(1)
        answer[rows[inside_a]], answer[rows[inside_b]] = 1.0, -1.0
        going = ~(inside_a | inside_b)
        rows, y = rows[going], y[going]
        if not len(rows):
            break
        # Heun's rule, in time units of beta: dy = -beta grad E dt + sqrt(2 dt) dW
        noise = kick * torch.randn(y.shape, generator=generator, dtype=torch.float64)
        force = region.gradient(y)
        y = y - 0.5 * step * (force + region.gradient(y - step * force + noise)) + noise
    return answer


def _stiffest(region: Region, y: Tensor) -> float:
    few = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:256]]
    return float(torch.linalg.eigvalsh(region.hessian(few)).abs().max())
