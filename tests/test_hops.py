"""Hops from the minima met least often, descents that stay in their wells, and when a search says it may miss some."""

from __future__ import annotations

import math
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from landscape.energy import Energy, Periodic, load_energy
from landscape.energy.potentials import TripleWell
from landscape.errors import UsageError
from landscape.search import Box, Catalogue, MinimaResult, MinimaSearch, Points, Status, find_minima
from landscape.search.descents import Descents
from landscape.search.hops import LEAST, MISSED, QUIET, ROUND, hop
from landscape.search.lbfgs import FIRST, LBFGS, relax
from landscape.search.unseen import repeat_misses
from landscape.store import Store
from landscape.tasks import TaskEnergy

N_WELLS = 8


def wells(x: torch.Tensor) -> torch.Tensor:
    """A wide bowl with a row of narrow wells along the first axis, of width .1, at distances of .5."""
    centers = torch.stack([0.5 * torch.arange(N_WELLS), torch.zeros(N_WELLS)], 1).to(x)
    dips = torch.exp(-0.5 * (x[:, None] - centers).square().sum(2) / 0.1**2)
    return 0.05 * x.square().sum(1) - 2 * dips.sum(1)


def eggs(x: torch.Tensor) -> torch.Tensor:
    """A minimum near every point with whole coordinates, whose basin is a unit cube about it."""
    return 0.01 * x.square().sum(1) - torch.cos(2 * torch.pi * x).sum(1)


def uniform(n: int, dim: int) -> torch.Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 16 - 8


def spent(energy: Energy) -> int:
    return energy.evaluations.gradient_equivalents(energy.dim)


# -- the estimate ------------------------------------------------------------------------------------------------------


def test_what_a_repetition_would_miss_by_hand() -> None:
    assert repeat_misses(np.array([0, 1, 2])) == pytest.approx(1 + math.exp(-1) + math.exp(-2))
    assert repeat_misses(np.zeros(0)) == 0
    assert repeat_misses(np.full(30, 100)) < 1e-30


@pytest.mark.parametrize("n", [100, 500, 2000])
@pytest.mark.parametrize("ratio", [0.8, 0.9, 0.95])
def test_what_a_repetition_would_miss_against_repetitions(n: int, ratio: float) -> None:
    """n rows in 80 classes whose sizes fall by a ratio, 200 pairs of searches: how many classes found by the first one
    the second one misses (1 to 12), and the mean estimate, agree within a factor of two; and no class of those missed
    is one of many hits."""
    rng = np.random.default_rng(0)
    share = ratio ** np.arange(80)
    pairs = rng.multinomial(n, share / share.sum(), (200, 2))
    estimate = np.mean([repeat_misses(first[first > 0]) for first in pairs[:, 0]])
    missed = ((pairs[:, 0] > 0) & (pairs[:, 1] == 0)).sum(1).mean()
    assert 1 < missed < 13 and 0.5 < estimate / missed < 2


# -- hops --------------------------------------------------------------------------------------------------------------


def searched(hops: float | None, n_starts: int, seed: int, function=wells) -> tuple[MinimaResult, int]:
    energy = Energy(function, 2)
    config = MinimaSearch(n_starts, Box(-4.0, 4.0), hops=hops)
    result = find_minima(energy, config, generator=torch.Generator().manual_seed(seed))
    return result, spent(energy)


def test_hops_find_wells_that_twice_the_starts_miss() -> None:
    """Six seeds: all eight narrow wells every time from 100 starts and hops, for fewer gradients than 200 starts, which
    miss some of the wells."""
    with_hops = [searched(None, 100, seed) for seed in range(6)]
    without = [searched(0, 200, seed) for seed in range(6)]
    assert [len(result.minima) for result, _ in with_hops] == [N_WELLS] * 6
    np.testing.assert_allclose(
        with_hops[0][0].minima.x[:, 0], 0.5 * np.arange(N_WELLS), atol=0.02
    )  # higher with the distance from the middle of the bowl
    assert sum(len(result.minima) for result, _ in without) <= 6 * N_WELLS - 4
    assert sum(cost for _, cost in with_hops) < sum(cost for _, cost in without)


def test_hops_leave_the_starts_and_the_estimate_as_they_were() -> None:
    """They begin where something was found, so that none of the numbers about random starts may know them."""
    with_hops, without = searched(None, 100, 0)[0], searched(0, 100, 0)[0]
    assert len(with_hops.minima) > len(without.minima)
    assert with_hops.unseen == without.unseen and with_hops.minima.hits.sum() == 100
    assert (with_hops.start_status == without.start_status).all()
    ends = [result.minima.x[result.start_state] for result in (with_hops, without)]
    assert (ends[0] == ends[1]).all()


def test_no_hops_where_every_minimum_was_met_often() -> None:
    costs = [searched(hops, 300, 0, TripleWell()) for hops in (None, 0)]
    assert costs[0][1] == costs[1][1] and costs[0][0].minima.hits.min() > -np.log(MISSED)


def test_given_points_are_all_there_is_unless_hops_are_asked_for() -> None:
    starts = Points(np.array([[0.5 * k, 0.03] for k in range(3)]))
    found = [len(find_minima(Energy(wells, 2), MinimaSearch(starts=starts, hops=hops)).minima) for hops in (None, 20.0)]
    assert found[0] == 3 < found[1]


class Noted(Descents):
    """Descents that note where they began."""

    def __init__(self, energy: Energy, seed: int = 0) -> None:
        super().__init__(energy, LBFGS(), torch.Generator().manual_seed(seed), Catalogue(energy))
        self.radius = 4.0
        self.begun: list[torch.Tensor] = []

    def to_minima(self, x: torch.Tensor, *, count: bool = False) -> tuple[np.ndarray, np.ndarray]:
        self.begun.append(x)
        return super().to_minima(x, count=count)


def hopped(function, dim: int, start: list[list[float]], n_starts: int, budget: int) -> Noted:
    noted = Noted(Energy(function, dim))
    noted.to_minima(torch.tensor(start, dtype=torch.float64), count=True)
    noted.begun.clear()
    hop(noted, n_starts, budget, lambda text: None)
    return noted


@pytest.mark.parametrize(("n_starts", "rows"), [(1000, 1000 // ROUND), (10, LEAST)])
def test_three_quiet_rounds_end_it(n_starts: int, rows: int) -> None:
    """A single well, met once: three rounds find nothing else."""
    noted = hopped(lambda x: x.square().sum(1), 2, [[1.0, 0.0]], n_starts, 10_000)
    assert [len(x) for x in noted.begun] == [rows] * QUIET


def test_the_budget_ends_it() -> None:
    """Ever more minima: hops go on to the last of them, 115 in rounds of 50."""
    noted = hopped(eggs, 2, [[0.1, 0.1], [1.1, 0.1]], 1000, 115)
    assert [len(x) for x in noted.begun] == [50, 50, 15]
    assert hopped(eggs, 2, [[0.1, 0.1], [1.1, 0.1]], 1000, 0).begun == []


@pytest.mark.parametrize("rare", [0, 2])
def test_hops_leave_the_minima_met_least_often_by_lengths_of_the_landscape(rare: int) -> None:
    """Minima of the eggs near 0, 1 and 5, two of them met by 1,000 starts and one by a single one, from which 99.6 % of
    2,000 hops are due: at most 20 others (8 expected, false alarm 1e-4). Their lengths: log-uniform between half the
    distance to the nearest other minimum and half the extent of all (Kolmogorov and Smirnov, false alarm 1e-4; uniform
    lengths have p < 1e-20 where the two differ by a factor of five)."""
    noted = Noted(Energy(eggs, 2))
    numbers, _ = noted.to_minima(torch.tensor([[k, 0.1] for k in (0.0, 1.0, 5.0)], dtype=torch.float64))
    noted.begun.clear()
    noted.catalogue.credit(numbers, np.where(np.arange(3) == rare, 1, 1000))
    x = noted.catalogue.points().x[numbers].copy()
    hop(noted, 40_000, 2000, lambda text: None)
    length = np.linalg.norm(noted.begun[0].numpy() - x[rare], axis=1)
    shortest = 0.5 * np.delete(np.linalg.norm(x - x[rare], axis=1), rare).min()
    longest = 0.5 * np.ptp(x[:, 0])
    near = (length > shortest - 1e-9) & (length < longest + 1e-9)
    assert len(length) == 2000 and near.sum() >= 1980
    assert stats.kstest(np.log(length[near] / shortest) / np.log(longest / shortest), "uniform").pvalue > 1e-4
    if rare == 0:
        assert stats.kstest((length[near] - shortest) / (longest - shortest), "uniform").pvalue < 1e-20


def test_hops_in_a_periodic_landscape_know_the_nearest_copies() -> None:
    """Minima at .1 and .9 of a circle of length 1 are .2 apart across the border: hops begin .1 from one of them, or up
    to .4, half their extent. By their coordinates, .8 apart, all lengths would be .4."""
    energy = Energy(lambda x: torch.cos(10 * torch.pi * x[:, 0]), 1, symmetry=Periodic((1.0,)))
    noted = Noted(energy)
    noted.radius = 0.5
    noted.to_minima(torch.tensor([[0.1], [0.9]], dtype=torch.float64), count=True)
    noted.begun.clear()
    hop(noted, 1000, 1000, lambda text: None)
    x = noted.begun[0]
    gap = torch.minimum((x - 0.1).abs(), (x - 0.9).abs())
    assert 0.1 - 1e-9 < gap.min() < 0.15 and gap.max() < 0.4 + 1e-9
    np.testing.assert_allclose(np.sort(noted.minima().x[:, 0]), [0.1, 0.3, 0.5, 0.7, 0.9], atol=1e-9)


@pytest.mark.parametrize("hops", [-1.0, float("nan"), float("inf")])
def test_a_multiple_of_the_starts_is_a_number(hops: float) -> None:
    with pytest.raises(UsageError, match="hops"):
        MinimaSearch(hops=hops)


# -- steps that grow -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_descents_stay_in_their_wells(dim: int) -> None:
    """500 points among the eggs, whose basins are unit cubes: hardly one leaves its own, where a first step of half the
    landscape's size leads one in ten out."""
    x = uniform(500, dim)
    stayed = {}
    for first in (FIRST, 0.5):
        made = Noted(Energy(eggs, dim))
        ended = relax(made.energy, x, 8.0, first=first)
        assert (ended["status"] == Status.CONVERGED).all()
        number = made.settle(ended)
        ends = made.catalogue.points().x[number]
        stayed[first] = (np.round(ends) == np.round(x.numpy())).all(1).mean()
    assert stayed[FIRST] > 0.97 and stayed[0.5] < 0.95


def test_a_long_way_down_is_gone_all_the_same() -> None:
    """From 60 radii away to the well, in steps that grow; and a runaway is known as one."""
    made = Noted(Energy(lambda x: x.square().sum(1), 2))
    made.radius = 1.0
    number, status = made.to_minima(torch.tensor([[60.0, 0.0]], dtype=torch.float64))
    assert (number.tolist(), status.tolist()) == ([0], [Status.CONVERGED])
    falling = Noted(Energy(lambda x: x[:, 0] + x[:, 1].square(), 2))
    assert falling.to_minima(uniform(3, 2))[1].tolist() == [Status.DIVERGED] * 3
    assert falling.runaway < -100


# -- the same answer whoever computes it -------------------------------------------------------------------------------


def test_hops_are_tasks_like_other_rounds(tmp_path: Path) -> None:
    """Blocks of a slow energy computed one after the other, by threads, and remembered by a store: the same minima and
    the same counts, bit by bit."""

    def found(executor: Executor | None = None, store: Store | None = None) -> tuple[np.ndarray, dict[str, int]]:
        energy = TaskEnergy(load_energy("potential:triple-well"), answers=store, executor=executor, slow=True)
        config = MinimaSearch(4, Box((-2.0, -1.5), (2.0, 2.5)), hops=20.0)
        result = find_minima(energy, config, generator=torch.Generator().manual_seed(1))
        assert result.minima.hits.sum() == 4
        return result.minima.x, energy.evaluations.as_dict()

    x, counts = found()
    assert counts["gradient"] > 150  # of four starts alone some 50
    with Store.open(tmp_path) as store, ThreadPoolExecutor(2) as threads:
        store.begin({"any": "thing"})
        for other, again in (found(executor=threads), found(store=store), found(store=store)):
            assert (other == x).all() and again == counts
