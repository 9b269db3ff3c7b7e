"""Training: the minimum of a weighted sum of squares over coefficients, with a ridge chosen on points held out."""

from __future__ import annotations

import torch

from landscape.rates.bounds.region import Tensor

RIDGES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the unit diagonal of the scaled normal equations


class QuadraticForm:
    """sum_n weight_n |base_n + sum_p c_p column_np|^2 as a function of c, in two halves of the points."""

    def __init__(self, size: int) -> None:
        self.matrix = torch.zeros(2, size, size, dtype=torch.float64)
        self.right = torch.zeros(2, size, dtype=torch.float64)

    def add(self, columns: Tensor, base: Tensor, weight: Tensor) -> None:
        """columns (n, p, d), base (n, d), weight (n,); every second point goes to the other half."""
        root = weight.sqrt()[:, None]
        columns, base = columns * root[:, :, None], base * root
        for half in range(2):
            flat = columns[half::2].transpose(1, 2).flatten(0, 1)
            self.matrix[half] += flat.mT @ flat
            self.right[half] -= flat.mT @ base[half::2].flatten()

    def solve(self) -> Tensor:
        """The coefficients for all points, with the ridge that does best on each half when trained on the other.

        0 if no ridge does better than no correction at all.
        """
        loss = torch.zeros(len(RIDGES), dtype=torch.float64)
        for one, other in ((0, 1), (1, 0)):
            found = _ridge_solutions(self.matrix[one], self.right[one])
            loss += torch.einsum("rp,pq,rq->r", found, self.matrix[other], found) - 2 * found @ self.right[other]
        if not float(loss.nan_to_num(torch.inf).min()) < 0:
            return torch.zeros_like(self.right[0])
        best = int(loss.nan_to_num(torch.inf).argmin())
        return _ridge_solutions(self.matrix.sum(0), self.right.sum(0))[best]


def _ridge_solutions(matrix: Tensor, right: Tensor) -> Tensor:
    """(len(RIDGES), p): solutions of the normal equations, scaled to a unit diagonal, for every ridge."""
    diagonal = matrix.diagonal()
    used = diagonal > 1e-14 * diagonal.max()
    scale = torch.where(used, diagonal.clamp_min(torch.finfo(matrix.dtype).tiny).rsqrt(), 0)
    values, vectors = torch.linalg.eigh(scale[:, None] * matrix * scale)
    inner = vectors.mT @ (scale * right)
    ridges = torch.tensor(RIDGES, dtype=matrix.dtype)[:, None]
    return scale * ((inner / (values.clamp_min(0) + ridges)) @ vectors.mT)
