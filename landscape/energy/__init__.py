"""Energies: the `Energy` object, loaders for saved files, networks rebuilt by name, analytic potentials.

Names are imported on first use, so that `landscape.energy.catalogue` can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscape.energy.adapt import as_energy
    from landscape.energy.catalogue import describe
    from landscape.energy.energy import Energy, Evaluations
    from landscape.energy.load import load_energy
    from landscape.energy.probe import probe_energy
    from landscape.energy.save import save_energy
    from landscape.energy.symmetry import ParticleSymmetry, Periodic

_HOMES = {
    "Energy": "energy",
    "Evaluations": "energy",
    "ParticleSymmetry": "symmetry",
    "Periodic": "symmetry",
    "as_energy": "adapt",
    "describe": "catalogue",
    "load_energy": "load",
    "probe_energy": "probe",
    "save_energy": "save",
}

__all__ = [
    "Energy",
    "Evaluations",
    "ParticleSymmetry",
    "Periodic",
    "as_energy",
    "describe",
    "load_energy",
    "probe_energy",
    "save_energy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
