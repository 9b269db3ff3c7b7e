"""Gradient flow from points whose Hessian is known, at one gradient a step: the Hessian is updated on the way.

Where a flow begins beside a saddle, the saddle's own Hessian is known and tells all stiff directions at once. What
follows the flow of a quadratic model exactly is neither slowed down nor led astray by them.
"""

from __future__ import annotations

import numpy as np
import torch

from landscape.energy import Energy
from landscape.energy.modulo import eigh_modulo
from landscape.search.driver import State, Status, iterate
from landscape.search.saddles import bofill, finite_matrices
from landscape.search.stiff_flow import into, out_of, phi_1
from landscape.search.traces import by_row, thinned
from landscape.tasks.task import matrix_doubles, task

TOLERANCE = 0.01  # error of a step, and
LONGEST = 0.1  # its length at most, in units of the length scale
SETTLED = 0.05  # a row whose convex model has its minimum no farther than this has settled
REST = 1e-4  # and one with a stationary point of any kind no farther than this is at rest
MAX_STEPS = 150
GROWTH = 8.0  # of the time step
DOWNHILL = 1e-12  # by which rounding may raise the energy
TRIALS = 8  # lengths of a step that are looked at together


@task(rows={"x": 2, "hessian": 3}, doubles=matrix_doubles, calls=lambda x: 1)
def updated_flow(energy: Energy, x: torch.Tensor, hessian: torch.Tensor, scale: float, traced: bool = False) -> State:
    """Follow dx/dt = -grad E from each row of x (n, d) until it is clear at which minimum it ends.

    hessian (n, d, d) : at x or near it. scale : the length over which the energy's curvature changes. A step is the
    flow of the quadratic model, x' = x - h phi_1(-h H) grad E with phi_1(z) = (exp z - 1) / z, and what the gradient at
    x' leaves over gives its error, h phi_2(-h H) (grad E(x') - model's), phi_2(z) = (exp z - 1 - z) / z^2 (Hochbruck,
    Ostermann, Acta Numerica 19, 2010, 209); the same gradient updates the Hessian (Bofill, as on walks uphill). Rows
    end, CONVERGED, where all curvatures are positive and the model's minimum is near, or at rest: a quick descent may
    go on from there.

    Returns x, energy, status, iterations; `traced` adds trace (n, TRACE, d): points on the way at equal arclength.
    """
    value, gradient = energy.value_and_gradient(x)
    finite = value.isfinite() & gradient.isfinite().all(1) & finite_matrices(hessian)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    hessian = torch.where(finite[:, None, None], hessian, eye)
    curvature, modes = eigh_modulo(energy.symmetry, x, hessian)
    size = curvature.abs()
    slowest = torch.maximum(size.amin(1), 1e-6 * size.amax(1)).clamp_min(torch.finfo(x.dtype).tiny)
    state: State = {
        "x": x.clone(), "energy": value, "gradient": gradient, "hessian": hessian, "curvature": curvature,
        "modes": modes, "dt": 1 / slowest,
        "status": torch.where(finite, int(Status.RUNNING), int(Status.NOT_FINITE)),
    }  # fmt: skip
    seen = [(torch.arange(len(x), device=x.device), x)]

    def record(rows: torch.Tensor, state: State) -> None:
        seen.append((rows.clone(), state["x"].clone()))

    def step(state: State) -> State:
        return _step(energy, state, scale)

    ended = iterate(step, state, ("x", "energy"), MAX_STEPS, record if traced else None)
    if traced:
        ended["trace"] = torch.as_tensor(np.stack([thinned(points) for points in by_row(seen, len(x))])).to(x)
    return ended


def _step(energy: Energy, state: State, scale: float) -> State:
    """One gradient a row; a row whose step is refused has learnt from it all the same."""
    x, value, gradient, curvature, modes = (state[k] for k in ("x", "energy", "gradient", "curvature", "modes"))
    force = -into(modes, gradient)
    dt = _not_too_far(force, curvature, state["dt"], LONGEST * scale)
    first = phi_1(dt[:, None], curvature) * force
    trial = x + out_of(modes, first)
    trial_value, trial_gradient = energy.value_and_gradient(trial)
    missed = -into(modes, trial_gradient) - force + curvature * first
    error = (phi_2(dt[:, None], curvature) * missed).norm(dim=1) / (TOLERANCE * scale)
    error = error.nan_to_num(torch.inf)
    accept = (error <= 1) & (trial_value <= value + DOWNHILL * value.abs())
    growth = (0.9 * error.clamp_min(1e-6) ** -0.5).clamp(0.2, GROWTH)
    result = dict(state)
    result["dt"] = dt * torch.where(accept, growth, growth.clamp_max(0.5))
    result["x"] = torch.where(accept[:, None], trial, x)
    result["energy"] = torch.where(accept, trial_value, value)
    result["gradient"] = torch.where(accept[:, None], trial_gradient, gradient)
    updated = bofill(state["hessian"], trial - x, trial_gradient - gradient)
    usable = finite_matrices(updated)[:, None, None]
    result["hessian"] = torch.where(usable, updated, state["hessian"])
    result["curvature"], result["modes"] = eigh_modulo(energy.symmetry, result["x"], result["hessian"])
    tiny = torch.finfo(x.dtype).tiny
    newton = (into(result["modes"], result["gradient"]) / result["curvature"].abs().clamp_min(tiny)).norm(dim=1)
    settled = (newton < SETTLED * scale) & (result["curvature"] > 0).all(1)
    result["status"] = state["status"].masked_fill(accept & (settled | (newton < REST * scale)), int(Status.CONVERGED))
    return result


def phi_2(t: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
    """t phi_2(-t c), phi_2(z) = (exp z - 1 - z) / z^2."""
    z = t * curvature
    small = z.abs() < 1e-4
    return torch.where(small, t * (0.5 - z / 6), (t - phi_1(t, curvature)) / torch.where(small, 1, z))


def _not_too_far(force: torch.Tensor, curvature: torch.Tensor, dt: torch.Tensor, longest: float) -> torch.Tensor:
    """The longest time dt 2^-k in which no row moves farther than `longest` in its quadratic model."""
    dt, rows = dt.clone(), torch.arange(len(dt), device=dt.device)
    factors = 0.5 ** torch.arange(TRIALS, dtype=dt.dtype, device=dt.device)
    for _ in range(TRIALS):
        times = dt[rows, None] * factors
        far = (phi_1(times[:, :, None], curvature[rows, None]) * force[rows, None]).norm(dim=2)
        fine = far <= longest  # the distance grows with the time; False for what is not finite
        chosen = torch.where(fine.any(1), fine.to(torch.int8).argmax(1), TRIALS - 1)
        dt[rows] = times.gather(1, chosen[:, None])[:, 0]
        rows = rows[~fine.any(1)]
        if not len(rows):
            break
    return dt
