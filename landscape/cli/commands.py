"""One function a command: parsed arguments in, exit code out. Heavy imports wait until a command runs."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.cli.output import check_folder, check_writable, default_folder, interruption_told, output_folder
from landscape.cli.provenance import provenance
from landscape.cli.terminal import Progress, emit
from landscape.errors import UsageError

if TYPE_CHECKING:
    from landscape.analysis import AnalysisConfig
    from landscape.checks import CheckOptions

NOT_CONVERGED = 3


def analyze(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    folder = Path(arguments.out) if arguments.out else default_folder(arguments.energy)
    _set_threads(arguments.threads)
    check_folder(folder, arguments.force)
    from landscape.store import FILES

    with interruption_told([folder / name for name in FILES], f"the analysis was written to {folder}"):
        return _analyze(arguments, folder, started)


def _analyze(arguments: argparse.Namespace, folder: Path, started: float) -> int:
    from landscape import analysis as steps
    from landscape import tables
    from landscape.dynamics import from_metadata
    from landscape.energy import load_energy
    from landscape.store import FILES, dynamics_record

    config, options = _search_config(arguments), _check_options(arguments)
    # Standard output is for results: what the user's own code prints goes to standard error.
    with contextlib.redirect_stdout(sys.stderr):
        energy = load_energy(arguments.energy, dim=arguments.dim, trust=arguments.trust)
    dynamics, origins = from_metadata(energy.metadata, energy.dim, **_parameters(arguments))
    _check_starts(config, energy.dim)
    with output_folder(folder, arguments.force):
        if not arguments.json:
            given = dynamics_record(dynamics, energy.dim, origins)
            emit(tables.header_text(steps.energy_record(energy), given, _search_line(config)) + "\n", sys.stdout)
        with Progress(arguments.quiet) as progress, contextlib.redirect_stdout(sys.stderr):
            found = steps.analyze(
                energy, dynamics, config, origins=origins, time_step=arguments.time_step, progress=progress
            )
            progress("writing")
            found = dataclasses.replace(found, provenance=provenance(arguments))
            found.save(folder)
        document = found.to_document()
        if not arguments.json:
            files = f"{folder}{os.sep}: {', '.join(FILES)}"
            emit(tables.analysis_text(document, time.perf_counter() - started, files), sys.stdout)
        if options is not None:  # what was found is on the disk and told by now: an interruption cannot take it away
            with Progress(arguments.quiet) as progress, contextlib.redirect_stdout(sys.stderr):
                found = steps.check(found, energy, options, progress)
                found.save_document(folder)
            document = found.to_document()
            if not arguments.json:
                emit("\n" + tables.checks_text(document), sys.stdout)
    if arguments.json:
        emit(json.dumps(document, allow_nan=False), sys.stdout)
    return _ending(document, note=arguments.json and not arguments.quiet)


def rates(arguments: argparse.Namespace) -> int:
    _set_threads(arguments.threads)
    from landscape import tables
    from landscape.dynamics import from_metadata
    from landscape.store import Analysis

    saved = Analysis.load(arguments.folder)
    old = saved.dynamics
    known = {"dynamics": old.kind, "beta": old.beta, "gamma": old.gamma, "mass": getattr(old, "mass", None)}
    known["rotation"] = old.rotation_matrix(saved.dim)
    dynamics, origins = from_metadata(known, saved.dim, **_parameters(arguments))
    origins = {name: "saved analysis" if origin == "file" else origin for name, origin in origins.items()}
    document = saved.with_dynamics(dynamics, origins).to_document()
    if arguments.json:
        emit(json.dumps(document, allow_nan=False), sys.stdout)
        return _ending(document, note=True)
    emit(tables.header_text(document["energy"], document["dynamics"]) + "\n", sys.stdout)
    emit(tables.analysis_text(document, elsewhere="the output of --json"), sys.stdout)
    return _ending(document)


def check(arguments: argparse.Namespace) -> int:
    _set_threads(arguments.threads)
    from landscape import analysis as steps
    from landscape import tables
    from landscape.checks import CheckOptions
    from landscape.cli.labelling import energy_of
    from landscape.store import DOCUMENT, Analysis

    given = Path(arguments.folder)
    options = CheckOptions(budget=arguments.budget, time_step=arguments.time_step, seed=arguments.seed)
    saved = Analysis.load(given)
    folder = given if given.is_dir() else given.parent
    check_writable(folder / DOCUMENT)
    with (
        interruption_told([folder / DOCUMENT], f"the checks were written to {folder}"),
        Progress(arguments.quiet) as progress,
        contextlib.redirect_stdout(sys.stderr),
    ):
        energy = energy_of(saved, folder, arguments.energy, arguments.trust)
        found = steps.check(saved, energy, options, progress)
        made = {**saved.provenance, "check": provenance(arguments)["command"]}
        found = dataclasses.replace(found, provenance=made)
        found.save_document(folder)
    document = found.to_document()
    if arguments.json:
        emit(json.dumps(document, allow_nan=False), sys.stdout)
        return _ending(document, note=not arguments.quiet)
    emit(tables.header_text(document["energy"], document["dynamics"]) + "\n", sys.stdout)
    emit(f"{tables.checks_text(document)}\nwritten: {folder / DOCUMENT}", sys.stdout)
    return _ending(document)


def export(arguments: argparse.Namespace) -> int:
    from landscape.network.export import export_network, export_paths
    from landscape.network.pathsample import export_pathsample, pathsample_paths
    from landscape.store import DOCUMENT, Analysis

    target = Path(arguments.output)
    if target.resolve() == (Path(arguments.folder) / DOCUMENT).resolve():
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
            export_pathsample(
                target, states.energy, states.eigenvalues, saddles.energy, saddles.eigenvalues, saddles.joins
            )
        else:
            export_network(saved.network, arguments.format, target, arguments.lag_time)
        emit(f"written: {listed}", sys.stdout)
    return 0


def assign(arguments: argparse.Namespace) -> int:
    _set_threads(arguments.threads)
    from landscape import tables
    from landscape.cli.labelling import energy_of, label_points, load_points, save_labels
    from landscape.store import Analysis

    folder, points_file, target = Path(arguments.folder), Path(arguments.points), Path(arguments.output)
    if target.resolve() == points_file.resolve():
        raise UsageError(f"the labels would replace the points {points_file}: give another file with -o")
    check_writable(target)
    analysis = Analysis.load(folder)
    points = load_points(points_file, analysis.dim)
    with Progress(arguments.quiet) as progress, contextlib.redirect_stdout(sys.stderr):
        energy = energy_of(analysis, folder, arguments.energy, arguments.trust)
        labels = label_points(energy, points, analysis.states.x, progress)
    with interruption_told([target], f"the labels were written to {target}"):
        save_labels(target, labels)
        emit(tables.labels_text(labels.tolist(), analysis.states.energy.tolist()), sys.stdout)
        emit(f"written: {target} ({len(labels):,} labels)", sys.stdout)
    return 0


def plot(arguments: argparse.Namespace) -> int:
    _set_threads(arguments.threads)
    from landscape.cli.plot import write_pictures

    return write_pictures(arguments)


def network(arguments: argparse.Namespace) -> int:
    from landscape.cli.network import show_network

    return show_network(arguments)


def compare(arguments: argparse.Namespace) -> int:
    from landscape.cli.compare import compare as compare_saved

    return compare_saved(arguments)


def report(arguments: argparse.Namespace) -> int:
    _set_threads(None)
    from landscape.cli.report import write_report

    return write_report(arguments)


def sample(arguments: argparse.Namespace) -> int:
    _set_threads(arguments.threads)
    from landscape.cli.sample import run_sample

    return run_sample(arguments)


def theory(arguments: argparse.Namespace) -> int:
    _set_threads(arguments.threads)
    from landscape.cli.theory import run_theory

    return run_theory(arguments)


def potentials(arguments: argparse.Namespace) -> int:
    from landscape.energy.catalogue import describe
    from landscape.tables import potentials_text

    emit(potentials_text(describe()), sys.stdout)
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "analyze": analyze, "rates": rates, "check": check, "export": export, "assign": assign, "report": report,
    "network": network, "compare": compare,
    "plot": plot, "sample": sample, "theory": theory, "potentials": potentials,
}  # fmt: skip


def _ending(document: Mapping[str, Any], note: bool = False) -> int:
    """The exit code of an analysis; with `note`, standard error says why, since JSON alone is easily not read."""
    if document["diagnostics"]["converged"]:
        return 0
    if note:
        emit("landscape: note: finished without converging: see diagnostics.warnings", sys.stderr)
    return NOT_CONVERGED


def _parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    from landscape.cli.labelling import load_array

    rotation = None if arguments.rotation is None else load_array(Path(arguments.rotation), "the entries of a rotation")
    return {
        "kind": arguments.dynamics, "beta": arguments.beta, "gamma": arguments.gamma, "mass": arguments.mass,
        "rotation": rotation,
    }  # fmt: skip


def _check_options(arguments: argparse.Namespace) -> CheckOptions | None:
    """What --check asks for, None where it is not given."""
    from landscape.checks import CheckOptions

    if not arguments.check and arguments.check_budget is not None:
        raise UsageError("--check-budget says how long --check may take: give --check as well")
    budget = CheckOptions.budget if arguments.check_budget is None else arguments.check_budget
    seed = 0 if arguments.seed is None else arguments.seed
    options = CheckOptions(budget=budget, time_step=arguments.time_step, seed=seed)
    return options if arguments.check else None


def _set_threads(given: int | None) -> None:
    """One thread unless the user says otherwise: two threads of torch on a busy machine can be 100 times slower."""
    if given is not None and given < 1:
        raise UsageError(f"--threads is a whole number of at least 1, not {given}")
    if given is None and os.environ.get("OMP_NUM_THREADS"):
        return
    import torch

    torch.set_num_threads(given or 1)


def _search_config(arguments: argparse.Namespace) -> AnalysisConfig:
    """The configuration file, if any, with the flags put over it."""
    from dataclasses import replace

    from landscape.analysis import AnalysisConfig
    from landscape.cli.labelling import load_array
    from landscape.search.starts import Box, Points

    config = AnalysisConfig.from_toml(arguments.config) if arguments.config else AnalysisConfig()
    changes: dict[str, Any] = {}
    if arguments.starts is not None:
        changes["n_starts"] = arguments.starts
    if arguments.starts_from is not None:
        if arguments.box is not None or arguments.starts is not None:
            other = "--box" if arguments.box is not None else "--starts"
            raise UsageError(f"--starts-from already says where to start, and how often: leave {other} out")
        changes["starts"] = Points(load_array(Path(arguments.starts_from), "start points"))
    elif arguments.box is not None:
        if len({len(bound) for bound in arguments.box if isinstance(bound, tuple)}) > 1:
            raise UsageError(
                "the bounds of --box have different lengths: give one number a coordinate in both, or one number"
            )
        changes["starts"] = Box(*arguments.box)
    config = replace(config, minima=replace(config.minima, **changes)) if changes else config
    return config if arguments.seed is None else replace(config, seed=arguments.seed)


def _check_starts(config: AnalysisConfig, dim: int) -> None:
    """Before anything is written: the starts fit the energy."""
    from landscape.search.starts import Box, Points

    starts = config.minima.starts
    if isinstance(starts, Points) and starts.x.shape[1] != dim:
        raise UsageError(
            f"start points have {dim} columns for this energy, not {starts.x.shape[1]}: check --starts-from"
        )
    bounds = (starts.low, starts.high) if isinstance(starts, Box) else ()
    for bound in bounds:
        if isinstance(bound, tuple) and len(bound) != dim:
            raise UsageError(
                f"a box bound is one number or {dim} of them for this energy, not {len(bound)}: check --box"
            )


def _search_line(config: AnalysisConfig) -> str:
    from landscape.search.starts import Box, Points

    starts = config.minima.starts
    if isinstance(starts, Points):
        where = f"{len(starts.x)} given starts"
    elif isinstance(starts, Box):
        where = f"{config.minima.n_starts} starts in a box from {starts.low} to {starts.high}"
    else:
        kind = "from a Gaussian" if starts is not None else "in a cube that finds its own scale"
        where = f"{config.minima.n_starts} starts {kind}"
    return f"{where}, seed {config.seed}"
