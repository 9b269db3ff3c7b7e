"""Single-ended search for saddles of any index: batched eigenvector following with a trust radius."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.search.driver import State, Status, iterate
from landscape.tasks.task import matrix_doubles, task

FLOOR = 1e-3  # eigenvalues below this part of the largest count as that much, so that steps stay bounded


@dataclass(frozen=True)
class EigenvectorFollowing:
    """Hyper-parameters of `follow_eigenvectors`.

    max_iterations : Hessians a row may use.
    step_tolerance : converged when the Newton step is below step_tolerance (1 + |x|); the caller polishes.
    trust : initial and largest trust radius as parts of the landscape's length scale.
    """

    max_iterations: int = 50
    step_tolerance: float = 1e-4
    initial_trust: float = 0.1
    largest_trust: float = 0.3

    def __post_init__(self) -> None:
        if self.max_iterations < 1 or not self.step_tolerance > 0 or not 0 < self.initial_trust <= self.largest_trust:
            raise UsageError(
                f"eigenvector following needs positive limits and initial_trust <= largest_trust, not {self}"
            )


@task(rows={"x": 2, "index": 1, "scale": 1, "region": 2}, doubles=matrix_doubles, calls=lambda x: 2 * x.shape[1])
def follow_eigenvectors(
    energy: Energy,
    x: torch.Tensor,
    index: torch.Tensor,
    scale: float | torch.Tensor,
    region: tuple[torch.Tensor, torch.Tensor],
    config: EigenvectorFollowing | None = None,
) -> State:
    """Walk from each row of x (n, d) towards a stationary point of the given index (n,).

    In the eigenbasis of the Hessian at x the step is +g_i/|lambda_i| in the `index` lowest modes (uphill) and
    -g_i/|lambda_i| in the others (downhill), cut at a trust radius that follows how well the quadratic model foretells
    the energy (Cerjan and Miller 1981; Wales 1994). At a point of the wanted index this is Newton's method. A row that
    leaves the box `region` (low, high; each (d,), or (n, d) for one box a row) is DIVERGED. `scale`, one number or one
    a row, is the length that the trust radius refers to. Returns x, energy, status, iterations.
    """
    config = config or EigenvectorFollowing()
    n = len(x)
    length = torch.as_tensor(scale, dtype=x.dtype, device=x.device).expand(n)
    state: State = {
        "x": x.clone(), "target": index.clone(), "scale": length, "trust": config.initial_trust * length,
        "low": region[0].expand_as(x), "high": region[1].expand_as(x),
        "status": torch.full((n,), int(Status.RUNNING), device=x.device),
    }  # fmt: skip
    state |= _evaluate(energy, x)
    state["status"][~state["finite"]] = Status.NOT_FINITE

    def step(state: State) -> State:
        return _step(energy, state, config)

    return iterate(step, state, ("x", "energy"), config.max_iterations)


def _evaluate(energy: Energy, x: torch.Tensor) -> State:
    """Energy, gradient in the eigenbasis, eigenvalues and eigenvectors of every row."""
    value, gradient = energy.value_and_gradient(x)
    hessian = energy.hessian(x)
    finite = value.isfinite() & gradient.isfinite().all(1) & hessian.isfinite().all(-1).all(-1)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    eigenvalues, vectors = torch.linalg.eigh(torch.where(finite[:, None, None], hessian, eye))
    components = torch.einsum("nij,ni->nj", vectors, torch.where(finite[:, None], gradient, 0))
    return {
        "energy": value, "components": components, "eigenvalues": eigenvalues, "vectors": vectors, "finite": finite,
    }  # fmt: skip


def _step(energy: Energy, state: State, config: EigenvectorFollowing) -> State:
    x, eigenvalues, components = state["x"], state["eigenvalues"], state["components"]
    magnitude = eigenvalues.abs()
    magnitude = torch.maximum(magnitude, FLOOR * magnitude.amax(1, keepdim=True)).clamp_min(torch.finfo(x.dtype).tiny)
    mode = torch.arange(x.shape[1], device=x.device)
    uphill = mode < state["target"][:, None]
    step = torch.where(uphill, 1.0, -1.0) * components / magnitude
    length = step.norm(dim=1)
    step = step * (state["trust"] / torch.maximum(length, state["trust"]))[:, None]
    trial = x + torch.einsum("nij,nj->ni", state["vectors"], step)
    predicted = (components * step + 0.5 * eigenvalues * step.square()).sum(1)
    new = _evaluate(energy, trial)

    # How far the energy's change is from the model's, in units of the model's own terms (their signs may cancel).
    terms = (components * step).abs().sum(1) + 0.5 * (eigenvalues * step.square()).abs().sum(1)
    noise = 1e-13 * (1 + state["energy"].abs())
    mismatch = (new["energy"] - state["energy"] - predicted).abs() / (terms + noise)
    accept = new["finite"] & (mismatch < 0.6)
    factor = torch.where(mismatch < 0.1, 2.0, torch.where(mismatch < 0.3, 1.0, torch.where(mismatch < 0.6, 0.6, 0.35)))
    factor = torch.where(new["finite"], factor, 0.25)
    used = torch.minimum(length, state["trust"])
    result = dict(state)
    result["trust"] = torch.where(factor > 1, torch.maximum(state["trust"], 2 * used), factor * used)
    result["trust"] = torch.minimum(result["trust"], config.largest_trust * state["scale"])
    for name, value in (new | {"x": trial}).items():
        mask = accept.reshape(-1, *[1] * (value.ndim - 1))
        result[name] = torch.where(mask, value, state[name])

    newton = (result["components"] / result["eigenvalues"].abs().clamp_min(torch.finfo(x.dtype).tiny)).norm(dim=1)
    status = state["status"].clone()
    size = 1 + result["x"].norm(dim=1)
    status[newton < config.step_tolerance * size] = Status.CONVERGED
    status[((result["x"] < state["low"]) | (result["x"] > state["high"])).any(1)] = Status.DIVERGED
    status[result["trust"] < 1e-8 * state["scale"]] = Status.UNFINISHED
    result["status"] = status
    return result
