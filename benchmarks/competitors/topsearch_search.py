"""TopSearch: basin hopping, then nudged elastic bands and hybrid eigenvector following between near minima."""

from __future__ import annotations

import numpy as np
from topsearch.data.coordinates import StandardCoordinates
from topsearch.data.kinetic_transition_network import KineticTransitionNetwork
from topsearch.global_optimisation.basin_hopping import BasinHopping
from topsearch.global_optimisation.perturbations import StandardPerturbation
from topsearch.minimisation import lbfgs
from topsearch.potentials.potential import Potential
from topsearch.sampling.exploration import NetworkSampling
from topsearch.similarity.similarity import StandardSimilarity
from topsearch.transition_states.hybrid_eigenvector_following import HybridEigenvectorFollowing
from topsearch.transition_states.nudged_elastic_band import NudgedElasticBand

from competitors.harness import Counted, Found, Request, distinct, serve, walks

FOLLOWING = {"ts_conv_crit": 1e-5, "ts_steps": 75, "pushoff": 0.1}
HOPS = 10  # of a walk of basin hopping, each from another random point of the box


class TorchPotential(Potential):
    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self.counted = counted

    def function(self, position: np.ndarray) -> float:
        return self.counted.value(position)

    def gradient(self, position: np.ndarray, displacement: float = 1e-6) -> np.ndarray:
        return self.counted.value_and_gradient(position)[1]

    def function_gradient(self, position: np.ndarray) -> tuple[float, np.ndarray]:
        return self.counted.value_and_gradient(position)


class Sampling(NetworkSampling):
    """TopSearch's own sampling, which ends at the time limit between two pairs and notes what saddles cost."""

    def __init__(self, counted: Counted, *parts: object) -> None:
        super().__init__(*parts)
        self.counted = counted
        self.saddles: list[np.ndarray] = []
        self.costs: list[int] = []

    def connection_attempt(self, pair: list) -> list:
        if self.counted.out_of_time():
            return []
        reached = super().connection_attempt(pair)
        self.saddles += [np.array(parts[0]) for parts in reached]
        self.costs += [self.counted.cost] * len(reached)
        return reached


def minima(counted: Counted, request: Request) -> Found:
    potential, bounds = TorchPotential(counted), list(zip(counted.problem.low, counted.problem.high, strict=True))
    starts = counted.problem.starts(request["starts"], request["seed"])
    ends = [lbfgs.minimise(potential.function_gradient, x, bounds)[0] for x in starts]
    return Found(distinct(ends, counted))


def landscape(counted: Counted, request: Request) -> Found:
    """`hops` of basin hopping; every minimum is joined to its 8 nearest, then what is unconnected."""
    problem, potential = counted.problem, TorchPotential(counted)
    coordinates = StandardCoordinates(problem.dim, list(zip(problem.low, problem.high, strict=True)))
    similarity = StandardSimilarity(distance_criterion=1e-3, energy_criterion=1e-4)
    network = KineticTransitionNetwork()
    hopping = BasinHopping(network, potential, similarity, StandardPerturbation(2 * problem.step))
    following = HybridEigenvectorFollowing(potential, **FOLLOWING)
    band = NudgedElasticBand(potential, force_constant=50.0, image_density=10.0, max_images=20, neb_conv_crit=1e-2)
    sampling = Sampling(counted, network, coordinates, hopping, following, band, similarity)
    for walk in range(request["hops"] // HOPS):
        coordinates.position = coordinates.generate_random_point()
        sampling.get_minima(coordinates, HOPS, 1e-5, 10.0, test_valid=walk + 1 == request["hops"] // HOPS)
    sampling.get_transition_states("ClosestEnumeration", 8)
    sampling.get_transition_states("ConnectUnconnected", 8)
    found = [network.get_minimum_coords(k) for k in range(network.n_minima)]
    return Found(found, sampling.saddles, f"{request['hops']} hops, 8 neighbours", sampling.costs)


class WithoutDescents(HybridEigenvectorFollowing):
    """Ends at the saddle: what lies below it is asked of nobody."""

    def steepest_descent(
        self, transition_state: StandardCoordinates, eigenvector: np.ndarray
    ) -> tuple[np.ndarray, float, np.ndarray, float]:
        return transition_state.position + eigenvector, 0.0, transition_state.position - eigenvector, 0.0


def saddle_walks(counted: Counted, request: Request) -> Found:
    problem = counted.problem
    following = WithoutDescents(TorchPotential(counted), **FOLLOWING)
    bounds = list(zip(problem.low, problem.high, strict=True))

    def walk(start: np.ndarray, minimum: np.ndarray) -> np.ndarray | None:
        coordinates = StandardCoordinates(problem.dim, bounds)
        coordinates.position = np.clip(start, problem.low, problem.high)
        return following.run(coordinates)[0]

    return walks(counted, request, walk)


if __name__ == "__main__":
    serve({"minima": minima, "landscape": landscape, "walks": saddle_walks})
