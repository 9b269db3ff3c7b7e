"""Time steps of Langevin dynamics for batches of independent trajectories.

| name | dynamics | one step of length h | order |
|---|---|---|---|
| heun | overdamped | y = x - h A g(x) + s R, x' = x - h A (g(x) + g(y)) / 2 + s R | weak 2 (additive noise) |
| baoab | underdamped | half kick, half drift, exact friction and noise, half drift, half kick | weak 2 |
| euler | both | x' = x - h A g + s R; or x' = x + h p/m, p' = p - h (g + gamma p/m) + s R | weak 1 |
| semi-implicit | underdamped | p' as for euler, x' = x + h p'/m | weak 1 |

g = grad E, A = gamma^-1 + J (J the rotation, 0 if there is none), R standard normal, s = sigma h^(1/2).
B. Leimkuhler and C. Matthews, Molecular Dynamics (2015), chapter 7;
P. Kloeden and E. Platen, Numerical Solution of Stochastic Differential Equations (1992), chapter 15.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy
from landscape.errors import UsageError

SCHEMES = {"overdamped": ("heun", "euler"), "underdamped": ("baoab", "euler", "semi-implicit")}


@dataclass
class Trajectories:
    """Positions x (n, d), momenta p (n, d) or None, and grad E at x (n, d).

    sense : 1 or -1 (n, 1), by which a rotation is multiplied, or None for 1.
    """

    x: torch.Tensor
    p: torch.Tensor | None
    gradient: torch.Tensor
    sense: torch.Tensor | None = None

    def reversed(self) -> Trajectories:
        """The same points in the process read backwards: momenta and rotation change their sign."""
        p, sense = (None if part is None else -part for part in (self.p, self.sense))
        return Trajectories(self.x, p, self.gradient, sense)

    def where(self, rows: torch.Tensor, other: Trajectories) -> Trajectories:
        """These trajectories in the rows (n,) that are true, the others elsewhere."""
        mask = rows[:, None]

        def chosen(one: torch.Tensor | None, two: torch.Tensor | None) -> torch.Tensor | None:
            return None if one is None or two is None else torch.where(mask, one, two)

        x, gradient = torch.where(mask, self.x, other.x), torch.where(mask, self.gradient, other.gradient)
        return Trajectories(x, chosen(self.p, other.p), gradient, chosen(self.sense, other.sense))


class Integrator:
    """One scheme at one time step; `step` moves every trajectory once, by noise from the given generator."""

    def __init__(self, energy: Energy, dynamics: Dynamics, scheme: str, time_step: float) -> None:
        if scheme not in SCHEMES[dynamics.kind]:
            raise UsageError(f"{dynamics.kind} dynamics is integrated by {SCHEMES[dynamics.kind]}, not {scheme!r}")
        if not (math.isfinite(time_step) and time_step > 0):
            raise UsageError(f"a time step is finite and above 0, not {time_step!r}")
        self.energy, self.scheme, self.time_step = energy, scheme, float(time_step)
        d, h = energy.dim, self.time_step
        self.gamma = self._tensor(dynamics.gamma_vector(d))
        self.noise = self._tensor(dynamics.noise_scale(d) * math.sqrt(h))
        rotation = dynamics.rotation_matrix(d)
        self.rotation = None if rotation is None else self._tensor(rotation)
        mass = dynamics.mass_vector(d)
        self.mass = None if mass is None else self._tensor(mass)
        if mass is not None:
            decay = np.exp(-dynamics.gamma_vector(d) / mass * h)
            self.decay = self._tensor(decay)
            self.refresh = self._tensor(
                np.sqrt(-np.expm1(-2 * dynamics.gamma_vector(d) / mass * h) * mass / dynamics.beta)
            )

    def init(self, x: torch.Tensor, p: torch.Tensor | None) -> Trajectories:
        return Trajectories(x, p, self.energy.gradient(x))

    def step(self, state: Trajectories, generator: torch.Generator) -> Trajectories:
        normal = torch.randn(state.x.shape, generator=generator, dtype=torch.float64, device=generator.device)
        normal = normal.to(state.x)
        if state.p is None or self.mass is None:
            return self._overdamped(state, normal)
        return self._underdamped(state, state.p, self.mass, normal)

    def _overdamped(self, state: Trajectories, normal: torch.Tensor) -> Trajectories:
        h, kick = self.time_step, self.noise * normal
        x = state.x - h * self._velocity(state.gradient, state.sense) + kick
        if self.scheme == "heun":
            x = state.x - 0.5 * h * self._velocity(state.gradient + self.energy.gradient(x), state.sense) + kick
        return Trajectories(x, None, self.energy.gradient(x), state.sense)

    def _velocity(self, gradient: torch.Tensor, sense: torch.Tensor | None) -> torch.Tensor:
        """(gamma^-1 + sense J) g, (n, d)."""
        straight = gradient / self.gamma
        if self.rotation is None:
            return straight
        turned = gradient @ self.rotation.T
        return straight + (turned if sense is None else sense * turned)

    def _underdamped(
        self, state: Trajectories, p: torch.Tensor, mass: torch.Tensor, normal: torch.Tensor
    ) -> Trajectories:
        h = self.time_step
        if self.scheme == "baoab":
            p = p - 0.5 * h * state.gradient
            x = state.x + 0.5 * h * p / mass
            p = self.decay * p + self.refresh * normal
            x = x + 0.5 * h * p / mass
            gradient = self.energy.gradient(x)
            return Trajectories(x, p - 0.5 * h * gradient, gradient)
        new = p - h * (state.gradient + self.gamma * p / mass) + self.noise * normal
        x = state.x + h * (new if self.scheme == "semi-implicit" else p) / mass
        return Trajectories(x, new, self.energy.gradient(x))

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.array(values), dtype=self.energy.dtype, device=self.energy.device)


def largest_frequency(energy: Energy, dynamics: Dynamics, x: torch.Tensor) -> float:
    """The fastest rate of the linearised force over points x (n, d), by which a time step is measured.

    Overdamped: largest |eigenvalue| of gamma^-1 H, or with a rotation largest singular value of (gamma^-1 + J) H in
    coordinates in which gamma is 1. Underdamped: square root of the largest of M^-1 H.
    """
    d = energy.dim
    scale = dynamics.gamma_vector(d) if isinstance(dynamics, Overdamped) else dynamics.mass_vector(d)
    root = 1 / np.sqrt(np.asarray(scale))
    hessians = energy.hessian(x).cpu().numpy() * root[:, None] * root
    hessians = hessians[np.isfinite(hessians).all(axis=(1, 2))]
    if not len(hessians):
        raise UsageError("the curvature of the energy is finite at none of the starting points; check the energy")
    rotation = dynamics.rotation_matrix(d)
    if rotation is not None:  # gamma^1/2 (gamma^-1 + J) gamma^1/2
        turned = np.eye(d) + rotation / root[:, None] / root
        return float(np.linalg.norm(turned @ hessians, 2, axis=(1, 2)).max())
    top = float(np.abs(np.linalg.eigvalsh(hessians)).max())
    return top if isinstance(dynamics, Overdamped) else math.sqrt(top)


def relaxation_time(energy: Energy, dynamics: Dynamics, minima: np.ndarray) -> float:
    """The slowest relaxation time inside the harmonic wells around minima (n, d).

    Curvatures below 1e-3 of the largest, or negative, count as that: the centre of a disc need not be a minimum.
    """
    d = energy.dim
    values, vectors = np.linalg.eigh(energy.hessian(np.asarray(minima, dtype=float)))
    values = np.maximum(values, 1e-3 * np.abs(values).max())
    hessians = np.einsum("nik,nk,njk->nij", vectors, values, vectors)
    gamma, mass = dynamics.gamma_vector(d), dynamics.mass_vector(d)
    if isinstance(dynamics, Overdamped) and not dynamics.reversible:
        return float(1 / np.linalg.eigvals(dynamics.mobility(d) @ hessians).real.min())
    if mass is None:
        root = 1 / np.sqrt(gamma)
        return float(1 / np.linalg.eigvalsh(hessians * root[:, None] * root).min())
    linear = np.zeros((len(hessians), 2 * d, 2 * d))
    linear[:, :d, d:] = np.diag(1 / mass)
    linear[:, d:, :d] = -hessians
    linear[:, d:, d:] = -np.diag(gamma / mass)
    return float(-1 / np.linalg.eigvals(linear).real.max())
