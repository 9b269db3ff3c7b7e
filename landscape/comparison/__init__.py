"""Two analyses side by side: two seeds, two checkpoints, two dynamics."""

from landscape.comparison.compare import METHODS, Comparison, compare_analyses
from landscape.comparison.matching import match_networks, match_positions, match_weights

__all__ = [
    "METHODS",
    "Comparison",
    "compare_analyses",
    "match_networks",
    "match_positions",
    "match_weights",
]
