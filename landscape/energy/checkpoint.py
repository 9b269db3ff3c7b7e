"""Energies from files of `torch.save`: published NLD checkpoints, and pickled modules with trust only.

The NLD paper's models are state dicts. Their energy network is `energy_landscape.*` (a `ResidualMLP`);
beta = softplus(_beta); overdamped gamma = gamma; underdamped gamma = softplus(_gamma), mass = 1/softplus(_i_mass).
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from landscape.energy.energy import first_line
from landscape.energy.from_code import importable_from
from landscape.energy.from_file import CONVERT, names, rebuild
from landscape.errors import EnergyError

NETWORK = "energy_landscape."
# Keys under which training scripts commonly nest the state dict.
NESTED = ("state_dict", "model_state_dict", "model")
# Names that a file of tensors alone needs as well.
HARMLESS = re.compile(r"collections\.OrderedDict|torch\._utils\._rebuild\w+|torch\.\w*Storage|torch\.\w*storage.*")


def read_checkpoint(path: Path, trust: bool) -> tuple[Any, dict[str, Any] | None]:
    """The energy network of a state dict with its metadata; or, with trust, the pickled callable itself.

    EnergyError for a pickle that wants more than tensors unless `trust`, naming what it wants.
    """
    content = _load(path, trust)
    if isinstance(content, Mapping):
        for key in NESTED:
            if isinstance(content.get(key), Mapping | nn.Module):
                content = content[key]
                break
    if isinstance(content, Mapping):
        return from_state_dict(content, str(path))
    if callable(content):
        return content, None
    raise EnergyError(f"{path} holds a {type(content).__name__}, neither a state dict nor an energy; {CONVERT}")


def from_state_dict(state: Mapping[str, Any], where: str) -> tuple[nn.Module, dict[str, Any]]:
    """The `ResidualMLP` in a state dict of a published NLD model, or of its energy network alone."""
    for prefix in (NETWORK, ""):
        if f"{prefix}in_block.0.weight" in state:
            break
    else:
        raise EnergyError(
            f"{where} is a state dict without an energy network that is known here (no {NETWORK}in_block.0.weight; it "
            f"holds {names(state)}); load it into your module and save that: {CONVERT}"
        )
    tensors = {key.removeprefix(prefix): value for key, value in state.items() if str(key).startswith(prefix)}
    if not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise EnergyError(f"{where}: the energy network holds more than tensors; {CONVERT}")
    weight = tensors["in_block.0.weight"]
    if weight.ndim != 2:
        raise EnergyError(f"{where}: in_block.0.weight is a matrix, not of shape {tuple(weight.shape)}; save it again")
    config = {
        "dim": int(weight.shape[1]),
        "width": int(weight.shape[0]),
        "features": tensors["in_block.2.bias"].numel() if "in_block.2.bias" in tensors else 1,
        "n_blocks": len({key.split(".")[1] for key in tensors if key.startswith("blocks.")}),
    }
    metadata: dict[str, Any] = {"architecture": "residual-mlp", "config": config, "dim": config["dim"]}
    module = rebuild("residual-mlp", config, tensors, where)
    return module, metadata | (_dynamics(state, where) if prefix else {})


def _dynamics(state: Mapping[str, Any], where: str) -> dict[str, Any]:
    """dynamics, beta, gamma and mass of a published model; the time unit is the models' own."""
    underdamped = "_i_mass" in state
    wanted = ("_beta", "_gamma", "_i_mass") if underdamped else ("_beta", "gamma")
    missing = [key for key in wanted if not isinstance(state.get(key), torch.Tensor) or not state[key].numel()]
    if missing:
        raise EnergyError(f"{where} lacks {', '.join(missing)}, which the dynamics of an NLD checkpoint needs")
    beta, gamma, *inverse_mass = (state[key].detach().to(torch.float64).reshape(-1) for key in wanted)
    return {
        "dynamics": "underdamped" if underdamped else "overdamped",
        "beta": float(functional.softplus(beta)[0]),
        "gamma": (functional.softplus(gamma) if underdamped else gamma).tolist(),
        "mass": (1 / functional.softplus(inverse_mass[0])).tolist() if inverse_mass else None,
        "units": None,
        "time_unit": None,
    }


def _load(path: Path, trust: bool) -> Any:
    try:
        with warnings.catch_warnings(), importable_from(Path.cwd()):
            warnings.simplefilter("ignore")  # advice to torch's developers about pickle protocols
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except (Exception, SystemExit) as error:  # torch.load raises whatever its unpickler meets
        if trust:
            text = f"{type(error).__name__}: {first_line(error)}"
            raise EnergyError(
                f"{path} cannot be unpickled ({text}); the code of its classes must be importable from here"
            ) from error
        wanted = wanted_names(path)
        if not wanted:
            raise EnergyError(
                f"{path} is not a checkpoint that torch can read ({type(error).__name__}): truncated, or another kind "
                "of file; copy or save it again"
            ) from error
        raise EnergyError(
            f"{path} is a pickle that wants to run {names(wanted)}; if you made it, or trust who did, add --trust "
            f"(trust=True in Python), else ask for a .safetensors: {CONVERT}"
        ) from error


def wanted_names(path: Path) -> list[str]:
    """The module-level names a pickle imports, beyond those of plain tensors, found without running it."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inside = [name for name in archive.namelist() if name.endswith("data.pkl")]
                data = archive.read(inside[0]) if inside else b""
        else:
            data = path.read_bytes()
    except (OSError, zipfile.BadZipFile, KeyError):
        return []
    found: list[str] = []
    texts: list[str] = []
    stream = io.BytesIO(data)
    with suppress(ValueError, pickle.UnpicklingError, IndexError):  # keep the names up to the damage
        while stream.tell() < len(data):  # older files of torch.save are several pickles in a row, then raw numbers
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    found.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    found.append(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
    return sorted({name for name in found if not HARMLESS.fullmatch(name)})
