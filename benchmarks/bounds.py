"""Two-sided brackets against exact rates: five seeds of every case, all of them printed.

    python benchmarks/bounds.py [--seeds 5] [--case NAME] [--json FILE]

Mueller-Brown between discs of radius .15 around its two lowest minima (kT = 10, 15, 20), the triple well between its
two lowest (beta = 1.67, 2, 4, 6.67), and Mueller-Brown with eight harmonic coordinates more, turned by a random
rotation, d = 10 (cores are then cylinders and the exact rate is unchanged). Exact rates come from finite volumes.
Processor time is given beside wall time, as a busy machine stretches the latter.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from landscape.dynamics import Overdamped
from landscape.energy import Energy, load_energy
from landscape.rates import Cores, discs, make_cores, reference_rates
from landscape.rates.bounds import bracket_rate
from landscape.search import string_method

CASES = [
    *[(f"mueller-brown kT={kT}", "muller-brown", 1 / kT, 0, 1.15) for kT in (10, 15, 20)],
    *[(f"triple-well beta={beta}", "triple-well", beta, 0, 1.15) for beta in (1.67, 2.0, 4.0, 6.67)],
    *[(f"mueller-brown d=10 kT={kT}", "muller-brown", 1 / kT, 8, 1.25) for kT in (10, 15, 20)],
]
JOINS = {"muller-brown": [(1, 2), (0, 2)], "triple-well": [(0, 2), (1, 2), (0, 1)]}


def prepare(
    name: str, beta: float, extra: int
) -> tuple[float, Energy, Cores, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Exact rate, energy, cores, saddles, joins and minimum energy paths of a case."""
    energy, dynamics = load_energy(f"potential:{name}"), Overdamped(beta)
    known = energy.function.stationary_points()
    minima, saddles = known.x[known.index == 0], known.x[known.index == 1]
    joins = np.array(JOINS[name])
    paths = []
    for (a, b), saddle in zip(joins, saddles, strict=True):
        first = np.concatenate([np.linspace(minima[a], saddle, 20), np.linspace(saddle, minima[b], 20)[1:]])
        paths.append(string_method(energy, minima[a][None], minima[b][None], images=first[None]).images[0])
    if name == "muller-brown":
        cores = discs(minima, 0.15)
    else:
        cores = make_cores(energy, dynamics, minima, torch.Generator().manual_seed(0))
    two = Cores(cores.center[:2], cores.form[:2], None, cores.shrink[:2])
    exact = float(reference_rates(energy, dynamics, two).rates[0, 1])
    if not extra:
        return exact, energy, cores, saddles, joins, paths
    d = 2 + extra
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))[0]
    turned, plane = torch.as_tensor(rotation), energy.function
    stiffness = torch.as_tensor(np.geomspace(200, 2000, extra))

    def value(x: torch.Tensor) -> torch.Tensor:
        y = x @ turned
        return plane(y[:, :2]) + 0.5 * (stiffness * y[:, 2:].square()).sum(1)

    def embed(points: np.ndarray) -> np.ndarray:
        return points @ rotation[:, :2].T

    form = np.einsum("ia,nab,jb->nij", rotation[:, :2], cores.form, rotation[:, :2])
    cylinders = Cores(embed(cores.center), form, None, cores.shrink)
    return exact, Energy(value, d), cylinders, embed(saddles), joins, [embed(path) for path in paths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    header = f"{'case':26} seed  exact      lower/exact upper/exact  upper/lower inside narrow certified  cpu s wall s"
    print(header, flush=True)
    cases = [case for case in CASES if arguments.case in case[0]]
    prepared = {title: prepare(name, beta, extra) for title, name, beta, extra, _ in cases}
    for seed in range(arguments.seeds):
        for title, _, beta, _, limit in cases:
            exact, energy, cores, saddles, joins, paths = prepared[title]
            cpu = time.process_time()
            found = bracket_rate(
                energy, Overdamped(beta), cores, [0], [1], saddles, joins, paths, torch.Generator().manual_seed(seed)
            )
            low, high = found.rate / exact
            row = {
                "case": title, "seed": seed, "exact": exact, "lower": low, "upper": high, "ratio": found.ratio,
                "capacity": np.exp(found.log_capacity[1] - found.log_capacity[0]),
                "inside": bool(low <= 1 <= high), "narrow": found.ratio < limit, "certified": found.certified,
                "reasons": found.reasons, "cpu": time.process_time() - cpu, "wall": found.seconds,
            }  # fmt: skip
            rows.append(row)
            numbers = f"{exact:<10.5g} {low:10.4f} {high:11.4f} {found.ratio:12.4f}"
            flags = f"{row['inside']!s:6} {row['narrow']!s:6} {found.certified!s:9}"
            times = f"{row['cpu']:6.1f} {row['wall']:6.1f}"
            print(f"{title:26} {seed:4}  {numbers}  {flags} {times} {found.reasons or ''}", flush=True)
    good = sum(row["inside"] and row["narrow"] and row["certified"] for row in rows)
    print(f"{good} of {len(rows)} contain the exact rate, are narrow enough and certified")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
