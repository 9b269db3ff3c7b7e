"""The kernels keep exp(-beta E), the mixture is the density it claims, and errors between chains mean what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.sampling import (
    Chains,
    Independence,
    Kernel,
    Mala,
    StudentMixture,
    harmonic_mixture,
    metropolis,
    preconditioner,
    run,
    warm_up,
)
from landscape.sampling.diagnostics import LabelledChains, mean_between_chains
from landscape.sampling.independence import harmonic_covariances


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tilted(x: torch.Tensor) -> torch.Tensor:
    """A double well in the first coordinate, its second coordinate coupled to it and stiffer on one side."""
    a, b = x[:, 0], x[:, 1]
    return 2 * (a**2 - 1) ** 2 + 0.4 * a + (1.5 + a.tanh()) * (b - 0.5 * a) ** 2


def exact_mean(function: str, beta: float) -> float:
    """Average of a, a^2 or b^2 under exp(-beta tilted), b integrated out by hand."""

    def weight(a: float) -> float:
        return float(np.exp(-beta * (2 * (a * a - 1) ** 2 + 0.4 * a)) / np.sqrt(1.5 + np.tanh(a)))

    value = {
        "a": lambda a: a,
        "a2": lambda a: a * a,
        "b2": lambda a: 0.25 * a * a + 0.5 / (beta * (1.5 + np.tanh(a))),
    }[function]
    total = quad(weight, -5, 5, epsabs=1e-12, limit=200)[0]
    return quad(lambda a: value(a) * weight(a), -5, 5, epsabs=1e-12, limit=200)[0] / total


def mixture() -> StudentMixture:
    factors = torch.tensor([[[0.5, 0.0], [0.2, 0.7]], [[1.2, 0.0], [-0.3, 0.9]]], dtype=torch.float64)
    means = torch.tensor([[-1.0, -0.5], [1.0, 0.5]], dtype=torch.float64)
    return StudentMixture(torch.tensor([0.3, 0.7], dtype=torch.float64).log(), means, factors, 6)


def z_scores(kernels: list[Kernel], energy: Energy, beta: float, n_sweeps: int, seed: int) -> np.ndarray:
    """(chains' mean - exact) / standard error for a, a^2, b^2, from 256 chains that start in equilibrium-like draws."""
    state = Chains.init(energy, mixture().sample(256, generator(seed)))
    state, _ = run([Independence(mixture()), *kernels], energy, beta, state, 40, generator(seed + 1))
    seen: list[torch.Tensor] = []
    run(kernels, energy, beta, state, n_sweeps, generator(seed + 2), lambda s: seen.append(s.x))
    x = torch.stack(seen).numpy()
    chains = np.stack([x[..., 0].mean(0), (x[..., 0] ** 2).mean(0), (x[..., 1] ** 2).mean(0)], 1)
    mean, error = mean_between_chains(chains)
    return (mean - [exact_mean(name, beta) for name in ("a", "a2", "b2")]) / error


class Unadjusted:
    """The local move without its accept-reject step: what the tests below must be able to tell from the real one."""

    def __init__(self, kernel: Mala) -> None:
        self.kernel = kernel

    def step(self, energy: Energy, beta: float, state: Chains, g: torch.Generator) -> tuple[Chains, torch.Tensor]:
        noise = torch.randn(state.x.shape, dtype=torch.float64, generator=g)
        drift = 0.5 * self.kernel.step_size * beta * state.gradient @ self.kernel.factor
        x = state.x + self.kernel.step_size * (noise - drift) @ self.kernel.factor.mT
        return Chains.init(energy, x), torch.ones(len(x), dtype=torch.float64)

    def adapted(self, acceptance: float, step: int) -> "Unadjusted":
        return self


FACTOR = torch.tensor([[0.4, 0.0], [0.1, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize("beta", [0.7, 1.5])
def test_kernels_keep_the_distribution(beta: float) -> None:
    """Three averages of each kernel against quadrature. False alarm: |z| > 4.5 at 18 numbers, 2e-4 in all."""
    energy = Energy(tilted, 2)
    local, between = Mala(FACTOR, 0.6), Independence(mixture())
    choices: list[list[Kernel]] = [[local], [between], [between, local]]
    for k, kernels in enumerate(choices):
        assert np.abs(z_scores(kernels, energy, beta, 150, 10 * k)).max() < 4.5


def test_a_kernel_without_its_accept_reject_step_fails_the_same_test() -> None:
    assert np.abs(z_scores([Unadjusted(Mala(FACTOR, 0.6))], Energy(tilted, 2), 1.5, 150, 0)).max() > 6


def test_mala_ratio_is_the_ratio_of_the_proposal_densities() -> None:
    """The acceptance of a step equals target times proposal density, both ways, written out with scipy."""
    energy, beta = Energy(tilted, 2), 1.3
    kernel = Mala(FACTOR, 0.8)
    state = Chains.init(energy, mixture().sample(200, generator(0)))
    _, acceptance = kernel.step(energy, beta, state, generator(1))
    noise = torch.randn(state.x.shape, dtype=torch.float64, generator=generator(1))
    covariance = (FACTOR @ FACTOR.mT).numpy()
    x, gradient = state.x.numpy(), state.gradient.numpy()
    mean = x - 0.5 * 0.64 * beta * gradient @ covariance
    new = mean + 0.8 * (noise @ FACTOR.mT).numpy()
    back = new - 0.5 * 0.64 * beta * energy.gradient(new) @ covariance
    log_ratio = -beta * (energy.value(new) - energy.value(x))
    for k in range(len(x)):
        log_ratio[k] += stats.multivariate_normal.logpdf(x[k], back[k], 0.64 * covariance)
        log_ratio[k] -= stats.multivariate_normal.logpdf(new[k], mean[k], 0.64 * covariance)
    np.testing.assert_allclose(acceptance.numpy(), np.exp(np.minimum(log_ratio, 0)), rtol=1e-9, atol=1e-300)


def test_warm_up_brings_the_local_move_to_its_target_acceptance() -> None:
    energy = Energy(lambda x: 0.5 * (x * x * torch.tensor([1.0, 100.0, 1e4], dtype=torch.float64)).sum(1), 3)
    factor = preconditioner(
        harmonic_covariances(energy.hessian(torch.zeros(1, 3, dtype=torch.float64)), 2.0), torch.ones(1)
    )
    for first in (1e-3, 30.0):
        state = Chains.init(energy, torch.zeros(128, 3, dtype=torch.float64))
        state, kernels = warm_up([Mala(factor, first)], energy, 2.0, state, 60, generator(3))
        _, acceptance = run(kernels, energy, 2.0, state, 40, generator(4))
        assert acceptance[0] == pytest.approx(0.574, abs=0.06)


def test_mixture_density_and_draws() -> None:
    """Density against scipy's t distribution; draws by Kolmogorov-Smirnov in two projections (false alarm 2e-6)."""
    q = mixture()
    x = q.sample(40000, generator(5))
    expected = sum(
        float(w) * stats.multivariate_t.pdf(x.numpy(), m.numpy(), (f @ f.mT).numpy(), df=q.dof)
        for w, m, f in zip(q.log_weights.exp(), q.means, q.factors, strict=True)
    )
    np.testing.assert_allclose(q.log_density(x).exp(), expected, rtol=1e-12)
    for direction in (np.array([1.0, 0.0]), np.array([0.6, -0.8])):

        def cdf(t: np.ndarray, u: np.ndarray = direction) -> np.ndarray:
            parts = zip(q.log_weights.exp().numpy(), q.means.numpy(), q.factors.numpy(), strict=True)
            return sum(w * stats.t.cdf((t - u @ m) / np.linalg.norm(f.T @ u), q.dof) for w, m, f in parts)

        assert stats.kstest(x.numpy() @ direction, cdf).pvalue > 1e-6
        assert stats.kstest(1.1 * x.numpy() @ direction, cdf).pvalue < 1e-6


def test_harmonic_mixture_covers_every_well() -> None:
    minima = torch.tensor([[0.0, 0.0], [10.0, 0.0]], dtype=torch.float64)
    covariances = harmonic_covariances(torch.diag_embed(torch.tensor([[4.0, 1.0], [1.0, 0.0]]).double()), 0.5)
    np.testing.assert_allclose(covariances[0], np.diag([0.5, 2.0]), rtol=1e-13)
    # A flat direction keeps a finite width: 1e-4 of the largest eigenvalue stands in for 0.
    np.testing.assert_allclose(covariances[1], np.diag([2.0, 2e4]), rtol=1e-10)
    q = harmonic_mixture(minima, covariances, torch.tensor([1.0, 1e-30]).double(), broad_weight=0.2, floor_weight=0.5)
    np.testing.assert_allclose(q.log_weights.exp(), [0.6, 0.2, 0.2], rtol=1e-12)
    np.testing.assert_allclose(q.factors[0] @ q.factors[0].mT, 1.44 * covariances[0], rtol=1e-12)
    assert (q.factors[2] @ q.factors[2].mT)[0, 0] == pytest.approx(1.44 * (25 + 1.25))
    for bad in ({"inflation": 0.0}, {"broad_weight": 0.0}, {"floor_weight": 0.0}, {"dof": 0}):
        with pytest.raises(UsageError):
            harmonic_mixture(minima, covariances, torch.ones(2).double(), **bad)
    with pytest.raises(UsageError):
        Mala(FACTOR, float("nan"))


def test_points_without_a_finite_energy_are_never_entered_and_always_left() -> None:
    energy = Energy(lambda x: torch.where(x[:, 0] > 1, torch.nan, x[:, 0] ** 2 - torch.log(x[:, 0])), 1)
    outside = Chains.init(energy, torch.tensor([[2.0], [-1.0], [0.5]], dtype=torch.float64))
    np.testing.assert_array_equal(outside.energy.isfinite(), [False, False, True])
    inside = Chains.init(energy, torch.full((3, 1), 0.7, dtype=torch.float64))
    zero = torch.zeros(3, dtype=torch.float64)
    left, probability = metropolis(outside, inside, zero, 1.0, generator(0))
    np.testing.assert_array_equal(left.x[:2, 0], [0.7, 0.7])
    assert probability[:2].tolist() == [1.0, 1.0]
    stayed, probability = metropolis(inside, outside, zero, 1.0, generator(0))
    np.testing.assert_array_equal(stayed.x[:2, 0], [0.7, 0.7])
    assert probability[:2].tolist() == [0.0, 0.0]
    nowhere, _ = metropolis(outside, outside, zero, 1.0, generator(0))
    assert not nowhere.energy[:2].isfinite().any()


def test_one_generator_decides_everything_and_the_global_one_is_left_alone() -> None:
    energy = Energy(tilted, 2)
    before = torch.get_rng_state()

    def go() -> torch.Tensor:
        g = generator(11)
        state = Chains.init(energy, mixture().sample(16, g))
        state, kernels = warm_up([Independence(mixture()), Mala(FACTOR, 0.5)], energy, 1.0, state, 5, g)
        return run(kernels, energy, 1.0, state, 5, g)[0].x

    assert torch.equal(go(), go())
    assert torch.equal(before, torch.get_rng_state())


def labelled(rng: np.random.Generator, shift: float = 0.0, asked: float = 1.0) -> LabelledChains:
    """40 sweeps of 60 chains: label 0, 1 or -1 with probability .5 (+ a trend), .4, .1; the guess is often wrong.

    asked : probability that a label is the true one, not the guess.
    """
    time = np.linspace(-shift, shift, 40)[:, None] * np.ones(60)
    u = rng.random((40, 60))
    label = np.where(u < 0.5 + time, 0, np.where(u < 0.9 + time, 1, -1))
    guess = np.where(rng.random(label.shape) < 0.2, 1, np.abs(label))
    energy = rng.random(label.shape)
    known = np.ones((10, 60), bool) if asked == 1 else rng.random((10, 60)) < asked
    told = np.where(known, label[3::4], guess[3::4])
    return LabelledChains(np.zeros((10, 60, 1)), energy, guess, told, known / asked, 4)


@pytest.mark.parametrize("asked", [1.0, 0.4])
def test_occupancy_is_unbiased_under_a_poor_guess_and_its_error_is_honest(asked: float) -> None:
    """400 data sets: mean of z within 4.5 standard errors of 0 and its spread within 20 % of 1 (false alarm 1e-4).

    The same numbers without the labels, from the guess alone, are many standard errors off; so are those from labels
    of which a part repeats the guess, without their correction.
    """
    rng = np.random.default_rng(0)
    scores, plain, uncorrected = [], [], []
    for _ in range(400):
        chains = labelled(rng, asked=asked)
        share, error = chains.occupancy(2)
        assert share.sum() == pytest.approx(1)
        as_they_are = replace(chains, correction=np.ones(chains.label.shape))
        uncorrected.append(as_they_are.occupancy(2)[0][0] - 0.5)
        scores.append((share - [0.5, 0.4, 0.1]) / error)
        low, low_error = chains.occupancy(2, np.array([0.3, np.inf, 0.0]))
        assert low[2] == 0
        scores[-1][2] = (low[0] - 0.15) / low_error[0]
        plain.append((chains.guess == 0).mean())
    z = np.array(scores)
    assert np.abs(z.mean(0)).max() < 4.5 / 20
    assert np.abs(z.std(0) - 1).max() < 0.2
    assert abs(np.mean(plain) - 0.5) > 0.08
    assert asked == 1 or abs(np.mean(uncorrected)) > 0.04


def test_drift_and_changes() -> None:
    """No drift without a trend (|z| < 5: 2e-5), a large one with it. Changes counted by hand."""
    rng = np.random.default_rng(1)
    assert np.abs(labelled(rng).drift(2)).max() < 5
    assert np.abs(labelled(rng, 0.2).drift(2)).max() > 8
    label = np.array([[0, 1, -1], [0, 0, -1], [1, 0, 0], [1, 1, 0]])
    chains = LabelledChains(np.zeros((4, 3, 1)), np.zeros((4, 3)), label, label, np.ones((4, 3)), 1)
    np.testing.assert_array_equal(chains.changes(2), [4, 3, 1])
    np.testing.assert_array_equal(chains.tail(2).label, label[2:])
    assert chains.n_chains == 3
