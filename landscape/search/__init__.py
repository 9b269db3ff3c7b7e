"""Search: minima, saddles of every index, what they connect, paths between them, and basins."""

from landscape.search.basins import Basins, make_basins
from landscape.search.connect import SaddleResult, find_saddles
from landscape.search.driver import Status
from landscape.search.explore import SaddleSearch
from landscape.search.flow import FlowOptions, assign_basins
from landscape.search.lbfgs import LBFGS
from landscape.search.minima import MinimaResult, MinimaSearch, Region, find_minima
from landscape.search.mountain_pass import MountainPasses, MountainPassOptions, mountain_pass
from landscape.search.starts import Box, Gaussian, Points
from landscape.search.stationary import Catalogue, StationaryPoints
from landscape.search.string import Paths, StringOptions, string_method
from landscape.search.unseen import Unseen, unseen_probability

__all__ = [
    "LBFGS",
    "Basins",
    "Box",
    "Catalogue",
    "FlowOptions",
    "Gaussian",
    "MinimaResult",
    "MinimaSearch",
    "MountainPassOptions",
    "MountainPasses",
    "Paths",
    "Points",
    "Region",
    "SaddleResult",
    "SaddleSearch",
    "StationaryPoints",
    "Status",
    "StringOptions",
    "Unseen",
    "assign_basins",
    "find_minima",
    "find_saddles",
    "make_basins",
    "mountain_pass",
    "string_method",
    "unseen_probability",
]
