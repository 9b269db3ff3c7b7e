"""Searches that go on: what a store has to remember of a search's beginning, and how it is taken up again."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from landscape.analysis import Earlier
from landscape.configuration import AnalysisConfig
from landscape.dynamics import Dynamics
from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.search import Points, Region
from landscape.store import Reader, Search, Store, dynamics_record, source_file
from landscape.store.document import dynamics_from
from landscape.tasks.energy import uncounted

SAME_VALUES = 1e-8  # relative; energies at fixed points that differ by more are those of another energy
REFERENCE_POINTS = 4
STARTS = "starts"  # name of the array of given start points


@dataclass(frozen=True)
class Options:
    """Everything that decides what a search finds, apart from the energy: as `analyze` takes it."""

    config: AnalysisConfig
    dynamics: Dynamics
    origins: Mapping[str, str]
    time_step: float | None


def begin(
    store: Store, energy: Energy, options: Options, provenance: Mapping[str, str], adds_to: int | None = None
) -> Search:
    """Begin a search in a store: everything is recorded that `options_of` and `same_energy` need. `adds_to` : number of
    the search whose points it starts from."""
    file = source_file(energy.source)
    record = {
        **provenance,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": str(torch.__version__)},
        "seed": options.config.seed,
        "energy": {
            "source": energy.source, "path": None if file is None else str(file.resolve()), "sha256": energy.sha256,
            "dim": energy.dim, "dtype": str(energy.dtype).removeprefix("torch."), "device": str(energy.device),
            "values": _reference_values(energy),
        },
        "dynamics": dynamics_record(options.dynamics, energy.dim, options.origins),
        "time_step": options.time_step, "config": options.config.to_record(), "adds_to": adds_to,
    }  # fmt: skip
    starts = options.config.minima.starts
    return store.begin(record, {STARTS: starts.x} if isinstance(starts, Points) else None)


def options_of(reader: Reader, search: Search) -> Options:
    """What a search on record was asked for."""
    record = search.record
    try:
        config = AnalysisConfig.from_record(record["config"], reader.begun_with(search).get(STARTS))
        dynamics = dynamics_from(record["dynamics"])
        return Options(config, dynamics, dict(record["dynamics"]["origins"]), record["time_step"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{reader.file} does not say how its search began ({error}): analyse again") from error


def same_energy(energy: Energy, search: Search) -> None:
    """UsageError if this is not the energy that the search began with."""
    record = search.record["energy"]
    if energy.sha256 is not None and record["sha256"] is not None and energy.sha256 != record["sha256"]:
        raise UsageError(
            f"{energy.source} has changed since the search began (sha256 {energy.sha256[:12]}, not "
            f"{record['sha256'][:12]}): what was found does not belong to it; analyse again with --force"
        )
    now, then = (np.array(values, float) for values in (_reference_values(energy), record["values"]))
    known = np.isfinite(then)
    if now.shape != then.shape or not np.allclose(now[known], then[known], rtol=SAME_VALUES, atol=SAME_VALUES):
        raise UsageError(
            f"{energy.source} is not the energy that the search began with (its values differ): use --force"
        )


def earlier_of(reader: Reader, search: Search) -> Earlier:
    """What a finished search leaves to the next one."""
    result = reader.result()
    if result is None:
        raise UsageError(f"{reader.file} holds no finished analysis to add to: analyse again with --force")
    diagnostics, points = result[0]["diagnostics"], reader.points(search.number)
    region = diagnostics["search_region"]
    # Random numbers depend on how many searches this one builds on, not on what else the folder has seen.
    records = {other.number: other.record for other in reader.searches()}
    depth, before = 1, search.record["adds_to"]
    while before is not None:
        depth, before = depth + 1, records[before]["adds_to"]
    return Earlier(
        points.x, points.hits, diagnostics["starts"], Region(np.array(region["center"]), region["half_width"]),
        depth,
    )  # fmt: skip


def with_more_starts(options: Options, n_starts: int, earlier: Earlier) -> Options:
    """The options of a search that adds starts to what there is. UsageError where there is nothing to add."""
    if isinstance(options.config.minima.starts, Points):
        raise UsageError("the search began at given points: analyse others with --starts-from, into another folder")
    if n_starts <= earlier.n_starts:
        raise UsageError(f"{earlier.n_starts:,} starts have been made: ask for more with --starts, not {n_starts:,}")
    minima = dataclasses.replace(options.config.minima, n_starts=n_starts)
    return dataclasses.replace(options, config=dataclasses.replace(options.config, minima=minima))


def _reference_values(energy: Energy) -> list[float | None]:
    """Energies at fixed points, None where they are not finite."""
    points = torch.linspace(-1, 1, REFERENCE_POINTS * energy.dim, dtype=torch.float64).reshape(-1, energy.dim)
    values = uncounted(energy).value(points).tolist()
    return [value if np.isfinite(value) else None for value in values]
