"""`Energy`: shapes, derivatives against closed forms, counters, chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.energy import Energy
from landscape.energy.energy import GRADIENT_CHUNK, HESSIAN_CHUNK, REPEATED_POINTS
from landscape.errors import EnergyError

A = np.array([[3.0, 0.5, -0.2], [0.5, 2.0, 0.3], [-0.2, 0.3, 1.0]])


def function(x: torch.Tensor) -> torch.Tensor:
    """x A x / 2 + sum sin(x): gradient A x + cos(x), Hessian A - diag(sin(x))."""
    return 0.5 * torch.einsum("ni,ij,nj->n", x, torch.as_tensor(A).to(x), x) + torch.sin(x).sum(1)


def closed_form(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value = 0.5 * np.einsum("ni,ij,nj->n", x, A, x) + np.sin(x).sum(1)
    return value, x @ A + np.cos(x), A - np.einsum("ni,ij->nij", np.sin(x), np.eye(3))


def points(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3))


@pytest.mark.parametrize("n", [0, 1, 5, REPEATED_POINTS // 3 + 1])
def test_derivatives_equal_the_closed_form(n: int) -> None:
    energy, x = Energy(function, 3), points(n)
    value, gradient, hessian = closed_form(x)
    v = points(n, seed=1)
    both = energy.value_and_gradient(x)
    for got, wanted in (
        (energy(x), value),
        (both[0], value),
        (both[1], gradient),
        (energy.gradient(x), gradient),
        (energy.hessian(x), hessian),
        (energy.hvp(x, v), np.einsum("nij,nj->ni", hessian, v)),
    ):
        assert isinstance(got, np.ndarray) and got.dtype == np.float64 and got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def test_tensors_in_give_detached_tensors_out() -> None:
    energy, x = Energy(function, 3), torch.as_tensor(points(4)).requires_grad_(True)
    for got in (energy(x), *energy.value_and_gradient(x), energy.hvp(x, x), energy.hessian(x)):
        assert isinstance(got, torch.Tensor) and not got.requires_grad


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 2e-3)])
def test_differences_of_gradients_stand_in_for_second_derivatives(dtype: torch.dtype, tolerance: float) -> None:
    energy, x = Energy(function, 3, dtype=dtype, exact_second_derivative=False), points(6)
    hessian = closed_form(x)[2]
    v = 1e3 * points(6, seed=1)
    v[0] = 0
    product = np.einsum("nij,nj->ni", hessian, v)
    np.testing.assert_allclose(energy.hessian(x), hessian, atol=tolerance * 3)
    np.testing.assert_allclose(energy.hvp(x, v), product, atol=3e3 * tolerance)
    assert np.array_equal(energy.hvp(x, v)[0], np.zeros(3))


def test_counters_count_points_and_derivatives_apart() -> None:
    energy = Energy(function, 3)
    energy(points(2)), energy.gradient(points(3)), energy.hvp(points(5), points(5)), energy.hessian(points(7))
    assert energy.evaluations.as_dict() == {"value": 2, "gradient": 3, "hvp": 5, "hessian": 7}
    assert energy.evaluations.gradient_equivalents(3) == 2 + 3 + 2 * 5 + 2 * 3 * 7
    rough = Energy(function, 3, exact_second_derivative=False)
    rough.hvp(points(5), points(5)), rough.hessian(points(7))
    assert rough.evaluations.as_dict() == {"value": 0, "gradient": 2 * 5 + 2 * 3 * 7, "hvp": 0, "hessian": 0}


def test_no_call_gets_more_than_a_chunk() -> None:
    seen: list[int] = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return function(x)

    energy, x = Energy(watched, 3), points(GRADIENT_CHUNK + 3)
    value, gradient, _ = closed_form(x)
    np.testing.assert_allclose(energy(x), value, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(energy.gradient(x), gradient, rtol=1e-12, atol=1e-12)
    assert len(seen) == 4 and max(seen) <= GRADIENT_CHUNK and max(seen) - min(seen) <= 1, "parts of equal size"
    seen.clear()
    x = points(HESSIAN_CHUNK)
    np.testing.assert_allclose(energy.hessian(x), closed_form(x)[2], rtol=1e-12, atol=1e-12)
    assert max(seen) <= HESSIAN_CHUNK // 3 < len(x)


def test_no_derivative_is_silently_zero_in_inference_mode() -> None:
    energy, x = Energy(function, 3), torch.as_tensor(points(4))
    with torch.inference_mode():
        assert energy.value(x).shape == (4,)
        for derivative in (energy.gradient, energy.hessian, lambda x: energy.hvp(x, x)):
            with pytest.raises(EnergyError, match="inference mode"):
                derivative(x)


def test_any_array_layout_is_accepted_and_left_alone() -> None:
    energy, x = Energy(function, 3), points(6)
    wanted = closed_form(x)[0]
    frozen = x.copy()
    frozen.setflags(write=False)
    np.testing.assert_allclose(energy(frozen), wanted, rtol=1e-12)
    np.testing.assert_allclose(energy(x[::-1]), wanted[::-1], rtol=1e-12)
    np.testing.assert_allclose(energy(np.asfortranarray(x)), wanted, rtol=1e-12)
    np.testing.assert_allclose(energy(x.astype(np.float32)), wanted, rtol=1e-5)
    np.testing.assert_allclose(energy(x.tolist()), wanted, rtol=1e-12)  # type: ignore[type-var]

    def spoils_its_points(x: torch.Tensor) -> torch.Tensor:
        x *= 2
        return x.sum(1)

    before = x.copy()
    Energy(spoils_its_points, 3)(x)
    assert np.array_equal(x, before)


def test_column_output_and_a_bare_number_for_one_point_are_accepted() -> None:
    x = points(4)
    column = Energy(lambda x: function(x)[:, None], 3)
    squeezed = Energy(lambda x: function(x)[:, None].squeeze(), 3)
    for energy in (column, squeezed):
        np.testing.assert_allclose(energy.gradient(x), closed_form(x)[1], rtol=1e-12)
        np.testing.assert_allclose(energy.hessian(x[:1]), closed_form(x[:1])[2], rtol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros(3), "shape (n, 3)"),
        (np.zeros((2, 4)), "not (2, 4)"),
        ([["a", "b", "c"]], "array of numbers"),
        ([[1.0, 2.0], [3.0]], "array of numbers"),
    ],
)
def test_points_of_the_wrong_kind_are_refused(wrong: object, words: str) -> None:
    with pytest.raises(EnergyError) as caught:
        Energy(function, 3).value(wrong)  # type: ignore[type-var]
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x: x.sum(), "one number a row"),
        (lambda x: x, "to (4, 3)"),
        (lambda x: x.sum(1).numpy(), "torch tensor, but"),
        (lambda x: 1.0, "returned float"),
    ],
)
def test_functions_of_the_wrong_shape_are_refused(wrong, words: str) -> None:
    with pytest.raises(EnergyError) as caught:
        Energy(wrong, 3)(points(4))
    assert words in str(caught.value)


@pytest.mark.parametrize("dim", [0, -1, 1.5])
def test_the_dimension_is_a_whole_number(dim: float) -> None:
    with pytest.raises(EnergyError, match="whole number"):
        Energy(function, dim)  # type: ignore[arg-type]


def test_one_direction_a_point() -> None:
    with pytest.raises(EnergyError, match="one direction a point"):
        Energy(function, 3).hvp(points(4), points(3))


def test_metadata_are_read_only_and_a_copy() -> None:
    given = {"beta": 2.0}
    energy = Energy(function, 3, metadata=given)
    given["beta"] = 3.0
    assert dict(energy.metadata) == {"beta": 2.0}
    with pytest.raises(TypeError):
        energy.metadata["beta"] = 1.0  # type: ignore[index]
