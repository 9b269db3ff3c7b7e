"""The command `nld`: arguments in, tables out; no numerics. Heavy imports wait until a command runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from landscape import __version__
from landscape.errors import LandscapeError, UsageError
from landscape.process import alone, imported

if TYPE_CHECKING:
    from nld_models.data import SequenceData

DATA_EPILOG = """\
files:
  .npy   one array (sequences, time, channels); shorter sequences end in NaN frames
  .npz   that array as `sequences`, with `lengths` and `labels` if there are any,
         or one array (time, channels) a sequence: numpy.savez(file, *sequences)
  .csv   one frame a row; columns `sequence`, `time` and `label` are understood, all others are channels

examples:
  nld data 1 --noise hard -o train.npz
  nld data 2 --split test --seed 7 -o test.npz
  nld data recordings.csv
"""
TRAIN_EPILOG = """\
A checkpoint is written to MODEL every 50 steps. After an interruption, `nld train DATA -o MODEL --resume` goes on
where it was. The config has the tables [model] and [training], for example:

  [model]
  latent_dim = 3
  [training]
  learning_rate = 0.003

example:
  nld data 1 -o train.npz && nld train train.npz -o model.safetensors --seeds 4
"""
# Flags that make no sense when a file is described.
OTHERS = ("triple-well", "spirals")
MAKING = ("noise", "split", "seed", "emission_seed", "sequences", "length", "output")


def command() -> int:
    """The program `nld`."""
    return alone(main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 failed, 2 bad usage or data, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        document, text = _run(arguments)
    except LandscapeError as error:
        print(f"nld {arguments.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        hints = {"train": "; go on with --resume", "experiment": "; the same command goes on where it was"}
        hint = hints.get(arguments.command, "")
        print(f"nld {arguments.command}: interrupted{hint}", file=sys.stderr)
        return 130
    except MemoryError as error:
        print(f"nld {arguments.command}: not enough memory ({error}); ask for less", file=sys.stderr)
        return 1
    print(json.dumps(document, indent=1, allow_nan=False) if arguments.json else text)
    return 0


def _run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    if arguments.command == "data":
        return _data(arguments)
    from nld_models import commands

    run = {
        "train": commands.run_train,
        "export": commands.run_export,
        "evaluate": commands.run_evaluate,
        "segment": commands.run_segment,
        "simulate": commands.run_simulate,
        "experiment": commands.run_experiment_command,
        "plot": commands.run_plot,
    }
    imported()
    return run[arguments.command](arguments)


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="nld", description="Neural Langevin Dynamics: train energies from sequences.")
    parser.add_argument("--version", action="version", version=f"learned-landscape {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    data = commands.add_parser(
        "data",
        help="make the published data sets, or check a file of your own",
        description="Make the data of the NLD paper's experiment 1 or 2 (walks on a three-state Markov chain seen "
        "through 15 Gaussian channels, with true states) or another data set, or read a file of sequences and say what "
        "is in it.",
        epilog=DATA_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data.add_argument(
        "source",
        metavar="1|2|triple-well|spirals|FILE",
        help="experiment 1 or 2, a diffusion seen through a smooth map, spirals in both senses, or a file (./1 for a "
        "file called 1)",
    )
    data.add_argument("-o", "--output", metavar="FILE.npz", type=Path, help="write the sequences here (experiments)")
    data.add_argument("--force", action="store_true", help="replace FILE.npz if it exists")
    data.add_argument("--noise", choices=("easy", "medium", "hard"), help="standard deviation .35, .5 (default) or .7")
    data.add_argument("--split", choices=("train", "test"), help="independent walks of the same chain (default train)")
    data.add_argument("--seed", type=_natural, help="of the walks and their noise (default 0)")
    data.add_argument("--emission-seed", type=_natural, help="of the means and covariances (default 0)")
    data.add_argument("--sequences", type=_natural, metavar="N", help="default 6000 (train), 500 (test)")
    data.add_argument("--length", type=_natural, metavar="T", help="frames; default 200, test of experiment 1: 500")
    data.add_argument(
        "--missing", choices=("mask", "refuse"), help="of a file: count (default) or refuse missing values"
    )
    _json_flag(data)
    _add_train(commands)
    _add_users_of_models(commands)
    _add_experiment(commands)
    _add_plot(commands)
    return parser


def _json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, nothing else")


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train energies from sequences",
        description="Train Neural Langevin Dynamics, all seeds at once: simulation-free matching first, then "
        "the least change of each energy that gives it the rates of its own segmentation.",
        epilog=TRAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("data", metavar="DATA", help="a file of sequences, see nld data --help")
    train.add_argument("-o", "--output", metavar="MODEL", type=Path, required=True, help="the model, all its seeds")
    train.add_argument(
        "--model",
        choices=("overdamped", "underdamped", "rotated", "nsde"),
        help="Langevin dynamics without or with momenta, overdamped with a learned rotation of its drift, or a generic "
        "neural SDE without an energy (default overdamped)",
    )
    train.add_argument("--latent-dim", type=_natural, metavar="D", help="dimension of the latent space (default 2)")
    train.add_argument("--seeds", type=_natural, metavar="N", help="seeds trained together (default 1)")
    train.add_argument("--first-seed", type=_natural, metavar="S", help="seeds S, S + 1, ... (default 0)")
    train.add_argument("--iterations", type=_natural, metavar="N", help="steps (default 800)")
    train.add_argument("--config", metavar="FILE.toml", type=Path, help="settings; flags come before it")
    train.add_argument("--resume", action="store_true", help="go on from MODEL, with its settings")
    train.add_argument("--force", action="store_true", help="replace MODEL if it exists")
    _json_flag(train)


def _add_users_of_models(commands: Any) -> None:
    export = commands.add_parser(
        "export",
        help="one seed's energy as a file for landscape",
        description="Write one seed's energy and dynamics to a file that `landscape analyze` reads.",
    )
    evaluate = commands.add_parser(
        "evaluate",
        help="states, accuracy, weights and rates of every seed",
        description="What every seed learned, on data the model has not seen: states found, accuracy of the "
        "unsupervised segmentation, weights and rates against the chain's if the data are from `nld data`.",
    )
    segment = commands.add_parser(
        "segment", help="label every frame", description="Label every frame by the state of one seed's energy."
    )
    simulate = commands.add_parser(
        "simulate",
        help="new sequences from a model",
        description="New sequences, labelled by state, from the stationary Langevin prior of one seed and its decoder.",
    )
    simulate.add_argument("--sequences", type=_natural, default=100, metavar="N", help="default 100")
    simulate.add_argument("--length", type=_natural, default=200, metavar="T", help="frames (default 200)")
    simulate.add_argument("--seed", type=_natural, default=0, help="of the simulation (default 0)")
    for parser in (export, evaluate, segment, simulate):
        parser.add_argument("model", metavar="MODEL", type=Path, help="what nld train wrote")
    for parser in (evaluate, segment):
        parser.add_argument("data", metavar="DATA", help="a file of sequences, see nld data --help")
    evaluate.add_argument(
        "--paths", type=_natural, default=10_000, metavar="N", help="paths simulated for the rates (default 10000)"
    )
    for parser, name in ((export, "ENERGY.safetensors"), (segment, "LABELS.npy"), (simulate, "FILE.npz")):
        parser.add_argument("-o", "--output", metavar=name, type=Path, required=True)
        parser.add_argument(
            "--seed-index", type=_natural, default=0, metavar="K", help="which of MODEL's seeds, from 0 (default 0)"
        )
        parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    for parser in (export, evaluate, segment, simulate):
        _json_flag(parser)


def _add_experiment(commands: Any) -> None:
    experiment = commands.add_parser(
        "experiment",
        help="the paper's experiments: all seeds, its tables beside ours",
        description="Train and evaluate every seed of the NLD paper's experiment 1 or 2 and print its tables beside "
        "the published values. Seeds that the folder holds already are not trained again; an interrupted run goes on.",
    )
    experiment.add_argument("number", type=int, choices=(1, 2), metavar="1|2")
    experiment.add_argument(
        "--dynamics", choices=("overdamped", "underdamped", "rotated", "nsde"), default="overdamped",
        help="nsde: the paper's baseline, a free drift without an energy (default overdamped)",
    )  # fmt: skip
    experiment.add_argument("--noise", choices=("easy", "medium", "hard"), default="medium")
    experiment.add_argument("--latent-dim", type=_natural, metavar="D", help="of the latent space (default 2)")
    experiment.add_argument(
        "--energy", choices=("mlp", "residual-mlp"), help="energy network: smooth (default), or the published one"
    )
    experiment.add_argument("--seeds", type=_natural, default=10, metavar="N", help="default 10")
    experiment.add_argument("--first-seed", type=_natural, default=0, metavar="S", help="default 0")
    experiment.add_argument(
        "--test-seed", type=_natural, default=1000, metavar="T", help="of the test data (default 1000)"
    )
    experiment.add_argument("--config", metavar="FILE.toml", type=Path, help="settings, as for nld train")
    experiment.add_argument(
        "-o", "--output", metavar="DIR", type=Path,
        help="default ./experiment-NUMBER-DYNAMICS-NOISE, and the latent dimension and the energy where they are given",
    )  # fmt: skip
    _json_flag(experiment)


def _add_plot(commands: Any) -> None:
    plot = commands.add_parser(
        "plot",
        help="pictures of a model",
        description="Training curves; sequences segmented by one seed against their true states; their latent "
        "trajectories over the learned energy; what the decoder shows in each state beside what was observed.",
    )
    plot.add_argument("model", metavar="MODEL", type=Path, help="what nld train wrote")
    plot.add_argument("data", metavar="DATA", nargs="?", help="a file of sequences; all but the curves need one")
    plot.add_argument(
        "--what", metavar="NAME",
        help="curves, segmentation, latents, emissions, or all that can be drawn; default: segmentation where DATA "
        "are given, else curves",
    )  # fmt: skip
    plot.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help=".png, .svg or .pdf; a folder with all"
    )
    plot.add_argument("--format", choices=("png", "svg", "pdf"), help="of the files of --what all (default png)")
    plot.add_argument("--seed-index", type=_natural, default=0, metavar="K", help="which of MODEL's seeds, from 0")
    plot.add_argument(
        "--sequence", type=_natural, action="append", metavar="N",
        help="which of the sequences, from 0; more than once for several (default the first three)",
    )  # fmt: skip
    plot.add_argument("--force", action="store_true", help="replace files that exist")
    _json_flag(plot)


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or larger, got {text!r}")
    return int(text)


def _data(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The document and the text of `nld data`."""
    if arguments.source in OTHERS:
        return _make_other(arguments)
    if arguments.source in ("1", "2"):
        if arguments.missing is not None:
            raise UsageError("--missing is for files; the experiments have no missing values")
        return _make_experiment(arguments)
    given = [name for name in MAKING if getattr(arguments, name) is not None]
    if given or arguments.force:
        flag = (given or ["force"])[0].replace("_", "-")
        raise UsageError(f"--{flag} is for data that are made; {arguments.source} is taken for a file to describe")
    return _describe_file(arguments.source, arguments.missing or "mask")


def _make_other(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The data sets that are not the paper's."""
    from nld_models.sequence_files import save_sequences
    from nld_models.spirals import sample_spirals
    from nld_models.triple_well import sample_triple_well

    foreign = [name for name in ("noise", "split", "emission_seed", "missing") if getattr(arguments, name) is not None]
    if foreign:
        flag = foreign[0].replace("_", "-")
        raise UsageError(f"--{flag} is for experiments 1 and 2; {arguments.source} takes --seed, --sequences, --length")
    if arguments.output is not None and arguments.output.exists() and not arguments.force:
        raise UsageError(f"{arguments.output} exists; name another file, or replace it with --force")
    sample = sample_triple_well if arguments.source == "triple-well" else sample_spirals
    sizes = {"n_sequences": arguments.sequences, "length": arguments.length, "seed": arguments.seed}
    data = sample(**{name: size for name, size in sizes.items() if size is not None})
    if arguments.output is not None:
        save_sequences(arguments.output, data)
    written = "not written; add -o FILE.npz to keep them"
    if arguments.output is not None:
        written = f"written to {arguments.output}"
    file = None if arguments.output is None else str(arguments.output)
    document = {"data": arguments.source, "seed": arguments.seed or 0, **_summary(data), "file": file}
    return document, "\n".join([arguments.source, *_size_lines(data), written])


def _make_experiment(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from nld_models.paper_chains import NOISE, accuracy_limits, experiment, sample_experiment
    from nld_models.sequence_files import save_sequences

    number, output = int(arguments.source), arguments.output
    noise, split = arguments.noise or "medium", arguments.split or "train"
    seed, emission_seed = arguments.seed or 0, arguments.emission_seed or 0
    if output is not None and output.exists() and not arguments.force:
        raise UsageError(f"{output} exists; name another file, or replace it with --force")
    model = experiment(number, noise, emission_seed)
    data = sample_experiment(model, number, split, seed, arguments.sequences, arguments.length)
    settings = {"experiment": number, "noise": noise, "split": split, "seed": seed, "emission_seed": emission_seed}
    if output is not None:
        chain = {name: getattr(model, name) for name in ("transition", "means", "covariances", "start")}
        save_sequences(output, data, {**settings, "noise_sd": NOISE[noise], **chain})
    limits = accuracy_limits(model, data)
    document = {
        **settings,
        **_summary(data),
        "accuracy_limits": asdict(limits),
        "file": None if output is None else str(output),
    }
    lines = [
        f"experiment {number}, {noise} noise (standard deviation {NOISE[noise]:g}), {split}, "
        f"seed {seed}, emission seed {emission_seed}",
        *_size_lines(data),
        "accuracy in %: "
        f"best from one frame {100 * limits.frame:.2f}, "
        f"exact filter (past and present) {100 * limits.filter:.2f}, "
        f"exact smoother (whole sequence) {100 * limits.smoother:.2f}",
        "not written; add -o FILE.npz to keep them" if output is None else f"written to {output}",
    ]
    return document, "\n".join(lines)


def _describe_file(source: str, missing: Any) -> tuple[dict[str, Any], str]:
    from nld_models.sequence_files import load_sequences

    data = load_sequences(source, missing)
    # A model trains on standardised channels, so this also refuses a channel that is empty or constant.
    standardised = data.standardise()
    observed = [data.values[:, :, k][data.mask[:, :, k]] for k in range(data.n_channels)]
    channels = [
        {"mean": float(mean), "sd": float(sd), "min": float(x.min()), "max": float(x.max()), "observed": len(x)}
        for mean, sd, x in zip(standardised.mean, standardised.scale, observed, strict=True)
    ]
    table = [f"{'channel':>7} {'mean':>12} {'sd':>12} {'min':>12} {'max':>12} {'observed':>9}"]
    for k, row in enumerate(channels):
        numbers = " ".join(f"{row[name]:12.5g}" for name in ("mean", "sd", "min", "max"))
        table.append(f"{k:7d} {numbers} {row['observed']:9,}")
    document = {"file": source, **_summary(data), "channels": channels}
    return document, "\n".join([source, *_size_lines(data), *table])


def _summary(data: SequenceData) -> dict[str, Any]:
    return {
        "n_sequences": len(data),
        "n_channels": data.n_channels,
        "lengths": {"min": int(data.lengths.min()), "max": int(data.lengths.max()), "total": int(data.lengths.sum())},
        "missing_values": data.n_missing,
        "label_frames": _label_frames(data),
    }


def _size_lines(data: SequenceData) -> list[str]:
    shortest, longest, frames = data.lengths.min(), data.lengths.max(), int(data.lengths.sum())
    length = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
    lines = [f"{len(data):,} sequences of {length} frames ({frames:,} in all), {data.n_channels} channels"]
    total = frames * data.n_channels
    lines.append(f"missing values: {data.n_missing:,} of {total:,} ({100 * data.n_missing / total:.2g} %)")
    labels = _label_frames(data)
    if labels is not None:
        shares = ", ".join(f"{label}: {100 * count / frames:.1f} %" for label, count in labels.items())
        lines.append(f"frames by true state: {shares}")
    return lines


def _label_frames(data: SequenceData) -> dict[str, int] | None:
    """Number of frames with each label; "unknown" those without."""
    import numpy as np

    if data.labels is None:
        return None
    labels, counts = np.unique(data.labels[data.frames], return_counts=True)
    return {"unknown" if k < 0 else str(k): int(count) for k, count in zip(labels, counts, strict=True)}


if __name__ == "__main__":
    sys.exit(command())
