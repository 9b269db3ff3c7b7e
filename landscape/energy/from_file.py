"""Energies from data files: `.safetensors` rebuilt by architecture, and torch.export archives.

Each reader returns a module and its metadata (with "dim"). Reading data never runs code; an archive of torch.export is
a program, and is read with trust only.
"""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from landscape.energy.architectures import ARCHITECTURES, build
from landscape.energy.energy import first_line
from landscape.energy.metadata import from_json, resolve_dim
from landscape.errors import EnergyError

KEY = "landscape"
CONVERT = "landscape.save_energy(module, 'energy.safetensors') writes a file that is data only"


def read_safetensors(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network that the metadata key `landscape` describes, with the tensors of the file as its parameters."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise EnergyError(f"{path} is not a whole safetensors file ({first_line(error)}); save it again") from error
    if KEY not in header:
        raise EnergyError(
            f"{path} has no metadata key {KEY!r}, so its network is unknown (it holds {names(tensors)}); "
            "write it with landscape.save_energy, see docs/energy-file.md"
        )
    metadata = from_json(header[KEY], str(path))
    name, config = metadata.get("architecture"), metadata.get("config")
    if not isinstance(name, str) or not isinstance(config, dict):
        raise EnergyError(
            f"{path}: the metadata key {KEY!r} names an architecture ({', '.join(ARCHITECTURES)}) and a config object, "
            f"not {name!r} and {config!r}"
        )
    metadata["dim"] = resolve_dim(metadata.get("dim", config.get("dim")), None, str(path))
    if config.setdefault("dim", metadata["dim"]) != metadata["dim"]:
        raise EnergyError(f"{path}: dim is {metadata['dim']}, but config says {config['dim']!r}; save it again")
    return rebuild(name, config, tensors, str(path)), metadata


def rebuild(name: str, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], where: str) -> nn.Module:
    """The architecture `name` with `tensors` as its parameters; EnergyError names what does not fit."""
    with torch.device("meta"):  # neither memory nor random numbers for parameters that are replaced at once
        try:
            module = build(name, config)
        except EnergyError as error:
            raise EnergyError(f"{where}: {error}") from error
    wanted = module.state_dict()
    for problem, keys in (("lacks", wanted.keys() - tensors.keys()), ("has a foreign", tensors.keys() - wanted.keys())):
        if keys:
            raise EnergyError(f"{where} {problem} tensor {names(keys)} for architecture {name!r}; save it again")
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(wanted[key].shape)}"
            raise EnergyError(f"{where}: {key} has shape {shapes} as its config says; save it again")
        if not tensor.is_floating_point():
            raise EnergyError(f"{where}: {key} holds {tensor.dtype}, not floating-point numbers; save it again")
    module.load_state_dict(dict(tensors), assign=True)
    return module


def read_exported(path: Path, trust: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The module of a torch.export archive, with the metadata that `save_energy` put beside it, if any."""
    if not trust:
        raise EnergyError(
            f"{path} is a torch.export archive, and loading one runs code; if you made it, or trust who did, add "
            f"--trust (trust=True in Python), else ask for a .safetensors: {CONVERT}"
        )
    metadata = archive_metadata(path)
    try:
        with quiet():
            program = torch.export.load(path)
            module = program.module()
    except (Exception, SystemExit) as error:  # a damaged archive fails in many ways
        text = f"{type(error).__name__}: {first_line(error)}"
        raise EnergyError(f"torch.export cannot read {path} ({text}); export it again with this torch") from error
    shape = _input_shape(program, str(path))
    if isinstance(shape[0], int):
        raise EnergyError(
            f"{path} was exported for batches of exactly {shape[0]}; export it with "
            'dynamic_shapes=({0: torch.export.Dim("batch")},), as landscape.save_energy does'
        )
    if isinstance(shape[1], int):
        metadata["dim"] = resolve_dim(shape[1], metadata.get("dim"), str(path))
    return module, metadata


def archive_metadata(path: Path) -> dict[str, Any]:
    """The metadata in a torch.export archive, read from the zip file: no code runs."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if name.endswith((f"extra/{KEY}", f"extra_files/{KEY}"))]
            text = archive.read(found[0]).decode() if found else json.dumps({"format": 1})
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as error:
        raise EnergyError(f"{path} is not a whole torch.export archive ({first_line(error)}); save it again") from error
    return from_json(text, str(path))


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, and none of the tracebacks that torch.export logs before it raises."""
    logger = logging.getLogger("torch.export")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def names(keys: Any, most: int = 4) -> str:
    """A few of `keys`, for a message."""
    listed = sorted(str(key) for key in keys)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest if listed else "nothing"


def _input_shape(program: torch.export.ExportedProgram, where: str) -> tuple[Any, Any]:
    inputs = [
        node.meta.get("val")
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    if len(inputs) != 1 or not isinstance(inputs[0], torch.Tensor) or inputs[0].ndim != 2:
        raise EnergyError(
            f"{where} was not exported with one input of shape (n, d); an energy takes points, nothing else"
        )
    return inputs[0].shape[0], inputs[0].shape[1]
