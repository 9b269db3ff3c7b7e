"""Which states of a network are drawn, what joins them, and where they stand. Plain arrays; nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np

from landscape.network import TransitionNetwork, disconnectivity_tree
from landscape.store import Analysis

Array = np.ndarray

MAX_NODES = 30
COLUMNS = {"exact": "exact", "sampled": "sampled", "second": "2nd order", "zeroth": "0th order"}


@dataclass(frozen=True, eq=False)
class Edges:
    """e edges between k states. ends (e, 2): places in the list of states.

    barrier (e, 2): reduced barriers (kT) from either end over the lowest way. log_rate, log_flux (e, 2): of the rate
    from either end, summed over parallel saddles, and of rate times stationary weight. direct (e,): False where the
    lowest way leads through states outside the list; the logarithms are -inf there.
    """

    ends: Array
    barrier: Array
    log_rate: Array
    log_flux: Array
    direct: Array


def log_weights(analysis: Analysis, column: str | None = None) -> tuple[Array, str]:
    """log weights (n,) and the words for them: of a column of `COLUMNS`, by default the first one that is known.

    -inf where a method gave a state nothing.
    """
    columns = analysis.network.weights
    for name, words in COLUMNS.items():
        if name in columns and np.isfinite(columns[name]).all() and column in (None, name):
            known = {"second": analysis.log_second, "zeroth": analysis.log_zeroth}
            if name in known:
                return known[name], words
            with np.errstate(divide="ignore"):
                return np.log(columns[name]), words
    return analysis.log_second, COLUMNS["second"]


def heaviest(log_weight: Array, count: int) -> Array:
    """The `count` heaviest states, heaviest first; of equal ones, the first."""
    return np.argsort(-log_weight, kind="stable")[:count]


def edges_between(network: TransitionNetwork, beta: float, shown: Array) -> Edges:
    """Edges between the states `shown` (k,): one for every pair that saddles join, and those that keep the drawing in
    one piece where the lowest way from one part to another leads through states that are not shown."""
    place = np.full(network.n_states, -1)
    place[shown] = np.arange(len(shown))
    lowest: dict[tuple[int, int], float] = {}
    pairs = np.sort(place[network.joins], axis=1)
    for saddle in np.flatnonzero(network.counted & (pairs[:, 0] >= 0)):
        pair = (int(pairs[saddle, 0]), int(pairs[saddle, 1]))
        lowest[pair] = min(lowest.get(pair, np.inf), float(network.saddle_energies[saddle]))
    indirect = _indirect(network, place, set(lowest)) if len(shown) < network.n_states else {}
    ends = np.array([*lowest, *indirect], dtype=int).reshape(-1, 2)
    energy = np.array([*lowest.values(), *indirect.values()])
    direct = np.arange(len(ends)) < len(lowest)
    states = shown[ends]
    forward = network.log_rate_matrix[states[:, 0], states[:, 1]]
    log_rate = np.stack([forward, network.log_rate_matrix[states[:, 1], states[:, 0]]], axis=1)
    barrier = beta * (energy[:, None] - network.energies[states])
    return Edges(ends, barrier, log_rate, log_rate + network.log_stationary[states], direct)


def _indirect(network: TransitionNetwork, place: Array, known: set[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """Pairs of shown states whose groups merge over a way through states that are not shown, and the height of that
    merge; a group is named after its heaviest shown state."""
    tree = disconnectivity_tree(network.energies, network.joins, network.saddle_energies)
    name = np.concatenate([place, np.full(len(tree.heights), -1)])
    found: dict[tuple[int, int], float] = {}
    for merge, (a, b) in enumerate(tree.children.tolist()):
        low, high = sorted((int(name[a]), int(name[b])))
        name[network.n_states + merge] = high if low < 0 else low
        if low >= 0 and (low, high) not in known and (place[network.joins[tree.saddles[merge]]] < 0).any():
            found[low, high] = float(tree.heights[merge])
    return found


def positions(coordinates: Array, ends: Array) -> Array:
    """Where k states stand on the page, (k, 2), within the unit square: the same on every run.

    Kamada-Kawai (distances in the drawing like the number of edges between states) from the two principal components of
    the coordinates (k, d), then turned and mirrored to lie as those components do.
    """
    k = len(coordinates)
    start = principal_plane(coordinates)
    if k < 3:
        ends_of_line = np.array([[0.0, 0.5], [1.0, 0.5]])
        return ends_of_line[np.argsort(start[:, 0]).argsort()] if k == 2 else np.array([[0.5, 0.5]])
    graph = nx.Graph()
    graph.add_nodes_from(range(k))
    graph.add_edges_from(ends.tolist())
    steps = dict(nx.all_pairs_shortest_path_length(graph))
    far = 1 + max(max(row.values()) for row in steps.values())
    distance = {i: {j: float(steps[i].get(j, far)) for j in range(k)} for i in range(k)}
    placed = nx.kamada_kawai_layout(graph, dist=distance, pos=dict(enumerate(start)))
    found = np.array([placed[i] for i in range(k)])
    found = _turned(found - found.mean(axis=0), start - start.mean(axis=0))
    return (found - found.min(axis=0)) / max(float(np.ptp(found, axis=0).max()), 1e-300)


def principal_plane(points: Array) -> Array:
    """Two principal components (k, 2) of points (k, d), scaled to a spread of 1; signs fixed by the largest loading.

    A small regular polygon is added, so that points on a line or on top of each other come apart.
    """
    centred = points - points.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
    plane = np.zeros((len(points), 2))
    plane[:, : len(axes)] = centred @ axes.T
    angle = 2 * np.pi * np.arange(len(points)) / len(points)
    return plane / max(float(np.abs(plane).max()), 1e-300) + 0.05 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def apart(place: Array, radius: Array, rounds: int = 200) -> Array:
    """Positions (k, 2) moved as little as it takes for discs of these radii (k,), same unit, not to overlap."""
    place = place.copy()
    first, second = np.triu_indices(len(place), 1)
    wanted = radius[first] + radius[second]
    for _ in range(rounds):
        step = place[second] - place[first]
        distance = np.maximum(np.linalg.norm(step, axis=1), 1e-9 * wanted)
        push = np.maximum(wanted - distance, 0)
        if not (push > 1e-3 * wanted).any():
            break
        move = 0.5 * (push / distance)[:, None] * step
        np.add.at(place, second, move)
        np.subtract.at(place, first, move)
    return place


def _turned(points: Array, like: Array) -> Array:
    """Points (k, 2) turned and mirrored, as they lie closest to `like` (orthogonal Procrustes)."""
    left, _, right = np.linalg.svd(points.T @ like)
    return points @ left @ right
