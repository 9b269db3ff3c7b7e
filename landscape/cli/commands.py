"""One function a command: parsed arguments in, exit code out. Heavy imports wait until a command runs."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

from landscape.cli.options import parameters, set_threads
from landscape.cli.output import check_writable, ending, interruption_told
from landscape.cli.provenance import provenance
from landscape.cli.terminal import Progress, emit
from landscape.errors import UsageError
from landscape.process import imported


def analyze(arguments: argparse.Namespace) -> int:
    set_threads(arguments.threads)
    from landscape.cli.analyze import run_analyze

    return run_analyze(arguments)


def show(arguments: argparse.Namespace) -> int:
    from landscape.cli.show import run_show

    return run_show(arguments)


def rates(arguments: argparse.Namespace) -> int:
    set_threads(arguments.threads)
    from landscape import tables
    from landscape.dynamics import from_metadata
    from landscape.store import Analysis

    saved = Analysis.load(arguments.folder)
    old = saved.dynamics
    known = {"dynamics": old.kind, "beta": old.beta, "gamma": old.gamma, "mass": getattr(old, "mass", None)}
    known["rotation"] = old.rotation_matrix(saved.dim)
    dynamics, origins = from_metadata(known, saved.dim, **parameters(arguments))
    origins = {name: "saved analysis" if origin == "file" else origin for name, origin in origins.items()}
    document = saved.with_dynamics(dynamics, origins).to_document()
    if arguments.json:
        emit(json.dumps(document, allow_nan=False), sys.stdout)
        return ending(document, note=True)
    emit(tables.header_text(document["energy"], document["dynamics"]) + "\n", sys.stdout)
    emit(tables.analysis_text(document, elsewhere="the output of --json"), sys.stdout)
    return ending(document)


def check(arguments: argparse.Namespace) -> int:
    set_threads(arguments.threads)
    from landscape import analysis as steps
    from landscape import tables
    from landscape.checks import CheckOptions
    from landscape.cli.labelling import energy_of
    from landscape.store import DOCUMENT, Analysis, Store

    imported()
    given = Path(arguments.folder)
    options = CheckOptions(budget=arguments.budget, time_step=arguments.time_step, seed=arguments.seed)
    saved = Analysis.load(given)
    folder = given if given.is_dir() else given.parent
    check_writable(folder / DOCUMENT)
    with (
        interruption_told([folder / DOCUMENT], f"the checks were written to {folder}"),
        Progress(arguments.quiet) as progress,
        contextlib.redirect_stdout(sys.stderr),
        Store.open(folder) as store,  # now, so that nobody is told after minutes that another process is at work
    ):
        energy = energy_of(saved, folder, arguments.energy, arguments.trust)
        found = steps.check(saved, energy, options, progress)
        made = {**saved.provenance, "check": provenance(arguments)["command"]}
        found = dataclasses.replace(found, provenance=made)
        found.save_document(folder, store)
    document = found.to_document()
    if arguments.json:
        emit(json.dumps(document, allow_nan=False), sys.stdout)
        return ending(document, note=not arguments.quiet)
    emit(tables.header_text(document["energy"], document["dynamics"]) + "\n", sys.stdout)
    emit(f"{tables.checks_text(document)}\nwritten: {folder / DOCUMENT}", sys.stdout)
    return ending(document)


def export(arguments: argparse.Namespace) -> int:
    from landscape.network.export import export_network, export_paths
    from landscape.network.pathsample import export_pathsample, pathsample_paths
    from landscape.store import DATABASE, DOCUMENT, Analysis

    target = Path(arguments.output)
    if target.resolve() in [(Path(arguments.folder) / name).resolve() for name in (DOCUMENT, DATABASE)]:
        raise UsageError(f"{target} is the analysis itself: export to another file")
    to_pathsample = arguments.format == "pathsample"
    if to_pathsample and arguments.lag_time is not None:
        raise UsageError("a lag time belongs to the format deeptime, not to pathsample: leave it out")
    files = pathsample_paths(target) if to_pathsample else export_paths(arguments.format, target)
    listed = ", ".join(map(str, files))
    with interruption_told(files, f"the network was written to {listed}"):
        saved = Analysis.load(arguments.folder)
        if to_pathsample:
            states, saddles = saved.states, saved.saddles
            log_dets = None if saved.large is None else tuple(found.values for found in saved.large.determinants)
            log_dets, shapes = (saved.modulo.bare_log_dets, saved.modulo.shapes) if saved.modulo else (log_dets, None)
            low, top = saved.spectra
            export_pathsample(target, states.energy, low, saddles.energy, top, saddles.joins, log_dets, shapes)
        else:
            export_network(saved.network, arguments.format, target, arguments.lag_time)
        emit(f"written: {listed}", sys.stdout)
    return 0


def assign(arguments: argparse.Namespace) -> int:
    set_threads(arguments.threads)
    from landscape import tables
    from landscape.cli.labelling import energy_of, label_points, load_points, save_labels
    from landscape.store import Analysis

    imported()
    folder, points_file, target = Path(arguments.folder), Path(arguments.points), Path(arguments.output)
    if target.resolve() == points_file.resolve():
        raise UsageError(f"the labels would replace the points {points_file}: give another file with -o")
    check_writable(target)
    analysis = Analysis.load(folder)
    points = load_points(points_file, analysis.dim)
    with Progress(arguments.quiet) as progress, contextlib.redirect_stdout(sys.stderr):
        energy = energy_of(analysis, folder, arguments.energy, arguments.trust)
        labels = label_points(energy, points, analysis.states.x, analysis.saddles.x, progress)
    with interruption_told([target], f"the labels were written to {target}"):
        save_labels(target, labels)
        emit(tables.labels_text(labels.tolist(), analysis.states.energy.tolist()), sys.stdout)
        emit(f"written: {target} ({len(labels):,} labels)", sys.stdout)
    return 0


def plot(arguments: argparse.Namespace) -> int:
    set_threads(arguments.threads)
    from landscape.cli.plot import write_pictures

    return write_pictures(arguments)


def network(arguments: argparse.Namespace) -> int:
    from landscape.cli.network import show_network

    return show_network(arguments)


def compare(arguments: argparse.Namespace) -> int:
    from landscape.cli.compare import compare as compare_saved

    return compare_saved(arguments)


def report(arguments: argparse.Namespace) -> int:
    set_threads(None)
    from landscape.cli.report import write_report

    return write_report(arguments)


def sample(arguments: argparse.Namespace) -> int:
    set_threads(arguments.threads)
    from landscape.cli.sample import run_sample

    return run_sample(arguments)


def theory(arguments: argparse.Namespace) -> int:
    set_threads(arguments.threads)
    from landscape.cli.theory import run_theory

    return run_theory(arguments)


def potentials(arguments: argparse.Namespace) -> int:
    from landscape.energy.catalogue import describe
    from landscape.tables import potentials_text

    emit(potentials_text(describe()), sys.stdout)
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "analyze": analyze, "show": show, "rates": rates, "check": check, "export": export, "assign": assign,
    "report": report, "network": network, "compare": compare,
    "plot": plot, "sample": sample, "theory": theory, "potentials": potentials,
}  # fmt: skip
