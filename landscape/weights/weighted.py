"""Weighted draws with labels, of which only some were asked for: masses of the basins, and their errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

BULK = 0.1  # share of a state's labels that go to its bulk, where the harmonic guess has no doubt


@dataclass(frozen=True)
class LabelledDraws:
    """m independent draws: log_weights, guess, label, correction, all (m,).

    A draw was labelled with probability p, and then has correction = 1 / p; else correction = 0 and the label repeats
    the guess. Its contribution to the mass of basin i, with weight w, is

        y_i = w [1(guess = i) + correction (1(label = i) - 1(guess = i))],

    whose mean over the labelling is w 1(basin is i). Label -1 is a basin of its own here: none of the known.
    """

    log_weights: np.ndarray
    guess: np.ndarray
    label: np.ndarray
    correction: np.ndarray

    def __len__(self) -> int:
        return len(self.log_weights)

    def joined(self, other: LabelledDraws) -> LabelledDraws:
        """These draws, then the others."""
        return LabelledDraws(*(np.concatenate([vars(self)[name], vars(other)[name]]) for name in vars(self)))

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
        total, m = w.sum(), len(w)
        share = first / total
        spread = second - 2 * share * mixed + share**2 * (w @ w)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_z = np.log(first / m) + top
            log_z_se = np.sqrt(np.maximum(second / first**2 - 1 / m, 0))
        return Masses(share, np.sqrt(np.maximum(spread, 0)) / total, log_z, log_z_se)


@dataclass(frozen=True)
class Masses:
    """share and share_se (n + 1,): of the total, by the delta method over the draws; log_z and log_z_se (n + 1,): log
    of the integral of exp(-beta E) over the basin, nan where the estimate is not positive. Row n: no known basin."""

    share: np.ndarray
    share_se: np.ndarray
    log_z: np.ndarray
    log_z_se: np.ndarray


def label_probabilities(log_weights: np.ndarray, energies: torch.Tensor, n_labels: int) -> np.ndarray:
    """How probable it should be that each draw is labelled, (m,), so that about n_labels are.

    energies (m, n) : reduced harmonic energies h of the wells at the draws. With g and s the lowest two, h_s - h_g
    their distance and W_i the weight of the draws that have i lowest,

        p ~ w [BULK / W_g + (1 / W_g + 1 / W_s) / (1 + exp(h_s - h_g))],

    so that every state, however rare, gets its labels, most of them where two wells meet.
    """
    m, n = energies.shape
    w = np.exp(log_weights - log_weights.max())
    lowest, order = (part.numpy() for part in energies.topk(min(2, n), dim=1, largest=False))
    guess, second = order[:, 0], order[:, -1]
    weight = np.bincount(guess, weights=w, minlength=n)
    # A weight this small is no weight: its inverse would overflow.
    inverse = np.divide(1, weight, out=np.zeros(n), where=weight > np.finfo(float).tiny)
    doubt = np.zeros(m) if n == 1 else np.exp(-np.logaddexp(0, lowest[:, 1] - lowest[:, 0]))
    # Rows first: w / W_guess is at most 1, and w exp(-distance) / W_second of the order of 1.
    matters = w * inverse[guess] * (BULK + doubt) + w * doubt * inverse[second]
    return np.minimum(1, n_labels * matters / matters.sum())
