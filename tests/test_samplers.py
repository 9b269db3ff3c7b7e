"""Every sampler against closed forms and quadrature, its order in the step, and one contract for all kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from landscape.energy import Energy
from landscape.energy.potentials import MullerBrown
from landscape.errors import UsageError
from landscape.sampling import (
    Baoab,
    Chains,
    Ghmc,
    Hmc,
    Independence,
    Kernel,
    Lmc,
    Mala,
    StudentMixture,
    Tempering,
    anneal,
    find_ladder,
    hottest_ratio,
    largest_curvature,
    noise_levels,
    run,
    temperature_levels,
    warm_up,
)
from landscape.sampling.diagnostics import mean_between_chains
from landscape.sampling.independence import inverse_factors, squared_distances
from landscape.sampling.step_size import curvature_along, per_chain
from landscape.sampling.tempering import exchange_acceptance

PRECISION = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * torch.einsum("ni,ij,nj->n", x, PRECISION, x)


def quartic(x: torch.Tensor) -> torch.Tensor:
    return 0.25 * x[:, 0] ** 4


def double_well(x: torch.Tensor) -> torch.Tensor:
    return (x[:, 0] ** 2 - 1) ** 2 + 0.3 * x[:, 0]


ENERGIES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int]] = {
    "gaussian": (gaussian, 2), "quartic": (quartic, 1), "double well": (double_well, 1),
}  # fmt: skip


def features(name: str, x: np.ndarray) -> np.ndarray:
    """What is averaged: (..., d) -> (..., 3)."""
    if name == "gaussian":
        return np.stack([x[..., 0] ** 2, x[..., 0] * x[..., 1], x[..., 1] ** 2], -1)
    return np.stack([x[..., 0], x[..., 0] ** 2, x[..., 0] ** 4], -1)


def exact(name: str, beta: float) -> np.ndarray:
    """The averages under exp(-beta E): in closed form, or by quadrature of E written out once more."""
    if name == "gaussian":
        covariance = np.linalg.inv(PRECISION.numpy()) / beta
        return np.array([covariance[0, 0], covariance[0, 1], covariance[1, 1]])

    def weight(x: float) -> float:
        return math.exp(-beta * (0.25 * x**4 if name == "quartic" else (x * x - 1) ** 2 + 0.3 * x))

    total = quad(weight, -6, 6, epsabs=1e-13, limit=400)[0]
    sums = [quad(lambda x, k=k: x**k * weight(x), -6, 6, epsabs=1e-13, limit=400)[0] for k in (1, 2, 4)]
    return np.array(sums) / total


@cache
def settled(name: str, beta: float, n: int) -> Chains:
    """Chains in equilibrium, whatever kernel comes next: 200 Metropolis-adjusted moves with long steps."""
    function, d = ENERGIES[name]
    energy = Energy(function, d)
    start = Chains.init(energy, 0.5 * torch.randn(n, d, dtype=torch.float64, generator=generator(1)))
    return run([Mala(None, 0.8)], energy, beta, start, 200, generator(2))[0]


def averages(
    kernel: Kernel, name: str, beta: float, n_sweeps: int, seed: int, n: int, n_settling: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Means of the three features and their standard errors between n chains that begin in equilibrium."""
    function, d = ENERGIES[name]
    energy, g = Energy(function, d), generator(seed)
    state, _ = run([kernel], energy, beta, settled(name, beta, n), n_settling, g)
    total = np.zeros((n, 3))

    def observe(chains: Chains) -> None:
        total.__iadd__(features(name, chains.x.numpy()) / n_sweeps)

    run([kernel], energy, beta, state, n_sweeps, g, observe)
    return mean_between_chains(total)


def z_scores(kernel: Kernel, name: str, beta: float, n_sweeps: int, seed: int, n: int = 400) -> np.ndarray:
    mean, error = averages(kernel, name, beta, n_sweeps, seed, n)
    return (mean - exact(name, beta)) / error


EXACT: dict[str, Kernel] = {
    "mala": Mala(None, 0.9), "hmc": Hmc(0.7, 3), "ghmc": Ghmc(0.7, 2, 0.7),
}  # fmt: skip
# Steps so small that the bias is below a third of a standard error.
UNADJUSTED: dict[str, Kernel] = {"lmc": Lmc(0.004), "baoab": Baoab(0.15, 0.8)}


@pytest.mark.parametrize("k, d, n", [(1, 1, 5), (28, 3, 5000), (300, 30, 700), (2, 200, 900), (4, 2, 0)])
def test_distances_to_the_components_of_a_mixture(k: int, d: int, n: int) -> None:
    """In blocks of points and components, and from an origin far off: against solves with the factors one by one."""
    generator = torch.Generator().manual_seed(d)
    means = 1e4 + 10 * torch.randn(k, d, generator=generator, dtype=torch.float64)
    factors = torch.randn(k, d, d, generator=generator, dtype=torch.float64).tril(-1) / d + torch.eye(d)
    x = means[torch.arange(n) % k] + torch.randn(n, d, generator=generator, dtype=torch.float64)
    found = squared_distances(x, means, inverse_factors(factors))
    for one in range(0, k, 7):
        z = torch.linalg.solve_triangular(factors[one], (x - means[one]).T, upper=False)
        np.testing.assert_allclose(found[:, one], z.square().sum(0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("method", [*EXACT, *UNADJUSTED])
def test_stationary_moments(method: str, name: str) -> None:
    """Three averages of each sampler on each energy. False alarm: |z| > 4.5 at 45 numbers, 3e-4 in all."""
    kernel = (EXACT | UNADJUSTED)[method]
    assert np.abs(z_scores(kernel, name, 1.3, 100, 10)).max() < 4.5


def accept_all(state: Chains, proposal: Chains, *rest: Any) -> tuple[Chains, torch.Tensor]:
    return proposal, torch.ones(len(state.x), dtype=torch.float64)


@pytest.mark.parametrize("method", ["mala", "hmc", "ghmc"])
def test_without_the_metropolis_decision_the_same_test_fails(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settled("gaussian", 1.3, 1000)  # while mala is still whole
    module = "mala" if method == "mala" else "hamiltonian"
    monkeypatch.setattr(f"landscape.sampling.{module}.metropolis", accept_all)
    kernel = {"mala": Mala(None, 0.6), "hmc": Hmc(0.6, 3), "ghmc": Ghmc(0.6, 2, 0.7)}[method]
    assert np.abs(z_scores(kernel, "gaussian", 1.3, 200, 10, 1000)).max() > 6


def test_generalised_hmc_that_does_not_turn_round_fails_the_same_test(monkeypatch: pytest.MonkeyPatch) -> None:
    from landscape.sampling import hamiltonian

    real = hamiltonian.metropolis

    def forward(state: Chains, proposal: Chains, *rest: Any) -> tuple[Chains, torch.Tensor]:
        assert state.momentum is not None
        return real(state.with_momentum(-state.momentum), proposal, *rest)

    kernel = Ghmc(1.1, persistence=0.9)
    assert np.abs(z_scores(kernel, "quartic", 1.3, 300, 20, 1000)).max() < 4.5
    monkeypatch.setattr(hamiltonian, "metropolis", forward)
    assert np.abs(z_scores(kernel, "quartic", 1.3, 300, 20, 1000)).max() > 6


def test_a_wrong_step_fails_the_same_test() -> None:
    assert np.abs(z_scores(Lmc(0.15), "gaussian", 1.3, 150, 10)).max() > 6


@pytest.mark.parametrize("eta", [0.05, 0.3])
def test_the_bias_of_lmc_on_a_gaussian_is_the_closed_form(eta: float) -> None:
    """Stationary covariance (P - eta P^2 / 2)^-1 with P = beta H. False alarm: |z| > 4.5 at 6 numbers, 4e-5."""
    p = 1.3 * PRECISION.numpy()
    expected = np.linalg.inv(p - 0.5 * eta * p @ p)
    mean, error = averages(Lmc(eta), "gaussian", 1.3, 100, 5, 1000, int(8 / eta))
    assert np.abs((mean - [expected[0, 0], expected[0, 1], expected[1, 1]]) / error).max() < 4.5
    if eta == 0.3:
        assert np.abs((mean - exact("gaussian", 1.3)) / error).max() > 10


def test_baoab_has_no_error_in_the_positions_of_a_gaussian() -> None:
    """Three quarters of the way to the limit of stability: still exact (|z| > 4.5 at 3 numbers: 2e-5)."""
    top = float(np.linalg.eigvalsh(1.3 * PRECISION.numpy()).max())
    assert np.abs(z_scores(Baoab(1.5 / math.sqrt(top), 0.5), "gaussian", 1.3, 200, 30)).max() < 4.5


def stationary_mean_square(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, momenta: bool) -> float:
    """<x^2> of what a kernel converges to on the quartic at beta 1, without randomness.

    One step from every node of a Chebyshev grid in x (and p), its normal number at every Gauss-Hermite node, gives the
    transition operator in a Chebyshev basis, P T_k = sum_l A_kl T_l; the moments <T_k> solve A m = m with m_0 = 1.
    """
    half, sizes, n_noise = (3.6, 5.0), (30, 20) if momenta else (48,), 14
    z, w = np.polynomial.hermite_e.hermegauss(n_noise)
    nodes = [np.cos(np.pi * (np.arange(2 * k) + 0.5) / (2 * k)) for k in sizes]
    grid = np.stack([part.ravel() for part in np.meshgrid(*nodes, indexing="ij")], 1) * half[: len(sizes)]
    rows = np.repeat(grid, n_noise, 0)
    noise = torch.as_tensor(np.tile(z, len(grid)))[:, None]
    state = Chains.init(Energy(quartic, 1), torch.as_tensor(rows[:, :1].copy()))
    if momenta:
        state = state.with_momentum(torch.as_tensor(rows[:, 1:].copy()))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", lambda *size, **options: noise)
        new, _ = kernel.step(Energy(quartic, 1), 1.0, state, generator(0))
    ends = new.x.numpy() if new.momentum is None else np.hstack([new.x.numpy(), new.momentum.numpy()])

    def basis(points: np.ndarray) -> np.ndarray:
        inside = np.clip(points / half[: len(sizes)], -1, 1)
        parts = [np.polynomial.chebyshev.chebvander(inside[:, k], size - 1) for k, size in enumerate(sizes)]
        return parts[0] if len(parts) == 1 else np.einsum("na,nb->nab", *parts).reshape(len(points), -1)

    moved = np.einsum("njk,j->nk", basis(ends).reshape(len(grid), n_noise, -1), w / w.sum())
    operator = np.linalg.lstsq(basis(grid), moved, rcond=None)[0].T
    system = np.vstack([operator - np.eye(len(operator)), np.eye(1, len(operator))])
    moments = np.linalg.lstsq(system, np.eye(len(system))[-1], rcond=None)[0]
    second = moments.reshape(sizes)[(2, 0)[: len(sizes)]]
    return float(half[0] ** 2 * 0.5 * (second + 1))


@pytest.mark.parametrize("method", ["lmc", "baoab"])
def test_order_of_convergence(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """log2 of the ratio of the biases of <x^2> on the quartic at h and h/2: 1 for LMC, 2 for BAOAB."""
    truth = exact("quartic", 1.0)[1]
    make, steps, order = {
        "lmc": (Lmc, (0.02, 0.01), 1), "baoab": (lambda h: Baoab(h, math.exp(-h)), (0.24, 0.12), 2),
    }[method]  # fmt: skip
    biases = [stationary_mean_square(make(h), monkeypatch, method == "baoab") - truth for h in steps]
    orders = np.log2(np.divide(biases[:-1], biases[1:]))
    np.testing.assert_allclose(orders, order, atol=0.1)


def mixture() -> StudentMixture:
    eye = torch.eye(1, dtype=torch.float64)[None]
    return StudentMixture(torch.zeros(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64), eye, 5)


KERNELS: dict[str, Kernel] = {
    "lmc": Lmc(0.05), "baoab": Baoab(0.3), "mala": Mala(None, 0.5), "hmc": Hmc(0.3, 3), "ghmc": Ghmc(0.4),
    "independence": Independence(mixture()),
    "tempering": Tempering(torch.tensor([1.0, 0.5]), Mala(None, torch.tensor([0.5, 0.7]).double())),
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_contract_of_every_kernel(name: str) -> None:
    """Shapes, types, probabilities, one generator, inputs and global state left alone, rows that stay where they are
    meant to stay."""
    kernel, energy = KERNELS[name], Energy(double_well, 1)
    start = Chains.init(energy, torch.linspace(-1.5, 1.5, 12, dtype=torch.float64)[:, None])
    copies = start.x.clone(), start.energy.clone(), start.gradient.clone()
    before = torch.get_rng_state()
    ends = []
    for _ in range(2):
        state, g = start, generator(7)
        for _ in range(5):
            state, acceptance = kernel.step(energy, 1.2, state, g)
            assert state.x.shape == (12, 1) and acceptance.shape == (12,) and acceptance.dtype == torch.float64
            assert bool(((acceptance >= 0) & (acceptance <= 1)).all())
        np.testing.assert_allclose(state.energy, energy.value(state.x), rtol=1e-13)
        np.testing.assert_allclose(state.gradient, energy.gradient(state.x), rtol=1e-13)
        ends.append(state.x)
    assert torch.equal(*ends) and not torch.equal(ends[0], start.x)
    assert not torch.equal(ends[0], run([kernel], energy, 1.2, start, 5, generator(8))[0].x)
    assert all(torch.equal(a, b) for a, b in zip(copies, (start.x, start.energy, start.gradient), strict=True))
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises((FrozenInstanceError, AttributeError)):
        kernel.step_size = 3.0  # type: ignore[attr-defined]
    assert kernel.settled().exact == kernel.adapted(acceptance, 0).exact == kernel.exact
    assert kernel.exact == (name not in ("lmc", "baoab"))
    moved, _ = kernel.stabilised(4.0).step(energy, 1.2, start, generator(9))
    assert moved.energy.isfinite().all()


@pytest.mark.parametrize("name", KERNELS)
def test_no_kernel_enters_a_region_without_a_finite_energy(name: str) -> None:
    """Exact kernels are refused; the others leave a chain stopped at its last finite position, and the rest go on."""
    energy = Energy(lambda x: torch.where(x[:, 0] > 0.8, torch.nan, 0.5 * x[:, 0] ** 2), 1)
    start = Chains.init(energy, torch.full((400, 1), 0.5, dtype=torch.float64))
    seen: list[torch.Tensor] = []
    end, _ = run([KERNELS[name]], energy, 1.0, start, 40, generator(1), lambda s: seen.append(s.x))
    assert end.energy.isfinite().all() and float(torch.cat(seen).max()) <= 0.8
    if KERNELS[name].exact:
        assert not end.stopped.any()
    else:
        assert 0 < int(end.stopped.sum()) < 400
        again, _ = run([KERNELS[name]], energy, 1.0, end, 5, generator(2))
        assert torch.equal(again.x[end.stopped], end.x[end.stopped])
        assert not torch.equal(again.x[~end.stopped], end.x[~end.stopped])


@pytest.mark.parametrize("make", [Lmc, lambda s: Mala(None, s), lambda s: Hmc(s, 2), Ghmc, Baoab])
def test_temperatures_and_steps_of_groups_are_those_of_chains_alone(make: Callable[[Any], Kernel]) -> None:
    """One step of two groups equals each group's step with its own beta and step size, noise being the same."""
    energy = Energy(double_well, 1)
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    beta, steps = torch.tensor([1.0] * 3 + [0.4] * 3).double(), torch.tensor([0.1, 0.25]).double()
    both, acceptance = make(steps).step(energy, beta, Chains.init(energy, x), generator(3))
    for k, rows in enumerate((slice(0, 3), slice(3, 6))):
        alone, chance = make(float(steps[k])).step(energy, float(beta[rows][0]), Chains.init(energy, x), generator(3))
        np.testing.assert_allclose(both.x[rows], alone.x[rows], rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(acceptance[rows], chance[rows], rtol=1e-11, atol=1e-14)
    with pytest.raises(UsageError, match="equal groups"):
        per_chain(steps, 7)


@pytest.mark.parametrize("make", [lambda s: Mala(None, s), lambda s: Hmc(s, 5), Ghmc])
def test_warm_up_reaches_the_target_acceptance_from_any_step(make: Callable[[float], Any]) -> None:
    energy = Energy(lambda x: 0.5 * (x * x * torch.tensor([1.0, 30.0, 100.0]).double()).sum(1), 3)
    for first in (1e-3, 20.0):
        start = Chains.init(energy, 0.1 * torch.randn(64, 3, dtype=torch.float64, generator=generator(0)))
        state, kernels = warm_up([make(first)], energy, 1.0, start, 100, generator(1))
        _, accepted = run(kernels, energy, 1.0, state, 60, generator(2))
        assert accepted[0] == pytest.approx(make(1.0).target, abs=0.06)


def test_largest_curvature_is_the_largest_eigenvalue() -> None:
    energy = Energy(MullerBrown(), 2)
    x = torch.tensor([[-0.558, 1.4417], [0.2125, 0.293], [-0.822, 0.6243], [0.1, 0.2]], dtype=torch.float64)
    expected = np.abs(np.linalg.eigvalsh(energy.hessian(x).numpy())).max(1)
    np.testing.assert_allclose(largest_curvature(energy, x, generator(0)), expected, rtol=2e-3)
    assert energy.evaluations.hvp > 0
    assert curvature_along(energy, x, generator(0)) == pytest.approx(1.1 * expected.max(), rel=2e-3)
    flat = Energy(lambda x: x[:, 0] + x[:, 1], 2)
    with pytest.raises(UsageError, match="give a step size"):
        curvature_along(flat, x, generator(0))


def test_tempering_keeps_every_level_and_crosses_where_one_temperature_does_not() -> None:
    """<x>, <x^2>, <x^4> at each level against quadrature (|z| > 4.5 at 6 numbers or more: 5e-5) from chains that all
    start in the upper well, over a barrier of 12 kT; at one temperature they are still there."""
    energy, beta, n = Energy(double_well, 1), 12.0, 100
    start = Chains.init(energy, torch.full((n, 1), 0.95, dtype=torch.float64))
    kernel, rows = find_ladder(energy, beta, start, 1 / 16, 100, generator(0))
    levels = len(kernel.ratios)
    total = np.zeros((levels * n, 3))

    def observe(chains: Chains) -> None:
        nonlocal total
        total += features("double well", chains.x.numpy()) / 300

    rows, _ = run([kernel], energy, beta, rows, 200, generator(1))
    run([kernel], energy, beta, rows, 300, generator(2), observe)
    for level in range(levels):
        mean, error = mean_between_chains(total[level * n : (level + 1) * n])
        assert np.abs((mean - exact("double well", beta * float(kernel.ratios[level]))) / error).max() < 4.5
    alone, _ = run([Mala(None, 0.25)], energy, beta, start, 500, generator(3))
    assert (alone.x > 0).double().mean() > 0.9 and exact("double well", beta)[0] < -0.9


def test_the_ladder_places_its_levels_by_the_exchanges() -> None:
    """Gaussian in 10 dimensions: neighbours exchange alike, at the rate asked for; a ladder in equal ratios is right
    there, so the ratios must come out equal."""
    energy = Energy(lambda x: 0.5 * x.square().sum(1), 10)
    start = Chains.init(energy, torch.randn(40, 10, dtype=torch.float64, generator=generator(0)))
    kernel, rows = find_ladder(energy, 1.0, start, 0.1, 150, generator(1))
    energies: list[torch.Tensor] = []
    run([kernel], energy, 1.0, rows, 150, generator(2), lambda s: energies.append(s.energy))
    accepted = exchange_acceptance(kernel, 1.0, torch.stack(energies))
    assert accepted.min() > 0.5 and accepted.max() < 0.75 and np.ptp(accepted) < 0.12
    steps = kernel.ratios.log().diff().numpy()
    assert np.abs(steps / steps.mean() - 1).max() < 0.2
    assert float(kernel.ratios[-1]) == pytest.approx(0.1)
    with pytest.raises(UsageError, match="begin with 1"):
        Tempering(torch.tensor([0.5, 0.2]), Mala(None, 1.0))


def test_the_hottest_level_is_where_starts_are_forgotten() -> None:
    energy = Energy(double_well, 1)
    x = torch.tensor([[-1.0], [0.95]], dtype=torch.float64).repeat(8, 1)
    assert hottest_ratio(energy, 0.5, x, 100, generator(0)) == 1.0
    assert 1 / 32 <= hottest_ratio(energy, 8.0, x, 100, generator(0)) <= 1 / 2


def test_annealing_follows_the_step_rule_and_fills_both_wells() -> None:
    """Steps are eps sigma_i^2 / sigma_L^2. All chains start in the wrong well; slow annealing leaves the share of the
    right one within 4.5 binomial errors (7e-6) of that at a temperature between the second last and the last level,
    LMC at the last level alone leaves none."""
    energy, beta = Energy(double_well, 1), 8.0
    levels = noise_levels([energy] * 3, beta, [4.0, 2.0, 1.0], 0.01)
    np.testing.assert_allclose([level.step_size for level in levels], [0.16, 0.04, 0.01])
    ladder = temperature_levels(energy, beta, 0.05, 12, 0.004)
    np.testing.assert_allclose([lv.step_size * lv.beta for lv in ladder], 0.032)
    np.testing.assert_allclose([ladder[0].beta, ladder[-1].beta], [0.4, 8.0])
    start = torch.full((1000, 1), 0.95, dtype=torch.float64)
    end = anneal(ladder, start, 150, generator(0))
    share = float((end.x < 0).double().mean())

    def weight(x: float, b: float) -> float:
        return math.exp(-b * ((x * x - 1) ** 2 + 0.3 * x))

    shares = [quad(weight, -4, 0, (b,))[0] / quad(weight, -4, 4, (b,))[0] for b in (ladder[6].beta, beta)]
    assert shares[0] - 4.5 * math.sqrt(shares[0] * (1 - shares[0]) / 1000) < share <= shares[1] + 0.02
    stuck, _ = run([Lmc(0.004)], energy, beta, Chains.init(energy, start), 600, generator(1))
    assert float((stuck.x < 0).double().mean()) < 0.5
    for bad in ([1.0, 2.0, 3.0], [1.0], [1.0, 0.5, -1.0]):
        with pytest.raises(UsageError, match="one noise level an energy"):
            noise_levels([energy] * 3, beta, bad, 0.01)


def test_nonsense_is_refused() -> None:
    for kernel, arguments in (
        (Lmc, {"step_size": 0.0}), (Baoab, {"step_size": math.nan}), (Baoab, {"step_size": 0.1, "persistence": 1.0}),
        (Hmc, {"step_size": 0.1, "n_leapfrog": 0}), (Ghmc, {"step_size": 0.1, "persistence": -0.1}),
        (Mala, {"factor": None, "step_size": -1.0}), (Hmc, {"step_size": 0.1, "target": 1.0}),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            kernel(**arguments)
