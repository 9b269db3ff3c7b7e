"""Whole analyses in many dimensions: CPU seconds, evaluations, memory; barrier, path and rate against closed forms.

    python benchmarks/large_dimension.py [D ...] [--json FILE]

The energy is a double well along one direction with a bath of stiff ones across it, whose stiffness changes on the way
over the saddle, all turned by reflections, so that no coordinate is special; the path is straight:
E = 2 (y_1^2 - 1)^2 + sum_i k_i (1 + c_i exp(-4 y_1^2)) y_i^2 / 2 with k from .5 to 50 and c up to .05. Energies,
determinants and the rate are known in closed form.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time

import numpy as np
import torch

import landscape
from landscape.energy import Energy

A, BETA = 8.0, 3.0


class DoubleWell:
    def __init__(self, d: int) -> None:
        generator = torch.Generator().manual_seed(0)
        normals = torch.randn(3, d, generator=generator, dtype=torch.float64)
        self.normals = normals / normals.norm(dim=1, keepdim=True)
        self.k = torch.logspace(math.log10(0.5), math.log10(50.0), d - 1, dtype=torch.float64)
        self.c = 0.05 * torch.rand(d - 1, generator=generator, dtype=torch.float64)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        """y of points x (n, d)."""
        for normal in self.normals:
            x = x - 2 * (x @ normal)[:, None] * normal
        return x

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = self.turned(x)
        along = x[:, 0].square()
        stiffness = self.k * (1 + self.c * torch.exp(-4 * along)[:, None])
        return A / 4 * (along - 1) ** 2 + 0.5 * (stiffness * x[:, 1:].square()).sum(1)

    @property
    def log_rate(self) -> float:
        """k = a / 2 pi sqrt(det H_i / |det H_s|) exp(-beta a / 4), in closed form."""
        ratio = math.log(2) + float((torch.log1p(self.c * math.exp(-4)) - torch.log1p(self.c)).sum())
        return math.log(A / (2 * math.pi)) + 0.5 * ratio - BETA * A / 4


def measure(d: int) -> dict[str, float | int | bool]:
    well = DoubleWell(d)
    energy = Energy(well, d, source=f"double well in {d} dimensions")
    wall, cpu = time.perf_counter(), time.process_time()
    analysis = landscape.analyze(energy, landscape.Overdamped(BETA, 1.0))
    rates, errors = analysis.rates.log_rates, analysis.rates.log_errors
    images = well.turned(torch.as_tensor(analysis.paths.images).reshape(-1, d))
    return {
        "d": d, "states": len(analysis.states.energy), "saddles": len(analysis.saddles.energy),
        "converged": bool(analysis.diagnostics["converged"]), "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - wall, "gradients": energy.evaluations.gradient,
        "products": energy.evaluations.hvp, "hessians": energy.evaluations.hessian,
        "barrier_off": float(np.abs(analysis.saddles.energy - analysis.states.energy.min() - A / 4).max()),
        "paths": len(analysis.paths.images), "path_off": float(images[:, 1:].norm(dim=1).max()),
        "relative_error_told": float(errors.max()), "log_rate_off": float(np.abs(rates - well.log_rate).max()),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dimensions", metavar="D", type=int, nargs="*", default=[300, 1000])
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print("     d  states  saddles  barrier off  path off  CPU s  gradients  products  rate +-  off by  peak MB")
    for d in arguments.dimensions:
        row = measure(d)
        rows.append(row)
        print(
            f"{d:6d}  {row['states']:6d}  {row['saddles']:7d}  {row['barrier_off']:11.1e}  {row['path_off']:8.1e}  "
            f"{row['cpu_seconds']:5.0f}  {row['gradients']:9,}  {row['products']:8,}  "
            f"{row['relative_error_told']:7.1%}  {row['log_rate_off']:6.1%}  {row['peak_megabytes']:7.0f}",
            flush=True,
        )
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
