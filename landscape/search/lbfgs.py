"""Batched L-BFGS: every row is a descent of its own, with one evaluation a row and iteration.

In small batches an iteration waits for the number of tensor operations, not for their size: hence products that are
kept for the next iteration, and a matrix in place of the two-loop recursion where that is no larger than the pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.search.driver import State, Status, as_given, iterate, working_copy
from landscape.tasks import task

SUFFICIENT_DECREASE = 1e-4  # Armijo's constant
ENERGY_NOISE = 18.0  # relative rounding error, in units of the last place, that a descent must tolerate at its end


@dataclass(frozen=True)
class LBFGS:
    """Hyper-parameters of the batched descent.

    memory : number of (step, gradient change) pairs; up to d = 2 memory the whole inverse Hessian estimate is kept.
    max_iterations : evaluations a row may use.
    step_tolerance : a row has converged when its quasi-Newton step is below step_tolerance times 1 + |x|, or times the
        landscape's length scale where this is shorter.
    single : descend in float32; what comes of it is to be polished in the energy's own precision.
    """

    memory: int = 6
    max_iterations: int = 1000
    step_tolerance: float = 1e-5
    single: bool = False

    def __post_init__(self) -> None:
        if self.memory < 1 or self.max_iterations < 1 or not self.step_tolerance > 0:
            raise UsageError(f"L-BFGS needs memory >= 1, max_iterations >= 1 and step_tolerance > 0, not {self}")


@task(rows={"x": 2, "radius": 1, "center": 2}, doubles=lambda x: 48.0 * x.shape[1], calls=lambda x: 1)
def relax(
    energy: Energy,
    x: torch.Tensor,
    radius: float | torch.Tensor,
    config: LBFGS | None = None,
    *,
    center: torch.Tensor | None = None,
    known: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> State:
    """Descend from every row of `x` (n, d) to a point with zero gradient.

    BFGS for all rows at once (by the two-loop recursion where d > 2 memory); a backtracking line search in which each
    row accepts or shortens its own step, so that an iteration costs exactly one evaluation a row at work. `radius` (a
    number, or one a row) is the length scale R of the landscape: no step exceeds R / 2 (half the distance from
    `center`, farther out), and a row farther than 1e3 R from `center` (the origin by default; one point, or one a row)
    is DIVERGED. `known` : centers (k, d) and radii (k,) of balls whose minimum is known: rows in one are CAPTURED.

    Returns a dict of tensors: x (n, d), energy (n,), gradient (n, d), status (n,), iterations (n,).
    """
    config = config or LBFGS()
    given = x
    energy, x = working_copy(energy, x, config.single)
    known = None if known is None else (known[0].to(x), known[1].to(x))
    n, d = x.shape
    origin = x.new_zeros(d) if center is None else center.to(x)
    reach = torch.as_tensor(radius, dtype=x.dtype, device=x.device).expand(n)
    value, gradient = energy.value_and_gradient(x)
    finite = value.isfinite() & gradient.isfinite().all(1)
    norm = gradient.norm(dim=1)
    # The first step knows no curvature: a small part of the landscape's scale, whatever the energy's units.
    first = 0.02 * reach / norm.clamp_min(torch.finfo(x.dtype).tiny)
    direction = -gradient * first[:, None]
    state: State = {
        "x": x.clone(),
        "energy": value,
        "gradient": gradient,
        "direction": direction,
        "slope": (gradient * direction).sum(1),
        "length": first * norm,
        "step": torch.ones_like(value),
        "scale": first,
        "radius": reach,
        "origin": origin.expand(n, d),
        "updates": torch.zeros(n, dtype=torch.long, device=x.device),
        "status": torch.full((n,), int(Status.RUNNING), device=x.device),
    }
    if d <= 2 * config.memory:
        state["inverse"] = torch.diag_embed(first[:, None].expand(n, d))
    else:
        state |= {name: x.new_zeros(n, config.memory, d) for name in ("s", "y")}
        state["rho"] = x.new_zeros(n, config.memory)
    state["status"][~finite] = Status.NOT_FINITE
    state["status"][finite & (norm == 0)] = Status.CONVERGED

    def step(state: State) -> State:
        return _step(energy, state, config, known)

    return as_given(iterate(step, state, ("x", "energy", "gradient"), config.max_iterations), given)


def _step(energy: Energy, state: State, config: LBFGS, known: tuple[torch.Tensor, torch.Tensor] | None) -> State:
    x, value, gradient, direction, length = (state[k] for k in ("x", "energy", "gradient", "direction", "step"))
    move = length[:, None] * direction
    foretold = length * state["slope"]
    trial = x + move
    trial_value, trial_gradient = energy.value_and_gradient(trial)
    noise = ENERGY_NOISE * torch.finfo(x.dtype).eps
    bound = value.add(foretold, alpha=SUFFICIENT_DECREASE).add(value.abs(), alpha=noise)
    # Infinite values and gradients make the sum with nothing of them nan, and nan is below no bound.
    square = trial_gradient.square().sum(1)
    accept = trial_value + 0 * (trial_value + square) <= bound

    # Where the step was refused: the minimum of the parabola through what is known, within [0.1, 0.5] of the step.
    shorter = (-0.5 * foretold / (trial_value - value - foretold)).clamp(0.1, 0.5).nan_to_num(0.1)
    new: State = dict(state)
    new["step"] = torch.where(accept, 1.0, length * shorter)
    take = accept[:, None]
    new["x"] = x = torch.where(take, trial, x)
    new["energy"] = torch.where(accept, trial_value, value)
    new["gradient"] = torch.where(take, trial_gradient, gradient)
    _remember(new, accept, move, trial_gradient - gradient)
    if "inverse" in new:
        new_direction = -torch.bmm(new["inverse"], new["gradient"][:, :, None])[:, :, 0]
    else:
        new_direction = _two_loop(new)
    slope, size = (new_direction * new["gradient"]).sum(1), new_direction.norm(dim=1)
    # A matrix that rounding has spoilt: the gradient is left.
    uphill = ~(slope < 0)
    if bool((uphill & accept).any()):
        new_direction = torch.where(uphill[:, None], -new["scale"][:, None] * new["gradient"], new_direction)
        slope, size = (new_direction * new["gradient"]).sum(1), new_direction.norm(dim=1)
    # Half the landscape's scale at most; farther out half the distance, so that a runaway is soon recognised.
    away = (x - state["origin"]).norm(dim=1)
    limit = 0.5 * torch.maximum(away, state["radius"])
    cut = limit / torch.maximum(size, limit)
    new["direction"] = torch.where(take, cut[:, None] * new_direction, direction)
    new["slope"] = torch.where(accept, cut * slope, state["slope"])
    new["length"] = torch.where(accept, cut * size, state["length"])

    tolerance = config.step_tolerance * torch.minimum(1 + x.norm(dim=1), state["radius"])
    # The first updates may know a stiff direction only, whose inverse curvature makes every step look small. A step
    # that rounding has swallowed cannot be improved by shortening it further.
    informed = new["updates"] >= min(config.memory, x.shape[1])
    small = torch.where(
        accept, (informed & (size <= tolerance)) | (square == 0), new["step"] * new["length"] <= 1e-3 * tolerance
    )
    status = torch.where(small, int(Status.CONVERGED), state["status"])
    if known is not None:
        distance = torch.cdist(x, known[0], compute_mode="donot_use_mm_for_euclid_dist")
        status = torch.where((distance < known[1]).any(1), int(Status.CAPTURED), status)
    new["status"] = torch.where(away > 1e3 * state["radius"], int(Status.DIVERGED), status)
    return new


def _remember(state: State, accept: torch.Tensor, s: torch.Tensor, y: torch.Tensor) -> None:
    """Learn from the step s and the gradient's change y on rows that moved and saw positive curvature."""
    both = torch.stack([s, y], 1)
    products = torch.bmm(both, both.mT)
    curvature, s_square, y_square = products[:, 0, 1], products[:, 0, 0], products[:, 1, 1]
    good = accept & (curvature > 1e-10 * (s_square * y_square).sqrt())
    # Where the energy falls without curving upwards the steps grow, so that a plateau is crossed and a runaway
    # recognised.
    growth = torch.where(accept & ~good, 2.0, 1.0)
    scale = torch.where(good, curvature / y_square, growth * state["scale"])
    push = good[:, None, None]
    if "inverse" in state:
        # BFGS (1970): H + a b' + b a' with a = s / s.y and b = (s.y + y.H y) a / 2 - H y. The first update scales H.
        first = (state["updates"] == 0) & good
        factor = torch.where(first, scale / state["scale"], growth)
        inverse = factor[:, None, None] * state["inverse"]
        a = s / curvature[:, None]
        along = torch.bmm(inverse, y[:, :, None])[:, :, 0]
        b = 0.5 * (curvature + (y * along).sum(1))[:, None] * a - along
        change = torch.bmm(a[:, :, None], b[:, None])
        state["inverse"] = torch.where(push, inverse + change + change.mT, inverse)
    else:
        state["s"] = torch.where(push, torch.cat([state["s"][:, 1:], s[:, None]], 1), state["s"])
        state["y"] = torch.where(push, torch.cat([state["y"][:, 1:], y[:, None]], 1), state["y"])
        rho = torch.where(good, 1 / curvature, 0)
        state["rho"] = torch.where(good[:, None], torch.cat([state["rho"][:, 1:], rho[:, None]], 1), state["rho"])
    state["scale"] = scale
    state["updates"] = state["updates"] + good


def _two_loop(state: State) -> torch.Tensor:
    """-(inverse Hessian estimate) gradient, rows at once. Empty slots have rho = 0 and change nothing."""
    s, y, rho = state["s"], state["y"], state["rho"]
    memory = s.shape[1]
    q = state["gradient"].clone()
    alphas = []
    for k in range(memory - 1, -1, -1):
        alpha = rho[:, k] * (s[:, k] * q).sum(1)
        q -= alpha[:, None] * y[:, k]
        alphas.append(alpha)
    q *= state["scale"][:, None]
    for k in range(memory):
        beta = rho[:, k] * (y[:, k] * q).sum(1)
        q += (alphas[memory - 1 - k] - beta)[:, None] * s[:, k]
    return -q
