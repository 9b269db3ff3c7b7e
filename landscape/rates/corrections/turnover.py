"""Turnover at low friction: the depopulation factor of Melnikov and Meshkov, with the energy loss of Pollak, Grabert
and Hanggi along the unstable mode.

A particle that leaves a well with too little friction is not resupplied near the barrier top. With Delta_i the energy
lost to friction, in units of 1/beta, over one excursion from the barrier into well i and back,

    k_ij = k_Langer Y(Delta_i) Y(Delta_j) / Y(Delta_i + Delta_j),
    Y(Delta) = exp( (1/2 pi) int dy ln(1 - exp(-Delta (y^2 + 1/4))) / (y^2 + 1/4) ),

which tends to 1 at high friction and to energy diffusion, k ~ Delta, at low friction.

Delta is of first order in friction. The unstable mode of the undamped motion at the saddle, x = x_s + e rho with
M^-1 H e = -omega^2 e and e.Me = 1, moves by rho'' = omega^2 rho - e.grad V1, V1 being the part of E beyond second order
at the saddle. On its orbit of zero energy it loses energy to friction, and to the other modes E_y, which the force
f(t) = -E_y.grad V1 drives through their Green's function G(s) = (s^2 + s E_y'gamma E_y + E_y'H E_y)^-1:

    Delta / beta = e.gamma e int rho'^2 dt + (1/4 pi) int dw f(w)* (-2 w Im G(i w)) f(w).

The first term is Melnikov and Meshkov's (gamma / m times the action of the orbit); the second that of Pollak, Grabert
and Hanggi for modes that are not friction's own. Their theory damps rho as well, to all orders. On the quartic double
well, barriers of 2.5 and 5 kT, that is worse from moderate friction on (a fifth too slow at 2.5 kT, with a factor
that does not reach 1), and the first order is within 14 % of the exact rates at every friction.

The other modes can give back what they took, so that this may be more than what is lost for good. Friction's part
alone, on an orbit along the minimum energy path (`path_energy_loss`), leaves them out. In a bent valley of two
coordinates at 5 kT (gamma = .1, transverse frequency 1.2 times that of the barrier) the two give the factors .96 and
.72; simulated passages give .65, and one dimension at the same friction is 14 % too fast as well.

V. I. Mel'nikov, S. V. Meshkov, J. Chem. Phys. 85, 1018 (1986); E. Pollak, H. Grabert, P. Hanggi, J. Chem. Phys. 91,
4073 (1989); E. Hershkovitz, E. Pollak, J. Chem. Phys. 106, 7678 (1997) for several coordinates.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy  # its parts load on first use

from landscape.dynamics import Underdamped
from landscape.energy import Energy

SCAN = 400  # points at which the turning point is looked for, over
REACH = 4.0  # times the distance from the saddle to the farther minimum
BISECTIONS = 60
TIMES = 600  # points of an orbit
LAST = 9.0  # rho = rho* / cosh(xi), up to this xi
FREQUENCIES = 400
PATH_POINTS = 2001  # of an orbit along a path
HIGHEST = 12.0  # frequency, in units of the orbit's own


def log_depopulation(loss: Any) -> Any:
    """log Y(Delta), Delta >= 0: 0 at infinity, log Delta towards 0 (-inf at 0); shape of the argument.

    With y = tan(theta) / 2 the integral is (2/pi) int_0^(pi/2) ln(1 - exp(-Delta / (4 cos^2 theta))) dtheta.
    """
    delta = np.asarray(loss, dtype=float)
    # double exponential rule: at small Delta the integrand falls to zero within Delta^(1/2) of the end
    t = np.linspace(-3.2, 3.2, 401)
    inner = 0.5 * math.pi * np.sinh(t)
    weight = 0.5 * math.pi * np.cosh(t) / np.cosh(inner) ** 2 * (math.pi / 4) * (t[1] - t[0])
    # cos(theta) = sin(pi/2 - theta), and pi/2 - theta without the difference
    cosine = np.sin(0.5 * math.pi / (1 + np.exp(2 * inner)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value = np.log(-np.expm1(-delta[..., None] / (4 * cosine**2)))
        result = (2 / math.pi) * (value * weight).sum(axis=-1)
    result = np.where(delta == 0, -np.inf, result)
    return float(result) if result.ndim == 0 else result


def log_turnover(loss: np.ndarray) -> np.ndarray:
    """log of the factor Y(Delta_i) Y(Delta_j) / Y(Delta_i + Delta_j), the same for both directions: (m, 2) -> (m,).

    loss : Delta of both wells of each saddle, in units of 1/beta; infinite gives 0, nan gives nan.
    """
    delta = np.asarray(loss, dtype=float).reshape(-1, 2)
    with np.errstate(invalid="ignore"):
        both = log_depopulation(delta).sum(axis=1) - log_depopulation(delta.sum(axis=1))
    return np.where(np.isinf(delta).all(axis=1), 0.0, both)


def mode_energy_loss(
    energy: Energy, dynamics: Underdamped, saddles: np.ndarray, hessians: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """Delta (m, 2), in units of 1/beta: the energy that the unstable mode loses on its orbits on both sides of saddles.

    saddles (m, d), hessians (m, d, d) there, ends (m, 2, d) : the points that the saddle joins; the orbit on the side
    of e that points towards an end (e.M (end - x_s)) belongs to it. nan where the mode does not turn back within four
    times the distance to the farther end: there the straight mode is no picture of the well.
    """
    m, d = saddles.shape
    masses, frictions = dynamics.mass_vector(d), dynamics.gamma_vector(d)
    root = 1 / np.sqrt(masses)
    values, vectors = np.linalg.eigh(hessians * root[:, None] * root)
    modes, omega = root[:, None] * vectors, np.sqrt(-values[:, 0])
    towards = np.einsum("md,med->me", modes[:, :, 0] * masses, ends - saddles[:, None])
    e = modes[:, :, 0] * np.where(towards[:, 0] >= towards[:, 1], 1.0, -1.0)[:, None]
    rays = np.stack([e, -e], axis=1).reshape(2 * m, d)
    origin, twice = np.repeat(saddles, 2, axis=0), np.repeat(omega, 2)
    distance = np.linalg.norm(ends - saddles[:, None], axis=2).max(axis=1) / np.linalg.norm(e, axis=1)
    turn = _turning_points(energy, origin, rays, twice, np.repeat(distance, 2))
    result = np.full(2 * m, np.nan)
    for row in np.flatnonzero(np.isfinite(turn)):
        k = row // 2
        times, steps, speed, force = _orbit(energy, origin[row], rays[row], hessians[k], omega[k], turn[row])
        lost = 2 * float((steps * speed**2).sum()) * float(rays[row] ** 2 @ frictions)
        others = modes[k, :, 1:]
        if d > 1:
            damping = (others * frictions[:, None]).T @ others
            lost += _absorbed(times, steps, force @ others, values[k, 1:], damping, float(omega[k]))
        result[row] = dynamics.beta * lost
    return result.reshape(m, 2)


def path_energy_loss(energy: Energy, dynamics: Underdamped, images: np.ndarray) -> np.ndarray:
    """Delta (p, 2), in units of 1/beta: lost to friction alone on orbits along the paths (p, k, d) between minima.

    2 beta int (t.gamma t) (2 (E_s - E) / t.M t)^(1/2) ds from the top of the path to its end and on, along the last
    tangent t, to the turning point, for the first and for the last end. nan where there is none within as long a way.
    """
    paths = np.asarray(images, dtype=float)
    result = np.full((len(paths), 2), np.nan)
    masses, frictions = dynamics.mass_vector(paths.shape[2]), dynamics.gamma_vector(paths.shape[2])
    for row, path in enumerate(paths):
        s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        curve = scipy.interpolate.CubicSpline(s, path)
        top = s[energy.value(path)[1:-1].argmax() + 1]
        height = float(energy.value(curve(top)[None])[0])
        for side, (end, sign) in enumerate(((0.0, -1.0), (s[-1], 1.0))):
            # the way on is as long again as the way down, at constant tangent
            way = abs(end - top) * (1 - np.cos(np.linspace(0, math.pi, PATH_POINTS)))
            on = np.maximum(way - abs(end - top), 0)[:, None]
            tangent = sign * curve(np.clip(top + sign * way, s[0], s[-1]), 1)
            tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
            x = curve(np.clip(top + sign * way, s[0], s[-1])) + on * tangent
            depth = height - energy.value(x)
            past = (depth < 0) & (on[:, 0] > 0)
            if not past.any():
                continue
            depth = np.where(np.arange(PATH_POINTS) < past.argmax(), np.maximum(depth, 0), 0)
            rate = (tangent**2 @ frictions) * np.sqrt(2 * depth / (tangent**2 @ masses))
            result[row, side] = 2 * dynamics.beta * np.trapezoid(rate, way)
    return result


def _beyond_quadratic(
    energy: Energy, origin: np.ndarray, ray: np.ndarray, omega: np.ndarray, rho: np.ndarray
) -> np.ndarray:
    """V1 along rays from the saddles, at rho (k, n): (k, n)."""
    k, n = rho.shape
    points = origin[:, None] + ray[:, None] * rho[..., None]
    rise = energy.value(points.reshape(k * n, -1)).reshape(k, n) - energy.value(origin)[:, None]
    return np.asarray(rise + 0.5 * (omega[:, None] * rho) ** 2)


def _turning_points(
    energy: Energy, origin: np.ndarray, ray: np.ndarray, omega: np.ndarray, distance: np.ndarray
) -> np.ndarray:
    """rho* > 0 (k,), the first zero of V1 - omega^2 rho^2 / 2 along each ray; nan where there is none."""

    def above(rho: np.ndarray) -> np.ndarray:
        return _beyond_quadratic(energy, origin, ray, omega, rho) >= 0.5 * (omega[:, None] * rho) ** 2

    rho = np.linspace(0, REACH, SCAN + 1)[1:] * distance[:, None]
    risen = above(rho)
    first, found = risen.argmax(axis=1), risen.any(axis=1) & ~risen[:, 0]
    rows = np.arange(len(rho))
    low, high = rho[rows, np.maximum(first - 1, 0)], rho[rows, first]
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        up = above(middle[:, None])[:, 0]
        low, high = np.where(up, low, middle), np.where(up, middle, high)
    return np.where(found, 0.5 * (low + high), np.nan)


def _orbit(
    energy: Energy, origin: np.ndarray, ray: np.ndarray, hessian: np.ndarray, omega: float, turn: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The half of the zero-energy orbit after its turning point: times (n,), their weights (n,), speed (n,), and
    -grad V1 (n, d).

    In xi of rho = rho* / cosh(xi), dt/dxi is smooth at both ends, where it tends to a constant and to 1/omega.
    """
    step = LAST / TIMES
    xi = (np.arange(TIMES) + 0.5) * step
    rho = turn / np.cosh(xi)
    beyond = _beyond_quadratic(energy, origin[None], ray[None], np.array([omega]), rho[None])[0]
    speed = np.sqrt(np.maximum((omega * rho) ** 2 - 2 * beyond, np.finfo(float).tiny))
    steps = rho * np.tanh(xi) / speed * step
    times = np.cumsum(steps) - 0.5 * steps
    x = origin + rho[:, None] * ray
    return times, steps, speed, (rho[:, None] * ray) @ hessian - energy.gradient(x)


def _absorbed(
    times: np.ndarray, steps: np.ndarray, force: np.ndarray, curvature: np.ndarray, damping: np.ndarray, omega: float
) -> float:
    """(1/4 pi) int dw f* (-2 w Im G(i w)) f, for a force (n, c) that is even in time and given for t > 0.

    curvature (c,) : squared frequencies of the c modes; damping (c, c) between them.
    """
    c = len(curvature)
    linear = np.block([[np.zeros((c, c)), np.eye(c)], [-np.diag(curvature), -damping]])
    poles = np.linalg.eigvals(linear)
    top = HIGHEST * max(omega, float(np.sqrt(np.abs(curvature).max())))
    base = np.sinh(np.linspace(0, 6, FREQUENCIES)) / np.sinh(6.0) * top
    # at weak damping the response is a narrow line at each pole: points are put on all of them
    lines = [abs(p.imag) + abs(p.real) * np.sinh(np.linspace(-6, 6, 161)) for p in poles if p.imag > 0]
    w = np.unique(np.concatenate([base, *lines]))
    w = w[(w > 0) & (w <= top)]
    amplitude = 2 * np.cos(w[:, None] * times) @ (steps[:, None] * force)
    moving = -(w**2)[:, None, None] * np.eye(c) + 1j * w[:, None, None] * damping
    response = -2 * w[:, None, None] * np.linalg.inv(moving + np.diag(curvature)).imag
    return float(np.trapezoid(np.einsum("wc,wce,we->w", amplitude, response, amplitude), w) / (2 * math.pi))
