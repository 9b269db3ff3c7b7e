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
from landscape.network.flux import ReactiveFlux, reactive_flux
from landscape.network.lumping import MetastableSets, lump
from landscape.network.markov_model import default_lag_time, to_deeptime, transition_matrix
from landscape.network.overview import network_overview
from landscape.network.pathsample import export_pathsample
from landscape.network.pathways import Pathway, reaction_pathways
from landscape.network.sensitivity import TimescaleSensitivity, timescale_sensitivity
from landscape.network.spectrum import is_reversible, log_timescales
from landscape.network.transition_network import TransitionNetwork

__all__ = [
    "FORMATS",
    "DisconnectivityTree",
    "MetastableSets",
    "MinimaxPath",
    "Pathway",
    "ReactiveFlux",
    "TimescaleSensitivity",
    "TransitionNetwork",
    "committor",
    "communicating_classes",
    "components",
    "default_lag_time",
    "disconnectivity_tree",
    "export_network",
    "export_pathsample",
    "is_reversible",
    "log_mfpt",
    "log_mfpt_to",
    "log_stationary",
    "log_timescales",
    "lump",
    "minimax_heights",
    "minimax_path",
    "network_overview",
    "reaction_pathways",
    "reactive_flux",
    "states_table",
    "timescale_sensitivity",
    "to_deeptime",
    "transition_matrix",
    "transitions_table",
]
