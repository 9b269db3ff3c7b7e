"""Two-dimensional spirals, half of them clockwise: what a gradient cannot represent, and a rotation can.

After Chen, Rubanova, Bettencourt and Duvenaud, "Neural ordinary differential equations" (2018). Sequence i runs along
r = A + B phi, outwards for one half and back inwards (the other sense of rotation) for the other, from a random point
on, in equal steps of the angle, with Gaussian noise.
"""

from __future__ import annotations

import numpy as np

from nld_models.data import SequenceData

START, GROWTH = 0.3, 0.15  # r = START + GROWTH phi
TURNS = 3.0  # of the whole spiral
TURNS_SEEN = 1.5  # of one sequence


def sample_spirals(n_sequences: int = 1000, length: int = 100, noise: float = 0.05, seed: int = 0) -> SequenceData:
    """n_sequences of `length` frames and 2 channels; labels 0 (anticlockwise) and 1 (clockwise), one a sequence."""
    rng = np.random.default_rng(seed)
    clockwise = np.arange(n_sequences) % 2
    first = rng.uniform(0, TURNS - TURNS_SEEN, n_sequences)[:, None]
    phi = 2 * np.pi * (first + np.linspace(0, TURNS_SEEN, length))
    phi = np.where(clockwise[:, None] == 1, phi[:, ::-1], phi)
    radius = START + GROWTH * phi
    x = np.stack([radius * np.cos(phi), radius * np.sin(phi)], -1) + noise * rng.standard_normal((*phi.shape, 2))
    return SequenceData.from_padded(x, labels=np.repeat(clockwise[:, None], length, axis=1))
