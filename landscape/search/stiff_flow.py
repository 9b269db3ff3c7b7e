"""A step of the gradient flow dx/dt = -grad E that stays accurate where the flow is stiff.

Hochbruck, Ostermann and Schweitzer, SIAM J. Numer. Anal. 47, 786 (2009): the exponential Rosenbrock pair exprb32.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from landscape.energy import Energy
from landscape.search.driver import Stages, ordinary

BLOCK = 2**23  # numbers in the arrays that are worked on together (64 MB in float64)
ATTEMPTS = 4  # lengths of step that one Hessian is used for
GROWTH = 10.0  # of the time step after an accepted one
HALVINGS = 48  # of a time step that would move a row too far
MODEL_ERROR = 0.25  # of the energy lost in a step, that the model may be wrong by ...
SHORT = 0.1  # ... where the step is longer than this part of the longest: of short ones rounding hides it
INTERIOR = 24  # points recorded within a step
FIRST = 0.03  # time of the first of them, in units of the shorter of the step and the time of the fastest mode
SERIES = 12  # terms of phi_3 near zero


@dataclass(frozen=True)
class StiffStep:
    """What became of a step of n rows.

    x, gradient (n, d), energy (n,) : at the new points; without meaning where `accepted` (n,) is False.
    dt : the time step taken, or the last one tried. next_dt : the one to try next. largest : of the Hessian's
    |eigenvalues|. to_stationary : distance of the new point from the stationary point of its quadratic model.
    usable : False where the Hessian is not finite. interior (n, INTERIOR, d) : points on the way, (n, 0, d) if not
    asked for.
    """

    x: torch.Tensor
    energy: torch.Tensor
    gradient: torch.Tensor
    accepted: torch.Tensor
    dt: torch.Tensor
    next_dt: torch.Tensor
    largest: torch.Tensor
    to_stationary: torch.Tensor
    usable: torch.Tensor
    interior: torch.Tensor


def stiff_step(
    energy: Energy,
    x: torch.Tensor,
    value: torch.Tensor,
    gradient: torch.Tensor,
    dt: torch.Tensor,
    tolerance: torch.Tensor,
    longest: torch.Tensor,
    record: bool = False,
) -> Stages[StiffStep]:
    """One step from x (n, d), where the energy is `value` (n,), in the time dt (n,) or less.

    With F = -grad E and J = -H(x), whose eigenvectors turn the phi functions into those of numbers,
        u = x + h phi_1(h J) F(x),  D = F(u) - F(x) - J (u - x),  x' = u + 2 h phi_3(h J) D,
    of third order, with u for the error of second order; exact where E is quadratic, however stiff or unstable.
    On the way x(t) = x + t phi_1(t J) F + 2 (t^3 / h^2) phi_3(t J) D.

    tolerance (n,) : of |x' - u|. longest (n,) : of |u - x|. Rows whose energy does not fall, or not as the model
    foretells (something lies between), are refused. Cost: one Hessian and two gradients, one more for each retry; the
    gradients are asked for (`in_one_batch`).
    """
    size = max(1, BLOCK // (x.shape[1] * max(x.shape[1], HALVINGS)))
    arguments = (x, value, gradient, dt, tolerance, longest)
    if len(x) <= size:
        return (yield from _stiff_step(energy, record, *arguments))
    parts = []
    for part in zip(*(a.split(size) for a in arguments), strict=True):
        parts.append((yield from _stiff_step(energy, record, *part)))
    names = [field.name for field in fields(StiffStep)]
    return StiffStep(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def _stiff_step(
    energy: Energy, record: bool, x: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor, dt: torch.Tensor,
    tolerance: torch.Tensor, longest: torch.Tensor,
) -> Stages[StiffStep]:  # fmt: skip
    hessian = ordinary(energy.hessian, x)
    usable = hessian.isfinite().all(2).all(1)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    curvature, modes = torch.linalg.eigh(torch.where(usable[:, None, None], hessian, eye))
    force = into(modes, -gradient)
    h = _not_too_far(force, curvature, dt, longest)
    move, defect, error = torch.zeros_like(x), torch.zeros_like(x), torch.full_like(h, torch.inf)
    rows = torch.nonzero(usable)[:, 0]
    for _ in range(ATTEMPTS):
        if not len(rows):
            break
        c, f, v = curvature[rows], force[rows], modes[rows]
        first = phi_1(h[rows, None], c) * f
        _, slope = yield x[rows] + out_of(v, first)
        d = into(v, -slope) - f + c * first
        correction = 2 * phi_3(h[rows, None], c) * d
        error[rows] = (correction.norm(dim=1) / tolerance[rows]).nan_to_num(torch.inf)
        move[rows], defect[rows] = first + correction, d
        refused = error[rows] > 1
        rows = rows[refused]
        h[rows] = h[rows] * (0.9 * error[rows] ** (-1 / 3)).clamp(0.1, 0.8)
    done = usable & (error <= 1)
    new = torch.where(done[:, None], x + out_of(modes, move), x)
    at = torch.nonzero(done)[:, 0]
    new_value, new_gradient = value.clone(), gradient.clone()
    new_value[at], new_gradient[at] = yield new[at]
    foretold = -(move * (force - 0.5 * curvature * move + defect / 3)).sum(1)
    change = new_value - value
    as_foretold = ((change - foretold).abs() <= MODEL_ERROR * change.abs()) | (move.norm(dim=1) < SHORT * longest)
    downhill = change <= 1e-12 * value.abs()
    accepted = done & as_foretold & downhill & new_value.isfinite() & new_gradient.isfinite().all(1)
    growth = (0.9 * error.clamp_min(1e-6) ** (-1 / 3)).clamp(0.2, GROWTH)
    next_dt = h * torch.where(accepted, growth, torch.where(done, 0.25, 1.0))
    tiny = torch.finfo(x.dtype).tiny
    to_stationary = (into(modes, new_gradient) / curvature.abs().clamp_min(tiny)).norm(dim=1)
    interior = (
        x[:, None] + _way(force, curvature, defect, h) @ modes.mT if record else x.new_zeros(len(x), 0, x.shape[1])
    )
    return StiffStep(
        new, new_value, new_gradient, accepted, h, next_dt, curvature.abs().amax(1), to_stationary, usable, interior
    )  # fmt: skip


def into(modes: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Components of vectors (n, d) along the columns of modes (n, d, d)."""
    return torch.bmm(vectors[:, None], modes)[:, 0]


def out_of(modes: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
    return torch.bmm(modes, components[:, :, None])[:, :, 0]


def phi_1(t: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
    """t phi_1(-t c) = (1 - exp(-t c)) / c: how far a unit force moves in the time t against the curvature c."""
    z = t * curvature
    small = z.abs() < 1e-6
    return torch.where(small, t * (1 - z / 2), -torch.expm1(-z) / torch.where(small, 1, curvature))


def phi_3(t: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
    """t phi_3(-t c), phi_3(z) = (exp z - 1 - z - z^2 / 2) / z^3."""
    z = -t * curvature
    near = z.abs() < 1
    inner, term, total = torch.where(near, z, 0), torch.full_like(z, 1 / 6), torch.full_like(z, 1 / 6)
    for k in range(4, SERIES + 4):
        term = term * inner / k
        total = total + term
    outer = torch.where(near, 1, z)
    return t * torch.where(near, total, (torch.expm1(outer) - outer - outer**2 / 2) / outer**3)


def _not_too_far(force: torch.Tensor, curvature: torch.Tensor, dt: torch.Tensor, longest: torch.Tensor) -> torch.Tensor:
    """The longest time dt 2^-k in which no row moves farther than `longest` (n,) in its quadratic model."""
    halved = 0.5 ** torch.arange(HALVINGS, dtype=dt.dtype, device=dt.device)
    times = dt[:, None] * halved
    far = (phi_1(times[:, :, None], curvature[:, None]) * force[:, None]).norm(dim=2)
    fine = far <= longest[:, None]  # the distance grows with the time
    fine[:, -1] = True
    return times.gather(1, fine.to(torch.int8).argmax(1, keepdim=True))[:, 0]


def _way(force: torch.Tensor, curvature: torch.Tensor, defect: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Moves (n, INTERIOR, d), in the modes, at times from far within the fastest mode's to just before the end."""
    fastest = 1 / curvature.abs().amax(1).clamp_min(torch.finfo(h.dtype).tiny)
    first = FIRST * torch.minimum(h, fastest)
    part = torch.arange(INTERIOR, dtype=h.dtype, device=h.device) / INTERIOR
    times = (first[:, None] * (h / first)[:, None] ** part)[:, :, None]
    c = curvature[:, None]
    return phi_1(times, c) * force[:, None] + 2 * (times / h[:, None, None]) ** 2 * phi_3(times, c) * defect[:, None]
