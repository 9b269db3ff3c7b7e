"""Standard output and standard error: text that survives a closed pipe, and progress."""

from __future__ import annotations

import os
import shutil
import sys
import time
from types import TracebackType
from typing import TextIO

from landscape.errors import LandscapeError

INTERVAL = 2.0  # seconds between lines of progress where lines cannot be rewritten


def emit(text: str, stream: TextIO | None, end: str = "\n") -> None:
    """Write to a standard stream. A reader that has gone (`| head`) is no error: the work goes on, silently."""
    if stream is None:  # closed by the caller's shell
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write((text + end).encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        # Python flushes once more at exit: let that go nowhere.
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, stream.fileno())
        os.close(silent)
        if not isinstance(error, BrokenPipeError):
            raise LandscapeError(f"the output cannot be written ({error.strerror}): check where it goes") from error


class Progress:
    """Called with texts; shows them on standard error: one line rewritten on a terminal, else a line every 2 s.

    A context manager: on leaving, the line on the terminal is wiped.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._stream: TextIO | None = None if quiet else sys.stderr
        self._terminal = self._stream is not None and self._stream.isatty()
        self._started = time.monotonic()
        self._last = self._started - INTERVAL

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        line = f"{now - self._started:6.1f} s  {text}"
        if self._terminal:
            emit(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", self._stream, end="")
        elif now - self._last >= INTERVAL:
            emit(line, self._stream)
            self._last = now

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            emit("\r\x1b[K", self._stream, end="")
