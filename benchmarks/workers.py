"""Where processes begin to pay: one batched process against local workers, on energies that take a known time.

    python benchmarks/workers.py [--starts N] [--workers N] [--json FILE]

Descents from N points in a double well whose evaluation sleeps, for so many milliseconds a point or a call: a stand-in
for work that is done elsewhere (another program, a server, an accelerator), so that the numbers are of the engine and
not of this machine's cores. The time that workers need to start (they import torch) is told apart.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch

from landscape.energy import load_energy
from landscape.search.lbfgs import relax
from landscape.tasks import TaskEnergy, Workers, is_slow

DIM = 2


def sleeping(each_call: float, each_point: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A double well that sleeps (milliseconds)."""

    def wells(x: torch.Tensor) -> torch.Tensor:
        time.sleep(1e-3 * (each_call + each_point * len(x)))
        return ((x * x - 1) ** 2).sum(1)

    return wells


call_50 = sleeping(50, 0)
point_0 = sleeping(0, 0)
point_1 = sleeping(0, 1)
point_3 = sleeping(0, 3)
point_10 = sleeping(0, 10)
point_50 = sleeping(0, 50)
CASES = ("point_0", "call_50", "point_1", "point_3", "point_10", "point_50")


def descend(name: str, starts: int, executor: Executor | None, in_blocks: bool) -> dict[str, Any]:
    """Seconds of the descents, evaluations and what was reached; in_blocks: cut as for a slow energy."""
    plain = load_energy(f"{Path(__file__).resolve()}:{name}", dim=DIM)
    energy = TaskEnergy(plain, executor=executor, slow=True) if in_blocks else plain
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(starts, DIM, generator=generator, dtype=torch.float64)
    plain.evaluations.gradient = 0
    begun = time.perf_counter()
    ended = relax(energy, x, 2.0)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "gradients": plain.evaluations.gradient, "x": ended["x"]}


def started(n: int, executor: Executor, name: str) -> float:
    """Seconds until every worker has started and loaded the energy: four blocks for each of them."""
    energy = TaskEnergy(load_energy(f"{Path(__file__).resolve()}:{name}", dim=DIM), executor=executor, slow=True)
    begun = time.perf_counter()
    energy.value(torch.zeros(64 * n, DIM, dtype=torch.float64))
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=64)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    n, rows = arguments.workers, []
    with Workers(n) as executor:
        print(f"{n} workers have started after {started(n, executor, CASES[0]):.1f} s", flush=True)
        print(f"{'energy':>9} {'slow':>5} {'gradients':>9} {'one batch':>9} {'blocks':>8} {'workers':>8}", flush=True)
        for name in CASES:
            started(n, executor, name)
            found = descend(name, arguments.starts, executor, True)
            alone, cut = descend(name, arguments.starts, None, False), descend(name, arguments.starts, None, True)
            assert torch.equal(found["x"], cut["x"]), "workers have to give the serial answer bit by bit"
            row = {
                "energy": name, "starts": arguments.starts, "workers": n,
                "slow": is_slow(load_energy(f"{Path(__file__).resolve()}:{name}", dim=DIM)),
                "gradients": alone["gradients"], "one_batch_s": alone["seconds"], "blocks_s": cut["seconds"],
                "workers_s": found["seconds"],
            }  # fmt: skip
            rows.append(row)
            times = f"{row['one_batch_s']:9.2f} {row['blocks_s']:8.2f} {row['workers_s']:8.2f}"
            print(f"{name:>9} {row['slow']!s:>5} {row['gradients']:9} {times}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
