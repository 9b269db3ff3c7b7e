"""What the commands of `nld` that need a model do: arguments in, a document and a text out; no numerics."""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
import time
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from landscape.errors import UsageError
from nld_models.checkpoint import SavedModel, load_model, read_file
from nld_models.config import TrainingConfig, complete, read_config
from nld_models.data import DataError
from nld_models.errors import CheckpointError
from nld_models.model_config import ModelConfig
from nld_models.seed_groups import usable_cores
from nld_models.sequence_files import load_sequences
from nld_models.training import Progress, Stopped, train

if TYPE_CHECKING:
    from nld_models.evaluation import SeedEvaluation

Answer = tuple[dict[str, Any], str]
LAST = 20  # steps averaged for a loss at the end


def run_train(arguments: argparse.Namespace) -> Answer:
    path: Path = arguments.output
    if path.exists() and not (arguments.resume or arguments.force):
        raise UsageError(f"{path} exists; go on from it with --resume, or replace it with --force")
    if arguments.resume and arguments.force:
        raise UsageError("--resume goes on from the file that --force replaces; give one of them")
    model, training = _settings(arguments)
    data = load_sequences(arguments.data, "mask").standardise()
    every = max(10, training.iterations // 200 * 10)

    def show(now: Progress) -> None:
        if now.iteration % every == 0 or now.iteration == now.iterations:
            loss = " ".join(f"{value:.3f}" for value in now.loss)
            _say(f"step {now.iteration} of {now.iterations}, loss {loss}, {_duration(now.seconds_left)} left")

    # torch's own threads cost more than they bring at these sizes, and results depend on their number.
    torch.set_num_threads(1)
    cores = usable_cores()
    saved, result = train(data, model, training, path=path, resume=arguments.resume, progress=show, threads=cores)
    from nld_models.refinement import refine_model

    began = time.monotonic()
    if model.prior != "nsde":  # which has no energy to refine
        saved, _ = refine_model(saved, data, path=path, progress=_say, processes=cores)
    refining = time.monotonic() - began
    rows = [
        {"seed": int(seed), **{name: _last(curve[k]) for name, curve in result.curves.items()}}
        for k, seed in enumerate(result.seeds)
    ]
    document = {
        "file": str(path),
        "data": arguments.data,
        "iterations": training.iterations,
        "seconds": round(result.seconds + refining, 2),
        "seeds": rows,
        "stopped": [{f.name: getattr(entry, f.name) for f in fields(Stopped)} for entry in result.stopped],
        "refinement": saved.document.get("refinement", []),
        **{name: saved.document[name] for name in ("time_step", "resolution", "resolved")},
    }
    table = [f"{'seed':>5} {'loss':>9} {'reconstr.':>10} {'path KL':>9} {'D':>7}   (nats a frame, mean of last {LAST})"]
    for row in rows:
        numbers = [row[name] for name in ("loss", "reconstruction", "path_kl", "diffusion_coefficient")]
        table.append("{:>5} {:9} {:10} {:9} {:7}".format(row["seed"], *(_number(value, 4) for value in numbers)))
    for entry in result.stopped:
        table.append(
            f"seed {entry.seed} stopped at step {entry.iteration} ({entry.reason}) and was rolled back to step "
            f"{entry.rolled_back_to}; train it again with a lower learning_rate or another seed"
        )
    for seed, resolution in zip(result.seeds[~result.resolved], result.resolution[~result.resolved], strict=True):
        table.append(
            f"seed {seed}: time step times fastest rate is {_number(resolution, 2)}, so that its rates are not "
            "meaningful; train with more substeps"
        )
    for entry in document["refinement"]:
        table.append(f"seed {entry['seed']}: {entry['outcome']}, {entry['rounds']} rounds, lag {entry['lag']} frames")
    done = f"{training.seeds} seeds, {training.iterations} steps in {_duration(result.seconds + refining)}"
    return document, "\n".join([done, *table, f"written to {path}"])


def run_export(arguments: argparse.Namespace) -> Answer:
    from nld_models.landscape_adapter import export_energy

    _check_output(arguments)
    saved = _load(arguments.model)
    written = export_energy(saved.model, arguments.output, arguments.seed_index)
    seed = saved.model.seeds[arguments.seed_index]
    document = {"model": str(arguments.model), "seed": seed, "file": str(written)}
    return document, f"energy of seed {seed} written to {written}; next: landscape analyze {written}"


def run_evaluate(arguments: argparse.Namespace) -> Answer:
    from nld_models.evaluation import LAG, evaluate
    from nld_models.experiment import plain

    if arguments.paths < 1:
        raise UsageError("--paths is a whole number of at least 1, not 0")
    torch.set_num_threads(1)
    saved = _load(arguments.model)
    data = load_sequences(arguments.data, "mask")
    transition = _true_transition(Path(arguments.data))
    results = evaluate(saved, data, transition, n_paths=arguments.paths, progress=_say)
    document = {
        "model": str(arguments.model),
        "data": arguments.data,
        "true_transition": None if transition is None else transition.tolist(),
        "lag": LAG,
        "seeds": [plain({f.name: getattr(row, f.name) for f in fields(row)}) for row in results],
    }
    text = _evaluation_text(results, data.labels is not None, transition is not None)
    resolved = saved.document.get("resolved") or []
    coarse = [str(seed) for seed, fine in zip(saved.model.seeds, resolved, strict=False) if not fine]
    if coarse:
        text += f"\nseeds {', '.join(coarse)} were trained with a time step too long for their energy"
    return document, text


def run_segment(arguments: argparse.Namespace) -> Answer:
    from nld_models.evaluation import segment, states_of

    _check_output(arguments)
    if arguments.output.suffix != ".npy":
        raise UsageError(f"labels are written as .npy, got {arguments.output}")
    torch.set_num_threads(1)
    saved = _load(arguments.model)
    data = load_sequences(arguments.data, "mask")
    states = states_of(saved.model, _seed_index(saved, arguments.seed_index))
    labels = segment(saved, states, data, arguments.seed_index)
    content = io.BytesIO()
    np.save(content, labels)
    _replace(arguments.output, content.getvalue())
    frames = labels[data.frames]
    counts = {str(k): int((frames == k).sum()) for k in range(states.n_states)}
    document = {
        "model": str(arguments.model), "data": arguments.data, "seed": saved.model.seeds[arguments.seed_index],
        "n_states": states.n_states, "frames": counts, "unassigned": int((frames < 0).sum()),
        "file": str(arguments.output),
    }  # fmt: skip
    shares = ", ".join(f"{k}: {100 * count / len(frames):.1f} %" for k, count in counts.items())
    text = f"{states.n_states} states, lowest energy first; frames {shares}; unassigned {document['unassigned']}"
    return document, f"{text}\n-1 marks frames beyond a sequence's end; written to {arguments.output}"


def run_experiment_command(arguments: argparse.Namespace) -> Answer:
    from nld_models.experiment import Experiment, experiment_text, run_experiment

    if arguments.seeds < 1:
        raise UsageError("--seeds is a whole number of at least 1, not 0")
    what = Experiment(
        arguments.number, arguments.dynamics, arguments.noise, arguments.seeds, arguments.first_seed,
        arguments.test_seed,
    )  # fmt: skip
    torch.set_num_threads(1)
    given = {"model": {}, "training": {}} if arguments.config is None else read_config(arguments.config)
    given["model"]["prior"] = arguments.dynamics
    parts = [f"experiment-{what.number}", what.dynamics, what.noise]
    if arguments.latent_dim is not None:
        given["model"]["latent_dim"] = arguments.latent_dim
        parts.append(f"d{arguments.latent_dim}")
    if arguments.energy is not None:
        given["model"]["architecture"] = arguments.energy
        parts.append(arguments.energy)
    folder = arguments.output or Path("-".join(parts))
    model = ModelConfig(**given["model"])
    document = run_experiment(what, folder, model, complete(model, given["training"]), _say)
    return document, experiment_text(document)


def run_simulate(arguments: argparse.Namespace) -> Answer:
    from nld_models.sequence_files import save_sequences
    from nld_models.simulation import simulate_observations

    _check_output(arguments)
    if arguments.sequences < 1 or arguments.length < 1:
        raise UsageError("--sequences and --length are whole numbers of at least 1")
    torch.set_num_threads(1)
    saved = _load(arguments.model)
    index = _seed_index(saved, arguments.seed_index)
    data = simulate_observations(saved, index, arguments.sequences, arguments.length, arguments.seed)
    save_sequences(arguments.output, data)
    document = {
        "model": str(arguments.model), "seed": saved.model.seeds[index], "sequences": arguments.sequences,
        "length": arguments.length, "file": str(arguments.output),
    }  # fmt: skip
    text = f"{arguments.sequences} sequences of {arguments.length} frames, labelled by state, in {arguments.output}"
    return document, text


def run_plot(arguments: argparse.Namespace) -> Answer:
    from nld_models.plots.gallery import PICTURES, ModelScene, draw_pictures

    output, every = arguments.output, arguments.what == "all"
    form = _plot_format(output, arguments.format, every)
    for path in [output / f"{name}.{form}" for name in PICTURES] if every else [output]:
        if path.exists() and not arguments.force:
            raise UsageError(f"{path} exists; give another place with -o, or replace it with --force")
    if not every and not output.parent.is_dir():
        raise UsageError(f"{output} cannot be written: there is no folder {output.parent}")
    if arguments.sequence is not None and arguments.data is None:
        raise UsageError("--sequence is of sequences: give DATA after MODEL")
    torch.set_num_threads(1)
    saved = _load(arguments.model)
    index = _seed_index(saved, arguments.seed_index)
    data = None if arguments.data is None else load_sequences(arguments.data, "mask")
    scene = ModelScene(arguments.model, saved, data, index, arguments.sequence, _say)
    what = arguments.what or ("curves" if data is None else "segmentation")
    drawn, left_out = draw_pictures(scene, None if every else what, form)
    files = {output / f"{name}.{form}" if every else output: picture for name, picture in drawn.items()}
    if every:
        _make_folder(output)
    for path, (_, content) in files.items():
        _replace(path, content)
    document = {
        "model": str(arguments.model), "data": arguments.data, "seed": saved.model.seeds[index],
        "pictures": [{"file": str(path), "text": text} for path, (text, _) in files.items()], "left_out": left_out,
    }  # fmt: skip
    lines = [f"written: {path}\n    {text}" for path, (text, _) in files.items()]
    return document, "\n".join([*lines, *(f"left out: {name}: {reason}" for name, reason in left_out.items())])


def _plot_format(output: Path, asked: str | None, every: bool) -> str:
    """png, svg or pdf. UsageError for a file where a folder is needed, and the other way round."""
    suffix = output.suffix.removeprefix(".").lower()
    known = suffix in ("png", "svg", "pdf")
    if every:
        if output.is_file() or (known and not output.is_dir()):
            raise UsageError(f"--what all writes to a folder, not to the file {output}: give -o FOLDER")
        return asked or "png"
    if not known or output.is_dir():
        raise UsageError(f"a picture is written as FILE.png, FILE.svg or FILE.pdf, not {str(output)!r}")
    if asked not in (None, suffix):
        raise UsageError(f"--format {asked} does not fit the file {output}: leave it out")
    return suffix


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made: {error.strerror or error}") from None


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. UsageError if that fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None


def _settings(arguments: argparse.Namespace) -> tuple[ModelConfig, TrainingConfig]:
    """Defaults, or a checkpoint's settings when resuming; then the config file; then the flags."""
    given: dict[str, dict[str, Any]] = {"model": {}, "training": {}}
    if arguments.resume:
        document = read_file(arguments.output)[1]
        given = {name: dict(document.get(name, {})) for name in given}
    if arguments.config is not None:
        for name, table in read_config(arguments.config).items():
            given[name] |= table
    if getattr(arguments, "model", None) is not None:
        given["model"]["prior"] = arguments.model
    flags = {"model": ("latent_dim",), "training": ("seeds", "first_seed", "iterations")}
    for name, names in flags.items():
        given[name] |= {flag: getattr(arguments, flag) for flag in names if getattr(arguments, flag) is not None}
    try:
        model = ModelConfig(**given["model"])
        return model, complete(model, given["training"])
    except TypeError as error:  # names in a config file have been checked, those in a model file not
        raise CheckpointError(f"{arguments.output} is a damaged model file: {error}") from None


def _load(path: Path) -> SavedModel:
    saved = load_model(path)
    if not saved.finished:
        done, total = saved.document["iteration"], saved.document["training"]["iterations"]
        _say(f"{path} is a checkpoint, at step {done} of {total}")
    return saved


def _seed_index(saved: SavedModel, index: int) -> int:
    if index >= len(saved.model.seeds):
        raise UsageError(f"--seed-index is from 0 to {len(saved.model.seeds) - 1} for this model, got {index}")
    return index


def _check_output(arguments: argparse.Namespace) -> None:
    if arguments.output.exists() and not arguments.force:
        raise UsageError(f"{arguments.output} exists; name another file, or replace it with --force")
    if not arguments.output.parent.is_dir():
        raise UsageError(f"{arguments.output} cannot be written: there is no folder {arguments.output.parent}")


def _true_transition(path: Path) -> np.ndarray | None:
    """The chain's matrix that `nld data` writes beside its sequences; None in any other file."""
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return None
    with np.load(path, allow_pickle=False) as archive:
        if "transition" not in archive.files:
            return None
        matrix = np.asarray(archive["transition"], dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix.sum(1), 1):
        raise DataError(f"{path}: transition must be a square matrix whose rows sum to 1, got shape {matrix.shape}")
    return matrix


def _evaluation_text(results: tuple[SeedEvaluation, ...], labelled: bool, known: bool) -> str:
    from nld_models.evaluation import LAG

    methods = ("exact", "2nd order")
    heads = " ".join(f"{head:>6}" for head in ("l1", "2nd l1", "ratio", "error", "worst"))
    lines = [f"{'seed':>5} {'states':>6} {'accuracy %':>15} {'sample %':>8} {heads}  weights (exact)"]
    for row in results:
        accuracy = f"{_number(100 * row.accuracy, 2)} +- {_number(100 * row.accuracy_sd, 2)}"
        numbers = [*(row.l1[name] for name in methods), row.rate_ratio, row.rate_error, row.worst_rate]
        cells = " ".join(f"{_number(value, digits):>6}" for value, digits in zip(numbers, (4, 4, 2, 2, 2), strict=True))
        weights = " ".join(_number(value, 3) for value in row.weights["exact"])
        sample = _number(100 * row.sample_accuracy, 2)
        lines.append(f"{row.seed:>5} {row.n_states:>6} {accuracy:>15} {sample:>8} {cells}  {weights}")
    lines.append(
        "sample: accuracy of one posterior sample a frame; l1: sum over states of |weight - truth|, exact basin mass "
        f"and 2nd order; ratio, error, worst: simulated rates log(T({LAG}))/{LAG} over the chain's log P, geometric "
        "mean, mean |ratio - 1|, farthest from 1"
    )
    if not labelled:
        lines.append("no accuracy: these data have no labels")
    if not known:
        lines.append("no l1 and no comparison of rates: this file does not hold the true chain (`transition`)")
    return "\n".join(lines)


def _last(curve: np.ndarray) -> float | None:
    values = curve[-LAST:]
    return float(values.mean()) if len(values) and np.isfinite(values).all() else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
