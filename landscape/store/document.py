"""The JSON document of an analysis, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.checks import LOW_BARRIER, Checks
from landscape.dynamics import Dynamics, Overdamped, Underdamped
from landscape.errors import UsageError
from landscape.network import TransitionNetwork
from landscape.network.export import exp_or_none
from landscape.rates import LogDeterminants
from landscape.store.large import Large
from landscape.store.records import Array, Exact, Saddles, Sampled, SavedPaths, States

if TYPE_CHECKING:
    from landscape.store.saved import Analysis

FORMAT, VERSION = "learned-landscape/analysis", 1
MAX_HESSIAN_NUMBERS = 1_000_000  # 20 MB as text; beyond that Hessians are in analysis.sqlite alone
MAX_DENSE_STATES = 500  # above it passage times and timescales take minutes, and as text hundreds of megabytes


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(array: Array) -> Any:
    """Nested lists with null for what is not finite."""
    array = np.asarray(array)
    if array.ndim == 0:
        return _number(float(array))
    return [_numbers(row) for row in array] if array.ndim > 1 else [_number(v) for v in array.tolist()]


def _exponentials(logs: Array) -> Any:
    array = np.asarray(logs)
    return [_exponentials(row) for row in array] if array.ndim > 1 else [exp_or_none(v) for v in array.tolist()]


def _point(analysis: Analysis, points: States | Saddles, k: int) -> dict[str, Any]:
    n = len(analysis.states.x) + len(analysis.saddles.x)
    keep = points.hessian is not None and n * analysis.dim**2 <= MAX_HESSIAN_NUMBERS
    return {
        "id": k, "x": points.x[k].tolist(), "energy": float(points.energy[k]),
        "hessian_eigenvalues": points.eigenvalues[k].tolist(),
        "hessian": points.hessian[k].tolist() if keep and points.hessian is not None else None,
        "gradient_norm": float(points.gradient_norm[k]),
    }  # fmt: skip


def dynamics_record(dynamics: Dynamics, dim: int, origins: Mapping[str, str]) -> dict[str, Any]:
    """Kind, beta, gamma, mass and rotation as plain data, one number a coordinate, and where each came from."""
    mass, rotation = dynamics.mass_vector(dim), dynamics.rotation_matrix(dim)
    return {
        "kind": dynamics.kind, "beta": float(dynamics.beta), "gamma": dynamics.gamma_vector(dim).tolist(),
        "mass": None if mass is None else mass.tolist(),
        "rotation": None if rotation is None else rotation.tolist(), "origins": dict(origins),
    }  # fmt: skip


def dynamics_from(record: Mapping[str, Any]) -> Dynamics:
    """The dynamics of a `dynamics_record`."""
    gamma = tuple(record["gamma"])
    if record["kind"] == "underdamped":
        return Underdamped(record["beta"], gamma, tuple(record["mass"]))
    return Overdamped(record["beta"], gamma, record.get("rotation"))


def source_file(source: str) -> Path | None:
    """The file that holds an energy named `source` (FILE, or FILE:NAME for code), None if there is no such file."""
    for name in (source, source.rpartition(":")[0]):
        if name and not source.startswith("potential:") and Path(name).is_file():
            return Path(name)
    return None


def to_document(analysis: Analysis) -> dict[str, Any]:
    """The JSON document of an analysis: plain data, null for what is not finite or beyond float64."""
    network = analysis.network
    return {
        "format": FORMAT,
        "version": VERSION,
        "energy": dict(analysis.energy),
        "dynamics": dynamics_record(analysis.dynamics, analysis.dim, analysis.origins),
        "states": [_state(analysis, k) for k in range(network.n_states)],
        "saddles": [_saddle(analysis, k) for k in range(network.n_saddles)],
        "paths": [
            {
                "saddle": int(analysis.paths.saddle[k]), "images": analysis.paths.images[k].tolist(),
                "energy": analysis.paths.energy[k].tolist(), "arclength": analysis.paths.arclength[k].tolist(),
                "converged": bool(analysis.paths.converged[k]),
            }
            for k in range(len(analysis.paths.saddle))
        ],
        "network": _network(network),
        "diagnostics": {
            **analysis.diagnostics, "warnings": analysis.warnings, "search_warnings": analysis.diagnostics["warnings"],
            "unassigned": None if analysis.sampled is None else analysis.sampled.unassigned,
        },
        "checks": None if analysis.checks is None else analysis.checks.to_record(),
        "provenance": dict(analysis.provenance),
        "other_points": [dict(point) for point in analysis.other_points],
        "config": dict(analysis.config),
        **({} if analysis.large is None else {"large": _large(analysis.large)}),
    }  # fmt: skip


def _large(large: Large) -> dict[str, Any]:
    """What stands in for Hessians: see `Large`."""
    return {name: None if value is None else _numbers(value) for name, value in vars(large).items()}


def _network(network: TransitionNetwork) -> dict[str, Any]:
    """What follows from the rates; null for what has a number for each pair, and for timescales, of a large network."""
    stationary = {
        "stationary": _exponentials(network.log_stationary), "log_stationary": _numbers(network.log_stationary),
    }  # fmt: skip
    names = ("rate_matrix", "log_rate_matrix", "mfpt", "log_mfpt", "timescales", "log_timescales")
    if network.n_states > MAX_DENSE_STATES:
        return {**dict.fromkeys(names), **stationary}
    return {
        "rate_matrix": _rate_matrix(network), "log_rate_matrix": _numbers(network.log_rate_matrix), **stationary,
        "mfpt": _exponentials(network.log_mfpt), "log_mfpt": _numbers(network.log_mfpt),
        "timescales": _exponentials(network.log_timescales), "log_timescales": _numbers(network.log_timescales),
    }  # fmt: skip


def _rate_matrix(network: TransitionNetwork) -> list[list[float | None]]:
    """Rows sum to 0; a diagonal entry is null where a rate of its row is."""
    matrix = _exponentials(network.log_rate_matrix)
    for i, row in enumerate(matrix):
        others = [rate for k, rate in enumerate(row) if k != i]
        row[i] = None if None in others else 0.0 - math.fsum(others)
    return matrix


def _state(analysis: Analysis, k: int) -> dict[str, Any]:
    sampled = analysis.sampled
    weights = {
        "zeroth": exp_or_none(analysis.log_zeroth[k]), "second": exp_or_none(analysis.log_second[k]),
        "sampled": None if sampled is None else float(sampled.weights[k]),
        "sampled_se": None if sampled is None else float(sampled.standard_errors[k]),
        "log_zeroth": float(analysis.log_zeroth[k]), "log_second": float(analysis.log_second[k]),
        "second_se": _number(analysis.second_errors[k]),
    }  # fmt: skip
    weights |= {name: None if analysis.exact is None else _number(array[k]) for name, array in _exact(analysis).items()}
    core = None if sampled is None else {
        "ceiling": _number(sampled.core_ceiling[k]), "mass": float(sampled.core_mass[k]),
        "se": float(sampled.core_se[k]),
    }  # fmt: skip
    point = _point(analysis, analysis.states, k) | {"hits": int(analysis.states.hits[k]), "weights": weights}
    point |= _modulo(analysis, 0, k)
    if analysis.large is not None:
        point |= _determinant(analysis.large.determinants[0], k)
    return point | {"sublevel_basin": core, "negligible": bool(analysis.negligible[k])}


def _modulo(analysis: Analysis, which: int, k: int) -> dict[str, Any]:
    """Of a state (which = 0) or saddle (1) modulo a symmetry: its zero modes, the order of its point group, the log of
    the volume of its orbit, and log |product of the nonzero eigenvalues|. Nothing where no such symmetry is declared.
    """
    modulo = analysis.modulo
    if modulo is None:
        return {}
    orbits = modulo.orbits[which]
    return {
        "zero_modes": int(orbits.zero_modes[k]), "point_group_order": int(orbits.order[k]),
        "log_orbit_volume": float(orbits.log_volume[k]), "log_det": float(modulo.bare_log_dets[which][k]),
    }  # fmt: skip


def _exact(analysis: Analysis) -> dict[str, Array]:
    """The columns of the exact weights, by their names in the document; of nan where there are none."""
    exact, unknown = analysis.exact, np.full(len(analysis.states.energy), np.nan)
    names = {"exact": "weights", "exact_se": "standard_errors", "log_z": "log_z", "log_z_se": "log_z_se"}
    return {key: unknown if exact is None else getattr(exact, field) for key, field in names.items()}


def _saddle(analysis: Analysis, k: int) -> dict[str, Any]:
    log_rates, joins = analysis.rates.log_rates[k], analysis.saddles.joins[k].tolist()
    reduced = analysis.dynamics.beta * analysis.network.barriers[k]
    point = _point(analysis, analysis.saddles, k) | _modulo(analysis, 1, k)
    if analysis.large is not None:
        point |= _determinant(analysis.large.determinants[1], k)
    return point | {
        "joins": [end if end >= 0 else None for end in joins],
        "unstable_rate": exp_or_none(analysis.rates.log_unstable_rate[k]),
        "rates": [exp_or_none(value) for value in log_rates],
        "log_rates": _numbers(log_rates),
        "log_rates_se": _numbers(analysis.rates.log_errors[k]),
        "low_friction": bool(analysis.rates.low_friction[k]),
        "low_barrier": bool(analysis.network.counted[k] and reduced.min() < LOW_BARRIER),
        "flat_saddle": bool(analysis.flat_saddles[k]),
        "long_time_step": bool(analysis.long_time_steps[k]),
    }


def _determinant(found: LogDeterminants, k: int) -> dict[str, Any]:
    return {"log_determinant": float(found.values[k]), "log_determinant_se": _number(found.errors[k])}


def _points_from(rows: list[Mapping[str, Any]], d: int) -> dict[str, Any]:
    have_hessian = bool(rows) and all(row["hessian"] is not None for row in rows)
    hessian = np.array([row["hessian"] for row in rows]).reshape(-1, d, d) if have_hessian else None
    if not rows:
        hessian = np.zeros((0, d, d))
    return {
        "x": np.array([row["x"] for row in rows], float).reshape(-1, d),
        "energy": np.array([row["energy"] for row in rows], float),
        "eigenvalues": np.array([row["hessian_eigenvalues"] for row in rows] or np.zeros((0, d)), float),
        "hessian": hessian,
        "gradient_norm": np.array([row["gradient_norm"] for row in rows], float),
    }


def fields_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Analysis` from its JSON document. KeyError, TypeError or ValueError where it is damaged."""
    d = int(document["energy"]["dim"])
    states, saddles, paths = document["states"], document["saddles"], document["paths"]
    if not states:
        raise UsageError("this is not a complete analysis (it has no states); analyse again")
    joins = [[-1 if end is None else end for end in row["joins"]] for row in saddles]
    diagnostics = dict(document["diagnostics"])
    diagnostics["warnings"] = list(diagnostics.pop("search_warnings"))
    unassigned = diagnostics.pop("unassigned")
    n_images = len(paths[0]["energy"]) if paths else 0
    return {
        "energy": dict(document["energy"]),
        "dynamics": dynamics_from(document["dynamics"]),
        "states": States(**_points_from(states, d), hits=np.array([row["hits"] for row in states], int)),
        "saddles": Saddles(**_points_from(saddles, d), joins=np.array(joins, int).reshape(-1, 2)),
        "paths": SavedPaths(
            np.array([row["saddle"] for row in paths], int),
            np.array([row["images"] for row in paths], float).reshape(len(paths), n_images, d),
            np.array([row["energy"] for row in paths], float).reshape(len(paths), n_images),
            np.array([row["arclength"] for row in paths], float).reshape(len(paths), n_images),
            np.array([row["converged"] for row in paths], bool),
        ),
        "sampled": _sampled_from(states, unassigned),
        "exact": _exact_from(states),
        "diagnostics": diagnostics,
        "other_points": tuple(document["other_points"]),
        "origins": dict(document["dynamics"]["origins"]),
        "config": dict(document["config"]),
        # absent in what earlier versions wrote
        "provenance": dict(document.get("provenance", {})),
        "checks": None if document.get("checks") is None else Checks.from_record(document["checks"]),
        "large": _large_from(document["large"], d) if "large" in document else None,
    }


def _large_from(record: Mapping[str, Any], d: int) -> Large:
    """null in the arrays, which stands for what is not finite, is nan again, but an infinite bracket."""
    arrays: dict[str, Any] = {name: None if value is None else np.array(value, float) for name, value in record.items()}
    large = Large(**arrays)
    brackets = {name: np.nan_to_num(arrays[name], nan=np.inf) for name in ("brackets", "saddle_brackets")}
    losses = np.full(len(large.losses), np.inf) if large.mass is None else large.losses
    wide = large.saddle_log_dets.reshape(len(large.saddle_brackets), large.log_dets.shape[1])
    return replace(large, **brackets, losses=losses, saddle_log_dets=wide)


def _exact_from(states: list[Mapping[str, Any]]) -> Exact | None:
    """None where no state has an exact weight, as in what earlier versions wrote."""
    names = ("exact", "exact_se", "log_z", "log_z_se")
    columns = [np.array([row["weights"].get(name) for row in states], float) for name in names]
    return None if np.isnan(columns[0]).all() else Exact(*columns)


def _sampled_from(states: list[Mapping[str, Any]], unassigned: float | None) -> Sampled | None:
    if any(row["weights"]["sampled"] is None for row in states) or unassigned is None:
        return None
    cores = [row["sublevel_basin"] for row in states]
    return Sampled(
        np.array([row["weights"]["sampled"] for row in states], float),
        np.array([row["weights"]["sampled_se"] for row in states], float),
        float(unassigned),
        np.array([core["mass"] for core in cores], float),
        np.array([core["se"] for core in cores], float),
        np.array([math.inf if core["ceiling"] is None else core["ceiling"] for core in cores], float),
    )
