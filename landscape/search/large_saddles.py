"""Eigenvector following without Hessians: the dense method's steps in a Krylov subspace around the lowest modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from landscape.energy import Energy
from landscape.search.driver import State, Status, iterate
from landscape.search.modes import BLOCK, ritz_pairs

if TYPE_CHECKING:
    from landscape.search.saddles import EigenvectorFollowing

SUBSPACE = 24  # dimensions in which a step is chosen: so many Hessian-vector products a step
FLOOR = 1e-3  # Ritz values below this part of the largest count as that much, so that steps stay bounded
TOLERANCE = 1e-4  # of the step in the subspace, in units of 1 + |x|, at which the polish takes over
REFUSED = 0.6  # relative error of the quadratic model above which a step is not taken


def follow_by_products(
    energy: Energy,
    x: torch.Tensor,
    index: torch.Tensor,
    scale: float | torch.Tensor,
    region: tuple[torch.Tensor, torch.Tensor],
    config: EigenvectorFollowing,
) -> State:
    """Walk from each row of x (n, d) towards a stationary point of the given index (n,), as `follow_eigenvectors` does.

    Each step is chosen in the block Krylov subspace of the gradient and of the lowest modes of the step before, which
    thus are tracked and sharpened: uphill along the `index` lowest Ritz vectors, downhill along the others (Munro and
    Wales, Phys. Rev. B 59, 3969 (1999), with conjugate-gradient-like steps across the modes). The region is a box
    (low, high); one row of numbers for all, or one a row. Rows are worked on in blocks of bounded memory.
    """
    n = len(x)
    length = torch.as_tensor(scale, dtype=x.dtype, device=x.device).expand(n)
    low, high = region[0].expand_as(x), region[1].expand_as(x)
    rows = max(1, BLOCK // (3 * min(SUBSPACE, energy.dim) * energy.dim))
    blocks = [torch.arange(n, device=x.device)] if n == 0 else list(torch.arange(n, device=x.device).split(rows))
    parts = [_follow(energy, x[b], index[b], length[b], low[b], high[b], config) for b in blocks]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _follow(
    energy: Energy, x: torch.Tensor, index: torch.Tensor, scale: torch.Tensor, low: torch.Tensor, high: torch.Tensor,
    config: EigenvectorFollowing,
) -> State:  # fmt: skip
    value, gradient = energy.value_and_gradient(x)
    finite = value.isfinite() & gradient.isfinite().all(1)
    n_modes = int(index.max()) if len(index) else 1
    seeds = torch.randn(n_modes, x.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, vectors = _subspace(energy, x, gradient, seeds.to(x).expand(len(x), -1, -1))
    state: State = {
        "x": x.clone(), "energy": value, "gradient": gradient, "values": values, "vectors": vectors, "target": index,
        "scale": scale, "trust": config.initial_trust * scale, "low": low, "high": high,
        "status": torch.where(finite, int(Status.RUNNING), int(Status.NOT_FINITE)),
    }  # fmt: skip
    return iterate(lambda s: _step(energy, s, n_modes, config), state, ("x", "energy"), config.max_iterations)


def _subspace(
    energy: Energy, x: torch.Tensor, gradient: torch.Tensor, modes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ritz values (n, m) and vectors (n, d, m) around the gradient and the modes (n, j, d) known before."""
    start = torch.cat([modes, gradient.nan_to_num(0.0, 0.0, 0.0)[:, None]], 1)
    return ritz_pairs(energy.hvp, x, start, SUBSPACE)


def _step(energy: Energy, state: State, n_modes: int, config: EigenvectorFollowing) -> State:
    x, value, gradient, values, vectors = (state[k] for k in ("x", "energy", "gradient", "values", "vectors"))
    tiny = torch.finfo(x.dtype).tiny
    components = (gradient[:, None] @ vectors)[:, 0]
    magnitude = values.abs()
    magnitude = torch.maximum(magnitude, FLOOR * magnitude.amax(1, keepdim=True)).clamp_min(tiny)
    uphill = torch.arange(values.shape[1], device=x.device) < state["target"][:, None]
    step = torch.where(uphill, 1.0, -1.0) * components / magnitude
    length = step.norm(dim=1)
    step = step * (state["trust"] / torch.maximum(length, state["trust"]))[:, None]
    trial = x + (vectors @ step[:, :, None])[:, :, 0]
    trial_value, trial_gradient = energy.value_and_gradient(trial)
    finite = trial_value.isfinite() & trial_gradient.isfinite().all(1)

    # How far the energy's change is from the model's, in units of the model's own terms (their signs may cancel).
    linear, quadratic = components * step, 0.5 * values * step.square()
    predicted, terms = (linear + quadratic).sum(1), (linear.abs() + quadratic.abs()).sum(1)
    noise = 1e-13 * (1 + value.abs())
    mismatch = ((trial_value - value - predicted).abs() / (terms + noise)).nan_to_num(torch.inf)
    accept = finite & (mismatch < REFUSED)
    factor = torch.where(mismatch < 0.1, 2.0, torch.where(mismatch < 0.3, 1.0, torch.where(accept, 0.6, 0.35)))
    factor = torch.where(finite, factor, 0.25)
    used = torch.minimum(length, state["trust"])
    trust = torch.where(factor > 1, torch.maximum(state["trust"], 2 * used), factor * used)
    result = dict(state)
    result["trust"] = trust = torch.minimum(trust, config.largest_trust * state["scale"])
    result["x"] = torch.where(accept[:, None], trial, x)
    result["energy"] = torch.where(accept, trial_value, value)
    result["gradient"] = torch.where(accept[:, None], trial_gradient, gradient)
    status = state["status"].clone()
    status[accept & (length < TOLERANCE * (1 + x.norm(dim=1)))] = Status.CONVERGED
    status[((result["x"] < state["low"]) | (result["x"] > state["high"])).any(1)] = Status.DIVERGED
    status[trust < 1e-8 * state["scale"]] = Status.UNFINISHED
    result["status"] = status
    moved = accept & (status == Status.RUNNING)
    if bool(moved.any()):
        tracked = vectors[moved][:, :, :n_modes].mT
        new_values, new_vectors = _subspace(energy, result["x"][moved], result["gradient"][moved], tracked)
        result["values"], result["vectors"] = values.clone(), vectors.clone()
        result["values"][moved], result["vectors"][moved] = new_values, new_vectors
    return result
