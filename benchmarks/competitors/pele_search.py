"""pele: quenches; basin hopping, then double-ended connection; for clusters single-ended searches."""

from __future__ import annotations

import numpy as np
from pele.landscape import ConnectManager
from pele.optimize import lbfgs_cpp
from pele.potentials import BasePotential
from pele.systems import BaseSystem, LJCluster
from pele.transition_states import findTransitionState, minima_from_ts

from competitors.harness import Counted, Found, Request, distinct, serve


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
        return lambda a, b: (np.linalg.norm(a - b), a, b)

    def get_compare_exact(self):
        return lambda a, b: np.linalg.norm(a - b) < 1e-3

    def get_orthogonalize_to_zero_eigenvectors(self):
        return None


def minima(counted: Counted, request: Request) -> Found:
    potential = Potential(counted)
    starts = counted.problem.starts(request["starts"], request["seed"])
    return Found(distinct([lbfgs_cpp(x, potential).coords for x in starts], counted))


def landscape(counted: Counted, request: Request) -> Found:
    """`hops` of basin hopping, then `connects` double-ended runs on the pairs that pele's manager proposes."""
    system = System(counted, np.random.default_rng(request["seed"]))
    database = system.create_database()
    system.get_basinhopping(database=database, outstream=None).run(request["hops"])
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
        except Exception:  # pele raises many kinds where a search loses its way
            failed += 1
    found = [minimum.coords for minimum in database.minima()]
    saddles = [saddle.coords for saddle in database.transition_states()]
    return Found(found, saddles, f"{request['hops']} hops, {done} connections tried, {failed} raised errors")


def cluster(counted: Counted, request: Request) -> Found:
    """Single-ended searches from displaced known minima, in pele's own compiled Lennard-Jones potential."""
    atoms = counted.problem.dim // 3
    system, rng = LJCluster(atoms), np.random.default_rng(request["seed"])
    database, potential, quench = system.create_database(), system.get_potential(), system.get_minimizer()
    orthogonal = system.get_orthogonalize_to_zero_eigenvectors()
    for _ in range(20):
        ended = quench(system.get_random_configuration())
        database.addMinimum(ended.energy, ended.coords)
    for _ in range(request["searches"]):
        known = database.minima()
        start = known[rng.integers(len(known))].coords + rng.uniform(-0.5, 0.5, 3 * atoms)
        try:
            saddle = findTransitionState(start, potential, orthogZeroEigs=orthogonal, tol=1e-5, iprint=0)
            if not saddle.success:
                continue
            below = minima_from_ts(potential, saddle.coords, n=saddle.eigenvec, quench=quench)
            ends = [database.addMinimum(end[1] if len(end) > 1 else end.energy, end[0]) for end in below]
            database.addTransitionState(saddle.energy, saddle.coords, *ends, eigenvec=saddle.eigenvec)
        except Exception:  # as above
            continue
    found = [minimum.coords for minimum in database.minima()]
    saddles = [saddle.coords for saddle in database.transition_states()]
    return Found(found, saddles, f"{request['searches']} searches, compiled potential", -1)


if __name__ == "__main__":
    serve({"minima": minima, "landscape": landscape, "cluster": cluster})
