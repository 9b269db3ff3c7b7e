"""The arguments of every command, parsed without a heavy import."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from typing import NoReturn

from landscape import __version__
from landscape.cli.compare import DESCRIPTION as COMPARE
from landscape.cli.compare import add_compare
from landscape.cli.network import DESCRIPTION as NETWORK
from landscape.cli.network import add_network
from landscape.cli.plot import add_plot
from landscape.cli.report import add_report
from landscape.errors import UsageError

NETWORK_FORMATS = ("graphml", "gexf", "json", "csv", "dot", "npz", "deeptime")  # as in landscape.network.export
FORMATS = (*NETWORK_FORMATS, "pathsample")  # that one needs more than the network
SAMPLERS = ("lmc", "mala", "hmc", "ghmc", "baoab", "annealed", "tempering")  # landscape.sampling has the same
ENERGY_HELP = (
    "model.safetensors, a published NLD checkpoint .pth, an exported .pt2 (with --trust), file.py:name, "
    "package.module:name, or potential:NAME[:key=value,...] (see `landscape potentials`)"
)
EXIT_CODES = (
    "exit codes: 0 done, 1 failed, 2 bad usage or unusable energy, 3 finished without converging, 130 interrupted"
)

NUMBERS_AFTER = {
    "--beta": 1, "--gamma": 1, "--mass": 1, "--box": 2, "--dim": 1, "--starts": 1, "--seed": 1, "--threads": 1,
    "--check-budget": 1, "--budget": 1, "--time-step": 1, "--workers": 1,
    "-n": 1, "--chains": 1, "--warm-up": 1, "--thin": 1, "--step-size": 1, "--hottest": 1, "--accuracy": 1,
}  # fmt: skip

Coefficient = float | tuple[float, ...]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments as a namespace with `command`, and `command_line` as typed in a shell.

    UsageError, one line, for what cannot be understood.
    """
    arguments = _parser().parse_args(_shielded(argv))
    arguments.command_line = shlex.join(["landscape", *argv])
    return arguments


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def _shielded(argv: Sequence[str]) -> list[str]:
    """Negative numbers behind a space, which hides from argparse that they begin like an option (-1e-1, -inf, -1,2).

    Only where an option takes numbers: a space would become part of a file's name.
    """
    shielded, numbers_due = [], 0
    for word in argv:
        if numbers_due and word.startswith("-") and _is_numbers(word):
            word, numbers_due = f" {word}", numbers_due - 1
        else:
            numbers_due = NUMBERS_AFTER.get(word, max(numbers_due - 1, 0))
        shielded.append(word)
    return shielded


def _is_numbers(word: str) -> bool:
    try:
        return bool([float(part) for part in word.split(",")])
    except ValueError:
        return False


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number is needed, not {text.strip()!r}") from None


def _numbers(text: str) -> Coefficient:
    """A number, or a comma list: one number a coordinate."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"a number or a comma list of numbers is needed, not {text.strip()!r}"
        ) from None
    return values[0] if len(values) == 1 else values


def _whole(text: str) -> int:
    if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text):
        raise argparse.ArgumentTypeError(f"a whole number is needed, not {text.strip()!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="landscape",
        description="States, weights, saddles, paths and rates of any learned energy function.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"learned-landscape {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str, description: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=text, description=description or text, epilog=EXIT_CODES, allow_abbrev=False
        )

    _add_analyze(
        command(
            "analyze",
            "search an energy for its states and all that follows from them",
            "Find the states of an energy, the saddles between them, paths, weights and rates; print them, and write "
            "analysis.sqlite, analysis.json, states.csv, transitions.csv and network.graphml. What is found is kept as "
            "it comes: a search that was interrupted or killed goes on with --resume DIR.",
        )
    )
    show = command(
        "show",
        "what a folder holds: searches, how far they are, points found, the finished analysis",
        "What the store analysis.sqlite in a folder holds, also while another process is at work there: every search "
        "with its options and how far it is, the stationary points found so far, and the finished analysis.",
    )
    show.add_argument("folder", metavar="DIR", help="what `analyze` wrote, or is writing")
    show.add_argument("--json", action="store_true", help="one JSON document on standard output, nothing else")
    _add_rates(
        command(
            "rates",
            "rates and weights of a saved analysis at other parameters, without a new search",
            "Rates and weights of a saved analysis at other parameters, without a new search. If that analysis had "
            "finished without converging, so have its rates: they are printed, and the exit code is 3.",
        )
    )
    _add_check(
        command(
            "check",
            "every rate of a saved analysis beside an independent estimate, with a verdict",
            "Compare the rates of a saved analysis with independent ones (a grid, the Klein-Kramers operator, "
            "simulated passages, bounds) and store the verdicts with it. A doubtful rate is an answer: "
            "the exit code is 0.",
        )
    )
    _add_export(command("export", "the network of states for other programs"))
    _add_assign(command("assign", "label points by the state whose basin of attraction holds them"))
    add_plot(command("plot", "pictures of a saved analysis: PNG, SVG or PDF"))
    add_network(
        command("network", "what the network of states says: metastable sets, pathways, sensitivities", NETWORK)
    )
    add_compare(command("compare", "two saved analyses side by side, states matched", COMPARE))
    add_report(
        command(
            "report",
            "one HTML page with every table and picture of a saved analysis",
            "Write one self-contained HTML page: summary, verdicts and warnings, every picture that can be drawn, "
            "tables that sort, and every parameter with its origin. It asks no other file or address for anything.",
        )
    )

    _add_sample(
        command(
            "sample",
            "draw from exp(-beta E), with diagnostics of the chains",
            "Draw positions from exp(-beta E) by Monte Carlo chains and write them to FILE.npz: x (draws, chains, d), "
            "energy, and label (its basin at every label_stride-th draw, -1 for none). Chains start in all basins "
            "alike. Exit code 3 if they have not converged: R-hat above 1.01, an effective sample size below 400, or a "
            "chain that never left its basin.",
        )
    )
    _add_theory(
        command(
            "theory",
            "what theory says about unadjusted Langevin Monte Carlo on an analysed energy",
            "Smoothness, spectral gap and log-Sobolev constant of f = beta E, estimated from the landscape; with these "
            "the bias of x' = x - eta grad f + sqrt(2 eta) xi and the iterations that proven bounds ask for, beside "
            "those observed.",
        )
    )

    command("potentials", "list the analytic energies")
    return parser


def _add_rates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="what `analyze` wrote")
    _add_dynamics(parser, "the saved analysis")
    _add_threads(parser)
    parser.add_argument("--json", action="store_true", help="the whole document on standard output, nothing else")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="what `analyze` wrote")
    parser.add_argument("--budget", type=_number, metavar="S", default=60.0, help="seconds (default 60)")
    _add_time_step(parser)
    parser.add_argument("--seed", type=_whole, metavar="S", default=0, help="of all randomness (default 0)")
    parser.add_argument("--energy", metavar="SPEC", help="where the energy is now, if not where it was analysed")
    parser.add_argument("--trust", action="store_true", help="allow an energy that runs code when it is loaded")
    parser.add_argument("--json", action="store_true", help="the whole document on standard output, nothing else")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    _add_threads(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="what `analyze` wrote")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="csv writes FILE_states and FILE_transitions; deeptime a transition matrix for MarkovStateModel (npz); "
        "pathsample makes a folder FILE with min.data and ts.data",
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True)
    parser.add_argument(
        "--lag-time",
        type=_number,
        metavar="T",
        help="of the deeptime model (default: a tenth of the slowest timescale)",
    )


def _add_assign(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="what `analyze` wrote")
    parser.add_argument("points", metavar="POINTS.npy", help="array (n, d) of real numbers")
    parser.add_argument("-o", "--output", metavar="LABELS.npy", required=True, help="(n,) int64; -1 is none of them")
    parser.add_argument("--energy", metavar="SPEC", help="where the energy is now, if not where it was analysed")
    parser.add_argument("--trust", action="store_true", help="allow an energy that runs code when it is loaded")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    _add_threads(parser)


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("energy", metavar="ENERGY|DIR", help=f"{ENERGY_HELP}; or what `analyze` wrote")
    parser.add_argument("--method", choices=SAMPLERS, default="mala", help="default mala")
    parser.add_argument("-n", type=_whole, metavar="N", required=True, help="draws of all chains together, at least")
    parser.add_argument("-o", "--output", metavar="FILE.npz", required=True)
    parser.add_argument("--beta", type=_number, metavar="B", help="default: that of the analysis or file, else 1")
    parser.add_argument("--dim", type=_whole, metavar="D", help="dimension, for a function that does not say it")
    parser.add_argument("--chains", type=_whole, metavar="C", help="default: 100 draws each, but 4 to 32")
    parser.add_argument("--warm-up", type=_whole, metavar="W", help="sweeps before the draws (default 500)")
    parser.add_argument("--thin", type=_whole, metavar="T", help="sweeps a draw (default 1; lmc and annealed 10)")
    parser.add_argument(
        "--step-size", type=_number, metavar="H", help="a length; of lmc and annealed eta; default: found in warm-up"
    )
    parser.add_argument(
        "--hottest", type=_number, metavar="R", help="least beta of annealed and tempering over beta; default: found"
    )
    parser.add_argument("--starts-from", metavar="FILE.npy", help="start chains at these points (n, d)")
    parser.add_argument("--seed", type=_whole, metavar="S", help="of all randomness (default 0)")
    _add_threads(parser)
    parser.add_argument("--json", action="store_true", help="the diagnostics on standard output, nothing else")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parser.add_argument("--trust", action="store_true", help="allow an energy that runs code when it is loaded")


def _add_theory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="what `analyze` wrote")
    parser.add_argument(
        "--accuracy", type=_number, metavar="KL", default=0.1, help="Kullback-Leibler divergence wanted (default .1)"
    )
    parser.add_argument(
        "--step-size", type=_number, metavar="ETA", help="of LMC in f = beta E (default: the one the bound asks for)"
    )
    parser.add_argument("--seed", type=_whole, metavar="S", help="of all randomness (default 0)")
    parser.add_argument("--energy", metavar="SPEC", help="where the energy is now, if not where it was analysed")
    parser.add_argument("--trust", action="store_true", help="allow an energy that runs code when it is loaded")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, nothing else")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    _add_threads(parser)


def _add_analyze(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("energy", metavar="ENERGY", nargs="?", help=f"{ENERGY_HELP}; with --resume that on record")
    parser.add_argument("--dim", type=_whole, metavar="D", help="dimension, for a function that does not say it")
    _add_dynamics(parser, "the energy's file, else beta = gamma = mass = 1, overdamped")
    search = parser.add_argument_group("search")
    search.add_argument("--starts", type=_whole, metavar="N", help="starts of the search for states (default 1000)")
    search.add_argument(
        "--box", type=_numbers, nargs=2, metavar=("LO", "HI"),
        help="start between these (a number, or a comma list: one a coordinate); default: a cube that finds its scale",
    )  # fmt: skip
    search.add_argument("--starts-from", metavar="FILE.npy", help="start at these points (n, d)")
    search.add_argument("--seed", type=_whole, metavar="S", help="of all randomness (default 0)")
    search.add_argument(
        "--search-dtype", choices=("float32", "float64"),
        help="precision of descents and walks (default float64); their ends are polished in float64 in any case",
    )  # fmt: skip
    search.add_argument("--config", metavar="FILE.toml", help="every other setting; flags win over it")
    search.add_argument("--device", metavar="NAME", default="cpu", help="torch device, such as cuda (default cpu)")
    _add_threads(search)
    processes = search.add_mutually_exclusive_group()
    processes.add_argument(
        "--workers", type=_whole, metavar="N", help="local processes, for energies that take milliseconds a point"
    )
    processes.add_argument("--scheduler", metavar="ADDRESS", help="of a dask.distributed cluster that computes")
    checks = parser.add_argument_group("check")
    checks.add_argument("--check", action="store_true", help="an independent estimate and a verdict for every rate")
    checks.add_argument("--check-budget", type=_number, metavar="S", help="seconds for --check (default 60)")
    _add_time_step(checks)
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--out", metavar="DIR", help="folder to write to (default ./NAME.landscape)")
    output.add_argument("--force", action="store_true", help="replace the analysis that DIR holds")
    output.add_argument(
        "--resume", metavar="DIR", nargs="?", const="",
        help="go on with the search in DIR (or in the folder of --out) where it was interrupted or killed; with a "
        "larger --starts, add to what it has found",
    )  # fmt: skip
    output.add_argument("--json", action="store_true", help="analysis.json on standard output as well, nothing else")
    output.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parser.add_argument("--trust", action="store_true", help="allow a file that runs code when it is loaded (.pt2)")


def _add_dynamics(parser: argparse.ArgumentParser, default: str) -> None:
    group = parser.add_argument_group("dynamics", f"default: from {default}")
    group.add_argument("--beta", type=_number, metavar="B", help="inverse temperature, 1/energy")
    group.add_argument("--gamma", type=_numbers, metavar="G", help="friction: a number, or a comma list")
    group.add_argument("--mass", type=_numbers, metavar="M", help="a number, or a comma list; underdamped only")
    group.add_argument("--dynamics", choices=("overdamped", "underdamped"))
    group.add_argument(
        "--rotation", metavar="J.npy",
        help="antisymmetric matrix (d, d): drift -(1/gamma + J) grad E, no detailed balance; overdamped only",
    )  # fmt: skip


def _add_time_step(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--time-step", type=_number, metavar="DT", help="of your simulations: what it does to each rate (default: the "
        "energy file's, if it has one)",
    )  # fmt: skip


def _add_threads(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--threads", type=_whole, metavar="N", help="of torch (default OMP_NUM_THREADS, else 1)")
