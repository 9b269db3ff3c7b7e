"""The matching objective against closed forms, simulation and differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nld_models.encoder import Marginals, PosteriorEncoder
from nld_models.errors import ConfigError
from nld_models.matching import MatchingNoise
from nld_models.model import LatentModel, total_loss
from nld_models.model_config import ModelConfig
from nld_models.networks import StackedMLP
from nld_models.observation import GaussianDecoder
from nld_models.posterior import log_density, path_kl_rate, posterior_drift, sample
from nld_models.prior import OverdampedPrior, RotatedPrior
from nld_models.windows import Batch, pick_frames

D, THETA_Q, M_Q, MU_0, S_0 = (
    0.7,
    1.3,
    0.4,
    -0.8,
    0.5,
)  # the posterior process: dz = -THETA_Q (z - M_Q) dt + sqrt(2 D) dW
THETA_P, M_P = 0.6, -0.5  # the prior, started from its stationary density


def ou_marginals(t: torch.Tensor) -> Marginals:
    """Mean, log sd and their rates of the posterior process at times t."""
    gap, spread = (MU_0 - M_Q) * torch.exp(-THETA_Q * t), S_0**2 - D / THETA_Q
    variance = D / THETA_Q + spread * torch.exp(-2 * THETA_Q * t)
    rate = -2 * THETA_Q * spread * torch.exp(-2 * THETA_Q * t) / (2 * variance)
    return Marginals(M_Q + gap, 0.5 * variance.log(), -THETA_Q * gap, rate)


def gaussian_path_kl(n: int) -> float:
    """KL between the two processes seen at n + 1 equal times of [0, 1]: two joint Gaussians, no path integral."""
    t = np.linspace(0, 1, n + 1)

    def joint(theta: float, m: float, mu: float, variance: float) -> tuple[np.ndarray, np.ndarray]:
        marginal = D / theta + (variance - D / theta) * np.exp(-2 * theta * t)
        # cov(s, t) = var(s) exp(-theta (t - s)) for s < t
        earlier = np.where(t[:, None] < t, marginal[:, None], marginal)
        return m + (mu - m) * np.exp(-theta * t), np.exp(-theta * np.abs(t[:, None] - t)) * earlier

    mean_q, cov_q = joint(THETA_Q, M_Q, MU_0, S_0**2)
    mean_p, cov_p = joint(THETA_P, M_P, M_P, D / THETA_P)
    gap = mean_p - mean_q
    inner = np.trace(np.linalg.solve(cov_p, cov_q)) + gap @ np.linalg.solve(cov_p, gap) - (n + 1)
    return 0.5 * (inner + np.linalg.slogdet(cov_p)[1] - np.linalg.slogdet(cov_q)[1])


def test_kl_of_two_ornstein_uhlenbeck_paths() -> None:
    """Initial KL + path KL against the KL of joint Gaussians on grids of 150 and 300 times, extrapolated.

    False-alarm rate 7e-6 (4.5 standard errors). Power: without the 1/2, or with 1/2 twice, the answer is off by more
    than 50 standard errors.
    """
    coarse, fine = gaussian_path_kl(150), gaussian_path_kl(300)
    truth = 2 * fine - coarse
    assert abs(fine - coarse) < 0.01 * truth
    generator = torch.Generator().manual_seed(1)
    n = 400_000
    t = torch.rand(n, 1, generator=generator, dtype=torch.float64)
    eps = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    marginals = ou_marginals(t)
    z = sample(marginals, eps)
    path = path_kl_rate(posterior_drift(marginals, eps, D), -THETA_P * (z - M_P), D)
    start = ou_marginals(torch.zeros(n, 1, dtype=torch.float64))
    z_0 = sample(start, eps)
    log_prior = -0.5 * (z_0 - M_P).square() * THETA_P / D - 0.5 * math.log(2 * math.pi * D / THETA_P)
    draws = path + log_density(start.log_sd, eps) - log_prior[:, 0]
    error = float(draws.std()) / math.sqrt(n)
    assert abs(float(draws.mean()) - truth) < 4.5 * error
    wrong = [2 * path, 0.5 * path]
    for factor in wrong:
        assert abs(float((draws - path + factor).mean()) - truth) > 50 * error


def test_the_posterior_drift_of_ou_marginals_is_the_ou_drift() -> None:
    t = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None]
    marginals = ou_marginals(t)
    eps = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
    expected = -THETA_Q * (sample(marginals, eps) - M_Q)
    torch.testing.assert_close(posterior_drift(marginals, eps, D), expected, rtol=1e-13, atol=1e-13)


def small_encoder(dim: int = 2) -> tuple[PosteriorEncoder, torch.Tensor, torch.Tensor]:
    """An encoder of two seeds with lively bubbles, and contexts and nodes of one short sequence, in float64."""
    generators = [torch.Generator().manual_seed(k) for k in (5, 6)]
    encoder = PosteriorEncoder(generators, 3, dim, 8, mask_input=False)
    with torch.no_grad():
        encoder.bubble.weight *= 20
    x = torch.randn(2, 1, 3, 3, generator=generators[0], dtype=torch.float64)
    contexts = encoder.contexts(x, torch.ones_like(x, dtype=torch.bool))
    return encoder, contexts.detach(), encoder.nodes(contexts, x).detach()


def test_simulated_posterior_has_its_marginals() -> None:
    """dz = f_post dt + sqrt(2 D) dW across one interval: means and sds at its end are those of the next node.

    40,000 paths, 400 steps; false-alarm rate below 1e-5 for each of 8 numbers (4.5 standard errors, and .004 for
    the step). Power: without the score term the sds are off by more than ten times the tolerance.
    """
    encoder, contexts, nodes = small_encoder()
    n, steps, diffusion = 40_000, 400, 0.3
    generator = torch.Generator().manual_seed(2)

    def at(s: float) -> Marginals:
        with torch.no_grad():
            found = encoder.between(contexts, nodes, torch.full((2, 1, 2), s, dtype=torch.float64))
        first = (found.mean, found.log_sd, found.mean_rate, found.log_sd_rate)
        return Marginals(*(value[:, :, 0] for value in first))  # (seeds, 1, d): the first interval

    def run(with_score: float) -> torch.Tensor:
        z = sample(at(0.0), torch.randn(2, n, 2, generator=generator, dtype=torch.float64))
        for k in range(steps):
            now = at(k / steps)
            eps = (z - now.mean) / now.sd
            drift = posterior_drift(now, eps, with_score * diffusion)
            noise = torch.randn(z.shape, generator=generator, dtype=torch.float64)
            z = z + drift / steps + math.sqrt(2 * diffusion / steps) * noise
        return z

    end_mean, end_sd = nodes[:, 0, 1, :2], nodes[:, 0, 1, 2:].exp()
    tolerance = 4.5 * end_sd / math.sqrt(n) + 0.004
    z = run(1.0)
    assert ((z.mean(1) - end_mean).abs() < tolerance).all()
    assert ((z.std(1) - end_sd).abs() < tolerance).all()
    assert ((run(0.0).std(1) - end_sd).abs() > 10 * tolerance).all()


def test_marginals_between_nodes() -> None:
    """They meet the nodes at both ends, and their rates are the differences of their values."""
    encoder, contexts, nodes = small_encoder()
    ends = [encoder.between(contexts, nodes, torch.full((2, 1, 2), s, dtype=torch.float64)) for s in (0.0, 1.0)]
    for k, end in enumerate(ends):
        value = torch.cat([end.mean, end.log_sd], -1)
        torch.testing.assert_close(value, nodes[:, :, k : k + 2], rtol=1e-14, atol=1e-14)
    h = 1e-5
    times = torch.tensor([[[0.3, 0.8]], [[0.5, 0.1]]], dtype=torch.float64)
    low, middle, high = (encoder.between(contexts, nodes, times + shift) for shift in (-h, 0, h))
    torch.testing.assert_close(middle.mean_rate, (high.mean - low.mean) / (2 * h), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(middle.log_sd_rate, (high.log_sd - low.log_sd) / (2 * h), rtol=1e-8, atol=1e-8)
    straight = (nodes[:, :, 1:] - nodes[:, :, :-1])[..., :2]
    assert (middle.mean_rate - straight).abs().min() > 1e-3, "the bubbles are too flat to be tested"


def test_the_encoder_is_online() -> None:
    """A change of frame 2 changes nothing before it, and something from it on."""
    encoder, _, _ = small_encoder()
    x = torch.randn(2, 1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = x.clone()
    other[:, :, 2] += 1
    mask = torch.ones_like(x, dtype=torch.bool)
    there, here = (encoder.nodes(encoder.contexts(seen, mask), seen) for seen in (other, x))
    change = (there - here).abs().amax(-1)
    assert (change[:, :, :2] == 0).all() and (change[:, :, 2:] > 1e-6).all()


def test_likelihood_leaves_out_what_was_not_observed() -> None:
    decoder = GaussianDecoder([torch.Generator().manual_seed(0)], "linear", 2, 3, 4)
    with torch.no_grad():
        decoder.log_noise += torch.tensor([-0.5, 0.2, 0.4])
    z, x = torch.zeros(1, 1, 1, 2, dtype=torch.float64), torch.tensor([[[[0.3, -1.0, 9.0]]]], dtype=torch.float64)
    mask = torch.tensor([[[[True, True, False]]]])
    mean, sd = decoder.decode(z)[0, 0, 0], decoder.log_noise[0].exp()
    expected = torch.distributions.Normal(mean[:2], sd[:2]).log_prob(x[0, 0, 0, :2]).sum()
    torch.testing.assert_close(decoder.log_likelihood(x, mask, z)[0, 0, 0], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_log_partition_is_unbiased(dim: int) -> None:
    """exp(estimate) averages to Z of a Gaussian mixture, whose log Z is (d/2) log 2 pi + log sum exp(logits).

    400 estimates; false-alarm rate 7e-6 (4.5 standard errors). Power: an energy off by .1 fails.
    """
    generators = [torch.Generator().manual_seed(k) for k in range(2)]
    prior = OverdampedPrior(
        generators, ModelConfig(latent_dim=dim, architecture="soft-minimum", energy={"n_components": 3})
    )
    log_z = 0.5 * dim * math.log(2 * math.pi) + math.log(3)
    centers = prior.energy.network.get_parameter("centers").detach()
    generator = torch.Generator().manual_seed(9)
    draws = centers[:, torch.arange(300) % 3] + torch.randn(2, 300, dim, generator=generator, dtype=torch.float64)
    estimates = []
    for _ in range(400):
        kernels = torch.randint(300, (2, 64), generator=generator)
        normals = torch.randn(2, 512, dim, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            estimates.append(prior.log_partition(draws, kernels, normals))
    ratio = torch.stack(estimates).sub(log_z).exp()
    error = ratio.std(0) / math.sqrt(400)
    assert (error < 0.02).all()
    assert ((ratio.mean(0) - 1).abs() < 4.5 * error).all()
    assert ((ratio.mean(0) * math.exp(0.1) - 1).abs() > 4.5 * error).all()


def tiny_model(**settings: object) -> tuple[LatentModel, Batch, MatchingNoise]:
    energy = {"hidden": [6], "activation": "tanh", "confinement": 0.1}
    config = ModelConfig(energy=energy, decoder_hidden=4, context=5, **settings)  # type: ignore[arg-type]
    model = LatentModel(config, 3, False, (1, 2), torch.float64)
    generators = [torch.Generator().manual_seed(k) for k in (3, 4)]
    x = torch.stack([torch.randn(3, 6, 3, generator=g, dtype=torch.float64) for g in generators])
    frames = torch.ones(2, 3, 6, dtype=torch.bool)
    frames[:, 0, 4:] = False
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), frames, frames)
    noise = model.draw_noise(generators, 3, 6, 128)
    assert isinstance(noise, MatchingNoise)
    return model, batch, noise


@pytest.mark.parametrize(
    "settings",
    [
        {"decoder": "linear"},
        {"decoder": "mlp", "noise": "state", "direction": "reversed"},
        {"prior": "rotated", "learned": ("beta", "gamma")},
        {"prior": "underdamped", "learned": ("beta", "gamma", "mass")},
        {"prior": "nsde", "drift_hidden": 5},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_gradient_of_the_loss_against_differences(settings: dict[str, object]) -> None:
    """Along a random direction of every parameter. Prior and decoder: the whole loss. Encoder: reconstruction and path
    KL, since log Z holds its proposal and the stationarity term its points fixed on purpose."""
    model, batch, noise = tiny_model(**settings)
    if isinstance(model.prior, RotatedPrior):
        torch.nn.init.constant_(model.prior.entries, 0.3)
    generator = torch.Generator().manual_seed(7)

    def value(whole: bool) -> torch.Tensor:
        terms = model.terms(batch, noise)
        if whole:
            return total_loss(terms, 0.7, 0.3).sum()
        return (terms["path_kl"] - terms["reconstruction"]).sum()

    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert name == "prior.log_beta"
            continue
        whole = not name.startswith("encoder.")
        (gradient,) = torch.autograd.grad(value(whole), parameter)
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        h, differences = 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * h * direction
            differences.append(sign * float(value(whole).detach()))
            with torch.no_grad():
                parameter -= sign * h * direction
        slope = float((gradient * direction).sum())
        assert slope == pytest.approx(sum(differences) / (2 * h), rel=1e-6, abs=1e-7), name
        assert slope != 0, name


@pytest.mark.parametrize("prior", ["overdamped", "underdamped"])
def test_stationarity_moves_the_energy_only(prior: str) -> None:
    model, batch, noise = tiny_model(prior=prior)
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    moved = torch.autograd.grad(
        model.terms(batch, noise)["stationarity"].sum(), list(learned.values()), allow_unused=True
    )
    for name, gradient in zip(learned, moved, strict=True):
        of_energy = name.startswith("prior.energy") and not name.endswith("layers.2.bias")  # E + log Z: no constant
        assert (gradient is not None and bool((gradient.abs() > 1e-9).any())) == of_energy, name


def test_padding_changes_nothing() -> None:
    """Frames beyond a sequence's end take no part in any term."""
    model, batch, noise = tiny_model()
    with torch.no_grad():
        before = model.terms(batch, noise)
        batch.x[:, 0, 4:] = 5.0
        after = model.terms(batch, noise)
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=1e-12, atol=1e-12)


def test_picks_are_equilibrated_frames() -> None:
    _, batch, noise = tiny_model()
    allowed = torch.zeros_like(batch.frames)
    allowed[:, 1, 2:5] = True
    chosen = Batch(batch.x, batch.mask, batch.frames, allowed)
    assert set(pick_frames(chosen, noise.picks)[0].tolist()) == {8, 9, 10}
    nothing = Batch(batch.x, batch.mask, batch.frames, torch.zeros_like(allowed))
    assert set(pick_frames(nothing, noise.picks)[1].tolist()) == set(range(18)) - {4, 5}


@pytest.mark.parametrize("architecture", ["residual-mlp", "soft-minimum"])
def test_stacked_networks_are_the_single_ones(architecture: str) -> None:
    config = {"n_components": 3} if architecture == "soft-minimum" else {"width": 5, "features": 4, "n_blocks": 2}
    settings = ModelConfig(architecture=architecture, energy=config, initial_diffusion=1.0)
    prior = OverdampedPrior([torch.Generator().manual_seed(k) for k in range(3)], settings)
    z = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in range(3):
        one = prior.energy.unstack(k)
        leaf = z[k].clone().requires_grad_(True)
        energy = one(leaf)
        (gradient,) = torch.autograd.grad(energy.sum(), leaf)
        torch.testing.assert_close(prior.energy(z)[k], energy, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(prior.drift(z)[k], -gradient, rtol=1e-12, atol=1e-12)
    assert not torch.equal(prior.energy(z[:1].expand(3, -1, -1))[0], prior.energy(z[:1].expand(3, -1, -1))[1])


def test_initial_values_do_not_depend_on_the_other_seeds() -> None:
    many = StackedMLP([torch.Generator().manual_seed(k) for k in (1, 2)], 3, 4, 2)
    one = StackedMLP([torch.Generator().manual_seed(2)], 3, 4, 2)
    for a, b in zip(many.parameters(), one.parameters(), strict=True):
        assert torch.equal(a[1:], b) and not torch.equal(a[:1], b)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 0}, "latent_dim is a whole number of at least 1, not 0"),
        ({"decoder": "cubic"}, "decoder is one of linear, mlp, not 'cubic'"),
        ({"initial_diffusion": float("nan")}, "initial_diffusion is a finite number above 0"),
        ({"architecture": "x"}, "unknown architecture 'x'"),
        ({"energy": {"dim": 2}}, "energy is a table without dim"),
        ({"energy": {"hiden": [3]}}, "cannot be built"),
    ],
)
def test_wrong_settings_of_a_model(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ModelConfig(**settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
