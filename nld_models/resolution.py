"""Is the time step of the simulated objective short enough for the continuous dynamics that the model claims to be?"""

from __future__ import annotations

import torch

from nld_models.prior import Prior, UnderdampedPrior

# Largest step times fastest rate at which rates mean something. Euler-Maruyama widens a well's variance by
# 1 / (1 - limit / 2), 18 %; the underdamped scheme is of second order in the friction and in the frequency:
# its diffusion coefficient is off by y coth y - 1 at y = limit / 2, 4 %.
LIMIT, UNDERDAMPED_LIMIT = 0.3, 0.7


def fastest_rate(prior: Prior, z: torch.Tensor) -> torch.Tensor:
    """The fastest rate of the linearised prior over points z (S, n, d), one a seed, (S,), in 1 / observation.

    First order: largest 2-norm of the drift's Jacobian, for overdamped priors the largest |curvature| / gamma.
    Underdamped: the larger of the largest frequency, sqrt(|curvature| / M), and the collision rate gamma / M.
    """
    if isinstance(prior, UnderdampedPrior):
        root = prior.mass().rsqrt().detach()
        hessians = _jacobians(prior.energy.gradient, z) * root[..., :, None] * root[..., None, :]
        frequency = torch.linalg.eigvalsh(0.5 * (hessians + hessians.mT)).abs().amax((1, 2)).sqrt()
        return torch.maximum(frequency, (prior.gamma() / prior.mass()).detach().amax((1, 2)))
    return torch.linalg.matrix_norm(_jacobians(prior.drift, z), 2).amax(1)


def limit_of(prior: Prior) -> float:
    return UNDERDAMPED_LIMIT if isinstance(prior, UnderdampedPrior) else LIMIT


def _jacobians(field: object, z: torch.Tensor) -> torch.Tensor:
    """(S, n, d, d) of a field (S, n, d) -> (S, n, d)."""
    assert callable(field)
    with torch.enable_grad():
        leaf = z.detach().requires_grad_(True)
        values = field(leaf)
        rows = [torch.autograd.grad(values[..., i].sum(), leaf, retain_graph=True)[0] for i in range(z.shape[-1])]
    return torch.stack(rows, -2)
