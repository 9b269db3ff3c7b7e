"""This package."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from competitors.harness import Counted, Found, Request, serve
from landscape.energy import Energy
from landscape.energy.energy import Evaluations
from landscape.search import MinimaSearch, Points, SaddleSearch, find_minima, find_saddles, string_method
from landscape.search.explore import Explorer, Starts
from landscape.search.stationary import Catalogue


def energy_of(counted: Counted) -> Energy:
    name = counted.problem.name
    if name.startswith("lj-"):
        from landscape.energy import load_energy

        return load_energy(f"potential:lennard-jones:n={name.split('-')[1]}")
    return Energy(counted.problem.function, counted.problem.dim)


class Noted(Catalogue):
    """A catalogue that knows what had been spent when each of its points was found."""

    def __init__(self, energy: Energy) -> None:
        super().__init__(energy)
        self.costs: list[int] = []

    def add(self, x: torch.Tensor, hits: Literal["minima", "others", "none"] = "none") -> np.ndarray:
        numbers = super().add(x, hits)
        spent = self.energy.evaluations.gradient_equivalents(self.energy.dim)
        self.costs += [spent] * (len(self) - len(self.costs))
        return numbers


def minima(counted: Counted, request: Request) -> Found:
    energy = energy_of(counted)
    starts = Points(counted.problem.starts(request["starts"], request["seed"]))
    found = find_minima(energy, MinimaSearch(starts=starts))
    return Found(list(found.minima.x), [], "", [], energy.evaluations.gradient_equivalents(energy.dim))


def landscape(counted: Counted, request: Request) -> Found:
    energy = energy_of(counted)
    catalogue = Noted(energy)
    found = find_saddles(energy, generator=torch.Generator().manual_seed(request["seed"]), catalogue=catalogue)
    note = f"complete: {'yes' if found.complete else 'no'}, Morse sum {found.morse_sum}, {found.rounds} rounds"
    cost = energy.evaluations.gradient_equivalents(energy.dim)
    points = catalogue.points()
    saddles = np.flatnonzero((points.index == 1) & ~points.degenerate)
    costs = [catalogue.costs[k] for k in saddles]
    return Found(list(found.minima.x), list(points.x[saddles]), note, costs, cost)


def walks(counted: Counted, request: Request) -> Found:
    """Walks to index 1 as `find_saddles` makes them, polish included; the minima are given to everybody."""
    energy = energy_of(counted)
    catalogue = Catalogue(energy)
    minima = np.array(request["origins"])
    given = find_minima(energy, MinimaSearch(starts=Points(minima)), catalogue=catalogue)
    explorer = Explorer(energy, catalogue, given, torch.Generator().manual_seed(request["seed"]), SaddleSearch())
    beside = np.resize(catalogue.add(torch.as_tensor(minima)), len(request["points"]))
    energy.evaluations = Evaluations()
    reached = explorer.walk({1: Starts(torch.as_tensor(request["points"], dtype=energy.dtype), beside)})
    ends = catalogue.points().x[reached[reached >= 0]]
    cost = energy.evaluations.gradient_equivalents(energy.dim)
    return Found([], list(ends), "", [], cost, len(reached))


def paths(counted: Counted, request: Request) -> Found:
    energy = energy_of(counted)
    pairs = np.array(request["pairs"])
    found = string_method(energy, pairs[:, 0], pairs[:, 1])
    saddles = found.saddle[np.isfinite(found.saddle_energy)]
    note = f"{len(saddles)} of {len(pairs)} tops are saddles"
    return Found([], list(saddles), note, [], energy.evaluations.gradient_equivalents(energy.dim))


if __name__ == "__main__":
    serve({"minima": minima, "landscape": landscape, "walks": walks, "paths": paths})
