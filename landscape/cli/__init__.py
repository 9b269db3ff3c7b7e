"""The command `landscape`: arguments in, the library called, tables out; no numerics."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from landscape.cli.arguments import parse
from landscape.cli.terminal import emit
from landscape.errors import EnergyError, LandscapeError, left
from landscape.process import alone

TRACEBACK = "LANDSCAPE_TRACEBACK"  # set to 1, it shows where an unexpected error came from


def command() -> int:
    """The program `landscape`."""
    return alone(main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 failed, 2 bad usage or unusable energy, 3 finished without
    converging (or not supported), 130 interrupted. Every error is one line on standard error."""
    try:
        try:
            arguments = parse(sys.argv[1:] if argv is None else argv)
        except SystemExit as leaving:  # argparse after --help and --version
            return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        # What a command needs is imported when it runs: --help and --version must answer at once.
        from landscape.cli import commands

        return commands.COMMANDS[arguments.command](arguments)
    except LandscapeError as error:
        return _fail(f"error: {error}", error.exit_code)
    except KeyboardInterrupt as interrupt:
        return _fail(f"interrupted: {' '.join(map(str, interrupt.args)) or 'nothing was written'}", 130)
    except MemoryError as error:
        return _fail(f"error: not enough memory ({error}): ask for fewer starts or points", 1)
    except SystemExit as leaving:  # the user's own code, where no energy function was at work to say so
        return _fail(f"error: {left(leaving, 'the code of the energy')}", EnergyError.exit_code)
    except Exception as error:
        if os.environ.get(TRACEBACK) == "1":
            traceback.print_exc()
        hint = "" if os.environ.get(TRACEBACK) == "1" else f"; {TRACEBACK}=1 shows where"
        return _fail(f"error: this is a bug, please report it: {type(error).__name__}: {error}{hint}", 1)


def _fail(message: str, code: int) -> int:
    emit(f"landscape: {' '.join(message.split())}", sys.stderr)
    return code
