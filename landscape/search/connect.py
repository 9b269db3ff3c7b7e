"""The whole landscape: rounds of saddle search, pairs of states joined by strings, and when to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from landscape.energy import Energy, ParticleSymmetry, as_energy
from landscape.energy.symmetry import distances, nearest_copies
from landscape.search.basins import Basins
from landscape.search.confinement import confines
from landscape.search.driver import Status
from landscape.search.explore import ALL_INDICES_DIM, UNKNOWN, Explorer, SaddleSearch
from landscape.search.minima import MinimaResult, Progress, find_minima
from landscape.search.saddle_paths import minimum_energy_paths
from landscape.search.saddles import EigenvectorFollowing, follow_eigenvectors
from landscape.search.stationary import Catalogue, StationaryPoints, canonical_order
from landscape.search.string import Paths, StringOptions, relax_strings, straight_images
from landscape.search.unseen import nearly_all_seen, repeat_misses, unseen_number

NEIGHBOURS = 2  # strings are tried from each minimum to so many nearest ones that no saddle joins to it
PAIR_STRINGS = StringOptions(n_images=15, max_iterations=60, force_tolerance=0.05)  # walks start from what it leaves
SHARES = (0.25, 0.5, 1.0)  # of the walks of a full round
HARDLY = 1e-3  # points that another search would miss where rounds may be smaller
MISSED = 0.05  # saddles by Chao's estimate, which is too low where some are hard to hit
MAX_PAIRS = 500  # strings a round
SWEEP_PARTS = 4  # of a sweep, which ends with the first of them that finds something
SWEEP_WALKS = 16  # walks for each saddle known that end it
MANY_MINIMA = 100  # with more of them the points of every index are too many to be searched for unasked


@dataclass(frozen=True)
class SaddleResult:
    """What `find_saddles` returns.

    minima, saddles : nondegenerate points of index 0 and 1, each lowest energy first.
    joins (n_saddles, 2) : numbers of the minima at both ends, smaller first, -1 where a side reached none (it diverged,
    as a rule; `warnings` tells). paths : the minimum energy path of each saddle with two known ends, from joins[0] to
    joins[1] with the saddle as one image. path_saddle (n_paths,) : their saddles. higher : points of index >= 2.
    degenerate : points with a zero eigenvalue. index_counts : points found, by index. morse_sum : sum of (-1)^index
    where every index was searched, else None. expected : what it must be (1 for an energy that confines), None if it
    says nothing. complete : the stop rule was met before the budget ended, and saddles join all states of a confining
    energy. rounds : used. basins : of `minima`, in their order, with regions of capture that hold no other point; None
    for clusters of particles, and where there are no minima.
    """

    minima: StationaryPoints
    saddles: StationaryPoints
    joins: np.ndarray
    paths: Paths
    path_saddle: np.ndarray
    higher: StationaryPoints
    degenerate: StationaryPoints
    index_counts: dict[int, int]
    morse_sum: int | None
    expected: int | None
    complete: bool
    rounds: int
    warnings: tuple[str, ...]
    basins: Basins | None = None


def find_saddles(
    energy: Energy | Callable[[torch.Tensor], torch.Tensor],
    minima: MinimaResult | None = None,
    config: SaddleSearch | None = None,
    *,
    paths: StringOptions | None = None,
    generator: torch.Generator | None = None,
    catalogue: Catalogue | None = None,
    progress: Progress | None = None,
) -> SaddleResult:
    """All saddles that a batched single-ended search reaches, and the states they join.

    Rounds of eigenvector following start beside points of one index less, between minima and anywhere in their box;
    every index is searched up to d <= 10. Each new index-1 saddle is connected by gradient flow down both sides, which
    may add minima. When rounds stay quiet, a sweep of further descents looks for shallow wells, and strings join states
    that are near or not connected. The search is complete when `quiet_rounds` rounds in a row, the sweep and the
    strings found nothing new, hardly a saddle was hit only once (none of less than a hundred, and `unseen_number` is
    next to nothing) and the Morse sum is 1 (confining energies). The Morse sum is a necessary condition, not a
    sufficient one: a minimum and a saddle missed together leave it unchanged.

    `minima` and `catalogue` continue an earlier `find_minima`; without them it is run first.
    """
    energy = as_energy(energy)
    config = config or SaddleSearch()
    generator = generator or torch.Generator().manual_seed(0)
    catalogue = catalogue if catalogue is not None else Catalogue(energy)
    if minima is None:
        minima = find_minima(energy, generator=generator, catalogue=catalogue, progress=progress)
    elif not len(catalogue):
        catalogue.add(torch.as_tensor(minima.minima.x, dtype=energy.dtype, device=energy.device))
    if isinstance(energy.symmetry, ParticleSymmetry):
        from landscape.search.particle_saddles import ParticleRounds  # it takes its options and result from here

        rounds = ParticleRounds(energy, catalogue, minima, generator, config, progress or (lambda text: None))
        return rounds.result(rounds.run(), paths or StringOptions())
    explorer = Explorer(energy, catalogue, minima, generator, config)
    search = _Rounds(explorer, config, progress or (lambda text: None))
    complete = search.run()
    return search.result(complete, paths or StringOptions())


class _Rounds:
    """The rounds of one saddle search."""

    def __init__(self, explorer: Explorer, config: SaddleSearch, progress: Progress) -> None:
        self.explorer, self.config, self.progress = explorer, config, progress
        self.catalogue, self.energy = explorer.catalogue, explorer.energy
        dim = self.energy.dim
        self.max_index = min(config.max_index or (dim if dim <= ALL_INDICES_DIM else 1), dim)
        self.walk_hits: dict[int, int] = {}
        self.walked: dict[int, int] = {}  # walks so far, by index
        self.tried: set[tuple[int, int]] = set()
        self.rounds = 0
        self.confining = False

    @property
    def all_indices(self) -> bool:
        return self.max_index == self.energy.dim

    def run(self) -> bool:
        quiet = 0
        self.confining = confines(self.explorer)
        while self.rounds < self.config.max_rounds:
            self.rounds += 1
            known = self._n_known()
            if self.config.max_index is None and self.catalogue.count(0) > MANY_MINIMA:
                self.max_index = 1
            self._round()
            quiet = quiet + 1 if self._n_known() == known else 0
            counts = [self.catalogue.count(k) for k in range(min(self.max_index, 3) + 1)]
            self.progress(f"saddles: round {self.rounds}, points by index {counts}")
            # Strings and the sweep also serve where the rounds are stuck: with a wrong Morse sum, or rare saddles.
            longer = self.config.quiet_rounds if self._seen() else 2 * self.config.quiet_rounds
            if quiet > 0 and quiet % longer == 0:
                if self._check():
                    quiet = 0
                elif self._satisfied():
                    return True
        return False

    def _round(self) -> None:
        explorer, indices = self.explorer, range(1, self.max_index + 1)
        # At first one index after the other, since walks start beside points of the index below; later all at once,
        # since few walks cost nearly as much time as many.
        for group in [[index] for index in indices] if self.rounds == 1 else [indices]:
            possible = [index for index in group if index == 1 or len(explorer.numbers(index - 1))]
            if not possible:
                break
            starts = {index: explorer.starts(index, self._share(index)) for index in possible}
            for number in explorer.walk(starts):
                self.walk_hits[int(number)] = self.walk_hits.get(int(number), 0) + 1
            for index, part in starts.items():
                self.walked[index] = self.walked.get(index, 0) + len(part.x)
            explorer.connect_saddles()

    def _share(self, index: int) -> float:
        """Walks to an index in the next round, as a part of a full round's: as many as it takes, if points are met as
        often as before, until another search would miss hardly any of them (`repeat_misses`); a quarter at least, and
        all where the Morse sum tells that something is missing."""
        walked, hits = self.walked.get(index, 0), self._hits(index)
        if not walked or not self._sum_right():
            return 1.0
        full = self.config.rows + self.config.rows_per_point * len(self.explorer.numbers(index - 1))
        missed = [repeat_misses(hits * (1 + part * full / walked)) for part in SHARES]
        return next((part for part, left in zip(SHARES, missed, strict=True) if left <= HARDLY), 1.0)

    def _hits(self, index: int) -> np.ndarray:
        """How many walks met each point of an index that any has met."""
        hits = np.array([self.walk_hits.get(int(k), 0) for k in self.explorer.numbers(index)], int)
        return hits[hits > 0]

    def _seen(self) -> bool:
        """Walks met the saddles so often that hardly one can be missing."""
        hits = self._hits(1)
        return nearly_all_seen(hits) and unseen_number(hits) < MISSED

    def _satisfied(self) -> bool:
        return self._seen() and self._sum_right()

    def _sum_right(self) -> bool:
        """The Morse sum is what it must be, or that is not known."""
        return self.expected is None or self.morse_sum == self.expected

    @property
    def expected(self) -> int | None:
        degenerate = bool(self.catalogue.points().degenerate.any())
        on_a_torus = self.explorer.periodic is not None  # whose Euler characteristic is 0, also times a line
        return (0 if on_a_torus else 1) if self.confining and self.all_indices and not degenerate else None

    @property
    def morse_sum(self) -> int | None:
        found = self.catalogue.points()
        index = found.index[~found.degenerate]
        return int(np.sum(1 - 2 * (index % 2))) if self.all_indices else None

    def _check(self) -> bool:
        """The last look: a sweep of descents, one of walks, and strings between states. True if anything is new."""
        known = self._n_known()
        if self.config.sweep:
            self.progress(f"saddles: a sweep of {self.config.sweep} further descents")
        left = self.config.sweep
        while left > 0 and self._n_known() == known:  # what is new sends the search back to its rounds at once
            n = min(left, max(1, self.config.sweep // SWEEP_PARTS))
            self.explorer.sweep(n)
            left -= n
        if self.config.sweep and self._n_known() == known:
            self._sweep_by_walks()
        self._join_pairs()
        return self._n_known() > known

    def _sweep_by_walks(self) -> None:
        """Walks from anywhere, to index 2 where that is searched for: a saddle and a point of index 2 that are both
        missed leave the Morse sum unchanged, as a saddle and a shallow well do."""
        n = SWEEP_WALKS * self.catalogue.count(1)
        if n and not self.energy.matrix_free:
            self.explorer.walk({min(2, self.max_index): self.explorer.anywhere(n)})
            self.explorer.connect_saddles()

    def _n_known(self) -> int:
        """Nondegenerate points of the indices looked for: of a flat valley every round finds others, and of the indices
        above walks come upon some by chance; none of these is news."""
        found = self.catalogue.points()
        return int((~found.degenerate & (found.index <= self.max_index)).sum())

    # -- strings between states ------------------------------------------------------------------------------------

    def _pairs(self) -> np.ndarray:
        """Pairs of minima worth a string: near ones that no saddle joins, and the nearest that join components."""
        numbers = self.explorer.numbers(0)
        n = len(numbers)
        if n < 2:
            return np.zeros((0, 2), int)
        x = torch.as_tensor(self.catalogue.points().x[numbers])
        periodic = self.explorer.periodic
        apart_by = torch.cdist(x, x) if periodic is None else distances(periodic, x, x)
        distance = apart_by.fill_diagonal_(torch.inf).numpy()
        place = {int(k): i for i, k in enumerate(numbers)}
        joined = {(place[a], place[b]) for a, b in self.explorer.ends.values() if a != UNKNOWN and b != UNKNOWN}
        edges = np.array(sorted(joined), int).reshape(-1, 2)
        graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
        component = connected_components(graph, directed=False)[1]
        apart = np.where(component[:, None] != component[None], distance, np.inf)
        wanted = {(i, int(apart[i].argmin())) for i in range(n) if np.isfinite(apart[i].min())}
        # Of each component only the nearest pair leading out of it.
        wanted = {
            min((p for p in wanted if component[p[0]] == c), key=lambda p: distance[p])
            for c in {component[p[0]] for p in wanted}
        }
        for i in range(n):
            wanted |= {(i, int(j)) for j in np.argsort(distance[i])[:NEIGHBOURS] if np.isfinite(distance[i, j])}
        fresh = {(min(p), max(p)) for p in wanted} - {(min(p), max(p)) for p in joined}
        fresh = {p for p in fresh if (int(numbers[p[0]]), int(numbers[p[1]])) not in self.tried}
        chosen = sorted(fresh, key=lambda p: distance[p])[:MAX_PAIRS]
        return numbers[np.array(chosen, int).reshape(-1, 2)]

    def _join_pairs(self) -> None:
        """Relax strings between such pairs and search from their inner extrema."""
        explorer, pairs = self.explorer, self._pairs()
        if not len(pairs):
            return
        self.tried |= {(int(a), int(b)) for a, b in pairs}
        self.progress(f"saddles: {len(pairs)} strings between states")
        x = self.catalogue.points().x
        start, end = explorer._tensor(x[pairs[:, 0]]), explorer._tensor(x[pairs[:, 1]])
        end = nearest_copies(self.energy.symmetry, end, start)
        relaxed = relax_strings(self.energy, straight_images(start, end, PAIR_STRINGS.n_images), PAIR_STRINGS)
        images, value = relaxed["images"], relaxed["energy"]
        inner = value[:, 1:-1]
        tops = images[:, 1:-1][(inner > value[:, :-2]) & (inner > value[:, 2:])]
        dips = images[:, 1:-1][(inner < value[:, :-2]) & (inner < value[:, 2:])]
        if len(tops):
            one = torch.ones(len(tops), dtype=torch.long, device=tops.device)
            gentle = EigenvectorFollowing(initial_trust=0.02, largest_trust=0.1)
            ended = follow_eigenvectors(self.energy, tops, one, explorer.scale, explorer.region(explorer.scale), gentle)
            self.catalogue.add(ended["x"][ended["status"] == Status.CONVERGED], hits="others")
        if len(dips):
            explorer.descend(dips)  # minima that the strings passed join the catalogue
        explorer.connect_saddles()

    # -- the result ----------------------------------------------------------------------------------------------------

    def result(self, complete: bool, options: StringOptions) -> SaddleResult:
        found, explorer = self.catalogue.points(), self.explorer
        states, saddles = self._ordered(0), self._ordered(1)
        rank = {int(k): i for i, k in enumerate(states)} | {UNKNOWN: UNKNOWN}
        ends = [tuple(rank.get(end, UNKNOWN) for end in explorer.ends.get(int(k), (UNKNOWN, UNKNOWN))) for k in saddles]
        joins = np.sort(np.array(ends, int).reshape(-1, 2), axis=1)
        paths, path_saddle = minimum_energy_paths(explorer, saddles, ends, options)
        higher = found.select((found.index > 1) & ~found.degenerate)
        counts = {k: self.catalogue.count(k) for k in range(self.max_index + 1)}
        # States of a confining energy are connected: where nothing joins them, something is missing or degenerate.
        basins, numbers = explorer.basins() if len(states) else (None, states)
        whole = complete and not (self.confining and n_components(len(states), joins) > 1)
        return SaddleResult(
            found.select(states), found.select(saddles), joins, paths, path_saddle, higher.ordered(),
            found.select(found.degenerate).ordered(), counts, self.morse_sum, self.expected, whole, self.rounds,
            tuple(self._warnings(complete, joins)),
            None if basins is None else basins.ordered(np.searchsorted(numbers, states)),
        )  # fmt: skip

    def _ordered(self, index: int) -> np.ndarray:
        found, numbers = self.catalogue.points(), self.explorer.numbers(index)
        return numbers[canonical_order(found.energy[numbers], found.x[numbers])]

    def _warnings(self, complete: bool, joins: np.ndarray) -> list[str]:
        warnings = []
        if not complete:
            expected = "" if self.expected is None else f", Morse sum {self.morse_sum} (expected {self.expected})"
            hits = [self.walk_hits.get(int(k), 0) for k in self.explorer.numbers(1)]
            share = hits.count(1) / max(1, sum(hits))
            warnings.append(
                f"the saddle search used its {self.config.max_rounds} rounds before it was complete{expected}; "
                f"by Good and Turing's estimate {share:.1%} of further walks would find a new saddle: "
                "states or saddles may be missing; raise max_rounds in [saddles]"
            )
        if not self.confining:
            warnings.append("the energy does not grow outwards everywhere that was tested: the Morse sum says nothing")
        if len(joins) and (joins == UNKNOWN).any():
            lost = int((joins == UNKNOWN).any(1).sum())
            how = "; ".join(sorted({status.text for status in self.explorer.side_status.values()}))
            warnings.append(
                f"{lost} of {len(joins)} saddles lead to no known state on one side or both ({how}): "
                "listed, left out of the rate matrix"
            )
        apart = n_components(len(self.explorer.numbers(0)), joins)
        if apart > 1:
            degenerate = self.catalogue.points().degenerate
            why = ""
            if degenerate.any():
                lowest = float(self.catalogue.points().energy[degenerate].min())
                why = f"; a degenerate point at E = {lowest:.6g} may join them, and no rate formula applies there"
            warnings.append(
                f"no saddle found joins the {apart} groups of states: the rates between them are missing, not zero{why}"
            )
        own = int(((joins[:, 0] == joins[:, 1]) & (joins[:, 0] != UNKNOWN)).sum())
        if own:
            warnings.append(
                f"{own} of {len(joins)} saddles join a state to itself: listed, left out of the rate matrix"
            )
        return warnings


def n_components(n_states: int, joins: np.ndarray) -> int:
    """Number of groups of states that saddles (n_saddles, 2), -1 for a lost side, leave unconnected."""
    edges = joins[(joins >= 0).all(1)]
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n_states, n_states))
    return int(connected_components(graph, directed=False)[0])
