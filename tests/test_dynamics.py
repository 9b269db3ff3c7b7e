"""Parameters of the dynamics and the unstable rate, against dense eigenvalues, high-precision roots and limits."""

import json
import os
from pathlib import Path
from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape.dynamics import Dynamics, Overdamped, Underdamped, from_metadata
from landscape.errors import UsageError

PAPER = Path(os.environ.get("LANDSCAPE_PAPER_MODELS", Path(__file__).parents[2] / "shared" / "paper_models"))


def saddle_hessian(rng: np.random.Generator, d: int, spread: float = 10.0) -> np.ndarray:
    q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    eigenvalues = np.exp(rng.uniform(-np.log(spread), np.log(spread), d))
    eigenvalues[0] *= -1
    return (q * eigenvalues) @ q.T


def dense_rate(hessian: np.ndarray, gamma: np.ndarray, mass: np.ndarray | None) -> float:
    """The largest real part among the eigenvalues of the full linearised drift."""
    if mass is None:
        return float(np.linalg.eigvals(-hessian / gamma[:, None]).real.max())
    zero = np.zeros_like(hessian)
    drift = np.block([[zero, np.diag(1 / mass)], [-hessian, -np.diag(gamma / mass)]])
    return float(np.linalg.eigvals(drift).real.max())


@pytest.mark.parametrize("d", [1, 2, 3, 10])
def test_unstable_rate_agrees_with_dense_eigenvalues(d: int) -> None:
    rng = np.random.default_rng(d)
    for _ in range(20):
        hessians = np.stack([saddle_hessian(rng, d) for _ in range(3)])
        gamma, mass = np.exp(rng.uniform(-1, 1, (2, d)))
        for dynamics, m in ((Overdamped(1.0, gamma), None), (Underdamped(1.0, gamma, mass), mass)):
            expected = [dense_rate(h, gamma, m) for h in hessians]
            np.testing.assert_allclose(dynamics.unstable_rate(hessians), expected, rtol=1e-11)
            np.testing.assert_allclose(dynamics.unstable_rate(hessians[1]), expected[1], rtol=1e-11)
            np.testing.assert_allclose(dynamics.log_unstable_rate(hessians), np.log(expected), atol=1e-11)


@pytest.mark.parametrize("gamma", [1e-12, 1e-3, 1.0, 1e3, 1e9, 1e150])
@pytest.mark.parametrize("mass", [1e-9, 1.0, 1e6])
def test_one_dimension_loses_no_digits_at_any_friction(gamma: float, mass: float) -> None:
    curvature = -0.7
    with mpmath.workdps(400):
        half = mpmath.mpf(gamma) / (2 * mpmath.mpf(mass))
        exact = float(mpmath.sqrt(half**2 - mpmath.mpf(curvature) / mpmath.mpf(mass)) - half)
    dynamics = Underdamped(1.0, gamma, mass)
    assert dynamics.unstable_rate(np.array([[curvature]])) == pytest.approx(exact, rel=1e-14)
    assert dynamics.unstable_rate_of_eigenvalue(curvature) == pytest.approx(exact, rel=1e-14)
    np.testing.assert_allclose(dynamics.unstable_rate_of_eigenvalue([curvature, curvature]), exact, rtol=1e-14)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(-8, 8), st.floats(-8, 8), st.floats(0, 6))
def test_underdamped_root_in_high_precision(seed: int, log_gamma: float, log_mass: float, spread: float) -> None:
    """det(mu^2 M + mu gamma + H) changes sign within a relative 1e-10 of mu, for frictions and masses 1e6 apart."""
    rng = np.random.default_rng(seed)
    hessian = saddle_hessian(rng, 3)
    gamma = 10**log_gamma * 10 ** rng.uniform(-spread / 2, spread / 2, 3)
    mass = 10**log_mass * 10 ** rng.uniform(-spread / 2, spread / 2, 3)
    rate = Underdamped(1.0, gamma, mass).unstable_rate(hessian)
    with mpmath.workdps(60):

        def determinant(factor: str) -> mpmath.mpf:
            mu = mpmath.mpf(rate) * mpmath.mpf(factor)
            diagonal = [mu * mu * mpmath.mpf(m) + mu * mpmath.mpf(g) for m, g in zip(mass, gamma, strict=True)]
            return mpmath.det(mpmath.matrix(hessian.tolist()) + mpmath.diag(diagonal))

        # The determinant is negative below the root and positive above it, and mu is the only positive root.
        assert determinant("0.9999999999") < 0 < determinant("1.0000000001")


def test_underdamped_tends_to_overdamped_at_high_friction() -> None:
    rng = np.random.default_rng(5)
    hessian, gamma = saddle_hessian(rng, 4), np.array([0.5, 1.0, 2.0, 3.0])
    for scale in (1e3, 1e6):
        slow = Underdamped(1.0, scale * gamma, 1.0).unstable_rate(hessian)
        # The next term of the expansion is of relative order |H| m / gamma^2.
        assert slow == pytest.approx(Overdamped(1.0, scale * gamma).unstable_rate(hessian), rel=100 / scale**2 + 1e-13)


def test_rate_of_eigenvalue_agrees_with_the_hessian_and_refuses_anisotropy() -> None:
    hessian = saddle_hessian(np.random.default_rng(2), 3)
    lowest = float(np.linalg.eigvalsh(hessian)[0])
    for dynamics in (Overdamped(2.0, 0.3), Underdamped(2.0, 0.3, [1.7, 1.7, 1.7])):
        assert dynamics.unstable_rate_of_eigenvalue(lowest) == pytest.approx(dynamics.unstable_rate(hessian), rel=1e-12)
    with pytest.raises(UsageError, match="gamma differs"):
        Overdamped(1.0, [1.0, 2.0]).unstable_rate_of_eigenvalue(-1.0)
    with pytest.raises(UsageError, match="mass differs"):
        Underdamped(1.0, 1.0, [1.0, 2.0]).unstable_rate_of_eigenvalue(-1.0)
    with pytest.raises(UsageError, match="negative"):
        Overdamped().unstable_rate_of_eigenvalue(0.5)


def test_unstable_direction_is_the_growing_mode() -> None:
    rng = np.random.default_rng(8)
    hessian, gamma, mass = saddle_hessian(rng, 3), np.array([0.1, 1.0, 5.0]), np.array([2.0, 1.0, 0.2])
    for dynamics, m in ((Overdamped(1.0, gamma), 0 * mass), (Underdamped(1.0, gamma, mass), mass)):
        v, mu = dynamics.unstable_direction(hessian), dynamics.unstable_rate(hessian)
        assert np.linalg.norm(v) == pytest.approx(1)
        np.testing.assert_allclose(mu**2 * m * v + mu * gamma * v + hessian @ v, 0, atol=1e-9)


@pytest.mark.parametrize(
    ("hessian", "match"),
    [
        (np.diag([1.0, 2.0]), "0 negative"),
        (np.diag([-1.0, -2.0]), "2 negative"),
        (np.array([[-1.0, 1.0], [0.0, 1.0]]), "symmetric"),
        (np.diag([-1.0, np.nan]), "finite"),
        (np.ones(3), "shape"),
    ],
)
def test_unstable_rate_refuses(hessian: np.ndarray, match: str) -> None:
    for dynamics in (Overdamped(), Underdamped()):
        with pytest.raises(UsageError, match=match):
            dynamics.unstable_rate(hessian)


def test_noise_scale_and_collision_rate() -> None:
    gamma = np.array([2.0, 8.0])
    np.testing.assert_allclose(Overdamped(0.25, gamma).noise_scale(2), [2.0, 1.0])
    np.testing.assert_allclose(Underdamped(4.0, gamma, 3.0).noise_scale(2), [1.0, 2.0])
    np.testing.assert_allclose(Underdamped(4.0, gamma, [1.0, 4.0]).collision_rate(2), [2.0, 2.0])
    assert Overdamped().collision_rate(2) is None
    assert Overdamped().mass_vector(2) is None
    np.testing.assert_array_equal(Overdamped(1.0, 3.0).gamma_vector(2), [3.0, 3.0])


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), [1.0, -2.0], [], [[1.0]], "heavy", None])
def test_parameters_are_finite_and_positive(bad: Any) -> None:
    for make in (lambda: Overdamped(1.0, bad), lambda: Underdamped(1.0, 1.0, bad), lambda: Overdamped(bad)):
        with pytest.raises(UsageError):
            make()


def test_vectors_have_one_value_a_coordinate() -> None:
    with pytest.raises(UsageError, match="beta is one number"):
        Overdamped(np.array([1.0, 2.0]))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="gamma has 2 values, but the energy has 3"):
        Overdamped(1.0, [1.0, 2.0]).unstable_rate(np.diag([-1.0, 1.0, 1.0]))
    assert Overdamped(1.0, np.array([1.0, 2.0])) == Overdamped(1.0, (1.0, 2.0))
    assert hash(Underdamped(1.0, [1.0, 2.0])) == hash(Underdamped(1.0, np.array([1, 2])))


def test_from_metadata_flag_before_file_before_default() -> None:
    dynamics, origins = from_metadata({}, 2)
    assert dynamics == Overdamped(1.0, 1.0)
    assert origins == {"dynamics": "default", "beta": "default", "gamma": "default"}
    saved = {"dynamics": "underdamped", "beta": 2.0, "gamma": [1.0, 3.0], "mass": [2.0, 2.0], "units": "kT"}
    dynamics, origins = from_metadata(saved, 2, beta=5)
    assert dynamics == Underdamped(5.0, (1.0, 3.0), (2.0, 2.0))
    assert origins == {"dynamics": "file", "beta": "flag", "gamma": "file", "mass": "file"}
    dynamics, origins = from_metadata(saved, 2, kind="overdamped", gamma=[4.0, 4.0])
    assert dynamics == Overdamped(2.0, (4.0, 4.0))
    assert origins == {"dynamics": "flag", "beta": "file", "gamma": "flag"}
    dynamics, origins = from_metadata({"dynamics": None, "mass": None}, 1, kind="underdamped")
    assert dynamics == Underdamped()
    assert origins["mass"] == "default"


@pytest.mark.parametrize(
    ("metadata", "arguments", "match"),
    [
        ({}, {"mass": 2.0}, "no mass"),
        ({"dynamics": "underdamped"}, {"kind": "overdamped", "mass": 2.0}, "no mass"),
        ({"dynamics": "brownian"}, {}, r"'brownian' \(from the file\)"),
        ({}, {"gamma": [1.0, 2.0, 3.0]}, "3 values, but the energy has 2"),
        ({"dynamics": "underdamped", "mass": [1.0]}, {}, "mass has 1 values"),
        ({}, {"beta": -1.0}, r"beta is finite and greater than 0, not -1 \(from the flag\)"),
        ({"gamma": "thick"}, {}, r"'thick' \(from the file\)"),
    ],
)
def test_from_metadata_refuses(metadata: dict, arguments: dict, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        from_metadata(metadata, 2, **arguments)


@pytest.mark.skipif(not PAPER.is_dir(), reason="published models not found")
def test_published_models_unstable_rates() -> None:
    """mu of every saddle of the overdamped models (gamma = 1): the independent oracle's value from its eigenvalues."""
    checked = 0
    for file in sorted(PAPER.glob("*/oracle_*.json")):
        oracle = json.loads(file.read_text())
        gamma = np.array(oracle["gamma"])
        if oracle["dynamics"] != "overdamped":
            continue
        dynamics: Dynamics = Overdamped(oracle["beta"], gamma)
        for saddle in oracle["saddles"]:
            rate = dynamics.unstable_rate_of_eigenvalue(min(saddle["hessian_eigenvalues"]))
            assert rate == pytest.approx(saddle["unstable_rate"], rel=1e-5)
            checked += 1
    assert checked >= 6
