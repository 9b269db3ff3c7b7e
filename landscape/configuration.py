"""`AnalysisConfig`: the hyper-parameters of every step of `analyze`, from code, a TOML file or a record."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.rates import LogDeterminantOptions
from landscape.search import Box, Gaussian, MinimaSearch, Points, SaddleSearch, StringOptions
from landscape.weights import ExactWeights, SampledWeights

SECTIONS = ("minima", "saddles", "paths", "weights", "exact", "determinants")
# In place of the defaults where d is too large for Hessians; above d = 1,000 fewer as 1 / d, but at least a third.
LARGE_STARTS, LARGE_ROWS, LARGE_SWEEP = 200, 32, 200


@dataclass(frozen=True)
class AnalysisConfig:
    """Hyper-parameters of every step of `analyze`; the defaults are meant to be right for any energy.

    seed : of all randomness. minima, saddles, paths, weights, exact : of the steps; weights=None skips the sampled
    weights, exact=None those by importance sampling. determinants : where d is too large for Hessians.
    """

    seed: int = 0
    minima: MinimaSearch = field(default_factory=MinimaSearch)
    saddles: SaddleSearch = field(default_factory=SaddleSearch)
    paths: StringOptions = field(default_factory=StringOptions)
    weights: SampledWeights | None = field(default_factory=SampledWeights)
    exact: ExactWeights | None = field(default_factory=ExactWeights)
    determinants: LogDeterminantOptions = field(default_factory=LogDeterminantOptions)

    def suited_to(self, energy: Energy) -> AnalysisConfig:
        """This config, except where d is too large for Hessians (`Energy.matrix_free`): there, what was left at its
        default becomes 200 starts, a sweep of 200 and 32 walks a round (above d = 1,000 down to a third of these), and
        weights by sampling are left out: draws from harmonic wells are worth next to nothing in so many dimensions,
        and chains do not change wells.
        """
        if not energy.matrix_free:
            return self
        plain, share = AnalysisConfig(), min(1.0, max(1 / 3, 1000 / energy.dim))
        minima, saddles = self.minima, self.saddles
        if minima.n_starts == plain.minima.n_starts:
            minima = replace(minima, n_starts=round(share * LARGE_STARTS))
        if saddles.sweep == plain.saddles.sweep:
            saddles = replace(saddles, sweep=round(share * LARGE_SWEEP))
        if saddles.rows == plain.saddles.rows:
            saddles = replace(saddles, rows=round(share * LARGE_ROWS))
        return replace(
            self, minima=minima, saddles=saddles, weights=None if self.weights == plain.weights else self.weights,
            exact=None if self.exact == plain.exact else self.exact,
        )  # fmt: skip

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**63:
            raise UsageError(f"a seed is a whole number from 0 to 2^63 - 1, not {self.seed!r}")

    @staticmethod
    def from_toml(path: str | Path) -> AnalysisConfig:
        """Read a TOML file: `seed`, and tables [minima], [saddles], [paths], [weights], [exact], [determinants] of the
        fields above.

        [minima.descent], [saddles.walk] and [saddles.flow] are the options of the local methods. [minima.box] low,
        high or [minima.gaussian] mean, standard_deviation give the starts, and so does [minima.starts] with either
        pair, which is how a saved analysis records them. `weights = false` and `exact = false` skip these.
        UsageError for a file that cannot be read, an unknown name or a wrong value.
        """
        try:
            with open(path, "rb") as file:
                given = tomllib.load(file)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"the config {path} cannot be read as TOML: {error}") from error
        return _config(given, str(path))

    def to_record(self) -> dict[str, Any]:
        """Plain data; given start points are data of their own, of which the shape is recorded."""
        return _plain(dataclasses.asdict(self))

    @staticmethod
    def from_record(record: Mapping[str, Any], points: np.ndarray | None = None) -> AnalysisConfig:
        """The config of a `to_record`; `points` : the given start points, where there were any. UsageError where it
        does not fit this version."""
        try:
            config = _rebuilt(AnalysisConfig, record)
            return config if points is None else replace(config, minima=replace(config.minima, starts=Points(points)))
        except (TypeError, KeyError, ValueError) as error:
            raise UsageError(f"the options on record do not fit this version ({error}): analyse again") from error


def _config(given: Mapping[str, Any], source: str) -> AnalysisConfig:
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name == "seed" or (name in ("weights", "exact") and value is False):
            fields[name] = None if value is False else value
        elif name in SECTIONS and not isinstance(value, Mapping):
            raise UsageError(f"{source}: {name} is a table [{name}], not {value!r}")
        elif name not in SECTIONS:
            raise UsageError(f"{source}: unknown entry {name!r}; known: seed and the tables {', '.join(SECTIONS)}")
    kinds: dict[str, Any] = {
        "minima": MinimaSearch,
        "saddles": SaddleSearch,
        "paths": StringOptions,
        "weights": SampledWeights,
        "exact": ExactWeights,
        "determinants": LogDeterminantOptions,
    }
    for name, kind in kinds.items():
        if name in given and name not in fields:
            fields[name] = _section(kind, dict(given[name]), source, name)
    return AnalysisConfig(**fields)


def _section(kind: Any, given: dict[str, Any], source: str, table: str) -> Any:
    if kind is not MinimaSearch:
        return _build(kind, given, source, table)
    starts = [key for key in ("starts", "box", "gaussian") if key in given]
    if len(starts) > 1:
        raise UsageError(f"{source}: [{table}] takes one way to start, not both {' and '.join(starts)}")
    for key in starts:
        inner = given.pop(key)
        if not isinstance(inner, Mapping):
            raise UsageError(f"{source}: {key} is given as a table [minima.box] or [minima.gaussian], not {inner!r}")
        if key == "starts" and not inner.keys() & {"low", "high", "mean", "standard_deviation"}:
            raise UsageError(
                f"{source}: [{table}.starts] has low and high, or mean and standard_deviation, not {sorted(inner)}; "
                "start points themselves are given by --starts-from"
            )
        box = key == "box" or (key == "starts" and inner.keys() & {"low", "high"})
        given["starts"] = _build(Box if box else Gaussian, inner, source, f"{table}.{key}")
    built = _build(kind, {name: value for name, value in given.items() if name != "starts"}, source, table)
    return replace(built, starts=given["starts"]) if starts else built


def _build(kind: Any, given: Mapping[str, Any], source: str, table: str) -> Any:
    """The dataclass `kind` with the fields of a table; fields that are dataclasses are tables inside it.

    UsageError for an unknown name, a value of another type or against a rule.
    """
    hints = get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"{source}: [{table}] has no {name!r}; known: {', '.join(known)}")
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise UsageError(f"{source}: {name} is given as a table [{table}.{name}], not {value!r}")
            fields[name] = _build(hint, value, source, f"{table}.{name}")
            continue
        fields[name] = tuple(value) if isinstance(value, list) else value
        if not _fits(fields[name], hint):
            raise UsageError(f"{source}: [{table}] {name} is {_in_words(hint)}, not {value!r}")
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{source}: [{table}] is incomplete or does not fit together: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(part, get_args(hint)[0]) for part in value)
    if hint is bool:
        return isinstance(value, bool)
    kinds = (int, float) if hint is float else hint
    return isinstance(value, kinds) and not isinstance(value, bool)


def _in_words(hint: Any) -> str:
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    names = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "left out"}
    return " or ".join("a list of numbers" if get_origin(part) is tuple else names[part] for part in parts)


def _rebuilt(kind: Any, record: Mapping[str, Any]) -> Any:
    """The dataclass `kind` from plain data that a dataclass of its kind was turned into."""
    hints = get_type_hints(kind)
    fields = {}
    for name, value in record.items():
        if name == "starts" and isinstance(value, Mapping):
            shape = Box if "low" in value else Gaussian if "mean" in value else None  # else points, kept apart
            fields[name] = None if shape is None else _rebuilt(shape, value)
            continue
        kinds = [part for part in (hints[name], *get_args(hints[name])) if dataclasses.is_dataclass(part)]
        if isinstance(value, Mapping) and kinds:
            fields[name] = _rebuilt(kinds[0], value)
        else:
            fields[name] = tuple(value) if isinstance(value, list) else value
    return kind(**fields)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape)}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
