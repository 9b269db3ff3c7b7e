"""How fast the dynamics leaves saddles whose Hessians are known by their products with vectors only."""

from __future__ import annotations

import math

import numpy as np
import torch

from landscape.dynamics import Dynamics, positive_root
from landscape.energy import Energy
from landscape.errors import UnsupportedError
from landscape.search.modes import ModeOptions, lowest_modes

ITERATIONS = 50
TOLERANCE = 1e-10  # relative change of the unstable rate at which the iteration ends; it converges quadratically
ONE_MODE = ModeOptions(n_modes=1, negative_tolerance=1e-7, count=False)


def unstable_growth(energy: Energy, dynamics: Dynamics, x: np.ndarray, modes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Unstable rates mu (m,) at index-1 saddles x (m, d), in 1/time, and the energy lost to friction over one
    oscillation a unit of barrier (m,), infinite if overdamped (`reduced_energy_loss`).

    modes (m, d) : of the negative Hessian eigenvalues. Where gamma and mass are the same in every coordinate these
    suffice; else mu^2 M + mu gamma + H loses its positive definiteness at mu, which Lanczos finds on the Hessian scaled
    from both sides (`Dynamics.unstable_rate` does the same with matrices). nan where that does not converge.
    UnsupportedError for dynamics with a rotation: its linearisation is not symmetric.
    """
    if not dynamics.reversible:
        raise UnsupportedError(
            f"a rotation is a matrix of {energy.dim} x {energy.dim} numbers, which is not supported above dimension "
            f"{energy.dense_dim}: leave it out"
        )
    points = torch.as_tensor(x, dtype=energy.dtype, device=energy.device)
    gamma = torch.as_tensor(dynamics.gamma_vector(energy.dim)).to(points)
    given = dynamics.mass_vector(energy.dim)
    mass = torch.zeros_like(gamma) if given is None else torch.as_tensor(given).to(points)
    v = torch.as_tensor(modes, dtype=energy.dtype, device=energy.device)
    rate = _rayleigh_root(energy, points, v, gamma, mass)
    if not len(points) or bool((gamma == gamma[0]).all() and (mass == mass[0]).all()):
        return _answer(energy, points, v, gamma, None if given is None else mass, rate)
    known = torch.ones_like(rate, dtype=torch.bool)
    for _ in range(ITERATIONS):
        # Overdamped, one pass is the answer: the weight is mu gamma, and the root is homogeneous in it.
        scale = (rate[:, None] * (rate[:, None] * mass + gamma)).rsqrt()
        both = torch.stack([points, scale], 1)
        found = lowest_modes(
            lambda p, u: p[:, 1] * energy.hvp(p[:, 0], p[:, 1] * u), both, energy.dim, ONE_MODE
        )  # fmt: skip
        v = found.vectors[:, 0] * scale
        new = _rayleigh_root(energy, points, v, gamma, mass)
        known = found.residuals[:, 0] <= ONE_MODE.negative_tolerance * found.values[:, 0].abs()
        done = (new - rate).abs() <= TOLERANCE * new
        rate = new
        if bool(done.all()):
            break
    rate = torch.where(known & done, rate, torch.nan)
    return _answer(energy, points, v, gamma, None if given is None else mass, rate)


def _rayleigh_root(
    energy: Energy, points: torch.Tensor, v: torch.Tensor, gamma: torch.Tensor, mass: torch.Tensor
) -> torch.Tensor:
    """The positive root of mu^2 v.Mv + mu v.gamma v + v.Hv = 0, (m,); nan where v.Hv is not negative."""
    v = v / v.norm(dim=1, keepdim=True)
    curvature = (v * energy.hvp(points, v)).sum(1).cpu().numpy()
    square = v.square()
    falling = np.where(curvature < 0, curvature, np.nan)
    return torch.as_tensor(positive_root((square @ mass).cpu().numpy(), (square @ gamma).cpu().numpy(), falling)).to(v)


def _answer(
    energy: Energy, points: torch.Tensor, v: torch.Tensor, gamma: torch.Tensor, mass: torch.Tensor | None,
    rate: torch.Tensor,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    if mass is None or not len(points):
        return rate.cpu().numpy(), np.full(len(points), np.inf)
    v = v / v.norm(dim=1, keepdim=True)
    curvature = -(v * energy.hvp(points, v)).sum(1)
    loss = 2 * math.pi * (v.square() @ gamma) / (curvature * (v.square() @ mass)).sqrt()
    return rate.cpu().numpy(), loss.cpu().numpy()
