"""Dimensions too large for Hessians: modes, polish, walks, determinants and whole analyses against closed forms."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from large_energies import Bump, DoubleWell, reflect
from scipy import stats

import landscape
from landscape.analysis import check
from landscape.configuration import AnalysisConfig
from landscape.dynamics import Overdamped, Underdamped
from landscape.energy import Energy
from landscape.errors import UnsupportedError, UsageError
from landscape.rates import reduced_energy_loss
from landscape.rates.log_determinant import LogDeterminantOptions, LogDeterminants, log_determinants, log_quadrature
from landscape.rates.unstable import unstable_growth
from landscape.search import Catalogue, MinimaSearch, SaddleSearch, assign_basins, make_basins
from landscape.search.driver import Status
from landscape.search.krylov import minres, polish_by_products
from landscape.search.lanczos import Tridiagonals, ends_of, missed_part
from landscape.search.lbfgs import relax
from landscape.search.modes import ModeOptions, lowest_modes
from landscape.search.saddles import follow_eigenvectors
from landscape.store import Analysis
from landscape.tables import WIDTH, analysis_text
from landscape.weights import second_order, second_order_errors


def diagonal(spectrum: torch.Tensor):
    """A product with a matrix of this spectrum, in coordinates turned by reflections."""
    energy = DoubleWell(len(spectrum))

    def product(points: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return reflect(spectrum * reflect(v, energy.normals), energy.normals.flip(0))

    return product


def spectrum_of(negative: list[float], low: float, high: float, d: int = 300) -> torch.Tensor:
    rest = torch.linspace(low, high, d - len(negative), dtype=torch.float64)
    return torch.cat([torch.tensor(negative, dtype=torch.float64), rest])


@pytest.mark.parametrize(
    "spectrum",
    [
        spectrum_of([], 0.1, 10),
        spectrum_of([-2.0], 0.1, 10),
        spectrum_of([-0.5, -0.011, -0.01], 0.1, 10),
        spectrum_of([-1.0], 1, 1),  # one eigenvalue 299 times: the Krylov spaces are invariant
        spectrum_of([0.0], 0.1, 10),
    ],
    ids=["positive", "one", "three", "multiple", "zero"],
)
def test_lowest_modes_are_counted_and_sharp(spectrum: torch.Tensor) -> None:
    found = lowest_modes(diagonal(spectrum), torch.zeros(2, 1, dtype=torch.float64), len(spectrum))
    exact = spectrum.sort().values
    n = int((exact <= 0).sum())
    assert found.resolved.all()
    assert np.allclose(found.values[:, :n], exact[:n], atol=1e-6)
    assert np.allclose(found.values[:, n], exact[n], rtol=0.15) and (found.values[:, n] >= exact[n] - 1e-9).all()
    assert np.allclose(found.largest, exact.abs().max(), rtol=1e-3)
    v = found.vectors[0, : max(n, 1)]
    assert np.allclose(v @ v.T, np.eye(len(v)), atol=1e-10)


def test_what_products_could_not_resolve_is_said() -> None:
    """1,000 eigenvalues over four decades, and 60 products: the sign of the lowest is not certain yet."""
    spectrum = torch.logspace(-2, 2, 1000, dtype=torch.float64)
    few = ModeOptions(max_products=60)
    found = lowest_modes(diagonal(spectrum), torch.zeros(1, 1, dtype=torch.float64), 1000, few)
    assert not found.resolved.any()
    enough = lowest_modes(diagonal(spectrum), torch.zeros(1, 1, dtype=torch.float64), 1000)
    assert enough.resolved.all() and 0.01 <= float(enough.values[0, 0]) < 0.011


def test_the_bound_on_what_lanczos_missed_holds() -> None:
    """100 random directions at a doubt of 1 %: more than 6 failures have a probability of 1e-4 if it is sharp."""
    spectrum = torch.linspace(0.0, 1.0, 200, dtype=torch.float64)
    start = torch.randn(100, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for steps in (10, 20, 40):
        plain = Tridiagonals(diagonal(spectrum), torch.zeros(100, 1), start)
        plain.extend(steps)
        missed = np.array([ends_of(*plain.row(k)[:2])[0] for k in range(100)])
        assert (missed > missed_part(200, steps, 0.01)).sum() <= 6
        assert missed.mean() > 1e-6  # and what it bounds is not zero


def test_minres_solves_indefinite_systems_row_by_row() -> None:
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(4, 40, 40))
    matrices = torch.as_tensor(matrices + matrices.swapaxes(1, 2) + 5 * np.eye(40))
    right = torch.as_tensor(rng.normal(size=(4, 40)))
    product = lambda m, v: (m @ v[:, :, None])[:, :, 0]  # noqa: E731
    solved = minres(product, matrices, right, 1e-10, 400)
    assert (solved["status"] == Status.CONVERGED).all()
    assert np.allclose(solved["p"], np.linalg.solve(matrices, right[:, :, None])[:, :, 0], rtol=1e-7)
    alone = minres(product, matrices[2:3], right[2:3], 1e-10, 400)
    assert np.allclose(alone["p"], solved["p"][2:3], rtol=1e-9)
    short = minres(product, matrices, right, 1e-10, 5)
    assert (short["status"] == Status.UNFINISHED).all() and (short["residual"] > 1e-10).all()


@pytest.mark.parametrize("d", [1000, 4000])
def test_polish_and_index_of_a_bowl_with_a_bump(d: int) -> None:
    bump = Bump(d)
    energy = Energy(bump, d)
    off = 1e-2 / math.sqrt(d) * torch.randn(3, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    polished = polish_by_products(energy, bump.points + off)
    assert (polished["status"] == Status.CONVERGED).all() and energy.evaluations.hessian == 0
    assert np.allclose(polished["x"], bump.points, atol=1e-9)
    found = Catalogue(energy)
    numbers = found.add(bump.points + off)
    points = found.points().select(numbers)
    assert points.index.tolist() == [0, 0, 1] and not points.degenerate.any()
    assert points.hessian.size == 0
    assert points.eigenvalues[2, 0] == pytest.approx(bump.negative, rel=1e-8)
    assert points.energy[2] - points.energy[0] == pytest.approx(bump.barrier, rel=1e-9)


def test_log_quadrature_brackets_the_logarithm() -> None:
    """e.log(H)e of a diagonal H: the interval holds it at every number of steps, and closes."""
    values = np.geomspace(0.1, 30, 80)
    start = torch.randn(1, 80, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    unit = (start / start.norm()).numpy()[0]
    exact = float(unit**2 @ np.log(values))
    scaled = torch.as_tensor(values)
    plain = Tridiagonals(lambda points, v: scaled * v, torch.zeros(1, 1), start)
    widths = []
    for _ in range(8):
        plain.extend(5)
        middle, half = log_quadrature(*plain.row(0), 0.09)
        assert abs(middle - exact) <= half + 1e-12
        widths.append(half)
    assert widths[-1] < 1e-6 < widths[0] and (np.diff(widths) < 0).all()
    assert log_quadrature(np.array([1.0, -1.0]), np.array([0.1]), 0.1, 0.5)[1] == math.inf


def test_errors_of_determinants_cover() -> None:
    """200 estimates of a difference, 8 directions each: Student's 95 % interval holds it 95 % of the time.

    Binomial: outside [179, 199] of 200 with a probability of 1e-3. Intervals of half the width hold it 72 % of the
    time: they fail.
    """
    well = DoubleWell(60, c=0.5)
    energy = Energy(well, 60, dense_dim=0)
    modes = polish_by_products(energy, well.points)["modes"].numpy()
    pairs = np.array([[0, 2]])
    options = LogDeterminantOptions(target_se=1e-3, min_probes=1600, max_probes=1600, known_modes=2)
    every = log_determinants(energy, well.points.numpy(), modes, pairs, options)
    assert every.bracket.max() < 1e-3
    samples = (every.samples[0] - every.samples[2]).reshape(200, 8)
    off = (samples.mean(1) - well.log_det_difference) / (samples.std(1, ddof=1) / math.sqrt(8))
    quantile = stats.t.ppf(0.975, 7)
    assert 179 <= (np.abs(off) < quantile).sum() <= 199
    assert (np.abs(off) < 0.5 * quantile).sum() < 179
    one = LogDeterminants(every.samples[:, :8], every.bracket)
    error = one.error_of_difference(np.array([0]), one, np.array([2]))[0]
    assert error == pytest.approx(samples[0].std(ddof=1) / math.sqrt(8) + every.bracket[0] + every.bracket[2])
    assert error < 0.2 * one.errors[0]  # common directions


@pytest.mark.parametrize("dense", [False, True])
def test_determinants_of_a_rank_one_change(dense: bool) -> None:
    """d = 1,000: the difference by the matrix determinant lemma, within 4 standard errors (6e-5)."""
    bump = Bump(1000)
    energy = Energy(bump, 1000)
    modes = polish_by_products(energy, bump.points)["modes"].numpy()
    options = LogDeterminantOptions(target_se=0.1, max_probes=64, dense=dense)
    found = log_determinants(energy, bump.points.numpy(), modes, np.array([[0, 2], [0, 1]]), options)
    i, j = np.array([0]), np.array([2])
    error = found.error_of_difference(i, found, j)[0]
    assert (error == 0) if dense else (0 < error <= 0.2 or found.samples.shape[1] == 64)
    off = float(found.values[0] - found.values[2]) - bump.log_det_difference
    assert abs(off) <= 4 * error + 1e-8
    assert found.error_of_difference(i, found, np.array([1]))[0] <= 1e-3 + 2 * found.bracket[0]  # equal Hessians


def mlp(d: int, seed: int = 0) -> torch.nn.Module:
    class Rough(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            g = torch.Generator().manual_seed(seed)
            self.first = 0.9 * torch.randn(d, 48, generator=g, dtype=torch.float64) / math.sqrt(d) * 2.5
            self.bias = torch.randn(48, generator=g, dtype=torch.float64)
            self.second = 4.0 * torch.randn(48, generator=g, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x @ self.first + self.bias) @ self.second + 0.02 * x.square().sum(1)

    return Rough()


@pytest.mark.parametrize("d", [50, 150])
def test_both_routes_agree_on_a_network(d: int) -> None:
    """Stationary points, indices, lowest eigenvalues and log-determinants of the dense route and the forced other."""
    dense, free = Energy(mlp(d), d), Energy(mlp(d), d, dense_dim=0)
    start = 2 * torch.randn(12, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low = relax(dense, start, 3.0)["x"]
    between = 0.5 * (low[:6] + low[6:])
    box = (low.amin(0) - 10, low.amax(0) + 10)
    one = torch.ones(6, dtype=torch.long)
    tops = follow_eigenvectors(free, between, one, 2.0, box)
    assert (tops["status"] == Status.CONVERGED).sum() >= 2
    x = torch.cat([low, tops["x"][tops["status"] == Status.CONVERGED]])
    catalogues = Catalogue(dense), Catalogue(free)
    numbers = [c.add(x) for c in catalogues]
    assert (numbers[0] == numbers[1]).all() and (numbers[0] >= 0).all()
    a, b = (c.points() for c in catalogues)
    assert (a.index == b.index).all() and (a.degenerate == b.degenerate).all() and {0, 1} <= set(a.index.tolist())
    assert np.allclose(a.x, b.x, atol=1e-7) and np.allclose(a.energy, b.energy, atol=1e-10)
    assert np.allclose(a.eigenvalues[:, 0], b.eigenvalues[:, 0], rtol=0.02, atol=1e-6)
    assert np.allclose(a.eigenvalues[a.index == 1, 0], b.eigenvalues[a.index == 1, 0], rtol=1e-8)
    pairs = np.array([[0, k] for k in range(1, len(a))])
    options = LogDeterminantOptions(max_probes=128, known_modes=30)
    found = log_determinants(free, b.x, b.modes, pairs, options)
    exact = np.log(np.abs(a.eigenvalues)).sum(1)
    error = found.error_of_difference(pairs[:, 0], found, pairs[:, 1])
    off = found.values[pairs[:, 0]] - found.values[pairs[:, 1]] - exact[pairs[:, 0]] + exact[pairs[:, 1]]
    assert (error < 2).all() and (np.abs(off) <= 4.5 * error).all()  # 7e-6 each


def test_unstable_rates_with_anisotropic_friction_and_mass() -> None:
    """The dense formulas of `Dynamics` at the same saddle."""
    d = 60
    bump = Bump(d)
    energy = Energy(bump, d, dense_dim=0)
    x = bump.points[2:].numpy()
    modes = polish_by_products(energy, bump.points[2:])["modes"][:, 0].numpy()
    hessian = np.asarray(energy.hessian(x))
    rng = np.random.default_rng(0)
    gamma, mass = tuple(rng.uniform(0.5, 3, d)), tuple(rng.uniform(0.5, 3, d))
    for dynamics in (
        Overdamped(1.0, 2.0), Overdamped(1.0, gamma), Underdamped(1.0, 2.0, 3.0), Underdamped(1.0, gamma, mass)
    ):  # fmt: skip
        rate, loss = unstable_growth(energy, dynamics, x, modes)
        assert rate == pytest.approx(dynamics.unstable_rate(hessian), rel=1e-8)
        exact = reduced_energy_loss(dynamics, 1.0, hessian[0])
        assert loss[0] == pytest.approx(exact, rel=1e-6)
    turned = np.zeros((d, d))
    turned[0, 1], turned[1, 0] = 1.0, -1.0
    with pytest.raises(UnsupportedError, match="rotation"):
        unstable_growth(energy, Overdamped(1.0, 1.0, turned), x, modes)


def test_errors_of_second_order_weights() -> None:
    """Two states: dw = w (1 - w) / 2 d(log det ratio), the derivative of the formula."""
    samples = np.random.default_rng(0).normal([[1.0], [2.0]], 0.3, size=(2, 50))
    weights = second_order(np.array([0.0, 0.3]), samples.mean(1), 1.0).weights
    scatter = (samples[0] - samples[1]).std(ddof=1) / math.sqrt(50)
    exact = 0.5 * weights[0] * weights[1] * scatter
    assert np.allclose(second_order_errors(weights, samples, np.zeros(2)), exact, rtol=1e-12)


def quick(**more: object) -> AnalysisConfig:
    return AnalysisConfig(
        minima=MinimaSearch(n_starts=24), saddles=SaddleSearch(rows=6, rows_per_point=2, sweep=16),
        determinants=LogDeterminantOptions(target_se=0.1, max_probes=64), **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def analysed() -> tuple[DoubleWell, Energy, Analysis]:
    well = DoubleWell(300)
    energy = Energy(well, 300, source="well")
    gamma = tuple(np.linspace(1, 2, 300))
    return well, energy, landscape.analyze(energy, Overdamped(3.0, gamma), quick())


def test_analysis_without_hessians(analysed: tuple[DoubleWell, Energy, Analysis]) -> None:
    """Minima, saddle, barrier; the rate within 4 standard errors (6e-5); no Hessian was formed."""
    well, energy, analysis = analysed
    assert energy.evaluations.hessian == 0
    assert len(analysis.states.energy) == 2 and len(analysis.saddles.energy) == 1
    assert analysis.diagnostics["converged"] and analysis.paths.converged.all()
    assert np.allclose(np.sort(analysis.states.x[:, 0]), np.sort(well.points[:2, 0]), atol=1e-8)
    assert np.allclose(analysis.saddles.x, well.points[2:], atol=1e-8)
    gamma = np.linspace(1, 2, 300)
    # The unstable rate by a dense eigenproblem, the rest in closed form.
    h = np.asarray(Energy(well, 300).hessian(well.points[2:].numpy()))[0]
    mu = -np.linalg.eigvalsh(h / np.sqrt(gamma[:, None] * gamma))[0]
    exact = math.log(mu / (2 * math.pi)) + 0.5 * well.log_det_difference - 3.0 * well.a / 4
    error = analysis.rates.log_errors
    assert (error > 0).all() and (error < 0.3).all()
    assert (np.abs(analysis.rates.log_rates - exact) <= 4 * error).all()
    assert np.allclose(np.exp(analysis.log_second), 0.5, atol=0.02)


def test_a_large_analysis_survives_saving(analysed: tuple[DoubleWell, Energy, Analysis], tmp_path) -> None:
    analysis = analysed[2]
    document = json.loads(json.dumps(analysis.to_document(), allow_nan=False))
    analysis.save(tmp_path / "saved")
    for again in (Analysis.from_document(document), Analysis.load(tmp_path / "saved")):
        assert np.array_equal(again.rates.log_rates, analysis.rates.log_rates)
        assert np.array_equal(again.rates.log_errors, analysis.rates.log_errors)
        assert again.states.hessian is None and again.large is not None
        colder = again.with_dynamics(Overdamped(6.0, analysis.dynamics.gamma))
        assert (colder.rates.log_rates < analysis.rates.log_rates - 5).all()
        isotropic = again.with_dynamics(Overdamped(3.0, 1.0))
        assert np.isfinite(isotropic.rates.log_rates).all()
        with pytest.raises(UsageError, match="Hessian"):
            _ = again.with_dynamics(Overdamped(3.0, tuple(np.linspace(1, 3, 300)))).rates
    text = analysis_text(document)
    assert " +- " in text and max(map(len, text.splitlines())) <= WIDTH
    with pytest.raises(UnsupportedError, match="checks"):
        check(analysis, analysed[1])


def test_basins_in_a_thousand_dimensions() -> None:
    """The sign of y_1 says which basin: 64 points about the minima and between them."""
    well = DoubleWell(1000)
    energy = Energy(well, 1000)
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(64, 1, generator=generator, dtype=torch.float64)
    x = share * well.points[0] + (1 - share) * well.points[1]
    x = x + 0.2 * torch.randn(64, 1000, generator=generator, dtype=torch.float64) / math.sqrt(1000)
    side = (reflect(x, well.normals)[:, 0] < 0).long().numpy()
    basins = make_basins(energy, well.points[:2].numpy(), generator)
    assert (basins.radius > 0.1).all()
    assert (assign_basins(energy, x, basins) == side).all()


def test_a_rotation_is_refused_before_the_search() -> None:
    turned = np.zeros((300, 300))
    turned[0, 1], turned[1, 0] = 1.0, -1.0
    energy = Energy(DoubleWell(300), 300)
    with pytest.raises(UnsupportedError, match="rotation"):
        landscape.analyze(energy, Overdamped(1.0, 1.0, turned))
    assert energy.evaluations.gradient == 0
