"""Simulation-free posteriors of underdamped paths against linear processes, simulation and differences."""

from __future__ import annotations

import math

import pytest
import torch

from nld_models.encoder import Marginals
from nld_models.inertial import InertialEncoder, InertialMarginals, posterior_acceleration, sample_state
from nld_models.posterior import path_kl_rate, posterior_drift, sample

F64 = torch.float64
STIFFNESS, FRICTION, NOISE, CENTRE = 1.7, 0.6, 0.8, 0.3  # dv = -STIFFNESS (x - CENTRE) - FRICTION v, D_v = NOISE
SPEED, COLLISIONS = 0.9, NOISE / 0.81  # a prior with the same D_v = COLLISIONS SPEED^2
EPS = torch.tensor([[0.4, -1.1], [1.3, 0.6], [-0.8, 0.2]], dtype=F64)


def linear_marginals(t: float) -> InertialMarginals:
    """Of the linear process above from mean (-1, .5), sd .5 of x, sd .7 of v, cov(x, v) = .1: Lyapunov's equation is
    solved by expm, derivatives by automatic differentiation."""
    drift = torch.tensor([[0.0, 1.0], [-STIFFNESS, -FRICTION]], dtype=F64)
    start = torch.tensor([[0.25, 0.1], [0.1, 0.49]], dtype=F64)
    stationary = torch.diag(torch.tensor([NOISE / (FRICTION * STIFFNESS), NOISE / FRICTION], dtype=F64))

    def values(time: torch.Tensor) -> torch.Tensor:
        """mu, log sigma."""
        flow = torch.linalg.matrix_exp(drift * time)
        mean = flow @ torch.tensor([-1.0 - CENTRE, 0.5], dtype=F64)
        covariance = flow @ (start - stationary) @ flow.T + stationary
        return torch.stack([mean[0] + CENTRE, 0.5 * covariance[0, 0].log()])

    def log_spread(time: torch.Tensor) -> torch.Tensor:
        flow = torch.linalg.matrix_exp(drift * time)
        c = flow @ (start - stationary) @ flow.T + stationary
        return 0.5 * (c[1, 1] - c[0, 1].square() / c[0, 0]).log() - math.log(SPEED)

    jacobian = torch.func.jacrev
    now = torch.tensor(t, dtype=F64)
    value, rate, second = values(now), jacobian(values)(now), jacobian(jacobian(values))(now)
    return InertialMarginals(
        value[:1], value[1:], rate[:1], rate[1:], second[:1], second[1:],
        log_spread(now)[None], jacobian(log_spread)(now)[None],
    )  # fmt: skip


@pytest.mark.parametrize("t", [0.0, 0.4, 1.5])
def test_the_acceleration_of_a_linear_process_is_its_own(t: float) -> None:
    m = linear_marginals(t)
    eps = EPS
    x, v = sample_state(m, eps, torch.tensor(SPEED, dtype=F64))
    found = posterior_acceleration(m, eps, torch.tensor(SPEED, dtype=F64), torch.tensor(COLLISIONS, dtype=F64))
    torch.testing.assert_close(found, -STIFFNESS * (x - CENTRE) - FRICTION * v, rtol=1e-10, atol=1e-10)


def test_states_have_the_covariance_of_the_process() -> None:
    """cov(x, v) = sigma sigma', against the covariance of a linear process."""
    m = linear_marginals(0.4)
    x, v = sample_state(m, torch.eye(2, dtype=F64), torch.tensor(SPEED, dtype=F64))
    by_x, by_v = (x - m.mean)[:, 0], (v - m.mean_rate)[:, 0]
    h = 1e-5
    rise = (linear_marginals(0.4 + h).sd ** 2 - linear_marginals(0.4 - h).sd ** 2) / (2 * h)
    assert float(by_x @ by_v) == pytest.approx(float(rise) / 2, rel=1e-7)


def test_light_particles_are_overdamped() -> None:
    """With M -> 0 and the spread that keeps the momenta thermal, the path KL is that of the overdamped prior."""
    gamma, beta = 1.4, 1.0
    x_only = Marginals(*(torch.tensor([[value]], dtype=F64) for value in (0.2, -0.7, 1.1, -0.4)))
    eps = torch.cartesian_prod(*[torch.linspace(-2, 2, 5, dtype=F64)] * 2)
    z = sample(x_only, eps[:, :1])
    force = -(z**3 - z)
    drift = posterior_drift(x_only, eps[:, :1], 1 / (beta * gamma))
    expected = path_kl_rate(drift, force / gamma, 1 / (beta * gamma))
    errors = []
    for mass in (1e-4, 1e-6):
        collisions, speed = torch.tensor(gamma / mass, dtype=F64), torch.tensor((beta * mass) ** -0.5, dtype=F64)
        # To first order in M, r solves heating = the prior's: r' + l' - kappa exp(-2 r) = -kappa.
        r = torch.full((1, 1), 0.5 * 0.4 * mass / gamma, dtype=F64)
        zero = torch.zeros(1, 1, dtype=F64)
        second = torch.full((1, 1), 0.9, dtype=F64)
        m = InertialMarginals(x_only.mean, x_only.log_sd, x_only.mean_rate, x_only.log_sd_rate, second, second, r, zero)
        x, v = sample_state(m, eps, speed)
        found = path_kl_rate(
            posterior_acceleration(m, eps, speed, collisions), force / mass - collisions * v, collisions * speed**2
        )
        torch.testing.assert_close(x, z)
        errors.append(float((found - expected).abs().max()))
    assert errors[0] < 0.1 * float(expected.max()) and errors[1] < 0.2 * errors[0]


def lively_encoder() -> tuple[InertialEncoder, torch.Tensor, torch.Tensor]:
    """An encoder of two seeds with strong bubbles, and contexts and nodes of one short sequence, in float64."""
    generators = [torch.Generator().manual_seed(k) for k in (5, 6)]
    encoder = InertialEncoder(generators, 3, 2, 8, mask_input=False)
    with torch.no_grad():
        encoder.bubble.weight *= 6
        encoder.node.outer.weight *= 4
    x = torch.randn(2, 1, 3, 3, generator=generators[0], dtype=F64)
    contexts = encoder.contexts(x, torch.ones_like(x, dtype=torch.bool))
    return encoder, contexts.detach(), encoder.nodes(contexts, x).detach()


def test_inertial_marginals_between_nodes() -> None:
    """They meet values and rates of the nodes, and their derivatives are differences."""
    encoder, contexts, nodes = lively_encoder()
    for k, s in enumerate((0.0, 1.0)):
        end = encoder.between(contexts, nodes, torch.full((2, 1, 2), s, dtype=F64))
        found = torch.cat([end.mean, end.log_sd, end.mean_rate, end.log_sd_rate, end.log_spread], -1)
        torch.testing.assert_close(found, nodes[:, :, k : k + 2], rtol=1e-12, atol=1e-12)
    h = 1e-5
    times = torch.tensor([[[0.3, 0.8]], [[0.5, 0.1]]], dtype=F64)
    low, middle, high = (encoder.between(contexts, nodes, times + shift) for shift in (-h, 0, h))
    for value, rate in (
        ("mean", "mean_rate"), ("log_sd", "log_sd_rate"), ("mean_rate", "mean_acceleration"),
        ("log_sd_rate", "log_sd_acceleration"), ("log_spread", "log_spread_rate"),
    ):  # fmt: skip
        difference = (getattr(high, value) - getattr(low, value)) / (2 * h)
        torch.testing.assert_close(getattr(middle, rate), difference, rtol=1e-7, atol=1e-7)
    assert middle.mean_acceleration.abs().min() > 1e-2, "the marginals are too straight to be tested"


def test_a_simulated_underdamped_posterior_has_its_marginals() -> None:
    """dx = v dt, dv = a_post dt + sqrt(2 D_v) dW across one interval, from Gaussian states at its first node.

    8,000 paths, 250 steps; false-alarm rate below 1e-4 for all 16 numbers (4.5 standard errors, and .015 for the step).
    Power: with the noise's heat not taken out (no D_v / tau) the sds of v are off by more than five times that.
    """
    encoder, contexts, nodes = lively_encoder()
    n, steps = 8_000, 250
    speed, collisions = torch.tensor(0.8, dtype=F64), torch.tensor(1.5, dtype=F64)
    noise_scale = math.sqrt(2 * float(collisions * speed**2) / steps)
    generator = torch.Generator().manual_seed(2)

    def at(s: float) -> InertialMarginals:
        with torch.no_grad():
            m = encoder.between(contexts, nodes, torch.full((2, 1, 2), s, dtype=F64))
        return InertialMarginals(*(getattr(m, name)[:, :, 0] for name in m.__dataclass_fields__))

    def run(heat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, v = sample_state(at(0.0), torch.randn(2, n, 4, generator=generator, dtype=F64), speed)
        for k in range(steps):
            m = at((k + 0.5) / steps)
            first = (x - m.mean) / m.sd
            second = (v - m.mean_rate - m.sd * m.log_sd_rate * first) / (speed * m.log_spread.exp())
            a = posterior_acceleration(m, torch.cat([first, second], -1), speed, heat)
            v = v + a / steps + noise_scale * torch.randn(v.shape, generator=generator, dtype=F64)
            x = x + v / steps
        return x, v

    m = at(1.0)
    sd_v = ((m.sd * m.log_sd_rate).square() + (speed * m.log_spread.exp()).square()).sqrt()
    for found, mean, sd in zip(run(collisions), (m.mean, m.mean_rate), (m.sd, sd_v), strict=True):
        tolerance = 4.5 * sd[:, 0] / math.sqrt(n) + 0.015
        assert ((found.mean(1) - mean[:, 0]).abs() < tolerance).all()
        assert ((found.std(1) - sd[:, 0]).abs() < tolerance).all()
    hot = run(torch.zeros((), dtype=F64))[1]
    assert ((hot.std(1) - sd_v[:, 0]).abs() > 5 * tolerance).all()
