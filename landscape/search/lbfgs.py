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
FURTHER = 10.0  # times the smallest step, by the model of the nearest minimum, at which a row has not come to rest
WALL = 4.0  # times the fall foretold: a step that climbs by more, or to no number, tells nothing of where it began
REVIEW = 4  # iterations from one look at what is seldom news to the next
GROW, SHRINK = 1.7, 0.3  # longest step after an accepted and after a refused one, in units of that one
ENERGY_NOISE = 18.0  # relative rounding error, in units of the last place, that a descent must tolerate at its end


@dataclass(frozen=True)
class LBFGS:
    """Hyper-parameters of the batched descent.

    memory : number of (step, gradient change) pairs; up to d = 2 memory the whole inverse Hessian estimate is kept.
    max_iterations : evaluations a row may use.
    step_tolerance : a row has converged when its quasi-Newton step is below step_tolerance times 1 + its distance from
        the center, or times the landscape's length scale where this is shorter.
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
    leave: float = 0.0,
) -> State:
    """Descend from every row of `x` (n, d) to a point with zero gradient.

    BFGS for all rows at once (by the two-loop recursion where d > 2 memory). Each row accepts or refuses its own step,
    so that an iteration costs exactly one evaluation a row at work. A refused step teaches too: the next one is taken
    anew with what the gradient at its end says of the curvature, at most SHRINK times as long (after an accepted one
    GROW times): small wells are not leapt out of, and a long way is gone in growing steps. `radius` (a number, or one
    a row) is the length scale R of the landscape: no step but the first exceeds R / 2 (half the distance from `center`,
    farther out), and a row farther than 1e3 R from `center` (the origin by default; one point, or one a row) is
    DIVERGED. `first` : length of the first step, in units of R. `known` : minima. Rows that come to one of them are
    CAPTURED there, and the last of their way is led by its Hessian; nothing is evaluated for it. `leave` : part of the
    rows that is UNFINISHED when the others have ended: a few stragglers take as many calls as all others. Which rows
    these are depends on those that descend with them, in one block of the task.

    Returns a dict of tensors: x (n, d), energy (n,), gradient (n, d), status (n,), iterations (n,), and number (n,):
    that of the known minimum where a row is CAPTURED, else -1.
    """
    config = config or LBFGS()
    given = x
    energy, x = working_copy(energy, x, config.single)
    known = None if known is None else known.to(x)
    n, d = x.shape
    value, gradient = energy.value_and_gradient(x)
    origin = x.new_zeros(d) if center is None else center.to(x)
    reach = torch.as_tensor(radius, dtype=x.dtype, device=x.device)
    finite = value.isfinite() & gradient.isfinite().all(1)
    norm = gradient.norm(dim=1)
    scale = first * reach / norm.clamp_min(torch.finfo(x.dtype).tiny)
    ahead = scale * torch.cat([gradient.T, norm.square()[None], norm[None]])
    state: State = {
        "rows": torch.cat([x.T, gradient.T, value[None], ahead, x.new_zeros(3, n)]),
        "status": torch.full((n,), int(Status.RUNNING), device=x.device),
    }
    place = torch.cat([origin.expand(n, d), reach.expand(n)[:, None]], 1).T
    if origin.ndim > 1 or reach.ndim > 0:
        state["place"] = place
    if d <= 2 * config.memory:
        state["inverse"] = torch.eye(d, dtype=x.dtype, device=x.device)[:, :, None] * scale
    else:
        state |= {name: x.new_zeros(config.memory, d, n) for name in ("s", "y")}
        state |= {"rho": x.new_zeros(config.memory, n), "scale": scale}
    state["status"][~finite] = Status.NOT_FINITE
    state["status"][finite & (norm == 0)] = Status.CONVERGED
    if known is not None and known.has_models:
        state["status"][known.recognise(x, value, gradient, ARRIVED) >= 0] = Status.CAPTURED
    elif known is not None:
        state["due"] = torch.full_like(value, torch.inf)

    descent = _Descent(energy, config, known, place[:, :1])
    axes = {name: part.ndim - 1 for name, part in state.items()}
    left = int(leave * n)
    ended = iterate(descent.step, state, ("rows",), config.max_iterations, axes=axes, inference=True, leave=left)
    rows = ended.pop("rows")
    result = {"x": rows[:d].T.contiguous(), "energy": rows[2 * d].clone(), "gradient": rows[d : 2 * d].T.contiguous()}
    # Between two reviews a row may have come to rest far out.
    far = (result["x"] - origin).norm(dim=1) > 1e3 * reach
    ended["status"] = ended["status"].masked_fill(finite & far, int(Status.DIVERGED))
    number = torch.full_like(ended["status"], -1)
    if known is not None:
        number = torch.where(ended["status"] == Status.CAPTURED, known.numbers[known.nearest(result["x"])], number)
    return as_given(result | ended | {"number": number}, given)


class _Descent:
    """The iterations of one call, and what they share. least : number of updates that every row at work has."""

    def __init__(self, energy: Energy, config: LBFGS, known: KnownPoints | None, place: torch.Tensor) -> None:
        self.energy, self.config, self.known, self.place = energy, config, known, place
        self.noise, self.tiny = ENERGY_NOISE * torch.finfo(place.dtype).eps, torch.finfo(place.dtype).tiny
        self.count, self.least = 0, 0.0

    def step(self, state: State) -> State:
        """One evaluation of every row, at x - step.

        Rows come last, since sums over a short last axis cost several times as much. rows (3 d + 6, n) : x, gradient,
        energy; step, the energy's fall along it as the gradient foretells it, its length; updates that counted; and
        from the last review, how long a step may be and which is small. inverse (d, d, n), or s, y (m, d, n), rho
        (m, n) and scale (n,) : the estimate of the inverse Hessian. place (d + 1, n) : origin and radius, where rows
        have their own. due (n,) : without Hessians of known minima, how near to one a row is next told from it by a
        product.
        """
        rows, d = state["rows"], self.energy.dim
        point, (fall, length, updates) = rows[: 2 * d + 1], rows[3 * d + 1 : -2].unbind()
        trial = rows[:d] - rows[2 * d + 1 : 3 * d + 1]
        trial_value, trial_gradient = evaluate(self.energy, trial.T)
        there = torch.cat([trial, trial_gradient.T, trial_value[None]])
        change = there - point
        curvature = _dot(change[:d], change[d:-1])
        # nan, which is below no bound, where anything is not finite
        rise = torch.add(change[-1], curvature + change[-1], alpha=0)
        accept = rise < torch.sub(self.noise * point[-1].abs(), fall, alpha=SUFFICIENT_DECREASE)
        good = (rise < WALL * fall) & (1e-10 * fall < curvature)
        point, new = torch.where(accept, there, point), dict(state)
        self._remember(new, accept, good, change, curvature, updates)
        # Only what an accepted step taught counts: a wall far off says nothing of the curvature here, and must not make
        # a row believe that its steps are small because it has arrived.
        updates = updates + (good & accept)

        gradient, bounds = point[d:-1], rows[-2:]
        step = _inverse_times(new, gradient)
        by_model = None if self.known is None else self._recognise(new, point)
        if by_model is not None:
            step = torch.where(by_model[1] < GUIDED, by_model[0], step)
        if self.count % REVIEW == 0:
            step, bounds = self._review(new, accept, point, step, length, updates)
        self.count += 1
        fall, square = _dot(torch.stack([gradient, step]), step).unbind()
        size, (most, small) = square.sqrt(), bounds.unbind()
        longest = torch.minimum(torch.where(accept, GROW * length, SHRINK * length), most)
        cut = (longest / size.clamp_min(self.tiny)).clamp_max(1)
        ahead = cut * torch.cat([step, fall[None], size[None]])
        new["rows"] = torch.cat([point, ahead, updates[None], bounds])
        done = (size < small) & accept
        if self.least < (enough := min(self.config.memory, d)):
            # The first updates may know a stiff direction only, whose inverse curvature makes every step look small.
            done &= enough <= updates
        if by_model is not None:
            # Equal stiff directions teach nothing of a soft one, whose inverse curvature the nearest model knows.
            done &= by_model[0].square().sum(0) < (FURTHER * small).square()
        new["status"] = new["status"].masked_fill(done, int(Status.CONVERGED))
        return new

    def _remember(
        self,
        state: State,
        accept: torch.Tensor,
        good: torch.Tensor,
        change: torch.Tensor,
        curvature: torch.Tensor,
        updates: torch.Tensor,
    ) -> None:
        """Learn from the step s and the gradient's change y, in `change` (2 d + 1, n), whether or not the step was
        accepted, on `good` rows, which saw positive curvature and no wall. Where an accepted one saw none, later steps
        grow, so that a plateau is crossed and a runaway recognised."""
        s, y = change[: self.energy.dim], change[self.energy.dim : -1]
        if "inverse" in state:
            # BFGS (1970): H - a b' - b a' with a = s / s.y and b = H y - (s.y + y.H y) a / 2.
            inverse = state["inverse"]
            along = (inverse * y).sum(1)
            work = _dot(y, along)
            if self.least < 1:
                # H is scaled until one has counted.
                factor = torch.where(good & (updates == 0), curvature / work, 1.0)
                inverse, along, work = inverse * factor, along * factor, work * factor
            a = s / curvature
            b = torch.addcmul(along, curvature + work, a, value=-0.5)
            updated = torch.addcmul(inverse, a[:, None], b, value=-1).addcmul_(b[:, None], a, value=-1)
            state["inverse"] = torch.where(good, updated, inverse * (1.0 + accept))
        else:
            state["scale"] = torch.where(good, curvature / _dot(y, y), state["scale"] * (1.0 + accept))
            for name, latest in (("s", s), ("y", y), ("rho", 1 / curvature)):
                state[name] = torch.where(good, torch.cat([state[name][1:], latest[None]]), state[name])

    def _recognise(self, state: State, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Steps (d, n) by the Hessian of the nearest known minimum, and how wrong its model is (n,), where there are
        models; status of rows that have come to one."""
        assert self.known is not None
        d = self.energy.dim
        at, value, gradient = point[:d].T, point[-1], point[d:-1].T
        if self.known.has_models:
            mismatch, by_model = self.known.compare(self.known.nearest(at), at, value, gradient)
            state["status"] = state["status"].masked_fill(mismatch < ARRIVED, int(Status.CAPTURED))
            return by_model.T, mismatch
        radius = state.get("place", self.place)[-1]
        reached, state["due"] = self.known.reached_by_products(self.energy, at, value, gradient, radius, state["due"])
        state["status"] = state["status"].masked_fill(reached, int(Status.CAPTURED))
        return None

    def _review(
        self,
        state: State,
        accept: torch.Tensor,
        point: torch.Tensor,
        step: torch.Tensor,
        length: torch.Tensor,
        updates: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is seldom news: steps (d, n), and bounds (2, n) on a long and a small one; status of rows that end."""
        d = self.energy.dim
        gradient, place, status = point[d:-1], state.get("place", self.place), state["status"]
        self.least = updates.amin().item()
        downhill = _dot(step, gradient) > 0
        if not bool(downhill.all()):
            # A matrix that rounding has spoilt: the gradient is left. Without one nothing is left to do.
            steepest = gradient * (length / gradient.norm(dim=0).clamp_min(self.tiny))
            step = torch.where(downhill, step, steepest)
            status = status.masked_fill((gradient == 0).all(0), int(Status.CONVERGED))
        away, radius = point[:d] - place[:-1], place[-1]
        far = _dot(away, away).sqrt()
        small = self.config.step_tolerance * torch.minimum(1 + far, radius)
        # A step that rounding has swallowed cannot be improved by shortening it further.
        status = status.masked_fill(~accept & (1e3 * SHRINK * length < small), int(Status.CONVERGED))
        state["status"] = status.masked_fill(far > 1e3 * radius, int(Status.DIVERGED))
        # Half the landscape's scale at most; farther out half the distance, so that a runaway is soon recognised.
        return step, torch.stack([0.5 * torch.maximum(far, radius), small])


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The products (..., n) of the columns of a and b (..., d, n)."""
    return (a * b).sum(-2)


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
