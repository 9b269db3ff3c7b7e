"""Planes and 3-D subspaces in which a landscape of many dimensions is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from landscape.errors import UsageError

if TYPE_CHECKING:
    from landscape.store import Analysis

Array = np.ndarray

SLIM = 1e-6  # a triangle (or spread) thinner than this part of its length spans no plane
OFF_PLANE = 0.02  # points farther off than this part of the extent of all points are called off the plane
ELEVATION = 24.0  # of the eye over the floor of a 3-D picture, degrees
AZIMUTHS = tuple(-56.0 + 15.0 * k for k in range(24))  # around it, the usual one first
LANDMARKS = 20_000  # most points, of minima and path images, from which principal axes are found


@dataclass(frozen=True, eq=False)
class Subspace:
    """An affine subspace of dimension k: the points origin + c @ axes.

    origin (d,). axes (k, d) : orthonormal rows. labels (k,) : of the axes of a picture. name : says which it is.
    """

    origin: Array
    axes: Array
    labels: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        origin, axes = np.asarray(self.origin, float), np.asarray(self.axes, float)
        k = len(axes)
        if axes.shape != (k, len(origin)) or len(self.labels) != k or not np.allclose(axes @ axes.T, np.eye(k)):
            raise UsageError(f"a subspace has k orthonormal axes (k, d) and k labels, not axes {axes.tolist()}")
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "axes", axes)

    @property
    def dim(self) -> int:
        """k."""
        return len(self.axes)

    @property
    def is_whole_space(self) -> bool:
        return self.axes.shape[0] == self.axes.shape[1]

    def project(self, points: Array) -> Array:
        """Coordinates in the subspace of the nearest points in it: (..., d) -> (..., k)."""
        return (np.asarray(points, float) - self.origin) @ self.axes.T

    def lift(self, coordinates: Array) -> Array:
        """The points with these coordinates: (..., k) -> (..., d)."""
        return self.origin + np.asarray(coordinates, float) @ self.axes

    def distance(self, points: Array) -> Array:
        """Euclidean distance of points from the subspace: (..., d) -> (...)."""
        return np.linalg.norm(np.asarray(points, float) - self.lift(self.project(points)), axis=-1)

    def holds(self, points: Array, extent: float) -> Array:
        """Whether points lie in it, up to a small part of `extent`: (..., d) -> (...) bool."""
        return self.distance(points) <= OFF_PLANE * extent


def coordinate_subspace(d: int) -> Subspace:
    """The whole space R^d with its own coordinates."""
    labels = tuple(f"$x_{{{k + 1}}}$" for k in range(d))
    return Subspace(np.zeros(d), np.eye(d), labels, "the whole space")


def plane_through(points: Array, names: tuple[str, str, str] = ("a", "b", "c")) -> Subspace:
    """The plane through three points (3, d): the first at the origin, the second on the positive first axis, the third
    in the upper half. names : of the points, for the axes. UsageError where they lie on a line.
    """
    a, b, c = np.asarray(points, float)
    span = max(np.linalg.norm(b - a), np.linalg.norm(c - a), np.linalg.norm(c - b))
    first = b - a
    length = float(np.linalg.norm(first))
    if length > SLIM * span:
        first = first / length
        second = (c - a) - ((c - a) @ first) * first
        second -= (second @ first) * first  # once more, against rounding where c - a is nearly along the first axis
        height = float(np.linalg.norm(second))
        if height > SLIM * span:
            where = f"the plane through {names[0]}, {names[1]} and {names[2]}"
            labels = (f"distance along {names[0]} to {names[1]}", f"towards {names[2]}")
            return Subspace(a, np.stack([first, second / height]), labels, where)
    raise UsageError(
        f"{', '.join(names)} lie on one line, through which there are many planes: choose three others, or pca"
    )


def principal_subspace(points: Array, k: int, spare: Array | None = None) -> Subspace:
    """The mean of points (n, d) and their k principal axes; each axis points where its largest component is positive.

    spare (m, d) : directions that are used, in their order, where the points span fewer than k; coordinates after them.
    UsageError for k > d.
    """
    points = np.asarray(points, float)
    d = points.shape[1]
    if k > d:
        raise UsageError(f"an energy of dimension {d} has no subspace of dimension {k}")
    origin = points.mean(0)
    step = max(1, len(points) // LANDMARKS)
    _, spread, rows = np.linalg.svd(points[::step] - origin, full_matrices=False)
    axes = list(rows[: min(k, int((spread > SLIM * max(spread.max(initial=0.0), 1e-300)).sum()))])
    for direction in (*(() if spare is None else np.asarray(spare, float)), *np.eye(d)):
        if len(axes) == k:
            break
        rest = direction / np.linalg.norm(direction)
        for _ in range(2):
            for axis in axes:
                rest = rest - (rest @ axis) * axis
        length = float(np.linalg.norm(rest))
        if length > 1e-3:
            axes.append(rest / length)
    signed = np.array([axis * np.sign(axis[np.argmax(np.abs(axis))]) for axis in axes])
    labels = tuple(f"principal axis {number + 1}" for number in range(k))
    return Subspace(origin, signed, labels, f"the {k} principal axes of minima and paths")


def landmarks(analysis: Analysis) -> Array:
    """Minima, saddles and path images, (n, d)."""
    d = analysis.dim
    saddles, images = analysis.saddles.x.reshape(-1, d), analysis.paths.images.reshape(-1, d)
    return np.concatenate([analysis.states.x, saddles, images])


def pca_subspace(analysis: Analysis, k: int = 2) -> Subspace:
    """The principal axes of minima and paths; where these span less, the softest directions of the lowest minimum."""
    hessian, d = analysis.states.hessian, analysis.dim
    spare = None if hessian is None else np.linalg.eigh(hessian[0])[1].T
    points = np.concatenate([analysis.states.x, analysis.paths.images.reshape(-1, d)])
    return principal_subspace(points, k, spare)


def choose_plane(analysis: Analysis, choice: str | None = None) -> Subspace:
    """The plane of a picture.

    choice : "0,1,2" the plane through three states; "0,1,s2" through two states and saddle 2; "pca" the principal axes
    of minima and paths; None: the coordinate plane where d = 2, the plane through the minima where there are three,
    else pca. UsageError for anything else, and where d = 1.
    """
    if analysis.dim == 1:
        raise UsageError("an energy of one dimension has no plane: draw its profile")
    if choice is None and analysis.dim == 2:
        return coordinate_subspace(2)
    if choice == "pca":
        return pca_subspace(analysis)
    if choice is not None:
        points, names = zip(*(_landmark(analysis, word) for word in _three(choice)), strict=True)
        return plane_through(np.array(points), names)
    if len(analysis.states.x) == 3:
        try:
            return plane_through(analysis.states.x, ("state 0", "state 1", "state 2"))
        except UsageError:  # on one line
            return pca_subspace(analysis)
    return pca_subspace(analysis)


def viewing_direction(points: Array) -> tuple[float, float]:
    """Elevation and azimuth, degrees, from which points (n, 3) are seen farthest apart: the closest pair on the screen
    decides, of 24 azimuths. For a single point a usual view."""
    some = np.asarray(points, float)[:12]
    if len(some) < 2:
        return ELEVATION, AZIMUTHS[0]
    first, second = np.triu_indices(len(some), 1)
    apart = [
        np.linalg.norm((some[first] - some[second]) @ _screen(ELEVATION, azimuth).T, axis=1).min()
        for azimuth in AZIMUTHS
    ]
    return ELEVATION, AZIMUTHS[int(np.argmax(np.round(apart, 9)))]


def _screen(elevation: float, azimuth: float) -> Array:
    """The directions to the right and upwards on the screen, (2, 3)."""
    e, a = np.radians([elevation, azimuth])
    return np.array([[-np.sin(a), np.cos(a), 0.0], [-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)]])


def choose_space(analysis: Analysis) -> Subspace:
    """The 3-D subspace of a picture: the whole space where d = 3, else the principal axes of minima and paths."""
    if analysis.dim < 3:
        raise UsageError(f"an energy of dimension {analysis.dim} has no 3-D subspace: draw its contour or surface")
    return coordinate_subspace(3) if analysis.dim == 3 else pca_subspace(analysis, 3)


def _three(choice: str) -> list[str]:
    words = [word.strip() for word in choice.split(",")]
    if len(words) != 3 or len(set(words)) != 3:
        raise UsageError(
            f"a plane is pca, three states such as 0,1,2, or two states and a saddle such as 0,1,s2, not {choice!r}"
        )
    return words


def _landmark(analysis: Analysis, word: str) -> tuple[Array, str]:
    """The point and the name of a state ("2") or a saddle ("s2")."""
    kind, points = ("saddle", analysis.saddles.x) if word.startswith("s") else ("state", analysis.states.x)
    number = word.removeprefix("s")
    if not number.isascii() or not number.isdigit() or int(number) >= len(points):
        known = f"{kind}s 0 to {len(points) - 1}" if len(points) else f"no {kind}s"
        raise UsageError(f"a plane is named by states (2) and saddles (s2); there are {known} here, not {word!r}")
    return points[int(number)], f"{kind} {int(number)}"
