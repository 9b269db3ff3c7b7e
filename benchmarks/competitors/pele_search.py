"""pele: quenches; basin hopping, then double-ended connections or single-ended searches, at pele's own settings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pele.landscape import ConnectManager
from pele.optimize import Result, lbfgs_cpp
from pele.potentials import BasePotential
from pele.storage import Minimum, TransitionState
from pele.systems import BaseSystem, LJCluster
from pele.transition_states import findTransitionState, minima_from_ts

from competitors.harness import Counted, Found, Request, distinct, serve, walks

HOPS = 10  # of a walk of basin hopping, each from another random point of the box
DISPLACED = 0.3  # standard deviation of the displacements before a single-ended search


class OutOfTime(Exception):
    """The time limit is past; what has been found is in the database."""


class Potential(BasePotential):
    def __init__(self, counted: Counted) -> None:
        self.counted = counted

    def getEnergy(self, coords: np.ndarray) -> float:
        return self.counted.value(coords)

    def getEnergyGradient(self, coords: np.ndarray) -> tuple[float, np.ndarray]:
        return self.counted.value_and_gradient(coords)


class System(BaseSystem):
    """Points of a Euclidean space, without symmetries."""

    def __init__(self, counted: Counted, rng: np.random.Generator) -> None:
        super().__init__()
        self.counted, self.rng = counted, rng
        self.params.database.accuracy = 1e-5
        self.params.takestep.stepsize = counted.problem.step

    def get_potential(self) -> Potential:
        return Potential(self.counted)

    def get_random_configuration(self) -> np.ndarray:
        return self.rng.uniform(self.counted.problem.low, self.counted.problem.high)

    def get_mindist(self):
        def distance(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            if self.counted.out_of_time():  # every local connection asks for a distance first
                raise OutOfTime
            return np.linalg.norm(a - b), a, b

        return distance

    def get_compare_exact(self):
        return lambda a, b: np.linalg.norm(a - b) < 1e-3

    def get_orthogonalize_to_zero_eigenvectors(self):
        return None


def minima(counted: Counted, request: Request) -> Found:
    potential = Potential(counted)
    starts = counted.problem.starts(request["starts"], request["seed"])
    return Found(distinct([lbfgs_cpp(x, potential).coords for x in starts], counted))


class Search:
    """A system, its database, and what each transition state of it cost.

    told : gradients that pele tells of, where its compiled potential does not count in `Counted`.
    """

    def __init__(self, system: BaseSystem, counted: Counted, request: Request) -> None:
        self.system, self.counted, self.told = system, counted, 0
        self.rng = np.random.default_rng(request["seed"])
        self.database = system.create_database()
        self.known: list[Minimum] = []  # asking the database for all of them before every search takes long
        self.costs: dict[int, int] = {}
        self.database.on_minimum_added.connect(self._know)
        self.database.on_ts_added.connect(self._note)

    @property
    def cost(self) -> int:
        return self.counted.cost or self.told

    def _know(self, minimum: Minimum) -> None:
        self.known.append(minimum)

    def _note(self, saddle: TransitionState) -> None:
        self.costs[saddle.id()] = self.cost

    def hop(self, hops: int) -> None:
        for _ in range(hops // HOPS):
            self.system.get_basinhopping(database=self.database, outstream=None).run(HOPS)

    def quench(self, x: np.ndarray) -> Result:
        ended = self.system.get_minimizer()(x)
        self.told += ended.nfev
        return ended

    def walk(self, searches: int, displacement: Callable[[int], np.ndarray]) -> int:
        """Single-ended searches from displaced known minima, and what lies below their saddles; how many were done."""
        potential, orthogonal = self.system.get_potential(), self.system.get_orthogonalize_to_zero_eigenvectors()
        for search in range(searches):
            if self.counted.out_of_time():
                return search
            start = self.known[self.rng.integers(len(self.known))].coords
            try:
                start = start + displacement(len(start))
                saddle = findTransitionState(start, potential, orthogZeroEigs=orthogonal, verbosity=0)
                self.told += saddle.nfev
                if not saddle.success:
                    continue
                below = minima_from_ts(potential, saddle.coords, n=saddle.eigenvec, quench=self.quench)
                ends = [self.database.addMinimum(end.energy, end.coords) for end in below]
                self.database.addTransitionState(saddle.energy, saddle.coords, *ends, eigenvec=saddle.eigenvec)
            except Exception:  # pele raises many kinds where a search loses its way
                continue
        return searches

    def found(self, note: str) -> Found:
        saddles = self.database.transition_states()
        costs = [self.costs[saddle.id()] for saddle in saddles]
        minima = [minimum.coords for minimum in self.database.minima()]
        return Found(minima, [saddle.coords for saddle in saddles], note, costs, self.cost)


def landscape(counted: Counted, request: Request) -> Found:
    """`hops` of basin hopping, then `connects` double-ended runs on the pairs that pele's manager proposes."""
    search = Search(System(counted, np.random.default_rng(request["seed"])), counted, request)
    search.hop(request["hops"])
    manager = ConnectManager(search.database, strategy="combine", verbosity=0)
    failed = done = 0
    for _ in range(request["connects"]):
        try:
            first, second = manager.get_connect_job()
        except manager.NoMoreConnectionsError:
            break
        done += 1
        try:
            search.system.get_double_ended_connect(first, second, search.database, verbosity=0).connect()
        except OutOfTime:
            break
        except Exception:  # as above
            failed += 1
    return search.found(f"{request['hops']} hops, {done} connections tried, {failed} raised errors")


def single_ended(counted: Counted, request: Request) -> Found:
    """`hops` of basin hopping, then `searches` from displaced known minima, which add the minima they fall to."""
    search = Search(System(counted, np.random.default_rng(request["seed"])), counted, request)
    search.hop(request["hops"])
    done = search.walk(request["searches"], lambda n: search.rng.normal(0, DISPLACED, n))
    return search.found(f"{request['hops']} hops, {done} single-ended searches")


def cluster(counted: Counted, request: Request) -> Found:
    """Single-ended searches from displaced known minima, in pele's own compiled Lennard-Jones potential."""
    search = Search(LJCluster(counted.problem.dim // 3), counted, request)
    for _ in range(20):
        ended = search.quench(search.system.get_random_configuration())
        search.database.addMinimum(ended.energy, ended.coords)
    done = search.walk(request["searches"], lambda n: search.rng.uniform(-0.5, 0.5, n))
    return search.found(f"{done} searches, compiled potential, its own counts")


def saddle_walks(counted: Counted, request: Request) -> Found:
    potential = Potential(counted)

    def walk(start: np.ndarray, minimum: np.ndarray) -> np.ndarray | None:
        try:
            saddle = findTransitionState(start, potential, orthogZeroEigs=None, verbosity=0)
        except Exception:  # as above
            return None
        return saddle.coords if saddle.success else None

    return walks(counted, request, walk)


SEARCHES = {
    "minima": minima,
    "landscape": landscape,
    "single_ended": single_ended,
    "cluster": cluster,
    "walks": saddle_walks,
}

if __name__ == "__main__":
    serve(SEARCHES)
