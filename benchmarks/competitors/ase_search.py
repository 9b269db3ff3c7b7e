"""ASE: nudged elastic bands with a climbing image between given pairs; dimers from displaced minima."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.mep import NEB, DimerControl, MinModeAtoms, MinModeTranslate
from ase.optimize import FIRE

from competitors.harness import Counted, Found, Request, serve, walks

IMAGES, FORCE, STEPS = 15, 0.01, 500  # inner and end images of a band, largest force at its end, steps
DISPLACED = 0.3  # standard deviation of the displacement of a coordinate before a dimer


class TorchCalculator(Calculator):
    """The first d coordinates of the atoms are x; the others feel nothing."""

    implemented_properties = ("energy", "forces")

    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self.counted = counted

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        positions = self.atoms.get_positions()
        value, gradient = self.counted.value_and_gradient(positions.ravel()[: self.counted.problem.dim])
        forces = np.zeros(positions.size)
        forces[: len(gradient)] = -gradient
        self.results = {"energy": value, "forces": forces.reshape(positions.shape)}


def atoms_at(x: np.ndarray, counted: Counted) -> Atoms:
    positions = np.zeros(-(-len(x) // 3) * 3)
    positions[: len(x)] = x
    atoms = Atoms(f"H{len(positions) // 3}", positions=positions.reshape(-1, 3))
    atoms.calc = TorchCalculator(counted)
    return atoms


def paths(counted: Counted, request: Request) -> Found:
    tops: list[np.ndarray] = []
    for first, second in np.array(request["pairs"]):
        if counted.out_of_time():
            break
        images = [atoms_at(first, counted) for _ in range(IMAGES - 1)] + [atoms_at(second, counted)]
        band = NEB(images, climb=True, allow_shared_calculator=False)
        band.interpolate()
        FIRE(band, logfile=None).run(fmax=FORCE, steps=STEPS)
        top = max(images[1:-1], key=lambda image: image.get_potential_energy())
        tops.append(top.get_positions().ravel()[: counted.problem.dim])
    return Found([], tops, f"{len(tops)} of {len(request['pairs'])} bands")


def dimers(counted: Counted, request: Request) -> Found:
    """`searches` dimers in all, from the given minima in turn, displaced at random; minima come at no cost."""
    rng, minima = np.random.default_rng(request["seed"]), np.array(request["minima"])
    ends: list[np.ndarray] = []
    costs: list[int] = []
    done = 0
    while done < request["searches"] and not counted.out_of_time():
        minimum = minima[done % len(minima)]
        end = dimer(counted, minimum + DISPLACED * rng.normal(size=counted.problem.dim), minimum)
        if end is not None:
            ends.append(end)
            costs.append(counted.cost)
        done += 1
    note = f"{done} dimers from given minima, {len(ends)} converged"
    return Found([], ends, note, costs)


def dimer(counted: Counted, start: np.ndarray, minimum: np.ndarray) -> np.ndarray | None:
    """The saddle (d,) that a dimer at `start`, turned at first along its displacement from `minimum`, walks to."""
    atoms = atoms_at(minimum, counted)
    moved = MinModeAtoms(
        atoms, DimerControl(initial_eigenmode_method="displacement", displacement_method="vector", logfile=None)
    )
    move = np.zeros(3 * len(atoms))
    move[: len(minimum)] = start - minimum
    moved.displace(displacement_vector=move.reshape(-1, 3))
    if not MinModeTranslate(moved, logfile=None).run(fmax=FORCE, steps=STEPS):
        return None
    return moved.get_positions().ravel()[: len(minimum)]


def dimer_walks(counted: Counted, request: Request) -> Found:
    return walks(counted, request, lambda start, minimum: dimer(counted, start, minimum))


if __name__ == "__main__":
    serve({"paths": paths, "dimers": dimers, "walks": dimer_walks})
