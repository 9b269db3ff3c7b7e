"""learned-landscape: states, weights, paths and rates of any learned energy function.

Public names are imported on first use (PEP 562), so that `import landscape`, and with it `landscape --help`,
does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from landscape.lazy import on_first_use

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
else:
    __getattr__, __dir__ = on_first_use(
        __name__,
        {
            "analysis": ("AnalysisConfig", "analyze"),
            "comparison": ("Comparison", "compare_analyses"),
            "dynamics": ("Overdamped", "Underdamped", "from_metadata"),
            "energy": ("Energy", "ParticleSymmetry", "Periodic", "as_energy", "load_energy", "save_energy"),
            "network": ("TransitionNetwork",),
            "report": ("report_page",),
            "sampling": ("SampleOptions", "sample"),
            "search": (
                "assign_basins",
                "find_minima",
                "find_saddles",
                "make_basins",
                "mountain_pass",
                "string_method",
            ),
            "store": ("Analysis",),
            "weights": (
                "ExactWeights",
                "SampledWeights",
                "exact_weights",
                "sample_weights",
                "sublevel_basins",
            ),
        },
    )

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
