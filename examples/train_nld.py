"""From time series to a landscape: train two seeds, compare them with the truth, analyse the energy of the first.

The data are walks on a chain of three states seen through 15 noisy channels (experiment 1 of the NLD paper, easy
noise), fewer and shorter than in the paper, so that this takes about a minute; the true states never reach the model.
Writes nld_model.safetensors and nld_energy.safetensors to the current folder.
"""

import sys

import numpy as np
import torch

import landscape
from nld_models.config import TrainingConfig
from nld_models.evaluation import evaluate
from nld_models.landscape_adapter import export_energy
from nld_models.paper_chains import experiment, sample_experiment
from nld_models.refinement import refine_model
from nld_models.training import train

torch.set_num_threads(1)  # more threads cost more than they bring at these sizes
chain = experiment(1, "easy")
data = sample_experiment(chain, 1, "train", seed=0, sequences=600, length=150).standardise()
config = TrainingConfig(seeds=2, iterations=400, batch=48)


def show(now):
    if now.iteration % 100 == 0:
        print(f"step {now.iteration} of {now.iterations}, {now.seconds_left:.0f} s left", file=sys.stderr)


saved, result = train(data, config=config, path="nld_model.safetensors", progress=show)
print(f"trained seeds {result.seeds.tolist()} in {result.seconds:.0f} s")
saved, refinements = refine_model(saved, data, path="nld_model.safetensors")
print("second stage, energies with the kinetics of their labels:", [found.outcome for found in refinements])

test = sample_experiment(chain, 1, "test", seed=1, sequences=50, length=200)
for row in evaluate(saved, test, chain.transition, n_paths=2000):
    print(
        f"seed {row.seed}: {row.n_states} states, accuracy {100 * row.accuracy:.1f} %, weights "
        f"{row.weights['exact'].round(3)} (truth {chain.stationary.round(3)}), rates / truth {row.rate_ratio:.2f}"
    )

path = export_energy(saved.model, "nld_energy.safetensors", seed_index=0)
analysis = landscape.analyze(landscape.load_energy(path))
print(f"{path}: {len(analysis.states.energy)} states, saddles between {analysis.saddles.joins.tolist()}")
print("rate matrix, per observation:\n", np.array2string(analysis.network.rate_matrix, precision=4))
