"""Analyses and checks made up from random numbers, without an energy: for pictures and reports of any size."""

from __future__ import annotations

import numpy as np

from landscape.checks import Checks
from landscape.dynamics import Overdamped
from landscape.store import Analysis, Saddles, Sampled, SavedPaths, States


def random_analysis(n: int, d: int = 5, seed: int = 0, beta: float = 1.5, *, sampled: bool = True) -> Analysis:
    """n minima joined by a random tree and n more saddles, all above the minima they join."""
    rng = np.random.default_rng(seed)
    energy = np.sort(rng.gamma(3.0, 2.0, size=n))
    tree = [(int(rng.integers(0, i)), i) for i in range(1, n)]
    extra = [tuple(rng.choice(n, 2, replace=False)) for _ in range(n if n > 2 else 0)]
    joins = np.array([*tree, *extra], dtype=int).reshape(-1, 2)
    saddle_energy = energy[joins].max(axis=1) + 0.2 + rng.gamma(2.0, 1.5, size=len(joins))
    order = np.argsort(saddle_energy)
    joins, saddle_energy = joins[order], saddle_energy[order]
    m, x = len(joins), rng.normal(size=(n, d))
    curved = np.exp(0.4 * rng.normal(size=(n, d)))
    bent = np.exp(0.4 * rng.normal(size=(m, d))) * np.where(np.arange(d) == 0, -1, 1)
    weights = np.exp(-beta * energy) / np.exp(-beta * energy).sum()
    cores = np.zeros(n)
    return Analysis(
        energy={"source": f"random network of {n}", "path": None, "sha256": None, "dim": d, "dtype": "float64",
                "evaluations": {"value": 0, "gradient": 0, "hvp": 0, "hessian": 0}},
        dynamics=Overdamped(beta, 1.0),
        states=States(x, energy, np.sort(curved), _diagonal(curved), np.zeros(n), np.ones(n, dtype=int)),
        saddles=Saddles(x[joins].mean(axis=1), saddle_energy, np.sort(bent), _diagonal(bent), np.zeros(m), joins),
        paths=SavedPaths(np.zeros(0, int), np.zeros((0, 2, d)), np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, bool)),
        sampled=Sampled(weights, 0.1 * weights * rng.random(n), 0.0, cores, cores, cores) if sampled else None,
        diagnostics={"index_counts": {"0": n, "1": m}, "morse_sum": {"value": None, "expected": None},
                     "converged": True, "warnings": []},
        origins={"beta": "flag", "gamma": "default"},
        config={"seed": seed},
    )  # fmt: skip


def random_checks(rng: np.random.Generator, m: int, verdict: tuple[str, ...]) -> Checks:
    """Formula, reference and interval of transitions 0 -> 1, 1 -> 2, ..., m - 1 -> m, with the verdicts given."""
    formula = rng.normal(-3, 1, m)
    reference = formula - rng.normal(0, 0.3, m)
    interval = reference[:, None] + np.array([-0.1, 0.2]) * rng.random((m, 1))
    unknown, none = np.full(m, np.nan), np.zeros(0)
    return Checks(
        pairs=np.stack([np.arange(m), np.arange(m) + 1], axis=1), log_formula=formula, log_reference=reference,
        log_interval=interval, method=("grid",) * m, verdict=verdict, reason=("",) * m, effort=("",) * m,
        correction=("",) * m, log_corrected=unknown, log_string=unknown, time_step=None, time_step_factor=unknown,
        time_step_interval=np.stack([unknown, unknown], 1), time_step_reason="", timescale_log_formula=none,
        timescale_log_reference=none, timescale_log_interval=np.zeros((0, 2)), timescale_verdict=(),
        timescale_method="", shrink=np.ones(m + 1), confidence=0.95, tolerance=float(np.log(1.15)), seed=0,
        budget=60.0, seconds=1.0,
    )  # fmt: skip


def _diagonal(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[:, :, None] * np.eye(values.shape[1]))
