"""Text tables of an analysis, for people: aligned columns, at most WIDTH characters, the numbers of the JSON document.

Every function takes the document (`Analysis.to_document`, or analysis.json read back), or parts of it, and needs
nothing but the standard library.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH = 120
MAX_ROWS = 40
MAX_TIMESCALES = 6
GAP = "  "
UNBROKEN = "\u00a0"  # a space at which a line is not wrapped
DOUBTFUL = "asymptotics doubtful"  # as in landscape.checks, which is not imported here
LABEL = 10  # width of the words in front of the lines of a summary

Document = Mapping[str, Any]


def header_text(energy: Document, dynamics: Document, search: str = "") -> str:
    """What is analysed and at which parameters, each with where it came from ("flag", "file", "default").

    energy, dynamics : as in the document. search : one more line, on how states are searched for.
    """
    facts = [f"dimension {energy['dim']}", str(energy["dtype"])]
    facts += [f"{key.replace('_', ' ')} {energy[key]}" for key in ("units", "time_unit") if energy.get(key)]
    if energy.get("sha256"):
        facts.append(f"sha256 {energy['sha256'][:12]}")
    lines = _labelled("energy", f"{energy['source']} ({', '.join(facts)})")
    values = {"dynamics": str(dynamics["kind"]), "beta": f"{dynamics['beta']:.6g}"}
    values["gamma"] = _coefficients(dynamics["gamma"])
    if dynamics["mass"] is not None:
        values["mass"] = _coefficients(dynamics["mass"])
    if dynamics.get("rotation"):
        values["rotation"] = "J not zero, no detailed balance"
    origins = dynamics.get("origins", {})
    parts = []
    for name, value in values.items():
        text = value if name == "dynamics" else f"{name} {value}"
        text = f"{text} ({origins[name]})" if name in origins else text
        parts.append(text.replace(" ", UNBROKEN))
    lines += [line.replace(UNBROKEN, " ") for line in _labelled("dynamics", ", ".join(parts))]
    if energy.get("symmetry"):
        lines += _labelled("symmetry", _symmetry(energy["symmetry"]))
    if search:
        lines += _labelled("search", search)
    return "\n".join(lines)


def _symmetry(record: Document) -> str:
    """The declared symmetry in words."""
    if record["kind"] == "periodic":
        periods = ["none" if period is None else f"{period:.6g}" for period in record["periods"]]
        return f"periods {', '.join(periods[:8])}{' ...' if len(periods) > 8 else ''}"
    species = record.get("species") or [0] * record["n_particles"]
    counts = Counter(map(str, species)).values()
    names = [name for name in ("translation", "rotation", "inversion") if record[name]]
    if max(counts) > 1:
        names.append(f"permutation of {' + '.join(map(str, counts))} particles")
    return ", ".join(names)


def states_text(document: Document, elsewhere: str = "states.csv") -> str:
    """One row a state: id, energy, weights (0th order, 2nd order, sampled and exact with standard error), hits,
    coordinates, and a note where a state is negligible."""
    states = document["states"]
    shown = states[:MAX_ROWS]
    places = _places([row["energy"] for row in states + document["saddles"]], 6)
    headers = ["id", "energy", "zeroth", "second", "sampled +- se", "exact +- se", "hits"]
    noted = any(row.get("negligible") for row in shown)
    headers += ["note"] if noted else []
    modulo = _modulo_headers(shown)
    headers[2:2] = modulo
    rows = []
    for row in shown:
        w = row["weights"]
        sampled = "-" if w["sampled"] is None else f"{w['sampled']:.4f} +- {w['sampled_se']:.4f}"
        weights = [_weight(w[name], w[f"log_{name}"]) for name in ("zeroth", "second")]
        weights[1] += _share(w["second_se"] / w["second"]) if w.get("second_se") and w["second"] else ""
        note = ["negligible" if row.get("negligible") else ""] if noted else []
        exact = _with_error(w.get("exact"), w.get("exact_se"))
        weights = [*_modulo_cells(row, modulo), *weights]
        rows.append([str(row["id"]), fixed(row["energy"], places), *weights, sampled, exact, str(row["hits"]), *note])
    used = sum(max(len(line[k]) for line in [headers, *rows]) + len(GAP) for k in range(len(headers)))
    columns = _coordinate_columns([row["x"] for row in shown], WIDTH - used)
    rows = [[*row, x] for row, x in zip(rows, columns, strict=True)]
    title = f"states ({len(states)}; weights by order of approximation)"
    table = aligned([*headers, "x"], rows, left=("x", "note"))
    return "\n".join([title, *table, *_rest(len(states), "states", elsewhere)])


def transitions_text(document: Document, elsewhere: str = "transitions.csv") -> str:
    """One row a saddle: the states it joins, energy, barriers in kT and rates both ways, and what to beware of."""
    saddles = document["saddles"]
    if not saddles:
        return "transitions: no saddle found"
    energies = [row["energy"] for row in document["states"]]
    places = _places([*energies, *(row["energy"] for row in saddles)], 6)
    beta, wide = document["dynamics"]["beta"], len(str(len(energies)))
    unit = document["energy"].get("time_unit")
    modulo = _modulo_headers(saddles)
    rows = []
    for row in saddles[:MAX_ROWS]:
        ends = ["?" if end is None else str(end) for end in row["joins"]]
        barriers = ["-" if e is None else _barrier(beta * (row["energy"] - energies[e])) for e in row["joins"]]
        errors = row.get("log_rates_se") or [0.0, 0.0]  # absent in older documents
        rates = [power(log) + _share(se) * (log is not None) for log, se in zip(row["log_rates"], errors, strict=True)]
        join = f"{ends[0]:>{wide}} -> {ends[1]:<{wide}}"
        barriers = [*_modulo_cells(row, modulo), *barriers]
        rows.append([str(row["id"]), join, fixed(row["energy"], places), *barriers, *rates, _note(row)])
    headers = ["id", "i -> j", "energy", *modulo, "barrier i>j", "barrier j>i", "rate i>j", "rate j>i", "note"]
    title = f"transitions ({_count(len(saddles), 'saddle')}; barriers in kT, rates per {unit or 'unit of time'})"
    rest = _rest(len(saddles), "saddles", elsewhere)
    return "\n".join([title, *aligned(headers, rows, left=("note",)), *rest])


def _modulo_headers(rows: Sequence[Document]) -> list[str]:
    """Columns of points modulo a symmetry: log |product of nonzero eigenvalues|, order of the point group."""
    return ["log det", "order"] if rows and "point_group_order" in rows[0] else []


def _modulo_cells(row: Document, headers: list[str]) -> list[str]:
    return [f"{row['log_det']:.5f}", str(row["point_group_order"])] if headers else []


def checks_text(document: Document) -> str:
    """One row a checked transition: rate by formula and by reference with its interval, their ratio, and the verdict;
    then what each undecided row needs, and the timescales. "" where nothing was checked."""
    checks = document.get("checks")
    if checks is None:
        return ""
    every = checks["transitions"]
    shown, step = every[:MAX_ROWS], checks["time_step"]
    if not shown:
        return "checks: no transition to check"
    methods = sorted({row["method"] for row in every} - {""})
    how = f"reference: {methods[0]}; " if len(methods) == 1 else ""
    cost = f"{checks['seconds']:.0f} s of {checks['budget']:g} s"
    headers = ["i -> j", "formula", "reference", f"{100 * checks['confidence']:g} % interval", "ratio"]
    headers += ["method"] * (len(methods) > 1) + ([] if step is None else [f"dt {step:.3g}"]) + ["verdict"]
    wide = len(str(max(max(row["from"], row["to"]) for row in shown)))
    table: list[str] = []
    for brief in (False, True):  # rates beyond float64 are long
        rows = [_check_row(row, wide, len(methods) > 1, step is not None, brief) for row in shown]
        table = table if table and max(map(len, table)) <= WIDTH else aligned(headers, rows, ("method", "verdict"))
    lines = [f"checks ({_count(len(every), 'transition')}; {how}ratio = formula / reference; {cost})", *table]
    lines += _rest(len(every), "transitions", "analysis.json")
    notes = [(_check_note(row), f"{row['from']} -> {row['to']}") for row in shown]
    for said in dict.fromkeys(text for text, _ in notes if text):
        where = ", ".join(pair for text, pair in notes if text == said)
        lines += textwrap.wrap(f"{where}: {said}", WIDTH, initial_indent="  - ", subsequent_indent="    ")
    lines += _checked_timescales(checks)
    if checks["time_step_reason"]:
        lines += textwrap.wrap(f"time step {step:g}: {checks['time_step_reason']}", WIDTH, subsequent_indent="    ")
    return "\n".join(lines)


def _check_row(row: Document, wide: int, with_method: bool, with_step: bool, brief: bool) -> list[str]:
    ratio = "-" if row["log_ratio"] is None else _ratio(row["log_ratio"])
    cells = [f"{row['from']:>{wide}} -> {row['to']:<{wide}}", power(row["log_formula"]), power(row["log_reference"])]
    cells += [_interval(row, brief), ratio] + [row["method"] or "-"] * with_method
    if with_step:
        factor = row["time_step_factor"]
        cells.append("-" if factor is None else f"x {factor:.3g}")
    return [*cells, f"{row['verdict']}: {row['reason']}" if row["verdict"] == DOUBTFUL else row["verdict"]]


def _check_note(row: Document) -> str:
    """What would decide a row, what the known corrections make of a doubtful ratio, or why it was not checked."""
    if row["verdict"] != DOUBTFUL:
        return row["effort"] or row["reason"]
    if not row["correction"] or row["log_corrected"] is None:
        return ""
    return f"corrected for {row['correction']}, the ratio is {_ratio(row['log_corrected'] - row['log_reference'])}"


def _checked_timescales(checks: Document) -> list[str]:
    known = [row for row in checks["timescales"] if row["log_reference"] is not None and row["log_formula"] is not None]
    parts = [
        f"{power(-row['log_formula'])} : {power(-row['log_reference'])} ({row['verdict']})".replace(" ", UNBROKEN)
        for row in known
    ]
    if not parts:
        return []
    text = f"by formula : by {checks['timescale_method']}: {', '.join(parts)}"
    return [line.replace(UNBROKEN, " ") for line in _labelled("timescales", text)]


def _interval(row: Document, brief: bool) -> str:
    low, high = row["log_interval"]
    if high is None:
        return "-"
    if brief:
        return f"< {power(high)}" if low is None else f"+- {50 * (high - low):.2g} %"
    return f"[{'0' if low is None else power(low)}, {power(high)}]"


def _ratio(log: float) -> str:
    return f"{math.exp(log):.3f}" if abs(log) < 6 else power(log)


def summary_text(document: Document, seconds: float | None = None, files: str = "") -> str:
    """Timescales, what was found and whether the search converged, cost, files, and every warning."""
    diagnostics, energy = document["diagnostics"], document["energy"]
    logs = document["network"]["log_timescales"]
    lines: list[str] = []
    if logs:
        more = f" ... ({len(logs)} in all)" if len(logs) > MAX_TIMESCALES else ""
        times = GAP.join(power(log) for log in logs[:MAX_TIMESCALES])
        lines += _labelled("timescales", f"{times}{more} {energy.get('time_unit') or ''}".rstrip())
    lines += _labelled("found", _found(diagnostics))
    lines += _labelled("converged", "yes" if diagnostics["converged"] else "no: some of this may be incomplete")
    names = {"value": "values", "gradient": "gradients", "hvp": "Hessian-vector products", "hessian": "Hessians"}
    cost = ", ".join(f"{energy['evaluations'][key]:,} {name}" for key, name in names.items())
    lines += _labelled("cost", cost if seconds is None else f"{cost}; {seconds:.1f} s")
    if files:
        lines += _labelled("files", files)
    warnings = diagnostics["warnings"]
    lines += [f"warnings ({len(warnings)})"] if warnings else []
    for warning in warnings:
        lines += textwrap.wrap(warning, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return "\n".join(lines)


def analysis_text(document: Document, seconds: float | None = None, files: str = "", elsewhere: str = "") -> str:
    """States, transitions, checks and the summary. elsewhere : where rows that are not shown can be found."""
    states = states_text(document, elsewhere or "states.csv")
    transitions = transitions_text(document, elsewhere or "transitions.csv")
    parts = [states, transitions, checks_text(document), summary_text(document, seconds, files)]
    return "\n\n".join(part for part in parts if part)


def labels_text(labels: Iterable[int], energies: Sequence[float]) -> str:
    """How many points each state has: `labels` (m,), -1 for none, and the energies of the states."""
    counts = Counter(labels)
    total = max(counts.total(), 1)
    places = _places(energies, 6)
    names = [(str(state), fixed(energy, places), counts[state]) for state, energy in enumerate(energies)]
    rows = [[name, energy, f"{n:,}", f"{n / total:.4f}"] for name, energy, n in [*names, ("none", "-", counts[-1])]]
    return "\n".join(aligned(["state", "energy", "points", "share"], rows))


def potentials_text(potentials: Iterable[Any]) -> str:
    """The analytic energies (`PotentialInfo`): how to name each with its defaults written out, dimension, a line."""
    rows = [[info.usage, info.dim, info.text] for info in potentials]
    return "\n".join(aligned(["potential", "d", "energy"], rows, left=("potential", "energy")))


def aligned(headers: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> list[str]:
    """Lines with a header, columns flushed right except those named in `left`."""
    widths = [max(len(row[k]) for row in [headers, *rows]) for k in range(len(headers))]
    lines = []
    for row in [headers, *rows]:
        cells = (
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(headers, row, widths, strict=True)
        )  # fmt: skip
        lines.append(GAP.join(cells).rstrip())
    return lines


def fixed(value: float, places: int) -> str:
    """A number with so many decimals; exponent form where that is unreadably long; never "-0.000"."""
    text = f"{value:.{places}f}"
    if len(text) > 18:
        return f"{value:.8e}"
    return text.removeprefix("-") if float(text) == 0 else text


def power(log: float | None) -> str:
    """exp(log) with four significant digits, also where float64 cannot hold it; "-" for what is not known."""
    if log is None:
        return "-"
    if abs(log) < 700:
        return f"{math.exp(log):.3e}"
    exponent = math.floor(log / math.log(10))
    mantissa = f"{math.exp(log - exponent * math.log(10)):.3f}"
    return f"1.000e{exponent + 1:+03d}" if mantissa == "10.000" else f"{mantissa}e{exponent:+03d}"


def _places(values: Iterable[float], digits: int) -> int:
    """Decimals that show so many significant digits of the spread of the values."""
    known = list(values)
    spread = (max(known) - min(known) or max(map(abs, known))) if known else 0.0
    return min(max(digits - 1 - math.floor(math.log10(spread)), 0), 10) if spread > 0 else 4


def _weight(value: float | None, log: float | None) -> str:
    if value is None or value < 1e-3:
        return power(log)
    return f"{value:.4f}"


def _with_error(value: float | None, error: float | None) -> str:
    """A weight with its standard error, in exponent form where it is small."""
    if value is None or error is None:
        return "-"
    return f"{value:.2e} +- {error:.0e}" if 0 < value < 1e-3 else f"{value:.4f} +- {error:.4f}"


def _share(error: float | None) -> str:
    """A relative standard error behind a number; nothing for a number that has none."""
    if error == 0:
        return ""
    return " +- ?" if error is None else f" +- {100 * error:.2g}%"


def _barrier(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1e6 else f"{value:.3e}"


def _note(saddle: Document) -> str:
    """Why a saddle or its rates need a second look."""
    i, j = saddle["joins"]
    if i is None or j is None:
        return "leads out of the region"
    if i == j:
        return "joins copies of one state" if "point_group_order" in saddle else "joins a state to itself"
    if None in saddle["log_rates"]:
        return "no rate"
    flags = {"low barrier": "low_barrier", "low friction": "low_friction", "flat saddle": "flat_saddle"}
    flags["time step"] = "long_time_step"
    text = ", ".join(text for text, key in flags.items() if saddle.get(key))  # absent in older documents
    return text.replace("low barrier, low friction", "low barrier and friction")


def _found(diagnostics: Document) -> str:
    counts = []
    for index, n in diagnostics["index_counts"].items():
        kinds = {"0": _count(n, "minimum", "minima"), "1": _count(n, "saddle")}
        counts.append(kinds.get(index, f"{n} of index {index}"))
    morse = diagnostics["morse_sum"]
    if morse["value"] is not None:
        expected = "" if morse["expected"] is None else f" ({morse['expected']} expected)"
        counts.append(f"Morse sum {morse['value']}{expected}")
    unseen = diagnostics.get("unseen")
    if unseen is not None:
        counts.append(f"at most {unseen['upper']:.2%} of further starts find another minimum")
    return ", ".join(counts)


def _coordinate_columns(points: Sequence[Sequence[float]], width: int) -> list[str]:
    """The points as text, coordinate under coordinate, cut to as many coordinates as fit."""
    places = _places([value for x in points for value in (*x, 0.0)], 5)
    cells = [[fixed(value, places) for value in x] for x in points]
    dim = len(points[0])
    longest = max(len(cell) for row in cells for cell in row)
    tail = f" ... {dim} in all"
    fits = (width + 1) // (longest + 1)
    shown = dim if fits >= dim else max((width - len(tail) + 1) // (longest + 1), 1)
    cut = "" if shown == dim else tail
    return [" ".join(cell.rjust(longest) for cell in row[:shown]) + cut for row in cells]


def _coefficients(values: Sequence[float]) -> str:
    """One number where all coordinates share it, else the numbers, at most eight."""
    distinct = values[:1] if len(set(values)) == 1 else values
    text = " ".join(f"{value:.6g}" for value in distinct[:8])
    return text if len(distinct) <= 8 else f"{text} ... {len(values)} in all"


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _rest(count: int, what: str, elsewhere: str) -> list[str]:
    return [f"... {count - MAX_ROWS} more {what} not shown: all are in {elsewhere}"] if count > MAX_ROWS else []


def _labelled(label: str, text: str) -> list[str]:
    indent = " " * (LABEL + len(GAP))
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{label:<{LABEL}}{GAP}", subsequent_indent=indent, break_on_hyphens=False
    )
