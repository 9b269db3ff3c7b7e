"""How much time independent chains spend under each label, with errors that are honest about autocorrelation.

Chains are independent of one another, positions inside a chain are not: every error here is taken between chains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelledChains:
    """What a run leaves behind: a cheap guess of the label at every sweep, the true label at every `stride`-th.

    x (n_labelled, n_chains, d): positions at sweeps stride, 2 stride, ... (counted from 1). energy, guess (n_sweeps,
    n_chains) at every sweep; label (n_labelled, n_chains). Labels and guesses are integers; -1 is a label like any
    other here: none of the known. correction (n_labelled, n_chains) : where the label is the true one only with
    probability p, 1 / p if it is, and 0 if it repeats the guess; 1 where it always is.
    """

    x: np.ndarray
    energy: np.ndarray
    guess: np.ndarray
    label: np.ndarray
    correction: np.ndarray
    stride: int

    @property
    def n_chains(self) -> int:
        return self.guess.shape[1]

    def tail(self, n_dropped: int) -> LabelledChains:
        """The chains without their first n_dropped labelled positions and the sweeps that led to them."""
        sweeps = n_dropped * self.stride
        return LabelledChains(
            self.x[n_dropped:], self.energy[sweeps:], self.guess[sweeps:], self.label[n_dropped:],
            self.correction[n_dropped:], self.stride,
        )  # fmt: skip

    def occupancy(self, n_labels: int, ceilings: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Share of each label 0 .. n_labels - 1, and of -1 last, with standard errors: two arrays (n_labels + 1,).

        ceilings (n_labels + 1,) : count label i only where the energy is below ceilings[i].

        The guess is a control variate: a chain's estimate is its mean of [guess = i] over all sweeps plus its mean of
        correction ([label = i] - [guess = i]) over the labelled ones. It is unbiased whatever the guess is worth.
        Standard error: standard deviation between the chains / sqrt(n_chains).
        """
        labelled = slice(self.stride - 1, None, self.stride)
        guess, energy = self.guess[labelled][: len(self.label)], self.energy[labelled][: len(self.label)]
        estimate = (
            _shares(self.guess, self.energy, n_labels, ceilings)
            + _shares(self.label, energy, n_labels, ceilings, self.correction)
            - _shares(guess, energy, n_labels, ceilings, self.correction)
        )
        return mean_between_chains(estimate)

    def drift(self, n_labels: int) -> np.ndarray:
        """Second half minus first half of the guessed shares, in standard errors: (n_labels + 1,).

        Standard normal for chains in equilibrium; a common drift of all the chains, which the spread between them
        cannot show, makes it large. Labels on which all chains agree count as 0.
        """
        half = len(self.guess) // 2
        first = _shares(self.guess[:half], None, n_labels)
        second = _shares(self.guess[len(self.guess) - half :], None, n_labels)
        mean, error = mean_between_chains(second - first)
        return np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)

    def changes(self, n_labels: int) -> np.ndarray:
        """How often a chain entered or left each label, from one labelled position to the next: (n_labels + 1,)
        counts. Where not all labels are true ones the guess counts, from sweep to sweep: the two in turn would look
        like changes.
        """
        settled = self.label if (self.correction == 1).all() else self.guess
        before, after = settled[:-1], settled[1:]
        moved = before != after
        both = np.concatenate([before[moved], after[moved]])
        return np.bincount(np.where(both < 0, n_labels, both), minlength=n_labels + 1)


def mean_between_chains(chain_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over independent chains: (n_chains, m) -> (m,), (m,)."""
    n_chains = len(chain_values)
    return chain_values.mean(axis=0), chain_values.std(axis=0, ddof=1) / np.sqrt(n_chains)


def _shares(
    labels: np.ndarray,
    energy: np.ndarray | None,
    n_labels: int,
    ceilings: np.ndarray | None = None,
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """Each chain's share of each label, a record counted `counts` times: (n_records, n_chains) -> (n_chains, m + 1)."""
    n_records, n_chains = labels.shape
    bins = np.where(labels < 0, n_labels, labels)
    weights = np.ones(labels.shape) if counts is None else counts
    if ceilings is not None and energy is not None:
        weights = weights * (energy < ceilings[bins])
    flat = (bins + np.arange(n_chains) * (n_labels + 1)).ravel()
    total = np.bincount(flat, weights=weights.ravel(), minlength=n_chains * (n_labels + 1))
    return total.reshape(n_chains, n_labels + 1) / max(n_records, 1)
