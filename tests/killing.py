"""Commands in processes of their own that are killed after a given time at work.

One process imports the package and forks a child for each command, since importing torch costs seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent


class Launcher:
    """A context manager: `run` gives each command to a fresh child."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.errors = folder / "errors.txt"  # standard error of all commands
        with self.errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, __file__], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=errors, text=True,
            )  # fmt: skip

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)

    def run(self, *argv: str, kill_after: float | None = None) -> tuple[int, float]:
        """The exit code, -9 where it was killed (SIGKILL) after so many seconds of processor time, and the seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([argv, kill_after]) + "\n")
        self._process.stdin.flush()
        code, seconds = json.loads(self._process.stdout.readline())
        return code, seconds


def _serve() -> None:
    import torch

    import landscape.analysis
    import landscape.cli.commands
    import landscape.continuation
    import landscape.tables  # noqa: F401
    from landscape.cli import main

    torch.set_num_threads(1)
    replies = os.dup(1)
    os.dup2(2, 1)
    for line in sys.stdin:
        argv, kill_after = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(main(argv))
        code, seconds = _wait(child, kill_after)
        os.write(replies, (json.dumps([code, seconds]) + "\n").encode())


def _wait(child: int, kill_after: float | None) -> tuple[int, float]:
    used = 0.0
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status), used
        used = _processor_time(child)
        if kill_after is not None and used >= kill_after:
            os.kill(child, 9)
            kill_after = None
        time.sleep(2e-3)


def _processor_time(pid: int) -> float:
    """Seconds that a process has had the processor; the clock on the wall means little on a busy machine."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    _serve()
