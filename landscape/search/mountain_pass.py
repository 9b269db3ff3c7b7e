"""The numerical mountain pass (Choi and McKenna 1993): lower the highest point of a path until it cannot be lowered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.search.driver import State, Status, iterate
from landscape.search.stationary import newton_polish
from landscape.search.string import end_points, energy_of, saddles_only, straight_images

STRAY = 0.1  # how far the polish may move the top, in units of the distance between the ends


@dataclass(frozen=True)
class MountainPassOptions:
    """Hyper-parameters of `mountain_pass`.

    n_points : nodes of the path. max_iterations : moves of the highest node.
    gradient_tolerance : a path has converged when the gradient at its top is below this part of the steepest slope on
    the first path.
    """

    n_points: int = 15
    max_iterations: int = 2000
    gradient_tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.n_points < 5 or self.max_iterations < 1 or not self.gradient_tolerance > 0:
            raise UsageError(
                f"a mountain pass needs n_points >= 5, max_iterations >= 1, gradient_tolerance > 0, not {self}"
            )


@dataclass(frozen=True)
class MountainPasses:
    """saddle (n, d) and energy (n,), nan where status (n,) is not CONVERGED; index (n,) of the point reached."""

    saddle: np.ndarray
    energy: np.ndarray
    index: np.ndarray
    status: np.ndarray


def mountain_pass(
    energy: Energy | Callable[[torch.Tensor], torch.Tensor],
    start: np.ndarray,
    end: np.ndarray,
    options: MountainPassOptions | None = None,
) -> MountainPasses:
    """Mountain-pass points between pairs of minima start (n, d), end (n, d).

    Each path is a chain of points. Its highest point moves down the gradient across the path; nodes around it close
    in, so that the top stays resolved; when the gradient there is small, Newton's method polishes. A result is
    CONVERGED only if it is a nondegenerate point of index 1 above both ends.

    Raises UsageError for shapes that do not match.
    """
    options = options or MountainPassOptions()
    energy = energy_of(energy, start)
    a, b = end_points(energy, start, end, "a mountain pass")
    path = straight_images(a, b, options.n_points)
    n, m, d = path.shape
    value, gradient = energy.value_and_gradient(path.reshape(n * m, d))
    slope = gradient.reshape(n, m, d).norm(dim=-1).amax(1)
    length = (b - a).norm(dim=1)
    finite = value.reshape(n, m).isfinite().all(1)
    state: State = {
        "path": path, "value": value.reshape(n, m), "step": 0.1 * length / slope, "slope": slope, "length": length,
        "top": path[:, 0].clone(),
        "status": torch.where(finite, int(Status.RUNNING), int(Status.NOT_FINITE)),
    }  # fmt: skip
    ended = iterate(lambda s: _lower_the_top(energy, s, options), state, ("top",), options.max_iterations)
    polished = newton_polish(energy, ended["top"])
    ends = torch.maximum(energy.value(a), energy.value(b))
    status = torch.where(ended["status"] == Status.CONVERGED, polished["status"], ended["status"])
    # A polish that ends far from the top of the path has found some other point.
    strayed = (polished["x"] - ended["top"]).norm(dim=1) > STRAY * length
    wrong = strayed | (polished["energy"] <= ends)
    status = torch.where((status == Status.CONVERGED) & wrong, int(Status.UNFINISHED), status)
    saddle, saddle_energy, result, index = saddles_only(polished, status)
    return MountainPasses(saddle, saddle_energy, index, result)


def _lower_the_top(energy: Energy, state: State, options: MountainPassOptions) -> State:
    """Move the highest inner node of each path downhill across the path, or bring its neighbours closer."""
    path, value = state["path"], state["value"]
    rows = torch.arange(len(path), device=path.device)
    top = 1 + value[:, 1:-1].argmax(1)
    x = path[rows, top]
    before, after = path[rows, top - 1], path[rows, top + 1]
    gradient = energy.gradient(x)
    tangent = after - before
    tangent = tangent / tangent.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    across = gradient - (gradient * tangent).sum(1, keepdim=True) * tangent
    move = state["step"][:, None] * across
    gap = torch.minimum((x - before).norm(dim=1), (after - x).norm(dim=1))
    # Never farther than the neighbours, unless these have closed in: the top may then drift by a small part of the
    # path.
    limit = torch.maximum(gap, 1e-2 * state["length"])
    size = move.norm(dim=1)
    move = move * (limit / torch.maximum(size, limit))[:, None]
    trial = x - move
    trial_value = energy.value(trial)
    lower = trial_value < value[rows, top] - 1e-4 * (across * move).sum(1)
    result = dict(state)
    result["step"] = state["step"] * torch.where(lower, 1.5, 0.4)
    path, value = path.clone(), value.clone()
    shift = torch.where(lower[:, None], -move, 0)
    path[rows, top] = x + shift
    value[rows, top] = torch.where(lower, trial_value, value[rows, top])
    # The neighbours follow the top and come halfway closer, so that the path's top is known ever more sharply.
    for side in (-1, 1):
        neighbour = top + side
        inner = (neighbour > 0) & (neighbour < path.shape[1] - 1)
        distance = (path[rows, neighbour] - path[rows, top]).norm(dim=1)
        close_in = inner & (distance > 1e-4 * state["length"])
        midpoint = 0.5 * (path[rows, neighbour] + path[rows, top])
        path[rows[close_in], neighbour[close_in]] = midpoint[close_in]
        if bool(close_in.any()):
            value[rows[close_in], neighbour[close_in]] = energy.value(midpoint[close_in])
    result["path"], result["value"] = path, value
    highest = 1 + value[:, 1:-1].argmax(1)
    result["top"] = path[rows, highest]
    status = state["status"].clone()
    small = gradient.norm(dim=1) < options.gradient_tolerance * state["slope"]
    status[small | (result["step"] * state["slope"] < 1e-12 * state["length"])] = Status.CONVERGED
    result["status"] = status
    return result
