"""What a search has not seen yet: the chance that a further start finds something, and how many points it missed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from landscape.errors import UsageError

LARGE = 0.05  # an upper bound above this is worth a warning
LEFT = 0.1  # points, of a hundred or less, that a search may have missed where it stops


@dataclass(frozen=True)
class Unseen:
    """Probability that a further start, drawn as the others were, reaches a minimum that none of them reached.

    estimate : Good and Turing's. upper : an upper confidence bound at level `confidence`. starts : that were counted.
    """

    estimate: float
    upper: float
    confidence: float
    starts: int


def unseen_probability(reached: np.ndarray, known: np.ndarray | None = None, confidence: float = 0.95) -> Unseen:
    """Estimate and bound from the minimum that each of n independent starts reached.

    reached (n,) : any integers that name minima, -1 for a start that reached none. known : names of minima that were
    known before these starts, and so are not new. A start without a minimum is no news, and counts among the n.

    Estimate (Good, Biometrika 40 (1953) 237): f / n, with f the minima that are not in `known` and were reached by
    exactly one start. By leaving out one start at a time its mean is the probability that the last of n starts is
    news to the others (Robbins, Ann. Math. Statist. 39 (1968) 256).

    Upper bound: the second, fourth, ... starts test what the first, third, ... left unseen. Given those, the number c
    of the m tests that are new is binomial, so Clopper and Pearson's bound, the (confidence) quantile of
    Beta(c + 1, m - c), holds for the probability left unseen by half of the starts, and more starts leave less. It
    assumes nothing about the number of minima or the size of their basins. (The bound of McAllester and Schapire, COLT
    2000, f / n + 4.6 sqrt(log(3 / (1 - confidence)) / n), holds too; at 1,000 starts it is .29 at least.)
    Where starts come from several sources in fixed shares, the test counts are a sum of binomials, whose tail is
    thinner than the binomial's (Hoeffding, Ann. Math. Statist. 27 (1956) 713): the bound holds still.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"a confidence lies between 0 and 1, not {confidence!r}")
    names = np.asarray(reached)
    n = len(names)
    if n == 0:
        return Unseen(1.0, 1.0, confidence, 0)
    old = np.append(np.zeros(0, int) if known is None else np.asarray(known), -1)
    found, counts = np.unique(names, return_counts=True)
    once = int(((counts == 1) & ~np.isin(found, old)).sum())
    tests = names[1::2]
    m = len(tests)
    new = int((~np.isin(tests, names[::2]) & ~np.isin(tests, old)).sum())
    upper = 1.0 if new == m else float(betaincinv(new + 1, m - new, confidence))
    return Unseen(once / n, max(upper, once / n), confidence, n)


def unseen_number(hits: np.ndarray) -> float:
    """How many points a search has missed, from how often it hit each of those it found (n,): Chao's estimate.

    f1 (f1 - 1) / (2 (f2 + 1)), with f1 and f2 the points hit once and twice (Chao, Scand. J. Statist. 11 (1984) 265, in
    the form without bias): exact where all points are equally easy to hit, too low on average where some are harder.
    """
    once, twice = (int((np.asarray(hits) == k).sum()) for k in (1, 2))
    return once * (once - 1) / (2 * (twice + 1))


def repeat_misses(hits: np.ndarray) -> float:
    """How many of the points found, hit so often (n,), another search like this one would miss on average.

    sum_i exp(-hits_i): a point that n rows hit k times has about the share k / n of them, and n others miss it with
    probability exp(-k). Points that were hit rarely tell of others that were not hit at all.
    """
    return float(np.exp(-np.asarray(hits, float)).sum())


def nearly_all_seen(hits: np.ndarray) -> bool:
    """Whether a search may stop, by its hits of each of the points found (n,): sum exp(-hits) <= .1 max(1, n / 100).

    A point that a search is likely to hit h times is missed with probability exp(-h), so that the sum says how many
    points like those found are missing. It sees a tail of points that are hard to hit where few were hit just once, on
    which `unseen_number` rests. In simulations where the ease of hitting varies by a factor e^sigma, sigma = 0 to 1.5,
    searches that stop with it after two quiet rounds have missed .0 to .4 points on average, none in 75 to 100 % of
    the cases; those that stop after two quiet rounds have missed up to 10 % of all points.
    """
    return repeat_misses(hits) <= LEFT * max(1.0, len(hits) / 100)
