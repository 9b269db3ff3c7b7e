"""Energies: the `Energy` object, loaders for saved files, networks rebuilt by name, analytic potentials.

Names are imported on first use, so that `landscape.energy.catalogue` can be read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from landscape.lazy import on_first_use

if TYPE_CHECKING:
    from landscape.energy.adapt import as_energy
    from landscape.energy.catalogue import describe
    from landscape.energy.energy import Energy, Evaluations
    from landscape.energy.load import load_energy
    from landscape.energy.probe import probe_energy
    from landscape.energy.save import save_energy
    from landscape.energy.symmetry import ParticleSymmetry, Periodic
else:
    __getattr__, __dir__ = on_first_use(
        __name__,
        {
            "adapt": ("as_energy",),
            "catalogue": ("describe",),
            "energy": ("Energy", "Evaluations"),
            "load": ("load_energy",),
            "probe": ("probe_energy",),
            "save": ("save_energy",),
            "symmetry": ("ParticleSymmetry", "Periodic"),
        },
    )

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
