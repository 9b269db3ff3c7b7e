"""Rates of the published overdamped models: simulated, by the grid, at the training step, over those of the formula.

    python benchmarks/published_rates.py [--seconds 900] [--time-step 0.015] [--models FOLDER] [--only 0 1]

Prints, for every transition with a barrier above 4 kT, simulated / formula with its relative standard error, grid /
formula where d <= 3, and the factor by which Euler steps of .1 change the rate. FOLDER is that of the conftest of the
tests: LANDSCAPE_PAPER_MODELS, with symmetric_overdamped/model_K.pth inside. Exit code 1 if a simulated rate is outside
.80 to 1.05 of the formula or less certain than 3 %.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch

from landscape.analysis import AnalysisConfig, analyze
from landscape.dynamics import Dynamics
from landscape.energy import Energy, load_energy
from landscape.rates import Cores, PassageOptions, make_cores, rates_at_step, reference_rates, simulate_passages
from landscape.store import Analysis

DEFAULT = Path(__file__).resolve().parent.parent.parent / "shared" / "paper_models"
HIGH = 4.0  # reduced barriers above which the formula is held to its word
BAND, CERTAIN = (0.80, 1.05), 0.03
RARE_SHARE = 0.02  # slow pairs, a tenth of a state's exits, must be as certain as the fast ones
TRAINING_STEP = 0.1
STEP_SECONDS = 60.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=900.0, help="of simulation, at most, for each model")
    parser.add_argument("--time-step", type=float, default=0.015, help="of the simulation; half of it runs as well")
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("LANDSCAPE_PAPER_MODELS", DEFAULT)))
    parser.add_argument("--only", type=int, nargs="*", help="numbers of models")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def references(
    energy: Energy, fast: Energy, dynamics: Dynamics, cores: Cores, given: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
    """Simulated rates and their relative standard errors, grid rates (nan for d > 3), rates at the training step."""
    generator = torch.Generator().manual_seed(given.seed)
    options = PassageOptions(0.98 * CERTAIN, given.seconds, 2000, given.time_step, main_share=RARE_SHARE)
    found = simulate_passages(fast, dynamics, cores, generator, options, lambda part, text: tell(f"{part:.0%} {text}"))
    rates = found.estimate.rates
    grid = reference_rates(energy, dynamics, cores).rates if energy.dim <= 3 else np.full(rates.shape, np.nan)
    coarse = rates_at_step(
        fast, dynamics, cores, TRAINING_STEP, generator, PassageOptions(CERTAIN, STEP_SECONDS, trajectories=2000)
    )
    steps = f"steps {found.time_step:g} and half of it {'agree' if found.compatible else 'DIFFER'}"
    note = f"{found.estimate.counts.sum()} transitions in {found.seconds:.0f} s, {steps}; {found.reason or 'converged'}"
    with np.errstate(invalid="ignore", divide="ignore"):
        return rates, found.estimate.standard_error / rates, grid, coarse.rates, note


def report(name: str, analysis: Analysis, energy: Energy, fast: Energy, given: argparse.Namespace) -> bool:
    """Print the table of one model; whether all of it is within the bounds. fast : the energy in single precision."""
    cores = make_cores(energy, analysis.dynamics, analysis.states.x, torch.Generator().manual_seed(given.seed))
    rates, error, grid, coarse, note = references(energy, fast, analysis.dynamics, cores, given)
    print(f"{name}: d = {energy.dim}, {note}", flush=True)
    network, good = analysis.network, True
    for row, (i, j) in enumerate(network.joins.tolist()):
        for side, (a, b) in enumerate(((i, j), (j, i))):
            barrier = analysis.dynamics.beta * network.barriers[row, side]
            if not network.counted[row] or barrier <= HIGH:
                continue
            formula = np.exp(network.log_rate_matrix[a, b])
            ratio, factor = rates[a, b] / formula, coarse[a, b] / rates[a, b]
            fine = BAND[0] <= ratio <= BAND[1] and error[a, b] <= CERTAIN
            good &= bool(fine)
            print(
                f"  {a} -> {b}  barrier {barrier:.2f} kT  simulated/formula {ratio:.3f} +- {error[a, b]:.1%}  "
                f"grid/formula {grid[a, b] / formula:.3f}  dt {TRAINING_STEP:g}: x {factor:.2f}"
                f"{'' if fine else '  OUTSIDE'}",
                flush=True,
            )
    return good


def tell(text: str) -> None:
    print(f"    {text}", file=sys.stderr, flush=True)


def main() -> int:
    given = arguments()
    torch.set_num_threads(1)
    files = sorted((given.models / "symmetric_overdamped").glob("model_*.pth"))
    files = [file for file in files if not given.only or int(file.stem.removeprefix("model_")) in given.only]
    if not files:
        print(f"no models in {given.models}: set LANDSCAPE_PAPER_MODELS", file=sys.stderr)
        return 2
    good = True
    for file in files:
        energy = load_energy(str(file))
        analysis = analyze(energy, config=AnalysisConfig(weights=None))
        # half the cost of a step, and rounding far below its noise
        good &= report(file.stem, analysis, energy, load_energy(str(file), dtype="float32"), given)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
