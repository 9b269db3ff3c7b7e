"""The paper's experiments with all seeds counted: data, training, evaluation, and its Tables 1 to 6 beside ours.

Seeds are trained in stacks of up to four, seeds 4 b to 4 b + 3 on emission draw b modulo 3, each stack in a file of its
own that training resumes. A finished stack's evaluation is written beside it and not repeated; `experiment.json` has
all stacks, as the command prints them with --json. `experiment_table` puts several experiments into one table.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from nld_models.checkpoint import SavedModel, load_model
from nld_models.config import TrainingConfig
from nld_models.errors import CheckpointError
from nld_models.evaluation import DRAWS, LAG, SeedEvaluation, evaluate
from nld_models.kinetics import rates_of
from nld_models.model import ModelConfig
from nld_models.paper_chains import experiment, sample_experiment
from nld_models.published import ACCURACY, COORDINATES, DATA_DIFFER, L1, NUMBERS, Published
from nld_models.refinement import refine_model
from nld_models.seed_groups import usable_cores
from nld_models.training import Progress, train

STACK, EMISSION_DRAWS = 4, 3
METHODS = ("exact", *(f"draws {n}" for n in DRAWS), "0th order", "2nd order")
NEGLIGIBLE = 1e-3  # of the exact basin mass: states above it are counted


@dataclass(frozen=True)
class Experiment:
    """Which experiment: number 1 or 2, noise, dynamics, seeds first_seed to first_seed + seeds - 1, and test_seed, of
    the test data, which must not have been looked at while the recipe was developed."""

    number: int
    dynamics: str = "overdamped"
    noise: str = "medium"
    seeds: int = 10
    first_seed: int = 0
    test_seed: int = 1000

    def stacks(self) -> list[range]:
        """Seeds that train together: blocks of four that share an emission draw."""
        end, parts, start = self.first_seed + self.seeds, [], self.first_seed
        while start < end:
            stop = min(end, (start // STACK + 1) * STACK)
            parts.append(range(start, stop))
            start = stop
        return parts


def run_experiment(
    what: Experiment,
    folder: Path,
    model: ModelConfig,
    training: TrainingConfig,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Train and evaluate every seed that `folder` does not hold yet; the document of all of them.

    training : its seeds and first_seed are set here. CheckpointError for a folder of another experiment.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be made: {error.strerror or error}") from None
    rows: list[dict[str, Any]] = []
    seconds, cpu = 0.0, 0.0
    for seeds in what.stacks():
        found = _stack(what, seeds, folder, model, training, report)
        rows += found["seeds"]
        seconds += found["seconds"]
        cpu += found["cpu_seconds"]
    truth = experiment(what.number).transition
    document = {
        **_settings(what, model, training), "note": DATA_DIFFER, "lag": LAG,
        "true_rates": rates_of(truth, 1.0).tolist(), "true_weights": experiment(what.number).stationary.tolist(),
        "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "seeds": rows,
    }  # fmt: skip
    _write(folder / "experiment.json", document_text(document))
    return document


def _settings(what: Experiment, model: ModelConfig, training: TrainingConfig) -> dict[str, Any]:
    """What every stack of one experiment has in common, as plain data."""
    common = {name: value for name, value in asdict(training).items() if name not in ("seeds", "first_seed")}
    return {
        "experiment": what.number, "dynamics": what.dynamics, "noise": what.noise, "test_seed": what.test_seed,
        "model": plain(model.as_dict()), "training": common,
    }  # fmt: skip


def _stack(
    what: Experiment,
    seeds: range,
    folder: Path,
    model: ModelConfig,
    training: TrainingConfig,
    report: Callable[[str], None],
) -> dict[str, Any]:
    name = f"seeds_{seeds[0]}_to_{seeds[-1]}"
    result, path = folder / f"{name}.json", folder / f"{name}.safetensors"
    key = _settings(what, model, training)
    if result.exists():
        return _finished(result, key)
    began, began_cpu = time.monotonic(), time.process_time()
    emission = seeds[0] // STACK % EMISSION_DRAWS
    chain = experiment(what.number, what.noise, emission)
    data = sample_experiment(chain, what.number, "train", seeds[0] // STACK).standardise()
    config = replace(training, seeds=len(seeds), first_seed=seeds[0])

    def show(now: Progress) -> None:
        if now.iteration % 50 == 0:
            report(f"seeds {seeds[0]} to {seeds[-1]}: step {now.iteration} of {now.iterations}")

    cores = usable_cores()
    saved, trained = train(data, model, config, path=path, resume=path.exists(), progress=show, threads=cores)
    if model.prior != "nsde":  # which has no energy to refine
        saved, _ = refine_model(saved, data, path=path, progress=report, processes=cores)
    test = sample_experiment(chain, what.number, "test", what.test_seed)
    rows = evaluate(load_model(path), test, chain.transition, progress=report)
    stopped = {entry.seed: asdict(entry) for entry in trained.stopped}
    refinement = {entry["seed"]: entry for entry in saved.document.get("refinement", [])}
    seconds = time.monotonic() - began
    found = {
        "settings": key,
        "seconds": seconds,
        "cpu_seconds": time.process_time() - began_cpu,
        "seeds": [
            plain(_record(row) | {
                "emission": emission, "seconds": seconds / len(seeds), "steps": trained.curves["loss"].shape[1],
                "finite": bool(_finite(saved)[k]), "stopped": stopped.get(row.seed),
                "resolution": trained.resolution[k], "refinement": refinement.get(row.seed),
            })
            for k, row in enumerate(rows)
        ],
    }  # fmt: skip
    _write(result, json.dumps(found, allow_nan=False))
    return found


def _finished(result: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """A stack that was evaluated before. CheckpointError if it is of other settings."""
    try:
        found = dict(json.loads(result.read_text()))
        stored = dict(found["settings"])
        _ = found["seeds"], found["seconds"], found["cpu_seconds"]
    except (ValueError, KeyError, TypeError, OSError):
        raise CheckpointError(f"{result} is damaged; delete it, and its seeds are evaluated again") from None
    for name, here in key.items():
        if stored.get(name) != here:
            raise CheckpointError(
                f"{result.parent} holds another experiment: {name} was {stored.get(name)!r} there and is {here!r} now; "
                "choose another folder"
            )
    return found


def _finite(saved: SavedModel) -> np.ndarray:
    """Whether every parameter of each seed is a finite number, (S,) bool."""
    parts = [p.detach().reshape(len(p), -1).isfinite().all(1) for p in saved.model.parameters()]
    return np.logical_and.reduce([part.numpy() for part in parts])


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from None


def document_text(document: Mapping[str, Any]) -> str:
    """The document as JSON with a line for each entry and for each seed."""
    entries = [f"{json.dumps(name)}: {json.dumps(document[name], allow_nan=False)}" for name in document]
    seeds = ",\n".join(json.dumps(row, allow_nan=False) for row in document["seeds"])
    entries[list(document).index("seeds")] = f'"seeds": [\n{seeds}\n]'
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _record(row: SeedEvaluation) -> dict[str, Any]:
    return {f.name: getattr(row, f.name) for f in fields(row)}


def plain(value: Any) -> Any:
    """Plain JSON data; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def experiment_text(document: Mapping[str, Any]) -> str:
    """The paper's three tables of this experiment, the rates table that the paper does not have, and every seed."""
    number, dynamics, rows = document["experiment"], document["dynamics"], document["seeds"]
    names = NUMBERS[number]
    lines = [
        f"experiment {number}, {variant(document)}, {len(rows)} seeds, none left out; "
        f"{document['seconds']:.0f} s, {document['cpu_seconds']:.0f} s of CPU time",
        f"note: {document['note']}",
        "",
        f"Table {names[0]}: l1 distance of the weights to {_vector(document['true_weights'])}",
    ]
    published = L1.get((number, dynamics), {})
    for method in METHODS:
        ours = [row["l1"][method] for row in rows]
        lines.append(f"  {method:<14} {_spread(ours, 4):>20}   published {_printed(published.get(method), 3)}")
    lines += ["", f"Table {names[1]}: the weights, in the order of the true states"]
    printed = COORDINATES.get((number, dynamics), {})
    for method in METHODS:
        whole = [row["weights"][method] for row in rows if len(row["weights"][method]) == 3]
        cells = "  ".join(_spread([w[k] for w in whole], 3) for k in range(3)) if whole else "-"
        theirs = "  ".join(_printed(entry, 3) for entry in printed.get(method, ())) or "-"
        lines.append(f"  {method:<14} {cells}   published {theirs}")
    mean, spread = ACCURACY.get((number, dynamics), (None, None))
    lines += [
        "",
        f"Table {names[2]}: accuracy of the segmentation, %",
        f"  posterior mean    {_spread([row['accuracy'] for row in rows], 2, 100):>16}   "
        f"published {_printed(mean, 1, 100)}",
        f"  posterior sample  {_spread([row['sample_accuracy'] for row in rows], 2, 100):>16}   published -",
        f"  over sequences    {_spread([row['accuracy_sd'] for row in rows], 2, 100):>16}   "
        f"published {_printed(spread, 1, 100)}",
        "",
        *_rate_lines(document),
        "",
        *_seed_lines(rows),
    ]
    return "\n".join(lines)


def variant(document: Mapping[str, Any]) -> str:
    """Dynamics, objective, noise, latent dimension and energy network of an experiment, in words."""
    model = document["model"]
    energy = "no energy" if document["dynamics"] == "nsde" else f"energy {model['architecture']}"
    objective = "" if model["objective"] == "matching" else f" ({model['objective']})"
    return f"{document['dynamics']}{objective}, noise {document['noise']}, d = {model['latent_dim']}, {energy}"


def _rate_lines(document: Mapping[str, Any]) -> list[str]:
    """Simulated and Langer's rates over the chain's, entry by entry."""
    truth = np.array(document["true_rates"])
    rows = [row for row in document["seeds"] if row["n_states"] == len(truth)]
    lines = [f"Rates over the chain's Q = log P: simulated, log(T({LAG}))/{LAG}, at dt/2 and dt; Langer's formula"]
    for i, j in zip(*np.nonzero(~np.eye(len(truth), dtype=bool)), strict=True):
        cells = [
            _spread([_over(row[name][i][j], truth[i, j]) for row in rows], 2)
            for name in ("rates", "coarse_rates", "langer")
        ]
        lines.append(f"  {i} -> {j}  {truth[i, j]:.4f}   " + "   ".join(f"{cell:>14}" for cell in cells))
    return lines


def _over(value: float | None, truth: float) -> float | None:
    return None if value is None else value / truth


def _seed_lines(rows: list[dict[str, Any]]) -> list[str]:
    heads = (
        ("seed", 4),
        ("draw", 4),
        ("states", 6),
        ("accuracy", 8),
        ("l1", 7),
        ("2nd l1", 7),
        ("ratio", 6),
        ("worst", 6),
    )
    lines = [" ".join(f"{head:>{width}}" for head, width in heads) + " saddles"]
    for row in rows:
        states = counted_states(row)
        cells = " ".join(
            f"{_plain_number(value, digits):>{width}}"
            for value, digits, width in (
                (None if row["accuracy"] is None else 100 * row["accuracy"], 2, 8), (row["l1"]["exact"], 4, 7),
                (row["l1"]["2nd order"], 4, 7), (row["rate_ratio"], 3, 6), (row["worst_rate"], 3, 6),
            )
        )  # fmt: skip
        saddles = " ".join(f"{a}-{b}" for a, b in row["saddles"])
        note = f"  stopped: {row['stopped']['reason']}" if row["stopped"] else ""
        lines.append(f"{row['seed']:>4} {row['emission']:>4} {states:>6} {cells} {saddles}{note}")
    lines.append(
        f"states: with an exact basin mass above {NEGLIGIBLE:g} (a free drift: a share of the draws); worst: the rate "
        "farthest from the chain's"
    )
    return lines


def counted_states(row: Mapping[str, Any]) -> int:
    """States of a seed with more than a negligible weight: exact basin mass, or, where there is none, draws."""
    exact = row["weights"]["exact"]
    weights = exact if any(w is not None for w in exact) else row["weights"][f"draws {max(DRAWS)}"]
    return sum(1 for w in weights if w is not None and w > NEGLIGIBLE)


def _spread(values: list[float | None], digits: int, factor: float = 1) -> str:
    numbers = factor * np.array([value for value in values if value is not None])
    return f"{numbers.mean():.{digits}f} +- {numbers.std():.{digits}f}" if len(numbers) else "-"


def _printed(value: Published | None, digits: int, factor: float = 1) -> str:
    return "-" if value is None else f"{factor * value.mean:.{digits}f} +- {factor * value.spread:.{digits}f}"


def _plain_number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _vector(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"
