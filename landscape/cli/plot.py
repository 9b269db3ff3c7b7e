"""The command `plot`: pictures of a saved analysis, one or all of them."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from landscape.cli.output import check_writable, interruption_told
from landscape.cli.terminal import Progress, emit
from landscape.errors import LandscapeError, UsageError

if TYPE_CHECKING:
    from landscape.plots.picture import Picture, Scene

FORMATS = ("png", "svg", "pdf")
SIZES = (1.0, 60.0)  # inches, smallest and largest side of a picture
DPI = (20.0, 1200.0)


def add_plot(parser: argparse.ArgumentParser) -> None:
    """The arguments of `landscape plot`."""
    parser.add_argument("folder", metavar="DIR", help="what `analyze` wrote")
    parser.add_argument(
        "--what", metavar="NAME",
        help="contour, basins, surface, volume (3-D contours), profile, drift, drift3d, disconnectivity, network, "
        "network-rates, rate-matrix, timescales, weights, verdicts, committor, eigenvectors, or all that can be drawn; "
        "default: the most telling one",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help=".png, .svg or .pdf; a folder with all")
    parser.add_argument("--format", choices=FORMATS, help="of the files of --what all (default png)")
    parser.add_argument(
        "--plane", metavar="PLANE",
        help="where d > 2: through three states (0,1,2), two states and a saddle (0,1,s2), or pca, the principal axes "
        "of minima and paths; default: through the minima where there are three, else pca",
    )  # fmt: skip
    parser.add_argument("--limit", type=float, metavar="KT", help="energies above this many kT are grey")
    parser.add_argument("--size", metavar="W,H", help="in inches; default: each picture's own")
    parser.add_argument("--dpi", type=float, default=150.0, metavar="N", help="points an inch of a png (default 150)")
    parser.add_argument("--energy", metavar="SPEC", help="where the energy is now, if not where it was analysed")
    parser.add_argument("--trust", action="store_true", help="allow an energy that runs code when it is loaded")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch (default OMP_NUM_THREADS, else 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


@dataclass(frozen=True)
class _Output:
    """Where pictures go, and how: size in inches, or None for each picture's own."""

    target: Path
    form: str
    size: tuple[float, float] | None
    dpi: float


def write_pictures(arguments: argparse.Namespace) -> int:
    """Write the picture that was asked for, or all that can be drawn; tell on standard output what each one shows."""
    output, every = _output(arguments), arguments.what == "all"
    from landscape.cli.labelling import energy_if_found
    from landscape.store import Analysis

    folder = Path(arguments.folder)
    analysis = Analysis.load(folder)
    with Progress(arguments.quiet) as progress:
        progress("plot: loading")
        from landscape.plots.gallery import PICTURES
        from landscape.plots.picture import Scene

        if not every and arguments.what is not None and arguments.what not in PICTURES:
            raise UsageError(f"there is no picture {arguments.what!r}: take one of {', '.join(PICTURES)}, or all")
        asked = None if every or arguments.what is None else PICTURES[arguments.what]
        # in one dimension the profile is better with the energy than from the paths alone
        wanted = asked is None or asked.needs_energy or analysis.dim == 1 or arguments.energy is not None
        energy, gone = None, None
        if wanted:
            energy, gone = energy_if_found(analysis, folder, arguments.energy, arguments.trust)
        scene = Scene(analysis, energy, arguments.plane, arguments.limit)
        chosen = list(PICTURES.values()) if every else [asked or most_telling(scene)]
        if not every and chosen[0].needs_energy and gone is not None:
            raise gone
        files, lines = _draw(chosen, scene, output, every, gone, progress)
    with interruption_told(list(files), f"the pictures were written to {output.target}"):
        _write(files, output.target if every else None)
    for line in lines:
        emit(line, sys.stdout)
    return 0


def most_telling(scene: Scene) -> Picture:
    """The contour where there is a plane, else the profile, else the first picture that can be drawn at all."""
    from landscape.plots.gallery import PICTURES

    for picture in (PICTURES["contour"], PICTURES["profile"], *PICTURES.values()):
        if not picture.why_not(scene):
            return picture
    raise UsageError("nothing can be drawn of this analysis: say where its energy is with --energy")


def _draw(
    pictures: list[Picture],
    scene: Scene,
    output: _Output,
    every: bool,
    gone: LandscapeError | None,
    progress: Callable[[str], None],
) -> tuple[dict[Path, bytes], list[str]]:
    """The files and what to tell of them. With `every`, what cannot be drawn is told of and left out."""
    from landscape.plots.picture import render

    files, lines = {}, []
    for picture in pictures:
        progress(f"plot: {picture.name}")
        reason = picture.why_not(scene)
        if every and reason:
            lines.append(f"left out: {picture.name}: {gone if picture.needs_energy and gone else reason}")
            continue
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what the user's own code prints is no result
                figure, text = picture.figure(scene, output.size)
                data = render(figure, output.form, picture.title, text, output.dpi)
        except UsageError as error:
            if not every:
                raise
            lines.append(f"left out: {picture.name}: {error}")
            continue
        path = output.target / f"{picture.name}.{output.form}" if every else output.target
        files[path] = data
        lines += [f"written: {path}", f"    {text}"]
    if not files:
        raise UsageError("nothing can be drawn of this analysis: say where its energy is with --energy")
    return files, lines


def _write(files: dict[Path, bytes], folder: Path | None) -> None:
    from landscape.network.export import replace_files

    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the folder {folder} cannot be made ({error.strerror}): choose another with -o"
            ) from error
    replace_files(files)


def _output(arguments: argparse.Namespace) -> _Output:
    """UsageError, before anything is loaded, for a format, size or place that cannot be."""
    target, form = Path(arguments.output), arguments.format
    suffix = target.suffix.removeprefix(".").lower()
    if arguments.what == "all":
        if suffix in FORMATS and not target.is_dir():
            raise UsageError(
                f"--what all writes to a folder, not to the file {target}: give -o FOLDER --format {suffix}"
            )
        if target.exists() and not target.is_dir():
            raise UsageError(f"--what all writes to a folder, but {target} is a file: give another with -o")
    else:
        if suffix not in FORMATS:
            raise UsageError(f"a picture is written as FILE.png, FILE.svg or FILE.pdf, not {str(target)!r}")
        if form is not None and form != suffix:
            raise UsageError(f"--format {form} does not fit the file {target}: leave it out")
        check_writable(target)
        form = suffix
    if not DPI[0] <= arguments.dpi <= DPI[1]:
        raise UsageError(f"--dpi is a number from {DPI[0]:g} to {DPI[1]:g}, not {arguments.dpi:g}")
    if arguments.limit is not None and not 0 < arguments.limit < math.inf:
        raise UsageError(f"--limit is a positive number of kT, not {arguments.limit:g}")
    return _Output(target, form or FORMATS[0], _size(arguments.size), arguments.dpi)


def _size(given: str | None) -> tuple[float, float] | None:
    if given is None:
        return None
    try:
        width, height = (float(side) for side in given.split(","))
    except ValueError:
        width = height = math.nan
    if not (SIZES[0] <= width <= SIZES[1] and SIZES[0] <= height <= SIZES[1]):
        raise UsageError(f"--size is W,H in inches, each from {SIZES[0]:g} to {SIZES[1]:g}, not {given!r}")
    return width, height
