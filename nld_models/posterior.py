"""The posterior process with given Gaussian marginals, and its path KL to the prior: simulation-free (SDE matching).

Bartosh, Vetrov and Naesseth, "SDE Matching" (2025). Let q_t = N(mu(t), sigma(t)^2) be the marginals wanted and
z = mu + sigma eps, eps standard normal. Along a fixed eps the point moves with v = mu' + sigma' eps, and this flow has
the marginals q_t. The diffusion dz = f dt + sqrt(2 D) dW has the same marginals exactly if

    f_post(z, t) = v + D grad log q_t(z) = v - D eps / sigma,

since the Fokker-Planck equation d_t q = -div(f q) + D lap q then reduces to the continuity equation of v. Posterior and
prior share D, so by Girsanov's theorem

    KL(path measures) = KL(initial) + E integral |f_post - f_prior|^2 / (4 D) dt:

the noise is sigma_W = sqrt(2 D), and 1/2 |(f_post - f_prior) / sigma_W|^2 = |f_post - f_prior|^2 / (4 D). Expectation
and integral are taken by one draw of eps and of the time; no path is simulated and there is no time step.
"""

from __future__ import annotations

import math

import torch

from nld_models.encoder import Marginals


def sample(marginals: Marginals, eps: torch.Tensor) -> torch.Tensor:
    """z = mu + sigma eps, any shape (..., d)."""
    return marginals.mean + marginals.sd * eps


def posterior_drift(marginals: Marginals, eps: torch.Tensor, diffusion: torch.Tensor | float) -> torch.Tensor:
    """f_post at z = mu + sigma eps: mu' + sigma' eps - D eps / sigma, (..., d), in latent length a time unit."""
    sd = marginals.sd
    return marginals.mean_rate + sd * marginals.log_sd_rate * eps - diffusion * eps / sd


def path_kl_rate(posterior: torch.Tensor, prior: torch.Tensor, diffusion: torch.Tensor | float) -> torch.Tensor:
    """|f_post - f_prior|^2 / (4 D), coordinates summed: drifts (..., d) -> nats a time unit, of shape (...).

    diffusion : a number, or a tensor that broadcasts against (..., d).
    """
    return ((posterior - prior).square() / (4 * diffusion)).sum(-1)


def log_density(log_sd: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """log q(z) at z = mu + sigma eps, coordinates summed: (..., d) -> (...)."""
    return (-0.5 * eps.square() - log_sd - 0.5 * math.log(2 * math.pi)).sum(-1)
