"""learned-landscape: states, weights, paths and rates of any learned energy function.

Public names are imported on first use (PEP 562), so that `import landscape`, and with it `landscape --help`,
does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscape.analysis import AnalysisConfig, analyze
    from landscape.comparison import Comparison, compare_analyses
    from landscape.dynamics import Overdamped, Underdamped, from_metadata
    from landscape.energy import Energy, ParticleSymmetry, Periodic, as_energy, load_energy, save_energy
    from landscape.network import TransitionNetwork
    from landscape.report import report_page
    from landscape.sampling import SampleOptions, sample
    from landscape.search import (
        assign_basins,
        find_minima,
        find_saddles,
        make_basins,
        mountain_pass,
        string_method,
    )
    from landscape.store import Analysis
    from landscape.weights import ExactWeights, SampledWeights, exact_weights, sample_weights, sublevel_basins

__version__ = "0.1.0"

__all__ = [
    "Analysis",
    "AnalysisConfig",
    "Comparison",
    "Energy",
    "ExactWeights",
    "Overdamped",
    "ParticleSymmetry",
    "Periodic",
    "SampleOptions",
    "SampledWeights",
    "TransitionNetwork",
    "Underdamped",
    "__version__",
    "analyze",
    "as_energy",
    "assign_basins",
    "compare_analyses",
    "exact_weights",
    "find_minima",
    "find_saddles",
    "from_metadata",
    "load_energy",
    "make_basins",
    "mountain_pass",
    "report_page",
    "sample",
    "sample_weights",
    "save_energy",
    "string_method",
    "sublevel_basins",
]

_HOMES = {
    "landscape.analysis": ("AnalysisConfig", "analyze"),
    "landscape.comparison": ("Comparison", "compare_analyses"),
    "landscape.dynamics": ("Overdamped", "Underdamped", "from_metadata"),
    "landscape.energy": ("Energy", "ParticleSymmetry", "Periodic", "as_energy", "load_energy", "save_energy"),
    "landscape.network": ("TransitionNetwork",),
    "landscape.report": ("report_page",),
    "landscape.sampling": ("SampleOptions", "sample"),
    "landscape.search": (
        "assign_basins",
        "find_minima",
        "find_saddles",
        "make_basins",
        "mountain_pass",
        "string_method",
    ),
    "landscape.store": ("Analysis",),
    "landscape.weights": (
        "ExactWeights",
        "SampledWeights",
        "exact_weights",
        "sample_weights",
        "sublevel_basins",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'landscape' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
