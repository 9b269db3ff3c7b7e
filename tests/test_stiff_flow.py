"""The gradient flow where it is stiff: against exponentials, and integrators for stiff systems at tight tolerances."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.stats import ortho_group

from landscape.energy.energy import Energy
from landscape.energy.potentials import MullerBrown, TripleWell
from landscape.search import Basins, FlowOptions, Status, assign_basins, make_basins
from landscape.search.driver import in_one_batch
from landscape.search.flow import gradient_flow
from landscape.search.stiff_flow import StiffStep, phi_1, phi_3, stiff_step
from landscape.search.traces import traced_flow


def distance_to(polyline: np.ndarray, points: np.ndarray) -> np.ndarray:
    """From each point (m, d) to a polyline (k, d)."""
    start, along = polyline[:-1], np.diff(polyline, axis=0)
    square = np.maximum((along**2).sum(1), 1e-300)
    part = np.clip(((points[:, None] - start) * along).sum(2) / square, 0, 1)
    return np.linalg.norm(points[:, None] - start - part[:, :, None] * along, axis=2).min(1)


@pytest.mark.parametrize("eigenvalues", [(1.0, 30.0, 600.0, 1e4), (-1.0, 3.0, 100.0, 1e4)])
def test_linear_flows_of_condition_10000(eigenvalues) -> None:
    """To a minimum and past a saddle: traces lie on exp(-H t) x0, and that on the traces, in fewer than 150 steps.

    An explicit pair, stable up to h = 2.5e-4, needs some 30,000. The traces keep 64 points: what lies between two of
    them bends away by no more than their distance allows.
    """
    turn = ortho_group.rvs(4, random_state=0)
    hessian = turn @ np.diag(eigenvalues) @ turn.T
    matrix = torch.as_tensor(hessian)
    energy = Energy(lambda x: 0.5 * torch.einsum("ni,ij,nj->n", x, matrix, x), 4)
    modes = np.array([[0.9, -0.8, 0.7, 0.5], [0.5, 0.9, -0.6, -0.9], [-0.9, 0.0, 0.8, 0.01]])
    ends, radius = np.zeros((1, 4)), 1e-3
    if eigenvalues[0] < 0:
        modes[:, 0] *= 1e-2
        ends, radius = np.outer([-4.0, 4.0], turn[:, 0]), 2.0
    start = modes @ turn.T
    basins = Basins(torch.as_tensor(ends), torch.full((len(ends),), radius, dtype=torch.float64), 1.0)
    options = FlowOptions(max_iterations=150)
    ended = traced_flow(energy, torch.as_tensor(start), basins, options)
    assert (ended["status"] == Status.CAPTURED).all()
    assert int(ended["iterations"].max()) < 150
    for x, trace in zip(start, ended["trace"].numpy(), strict=True):
        times = np.concatenate([[0], np.geomspace(1e-7, 14, 1500)])
        exact = np.stack([expm(-hessian * t) @ x for t in times])
        assert distance_to(exact, trace).max() < 5 * options.tolerance
        before = exact[: np.linalg.norm(exact - trace[-1], axis=1).argmin()]
        spacing = np.linalg.norm(np.diff(trace, axis=0), axis=1).max()
        assert distance_to(trace, before).max() < 0.5 * spacing + 5 * options.tolerance


def test_points_recorded_on_the_way_lie_on_the_flow() -> None:
    """Every step's way in a curved stiff valley, against Radau: within three tolerances of the flow."""
    energy = valley()
    known = TripleWell().stationary_points()
    x = known.x[known.index == 0]
    basins = make_basins(energy, lifted(x), torch.Generator().manual_seed(0))
    start = torch.tensor([[0.05, 0.9, 0.6], [-1.6, 1.2, -0.5]], dtype=torch.float64)
    for row in start:
        way: list[np.ndarray] = []

        def record(rows: torch.Tensor, state: dict[str, torch.Tensor], way: list[np.ndarray] = way) -> None:
            way.extend(state["interior"][state["through"]].numpy())

        ended = gradient_flow(energy, row[None], basins, observe=record)
        assert ended["status"][0] == Status.CAPTURED and len(way) >= 3
        flow = solve_ivp(
            lambda t, x: -energy.gradient(x[None])[0], (0, 40), row.numpy(), method="Radau", rtol=1e-6, atol=1e-8,
            jac=lambda t, x: -energy.hessian(x[None])[0], dense_output=True,
        )  # fmt: skip
        exact = flow.sol(np.concatenate([[0], np.geomspace(1e-5, 40, 1500)])).T
        assert distance_to(exact, np.concatenate(way)).max() < 3 * 1e-3 * basins.scale


def valley() -> Energy:
    """The triple well on the stiff curved floor z = sin(2 x) / 2 of a third dimension; condition numbers of 300."""
    well = TripleWell()
    return Energy(lambda x: well(x[:, :2]) + 500 * (x[:, 2] - 0.5 * torch.sin(2 * x[:, 0])).square(), 3)


def lifted(x: np.ndarray) -> np.ndarray:
    return np.column_stack([x, 0.5 * np.sin(2 * x[:, 0])])


def test_labels_in_a_stiff_valley_agree_with_lsoda() -> None:
    """300 points, as one banded system: at most two, within the tolerance of a separatrix, may differ.

    A wrong flow fails: to go down to the nearest floor along z and then within it mislabels more than that.
    """
    energy = valley()
    known = TripleWell().stationary_points()
    minima = lifted(known.x[known.index == 0])
    basins = make_basins(energy, minima, torch.Generator().manual_seed(0))
    points = np.random.default_rng(0).uniform((-1.8, -0.8, -1.5), (1.8, 2.0, 1.5), (300, 3))
    flow = solve_ivp(
        lambda t, x: -energy.gradient(x.reshape(-1, 3)).ravel(), (0, 10), points.ravel(), method="LSODA",
        rtol=1e-6, atol=1e-7, lband=2, uband=2,
    )  # fmt: skip
    end = flow.y[:, -1].reshape(-1, 3)
    expected = np.linalg.norm(minima[:, None] - end, axis=2).argmin(0)
    before = energy.evaluations.hessian
    labels = assign_basins(energy, points, basins)
    assert energy.evaluations.hessian > before  # the stiff steps were at work
    assert set(expected) == {0, 1, 2}
    assert (labels != expected).sum() <= 2
    flat = Energy(TripleWell(), 2)
    floor = make_basins(flat, minima[:, :2], torch.Generator().manual_seed(0))
    assert (assign_basins(flat, points[:, :2], floor) != expected).sum() > 3


def one_step(energy: Energy, *arguments: torch.Tensor) -> StiffStep:
    return in_one_batch(energy, stiff_step(energy, *arguments))[0]


def test_a_step_is_of_third_order() -> None:
    """Error of one step on Mueller-Brown against DOP853: 2^4 times smaller for half the time."""
    energy = Energy(MullerBrown(), 2)
    x = torch.tensor([[-0.9, 1.1], [0.3, 0.5], [0.9, 0.3]], dtype=torch.float64)
    value, gradient = energy.value_and_gradient(x)
    much = torch.full((3,), 1e9, dtype=torch.float64)
    errors = []
    for h in (1e-4, 5e-5, 2.5e-5):
        step = one_step(energy, x, value, gradient, torch.full_like(much, h), much, much)
        assert (step.dt == h).all()
        exact = [
            solve_ivp(lambda t, y: -energy.gradient(y[None])[0], (0, h), row, method="DOP853", rtol=1e-12, atol=1e-14)
            for row in x.numpy()
        ]
        errors.append(np.linalg.norm(step.x.numpy() - np.stack([flow.y[:, -1] for flow in exact]), axis=1))
    order = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (order[-1] > 3.6).all() and (order[-1] < 4.4).all()


def test_phi_functions() -> None:
    """Against mpmath with 40 digits, on both sides of zero and of the switch to the series."""
    t, c = 0.37, np.array([-60.0, -3.0, -2.6, -1e-3, -1e-9, 0.0, 1e-12, 1e-5, 0.4, 2.6, 2.8, 90.0, 1e6])
    ours = [phi(torch.tensor(t, dtype=torch.float64), torch.as_tensor(c)).numpy() for phi in (phi_1, phi_3)]
    with mpmath.workdps(40):
        z = [-mpmath.mpf(t) * mpmath.mpf(float(value)) for value in c]
        # phi_k(z) = 1F1(1; k + 1; z) / k!
        for k, found in zip((1, 3), ours, strict=True):
            exact = [float(t * mpmath.hyp1f1(1, k + 1, part) / mpmath.factorial(k)) for part in z]
            np.testing.assert_allclose(found, exact, rtol=1e-12)


def test_a_step_onto_a_well_that_the_model_does_not_know_is_refused() -> None:
    """The force vanishes where the model ends, at the bottom of a narrow well, but the energy is not as foretold."""
    energy = Energy(lambda x: 0.5 * x[:, 0] ** 2 - 0.05 * torch.exp(-((x[:, 0] / 0.05) ** 2)), 1)
    x, far = torch.tensor([[0.4]], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    value, gradient = energy.value_and_gradient(x)
    step = one_step(energy, x, value, gradient, 60 * far, 1e-3 * far, far)
    assert abs(float(step.x)) < 1e-6 and not step.accepted and float(step.next_dt) < float(step.dt)
    smooth = Energy(lambda x: 0.5 * x[:, 0] ** 2, 1)
    value, gradient = smooth.value_and_gradient(x)
    assert one_step(smooth, x, value, gradient, 60 * far, 1e-3 * far, far).accepted
    short = one_step(smooth, x, value, gradient, 60 * far, 1e-3 * far, 0.1 * far)
    assert short.accepted and 0.05 <= float((short.x - x).abs()) <= 0.1


def test_rows_without_a_hessian_stay() -> None:
    """|x|^(3/2) has a gradient but no second derivative at 0; the other row, in the same batch, moves."""
    energy = Energy(lambda x: x.abs().pow(1.5).sum(1), 2)
    x = torch.tensor([[0.0, 1.0], [0.5, 1.0]], dtype=torch.float64)
    one = torch.ones(2, dtype=torch.float64)
    value, gradient = energy.value_and_gradient(x)
    step = one_step(energy, x, value, gradient, 0.1 * one, 0.1 * one, one)
    assert step.usable.tolist() == step.accepted.tolist() == [False, True]
    assert torch.equal(step.x[0], x[0]) and float(step.energy[1]) < float(value[1])


def test_a_flow_into_a_saddle_and_along_a_flat_valley_comes_to_rest() -> None:
    """Stiff, and by symmetry exactly into the saddle at 0; and onto a ring of minima, where nothing singles one out."""
    nowhere = torch.tensor([[3.0, 3.0]], dtype=torch.float64)
    basins = Basins(nowhere, torch.zeros(1, dtype=torch.float64), 1.0)
    saddle = Energy(lambda x: 200 * x[:, 0] ** 2 + x[:, 1] ** 2 - 0.2 * x[:, 1] ** 2 * (4 + x[:, 0]), 2)
    ended = gradient_flow(saddle, torch.tensor([[0.5, 0.0], [0.01, 0.3]], dtype=torch.float64), basins)
    assert (ended["status"] == Status.CONVERGED).all()
    assert float(ended["x"].norm(dim=1).max()) < 1e-4
    ring = Energy(lambda x: 1e3 * (x.square().sum(1) - 1).square(), 2)
    start = torch.tensor([[0.2, 0.3], [1.5, -0.4]], dtype=torch.float64)
    ended = gradient_flow(ring, start, basins)
    assert (ended["status"] == Status.CONVERGED).all()
    torch.testing.assert_close(ended["x"], start / start.norm(dim=1, keepdim=True), atol=2e-3, rtol=0)
