"""Triangle meshes of a surface and of isosurfaces, for 3-D pictures of any library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscape.errors import UsageError
from landscape.plots.grids import EnergyGrid

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles: vertices (n, 3), faces (m, 3) the vertices of each. kt (n,) : the energy at each vertex above the
    lowest minimum, in kT, not clipped. state : whose sub-level set it bounds, -1 for none."""

    vertices: Array
    faces: Array
    kt: Array
    state: int = -1


def surface_mesh(grid: EnergyGrid, every: int = 2) -> Mesh:
    """The graph of the energy over a plane: vertices (u, v, min(kT, limit)), two triangles a cell.

    every : take each such point of the grid, which keeps a web page small. UsageError unless the grid is of a plane.
    """
    if grid.subspace.dim != 2:
        raise UsageError(f"a surface needs the grid of a plane, not one of {grid.subspace.dim} axes")
    u, v = (tick[::every] for tick in grid.ticks)
    kt = grid.kt[::every, ::every]
    n, m = kt.shape
    number = np.arange(n * m).reshape(n, m)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    first, second = np.meshgrid(u, v, indexing="ij")
    vertices = np.stack([first, second, np.minimum(kt, grid.levels.limit)], axis=-1).reshape(-1, 3)
    return Mesh(vertices, faces, kt.ravel())


def cut_above(mesh: Mesh, limit: float) -> Mesh:
    """The part of a surface mesh at or below `limit` (kT): triangles that reach above it end there.

    Vertices that no triangle needs any more stay in their places.
    """
    above = mesh.kt[mesh.faces] > limit
    count = above.sum(axis=1)
    vertices, faces, total = [mesh.vertices], [mesh.faces[count == 0]], len(mesh.vertices)
    for high in (1, 2):
        rows = count == high
        # the corner that is alone on its side, then the two others in their order
        alone = (above[rows] if high == 1 else ~above[rows]).argmax(axis=1)
        a, b, c = np.take_along_axis(mesh.faces[rows], (alone[:, None] + np.arange(3)) % 3, axis=1).T
        for other in (b, c):
            part = ((limit - mesh.kt[a]) / (mesh.kt[other] - mesh.kt[a]))[:, None]
            cut = mesh.vertices[a] + part * (mesh.vertices[other] - mesh.vertices[a])
            vertices.append(np.column_stack([cut[:, :2], np.full(len(a), limit)]))
        p, q = total + np.arange(len(a)), total + len(a) + np.arange(len(a))
        total += 2 * len(a)
        faces += [np.stack([p, b, c], -1), np.stack([p, c, q], -1)] if high == 1 else [np.stack([a, p, q], -1)]
    new = np.full(total - len(mesh.vertices), limit)
    return Mesh(np.concatenate(vertices), np.concatenate(faces), np.concatenate([mesh.kt, new]), mesh.state)


def isosurface(grid: EnergyGrid, level: float, field: Array | None = None, state: int = -1) -> Mesh | None:
    """The surface {field = level} in a 3-D subspace, by marching cubes; None where the field does not cross the level.

    level : in kT. field : in the grid's shape, by default the energy in kT. UsageError unless the grid has three axes,
    and where scikit-image, which the extra "report" brings, is not installed.
    """
    if grid.subspace.dim != 3:
        raise UsageError(f"an isosurface needs the grid of a 3-D subspace, not one of {grid.subspace.dim} axes")
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise UsageError(
            'isosurfaces need scikit-image: install it with pip install "learned-landscape[report]"'
        ) from error
    values = grid.kt if field is None else field
    if not values.min() < level < values.max():
        return None
    spacing = tuple(float(tick[1] - tick[0]) for tick in grid.ticks)
    vertices, faces, _, _ = marching_cubes(values, level, spacing=spacing)
    corner = np.array([tick[0] for tick in grid.ticks])
    return Mesh(vertices + corner, faces.astype(np.int64), np.full(len(vertices), level), state)
