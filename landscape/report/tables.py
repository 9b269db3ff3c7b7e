"""The tables of a report as HTML that sorts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np

from landscape.analysis import AnalysisConfig
from landscape.checks.record import Checks
from landscape.plots.bars import METHODS
from landscape.plots.labels import quantity
from landscape.store import Analysis, dynamics_record
from landscape.store.document import LOW_BARRIER

MAX_ROWS = 300
MAX_COORDINATES = 6
DIGITS = 6  # significant, of energies and coordinates


@dataclass(frozen=True)
class Cell:
    """Text, and the number by which it is sorted, if it is one (nan: unknown, sorts last)."""

    text: str
    key: float | None = None


@dataclass(frozen=True)
class Column:
    """Header, what it means in a few words, and whether it holds words, which are flushed left."""

    name: str
    meaning: str = ""
    words: bool = False


def table(
    identity: str, caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], note: str = ""
) -> str:
    """A table whose headers sort it, in a box of its own that scrolls."""
    head = "".join(
        f'<th scope="col"{_kind(column)}{f" title={_quoted(column.meaning)}" if column.meaning else ""}>'
        f'<button type="button">{escape(column.name)}</button></th>'
        for column in columns
    )
    body = "\n".join(
        f"<tr>{''.join(_cell(cell, column) for cell, column in zip(row, columns, strict=True))}</tr>" for row in rows
    )
    return (
        f'<h3 id="{identity}-title">{escape(caption)}</h3>'
        f'<div class="table" tabindex="0" role="region" aria-labelledby="{identity}-title">'
        f'<table class="sortable" id="{identity}"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
        + (f'<p class="note">{escape(note)}</p>' if note else "")
    )


def _cell(cell: Cell, column: Column) -> str:
    key = "" if cell.key is None else f' data-key="{cell.key!r}"' if math.isfinite(cell.key) else _endless(cell.key)
    classes = ' class="text long"' if column.words and len(cell.text) > 40 else _kind(column)
    return f"<td{classes}{key}>{escape(cell.text)}</td>"


def _endless(key: float) -> str:
    """JavaScript writes infinity in full; what is unknown has an empty key."""
    return ' data-key=""' if math.isnan(key) else f' data-key="{"" if key > 0 else "-"}Infinity"'


def _kind(column: Column) -> str:
    return ' class="text"' if column.words else ""


def _quoted(text: str) -> str:
    return f'"{escape(text)}"'


def number(value: float, digits: int = DIGITS) -> Cell:
    """A number with so many significant digits; unknown is a dash."""
    return Cell("\u2013" if math.isnan(value) else f"{value:.{digits}g}", float(value))


def log_number(log: float) -> Cell:
    """exp(log), also beyond float64, sorted by its logarithm."""
    return Cell("\u2013" if math.isnan(log) else quantity(log, 4), float(log))


def states_table(analysis: Analysis) -> str:
    """The states with their weights by every method; of many the heaviest."""
    network, states = analysis.network, analysis.states
    methods = [m for m in METHODS if m[0] in network.weights and np.isfinite(network.weights[m[0]]).any()]
    d = min(analysis.dim, MAX_COORDINATES)
    columns = [Column("state"), Column("energy"), Column("above lowest (kT)")]
    for name, words, _, _ in methods:
        columns.append(Column(words, f"weight, {words}"))
        if f"{name}_se" in network.weights:
            columns.append(Column("±", f"standard error of the weight, {words}"))
    columns += [Column("starts", "starts of the search that ended here"), *(Column(f"x{k + 1}") for k in range(d))]
    columns += [Column("note", words=True)] if analysis.negligible.any() else []
    kt = analysis.dynamics.beta * (states.energy - states.energy.min())
    order = np.argsort(-network.log_weights, kind="stable")[:MAX_ROWS]
    rows = []
    for k in sorted(order.tolist()):
        row = [number(k), number(states.energy[k]), number(kt[k], 4)]
        for name, _, _, _ in methods:
            row.append(number(network.weights[name][k], 4))
            if f"{name}_se" in network.weights:
                row.append(number(network.weights[f"{name}_se"][k], 2))
        row += [number(int(states.hits[k])), *(number(x, 5) for x in states.x[k, :d])]
        rows.append([*row, Cell("negligible weight" if analysis.negligible[k] else "")][: len(columns)])
    note = _cut(len(rows), len(states.energy), "states", "heaviest", "states.csv")
    more = f" Coordinates 1 to {d} of {analysis.dim}; all are in states.csv." if d < analysis.dim else ""
    return table("states", "States", columns, rows, (note + more).strip())


def transitions_table(analysis: Analysis) -> str:
    """The saddles with barriers and rates both ways; of many those with the largest flux."""
    network, rates = analysis.network, analysis.rates
    unit = analysis.energy.get("time_unit") or "time"
    columns = [
        Column("saddle"), Column("i", "state on one side"), Column("j", "state on the other side"), Column("energy"),
        Column("barrier i→j (kT)"), Column("barrier j→i (kT)"), Column(f"rate i→j (1/{unit})"),
        Column(f"rate j→i (1/{unit})"), Column("note", words=True),
    ]  # fmt: skip
    reduced = analysis.dynamics.beta * network.barriers
    known = network.joins[:, 0] >= 0
    flux = np.where(known, network.log_rates[:, 0] + network.log_stationary[network.joins[:, 0]], -np.inf)
    rows = []
    for k in sorted(np.argsort(-np.nan_to_num(flux, nan=-np.inf), kind="stable")[:MAX_ROWS].tolist()):
        i, j = network.joins[k].tolist()
        notes = ["leads out of the region"] if min(i, j) < 0 else ["joins a state to itself"] if i == j else []
        if network.counted[k]:
            notes += ["low barrier"] * bool(np.nanmin(reduced[k]) < LOW_BARRIER)
            notes += ["low friction"] * bool(rates.low_friction[k])
            notes += ["flat saddle"] * bool(analysis.flat_saddles[k])
            notes += ["long time step"] * bool(analysis.long_time_steps[k])
        rows.append([
            number(k), *(Cell("?", math.nan) if side < 0 else number(side) for side in (i, j)),
            number(network.saddle_energies[k]), *(number(b, 4) for b in reduced[k]),
            *(log_number(log) for log in network.log_rates[k].tolist()), Cell(", ".join(notes)),
        ])  # fmt: skip
    note = _cut(len(rows), network.n_saddles, "saddles", "busiest (largest flux)", "transitions.csv")
    return table("transitions", "Transitions", columns, rows, note)


def checks_table(checks: Checks, unit: str) -> str:
    """The verdict on every rate that was looked at."""
    columns = [
        Column("from"), Column("to"), Column(f"formula (1/{unit})"), Column(f"reference (1/{unit})"),
        Column("lower end", "of the reference's interval"), Column("upper end", "of the reference's interval"),
        Column("formula / reference"), Column("method", words=True), Column("verdict", words=True),
        Column("reason", words=True),
    ]  # fmt: skip
    undecided = bool((np.array(checks.effort) != "").any())
    columns += [Column("what would decide", words=True)] if undecided else []
    better = checks.log_corrected - checks.log_reference
    corrected = bool((np.array(checks.correction) != "").any())
    if corrected:
        columns += [Column("corrected for", words=True), Column("corrected / reference")]
    stepped = checks.time_step is not None
    if stepped:
        columns.append(
            Column(f"factor at dt {checks.time_step:g}", "rate at this time step over that in continuous time")
        )
    rows = [
        [
            *(number(int(state)) for state in checks.pairs[k]), log_number(checks.log_formula[k]),
            log_number(checks.log_reference[k]), *(log_number(end) for end in checks.log_interval[k].tolist()),
            _ratio(checks.log_ratio[k]), Cell(checks.method[k]), Cell(checks.verdict[k]),
            Cell(checks.reason[k]), *([Cell(checks.effort[k])] if undecided else []),
            *([Cell(checks.correction[k]), _ratio(better[k])] if corrected else []),
            *([number(checks.time_step_factor[k], 3)] if stepped else []),
        ]
        for k in range(min(len(checks.pairs), MAX_ROWS))
    ]  # fmt: skip
    note = f"Intervals: {checks.confidence:.0%}. A formula agrees within a factor {math.exp(checks.tolerance):.3g}."
    cut = _cut(len(rows), len(checks.pairs), "transitions", "first", "analysis.json")
    return table("checks", "Verdicts on the rates", columns, rows, f"{note} {cut}".strip())


def _ratio(log: float) -> Cell:
    """A quotient of two rates, from its logarithm."""
    return Cell("\u2013" if math.isnan(log) else quantity(log), float(log))


def timescale_checks_table(checks: Checks, unit: str) -> str:
    """The verdict on the slowest timescales; the checks hold their inverses."""
    columns = [
        Column("process"), Column(f"formula ({unit})"), Column(f"reference ({unit})"), Column("lower end"),
        Column("upper end"), Column("verdict", words=True),
    ]  # fmt: skip
    rows = [
        [
            number(k + 1), log_number(-checks.timescale_log_formula[k]), log_number(-checks.timescale_log_reference[k]),
            *(log_number(-end) for end in checks.timescale_log_interval[k, ::-1].tolist()), Cell(verdict),
        ]
        for k, verdict in enumerate(checks.timescale_verdict)
    ]  # fmt: skip
    note = f"Reference by {checks.timescale_method}."
    return table("timescale-checks", "Verdicts on the timescales", columns, rows, note) if rows else ""


def timescales_table(log_timescales: np.ndarray, unit: str) -> str:
    """Relaxation timescales, slowest first."""
    rows = [[number(k + 1), log_number(log)] for k, log in enumerate(log_timescales[:MAX_ROWS].tolist())]
    note = _cut(len(rows), len(log_timescales), "timescales", "slowest", "analysis.json")
    return table("timescales", "Relaxation timescales", [Column("number"), Column(f"timescale ({unit})")], rows, note)


def parameters_table(analysis: Analysis) -> str:
    """Dynamics and search settings, each with where it came from."""
    record = dynamics_record(analysis.dynamics, analysis.dim, analysis.origins)
    rows = []
    for name in ("kind", "beta", "gamma", "mass", "rotation"):
        if record.get(name) is not None:
            origin = record["origins"].get("dynamics" if name == "kind" else name, "as given to analyze()")
            rows.append([Cell("dynamics" if name == "kind" else name), Cell(_written(record[name])), Cell(origin)])
    usual = {name: _written(value) for name, value in _flat(asdict(AnalysisConfig()))}
    for name, value in _flat(analysis.config):
        text = _written(value)
        rows.append([Cell(name), Cell(text), Cell("default" if usual.get(name) == text else "set by the user")])
    columns = [Column("parameter", words=True), Column("value", words=True), Column("origin", words=True)]
    return table("parameters", "Parameters and where they came from", columns, rows)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _written(value: Any) -> str:
    """A setting as text; a list of equal numbers as one number, a long one cut."""
    if isinstance(value, list | tuple) and value and not isinstance(value[0], list | tuple):
        values = list(value)
        if all(item == values[0] for item in values):
            return _written(values[0])
        return ", ".join(map(_written, values[:8])) + (f", ... ({len(values)} in all)" if len(values) > 8 else "")
    if isinstance(value, float):
        return f"{value:.10g}"
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def _cut(shown: int, total: int, what: str, which: str, elsewhere: str) -> str:
    return "" if shown == total else f"The {shown} {which} of {total:,} {what}; all of them are in {elsewhere}."
