"""Bounds where transitions are too rare to be simulated: `landscape.rates.bounds` on the exits of single states.

The rate from core i to the union of all other cores is the sum of the k_ij, so its bracket speaks of the pair (i, j) if
nearly all of the formula's exits from i lead to j, and is then held against the formula's sum.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from landscape.checks.causes import Subject
from landscape.checks.references import Reference
from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy
from landscape.errors import LandscapeError
from landscape.rates import Cores
from landscape.rates.bounds import BracketOptions, bracket_rate

MAIN_EXIT = 0.97  # of the formula's exits from i that must lead to j


def with_brackets(
    energy: Energy,
    dynamics: Dynamics,
    cores: Cores,
    subject: Subject,
    reference: Reference,
    rows: np.ndarray,
    confidence: float,
    left: Callable[[], float],
    generator: torch.Generator,
    report: Callable[[str], None],
) -> Reference:
    """The reference with brackets for as many of the pairs `rows` (k, 2) as the time that is `left` allows.

    The first is made if any time is left, each further one if it is enough for another as slow as the slowest so far.
    A bracket that is not certified leaves its pair unchecked, with its reasons.
    """
    if not (isinstance(dynamics, Overdamped) and dynamics.reversible):
        return reference
    log_rates, log_interval = reference.log_rates.copy(), reference.log_interval.copy()
    bracketed, notes, slowest = np.zeros(log_rates.shape, dtype=bool), dict(reference.notes), 0.0
    exits = np.logaddexp.reduce(subject.network.log_rate_matrix, axis=1)

    def tell(part: float, text: str) -> None:
        report(f"check: bracket {part:.0%}, {text}")

    for i, j in rows.tolist():
        log_share = subject.network.log_rate_matrix[i, j] - exits[i]
        if log_share < np.log(MAIN_EXIT):
            notes[i, j] = (
                f"too rare to be simulated, and exits from {i} lead to several states: no bracket for one alone"
            )
            continue
        if left() <= slowest:
            notes[i, j] = f"too rare to be simulated, and no time was left for a bracket ({max(slowest, 30):.0f} s)"
            continue
        began = time.perf_counter()
        others = tuple(k for k in range(len(cores)) if k != i)
        try:
            found = bracket_rate(
                energy, dynamics, cores, (i,), others, subject.saddles, subject.network.joins, _paths(subject),
                generator, BracketOptions(confidence=confidence),
                tell,
            )  # fmt: skip
        except LandscapeError as error:
            notes[i, j] = f"too rare to be simulated; no bracket: {error}"
            continue
        slowest = max(slowest, time.perf_counter() - began)
        if not found.certified:
            notes[i, j] = f"too rare to be simulated; the bracket is not certified: {'; '.join(found.reasons)}"
            continue
        log_interval[i, j] = found.log_rate + log_share
        log_rates[i, j] = 0.5 * log_interval[i, j].sum()
        bracketed[i, j] = True
    converged = reference.converged | bracketed
    return replace(
        reference, log_rates=log_rates, log_interval=log_interval, converged=converged, bracketed=bracketed, notes=notes
    )


def _paths(subject: Subject) -> list[np.ndarray | None]:
    """The images of a path over each saddle, None where there is none."""
    paths: list[np.ndarray | None] = [None] * subject.network.n_saddles
    for row, images in zip(subject.path_saddle.tolist(), subject.path_images, strict=True):
        paths[row] = np.asarray(images)
    return paths
