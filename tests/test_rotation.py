"""Overdamped dynamics with a rotation: the reference table, what a rotation must not change, and what it must."""

from __future__ import annotations

import functools
import itertools
import json

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from landscape import Analysis, load_energy
from landscape.cli import main
from landscape.dynamics import Overdamped, Underdamped, from_metadata
from landscape.energy import Energy
from landscape.errors import EnergyError, UnsupportedError, UsageError
from landscape.rates import (
    Cores,
    PassageOptions,
    committors,
    core_rates,
    eigenvalues,
    flat_saddle_rates,
    grid_generator,
    langer_rates,
    make_cores,
    mean_passage_times,
    reference_rates,
    reference_spectrum,
    simulate_passages,
    string_rates,
)
from landscape.rates.integrators import Integrator, largest_frequency, relaxation_time

# E = x^4/4 - x^2/2 + y^2/2, J = [[0, a], [-a, 0]]: beta, a, slowest eigenvalue, 2 k by the formula
TABLE = [
    (10, 0, 0.0335405, 0.0369512), (10, 1, 0.0515526, 0.0522569), (10, 2, 0.0840907, 0.0826255),
    (20, 0, 0.00277557, 0.00303314), (20, 1, 0.00404507, 0.00428951), (20, 2, 0.00644464, 0.00678231),
    (30, 0, 2.343249e-4, 2.489754e-4), (30, 1, 3.378586e-4, 3.521044e-4), (30, 2, 5.427421e-4, 5.567260e-4),
]  # fmt: skip
BOX = [[-2.2, 2.2], [-1.8, 1.8]]
TRIPLE = np.array([[-1.048054992824, -0.04209366630668], [1.048054992824, -0.04209366630668], [0, 1.537082004449]])


def wells() -> Energy:
    return Energy(lambda x: x[:, 0] ** 4 / 4 - x[:, 0] ** 2 / 2 + 0.5 * x[:, 1] ** 2, 2)


def turn(a: float) -> np.ndarray:
    return np.array([[0.0, a], [-a, 0.0]])


@functools.cache
def triple_cores() -> Cores:
    energy = load_energy("potential:triple-well")
    return make_cores(energy, Overdamped(2.0), TRIPLE, torch.Generator().manual_seed(0))


def formula(dynamics: Overdamped) -> np.ndarray:
    energy = wells()
    x = np.array([[-1.0, 0.0], [1.0, 0.0]])
    top = energy.hessian(np.zeros((1, 2)))
    return langer_rates(
        dynamics, energy.value(x), np.linalg.eigvalsh(energy.hessian(x)), energy.value(np.zeros((1, 2))),
        np.linalg.eigvalsh(top), top, np.array([[0, 1]]),
    ).log_rates[0]  # fmt: skip


@pytest.mark.parametrize(("beta", "a", "_", "twice"), TABLE)
def test_formula_column(beta: float, a: float, _: float, twice: float) -> None:
    """To all digits; and mu in closed form: the positive root of mu^2 = 1 + a^2 for eigenvalues -1 and 1."""
    rates = np.exp(formula(Overdamped(beta, 1.0, turn(a))))
    assert rates.sum() == pytest.approx(twice, rel=2e-6 if twice > 1e-3 else 2e-7)
    mu = Overdamped(beta, 1.0, turn(a)).unstable_rate(np.diag([-1.0, 1.0]))
    assert mu == pytest.approx(np.sqrt(1 + a * a), rel=1e-14)


@pytest.mark.parametrize(("beta", "a", "exact", "_"), TABLE)
def test_spectral_column(beta: float, a: float, exact: float, _: float) -> None:
    """Within 1 % on a grid of 120 x 120 cells, extrapolated. The rows of a = 0 are a product: the one-dimensional
    eigenvalue, from a grid of 2,000 cells, within 1e-4, which the table's own column misses by .17 % at beta = 30."""
    found = reference_spectrum(wells(), Overdamped(beta, 1.0, turn(a)), 1, box=BOX, cells=120)
    assert found.converged and found.reason == ""
    assert found.eigenvalues[0].real == pytest.approx(exact, rel=0.01)
    assert abs(np.imag(found.eigenvalues[0])) < 1e-9
    if a == 0:
        line = reference_spectrum(load_energy("potential:double-well"), Overdamped(beta), 1, box=[BOX[0]])
        assert found.eigenvalues[0] == pytest.approx(line.eigenvalues[0], rel=1e-4)


def test_rotated_oscillator_has_the_eigenvalues_of_its_drift_matrix() -> None:
    """E = x.diag(1, 2.5)x / 2: the generator's slowest eigenvalues are those of (gamma^-1 + J) H, here complex."""
    energy = Energy(lambda x: 0.5 * (x[:, 0] ** 2 + 2.5 * x[:, 1] ** 2), 2)
    dynamics = Overdamped(1.0, (1.0, 2.0), turn(1.5))
    exact = np.linalg.eigvals(dynamics.mobility(2) @ np.diag([1.0, 2.5]))
    assert np.abs(exact.imag).min() > 1
    found = reference_spectrum(energy, dynamics, 2, box=[[-5.5, 5.5], [-3.6, 3.6]], cells=120)
    assert np.sort_complex(found.eigenvalues) == pytest.approx(np.sort_complex(exact), rel=2e-3)


def test_generator_in_two_and_three_dimensions_is_one_and_keeps_the_weights() -> None:
    """Rates at least 0, rows sum to 0, exp(-beta E) stationary to rounding, with walls steep enough to be limited."""
    j3 = np.array([[0, 1, 0.5], [-1, 0, 0.7], [-0.5, -0.7, 0]])
    three = Energy(lambda x: (x[:, 0] ** 2 - 1) ** 2 + x[:, 1] ** 2 + x[:, 2] ** 4, 3)
    cases = [
        (wells(), Overdamped(10.0, (1.0, 2.0), turn(3.0)), BOX, (30, 24)),
        (three, Overdamped(4.0, 1.0, j3), [[-2, 2]] * 3, 8),
    ]
    for energy, dynamics, box, cells in cases:
        grid = grid_generator(energy, dynamics, box=box, cells=cells)
        assert grid.excess.max() > 0 and not grid.reversible
        q, pi = grid.matrix().toarray(), grid.stationary
        scale = np.abs(q).max()
        assert (q - np.diag(np.diag(q))).min() > -1e-12 * scale
        assert np.abs(q.sum(axis=1)).max() < 1e-13 * scale
        assert np.abs(pi @ q).max() < 1e-12 * (pi @ np.abs(q)).max()
        boltzmann = np.exp(-dynamics.beta * energy.value(grid.points))
        np.testing.assert_allclose(pi, boltzmann / boltzmann.sum(), rtol=1e-9)
        flux = pi[:, None] * q
        assert np.abs(flux - flux.T).max() > 0.1 * np.abs(flux - np.diag(np.diag(flux))).max()  # no detailed balance
        root = np.sqrt(pi)
        assert np.abs(grid.symmetrised().toarray() + root[:, None] * q / root).max() < 1e-10 * scale
        back = grid.time_reversed().matrix().toarray()
        assert np.abs(pi[:, None] * back - flux.T).max() < 1e-12 * np.abs(flux).max()


def test_generator_moves_the_mean_of_an_oscillator_along_its_drift() -> None:
    """Q applied to the coordinates is -(gamma^-1 + J) H x, to second order in the spacing: sign and size of J."""
    energy = Energy(lambda x: 0.5 * (x[:, 0] ** 2 + 2.5 * x[:, 1] ** 2), 2)
    dynamics = Overdamped(1.0, (1.0, 2.0), turn(1.5))
    grid = grid_generator(energy, dynamics, box=[[-5.5, 5.5], [-3.6, 3.6]], cells=150)
    inner = np.abs(grid.points / [5.5, 3.6]).max(axis=1) < 0.3
    drift = grid.matrix() @ grid.points
    exact = -grid.points @ np.diag([1.0, 2.5]) @ dynamics.mobility(2).T
    assert np.abs(drift - exact)[inner].max() < 2e-3 * np.abs(exact[inner]).max()


def test_core_rates_are_transitions_over_time() -> None:
    """On a grid of its own Markov chain: N_ij is the flow of trajectories last in core i into the cells of core j, and
    T_i the stationary mass of those last in i, both by dense linear algebra on Q alone."""
    energy, dynamics = load_energy("potential:triple-well"), Overdamped(2.0, 1.0, turn(2.0))
    cores = triple_cores()
    grid = grid_generator(energy, dynamics, cores=cores, box=[[-2, 2], [-1.5, 2.5]], cells=40)
    q, pi, label = grid.matrix().toarray(), grid.stationary, cores.labels(grid.points)
    free = label < 0
    back = q.T * pi / pi[:, None]  # the reversed process
    flow = np.zeros((3, 3))
    time = np.zeros(3)
    for i in range(3):
        last = (label == i).astype(float)
        last[free] = np.linalg.solve(-back[np.ix_(free, free)], back[np.ix_(free, label == i)].sum(axis=1))
        time[i] = pi @ last
        for j in range(3):
            flow[i, j] = (pi * last) @ q[:, label == j].sum(axis=1) if i != j else 0
    rates, populations, _ = core_rates(grid, cores)
    # cores cut the edges of this coarse grid where they end, the chain steps from cell to cell
    assert populations == pytest.approx(time, rel=0.02)
    assert rates == pytest.approx(flow / time[:, None], rel=0.12, abs=1e-9)
    assert rates[0, 2] < 0.75 * rates[1, 2]  # clockwise is not anticlockwise
    fine = reference_rates(energy, dynamics, cores, cells=120)
    assert fine.converged
    through = fine.populations[:, None] * fine.rates
    assert through.sum(axis=1) == pytest.approx(through.sum(axis=0), rel=1e-6)  # what enters a state leaves it
    assert fine.populations.sum() == pytest.approx(1, abs=1e-9)
    assert through[0, 1] > 1.5 * through[1, 0]


def test_reversing_the_rotation_reverses_the_process() -> None:
    """With -J, pi_i k_ij becomes pi_j k_ji; committors of the time-reversed grid are those of the grid of -J."""
    energy, cores = load_energy("potential:triple-well"), triple_cores()
    box = [[-2, 2], [-1.5, 2.5]]
    one, two = (grid_generator(energy, Overdamped(2.0, 1.0, turn(a)), box=box, cells=60) for a in (1.5, -1.5))
    assert committors(one.time_reversed(), cores) == pytest.approx(committors(two, cores), abs=1e-10)
    (k, p, _), (back, same, _) = core_rates(one, cores), core_rates(two, cores)
    assert p == pytest.approx(same, rel=0.05)
    assert p[:, None] * k == pytest.approx((same[:, None] * back).T, rel=1e-8, abs=1e-15)


def test_no_rotation_is_the_reversible_result() -> None:
    plain, zero = Overdamped(10.0, 2.0), Overdamped(10.0, 2.0, np.zeros((2, 2)))
    assert zero == plain and zero.reversible and zero.rotation is None
    tiny = Overdamped(10.0, 2.0, turn(1e-9))
    assert not tiny.reversible
    assert formula(tiny) == pytest.approx(formula(plain), abs=1e-12)
    grids = [grid_generator(wells(), d, box=BOX, cells=40) for d in (plain, tiny)]
    assert eigenvalues(grids[1], 2).real == pytest.approx(eigenvalues(grids[0], 2), rel=1e-6)


def test_mean_passage_time_and_eigenvalue_agree_at_a_high_barrier() -> None:
    """tau(-1 -> 1) = 2 / eigenvalue for two symmetric wells, up to times inside a well, 2 %; a = 0's is 46 % away."""
    grid = grid_generator(wells(), Overdamped(20.0, 1.0, turn(1.0)), box=BOX, cells=100)
    target = make_cores(wells(), Overdamped(20.0), np.array([[1.0, 0.0]]), torch.Generator().manual_seed(0))
    tau = grid.interpolate(mean_passage_times(grid, target), np.array([[-1.0, 0.0]]))[0]
    assert tau == pytest.approx(2 / eigenvalues(grid, 1)[0].real, rel=0.03)


def test_passages_agree_with_the_grid_and_keep_the_weights() -> None:
    """Rates of beta = 10, a = 1 between cores within 4 standard errors of the grid's (1.3e-4 for both). Power: those
    of a = 0, a third slower, are 7 of these errors below. Relaxation within 4 of the table's eigenvalue."""
    energy, dynamics = wells(), Overdamped(10.0, 1.0, turn(1.0))
    minima = np.array([[-1.0, 0.0], [1.0, 0.0]])
    cores = make_cores(energy, dynamics, minima, torch.Generator().manual_seed(1))
    exact = reference_rates(energy, dynamics, cores, cells=120).rates
    still = reference_rates(energy, Overdamped(10.0), cores, cells=120).rates
    found = simulate_passages(
        energy, dynamics, cores, torch.Generator().manual_seed(2), PassageOptions(0.06, 60.0, 1600, time_step=0.03)
    )
    assert found.converged and found.scheme == "heun"
    k, error = found.estimate.rates, found.estimate.standard_error
    for i, j in ((0, 1), (1, 0)):
        assert abs(k[i, j] - exact[i, j]) < 4 * error[i, j]
        assert abs(k[i, j] - still[i, j]) > 4 * error[i, j]
    relative = np.hypot(error[0, 1], error[1, 0]) / k.sum()
    # K u = lambda M u is a few per cent too fast at 2.5 kT
    assert abs(found.estimate.relaxation_rates()[0] / 0.0515526 - 1) < 4 * relative + 0.04


def test_stationary_second_moments_of_rotated_heun() -> None:
    """Heun's x' = T x + noise is linear for an oscillator, so its variance solves S = T S T' + N exactly: its distance
    from 1 / beta H falls by 4 when the step is halved, Euler's by 2. T is read off the integrator."""
    hessian, beta = np.diag([1.0, 2.5]), 2.0
    energy = Energy(lambda x: 0.5 * (x[:, 0] ** 2 + 2.5 * x[:, 1] ** 2), 2)
    dynamics = Overdamped(beta, (1.0, 2.0), turn(1.0))
    a = dynamics.mobility(2) @ hessian
    basis = torch.eye(2, dtype=torch.float64)
    away: dict[str, list[float]] = {"heun": [], "euler": []}
    for scheme, h in itertools.product(away, (0.04, 0.02)):
        move = np.eye(2) - h * a + (0.5 * h * h * a @ a if scheme == "heun" else 0)
        integrator = Integrator(energy, dynamics, scheme, h)
        integrator.noise = torch.zeros(2, dtype=torch.float64)
        moved = integrator.step(integrator.init(basis, None), torch.Generator().manual_seed(0)).x.numpy().T
        assert moved == pytest.approx(move, abs=1e-14)
        kick = (np.eye(2) - 0.5 * h * a) if scheme == "heun" else np.eye(2)
        noise = kick @ np.diag(dynamics.noise_scale(2) ** 2 * h) @ kick.T
        s = np.linalg.solve(np.eye(4) - np.kron(move, move), noise.ravel()).reshape(2, 2)
        away[scheme].append(np.abs(s - np.linalg.inv(beta * hessian)).max())
    assert away["heun"][0] / away["heun"][1] == pytest.approx(4, rel=0.1)
    assert away["euler"][0] / away["euler"][1] == pytest.approx(2, rel=0.1)


def test_time_scales_with_a_rotation() -> None:
    energy = Energy(lambda x: 0.5 * (x[:, 0] ** 2 + 2.5 * x[:, 1] ** 2), 2)
    dynamics, at = Overdamped(1.0, 1.0, turn(2.0)), np.zeros((1, 2))
    drift = dynamics.mobility(2) @ np.diag([1.0, 2.5])
    top = np.abs(np.linalg.eigvals(drift)).max()
    assert top <= largest_frequency(energy, dynamics, torch.zeros(1, 2, dtype=torch.float64)) < 2 * top
    assert relaxation_time(energy, dynamics, at) == pytest.approx(1 / np.linalg.eigvals(drift).real.min())


def test_unstable_rate_is_the_one_growing_eigenvalue() -> None:
    """Landim and Seo: exactly one eigenvalue of -(gamma^-1 + J) H grows, real; the direction is its eigenvector."""
    rng = np.random.default_rng(0)
    for d in (2, 3, 7):
        q = np.linalg.qr(rng.normal(size=(d, d)))[0]
        hessian = (q * np.concatenate([[-1.3], rng.uniform(0.2, 5, d - 1)])) @ q.T
        j = rng.normal(size=(d, d))
        dynamics = Overdamped(1.0, rng.uniform(0.5, 2, d), j - j.T)
        drift = -dynamics.mobility(d) @ hessian
        values = np.linalg.eigvals(drift)
        assert (values.real > 0).sum() == 1
        mu, v = dynamics.unstable_rate(hessian), dynamics.unstable_direction(hessian)
        assert mu == pytest.approx(values.real.max(), rel=1e-10)
        assert drift @ v == pytest.approx(mu * v, abs=1e-10)
        # a rotation never slows the way over a saddle
        assert mu >= Overdamped(1.0, dynamics.gamma).unstable_rate(hessian) * (1 - 1e-12)


def test_saved_analysis_and_command_line(tmp_path, monkeypatch, capsys) -> None:
    """From the energy's metadata through analyze, analysis.json and back; weights unchanged; other J by a flag."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "turned.py").write_text(
        "def wells(x):\n    return x[:, 0] ** 4 / 4 - x[:, 0] ** 2 / 2 + 0.5 * x[:, 1] ** 2\n\n\n"
        "wells.dim = 2\nwells.metadata = {'beta': 20.0, 'rotation': [[0, 1.0], [-1.0, 0]]}\n"
    )
    (tmp_path / "quick.toml").write_text("weights = false\n[minima]\nn_starts = 60\n")
    assert main(["analyze", "turned.py:wells", "--config", "quick.toml", "--quiet"]) == 0
    assert "rotation J not zero" in capsys.readouterr().out.replace("\n" + " " * 12, " ")
    saved = Analysis.load("wells.landscape")
    assert isinstance(saved.dynamics, Overdamped) and saved.dynamics.rotation == ((0.0, 1.0), (-1.0, 0.0))
    assert saved.origins["rotation"] == "file"
    assert np.exp(saved.rates.log_rates).sum() == pytest.approx(0.00428951, rel=2e-6)
    assert np.exp(saved.log_second) == pytest.approx([0.5, 0.5])
    np.save(tmp_path / "J.npy", turn(2))
    assert main(["rates", "wells.landscape", "--rotation", "J.npy", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["dynamics"]["rotation"] == [[0, 2], [-2, 0]]
    assert document["dynamics"]["origins"]["rotation"] == "flag"
    assert sum(document["saddles"][0]["rates"]) == pytest.approx(0.00678231, rel=2e-6)
    assert main(["rates", "wells.landscape", "--rotation", "J.npy", "--dynamics", "underdamped"]) == 2
    assert "no rotation" in capsys.readouterr().err
    np.save(tmp_path / "J.npy", np.ones((2, 2)))
    assert main(["rates", "wells.landscape", "--rotation", "J.npy"]) == 2
    assert "antisymmetric" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rotation", "text"),
    [
        ([[0, 1], [1, 0]], "antisymmetric"), ([[0, 1, 2], [-1, 0, 3]], "shape"), ([1.0, 2.0], "shape"),
        ([[0, float("nan")], [0, 0]], "finite"), ("spin", "matrix of numbers"),
        ([[0, 1], [-1 + 1e-6, 0]], "antisymmetric"),
    ],
)  # fmt: skip
def test_a_rotation_is_finite_and_antisymmetric(rotation: object, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Overdamped(1.0, 1.0, rotation)  # type: ignore[arg-type]
    with pytest.raises((EnergyError, UsageError), match=r"matrix|antisymmetric"):
        load_energy(_with_metadata(rotation))


def test_zeros_of_another_size_are_no_rotation_of_this_energy() -> None:
    assert from_metadata({}, 2, rotation=np.zeros((2, 2)))[0].reversible
    with pytest.raises(UsageError, match=r"\(2, 2\) matrix for this energy, but came with shape \(3, 3\)"):
        from_metadata({}, 2, rotation=np.zeros((3, 3)))


def _with_metadata(rotation: object):
    def function(x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(1)

    function.dim, function.metadata = 2, {"rotation": rotation}  # type: ignore[attr-defined]
    return function


def test_what_a_rotation_is_refused_by() -> None:
    energy, turned = wells(), Overdamped(10.0, 1.0, turn(1.0))
    with pytest.raises(UsageError, match="whole Hessian"):
        turned.unstable_rate_of_eigenvalue(-1.0)
    with pytest.raises(UsageError, match="2 x 2 matrix, but the energy has 3"):
        turned.rotation_matrix(3)
    with pytest.raises(UnsupportedError, match="reversible"):
        flat_saddle_rates(energy, turned, np.array([[-1.0, 0.0]]), np.zeros((1, 2)), np.array([[0, -1]]))
    with pytest.raises(UnsupportedError, match="reversible"):
        string_rates(energy, turned, np.zeros((1, 5, 2)))
    with pytest.raises(UsageError, match="no rotation"):
        from_metadata({"dynamics": "underdamped"}, 2, rotation=turn(1.0))
    # left aside by underdamped dynamics where the file has one, as a mass is by overdamped dynamics
    found, origins = from_metadata({"rotation": turn(1.0)}, 2, kind="underdamped")
    assert found == Underdamped() and "rotation" not in origins


def test_stationary_density_is_that_of_the_energy() -> None:
    grid = grid_generator(wells(), Overdamped(5.0, 1.0, turn(4.0)), box=BOX, cells=88)  # a face at .5
    part = grid.stationary[grid.points[:, 0] > 0.5].sum()

    def density(x: float) -> float:
        return float(np.exp(-5 * (x**4 / 4 - x**2 / 2)))

    assert part == pytest.approx(quad(density, 0.5, 2.2)[0] / quad(density, -2.2, 2.2)[0], rel=2e-3)
