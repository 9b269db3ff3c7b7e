"""The errors of this package beside `data.DataError`; `exit_code` is what the command line returns."""

from __future__ import annotations

from landscape.errors import LandscapeError


class ConfigError(LandscapeError):
    """A setting of a model or of its training breaks a rule."""

    exit_code = 2


class CheckpointError(LandscapeError):
    """A model file cannot be read or written, or does not fit what is asked of it."""

    exit_code = 2


class TrainingError(LandscapeError):
    """Training stopped on its own for every seed."""

    exit_code = 2
