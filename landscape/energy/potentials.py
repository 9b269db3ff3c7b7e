"""Analytic energies that declare their own stationary points where these are known.

Each is a module, (n, d) -> (n,), without trainable parameters. Unitless throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from landscape.energy.architectures import SoftMinimum
from landscape.energy.group import Symmetry
from landscape.energy.symmetry import ParticleSymmetry


@dataclass(frozen=True)
class StationaryPoints:
    """Known stationary points: x (k, d), energy (k,), index (k,) = number of negative Hessian eigenvalues.

    tolerance : bound on the error of x and energy. complete : whether these are all of them.
    """

    x: np.ndarray
    energy: np.ndarray
    index: np.ndarray
    tolerance: float
    complete: bool


def _points(rows: list[tuple[int, float, list[float]]], tolerance: float, complete: bool = True) -> StationaryPoints:
    index, energy, x = zip(*rows, strict=True)
    return StationaryPoints(np.array(x, float), np.array(energy, float), np.array(index), tolerance, complete)


class Potential(nn.Module):
    """Base of the analytic energies. `zero_modes` names continuous symmetries, "" if there are none; `symmetry`
    declares what searches are to respect."""

    zero_modes = ""
    symmetry: Symmetry | None = None

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def stationary_points(self) -> StationaryPoints | None:
        """What is known in advance; None if nothing is."""
        return None


class MullerBrown(Potential):
    """E = sum_k A_k exp(a_k (x - X_k)^2 + b_k (x - X_k)(y - Y_k) + c_k (y - Y_k)^2) (Mueller and Brown 1979).

    Confining; overflows to infinity beyond |x| of about 30.
    """

    # A, a, b, c, X, Y of each term
    TERMS = (
        (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
        (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
        (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
        (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
    )

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(x[:, 0])
        for amplitude, a, b, c, x0, y0 in self.TERMS:
            u, v = x[:, 0] - x0, x[:, 1] - y0
            total = total + amplitude * torch.exp(a * u * u + b * u * v + c * v * v)
        return total

    def stationary_points(self) -> StationaryPoints:
        rows = [
            (0, -146.69951721, [-0.558223634633, 1.441725841805]),
            (0, -108.1667241169, [0.6234994049309, 0.02803775852869]),
            (0, -80.76781812966, [-0.05001082299821, 0.466694104872]),
            (1, -72.24894011233, [0.2124865820007, 0.2929883251074]),
            (1, -40.66484350866, [-0.8220015587327, 0.6243128028149]),
        ]
        return _points(rows, tolerance=1e-8)


class TripleWell(Potential):
    """E = 3 exp(-x^2 - (y - 1/3)^2) - 3 exp(-x^2 - (y - 5/3)^2) - 5 exp(-(x - 1)^2 - y^2) - 5 exp(-(x + 1)^2 - y^2)
    + x^4/5 + (y - 1/3)^4/5 (Metzner, Schuette and Vanden-Eijnden 2006). Symmetric in x."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, v = x[:, 0], x[:, 1]
        wells = 3 * torch.exp(-u * u - (v - 1 / 3) ** 2) - 3 * torch.exp(-u * u - (v - 5 / 3) ** 2)
        wells = wells - 5 * torch.exp(-((u - 1) ** 2) - v * v) - 5 * torch.exp(-((u + 1) ** 2) - v * v)
        return wells + 0.2 * u**4 + 0.2 * (v - 1 / 3) ** 4

    def stationary_points(self) -> StationaryPoints:
        rows = [
            (0, -3.994860601854, [-1.048054992824, -0.04209366630668]),
            (0, -3.994860601854, [1.048054992824, -0.04209366630668]),
            (0, -2.172153622994, [0.0, 1.537082004449]),
            (1, -1.646687453475, [-0.6172723078765, 1.102734517508]),
            (1, -1.646687453475, [0.6172723078765, 1.102734517508]),
            (1, -1.384586640398, [0.0, -0.3158265504781]),
            (2, -0.7152298869818, [0.0, 0.5191867418921]),
        ]
        return _points(rows, tolerance=1e-11)


class DoubleWell(Potential):
    """E = x^4/4 - x^2/2 in one dimension."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        square = x[:, 0] * x[:, 0]
        return square * (square / 4 - 0.5)

    def stationary_points(self) -> StationaryPoints:
        return _points([(0, -0.25, [-1.0]), (0, -0.25, [1.0]), (1, 0.0, [0.0])], tolerance=0.0)


class CoupledChain(Potential):
    """E = sum_i (x_i^4/4 - x_i^2/2) + (g/4) sum_i (x_{i+1} - x_i)^2 on a ring of n sites.

    Berglund, Fernandez and Gentz 2007. Two sites count their one bond twice. The Hessian at the origin has
    eigenvalues -1 + g (1 - cos(2 pi k / n)); where one of them vanishes the saddle there is degenerate.
    """

    def __init__(self, n: int, g: float) -> None:
        super().__init__(n)
        self.g = g

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        square = x * x
        bonds = torch.roll(x, -1, 1) - x
        return (square * (square / 4 - 0.5)).sum(1) + 0.25 * self.g * (bonds * bonds).sum(1)

    def stationary_points(self) -> StationaryPoints:
        """The two aligned minima and the origin: all there is once the coupling synchronises the chain."""
        curvature = -1 + self.g * (1 - np.cos(2 * np.pi * np.arange(self.dim) / self.dim))
        index = int((curvature < -1e-12).sum())
        aligned = -self.dim / 4
        rows = [(0, aligned, [-1.0] * self.dim), (0, aligned, [1.0] * self.dim), (index, 0.0, [0.0] * self.dim)]
        return _points(rows, tolerance=0.0, complete=bool((curvature[1:] > 1e-12).all()))


class GaussianMixture(SoftMinimum):
    """E = -log of a normalised mixture of k Gaussians with full covariances, drawn from a seed.

    Standard deviations lie between 0.7 and 1.3 along random axes, centres at least 6 apart, weights between 1/3k and
    3/k; `weights` holds them: each is the equilibrium probability of its component at beta = 1.
    """

    SEPARATION = 6.0
    zero_modes = ""

    def __init__(self, d: int, k: int, seed: int) -> None:
        with torch.device("meta"):  # parameters come from the seed: leave the global generator alone
            super().__init__(d, k)
        rng = np.random.default_rng(seed)
        centers = self._centers(rng, d, k)
        weights = rng.uniform(1, 3, k)
        self.weights = weights / weights.sum()
        factors = np.empty((k, d, d))
        for component in range(k):
            axes = np.linalg.qr(rng.standard_normal((d, d)))[0]
            precision = (axes / rng.uniform(0.7, 1.3, d) ** 2) @ axes.T
            factor = np.linalg.cholesky((precision + precision.T) / 2)
            factors[component] = np.tril(factor, -1) + np.diag(np.log(np.diag(factor)))
        # the architecture leaves out d/2 log(2 pi): put it into the weights, so that exp(-E) integrates to 1
        logits = np.log(self.weights) - 0.5 * d * np.log(2 * np.pi)
        for name, value in (("logits", logits), ("centers", centers - self.weights @ centers), ("factors", factors)):
            setattr(self, name, nn.Parameter(torch.from_numpy(value), requires_grad=False))

    @classmethod
    def _centers(cls, rng: np.random.Generator, d: int, k: int) -> np.ndarray:
        """k points, each 6 or more from every other, in a cube that widens whenever a point does not fit."""
        half_width = 0.5 * cls.SEPARATION
        found: list[np.ndarray] = []
        while len(found) < k:
            candidate = rng.uniform(-half_width, half_width, d)
            if all(np.linalg.norm(candidate - other) >= cls.SEPARATION for other in found):
                found.append(candidate)
            else:
                half_width *= 1.05
        return np.array(found)

    def stationary_points(self) -> StationaryPoints | None:
        return None


class Quadratic(Potential):
    """E = kappa/2 |x|^2."""

    def __init__(self, d: int, kappa: float) -> None:
        super().__init__(d)
        self.kappa = kappa

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.kappa * (x * x).sum(1)

    def stationary_points(self) -> StationaryPoints:
        return _points([(0, 0.0, [0.0] * self.dim)], tolerance=0.0)


class LennardJones(Potential):
    """E = 4 sum_{i<j} (r_ij^-12 - r_ij^-6) of n equal atoms in 2 or 3 dimensions; eps = sigma = 1.

    Coordinates are x1, y1, z1, x2, ... Gradient and Hessian are in closed form: with s = r^-2 and the derivatives
    E' and E'' of the pair energy by r^2, the gradient at atom i is sum_j 2 E' (x_i - x_j), and the block of the Hessian
    that couples i and j is -(2 E' 1 + 4 E'' (x_i - x_j)(x_i - x_j)^T).
    """

    zero_modes = "translation and rotation of the cluster"

    def __init__(self, n: int, dim: int = 3) -> None:
        super().__init__(dim * n)
        self.space = dim
        self.symmetry = ParticleSymmetry(n, dim)
        first, second = np.triu_indices(n, 1)
        self.first: torch.Tensor
        self.second: torch.Tensor
        self.register_buffer("first", torch.from_numpy(first))
        self.register_buffer("second", torch.from_numpy(second))
        bonds = np.zeros((len(first), n))
        bonds[np.arange(len(first)), first], bonds[np.arange(len(first)), second] = 1, -1
        self.bonds: torch.Tensor  # (pairs, n): takes positions to the vectors x_i - x_j
        self.register_buffer("bonds", torch.from_numpy(bonds))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # squared distances, not torch.cdist: it has no second derivative, nor has a root at zero a first
        apart = self._apart(x)
        inverse_sixth = (apart * apart).sum(2) ** -3
        return 4 * (inverse_sixth * (inverse_sixth - 1)).sum(1)

    def closed_form_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        apart = self._apart(x)
        s = 1 / (apart * apart).sum(2)
        inverse_sixth = s * s * s
        slope = -12 * s * inverse_sixth * (2 * inverse_sixth - 1)  # E'
        gradient = self.bonds.T @ (2 * slope[..., None] * apart)
        return 4 * (inverse_sixth * (inverse_sixth - 1)).sum(1), gradient.reshape(x.shape)

    def closed_form_hessian(self, x: torch.Tensor) -> torch.Tensor:
        apart = self._apart(x)
        s = 1 / (apart * apart).sum(2)
        inverse_sixth = s * s * s
        slope = -12 * s * inverse_sixth * (2 * inverse_sixth - 1)
        curvature = 24 * s * s * inverse_sixth * (7 * inverse_sixth - 2)  # E''
        blocks = 4 * curvature[..., None, None] * apart[..., :, None] * apart[..., None, :]
        blocks = blocks + 2 * slope[..., None, None] * torch.eye(self.space, dtype=x.dtype, device=x.device)
        n, m = len(x), self.bonds.shape[1]
        whole = x.new_zeros(n, m, m, self.space, self.space)
        whole[:, self.first, self.second] = whole[:, self.second, self.first] = -blocks
        atom = torch.arange(m, device=x.device)
        whole[:, atom, atom] = -whole.sum(2)
        return whole.transpose(2, 3).reshape(n, self.dim, self.dim)

    def _apart(self, x: torch.Tensor) -> torch.Tensor:
        return self.bonds @ x.reshape(len(x), -1, self.space)


MAKERS: dict[str, Callable[..., nn.Module]] = {
    "muller-brown": MullerBrown,
    "triple-well": TripleWell,
    "double-well": DoubleWell,
    "coupled-chain": CoupledChain,
    "gaussian-mixture": GaussianMixture,
    "quadratic": Quadratic,
    "lennard-jones": LennardJones,
}
