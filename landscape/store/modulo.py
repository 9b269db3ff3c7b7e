"""States and saddles modulo the declared symmetry of their energy: what weights and rates are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape.dynamics import Dynamics
from landscape.energy.group import Orbits
from landscape.energy.modulo import nonzero_modes
from landscape.energy.symmetry import ParticleSymmetry, from_record
from landscape.errors import UsageError
from landscape.store.records import Array, Saddles, States


@dataclass(frozen=True, eq=False)
class Modulo:
    """Of the states, and of the saddles: orbits, spectra (n, w) without zero modes, log_dets (n,) that know of the
    orbits (`nonzero_modes`); bare_log_dets (n,), logs of the products of the nonzero eigenvalues alone."""

    orbits: tuple[Orbits, Orbits]
    spectra: tuple[Array, Array]
    log_dets: tuple[Array, Array]
    bare_log_dets: tuple[Array, Array]

    @property
    def shapes(self) -> tuple[Array, Array]:
        """Order of the point group and three moments of inertia, (n, 4) and (m, 4); 1 for one that is not there."""
        both = []
        for orbits in self.orbits:
            moments = np.ones((len(orbits.order), 3))
            given = orbits.moments
            moments[:, : given.shape[1]] = np.where(given > 0, given, 1.0)
            both.append(np.column_stack([orbits.order, moments]))
        return both[0], both[1]


def modulo_symmetry(record: Mapping[str, Any] | None, states: States, saddles: Saddles, beta: float) -> Modulo | None:
    """None unless `record` declares a symmetry with zero modes."""
    dim = states.x.shape[1]
    symmetry = None if record is None else from_record(record, dim, "the analysis")
    if not isinstance(symmetry, ParticleSymmetry):
        return None
    points: tuple[States | Saddles, States | Saddles] = (states, saddles)
    orbits = (symmetry.orbits(states.x), symmetry.orbits(saddles.x))
    width = dim - min(int((p.eigenvalues == 0).sum(1).min(initial=dim)) for p in points)
    both = [nonzero_modes(p.eigenvalues, o.log_volume, width, beta) for p, o in zip(points, orbits, strict=True)]
    bare = [np.log(np.abs(np.where(p.eigenvalues == 0, 1.0, p.eigenvalues))).sum(1) for p in points]
    return Modulo(orbits, (both[0][0], both[1][0]), (both[0][1], both[1][1]), (bare[0], bare[1]))


def check_dynamics(record: Mapping[str, Any] | None, dynamics: Dynamics, dim: int) -> None:
    """UsageError unless the dynamics has the symmetry of the energy, so that states modulo it are states of a chain:
    gamma and mass are equal for the coordinates of a particle and for particles of one species, or of one period."""
    symmetry = None if record is None else from_record(record, dim, "the analysis")
    if not isinstance(symmetry, ParticleSymmetry):
        return
    if not dynamics.reversible:
        raise UsageError("a rotation singles out directions, which an energy of particles does not: leave it out")
    for name, values in (("gamma", dynamics.gamma_vector(dim)), ("mass", dynamics.mass_vector(dim))):
        if values is None:
            continue
        rows = values.reshape(-1, symmetry.dim)
        first = rows[[int(np.flatnonzero(symmetry.labels == label)[0]) for label in symmetry.labels], 0]
        alike = (rows == rows[:, :1]).all() if symmetry.rotation else True
        if not alike or (rows[:, 0] != first).any():
            raise UsageError(
                f"{name} is one number a particle, the same for particles of one species: the energy declares that "
                "turning or exchanging them changes nothing"
            )
