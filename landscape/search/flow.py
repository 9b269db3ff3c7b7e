"""Gradient flow dx/dt = -grad E, and the basin that each point belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from landscape.energy import Energy, ParticleSymmetry
from landscape.errors import UsageError
from landscape.search.basins import Basins
from landscape.search.driver import Stages, State, Status, in_one_batch, iterate
from landscape.search.lbfgs import LBFGS, relax
from landscape.search.stiff_flow import stiff_step
from landscape.tasks import task

# length scale of the descent that ends a flow, in units of the local one: it must not leave the basin
AFTER_FLOW = 0.05
ASSIGN_CHUNK = 65536  # points that flow together
# A step of the explicit pair: three gradients, stable up to this product of time step and curvature ...
EXPLICIT_COST, STABLE = 3, 2.5
LIMITED = 0.7  # ... and held back by the curvature, as a rule, above this one
SAFETY = 0.75  # of the time step that the error calls for: where the landscape is rough .9 is refused more often
RESPONSE = 0.7 / 3  # power of the error in it, less than the order's 1 / 3: on rough landscapes errors come and go
FIRST = 0.1  # first move of a row, in units of the local length scale
PATIENCE = 5  # such steps before a row is called stiff, and more where a Hessian costs more
BOLD = 12.0  # by which the first step of a stiff row is longer: shortening it costs a gradient only
LONGEST = 0.7  # move of a stiff row in a step, in units of the local length scale
REST = 1e-7  # a row rests when its steps, which the error control lets grow, have shrunk below this part of the scale


@dataclass(frozen=True)
class FlowOptions:
    """Hyper-parameters of the flow: an adaptive Bogacki-Shampine 3(2) integrator, and `stiff_step` where it is stiff.

    tolerance : local error a step, relative to the length scale of the landscape around the row (see `Basins.nearest`).
    max_iterations : steps a row may use.
    """

    tolerance: float = 1e-3
    max_iterations: int = 2000

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.max_iterations < 1:
            raise UsageError(f"a flow needs tolerance > 0 and max_iterations >= 1, not {self}")


@task(rows={"x": 2}, doubles=lambda x: 48.0 * x.shape[1], calls=lambda x: 3)
def gradient_flow(
    energy: Energy,
    x: torch.Tensor,
    basins: Basins,
    options: FlowOptions | None = None,
    observe: Callable[[torch.Tensor, State], None] | None = None,
) -> State:
    """Follow dx/dt = -grad E from each row of x (n, d) until it is captured by a known minimum or comes to rest.

    Returns x, label (n,) (the capturing minimum, -1), status: CAPTURED, CONVERGED (at rest at a point
    that is no known minimum, to be polished by the caller), DIVERGED, NOT_FINITE or UNFINISHED.
    `observe(rows, state)` sees every step, in inference mode. Of the rows that made a stiff one, `through` (n,),
    `interior` (n, m, d) are points on their way.
    """
    options = options or FlowOptions()
    value, gradient = energy.value_and_gradient(x)
    label, local = basins.nearest(x, gradient)
    finite = value.isfinite() & gradient.isfinite().all(1)
    norm = gradient.norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
    state: State = {
        "x": x.clone(), "energy": value, "gradient": gradient, "dt": FIRST * local / norm, "label": label,
        "local": local, "stiff": torch.zeros_like(finite), "slow": torch.zeros_like(label),
        "through": torch.zeros_like(finite), "interior": x.new_zeros(len(x), 0, x.shape[1]),
        "status": torch.where(finite, int(Status.RUNNING), int(Status.NOT_FINITE)),
    }  # fmt: skip
    state["status"][finite & (state["label"] >= 0)] = Status.CAPTURED
    return iterate(
        lambda s: _flow_step(energy, s, basins, options, observe is not None),
        state, ("x", "label"), options.max_iterations, observe, inference=True,
    )  # fmt: skip


def _flow_step(energy: Energy, state: State, basins: Basins, options: FlowOptions, record: bool) -> State:
    """One step a row, explicit or stiff; rows whose step is refused stay where they are with a shorter time step."""
    explicit, stiff = (torch.nonzero(state["stiff"] == kind)[:, 0] for kind in (False, True))
    if not len(stiff):
        (trial,) = in_one_batch(energy, _explicit_step(energy, state, options))
    elif not len(explicit):
        (trial,) = in_one_batch(energy, _stiff_step(energy, state, options, record))
    else:
        mild, trial = in_one_batch(
            energy,
            _explicit_step(energy, _rows(state, explicit), options),
            _stiff_step(energy, _rows(state, stiff), options, record),
        )
        mild["interior"] = mild["x"][:, None].expand(-1, trial["interior"].shape[1], -1)
        order = torch.cat([explicit, stiff]).argsort()
        trial = {name: torch.cat([mild[name], part])[order] for name, part in trial.items()}
    accept, rest = trial.pop("accept"), trial.pop("rest")
    result = state | trial
    for name in ("x", "gradient"):
        result[name] = torch.where(accept[:, None], trial[name], state[name])
    result["energy"] = torch.where(accept, trial["energy"], state["energy"])
    label, result["local"] = basins.nearest(result["x"], result["gradient"])
    result["label"] = torch.where(accept, label, state["label"])
    status = state["status"].clone()
    status[accept & (rest < REST * basins.scale)] = Status.CONVERGED
    status[accept & (result["label"] >= 0)] = Status.CAPTURED
    far = (result["x"] - basins.center).abs().amax(1) > 1e3 * basins.scale
    status[far] = Status.DIVERGED
    result["status"] = status
    return result


def _rows(state: State, rows: torch.Tensor) -> State:
    return {name: part.index_select(0, rows) for name, part in state.items()}


def _stiff_cost(energy: Energy) -> float:
    """Of a stiff step, in gradients. Where d is large, and in the short flows of clusters, only explicit ones pay."""
    explicit_only = energy.matrix_free or isinstance(energy.symmetry, ParticleSymmetry)
    return torch.inf if explicit_only else 2 * energy.dim + 2


def _explicit_step(energy: Energy, state: State, options: FlowOptions) -> Stages[State]:
    """One Bogacki-Shampine 3(2) step a row."""
    x, dt = state["x"], state["dt"]
    h = -dt[:, None]
    s1 = h * state["gradient"]
    s2 = h * (yield x.add(s1, alpha=1 / 2))[1]
    third = 3 / 4 * s2
    s3 = h * (yield x + third)[1]
    move = (2 / 9 * s1).add(s2, alpha=1 / 3).add(s3, alpha=4 / 9)
    new = x + move
    value, gradient = yield new
    s4 = h * gradient
    error = (-5 / 72 * s1).add(s2, alpha=1 / 12).add(s3, alpha=1 / 9).add(s4, alpha=-1 / 8).norm(dim=1)
    error = error / (options.tolerance * state["local"])
    finite = value.isfinite() & gradient.isfinite().all(1) & error.isfinite()
    downhill = value <= state["energy"] + 1e-12 * state["energy"].abs()
    accept = finite & (error <= 1) & downhill
    growth = (SAFETY * error.clamp_min(1e-6) ** -RESPONSE).clamp(0.2, 4.0)
    factor = torch.where(accept, growth, torch.where(finite & downhill, growth.clamp_max(0.8), 0.25))
    # The last two stages lie close together: what the force changes by from one to the other tells the curvature.
    limited = (s4 - s3).norm(dim=1) > LIMITED * (move - third).norm(dim=1)
    slow = torch.where(limited, state["slow"] + 1, (state["slow"] - 1).clamp_min(0))
    # A row pays for a stiff step when as much has been paid for steps that one might have saved.
    stiff = slow >= max(PATIENCE, _stiff_cost(energy) / EXPLICIT_COST)
    factor = torch.where(stiff, BOLD * factor, factor)
    # At rest: even a time step at the stability limit moves the row by next to nothing.
    rest = torch.maximum(move.norm(dim=1), gradient.norm(dim=1) * dt)
    return {
        "x": new, "energy": value, "gradient": gradient, "dt": dt * factor, "accept": accept, "rest": rest,
        "stiff": stiff, "slow": slow, "through": torch.zeros_like(accept),
        "interior": x.new_zeros(len(x), 0, energy.dim),
    }  # fmt: skip


def _stiff_step(energy: Energy, state: State, options: FlowOptions, record: bool) -> Stages[State]:
    """One `stiff_step` a row. Rows go on with explicit ones where these, too, would be cheap."""
    x, local = state["x"], state["local"]
    step = yield from stiff_step(
        energy, x, state["energy"], state["gradient"], state["dt"], options.tolerance * local, LONGEST * local, record
    )
    # At rest beside a stationary point, or in a flat valley, where the quadratic model's lies anywhere.
    moved = torch.maximum((step.x - x).norm(dim=1), step.gradient.norm(dim=1) * step.dt)
    explicit = EXPLICIT_COST * step.next_dt * step.largest / STABLE < _stiff_cost(energy) / 2
    return {
        "x": step.x, "energy": step.energy, "gradient": step.gradient, "dt": step.next_dt, "accept": step.accepted,
        "rest": torch.minimum(step.to_stationary, moved), "stiff": step.usable & ~(step.accepted & explicit),
        "slow": torch.zeros_like(state["slow"]), "through": step.accepted, "interior": step.interior,
    }  # fmt: skip


def assign_basins(
    energy: Energy, points: np.ndarray | torch.Tensor, basins: Basins, options: FlowOptions | None = None
) -> np.ndarray:
    """Label points (m, d) by the minimum that their gradient flow reaches: (m,) integers, -1 for no known one.

    Rows that come to rest outside all regions of capture, or have not ended after options.max_iterations, are relaxed
    by short steps and compared with the minima.
    """
    x = torch.as_tensor(points, dtype=energy.dtype, device=energy.device)
    if x.ndim != 2 or x.shape[1] != energy.dim:
        raise UsageError(f"points have shape (m, {energy.dim}) for this energy, not {tuple(x.shape)}")
    if isinstance(energy.symmetry, ParticleSymmetry):
        from landscape.search.particles import assign_clusters  # it descends as searches do, which build on this room

        return assign_clusters(energy, x, basins.x.cpu().numpy())
    parts = [_assign(energy, part, basins, options) for part in x.split(ASSIGN_CHUNK)]
    return torch.cat(parts).cpu().numpy()


def _assign(energy: Energy, x: torch.Tensor, basins: Basins, options: FlowOptions | None) -> torch.Tensor:
    ended = gradient_flow(energy, x, basins, options)
    label = ended["label"].clone()
    rest = torch.nonzero((ended["status"] == Status.CONVERGED) | (ended["status"] == Status.UNFINISHED))[:, 0]
    if len(rest):
        local = basins.nearest(ended["x"][rest])[1]
        precise = LBFGS(step_tolerance=1e-8)  # not polished afterwards
        relaxed = relax(energy, ended["x"][rest], AFTER_FLOW * local, precise, center=ended["x"][rest])
        distance, nearest = basins.distances(relaxed["x"]).min(1)
        label[rest] = torch.where(distance < 1e-3 * basins.reach[nearest], nearest, -1)
    return label
