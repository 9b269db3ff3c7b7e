"""`landscape sample`: draws from exp(-beta E) to a file, with the diagnostics of the chains."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.cli.labelling import energy_of, load_points
from landscape.cli.output import check_writable, interruption_told
from landscape.cli.terminal import Progress, emit
from landscape.errors import UnsupportedError, UsageError
from landscape.process import imported
from landscape.tables import GAP, MAX_ROWS, WIDTH, aligned

if TYPE_CHECKING:
    import torch

    from landscape.energy import Energy
    from landscape.sampling import Samples
    from landscape.search import Basins

NOT_CONVERGED = 3
N_STARTS = 200  # descents that look for the basins of an energy that was not analysed
CHAINS, LEAST_CHAINS, DRAWS_A_CHAIN = 32, 4, 100
FORMAT, VERSION = "learned-landscape/samples", 1


@dataclass(frozen=True)
class _Target:
    """What is sampled: the energy, beta, and its wells: minima (n, d), hessians (n, d, d), and basins."""

    energy: Energy
    beta: float
    minima: np.ndarray
    hessians: np.ndarray
    basins: Basins


def run_sample(arguments: argparse.Namespace) -> int:
    """The command, after threads have been set."""
    import torch

    from landscape.sampling import SampleOptions, sample
    from landscape.search import assign_basins

    imported()
    target = Path(arguments.output)
    check_writable(target)
    n_chains, n_draws = _counts(arguments)
    given = {name: getattr(arguments, name) for name in ("warm_up", "thin", "step_size", "hottest")}
    options = SampleOptions(
        method=arguments.method, n_draws=n_draws, **{name: value for name, value in given.items() if value is not None}
    )
    seed = _seed(arguments.seed)
    generator = torch.Generator().manual_seed(seed)
    with Progress(arguments.quiet) as progress, contextlib.redirect_stdout(sys.stderr):
        what = _target(arguments, generator, progress)
        starts = _starts(arguments.starts_from, what, n_chains, generator)
        found = sample(
            what.energy, what.beta, starts, options, generator,
            lambda x: assign_basins(what.energy, x, what.basins), len(what.minima), progress,
        )  # fmt: skip
    document = _document(found, what, seed, target)
    with interruption_told([target], f"the draws were written to {target}"):
        _save(target, found, what, seed)
        emit(json.dumps(document, allow_nan=False) if arguments.json else samples_text(document), sys.stdout)
    if not found.converged and arguments.json and not arguments.quiet:
        emit(f"landscape: note: the chains have not converged: {found.reason}", sys.stderr)
    return 0 if found.converged else NOT_CONVERGED


def _counts(arguments: argparse.Namespace) -> tuple[int, int]:
    """Chains and draws of each, so that there are at least as many draws as asked for."""
    n, chains = arguments.n, arguments.chains
    if n < 1:
        raise UsageError(f"-n is a number of draws of at least 1, not {n}")
    if chains is None:
        chains = min(CHAINS, max(LEAST_CHAINS, n // DRAWS_A_CHAIN))
    if chains < LEAST_CHAINS:
        raise UsageError(f"--chains is at least {LEAST_CHAINS}, so that they can be compared, not {chains}")
    return chains, math.ceil(n / chains)


def _seed(given: int | None) -> int:
    seed = 0 if given is None else given
    if not 0 <= seed < 2**63:
        raise UsageError(f"a seed is a whole number from 0 to 2^63 - 1, not {seed}")
    return seed


def _check_normalisable(energy: Energy) -> None:
    """UnsupportedError where exp(-beta E) has no integral."""
    from landscape.energy import ParticleSymmetry

    declared = isinstance(energy.symmetry, ParticleSymmetry) and energy.symmetry.translation
    if energy.zero_modes or declared:
        raise UnsupportedError(
            f"{energy.source} has zero modes ({energy.zero_modes or 'translation'}): exp(-beta E) cannot be "
            "normalised; hold the cluster in place, by a trap for example"
        )


def _target(arguments: argparse.Namespace, generator: torch.Generator, progress: Progress) -> _Target:
    """An analysed energy with its states, or any other with the minima that a short search finds."""
    from landscape.dynamics import from_metadata
    from landscape.energy import load_energy
    from landscape.search import MinimaSearch, find_minima, make_basins
    from landscape.store import Analysis

    if Path(arguments.energy).is_dir():
        if arguments.dim is not None:
            raise UsageError("an analysis has its dimension: leave --dim out")
        saved = Analysis.load(arguments.energy)
        energy = energy_of(saved, Path(arguments.energy), None, arguments.trust)
        _check_normalisable(energy)
        beta = saved.dynamics.beta if arguments.beta is None else arguments.beta
        hessians = energy.hessian(saved.states.x) if saved.states.hessian is None else saved.states.hessian
        basins = make_basins(energy, saved.states.x, generator, outside=saved.saddles.x)
        return _Target(energy, beta, saved.states.x, hessians, basins)
    energy = load_energy(arguments.energy, dim=arguments.dim, trust=arguments.trust)
    _check_normalisable(energy)
    beta = from_metadata({**energy.metadata, "dynamics": "overdamped"}, energy.dim, beta=arguments.beta)[0].beta
    progress("looking for basins to start in")
    found = find_minima(energy, MinimaSearch(n_starts=N_STARTS), generator=generator, progress=progress)
    wells = found.minima if len(found.minima) else found.degenerate
    return _Target(energy, beta, wells.x, wells.hessian, make_basins(energy, wells.x, generator, found.radius))


def _starts(file: str | None, what: _Target, n_chains: int, generator: torch.Generator) -> np.ndarray:
    """Thermal points around the minima, every basin as often as every other, whatever its weight; or given points.

    No start is farther from its minimum than half the way to the next.
    """
    import torch

    from landscape.sampling.independence import harmonic_covariances

    if file is not None:
        points = load_points(Path(file), what.energy.dim)
        return np.resize(points, (n_chains, points.shape[1]))
    number = np.arange(n_chains) % len(what.minima)
    factor = torch.linalg.cholesky(harmonic_covariances(torch.as_tensor(what.hessians), what.beta))[number]
    normal = torch.randn(n_chains, what.energy.dim, dtype=torch.float64, generator=generator)
    step = torch.einsum("nij,nj->ni", factor, normal)
    reach = what.basins.reach.cpu().double()[number]
    step = step * (reach / step.norm(dim=1).clamp_min(1e-300)).clamp_max(1)[:, None]
    starts = what.minima[number] + step.numpy()
    finite = np.isfinite(what.energy.value(starts)) & np.isfinite(what.energy.gradient(starts)).all(axis=1)
    return np.where(finite[:, None], starts, what.minima[number])


def _document(found: Samples, what: _Target, seed: int, target: Path) -> dict[str, Any]:
    d, c = found.diagnostics, found.crossings
    columns = ("mean", "standard_deviation", "standard_error", "r_hat", "ess_bulk", "ess_tail", "autocorrelation_time")
    rows = zip(d.names, *(getattr(d, name) for name in columns), strict=True)
    document: dict[str, Any] = {
        "format": FORMAT, "version": VERSION, "energy": what.energy.source, "dim": what.energy.dim,
        "beta": found.beta, "method": found.method, "seed": seed, "file": str(target),
        "draws": int(found.x.shape[0] * found.x.shape[1]), "chains": int(found.x.shape[1]),
        "step_size": found.step_size.tolist(), "acceptance": _plain(found.acceptance),
        "betas": found.betas.tolist(), "exchange": found.exchange.tolist(), "stopped": int(found.stopped.sum()),
        "quantities": [dict(zip(("name", *columns), map(_plain, row), strict=True)) for row in rows],
        "converged": found.converged, "reason": found.reason, "notes": list(found.notes),
    }  # fmt: skip
    if c is not None:
        home = c.label[0]
        document["basins"] = [
            {
                "id": None if label < 0 else label, "share": float(c.share[label]),
                "standard_error": float(c.standard_error[label]), "chains_begun": int((home == label).sum()),
                "chains_stayed": int((c.stayed & (home == label)).sum()),
            }
            for label in [*range(len(what.minima)), -1]
        ]  # fmt: skip
        document["crossings"], document["label_stride"] = int(c.changes.sum()), c.stride
    return document


def samples_text(document: dict[str, Any]) -> str:
    """The tables of a document: how was sampled, quantities, basins, and whether the chains converged."""
    head = [
        f"sampled     {document['energy']} at beta {document['beta']:.6g} by {document['method']}, seed "
        f"{document['seed']}: {document['draws']:,} draws of {document['chains']} chains"
    ]
    steps, exchange = document["step_size"], document["exchange"]
    facts = [f"step size {_range(steps)}"]
    if document["acceptance"] is not None:
        facts.append(f"acceptance {document['acceptance']:.3f}")
    if exchange:
        facts.append(f"{len(document['betas'])} levels down to beta {document['betas'][-1]:.4g}")
        facts.append(f"exchanges accepted {_range(exchange)}")
    head.append(f"moves       {', '.join(facts)}")
    rows = [
        [
            row["name"], f"{row['mean']:.5g} +- {row['standard_error'] or 0:.1g}", f"{row['standard_deviation']:.4g}",
            *(_short(row[name], places) for name, places in (("r_hat", 3), ("ess_bulk", 0), ("ess_tail", 0))),
            _short(row["autocorrelation_time"], 1),
        ]
        for row in document["quantities"][:MAX_ROWS]
    ]  # fmt: skip
    headers = ["quantity", "mean +- se", "sd", "R-hat", "bulk ESS", "tail ESS", "correlation time"]
    parts = ["\n".join(head), "\n".join(aligned(headers, rows, left=("quantity",)))]
    if "basins" in document:
        parts.append(_basins_text(document))
    verdict = "yes" if document["converged"] else f"no: {document['reason']}"
    lines = _labelled("converged", verdict)
    for note in document["notes"]:
        lines += _labelled("note", note)
    lines += _labelled("written", document["file"])
    return "\n\n".join([*parts, "\n".join(lines)])


def _basins_text(document: dict[str, Any]) -> str:
    rows = [
        [
            "none" if row["id"] is None else str(row["id"]), f"{row['share']:.4f} +- {row['standard_error']:.4f}",
            str(row["chains_begun"]), str(row["chains_stayed"]),
        ]
        for row in document["basins"]
        if row["id"] is not None or row["share"] > 0 or row["chains_begun"]
    ]  # fmt: skip
    title = f"basins ({document['crossings']:,} crossings seen)"
    return "\n".join([title, *aligned(["basin", "share +- se", "chains begun", "never left"], rows[:MAX_ROWS])])


def _save(target: Path, found: Samples, what: _Target, seed: int) -> None:
    """Write the archive whole or not at all."""
    from landscape.network.export import replace_files

    d, c = found.diagnostics, found.crossings
    arrays: dict[str, Any] = {
        "x": found.x, "energy": found.energy, "beta": found.beta, "method": found.method, "seed": seed,
        "source": what.energy.source, "step_size": found.step_size, "acceptance": found.acceptance,
        "stopped": found.stopped, "betas": found.betas, "exchange": found.exchange, "quantity": np.array(d.names),
        "r_hat": d.r_hat, "ess_bulk": d.ess_bulk, "ess_tail": d.ess_tail,
        "autocorrelation_time": d.autocorrelation_time, "converged": found.converged, "minima": what.minima,
    }  # fmt: skip
    if c is not None:
        arrays |= {"label": c.label, "label_stride": c.stride}
    data = io.BytesIO()
    np.savez(data, **arrays)
    replace_files({target: data.getvalue()})


def _labelled(label: str, text: str) -> list[str]:
    indent = " " * 12
    return textwrap.wrap(text, WIDTH, initial_indent=f"{label:<10}{GAP}", subsequent_indent=indent)


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _short(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:,.{places}f}"


def _plain(value: Any) -> Any:
    """A number for JSON, None where it is not finite; texts as they are."""
    if isinstance(value, str):
        return value
    return float(value) if math.isfinite(value) else None
