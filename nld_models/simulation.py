"""New sequences from a trained model: its Langevin prior at equilibrium, seen through its decoder."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch

from nld_models.checkpoint import SavedModel
from nld_models.data import SequenceData
from nld_models.kinetics import resolved_step, trajectory
from nld_models.landscape_adapter import draw_positions, find_states

RESOLUTION = 0.2  # of the time step: its length times the fastest rate of the linearised force


def simulate_observations(
    saved: SavedModel, seed_index: int, n_sequences: int, length: int, seed: int = 0
) -> SequenceData:
    """n_sequences of `length` frames in the units of the training data, labelled by basin.

    Starts are draws from exp(-beta E); between frames the prior is simulated with steps that resolve it (Heun, or BAOAB
    if it is underdamped); the decoder's learned noise is added.
    """
    generator = torch.Generator().manual_seed(seed)
    states = find_states(saved.model, seed_index)
    energy = states.fast_energy()
    step = resolved_step(states.energy, states.dynamics, torch.from_numpy(states.analysis.states.x), RESOLUTION)
    z = torch.from_numpy(draw_positions(states, n_sequences, generator)).to(energy.dtype)
    frames = trajectory(energy, states.dynamics, z, 1.0, step, generator)
    latents = torch.stack([z, *islice(frames, length - 1)], 1)
    decoder = saved.model.decoder
    stacked = latents.to(saved.model.dtype).expand(len(saved.model.seeds), *latents.shape)
    with torch.no_grad():
        mean = decoder.decode(stacked)[seed_index].double()
        noise = decoder.noise(stacked)[seed_index].double().exp()
    x = mean + noise * torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    labels = states.label(latents.double().numpy())
    return SequenceData.from_padded(x.numpy() * saved.scale + saved.mean, labels=np.asarray(labels))
