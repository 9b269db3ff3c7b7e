"""`landscape network`: what the network of a saved analysis says beyond its rates."""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from landscape.cli.terminal import emit

ROWS = 40
FACTORS = 4  # saddles named for a timescale
MOST_COLUMNS = 5  # of rates between sets
DESCRIPTION = (
    "Stationary distribution, timescales, metastable sets, the minimax path and the most important pathways between "
    "two sets of states, and how each timescale answers to each barrier."
)


def add_network(parser: argparse.ArgumentParser) -> None:
    """The arguments of `landscape network`."""
    parser.add_argument("folder", metavar="DIR", help="what `analyze` wrote")
    ends = "state, or comma list; default: the deepest states of the two heaviest metastable sets"
    parser.add_argument("--from", dest="source", type=states, metavar="I", help=ends)
    parser.add_argument("--to", dest="target", type=states, metavar="J", help=ends)
    parser.add_argument("--sets", type=count, metavar="K", help="metastable sets (default: by the largest gap)")
    parser.add_argument("--paths", type=count, metavar="N", default=5, help="pathways to show (default 5)")
    parser.add_argument("--json", action="store_true", help="one document on standard output, nothing else")


def states(text: str) -> list[int]:
    """A state number, or a comma list of them."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"a state or a comma list of states is needed, not {text!r}") from None


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, not {text!r}")
    return int(text)


def show_network(arguments: argparse.Namespace) -> int:
    from landscape.network.overview import network_overview
    from landscape.store import Analysis

    network = Analysis.load(arguments.folder).network
    document = network_overview(network, arguments.source, arguments.target, arguments.sets, arguments.paths)
    emit(json.dumps(document, allow_nan=False) if arguments.json else network_text(document), sys.stdout)
    return 0


def network_text(document: Mapping[str, Any]) -> str:
    """The document of `network_overview` as tables of at most 120 characters."""
    blocks = [_states(document["states"])]
    if document["log_timescales"]:
        blocks.append(_timescales(document))
    if document["sets"] is not None:
        blocks.append(_sets(document["sets"]))
    if document["way"] is not None:
        blocks.append(_way(document["way"]))
    notes = [line for note in document["notes"] for line in textwrap.wrap(f"note: {note}", 120)]
    return "\n\n".join([*blocks, *(["\n".join(notes)] if notes else [])])


def _states(rows: Sequence[Mapping[str, Any]]) -> str:
    from landscape.tables import aligned, power

    cells = [
        [
            str(row["id"]), f"{row['energy']:.6g}", power(row["log_stationary"]), str(row["part"]),
            "-" if row["set"] is None else f"{row['set']} ({row['memberships'][row['set']]:.3f})",
        ]
        for row in rows[:ROWS]
    ]  # fmt: skip
    more = [f"... {len(rows) - ROWS} more states not shown: --json has all"] if len(rows) > ROWS else []
    return "\n".join([f"states ({len(rows)})", *aligned(["id", "energy", "stationary", "part", "set"], cells), *more])


def _timescales(document: Mapping[str, Any]) -> str:
    """Each timescale, and the saddles and states it answers to most."""
    from landscape.tables import aligned, power

    taken_apart = {row["log_timescale"]: row for row in document["sensitivities"] or []}
    cells = []
    logs = document["log_timescales"]
    separate = len({row["part"] for row in document["states"]}) - 1  # as many timescales are infinite
    for k, log in enumerate(logs[:ROWS]):
        row = taken_apart.get(log, {"saddles": [], "states": []})
        saddles = [f"saddle {entry['saddle']} {entry['derivative']:+.2f}" for entry in row["saddles"][:FACTORS]]
        wells = [f"state {entry['state']} {entry['derivative']:+.2f}" for entry in row["states"][:FACTORS]]
        cells.append(["never" if k < separate else power(log), ", ".join(saddles), ", ".join(wells)])
    headers = ["timescale", "barriers: d ln t / d(beta E)", "wells: d ln t / d(beta E)"]
    more = [f"... {len(logs) - ROWS} more not shown: --json has all"] if len(logs) > ROWS else []
    return "\n".join([f"timescales ({len(logs)})", *aligned(headers, cells, left=headers[1:]), *more])


def _sets(sets: Mapping[str, Any]) -> str:
    from landscape.tables import aligned, power

    numbers = range(len(sets["representatives"]))
    wide = len(numbers) > MOST_COLUMNS  # then the rates are left to --json
    cells = []
    for k in numbers:
        rates = ["." if i == k else "0" if log is None else power(log) for i, log in enumerate(sets["log_rates"][k])]
        core, weight = str(sets["representatives"][k]), power(sets["log_weights"][k])
        cells.append([str(k), core, weight, *([] if wide else rates), _shortened(sets["members"][k])])
    headers = ["set", "core", "weight", *([] if wide else [f"rate to {k}" for k in numbers]), "states"]
    gap = sets["log_gap"]
    title = f"metastable sets ({len(numbers)}; crispness {sets['crispness']:.3f}"
    title += ")" if gap is None else f"; timescales kept and left out are a factor {power(gap)} apart)"
    return "\n".join([title, *aligned(headers, cells, left=("states",))])


def _way(way: Mapping[str, Any]) -> str:
    from landscape.tables import aligned, power

    lowest = way["minimax"]
    route = _chain(lowest["states"])
    lines = [
        f"from {_shortened(way['from'])} to {_shortened(way['to'])}: rate {power(way['log_rate'])}, "
        f"flux {power(way['log_flux'])} per unit of time",
        f"lowest path: {route}, over saddle {lowest['highest']} at energy {lowest['height']:.6g} "
        f"({lowest['barrier']:.6g} above the start)",
    ]
    lines = [line for text in lines for line in textwrap.wrap(text, 120, subsequent_indent="    ")]
    total = math.fsum(path["share"] for path in way["pathways"])
    cells = [
        [str(k + 1), f"{path['share']:.4f}", _chain(path["limiting_step"]),
         _chain(path["states"])]
        for k, path in enumerate(way["pathways"])
    ]  # fmt: skip
    lines.append(f"pathways ({len(cells)}, together {total:.4f} of the flux)")
    return "\n".join([*lines, *aligned(["", "share", "limiting step", "states"], cells, left=("states",))])


def _chain(path: Sequence[int], longest: int = 12) -> str:
    shown = [str(state) for state in path]
    if len(shown) > longest:
        shown = [*shown[: longest // 2], "...", *shown[-longest // 2 :]]
    return " -> ".join(shown)


def _shortened(members: Sequence[int], most: int = 12) -> str:
    text = ", ".join(map(str, members[:most]))
    return text if len(members) <= most else f"{text}, ... ({len(members)} in all)"
