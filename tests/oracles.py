"""Reference values computed independently of this project: stationary points of test energies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"

# energy, index, number of equivalent points
MULLER_BROWN = [
    (-146.69951721, 0), (-108.1667241169, 0), (-80.76781812966, 0), (-72.24894011233, 1), (-40.66484350866, 1),
]  # fmt: skip
TRIPLE_WELL = [
    (-3.994860601854, 0), (-3.994860601854, 0), (-2.172153622994, 0), (-1.646687453475, 1), (-1.646687453475, 1),
    (-1.384586640398, 1), (-0.7152298869818, 2),
]  # fmt: skip
# (N, g): points by index, lowest saddle above all +1 (Berglund, Fernandez and Gentz 2007)
CHAINS = {
    (3, 0.1): ((8, 12, 6, 1), 0.3040472472),
    (3, 0.275): ((2, 6, 6, 1), 0.5774218750),
    (3, 0.675): ((2, 1, 0, 0), 0.75),
    (4, 0.1): ((16, 32, 24, 8, 1), 0.3040842177),
    (4, 0.3): ((8, 24, 24, 8, 1), 0.6212500000),
    (4, 0.6): ((6, 8, 4, 1, 0), 0.845),
    (4, 1.01): ((2, 1, 0, 0, 0), 1.0),
}


def rough_oracle(seed: int) -> dict[str, Any]:
    """Exhaustive stationary points of the rough MLP energy with this seed (2 or 4)."""
    return json.loads((DATA / f"rough_mlp_oracle_{seed}.json").read_text())


def match(x: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """For each oracle point (n, d) the row of x that lies nearest; every row at most once."""
    distance = np.linalg.norm(oracle[:, None] - x[None], axis=-1)
    nearest = distance.argmin(1)
    assert len(set(nearest.tolist())) == len(oracle), "two reference points share one found point"
    return nearest


def grid_basin_weights(
    value, label, beta: float, boxes: list[tuple[float, float]], n: int, n_states: int
) -> np.ndarray:
    """Basin masses by the midpoint rule on a grid of n^d cells, given value(points) and label(points)."""
    axes = [np.linspace(low, high, 2 * n + 1)[1::2] for low, high in boxes]
    points = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], 1)
    logs = -beta * value(points)
    mass = np.exp(logs - logs.max())
    keep = mass > 1e-9
    labels = label(points[keep])
    return np.bincount(labels[labels >= 0], weights=mass[keep][labels >= 0], minlength=n_states) / mass[keep].sum()
