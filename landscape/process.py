"""A command in a process of its own: what a library must not decide for its caller."""

from __future__ import annotations

import gc
from collections.abc import Callable

OBJECTS = 100_000  # made between two looks of the garbage collector; 700 by default


def alone(main: Callable[[], int]) -> int:
    """Run `main`, which ends the process: its exit code.

    Importing torch makes hundreds of thousands of objects that stay. The collector would go through them a thousand
    times, and once more at the end, when everything goes anyway: half a second of a command.
    """
    gc.set_threshold(OBJECTS)
    try:
        return main()
    finally:
        gc.freeze()
