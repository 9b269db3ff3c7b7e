"""The command `show`: what the store in a folder holds, also while a search is at work there."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.cli.terminal import emit

if TYPE_CHECKING:
    from landscape.store import Search
    from landscape.store.database import KnownPoints

FORMAT, VERSION = "learned-landscape/store", 1
ROWS = 20  # points of a search that is not finished, lowest energy first
COORDINATES = 6


def run_show(arguments: argparse.Namespace) -> int:
    from landscape import tables
    from landscape.store import Analysis, Reader

    folder = Path(arguments.folder)
    with Reader.open(folder) as reader:
        searches = reader.searches()
        points = {search.number: reader.points(search.number) for search in searches}
        done = reader.result() is not None
    document = Analysis.load(folder).to_document() if done else None
    if arguments.json:
        record = {
            "format": FORMAT, "version": VERSION, "finished": bool(searches) and searches[-1].finished is not None,
            "searches": [_record(search, points[search.number]) for search in searches], "analysis": document,
        }  # fmt: skip
        emit(json.dumps(record, allow_nan=False), sys.stdout)
        return 0
    for search in searches:
        emit(_search_text(search, points[search.number]), sys.stdout)
    if document is not None:
        emit(tables.header_text(document["energy"], document["dynamics"]) + "\n", sys.stdout)
        emit(tables.analysis_text(document), sys.stdout)
        made = document["provenance"]
        emit(
            f"made by     {made.get('command', 'code of your own')} ({made.get('version', 'unknown version')})",
            sys.stdout,
        )
    if searches and searches[-1].finished is None:
        emit(f"go on with  landscape analyze --resume {folder}", sys.stdout)
    return 0


def _record(search: Search, points: KnownPoints) -> dict[str, Any]:
    rows = [
        {
            "index": int(points.index[k]), "degenerate": bool(points.degenerate[k]), "hits": int(points.hits[k]),
            "energy": float(points.energy[k]), "x": points.x[k].tolist(),
        }
        for k in range(len(points.energy))
    ]  # fmt: skip
    return {
        "number": search.number, "finished": search.finished, "blocks": search.blocks, "seconds": search.seconds,
        "points": rows, **search.record,
    }  # fmt: skip


def _search_text(search: Search, points: KnownPoints) -> str:
    record = search.record
    n_starts = record["config"]["minima"]["n_starts"]
    added = f", added to search {record['adds_to']}" if record["adds_to"] else ""
    state = f"finished {search.finished}" if search.finished else "not finished"
    kept = f"; {search.blocks:,} blocks kept, worth {search.seconds:.1f} s" if search.blocks else ""
    regular = ~points.degenerate
    counts = ", ".join(
        f"{int((regular & (points.index == k)).sum())} of index {k}" for k in sorted(set(points.index[regular]))
    )
    flat = f", {int(points.degenerate.sum())} degenerate" if points.degenerate.any() else ""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        f"search {search.number}    {state}{kept}",
        f"  command   {record['command']}",
        f"  made with {record['version']}, {versions}",
        f"  begun     {record['date']}; {n_starts:,} starts, seed {record['seed']}{added}",
        f"  energy    {record['energy']['source']} (sha256 {(record['energy']['sha256'] or 'unknown')[:12]})",
        f"  points    {counts or 'none'}{flat}",
    ]
    if search.finished is None:
        for k in points.energy.argsort(kind="stable")[:ROWS]:
            x = " ".join(f"{value:.4f}" for value in points.x[k][:COORDINATES])
            more = " ..." if points.x.shape[1] > COORDINATES else ""
            lines.append(f"    index {points.index[k]}  {points.energy[k]:12.6g}  {x}{more}")
    return "\n".join(lines) + "\n"
