"""Any torch callable in memory as a probed `Energy`."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MethodType
from typing import Any

import torch
from torch import nn

from landscape.energy.energy import Energy, first_line
from landscape.energy.from_code import instance_of
from landscape.energy.group import Symmetry
from landscape.energy.metadata import checked, resolve_dim
from landscape.energy.probe import probe_energy
from landscape.energy.symmetry import from_record
from landscape.errors import EnergyError, UsageError

DTYPES = {"float64": torch.float64, "float32": torch.float32}


def as_energy(
    obj: Any,
    dim: int | None = None,
    *,
    dtype: str | torch.dtype = "float64",
    device: str | torch.device = "cpu",
    metadata: Mapping[str, Any] | None = None,
    source: str | None = None,
    sha256: str | None = None,
) -> Energy:
    """An `Energy` made from a torch callable, probed.

    obj : a function (n, d) -> (n,) or (n, 1); an `nn.Module`, or a method of one, of which a copy is cast, frozen and
        put into evaluation mode, so that yours stays as it is; a class of these without required arguments, of which
        one is made; an `Energy`, which is returned unchanged.
    dim : d; needed where `obj` has no attribute `dim`.
    metadata : dynamics, beta, gamma, mass, units, time_unit, symmetry and what else belongs to the energy; default
        `obj.metadata` if that is a mapping. An attribute `obj.symmetry` wins over the metadata's.
    EnergyError if `obj` is not a usable energy.
    """
    if isinstance(obj, Energy):
        resolve_dim(obj.dim, dim, obj.source)
        return obj
    name = source or _name(obj)
    if inspect.isclass(obj):
        obj = instance_of(obj, name)
        if isinstance(obj, Energy):
            return as_energy(obj, dim)
    if not callable(obj):
        raise EnergyError(f"an energy is a torch callable, not {type(obj).__name__} ({name})")
    found = getattr(obj, "dim", None)
    d = resolve_dim(None if callable(found) else found, dim, name)
    if metadata is None:
        own = getattr(obj, "metadata", None)
        metadata = own if isinstance(own, Mapping) else {}
    place, precision = as_device(device), as_dtype(dtype)
    energy = Energy(
        own_copy(obj, precision, place, name),
        d,
        metadata=checked(metadata, d, name),
        source=name,
        sha256=sha256,
        dtype=precision,
        device=place,
        zero_modes=str(getattr(obj, "zero_modes", "") or ""),
        symmetry=_symmetry(obj, metadata, d, name),
    )
    probe_energy(energy)
    return energy


def _symmetry(obj: Any, metadata: Mapping[str, Any], dim: int, name: str) -> Symmetry | None:
    """What the energy itself declares, else its metadata."""
    own = getattr(obj, "symmetry", None)
    found = metadata.get("symmetry") if own is None or callable(own) else own
    return None if found is None else from_record(found, dim, name)


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """float64 or float32, by name or as the torch object."""
    for name, found in DTYPES.items():
        if dtype in (name, found):
            return found
    raise UsageError(f"the dtype of an energy is {' or '.join(DTYPES)}, not {dtype}")


def as_device(device: str | torch.device) -> torch.device:
    """The torch device; UsageError if there is none of that name here."""
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no usable device {str(device)!r} here ({first_line(error)}); use cpu") from error
    return place


def own_copy(obj: Any, dtype: torch.dtype, device: torch.device, name: str) -> Callable[..., torch.Tensor]:
    """A function of its own for an energy: modules are copied, frozen and cast; other callables stay what they are."""
    if isinstance(obj, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        raise EnergyError(
            f"{name} is TorchScript, which is not supported (torch.func is silently wrong on it); "
            "pass the Python module itself, or save that with landscape.save_energy"
        )
    if isinstance(obj, nn.Module):
        return _frozen(obj, dtype, device, name)
    owner = getattr(obj, "__self__", None)
    if isinstance(owner, nn.Module):
        return MethodType(obj.__func__, _frozen(owner, dtype, device, name))
    return obj


def _frozen(module: nn.Module, dtype: torch.dtype, device: torch.device, name: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, from copying an exported graph
            module = copy.deepcopy(module)
    except (RuntimeError, TypeError, ValueError) as error:
        raise EnergyError(f"{name} cannot be copied ({first_line(error)}); pass a function of it") from error
    module.to(device=device, dtype=dtype)
    with suppress(NotImplementedError):  # a torch.export module has no modes: it keeps the one it was exported in
        module.eval()
    for key, parameter in module.named_parameters():
        parameter.requires_grad_(False)
        if not bool(torch.isfinite(parameter).all()):
            raise EnergyError(f"parameter {key} of {name} holds NaN or infinity; train or save it again")
    return module


def _name(obj: Any) -> str:
    if isinstance(obj, nn.Module):
        return type(obj).__name__
    return f"{getattr(obj, '__module__', None) or '?'}.{getattr(obj, '__qualname__', type(obj).__name__)}"
