"""The energies of the benchmarks, by name: plain torch functions that every competitor evaluates.

Imported in the competitors' own environments too, where of this package only modules that need torch and numpy work.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Problem:
    """An energy (n, d) -> (n,) in float64, with the box low <= x <= high that holds its minima.

    minima, saddles : how many there are, where that is known. step : what basin hopping displaces a coordinate by.
    """

    name: str
    function: Callable[[torch.Tensor], torch.Tensor]
    dim: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    minima: int | None = None
    saddles: int | None = None
    step: float = 1.0

    def starts(self, n: int, seed: int) -> np.ndarray:
        """n uniform points of the box: (n, d)."""
        return np.random.default_rng(seed).uniform(self.low, self.high, (n, self.dim))


def rough(seed: int) -> Problem:
    """A rough random network in three dimensions; counts from an exhaustive search (tests/data)."""
    path = ROOT / "tests" / "data" / "rough_mlp.py"
    spec = importlib.util.spec_from_file_location("rough_mlp", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    minima, saddles = {2: (19, 27), 4: (27, 39)}[seed]
    return Problem(f"rough-{seed}", module.make(seed), 3, (-4.0,) * 3, (4.0,) * 3, minima, saddles)


def published_size(dim: int) -> Problem:
    """A residual MLP of the published size (18,000 parameters) with random weights, scaled up until it has several
    wells."""
    from landscape.energy.architectures import ResidualMLP

    generator = torch.Generator().manual_seed(dim)
    with torch.random.fork_rng():
        network = ResidualMLP(dim).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 2:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(noise * 1.6 / parameter.shape[1] ** 0.5)
            elif parameter.ndim == 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            elif name == "_quadratic_term":
                parameter.fill_(0.5)
    network.requires_grad_(False)
    return Problem(f"mlp-{dim}", lambda x: network(x).reshape(-1), dim, (-3.0,) * dim, (3.0,) * dim)


def triple_well() -> Problem:
    from landscape.energy.potentials import TripleWell

    return Problem("triple-well", TripleWell(), 2, (-2.0, -1.5), (2.0, 2.5), 3, 3)


def wells(dim: int) -> Problem:
    """E = sum_i (x_i^4/4 - x_i^2/2 + x_i/10): 2^d minima, d 2^(d-1) saddles, 3^d stationary points in all."""

    def energy(x: torch.Tensor) -> torch.Tensor:
        square = x * x
        return (square * (square / 4 - 0.5) + 0.1 * x).sum(1)

    return Problem(f"wells-{dim}", energy, dim, (-2.0,) * dim, (2.0,) * dim, 2**dim, dim * 2 ** (dim - 1))


def cluster(n: int) -> Problem:
    """The Lennard-Jones cluster of n atoms; counts of distinct structures for n = 7 only."""
    from landscape.energy.potentials import LennardJones

    counts = {7: (4, 12)}.get(n, (None, None))
    half = 1.2 * n ** (1 / 3)
    return Problem(f"lj-{n}", LennardJones(n), 3 * n, (-half,) * (3 * n), (half,) * (3 * n), *counts, step=0.4)


FAMILIES: dict[str, Callable[[int], Problem]] = {
    "rough": rough,
    "mlp": published_size,
    "wells": wells,
    "lj": cluster,
}


def problem(name: str) -> Problem:
    """The problem called FAMILY-NUMBER, or triple-well."""
    if name == "triple-well":
        return triple_well()
    family, number = name.rsplit("-", 1)
    return FAMILIES[family](int(number))
