"""Hessian spectra modulo a declared symmetry: zero modes set apart, and orbits in the place of what they leave out."""

from __future__ import annotations

import math

import numpy as np
import torch

from landscape.energy.alignment import Array
from landscape.energy.symmetry import ParticleSymmetry, Symmetry, n_zero_modes


def eigh_modulo(symmetry: Symmetry | None, x: torch.Tensor, hessian: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues (n, d) ascending and vectors (n, d, d) of Hessians (n, d, d) at x, zero modes set apart.

    Directions along the orbit come last and carry the size of the largest of the other eigenvalues, which is positive
    where none of those is (a single mode, at a saddle): no search moves along them, since the gradient has no component
    there, and no index or degeneracy sees them.
    """
    if not isinstance(symmetry, ParticleSymmetry):
        values, vectors = torch.linalg.eigh(hessian)
        return values, vectors
    basis, _ = symmetry.tangents(x)
    flat = basis @ basis.mT
    across = torch.eye(x.shape[1], dtype=x.dtype, device=x.device) - flat
    size = 2 * torch.linalg.matrix_norm(hessian)[:, None, None] + torch.finfo(x.dtype).tiny
    values, vectors = torch.linalg.eigh(across @ hessian @ across + size * flat)
    n_other = x.shape[1] - n_zero_modes(basis)
    largest = values.gather(1, (n_other - 1).clamp_min(0)[:, None]).abs()
    return torch.where(torch.arange(x.shape[1], device=x.device) >= n_other[:, None], largest, values), vectors


def nonzero_modes(eigenvalues: Array, log_volume: Array, width: int, beta: float) -> tuple[Array, Array]:
    """Hessian eigenvalues without their exact zeros, (n, width), and log-determinants (n,) that know of the orbits.

    The latter are log |product of the nonzero eigenvalues| - 2 log V, so that exp(-beta E) / sqrt(det) is the mass of a
    point, and the ratio of saddle and minimum their rate. A point whose orbit has e more dimensions than those of the
    others (a line among other shapes) has e fewer nonzero eigenvalues: its row is filled up with their geometric mean,
    and its log-determinant has e log(2 pi / beta) more.
    """
    spectra, log_dets = np.ones((len(eigenvalues), width)), np.zeros(len(eigenvalues))
    for k, row in enumerate(eigenvalues):
        kept = row[row != 0]
        missing, logs = width - len(kept), np.log(np.abs(kept))
        filling = np.full(missing, np.exp(logs.mean()) if len(kept) else 1.0)
        spectra[k] = np.sort(np.concatenate([kept, filling]))
        log_dets[k] = logs.sum() - 2 * log_volume[k] + missing * math.log(2 * math.pi / beta)
    return spectra, log_dets
