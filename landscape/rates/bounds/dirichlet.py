"""The upper bound on a capacity: the Dirichlet principle with a trained test function.

    cap Z = min over f = 1 on A, 0 on B of (1/beta) int |grad f|^2 exp(-beta E) dy     (friction 1)

so that every f gives an upper bound. Here f = r_B (1 - r_A) + r_A r_B sum_m b_m g_m, with ramps r that are exactly 0 on
A and on B, and the functions g_m of a partition of unity along the legs. The form is quadratic in b: training is one
linear least-squares problem. Before it, b holds the potential of the legs, seen as resistors.

How soft the partition should be depends on the energy: a soft one cannot follow the narrow layer at a saddle at low
temperatures, a sharp one cuts across the inside of bends. Several are trained, and points held out tell the best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from landscape.rates.bounds.basis import Partition, chunks, make_partition
from landscape.rates.bounds.channels import Network
from landscape.rates.bounds.quadratic import QuadraticForm
from landscape.rates.bounds.region import Region, Tensor

FLAT = 1e-3  # distance of f from 0 and 1 below which it counts as 0 or 1
# widths of the partition of unity in widths (beta |lambda|)^(-1/2) of the barriers; the first one is the first guess
SOFTNESS = (1.2, 0.9, 1.7)


@dataclass(frozen=True)
class TestFunction:
    """f of the module's text, with coefficient b (m,)."""

    region: Region
    basis: Partition
    coefficient: Tensor

    def parts(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """r_B (1 - r_A) (n,), its gradient (n, d), r_A r_B g_m (n, m) and their gradients (n, m, d)."""
        a, grad_a = self.region.ramp(y, self.region.source)
        b, grad_b = self.region.ramp(y, self.region.target)
        value, gradient = self.basis(y)
        mask, grad_mask = a * b, a[:, None] * grad_b + b[:, None] * grad_a
        slope = mask[:, None, None] * gradient + value[..., None] * grad_mask[:, None]
        return b * (1 - a), (1 - a)[:, None] * grad_b - b[:, None] * grad_a, mask[:, None] * value, slope

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """f (n,) and its gradient (n, d), cut off: (f - `FLAT`) / (1 - 2 `FLAT`), clamped to [0, 1].

        Deep inside a well exp(-beta E) can exceed its value at the pass by any factor, so that f must be constant there
        exactly, and not only to sixteen digits.
        """
        values, gradients = [], []
        for rows in chunks(len(y), 3 * len(self.basis) * y.shape[1]):
            value, gradient, more, slope = self.parts(y[rows])
            values.append((value + more @ self.coefficient - FLAT) / (1 - 2 * FLAT))
            gradients.append((gradient + torch.einsum("npd,p->nd", slope, self.coefficient)) / (1 - 2 * FLAT))
        value, gradient = torch.cat(values), torch.cat(gradients)
        return value.clamp(0, 1), torch.where(((value > 0) & (value < 1))[:, None], gradient, 0)

    def trained(self, y: Tensor, weight: Tensor) -> TestFunction:
        """The coefficients that minimise sum_n weight_n |grad f(y_n)|^2; weight ~ exp(-beta E) / q outside A and B."""
        form = QuadraticForm(len(self.basis))
        for rows in chunks(len(y), 3 * len(self.basis) * y.shape[1]):
            _, gradient, _, slope = self.parts(y[rows])
            gradient = gradient + torch.einsum("npd,p->nd", slope, self.coefficient)
            form.add(slope, gradient, weight[rows])
        return replace(self, coefficient=self.coefficient + form.solve())


def first_guesses(region: Region, network: Network, widths: Tensor) -> list[TestFunction]:
    """The potential along the legs, one guess for each softness; widths : of the barriers of the legs with current."""
    guesses = []
    for softness in SOFTNESS:
        basis, rows = make_partition(network.legs, softness * math.exp(float(widths.log().mean())))
        coefficient = torch.zeros(len(basis.mean), len(basis.terms), dtype=torch.float64)
        coefficient[:, 0] = torch.cat(network.potential)[rows]
        guesses.append(TestFunction(region, basis, coefficient.flatten()))
    return guesses
