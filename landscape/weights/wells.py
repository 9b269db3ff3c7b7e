"""The minima as harmonic wells: where samplers start, what they propose, and a guess of the basin of a point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.sampling import StudentMixture, harmonic_mixture
from landscape.sampling.independence import harmonic_covariances, inverse_factors, squared_distances


@dataclass(frozen=True)
class Wells:
    """n harmonic wells at one temperature, float64 on the CPU.

    x (n, d), bottoms (n,): the minima and their energies. covariances (n, d, d): (beta H)^-1, widened where H is flat.
    inverses (n, d, d): of their lower Cholesky factors. weights (n,): harmonic, summing to 1. beta.
    """

    x: torch.Tensor
    bottoms: torch.Tensor
    covariances: torch.Tensor
    inverses: torch.Tensor
    weights: torch.Tensor
    beta: float

    @staticmethod
    def at(energy: Energy, minima: np.ndarray, hessians: np.ndarray, beta: float) -> Wells:
        """Wells at `minima` (n, d) with `hessians` (n, d, d). UsageError where shapes differ or values are not
        finite."""
        x = torch.as_tensor(np.asarray(minima, dtype=float))
        curvature = torch.as_tensor(np.asarray(hessians, dtype=float))
        n, d = (*x.shape, 0)[:2]
        if x.ndim != 2 or n == 0 or d != energy.dim or curvature.shape != (n, d, d):
            raise UsageError(
                f"basin weights need minima (n, {energy.dim}) and Hessians (n, {energy.dim}, {energy.dim}), not "
                f"{tuple(x.shape)} and {tuple(curvature.shape)}"
            )
        if not (x.isfinite().all() and curvature.isfinite().all()):
            raise UsageError("basin weights need finite minima and Hessians, but nan or infinity came in")
        bottoms = torch.as_tensor(energy.value(x)).to(device="cpu", dtype=torch.float64)
        if not bottoms.isfinite().all():
            raise UsageError("basin weights need a finite energy at every minimum")
        covariances = harmonic_covariances(curvature, beta)
        factors = torch.linalg.cholesky(covariances)
        weights = torch.softmax(-beta * bottoms + factors.diagonal(dim1=1, dim2=2).log().sum(1), 0)
        return Wells(x, bottoms, covariances, inverse_factors(factors), weights, beta)

    def mixture(self, inflation: float, broad_weight: float, floor_weight: float, dof: int) -> StudentMixture:
        """See `harmonic_mixture`."""
        return harmonic_mixture(
            self.x, self.covariances, self.weights, inflation=inflation, broad_weight=broad_weight,
            floor_weight=floor_weight, dof=dof,
        )  # fmt: skip

    def harmonic(self, x: torch.Tensor) -> torch.Tensor:
        """beta times the harmonic energy of each well at x: (m, d) -> (m, n)."""
        return self.beta * self.bottoms + 0.5 * squared_distances(x, self.x, self.inverses)

    def guess(self, x: torch.Tensor) -> torch.Tensor:
        """The well whose harmonic energy is lowest at x, (m,): nearly always the basin, and free."""
        return self.harmonic(x).argmin(1)
