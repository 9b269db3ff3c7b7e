"""A mixture fitted to weighted draws from the target (population Monte Carlo), so that it proposes better next time."""

from __future__ import annotations

from dataclasses import replace

import torch

from landscape.sampling import StudentMixture

ENOUGH = 2  # effective draws of a component it takes for each coordinate, and TEN_MORE, to fit it
TEN_MORE = 10
PRIOR = 5  # draws for each coordinate that the correlations of the axes must outweigh


def fitted(mixture: StudentMixture, x: torch.Tensor, log_weights: torch.Tensor, inflation: float) -> StudentMixture:
    """`mixture` with the mean and covariance of each component but the last from weighted draws x (m, d).

    A draw counts for component k with its share of the density there (Cappe, Douc, Guillin, Marin and Robert,
    Statistics and Computing 18 (2008) 447). With V the axes of the component and S the sample covariance of its n
    effective draws, the new scale matrix is inflation^2 [n S + 5 d V diag(V' S V) V'] / (n + 5 d): in many dimensions,
    where draws are few, the axes of the well stay and only the widths along them change. A component with too few
    effective draws, and the last, broad one, which guards against everything unforeseen, stay as they are.
    """
    d = x.shape[1]
    w = torch.softmax(log_weights, 0)[:, None] * torch.softmax(mixture.log_components(x), 1)
    means, factors = mixture.means.clone(), mixture.factors.clone()
    for k in range(len(means) - 1):
        total = w[:, k].sum()
        n = float(total**2 / w[:, k].square().sum().clamp_min(torch.finfo(w.dtype).tiny))
        if n < ENOUGH * d + TEN_MORE:
            continue
        share = w[:, k] / total
        mean = share @ x
        sample = (x - mean).mT @ (share[:, None] * (x - mean))
        axes = torch.linalg.eigh(mixture.factors[k] @ mixture.factors[k].mT)[1]
        widths = torch.einsum("ji,jk,ki->i", axes, sample, axes)
        covariance = (n * sample + PRIOR * d * (axes * widths) @ axes.mT) / (n + PRIOR * d)
        factor, failed = torch.linalg.cholesky_ex(inflation**2 * 0.5 * (covariance + covariance.mT))
        if int(failed) == 0:
            means[k], factors[k] = mean, factor
    return replace(mixture, means=means, factors=factors, dof=max(mixture.dof, d))
