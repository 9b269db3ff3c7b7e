"""A free drift: its states, labels, simulated transitions and draws, against a drift whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nld_models.drift_states import DriftStates, find_drift_states
from nld_models.errors import ConfigError
from nld_models.evaluation import simulated_transitions
from nld_models.kinetics import rates_of
from nld_models.model import LatentModel
from nld_models.model_config import ModelConfig
from nld_models.networks import StackedLinear
from nld_models.prior import FreePrior

SLOPE, STEEP, DIFFUSION = 2.0, 4.0, 0.25


class KnownDrift(FreePrior):
    """f = 4 tanh(2 A z) - 4 z, with a matrix A in the weights."""

    def drift(self, z: torch.Tensor) -> torch.Tensor:
        return super().drift(z) - STEEP * z


def known_drift(matrix: list[list[float]]) -> LatentModel:
    """Two seeds in the plane, D = .25; seed 1 has the drift with A = matrix."""
    config = ModelConfig(prior="nsde", drift_hidden=2, initial_diffusion=DIFFUSION)
    model = LatentModel(config, 3, False, (0, 1), torch.float64)
    model.prior = prior = KnownDrift([torch.Generator().manual_seed(seed) for seed in (0, 1)], config).double()
    small = 1e-4  # tanh is the identity on small numbers: the first layer shrinks, the second stretches back
    weights = (small * torch.eye(2), SLOPE / small * torch.tensor(matrix).T, STEEP * torch.eye(2))
    with torch.no_grad():
        for layer, weight in zip(prior.layers, weights, strict=True):
            assert isinstance(layer, StackedLinear)
            layer.weight[1], layer.bias[1] = weight, 0.0
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def states() -> DriftStates:
    return find_drift_states(known_drift([[1.0, 0.0], [0.0, 0.0]]), 1)


def test_attracting_fixed_points_and_their_basins(states: DriftStates) -> None:
    """x* = tanh(2 x*) = .95750..., by Newton's method in the test; the boundary is the line x = 0."""
    x = 1.0
    for _ in range(20):
        x -= (x - math.tanh(2 * x)) / (1 - 2 / math.cosh(2 * x) ** 2)
    assert states.n_states == 2
    np.testing.assert_allclose(np.sort(states.attractors[:, 0]), [-x, x], atol=1e-5)
    np.testing.assert_allclose(states.attractors[:, 1], 0, atol=1e-6)
    points = np.random.default_rng(0).normal(size=(40, 50, 2))
    points = points[np.abs(points[..., 0]).min(1) > 1e-3]
    labels = states.label(points)
    right = int(states.attractors[1, 0] > 0)
    assert labels.shape == points.shape[:2] and np.array_equal(labels == right, points[..., 0] > 0)


def test_transitions_and_draws_against_the_density(states: DriftStates) -> None:
    """The x coordinate is a gradient drift, E = 2 x^2 - 2 log cosh(2 x), at 1 / D = 4: the rate between the two wells
    is twice the second eigenvalue's half of the generator, by finite differences; the share of |x| > .5 by quadrature.

    4,000 paths: the rate has a standard error of about 4 %, the share of 10,000 draws of 2,000 paths one below .01; the
    tolerances are 4 of these and a percent for the step. Power: D off by 20 % changes the rate by more than 25 %."""
    grid = np.linspace(-3, 3, 1201)
    h = grid[1] - grid[0]
    energy = 2 * grid**2 - 2 * np.log(np.cosh(2 * grid))
    p = np.exp(-energy / DIFFUSION)
    up, down = (DIFFUSION / h**2 * np.sqrt(a / b) for a, b in ((p[1:], p[:-1]), (p[:-1], p[1:])))
    middle = -(np.append(up, 0) + np.append(0, down))
    symmetric = np.diag(middle) + np.diag(np.sqrt(up * down), 1) + np.diag(np.sqrt(up * down), -1)
    slow = -np.sort(np.linalg.eigvalsh(symmetric))[-2]
    generator = torch.Generator().manual_seed(0)
    start = np.repeat(states.attractors, 2000, axis=0)
    found = rates_of(simulated_transitions(states, start, states.time_step(0.2), generator), 15)
    assert -np.trace(found) == pytest.approx(slow, rel=0.17)
    drawn = states.draw(10_000, generator)
    share = p[np.abs(grid) > 0.5].sum() / p.sum()
    assert (np.abs(drawn[:, 0]) > 0.5).mean() == pytest.approx(share, abs=0.04)
    assert drawn[:, 1].var() == pytest.approx(DIFFUSION / STEEP, rel=0.1)


def test_what_goes_round_has_no_state() -> None:
    """A turns by 40 degrees: the origin repels, since 8 cos 40 - 4 > 0, and no other point is at rest."""
    c, s = math.cos(math.radians(40)), math.sin(math.radians(40))
    states = find_drift_states(known_drift([[c, -s], [s, c]]), 1)
    assert states.n_states == 0
    assert (states.label(np.random.default_rng(0).normal(size=(3, 4, 2))) == -1).all()


def test_an_energy_has_minima_instead() -> None:
    with pytest.raises(ConfigError, match="has minima"):
        find_drift_states(LatentModel(ModelConfig(), 3, False, (0,), torch.float64), 0)
