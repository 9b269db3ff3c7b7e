"""`landscape report`: one HTML page from a saved analysis."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from landscape.cli.output import check_writable, interruption_told
from landscape.cli.provenance import provenance
from landscape.cli.terminal import Progress, emit
from landscape.errors import UsageError


def add_report(parser: argparse.ArgumentParser) -> None:
    """The arguments of `landscape report`."""
    parser.add_argument("folder", metavar="DIR", help="what `analyze` wrote")
    parser.add_argument("-o", "--output", metavar="FILE.html", required=True)
    parser.add_argument("--three-d", action="store_true", help="with views that turn (extra `report`; adds 5 MB)")
    parser.add_argument("--energy", metavar="SPEC", help="where the energy is now, if not where it was analysed")
    parser.add_argument("--trust", action="store_true", help="allow an energy that runs code when it is loaded")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def write_report(arguments: argparse.Namespace) -> int:
    """Write the page; without the energy, unless it was asked for by name or for 3-D views, it says what is missing."""
    from landscape.cli.labelling import energy_if_found
    from landscape.network.export import replace_files
    from landscape.report import report_page
    from landscape.report.views import check_extra
    from landscape.store import DATABASE, DOCUMENT, Analysis

    folder, target = Path(arguments.folder), Path(arguments.output)
    check_writable(target)
    if target.resolve() in ((folder / DOCUMENT).resolve(), (folder / DATABASE).resolve()):
        raise UsageError(f"{target} is the analysis itself: write the report to another file")
    if arguments.three_d:
        check_extra()
    analysis = Analysis.load(folder)
    made = provenance(arguments)
    # What the user's own code prints goes to standard error.
    with Progress(arguments.quiet) as progress, contextlib.redirect_stdout(sys.stderr):
        energy, gone = energy_if_found(analysis, folder, arguments.energy, arguments.trust)
        if arguments.three_d and gone is not None:
            raise gone
        page = report_page(
            analysis, energy, why_no_energy=str(gone or ""), three_d=arguments.three_d, command=made["command"],
            date=made["date"], progress=progress,
        ).encode()  # fmt: skip
    with interruption_told([target], f"the report was written to {target}"):
        replace_files({target: page})
        emit(f"written: {target} ({len(page) / 1e6:.2f} MB)", sys.stdout)
        if gone is not None:
            emit(f"pictures that need the energy are left out: {gone}", sys.stdout)
    return 0
