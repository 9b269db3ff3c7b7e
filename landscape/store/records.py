"""What an analysis holds: states, saddles, paths and sampled weights as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class States:
    """n states, lowest energy first.

    x (n, d), energy (n,), eigenvalues (n, d) and hessian (n, d, d) or None of the Hessian, gradient_norm (n,),
    hits (n,) : starts that ended here.
    """

    x: Array
    energy: Array
    eigenvalues: Array
    hessian: Array | None
    gradient_norm: Array
    hits: Array


@dataclass(frozen=True, eq=False)
class Saddles:
    """m index-1 saddles, lowest first: as in `States`, and joins (m, 2): the states at both ends, -1 if unknown."""

    x: Array
    energy: Array
    eigenvalues: Array
    hessian: Array | None
    gradient_norm: Array
    joins: Array


@dataclass(frozen=True, eq=False)
class SavedPaths:
    """p minimum energy paths: saddle (p,), images (p, m, d), energy and arclength (p, m), converged (p,)."""

    saddle: Array
    images: Array
    energy: Array
    arclength: Array
    converged: Array


@dataclass(frozen=True, eq=False)
class Sampled:
    """Sampled weights of n states: weights and standard_errors (n,), unassigned share, and the cores: core_mass and
    core_se (n,), the mass of the connected piece of {E < lowest saddle} around each minimum, core_ceiling
    (n,) that energy."""

    weights: Array
    standard_errors: Array
    unassigned: float
    core_mass: Array
    core_se: Array
    core_ceiling: Array


@dataclass(frozen=True, eq=False)
class Exact:
    """Weights of n states by importance sampling: weights and standard_errors (n,); log_z and log_z_se (n,), log of the
    integral of exp(-beta E) over each basin. nan for a state whose mass stayed unknown."""

    weights: Array
    standard_errors: Array
    log_z: Array
    log_z_se: Array
