"""`landscape compare`: two saved analyses side by side."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from landscape.cli.terminal import emit

MATCHES = ("position", "weights", "permutation")  # landscape.comparison has the same, behind numpy
ROWS = 40
DESCRIPTION = (
    "Two seeds, two checkpoints or two temperatures: the states of two saved analyses matched, their weights and rates "
    "side by side with the logarithm of their ratio, and the states without a partner."
)


def add_compare(parser: argparse.ArgumentParser) -> None:
    """The arguments of `landscape compare`."""
    parser.add_argument("first", metavar="DIR1", help="what `analyze` wrote")
    parser.add_argument("second", metavar="DIR2", help="what `analyze` wrote")
    parser.add_argument(
        "--match", choices=MATCHES, default="position",
        help="position (default): same coordinates; weights, permutation (weights and rates): other latent spaces",
    )  # fmt: skip
    parser.add_argument(
        "--max-distance", type=float, default=5.0, metavar="W",
        help="furthest match by position, in thermal widths of the wells (default 5)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one document on standard output, nothing else")


def compare(arguments: argparse.Namespace) -> int:
    from landscape.comparison import compare_analyses
    from landscape.store import Analysis

    first, second = Analysis.load(arguments.first), Analysis.load(arguments.second)
    document = compare_analyses(first, second, arguments.match, arguments.max_distance).to_document()
    document |= {"a": arguments.first, "b": arguments.second}
    emit(json.dumps(document, allow_nan=False) if arguments.json else comparison_text(document), sys.stdout)
    return 0


def comparison_text(document: Mapping[str, Any]) -> str:
    """The document of a comparison as tables of at most 120 characters."""
    blocks = [f"a  {document['a']}\nb  {document['b']}", _states(document)]
    if document["rates"]:
        blocks.append(_rates(document["rates"]))
    lines = []
    for side in "ab":
        numbers = document["unmatched"][side]
        if numbers:
            lines += textwrap.wrap(f"only in {side}: {', '.join(map(str, numbers))}", 120, subsequent_indent="    ")
    lines += _timescales(document["log_timescales"])
    for note in document["notes"]:
        lines += textwrap.wrap(f"note: {note}", 120, subsequent_indent="    ")
    return "\n\n".join([*blocks, *(["\n".join(lines)] if lines else [])])


def _states(document: Mapping[str, Any]) -> str:
    from landscape.tables import aligned

    rows = document["states"]
    title = f"states matched by {document['match']} ({len(rows)})"
    if not rows:
        return title
    by_position = document["match"] == "position"
    orders = [name for name in rows[0]["weights"] if any(_known(row["weights"][name]) for row in rows)]
    headers = ["a", "b", *(["distance"] if by_position else []), "weight", "in a", "in b", "ln a/b"]
    cells = []
    for row in rows[:ROWS]:
        line = [str(row["a"]), str(row["b"]), *([f"{row['distance']:.3g}"] if by_position else [])]
        for name in orders:
            weight = row["weights"][name]
            numbers = [_weight(weight[side], weight[f"se_{side}"]) for side in "ab"]
            cells.append([*line, name, *numbers, _ratio(weight["log_ratio"])])
            line = [""] * len(line)
    return "\n".join([title, *aligned(headers, cells, left=("weight",)), *_more(rows)])


def _known(weight: Mapping[str, Any]) -> bool:
    return weight["a"] is not None or weight["b"] is not None


def _rates(rows: Sequence[Mapping[str, Any]]) -> str:
    from landscape.tables import aligned, power

    checked = any(row[f"log_reference_{side}"] is not None for row in rows for side in "ab")
    headers = ["in a", "in b", "rate a", "rate b", "ln a/b", *(["reference a", "reference b"] if checked else [])]
    cells = []
    for row in rows[:ROWS]:
        line = [f"{i} -> {j}" for i, j in (row["a"], row["b"])]
        line += [power(row["log_rate_a"]), power(row["log_rate_b"]), _ratio(row["log_ratio"])]
        for side in "ab" if checked else "":
            error = row[f"log_reference_se_{side}"]
            spread = "" if error is None else f" +- {100 * error:.1f}%"
            line.append(f"{power(row[f'log_reference_{side}'])}{spread}")
        cells.append(line)
    return "\n".join([f"rates between matched states ({len(rows)})", *aligned(headers, cells), *_more(rows)])


def _timescales(logs: Mapping[str, Sequence[float | None]]) -> list[str]:
    from landscape.tables import power

    return [f"timescales {side}  {'  '.join(power(log) for log in logs[side][:6])}" for side in "ab" if logs[side]]


def _weight(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    small = value < 1e-3
    text = f"{value:.3e}" if small else f"{value:.4f}"
    return text if error is None else f"{text} +- {error:.1e}" if small else f"{text} +- {error:.4f}"


def _ratio(log: float | None) -> str:
    return "-" if log is None else f"{round(log, 4) + 0.0:+.4f}"


def _more(rows: Sequence[Any]) -> list[str]:
    return [f"... {len(rows) - ROWS} more not shown: --json has all"] if len(rows) > ROWS else []
