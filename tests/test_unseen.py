"""The probability that a further start finds a new minimum: estimate and bound against known basin volumes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest
import torch

from landscape.energy import Energy
from landscape.energy.potentials import CoupledChain
from landscape.errors import UsageError
from landscape.search import Box, Gaussian, MinimaSearch, Points, Unseen, find_minima, find_saddles, unseen_probability
from landscape.search.unseen import nearly_all_seen, unseen_number

CHAIN = Energy(CoupledChain(4, 0.1), 4)
BOX = Box(-1.5, 1.5)


def chain_search(n_starts: int, seed: int):
    return find_minima(CHAIN, MinimaSearch(n_starts, BOX), generator=torch.Generator().manual_seed(seed))


def signs(x: np.ndarray) -> np.ndarray:
    """The basin of a minimum of the chain: its signs as a number from 0 to 15."""
    return (x > 0) @ (1 << np.arange(x.shape[1]))


@pytest.fixture(scope="module")
def volumes() -> np.ndarray:
    """Shares of 40,000 starts that end in each of the 16 basins: standard errors of .0015 at most."""
    result = chain_search(40_000, 12345)
    assert len(result.minima) == 16 and (result.start_state >= 0).all()
    share = np.bincount(signs(result.minima.x)[result.start_state], minlength=16) / 40_000
    # The chain's own symmetry: every basin and its mirror image have the same volume.
    assert np.abs(share - share[15 - np.arange(16)]).max() < 5 * np.sqrt(2 * 0.07 / 40_000)
    return share


def check_coverage(reached: list[np.ndarray], found: list[Unseen], volumes: np.ndarray, largest_mean: float) -> None:
    """Of 100 bounds at 95 % at least 90 cover what the starts left unseen; the estimate is unbiased.

    A valid bound fails the first with probability 1.2 % at most. The second: the mean of the differences lies within
    four of its standard errors of Robbins's value, the difference between n - 1 starts and n (false alarm 6e-5). Power:
    the estimate, taken for a bound, does not cover 90 times; and the bound is no triviality, as its mean shows.
    """
    n = len(reached[0])
    truth = np.array([1 - volumes[np.unique(basins)].sum() for basins in reached])
    upper, estimate = (np.array([getattr(u, name) for u in found]) for name in ("upper", "estimate"))
    assert len(found) == 100 and (upper >= truth).sum() >= 90
    assert (estimate >= truth).sum() < 80
    difference = estimate - truth
    step = (volumes**2 * (1 - volumes) ** (n - 1)).sum()
    assert abs(difference.mean() - step) < 4 * difference.std(ddof=1) / 10
    assert upper.mean() < largest_mean


def test_the_bound_covers_the_unseen_volume_of_the_chain(volumes: np.ndarray) -> None:
    """100 seeds of a search with 20 starts, too few for 16 basins."""
    results = [chain_search(20, seed) for seed in range(100)]
    reached = [signs(result.minima.x)[result.start_state] for result in results]
    check_coverage(reached, [result.unseen for result in results if result.unseen], volumes, 0.9)


@pytest.mark.parametrize(("n_starts", "largest_mean"), [(12, 0.95), (48, 0.5)])
def test_fewer_and_more_starts(n_starts: int, largest_mean: float, volumes: np.ndarray) -> None:
    """100 repetitions cut out of one search."""
    result = chain_search(100 * n_starts, n_starts)
    reached = list(signs(result.minima.x)[result.start_state].reshape(100, n_starts))
    check_coverage(reached, [unseen_probability(basins) for basins in reached], volumes, largest_mean)


def exact_upper(new: int, tests: int, confidence: Fraction) -> float:
    """p at which `new` or fewer of the tests have probability 1 - confidence, by bisection on the binomial sum."""
    low, high = Fraction(0), Fraction(1)
    for _ in range(40):
        p = (low + high) / 2
        below = sum(comb(tests, k) * p**k * (1 - p) ** (tests - k) for k in range(new + 1))
        low, high = (p, high) if below > 1 - confidence else (low, p)
    return float(low)


def test_by_hand() -> None:
    # Starts 0, 2, 4, ... saw {1, 2}; of the tests 3, 1, 3, 1 two were new; 3 was hit twice, 4 never, 2 once.
    found = unseen_probability(np.array([1, 3, 1, 1, 2, 3, 1, 1]))
    assert (found.estimate, found.starts, found.confidence) == (1 / 8, 8, 0.95)
    assert found.upper == pytest.approx(exact_upper(2, 4, Fraction(19, 20)), abs=1e-9)
    # What was known before is not new, and a start that found nothing is no news.
    assert unseen_probability(np.array([1, 3, 1, 1, 2, 3, 1, 1]), known=np.array([2, 3])).estimate == 0
    nothing = unseen_probability(np.full(8, -1))
    assert nothing.estimate == 0 and nothing.upper == pytest.approx(exact_upper(0, 4, Fraction(19, 20)), abs=1e-9)
    assert unseen_probability(np.arange(10)) == Unseen(1.0, 1.0, 0.95, 10)
    assert unseen_probability(np.zeros(0, int)) == Unseen(1.0, 1.0, 0.95, 0)
    # The rule of three: no news in m tests leaves 3 / m.
    assert unseen_probability(np.zeros(2000, int)).upper == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-9)
    with pytest.raises(UsageError, match="confidence"):
        unseen_probability(np.zeros(3, int), confidence=1.0)


def test_coverage_is_exact_for_every_split_of_two_basins() -> None:
    """All 2^9 outcomes of 9 starts in basins of volumes p and 1 - p: the bound covers with probability >= .95."""
    for p in (0.01, 0.1, 0.3, 0.5):
        covered = 0.0
        for outcome in product((0, 1), repeat=9):
            reached = np.array(outcome)
            unseen = sum(volume for basin, volume in ((0, 1 - p), (1, p)) if basin not in reached)
            probability = float(np.prod(np.where(reached == 1, p, 1 - p)))
            covered += probability * (unseen_probability(reached).upper >= unseen)
        assert covered >= 0.95


def test_a_search_reports_it_and_warns_where_the_bound_is_large() -> None:
    few = chain_search(12, 0)
    assert few.unseen is not None and few.unseen.starts == 12 and few.unseen.upper > 0.05
    assert any("further starts may find a minimum" in text for text in few.warnings)
    many = chain_search(1000, 0)
    assert many.unseen is not None and many.unseen.upper < 0.05
    assert not any("further starts" in text for text in many.warnings)
    normal = find_minima(CHAIN, MinimaSearch(1000, Gaussian()), generator=torch.Generator().manual_seed(0))
    own_scale = find_minima(CHAIN, MinimaSearch(1000), generator=torch.Generator().manual_seed(0))
    assert normal.unseen is not None and own_scale.unseen is not None and own_scale.unseen.upper < 0.01


def test_given_points_are_no_random_sample() -> None:
    given = find_minima(CHAIN, MinimaSearch(starts=Points(np.ones((1, 4)))))
    assert given.unseen is None and not given.warnings


def test_number_of_points_missed() -> None:
    """1,000 points hit 2,000 times at random: exp(-2) of them are missed, and the estimate is as near as it can be.

    Its standard deviation is about 15 (Chao 1987): 5 of them, a false-alarm rate below 1e-6 a draw. A search whose hits
    are all that there are has missed none; one with every point hit once has missed more than it found.
    """
    rng = np.random.default_rng(0)
    for _ in range(5):
        hits = np.bincount(rng.integers(1000, size=2000), minlength=1000)
        assert abs(unseen_number(hits[hits > 0]) - (hits == 0).sum()) < 75
    assert unseen_number(np.array([2, 5, 9])) == unseen_number(np.array([1, 5, 9])) == 0
    assert unseen_number(np.ones(20, int)) == 190


def missed_by_searches(n: int, spread: float, stop: Callable[[np.ndarray], bool]) -> np.ndarray:
    """How many of n points each of 100 searches missed, -1 for one that did not stop in 400 rounds.

    A round is 100 + n / 2 walks, each to one of the points, with probabilities in the ratios exp(spread normal). A
    search stops where `stop` says so of its hits after two rounds in a row that brought nothing new.
    """
    rng, missed = np.random.default_rng(n), np.full(100, -1)
    for search in range(100):
        ease = np.exp(spread * rng.standard_normal(n))
        hits, quiet = np.zeros(n, int), 0
        for _ in range(400):
            known = (hits > 0).sum()
            hits += rng.multinomial(100 + n // 2, ease / ease.sum())
            quiet = quiet + 1 if (hits > 0).sum() == known else 0
            if quiet and quiet % 2 == 0 and stop(hits[hits > 0]):
                missed[search] = (hits == 0).sum()
                break
    return missed


@pytest.mark.parametrize("n", [12, 42, 165])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_a_search_of_known_points_stops_and_has_missed_hardly_any(n: int, spread: float) -> None:
    """Every search stops. With equal points none misses one; else 15 % of the searches miss some at most, by design (.1
    points expected), and less than .3 points on average: measured 0 to 14 % and .00 to .15, so that the bound of .3 is
    more than four standard errors away. Power: two quiet rounds alone miss 3 points of 165 at spread 1.
    """
    missed = missed_by_searches(n, spread, nearly_all_seen)
    assert (missed >= 0).all() and missed.mean() < (0.3 if spread else 0.05)
    assert (missed > 0).mean() < (0.25 if spread else 0.05)
    if (n, spread) == (165, 1.0):
        careless = missed_by_searches(n, spread, lambda hits: True)
        assert careless.mean() > 1.5 and (careless > 0).mean() > 0.7


def test_a_search_that_has_just_begun_is_not_complete() -> None:
    """200 walks among 165 equal points: a third are unseen, and a quarter of the points seen were hit once."""
    hits = np.random.default_rng(0).multinomial(200, np.full(165, 1 / 165))
    assert not nearly_all_seen(hits[hits > 0])
    assert nearly_all_seen(np.full(12, 5)) and not nearly_all_seen(np.array([9, 9, 1]))
    assert nearly_all_seen(np.full(3000, 7)) and not nearly_all_seen(np.full(3000, 6))


def test_hundreds_of_minima_and_saddles() -> None:
    """Eight double wells side by side: 2^8 minima and 8 2^7 saddles, all of them, and the search knows when to stop."""
    energy = Energy(lambda x: (x.square() * (x.square() / 4 - 0.5) + 0.1 * x).sum(1), 8)
    found = find_saddles(energy, generator=torch.Generator().manual_seed(0))
    assert (len(found.minima), len(found.saddles), found.complete) == (256, 1024, True)
    assert found.rounds < 10 and (found.joins >= 0).all()
