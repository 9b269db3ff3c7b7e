"""What commands write to: its name, the checks that come before the work is paid for, and how a command ends."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from landscape.cli.terminal import emit
from landscape.errors import UsageError

NOT_CONVERGED = 3

ADVICE = "choose another folder with --out"
# What `Analysis.save` writes first in analysis.json; enough to know an analysis, also a damaged one.
OURS = re.compile(rb'"format"\s*:\s*"learned-landscape/analysis"')


def default_folder(spec: str) -> Path:
    """./NAME.landscape with the file's stem, the function's or the potential's name, safe for a file name."""
    if spec.startswith("potential:"):
        name = spec.split(":")[1]
    elif ":" in spec and not Path(spec).exists():
        name = spec.rpartition(":")[2]
    else:
        name = Path(spec).stem
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:100]
    return Path(f"{safe or 'energy'}.landscape")


def check_folder(folder: Path, force: bool) -> None:
    """UsageError if the folder holds an analysis (without force), or anything else (always)."""
    from landscape.store import DATABASE, DOCUMENT, STAGING, is_store

    try:
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UsageError(f"the output {folder} is a file, not a folder: {ADVICE}")
        names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(STAGING)}
        ours = DOCUMENT in names and OURS.search((folder / DOCUMENT).read_bytes()) is not None
        ours = ours or is_store(folder / DATABASE)
        if DOCUMENT not in names and _holds_nothing(folder):  # a process was killed before its search had begun
            names -= {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"}
    except OSError as error:
        raise UsageError(f"the output folder {folder} cannot be read ({error.strerror}): {ADVICE}") from error
    if names and not ours:
        raise UsageError(f"the output folder {folder} holds files that are no analysis, and is left alone: {ADVICE}")
    if names and not force and DOCUMENT not in names:
        raise UsageError(
            f"{folder} holds a search that is not finished: go on with `landscape analyze --resume {folder}`, or begin "
            "anew with --force"
        )
    if names and not force:
        raise UsageError(
            f"{folder} already holds an analysis: replace it with --force, add starts to it with --resume, or {ADVICE}"
        )


def _holds_nothing(folder: Path) -> bool:
    """Whether the folder's store is there, whole and empty."""
    from landscape.store import DATABASE, Reader

    if not (folder / DATABASE).is_file():
        return False
    try:
        with Reader.open(folder) as reader:
            return not reader.searches() and reader.result() is None
    except UsageError:
        return False


def check_writable(file: Path) -> None:
    """UsageError unless a file of this name can be written in its folder; leaves nothing there."""
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise UsageError(f"{file} cannot be written ({error.strerror}): give a file in a folder that can be") from error
    if file.is_dir():
        raise UsageError(f"{file} cannot be written (it is a folder): give a file name")


@contextlib.contextmanager
def interruption_told(files: Sequence[Path], complete: str) -> Iterator[None]:
    """Let a KeyboardInterrupt carry what was written by then: `complete` if every one of `files` was, as text.

    The files are looked at, since an interrupt can come between the writing and any note of it.
    """
    before = [_identity(file) for file in files]
    try:
        yield
    except KeyboardInterrupt as interrupt:
        written = [file for file, was in zip(files, before, strict=True) if _identity(file) != was]
        if not written:
            raise
        partly = f"only {', '.join(map(str, written))} came to be written, do not use them: run the command again"
        raise KeyboardInterrupt(complete if len(written) == len(files) else partly) from interrupt


def _identity(file: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced by a rename, None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@contextlib.contextmanager
def output_folder(folder: Path, force: bool) -> Iterator[None]:
    """Check the folder, make it, try whether it can be written; on failure what was made and is empty goes again."""
    check_folder(folder, force)
    made: list[Path] = []
    try:
        try:
            missing = [path for path in (folder, *folder.parents) if not path.exists()]
            for path in reversed(missing):
                path.mkdir()
                made.append(path)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UsageError(f"the output folder {folder} cannot be written ({error.strerror}): {ADVICE}") from error
        yield
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # not empty: it holds what was asked for
                path.rmdir()
        raise


def ending(document: Mapping[str, Any], note: bool = False) -> int:
    """The exit code of an analysis; with `note`, standard error says why, since JSON alone is easily not read."""
    if document["diagnostics"]["converged"]:
        return 0
    if note:
        emit("landscape: note: finished without converging: see diagnostics.warnings", sys.stderr)
    return NOT_CONVERGED
