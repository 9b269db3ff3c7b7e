"""Which minima merge at which energy: the disconnectivity tree, minimax barriers and minimax paths.

Below an energy e the states fall into groups that paths below e connect. Raised from the lowest saddle upwards, groups
merge at exactly the saddles of a minimum spanning forest (Kruskal), and the path between two states inside that forest
has the lowest highest saddle of all paths (Becker and Karplus, J. Chem. Phys. 106, 1495, 1997).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from landscape.errors import UsageError
from landscape.network.elimination import Array


@dataclass(frozen=True, eq=False)
class DisconnectivityTree:
    """n leaves (the minima) and k <= n - 1 merges, lowest first; node numbers: leaf i is i, merge m is n + m.

    energies (n,): of the minima. heights (k,): energy at which two groups merge; saddles (k,) int: the saddle there.
    children (k, 2) int: the two nodes that merge. parents (n + k,) int: -1 for a root; groups that no saddle joins
    keep roots of their own. order (n,) int: the leaves from left to right; the leaves of every node are neighbours
    there, so that no two lines of a drawing cross, and deep minima stand to the inside.
    """

    energies: Array
    heights: Array
    saddles: Array
    children: Array
    parents: Array
    order: Array

    @cached_property
    def roots(self) -> Array:
        """Nodes without a parent, one a connected group, in the order of the drawing."""
        nodes = np.flatnonzero(self.parents < 0)
        return nodes[np.argsort(self.positions[nodes], kind="stable")]

    @cached_property
    def node_energies(self) -> Array:
        """(n + k,): where a node stands: the energy of the minimum, or the height of the merge."""
        return np.concatenate([self.energies, self.heights])

    @cached_property
    def positions(self) -> Array:
        """(n + k,): place from left to right; 0 to n - 1 for the leaves in `order`, the mean of its leaves else."""
        n = len(self.energies)
        total, leaves = np.zeros(len(self.parents)), np.zeros(len(self.parents))
        total[self.order], leaves[:n] = np.arange(n), 1
        for merge, pair in enumerate(self.children):
            total[n + merge], leaves[n + merge] = total[pair].sum(), leaves[pair].sum()
        return total / leaves

    def barrier(self, i: int, j: int) -> float:
        """The lowest energy below which i and j are connected; inf if they never are, the minimum's own if i = j."""
        above = set()
        node = i
        while node >= 0:
            above.add(node)
            node = int(self.parents[node])
        while j >= 0 and j not in above:
            j = int(self.parents[j])
        return float(self.node_energies[j]) if j >= 0 else float("inf")


@dataclass(frozen=True)
class MinimaxPath:
    """The path between two states whose highest saddle is as low as possible, and so on piece by piece.

    states (l + 1) and saddles (l): what it visits in turn; height: energy of the highest saddle, at `saddles[highest]`.
    """

    states: tuple[int, ...]
    saddles: tuple[int, ...]
    height: float
    highest: int


def disconnectivity_tree(energies: Array, joins: Array, saddle_energies: Array) -> DisconnectivityTree:
    """The tree of n minima and m saddles, O(m log m + n).

    energies (n,). joins (m, 2) int: the minima that each saddle joins, -1 where unknown; saddles with an unknown side
    or that join a minimum to itself play no part. saddle_energies (m,). UsageError for shapes that do not fit,
    energies that are not finite or names of unknown minima.
    """
    energies, joins, saddle_energies = _checked(energies, joins, saddle_energies)
    n = len(energies)
    merges = _merges(n, joins, saddle_energies)
    group, parents, children = np.arange(2 * n), np.full(n + len(merges), -1), np.zeros((len(merges), 2), dtype=int)
    for node, saddle in enumerate(merges, start=n):
        pair = [_find(group, int(side)) for side in joins[saddle]]
        children[node - n] = pair
        parents[pair] = group[pair] = node
    order = _leaf_order(energies, children, parents)
    return DisconnectivityTree(energies, saddle_energies[merges], merges, children, parents, order)


def minimax_heights(energies: Array, joins: Array, saddle_energies: Array) -> Array:
    """(n, n): energy of the highest saddle on the best path between each pair of minima.

    inf where no path is known; on the diagonal the energy of the minimum. Arguments as in `disconnectivity_tree`.
    """
    energies, joins, saddle_energies = _checked(energies, joins, saddle_energies)
    heights = np.full((len(energies), len(energies)), np.inf)
    np.fill_diagonal(heights, energies)
    members = {i: np.array([i]) for i in range(len(energies))}
    group = np.arange(len(energies))
    for saddle in _merges(len(energies), joins, saddle_energies):
        a, b = (_find(group, int(side)) for side in joins[saddle])
        heights[np.ix_(members[a], members[b])] = saddle_energies[saddle]
        heights[np.ix_(members[b], members[a])] = saddle_energies[saddle]
        group[b] = a
        members[a] = np.concatenate([members[a], members.pop(b)])
    return heights


def minimax_path(energies: Array, joins: Array, saddle_energies: Array, start: int, end: int) -> MinimaxPath:
    """The path from `start` to `end` in the minimum spanning forest. UsageError where no path is known."""
    energies, joins, saddle_energies = _checked(energies, joins, saddle_energies)
    n = len(energies)
    for state in (start, end):
        if not 0 <= state < n:
            raise UsageError(f"states are numbered 0 to {n - 1}, got {state}: name one of them")
    if start == end:
        raise UsageError(f"a path needs two different states, got {start} twice: name another one")
    neighbours: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for saddle in _merges(n, joins, saddle_energies).tolist():
        i, j = joins[saddle].tolist()
        neighbours[i].append((j, saddle))
        neighbours[j].append((i, saddle))
    came: dict[int, tuple[int, int]] = {start: (start, -1)}
    waiting = deque([start])
    while waiting and end not in came:
        state = waiting.popleft()
        for other, saddle in neighbours[state]:
            if other not in came:
                came[other] = (state, saddle)
                waiting.append(other)
    if end not in came:
        raise UsageError(f"no saddle found connects states {start} and {end}: choose two of one part")
    states, saddles = [end], []
    while states[-1] != start:
        state, saddle = came[states[-1]]
        states.append(state)
        saddles.append(saddle)
    saddles.reverse()
    highest = int(np.argmax(saddle_energies[saddles]))
    return MinimaxPath(tuple(reversed(states)), tuple(saddles), float(saddle_energies[saddles[highest]]), highest)


def _checked(energies: Array, joins: Array, saddle_energies: Array) -> tuple[Array, Array, Array]:
    energies, heights = np.asarray(energies, dtype=np.float64), np.asarray(saddle_energies, dtype=np.float64)
    sides = np.asarray(joins)
    sides = sides.astype(np.int64).reshape(0, 2) if sides.size == 0 else sides
    if energies.ndim != 1 or len(energies) == 0 or heights.ndim != 1 or sides.shape != (len(heights), 2):
        got = f"{energies.shape}, {sides.shape}, {heights.shape}"
        raise UsageError(f"energies (n,), joins (m, 2) and saddle_energies (m,) must fit together, got shapes {got}")
    if not np.issubdtype(sides.dtype, np.integer) or np.any((sides < -1) | (sides >= len(energies))):
        raise UsageError(f"joins must name minima from 0 to {len(energies) - 1}, or -1 for unknown: check them")
    for name, values in (("energies", energies), ("saddle_energies", heights)):
        if not np.all(np.isfinite(values)):
            raise UsageError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}: leave such points out")
    return energies, sides, heights


def _merges(n: int, joins: Array, saddle_energies: Array) -> Array:
    """Saddles of the minimum spanning forest (k,), lowest first; of equal ones the first."""
    group = np.arange(n)
    used = []
    usable = np.flatnonzero(np.all(joins >= 0, axis=1) & (joins[:, 0] != joins[:, 1]))
    for saddle in usable[np.argsort(saddle_energies[usable], kind="stable")].tolist():
        a, b = (_find(group, int(side)) for side in joins[saddle])
        if a != b:
            group[b] = a
            used.append(saddle)
    return np.array(used, dtype=np.int64)


def _find(group: Array, node: int) -> int:
    """The representative of a node's group; links on the way are halved, so that later searches are short."""
    while group[node] != node:
        group[node] = group[group[node]]
        node = int(group[node])
    return node


def _leaf_order(energies: Array, children: Array, parents: Array) -> Array:
    """Leaves from left to right: subtrees stay together, and of two the one with the lower minimum stands inside."""
    n = len(energies)
    lowest = np.concatenate([energies, np.zeros(len(children))])
    for merge, (a, b) in enumerate(children):
        lowest[n + merge] = min(lowest[a], lowest[b])
    roots = np.flatnonzero(parents < 0)
    # a stack of (node, is it the left one of its siblings); deep subtrees are no deep recursion
    stack = [(int(root), False) for root in roots[np.argsort(lowest[roots], kind="stable")][::-1]]
    order = []
    while stack:
        node, on_the_left = stack.pop()
        if node < n:
            order.append(node)
            continue
        deep, shallow = sorted(children[node - n].tolist(), key=lambda child: lowest[child])
        left, right = (shallow, deep) if on_the_left else (deep, shallow)
        stack += [(right, False), (left, True)]
    return np.array(order, dtype=np.int64)
