"""Every rate of a formula beside an independent estimate, with a plain verdict.

Names are imported on first use: an analysis without checks needs the flags and verdicts alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from landscape.lazy import on_first_use

if TYPE_CHECKING:
    from landscape.checks.causes import Subject
    from landscape.checks.flags import end_distances, flat_saddles, is_long, reduced_time_step
    from landscape.checks.options import CheckOptions
    from landscape.checks.record import Checks
    from landscape.checks.run import run_checks
    from landscape.checks.verdicts import (
        AGREES,
        DOUBTFUL,
        LOW_BARRIER,
        NOT_CHECKED,
        NOT_CONVERGED,
        REASONS,
        TOLERANCE,
        UNDECIDED,
        VERDICTS,
    )
else:
    __getattr__, __dir__ = on_first_use(
        __name__,
        {
            "causes": ("Subject",),
            "flags": ("end_distances", "flat_saddles", "is_long", "reduced_time_step"),
            "options": ("CheckOptions",),
            "record": ("Checks",),
            "run": ("run_checks",),
            "verdicts": (
                "AGREES",
                "DOUBTFUL",
                "LOW_BARRIER",
                "NOT_CHECKED",
                "NOT_CONVERGED",
                "REASONS",
                "TOLERANCE",
                "UNDECIDED",
                "VERDICTS",
            ),
        },
    )

__all__ = [
    "AGREES",
    "DOUBTFUL",
    "LOW_BARRIER",
    "NOT_CHECKED",
    "NOT_CONVERGED",
    "REASONS",
    "TOLERANCE",
    "UNDECIDED",
    "VERDICTS",
    "CheckOptions",
    "Checks",
    "Subject",
    "end_distances",
    "flat_saddles",
    "is_long",
    "reduced_time_step",
    "run_checks",
]
