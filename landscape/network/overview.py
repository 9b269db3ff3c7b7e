"""Everything the network itself says, as one plain document: what `landscape network` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from landscape.errors import UsageError
from landscape.network.disconnectivity import minimax_path
from landscape.network.export import exp_or_none
from landscape.network.flux import reactive_flux
from landscape.network.lumping import MetastableSets, lump
from landscape.network.pathways import reaction_pathways
from landscape.network.sensitivity import timescale_sensitivity
from landscape.network.spectrum import is_reversible
from landscape.network.transition_network import TransitionNetwork

MOST_SENSITIVITIES = 5  # timescales that are taken apart
SMALLEST_SHARE = 0.01  # saddles and minima that matter less are left out

Document = dict[str, Any]


def network_overview(
    network: TransitionNetwork,
    source: Sequence[int] | None = None,
    target: Sequence[int] | None = None,
    n_sets: int | None = None,
    n_paths: int = 5,
) -> Document:
    """Stationary distribution, timescales, metastable sets, the way from source to target, and sensitivities.

    source, target : states, given both or neither; by default the representatives of the two heaviest sets. n_sets,
    n_paths : as in `lump` and `reaction_pathways`. Logarithms beside plain numbers, null where float64 cannot hold
    them. Parts that cannot be had (sets of a network without detailed balance, ways between separate parts) are null,
    and `notes` says why. UsageError for arguments that do not fit.
    """
    if (source is None) != (target is None):
        raise UsageError("a way has two ends: give both of --from and --to, or none of them")
    notes: list[str] = []
    reversible = is_reversible(network.log_rate_matrix)
    if not reversible:
        notes.append("these rates have no detailed balance: no metastable sets and sensitivities are computed")
        if n_sets is not None:
            raise UsageError("metastable sets need rates with detailed balance, which these have not: leave them out")
    unresolved = bool(np.isnan(network.log_timescales).any())
    if unresolved and n_sets is None:
        notes.append("some timescales are not resolved: metastable sets need their number given")
    sets = lump(network, n_sets) if reversible and not (unresolved and n_sets is None) else None
    if source is None and sets is not None and len(sets.representatives) > 1:
        source, target = [int(sets.representatives[0])], [int(sets.representatives[1])]
    return {
        "format": "learned-landscape/network", "version": 1,
        "states": _states(network, sets),
        **_numbers("timescales", network.log_timescales),
        "sets": None if sets is None else _sets(network, sets),
        "way": None if source is None or target is None else _way(network, source, target, n_paths, notes),
        "sensitivities": _sensitivities(network) if reversible else None,
        "notes": notes,
    }  # fmt: skip


def _states(network: TransitionNetwork, sets: MetastableSets | None) -> list[Document]:
    return [
        {
            "id": k, "energy": float(network.energies[k]), "stationary": exp_or_none(network.log_stationary[k]),
            "log_stationary": _number(network.log_stationary[k]), "part": int(network.components[k]),
            "set": None if sets is None else int(sets.sets[k]),
            "memberships": None if sets is None else sets.memberships[k].tolist(),
        }
        for k in range(network.n_states)
    ]  # fmt: skip


def _sets(network: TransitionNetwork, sets: MetastableSets) -> Document:
    return {
        "representatives": sets.representatives.tolist(),
        "members": [np.flatnonzero(sets.sets == k).tolist() for k in range(len(sets.representatives))],
        "log_gap": _number(sets.log_gap), "crispness": sets.crispness,
        **_numbers("weights", sets.log_weights), **_numbers("timescales", sets.log_timescales),
        "rates": [[exp_or_none(value) for value in row] for row in sets.log_rates],
        "log_rates": [[_number(value) for value in row] for row in sets.log_rates],
    }  # fmt: skip


def _way(
    network: TransitionNetwork, source: Sequence[int], target: Sequence[int], n_paths: int, notes: list[str]
) -> Document | None:
    """Minimax path between the lowest states of both ends, flux, and pathways."""
    flux = reactive_flux(network.log_rate_matrix, source, target, network.log_weights)
    if flux.log_total == -math.inf:
        notes.append(f"no way leads from {list(source)} to {list(target)}: no saddle found connects them")
        return None
    start, end = (int(ends[np.argmin(network.energies[ends])]) for ends in (flux.source, flux.target))
    lowest = minimax_path(network.energies, network.joins, network.saddle_energies, start, end)
    return {
        "from": flux.source.tolist(), "to": flux.target.tolist(),
        "flux": exp_or_none(flux.log_total), "log_flux": flux.log_total,
        "rate": exp_or_none(flux.log_rate), "log_rate": flux.log_rate,
        "minimax": {
            "states": list(lowest.states), "saddles": list(lowest.saddles), "height": lowest.height,
            "highest": lowest.saddles[lowest.highest], "barrier": lowest.height - float(network.energies[start]),
        },
        "pathways": [
            {
                "states": list(path.states), "share": path.share, "log_flux": path.log_flux,
                "limiting_step": list(path.limiting),
            }
            for path in reaction_pathways(flux, n_paths)
        ],
    }  # fmt: skip


def _sensitivities(network: TransitionNetwork) -> list[Document]:
    """d ln t / d(beta E) for the slowest finite timescales, largest first, those of SMALLEST_SHARE and more."""
    if network.n_states == 1 or not network.counted.any():
        return []
    found = timescale_sensitivity(network, MOST_SENSITIVITIES)

    def largest(values: np.ndarray) -> list[tuple[int, float]]:
        order = np.argsort(-np.abs(values), kind="stable")
        return [(int(k), float(values[k])) for k in order if abs(values[k]) >= SMALLEST_SHARE]

    return [
        {
            "timescale": exp_or_none(log_time), "log_timescale": float(log_time),
            "saddles": [{"saddle": k, "derivative": value} for k, value in largest(found.saddles[row])],
            "states": [{"state": k, "derivative": value} for k, value in largest(found.states[row])],
        }
        for row, log_time in enumerate(found.log_timescales)
    ]  # fmt: skip


def _numbers(name: str, logs: np.ndarray) -> Document:
    return {name: [exp_or_none(value) for value in logs], f"log_{name}": [_number(value) for value in logs]}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
