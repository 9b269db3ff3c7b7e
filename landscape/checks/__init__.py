"""Every rate of a formula beside an independent estimate, with a plain verdict."""

from landscape.checks.causes import Subject
from landscape.checks.flags import end_distances, flat_saddles, is_long, reduced_time_step
from landscape.checks.record import Checks
from landscape.checks.run import CheckOptions, run_checks
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
