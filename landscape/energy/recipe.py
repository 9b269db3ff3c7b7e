"""How to load an energy once more, in another process or at another time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recipe:
    """What `load_energy` was asked for; energies travel as this, never as function objects.

    spec : as the user named it, a file by its absolute path. sha256 : of the file or the specification.
    """

    spec: str
    dim: int | None
    trust: bool
    dtype: str
    device: str
    sha256: str | None


def absolute(spec: str) -> str:
    """A specification whose file is named by its absolute path; modules and potentials stay as they are."""
    if Path(spec).exists():
        return str(Path(spec).resolve())
    file, colon, name = spec.rpartition(":")
    return f"{Path(file).resolve()}:{name}" if colon and Path(file).is_file() else spec
