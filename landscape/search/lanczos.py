"""Plain Lanczos recurrences of many rows at once: three vectors a row, whatever the number of steps.

Without reorthogonalisation the basis loses its orthogonality and eigenvalues appear several times, but extreme Ritz
values and Gauss quadratures stay right (Paige 1980; Greenbaum, Linear Algebra Appl. 113, 7, 1989).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

BROKEN = 1e-12  # an off-diagonal entry below this part of the matrix ends a row: its subspace is invariant


class Tridiagonals:
    """Lanczos matrices T of the symmetric matrices behind `product`, extended as far as is asked.

    product : (points, directions) -> H(point) direction, row by row, as `Energy.hvp`. start (n, d) : where the
    recurrences begin; of any length. outside (n', j, d) : orthonormal vectors that every vector is kept orthogonal to,
    so that T belongs to P H P with P the projection away from them; n' divides n, and each set serves n / n' rows in a
    row.

    alphas, betas (n, k) : diagonal of T, and what lies below it (the last one leads on to step k + 1).
    lengths (n,) : steps of each row; less than k where its subspace was found invariant.
    """

    def __init__(
        self, product: Product, points: torch.Tensor, start: torch.Tensor, outside: torch.Tensor | None = None
    ) -> None:
        self.product, self.points, self.outside = product, points, outside
        now = self._project(start)
        self.norms = now.norm(dim=1)
        self.now = now / self.norms.clamp_min(torch.finfo(start.dtype).tiny)[:, None]
        self.before = torch.zeros_like(self.now)
        n = len(start)
        self.alphas, self.betas = np.zeros((n, 0)), np.zeros((n, 0))
        self.lengths = np.full(n, -1)  # of a row whose subspace is invariant, -1 while it goes on
        self._size = np.zeros(n)

    @property
    def n_steps(self) -> int:
        return self.alphas.shape[1]

    def extend(self, n_steps: int) -> None:
        """So many more steps, one product a row each."""
        beta = torch.as_tensor(self.betas[:, -1]).to(self.now) if self.n_steps else torch.zeros_like(self.norms)
        alphas, betas = [], []
        for k in range(self.n_steps, self.n_steps + n_steps):
            image = self.product(self.points, self.now)
            alpha = (image * self.now).sum(1)
            onward = self._project(image - alpha[:, None] * self.now - beta[:, None] * self.before)
            beta = onward.norm(dim=1)
            self._size = np.maximum(self._size, (alpha.abs() + beta).cpu().numpy())
            ends = (self.lengths < 0) & ~(beta.cpu().numpy() > BROKEN * self._size)
            self.lengths[ends] = k + 1
            going = torch.as_tensor(self.lengths < 0, device=beta.device)
            beta = torch.where(going, beta, 0)
            scale = torch.where(going, 1 / beta, 0)
            self.before, self.now = self.now, onward * scale[:, None]
            alphas.append(alpha)
            betas.append(beta)
        self.alphas = np.concatenate([self.alphas, torch.stack(alphas, 1).cpu().numpy()], 1)
        self.betas = np.concatenate([self.betas, torch.stack(betas, 1).cpu().numpy()], 1)

    def row(self, k: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Diagonal (m,) and off-diagonal (m - 1,) of row k, and the entry that leads on (0 where the row has ended)."""
        m = self.n_steps if self.lengths[k] < 0 else int(self.lengths[k])
        return self.alphas[k, :m], self.betas[k, : m - 1], float(self.betas[k, m - 1])

    def _project(self, vector: torch.Tensor) -> torch.Tensor:
        if self.outside is None:
            return vector
        sets = vector.reshape(len(self.outside), -1, vector.shape[1])
        return (sets - (sets @ self.outside.mT) @ self.outside).reshape(vector.shape)


def ends_of(diagonal: np.ndarray, off_diagonal: np.ndarray) -> tuple[float, float]:
    """Lowest and highest eigenvalue of a symmetric tridiagonal matrix; nan where it is not finite."""
    if not (np.isfinite(diagonal).all() and np.isfinite(off_diagonal).all()):
        return math.nan, math.nan
    m = len(diagonal)
    low = eigh_tridiagonal(diagonal, off_diagonal, True, "i", (0, 0))
    return float(low[0]), float(eigh_tridiagonal(diagonal, off_diagonal, True, "i", (m - 1, m - 1))[0])


def missed_part(dim: int, n_steps: int, doubt: float) -> float:
    """A bound on (lowest Ritz value - lowest eigenvalue) / (spread of the spectrum) after n_steps from a direction
    drawn uniformly in `dim` dimensions; it fails with a probability of at most `doubt`.

    Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl. 13, 1094 (1992): P(part > e) <= 1.648 sqrt(d) exp(-sqrt(e)
    (2 k - 1)).
    """
    return (math.log(1.648 * math.sqrt(dim) / doubt) / (2 * n_steps - 1)) ** 2
