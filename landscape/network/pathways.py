"""The most important reaction pathways: the reactive flux taken apart into single paths.

Of all paths from source to target through the net flow, the one whose weakest edge carries most comes first; that much
is subtracted along it, and so on (Metzner, Schuette and Vanden-Eijnden, Multiscale Model. Simul. 7, 1192, 2009). Each
path then has a flux of its own, and the fluxes add up to the whole where all paths are taken.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from landscape.errors import UsageError
from landscape.network.elimination import Array
from landscape.network.flux import ReactiveFlux, check_connected

_SMALLEST_SHARE = 1e-12  # what is left beyond it is rounding


@dataclass(frozen=True)
class Pathway:
    """states: visited in turn, from source to target. share: of the total flux. log_flux: log of its flux, 1/time.

    limiting: the step (i, j) over which the probability to arrive, the committor, rises most.
    """

    states: tuple[int, ...]
    share: float
    log_flux: float
    limiting: tuple[int, int]


def reaction_pathways(flux: ReactiveFlux, n_paths: int = 5) -> tuple[Pathway, ...]:
    """At most `n_paths` pathways, largest flux first; fewer if the flux is used up. Shares sum to 1 at most.

    Paths of equal flux: the one with fewer steps. O(edges log n) for each. UsageError if n_paths < 1 or nothing flows.
    """
    if n_paths < 1:
        raise UsageError(f"the number of pathways is at least 1, got {n_paths}: ask for one or more")
    check_connected(flux)
    left = flux.log_net.copy()
    found: list[Pathway] = []
    while len(found) < n_paths:
        path = _widest(left, flux.source, flux.target)
        if path is None:
            break
        edges = np.array(path[:-1]), np.array(path[1:])
        carried = left[edges]
        log_flux = float(carried.min())
        share = float(np.exp(log_flux - flux.log_total))
        if share < _SMALLEST_SHARE:
            break
        steepest = int(np.argmax(np.diff(np.exp(flux.log_forward[path]))))
        found.append(Pathway(tuple(path), share, log_flux, (path[steepest], path[steepest + 1])))
        with np.errstate(divide="ignore"):
            left[edges] = carried + np.log(-np.expm1(log_flux - carried))
    return tuple(found)


def _widest(log_net: Array, source: Array, target: Array) -> list[int] | None:
    """The path whose smallest log flow is largest, by Dijkstra's search; None if none is left."""
    came: dict[int, int] = {}
    best = {int(state): (-np.inf, 0) for state in source}
    queue = [(-np.inf, 0, int(state)) for state in source]  # (-width, steps, state)
    heapq.heapify(queue)
    done: set[int] = set()
    ends = set(target.tolist())
    while queue:
        narrow, steps, state = heapq.heappop(queue)
        if state in done:
            continue
        done.add(state)
        if state in ends:
            path = [state]
            while path[-1] in came:
                path.append(came[path[-1]])
            return path[::-1]
        for other in np.flatnonzero(log_net[state] > -np.inf).tolist():
            reach = (max(narrow, -float(log_net[state, other])), steps + 1)
            if other not in done and (other not in best or reach < best[other]):
                best[other], came[other] = reach, state
                heapq.heappush(queue, (*reach, other))
    return None
