"""How far a search is from its limit: its time over that of the same evaluations by raw batched gradients.

Every call of the energy counts in gradient-equivalents (value .5, value and gradient 1, Hessian-vector product 2,
Hessian 2 d) times the time of a raw gradient of as many rows: `autograd.grad` of the summed function, nothing else. The
calls of a search are done again so, one after the other, right after it. CPU time of one thread; the median of some
repetitions, since others use the machine, whose speed then changes within seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from problems import Problem

from landscape.energy import Energy
from landscape.search import MinimaSearch, Points, SaddleSearch, find_minima
from landscape.search.connect import PAIR_STRINGS, find_saddles
from landscape.search.explore import Explorer
from landscape.search.saddles import follow_eigenvectors
from landscape.search.stationary import Catalogue
from landscape.search.string import relax_strings, straight_images

MANY = 4  # times the starts: what an iteration costs beside its gradients is shared by more rows
WEIGHTS = {"value": 0.5, "value_and_gradient": 1.0, "hvp": 2.0}


class Metered(Energy):
    """An energy that notes the weight and the rows of every call."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.function, problem.dim)
        self.calls: list[tuple[float, int]] = []

    def _note(self, weight: float, x: Any) -> None:
        if len(x):
            self.calls.append((weight, len(x)))

    def value(self, x: Any) -> Any:
        self._note(WEIGHTS["value"], x)
        return super().value(x)

    def value_and_gradient(self, x: Any) -> Any:
        self._note(WEIGHTS["value_and_gradient"], x)
        return super().value_and_gradient(x)

    def hvp(self, x: Any, v: Any) -> Any:
        self._note(WEIGHTS["hvp"], x)
        return super().hvp(x, v)

    def hessian(self, x: Any) -> Any:
        self._note(2.0 * self.dim, x)
        return super().hessian(x)


def raw_seconds(problem: Problem, calls: list[tuple[float, int]]) -> float:
    """CPU seconds of these calls (weight, rows), each as one raw batched gradient times its weight."""
    points = torch.as_tensor(problem.starts(max(rows for _, rows in calls), 1))
    seconds = 0.0
    for weight, rows in calls:
        begin = time.process_time()
        leaf = points[:rows].clone().requires_grad_(True)
        torch.autograd.grad(problem.function(leaf).sum(), leaf)
        seconds += weight * (time.process_time() - begin)
    return seconds


def measured(problem: Problem, search: Callable[[Metered], Any], repetitions: int = 3) -> dict[str, float]:
    """The CPU time of a search, that of its evaluations done raw, and their ratio."""
    seconds, raw = [], []
    calls: list[tuple[float, int]] = []
    for _ in range(repetitions):
        energy = Metered(problem)
        begin = time.process_time()
        search(energy)
        seconds.append(time.process_time() - begin)
        calls = energy.calls
        raw.append(raw_seconds(problem, calls))
    weights, rows = (np.array(part, float) for part in zip(*calls, strict=True))
    return {
        "cpu_s": float(np.median(seconds)), "raw_s": float(np.median(raw)),
        "ratio": float(np.median(np.divide(seconds, raw))), "calls": len(calls),
        "mean_rows": float(rows.mean()), "gradient_equivalents": float(weights @ rows),
    }  # fmt: skip


def overheads(problem: Problem, starts: int, repetitions: int = 3) -> list[dict[str, Any]]:
    """The ratio of each search of the package on one energy: descents, MANY times as many, walks, strings, all."""
    points, many = problem.starts(starts, 0), problem.starts(MANY * starts, 0)
    plain = Energy(problem.function, problem.dim)
    catalogue = Catalogue(plain)
    found = find_minima(plain, MinimaSearch(starts=Points(points)), catalogue=catalogue)
    explorer = Explorer(plain, catalogue, found, torch.Generator().manual_seed(0), SaddleSearch())
    walks, scale, region = explorer.starts(1).x, explorer.scale, explorer._box(explorer.scale)
    x = torch.as_tensor(found.minima.x)
    first, second = torch.triu_indices(len(x), len(x), 1)
    near = (x[first] - x[second]).norm(dim=1).argsort()[:60]
    images = straight_images(x[first[near]], x[second[near]], PAIR_STRINGS.n_images)
    one = torch.ones(len(walks), dtype=torch.long)
    searches: dict[str, Callable[[Metered], Any]] = {
        "minima": lambda energy: find_minima(energy, MinimaSearch(starts=Points(points))),
        "minima, more starts": lambda energy: find_minima(energy, MinimaSearch(starts=Points(many))),
        "saddle walks": lambda energy: follow_eigenvectors(energy, walks, one, scale, region),
        "strings": lambda energy: relax_strings(energy, images, PAIR_STRINGS),
        "whole search": lambda energy: find_saddles(energy, generator=torch.Generator().manual_seed(0)),
    }
    rows = []
    for name, search in searches.items():
        times = 1 if name == "whole search" else repetitions
        rows.append({"task": "overhead", "energy": problem.name, "search": name} | measured(problem, search, times))
    return rows
