"""The plain data that travels with an energy: what it may hold, checked the same way for every file format.

docs/energy-file.md describes the keys. Numbers come out as floats, gamma and mass as lists of one float a coordinate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from landscape.energy.symmetry import from_record
from landscape.errors import EnergyError

FORMAT = 1
DYNAMICS = ("overdamped", "underdamped")
TEXTS = ("units", "time_unit")
POSITIVE = ("beta", "time_step")


def resolve_dim(found: Any, given: int | None, where: str) -> int:
    """The dimension, from what the energy says of itself and what the user says; EnergyError if they disagree."""
    if found is not None and not _is_whole(found):
        raise EnergyError(f"{where}: dim is a whole number of at least 1, not {found!r}")
    if given is not None and not _is_whole(given):
        raise EnergyError(f"the dimension is a whole number of at least 1, not {given!r}")
    if found is not None and given is not None and int(found) != int(given):
        raise EnergyError(f"{where} has dimension {found}, but {given} was given; leave the dimension out")
    if found is None and given is None:
        raise EnergyError(f"{where} does not say its dimension; give it with --dim (dim= in Python)")
    dim: Any = given if found is None else found
    return int(dim)


def checked(metadata: Mapping[str, Any], dim: int, where: str) -> dict[str, Any]:
    """A copy of `metadata` with the known keys checked and normalised, the others kept as they are.

    EnergyError, beginning with `where`, if a value breaks its rule.
    """
    result = dict(metadata)
    kind = result.get("dynamics")
    if kind is not None and kind not in DYNAMICS:
        raise EnergyError(f"{where}: dynamics is {' or '.join(DYNAMICS)}, not {kind!r}")
    for key in POSITIVE:
        if result.get(key) is not None:
            result[key] = _positive(result[key], key, where)
    for key in ("gamma", "mass"):
        if result.get(key) is not None:
            result[key] = _coefficients(result[key], key, dim, where)
    if result.get("rotation") is not None:
        result["rotation"] = _rotation(result["rotation"], dim, where)
    if result.get("symmetry") is not None:
        result["symmetry"] = from_record(result["symmetry"], dim, where).record()
    for key in TEXTS:
        if result.get(key) is not None and not isinstance(result[key], str):
            raise EnergyError(f"{where}: {key} is a text, not {result[key]!r}")
    return result


def to_json(metadata: Mapping[str, Any], where: str) -> str:
    """`metadata` as the JSON text of format 1; EnergyError if something in it is not plain data."""
    try:
        return json.dumps({"format": FORMAT, **metadata}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise EnergyError(f"{where}: metadata are plain JSON data (no NaN, arrays or objects): {error}") from error


def from_json(text: str, where: str) -> dict[str, Any]:
    """The inverse of `to_json`; EnergyError if the text is not format 1."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise EnergyError(f"{where}: the metadata key 'landscape' is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise EnergyError(f"{where}: the metadata key 'landscape' holds a {type(data).__name__}, not a JSON object")
    version = data.pop("format", None)
    if version != FORMAT:
        raise EnergyError(f"{where}: metadata format is {FORMAT}, not {version!r}; update learned-landscape")
    return data


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _positive(value: Any, key: str, where: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise EnergyError(f"{where}: {key} is a finite number above 0, not {value!r}")
    return float(value)


def _rotation(value: Any, dim: int, where: str) -> list[list[float]]:
    """A (d, d) matrix of finite numbers, antisymmetric within 1e-8 of its largest entry."""
    rule = f"{where}: rotation is an antisymmetric matrix, {dim} lists of {dim} finite numbers"
    rows = value if isinstance(value, list | tuple) else []
    if len(rows) != dim or not all(isinstance(row, list | tuple) and len(row) == dim for row in rows):
        raise EnergyError(f"{rule}, not {value!r}")
    entries = [item for row in rows for item in row]
    numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in entries)
    if not numbers or not all(map(math.isfinite, entries)):
        raise EnergyError(f"{rule}, not {value!r}")
    excess = max(abs(rows[i][k] + rows[k][i]) for i in range(dim) for k in range(dim))
    if excess > 1e-8 * max(map(abs, entries)):
        raise EnergyError(f"{rule}, but |J + J^T| is up to {excess:.3g}")
    return [[float(item) for item in row] for row in rows]


def _coefficients(value: Any, key: str, dim: int, where: str) -> list[float]:
    values = value if isinstance(value, list | tuple) else [value] * dim
    if len(values) != dim:
        raise EnergyError(f"{where}: {key} is one number or {dim}, one a coordinate, not {len(values)}")
    return [_positive(item, key, where) for item in values]
