"""Newton's method without matrices: steps by MINRES on Hessian-vector products, for points of any index.

C. C. Paige and M. A. Saunders, SIAM J. Numer. Anal. 12, 617 (1975); R. S. Dembo, S. C. Eisenstat, T. Steihaug, SIAM J.
Numer. Anal. 19, 400 (1982).
"""

from __future__ import annotations

import torch

from landscape.energy import Energy
from landscape.search.driver import State, Status, iterate
from landscape.search.lanczos import Product
from landscape.search.modes import lowest_modes

STEP_TOLERANCE = 1e-9  # as in the dense polish: of the Newton step, in units of 1 + |x|
NEWTON_ITERATIONS = 40
FORCING = 1e-3  # a Newton step lowers the norm of the linear model's gradient to this part
MAX_PRODUCTS = 2000  # of one Newton step
RESIDUAL = 1e-6  # how far, in units of 1 + |x|, the gradient left may put the point off along its softest mode
DEGENERATE = 1e-6  # a mode below this part of the largest counts as zero
SAME = 1e-6  # rows within this (1 + |x|) share their modes
ROWS = 2**24  # numbers in one vector of the rows that are polished together (128 MB in float64)


def minres(product: Product, points: torch.Tensor, right: torch.Tensor, tolerance: float, max_products: int) -> State:
    """Solve H(point) p = right, rows (n, d) at once, H symmetric and not necessarily positive.

    A row ends CONVERGED when |H p - right| <= tolerance |right|. Returns p (n, d), residual (n,): |H p - right| in
    units of |right|, size (n,): an estimate of |H|, from below; and status.
    """
    norm = right.norm(dim=1)
    unit = right / norm.clamp_min(torch.finfo(right.dtype).tiny)[:, None]
    zero, one = torch.zeros_like(norm), torch.ones_like(norm)
    state: State = {
        "points": points, "p": torch.zeros_like(right), "norm": norm, "residual": one.clone(), "size": zero.clone(),
        "v": unit, "v_old": torch.zeros_like(unit), "beta": zero, "w": torch.zeros_like(unit),
        "w_old": torch.zeros_like(unit), "cosine": -one, "sine": zero, "delta": zero, "epsilon": zero, "phi": norm,
        "status": torch.where(norm > 0, int(Status.RUNNING), int(Status.CONVERGED)),
    }  # fmt: skip
    outputs = ("p", "residual", "size")
    return iterate(lambda s: _minres_step(product, s, tolerance), state, outputs, max_products)


def _minres_step(product: Product, state: State, tolerance: float) -> State:
    """One Lanczos step, and the plane rotation that takes it into the triangular factor."""
    v, beta = state["v"], state["beta"]
    onward = product(state["points"], v) - beta[:, None] * state["v_old"]
    alpha = (onward * v).sum(1)
    onward = onward - alpha[:, None] * v
    new_beta = onward.norm(dim=1)
    above = state["cosine"] * state["delta"] + state["sine"] * alpha
    diagonal = state["sine"] * state["delta"] - state["cosine"] * alpha
    pivot = torch.hypot(diagonal, new_beta).clamp_min(torch.finfo(v.dtype).tiny)
    cosine, sine = diagonal / pivot, new_beta / pivot
    w = (v - state["epsilon"][:, None] * state["w_old"] - above[:, None] * state["w"]) / pivot[:, None]
    phi = sine * state["phi"]
    result = state | {
        "p": state["p"] + (cosine * state["phi"])[:, None] * w, "phi": phi, "residual": phi / state["norm"],
        "v": onward / new_beta.clamp_min(torch.finfo(v.dtype).tiny)[:, None], "v_old": v, "beta": new_beta,
        "w": w, "w_old": state["w"], "cosine": cosine, "sine": sine,
        "delta": -state["cosine"] * new_beta, "epsilon": state["sine"] * new_beta,
        "size": torch.maximum(state["size"], torch.hypot(alpha, new_beta)),
    }  # fmt: skip
    result["status"] = torch.where(phi <= tolerance * state["norm"], int(Status.CONVERGED), state["status"])
    result["status"][~phi.isfinite()] = Status.NOT_FINITE
    return result


def polish_by_products(energy: Energy, x: torch.Tensor, max_iterations: int = NEWTON_ITERATIONS) -> State:
    """Newton's method on grad E = 0 from points (n, d) that are already close, whatever their index, without Hessians.

    As `newton_polish`, but each step is MINRES's and the Hessian is known by its lowest modes. Returns x, energy,
    gradient, hessian (n, 0, 0), eigenvalues (n, k + 1): the k lowest, and the largest in size; modes (n, k, d): of the
    k lowest; status. A row whose negative modes cannot be counted for certain is UNFINISHED, and so is one
    whose gradient does not fix the point to 1e-6 (1 + |x|) along its softest mode.
    """
    parts = [_polish(energy, part, max_iterations) for part in x.split(max(1, ROWS // energy.dim))]
    polished = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return polished | _modes_of(energy, polished)


def _polish(energy: Energy, x: torch.Tensor, max_iterations: int) -> State:
    value, gradient = energy.value_and_gradient(x)
    finite = value.isfinite() & gradient.isfinite().all(1)
    state: State = {
        "x": x.clone(), "energy": value, "gradient": gradient, "newton": torch.zeros_like(x),
        "size": torch.zeros_like(value), "step": torch.ones_like(value), "moved": torch.ones_like(finite),
        "status": torch.where(finite, int(Status.RUNNING), int(Status.NOT_FINITE)),
    }  # fmt: skip
    outputs = ("x", "energy", "gradient")
    return iterate(lambda s: _newton_step(energy, s), state, outputs, max_iterations)


def _newton_step(energy: Energy, state: State) -> State:
    x, gradient, moved = state["x"], state["gradient"], state["moved"]
    newton, curvature = state["newton"].clone(), state["size"].clone()
    if bool(moved.any()):  # a step that was refused is shortened, not computed again
        solved = minres(energy.hvp, x[moved], -gradient[moved], FORCING, min(MAX_PRODUCTS, 4 * energy.dim))
        newton[moved], curvature[moved] = solved["p"], solved["size"]
    scale, norm, length = 1 + x.norm(dim=1), gradient.norm(dim=1), newton.norm(dim=1)
    limit = 0.1 * scale
    bounded = newton * (limit / torch.maximum(length, limit))[:, None]
    trial = x + state["step"][:, None] * bounded
    value, trial_gradient = energy.value_and_gradient(trial)
    better = trial_gradient.norm(dim=1) < norm  # False for NaN
    take = better[:, None]
    status = state["status"].clone()
    status[state["step"] < 1e-6] = Status.UNFINISHED
    status[~newton.isfinite().all(1)] = Status.NOT_FINITE
    status[(length <= STEP_TOLERANCE * scale) & (norm <= STEP_TOLERANCE * curvature)] = Status.CONVERGED
    status[norm == 0] = Status.CONVERGED
    return {
        "x": torch.where(take, trial, x), "energy": torch.where(better, value, state["energy"]),
        "gradient": torch.where(take, trial_gradient, gradient), "newton": newton, "size": curvature,
        "step": torch.where(better, torch.ones_like(norm), 0.5 * state["step"]), "moved": better, "status": status,
    }  # fmt: skip


def _modes_of(energy: Energy, polished: State) -> State:
    """Lowest modes of the converged rows, computed once for rows that are one point; `status` where they fail."""
    x, status = polished["x"], polished["status"].clone()
    good = torch.nonzero(status == Status.CONVERGED)[:, 0]
    near = torch.cdist(x[good], x[good], compute_mode="donot_use_mm_for_euclid_dist") < SAME * (1 + x[good].norm(dim=1))
    first = near.to(torch.int8).argmax(1) if len(good) else good
    unique, which = first.unique(return_inverse=True)
    modes = lowest_modes(energy.hvp, x[good[unique]], energy.dim) if len(good) else None
    k = 0 if modes is None else modes.values.shape[1]
    result = {
        "hessian": x.new_zeros(len(x), 0, 0), "eigenvalues": x.new_zeros(len(x), k + 1),
        "modes": x.new_zeros(len(x), k, energy.dim),
    }  # fmt: skip
    if modes is None:
        return result | {"status": status}
    result["eigenvalues"][good] = torch.cat([modes.values, modes.largest[:, None]], 1)[which]
    result["modes"][good] = modes.vectors[which]
    softest = modes.values.abs().amin(1)
    zero = softest < DEGENERATE * modes.largest
    doubtful = polished["gradient"][good].norm(dim=1) > RESIDUAL * (1 + x[good].norm(dim=1)) * softest[which]
    status[good[~modes.resolved[which] | (doubtful & ~zero[which])]] = Status.UNFINISHED
    return result | {"status": status}
