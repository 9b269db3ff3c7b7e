"""`load_energy`: whatever the user names, as a probed `Energy`."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from landscape.energy.adapt import as_device, as_dtype, as_energy
from landscape.energy.catalogue import PREFIX, parse, specification
from landscape.energy.checkpoint import read_checkpoint
from landscape.energy.energy import Energy
from landscape.energy.from_code import public_names, read_code
from landscape.energy.from_file import CONVERT, read_exported, read_safetensors
from landscape.energy.metadata import resolve_dim
from landscape.energy.potentials import MAKERS
from landscape.energy.probe import probe_energy
from landscape.energy.recipe import Recipe, absolute
from landscape.errors import EnergyError

FORMS = ".safetensors, .pth, .pt, .pt2, file.py:name, package.module:name or potential:NAME"
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".pkl", ".bin")


def load_energy(
    spec: Any,
    *,
    dim: int | None = None,
    trust: bool = False,
    dtype: str | torch.dtype = "float64",
    device: str | torch.device = "cpu",
) -> Energy:
    """The energy that `spec` names, probed: its derivatives are checked, its evaluation counters stand at zero.

    spec : a path to `.safetensors`, `.pth`/`.pt` (a published NLD checkpoint, or a pickled module with trust) or
        `.pt2` (torch.export, with trust); `file.py:name` or `package.module:name`; `potential:NAME[:key=value,...]`;
        or a torch callable in memory, see `as_energy`. An `Energy` named in code keeps its own dtype and device.
    dim : d, where the energy does not say it itself; EnergyError if it contradicts the energy.
    trust : allow files that run code when they are loaded.
    dtype, device : of every evaluation.

    EnergyError, one line, for anything that cannot be loaded or is not a usable energy.
    """
    as_dtype(dtype), as_device(device)  # before a slow load
    if isinstance(spec, os.PathLike):
        spec = os.fspath(spec)
    if not isinstance(spec, str):
        return as_energy(spec, dim, dtype=dtype, device=device)
    obj: Any
    sha256: str | None
    metadata: Mapping[str, Any] | None
    try:
        if spec.startswith(PREFIX):
            name, values = parse(spec)
            obj, metadata = MAKERS[name](**values), {}
            sha256 = hashlib.sha256(specification(name, values).encode()).hexdigest()
        elif _is_code(spec):
            obj, file = read_code(spec)
            metadata, sha256 = None, _sha256(file) if file else None
        else:
            path = _existing(spec)
            obj, metadata = _read(path, trust)
            sha256 = _sha256(path)
            if metadata is not None and metadata.get("dim") is not None:
                dim = resolve_dim(metadata["dim"], dim, spec)
    except OSError as error:
        raise EnergyError(f"{spec} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise EnergyError(f"{spec} does not fit into memory") from error
    if isinstance(obj, Energy):
        resolve_dim(obj.dim, dim, spec)
        obj.source, obj.sha256 = spec, sha256
        probe_energy(obj)
        energy = obj
    else:
        energy = as_energy(obj, dim, dtype=dtype, device=device, metadata=metadata, source=spec, sha256=sha256)
    precision = str(energy.dtype).removeprefix("torch.")
    energy.recipe = Recipe(absolute(spec), energy.dim, trust, precision, str(energy.device), sha256)
    return energy


def _is_code(spec: str) -> bool:
    return ":" in spec and not Path(spec).exists()


def _existing(spec: str) -> Path:
    path = Path(spec)
    if not spec.strip():
        raise EnergyError(f"an empty text is no energy; name an energy: {FORMS}")
    if path.is_dir():
        raise EnergyError(f"{spec} is a folder; name an energy: {FORMS}")
    if not path.exists():
        raise EnergyError(f"{spec}: there is no such file; an energy is {FORMS}")
    if path.suffix == ".py":
        defined = public_names(path)
        example = defined[0] if defined else "name"
        raise EnergyError(f"{spec}: say which object is the energy, as in {spec}:{example}")
    if path.stat().st_size == 0:
        raise EnergyError(f"{spec} is an empty file; copy or save it again")
    return path


def _read(path: Path, trust: bool) -> tuple[Any, Mapping[str, Any] | None]:
    """By content where it tells, since `.pt` is used for four formats; else by suffix."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    inside = _zip_names(path)
    if path.suffix == ".pt2" and not inside:
        raise EnergyError(f"{path} is not a torch.export archive: truncated, or another kind of file; save it again")
    if path.suffix == ".pt2" or any(name.endswith("models/model.json") for name in inside):
        return read_exported(path, trust)
    if any(name.endswith("constants.pkl") for name in inside):
        raise EnergyError(
            f"{path} is TorchScript, which is not supported (deprecated, and torch.func is silently wrong on it); "
            f"load its Python module and save that: {CONVERT}"
        )
    if path.suffix in CHECKPOINTS or any(name.endswith("data.pkl") for name in inside):
        return read_checkpoint(path, trust)
    raise EnergyError(f"{path} is no kind of file that is known here; an energy is {FORMS}")


def _zip_names(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
