"""`analyze`: an energy in, an `Analysis` out. Calls search, sampling and formulas in order; no numerics of its own."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import torch

from landscape.checks import CheckOptions, Subject, run_checks
from landscape.dynamics import Dynamics, from_metadata
from landscape.energy import Energy, as_energy
from landscape.errors import UnsupportedError, UsageError
from landscape.search import (
    Basins,
    Catalogue,
    MinimaResult,
    MinimaSearch,
    SaddleResult,
    SaddleSearch,
    StringOptions,
    assign_basins,
    find_minima,
    find_saddles,
    make_basins,
)
from landscape.search.driver import Status
from landscape.search.starts import Box, Gaussian
from landscape.search.stationary import StationaryPoints
from landscape.store import Analysis, Exact, Saddles, Sampled, SavedPaths, States, source_file
from landscape.weights import (
    MAX_UNASSIGNED,
    ExactResult,
    ExactWeights,
    SampledResult,
    SampledWeights,
    exact_weights,
    lowest_saddles,
    sample_weights,
    sublevel_basins,
)

Progress = Callable[[str], None]
SECTIONS = ("minima", "saddles", "paths", "weights", "exact")
APART = 5.0  # standard errors between sampled and exact weights that chance does not explain


@dataclass(frozen=True)
class AnalysisConfig:
    """Hyper-parameters of every step of `analyze`; the defaults are meant to be right for any energy.

    seed : of all randomness. minima, saddles, paths, weights, exact : of the steps; weights=None skips the sampled
    weights, exact=None those by importance sampling.
    """

    seed: int = 0
    minima: MinimaSearch = field(default_factory=MinimaSearch)
    saddles: SaddleSearch = field(default_factory=SaddleSearch)
    paths: StringOptions = field(default_factory=StringOptions)
    weights: SampledWeights | None = field(default_factory=SampledWeights)
    exact: ExactWeights | None = field(default_factory=ExactWeights)

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**63:
            raise UsageError(f"a seed is a whole number from 0 to 2^63 - 1, not {self.seed!r}")

    @staticmethod
    def from_toml(path: str | Path) -> AnalysisConfig:
        """Read a TOML file: `seed`, and tables [minima], [saddles], [paths], [weights], [exact] of the fields above.

        [minima.descent], [saddles.walk] and [saddles.flow] are the options of the local methods. [minima.box] low,
        high or [minima.gaussian] mean, standard_deviation give the starts, and so does [minima.starts] with either
        pair, which is how a saved analysis records them. `weights = false` and `exact = false` skip these.
        UsageError for a file that cannot be read, an unknown name or a wrong value.
        """
        try:
            with open(path, "rb") as file:
                given = tomllib.load(file)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"the config {path} cannot be read as TOML: {error}") from error
        return _config(given, str(path))


def _config(given: Mapping[str, Any], source: str) -> AnalysisConfig:
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name == "seed" or (name in ("weights", "exact") and value is False):
            fields[name] = None if value is False else value
        elif name in SECTIONS and not isinstance(value, Mapping):
            raise UsageError(f"{source}: {name} is a table [{name}], not {value!r}")
        elif name not in SECTIONS:
            raise UsageError(f"{source}: unknown entry {name!r}; known: seed and the tables {', '.join(SECTIONS)}")
    kinds: dict[str, Any] = {
        "minima": MinimaSearch,
        "saddles": SaddleSearch,
        "paths": StringOptions,
        "weights": SampledWeights,
        "exact": ExactWeights,
    }
    for name, kind in kinds.items():
        if name in given and name not in fields:
            fields[name] = _section(kind, dict(given[name]), source, name)
    return AnalysisConfig(**fields)


def _section(kind: Any, given: dict[str, Any], source: str, table: str) -> Any:
    if kind is not MinimaSearch:
        return _build(kind, given, source, table)
    starts = [key for key in ("starts", "box", "gaussian") if key in given]
    if len(starts) > 1:
        raise UsageError(f"{source}: [{table}] takes one way to start, not both {' and '.join(starts)}")
    for key in starts:
        inner = given.pop(key)
        if not isinstance(inner, Mapping):
            raise UsageError(f"{source}: {key} is given as a table [minima.box] or [minima.gaussian], not {inner!r}")
        if key == "starts" and not inner.keys() & {"low", "high", "mean", "standard_deviation"}:
            raise UsageError(
                f"{source}: [{table}.starts] has low and high, or mean and standard_deviation, not {sorted(inner)}; "
                "start points themselves are given by --starts-from"
            )
        box = key == "box" or (key == "starts" and inner.keys() & {"low", "high"})
        given["starts"] = _build(Box if box else Gaussian, inner, source, f"{table}.{key}")
    built = _build(kind, {name: value for name, value in given.items() if name != "starts"}, source, table)
    return dataclasses.replace(built, starts=given["starts"]) if starts else built


def _build(kind: Any, given: Mapping[str, Any], source: str, table: str) -> Any:
    """The dataclass `kind` with the fields of a table; fields that are dataclasses are tables inside it.

    UsageError for an unknown name, a value of another type or against a rule.
    """
    hints = get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"{source}: [{table}] has no {name!r}; known: {', '.join(known)}")
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise UsageError(f"{source}: {name} is given as a table [{table}.{name}], not {value!r}")
            fields[name] = _build(hint, value, source, f"{table}.{name}")
            continue
        fields[name] = tuple(value) if isinstance(value, list) else value
        if not _fits(fields[name], hint):
            raise UsageError(f"{source}: [{table}] {name} is {_in_words(hint)}, not {value!r}")
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{source}: [{table}] is incomplete or does not fit together: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(part, get_args(hint)[0]) for part in value)
    kinds = (int, float) if hint is float else hint
    return isinstance(value, kinds) and not isinstance(value, bool)


def _in_words(hint: Any) -> str:
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    names = {int: "a whole number", float: "a number", NoneType: "left out"}
    return " or ".join("a list of numbers" if get_origin(part) is tuple else names[part] for part in parts)


def analyze(
    energy: Energy | Callable[[torch.Tensor], torch.Tensor],
    dynamics: Dynamics | None = None,
    config: AnalysisConfig | None = None,
    *,
    dim: int | None = None,
    origins: Mapping[str, str] | None = None,
    time_step: float | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """States, saddles, paths, rates, weights and network of an energy.

    energy : an `Energy`, or any torch callable (n, d) -> (n,); dim is needed where the callable has no `dim`.
    dynamics : by default from the energy's metadata, else overdamped with beta = gamma = 1.
    time_step : of your simulations, kept on record and held against the curvature; by default from the metadata.
    progress : called with texts.

    Raises EnergyError for an unusable energy or one without a minimum, UnsupportedError for one with zero modes.
    A search that did not converge says so in `diagnostics`.
    """
    energy = as_energy(energy, dim=dim)
    config = config or AnalysisConfig()
    report = progress or (lambda text: None)
    if energy.zero_modes:
        raise UnsupportedError(
            f"{energy.source} has zero modes ({energy.zero_modes}): determinants and merging would be wrong; "
            "energies with continuous symmetries are not supported yet"
        )
    if dynamics is None:
        dynamics, origins = from_metadata(energy.metadata, energy.dim)
    dynamics.gamma_vector(energy.dim), dynamics.mass_vector(energy.dim)  # lengths fit, before the search is paid for
    generator = torch.Generator().manual_seed(config.seed)
    catalogue = Catalogue(energy)
    minima = find_minima(energy, config.minima, generator=generator, catalogue=catalogue, progress=report)
    found = find_saddles(
        energy, minima, config.saddles, paths=config.paths, generator=generator, catalogue=catalogue, progress=report
    )
    sampled, sample, exact = None, None, None
    if config.weights is not None or config.exact is not None:
        basins = make_basins(energy, found.minima.x, generator)
    if config.weights is not None:
        sample = _sample(energy, found, basins, dynamics.beta, config.weights, generator, report)
        sampled = _sampled(sample, found)
    if config.exact is not None:
        exact = exact_weights(
            energy, found.minima.x, found.minima.hessian, dynamics.beta,
            lambda points: assign_basins(energy, points, basins), config.exact, generator, report,
        )  # fmt: skip
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
        sampled=sampled,
        exact=_exact(exact),
        diagnostics=_diagnostics(energy, minima, found, sample, exact),
        other_points=_other_points(found),
        origins=dict(origins or {}),
        config=_plain(dataclasses.asdict(config)),
    )  # fmt: skip


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
    options = options or CheckOptions()
    if options.time_step is None:
        options = dataclasses.replace(options, time_step=analysis.energy.get("time_step"))
    saddles, paths = analysis.saddles, analysis.paths
    subject = Subject(
        analysis.network, analysis.rates, analysis.states.eigenvalues, saddles.x, saddles.eigenvalues,
        saddles.hessian, paths.saddle, paths.images,
    )  # fmt: skip
    energy = as_energy(energy, dim=analysis.dim)
    checks = run_checks(energy, analysis.dynamics, subject, options, progress)
    record = {**analysis.energy, **({} if options.time_step is None else {"time_step": options.time_step})}
    return dataclasses.replace(analysis, energy=record, checks=checks)


def _sample(
    energy: Energy,
    found: SaddleResult,
    basins: Basins,
    beta: float,
    config: SampledWeights,
    generator: torch.Generator,
    report: Progress,
) -> SampledResult:
    return sample_weights(
        energy, found.minima.x, found.minima.hessian, beta, lambda points: assign_basins(energy, points, basins),
        config, generator, report,
    )  # fmt: skip


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
        "x": points.x, "energy": points.energy, "eigenvalues": points.eigenvalues, "hessian": points.hessian,
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
    }  # fmt: skip


def _diagnostics(
    energy: Energy,
    minima: MinimaResult,
    found: SaddleResult,
    sample: SampledResult | None,
    exact: ExactResult | None,
) -> dict[str, Any]:
    warnings = [*energy.notes, *minima.warnings, *found.warnings]
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
    sampling_done = True
    if sample is not None:
        warnings += sample.warnings
        # Chains that cannot change wells are no failure of the search; positions in unknown basins are.
        sampling_done = sample.converged or (sample.weights is None and sample.unassigned <= MAX_UNASSIGNED)
    if exact is not None:
        warnings += _exact_warnings(exact, sample)
    starts = {status.name.lower(): int((minima.start_status == status).sum()) for status in Status}
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


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape)}  # given starts are data, not a parameter
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
