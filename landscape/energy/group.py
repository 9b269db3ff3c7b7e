"""What searches, weights and rates need to know of a symmetry group; the groups are in `landscape.energy.symmetry`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from landscape.energy.alignment import Array

Move = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Orbits:
    """The orbits of n points. zero_modes (n,) int : their dimensions z. log_volume (n,) : log V, over all pieces.

    order (n,) : order of the point group (the pairs of a sign and a permutation that a rotation undoes).
    moments (n, r) : of inertia, for unit masses; 0 where particles on a line have none.
    """

    zero_modes: Array
    log_volume: Array
    order: Array
    moments: Array


class Symmetry(ABC):
    """What the searches need to know of a symmetry group that acts on x (d,) by isometries."""

    kind: ClassVar[str]

    @abstractmethod
    def check(self, dim: int, where: str) -> None:
        """EnergyError, beginning with `where`, unless this can be a symmetry of an energy of `dim` coordinates."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Plain data for metadata and saved analyses; `from_record` is the inverse."""

    @abstractmethod
    def moves(self) -> list[tuple[str, Move]]:
        """The kinds of elements that make up the group: a name, and how one of them, drawn at random, moves (n, d)."""

    @abstractmethod
    def canonical(self, x: Array) -> Array:
        """Copies of x (n, d) in a standard place: inside one period, about the origin."""

    @abstractmethod
    def separation(self, points: Array, x: Array, within: float) -> Array:
        """Distances (n,) from points (n, d) to the copy of x (d,) nearest to each; inf where beyond `within`."""

    @abstractmethod
    def nearest(self, x: Array, reference: Array) -> Array:
        """The copy of each row of x (n, d) that is nearest to that row of `reference` (n, d)."""

    def spectrum(self, x: Array, eigenvalues: Array) -> Array:
        """Eigenvalues (n, d) of `eigh_modulo` at x with an exact 0 for each zero mode, ascending."""
        return eigenvalues

    def moved(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """x (n, d), each row moved by a random element."""
        for _, move in self.moves():
            x = move(x, generator)
        return x
