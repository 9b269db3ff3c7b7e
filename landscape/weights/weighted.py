"""Weighted draws with labels, of which only some were asked for: masses of the basins, and their errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscape.weights.neighbours import Guess

BULK = 0.1  # share of a state's labels that go to its bulk, where the guess has no doubt


@dataclass(frozen=True)
class LabelledDraws:
    """m independent draws: log_weights, guess, label, correction, all (m,).

    A draw was labelled with probability p, and then has correction = c / p; else correction = 0 and the label repeats
    the guess. c : 1, or what a round's corrections count for, of mean 1 over all draws. The contribution of a draw to
    the mass of basin i, with weight w, is

        y_i = w [1(guess = i) + correction (1(label = i) - 1(guess = i))],

    whose mean over the labelling is w 1(basin is i) where c = 1, and for the sum over all draws, if guesses are equally
    good in all of them, whatever c is. Label -1 is a basin of its own here: none of the known.
    """

    log_weights: np.ndarray
    guess: np.ndarray
    label: np.ndarray
    correction: np.ndarray

    def __len__(self) -> int:
        return len(self.log_weights)

    def masses(self, n: int) -> Masses:
        """Masses of the basins 0 .. n - 1, and of -1 last."""
        top = self.log_weights.max()
        w = np.exp(self.log_weights - top)
        same = self.label == self.guess
        rows = np.concatenate([self.guess, np.where(self.label < 0, n, self.label)[~same]])
        weight = np.concatenate([w, w[~same]])
        y = weight * np.concatenate([np.where(same, 1, 1 - self.correction), self.correction[~same]])

        def summed(values: np.ndarray) -> np.ndarray:
            return np.bincount(rows, weights=values, minlength=n + 1)

        first, second, mixed = summed(y), summed(y * y), summed(y * weight)
        total = w.sum()
        share = first / total
        spread = second - 2 * share * mixed + share**2 * (w @ w)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_z = np.log(first / len(w)) + top
            log_z_se = np.sqrt(np.maximum(second / first**2 - 1 / len(w), 0))
        return Masses(share, np.sqrt(np.maximum(spread, 0)) / total, log_z, log_z_se)


@dataclass(frozen=True)
class Masses:
    """share and share_se (n + 1,): of the total, by the delta method over the draws; log_z and log_z_se (n + 1,): log
    of the integral of exp(-beta E) over the basin, nan where the estimate is not positive. Row n: no known basin."""

    share: np.ndarray
    share_se: np.ndarray
    log_z: np.ndarray
    log_z_se: np.ndarray


def label_probabilities(
    log_weights: np.ndarray, guess: Guess, n: int, n_labels: float, large: float = 1.0
) -> np.ndarray:
    """How probable it should be that each draw is labelled, (m,), so that about n_labels are.

    With g and s the likeliest two of the n wells, p_s the doubt that it is s, and W_i the share of the weight in draws
    that are guessed to be in i,

        p ~ w [BULK / A_g + (1 / A_g + 1 / A_s) p_s],  A_i = min(W_i, large),

    so that every state, however rare, gets its labels, most of them where two wells meet. large : share of a state from
    which on its error is to be small beside 1, not beside its own weight.
    """
    w = np.exp(log_weights - log_weights.max())
    weight = np.bincount(guess.first, weights=w, minlength=n)
    # A weight this small is no weight: its inverse would overflow.
    counts = np.minimum(weight, large * weight.sum())
    inverse = np.divide(1, counts, out=np.zeros(n), where=weight > np.finfo(float).tiny)
    # Rows first: neither w / A_guess nor w times the doubt can overflow.
    matters = w * inverse[guess.first] * (BULK + guess.doubt) + w * guess.doubt * inverse[guess.second]
    return _capped(matters, n_labels)


def _capped(matters: np.ndarray, total: float) -> np.ndarray:
    """min(1, c matters) with the c for which the sum is `total`, or 1 wherever anything matters if that is fewer."""
    order = np.sort(matters)[::-1]
    left = np.cumsum(order[::-1])[::-1]  # of those from each place on, the small ones summed first
    # With the k largest at 1, the others share the rest; k is the least for which none of these exceeds 1.
    k = np.arange(len(order))
    fits = (total - k) * order <= left
    first = int(fits.argmax()) if fits.any() else len(order)
    if first == len(order) or order[first] <= 0 or left[first] <= 0:
        return (matters > 0).astype(float)
    return np.minimum(1, (total - first) / left[first] * matters)
