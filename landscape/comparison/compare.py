"""`compare_analyses`: states of two analyses matched, weights and rates side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from landscape.comparison.matching import match_networks, match_positions, match_weights, squared_distances
from landscape.errors import UsageError
from landscape.network.export import exp_or_none
from landscape.store import Analysis, dynamics_record

Array = np.ndarray

METHODS = ("position", "weights", "permutation")
WEIGHTS = ("zeroth", "second", "sampled", "exact")


@dataclass(frozen=True, eq=False)
class Comparison:
    """p matched states of two analyses a and b with n_a and n_b states; axis "2" is (a, b).

    method : one of METHODS. pairs (p, 2) : state numbers. distances (p,) : in thermal widths, nan unless matched by
    position. unmatched_a, unmatched_b : the other state numbers. weights, weight_errors : name -> (p, 2), nan where not
    known; names as in WEIGHTS. log_rates (p, p, 2) : by the formula, in the order of `pairs`. log_references,
    log_reference_errors (p, p, 2) : independent rates and their standard errors in the logarithm, nan where none is
    stored. log_timescales_a, log_timescales_b : of the whole networks, slowest first. notes : what to beware of.
    """

    method: str
    pairs: Array
    distances: Array
    unmatched_a: Array
    unmatched_b: Array
    weights: Mapping[str, Array]
    weight_errors: Mapping[str, Array]
    log_rates: Array
    log_references: Array
    log_reference_errors: Array
    log_timescales_a: Array
    log_timescales_b: Array
    notes: tuple[str, ...]

    @property
    def log_weight_ratios(self) -> dict[str, Array]:
        """name -> ln(weight in a / weight in b), (p,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: np.log(values[:, 0]) - np.log(values[:, 1]) for name, values in self.weights.items()}

    @property
    def log_rate_ratios(self) -> Array:
        """ln(rate in a / rate in b), (p, p); +-inf for an edge on one side only, nan where neither has it."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.log_rates[..., 0] - self.log_rates[..., 1])

    def to_document(self) -> dict[str, Any]:
        """Plain data for JSON; null for what is not known or beyond float64."""
        ratios, rate_ratios = self.log_weight_ratios, self.log_rate_ratios
        states = [
            {
                "a": int(a), "b": int(b), "distance": _number(self.distances[k]),
                "weights": {
                    name: {
                        "a": _number(self.weights[name][k, 0]), "b": _number(self.weights[name][k, 1]),
                        "se_a": _number(self.weight_errors[name][k, 0]),
                        "se_b": _number(self.weight_errors[name][k, 1]), "log_ratio": _number(ratios[name][k]),
                    }
                    for name in self.weights
                },
            }
            for k, (a, b) in enumerate(self.pairs)
        ]  # fmt: skip
        rates = []
        for i, j in np.argwhere(np.any(self.log_rates > -np.inf, axis=2)).tolist():
            row: dict[str, Any] = {
                "a": self.pairs[[i, j], 0].tolist(), "b": self.pairs[[i, j], 1].tolist(),
                "log_ratio": _number(rate_ratios[i, j]),
            }  # fmt: skip
            for side, name in enumerate("ab"):
                row[f"rate_{name}"] = exp_or_none(self.log_rates[i, j, side])
                row[f"log_rate_{name}"] = _number(self.log_rates[i, j, side])
                row[f"log_reference_{name}"] = _number(self.log_references[i, j, side])
                row[f"log_reference_se_{name}"] = _number(self.log_reference_errors[i, j, side])
            rates.append(row)
        return {
            "format": "learned-landscape/comparison", "version": 1, "match": self.method, "states": states,
            "unmatched": {"a": self.unmatched_a.tolist(), "b": self.unmatched_b.tolist()}, "rates": rates,
            "log_timescales": {
                "a": [_number(v) for v in self.log_timescales_a], "b": [_number(v) for v in self.log_timescales_b],
            },
            "notes": list(self.notes),
        }  # fmt: skip


def compare_analyses(a: Analysis, b: Analysis, match: str = "position", max_distance: float = 5.0) -> Comparison:
    """Match the states of two analyses and put what belongs together side by side.

    match : "position", for the same coordinates (two seeds of a search, two checkpoints of one training): least squared
    distances in thermal widths, at most `max_distance` of them. "weights", "permutation": for latent spaces that have
    nothing to do with each other; by 2nd-order weights, or by weights and rates together (see `match_networks`).
    UsageError: unknown method, a distance that is not positive, dimensions that differ where positions are compared.
    """
    if match not in METHODS:
        raise UsageError(f"states are matched by {', '.join(METHODS)}, not by {match!r}")
    if not max_distance > 0:
        raise UsageError(f"the largest distance of a match is greater than 0, not {max_distance!r}")
    distances = None
    if match == "position":
        if a.dim != b.dim:
            raise UsageError(
                f"positions in {a.dim} and {b.dim} dimensions cannot be compared: match by weights or permutation"
            )
        if a.modulo is not None or b.modulo is not None:
            raise UsageError(
                "a state of particles stands for all its copies, of which each analysis holds another one: "
                "match by weights or permutation"
            )
        shapes = a.states.x, b.states.x, _stiffness(a), _stiffness(b)
        pairs = match_positions(*shapes, max_distance)
        distances = np.sqrt(squared_distances(*shapes))[pairs[:, 0], pairs[:, 1]]
    elif match == "weights":
        pairs = match_weights(a.log_second, b.log_second)
    else:
        pairs = match_networks(a.log_second, a.network.log_rate_matrix, b.log_second, b.network.log_rate_matrix)
    ours, theirs = pairs.T
    references = [_references(analysis) for analysis in (a, b)]
    grids = [np.ix_(ours, ours), np.ix_(theirs, theirs)]
    matrices = [a.network.log_rate_matrix[grids[0]], b.network.log_rate_matrix[grids[1]]]
    columns = [_weights(analysis) for analysis in (a, b)]
    values, errors = ({name: _paired(columns, pairs, name, k) for name in WEIGHTS} for k in (0, 1))
    return Comparison(
        method=match, pairs=pairs, distances=np.full(len(pairs), np.nan) if distances is None else distances,
        unmatched_a=np.setdiff1d(np.arange(len(a.states.x)), ours),
        unmatched_b=np.setdiff1d(np.arange(len(b.states.x)), theirs),
        weights=values, weight_errors=errors, log_rates=np.stack(matrices, axis=2),
        log_references=np.stack([logs[grid] for (logs, _), grid in zip(references, grids, strict=True)], axis=2),
        log_reference_errors=np.stack([se[grid] for (_, se), grid in zip(references, grids, strict=True)], axis=2),
        log_timescales_a=a.network.log_timescales, log_timescales_b=b.network.log_timescales,
        notes=_notes(a, b, match, pairs),
    )  # fmt: skip


def _stiffness(analysis: Analysis) -> Array:
    """beta H (n, d, d); where Hessians were not kept, the isotropic matrix with their mean eigenvalue; where d is too
    large for matrices, beta times the geometric mean of the eigenvalues (n,)."""
    if analysis.large is not None:
        return np.asarray(analysis.dynamics.beta * np.exp(analysis.large.determinants[0].values / analysis.dim))
    states = analysis.states
    hessians = states.hessian
    if hessians is None:
        hessians = states.eigenvalues.mean(axis=1)[:, None, None] * np.eye(analysis.dim)
    return np.asarray(analysis.dynamics.beta * hessians)


def _weights(analysis: Analysis) -> dict[str, tuple[Array, Array]]:
    """name -> (weights, standard errors), nan where not known."""
    unknown = np.full(len(analysis.states.x), np.nan)
    sampled, exact = analysis.sampled, analysis.exact
    return {
        "zeroth": (np.exp(analysis.log_zeroth), unknown),
        "second": (np.exp(analysis.log_second), unknown),
        "sampled": (unknown, unknown) if sampled is None else (sampled.weights, sampled.standard_errors),
        "exact": (unknown, unknown) if exact is None else (exact.weights, exact.standard_errors),
    }


def _paired(columns: list[dict[str, tuple[Array, Array]]], pairs: Array, name: str, kind: int) -> Array:
    return np.column_stack([columns[side][name][kind][pairs[:, side]] for side in (0, 1)])


def _references(analysis: Analysis) -> tuple[Array, Array]:
    """Independent log rates (n, n) from the stored checks, and standard errors from half their intervals."""
    n = len(analysis.states.x)
    logs, errors = np.full((n, n), np.nan), np.full((n, n), np.nan)
    checks = analysis.checks
    if checks is not None and len(checks.pairs):
        i, j = checks.pairs.T
        logs[i, j] = checks.log_reference
        wide = 2 * NormalDist().inv_cdf((1 + checks.confidence) / 2)
        spread = checks.log_interval[:, 1] - checks.log_interval[:, 0]
        errors[i, j] = np.where(np.isfinite(spread), spread / wide, np.nan)
    return logs, errors


def _notes(a: Analysis, b: Analysis, match: str, pairs: Array) -> tuple[str, ...]:
    notes = []
    first, second = (dynamics_record(analysis.dynamics, analysis.dim, {}) for analysis in (a, b))
    differ = [name for name in first if first[name] != second.get(name) and name != "origins"]
    if a.dim != b.dim:  # lists of one number a coordinate then differ for that alone
        differ = [name for name in differ if not isinstance(first[name], list)]
    if differ:
        notes.append(f"the dynamics differ in {', '.join(differ)}; weights and rates differ for that reason too")
    for name, analysis in (("first", a), ("second", b)):
        if not analysis.diagnostics["converged"]:
            notes.append(f"the {name} analysis finished without converging: states of it may be missing")
    if match == "position" and len(pairs) < min(len(a.states.x), len(b.states.x)):
        notes.append("both have states without a partner in reach; other latent spaces are matched by permutation")
    if match == "weights":
        notes.append("states were matched by weight alone, which says nothing about which is connected to which")
    return tuple(notes)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
