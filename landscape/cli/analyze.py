"""The command `analyze`: a search begun, resumed or added to, its store, and its tables."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from landscape.cli.options import check_options, check_starts, parameters, search_config, search_line
from landscape.cli.output import check_folder, default_folder, ending, interruption_told, output_folder
from landscape.cli.provenance import provenance
from landscape.cli.terminal import Progress, emit
from landscape.errors import EnergyError, UnsupportedError, UsageError
from landscape.process import imported

if TYPE_CHECKING:
    from landscape.analysis import Earlier
    from landscape.checks import CheckOptions
    from landscape.continuation import Options
    from landscape.energy import Energy
    from landscape.store import Analysis, Search, Store

# Options that a search on record has already.
ON_RECORD = (
    "dim", "dynamics", "beta", "gamma", "mass", "rotation", "box", "starts_from", "seed", "search_dtype", "config",
    "time_step", "force",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Call:
    """The command as it was given. out : standard output. started : on the clock of time.perf_counter."""

    arguments: argparse.Namespace
    checks: CheckOptions | None
    out: TextIO
    started: float


def run_analyze(arguments: argparse.Namespace) -> int:
    call = _Call(arguments, check_options(arguments), sys.stdout, time.perf_counter())
    folder = _folder(arguments)
    if arguments.resume is None:
        check_folder(folder, arguments.force)
    from landscape.store import FILES

    files = [folder / name for name in FILES]
    # Standard output is for results: what the user's own code prints goes to standard error.
    with interruption_told(files, f"the analysis was written to {folder}"), contextlib.redirect_stdout(sys.stderr):
        return (_begun if arguments.resume is None else _resumed)(call, folder)


def _folder(arguments: argparse.Namespace) -> Path:
    if arguments.resume and arguments.out and Path(arguments.resume) != Path(arguments.out):
        raise UsageError(f"--resume goes on in the folder it names: leave out --out {arguments.out}")
    given = arguments.resume or arguments.out
    if not given and not arguments.energy:
        raise UsageError("name an energy, or a folder to go on with: --resume DIR (see landscape analyze --help)")
    return Path(given) if given else default_folder(arguments.energy)


def _begun(call: _Call, folder: Path) -> int:
    """A new search."""
    from landscape.continuation import Options, begin
    from landscape.dynamics import from_metadata
    from landscape.energy import load_energy
    from landscape.store import Store

    arguments = call.arguments
    if not arguments.energy:
        raise UsageError("name an energy to analyse (see landscape analyze --help)")
    config = search_config(arguments)
    energy = load_energy(arguments.energy, dim=arguments.dim, trust=arguments.trust, device=arguments.device)
    config = config.suited_to(energy)
    dynamics, origins = from_metadata(energy.metadata, energy.dim, **parameters(arguments))
    check_starts(config, energy.dim)
    options = Options(config, dynamics, origins, arguments.time_step)
    with (
        _executor(arguments, energy) as executor,
        output_folder(folder, arguments.force),
        Store.open(folder, replace=arguments.force) as store,
    ):
        begin(store, energy, options, provenance(arguments))
        return _Run(call, folder, store).search(energy, options, None, executor)


def _resumed(call: _Call, folder: Path) -> int:
    """The search on record, where it is not finished; else one that adds starts to it."""
    from landscape.continuation import begin, earlier_of, options_of, same_energy, with_more_starts
    from landscape.store import DATABASE, Analysis, Store

    arguments = call.arguments
    given = [f"--{name.replace('_', '-')}" for name in ON_RECORD if getattr(arguments, name) not in (None, False)]
    if given:
        raise UsageError(f"--resume goes on with the options on record: leave out {', '.join(given)}")
    if not (folder / DATABASE).is_file():
        raise UsageError(f"there is no {DATABASE} in {folder}: --resume goes on with a folder that `analyze` wrote to")
    with Store.open(folder) as store:
        searches = store.searches()
        if not searches:
            raise UsageError(f"{folder} holds an analysis without its search: nothing to go on with")
        search, run = searches[-1], _Run(call, folder, store)
        options, energy = options_of(store, search), _energy_on_record(arguments, folder, search)
        same_energy(energy, search)
        starts = arguments.starts
        if search.finished is None:
            if starts not in (None, options.config.minima.n_starts):
                raise UsageError(f"the search in {folder} is not finished: finish it first, without --starts {starts}")
            store.resume(search)
            before = [s for s in searches if s.number == search.record["adds_to"]]
            earlier = earlier_of(store, before[0]) if before else None
            with _executor(arguments, energy) as executor:
                return run.search(energy, options, earlier, executor, begun=False)
        if starts is None:
            return run.finished(Analysis.load(folder), energy)
        earlier = earlier_of(store, search)
        options = with_more_starts(options, starts, earlier)
        with _executor(arguments, energy) as executor:
            begin(store, energy, options, provenance(arguments), adds_to=search.number)
            return run.search(energy, options, earlier, executor)


def _energy_on_record(arguments: argparse.Namespace, folder: Path, search: Search) -> Energy:
    """The energy that is named, or the one on record; code on record is run with --trust only."""
    from landscape.cli.labelling import is_code, located
    from landscape.energy import load_energy

    record = search.record["energy"]
    spec = arguments.energy
    if spec is None:
        spec = located(record["source"], record["path"], folder)
        if is_code(spec) and not arguments.trust:
            raise UsageError(
                f"the energy of {folder} is code, {spec}: allow it to run with --trust, or name it: landscape analyze "
                f"{spec} --resume {folder}"
            )
    return load_energy(
        spec, dim=record["dim"], trust=arguments.trust, dtype=record["dtype"], device=arguments.device
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Run:
    """One run of the command in an open store."""

    call: _Call
    folder: Path
    store: Store

    def search(
        self,
        energy: Energy,
        options: Options,
        earlier: Earlier | None,
        executor: Executor | None,
        begun: bool = True,
    ) -> int:
        """Search, write and tell. What is found stays in the store, unless the search was begun just now and turns out
        to ask for what cannot be."""
        from landscape import analysis as steps
        from landscape import tables
        from landscape.store import StoreError, dynamics_record

        arguments = self.call.arguments
        if not arguments.json:
            given = dynamics_record(options.dynamics, energy.dim, options.origins)
            before = f"; {earlier.n_starts:,} of them made before" if earlier else ""
            line = search_line(options.config, energy) + before
            emit(tables.header_text(steps.energy_record(energy), given, line) + "\n", self.call.out)
        imported()
        try:
            with Progress(arguments.quiet) as progress:
                found = steps.analyze(
                    energy, options.dynamics, options.config, origins=options.origins, time_step=options.time_step,
                    progress=progress, executor=executor, store=self.store, earlier=earlier,
                )  # fmt: skip
                progress("writing")
                made = provenance(arguments)
                found = dataclasses.replace(found, provenance=made)
                found.save(self.folder, self.store)
                self.store.finish(made["date"])
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(
                f"what was found is kept; go on with: landscape analyze --resume {self.folder}"
            ) from interrupt
        except (EnergyError, UsageError, UnsupportedError) as error:
            if begun and not isinstance(error, StoreError):
                self.store.discard()
            raise
        return self._told(found, energy)

    def finished(self, found: Analysis, energy: Energy) -> int:
        """Nothing is left to search: the files are written anew, in case they were lost, and the tables printed."""
        found.save(self.folder, self.store)
        return self._told(found, energy)

    def _told(self, found: Analysis, energy: Energy) -> int:
        from landscape import analysis as steps
        from landscape import tables
        from landscape.store import DATABASE, FILES

        arguments, checks, out = self.call.arguments, self.call.checks, self.call.out
        document = found.to_document()
        if not arguments.json:
            files = f"{self.folder}{os.sep}: {', '.join((*FILES, DATABASE))}"
            emit(tables.analysis_text(document, time.perf_counter() - self.call.started, files), out)
        if checks is not None:  # what was found is on the disk and told by now: an interruption cannot take it
            with Progress(arguments.quiet) as progress:
                found = steps.check(found, energy, checks, progress)
                found.save_document(self.folder, self.store)
            document = found.to_document()
            if not arguments.json:
                emit("\n" + tables.checks_text(document), out)
        if arguments.json:
            emit(json.dumps(document, allow_nan=False), out)
        return ending(document, note=arguments.json and not arguments.quiet)


@contextlib.contextmanager
def _executor(arguments: argparse.Namespace, energy: Energy) -> Iterator[Executor | None]:
    """The processes that were asked for, None for this one alone."""
    from landscape.tasks import Workers, cluster, is_slow

    if arguments.workers is None and arguments.scheduler is None:
        yield None
        return
    with Workers(arguments.workers) if arguments.scheduler is None else cluster(arguments.scheduler) as executor:
        if not is_slow(energy) and not arguments.quiet:
            note = "a point takes less than 2 ms: one process, in large batches, is about as fast"
            emit(f"landscape: note: {note}", sys.stderr)
        yield executor
