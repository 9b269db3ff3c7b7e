"""Batched L-BFGS: every row is a descent of its own, with one evaluation a row and iteration.

In small batches an iteration waits for the number of tensor operations, not for their size: hence products that are
kept for the next iteration, and a matrix in place of the two-loop recursion where that is no larger than the pairs.
In large ones the layout counts: rows last (`_step`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.search.driver import State, Status, as_given, evaluate, iterate, working_copy
from landscape.search.recognition import KnownPoints
from landscape.tasks import task

SUFFICIENT_DECREASE = 1e-4  # Armijo's constant
FIRST = 0.02  # length of the first step, in units of the landscape's scale: it knows no curvature
# Mismatch of a known minimum's model below which its Hessian leads on, and below which the row has arrived. A Newton
# step at .6 leaves about half of the distance, at 1 it need not converge, and from .7 on small wells beside known ones
# are passed by. The second changes next to no label up to .3.
GUIDED, ARRIVED = 0.6, 0.25
WALL = 4.0  # times the fall foretold: a step that climbs by more, or to no number, tells nothing of where it began
GROW, SHRINK = 1.7, 0.3  # longest step after an accepted and after a refused one, in units of that one
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
    max_iterations: int = 2000
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
    first: float = FIRST,
    known: KnownPoints | None = None,
) -> State:
    """Descend from every row of `x` (n, d) to a point with zero gradient.

    BFGS for all rows at once (by the two-loop recursion where d > 2 memory). Each row accepts or refuses its own step,
    so that an iteration costs exactly one evaluation a row at work. A refused step teaches too: the next one is taken
    anew with what the gradient at its end says of the curvature, at most SHRINK times as long (after an accepted one
    GROW times): small wells are not leapt out of, and a long way is gone in growing steps. `radius` (a number, or one
    a row) is the length scale R of the landscape: no step exceeds R / 2 (half the distance from `center`, farther out),
    and a row farther than 1e3 R from `center` (the origin by default; one point, or one a row) is DIVERGED. `first` :
    length of the first step, in units of R. `known` : minima. Rows that come to one of them are CAPTURED there, and the
    last of their way is led by its Hessian; nothing is evaluated for it.

    Returns a dict of tensors: x (n, d), energy (n,), gradient (n, d), status (n,), iterations (n,), and number (n,):
    that of the known minimum where a row is CAPTURED, else -1.
    """
    config = config or LBFGS()
    given = x
    energy, x = working_copy(energy, x, config.single)
    known = None if known is None else known.to(x)
    n, d = x.shape
    origin = x.new_zeros(d) if center is None else center.to(x)
    reach = torch.as_tensor(radius, dtype=x.dtype, device=x.device).expand(n)
    value, gradient = energy.value_and_gradient(x)
    finite = value.isfinite() & gradient.isfinite().all(1)
    norm = gradient.norm(dim=1)
    scale = first * reach / norm.clamp_min(torch.finfo(x.dtype).tiny)
    state: State = {
        "point": torch.stack([x.T, gradient.T]),
        "step": scale * gradient.T,
        "line": torch.stack([value, scale * norm.square(), scale * norm]),
        "scale": scale,
        "updates": torch.zeros(n, dtype=torch.long, device=x.device),
        "place": torch.cat([origin.expand(n, d).T, reach[None]]),
        "status": torch.full((n,), int(Status.RUNNING), device=x.device),
    }
    if d <= 2 * config.memory:
        state["inverse"] = torch.eye(d, dtype=x.dtype, device=x.device)[:, :, None] * scale
    else:
        state |= {name: x.new_zeros(config.memory, d, n) for name in ("s", "y")}
        state["rho"] = x.new_zeros(config.memory, n)
    state["status"][~finite] = Status.NOT_FINITE
    state["status"][finite & (norm == 0)] = Status.CONVERGED
    if known is not None and known.has_models:
        state["status"][known.recognise(x, value, gradient, ARRIVED) >= 0] = Status.CAPTURED
    elif known is not None:
        state["due"] = torch.full_like(value, torch.inf)

    def step(state: State) -> State:
        return _step(energy, state, config, known)

    axes = {name: part.ndim - 1 for name, part in state.items()}
    ended = iterate(step, state, ("point", "line"), config.max_iterations, axes=axes, inference=True)
    point, line = ended.pop("point"), ended.pop("line")
    result = {"x": point[0].T.contiguous(), "energy": line[0].clone(), "gradient": point[1].T.contiguous()}
    number = torch.full_like(ended["status"], -1)
    if known is not None:
        number = torch.where(ended["status"] == Status.CAPTURED, known.numbers[known.nearest(result["x"])], number)
    return as_given(result | ended | {"number": number}, given)


def _step(energy: Energy, state: State, config: LBFGS, known: KnownPoints | None) -> State:
    """One evaluation of every row, at x - step.

    Rows come last, since sums over a short last axis cost several times as much. point (2, d, n) : x and gradient.
    step (d, n). line (3, n) : energy, its fall along the step as the gradient foretells it, length of the step. place
    (d + 1, n) : origin and radius. inverse (d, d, n), or s, y (m, d, n) and rho (m, n) : the estimate of the inverse
    Hessian. due (n,) : without Hessians of known minima, how near to one a row is next told from it by a product.
    """
    point, place = state["point"], state["place"]
    value, fall, length = state["line"].unbind()
    trial = point[0] - state["step"]
    trial_value, trial_gradient = evaluate(energy, trial.T)
    there = torch.stack([trial, trial_gradient.T])
    gain = value - trial_value
    # Infinite values and gradients make the sum with nothing of them nan, and nan is above no bound.
    finite = 0 * (gain + _dot(there[1], there[1]))
    noise = ENERGY_NOISE * torch.finfo(gain.dtype).eps
    accept = gain + finite >= torch.sub(SUFFICIENT_DECREASE * fall, value.abs(), alpha=noise)
    new = state | {"point": there}
    if not bool(accept.all()):
        there = torch.where(gain + finite >= -WALL * fall, there, point)  # where nothing is learnt
        new["point"] = torch.where(accept, there, point)
        trial_value = torch.where(accept, trial_value, value)
    _remember(new, accept, there - point)

    x, gradient = new["point"].unbind()
    step = _inverse_times(new, gradient)
    reached = None
    if known is not None and known.has_models:
        mismatch, by_model = known.compare(known.nearest(x.T), x.T, trial_value, gradient.T)
        step = torch.where(mismatch < GUIDED, by_model.T, step)
        reached = mismatch <= ARRIVED
    elif known is not None:
        row = (x.T, trial_value, gradient.T, place[-1], state["due"])
        reached, new["due"] = known.reached_by_products(energy, *row)
    new_fall, size = _dot(step, gradient), _dot(step, step).sqrt()
    downhill = new_fall > 0
    if not bool(downhill.all()):
        # A matrix that rounding has spoilt: the gradient is left.
        step = torch.where(downhill, step, new["scale"] * gradient)
        new_fall, size = _dot(step, gradient), _dot(step, step).sqrt()
    # Half the landscape's scale at most; farther out half the distance, so that a runaway is soon recognised.
    away, radius = x - place[:-1], place[-1]
    away = _dot(away, away).sqrt()
    longest = torch.minimum(0.5 * torch.maximum(away, radius), torch.where(accept, GROW, SHRINK) * length)
    cut = (longest / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(1)
    new["step"] = cut * step
    new["line"] = torch.stack([trial_value, cut * new_fall, cut * size])

    tolerance = config.step_tolerance * torch.minimum(1 + _dot(x, x).sqrt(), radius)
    # The first updates may know a stiff direction only, whose inverse curvature makes every step look small. A step
    # that rounding has swallowed cannot be improved by shortening it further. Without a gradient nothing is left to do.
    informed = new["updates"] >= min(config.memory, len(x))
    small = torch.where(accept, size, 1e3 * SHRINK * length) <= tolerance
    done = small & (informed | ~accept | (new_fall == 0))
    status = state["status"].masked_fill(done, int(Status.CONVERGED))
    if reached is not None:
        status.masked_fill_(reached, int(Status.CAPTURED))
    new["status"] = status.masked_fill_(away > 1e3 * radius, int(Status.DIVERGED))
    return new


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The products (..., n) of the columns of a and b (..., d, n)."""
    return (a * b).sum(-2)


def _remember(state: State, accept: torch.Tensor, change: torch.Tensor) -> None:
    """Learn from the step s and the gradient's change y, in `change` (2, d, n), on rows that saw positive curvature,
    whether or not the step was accepted. Only what an accepted one taught counts as an update: a wall far off says
    nothing of the curvature here, and must not make a row believe that its steps are small because it has arrived."""
    s, y = change.unbind()
    curvature = _dot(s, y)
    s_square, y_square = _dot(change, change).unbind()
    good = curvature > 1e-10 * (s_square * y_square).sqrt()
    rho = good / curvature.clamp_min(torch.finfo(s.dtype).tiny)
    # Where the energy falls without curving upwards the steps grow, so that a plateau is crossed and a runaway
    # recognised.
    scale = state["scale"]
    state["scale"] = torch.where(good, curvature / y_square, torch.where(accept, 2 * scale, scale))
    if "inverse" in state:
        # BFGS (1970): H - a b' - b a' with a = s / s.y and b = H y - (s.y + y.H y) a / 2.
        # H is scaled until one has counted.
        inverse = state["inverse"] * (state["scale"] / scale).masked_fill_(good & (state["updates"] > 0), 1.0)
        a = rho * s
        along = (inverse * y).sum(1)
        b = torch.addcmul(along, curvature + _dot(y, along), a, value=-0.5)
        state["inverse"] = inverse.addcmul_(a[:, None], b, value=-1).addcmul_(b[:, None], a, value=-1)
    else:
        for name, latest in (("s", s), ("y", y), ("rho", rho)):
            state[name] = torch.where(good, torch.cat([state[name][1:], latest[None]]), state[name])
    state["updates"] = state["updates"] + (good & accept)


def _inverse_times(state: State, gradient: torch.Tensor) -> torch.Tensor:
    """(inverse Hessian estimate) gradient, (d, n). Empty slots of the recursion have rho = 0 and change nothing."""
    if "inverse" in state:
        return (state["inverse"] * gradient).sum(1)
    s, y, rho = state["s"], state["y"], state["rho"]
    q = gradient.clone()
    alphas = []
    for k in reversed(range(len(s))):
        alpha = rho[k] * _dot(s[k], q)
        q.addcmul_(alpha, y[k], value=-1)
        alphas.append(alpha)
    q *= state["scale"]
    for k in range(len(s)):
        beta = rho[k] * _dot(y[k], q)
        q.addcmul_(alphas.pop() - beta, s[k])
    return q
