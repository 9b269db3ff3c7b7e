"""How far a well is from harmonic, as far as its thermal width reaches."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import gammaincinv

from landscape.energy import Energy

SAMPLES = 512
INSIDE = 0.99  # share of the harmonic well that is looked at: beyond it lies what the barriers decide
SIGNIFICANT = 3.0  # standard errors


def anharmonicity(
    energy: Energy, minima: np.ndarray, hessians: np.ndarray, beta: float, generator: torch.Generator
) -> np.ndarray:
    """log (Z / Z_harmonic) of each well, (n,), 0 where it is within three standard errors of 0.

    Z = integral of exp(-beta (E - E_i)) over the ellipsoid that holds 99 % of the harmonic well, by Monte Carlo with
    512 points and their mirror images, in which odd terms cancel. minima (n, d), hessians (n, d, d).
    """
    n, d = minima.shape
    values, vectors = np.linalg.eigh(hessians)
    normal = torch.randn(n, SAMPLES, d, generator=generator, dtype=torch.float64, device=generator.device)
    inside = normal.square().sum(-1).cpu().numpy() < 2 * gammaincinv(0.5 * d, INSIDE)
    whitened = normal.cpu().numpy()
    offsets = np.einsum("nik,nmk->nmi", vectors / np.sqrt(beta * values)[:, None, :], whitened)
    centers = np.asarray(energy.value(minima))
    reduced = 0.5 * np.square(whitened).sum(axis=-1)
    ratios = np.zeros((n, SAMPLES))
    for sign in (1.0, -1.0):
        points = (minima[:, None] + sign * offsets).reshape(-1, d)
        rise = beta * (np.asarray(energy.value(points)).reshape(n, SAMPLES) - centers[:, None])
        ratios += 0.5 * np.exp(np.clip(np.nan_to_num(reduced - rise, nan=-50.0), -50, 50))
    count = np.maximum(inside.sum(axis=1), 2)
    mean = (ratios * inside).sum(axis=1) / count
    spread = (np.square(ratios - mean[:, None]) * inside).sum(axis=1) / (count - 1)
    error = np.sqrt(spread / count) / mean
    logs = np.log(mean)
    return np.where(np.abs(logs) > SIGNIFICANT * error, logs, 0.0)
