"""How often do the 95 % intervals of basin weights contain the truth?

    python benchmarks/weight_coverage.py [--repetitions 400] [--settings quick]

Exact, sampled and guided weights (sampled, with the exact ones' guide) of energies whose weights are known by
quadrature, each repeated with seeds 0, 1, 2, ... For every state a count of intervals that contain the truth; 95 % of
400 is 380, with a standard deviation of 4.4.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.integrate import quad

from landscape.energy import Energy
from landscape.energy.potentials import TripleWell
from landscape.search import assign_basins, find_saddles, make_basins
from landscape.weights import ExactWeights, SampledWeights, exact_weights, sample_weights

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from oracles import grid_basin_weights
from problems import problem

# Settings that stop early, where an interval is most at risk, beside those that are used by default.
SAMPLED = {
    "default": SampledWeights(),
    "quick": SampledWeights(n_chains=32, target_se=0.03, warm_up=20, max_sweeps=400, min_changes=40),
}
EXACT = {
    "default": ExactWeights(),
    "quick": ExactWeights(target_se=0.03, relative_se=0.2, draws=4096, labels=400),
}


@dataclass(frozen=True)
class Case:
    """An energy with known basins: minima (n, d), labels of points, and the weights (n,)."""

    name: str
    energy: Energy
    minima: np.ndarray
    beta: float
    assign: Callable[[torch.Tensor], Any]
    weights: np.ndarray


def tilted_well() -> Case:
    """E = 6 (x^4/4 - x^2/2 + .15 x): two wells that part at the maximum."""
    left, top, right = np.sort(np.roots([1, 0, -1, 0.15]).real)

    def density(x: float) -> float:
        return math.exp(-6 * (x**4 / 4 - x**2 / 2 + 0.15 * x))

    masses = np.array([quad(density, *ends, epsabs=1e-12)[0] for ends in ((-6, top), (top, 6))])
    energy = Energy(lambda z: 6 * (z[:, 0] ** 4 / 4 - z[:, 0] ** 2 / 2 + 0.15 * z[:, 0]), 1)
    minima = np.array([[left], [right]])
    return Case("tilted well", energy, minima, 1.0, lambda x: (x[:, 0] > top).long(), masses / masses.sum())


def triple_well(beta: float) -> Case:
    """Metzner's triple well."""
    potential = TripleWell()
    known = potential.stationary_points()
    minima = known.x[known.index == 0]
    return tabulated(f"triple well, beta {beta:g}", Energy(potential, 2), minima, beta, (-3.0, 3.5))


def network(beta: float) -> Case:
    """A rough network of the published size in two dimensions: eleven wells far from harmonic."""
    energy = Energy(problem("mlp-2").function, 2)
    minima = find_saddles(energy, generator=torch.Generator().manual_seed(0)).minima.x
    return tabulated(f"network, beta {beta:g}", energy, minima, beta, (-6.0, 6.0), 250)


def tabulated(
    name: str, energy: Energy, minima: np.ndarray, beta: float, box: tuple[float, float], n: int = 400
) -> Case:
    """Points are labelled from a table of the flow basins (so that a label costs nothing here); weights by quadrature
    on the same table."""
    basins = make_basins(energy, minima, torch.Generator().manual_seed(0))
    middles = np.linspace(*box, 2 * n + 1)[1::2]
    grid = np.stack(np.meshgrid(middles, middles, indexing="ij"), -1).reshape(-1, 2)
    table = torch.as_tensor(assign_basins(energy, grid, basins))

    def lookup(x: torch.Tensor) -> torch.Tensor:
        cell = ((x - box[0]) / (box[1] - box[0]) * n).floor().clamp(0, n - 1).long()
        return table[cell[:, 0] * n + cell[:, 1]]

    # Twice as fine in the energy as in the table.
    weights = grid_basin_weights(
        energy.value, lambda x: lookup(torch.as_tensor(x)).numpy(), beta, [box, box], 2 * n, len(minima)
    )
    return Case(name, energy, minima, beta, lookup, weights)


def covered(case: Case, method: str, settings: str, seed: int) -> np.ndarray | None:
    """Whether the interval of each state holds its weight (1 or 0), nan where it has no number; None for no numbers."""
    hessians = case.energy.hessian(case.minima)
    generator = torch.Generator().manual_seed(seed)
    arguments = (case.energy, case.minima, hessians, case.beta, case.assign)
    result: Any = None
    if method != "sampled":
        result = exact_weights(*arguments, EXACT[settings], generator)
    if method != "exact":
        guide = None if result is None else result.guide
        result = sample_weights(*arguments, SAMPLED[settings], generator, guide=guide)
    if result.weights is None:
        return None
    low, high = result.interval()
    return np.where(np.isnan(low), np.nan, (low <= case.weights) & (case.weights <= high))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--settings", choices=sorted(SAMPLED), default="quick")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for case in (tilted_well(), triple_well(1.67), triple_well(4.0), network(1.0)):
        for method in ("exact", "sampled", "guided"):
            started = time.perf_counter()
            rows = [covered(case, method, arguments.settings, seed) for seed in range(arguments.repetitions)]
            hits = np.array([row for row in rows if row is not None])
            known = (~np.isnan(hits)).sum(0) if len(hits) else []
            share = ", ".join(f"{held:.0f}/{n}" for held, n in zip(np.nansum(hits, 0), known, strict=True))
            seconds = time.perf_counter() - started
            settings = f"{case.name:22s} {method:8s} {arguments.settings:8s}"
            print(f"{settings} held by {share or 'no'} intervals of each state; {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
