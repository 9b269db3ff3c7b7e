"""Disconnectivity tree and minimax barriers against brute force over all paths."""

from __future__ import annotations

import itertools
import time

import networkx as nx
import numpy as np
import pytest

from landscape.errors import UsageError
from landscape.network import DisconnectivityTree, disconnectivity_tree, minimax_heights, minimax_path


def random_landscape(seed: int, n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minima, and saddles above both of their sides; some with an unknown side, loops, parallel and equal ones."""
    rng = np.random.default_rng(seed)
    energies = rng.normal(size=n)
    joins = rng.integers(-1, n, (m, 2))
    sides = np.where(joins >= 0, energies[np.maximum(joins, 0)], -np.inf)
    saddles = np.maximum(sides.max(axis=1), -3) + np.round(rng.exponential(1, m), 1)
    return energies, joins, saddles


def brute_force(energies: np.ndarray, joins: np.ndarray, saddles: np.ndarray, i: int, j: int) -> float:
    """The lowest highest saddle over every simple path, one by one."""
    if i == j:
        return float(energies[i])
    graph = nx.MultiGraph()
    graph.add_nodes_from(range(len(energies)))
    graph.add_edges_from((int(a), int(b), s) for s, (a, b) in enumerate(joins) if a >= 0 and b >= 0 and a != b)
    paths = nx.all_simple_edge_paths(graph, i, j)
    return min((max(saddles[key] for _, _, key in path) for path in paths), default=np.inf)


def leaves(tree: DisconnectivityTree, node: int) -> set[int]:
    n = len(tree.energies)
    return {node} if node < n else set().union(*(leaves(tree, int(c)) for c in tree.children[node - n]))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n", "m"), [(6, 4), (7, 9), (7, 14)])
def test_barriers_are_those_of_all_paths(seed: int, n: int, m: int) -> None:
    energies, joins, saddles = random_landscape(seed, n, m)
    exact = np.array([[brute_force(energies, joins, saddles, i, j) for j in range(n)] for i in range(n)])
    np.testing.assert_array_equal(minimax_heights(energies, joins, saddles), exact)
    tree = disconnectivity_tree(energies, joins, saddles)
    ours = np.array([[tree.barrier(i, j) for j in range(n)] for i in range(n)])
    np.testing.assert_array_equal(ours, exact)
    for i, j in itertools.permutations(range(n), 2):
        if exact[i, j] == np.inf:
            with pytest.raises(UsageError, match=f"connects states {i} and {j}"):
                minimax_path(energies, joins, saddles, i, j)
            continue
        path = minimax_path(energies, joins, saddles, i, j)
        assert path.states[0] == i and path.states[-1] == j and len(set(path.states)) == len(path.states)
        for a, b, saddle in zip(path.states[:-1], path.states[1:], path.saddles, strict=True):
            assert {a, b} == set(joins[saddle].tolist())
        assert path.height == max(saddles[list(path.saddles)]) == saddles[path.saddles[path.highest]] == exact[i, j]
        # every piece of a minimax path of the forest is minimax itself
        for k, saddle in enumerate(path.saddles):
            assert saddles[saddle] == exact[path.states[k], path.states[k + 1]]


@pytest.mark.parametrize("seed", range(5))
def test_the_tree_is_whole_and_drawn_without_crossings(seed: int) -> None:
    energies, joins, saddles = random_landscape(seed, 40, 55)
    tree = disconnectivity_tree(energies, joins, saddles)
    n, k = len(energies), len(tree.heights)
    graph = nx.Graph([pair for pair in joins.tolist() if min(pair) >= 0])
    graph.add_nodes_from(range(n))
    groups = {frozenset(group) for group in nx.connected_components(graph)}
    assert {frozenset(leaves(tree, int(root))) for root in tree.roots} == groups and len(tree.roots) == n - k
    assert np.all(np.diff(tree.heights) >= 0) and np.array_equal(saddles[tree.saddles], tree.heights)
    assert sorted(tree.order.tolist()) == list(range(n))
    place = np.argsort(tree.order)
    for node in range(n + k):
        spots = place[list(leaves(tree, node))]
        assert np.ptp(spots) == len(spots) - 1
        assert tree.positions[node] == pytest.approx(spots.mean())
        if node >= n:
            assert np.all(tree.parents[tree.children[node - n]] == node)
            assert np.all(tree.node_energies[tree.children[node - n]] <= tree.node_energies[node])


def test_three_wells_by_hand() -> None:
    """1 and 2 merge at 3 over the lower of two parallel saddles, 0 joins at 5, 3 stays alone."""
    joins = [[1, 2], [2, 1], [0, 2], [0, 1], [3, 3], [3, -1]]
    tree = disconnectivity_tree(np.array([0.0, 1.0, 2.0, 0.5]), np.array(joins), np.array([4.0, 3, 5, 6, 2, 2]))
    assert tree.heights.tolist() == [3, 5] and tree.saddles.tolist() == [1, 2]
    assert tree.children.tolist() == [[2, 1], [0, 4]] and tree.parents.tolist() == [5, 4, 4, -1, 5, -1]
    assert tree.roots.tolist() == [5, 3] and tree.order.tolist() == [0, 1, 2, 3]
    assert tree.barrier(0, 3) == np.inf and tree.barrier(1, 2) == 3 and tree.barrier(2, 2) == 2


def test_a_single_minimum_and_no_saddles() -> None:
    tree = disconnectivity_tree(np.zeros(1), np.zeros((0, 2), dtype=int), np.zeros(0))
    assert tree.order.tolist() == [0] and tree.roots.tolist() == [0] and len(tree.heights) == 0


def test_large_landscapes_take_a_second() -> None:
    """5,000 minima in one long chain, the deepest tree there is, and 20,000 random saddles."""
    n = 5000
    chain = np.column_stack([np.arange(n - 1), np.arange(1, n)])
    started = time.process_time()
    tree = disconnectivity_tree(np.zeros(n), chain, np.arange(1.0, n))
    assert len(tree.roots) == 1 and tree.barrier(0, n - 1) == n - 1
    energies, joins, saddles = random_landscape(0, n, 20_000)
    assert sorted(disconnectivity_tree(energies, joins, saddles).order.tolist()) == list(range(n))
    assert time.process_time() - started < 5


def test_bad_input_is_refused() -> None:
    with pytest.raises(UsageError, match="fit together"):
        disconnectivity_tree(np.zeros(2), np.zeros((1, 2), dtype=int), np.zeros(2))
    with pytest.raises(UsageError, match="0 to 1"):
        disconnectivity_tree(np.zeros(2), np.array([[0, 2]]), np.zeros(1))
    with pytest.raises(UsageError, match="finite"):
        disconnectivity_tree(np.zeros(2), np.array([[0, 1]]), np.array([np.nan]))
    with pytest.raises(UsageError, match="two different"):
        minimax_path(np.zeros(2), np.array([[0, 1]]), np.ones(1), 1, 1)
    with pytest.raises(UsageError, match="numbered 0 to 1"):
        minimax_path(np.zeros(2), np.array([[0, 1]]), np.ones(1), 0, 2)
