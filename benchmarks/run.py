"""Speed against named competitors: the same energy, one right after the other, one thread each.

    python benchmarks/run.py [--only SECTION ...] [--quick] [--environments DIR] [--json FILE]

Sections: minima (multi-start), landscapes (minima, saddles and connections), walks (from the same starts to the nearest
saddles), paths (a saddle between two minima), clusters (Lennard-Jones), growth (with starts, dimension and number of
minima), overhead (distance from the raw batched gradient), analyses (the command line on published models, and on rough
networks). Competitors run as subprocesses in environments of their own
(made on first use with pip under --environments; "not measured" with the reason where that fails). What each of them
found is polished, classified and merged by the same code before it is counted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy
import torch
from environments import CACHE, ROOT, Environments
from problems import Problem, problem
from verify import near_pairs, verified

PAPER_MODELS = Path(os.environ.get("LANDSCAPE_PAPER_MODELS", ROOT.parent / "shared" / "paper_models"))
# CPU seconds after which a competitor ends, between two of its steps, with what it has found until then; and seconds
# after which one that does not is killed.
LIMITS = {"landscapes": 100.0, "walks": 100.0, "clusters": 400.0}
KILLED = 1200.0
MULTI_START = ("ours", "scipy_lbfgsb", "scipy_hopping", "torch_adam", "pele_search", "topsearch_search")
WALKERS = ("ours", "ase_search", "pele_search", "topsearch_search")
ROUGH_SEEDS = 10
DISPLACED = 0.3  # standard deviation of the displacement of a coordinate before a walk
PARTS = {"half": 0.5, "most": 0.9, "all": 1.0}  # of the saddles there are
Row = dict[str, Any]


class Runner:
    """Runs one request after the other and prints a line for each."""

    def __init__(self, environments: Environments, quick: bool, file: Path | None) -> None:
        self.environments, self.quick, self.file, self.machine = environments, quick, file, machine()
        self.rows: list[Row] = []

    def run(self, section: str, competitor: str, request: dict[str, Any]) -> Row:
        """One row of the table: what was found, what was right of it, rates and cost."""
        row: Row = {"section": section, "competitor": competitor}
        row |= {name: value for name, value in request.items() if not isinstance(value, list)}
        row["load"] = os.getloadavg()[0]
        if competitor != "ours" and section in LIMITS:
            request = request | {"limit_s": LIMITS[section] / (10 if self.quick else 1)}
        answer = self.environments.ask(competitor, request, KILLED)
        if "not_measured" in answer:
            row |= answer
        else:
            of = problem(request["energy"])
            true = verified(of, answer["minima"], answer["saddles"])
            unlisted = ("minima", "saddles", "costs", "started")
            row |= {name: value for name, value in answer.items() if name not in unlisted}
            row |= {
                "minima": len(true.minima), "saddles": len(true.saddles), "wrong": true.wrong,
                "minima_per_s": len(true.minima) / answer["cpu_s"],
                "saddles_per_s": len(true.saddles) / answer["cpu_s"], "known": [of.minima, of.saddles],
                "cost_per_saddle": answer["gradient_equivalents"] / max(len(true.saddles), 1),
            }  # fmt: skip
            if len(true.minima):
                energies = of.function(torch.as_tensor(true.minima))
                row["lowest_energies"] = energies.sort().values[:4].tolist()
            if answer["costs"]:
                spent = np.sort(np.array(answer["costs"])[true.first])
                row |= cost_of_parts(spent, of.saddles or len(true.saddles))
                if section == "landscapes":
                    row["spent_at_saddle"] = spent.tolist()
            if answer["started"] is not None:
                row |= cost_of_walks(answer["started"], len(answer["saddles"]), answer["gradient_equivalents"])
        self.add(row, line(row))
        return row

    def add(self, row: Row, text: str) -> None:
        self.rows.append(row)
        print(text, flush=True)
        self.write()

    def write(self) -> None:
        if self.file:
            self.file.write_text(json.dumps({"machine": self.machine, "rows": self.rows}, indent=1) + "\n")

    def minima(self) -> None:
        starts = 100 if self.quick else 1000
        for energy in ("triple-well", "rough-2", "rough-4", "mlp-3", "mlp-10"):
            for competitor in MULTI_START:
                self.run("minima", competitor, {"energy": energy, "task": "minima", "starts": starts, "seed": 0})

    def landscapes(self) -> None:
        scale = 5 if self.quick else 1
        for energy in ("triple-well", "rough-2", "rough-4"):
            hops, connects = (50, 20) if energy == "triple-well" else (1000 // scale, 200 // scale)
            request = {"energy": energy, "task": "landscape", "seed": 0}
            self.run("landscapes", "ours", request)
            self.run("landscapes", "pele_search", request | {"hops": hops, "connects": connects})
            single = request | {"task": "single_ended", "hops": hops, "searches": 2 * connects}
            self.run("landscapes", "pele_search", single)
            self.run("landscapes", "topsearch_search", request | {"hops": hops})
            minima = found_minima(problem(energy)).tolist()
            dimers = {"energy": energy, "task": "dimers", "seed": 0, "searches": 2 * connects, "minima": minima}
            self.run("landscapes", "ase_search", dimers)
            self.at_equal_results(energy)

    def at_equal_results(self, energy: str) -> None:
        """Adds what each had spent when it had as many saddles as the best competitor ended with."""
        rows = [row for row in self.rows if (row["section"], row["energy"]) == ("landscapes", energy)]
        best = max((row.get("saddles", 0) for row in rows if row["competitor"] != "ours"), default=0)
        for row in rows:
            row["best_peer"] = best
            if 0 < best <= len(row.get("spent_at_saddle", ())):
                row["cost_of_best_peer"] = row["spent_at_saddle"][best - 1]
                name = f"{row['competitor']} {row['task']}"
                print(f"landscapes  {energy:12s} {name:30s} {best} saddles at {row['cost_of_best_peer']:,}", flush=True)
        self.write()

    def walks(self) -> None:
        for energy in ("triple-well", "rough-2", "rough-4", "mlp-3", "mlp-10"):
            of = problem(energy)
            minima, rng = found_minima(of), np.random.default_rng(0)
            n = 30 if self.quick else 300
            points = np.resize(minima, (n, of.dim)) + DISPLACED * rng.normal(size=(n, of.dim))
            request = {"energy": energy, "task": "walks", "starts": n, "seed": 0}
            request |= {"origins": minima.tolist(), "points": points.tolist()}
            for competitor in WALKERS:
                self.run("walks", competitor, request)

    def paths(self) -> None:
        for energy in ("triple-well", "rough-2", "mlp-10"):
            pairs = near_pairs(found_minima(problem(energy)), 3 if self.quick else 10).tolist()
            for competitor in ("ours", "ase_search"):
                self.run("paths", competitor, {"energy": energy, "task": "paths", "seed": 0, "pairs": pairs})

    def clusters(self) -> None:
        for energy, searches in (("lj-7", 400), ("lj-13", 4000)):
            if self.quick:
                searches //= 10
            self.run("clusters", "ours", {"energy": energy, "task": "landscape", "seed": 0})
            request = {"energy": energy, "task": "cluster", "seed": 0, "searches": searches}
            self.run("clusters", "pele_search", request)

    def growth(self) -> None:
        for starts in (100, 1000) if self.quick else (100, 1000, 10_000, 100_000):
            for competitor in ("ours", "scipy_lbfgsb"):
                if competitor == "ours" or starts <= 1000:
                    self.run("growth", competitor, {"energy": "rough-2", "task": "minima", "starts": starts, "seed": 0})
        for dim in (2, 8) if self.quick else (2, 8, 32, 128, 512):
            for competitor in ("ours", "scipy_lbfgsb"):
                self.run("growth", competitor, {"energy": f"mlp-{dim}", "task": "minima", "starts": 300, "seed": 0})
        for dim in (3, 4) if self.quick else (3, 4, 6, 8, 10):
            self.run("growth", "ours", {"energy": f"wells-{dim}", "task": "landscape", "seed": 0})

    def overhead(self) -> None:
        from overhead import overheads

        for energy in ("rough-2", "mlp-3", "mlp-10"):
            for row in overheads(problem(energy), 200 if self.quick else 1000, 1 if self.quick else 5):
                self.add(
                    {"section": "overhead", "competitor": "ours", "load": os.getloadavg()[0]} | row,
                    f"overhead    {energy:12s} {row['search']:14s} CPU {row['cpu_s']:8.3f} s, raw gradients "
                    f"{row['raw_s']:8.3f} s, ratio {row['ratio']:.2f} ({row['mean_rows']:.0f} rows a call)",
                )

    def analyses(self) -> None:
        models = sorted(PAPER_MODELS.glob("*/model_*.pth"))
        for path in models[: 1 if self.quick else None]:
            row = analysis(f"{path.parent.name}/{path.stem}", [path])
            self.add(row, line(row))
        if not models:
            print("analyses: published models not measured (not found; set LANDSCAPE_PAPER_MODELS)")
        for network in (2, 4):
            file = ROOT / "tests" / "data" / f"rough_mlp.py:energy_{network}"
            for seed in range(1 if self.quick else ROUGH_SEEDS):
                row = analysis(f"rough-{network}", [file, "--dim", 3, "--seed", seed]) | {"task": f"seed {seed}"}
                row |= raw_speed(problem(row["energy"]))
                self.add(row, line(row))


SECTIONS = ("minima", "landscapes", "walks", "paths", "clusters", "growth", "overhead", "analyses")


def analysis(name: str, arguments: list[Any]) -> Row:
    """One run of `landscape analyze` as a user has it, with imports."""
    row: Row = {"section": "analyses", "competitor": "ours", "energy": name, "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "landscape.cli", "analyze", *arguments, "--out", f"{folder}/out", "--json"]
        begin = time.perf_counter()
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
        wall = time.perf_counter() - begin
    if done.returncode not in (0, 3):
        return row | {"not_measured": (done.stderr.strip() or "failed").splitlines()[-1]}
    document = json.loads(done.stdout)
    return row | {"minima": len(document["states"]), "saddles": len(document["saddles"]), "wall_s": wall}


def raw_speed(of: Problem) -> Row:
    """How fast the machine is at the moment: raw gradients alone and in a batch of 1,000, microseconds a point, and
    seconds that the import of torch takes."""
    from overhead import raw_seconds

    speed: Row = {}
    for name, rows in (("alone", 1), ("in_a_batch", 1000)):
        times = [raw_seconds(of, [(1.0, rows)]) / rows for _ in range(100)]
        speed[f"gradient_{name}_us"] = 1e6 * float(np.median(times))
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return speed | {"import_torch_s": time.perf_counter() - begin}


def found_minima(of: Problem) -> np.ndarray:
    """The minima that the competitors of a path search start from."""
    from landscape.energy import Energy
    from landscape.search import find_minima

    return find_minima(Energy(of.function, of.dim)).minima.x


def cost_of_parts(costs: np.ndarray, total: int) -> dict[str, int]:
    """Gradient-equivalents spent when half, nine tenths and all of `total` saddles were found, as far as it came.

    costs (n,) : spent when each of the saddles was found, ascending."""
    numbers = {name: math.ceil(part * total) for name, part in PARTS.items()}
    return {f"cost_of_{name}": int(costs[n - 1]) for name, n in numbers.items() if 0 < n <= len(costs)}


def cost_of_walks(started: int, converged: int, cost: int) -> Row:
    return {
        "started": started, "converged": converged, "cost_per_start": cost / max(started, 1),
        "cost_per_converged": cost / max(converged, 1),
    }  # fmt: skip


def line(row: Row) -> str:
    """One row of the table as text."""
    size = f"{row['starts']} starts" if "starts" in row else row.get("task", "")
    head = f"{row['section']:11s} {row['energy']:12s} {size:13s} {row['competitor']:17s}"
    if "not_measured" in row:
        return f"{head} not measured: {row['not_measured']}"
    if "cpu_s" not in row:
        text = f"{head} {row['minima']:5d} minima {row['saddles']:5d} saddles  wall {row['wall_s']:8.2f} s"
        if "import_torch_s" in row:
            text += (
                f"  a gradient alone {row['gradient_alone_us']:.0f} us, in a batch {row['gradient_in_a_batch_us']:.1f} "
                f"us, import torch {row['import_torch_s']:.1f} s"
            )
        return text
    saddle = f"{row['cost_per_saddle']:8,.0f} a saddle" if row["saddles"] else " " * 17
    parts = "  ".join(f"{name} at {row[f'cost_of_{name}']:,}" for name in PARTS if f"cost_of_{name}" in row)
    if "converged" in row:
        parts = (
            f"{row['started']} walks ({row['cost_per_start']:,.1f} each), {row['converged']} converged "
            f"({row['cost_per_converged']:,.1f} each), {row['wrong']} of them wrong"
        )
    return (
        f"{head} {row['minima']:5d} minima {row['saddles']:5d} saddles  {row['gradient_equivalents']:>10,} gradients "
        f"{saddle}  wall {row['wall_s']:8.2f} s  CPU {row['cpu_s']:8.2f} s  {row['minima_per_s']:8.1f} minima/s "
        f"{row['saddles_per_s']:8.1f} saddles/s  {row['peak_mb']:5.0f} MB ({row['search_mb']:.0f})  {parts}  "
        f"{row['note']}"
    )


def machine() -> dict[str, Any]:
    names = [
        text.split(":")[1].strip() for text in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in text
    ]
    return {
        "processor": names[0] if names else platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg(),
        "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
        "scipy": scipy.__version__, "threads": 1, "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that everything runs")
    parser.add_argument("--environments", type=Path, default=CACHE, metavar="DIR", help=f"default {CACHE}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE, as they come in")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runner = Runner(Environments(arguments.environments, {}), arguments.quick, arguments.json)
    for section in arguments.only:
        getattr(runner, section)()


if __name__ == "__main__":
    main()
