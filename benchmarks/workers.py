"""Where processes begin to pay: one batched process against local workers, on energies that take a known time.

    python benchmarks/workers.py [--starts N] [--json FILE]

Descents from N points in a double well whose evaluation sleeps, for so many milliseconds a point or a call: a stand-in
for work that is done elsewhere (another program, a server, an accelerator), so that the numbers are of the engine and
not of this machine's cores. For the time that workers need to start (they import torch) there is a column of its own.
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


def awake(n: int, executor: Executor, name: str) -> None:
    """Four blocks for each worker, so that all of them have started and loaded the energy."""
    energy = TaskEnergy(load_energy(f"{Path(__file__).resolve()}:{name}", dim=DIM), executor=executor, slow=True)
    energy.value(torch.zeros(64 * n, DIM, dtype=torch.float64))


def measure(name: str, starts: int, workers: tuple[int, ...]) -> dict[str, Any]:
    slow = is_slow(load_energy(f"{Path(__file__).resolve()}:{name}", dim=DIM))
    alone, cut = descend(name, starts, None, False), descend(name, starts, None, True)
    row: dict[str, Any] = {
        "energy": name, "starts": starts, "slow": slow, "gradients": alone["gradients"], "alone_s": alone["seconds"],
        "alone_in_blocks_s": cut["seconds"],
    }  # fmt: skip
    for n in workers:
        begun = time.perf_counter()
        with Workers(n) as executor:
            awake(n, executor, name)
            row[f"workers_{n}_start_s"] = time.perf_counter() - begun
            found = descend(name, starts, executor, True)
        row[f"workers_{n}_s"] = found["seconds"]
        assert torch.equal(found["x"], cut["x"]), "workers have to give the serial answer bit by bit"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print(f"{'energy':>9} {'slow':>5} {'gradients':>9} {'alone':>8} {'blocks':>8}", end="")
    print(*(f" {n:>3} workers (start)" for n in arguments.workers), sep="")
    for name in CASES:
        row = measure(name, arguments.starts, tuple(arguments.workers))
        rows.append(row)
        told = "".join(
            f" {row[f'workers_{n}_s']:10.2f} ({row[f'workers_{n}_start_s']:5.1f})" for n in arguments.workers
        )
        times = f"{row['alone_s']:8.2f} {row['alone_in_blocks_s']:8.2f}{told}"
        print(f"{name:>9} {row['slow']!s:>5} {row['gradients']:9} {times}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
