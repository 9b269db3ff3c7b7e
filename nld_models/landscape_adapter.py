"""From a trained model to `landscape`: the energy and dynamics of one seed, as objects and as a file, and its states.

With the architectures, the only place where the two packages meet.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from landscape.analysis import AnalysisConfig, analyze
from landscape.dynamics import Dynamics, Overdamped, Underdamped
from landscape.energy import Energy, save_energy
from landscape.sampling import Chains, Independence, Kernel, Mala, preconditioner, run, warm_up
from landscape.search import Basins, assign_basins, make_basins
from landscape.store import Analysis
from landscape.weights import ExactWeights
from landscape.weights.wells import Wells
from nld_models.errors import ConfigError
from nld_models.kinetics import resolved_step, simulated_counts
from nld_models.model import LatentModel
from nld_models.prior import EnergyPrior, OverdampedPrior, Prior, RotatedPrior, UnderdampedPrior

UNITS = "k_B T"
TIME_UNIT = "observation"
# Masses to .001: what is asked of a trained model, l1 errors of a few hundredths, is larger than their noise then.
MASSES = ExactWeights(target_se=0.001, draws=400_000, evaluations=800_000, labels=50_000)
CHAINS, BURN_IN, THINNING = 1000, 100, 5  # of the draws from a learned energy


def to_landscape(model: LatentModel, seed_index: int = 0) -> tuple[Energy, Dynamics]:
    """Energy and dynamics of one seed, in float64; time in observations.

    seed_index : position in `model.seeds`, from 0. ConfigError if there is none, and for a free drift.
    """
    if not 0 <= seed_index < len(model.seeds):
        raise ConfigError(f"seed index is from 0 to {len(model.seeds) - 1}, got {seed_index}")
    dynamics = _dynamics(model.prior, seed_index)
    d = model.config.latent_dim
    metadata = {
        "dynamics": dynamics.kind, "beta": dynamics.beta, "gamma": dynamics.gamma_vector(d).tolist(),
        "units": UNITS, "time_unit": TIME_UNIT,
    }  # fmt: skip
    mass, rotation = dynamics.mass_vector(d), dynamics.rotation_matrix(d)
    if mass is not None:
        metadata["mass"] = mass.tolist()
    if rotation is not None:
        metadata["rotation"] = rotation.tolist()
    network = model.prior.energy.unstack(seed_index)
    return Energy(network, d, metadata=metadata, source=f"seed {model.seeds[seed_index]}"), dynamics


def _dynamics(prior: Prior, k: int) -> Dynamics:
    if not isinstance(prior, EnergyPrior):
        raise ConfigError("a generic neural SDE (prior nsde) has a free drift and no energy to export or analyse")
    with torch.no_grad():
        beta = float(prior.beta(1)[k])
        if isinstance(prior, UnderdampedPrior):
            gamma, mass = (tuple(values[k, 0].double().tolist()) for values in (prior.gamma(), prior.mass()))
            return Underdamped(beta, gamma, mass)
        assert isinstance(prior, OverdampedPrior)
        rotation = prior.rotation()[k].double().tolist() if isinstance(prior, RotatedPrior) else None
        return Overdamped(beta, 1 / float(prior.mobility(1)[k]), rotation)


def export_energy(model: LatentModel, path: str | Path, seed_index: int = 0) -> Path:
    """Write one seed's energy to a .safetensors file that `landscape analyze` reads with its dynamics."""
    energy, _ = to_landscape(model, seed_index)
    seed = model.seeds[seed_index]
    assert isinstance(energy.function, torch.nn.Module)
    # At the precision it was trained in: the file says no more than training does, and is half the size.
    energy.function.to(model.dtype)
    extra = {"trained_by": f"nld train, {model.config.prior}, {model.config.objective} objective, seed {seed}"}
    return save_energy(energy, path, extra=extra)


@dataclass(frozen=True, eq=False)
class LearnedStates:
    """The states of one seed's energy: its analysis, and the basins that label latent points."""

    energy: Energy
    analysis: Analysis
    basins: Basins
    trained_in: torch.dtype = torch.float64

    @property
    def dynamics(self) -> Dynamics:
        return self.analysis.dynamics

    def fast_energy(self) -> Energy:
        """The energy at the precision of training, for long simulations."""
        assert isinstance(self.energy.function, torch.nn.Module)
        network = copy.deepcopy(self.energy.function).to(self.trained_in)
        return Energy(network, self.energy.dim, dtype=self.trained_in)

    @property
    def n_states(self) -> int:
        return len(self.analysis.states.energy)

    def label(self, z: np.ndarray) -> np.ndarray:
        """State of each latent point by gradient flow: (..., d) -> (...) integers, -1 where the flow finds none."""
        flat = np.asarray(z, dtype=float).reshape(-1, self.energy.dim)
        return assign_basins(self.energy, flat, self.basins).reshape(z.shape[:-1])

    def time_step(self, resolution: float) -> float:
        """The time step at which `resolution` = step times the fastest rate at the minima."""
        return resolved_step(self.energy, self.dynamics, torch.from_numpy(self.analysis.states.x), resolution)

    def counts(self, start: torch.Tensor, lag: float, time_step: float, generator: torch.Generator) -> np.ndarray:
        """(n, n) counts of state i now, state j after `lag`, over simulated paths from start (m, d)."""
        energy = self.fast_energy()
        return simulated_counts(energy, self.dynamics, self.label, self.n_states, start, lag, time_step, generator)

    def draw(self, n: int, generator: torch.Generator) -> np.ndarray:
        """n draws from exp(-beta E), (n, d)."""
        return draw_positions(self, n, generator)


def find_states(
    model: LatentModel,
    seed_index: int,
    *,
    seed: int = 0,
    weights: bool = True,
    progress: Callable[[str], None] | None = None,
) -> LearnedStates:
    """Analyse one seed's energy with `landscape.analyze`; `seed` is of the analysis.

    weights : basin masses too, by importance sampling with errors of about .001.
    """
    energy, dynamics = to_landscape(model, seed_index)
    config = AnalysisConfig(seed=seed, weights=None, exact=MASSES if weights else None)
    analysis = analyze(energy, dynamics, config, progress=progress)
    basins = make_basins(energy, analysis.states.x, torch.Generator().manual_seed(seed))
    return LearnedStates(energy, analysis, basins, model.dtype)


def draw_positions(states: LearnedStates, n: int, generator: torch.Generator) -> np.ndarray:
    """n draws from exp(-beta E), (n, d), by up to 1,000 chains that change wells; neighbours are of different ones."""
    beta, x = states.dynamics.beta, torch.from_numpy(states.analysis.states.x)
    hessian = states.analysis.states.hessian
    assert hessian is not None
    wells = Wells.at(states.energy, x.numpy(), hessian, beta)
    mixture = wells.mixture(1.2, 0.1, 0.3, 8)
    start = mixture.sample(min(n, CHAINS), generator)
    factor = preconditioner(wells.covariances, wells.weights)
    kernels: list[Kernel] = [Independence(mixture), Mala(factor, states.energy.dim ** (-1 / 6))]
    chains, kernels = warm_up(kernels, states.energy, beta, Chains.init(states.energy, start), BURN_IN, generator)
    drawn: list[np.ndarray] = []
    while len(drawn) * len(start) < n:
        chains, _ = run(kernels, states.energy, beta, chains, THINNING, generator)
        drawn.append(chains.x.numpy())
    return np.concatenate(drawn)[:n]
