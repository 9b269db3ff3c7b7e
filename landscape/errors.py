"""The errors a user can meet, each with the exit code the command line gives it.

A message names the rule that was broken, what came in, and what to do.
"""

from __future__ import annotations


class LandscapeError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(LandscapeError):
    """An option or argument is wrong (beta <= 0, no starts, an output folder that cannot be written)."""

    exit_code = 2


class EnergyError(LandscapeError):
    """An energy cannot be loaded, or what it returns is not a usable energy."""

    exit_code = 2


def left(leaving: SystemExit, who: str) -> str:
    """What to tell of a user's code that ends the process, for an `EnergyError`."""
    return f"{who} called sys.exit({leaving.code!r}); take that out: an energy returns numbers or raises an error"


class UnsupportedError(LandscapeError):
    """The request is sensible but not supported for this energy (zero modes, for example)."""

    exit_code = 3
