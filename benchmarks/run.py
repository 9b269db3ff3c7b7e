"""Speed against named competitors, measured in one run on one thread each.

    python benchmarks/run.py [--starts 1000] [--json FILE]

Minima: 1,000 starts to converged, merged minima on a residual MLP like the published ones, by this package and by a
loop of scipy.optimize.minimize(method="L-BFGS-B", jac=True), on the same energy from the same starts, one right after
the other.
Analysis: wall time of `landscape analyze`, imports included, on the published d = 10 models where they are
found (environment variable LANDSCAPE_PAPER_MODELS, default ../shared/paper_models).
"""

from __future__ import annotations

import argparse
import json
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
from scipy.optimize import minimize

from landscape.energy import Energy
from landscape.energy.architectures import ResidualMLP
from landscape.search import MinimaSearch, Points, find_minima

ROOT = Path(__file__).resolve().parent.parent
PAPER_MODELS = Path(os.environ.get("LANDSCAPE_PAPER_MODELS", ROOT.parent / "shared" / "paper_models"))


def published_like(dim: int, seed: int) -> Energy:
    """A residual MLP of the published size whose random weights are scaled up until it has several wells."""
    generator = torch.Generator().manual_seed(seed)
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
    return Energy(network.requires_grad_(False), dim)


def scipy_loop(energy: Energy, starts: np.ndarray) -> tuple[float, int, int]:
    """Seconds, evaluations and minima (merged to 1e-3; default tolerances) of scipy's L-BFGS-B, start by start."""

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = energy.value_and_gradient(x[None])
        return float(value[0]), gradient[0]

    begin = time.perf_counter()
    found: list[np.ndarray] = []
    evaluations = 0
    for x0 in starts:
        result = minimize(objective, x0, jac=True, method="L-BFGS-B")
        evaluations += result.nfev
        if not any(np.linalg.norm(result.x - other) < 1e-3 for other in found):
            found.append(result.x)
    return time.perf_counter() - begin, evaluations, len(found)


def batched(energy: Energy, starts: np.ndarray) -> tuple[float, int, int]:
    """Seconds, gradient-equivalents and minima of `find_minima` from the same starts."""
    energy.evaluations.__init__()  # type: ignore[misc]
    begin = time.perf_counter()
    result = find_minima(energy, MinimaSearch(starts=Points(starts)))
    seconds = time.perf_counter() - begin
    return seconds, energy.evaluations.gradient_equivalents(energy.dim), len(result.minima)


def minima_rows(n_starts: int) -> list[dict[str, Any]]:
    rows = []
    for dim in (3, 10):
        energy = published_like(dim, seed=dim)
        starts = np.random.default_rng(0).uniform(-3, 3, (n_starts, dim))
        batched(energy, starts[:50])  # first calls set torch up
        ours, our_cost, our_minima = batched(energy, starts)
        theirs, their_cost, their_minima = scipy_loop(energy, starts)
        rows.append({
            "task": "minima", "dim": dim, "starts": n_starts, "seconds": ours, "scipy_seconds": theirs,
            "ratio": theirs / ours, "minima": our_minima, "scipy_minima": their_minima,
            "gradient_equivalents": our_cost, "scipy_evaluations": their_cost,
        })  # fmt: skip
    return rows


def analysis_rows() -> list[dict[str, Any]]:
    rows = []
    for path in sorted(PAPER_MODELS.glob("*/model_*.pth")):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "landscape.cli", "analyze", str(path), "--out", f"{folder}/out", "--json"]
            begin = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
            seconds = time.perf_counter() - begin
        document = json.loads(done.stdout)
        rows.append({
            "task": "analyze", "model": f"{path.parent.name}/{path.stem}", "dim": document["energy"]["dim"],
            "seconds": seconds, "states": len(document["states"]), "saddles": len(document["saddles"]),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=1000)
    parser.add_argument("--json", metavar="FILE", help="also write the numbers to FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = minima_rows(arguments.starts)
    for row in rows:
        print(
            f"minima, d = {row['dim']}, {row['starts']} starts: {row['seconds']:.2f} s, {row['minima']} minima; "
            f"scipy L-BFGS-B {row['scipy_seconds']:.1f} s, {row['scipy_minima']}; {row['ratio']:.0f} times faster"
        )
    models = analysis_rows()
    for row in models:
        what = f"landscape analyze {row['model']} (d = {row['dim']})"
        print(f"{what}: {row['seconds']:.1f} s, {row['states']} states, {row['saddles']} saddles")
    if not models:
        print("landscape analyze on published models: not measured (models not found)")
    if arguments.json:
        machine = {
            "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__, "numpy": np.__version__, "scipy": scipy.__version__, "threads": 1,
        }  # fmt: skip
        Path(arguments.json).write_text(json.dumps({"machine": machine, "rows": rows + models}, indent=1) + "\n")


if __name__ == "__main__":
    main()
