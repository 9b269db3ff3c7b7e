"""The saved analysis: the `Analysis` object and the folder it is written to.

An analysis holds numpy arrays and plain data only, never the energy: it can be saved, compared, sent elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from landscape.checks import LOW_BARRIER, Checks, end_distances, flat_saddles, is_long
from landscape.dynamics import Dynamics
from landscape.energy.group import Symmetry
from landscape.energy.symmetry import from_record
from landscape.errors import UsageError
from landscape.network import TransitionNetwork, states_table, transitions_table
from landscape.network.export import TRANSITION_COLUMNS, csv_bytes, export_network, replace_files
from landscape.rates import LangerRates, langer_rates, log_abs_determinant
from landscape.rates.log_determinant import LogDeterminants
from landscape.store.database import DATABASE, STAGING, Reader, Store
from landscape.store.document import FORMAT, MAX_DENSE_STATES, VERSION, dynamics_record, fields_of, to_document
from landscape.store.large import Large, rough_rates
from landscape.store.modulo import Modulo, check_dynamics, modulo_symmetry
from landscape.store.packing import pack, unpack
from landscape.store.records import Array, Exact, Saddles, Sampled, SavedPaths, States
from landscape.weights import second_order, second_order_errors, zeroth_order

DOCUMENT = "analysis.json"
FILES = (DOCUMENT, "states.csv", "transitions.csv", "network.graphml")
NEGLIGIBLE = 1e-6  # weight below which a state is marked as negligible


@dataclass(frozen=True, eq=False)
class Analysis:
    """States, saddles, paths, weights, rates and network of one energy at one choice of dynamics.

    energy : source, sha256, dim, dtype, evaluations. origins : where each dynamics parameter came from.
    sampled : None where there is no trustworthy sample. exact : None where there are no trustworthy weighted draws.
    diagnostics : index_counts, morse_sum, converged, warnings of
    the search, and what else it had to say. other_points : stationary points of index >= 2 and degenerate ones.
    checks : rates beside independent ones, with verdicts; None where that was not asked for.
    provenance : command, version and date, where the command line made it.
    large : what stands in for Hessians where the dimension is too large for them (eigenvalues are then the lowest, and
    the largest in size); else None.
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
    exact: Exact | None = None
    checks: Checks | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    large: Large | None = None

    @property
    def dim(self) -> int:
        return self.states.x.shape[1]

    @cached_property
    def symmetry(self) -> Symmetry | None:
        """The symmetry that the energy declares."""
        record = self.energy.get("symmetry")
        return None if record is None else from_record(record, self.dim, "the analysis")

    @cached_property
    def modulo(self) -> Modulo | None:
        """Spectra and log-determinants without the zero modes of the energy's declared symmetry; None where none are
        declared."""
        return modulo_symmetry(self.energy.get("symmetry"), self.states, self.saddles, self.dynamics.beta)

    @property
    def spectra(self) -> tuple[Array, Array]:
        """Hessian eigenvalues of states and saddles, without the zero modes of a declared symmetry."""
        return self.modulo.spectra if self.modulo else (self.states.eigenvalues, self.saddles.eigenvalues)

    @cached_property
    def log_zeroth(self) -> Array:
        """Logarithms of the 0th-order weights (n,)."""
        return zeroth_order(self.states.energy, self.dynamics.beta).log_weights

    @cached_property
    def log_second(self) -> Array:
        """Logarithms of the 2nd-order weights (n,)."""
        if self.large is not None:
            log_dets = self.large.determinants[0].values
        else:
            log_dets = self.modulo.log_dets[0] if self.modulo else log_abs_determinant(self.states.eigenvalues)
        return second_order(self.states.energy, log_dets, self.dynamics.beta).log_weights

    @cached_property
    def second_errors(self) -> Array:
        """Standard errors of the 2nd-order weights (n,): 0 unless log-determinants are estimates."""
        if self.large is None:
            return np.zeros(len(self.states.energy))
        return second_order_errors(np.exp(self.log_second), self.large.log_dets, self.large.brackets)

    @cached_property
    def negligible(self) -> Array:
        """(n,) bool: the weight is below 1e-6, by the exact weights, else by those of 2nd order."""
        weights = np.exp(self.log_second)
        if self.exact is not None:
            weights = np.where(np.isnan(self.exact.weights), weights, self.exact.weights)
        return weights < NEGLIGIBLE

    @cached_property
    def rates(self) -> LangerRates:
        """Langer's rate through every saddle from both of its ends."""
        s, t = self.states, self.saddles
        log_dets, growth = None, None
        if self.large is not None:
            log_dets, growth = self.large.determinants, self.large.growth(self.dynamics)
        elif self.modulo:
            log_dets = (LogDeterminants.exact(self.modulo.log_dets[0]), LogDeterminants.exact(self.modulo.log_dets[1]))
        low, top = self.spectra
        try:
            return langer_rates(
                self.dynamics, s.energy, low, t.energy, top, t.hessian, t.joins, log_dets, growth
            )  # fmt: skip
        except UsageError as error:
            if self.large is not None or t.hessian is not None:
                raise
            raise UsageError(f"{error}: this {DOCUMENT} has none, read {DATABASE} of its folder instead") from error

    @cached_property
    def flat_saddles(self) -> Array:
        """(m,) bool: saddles whose harmonic formula is in doubt; see `landscape.checks.flags`."""
        s, t, p = self.states, self.saddles, self.paths
        return flat_saddles(
            self.dynamics.beta, s.x, self.spectra[0], s.energy, t.x, self.spectra[1], t.energy, t.joins,
            end_distances(self.symmetry, s.x, t.x, t.joins, zip(p.saddle.tolist(), p.images, p.energy, strict=True)),
        )  # fmt: skip

    @cached_property
    def long_time_steps(self) -> Array:
        """(m,) bool: the energy's time step is too long for the curvature at the saddle or an end of it."""
        return is_long(
            self.energy.get("time_step"), self.dynamics, self.states.eigenvalues, self.saddles.eigenvalues,
            self.saddles.joins,
        )  # fmt: skip

    @cached_property
    def network(self) -> TransitionNetwork:
        """The states and saddles as a Markov jump process; parallel saddles add."""
        unknown = np.full(len(self.states.energy), np.nan)
        columns = {
            "zeroth": np.exp(self.log_zeroth), "second": np.exp(self.log_second),
            "sampled": self.sampled.weights if self.sampled else unknown,
            "sampled_se": self.sampled.standard_errors if self.sampled else unknown,
            "exact": self.exact.weights if self.exact else unknown,
            "exact_se": self.exact.standard_errors if self.exact else unknown,
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
        check_dynamics(self.energy.get("symmetry"), dynamics, self.dim)
        changed = replace(self, dynamics=dynamics, origins=dict(origins or {}))
        if self.checks is not None and not self._same_dynamics(dynamics):
            note = "the checks were made at other parameters: they are left out; `landscape check` makes new ones"
            notes = {**self.diagnostics, "warnings": [*self.diagnostics["warnings"], note]}
            return replace(self, checks=None, diagnostics=notes).with_dynamics(dynamics, origins)
        if (self.sampled is None and self.exact is None) or dynamics.beta == self.dynamics.beta:
            return changed
        warning = (
            f"the sampled weights were drawn at beta = {self.dynamics.beta:g} and say nothing about "
            f"beta = {dynamics.beta:g}: they are left out; analyse at that beta to sample them"
        )
        diagnostics = {**self.diagnostics, "exact": None, "warnings": [*self.diagnostics["warnings"], warning]}
        return replace(changed, sampled=None, exact=None, diagnostics=diagnostics)

    def _same_dynamics(self, other: Dynamics) -> bool:
        mine, theirs = (dynamics_record(dynamics, self.dim, {}) for dynamics in (self.dynamics, other))
        return mine == theirs

    def to_document(self) -> dict[str, Any]:
        """The JSON document: plain Python data without NaN or infinity. Plain numbers are exp of the logs, null where
        float64 cannot hold them."""
        return to_document(self)

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Analysis:
        """The analysis of a JSON document. UsageError if it is none of ours, or damaged."""
        try:
            if document["format"] != FORMAT or document["version"] != VERSION:
                raise UsageError(
                    f"an analysis has format {FORMAT!r}, version {VERSION}, not {document['format']!r}, "
                    f"{document['version']!r}; analyse again with this version"
                )
            return Analysis(**fields_of(document))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise UsageError(
                f"this is not a complete analysis ({type(error).__name__}: {error}); analyse again"
            ) from error

    def save(self, folder: str | Path, store: Store | None = None) -> None:
        """Write analysis.sqlite, which every command reads, and for other programs analysis.json, states.csv,
        transitions.csv and network.graphml.

        The tables are written whole to a folder inside this one first, and until that is done everything of an earlier
        analysis stays as it was. Then the analysis is committed to analysis.sqlite, and four renames follow,
        analysis.json last. Each is atomic, the four together are not: an error or interrupt between them leaves new
        tables beside the earlier analysis.json until it is saved again, or, where there was none, takes the tables
        away; `landscape analyze --resume` writes them anew. `store` : that of the folder, where it is open already.
        UsageError where the folder cannot be written.
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
            with Store.open(folder) if store is None else contextlib.nullcontext(store) as opened:
                opened.write_result(*pack(self))
            _rename_all(staging, folder)
        except OSError as error:
            raise UsageError(f"cannot write to {folder} ({error.strerror}): choose another with --out") from error
        finally:
            for leftover in folder.glob(f"{STAGING}*"):  # ours, and that of a run that was killed
                shutil.rmtree(leftover, ignore_errors=True)

    def save_document(self, folder: str | Path, store: Store | None = None) -> None:
        """Replace what analysis.sqlite and analysis.json hold, each atomically, and leave the tables: for what these
        do not hold. UsageError where that cannot be."""
        text = json.dumps(self.to_document(), allow_nan=False)
        with Store.open(Path(folder)) if store is None else contextlib.nullcontext(store) as opened:
            opened.write_result(*pack(self))
        try:
            replace_files({Path(folder) / DOCUMENT: text.encode()})
        except OSError as error:
            raise UsageError(f"cannot write to {folder} ({error.strerror}): is it yours to write to?") from error

    @staticmethod
    def load(folder: str | Path) -> Analysis:
        """Read the analysis in a folder: that of its analysis.sqlite, else of analysis.json, which holds the same to
        the last digit, but no Hessians where these are many (copied alone, or written by an earlier version). `folder`
        may also name either file itself.
        UsageError if there is none, or it is damaged."""
        path = Path(folder)
        home = path.parent if path.name == DATABASE and path.is_file() else path
        if (home / DATABASE).is_file():
            stored = _from_store(home)
            if stored is not None:
                return stored
        path = home / DOCUMENT if home.is_dir() else path
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


def _from_store(folder: Path) -> Analysis | None:
    """The finished analysis of a store. None where there is none, but an analysis.json; UsageError if neither is."""
    with Reader.open(folder) as reader:
        result = reader.result()
        if result is None:
            if (folder / DOCUMENT).is_file():
                return None
            raise UsageError(
                f"the analysis in {folder} is not finished: go on with `landscape analyze --resume {folder}`"
            )
    try:
        return Analysis(**unpack(*result))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UsageError(
            f"{folder / DATABASE} holds no complete analysis ({type(error).__name__}: {error}); analyse again"
        ) from error


def _rename_all(staging: Path, folder: Path) -> None:
    """analysis.json last; where that does not come about and there is none, no table stays behind either."""
    try:
        for name in reversed(FILES):
            os.replace(staging / name, folder / name)
    except BaseException:
        if not (folder / DOCUMENT).exists():
            for name in FILES:
                if not (staging / name).exists():
                    (folder / name).unlink(missing_ok=True)
        raise


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
    flat = int((analysis.flat_saddles & counted).sum())
    if flat:
        warnings.append(
            f"{flat} of {int(counted.sum())} transitions have a flat saddle: "
            "the harmonic prefactor can be off by any factor there"
        )
    long = int((analysis.long_time_steps & counted).sum())
    if long:
        warnings.append(
            f"the time step {analysis.energy['time_step']:g} is long for the curvature of {long} of "
            f"{int(counted.sum())} transitions: a simulation with it crosses at other rates; --check says how much"
        )
    warnings += rough_rates(rates.log_errors[counted])
    warnings += [reason for reason in rates.refused if reason and "no known minimum" not in reason]
    parts = len(set(network.components.tolist()))
    if parts > 1:
        warnings.append(
            f"the states fall into {parts} parts that no saddle found connects: times between them are unknown"
        )
    rare = np.flatnonzero(analysis.negligible).tolist()
    if rare:
        names = ", ".join(map(str, rare[:5])) + (", ..." if len(rare) > 5 else "")
        warnings.append(
            f"{len(rare)} of {len(analysis.states.energy)} states have a weight below {NEGLIGIBLE:g} ({names}): "
            "negligible, but kept; learned energies often have such spurious wells far from their data"
        )
    if len(analysis.states.energy) == 1:
        warnings.append("one state only: its weight is 1, and there is no rate to report")
    if network.n_states > MAX_DENSE_STATES:
        warnings.append(
            f"timescales, passage times and the rate matrix of {network.n_states:,} states are not saved (more than "
            f"{MAX_DENSE_STATES}): rates are listed by saddle"
        )
    elif np.isnan(network.log_timescales).any():
        warnings.append("some timescales could not be resolved numerically: they are null")
    return warnings
