"""A command in a process of its own: what a library must not decide for its caller."""

from __future__ import annotations

import gc
from collections.abc import Callable

IMPORTED = 500_000  # objects made before the collector looks for the first time: the imports of a search make 310,000
OBJECTS = 100_000  # made between two looks of a command that has its imports behind it; 700 by default


def alone(main: Callable[[], int]) -> int:
    """Run `main`, which ends the process: its exit code.

    Importing torch makes hundreds of thousands of objects that stay. The collector would go through them a thousand
    times, and once more at the end, when everything goes anyway: half a second of a command.
    """
    gc.set_threshold(IMPORTED)
    try:
        return main()
    finally:
        gc.freeze()


def imported() -> None:
    """A command that may work for hours has its imports behind it: the collector looks after what is new from now on.

    Does nothing in a process that is not `alone`.
    """
    if gc.get_threshold()[0] == IMPORTED:
        gc.freeze()
        gc.set_threshold(OBJECTS)
