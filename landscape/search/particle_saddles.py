"""Saddles between clusters of particles: walks from known minima, lowest and least visited first, and what they join.

Single-ended walks discover most of a landscape of clusters: each saddle leads to two minima, and from each new minimum
walks go on. Isomers that a permutation, rotation or mirror image makes equal are one point throughout; a saddle whose
two sides are copies of one minimum joins that state to itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from landscape.energy import Energy
from landscape.energy.alignment import sorted_distances
from landscape.search.connect import MAX_PAIRS, NEIGHBOURS, PAIR_STRINGS, SaddleResult
from landscape.search.driver import Status
from landscape.search.explore import UNKNOWN, SaddleSearch
from landscape.search.lbfgs import LBFGS, relax
from landscape.search.minima import MinimaResult, Progress
from landscape.search.particle_paths import cluster_paths
from landscape.search.particles import descents, random_clouds, settled_clouds, spacing_of, symmetry_of
from landscape.search.saddles import EigenvectorFollowing, follow_eigenvectors
from landscape.search.stationary import Catalogue, canonical_order
from landscape.search.string import StringOptions, relax_strings, straight_images
from landscape.search.unseen import nearly_all_seen, unseen_number

PRODUCTS = 2  # by which walks renew Hessians, see `EigenvectorFollowing.products`; an exact one costs 2 d gradients
LONGER = 2  # a walk with estimates of Hessians makes more iterations, which are cheaper
MOST_MINIMA = 24  # times `rows_per_point`: so many walks a round at most, and `rows`
# Of the walks of a round those that start beside minima, beside saddles, and from clouds. Beside minima they find most
# while there is much to find; beside saddles, and from clouds, they meet rare saddles nearly as often as others.
GROWING, ENDING = (0.8, 0.1, 0.1), (0.2, 0.5, 0.3)
STILL_NEW = 0.1  # a search grows while this part of the walks that arrive find a new saddle
DISPLACED = (0.4, 0.9)  # lengths of a walk's first displacement, in units of the spacing: shorter ones lead back
EASED = 5  # iterations of a descent after it, which take apart the particles that it pressed together
SPREAD = 3.0  # a walk that takes a particle farther out than this, in units of the largest cluster, has diverged
SIDE_STEP = 0.05  # how far beside a saddle its descents begin, in units of the spacing
PAIRS = 100  # strings a look
LOOKS = 5  # at groups of states that no saddle joins to the largest, before they are left apart
WALKS_APART = 24  # from each state of such a group, and
STRINGS_APART = 3  # to as many of the nearest states of other groups
MOST_APART = 30  # states of such groups that are looked at together
NAMED = 10  # states in a warning


class ParticleRounds:
    """The rounds of one saddle search for particles."""

    def __init__(
        self,
        energy: Energy,
        catalogue: Catalogue,
        minima: MinimaResult,
        generator: torch.Generator,
        config: SaddleSearch,
        progress: Progress,
    ) -> None:
        self.energy, self.catalogue, self.generator = energy, catalogue, generator
        self.config, self.progress, self.symmetry = config, progress, symmetry_of(energy)
        self.radius = max(minima.radius, np.finfo(float).tiny)
        self.spacing = spacing_of(self.symmetry, minima.minima.x)
        self.ends: dict[int, tuple[int, int]] = {}
        self.visits: dict[int, int] = {}
        self.hits: dict[int, int] = {}
        self.tried: set[tuple[int, int]] = set()
        self.rounds, self.last = 0, (0, 0)
        self.descended = len(minima.start_status) if minima.unseen is not None else 0  # given points are no sample
        self.walk_options = config.walk
        if not config.walk.products:
            self.walk_options = replace(
                config.walk, products=PRODUCTS, max_iterations=LONGER * config.walk.max_iterations
            )

    def numbers(self, index: int) -> np.ndarray:
        """Catalogue numbers of the nondegenerate points with this index."""
        found = self.catalogue.points()
        return np.nonzero((found.index == index) & ~found.degenerate)[0]

    def run(self) -> bool:
        """Rounds until they stay quiet and saddles have been met often; whether that came before the budget's end."""
        quiet = 0
        while self.rounds < self.config.max_rounds:
            self.rounds += 1
            known = self._n_known()
            self.last = self._walk(*self._starts())
            quiet = quiet + 1 if self._n_known() == known else 0
            counts = [len(self.numbers(k)) for k in (0, 1)]
            self.progress(f"saddles: round {self.rounds}, points by index {counts}")
            if quiet and quiet % self.config.quiet_rounds == 0:
                if self._check():
                    quiet = 0
                elif nearly_all_seen(self._hits()):
                    return True
        self._join_pairs(self._pairs())
        self.join_groups()
        return False

    def _hits(self) -> np.ndarray:
        """How many walks from elsewhere met each saddle (n_saddles,)."""
        return np.array([self.hits.get(int(k), 0) for k in self.numbers(1)], int)

    def _n_known(self) -> int:
        return int((~self.catalogue.points().degenerate).sum())

    def _check(self) -> bool:
        """Descents and walks from further clouds, and strings between minima. True if anything is new.

        A quarter of `sweep` descends, with the random starts that the search for minima has let down, and a sixteenth
        walks: each is worth more here than a point in a box.
        """
        known = self._n_known()
        if self.config.sweep:
            descents, walks = max(0, self.config.sweep // 4 - self.descended), self.config.sweep // 16 + 1
            self.progress(f"saddles: a sweep of {descents} further descents and {walks} walks")
            if descents:
                x = random_clouds(self.energy, self.radius, descents, self.generator)
                self._settle(relax(self.energy, x, self.radius))
                self.descended += descents
            self._walk(settled_clouds(self.energy, self.radius, walks, self.generator))
        self._join_pairs(self._pairs())
        self.join_groups()
        return self._n_known() > known

    # -- walks -------------------------------------------------------------------------------------------------------

    def _starts(self) -> tuple[torch.Tensor, np.ndarray]:
        """Beside the minima least visited, lowest first; beside saddles; and clouds. Also the catalogue numbers of the
        points beside which each is, UNKNOWN for clouds."""
        found, minima, saddles = self.catalogue.points(), self.numbers(0), self.numbers(1)
        arrived, new = self.last
        shares = GROWING if new >= STILL_NEW * arrived else ENDING
        n = self.config.rows + self.config.rows_per_point * min(len(minima), MOST_MINIMA)
        n_saddles = int(shares[1] * n) if len(saddles) else 0
        n_clouds = int(shares[2] * n) + 1
        visits = np.array([self.visits.get(int(k), 0) for k in minima])
        order = minima[np.lexsort((found.energy[minima], visits))]
        beside = np.resize(order, n - n_saddles - n_clouds)  # as often as there is room for
        for k in beside:
            self.visits[int(k)] = self.visits.get(int(k), 0) + 1
        draw = torch.rand(n_saddles, generator=self.generator, dtype=torch.float64).numpy()
        near = saddles[(draw * len(saddles)).astype(int)]
        cloud = settled_clouds(self.energy, self.radius, n_clouds, self.generator)
        origin = np.concatenate([beside, near])
        return torch.cat([cloud, self._beside(origin)]), np.concatenate([np.full(len(cloud), UNKNOWN), origin])

    def _beside(self, numbers: np.ndarray) -> torch.Tensor:
        """Points displaced in random directions from catalogue points, without overlaps."""
        x = self._tensor(self.catalogue.points().x[numbers])
        unit = torch.randn(x.shape, generator=self.generator, dtype=torch.float64)
        unit = unit / unit.norm(dim=1, keepdim=True)
        draw = torch.rand(len(x), 1, generator=self.generator, dtype=torch.float64)
        length = DISPLACED[0] + (DISPLACED[1] - DISPLACED[0]) * draw
        moved = x + (self.spacing * length * unit).to(x)
        return relax(self.energy, moved, self.radius, LBFGS(max_iterations=EASED))["x"]

    def _walk(
        self, x: torch.Tensor, origin: np.ndarray | None = None, options: EigenvectorFollowing | None = None
    ) -> tuple[int, int]:
        """Follow eigenvectors to index 1 from x (n, d), and connect what is new: walks that arrived, new saddles.

        origin (n,) : catalogue numbers of the points beside which they start, UNKNOWN for none. A walk that returns to
        its own saddle tells nothing of what is unseen.
        """
        far = torch.full((self.energy.dim,), SPREAD * self.radius, dtype=x.dtype, device=x.device)
        one = torch.ones(len(x), dtype=torch.long, device=x.device)
        known = set(self.numbers(1).tolist())
        options = options or self.walk_options
        near = self._hessians(x, origin) if origin is not None and options.products else None
        ended = follow_eigenvectors(self.energy, x, one, 2 * self.spacing, (-far, far), options, near)
        arrived = (ended["status"] == Status.CONVERGED).cpu().numpy()
        at = self.catalogue.add(ended["x"][torch.as_tensor(arrived, device=x.device)], hits="others")
        begun = np.full(len(at), UNKNOWN) if origin is None else origin[arrived]
        saddles = set(self.numbers(1).tolist())
        reached = [(int(k), int(start)) for k, start in zip(at, begun, strict=True) if int(k) in saddles]
        for k, start in reached:
            self.hits[k] = self.hits.get(k, 0) + (k != start)
        self._connect()
        return len(reached), len({k for k, _ in reached} - known)

    def _hessians(self, x: torch.Tensor, origin: np.ndarray) -> torch.Tensor:
        """Hessians (n, d, d) at the points `origin` (n,) of the catalogue, where that is UNKNOWN at x (n, d)."""
        hessian = self._tensor(self.catalogue.points().hessian[origin])
        alone = torch.as_tensor(origin == UNKNOWN, device=x.device)
        hessian[alone] = self.energy.hessian(x[alone])
        return hessian

    def _settle(self, ended: dict[str, torch.Tensor]) -> np.ndarray:
        """Catalogue numbers of the rows of a descent, UNKNOWN for those that did not arrive anywhere."""
        at = np.full(len(ended["status"]), UNKNOWN)
        arrived = ended["status"] == Status.CONVERGED
        at[arrived.cpu().numpy()] = self.catalogue.add(ended["x"][arrived])
        return at

    # -- what saddles join -------------------------------------------------------------------------------------------

    def sides(self, saddles: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (2 n, d) beside both sides of n saddles, pairs together, and the Hessians (2 n, d, d) of these."""
        found = self.catalogue.points()
        mode = np.linalg.eigh(found.hessian[saddles])[1][:, :, 0]
        signed = np.stack([-mode, mode], 1).reshape(-1, self.energy.dim)
        beside = found.x[saddles].repeat(2, 0) + SIDE_STEP * self.spacing * signed
        return self._tensor(beside), self._tensor(found.hessian[saddles].repeat(2, 0))

    def _connect(self) -> None:
        """Descend both sides of every saddle without ends; minima met on the way are added."""
        pending = np.array([k for k in self.numbers(1) if int(k) not in self.ends], int)
        if not len(pending):
            return
        reached = self._descend(*self.sides(pending))
        beyond = self.catalogue.points().index[reached] > 0
        again = np.flatnonzero((reached >= 0) & beyond)
        if len(again):  # a flow may end on another saddle where symmetry leads it there: go on beside it
            reached[again] = self._descend(*self.sides(reached[again]))[1::2]
        minima = set(self.numbers(0).tolist())
        ends = [int(k) if int(k) in minima else UNKNOWN for k in reached]
        self.ends |= {int(k): (ends[2 * i], ends[2 * i + 1]) for i, k in enumerate(pending)}

    def _descend(self, x: torch.Tensor, hessian: torch.Tensor) -> np.ndarray:
        return self._settle(descents(self.energy, x, hessian, self.spacing))

    # -- strings -----------------------------------------------------------------------------------------------------

    def _join_pairs(self, pairs: np.ndarray) -> None:
        """Strings between pairs (k, 2) of minima: walks start from their tops, descents from their dips."""
        if not len(pairs):
            return
        self.tried |= {(int(a), int(b)) for a, b in pairs}
        self.progress(f"saddles: {len(pairs)} strings between states")
        x = self.catalogue.points().x
        end = self.symmetry.nearest(x[pairs[:, 1]], x[pairs[:, 0]])
        start = straight_images(self._tensor(x[pairs[:, 0]]), self._tensor(end), PAIR_STRINGS.n_images)
        relaxed = relax_strings(self.energy, start, PAIR_STRINGS)
        images, value = relaxed["images"], relaxed["energy"]
        inner = value[:, 1:-1]
        tops = images[:, 1:-1][(inner > value[:, :-2]) & (inner > value[:, 2:])]
        dips = images[:, 1:-1][(inner < value[:, :-2]) & (inner < value[:, 2:])]
        if len(dips):
            self._settle(relax(self.energy, dips, 0.3 * self.spacing, center=dips))
        if len(tops):
            self._walk(tops, options=replace(self.walk_options, initial_trust=0.02, largest_trust=0.1))

    def join_groups(self) -> None:
        """Walks and strings from the states that no saddle joins to the largest group, as long as there are any, at
        most `LOOKS` times; each time strings to states that are farther away."""
        for _ in range(LOOKS):
            minima, group = self.groups()
            apart = minima[group != np.bincount(group).argmax()]
            if not len(apart):
                return
            self.progress(f"saddles: {len(apart)} states in {group.max()} groups that no saddle joins to the others")
            apart = apart[:MOST_APART]
            origin = np.repeat(apart, WALKS_APART)
            self._walk(self._beside(origin), origin)
            minima, group = self.groups()
            distance = self._distances(minima)
            pairs: set[tuple[int, int]] = set()
            for i in np.flatnonzero(np.isin(minima, apart) & (group != np.bincount(group).argmax())):
                others = [_pair(minima, int(i), int(j)) for j in np.argsort(distance[i]) if group[i] != group[j]]
                pairs |= set([pair for pair in others if pair not in self.tried][:STRINGS_APART])
            self._join_pairs(np.array(sorted(pairs), int).reshape(-1, 2))

    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Catalogue numbers of the minima (n,), and the group, of minima that saddles join, of each (n,)."""
        minima = self.numbers(0)
        place = {int(k): i for i, k in enumerate(minima)}
        joins = [(place[a], place[b]) for a, b in self.ends.values() if UNKNOWN not in (a, b)]
        return minima, _groups(len(minima), np.array(joins, int).reshape(-1, 2))

    def _distances(self, minima: np.ndarray) -> np.ndarray:
        """How different minima are, (n, n), by their sorted distances; infinite on the diagonal."""
        atoms = self.symmetry.centered(self.catalogue.points().x[minima])
        features = sorted_distances(atoms, self.symmetry.labels, not self.symmetry.translation)
        distance = cdist(features, features)
        np.fill_diagonal(distance, np.inf)
        return distance

    def _pairs(self) -> np.ndarray:
        """Pairs (k, 2) that no saddle joins: each minimum with its nearest neighbours, and the nearest ones that join
        groups. Also within a group: a network that is connected can lack its lowest passes."""
        minima, group = self.groups()
        n = len(minima)
        if n < 2:
            return np.zeros((0, 2), int)
        known = self.tried | {(min(p), max(p)) for p in self.ends.values()}
        distance = self._distances(minima)
        apart = np.where(group[:, None] != group, distance, np.inf)
        wanted = {(i, int(apart[i].argmin())) for i in range(n) if np.isfinite(apart[i].min())}
        wanted |= {(i, int(j)) for i in range(n) for j in np.argsort(distance[i])[:NEIGHBOURS] if i != j}
        either = {(min(p), max(p)) for p in wanted}
        fresh = [p for p in either if _pair(minima, *p) not in known]
        order = sorted(fresh, key=lambda p: (group[p[0]] == group[p[1]], distance[p]))
        return minima[np.array(order[: min(PAIRS, MAX_PAIRS)], int).reshape(-1, 2)]

    # -- the result --------------------------------------------------------------------------------------------------

    def result(self, complete: bool, options: StringOptions) -> SaddleResult:
        found = self.catalogue.points()
        states, saddles = (
            numbers[canonical_order(found.energy[numbers], found.x[numbers])]
            for numbers in (self.numbers(0), self.numbers(1))
        )
        rank = {int(k): i for i, k in enumerate(states)} | {UNKNOWN: UNKNOWN}
        ends = [[rank[end] for end in self.ends.get(int(k), (UNKNOWN, UNKNOWN))] for k in saddles]
        joins = np.sort(np.array(ends, int).reshape(-1, 2), axis=1)
        paths, path_saddle = cluster_paths(
            self.energy, found.select(states).x, saddles, joins, self.sides, found, options
        )
        higher = found.select((found.index > 1) & ~found.degenerate)
        whole = complete and not _groups(len(states), joins).any()
        return SaddleResult(
            found.select(states), found.select(saddles), joins, paths, path_saddle, higher.ordered(),
            found.select(found.degenerate).ordered(), {0: len(states), 1: len(saddles)}, None, None, whole, self.rounds,
            tuple(self._warnings(complete, joins, len(states))),
        )  # fmt: skip

    def _warnings(self, complete: bool, joins: np.ndarray, n_states: int) -> list[str]:
        warnings = []
        if not complete:
            (walks, new), hits = self.last, self._hits()
            unseen = round(unseen_number(hits))
            warnings.append(
                f"the saddle search used its {self.config.max_rounds} rounds before it was complete: of the last "
                f"round's {walks} walks that reached a saddle, {new} found a new one, and {int((hits == 1).sum())} of "
                f"{len(hits)} saddles were met by one walk only, which leaves at least {unseen} unseen (Chao's "
                "estimate, a lower bound); raise max_rounds in [saddles]"
            )
        lost = int((joins == UNKNOWN).any(1).sum())
        if lost:
            warnings.append(
                f"{lost} of {len(joins)} saddles lead to no known state on one side or both (the cluster falls apart "
                "there, or comes to rest at a degenerate point): listed, left out of the rate matrix"
            )
        group = _groups(n_states, joins)
        if group.max(initial=0) > 0:
            apart = np.flatnonzero(group != np.bincount(group).argmax())
            names = ", ".join(map(str, apart[:NAMED])) + (", ..." if len(apart) > NAMED else "")
            warnings.append(
                f"no saddle found joins {len(apart)} of the states to the others ({names}; {group.max() + 1} groups): "
                "the rates between them are missing, not zero"
            )
        own = int(((joins[:, 0] == joins[:, 1]) & (joins[:, 0] != UNKNOWN)).sum())
        if own:
            warnings.append(
                f"{own} of {len(joins)} saddles join copies of one state (its isomers): listed with the rate over "
                "either side, left out of the rate matrix"
            )
        return warnings

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(x, dtype=self.energy.dtype, device=self.energy.device)


def _groups(n_states: int, joins: np.ndarray) -> np.ndarray:
    """The group of states to which each belongs, (n_states,), by saddles (n_saddles, 2), -1 for a lost side."""
    edges = joins[(joins >= 0).all(1)]
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(n_states, n_states))
    return np.asarray(connected_components(graph, directed=False)[1])


def _pair(numbers: np.ndarray, i: int, j: int) -> tuple[int, int]:
    a, b = int(numbers[i]), int(numbers[j])
    return min(a, b), max(a, b)
