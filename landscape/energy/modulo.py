"""Hessian spectra modulo a declared symmetry: zero modes set apart, and orbits in the place of what they leave out."""

from __future__ import annotations

import math

import numpy as np
import torch

from landscape.energy.alignment import Array
from landscape.energy.group import Symmetry
from landscape.energy.symmetry import ParticleSymmetry


def eigh_modulo(symmetry: Symmetry | None, x: torch.Tensor, hessian: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues (n, d) ascending and vectors (n, d, d) of Hessians (n, d, d) at x, zero modes set apart.

    Directions along the orbit come last and carry the size of the largest of the other eigenvalues (1 if there are no
    others), which is positive also where none of those is: no search moves along them, since the gradient has no
    component there, and no index or degeneracy sees them.
    """
    if not isinstance(symmetry, ParticleSymmetry):
        values, vectors = torch.linalg.eigh(hessian)
        return values, vectors
    basis, _ = symmetry.tangents(x)
    present = basis.square().sum(1) > 0.5
    n_zero = present.sum(1)
    basis = basis.gather(2, (~present).to(torch.int8).argsort(dim=1, stable=True)[:, None].expand_as(basis))
    values, vectors = torch.empty_like(x), torch.empty_like(hessian)
    for z in n_zero.unique().tolist():  # one number, but where some of several particles lie on a line
        rows = torch.nonzero(n_zero == z)[:, 0]
        # an eigenproblem without the orbit is smaller, and has no z-fold eigenvalue
        frame = torch.linalg.qr(basis[rows, :, :z], mode="complete")[0]
        along, across = frame[:, :, :z], frame[:, :, z:]
        others, turned = torch.linalg.eigh(across.mT @ hessian[rows] @ across)
        largest = others[:, -1:].abs() if z < x.shape[1] else torch.ones_like(x[rows, :1])
        values[rows] = torch.cat([others, largest.expand(-1, z)], 1)
        vectors[rows] = torch.cat([across @ turned, along], 2)
    return values, vectors


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
