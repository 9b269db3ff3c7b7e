"""From observations alone: the states, weights and timescales of a triple well seen through a smooth map.

    python benchmarks/hidden_triple_well.py [--seeds 3] [--json FILE]

200 sequences of 1,000 frames, .1 time units apart, in 15 channels with noise (`nld_models.triple_well`), a model
trained by both stages of the default recipe, and what its energy says: weights by exact basin mass, timescales by the
grid generator. Every seed is listed. Exit code 1 if one of them has not three states, an l1 above .03 or a slow
timescale more than 20 % off.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from landscape.rates import make_cores, reference_spectrum
from nld_models.checkpoint import SavedModel
from nld_models.config import recipe
from nld_models.data import SequenceData
from nld_models.evaluation import segment
from nld_models.landscape_adapter import find_states
from nld_models.model_config import ModelConfig
from nld_models.refinement import refine_model
from nld_models.training import Progress, train
from nld_models.triple_well import INTERVAL, TIMESCALES, WEIGHTS, sample_triple_well

DATA_SEED, TEST_SEED = 0, 1
FARTHEST_L1, FARTHEST_TIMESCALE = 0.03, 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the table here too")
    given = parser.parse_args()
    began = time.process_time()
    data = sample_triple_well(seed=DATA_SEED).standardise()
    test = sample_triple_well(40, seed=TEST_SEED)
    saved, _ = train(data, ModelConfig(), replace(recipe(ModelConfig()), seeds=given.seeds), progress=tell)
    saved, refinements = refine_model(saved, data, progress=lambda text: print(text, file=sys.stderr, flush=True))
    rows = [measure(saved, k, test) | {"refinement": refinements[k].outcome} for k in range(given.seeds)]
    print(f"trained and refined in {time.process_time() - began:.0f} s of CPU time; truth: weights "
          f"{np.round(WEIGHTS, 3)}, timescales {TIMESCALES[0]:.2f} and {TIMESCALES[1]:.2f}")  # fmt: skip
    print("seed  states  weights               l1      slow    second  accuracy %  second stage")
    for row in rows:
        weights = " ".join(f"{w:.3f}" for w in row["weights"])
        print(f"{row['seed']:>4}  {row['states']:>6}  {weights:<20}  {row['l1']:.4f}  {row['timescales'][0]:>6.2f}  "
              f"{row['timescales'][1]:>6.2f}  {100 * row['accuracy']:>10.1f}  {row['refinement']}")  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps({"weights": WEIGHTS, "timescales": TIMESCALES, "seeds": rows}, indent=1))
    return 0 if all(good(row) for row in rows) else 1


def measure(saved: SavedModel, k: int, test: SequenceData) -> dict[str, Any]:
    """What the energy of one seed says, and how well its basins label data that it has not seen."""
    states = find_states(saved.model, k)
    exact = states.analysis.exact
    assert exact is not None and test.labels is not None
    cores = make_cores(states.energy, states.dynamics, states.analysis.states.x, torch.Generator().manual_seed(0))
    spectrum = reference_spectrum(states.energy, states.dynamics, cores=cores)
    # the states are named by what they hold: each by the true well of most of its frames
    labels = segment(saved, states, test, k)
    votes = np.array([np.bincount(test.labels[labels == s].ravel(), minlength=3) for s in range(states.n_states)])
    weights = np.bincount(votes.argmax(1), exact.weights, minlength=3)
    return {
        "seed": int(saved.model.seeds[k]),
        "states": int((exact.weights > 1e-3).sum()),
        "weights": weights.tolist(),
        "l1": float(np.abs(weights - np.divide(WEIGHTS, sum(WEIGHTS))).sum()),
        "timescales": (INTERVAL / spectrum.eigenvalues.real[:2]).tolist(),
        "accuracy": float(votes.max(1).sum() / votes.sum()),
    }


def good(row: dict[str, Any]) -> bool:
    off = abs(row["timescales"][0] / TIMESCALES[0] - 1)
    return row["states"] == 3 and row["l1"] <= FARTHEST_L1 and off <= FARTHEST_TIMESCALE


def tell(now: Progress) -> None:
    if now.iteration % 100 == 0:
        print(f"step {now.iteration} of {now.iterations}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
