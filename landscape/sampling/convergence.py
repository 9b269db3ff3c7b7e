"""Have chains converged? Rank-normalised split R-hat, effective sample sizes, autocorrelation times, basins left.

A. Vehtari, A. Gelman, D. Simpson, B. Carpenter and P.-C. Buerkner, Bayesian Analysis 16, 667 (2021), as ArviZ has it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape.errors import UsageError
from landscape.sampling.diagnostics import mean_between_chains

MAX_R_HAT = 1.01  # both as the paper advises
MIN_ESS = 400.0
TAIL = (0.05, 0.95)  # quantiles whose indicators the tail size is of
LEAST_DRAWS = 8


@dataclass(frozen=True)
class ChainDiagnostics:
    """Of m quantities, by name; all arrays (m,).

    mean, standard_deviation over all draws; standard_error of the mean: standard_deviation / (effective sample size of
    the mean)^(1/2). r_hat, ess_bulk, ess_tail : see the module. autocorrelation_time : integrated, in draws: number of
    draws over the effective sample size of the mean. nan for a quantity that never changes.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    standard_deviation: np.ndarray
    standard_error: np.ndarray
    r_hat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    autocorrelation_time: np.ndarray

    @property
    def doubts(self) -> list[str]:
        """Why these chains should not be trusted; empty where nothing speaks against them."""
        if not np.isfinite(self.r_hat).all():
            return [f"{self._names(~np.isfinite(self.r_hat))} never changed: every move was refused"]
        texts = []
        if (self.r_hat > MAX_R_HAT).any():
            worst = f"R-hat is {self.r_hat.max():.3g}, above {MAX_R_HAT}, for {self._names(self.r_hat > MAX_R_HAT)}"
            texts.append(f"{worst}: the chains have not forgotten where they began")
        least = np.minimum(self.ess_bulk, self.ess_tail)
        if (least < MIN_ESS).any():
            texts.append(
                f"the effective sample size is {least.min():.0f}, below {MIN_ESS:.0f}, for "
                f"{self._names(least < MIN_ESS)}: take more draws"
            )
        return texts

    def _names(self, rows: np.ndarray) -> str:
        names = [self.names[k] for k in np.flatnonzero(rows)]
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


@dataclass(frozen=True)
class Crossings:
    """Basins that chains were in, at every `stride`-th draw, and how often they changed from one to another.

    label (n_labelled, n_chains) : -1 for no known basin. changes (n_chains,) : from one labelled draw to the next, so
    at least as many as seen. stayed (n_chains,) : the chain never left the basin it was first seen in.
    share, standard_error (n_basins + 1,) : part of the draws in each basin, those in none last; errors between chains.
    """

    label: np.ndarray
    stride: int
    changes: np.ndarray
    stayed: np.ndarray
    share: np.ndarray
    standard_error: np.ndarray

    @property
    def doubts(self) -> list[str]:
        """A chain that never left its basin, while more than one was visited, stands for its start alone."""
        visited = int((self.share[:-1] > 0).sum()) + int(self.share[-1] > 0)
        stuck = int(self.stayed.sum())
        if visited < 2 or not stuck:
            return []
        chains = "the only chain" if len(self.stayed) == 1 else f"{stuck} of {len(self.stayed)} chains"
        return [f"{chains} never left the basin of the start: take more draws, or move by tempering"]


def diagnose_chains(values: np.ndarray, names: tuple[str, ...]) -> ChainDiagnostics:
    """Diagnostics of m quantities along chains: values (n_draws, n_chains, m), finite. UsageError below 8 draws or 2
    chains.
    """
    n_draws, n_chains, m = values.shape
    if n_draws < LEAST_DRAWS or n_chains < 2 or len(names) != m:
        raise UsageError(
            f"diagnostics need {LEAST_DRAWS} draws of 2 chains or more, not {n_draws} of {n_chains}: sample longer"
        )
    found = np.full((4, m), np.nan)
    moving = np.flatnonzero(np.ptp(values, axis=(0, 1)) > 0)
    if len(moving):
        found[:, moving] = _arviz(values[..., moving])
    r_hat, bulk, tail, plain = found
    deviation = values.std(axis=(0, 1))
    return ChainDiagnostics(
        names, values.mean(axis=(0, 1)), deviation, deviation / np.sqrt(plain), r_hat, bulk, tail,
        n_draws * n_chains / plain,
    )  # fmt: skip


def split_r_hat(values: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat of values (n_draws, n_chains, m): (m,), nan where a quantity never changes."""
    return diagnose_chains(values, tuple(map(str, range(values.shape[2])))).r_hat


def count_crossings(label: np.ndarray, n_basins: int, stride: int) -> Crossings:
    """Crossings between labels (n_labelled, n_chains), integers from -1 to n_basins - 1."""
    known = np.where(label < 0, n_basins, label)
    chain_shares = (known[..., None] == np.arange(n_basins + 1)).mean(axis=0)
    changes = (label[1:] != label[:-1]).sum(axis=0)
    share, error = mean_between_chains(chain_shares) if label.shape[1] > 1 else (chain_shares[0], chain_shares[0] * 0)
    return Crossings(label, stride, changes, changes == 0, share, error)


def _arviz(values: np.ndarray) -> np.ndarray:
    """R-hat, bulk, tail and plain effective sample sizes, (4, m)."""
    from arviz_stats.base import array_stats  # slow to import

    axes: dict[str, Any] = {"chain_axis": 1, "draw_axis": 0}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of chains that stand still: the numbers say so
        r_hat = array_stats.rhat(values, method="rank", **axes)
        bulk = array_stats.ess(values, method="bulk", **axes)
        tail = array_stats.ess(values, method="tail", prob=TAIL, **axes)
        plain = array_stats.ess(values, method="mean", **axes)
    return np.stack([np.atleast_1d(part) for part in (r_hat, bulk, tail, plain)])
