"""Do 95 % intervals of simulated rates hold the truth 95 times in a hundred?

    python benchmarks/coverage.py [--repetitions 400] [--seed 0]

The quartic double well at 1.5 kT, overdamped, both directions; each repetition is a short simulation with its own seed,
and the truth is the rate of the grid between the same cores. Prints the share of intervals that hold it, with the range
that a right interval stays in 99 times of a hundred; counts so far go to standard error. A repetition takes about one
second.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import binom

from landscape.cli.terminal import Progress
from landscape.dynamics import Overdamped
from landscape.energy import load_energy
from landscape.rates import PassageOptions, make_cores, reference_rates, simulate_passages

BETA = 6.0
OPTIONS = PassageOptions(target_error=0.1, budget=600.0, trajectories=1000, time_step=0.03)
CONFIDENCE = 0.95


def covered(
    repetitions: int, seed: int, report: Callable[[str], None] = lambda text: None
) -> tuple[int, int, np.ndarray]:
    """How many of the intervals 0 -> 1 and 1 -> 0 hold the exact rate, and the standardised errors (repetitions, 2)."""
    energy, dynamics = load_energy("potential:double-well"), Overdamped(BETA)
    cores = make_cores(energy, dynamics, np.array([[-1.0], [1.0]]), torch.Generator().manual_seed(0))
    exact = reference_rates(energy, dynamics, cores).rates
    hits, scores = np.zeros(2, dtype=int), np.zeros((repetitions, 2))
    for k in range(repetitions):
        found = simulate_passages(energy, dynamics, cores, torch.Generator().manual_seed(seed + k), OPTIONS).estimate
        for side, (i, j) in enumerate(((0, 1), (1, 0))):
            low, high = found.interval[i, j]
            hits[side] += bool(low <= exact[i, j] <= high)
            scores[k, side] = np.log(found.rates[i, j] / exact[i, j]) * found.rates[i, j] / found.standard_error[i, j]
        report(f"{hits[0]} and {hits[1]} of {k + 1} intervals hold the truth; {repetitions} repetitions are wanted")
    return int(hits[0]), int(hits[1]), scores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0, help="of the first repetition; each has the next one")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    with Progress() as progress:
        forward, back, scores = covered(given.repetitions, given.seed, progress)
    low, high = binom.interval(0.99, given.repetitions, CONFIDENCE)
    print(f"{given.repetitions} repetitions from seed {given.seed}, {time.perf_counter() - began:.0f} s")
    for name, hits, score in (("0 -> 1", forward, scores[:, 0]), ("1 -> 0", back, scores[:, 1])):
        share = f"{hits} of {given.repetitions} intervals hold the truth ({hits / given.repetitions:.1%})"
        print(f"  {name}: {share}; standardised errors {score.mean():+.2f} +- {score.std():.2f}")
    print(f"  right intervals: {low:.0f} to {high:.0f} in 99 % of cases")
    return 0 if low <= min(forward, back) and max(forward, back) <= high else 1


if __name__ == "__main__":
    sys.exit(main())
