"""The saved analysis: the `Analysis` object, its JSON document, and the folder it is written to.

An analysis holds numpy arrays and plain data only, never the energy: it can be saved, compared, sent elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from landscape.dynamics import Dynamics, Overdamped, Underdamped
from landscape.errors import UsageError
from landscape.network import TransitionNetwork, states_table, transitions_table
from landscape.network.export import TRANSITION_COLUMNS, csv_bytes, exp_or_none, export_network, replace_files
from landscape.rates import LangerRates, langer_rates, log_abs_determinant
from landscape.weights import second_order, zeroth_order

FORMAT, VERSION = "learned-landscape/analysis", 1
DOCUMENT = "analysis.json"
FILES = (DOCUMENT, "states.csv", "transitions.csv", "network.graphml")
STAGING = ".landscape-"  # names of folders in which files wait until all of them are whole
MAX_HESSIAN_DIM = 200  # above it Hessians are not saved
LOW_BARRIER = 5.0  # reduced barriers below this make asymptotic rates doubtful

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class States:
    """n states, lowest energy first.

    x (n, d), energy (n,), eigenvalues (n, d) and hessian (n, d, d) or None of the Hessian, gradient_norm (n,),
    hits (n,) : starts that ended here.
    """

    x: Array
    energy: Array
    eigenvalues: Array
    hessian: Array | None
    gradient_norm: Array
    hits: Array


@dataclass(frozen=True, eq=False)
class Saddles:
    """m index-1 saddles, lowest first: as in `States`, and joins (m, 2): the states at both ends, -1 if unknown."""

    x: Array
    energy: Array
    eigenvalues: Array
    hessian: Array | None
    gradient_norm: Array
    joins: Array


@dataclass(frozen=True, eq=False)
class SavedPaths:
    """p minimum energy paths: saddle (p,), images (p, m, d), energy and arclength (p, m), converged (p,)."""

    saddle: Array
    images: Array
    energy: Array
    arclength: Array
    converged: Array


@dataclass(frozen=True, eq=False)
class Sampled:
    """Sampled weights of n states: weights and standard_errors (n,), unassigned share, and the cores: core_mass and
    core_se (n,), the mass of the connected piece of {E < lowest saddle} around each minimum, core_ceiling
    (n,) that energy."""

    weights: Array
    standard_errors: Array
    unassigned: float
    core_mass: Array
    core_se: Array
    core_ceiling: Array


@dataclass(frozen=True, eq=False)
class Analysis:
    """States, saddles, paths, weights, rates and network of one energy at one choice of dynamics.

    energy : source, sha256, dim, dtype, evaluations. origins : where each dynamics parameter came from.
    sampled : None where there is no trustworthy sample. diagnostics : index_counts, morse_sum, converged, warnings of
    the search, and what else it had to say. other_points : stationary points of index >= 2 and degenerate ones.
    """

    energy: Mapping[str, Any]
    dynamics: Dynamics
    states: States
    saddles: Saddles
    paths: SavedPaths
    sampled: Sampled | None
    diagnostics: Mapping[str, Any]
    other_points: tuple[Mapping[str, Any], ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        return self.states.x.shape[1]

    @cached_property
    def log_zeroth(self) -> Array:
        """Logarithms of the 0th-order weights (n,)."""
        return zeroth_order(self.states.energy, self.dynamics.beta).log_weights

    @cached_property
    def log_second(self) -> Array:
        """Logarithms of the 2nd-order weights (n,)."""
        log_dets = log_abs_determinant(self.states.eigenvalues)
        return second_order(self.states.energy, log_dets, self.dynamics.beta).log_weights

    @cached_property
    def rates(self) -> LangerRates:
        """Langer's rate through every saddle from both of its ends."""
        s, t = self.states, self.saddles
        return langer_rates(self.dynamics, s.energy, s.eigenvalues, t.energy, t.eigenvalues, t.hessian, t.joins)

    @cached_property
    def network(self) -> TransitionNetwork:
        """The states and saddles as a Markov jump process; parallel saddles add."""
        unknown = np.full(len(self.states.energy), np.nan)
        columns = {
            "zeroth": np.exp(self.log_zeroth), "second": np.exp(self.log_second),
            "sampled": self.sampled.weights if self.sampled else unknown,
            "sampled_se": self.sampled.standard_errors if self.sampled else unknown,
        }  # fmt: skip
        return TransitionNetwork(
            self.states.energy, self.states.x, self.log_second, self.saddles.joins, self.saddles.energy,
            self.rates.log_rates, columns,
        )  # fmt: skip

    @property
    def warnings(self) -> list[str]:
        """Everything the user should know, the search's warnings first, then those of these dynamics."""
        return [*self.diagnostics["warnings"], *_dynamics_warnings(self)]

    def with_dynamics(self, dynamics: Dynamics, origins: Mapping[str, str] | None = None) -> Analysis:
        """The same landscape at other parameters: rates and harmonic weights anew, no new search.

        Sampled weights belong to the beta they were drawn at; at another one they are dropped, with a warning.
        """
        changed = replace(self, dynamics=dynamics, origins=dict(origins or {}))
        if self.sampled is None or dynamics.beta == self.dynamics.beta:
            return changed
        warning = (
            f"the sampled weights were drawn at beta = {self.dynamics.beta:g} and say nothing about "
            f"beta = {dynamics.beta:g}: they are left out; analyse at that beta to sample them"
        )
        diagnostics = {**self.diagnostics, "warnings": [*self.diagnostics["warnings"], warning]}
        return replace(changed, sampled=None, diagnostics=diagnostics)

    def to_document(self) -> dict[str, Any]:
        """The JSON document: plain Python data without NaN or infinity. Plain numbers are exp of the logs, null where
        float64 cannot hold them."""
        return _document(self)

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Analysis:
        """The analysis of a JSON document. UsageError if it is none of ours, or damaged."""
        try:
            if document["format"] != FORMAT or document["version"] != VERSION:
                raise UsageError(
                    f"an analysis has format {FORMAT!r}, version {VERSION}, not {document['format']!r}, "
                    f"{document['version']!r}; analyse again with this version"
                )
            return _from_document(document)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise UsageError(
                f"this is not a complete analysis ({type(error).__name__}: {error}); analyse again"
            ) from error

    def save(self, folder: str | Path) -> None:
        """Write analysis.json, states.csv, transitions.csv and network.graphml.

        All are written to a folder inside this one first, then renamed, analysis.json last: a folder that has it is
        complete, and files of an earlier analysis stay until then. UsageError where the folder cannot be written.
        """
        folder = Path(folder)
        text = json.dumps(self.to_document(), allow_nan=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
            export_network(self.network, "graphml", staging / "network.graphml")
            replace_files({
                staging / "states.csv": csv_bytes(states_table(self.network)),
                staging / "transitions.csv": csv_bytes(transitions_table(self.network), TRANSITION_COLUMNS),
                staging / DOCUMENT: text.encode(),
            })  # fmt: skip
            for name in reversed(FILES):
                os.replace(staging / name, folder / name)
        except OSError as error:
            raise UsageError(f"cannot write to {folder} ({error.strerror}): choose another with --out") from error
        finally:
            for leftover in folder.glob(f"{STAGING}*"):  # ours, and that of a run that was killed
                shutil.rmtree(leftover, ignore_errors=True)

    @staticmethod
    def load(folder: str | Path) -> Analysis:
        """Read the analysis in a folder (or an analysis.json itself). UsageError if there is none, or it is damaged."""
        path = Path(folder)
        path = path / DOCUMENT if path.is_dir() else path
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"no analysis can be read at {path} ({reason}): name a folder that `analyze` wrote"
            ) from error
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError(f"{path} is not JSON ({error}): it is damaged; analyse again") from error
        return Analysis.from_document(document)


def _dynamics_warnings(analysis: Analysis) -> list[str]:
    """What must be said about formulas that are asymptotic."""
    warnings = []
    network, rates = analysis.network, analysis.rates
    counted = network.counted
    reduced = analysis.dynamics.beta * network.barriers[counted]
    low = int((reduced.min(axis=1, initial=np.inf) < LOW_BARRIER).sum()) if len(reduced) else 0
    if low:
        warnings.append(
            f"{low} of {int(counted.sum())} transitions have a barrier below {LOW_BARRIER:g} kT: "
            "the rate formula is asymptotic in high barriers and can be 5 to 40 % off there"
        )
    slow = int((rates.low_friction & counted).sum())
    if slow:
        warnings.append(
            f"{slow} of {int(counted.sum())} transitions have low friction (energy diffusion): "
            "the formula overestimates their rates, by up to several times"
        )
    warnings += [reason for reason in rates.refused if reason and "no known minimum" not in reason]
    parts = len(set(network.components.tolist()))
    if parts > 1:
        warnings.append(
            f"the states fall into {parts} parts that no saddle found connects: times between them are unknown"
        )
    if len(analysis.states.energy) == 1:
        warnings.append("one state only: its weight is 1, and there is no rate to report")
    if np.isnan(network.log_timescales).any():
        warnings.append("some timescales could not be resolved numerically: they are null")
    return warnings


# -- to and from plain data -------------------------------------------------------------------------------------------


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


def _point(points: States | Saddles, k: int) -> dict[str, Any]:
    keep = points.hessian is not None and points.x.shape[1] <= MAX_HESSIAN_DIM
    return {
        "id": k, "x": points.x[k].tolist(), "energy": float(points.energy[k]),
        "hessian_eigenvalues": points.eigenvalues[k].tolist(),
        "hessian": points.hessian[k].tolist() if keep and points.hessian is not None else None,
        "gradient_norm": float(points.gradient_norm[k]),
    }  # fmt: skip


def dynamics_record(dynamics: Dynamics, dim: int, origins: Mapping[str, str]) -> dict[str, Any]:
    """Kind, beta, gamma and mass as plain data, one number a coordinate, and where each came from."""
    mass = dynamics.mass_vector(dim)
    return {
        "kind": dynamics.kind, "beta": float(dynamics.beta), "gamma": dynamics.gamma_vector(dim).tolist(),
        "mass": None if mass is None else mass.tolist(), "origins": dict(origins),
    }  # fmt: skip


def source_file(source: str) -> Path | None:
    """The file that holds an energy named `source` (FILE, or FILE:NAME for code), None if there is no such file."""
    for name in (source, source.rpartition(":")[0]):
        if name and not source.startswith("potential:") and Path(name).is_file():
            return Path(name)
    return None


def _document(analysis: Analysis) -> dict[str, Any]:
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
        "network": {
            "rate_matrix": _rate_matrix(network), "log_rate_matrix": _numbers(network.log_rate_matrix),
            "stationary": _exponentials(network.log_stationary), "log_stationary": _numbers(network.log_stationary),
            "mfpt": _exponentials(network.log_mfpt), "log_mfpt": _numbers(network.log_mfpt),
            "timescales": _exponentials(network.log_timescales), "log_timescales": _numbers(network.log_timescales),
        },
        "diagnostics": {
            **analysis.diagnostics, "warnings": analysis.warnings, "search_warnings": analysis.diagnostics["warnings"],
            "unassigned": None if analysis.sampled is None else analysis.sampled.unassigned,
        },
        "other_points": [dict(point) for point in analysis.other_points],
        "config": dict(analysis.config),
    }  # fmt: skip


def _rate_matrix(network: TransitionNetwork) -> list[list[float | None]]:
    matrix = _exponentials(network.log_rate_matrix)
    for i, row in enumerate(matrix):
        row[i] = _number(network.rate_matrix[i, i])
    return matrix


def _state(analysis: Analysis, k: int) -> dict[str, Any]:
    sampled = analysis.sampled
    weights = {
        "zeroth": exp_or_none(analysis.log_zeroth[k]), "second": exp_or_none(analysis.log_second[k]),
        "sampled": None if sampled is None else float(sampled.weights[k]),
        "sampled_se": None if sampled is None else float(sampled.standard_errors[k]),
        "log_zeroth": float(analysis.log_zeroth[k]), "log_second": float(analysis.log_second[k]),
    }  # fmt: skip
    core = None if sampled is None else {
        "ceiling": _number(sampled.core_ceiling[k]), "mass": float(sampled.core_mass[k]),
        "se": float(sampled.core_se[k]),
    }  # fmt: skip
    point = _point(analysis.states, k) | {"hits": int(analysis.states.hits[k]), "weights": weights}
    return point | {"sublevel_basin": core}


def _saddle(analysis: Analysis, k: int) -> dict[str, Any]:
    log_rates, joins = analysis.rates.log_rates[k], analysis.saddles.joins[k].tolist()
    reduced = analysis.dynamics.beta * analysis.network.barriers[k]
    return _point(analysis.saddles, k) | {
        "joins": [end if end >= 0 else None for end in joins],
        "unstable_rate": exp_or_none(analysis.rates.log_unstable_rate[k]),
        "rates": [exp_or_none(value) for value in log_rates],
        "log_rates": _numbers(log_rates),
        "low_friction": bool(analysis.rates.low_friction[k]),
        "low_barrier": bool(analysis.network.counted[k] and reduced.min() < LOW_BARRIER),
    }


def _points_from(rows: list[Mapping[str, Any]], d: int) -> dict[str, Any]:
    have_hessian = bool(rows) and all(row["hessian"] is not None for row in rows)
    hessian = np.array([row["hessian"] for row in rows]).reshape(-1, d, d) if have_hessian else None
    if not rows:
        hessian = np.zeros((0, d, d))
    return {
        "x": np.array([row["x"] for row in rows], float).reshape(-1, d),
        "energy": np.array([row["energy"] for row in rows], float),
        "eigenvalues": np.array([row["hessian_eigenvalues"] for row in rows], float).reshape(-1, d),
        "hessian": hessian,
        "gradient_norm": np.array([row["gradient_norm"] for row in rows], float),
    }


def _from_document(document: Mapping[str, Any]) -> Analysis:
    d = int(document["energy"]["dim"])
    states, saddles, paths = document["states"], document["saddles"], document["paths"]
    if not states:
        raise UsageError("this is not a complete analysis (it has no states); analyse again")
    given = document["dynamics"]
    gamma = tuple(given["gamma"])
    dynamics: Dynamics = Overdamped(given["beta"], gamma)
    if given["kind"] == "underdamped":
        dynamics = Underdamped(given["beta"], gamma, tuple(given["mass"]))
    joins = [[-1 if end is None else end for end in row["joins"]] for row in saddles]
    diagnostics = dict(document["diagnostics"])
    diagnostics["warnings"] = list(diagnostics.pop("search_warnings"))
    unassigned = diagnostics.pop("unassigned")
    n_images = len(paths[0]["energy"]) if paths else 0
    return Analysis(
        energy=dict(document["energy"]),
        dynamics=dynamics,
        states=States(**_points_from(states, d), hits=np.array([row["hits"] for row in states], int)),
        saddles=Saddles(**_points_from(saddles, d), joins=np.array(joins, int).reshape(-1, 2)),
        paths=SavedPaths(
            np.array([row["saddle"] for row in paths], int),
            np.array([row["images"] for row in paths], float).reshape(len(paths), n_images, d),
            np.array([row["energy"] for row in paths], float).reshape(len(paths), n_images),
            np.array([row["arclength"] for row in paths], float).reshape(len(paths), n_images),
            np.array([row["converged"] for row in paths], bool),
        ),
        sampled=_sampled_from(states, unassigned),
        diagnostics=diagnostics,
        other_points=tuple(document["other_points"]),
        origins=dict(given["origins"]),
        config=dict(document["config"]),
    )


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
