"""What `assign` needs: the points, the energy of a saved analysis found again (as for pictures), labels in pieces."""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from landscape.errors import LandscapeError, UsageError

if TYPE_CHECKING:
    from landscape.energy import Energy
    from landscape.store import Analysis

CHUNK = 16384  # points followed at once: their distances to every state are held in memory
SAME_ENERGY = 1e-5  # relative; energies at the saved states that differ by more belong to another energy


def load_array(path: Path, what: str) -> np.ndarray:
    """A 2-d array of finite real numbers from an .npy file, as float64. UsageError, one line, for anything else."""
    rule = f"{what} are an .npy file with an array (n, d) of real numbers"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy, on headers it repairs
            array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"{rule}, but {path} cannot be read ({error.strerror or 'truncated'})") from error
    except (ValueError, EOFError, MemoryError, OverflowError) as error:
        # numpy takes every unknown file for a pickle, and would advise to load that unsafely
        why = "it is no .npy file, or holds pickled objects" if "pickle" in str(error) else str(error)
        raise UsageError(f"{rule}, but {path} holds none ({why}): save it with numpy.save(path, array)") from error
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{rule}, but {path} is an .npz archive: save one array with numpy.save(path, array)")
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise UsageError(f"{rule}, but {path} holds {array.dtype} of shape {array.shape}: convert or reshape it")
    points = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise UsageError(f"{rule}, but {path} holds NaN or infinity in {len(bad)} rows, the first {bad[0]}: drop them")
    return points


def load_points(path: Path, dim: int) -> np.ndarray:
    """The points to label, (n, dim)."""
    points = load_array(path, "points")
    if points.shape[1] != dim:
        raise UsageError(f"points have {dim} columns for this energy, but {path} has shape {points.shape}")
    return points


def energy_of(analysis: Analysis, folder: Path, spec: str | None, trust: bool) -> Energy:
    """The energy that was analysed: `spec`, or the one on record: where it was, from here, or beside `folder`.

    UsageError if it cannot be found, would run code without `trust`, or is not the one that was analysed.
    """
    from landscape.energy import load_energy

    record = analysis.energy
    on_record = None if spec is not None else record.get("sha256")
    if spec is None:
        spec = located(str(record["source"]), record.get("path"), folder)
        if is_code(spec) and not trust:
            raise UsageError(f"the energy of {folder} is code, {spec}: allow it to run with --trust")
        _check_unchanged(spec, _file_hash(spec), on_record)  # before it is run
    energy = load_energy(spec, dim=analysis.dim, trust=trust, dtype=str(record["dtype"]))
    _check_unchanged(spec, energy.sha256, on_record)
    states = analysis.states
    found = energy.value(states.x)
    off = ~(np.abs(found - states.energy) <= SAME_ENERGY * (1 + np.abs(states.energy)))
    if off.any():
        k = int(np.flatnonzero(off)[0])
        raise UsageError(
            f"{spec} is not the energy that was analysed: state {k} has energy {found[k]:.8g} now, "
            f"{states.energy[k]:.8g} in {folder}; analyse it again"
        )
    return energy


def energy_if_found(
    analysis: Analysis, folder: Path, spec: str | None, trust: bool
) -> tuple[Energy | None, LandscapeError | None]:
    """The energy that was analysed and None, or None and why it is not to be had; one that `spec` names has to be.

    What the user's own code prints meanwhile goes to standard error.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return energy_of(analysis, folder, spec, trust), None
    except LandscapeError as error:
        if spec is not None:
            raise
        return None, error


def label_points(
    energy: Energy, points: np.ndarray, minima: np.ndarray, saddles: np.ndarray, report: Callable[[str], None]
) -> np.ndarray:
    """(m,) int64: the minimum that the gradient flow from each point (m, d) reaches, -1 for none of them. `saddles` :
    known ones, which no minimum's region may hold."""
    import torch

    from landscape.search import assign_basins, make_basins

    basins = make_basins(energy, minima, torch.Generator().manual_seed(0), outside=saddles)
    labels = np.full(len(points), -1, dtype=np.int64)
    for start in range(0, len(points), CHUNK):
        part = slice(start, start + CHUNK)
        labels[part] = assign_basins(energy, points[part], basins)
        report(f"assign: {min(start + CHUNK, len(points)):,} of {len(points):,} points")
    return labels


def save_labels(path: Path, labels: np.ndarray) -> None:
    """Write the labels whole or not at all."""
    from landscape.network.export import replace_files

    data = io.BytesIO()
    np.save(data, labels, allow_pickle=False)
    replace_files({path: data.getvalue()})


def located(source: str, recorded: str | None, folder: Path) -> str:
    """The specification under which the energy can be loaded from the present directory."""
    from landscape.store import source_file

    if recorded is None:  # a potential, a module, or a callable that only its own process knew
        if ":" not in source:
            raise UsageError(f"the energy of {folder} was {source}, which is no file: name it with --energy")
        return source
    file, _, name = source.rpartition(":")
    file, name = (file, f":{name}") if Path(file).name == Path(recorded).name else (source, "")
    places = [Path(recorded), Path(file), folder.resolve().parent / file, folder.resolve().parent / Path(file).name]
    for place in places:
        if source_file(f"{place}{name}") is not None:
            return f"{place}{name}"
    raise UsageError(f"the energy of {folder} is not at {recorded} any more: say where it is with --energy")


def is_code(spec: str) -> bool:
    return ":" in spec and not spec.startswith("potential:") and not Path(spec).exists()


def _file_hash(spec: str) -> str | None:
    from landscape.store import source_file

    file = source_file(spec)
    if file is None:
        return None
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _check_unchanged(spec: str, now: str | None, on_record: str | None) -> None:
    if now is not None and on_record is not None and now != on_record:
        raise UsageError(
            f"{spec} has changed since it was analysed (sha256 {now[:12]}, not {on_record[:12]}): analyse it again"
        )
