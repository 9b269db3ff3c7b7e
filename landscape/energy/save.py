"""`save_energy`: an energy and its metadata into one file that `load_energy` reads back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import nn

from landscape.energy.adapt import as_energy
from landscape.energy.architectures import ARCHITECTURES, describe_network
from landscape.energy.energy import Energy, first_line
from landscape.energy.from_file import KEY, quiet, read_exported
from landscape.energy.group import Symmetry
from landscape.energy.metadata import checked, to_json
from landscape.errors import EnergyError, UsageError

# Keys that the format writes itself.
OWN_KEYS = ("format", "architecture", "config", "dim")


def save_energy(
    energy: Any,
    path: str | os.PathLike[str],
    *,
    dim: int | None = None,
    dynamics: str | None = None,
    beta: float | None = None,
    gamma: float | Sequence[float] | None = None,
    mass: float | Sequence[float] | None = None,
    rotation: Sequence[Sequence[float]] | None = None,
    units: str | None = None,
    time_unit: str | None = None,
    symmetry: Symmetry | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write an energy to `path`; the suffix says how.

    `.safetensors` holds data only and takes the networks of `landscape.energy.architectures`. `.pt2` is a torch.export
    archive, takes any energy that torch can export, and needs trust to be loaded; what was written is read back and
    its values and gradients compared, since an export can lose derivatives silently.

    energy : an `Energy`, an `nn.Module` or another torch callable (`dim` where it has none).
    dynamics ("overdamped" or "underdamped"), beta, gamma, mass, rotation, units, time_unit, symmetry : None keeps what
        the energy has. extra : further plain data, returned by `load_energy` in `Energy.metadata`.

    The file appears whole or not at all, and replaces one of the same name. UsageError if it cannot be written,
    EnergyError if the energy cannot be saved this way.
    """
    target = Path(path)
    if target.suffix not in (".safetensors", ".pt2"):
        raise UsageError(f"an energy is saved as .safetensors or .pt2, not as {target.name!r}")
    probed = as_energy(energy, dim)
    given = {"dynamics": dynamics, "beta": beta, "gamma": gamma, "mass": mass, "units": units, "time_unit": time_unit}
    turned = {} if rotation is None else {"rotation": _plain(rotation)}
    known = {key: value for key, value in probed.metadata.items() if key not in OWN_KEYS}
    known |= dict(extra or {}) | turned | {key: _plain(value) for key, value in given.items() if value is not None}
    declared = symmetry or probed.symmetry
    if declared is not None:
        known["symmetry"] = declared.record()
    if clash := [key for key in OWN_KEYS if key in (extra or {})]:
        raise UsageError(f"extra metadata may not hold {', '.join(clash)}: the format writes it")
    data = {"dim": probed.dim} | {key: known.pop(key, None) for key in given} | known
    data = checked(data, probed.dim, str(target))
    if target.suffix == ".safetensors":
        _save_network(probed, energy, target, data)
    else:
        _save_program(probed, target, data)
    return target


def _plain(value: Any) -> Any:
    """Numpy and torch numbers as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _save_network(probed: Energy, original: Any, target: Path, data: dict[str, Any]) -> None:
    # the module as given keeps its own precision: a float32 network is not blown up to float64
    module = original if isinstance(original, nn.Module) else probed.function
    described = describe_network(module) if isinstance(module, nn.Module) else None
    if described is None or not isinstance(module, nn.Module):
        raise EnergyError(
            f"{probed.source} is none of the networks that can be rebuilt by name ({', '.join(ARCHITECTURES)}); "
            "save it as .pt2, or name its code as file.py:name"
        )
    name, config = described
    text = to_json({"architecture": name, "config": config} | data, str(target))
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    # Bytes through an ordinary file: safetensors' own writer leaves a file that only its owner can read.
    _write(target, lambda temporary: temporary.write_bytes(save(tensors, metadata={KEY: text})))


class _Flat(nn.Module):
    """The energy's function with the output shape (n,), as a module, for torch.export."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = self.function(x)
        return value[:, 0] if value.ndim == 2 else value


def _save_program(energy: Energy, target: Path, data: dict[str, Any]) -> None:
    module = _Flat(energy.function).eval()
    # two rows or more: an example of one would fix the batch size at one
    example = torch.randn(4, energy.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    example = example.to(dtype=energy.dtype, device=energy.device)
    try:
        with quiet():
            shapes = ({0: torch.export.Dim("batch")},)
            program = torch.export.export(module, (example,), dynamic_shapes=shapes)
    except Exception as error:  # tracing runs the user's code
        text = f"{type(error).__name__}: {first_line(error)}"
        raise EnergyError(
            f"torch.export cannot export {energy.source} ({text}); name its code as file.py:name"
        ) from error

    def write(temporary: Path) -> None:
        with quiet():
            torch.export.save(program, temporary, extra_files={KEY: to_json(data, str(target))})
        _compare(energy, Energy(read_exported(temporary, trust=True)[0], energy.dim, dtype=energy.dtype), example)

    _write(target, write)


def _compare(energy: Energy, saved: Energy, x: torch.Tensor) -> None:
    saved.device = energy.device
    try:
        for rows in (x, x[:1], x.repeat(3, 1)):
            pairs = zip(saved.value_and_gradient(rows), energy.value_and_gradient(rows), strict=True)
            if not all(torch.allclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True) for a, b in pairs):
                raise EnergyError("its values or gradients changed")
    except Exception as error:  # the exported program may fail in any way
        raise EnergyError(
            f"torch.export does not keep {energy.source} ({first_line(error)}), as when a model calls autograd.grad in "
            "its forward pass; name its code as file.py:name instead"
        ) from error


def _write(target: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary name beside `target`, then rename."""
    if not target.parent.is_dir():
        raise UsageError(f"{target} cannot be written: there is no folder {target.parent}; make it first")
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        write(temporary)
        os.replace(temporary, target)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"{target} cannot be written: {first_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)
