"""Guesses from labelled neighbours: by hand, and worthless ones that must leave the weights as they are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from landscape.energy import Energy
from landscape.sampling.diagnostics import LabelledChains
from landscape.weights import ExactWeights, SampledResult, SampledWeights, exact_weights, sample_weights
from landscape.weights.exact import _Estimate, _Round
from landscape.weights.neighbours import RIDGE, Guide, Neighbours, _plane_votes

TOP = 0.3
MINIMA = np.array([[-1.0, 0.0], [1.0, 0.0]])


def bent(z: torch.Tensor) -> torch.Tensor:
    """Two wells of unequal width, a stiff second coordinate: 4 (x^2 - 1)^2 tilted and bent so that E_x(TOP) = 0."""
    x, y = z[:, 0], z[:, 1]
    return x**4 - (4 / 3) * TOP * x**3 - 2 * x**2 + 4 * TOP * x + 2 * y**2


def side(z: torch.Tensor) -> torch.Tensor:
    return (z[:, 0] > TOP).long()


def right_weight(beta: float) -> float:
    def mass(low: float, high: float) -> float:
        slope = lambda x: np.exp(-beta * (x**4 - (4 / 3) * TOP * x**3 - 2 * x**2 + 4 * TOP * x))  # noqa: E731
        return quad(slope, low, high, epsabs=1e-13)[0]

    return mass(TOP, 5) / (mass(-5, TOP) + mass(TOP, 5))


def chains(guide: Guide | None, seed: int = 0, min_changes: int = 100, beta: float = 1.0) -> SampledResult:
    energy = Energy(bent, 2)
    return sample_weights(
        energy, MINIMA, energy.hessian(MINIMA), beta, side, SampledWeights(target_se=0.006, min_changes=min_changes),
        torch.Generator().manual_seed(seed), guide=guide,
    )  # fmt: skip


@pytest.mark.parametrize("d", [1, 3, 30])
def test_votes_of_neighbours_are_the_plane_of_least_squares(d: int) -> None:
    """Against numpy's least squares with the ridge as rows of its own, at any number of dimensions."""
    generator = np.random.default_rng(d)
    away, values = generator.normal(size=(4, 12, d)), generator.normal(size=(4, 12))
    distance = np.linalg.norm(away, axis=2)
    votes = _plane_votes(away, distance)
    for k in range(4):
        reach = 1.05 * distance[k].max()  # whichever is the farthest neighbour: its column stands last
        order = distance[k].argsort()
        vote = _plane_votes(away[k, order][None], distance[k, order][None])[0]
        weight = (1 - (distance[k, order] / reach) ** 2) ** 2
        rows = np.sqrt(weight)[:, None] * np.column_stack([np.ones(12), away[k, order] / reach])
        ridge = np.sqrt(RIDGE * weight.sum()) * np.eye(d + 1)[1:]
        right = np.concatenate([np.sqrt(weight) * values[k, order], np.zeros(d)])
        plane = np.linalg.lstsq(np.concatenate([rows, ridge]), right, rcond=None)[0]
        assert vote @ values[k, order] == pytest.approx(plane[0], abs=1e-10)
    assert votes.sum(1) == pytest.approx(1, abs=1e-12)


def test_neighbours_know_a_smooth_boundary() -> None:
    """Of points beside a sphere, planes mistake fewer than the nearest neighbour does, and doubt those they mistake."""
    generator = np.random.default_rng(0)
    known, new = generator.uniform(-1, 1, (3000, 3)), generator.uniform(-1, 1, (4000, 3))
    inside, truth = ((np.linalg.norm(x, axis=1) < 0.9).astype(int) for x in (known, new))
    guess = Neighbours(known, inside, np.eye(3)).guess(new)
    nearest = inside[np.linalg.norm(new[:, None] - known, axis=2).argmin(1)]
    wrong = guess.first != truth
    assert wrong.mean() < 0.75 * (nearest != truth).mean()
    assert (guess.doubt[wrong] > 0.02).mean() > 0.95
    assert (guess.doubt <= 0.02).mean() > 0.7  # and doubt is rare


def test_a_boundary_on_a_line() -> None:
    """Between labels on a line the plane that is fitted crosses 1/2 half-way; all alike: no doubt, and no second."""
    x, label = (
        np.arange(-20.0, 20)[:, None],
        np.where(np.arange(-20, 20) < 0, 4, 7),
    )  # the last 4 at -1, the first 7 at 0
    guess = Neighbours(x, label, np.eye(1)).guess(np.array([[-0.55], [-0.5], [-0.45], [15.2]]))
    assert guess.first[[0, 2, 3]].tolist() == [4, 7, 7] and guess.second[[0, 2, 3]].tolist() == [7, 4, 7]
    assert guess.doubt[1] == pytest.approx(0.5, abs=1e-9) and guess.doubt[3] == 0
    assert 0.3 < guess.doubt[0] == pytest.approx(guess.doubt[2], abs=1e-9)
    # Without its own vote a point is one of the others.
    odd = np.where(np.arange(40) == 30, 4, label)
    assert Neighbours(x, odd, np.eye(1)).guess_of_themselves().first[30] == 7


def test_directions_count_in_the_units_of_the_scale() -> None:
    """Two rows of points, each of one label: what is near depends on the units of the direction across."""
    along = np.linspace(-1, 1, 40)
    x = np.concatenate([np.column_stack([along, np.full(40, side)]) for side in (0.0, 1.0)])
    label, point = np.repeat([0, 1], 40), np.array([[0.0, 0.2]])
    assert Neighbours(x, label, np.diag([1.0, 100])).guess(point).doubt[0] == 0  # only the nearer row has a vote
    assert Neighbours(x, label, np.diag([1.0, 0.01])).guess(point).doubt[0] > 0.02
    assert Neighbours(x, label, np.diag([1.0, 0.01])).guess(point).first[0] == 0


@pytest.mark.parametrize("what", ["learned", "all left", "shuffled"])
def test_a_guide_saves_labels_and_biases_nothing(what: str) -> None:
    """|z| < 4.5 over six and two seeds (false alarm 1e-4 in all), also where all neighbours agree on what is wrong.

    Without the correction the second guide would give weight 1 to the left.
    """
    energy, truth = Energy(bent, 2), right_weight(1.0)
    found = exact_weights(
        energy, MINIMA, energy.hessian(MINIMA), 1.0, side, ExactWeights(), torch.Generator().manual_seed(9)
    )
    assert found.guide is not None and found.guide.neighbours is not None and found.weights is not None
    guide, neighbours = found.guide, found.guide.neighbours
    if what != "learned":
        rng, x = np.random.default_rng(0), np.random.default_rng(1).normal(size=(2000, 2))
        wrong = np.zeros(2000, int) if what == "all left" else rng.permutation(np.arange(2000) % 2)
        guide = Guide(guide.mixture, Neighbours(x, wrong, np.eye(2)))
    for seed in range(6 if what == "learned" else 2):
        result = chains(guide, seed, 0)
        assert result.converged and result.weights is not None and result.standard_errors is not None
        assert abs(result.weights[1] - truth) < 4.5 * result.standard_errors[1]
    # Changes count where a label is true, or by the guess: one that knows the left only sees none.
    assert (chains(guide).weights is None) == (what == "all left")
    assert neighbours.guess(MINIMA).first.tolist() == [0, 1]
    plain = chains(None, 0)
    asked = (result.n_labelled / len(result.chains.guess), plain.n_labelled / len(plain.chains.guess))
    assert what != "learned" or asked[0] < 0.4 * asked[1]  # labels a sweep; more where they find guesses wrong


def test_records_of_rare_states_are_labelled_more_often() -> None:
    """A state of 2.5 % is asked about COMMON / .025 = 1.6 times as often as the other, more where guesses are in doubt:
    over 1.25 times, of some 200 records in it (false alarm 1e-4); at 24 % both alike. And no bias, |z| < 4.5."""
    ratio = {}
    for beta in (0.75, 2.5):
        energy = Energy(bent, 2)
        found = exact_weights(
            energy, MINIMA, energy.hessian(MINIMA), beta, side, ExactWeights(), torch.Generator().manual_seed(9)
        )
        results = [chains(found.guide, seed, beta=beta) for seed in range(5)]
        for result in results:
            assert result.weights is not None and result.standard_errors is not None
            assert abs(result.weights[1] - right_weight(beta)) < 4.5 * result.standard_errors[1]
        label, correction = (
            np.concatenate([getattr(result.chains, name).ravel() for result in results])
            for name in ("label", "correction")
        )
        left, right = ((correction[label == k] > 0).mean() for k in (0, 1))
        ratio[beta] = right / left
    assert ratio[2.5] > 1.25 and 0.75 < ratio[0.75] < 1.25


@pytest.mark.parametrize("halves", ["apart", "mixed"])
def test_labels_correct_guesses_that_know_nothing_of_them(halves: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Basins with structure finer than the labels resolve (a second state of small spots, weight .0288 by quadrature):
    40 repetitions of five rounds have the mean of the truth within 4.5 standard errors (1e-5).

    Guesses taught by the labels that are to correct them miss it: an oddity that was met is guessed right, and those
    that were not met stay.
    """

    def second(x: torch.Tensor) -> torch.Tensor:
        column, row = torch.floor(12 * x).long().T
        return ((x[:, 1] > 0.6) & ((column + 2 * row) % 4 == 0)).long()

    line = torch.linspace(-4, 4, 2001, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line + 1e-4, line + 1.7e-4, indexing="ij"), -1).reshape(-1, 2)
    density = torch.exp(-bent(grid))
    truth = float(density @ second(grid).double() / density.sum())
    if halves == "mixed":
        asks = _Estimate._guess
        monkeypatch.setattr(_Estimate, "_guess", lambda self, half, x: asks(self, 0, x))
        monkeypatch.setattr(_Round, "half", property(lambda self: np.zeros(len(self.x), int)))
    energy = Energy(bent, 2)
    hessians, options = energy.hessian(MINIMA), ExactWeights(target_se=1e-4, relative_se=0.01, labels=2000)
    generator = torch.Generator().manual_seed(0)
    found = [exact_weights(energy, MINIMA, hessians, 1.0, second, options, generator) for _ in range(40)]
    weights = np.array([np.nan if one.weights is None else one.weights[1] for one in found])
    weights = weights[np.isfinite(weights)]
    assert len(weights) > 35
    z = (weights.mean() - truth) / (weights.std(ddof=1) / math.sqrt(len(weights)))
    assert (abs(z) < 4.5) == (halves == "apart")


def test_a_chain_that_rests_does_not_change_label_by_being_asked() -> None:
    """All in state 0, guessed as 1: asked once in three records, and no change; asked always, where it does change."""
    label, correction = np.array([[1], [0], [1], [0]]), np.array([[0.0], [8.0], [0.0], [8.0]])
    guess = np.ones((4, 1), int)
    chains = LabelledChains(np.zeros((4, 1, 1)), np.zeros((4, 1)), guess, label, correction, 1)
    assert chains.changes(2).tolist() == [0, 0, 0]
    assert replace(chains, correction=np.ones((4, 1))).changes(2).tolist() == [3, 3, 0]
