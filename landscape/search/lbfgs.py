"""Batched L-BFGS: every row is a descent of its own, with one evaluation a row and iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.search.driver import State, Status, iterate
from landscape.tasks import task

SUFFICIENT_DECREASE = 1e-4  # Armijo's constant
ENERGY_NOISE = 4e-15  # relative rounding error that a descent must tolerate at its end


@dataclass(frozen=True)
class LBFGS:
    """Hyper-parameters of the batched descent.

    memory : number of (step, gradient change) pairs.
    max_iterations : evaluations a row may use.
    step_tolerance : a row has converged when its quasi-Newton step is below step_tolerance (1 + |x|).
    """

    memory: int = 6
    max_iterations: int = 1000
    step_tolerance: float = 1e-5

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
) -> State:
    """Descend from every row of `x` (n, d) to a point with zero gradient.

    Nocedal's two-loop recursion for all rows at once; a backtracking line search in which each row accepts or
    shortens its own step, so that an iteration costs exactly one evaluation a row at work. `radius` (a number, or one a
    row) is the length scale R of the landscape: no step exceeds R / 2 (half the distance from `center`, farther out),
    and a row with a coordinate farther than 1e3 R from `center` (the origin by default; one point, or one a row) is
    DIVERGED.

    Returns a dict of tensors: x (n, d), energy (n,), gradient (n, d), status (n,), iterations (n,).
    """
    config = config or LBFGS()
    n, d = x.shape
    origin = x.new_zeros(d) if center is None else center.to(x)
    reach = torch.as_tensor(radius, dtype=x.dtype, device=x.device).expand(n)
    value, gradient = energy.value_and_gradient(x)
    finite = value.isfinite() & gradient.isfinite().all(1)
    norm = gradient.norm(dim=1)
    # The first step knows no curvature: a small part of the landscape's scale, whatever the energy's units.
    first = 0.02 * reach / norm.clamp_min(torch.finfo(x.dtype).tiny)
    state: State = {
        "x": x.clone(),
        "energy": value,
        "gradient": gradient,
        "direction": -gradient * first[:, None],
        "step": torch.ones_like(value),
        "s": x.new_zeros(n, config.memory, d),
        "y": x.new_zeros(n, config.memory, d),
        "rho": x.new_zeros(n, config.memory),
        "scale": first,
        "radius": reach,
        "origin": origin.expand(n, d),
        "updates": torch.zeros(n, dtype=torch.long, device=x.device),
        "status": torch.full((n,), int(Status.RUNNING), device=x.device),
    }
    state["status"][~finite] = Status.NOT_FINITE
    state["status"][finite & (norm == 0)] = Status.CONVERGED

    def step(state: State) -> State:
        return _step(energy, state, config)

    return iterate(step, state, ("x", "energy", "gradient"), config.max_iterations)


def _step(energy: Energy, state: State, config: LBFGS) -> State:
    x, value, gradient, direction, length = (state[k] for k in ("x", "energy", "gradient", "direction", "step"))
    slope = (gradient * direction).sum(1)
    move = length[:, None] * direction
    trial = x + move
    trial_value, trial_gradient = energy.value_and_gradient(trial)
    finite = trial_value.isfinite() & trial_gradient.isfinite().all(1)
    noise = ENERGY_NOISE * value.abs()
    accept = finite & (trial_value <= value + SUFFICIENT_DECREASE * length * slope + noise)

    # Where the step was refused: the minimum of the parabola through what is known, within [0.1, 0.5] of the step.
    excess = trial_value - value - length * slope
    shorter = (-0.5 * length * slope / excess).clamp(0.1, 0.5).nan_to_num(0.1)
    state["step"] = torch.where(accept, torch.ones_like(length), length * torch.where(finite, shorter, 0.1))

    _remember(state, accept, move, trial_gradient - gradient)
    state["x"] = torch.where(accept[:, None], trial, x)
    state["energy"] = torch.where(accept, trial_value, value)
    state["gradient"] = torch.where(accept[:, None], trial_gradient, gradient)
    new_direction = _two_loop(state)
    uphill = (new_direction * state["gradient"]).sum(1) >= 0
    new_direction = torch.where(uphill[:, None], -state["scale"][:, None] * state["gradient"], new_direction)
    size = new_direction.norm(dim=1)
    # Half the landscape's scale at most; farther out half the distance, so that a runaway is soon recognised.
    limit = 0.5 * torch.maximum((state["x"] - state["origin"]).norm(dim=1), state["radius"])
    new_direction = new_direction * (limit / torch.maximum(size, limit))[:, None]
    state["direction"] = torch.where(accept[:, None], new_direction, direction)

    tolerance = config.step_tolerance * (1 + state["x"].norm(dim=1))
    # The first updates may know a stiff direction only, whose inverse curvature makes every step look small.
    informed = state["updates"] >= min(config.memory, x.shape[1])
    small = accept & informed & (size <= tolerance)
    # A step that rounding has swallowed cannot be improved by shortening it further.
    exhausted = ~accept & ((state["step"] * direction.norm(dim=1)) <= 1e-3 * tolerance)
    status = state["status"].clone()
    status[small | exhausted | (accept & (state["gradient"] == 0).all(1))] = Status.CONVERGED
    status[(state["x"] - state["origin"]).abs().amax(1) > 1e3 * state["radius"]] = Status.DIVERGED
    return state | {"status": status}


def _remember(state: State, accept: torch.Tensor, s: torch.Tensor, y: torch.Tensor) -> None:
    """Push (s, y) on the rows that moved and saw positive curvature; others keep their memory."""
    curvature = (s * y).sum(1)
    y_square = (y * y).sum(1)
    good = accept & (curvature > 1e-10 * s.norm(dim=1) * y_square.sqrt())
    push = good[:, None, None]
    state["s"] = torch.where(push, torch.cat([state["s"][:, 1:], s[:, None]], 1), state["s"])
    state["y"] = torch.where(push, torch.cat([state["y"][:, 1:], y[:, None]], 1), state["y"])
    rho = torch.where(good, 1 / curvature, 0)
    state["rho"] = torch.where(good[:, None], torch.cat([state["rho"][:, 1:], rho[:, None]], 1), state["rho"])
    # Where the energy falls without curving upwards the steps grow, so that a plateau is crossed and a runaway
    # recognised.
    state["scale"] = torch.where(good, curvature / y_square, torch.where(accept, 2 * state["scale"], state["scale"]))
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
