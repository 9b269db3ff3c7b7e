"""The dynamics of a state point: its parameters, and what follows from them alone.

Overdamped:  dx = -(gamma^-1 + J) grad E dt + sqrt(2 / (beta gamma)) dW.
Underdamped: dx = M^-1 p dt,  dp = -grad E dt - gamma M^-1 p dt + sqrt(2 gamma / beta) dW.

Both keep the density exp(-beta E(x)). gamma is a friction coefficient (not a rate), gamma / mass the collision rate;
gamma and M are diagonal: one number, or one number a coordinate. J, the rotation, is a constant antisymmetric matrix,
0 unless given: it stirs along the level sets of E, keeps exp(-beta E), and ends detailed balance.

C. Landim, M. Mariani, I. Seo, Arch. Rational Mech. Anal. 231, 887 (2019).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from landscape.errors import UsageError

Coefficient = float | Sequence[float] | np.ndarray
Matrix = Sequence[Sequence[float]] | np.ndarray

KINDS = ("overdamped", "underdamped")
MAX_ITERATIONS = 200
ROUNDING = 1e-11  # a Hessian eigenvalue this small, in units of the largest entry, has no sign
TOLERANCE = 4 * float(np.finfo(float).eps)
ANTISYMMETRY = 1e-8  # largest |J + J^T| of a rotation, in units of its largest entry


@dataclass(frozen=True)
class Dynamics(ABC):
    """What `Overdamped` and `Underdamped` have in common. gamma is kept as a float or as a tuple of d floats."""

    beta: float = 1.0
    gamma: Coefficient = 1.0

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        beta = _coefficient("beta", self.beta)
        if isinstance(beta, tuple):
            raise UsageError(f"beta is one number, not {len(beta)}; give the inverse temperature of the whole system")
        object.__setattr__(self, "beta", beta)
        object.__setattr__(self, "gamma", _coefficient("gamma", self.gamma))

    def gamma_vector(self, d: int) -> np.ndarray:
        """Friction coefficients, (d,). UsageError if gamma has another length."""
        return _vector("gamma", self.gamma, d)

    @abstractmethod
    def mass_vector(self, d: int) -> np.ndarray | None:
        """Masses, (d,); None for overdamped dynamics."""

    def rotation_matrix(self, d: int) -> np.ndarray | None:
        """J, (d, d) antisymmetric; None for reversible dynamics. UsageError if J has another size."""
        return None

    @property
    def reversible(self) -> bool:
        """Whether there is no rotation, so that w_i k_ij = w_j k_ji."""
        return True

    @abstractmethod
    def collision_rate(self, d: int) -> np.ndarray | None:
        """gamma / mass, (d,), in 1/time; None for overdamped dynamics."""

    @abstractmethod
    def noise_scale(self, d: int) -> np.ndarray:
        """sigma, (d,): sqrt(2 / (beta gamma)) on x if overdamped, sqrt(2 gamma / beta) on p if underdamped."""

    @abstractmethod
    def _growth(self, hessians: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """mu (n,) and the directions in x (n, d) in which the linearised dynamics grows, for checked Hessians."""

    def unstable_rate(self, hessian: np.ndarray) -> Any:
        """mu, the one positive eigenvalue of the dynamics linearised at an index-1 saddle (Langer 1969), in 1/time.

        Overdamped: of -(gamma^-1 + J) H. Underdamped: of [[0, M^-1], [-H, -gamma M^-1]].
        hessian : (d, d) gives a float, (n, d, d) gives (n,). UsageError unless each is finite, symmetric and has
        exactly one negative eigenvalue.
        """
        hessians, single = _saddle_hessians(hessian)
        rate = self._growth(hessians)[0]
        return float(rate[0]) if single else rate

    def log_unstable_rate(self, hessian: np.ndarray) -> Any:
        """log mu; see `unstable_rate`."""
        rate = np.log(self.unstable_rate(hessian))
        return float(rate) if np.ndim(rate) == 0 else rate

    def unstable_direction(self, hessian: np.ndarray) -> np.ndarray:
        """Unit vector(s) in x along which the linearised dynamics leaves the saddle; shapes (d,) or (n, d)."""
        hessians, single = _saddle_hessians(hessian)
        direction = self._growth(hessians)[1]
        direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        return direction[0] if single else direction

    def unstable_rate_of_eigenvalue(self, eigenvalue: Any) -> Any:
        """mu from the negative Hessian eigenvalue alone: enough if gamma and mass are equal in every coordinate.

        mu = |lambda| / gamma, or sqrt(gamma^2 / 4 m^2 + |lambda| / m) - gamma / 2 m written without the difference.
        eigenvalue : a number or an array, negative. UsageError for anisotropic gamma or mass, or a rotation: then the
        Hessian is needed.
        """
        curvature = np.asarray(eigenvalue, dtype=float)
        if not (np.isfinite(curvature).all() and (curvature < 0).all()):
            raise UsageError(f"the unstable eigenvalue of a saddle is finite and negative, not {eigenvalue!r}")
        if not self.reversible:
            raise UsageError("with a rotation, the rate over a saddle needs its whole Hessian")
        for name, values in (("gamma", self.gamma), ("mass", getattr(self, "mass", 1.0))):
            if np.unique(np.asarray(values)).size > 1:
                raise UsageError(
                    f"{name} differs between coordinates, so the rate over a saddle needs its whole Hessian"
                )
        gamma = float(np.ravel(np.asarray(self.gamma))[0])
        mass = float(np.ravel(np.asarray(self.mass))[0]) if isinstance(self, Underdamped) else 0.0
        rate = positive_root(mass, gamma, curvature)
        return float(rate) if rate.ndim == 0 else rate


@dataclass(frozen=True)
class Overdamped(Dynamics):
    """dx = -(gamma^-1 + J) grad E dt + sqrt(2 / (beta gamma)) dW.

    rotation : J (d, d), antisymmetric within 1e-8 of its largest entry (then made so exactly), kept as a tuple of rows;
    None, or a matrix of zeros, is reversible dynamics. Units: 1 / gamma.
    UsageError unless beta and gamma are finite and positive, and J finite and antisymmetric.
    """

    rotation: Matrix | None = None

    kind: ClassVar[str] = "overdamped"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rotation", _antisymmetric(self.rotation))

    def rotation_matrix(self, d: int) -> np.ndarray | None:
        if self.rotation is None:
            return None
        if len(self.rotation) != d:
            raise UsageError(
                f"rotation is a {len(self.rotation)} x {len(self.rotation)} matrix, but the energy has {d} coordinates"
            )
        return np.array(self.rotation, dtype=float)

    @property
    def reversible(self) -> bool:
        return self.rotation is None

    def mobility(self, d: int) -> np.ndarray:
        """gamma^-1 + J, (d, d): the drift is -mobility grad E."""
        diagonal, rotation = np.diag(1 / self.gamma_vector(d)), self.rotation_matrix(d)
        return diagonal if rotation is None else diagonal + rotation

    def mass_vector(self, d: int) -> np.ndarray | None:
        return None

    def collision_rate(self, d: int) -> np.ndarray | None:
        return None

    def noise_scale(self, d: int) -> np.ndarray:
        return np.sqrt(2 / (self.beta * self.gamma_vector(d)))

    def _growth(self, hessians: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # gamma^-1 H is similar to gamma^-1/2 H gamma^-1/2, and a symmetric eigenproblem keeps all digits of its end
        # values.
        if not self.reversible:
            return self._rotated_growth(hessians)
        scale = 1 / np.sqrt(self.gamma_vector(hessians.shape[-1]))
        values, vectors = np.linalg.eigh(hessians * scale[:, None] * scale)
        return -values[:, 0], vectors[:, :, 0] * scale

    def _rotated_growth(self, hessians: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # -(gamma^-1 + J) H has exactly one eigenvalue with a positive real part at a saddle of index 1, and it is real.
        values, vectors = np.linalg.eig(-self.mobility(hessians.shape[-1]) @ hessians)
        rows, top = np.arange(len(hessians)), values.real.argmax(axis=1)
        return values.real[rows, top], vectors.real[rows, :, top]


@dataclass(frozen=True)
class Underdamped(Dynamics):
    """dx = M^-1 p dt, dp = -grad E dt - gamma M^-1 p dt + sqrt(2 gamma / beta) dW.

    UsageError unless beta, gamma and mass are finite and positive.
    """

    mass: Coefficient = 1.0

    kind: ClassVar[str] = "underdamped"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mass", _coefficient("mass", self.mass))

    def mass_vector(self, d: int) -> np.ndarray:
        return _vector("mass", self.mass, d)

    def collision_rate(self, d: int) -> np.ndarray:
        return self.gamma_vector(d) / self.mass_vector(d)

    def noise_scale(self, d: int) -> np.ndarray:
        return np.sqrt(2 * self.gamma_vector(d) / self.beta)

    def _growth(self, hessians: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The positive root of det(mu^2 M + mu gamma + H) = 0.

        For a vector v with v.Hv < 0 let p(v) be the positive root of mu^2 v.Mv + mu v.gamma v + v.Hv = 0. At the
        wanted mu the matrix is positive semidefinite, so p(v) <= mu with equality at its null vector. Taking the v
        that minimises v.Hv relative to v.(mu^2 M + mu gamma)v at the present mu therefore climbs to the root from
        below, quadratically in the end.
        """
        d = hessians.shape[-1]
        gamma, mass = self.gamma_vector(d), self.mass_vector(d)
        direction = np.linalg.eigh(hessians)[1][:, :, 0]
        rate = self._rayleigh_root(direction, hessians, gamma, mass)
        for _ in range(MAX_ITERATIONS):
            scale = 1 / np.sqrt(rate[:, None] * (rate[:, None] * mass + gamma))
            direction = np.linalg.eigh(hessians * scale[:, :, None] * scale[:, None, :])[1][:, :, 0] * scale
            new = self._rayleigh_root(direction, hessians, gamma, mass)
            done = np.abs(new - rate) <= TOLERANCE * new
            rate = new
            if done.all():
                break
        return rate, direction

    @staticmethod
    def _rayleigh_root(v: np.ndarray, hessians: np.ndarray, gamma: np.ndarray, mass: np.ndarray) -> np.ndarray:
        v = v / np.linalg.norm(v, axis=1, keepdims=True)
        curvature = np.einsum("ni,nij,nj->n", v, hessians, v)
        return positive_root((v * v) @ mass, (v * v) @ gamma, curvature)


def from_metadata(
    metadata: Mapping[str, Any],
    dim: int,
    *,
    kind: str | None = None,
    beta: float | None = None,
    gamma: Coefficient | None = None,
    mass: Coefficient | None = None,
    rotation: Matrix | None = None,
) -> tuple[Dynamics, dict[str, str]]:
    """The dynamics of an energy, and where each parameter came from.

    A given argument wins over the metadata's "dynamics", "beta", "gamma", "mass", "rotation"; these win over
    overdamped, 1, 1, 1, none. A mass in the metadata is left aside by overdamped dynamics, a rotation there by
    underdamped dynamics. dim : d, against which vectors and the matrix are checked.
    Returns (dynamics, origins): origins maps "dynamics", "beta", "gamma" and, if underdamped, "mass", or, if there is
    one, "rotation" to "flag", "file" or "default". UsageError: unknown kind, value not finite and positive, wrong
    length, a rotation that is not antisymmetric, a mass given with overdamped or a rotation with underdamped dynamics.
    """
    given = {"dynamics": kind, "beta": beta, "gamma": gamma, "mass": mass}
    default: dict[str, Any] = {"dynamics": "overdamped", "beta": 1.0, "gamma": 1.0, "mass": 1.0}
    values, origins = {}, {}
    for name, standard in default.items():
        choices = (("flag", given[name]), ("file", metadata.get(name)), ("default", standard))
        origins[name], values[name] = next((origin, value) for origin, value in choices if value is not None)
    if values["dynamics"] not in KINDS:
        raise UsageError(
            f"dynamics is {' or '.join(KINDS)}, not {values['dynamics']!r} (from the {origins['dynamics']})"
        )
    if values["dynamics"] == "overdamped" and mass is not None:
        raise UsageError("overdamped dynamics has no mass; leave the mass out, or choose underdamped dynamics")
    if values["dynamics"] == "underdamped" and rotation is not None:
        raise UsageError("underdamped dynamics has no rotation; leave it out, or choose overdamped dynamics")
    if values["dynamics"] == "overdamped":
        del origins["mass"], values["mass"]
    checked = {name: _coefficient(name, values[name], origins[name]) for name in origins if name != "dynamics"}
    stirred = next(((o, m) for o, m in (("flag", rotation), ("file", metadata.get("rotation"))) if m is not None), None)
    if stirred is None or "mass" in checked:
        result: Dynamics = Overdamped(checked["beta"], checked["gamma"])
    else:
        origins["rotation"] = stirred[0]
        turned = _antisymmetric(stirred[1], stirred[0])
        if np.shape(stirred[1]) != (dim, dim):  # also of zeros, which are no rotation
            raise UsageError(
                f"rotation is a ({dim}, {dim}) matrix for this energy, but came with shape {np.shape(stirred[1])} "
                f"(from the {stirred[0]})"
            )
        result = Overdamped(checked["beta"], checked["gamma"], turned)
    if "mass" in checked:
        result = Underdamped(checked["beta"], checked["gamma"], checked["mass"])
        result.mass_vector(dim)
    result.gamma_vector(dim)
    return result, origins


def positive_root(mass: Any, gamma: Any, curvature: Any) -> np.ndarray:
    """The positive root of mass mu^2 + gamma mu + curvature = 0 for curvature < 0, in the form that adds only."""
    # hypot squares without overflow, and 2 sqrt(m) sqrt(|c|) is the square root of -4 m c.
    root = np.hypot(gamma, 2 * np.sqrt(mass) * np.sqrt(-curvature))
    return np.asarray(-2 * curvature / (gamma + root))


def _saddle_hessians(hessian: Any) -> tuple[np.ndarray, bool]:
    hessians = np.asarray(hessian, dtype=float)
    single = hessians.ndim == 2
    hessians = hessians[None] if single else hessians
    if hessians.ndim != 3 or hessians.shape[1] != hessians.shape[2] or hessians.shape[1] == 0:
        raise UsageError(f"a Hessian has shape (d, d), a batch of them (n, d, d), not {np.shape(hessian)}")
    if not np.isfinite(hessians).all():
        raise UsageError("the unstable rate needs a finite Hessian, but this one holds nan or infinity")
    size = np.abs(hessians).max(axis=(1, 2), initial=0.0)
    if (np.abs(hessians - hessians.swapaxes(1, 2)).max(axis=(1, 2), initial=0.0) > 1e-6 * size).any():
        raise UsageError("a Hessian is symmetric, but this one is not; pass (H + H^T) / 2")
    hessians = 0.5 * (hessians + hessians.swapaxes(1, 2))
    # zero modes of a symmetry are negative by rounding as often as not
    index = (np.linalg.eigvalsh(hessians) < -ROUNDING * size[:, None]).sum(axis=1)
    if (index != 1).any():
        row = int(np.flatnonzero(index != 1)[0])
        raise UsageError(
            f"an unstable rate belongs to a saddle of index 1, but Hessian {row} has {index[row]} negative eigenvalues"
        )
    return hessians, single


def _coefficient(name: str, value: Any, origin: str = "") -> Any:
    where = f" (from the {origin})" if origin else ""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is a number or one number a coordinate, not {value!r}{where}") from None
    if array.ndim > 1 or array.size == 0:
        raise UsageError(f"{name} is a number or one number a coordinate, but came with shape {array.shape}{where}")
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise UsageError(f"{name} is finite and greater than 0, not {_text(value)}{where}")
    return float(array) if array.ndim == 0 else tuple(array.tolist())


def _antisymmetric(value: Any, origin: str = "") -> Any:
    """A rotation as a tuple of rows, None for none or zeros; UsageError unless it is finite and antisymmetric."""
    if value is None:
        return None
    where = f" (from the {origin})" if origin else ""
    try:
        matrix = np.array(value, dtype=float)
    except (TypeError, ValueError):
        raise UsageError(f"rotation is a (d, d) matrix of numbers, not {value!r}{where}") from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise UsageError(f"rotation is a (d, d) matrix, but came with shape {matrix.shape}{where}")
    excess = float(np.abs(matrix + matrix.T).max())
    if not np.isfinite(matrix).all() or excess > ANTISYMMETRY * np.abs(matrix).max():
        raise UsageError(f"rotation is finite and antisymmetric, but |J + J^T| is up to {excess:.3g}{where}")
    matrix = 0.5 * (matrix - matrix.T)
    return tuple(tuple(row) for row in matrix.tolist()) if matrix.any() else None


def _vector(name: str, value: Any, d: int) -> np.ndarray:
    array = np.asarray(value, dtype=float)
    if array.ndim == 1 and len(array) != d:
        raise UsageError(f"{name} has {len(array)} values, but the energy has {d} coordinates; give 1 or {d}")
    return np.full(d, array) if array.ndim == 0 else array


def _text(value: Any) -> str:
    numbers = np.atleast_1d(np.asarray(value, dtype=float)).tolist()
    return " ".join("nan" if math.isnan(number) else f"{number:.6g}" for number in numbers)
