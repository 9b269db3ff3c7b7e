"""An analysis as a record of plain data and arrays by name, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.checks import Checks
from landscape.store.document import dynamics_from, dynamics_record
from landscape.store.large import Large
from landscape.store.records import Exact, Saddles, Sampled, SavedPaths, States

if TYPE_CHECKING:
    from landscape.store.saved import Analysis

VERSION = 1
PARTS: dict[str, Any] = {
    "states": States, "saddles": Saddles, "paths": SavedPaths, "sampled": Sampled, "exact": Exact,
    "large": Large,
}  # fmt: skip


def pack(analysis: Analysis) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The record, JSON without NaN, and the arrays: `states.x` and so on; what is None is left out."""
    arrays = {}
    for part in PARTS:
        held = getattr(analysis, part)
        for field in fields(held) if held is not None else ():
            value = getattr(held, field.name)
            if value is not None:
                arrays[f"{part}.{field.name}"] = np.asarray(value)
    record = {
        "version": VERSION, "energy": dict(analysis.energy),
        "dynamics": dynamics_record(analysis.dynamics, analysis.dim, analysis.origins),
        "diagnostics": dict(analysis.diagnostics), "other_points": [dict(point) for point in analysis.other_points],
        "config": dict(analysis.config), "provenance": dict(analysis.provenance),
        "checks": None if analysis.checks is None else analysis.checks.to_record(),
    }  # fmt: skip
    return record, arrays


def unpack(record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The fields of `Analysis`. ValueError for another version, KeyError or TypeError where something is missing."""
    if record["version"] != VERSION:
        raise ValueError(f"version {record['version']} of the record, not {VERSION}")
    parts: dict[str, Any] = {}
    for part, kind in PARTS.items():
        held = {name.removeprefix(f"{part}."): array for name, array in arrays.items() if name.startswith(f"{part}.")}
        parts[part] = kind(**{field.name: _scalar(held.get(field.name)) for field in fields(kind)}) if held else None
    return {
        **parts,
        "energy": dict(record["energy"]), "dynamics": dynamics_from(record["dynamics"]),
        "origins": dict(record["dynamics"]["origins"]), "diagnostics": dict(record["diagnostics"]),
        "other_points": tuple(record["other_points"]), "config": dict(record["config"]),
        "provenance": dict(record["provenance"]),
        "checks": None if record["checks"] is None else Checks.from_record(record["checks"]),
    }  # fmt: skip


def _scalar(value: np.ndarray | None) -> Any:
    return value.item() if value is not None and value.ndim == 0 else value
