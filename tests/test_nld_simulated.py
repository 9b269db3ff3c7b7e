"""Both objectives against closed forms: path KL, exact log-likelihoods, stationary densities, gradients, resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import multivariate_normal

from nld_models.encoder import GRUContext, Marginals, PathEncoder, Steering
from nld_models.errors import ConfigError
from nld_models.matching import MatchingNoise, matching_terms
from nld_models.model import LatentModel, total_loss
from nld_models.model_config import ModelConfig
from nld_models.observation import GaussianDecoder
from nld_models.prior import EnergyPrior, FreePrior, RotatedPrior, UnderdampedPrior, build_prior
from nld_models.resolution import fastest_rate
from nld_models.simulated import PathNoise, roll_out, simulated_terms
from nld_models.windows import Batch

F64 = torch.float64


def quadratic(stiffness: list[float], **settings: object) -> EnergyPrior:
    """One seed with E = 1/2 sum_i stiffness_i x_i^2, as a soft minimum of one component."""
    config = ModelConfig(latent_dim=len(stiffness), architecture="soft-minimum", energy={"n_components": 1}, **settings)  # type: ignore[arg-type]
    prior = build_prior([torch.Generator().manual_seed(0)], config)
    assert isinstance(prior, EnergyPrior)
    with torch.no_grad():
        prior.energy.network.get_parameter("centers").zero_()
        prior.energy.network.get_parameter("factors").copy_(torch.diag(0.5 * torch.tensor(stiffness, dtype=F64).log()))
    return prior.requires_grad_(False)


@pytest.mark.parametrize("kind", ["overdamped", "underdamped"])
def test_path_kl_of_two_linear_processes(kind: str) -> None:
    """A control u = -K z turns one Ornstein-Uhlenbeck process into another; KL = 1/2 integral E|sigma^-1 u|^2 dt with
    E z^2 from the moment equations of the continuous process, solved by scipy.

    20,000 paths of 160 steps; 4.5 standard errors and 1.5 % for the step. Power: twice or half the KL is far outside.
    """
    stiffness, pull, beta, d = 1.4, 0.9, 1.3, 0.6
    prior = quadratic([stiffness], prior=kind, beta=beta, initial_diffusion=d, momentum_time=0.5)
    gamma = 1 / (beta * d)
    if kind == "overdamped":
        system, noise = np.array([[-stiffness / gamma - pull]]), np.array([[2 * d]])
        scale = math.sqrt(2 * d)
        start = torch.tensor([0.9], dtype=F64)
    else:
        mass = 0.5 * gamma
        system = np.array([[0, 1 / mass], [-stiffness - pull, -gamma / mass]])
        noise = np.diag([0, 2 * gamma / beta])
        scale = math.sqrt(2 * gamma / beta)
        start = torch.tensor([0.9, -0.4], dtype=F64)
    n = len(system)

    def moments(t: float, second: np.ndarray) -> np.ndarray:
        matrix = second[:-1].reshape(n, n)
        return np.append(
            (system @ matrix + matrix @ system.T + noise).ravel(), 0.5 * (pull / scale) ** 2 * matrix[0, 0]
        )

    begin = np.append(np.outer(start, start).ravel(), 0.0)
    truth = solve_ivp(moments, (0, 2), begin, rtol=1e-10, atol=1e-12).y[-1, -1]
    generator = torch.Generator().manual_seed(2)
    normal = torch.randn(1, 160, 20_000, 1, generator=generator, dtype=F64)
    first = start.expand(1, 20_000, n)
    with torch.no_grad():
        paths = roll_out(prior, lambda z, k, s: -pull * z[..., :1] / scale, first, normal, 80)
    draws = paths.kl.sum(2)[0]
    tolerance = 4.5 * float(draws.std()) / math.sqrt(20_000) + 0.015 * truth
    assert abs(float(draws.mean()) - truth) < tolerance
    assert truth > 2.5 * tolerance


@dataclass
class LinearGaussian:
    """x_k = a z_k + b + noise at k = 0..T-1, z stationary, dz = -theta z dt + sqrt(2 d) dW, theta = d stiffness.

    Everything is exact. Written for one channel and one sequence x (T,).
    """

    x: np.ndarray
    a: float = 1.2
    b: float = -0.3
    noise: float = 0.5
    d: float = 0.7
    stiffness: float = 1.1

    @property
    def theta(self) -> float:
        return self.d * self.stiffness

    def covariance(self, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.exp(-self.theta * np.abs(s[:, None] - t)) / self.stiffness

    def log_likelihood(self) -> float:
        t = np.arange(len(self.x), dtype=float)
        covariance = self.a**2 * self.covariance(t, t) + self.noise**2 * np.eye(len(t))
        return float(multivariate_normal(np.full(len(t), self.b), covariance).logpdf(self.x))

    def marginal(self, t: float) -> tuple[float, float]:
        """Mean and variance of z_t given all observations."""
        times, here = np.arange(len(self.x), dtype=float), np.array([t])
        gain = (
            self.a
            * self.covariance(here, times)
            @ np.linalg.inv(self.a**2 * self.covariance(times, times) + self.noise**2 * np.eye(len(times)))
        )
        variance = 1 / self.stiffness - float((gain @ (self.a * self.covariance(times, here))).item())
        return float((gain @ (self.x - self.b)).item()), variance

    def message(self, k: int, s: float) -> tuple[float, float]:
        """log p(x_j, j > k | z at k + s) = eta z - precision z^2 / 2 + constant: (eta, precision)."""
        eta = precision = 0.0
        for j in range(len(self.x) - 1, k, -1):
            eta += self.a * (self.x[j] - self.b) / self.noise**2
            precision += self.a**2 / self.noise**2
            decay = math.exp(-self.theta * (1.0 if j > k + 1 else 1.0 - s))
            spread = 1 + precision * (1 - decay**2) / self.stiffness
            eta, precision = eta * decay / spread, precision * decay**2 / spread
        return eta, precision

    def prior(self) -> EnergyPrior:
        return quadratic([self.stiffness], initial_diffusion=self.d)

    def decoder(self) -> GaussianDecoder:
        decoder = GaussianDecoder([torch.Generator().manual_seed(0)], "linear", 1, 1, 1)
        with torch.no_grad():
            decoder.mean.get_parameter("weight").fill_(self.a)
            decoder.mean.get_parameter("bias").fill_(self.b)
            decoder.log_noise.fill_(math.log(self.noise))
        return decoder.requires_grad_(False)

    def batch(self, n: int) -> Batch:
        """n copies of the sequence; the stationary density belongs to its first frame."""
        x = torch.from_numpy(self.x)[None, None, :, None].expand(1, n, -1, -1)
        frames = torch.ones(x.shape[:3], dtype=torch.bool)
        first = torch.zeros_like(frames)
        first[:, :, 0] = True
        return Batch(x, torch.ones_like(x, dtype=torch.bool), frames, first)


class ExactPaths(PathEncoder):
    """The optimal control v = sigma grad log p(later observations | z), times a factor, and the exact first state."""

    def __init__(self, exact: LinearGaussian, factor: float = 1.0) -> None:
        super().__init__([torch.Generator()], 1, 1, 1, 1, False)
        self.exact, self.factor = exact, factor

    def start(self, contexts: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, variance = self.exact.marginal(0.0)
        rows = x.new_ones(1, x.shape[1], 1)
        return mean * rows, 0.5 * math.log(variance) * rows

    def control(
        self, steering: Steering, state: torch.Tensor, interval: int, s: float, noise_scale: torch.Tensor
    ) -> torch.Tensor:
        eta, precision = self.exact.message(interval, s)
        return self.factor * noise_scale * (eta - precision * state)


class ExactMarginals(torch.nn.Module):
    """The exact smoothing marginals at and between observations; `shift` of the mean makes them wrong."""

    def __init__(self, exact: LinearGaussian, shift: float = 0.0) -> None:
        super().__init__()
        self.exact, self.shift = exact, shift

    def contexts(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return x

    def nodes(self, contexts: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        found = [self.exact.marginal(float(k)) for k in range(x.shape[2])]
        rows = torch.tensor([(mean + self.shift, 0.5 * math.log(variance)) for mean, variance in found], dtype=F64)
        return rows.expand(*x.shape[:2], -1, -1)

    def between(self, contexts: torch.Tensor, nodes: torch.Tensor, s: torch.Tensor) -> Marginals:
        h, columns = 1e-4, []
        for k in range(s.shape[2]):
            shares, places = torch.unique(s[0, :, k], return_inverse=True)
            rows = []
            for share in shares.tolist():
                low, here, high = (self.exact.marginal(k + share + e) for e in (-h, 0, h))
                log_sds = [0.5 * math.log(variance) for _, variance in (low, here, high)]
                mean = here[0] + self.shift
                rows.append((mean, log_sds[1], (high[0] - low[0]) / (2 * h), (log_sds[2] - log_sds[0]) / (2 * h)))
            columns.append(torch.tensor(rows, dtype=F64)[places])
        values = torch.stack(columns, 1)[None]
        return Marginals(*(values[..., i : i + 1] for i in range(4)))


def bound(terms: dict[str, torch.Tensor], exact: LinearGaussian) -> float:
    """ELBO of one sequence."""
    return float((terms["reconstruction"] - terms["path_kl"] - terms["initial_kl"]).item()) * len(exact.x)


EXACT = LinearGaussian(np.array([0.8, 1.6, -0.9, 0.3, 0.4]))


def test_matching_bound_is_the_log_likelihood_at_the_exact_posterior() -> None:
    """40,000 copies of a sequence, at 20 times an interval: equal within .1, five standard errors, and a posterior mean
    shifted by .3 loses three times that. The truth is a Gaussian density of scipy."""
    found, n = [], 40_000
    for shift in (0.0, 0.3):
        noise = MatchingNoise.draw([torch.Generator().manual_seed(4)], n, 5, 1, 1, 20_000, F64)
        times = ((torch.arange(n, dtype=F64) % 20 + 0.5) / 20)[None, :, None].expand(1, n, 4)
        encoder = ExactMarginals(EXACT, shift)
        with torch.no_grad():
            terms = matching_terms(
                encoder, EXACT.decoder(), EXACT.prior(), EXACT.batch(n), replace(noise, times=times)  # type: ignore[arg-type]
            )  # fmt: skip
        found.append(bound(terms, EXACT))
    truth = EXACT.log_likelihood()
    assert abs(found[0] - truth) < 0.1
    assert found[1] < truth - 0.3


def test_simulated_bound_is_the_log_likelihood_at_the_exact_posterior() -> None:
    """20,000 paths in antithetic pairs, steps of 1 / 64, whose own gap is about .1: within .15, and above by at
    most .05, four standard errors; other controls are far below."""
    truth, found, n = EXACT.log_likelihood(), {}, 10_000
    for factor in (1.0, 0.0, 1.5):
        half = PathNoise.draw([torch.Generator().manual_seed(5)], n, 256, 1, 1, 20_000, F64)
        noise = replace(
            half, start=torch.cat([half.start, -half.start], 1), steps=torch.cat([half.steps, -half.steps], 2)
        )
        encoder = ExactPaths(EXACT, factor)
        with torch.no_grad():
            terms = simulated_terms(
                encoder, EXACT.decoder(), EXACT.prior(), EXACT.batch(2 * n), noise, 64, 1e9, roll_out
            )
        found[factor] = bound(terms, EXACT)
    assert truth - 0.15 < found[1.0] < truth + 0.05
    assert found[0.0] < truth - 0.5 and found[1.5] < truth - 0.3


def test_the_rotation_keeps_the_density() -> None:
    """div(f exp(-beta E)) = D lap exp(-beta E) on a grid, by central differences of step .01: a residual of .1 % of the
    largest term. Power: a symmetric matrix in place of J leaves a residual above 20 %."""
    energy = {"hidden": [6], "activation": "tanh", "confinement": 0.8}
    config = ModelConfig(prior="rotated", energy=energy, beta=1.4)
    prior = build_prior([torch.Generator().manual_seed(3)], config)
    assert isinstance(prior, RotatedPrior)
    torch.nn.init.constant_(prior.entries, 0.9)
    h = 0.01
    axis = torch.arange(-2, 2, h, dtype=F64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    with torch.no_grad():
        flat = grid.reshape(1, -1, 2)
        p = torch.exp(-prior.reduced_energy(flat)).view(len(axis), len(axis))
        drift = prior.drift(flat).view(len(axis), len(axis), 2)
        mirrored = -prior.mobility(3) * prior.energy.gradient(flat)
        mirrored = mirrored + 0.9 * prior.energy.gradient(flat).flip(-1)
        mirrored = mirrored.view(len(axis), len(axis), 2)
        d = float(prior.diffusion(1))

    def residual(field: torch.Tensor) -> float:
        current = field * p[..., None]
        divergence = (current[2:, 1:-1, 0] - current[:-2, 1:-1, 0] + current[1:-1, 2:, 1] - current[1:-1, :-2, 1]) / (
            2 * h
        )
        laplacian = (p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * p[1:-1, 1:-1]) / h**2
        return float((divergence - d * laplacian).abs().max() / (d * laplacian).abs().max())

    assert residual(drift) < 1e-3
    assert residual(mirrored) > 0.2
    assert prior.rotation()[0, 0, 1] == 0.9 and torch.equal(prior.rotation(), -prior.rotation().mT)


def simulated_model(prior: str, **settings: object) -> tuple[LatentModel, Batch, PathNoise]:
    energy = {"hidden": [6], "activation": "tanh", "confinement": 0.1}
    config = ModelConfig(
        prior=prior, objective="simulated", energy=energy, decoder_hidden=4, context=5, substeps=3, drift_hidden=5,
        **settings,
    )  # type: ignore[arg-type]  # fmt: skip
    model = LatentModel(config, 3, False, (1, 2), F64)
    if isinstance(model.prior, RotatedPrior):
        torch.nn.init.constant_(model.prior.entries, 0.3)
    generators = [torch.Generator().manual_seed(k) for k in (3, 4)]
    x = torch.stack([torch.randn(3, 6, 3, generator=g, dtype=F64) for g in generators])
    frames = torch.ones(2, 3, 6, dtype=torch.bool)
    frames[:, 0, 4:] = False
    noise = model.draw_noise(generators, 3, 6, 128)
    assert isinstance(noise, PathNoise)
    return model, Batch(x, frames[..., None].expand_as(x), frames, frames), noise


@pytest.mark.parametrize("direction", ["online", "reversed"])
@pytest.mark.parametrize("prior", ["overdamped", "underdamped", "rotated", "nsde"])
def test_gradients_of_the_simulated_loss_against_differences(prior: str, direction: str) -> None:
    """Along a random direction of every parameter; without the terms that hold posterior draws fixed."""
    learned = {} if prior == "nsde" or direction == "online" else {"learned": ("beta", "gamma")}
    model, batch, noise = simulated_model(prior, direction=direction, **learned)
    model.stepping = type(model.stepping)(adjoint_clip=1e9)
    generator = torch.Generator().manual_seed(7)

    def value(whole: bool) -> torch.Tensor:
        terms = model.terms(batch, noise)
        if whole:
            return total_loss(terms, 0.7, 0.0).sum()
        return (terms["path_kl"] - terms["reconstruction"]).sum()

    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        whole = prior == "nsde" or name.startswith("decoder.")
        (gradient,) = torch.autograd.grad(value(whole), parameter, allow_unused=True, materialize_grads=True)
        direction_of_change = torch.randn(parameter.shape, generator=generator, dtype=F64)
        h, differences = 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * h * direction_of_change
            differences.append(sign * float(value(whole).detach()))
            with torch.no_grad():
                parameter -= sign * h * direction_of_change
        slope = float((gradient * direction_of_change).sum())
        assert slope == pytest.approx(sum(differences) / (2 * h), rel=1e-6, abs=1e-7), name
        assert slope != 0 or name.endswith("layers.2.bias"), name


def test_padding_changes_nothing_in_either_direction() -> None:
    for direction in ("online", "reversed"):
        for prior in ("underdamped", "nsde"):
            model, batch, noise = simulated_model(prior, direction=direction)
            with torch.no_grad():
                before = model.terms(batch, noise)
                x = batch.x.clone()
                x[:, 0, 4:] = 5.0
                after = model.terms(Batch(x, batch.mask, batch.frames, batch.frames), noise)
            for name in before:
                torch.testing.assert_close(after[name], before[name], rtol=1e-12, atol=1e-12)


def test_a_reversed_context_sees_what_follows() -> None:
    x = torch.randn(1, 1, 5, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    other = x.clone()
    other[:, :, 2] += 1
    observed = torch.ones(1, 1, 5, dtype=torch.bool)
    for direction, changed in (("online", [0, 0, 1, 1, 1]), ("reversed", [1, 1, 1, 0, 0])):
        context = GRUContext([torch.Generator().manual_seed(1)], 3, 4, direction)  # type: ignore[arg-type]
        change = (context(other, observed) - context(x, observed)).abs().amax(-1)[0, 0]
        assert [int(value > 1e-6) for value in change.tolist()] == changed
        assert [int(value > 0) for value in change.tolist()] == changed


def test_state_dependent_noise() -> None:
    decoder = GaussianDecoder([torch.Generator().manual_seed(0)], "linear", 2, 3, 4, "state")
    z = torch.randn(1, 2, 3, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    x = torch.zeros(1, 2, 3, 3, dtype=F64)
    with torch.no_grad():
        decoder.log_noise += 0.3
        assert decoder.spread is not None
        log_noise = 0.3 + 2 * torch.tanh(decoder.spread(z.view(1, 6, 2))).view(1, 2, 3, 3)
        expected = torch.distributions.Normal(decoder.decode(z), log_noise.exp()).log_prob(x).sum(-1)
        found = decoder.log_likelihood(x, torch.ones_like(x, dtype=torch.bool), z)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert (log_noise.amax((1, 2)) - log_noise.amin((1, 2)) > 1e-3).all()


def test_densities_that_paths_start_from() -> None:
    underdamped = quadratic([2.0, 3.0], prior="underdamped", beta=1.3, initial_diffusion=0.4, momentum_time=0.3)
    assert isinstance(underdamped, UnderdampedPrior)
    state = torch.randn(1, 7, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    gamma = 1 / (1.3 * 0.4)
    variances = [1 / (1.3 * 2), 1 / (1.3 * 3), 0.3 * gamma / 1.3, 0.3 * gamma / 1.3]
    with torch.no_grad():
        # E is 0 at its minimum less the log of its determinant: log Z by the Gaussian integral.
        offset = float(underdamped.energy(torch.zeros(1, 1, 2, dtype=F64)))
        log_z = torch.tensor([-1.3 * offset + math.log(2 * math.pi) - 0.5 * math.log(1.3**2 * 6)], dtype=F64)
        found = underdamped.log_density(state, log_z)[0].numpy()
        np.testing.assert_allclose(
            found, multivariate_normal(np.zeros(4), np.diag(variances)).logpdf(state[0]), rtol=1e-11
        )
    free = build_prior([torch.Generator().manual_seed(0)], ModelConfig(prior="nsde"))
    assert isinstance(free, FreePrior)
    with torch.no_grad():
        free.start_mean += 0.4
        free.start_log_sd -= 0.7
        found = free.log_density(state[..., :2], torch.zeros(1)).numpy()[0]
    expected = multivariate_normal(np.full(2, 0.4), math.exp(-1.4) * np.eye(2)).logpdf(state[0, :, :2])
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_fastest_rates_of_quadratic_wells() -> None:
    """Eigenvalues of diagonal and of rotated linear drifts, frequencies and collision rates."""
    z = torch.zeros(1, 3, 2, dtype=F64)
    overdamped = quadratic([2.0, 5.0], beta=2.0, initial_diffusion=0.3)
    assert fastest_rate(overdamped, z).item() == pytest.approx(0.6 * 5)
    rotated = quadratic([2.0, 5.0], prior="rotated", initial_diffusion=0.3)
    rotated.get_parameter("entries").fill_(1.1)
    drift = (0.3 * np.eye(2) + 1.1 * np.array([[0, 1], [-1, 0]])) @ np.diag([2.0, 5.0])
    assert fastest_rate(rotated, z).item() == pytest.approx(np.linalg.norm(drift, 2))
    slow = quadratic([2.0, 50.0], prior="underdamped", initial_diffusion=0.5, momentum_time=0.25)
    assert fastest_rate(slow, z).item() == pytest.approx(math.sqrt(50 / 0.5))
    heavy = quadratic([2.0, 2.0], prior="underdamped", initial_diffusion=0.5, momentum_time=0.25)
    assert fastest_rate(heavy, z).item() == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": "inertial"}, "prior is one of overdamped, underdamped, rotated, nsde, not 'inertial'"),
        ({"prior": "rotated", "latent_dim": 1}, "needs latent_dim of at least 2"),
        ({"learned": ("mass",)}, "learned is a list of beta, gamma for prior overdamped"),
        ({"learned": "gamma"}, "learned is a list"),
        ({"direction": "backwards"}, "direction is one of online, reversed"),
        ({"noise": "coloured"}, "noise is one of constant, state"),
        ({"substeps": 0}, "substeps is a whole number of at least 1"),
        ({"beta": -1}, "beta is a finite number above 0"),
    ],
)
def test_wrong_settings_of_the_family(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**settings)  # type: ignore[arg-type]
