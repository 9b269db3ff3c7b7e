"""Energies of any dimension whose stationary points, spectra and determinants are known in closed form."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import brentq


def reflections(d: int, n: int = 3, seed: int = 0) -> torch.Tensor:
    """Unit normals of n Householder reflections (n, d)."""
    normals = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normals / normals.norm(dim=1, keepdim=True)


def reflect(x: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    for normal in normals:
        x = x - 2 * (x @ normal)[:, None] * normal
    return x


class DoubleWell:
    """E = a (y_1^2 - 1)^2 / 4 + sum_i k_i (1 + c_i exp(-4 y_1^2)) y_i^2 / 2, y = Q x with Q a product of reflections.

    Minima at y_1 = +-1, the saddle at 0, E = 0, 0, a / 4. There the Hessian is diagonal in y: 2 a and k_i (1 + c_i
    e^-4), and -a and k_i (1 + c_i).
    """

    def __init__(self, d: int, a: float = 8.0, low: float = 0.5, high: float = 50.0, c: float = 0.05) -> None:
        self.dim, self.a, self.normals = d, a, reflections(d)
        self.k = torch.logspace(math.log10(low), math.log10(high), d - 1, dtype=torch.float64)
        self.c = c * torch.rand(d - 1, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = reflect(x, self.normals)
        along = y[:, 0].square()
        stiffness = self.k * (1 + self.c * torch.exp(-4 * along)[:, None])
        return self.a / 4 * (along - 1) ** 2 + 0.5 * (stiffness * y[:, 1:].square()).sum(1)

    @property
    def points(self) -> torch.Tensor:
        """Minimum at +1, minimum at -1, saddle: (3, d)."""
        y = torch.zeros(3, self.dim, dtype=torch.float64)
        y[0, 0], y[1, 0] = 1.0, -1.0
        return reflect(y, self.normals.flip(0))

    @property
    def spectra(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the minima, and of the saddle: (d,), ascending."""
        low = torch.cat([torch.tensor([2 * self.a], dtype=torch.float64), self.k * (1 + self.c * math.exp(-4))])
        top = torch.cat([torch.tensor([-self.a], dtype=torch.float64), self.k * (1 + self.c)])
        return low.sort().values.numpy(), top.sort().values.numpy()

    @property
    def log_det_difference(self) -> float:
        """log det H(minimum) - log |det H(saddle)|."""
        low, top = self.spectra
        return float(np.log(low).sum() - np.log(np.abs(top)).sum())


class Bump:
    """E = x.D x / 2 + A exp(-(u.x)^2 / 2), D diagonal: a quadratic bowl with a bump across the direction u.

    With q = u.D^-1 u and A q > 1 the origin is a saddle with H = D - A u u', and the minima are +-s D^-1 u / q with
    s^2 = 2 log(A q), where H = D + (s^2 - 1) / q u u'. Determinants by the matrix determinant lemma; the negative
    eigenvalue solves 1 = A sum u_i^2 / (k_i - lambda).
    """

    def __init__(self, d: int, low: float = 0.5, high: float = 20.0, height: float = 4.0, seed: int = 0) -> None:
        self.dim = d
        self.k = torch.logspace(math.log10(low), math.log10(high), d, dtype=torch.float64)
        u = torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.u = u / u.norm()
        self.q = float((self.u.square() / self.k).sum())
        self.A = height / self.q
        self.s = math.sqrt(2 * math.log(height))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * (self.k * x.square()).sum(1) + self.A * torch.exp(-0.5 * (x @ self.u).square())

    @property
    def points(self) -> torch.Tensor:
        minimum = self.s / self.q * self.u / self.k
        return torch.stack([minimum, -minimum, torch.zeros_like(minimum)])

    @property
    def barrier(self) -> float:
        return self.A - (self.s**2 / 2 + 1) / self.q

    @property
    def negative(self) -> float:
        k, u = self.k.numpy(), self.u.numpy()
        return float(brentq(lambda v: self.A * (u**2 / (k - v)).sum() - 1, -2 * self.A, k.min() - 1e-12, xtol=1e-14))

    @property
    def log_det_difference(self) -> float:
        """log det H(minimum) - log |det H(saddle)|."""
        return math.log(self.s**2) - math.log(self.A * self.q - 1)
