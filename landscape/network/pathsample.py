"""The files min.data and ts.data of PATHSAMPLE and the programs around it (disconnectionDPS, pele, TopSearch).

One line a minimum: energy, log of the product of the Hessian's eigenvalues, order of the point group, three moments of
inertia. One line a saddle: energy, log of the product of its positive eigenvalues, order, the numbers of the two
minima, three moments. Minima are numbered from 1 in the order of the file.

Rates that other programs compute from these files are those of harmonic transition state theory with unit masses,

    k = 1/(2 pi) sqrt(prod eigenvalues_min / prod positive eigenvalues_saddle) exp(-beta dE),

not Langer's: overdamped or damped dynamics has other prefactors. Energies, barriers and weights are the same.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from landscape.errors import UsageError
from landscape.network.elimination import Array
from landscape.network.export import replace_files

# A point without a shape: order 1, so that no symmetry is counted, and moments that cancel in every ratio.
_POINT = (1.0, 1.0, 1.0, 1.0)


def _moments(shape: Array) -> str:
    return " ".join(repr(float(moment)) for moment in shape[1:])


def pathsample_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """The files that `export_pathsample` writes."""
    return [Path(folder) / "min.data", Path(folder) / "ts.data"]


def export_pathsample(
    folder: str | os.PathLike[str],
    energies: Array,
    eigenvalues: Array,
    saddle_energies: Array,
    saddle_eigenvalues: Array,
    joins: Array,
    log_dets: tuple[Array, ...] | None = None,
    shapes: tuple[Array, Array] | None = None,
) -> list[Path]:
    """Write min.data and ts.data into `folder`, which is made if it is missing; returns the two paths.

    energies (n,), eigenvalues (n, d) of minima. saddle_energies (m,), saddle_eigenvalues (m, d), joins (m, 2) int from
    0: saddles with an unknown side (-1) are left out, since the format cannot hold them. All numbers have 17 digits.
    log_dets : log |det| of minima (n,) and saddles (m,), where the eigenvalues are not all of them.
    shapes : of clusters, the order of the point group and three moments of inertia, (n, 4) and (m, 4).
    UsageError: a minimum with an eigenvalue that is not positive, a saddle without exactly one negative eigenvalue, a
    folder that cannot be written.
    """
    lows, tops = np.asarray(eigenvalues, dtype=np.float64), np.asarray(saddle_eigenvalues, dtype=np.float64)
    if not np.all(lows > 0):
        worst = int(np.argmin(lows.min(axis=1)))
        raise UsageError(f"minimum {worst} has a Hessian eigenvalue {lows[worst].min():.6g}: it is no minimum")
    bad = np.flatnonzero(np.count_nonzero(tops < 0, axis=-1) != 1)
    if len(bad):
        raise UsageError(f"saddle {bad[0]} has not exactly one negative Hessian eigenvalue: leave it out")
    low_products, top_products = np.log(lows).sum(axis=1), np.log(np.where(tops > 0, tops, 1.0)).sum(axis=-1)
    if log_dets is not None:
        low_products, top_products = log_dets[0], log_dets[1] - np.log(np.abs(np.where(tops < 0, tops, 1.0))).sum(-1)
    low_shapes, top_shapes = shapes or (np.tile(_POINT, (len(energies), 1)), np.tile(_POINT, (len(saddle_energies), 1)))
    minima = [
        f"{energy:.17g} {log_product:.17g} {shape[0]:.0f} {_moments(shape)}\n"
        for energy, log_product, shape in zip(energies, low_products, low_shapes, strict=True)
    ]
    saddles = []
    ends = np.asarray(joins).tolist()
    for energy, log_product, shape, (i, j) in zip(saddle_energies, top_products, top_shapes, ends, strict=True):
        if i >= 0 and j >= 0:
            order = f"{shape[0]:.0f}"
            saddles.append(f"{energy:.17g} {log_product:.17g} {order} {i + 1} {j + 1} {_moments(shape)}\n")
    paths = pathsample_paths(folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made ({error.strerror}): give another one") from error
    replace_files({path: "".join(lines).encode() for path, lines in zip(paths, (minima, saddles), strict=True)})
    return paths
