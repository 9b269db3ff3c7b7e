"""pele: quenches; basin hopping, then double-ended connections or single-ended searches, at pele's own settings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pele.landscape import ConnectManager
from pele.optimize import lbfgs_cpp
from pele.potentials import BasePotential
from pele.storage import Database
from pele.systems import BaseSystem, LJCluster
from pele.transition_states import findTransitionState, minima_from_ts

from competitors.harness import Counted, Found, Request, distinct, serve


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


def hopped(system: System, hops: int) -> Database:
    database = system.create_database()
    for _ in range(hops // HOPS):
        system.get_basinhopping(database=database, outstream=None).run(HOPS)
    return database


def landscape(counted: Counted, request: Request) -> Found:
    """`hops` of basin hopping, then `connects` double-ended runs on the pairs that pele's manager proposes."""
    system = System(counted, np.random.default_rng(request["seed"]))
    database = hopped(system, request["hops"])
    manager = ConnectManager(database, strategy="combine", verbosity=0)
    failed = done = 0
    for _ in range(request["connects"]):
        try:
            first, second = manager.get_connect_job()
        except manager.NoMoreConnectionsError:
            break
        done += 1
        try:
            system.get_double_ended_connect(first, second, database, verbosity=0).connect()
        except OutOfTime:
            break
        except Exception:  # pele raises many kinds where a search loses its way
            failed += 1
    return stored(database, f"{request['hops']} hops, {done} connections tried, {failed} raised errors")


def single_ended(counted: Counted, request: Request) -> Found:
    """`hops` of basin hopping, then `searches` from displaced known minima, which add the minima they fall to."""
    system, rng = System(counted, np.random.default_rng(request["seed"])), np.random.default_rng(request["seed"])
    database = hopped(system, request["hops"])
    done, _ = walked(database, system, request["searches"], counted, lambda n: rng.normal(0, DISPLACED, n), rng)
    return stored(database, f"{request['hops']} hops, {done} single-ended searches")


def cluster(counted: Counted, request: Request) -> Found:
    """Single-ended searches from displaced known minima, in pele's own compiled Lennard-Jones potential."""
    system, rng = LJCluster(counted.problem.dim // 3), np.random.default_rng(request["seed"])
    database, quench, calls = system.create_database(), system.get_minimizer(), 0
    for _ in range(20):
        ended = quench(system.get_random_configuration())
        database.addMinimum(ended.energy, ended.coords)
        calls += ended.nfev
    done, more = walked(database, system, request["searches"], counted, lambda n: rng.uniform(-0.5, 0.5, n), rng)
    return stored(database, f"{done} searches, compiled potential, its own counts", calls + more)


def walked(
    database: Database,
    system: BaseSystem,
    searches: int,
    counted: Counted,
    displacement: Callable[[int], np.ndarray],
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Single-ended searches and the minima below their saddles, into the database: searches done, calls told by pele."""
    potential, quench, calls = system.get_potential(), system.get_minimizer(), 0
    orthogonal = system.get_orthogonalize_to_zero_eigenvectors()
    for search in range(searches):
        if counted.out_of_time():
            return search, calls
        known = database.minima()
        start = known[rng.integers(len(known))].coords
        start = start + displacement(len(start))
        try:
            saddle = findTransitionState(start, potential, orthogZeroEigs=orthogonal, verbosity=0)
            calls += saddle.nfev
            if not saddle.success:
                continue
            below = minima_from_ts(potential, saddle.coords, n=saddle.eigenvec, quench=quench)
            calls += sum(end.nfev for end in below)
            ends = [database.addMinimum(end.energy, end.coords) for end in below]
            database.addTransitionState(saddle.energy, saddle.coords, *ends, eigenvec=saddle.eigenvec)
        except Exception:  # as above
            continue
    return searches, calls


def stored(database: Database, note: str, cost: int | None = None) -> Found:
    found = [minimum.coords for minimum in database.minima()]
    saddles = [saddle.coords for saddle in database.transition_states()]
    return Found(found, saddles, note, cost)


if __name__ == "__main__":
    serve({"minima": minima, "landscape": landscape, "single_ended": single_ended, "cluster": cluster})
