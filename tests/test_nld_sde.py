"""The own stepping against torchsde on the same Brownian path."""

from __future__ import annotations

import pytest
import torch
import torchsde

from nld_models.encoder import PathEncoder
from nld_models.model import LatentModel, Stepping, total_loss
from nld_models.model_config import ModelConfig
from nld_models.prior import RotatedPrior
from nld_models.sde import PathMeasure, roll_out_torchsde
from nld_models.simulated import Control, posterior_control, roll_out
from nld_models.windows import Batch

ENERGY = {"hidden": [6], "activation": "tanh", "confinement": 0.5}


def small_model(prior: str, substeps: int = 4) -> tuple[LatentModel, Batch, Control]:
    """Two seeds in float64, a batch of 3 windows of 5 frames, and the control on it."""
    config = ModelConfig(
        prior=prior, objective="simulated", substeps=substeps, energy=ENERGY, decoder_hidden=4, context=5
    )  # type: ignore[arg-type]
    model = LatentModel(config, 3, False, (1, 2), torch.float64)
    if isinstance(model.prior, RotatedPrior):
        torch.nn.init.constant_(model.prior.entries, 0.4)
    generators = [torch.Generator().manual_seed(k) for k in (3, 4)]
    x = torch.stack([torch.randn(3, 5, 3, generator=g, dtype=torch.float64) for g in generators])
    frames = torch.ones(2, 3, 5, dtype=torch.bool)
    assert isinstance(model.encoder, PathEncoder)
    control = posterior_control(model.encoder, model.prior, model.encoder.contexts(x, frames[..., None]), x)
    return model, Batch(x, frames[..., None].expand_as(x), frames, frames), control


def both(prior: str, substeps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """States and path KL by the own stepping and by torchsde, which draws the Brownian path from its entropy."""
    model, _, control = small_model(prior, substeps)
    n, dim = model.prior.state_dim, model.config.latent_dim
    path = torchsde.BrownianInterval(0.0, 4.0, size=(6, n + 1), dtype=torch.float64, entropy=11)
    # Told of the finest steps first, the path is the same at every step.
    fine = torch.stack([path(k / 64, (k + 1) / 64) for k in range(256)])
    increments = fine.view(4 * substeps, 64 // substeps, 2, 3, n + 1).sum(1).transpose(0, 1)
    normal = increments[..., n - dim : n] * substeps**0.5
    start = torch.randn(2, 3, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        own = roll_out(model.prior, control, start, normal, substeps)
        measure = PathMeasure(model.prior, control, 2, substeps, None)
        y = torch.cat([start, start.new_zeros(2, 3, 1)], -1).flatten(0, 1)
        times = torch.arange(5, dtype=torch.float64)
        found = torchsde.sdeint(measure, y, times, bm=path, method="euler", dt=1 / substeps)
    found = found.view(5, 2, 3, n + 1).permute(1, 2, 0, 3)
    return own.states, own.kl, found[..., :-1], found[..., -1].diff(dim=2)


@pytest.mark.parametrize("prior", ["overdamped", "rotated", "nsde"])
def test_first_order_stepping_is_torchsdes(prior: str) -> None:
    states, kl, expected_states, expected_kl = both(prior, 4)
    torch.testing.assert_close(states, expected_states, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kl, expected_kl, rtol=1e-12, atol=1e-12)
    assert kl.min() > 0


def test_underdamped_stepping_converges_to_torchsdes() -> None:
    """Both schemes are of order 1 with additive noise, so that a step a quarter as long leaves a quarter of the gap.

    Bounds of a factor 2.5 and 6 around 4 and a gap of 10 % of the states' spread; a friction or noise off by 20 %
    leaves a gap that does not shrink.
    """
    gaps = []
    for substeps in (16, 64):
        states, kl, expected_states, expected_kl = both("underdamped", substeps)
        state_gap = (states - expected_states).square().mean().sqrt() / expected_states.std()
        kl_gap = (kl - expected_kl).square().mean().sqrt() / expected_kl.mean()
        gaps.append((float(state_gap), float(kl_gap)))
    assert max(gaps[1]) < 0.1
    for coarse, fine in zip(*gaps, strict=True):
        assert 2.5 < coarse / fine < 6


@pytest.mark.parametrize("prior", ["overdamped", "nsde"])
def test_loss_and_gradients_agree_between_the_backends(prior: str) -> None:
    model, batch, _ = small_model(prior, substeps=5)
    noise = model.draw_noise([torch.Generator().manual_seed(k) for k in (5, 6)], 3, 5, 128)
    losses, gradients = [], []
    for backend in ("own", "torchsde"):
        model.stepping = Stepping(backend, 1.0)  # type: ignore[arg-type]
        loss = total_loss(model.terms(batch, noise), 0.7, 0.3)
        learned = [p for p in model.parameters() if p.requires_grad]
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss.sum(), learned))
    torch.testing.assert_close(*losses, rtol=1e-11, atol=1e-11)
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-10)


def test_the_adjoint_is_clipped_inside_torchsde_too() -> None:
    model, _, control = small_model("overdamped")
    normal = torch.randn(2, 16, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for integrate in (roll_out, roll_out_torchsde):
        norms = []
        for clip in (None, 1e-3):
            start = torch.zeros(2, 3, 2, dtype=torch.float64, requires_grad=True)
            paths = integrate(model.prior, control, start, normal, 4, clip)
            (gradient,) = torch.autograd.grad(1e6 * paths.states[:, :, -1].sum(), start)
            norms.append(gradient.norm(dim=-1))
        assert (norms[0] > 0.1).all() and (norms[1] <= 1e-3 * (1 + 1e-9)).all()
