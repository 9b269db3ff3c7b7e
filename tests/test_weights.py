"""Basin weights against quadrature, published tables and exact symmetry; errors calibrated; stuck chains say so."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.integrate import quad

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.weights import (
    SampledResult,
    SampledWeights,
    lowest_saddles,
    sample_weights,
    second_order,
    sublevel_basins,
    zeroth_order,
)

TRIPLE_WELL = np.array([[-1.048054992824, -0.04209366630668], [1.048054992824, -0.04209366630668], [0, 1.537082004449]])
MUELLER_BROWN = np.array(
    [[-0.558223634633, 1.441725841805], [0.6234994049309, 0.02803775852869], [-0.05001082299821, 0.466694104872]]
)


def triple_well(z: torch.Tensor) -> torch.Tensor:
    x, y = z[:, 0], z[:, 1]
    upper = 3 * torch.exp(-(x**2) - (y - 1 / 3) ** 2) - 3 * torch.exp(-(x**2) - (y - 5 / 3) ** 2)
    deep = -5 * torch.exp(-((x - 1) ** 2) - y**2) - 5 * torch.exp(-((x + 1) ** 2) - y**2)
    return upper + deep + x**4 / 5 + (y - 1 / 3) ** 4 / 5


def mueller_brown(z: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(len(z), dtype=z.dtype)
    for size, a, b, c, x, y in (
        (-200, -1, 0, -10, 1, 0), (-100, -1, 0, -10, 0, 0.5), (-170, -6.5, 11, -6.5, -0.5, 1.5),
        (15, 0.7, 0.6, 0.7, -1, 1),
    ):  # fmt: skip
        dx, dy = z[:, 0] - x, z[:, 1] - y
        total = total + size * torch.exp(a * dx**2 + b * dx * dy + c * dy**2)
    return total


def tilted_double_well(z: torch.Tensor) -> torch.Tensor:
    return 6 * (z[:, 0] ** 4 / 4 - z[:, 0] ** 2 / 2 + 0.15 * z[:, 0])


TILTED = np.sort(np.roots([1, 0, -1, 0.15]).real)  # left minimum, maximum, right minimum


def tilted_value(x: float) -> float:
    return 6 * (x**4 / 4 - x**2 / 2 + 0.15 * x)


def tilted_mass(left: float, right: float) -> float:
    total = quad(lambda x: np.exp(-tilted_value(x)), -6, 6, epsabs=1e-13, limit=200)[0]
    return quad(lambda x: np.exp(-tilted_value(x)), left, right, epsabs=1e-13, limit=200)[0] / total


def left_or_right(x: torch.Tensor) -> torch.Tensor:
    return (x[:, 0] > TILTED[1]).long()


def flow_labels(
    energy: Energy, minima: np.ndarray, step: float, capture: float
) -> Callable[[torch.Tensor], np.ndarray]:
    """The gradient flow followed by arc length with the midpoint rule, until it is close to a minimum."""
    wells = torch.as_tensor(minima)

    def direction(x: torch.Tensor) -> torch.Tensor:
        gradient = energy.gradient(x)
        return -gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def assign(points: torch.Tensor) -> np.ndarray:
        x, label = points.clone(), torch.full((len(points),), -1)
        running = torch.arange(len(x))
        for _ in range(int(20 / step)):
            distance, nearest = torch.cdist(x[running], wells).min(1)
            label[running[distance < capture]] = nearest[distance < capture]
            running = running[distance >= capture]
            if not len(running):
                break
            middle = x[running] + 0.5 * step * direction(x[running])
            x[running] = x[running] + step * direction(middle)
        return label.numpy()

    return assign


def sample(
    energy: Energy, minima: np.ndarray, beta: float, assign: Callable, seed: int = 0, **settings: Any
) -> SampledResult:
    config = SampledWeights(**settings)
    return sample_weights(
        energy, minima, energy.hessian(minima), beta, assign, config, torch.Generator().manual_seed(seed)
    )


def tilted(seed: int = 0, **settings: Any) -> SampledResult:
    return sample(Energy(tilted_double_well, 1), TILTED[[0, 2], None], 1.0, left_or_right, seed, **settings)


@pytest.mark.parametrize(
    ("minima", "energies", "eigenvalues", "beta", "zeroth", "second"),
    [
        ("triple well", [-3.994860601854] * 2 + [-2.172153622994],
         [(8.472211868407, 13.55774076068)] * 2 + [(3.798386879729, 9.27235338458)], 1.67,
         {2: 0.023269}, {2: 0.041249}),
        ("triple well", [-3.994860601854] * 2 + [-2.172153622994],
         [(8.472211868407, 13.55774076068)] * 2 + [(3.798386879729, 9.27235338458)], 4.0, {2: 3.41e-4}, {2: 6.15e-4}),
        ("Mueller-Brown", [-146.69951721, -108.1667241169, -80.76781812966],
         [(410.5311346929, 4068.198955026), (543.8361890186, 3005.395864533), (221.0374728723, 1479.197022013)], 0.02,
         {0: 0.578, 1: 0.267, 2: 0.155}, {0: 0.483, 1: 0.226, 2: 0.292}),
    ],
)  # fmt: skip
def test_harmonic_weights_table(
    minima: str, energies: list, eigenvalues: list, beta: float, zeroth: dict, second: dict
) -> None:
    log_dets = np.log(np.array(eigenvalues)).sum(1)
    for weights, table in (
        (zeroth_order(np.array(energies), beta), zeroth),
        (second_order(np.array(energies), log_dets, beta), second),
    ):
        for state, value in table.items():
            digit = 10.0 ** np.floor(np.log10(value)) / (1e4 if beta == 1.67 else 100)
            assert weights.weights[state] == pytest.approx(value, abs=0.6 * digit), minima
        assert weights.weights.sum() == pytest.approx(1, abs=1e-14)


def test_harmonic_weights_stay_logarithms() -> None:
    weights = second_order(np.array([0.0, 5000.0]), np.array([0.0, 2.0]), 1.0)
    np.testing.assert_allclose(weights.log_weights, [0.0, -5001.0])
    shifted = second_order(np.array([1e6, 1e6 + 3]), np.zeros(2), 2.0).log_weights
    np.testing.assert_allclose(shifted, zeroth_order(np.array([0.0, 3.0]), 2.0).log_weights, atol=1e-9)
    for energies, dets, beta in (
        ([np.nan], [0.0], 1.0),
        ([1.0], [-np.inf], 1.0),
        ([1.0], [0, 0], 1.0),
        ([1.0], [0], -1.0),
    ):
        with pytest.raises(UsageError):
            second_order(np.array(energies), np.array(dets, dtype=float), beta)
    with pytest.raises(UsageError):
        zeroth_order(np.array([]), 1.0)


def test_standard_errors_are_calibrated() -> None:
    """z of 24 seeds: their sum of squares within the chi-square's middle, false alarm 1e-4.

    Power: against a weight that is wrong by three target errors the same statistic is far outside.
    """
    exact = tilted_mass(-6, TILTED[1])
    results = [tilted(seed) for seed in range(24)]
    weight = np.array([r.weights[0] for r in results])  # type: ignore[index]
    error = np.array([r.standard_errors[0] for r in results])  # type: ignore[index]
    assert all(r.converged and not r.warnings for r in results)
    assert error.max() <= 0.005
    assert 5.77 < (((weight - exact) / error) ** 2).sum() < 60.8  # 5e-5 on either side at 24 degrees of freedom
    assert (((weight - exact - 0.015) / error) ** 2).sum() > 100


@pytest.mark.parametrize(
    ("beta", "upper"), [(1.67, 0.041173), (4.0, 7.014e-4)]
)  # fmt: skip
def test_triple_well_against_the_exact_weights(beta: float, upper: float) -> None:
    """Within 4 standard errors at 3 weights: false alarm 3e-4. At beta 1.67 the 0th-order weight would fail."""
    energy = Energy(triple_well, 2)
    result = sample(energy, TRIPLE_WELL, beta, flow_labels(energy, TRIPLE_WELL, 0.02, 0.1))
    assert result.converged and result.weights is not None and result.standard_errors is not None
    exact = np.array([(1 - upper) / 2, (1 - upper) / 2, upper])
    assert np.abs((result.weights - exact) / result.standard_errors).max() < 4
    assert result.standard_errors.max() <= 0.005
    assert result.unassigned == 0
    if beta < 2:
        assert abs(0.023269 - upper) > 6 * result.standard_errors[2]


def test_mueller_brown_against_quadrature_on_the_flow_basins() -> None:
    """beta = .02, where the harmonic guess errs for one point in five. Within 4 standard errors: false alarm 3e-4.

    The grid reaches further than that of the published table, whose cut-off shows at this temperature.
    """
    energy, beta = Energy(mueller_brown, 2), 0.02
    assign = flow_labels(energy, MUELLER_BROWN, 0.01, 0.05)
    x, y = np.arange(-3.5, 2.5, 0.04) + 0.02, np.arange(-2.5, 3.5, 0.04) + 0.02
    points = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
    density = np.exp(-beta * (energy.value(points) + 146.7))
    kept = density > 1e-7
    label = assign(torch.as_tensor(points[kept]))
    exact = np.array([density[kept][label == k].sum() for k in range(3)]) / density.sum()
    result = sample(energy, MUELLER_BROWN, beta, assign, seed=1)
    assert result.converged and result.weights is not None and result.standard_errors is not None
    assert np.abs((result.weights - exact) / result.standard_errors).max() < 4
    wrong = second_order(energy.value(MUELLER_BROWN), np.linalg.slogdet(energy.hessian(MUELLER_BROWN))[1], beta).weights
    assert np.abs((wrong - exact) / result.standard_errors).max() > 8


def test_symmetric_chain_has_equal_weights_under_its_symmetry() -> None:
    """Three bistable sites, eight wells: +++ and --- are equal, and the six others. |z| < 4.5 at 8 numbers: 1e-4."""

    def chain(z: torch.Tensor) -> torch.Tensor:
        return (z**4 / 4 - z**2 / 2).sum(1) + 0.025 * ((z.roll(-1, 1) - z) ** 2).sum(1)

    energy = Energy(chain, 3)
    minima = np.array([[a, b, c] for a in (-1.0, 1) for b in (-1, 1) for c in (-1, 1)])
    for _ in range(20):
        minima = minima - np.linalg.solve(energy.hessian(minima), energy.gradient(minima)[..., None])[..., 0]
    result = sample(energy, minima, 12.0, flow_labels(energy, minima, 0.02, 0.1))
    assert result.converged and result.weights is not None and result.standard_errors is not None
    same = np.abs(np.sign(minima).sum(1)) == 3
    for group in (same, ~same):
        mean = result.weights[group].mean()
        assert (np.abs(result.weights[group] - mean) < 4.5 * result.standard_errors[group]).all()
    assert result.weights[same].min() > 2 * result.weights[~same].max()


def test_sublevel_basins_against_quadrature() -> None:
    """Cores of the tilted double well by quadrature between the points of equal energy; |z| < 4 at 2 numbers: 2e-4."""
    top = tilted_value(TILTED[1])
    roots = np.sort(np.roots([1.5, 0, -3, 0.9, -top]).real)  # the maximum is the double root in the middle
    exact = [tilted_mass(roots[0], TILTED[1]), tilted_mass(TILTED[1], roots[3])]
    result = tilted(seed=3)
    core = sublevel_basins(result.chains, lowest_saddles(2, np.array([[0, 1]]), np.array([top])))
    assert np.abs((core.mass - exact) / core.standard_errors).max() < 4
    assert result.weights is not None and (core.mass < result.weights).all()
    # Without a saddle the core is the whole basin.
    whole = sublevel_basins(result.chains, np.array([np.inf, top]))
    assert whole.mass[0] == pytest.approx(result.weights[0], abs=1e-9)
    assert whole.mass[1] == core.mass[1]
    with pytest.raises(UsageError, match="nan"):
        sublevel_basins(result.chains, np.array([np.nan, top]))


def test_sublevel_basins_are_the_connected_pieces() -> None:
    """Triple well: pieces of {E < lowest saddle} labelled on a grid by connectivity. |z| < 4 at 3 numbers: 3e-4."""
    energy, beta = Energy(triple_well, 2), 1.67
    ceilings = lowest_saddles(
        3, np.array([[0, 1], [0, 2], [1, 2], [2, 2], [2, -1]]),
        np.array([-1.384586640398, -1.646687453475, -1.646687453475, -2, -1]),
    )  # fmt: skip
    np.testing.assert_array_equal(ceilings, -1.646687453475)
    x, y = np.arange(-3, 3, 0.01) + 0.005, np.arange(-2.5, 3.5, 0.01) + 0.005
    grid = energy.value(np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)).reshape(len(x), len(y))
    density = np.exp(-beta * grid)
    pieces = ndimage.label(grid < ceilings[0])[0]
    at = [pieces[np.abs(x - m[0]).argmin(), np.abs(y - m[1]).argmin()] for m in TRIPLE_WELL]
    assert len(set(at)) == 3
    exact = np.array([density[pieces == k].sum() for k in at]) / density.sum()
    core = sublevel_basins(
        sample(energy, TRIPLE_WELL, beta, flow_labels(energy, TRIPLE_WELL, 0.02, 0.1), seed=5).chains, ceilings
    )
    assert np.abs((core.mass - exact) / core.standard_errors).max() < 4


def test_chains_that_cannot_change_wells_give_no_weights() -> None:
    """A barrier of 60 and proposals that never fit: null and a warning. The same energy with fitting ones works."""

    def deep(z: torch.Tensor) -> torch.Tensor:
        return 60 * (z**2 - 1).square().sum(1)

    energy = Energy(deep, 2)
    minima = np.array([[a, b] for a in (-1.0, 1) for b in (-1, 1)])

    def quadrant(x: torch.Tensor) -> torch.Tensor:
        return 2 * (x[:, 0] > 0) + (x[:, 1] > 0)

    stuck = sample(energy, minima, 1.0, quadrant, inflation=1e5, max_sweeps=300)
    assert stuck.weights is None and stuck.standard_errors is None
    assert not stuck.converged and stuck.effective_changes < 100
    assert len(stuck.warnings) == 1 and "fewer than 100" in stuck.warnings[0]
    free = sample(energy, minima, 1.0, quadrant)
    assert free.converged and free.weights is not None and free.standard_errors is not None
    assert (np.abs(free.weights - 0.25) < 4.5 * free.standard_errors).all()


def test_one_well_that_is_never_reached_again_gives_no_weights() -> None:
    """Two wells mix, a third one lies far off and its Hessian is wrong by 1e12, so that no proposal fits it."""

    def energy_of(z: torch.Tensor) -> torch.Tensor:
        near = torch.logsumexp(torch.stack([-0.5 * (z[:, 0] - c) ** 2 for c in (-2.0, 2.0, 3000.0)]), 0)
        return -near

    energy = Energy(energy_of, 1)
    minima = np.array([[-2.0], [2.0], [3000.0]])
    hessians = np.array([[[1.0]], [[1.0]], [[1e12]]])

    def assign(x: torch.Tensor) -> np.ndarray:
        return np.digitize(x[:, 0].numpy(), [0.0, 1500.0])

    result = sample_weights(
        energy, minima, hessians, 1.0, assign, SampledWeights(max_sweeps=300), torch.Generator().manual_seed(0)
    )
    assert result.weights is None
    assert result.effective_changes > 100
    assert "state 2" in result.warnings[0]


def test_unconverged_when_the_budget_ends() -> None:
    result = tilted(target_se=1e-4, max_sweeps=120)
    assert not result.converged and result.weights is not None
    assert len(result.chains.guess) == 120
    assert "did not reach a standard error of 0.0001 in 120 sweeps" in result.warnings[0]


def test_unknown_minima_have_their_own_bin() -> None:
    """The right-hand well is unknown: it is labelled -1, its mass is reported, and no weights are given."""
    energy, minima = Energy(tilted_double_well, 1), TILTED[[0], None]
    result = sample(energy, minima, 1.0, lambda x: -left_or_right(x), inflation=4.0)
    assert result.weights is None and not result.converged
    assert abs(result.unassigned - tilted_mass(TILTED[1], 6)) < 4 * result.unassigned_se
    assert any("no known minimum" in text for text in result.warnings)


def test_a_single_well_is_a_result() -> None:
    energy = Energy(lambda z: (z * z).sum(1), 2)
    result = sample(energy, np.zeros((1, 2)), 1.0, lambda x: torch.zeros(len(x), dtype=torch.long))
    assert result.converged and result.weights is not None
    assert result.weights[0] == 1
    assert result.warnings == ()


def test_energies_that_are_not_finite_everywhere() -> None:
    """nan beyond two walls: the weights are those between the walls. |z| < 4: 1e-4. No warning is raised."""
    wall = (-1.3, 1.1)

    def walled(z: torch.Tensor) -> torch.Tensor:
        inside = (z[:, 0] > wall[0]) & (z[:, 0] < wall[1])
        return tilted_double_well(z).where(inside, torch.nan)

    result = sample(Energy(walled, 1), TILTED[[0, 2], None], 1.0, left_or_right)
    left, right = tilted_mass(wall[0], TILTED[1]), tilted_mass(TILTED[1], wall[1])
    assert result.converged and result.weights is not None and result.standard_errors is not None
    assert abs(result.weights[0] - left / (left + right)) < 4 * result.standard_errors[0]
    assert np.isfinite(result.chains.energy).all()


def test_only_what_is_needed_is_labelled() -> None:
    """No position is asked about twice, and a chain that rested between two records is not asked about again."""
    asked: list[torch.Tensor] = []

    def assign(x: torch.Tensor) -> torch.Tensor:
        asked.append(x)
        return left_or_right(x)

    result = sample(Energy(tilted_double_well, 1), TILTED[[0, 2], None], 1.0, assign, label_every=1)
    points = torch.cat(asked)
    assert len(points) == result.n_labelled == len(points.unique())
    positions = result.chains.label.size
    assert 0.5 * positions < len(points) < 0.95 * positions
    # Labels filled in for resting chains are those of their positions.
    np.testing.assert_array_equal(
        result.chains.label, left_or_right(torch.as_tensor(result.chains.x).reshape(-1, 1)).reshape(-1, 128)
    )


def test_reproducible_and_quiet() -> None:
    before = torch.get_rng_state()
    a, b, other = tilted(4), tilted(4), tilted(5)
    assert torch.equal(before, torch.get_rng_state())
    assert a.weights is not None and b.weights is not None and other.weights is not None
    np.testing.assert_array_equal(a.weights, b.weights)
    assert (a.weights != other.weights).any()
    said: list[str] = []
    sample_weights(
        Energy(tilted_double_well, 1, dtype=torch.float32), TILTED[[0, 2], None], np.full((2, 1, 1), 9.0), 1.0,
        left_or_right, SampledWeights(target_se=0.003), torch.Generator().manual_seed(0), said.append,
    )  # fmt: skip
    assert said and said[0].startswith("weights: 104 sweeps")  # whole strides


@pytest.mark.parametrize(
    "settings",
    [{"n_chains": 1}, {"warm_up": -1}, {"target_se": 0.0}, {"max_sweeps": 3}, {"label_every": 0}, {"inflation": -1.0},
     {"broad_weight": 1.0}, {"floor_weight": 0.0}, {"dof": 0}, {"min_changes": 1.5}],
)  # fmt: skip
def test_settings_are_checked(settings: dict) -> None:
    with pytest.raises(UsageError):
        SampledWeights(**settings)


def test_inputs_are_checked() -> None:
    energy, generator = Energy(tilted_double_well, 1), torch.Generator().manual_seed(0)
    minima, hessians = TILTED[[0, 2], None], np.ones((2, 1, 1))
    config = SampledWeights(max_sweeps=40)
    for bad_minima, bad_hessians, beta, assign in (
        (np.zeros((0, 1)), np.zeros((0, 1, 1)), 1.0, left_or_right),
        (minima, np.ones((2, 2, 2)), 1.0, left_or_right),
        (np.zeros((2, 3)), np.ones((2, 3, 3)), 1.0, left_or_right),
        (np.full((2, 1), np.nan), hessians, 1.0, left_or_right),
        (minima, hessians, -1.0, left_or_right),
        (minima, hessians, 1.0, lambda x: torch.full((len(x),), 2)),
        (minima, hessians, 1.0, lambda x: torch.zeros(1)),
    ):
        with pytest.raises(UsageError):
            sample_weights(energy, bad_minima, bad_hessians, beta, assign, config, generator)
