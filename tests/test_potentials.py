"""Analytic energies: formulas written again in numpy, declared stationary points, the list and its grammar."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.optimize import least_squares, minimize
from scipy.stats import multivariate_normal

from landscape.energy import Energy, describe, load_energy
from landscape.energy.catalogue import POTENTIALS, parse, specification
from landscape.energy.potentials import MAKERS, CoupledChain, GaussianMixture, StationaryPoints
from landscape.errors import EnergyError

# Hessian eigenvalues at the declared points, computed elsewhere
MULLER_BROWN = [
    (410.5311346929, 4068.198955026),
    (543.8361890186, 3005.395864533),
    (221.0374728723, 1479.197022013),
    (-735.2472621114, 510.8865654725),
    (-750.8626628393, 490.2407080596),
]
TRIPLE_WELL = [
    (8.472211868407, 13.55774076068),
    (8.472211868407, 13.55774076068),
    (3.798386879729, 9.27235338458),
    (-5.356906312071, 6.281133260592),
    (-5.356906312071, 6.281133260592),
    (-10.47801293858, 4.914885555724),
    (-9.807329194388, -5.349853931593),
]
DECLARING = [
    "muller-brown", "triple-well", "double-well", "quadratic:d=3,kappa=2.5",
    *(f"coupled-chain:n={n},g={g}" for n in (2, 3, 4, 5) for g in (0.0, 0.1, 0.45, 0.6, 1.01, 3.0)),
]  # fmt: skip


def points_of(energy: Energy) -> StationaryPoints:
    known = energy.function.stationary_points()  # type: ignore[attr-defined]
    assert isinstance(known, StationaryPoints)
    return known


@pytest.mark.parametrize("spec", DECLARING)
def test_declared_points_are_stationary_with_energy_and_index(spec: str) -> None:
    energy = load_energy(f"potential:{spec}")
    known = points_of(energy)
    curvature = np.linalg.eigvalsh(energy.hessian(known.x))
    stiffness = np.abs(curvature).max()
    np.testing.assert_allclose(energy.gradient(known.x), 0, atol=stiffness * max(known.tolerance, 1e-14))
    np.testing.assert_allclose(energy(known.x), known.energy, atol=max(known.tolerance, 1e-14))
    assert (curvature < -1e-12).sum(1).tolist() == known.index.tolist()
    if known.complete:
        assert ((-1.0) ** known.index).sum() == 1  # Morse: these energies confine


@pytest.mark.parametrize(("spec", "table"), [("muller-brown", MULLER_BROWN), ("triple-well", TRIPLE_WELL)])
def test_curvatures_at_the_declared_points(spec: str, table: list[tuple[float, float]]) -> None:
    energy = load_energy(f"potential:{spec}")
    known = points_of(energy)
    assert known.complete and len(known.x) == len(table)
    np.testing.assert_allclose(np.linalg.eigvalsh(energy.hessian(known.x)), table, rtol=1e-9)


def test_muller_brown_overflows_to_infinity_and_nothing_else() -> None:
    energy = load_energy("potential:muller-brown")
    assert energy(np.array([[60.0, 60.0], [-80.0, 40.0]])).tolist() == [np.inf, np.inf]


@pytest.mark.parametrize(("n", "g"), [(2, 0.4), (3, 0.275), (4, 1.01), (7, 0.3)])
def test_coupled_chain(n: int, g: float) -> None:
    x = np.random.default_rng(0).standard_normal((5, n))
    wanted = [
        sum(v**4 / 4 - v * v / 2 for v in row) + g / 4 * sum((row[(i + 1) % n] - row[i]) ** 2 for i in range(n))
        for row in x.tolist()
    ]
    np.testing.assert_allclose(load_energy(f"potential:coupled-chain:n={n},g={g}")(x), wanted, rtol=1e-12)


@pytest.mark.parametrize(("n", "g"), [(3, 2 / 3), (4, 1.0)])
def test_the_chain_knows_that_its_origin_is_degenerate(n: int, g: float) -> None:
    known = CoupledChain(n, g).stationary_points()
    assert not known.complete and known.index.tolist() == [0, 0, 1]
    hessian = load_energy(f"potential:coupled-chain:n={n},g={g!r}").hessian(np.zeros((1, n)))[0]
    assert np.abs(np.linalg.eigvalsh(hessian)).min() < 1e-12


def test_the_chain_is_complete_once_synchronised_and_not_before() -> None:
    assert CoupledChain(3, 0.675).stationary_points().complete
    assert not CoupledChain(3, 0.275).stationary_points().complete
    assert CoupledChain(4, 1.01).stationary_points().complete
    assert not CoupledChain(4, 0.99).stationary_points().complete


def test_double_well_and_quadratic() -> None:
    x = np.array([[-1.3], [0.2], [2.0]])
    np.testing.assert_allclose(load_energy("potential:double-well")(x), (x**4 / 4 - x**2 / 2)[:, 0], rtol=1e-13)
    y = np.random.default_rng(0).standard_normal((4, 5))
    np.testing.assert_allclose(load_energy("potential:quadratic:d=5,kappa=0.3")(y), 0.15 * (y * y).sum(1), rtol=1e-13)


def test_lennard_jones_seven() -> None:
    """The pentagonal bipyramid relaxed with scipy: energy and vibrational spectrum of the published global minimum."""
    energy = load_energy("potential:lennard-jones")
    angle = 2 * np.pi * np.arange(5) / 5
    ring = np.stack([0.95 * np.cos(angle), 0.95 * np.sin(angle), np.zeros(5)], 1)
    start = np.vstack([ring, [[0, 0, 0.55], [0, 0, -0.55]]]).ravel()
    found = minimize(
        lambda x: float(energy(x[None])[0]), start, jac=lambda x: energy.gradient(x[None])[0], method="BFGS",
        options={"gtol": 1e-9},
    )  # fmt: skip
    assert found.fun == pytest.approx(-16.505384168, abs=1e-8)
    # a line search ends at the rounding of E; the root of the gradient is known to more digits
    settled = least_squares(lambda x: energy.gradient(x[None])[0], found.x, method="lm", xtol=1e-15)
    curvature = np.linalg.eigvalsh(energy.hessian(settled.x[None])[0])
    assert (np.abs(curvature) < 1e-6).sum() == 6 and energy.zero_modes
    assert np.log(curvature[6:]).sum() == pytest.approx(69.94764309, abs=1e-6)
    pairs = [(i, j) for i in range(7) for j in range(i)]
    r = [math.dist(start.reshape(7, 3)[i], start.reshape(7, 3)[j]) for i, j in pairs]
    assert energy(start[None])[0] == pytest.approx(sum(4 * (s**-12 - s**-6) for s in r), rel=1e-12)


@pytest.mark.parametrize(("k", "seed"), [(1, 0), (3, 0), (4, 7)])
def test_gaussian_mixture_is_normalised_and_separated(k: int, seed: int) -> None:
    energy = load_energy(f"potential:gaussian-mixture:d=2,k={k},seed={seed}")
    mixture = energy.function
    assert isinstance(mixture, GaussianMixture)
    centers = mixture.centers.numpy()
    apart = [np.linalg.norm(a - b) for i, a in enumerate(centers) for b in centers[:i]]
    assert not apart or min(apart) >= GaussianMixture.SEPARATION
    density = np.zeros(4)
    x = centers[0] + np.random.default_rng(1).standard_normal((4, 2))
    for weight, center, factor in zip(mixture.weights, centers, mixture.factors.numpy(), strict=True):
        cholesky = np.tril(factor, -1) + np.diag(np.exp(np.diag(factor)))
        covariance = np.linalg.inv(cholesky @ cholesky.T)
        assert np.all((np.linalg.eigvalsh(covariance) > 0.48) & (np.linalg.eigvalsh(covariance) < 1.7))
        density += weight * multivariate_normal(center, covariance).pdf(x)
    np.testing.assert_allclose(energy(x), -np.log(density), rtol=1e-9)
    # as many minima as components, each within a tenth of its centre
    for center in centers:
        found = minimize(lambda x: float(energy(x[None])[0]), center, jac=lambda x: energy.gradient(x[None])[0])
        assert np.linalg.norm(found.x - center) < 0.1


def test_gaussian_mixture_integrates_to_one() -> None:
    energy = load_energy("potential:gaussian-mixture:d=2,k=2,seed=3")
    total, _ = dblquad(lambda y, x: math.exp(-energy(np.array([[x, y]]))[0]), -9, 9, -9, 9, epsabs=1e-4, epsrel=1e-4)
    assert total == pytest.approx(1.0, abs=1e-3)


def test_a_seed_names_one_mixture() -> None:
    x = np.zeros((1, 2))
    values = [load_energy(f"potential:gaussian-mixture:seed={seed}")(x)[0] for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_every_listed_potential_loads_with_its_defaults() -> None:
    listed = describe()
    assert [info.name for info in listed] == list(POTENTIALS) == list(MAKERS)
    for info in listed:
        energy = load_energy(info.usage)
        assert energy.notes == [] and energy.sha256 is not None
        assert energy.sha256 == load_energy(f"potential:{info.name}").sha256


def test_the_list_needs_no_torch() -> None:
    code = "import sys; from landscape.energy.catalogue import describe; print(len(describe()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(POTENTIALS)), "False"]


def test_parameters_are_parsed_and_defaults_filled_in() -> None:
    assert parse("potential:coupled-chain") == ("coupled-chain", {"n": 4, "g": 0.3})
    assert parse("potential:coupled-chain: g = 1e-1 , n=3") == ("coupled-chain", {"n": 3, "g": 0.1})
    name, values = parse("potential:quadratic:d=2")
    assert parse(specification(name, values)) == (name, {"d": 2, "kappa": 1.0})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("muler-brown", "did you mean muller-brown?"),
        ("", "known: muller-brown"),
        ("nothing-like-it", "known: muller-brown"),
        ("muller-brown:n=3", "takes no parameters"),
        ("coupled-chain:N=3", "'N=3' is not a parameter; coupled-chain takes n, g"),
        ("coupled-chain:n", "takes n, g as key=value"),
        ("coupled-chain:n=3,n=4", "n is given twice"),
        ("coupled-chain:n=1", "n is a whole number from 2"),
        ("coupled-chain:n=2.5", "whole number"),
        ("coupled-chain:g=-1", "g is a number from 0"),
        ("coupled-chain:g=nan", "not 'nan'"),
        ("coupled-chain:g=inf", "not 'inf'"),
        ("coupled-chain:g=", "not ''"),
        ("quadratic:kappa=0", "kappa is a number"),
        ("gaussian-mixture:d=100000", "d is a whole number from 1 to 200"),
        ("lennard-jones:n=1", "n is a whole number from 2"),
    ],
)
def test_a_wrong_specification_is_one_clear_line(spec: str, words: str) -> None:
    with pytest.raises(EnergyError) as caught:
        load_energy(f"potential:{spec}")
    message = str(caught.value)
    assert words in message and "\n" not in message and caught.value.exit_code == 2
