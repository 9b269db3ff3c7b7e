"""Speed of training, beside a plain torchsde loop of the same model in the same run, on one thread.

    python benchmarks/nld.py [--iterations 20] [--whole] [--json FILE]

Seconds of CPU time a seed and iteration: `train` (own stepping, four stacked seeds, and one alone) and a loop that
trains one seed by `torchsde.sdeint` (Euler-Maruyama, its own Brownian path, the same networks, windows, batch and loss,
Adam), by turns in blocks; the smallest of the blocks counts. Matching has no path to integrate: it stands beside the
loop that trains its model by simulation.

--whole: wall and CPU time of `nld train` on experiment 1 (6,000 sequences, 4 seeds, both stages) as a command.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torchsde

from nld_models.config import TrainingConfig, recipe
from nld_models.data import SequenceData
from nld_models.matching import stack_draws
from nld_models.model import LatentModel, total_loss
from nld_models.model_config import ModelConfig
from nld_models.paper_chains import experiment, sample_experiment
from nld_models.prior import Prior
from nld_models.sde import PathMeasure
from nld_models.simulated import Control, PathNoise, Paths, simulated_terms
from nld_models.training import train
from nld_models.windows import Windows

MODELS = {
    "overdamped, matching": ModelConfig(objective="matching"),
    "overdamped, simulated": ModelConfig(objective="simulated"),
    "underdamped, matching": ModelConfig(prior="underdamped", objective="matching"),
    "underdamped, simulated": ModelConfig(prior="underdamped", objective="simulated"),
}
STACK, BLOCKS = 4, 3
TARGETS = {"overdamped": 180.0, "underdamped": 480.0}  # seconds of wall time on two quiet cores
Step = Callable[[], None]


def plain_paths(
    prior: Prior,
    control: Control,
    start: torch.Tensor,
    normal: torch.Tensor,
    substeps: int,
    clip: float | torch.Tensor | None,
) -> Paths:
    """Posterior paths by torchsde with a Brownian path of its own; of `normal` only the shape is used."""
    seeds, batch, _ = start.shape
    intervals = normal.shape[1] // substeps
    y = torch.cat([start, start.new_zeros(seeds, batch, 1)], -1).flatten(0, 1)
    times = torch.arange(intervals + 1, dtype=torch.float64)
    sde = PathMeasure(prior, control, seeds, substeps, None)
    found = torchsde.sdeint(sde, y, times, method="euler", dt=1 / substeps)
    found = found.view(intervals + 1, seeds, batch, -1).permute(1, 2, 0, 3)
    return Paths(found[..., :-1], found[..., -1].diff(dim=2))


def torchsde_step(data: SequenceData, model: ModelConfig, config: TrainingConfig) -> Step:
    """One Adam step of one seed, as a plain loop would take it."""
    generators = [torch.Generator().manual_seed(0)]
    latent = LatentModel(replace(model, objective="simulated"), data.n_channels, False, (0,), torch.float32)
    optimizer = torch.optim.Adam([p for p in latent.parameters() if p.requires_grad], lr=config.learning_rate)
    windows = Windows(data, config.window, config.equilibration, torch.float32)
    steps, d = (windows.length - 1) * latent.substeps, model.latent_dim

    def step() -> None:
        batch = windows.draw(generators, config.batch)
        n = config.partition_points
        noise = PathNoise(
            picks=stack_draws(torch.rand, generators, torch.float32, n),
            partition=stack_draws(torch.randn, generators, torch.float32, n, d),
            start=stack_draws(torch.randn, generators, torch.float32, config.batch, latent.prior.state_dim),
            steps=torch.empty(1, steps, config.batch, d),
        )
        terms = simulated_terms(
            latent.encoder, latent.decoder, latent.prior, batch, noise, latent.substeps, float("inf"), plain_paths
        )
        optimizer.zero_grad()
        total_loss(terms, config.kl_weight(0), config.stationarity_weight).sum().backward()
        torch.nn.utils.clip_grad_norm_(latent.parameters(), config.clip)
        optimizer.step()

    return step


def seconds_of_train(data: SequenceData, model: ModelConfig, config: TrainingConfig, iterations: int) -> float:
    """A seed and iteration of `train`; starting and finishing are taken out by a second run of half the length."""
    found = []
    for n in (iterations // 2, iterations):
        began = time.process_time()
        train(data, model, replace(config, iterations=n))
        found.append(time.process_time() - began)
    return (found[1] - found[0]) / (iterations - iterations // 2) / config.seeds


def compare(name: str, data: SequenceData, iterations: int) -> dict[str, Any]:
    model = MODELS[name]
    config = recipe(model)
    loop = torchsde_step(data, model, config)
    loop()
    best = {"stacked": float("inf"), "alone": float("inf"), "torchsde": float("inf")}
    for _ in range(BLOCKS):
        for key, seeds in (("stacked", STACK), ("alone", 1)):
            seconds = seconds_of_train(data, model, replace(config, seeds=seeds), iterations)
            best[key] = min(best[key], seconds)
        n = max(2, iterations // 4)
        began = time.process_time()
        for _ in range(n):
            loop()
        best["torchsde"] = min(best["torchsde"], (time.process_time() - began) / n)
    return {"model": name, "window": config.window, "batch": config.batch, "substeps": model.substeps, **best}


def whole(kind: str) -> dict[str, Any]:
    """`nld train` on experiment 1 with four seeds, as a user runs it."""
    script = str(Path(sys.executable).with_name("nld"))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([script, "data", "1", "-o", f"{folder}/d.npz"], check=True, stdout=subprocess.DEVNULL)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        words = [script, "train", f"{folder}/d.npz", "-o", f"{folder}/m.safetensors", "--seeds", str(STACK)]
        subprocess.run([*words, "--model", kind], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"model": kind, "seeds": STACK, "wall": wall, "cpu": cpu, "target": TARGETS[kind]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=20, help="of each block (default 20)")
    parser.add_argument("--whole", action="store_true", help="also whole runs of `nld train` (minutes)")
    parser.add_argument("--json", metavar="FILE", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = sample_experiment(experiment(1), 1, "train", 0, sequences=600).standardise()
    print(
        f"{platform.machine()}, torch {torch.__version__}, torchsde {torchsde.__version__}; "
        "ms of CPU time, a seed and iteration"
    )
    print(f"{'model':<24} {'window':>6} {'stacked x 4':>12} {'alone':>8} {'torchsde':>9} {'torchsde / stacked':>19}")
    rows = []
    for name in MODELS:
        row = compare(name, data, arguments.iterations)
        rows.append(row)
        cells = [1000 * row[key] for key in ("stacked", "alone", "torchsde")]
        ratio = row["torchsde"] / row["stacked"]
        print(f"{name:<24} {row['window']:>6} {cells[0]:>12.1f} {cells[1]:>8.1f} {cells[2]:>9.1f} {ratio:>19.1f}")
    runs = [whole(kind) for kind in TARGETS] if arguments.whole else []
    for run in runs:
        print(
            f"nld train, experiment 1, {run['model']}, {run['seeds']} seeds: {run['wall']:.0f} s, {run['cpu']:.0f} s "
            f"of CPU time (target {run['target']:.0f} s on a quiet machine)"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
