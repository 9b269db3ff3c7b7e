"""`analyze`: an energy in, an `Analysis` out. Calls search, sampling and formulas in order; no numerics of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from landscape.checks import CheckOptions
from landscape.configuration import AnalysisConfig
from landscape.dynamics import Dynamics, from_metadata
from landscape.energy import Energy, ParticleSymmetry, as_energy
from landscape.errors import UnsupportedError
from landscape.search import (
    Basins,
    Catalogue,
    FlowOptions,
    MinimaResult,
    Region,
    SaddleResult,
    assign_basins,
    find_minima,
    find_saddles,
)
from landscape.search.driver import Status
from landscape.search.stationary import StationaryPoints
from landscape.store import Analysis, Exact, Large, Saddles, Sampled, SavedPaths, States, Store, source_file
from landscape.store.modulo import check_dynamics
from landscape.tasks import TaskEnergy, is_slow
from landscape.weights import (
    MAX_UNASSIGNED,
    ExactResult,
    SampledResult,
    exact_weights,
    lowest_saddles,
    one_period,
    sample_weights,
    sublevel_basins,
)

Progress = Callable[[str], None]
APART = 5.0  # standard errors between sampled and exact weights that chance does not explain
STEPS = ("minima", "saddles", "sampled", "exact")  # each has random numbers of its own


@dataclass(frozen=True, eq=False)
class Earlier:
    """What an earlier search of the same energy found, for one that adds to it.

    x (n, d), hits (n,) : its stationary points and the starts that ended at them. starts : how many starts came to
    what, by the names of `Status`. region : where it searched. searches : that add up to it, itself included.
    """

    x: np.ndarray
    hits: np.ndarray
    starts: Mapping[str, int]
    region: Region
    searches: int

    @property
    def n_starts(self) -> int:
        return sum(self.starts.values())


def analyze(
    energy: Energy | Callable[[torch.Tensor], torch.Tensor],
    dynamics: Dynamics | None = None,
    config: AnalysisConfig | None = None,
    *,
    dim: int | None = None,
    origins: Mapping[str, str] | None = None,
    time_step: float | None = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
    store: Store | None = None,
    earlier: Earlier | None = None,
) -> Analysis:
    """States, saddles, paths, rates, weights and network of an energy.

    energy : an `Energy`, or any torch callable (n, d) -> (n,); dim is needed where the callable has no `dim`.
    dynamics : by default from the energy's metadata, else overdamped with beta = gamma = 1.
    time_step : of your simulations, kept on record and held against the curvature; by default from the metadata.
    progress : called with texts.
    executor : where blocks of tasks are computed, any of concurrent.futures' kind (`landscape.tasks.Workers`, dask's);
    None: here, in one batched process, which is fastest unless a point costs milliseconds. The energy has to be one
    that `load_energy` loaded from a specification. The result is the same.
    store : a memory of finished blocks, with a search begun or resumed in it (see `landscape.continuation`).
    earlier : what this search adds to; of `config.minima.n_starts` only those are made that are not in it.

    Raises EnergyError for an unusable energy or one without a minimum, UnsupportedError for one with zero modes.
    A search that did not converge says so in `diagnostics`.
    """
    energy = as_energy(energy, dim=dim)
    config = (config or AnalysisConfig()).suited_to(energy)
    report = progress or (lambda text: None)
    if energy.zero_modes and energy.symmetry is None:
        raise UnsupportedError(
            f"{energy.source} has zero modes ({energy.zero_modes}): determinants and merging would be wrong; "
            "declare them as its symmetry (landscape.ParticleSymmetry, landscape.Periodic)"
        )
    if dynamics is None:
        dynamics, origins = from_metadata(energy.metadata, energy.dim)
    dynamics.gamma_vector(energy.dim), dynamics.mass_vector(energy.dim)  # lengths fit, before the search is paid for
    record = energy_record(energy)
    check_dynamics(record.get("symmetry"), dynamics, energy.dim)
    if energy.matrix_free and not dynamics.reversible:
        raise UnsupportedError(f"a rotation is not supported above dimension {energy.dense_dim}: leave it out")
    slow = is_slow(energy)
    if slow or executor is not None or store is not None:
        energy = TaskEnergy(energy, answers=store, executor=executor, slow=slow)
    streams = random_streams(config.seed, 0 if earlier is None else earlier.searches)
    minima, found = _search(energy, config, streams, report, store, earlier)
    large = None
    if energy.matrix_free:
        large = Large.measured(
            energy, dynamics, found.minima, found.saddles, found.joins, config.determinants, config.seed, report
        )  # fmt: skip
    if isinstance(energy.symmetry, ParticleSymmetry):
        config = dataclasses.replace(config, weights=None, exact=None)
    sample, exact = _weights(energy, found, dynamics.beta, config, streams, report)
    record = energy_record(energy)
    return Analysis(
        energy=record if time_step is None else record | {"time_step": time_step},
        dynamics=dynamics,
        states=States(**_arrays(found.minima), hits=found.minima.hits),
        saddles=Saddles(**_arrays(found.saddles), joins=found.joins),
        paths=SavedPaths(
            found.path_saddle, found.paths.images, found.paths.energy, found.paths.arclength,
            found.paths.status == Status.CONVERGED,
        ),
        sampled=None if sample is None else _sampled(sample, found),
        exact=_exact(exact),
        diagnostics=_diagnostics(energy, minima, found, sample, exact, earlier, _left_out(config) if large else []),
        other_points=_other_points(found),
        origins=dict(origins or {}),
        config=config.to_record(),
        large=large,
    )  # fmt: skip


def random_streams(seed: int, search: int = 0) -> dict[str, torch.Generator]:
    """A generator for each of STEPS: none depends on how much another has drawn. `search` : the how manieth it is."""
    streams = {}
    for number, step in enumerate(STEPS):
        state = np.random.SeedSequence([seed, search, number]).generate_state(1, np.uint64)[0]
        streams[step] = torch.Generator().manual_seed(int(state >> np.uint64(1)))
    return streams


def _search(
    energy: Energy,
    config: AnalysisConfig,
    streams: Mapping[str, torch.Generator],
    report: Progress,
    store: Store | None,
    earlier: Earlier | None,
) -> tuple[MinimaResult, SaddleResult]:
    """Minima, then saddles and paths; what is found is noted in the store as it comes."""
    catalogue = Catalogue(energy)

    def told(text: str) -> None:
        if store is not None:
            store.note_points(catalogue.points())
        report(text)

    starts = config.minima
    if earlier is not None:
        known = catalogue.add(torch.as_tensor(earlier.x, dtype=energy.dtype, device=energy.device))
        catalogue.credit(known, earlier.hits)
        starts = dataclasses.replace(starts, n_starts=starts.n_starts - earlier.n_starts)
    minima = find_minima(
        energy, starts, generator=streams["minima"], catalogue=catalogue, progress=told,
        region=None if earlier is None else earlier.region,
    )  # fmt: skip
    found = find_saddles(
        energy, minima, config.saddles, paths=config.paths, generator=streams["saddles"], catalogue=catalogue,
        progress=told,
    )  # fmt: skip
    if store is not None:
        store.note_points(catalogue.points(), last=True)
    return minima, found


def check(
    analysis: Analysis,
    energy: Energy | Callable[[torch.Tensor], torch.Tensor],
    options: CheckOptions | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """The analysis with `checks`: every rate beside an independent one, with a verdict; see `landscape.checks`.

    energy : the one that was analysed. The time step is that of the options, else the one on record for the energy, if
    there is any.
    """
    if analysis.large is not None:
        raise UnsupportedError(
            f"checks need whole Hessians, which are not formed in dimension {analysis.dim}; rates stand with the "
            "errors of their determinants"
        )
    # Grids, simulations and bounds: a tenth of a second of imports that an analysis without checks need not pay.
    from landscape.checks import Subject, run_checks

    options = options or CheckOptions()
    if options.time_step is None:
        options = dataclasses.replace(options, time_step=analysis.energy.get("time_step"))
    saddles, paths = analysis.saddles, analysis.paths
    if analysis.modulo is not None:
        raise UnsupportedError(
            "checks compare rates with grids, simulations and bounds in the coordinates themselves, which is not "
            "supported for states modulo translations, rotations and permutations: go without; low barriers and flat "
            "saddles are marked in the table, and `landscape assign` tells the states of simulations of your own"
        )
    subject = Subject(
        analysis.network, analysis.rates, analysis.spectra[0], saddles.x, analysis.spectra[1],
        saddles.hessian, paths.saddle, paths.images,
    )  # fmt: skip
    energy = as_energy(energy, dim=analysis.dim)
    checks = run_checks(energy, analysis.dynamics, subject, options, progress)
    record = {**analysis.energy, **({} if options.time_step is None else {"time_step": options.time_step})}
    return dataclasses.replace(analysis, energy=record, checks=checks)


def _weights(
    energy: Energy,
    found: SaddleResult,
    beta: float,
    config: AnalysisConfig,
    streams: Mapping[str, torch.Generator],
    report: Progress,
) -> tuple[SampledResult | None, ExactResult | None]:
    """Weights from chains and from independent draws. The draws come first, since they guide the chains."""
    if config.weights is None and config.exact is None:
        return None, None
    cell, wells = one_period(energy, found.minima.x)
    assert found.basins is not None  # only clusters have none, whose weights are left out
    task = cell, wells, _hessians(energy, found), beta, partial(_labels, energy, found.basins)
    exact = None if config.exact is None else exact_weights(*task, config.exact, streams["exact"], report)
    if config.weights is None:
        return None, exact
    guide = None if exact is None else exact.guide
    return sample_weights(*task, config.weights, streams["sampled"], report, guide), exact


def _labels(energy: Energy, basins: Basins, points: torch.Tensor) -> np.ndarray:
    return assign_basins(energy, points, basins, labelling(energy))


def labelling(energy: Energy) -> FlowOptions:
    """How draws are labelled, which are only counted: by flows with large errors, and by a descent at the end of those
    that take many steps.

    Of 8,135 points of rough landscapes that were asked about 13 are labelled otherwise than by a flow with 15,000 times
    smaller errors, in no direction.
    """
    return FlowOptions(tolerance=1.5e-2, max_iterations=30 + energy.dim)


def _hessians(energy: Energy, found: SaddleResult) -> np.ndarray:
    """Of the minima; where d is too large they are formed for who asks for weights all the same."""
    return np.asarray(energy.hessian(found.minima.x)) if energy.matrix_free else found.minima.hessian


def _left_out(config: AnalysisConfig) -> list[str]:
    """What `AnalysisConfig.suited_to` leaves out."""
    if config.weights is not None or config.exact is not None:
        return []
    return [
        "no sampled and no exact weights in so many dimensions: draws from harmonic wells are worth next to nothing "
        "there, and chains do not change wells; the weights of 2nd order stand alone (settings of your own in "
        "[weights] or [exact] try all the same)"
    ]


def _sampled(sample: SampledResult, found: SaddleResult) -> Sampled | None:
    if sample.weights is None or sample.standard_errors is None:
        return None
    ceilings = lowest_saddles(len(found.minima), found.joins, found.saddles.energy)
    cores = sublevel_basins(sample.chains, ceilings)
    return Sampled(
        sample.weights, sample.standard_errors, sample.unassigned, cores.mass, cores.standard_errors, cores.ceilings
    )


def _exact(result: ExactResult | None) -> Exact | None:
    if result is None or result.weights is None or result.standard_errors is None:
        return None
    if result.log_z is None or result.log_z_se is None:
        return None
    return Exact(result.weights, result.standard_errors, result.log_z, result.log_z_se)


def _exact_record(result: ExactResult) -> dict[str, Any]:
    shape = result.pareto_shape
    return {
        "converged": result.converged, "reason": result.reason, "draws": result.n_draws,
        "effective": result.effective, "largest_share": result.largest_share,
        "pareto_shape": shape if np.isfinite(shape) else None, "labelled": result.n_labelled,
        "evaluations": result.evaluations, "levels": result.levels,
    }  # fmt: skip


def _exact_warnings(exact: ExactResult, sample: SampledResult | None) -> list[str]:
    if exact.weights is None or exact.standard_errors is None:
        return [f"no exact weights: {exact.reason}"]
    warnings = [] if exact.converged else [f"exact weights: {exact.reason}"]
    if sample is not None and sample.weights is not None and sample.standard_errors is not None:
        error = np.hypot(sample.standard_errors, exact.standard_errors) + 1e-9  # rounding: a single state has no error
        gap = np.abs(sample.weights - exact.weights)
        apart = np.flatnonzero(gap > APART * error)
        if len(apart):
            i = int(apart[0])
            warnings.append(
                f"sampled and exact weights of state {i} differ by {gap[i] / error[i]:.1f} standard errors "
                f"({len(apart)} states in all): the sample of one of them misses a part of its basin"
            )
    return warnings


def _arrays(points: StationaryPoints) -> dict[str, Any]:
    return {
        "x": points.x, "energy": points.energy, "eigenvalues": points.eigenvalues,
        "hessian": points.hessian if points.hessian.shape[1] else None,
        "gradient_norm": points.gradient_norm,
    }  # fmt: skip


def energy_record(energy: Energy) -> dict[str, Any]:
    """What an analysis remembers of its energy; `path` is the absolute path of its file, if it has one."""
    file = source_file(energy.source)
    given = ("units", "time_unit", "time_step")
    units = {name: energy.metadata[name] for name in given if name in energy.metadata}
    return {
        "source": energy.source, "path": None if file is None else str(file.resolve()), "sha256": energy.sha256,
        "dim": energy.dim,
        "dtype": str(energy.dtype).removeprefix("torch."), "evaluations": energy.evaluations.as_dict(), **units,
        **({} if energy.symmetry is None else {"symmetry": energy.symmetry.record()}),
    }  # fmt: skip


def _diagnostics(
    energy: Energy,
    minima: MinimaResult,
    found: SaddleResult,
    sample: SampledResult | None,
    exact: ExactResult | None,
    earlier: Earlier | None,
    more: list[str],
) -> dict[str, Any]:
    warnings = [*energy.notes, *minima.warnings, *found.warnings, *more]
    if len(found.degenerate):
        warnings.append(
            f"{len(found.degenerate)} degenerate stationary points (a Hessian eigenvalue below 1e-6 of the largest): "
            "listed under other_points, without harmonic weight or rate"
        )
    rough = int((found.paths.status != Status.CONVERGED).sum())
    if rough:
        warnings.append(
            f"{rough} of {len(found.paths.status)} paths did not settle to the tolerance; "
            "saddles and rates do not depend on them"
        )
    if isinstance(energy.symmetry, ParticleSymmetry):
        warnings.append(
            "states, saddles and their weights are modulo the declared symmetry (orbit volumes and point groups are in "
            "weights of 2nd order and rates); no weights are sampled for such energies"
        )
    sampling_done = True
    if sample is not None:
        warnings += sample.warnings
        # Chains that cannot change wells are no failure of the search; positions in unknown basins are.
        sampling_done = sample.converged or (sample.weights is None and sample.unassigned <= MAX_UNASSIGNED)
    if exact is not None:
        warnings += _exact_warnings(exact, sample)
    starts = {status.name.lower(): int((minima.start_status == status).sum()) for status in Status}
    if earlier is not None:
        starts = {name: count + earlier.starts.get(name, 0) for name, count in starts.items()}
    return {
        "index_counts": {str(index): count for index, count in found.index_counts.items()},
        "morse_sum": {"value": found.morse_sum, "expected": found.expected},
        "converged": bool(minima.converged and found.complete and sampling_done),
        "warnings": warnings,
        "starts": {name: count for name, count in starts.items() if count},
        "unseen": None if minima.unseen is None else dataclasses.asdict(minima.unseen),
        "exact": None if exact is None else _exact_record(exact),
        "search_region": {"center": minima.center.tolist(), "half_width": float(minima.radius)},
        "saddle_rounds": found.rounds,
    }


def _other_points(found: SaddleResult) -> tuple[dict[str, Any], ...]:
    rows = []
    for points, kind in ((found.higher, "higher index"), (found.degenerate, "degenerate")):
        for k in range(len(points)):
            rows.append({
                "kind": kind, "index": int(points.index[k]), "x": points.x[k].tolist(),
                "energy": float(points.energy[k]),
                "hessian_eigenvalues": points.eigenvalues[k].tolist(), "gradient_norm": float(points.gradient_norm[k]),
            })  # fmt: skip
    return tuple(rows)
