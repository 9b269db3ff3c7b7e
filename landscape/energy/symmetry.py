"""Symmetries that an energy declares: what they leave unchanged, their zero modes, and when two points are one.

`Energy(..., symmetry=ParticleSymmetry(7))` declares a cluster of seven equal atoms, `symmetry=Periodic((2 * pi, None))`
an angle and a length. A stationary point then stands for its whole orbit under the group. With the flat directions of
the orbit left out, the mass of a nondegenerate minimum at small temperature is

    exp(-beta E) (2 pi / beta)^((d - z) / 2) (product of the d - z nonzero Hessian eigenvalues)^-1/2 V

with z the dimension of the orbit and V its z-dimensional volume in Euclidean x, over all of its pieces; rates take the
same V of saddle and minimum (`landscape.rates.kramers`). For particles in space V is 8 pi^2 sqrt(n^3 det I), with the
inertia tensor I for unit masses about the centroid (the volume of the box is left out of every V), times the number of
distinct permutation-inversion isomers, 2 prod_s n_s! / h; h is the order of the point group with improper operations.
Collinear particles have z = 5 and 4 pi n^(3/2) I instead.

D. J. Wales, Energy Landscapes, Cambridge University Press 2003, chapters 6 and 7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from landscape.energy.alignment import (
    COLLINEAR,
    Array,
    Isometry,
    isometries,
    nearest_copy,
    quick_isometry,
    sorted_distances,
)
from landscape.energy.group import Move, Orbits, Symmetry
from landscape.errors import EnergyError

# Volume of the rotations (3-D) or of the directions of a line, by the dimension of space and of the orbit.
TURNS = {(1, 0): 1.0, (2, 0): 1.0, (3, 0): 1.0, (2, 1): 2 * math.pi, (3, 2): 4 * math.pi, (3, 3): 8 * math.pi**2}
ORIGIN = 1e-3  # a cluster smaller than COLLINEAR times this, within the error of a polish, is a point
POINT_GROUP = 1e-4  # particles that an operation brings this close, in units of the cluster's extent, are matched


@dataclass(frozen=True)
class Periodic(Symmetry):
    """E(x) is unchanged when coordinate k changes by periods[k]; None for a coordinate that is not periodic."""

    periods: tuple[float | None, ...]

    kind: ClassVar[str] = "periodic"

    def __post_init__(self) -> None:
        given = tuple(None if period is None else _positive(period) for period in _sequence(self.periods, "periods"))
        if not any(given):
            raise EnergyError(f"a periodic energy has a period in one coordinate at least, not {self.periods!r}")
        object.__setattr__(self, "periods", given)

    @property
    def lengths(self) -> Array:
        """The periods (d,), infinite where there is none."""
        return np.array([math.inf if period is None else period for period in self.periods])

    @property
    def mask(self) -> Array:
        """(d,) bool: which coordinates are periodic."""
        return np.isfinite(self.lengths)

    def check(self, dim: int, where: str) -> None:
        if len(self.periods) != dim:
            raise EnergyError(f"{where}: periods are {dim}, one a coordinate (None: not periodic), not {self.periods}")

    def record(self) -> dict[str, Any]:
        return {"kind": self.kind, "periods": list(self.periods)}

    def moves(self) -> list[tuple[str, Move]]:
        names = {int(k): f"the period {self.lengths[k]:.6g} of coordinate {k}" for k in np.flatnonzero(self.mask)}
        return [(name, partial(self._shift, k)) for k, name in names.items()]

    def _shift(self, k: int, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        times = torch.tensor([-2, -1, 1, 2])[torch.randint(4, (len(x),), generator=generator)]
        moved = x.clone()
        moved[:, k] += float(self.lengths[k]) * times.to(x)
        return moved

    def canonical(self, x: Array) -> Array:
        """Periodic coordinates in [0, period), but just below 0 rather than at its upper end by rounding."""
        wrapped = np.array(x, float)
        mask, lengths = self.mask, self.lengths
        inside = np.mod(wrapped[:, mask], lengths[mask])
        wrapped[:, mask] = inside - lengths[mask] * (inside > lengths[mask] * (1 - 1e-9))
        return wrapped

    def difference(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """a - b (..., d) between nearest copies."""
        lengths = torch.as_tensor(self.lengths, dtype=a.dtype, device=a.device)
        gap = a - b
        return torch.where(lengths.isfinite(), gap - lengths.nan_to_num(posinf=1.0) * (gap / lengths).round(), gap)

    def cell(self, points: Array) -> Array:
        """One period (d, 2) that ends in the middle of the largest gap between points (n, d); infinite where there is
        none."""
        low, x = np.full(len(self.periods), -np.inf), self.canonical(points)
        for k in np.flatnonzero(self.mask):
            places = np.sort(x[:, k])
            gaps = np.diff(np.append(places, places[0] + self.lengths[k]))
            at = int(gaps.argmax())
            low[k] = places[at] + 0.5 * gaps[at] - self.lengths[k]
        return np.stack([low, np.where(self.mask, low + np.where(self.mask, self.lengths, 0.0), np.inf)], axis=1)

    def shortest(self, gap: Array) -> Array:
        """Differences of points (..., d) as those of nearest copies."""
        lengths = np.where(self.mask, self.lengths, 1.0)
        return np.asarray(gap - self.mask * lengths * np.round(gap / lengths))

    def separation(self, points: Array, x: Array, within: float) -> Array:
        distance = self.difference(torch.as_tensor(points), torch.as_tensor(x)).norm(dim=-1).numpy()
        return np.where(distance <= within, distance, np.inf)

    def nearest(self, x: Array, reference: Array) -> Array:
        return np.asarray(reference) + self.difference(torch.as_tensor(x), torch.as_tensor(reference)).numpy()


@dataclass(frozen=True)
class ParticleSymmetry(Symmetry):
    """n_particles in 1, 2 or 3 dimensions; coordinates are x1, y1, z1, x2, ...

    translation : moving all particles together changes nothing. rotation : nor does turning them about the centroid
    (about the origin without translation). inversion : nor does a mirror image; needs rotation.
    species : a label (whole number or text) a particle; exchanging particles of one species changes nothing. None: all
    are of one. Different labels throughout declare no permutations.
    """

    n_particles: int
    dim: int = 3
    translation: bool = True
    rotation: bool = True
    species: tuple[int | str, ...] | None = None
    inversion: bool = True

    kind: ClassVar[str] = "particles"

    def __post_init__(self) -> None:
        for name, allowed in (("n_particles", None), ("dim", (1, 2, 3))):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or value < 1 or (allowed and value not in allowed):
                raise EnergyError(f"particles: {name} is {'1, 2 or 3' if allowed else 'at least 1'}, not {value!r}")
        for name in ("translation", "rotation", "inversion"):
            if not isinstance(getattr(self, name), bool):
                raise EnergyError(f"particles: {name} is True or False, not {getattr(self, name)!r}")
        if self.inversion and not self.rotation:
            raise EnergyError("particles: inversion is declared together with rotation, or not at all")
        if self.species is not None:
            object.__setattr__(self, "species", _sequence(self.species, "species"))
            if len(self.labels) != self.n_particles:
                raise EnergyError(f"particles: species are {self.n_particles} labels, not {len(self.labels)}")

    @property
    def labels(self) -> Array:
        """Species as numbers (n_particles,)."""
        if self.species is None:
            return np.zeros(self.n_particles, int)
        known = {label: k for k, label in enumerate(dict.fromkeys(self.species))}
        return np.array([known[label] for label in self.species])

    @property
    def signs(self) -> tuple[int, ...]:
        """Determinants of the matrices in the group."""
        return (1, -1) if self.inversion else (1,)

    def check(self, dim: int, where: str) -> None:
        if self.n_particles * self.dim != dim:
            raise EnergyError(
                f"{where}: {self.n_particles} particles in {self.dim} dimensions have {self.n_particles * self.dim} "
                f"coordinates, but the energy has {dim}"
            )

    def record(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "n_particles": self.n_particles, "dim": self.dim, "translation": self.translation,
            "rotation": self.rotation, "species": None if self.species is None else list(self.species),
            "inversion": self.inversion,
        }  # fmt: skip

    # -- the group ---------------------------------------------------------------------------------------------------

    def moves(self) -> list[tuple[str, Move]]:
        moves: list[tuple[str, Move]] = []
        if self.translation:
            moves.append(("translation", self._shift))
        if self.rotation and self.dim > 1:
            moves.append(("rotation", self._turn))
        if self.inversion:
            moves.append(("inversion", self._reflect))
        if len(np.unique(self.labels)) < self.n_particles:
            moves.append(("permutation of particles of one species", self._permute))
        return moves

    def _shift(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        shift = torch.randn(len(x), 1, self.dim, generator=generator, dtype=torch.float64).to(x)
        return (x.reshape(len(x), -1, self.dim) + shift).reshape(x.shape)

    def _turn(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        q = torch.linalg.qr(torch.randn(len(x), self.dim, self.dim, generator=generator, dtype=torch.float64))[0]
        q[:, :, -1] *= torch.linalg.det(q).sign()[:, None]
        return self._about_center(x, q.to(x))

    def _reflect(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        # with the rotations, one improper operation gives all of them
        mirror = torch.eye(self.dim, dtype=x.dtype, device=x.device)
        mirror[-1, -1] = -1
        return self._about_center(x, mirror.expand(len(x), -1, -1))

    def _about_center(self, x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        atoms = x.reshape(len(x), -1, self.dim)
        center = atoms.mean(1, keepdim=True) if self.translation else torch.zeros_like(atoms[:, :1])
        return ((atoms - center) @ matrices.mT + center).reshape(x.shape)

    def _permute(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        labels = torch.from_numpy(self.labels)
        keys = torch.rand(len(x), self.n_particles, generator=generator, dtype=torch.float64) + 2 * labels
        order = torch.empty(len(x), self.n_particles, dtype=torch.long)
        order[:, labels.argsort(stable=True)] = keys.argsort(1)  # species by species, in an order of each row's own
        atoms = x.reshape(len(x), -1, self.dim)
        return atoms.gather(1, order.to(x.device)[..., None].expand_as(atoms)).reshape(x.shape)

    def centered(self, x: Array) -> Array:
        """Configurations (n, n_particles, dim) of x (n, d), about the centroid if translations are declared."""
        atoms = np.asarray(x, float).reshape(-1, self.n_particles, self.dim)
        return atoms - atoms.mean(1, keepdims=True) if self.translation else atoms

    def canonical(self, x: Array) -> Array:
        """The centroid at the origin; orientation and order as they are."""
        return self.centered(x).reshape(np.shape(x))

    def separation(self, points: Array, x: Array, within: float) -> Array:
        atoms, wanted = self.centered(points), self.centered(x[None])
        about_origin = not self.translation
        if not len(atoms):
            return np.zeros(0)
        invariants = sorted_distances(atoms, self.labels, about_origin)
        gap = np.abs(invariants - sorted_distances(wanted, self.labels, about_origin)).max(1, initial=0.0)
        distance = np.full(len(atoms), np.inf)
        for k in np.flatnonzero(gap <= 2 * within):
            quick = quick_isometry(atoms[k], wanted[0], self.labels, self.signs, within) if self.rotation else None
            found = [quick] if quick else self._copies(atoms[k], wanted[0], within)
            distance[k] = min((float(np.linalg.norm(atoms[k] - g(wanted[0]))) for g in found), default=np.inf)
        return distance

    def nearest(self, x: Array, reference: Array) -> Array:
        """The centroid of the copy is that of the reference."""
        moved, fixed = self.centered(x), self.centered(reference)
        offset = np.asarray(reference, float).reshape(fixed.shape) - fixed
        copies = [self.alignment(a, b)(b) for a, b in zip(fixed, moved, strict=True)]
        return (np.array(copies).reshape(fixed.shape) + offset).reshape(np.shape(x))

    def carried(self, direction: Array, x: Array, copy: Array) -> Array:
        """What a direction (d,) at x (d,) is at a copy (d,) of x."""
        move = self.alignment(self.centered(copy[None])[0], self.centered(x[None])[0])
        return move(np.asarray(direction, float).reshape(self.n_particles, self.dim)).reshape(-1)

    def alignment(self, a: Array, b: Array) -> Isometry:
        """The operation that carries the centred configuration b closest to a: exact where they are copies."""
        within = POINT_GROUP * (np.linalg.norm(a, axis=1).max() + np.finfo(float).tiny)
        exact = self._copies(a, b, within)
        if exact:
            return min(exact, key=lambda g: float(np.linalg.norm(a - g(b))))
        return nearest_copy(a, b, self.labels, self.signs, self.rotation)

    def _copies(self, a: Array, b: Array, within: float) -> list[Isometry]:
        return isometries(a, b, self.labels, self.signs, self.rotation, within)

    # -- orbits ------------------------------------------------------------------------------------------------------

    def tangents(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Orthonormal bases (n, d, z) of the directions along the orbits of x (n, d), and the moments (n, r).

        The moments are the eigenvalues of the Gram matrix of the infinitesimal rotations (in space: of the inertia
        tensor). Where one vanishes, as for particles on a line in space, its column is zero, and so is the moment.
        """
        atoms = x.reshape(len(x), self.n_particles, self.dim)
        parts = []
        if self.translation:
            shift = torch.eye(self.dim, dtype=x.dtype, device=x.device).repeat(self.n_particles, 1)
            parts.append((shift / self.n_particles**0.5).expand(len(x), -1, -1))
            atoms = atoms - atoms.mean(1, keepdim=True)
        moments = x.new_zeros(len(x), 0)
        if self.rotation and self.dim > 1:
            turns = []
            for a in range(self.dim):
                for b in range(a + 1, self.dim):
                    turn = torch.zeros_like(atoms)
                    turn[:, :, a], turn[:, :, b] = -atoms[:, :, b], atoms[:, :, a]
                    turns.append(turn.reshape(x.shape))
            turn = torch.stack(turns, 2)
            moments, axes = torch.linalg.eigh(turn.mT @ turn)
            present = moments > COLLINEAR**2 * moments[:, -1:].clamp_min(ORIGIN**2)
            moments = torch.where(present, moments, 0)
            scale = torch.where(present, moments, 1).rsqrt() * present
            parts.append(turn @ (axes * scale[:, None]))
        basis = torch.cat(parts, 2) if parts else x.new_zeros(len(x), x.shape[1], 0)
        return basis, moments

    def spectrum(self, x: Array, eigenvalues: Array) -> Array:
        zero = (self.tangents(torch.as_tensor(x))[0].square().sum(1) > 0.5).sum(1).numpy()
        last = np.arange(eigenvalues.shape[1]) >= eigenvalues.shape[1] - zero[:, None]
        return np.sort(np.where(last, 0.0, eigenvalues), axis=1)

    def orbits(self, x: Array) -> Orbits:
        """Dimension, volume and point group of the orbit of each row of x (n, d)."""
        _, found = self.tangents(torch.as_tensor(np.asarray(x, float)))
        moments = found.numpy()
        present = moments > 0
        turning = present.sum(1)
        volume = 0.5 * np.log(np.where(present, moments, 1.0)).sum(1)
        volume += np.log([TURNS[self.dim, int(k)] for k in turning]) if self.rotation else 0.0
        volume += 0.5 * self.dim * math.log(self.n_particles) if self.translation else 0.0
        isomers = math.log(len(self.signs)) + sum(math.lgamma(int(count) + 1) for count in np.bincount(self.labels))
        # floats: no whole number of 64 bits holds the order of 21 particles in one place
        order = np.array([float(self.point_group_order(atoms)) for atoms in self.centered(x)])
        zero_modes = turning + (self.dim if self.translation else 0)
        return Orbits(zero_modes, volume + isomers - np.log(np.maximum(order, 1)), order, moments)

    def point_group_order(self, atoms: Array) -> int:
        """h, the number of pairs (sign, permutation) that some rotation undoes, for a centred configuration."""
        extent = np.linalg.norm(atoms, axis=1).max()
        if extent <= COLLINEAR * ORIGIN:  # a point: every operation leaves it as it is
            return len(self.signs) * math.prod(math.factorial(int(count)) for count in np.bincount(self.labels))
        return max(len(self._copies(atoms, atoms, POINT_GROUP * extent)), 1)


def distances(symmetry: Symmetry | None, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Euclidean distances (m, n) between points a (m, d) and b (n, d), between nearest copies where E is periodic."""
    if isinstance(symmetry, Periodic):
        return symmetry.difference(a[:, None], b[None]).norm(dim=-1)
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def nearest_copies(symmetry: Symmetry | None, x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """x (n, d), or the copies that are nearest to reference (n, d) where a symmetry is declared."""
    if symmetry is None:
        return x
    return torch.as_tensor(symmetry.nearest(x.cpu().numpy(), reference.cpu().numpy())).to(x)


def from_record(record: Any, dim: int, where: str) -> Symmetry:
    """The symmetry that plain data declares; EnergyError, beginning with `where`, if it fits no `dim` coordinates."""
    kinds: dict[str, Any] = {Periodic.kind: Periodic, ParticleSymmetry.kind: ParticleSymmetry}
    if isinstance(record, Symmetry):
        record.check(dim, where)
        return record
    if not isinstance(record, Mapping) or record.get("kind") not in kinds:
        raise EnergyError(f"{where}: a symmetry is an object with kind {' or '.join(kinds)}, not {record!r}")
    fields = {name: value for name, value in record.items() if name != "kind"}
    try:
        symmetry: Symmetry = kinds[record["kind"]](**fields)
    except TypeError as error:
        raise EnergyError(f"{where}: symmetry {record['kind']}: {str(error).partition('__init__() ')[2]}") from error
    except EnergyError as error:
        raise EnergyError(f"{where}: symmetry: {error}") from error
    symmetry.check(dim, where)
    return symmetry


def _sequence(value: Any, name: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise EnergyError(f"{name} are a list, not {value!r}")
    return tuple(item.item() if isinstance(item, np.generic) else item for item in value)


def _positive(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise EnergyError(f"a period is a finite number above 0, or None, not {value!r}")
    return float(value)
