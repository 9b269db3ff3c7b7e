"""The network of states: rate matrix algebra in logarithms, `TransitionNetwork`, exports. Knows no energies."""

from landscape.network.algebra import (
    committor,
    communicating_classes,
    components,
    log_mfpt,
    log_mfpt_to,
    log_stationary,
)
from landscape.network.disconnectivity import (
    DisconnectivityTree,
    MinimaxPath,
    disconnectivity_tree,
    minimax_heights,
    minimax_path,
)
from landscape.network.export import FORMATS, export_network, states_table, transitions_table
from landscape.network.spectrum import is_reversible, log_timescales
from landscape.network.transition_network import TransitionNetwork

__all__ = [
    "FORMATS",
    "DisconnectivityTree",
    "MinimaxPath",
    "TransitionNetwork",
    "committor",
    "communicating_classes",
    "components",
    "disconnectivity_tree",
    "export_network",
    "is_reversible",
    "log_mfpt",
    "log_mfpt_to",
    "log_stationary",
    "log_timescales",
    "minimax_heights",
    "minimax_path",
    "states_table",
    "transitions_table",
]
