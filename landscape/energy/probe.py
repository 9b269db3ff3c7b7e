"""The probe: what every energy must pass before it is searched.

Derivatives are judged by medians over points, since networks with CELU or ReLU layers have kinks where differences
disagree with autograd, and at the best of several steps, since no step suits every scale. What cannot be used is
refused with an EnergyError; what can be used at a loss is degraded, and `Energy.notes` says how.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from landscape.energy.energy import GRADIENT_CHUNK, HESSIAN_CHUNK, Energy, first_line
from landscape.errors import EnergyError

# Standard deviations of the probe points; the second set is for energies that are flat or undefined near the origin.
SCALES = ((0.1, 1.0, 3.0), (10.0, 30.0, 100.0))
POINTS_PER_SCALE = 8
DRAWS_PER_SCALE = 256
# Steps of the central differences, relative to 1 + the size of a coordinate; single precision drowns in the small.
STEPS = (1e-6, 1e-4, 1e-3, 1e-2)

# Largest accepted median of the relative error of a derivative, in double and in single precision. Differences are
# right to 1e-6 or better in double precision; a lost or a wrong derivative is off by 1e-2 or more.
DERIVATIVE_TOLERANCE = {False: 1e-3, True: 2e-2}
# Differences between two evaluations of the same points that rounding in batched products can explain.
ROUNDING = {False: 1e-8, True: 1e-4}

# Most memory that the tensors kept for one backward pass may take. On a CPU it is CACHE_BYTES, but not fewer than
# CACHE_ROWS rows: with 16,384 rows at once a row of a network took 1.7 times as long.
CHUNK_BYTES, CACHE_BYTES, CACHE_ROWS = 256 * 2**20, 8 * 2**20, 512

HINTS = (
    (("same dtype", "Double", "scalar type", "Float"), "cast it to float64, or load it with dtype float32"),
    (("shapes cannot be multiplied", "size of tensor", "size mismatch"), "is {dim} its dimension?"),
    (("same device", "cuda"), "put all its tensors on the device of the points"),
    (("numpy",), "compute with torch throughout, so that it can be differentiated"),
    (("in-place",), "do not change the points in place"),
)


@dataclass(frozen=True)
class _Sample:
    """Probe points with what was computed there: x (n, d), values (n,), gradients (n, d), unit directions (n, d)."""

    x: torch.Tensor
    values: torch.Tensor
    gradients: torch.Tensor
    directions: torch.Tensor
    single: bool  # computed in single precision, whatever the dtype says

    @property
    def rounding(self) -> float:
        return float(torch.finfo(torch.float32 if self.single else torch.float64).eps)

    @property
    def steps(self) -> tuple[float, ...]:
        return STEPS[2:] if self.single else STEPS


def probe_energy(energy: Energy, seed: int = 0) -> None:
    """Check `energy` at random points; set `value_needs_grad`, `exact_second_derivative` and `notes` by what is found.

    Points are Gaussian around the origin with standard deviations .1, 1 and 3 (10, 30 and 100 if the energy is
    constant or not finite there). The evaluation counters are left as they were.

    EnergyError if E raises, has a wrong shape or dtype, is never finite, is constant or linear, changes between two
    calls, couples the rows of a batch, or has a gradient that differences of E contradict.
    """
    before = replace(energy.evaluations)
    energy.notes.clear()
    generator = torch.Generator().manual_seed(seed)
    try:
        _settle_value_mode(energy, generator)
        x, values = _points(energy, generator)
        single = energy.dtype == torch.float32 or bool((values == values.float().to(values.dtype)).all())
        _check_repeatable(energy, x, values, single)
        _fit_chunks(energy, x)
        directions = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        directions = directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)
        gradients = _attempt(energy, "its gradient", lambda: energy.gradient(x))
        sample = _Sample(x, values, gradients, directions, single)
        _check_gradient(energy, sample)
        _check_hessian(energy, sample)
        _check_kinks(energy, sample)
        _check_symmetry(energy, sample, generator)
        if single and energy.dtype == torch.float64:
            energy.notes.append(
                "values carry single precision only (a float32 step inside): stationary points will too"
            )
    finally:
        energy.evaluations = before


def _settle_value_mode(energy: Energy, generator: torch.Generator) -> None:
    """Evaluate once, and find out whether the energy calls autograd inside its own forward pass."""
    x = _gaussian(energy, generator, 1.0, 5)
    try:
        energy.value(x)
    except RuntimeError as error:
        if "does not require grad" not in str(error) and "does not have a grad_fn" not in str(error):
            raise _refusal(energy, "the energy", error) from error
        energy.value_needs_grad = True
    except EnergyError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise _refusal(energy, "the energy", error) from error
    before = x.clone()
    values = _attempt(energy, "the energy", lambda: energy.value(x))
    if not torch.equal(x, before):
        raise EnergyError(f"{energy.source} changes its argument; do not change the points in place")
    if values.dtype != energy.dtype:
        raise EnergyError(
            f"{energy.source} returned {_short(values.dtype)} for {_short(energy.dtype)} points; "
            f"compute in {_short(energy.dtype)} throughout, or load it with dtype float32"
        )


def _points(energy: Energy, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Points where E is finite and not constant, with its values."""
    ever_finite = False
    for scales in SCALES:
        found = [_finite_points(energy, generator, scale) for scale in scales]
        x = torch.cat([points for points, _ in found])
        ever_finite |= len(x) > 0
        if len(x) < 2:
            continue
        values = energy.value(x)  # in one batch, since these points were found in several
        if not bool(values.max() - values.min() <= 1e-14 * values.abs().max()):
            if len(x) < POINTS_PER_SCALE * len(scales):
                energy.notes.append(f"finite at only {len(x)} of {sum(drawn for _, drawn in found)} probe points")
            return x, values
    if not ever_finite:
        raise EnergyError(
            f"{energy.source} is NaN or infinite at every probe point; check its parameters and dimension"
        )
    raise EnergyError(f"{energy.source} is constant: it has the same value at every probe point, so it has no states")


def _finite_points(energy: Energy, generator: torch.Generator, scale: float) -> tuple[torch.Tensor, int]:
    """Up to POINTS_PER_SCALE points with finite E, and how many were drawn to find them."""
    drawn, points = 0, torch.empty(0, energy.dim, dtype=energy.dtype, device=energy.device)
    while len(points) < POINTS_PER_SCALE and drawn < DRAWS_PER_SCALE:
        x = _gaussian(energy, generator, scale, POINTS_PER_SCALE if drawn == 0 else DRAWS_PER_SCALE - drawn)
        finite = torch.isfinite(_attempt(energy, "the energy", partial(energy.value, x)))
        points = torch.cat([points, x[finite]])
        drawn += len(x)
    return points[:POINTS_PER_SCALE], drawn


def _check_repeatable(energy: Energy, x: torch.Tensor, values: torch.Tensor, single: bool) -> None:
    def differs(again: torch.Tensor, first: torch.Tensor) -> bool:
        size = first.abs() + values.abs().median()
        return not bool(((again - first).abs() <= ROUNDING[single] * size).all())

    if differs(energy.value(x), values):
        raise EnergyError(
            f"{energy.source} gives other values when it is called again with the same points; "
            "switch off dropout and noise (.eval())"
        )
    order = torch.arange(len(x), device=x.device)
    parts = (order[:2], order.flip(0), order[-1:])
    if any(differs(_attempt(energy, "the energy", partial(energy.value, x[rows])), values[rows]) for rows in parts):
        raise EnergyError(
            f"{energy.source} couples the points of a batch: a point's energy changes with its neighbours; "
            "switch off batch normalisation (.eval()) and sum over coordinates only"
        )


def _fit_chunks(energy: Energy, x: torch.Tensor) -> None:
    """Lower the rows that are evaluated at once, for energies that keep much for the backward pass."""

    def kept(rows: torch.Tensor) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            leaf = rows.clone().requires_grad_(True)
            result = _attempt(energy, "its gradient", partial(energy.function, leaf))
            del result
        return sum(sizes.values())

    # the difference leaves out what does not grow with the batch: the parameters
    bytes_a_row = (kept(x) - kept(x[:1])) / (len(x) - 1)
    rows = max(1, int(CHUNK_BYTES / max(bytes_a_row, 1)))
    fast = max(CACHE_ROWS, int(CACHE_BYTES / max(bytes_a_row, 1))) if energy.device.type == "cpu" else rows
    energy.gradient_chunk = min(GRADIENT_CHUNK, rows, fast)
    energy.hessian_chunk = min(HESSIAN_CHUNK, max(1, rows // 4))


def _check_gradient(energy: Energy, sample: _Sample) -> None:
    slope = (sample.gradients * sample.directions).sum(1)
    floor = torch.linalg.vector_norm(sample.gradients, dim=1) / math.sqrt(energy.dim)
    best = torch.full_like(slope, math.nan)
    for step in sample.steps:
        h, plus, minus = _both_sides(sample, step)
        above, below = energy.value(plus), energy.value(minus)
        difference = (above - below) / (2 * h)
        size = difference.abs() + slope.abs() + floor
        noise = 100 * sample.rounding * (above.abs() + below.abs()) / h
        error = (difference - slope).abs() / size
        # a NaN gradient at a finite value is an error; differences below rounding, or not finite, tell nothing
        error = torch.where(torch.isfinite(slope), error, math.inf)
        error = torch.where(torch.isfinite(difference) & ~(size <= noise), error, math.nan)
        best = torch.fmin(best, error)
    error_median = float(best.nanmedian())
    if error_median > DERIVATIVE_TOLERANCE[sample.single]:
        if bool((sample.gradients == 0).all()):
            raise EnergyError(
                f"{energy.source} varies, but autograd finds no gradient; look for detach(), no_grad or numpy, or "
                "a torch.export of a model that calls autograd.grad in its forward pass (that loses the derivative)"
            )
        raise EnergyError(
            f"the gradient of {energy.source} disagrees with differences of its values (median relative error "
            f"{error_median:.1e}); look for detach(), rounding, or autograd.grad without create_graph=True in it"
        )


def _check_hessian(energy: Energy, sample: _Sample) -> None:
    """Judge two successive products, since some formats are right once only; fall back to differences of gradients."""
    if not energy.exact_second_derivative:
        return
    try:
        products = [energy.hvp(sample.x, sample.directions) for _ in range(2)]
        if hasattr(energy.function, "closed_form_hessian"):
            products.append((energy.hessian(sample.x) @ sample.directions[:, :, None])[:, :, 0])
        worst = max(_product_errors(energy, sample, products))
        reason = f"they disagree with differences of gradients, median relative error {worst:.1e}"
        exact = not worst > DERIVATIVE_TOLERANCE[sample.single]
    except Exception as error:  # autograd names a missing derivative in many ways
        reason, exact = first_line(error), False
    if not exact:
        energy.exact_second_derivative = False
        energy.notes.append(f"no usable second derivative ({reason}): Hessians are differences of gradients")
        _attempt(energy, "the differences of its gradient", lambda: energy.hvp(sample.x, sample.directions))


def _product_errors(energy: Energy, sample: _Sample, products: Sequence[torch.Tensor]) -> list[float]:
    """Median over points of the relative error of each of several Hessian-vector products (n, d), against differences
    of gradients, which they share."""
    sizes = [torch.linalg.vector_norm(product, dim=1) for product in products]
    best = [torch.full_like(size, math.nan) for size in sizes]
    for step in sample.steps:
        h, plus, minus = _both_sides(sample, step)
        above, below = energy.gradient(plus), energy.gradient(minus)
        difference = (above - below) / (2 * h[:, None])
        length = torch.linalg.vector_norm(difference, dim=1)
        noise = sample.rounding * torch.linalg.vector_norm(above.abs() + below.abs(), dim=1) / h
        for k, (product, size) in enumerate(zip(products, sizes, strict=True)):
            error = torch.linalg.vector_norm(difference - product, dim=1) / (length + size)
            # both zero within rounding is agreement: a network of ReLUs has no curvature between its kinks
            error = torch.where(length + size <= noise, 0.0, error)
            error = torch.where(torch.isfinite(size), error, math.inf)
            best[k] = torch.fmin(best[k], torch.where(torch.isfinite(length), error, math.nan))
    return [float(errors.nanmedian()) for errors in best]


def _check_kinks(energy: Energy, sample: _Sample) -> None:
    """Refuse a linear energy; note one whose curvature is the same everywhere although its gradient is not affine.

    Along the line between two points the Hessian of a smooth energy adds up to the change of the gradient. Piecewise
    linear networks (ReLU), with or without a quadratic term, change their gradient at kinks alone.
    """
    if not energy.exact_second_derivative:
        return
    x, g = sample.x, sample.gradients
    dx, dg = x.roll(1, 0) - x, g.roll(1, 0) - g
    here, there = energy.hvp(x, dx), energy.hvp(x.roll(1, 0), dx)
    norm = torch.linalg.vector_norm
    same = norm(here - there, dim=1) <= 1e-3 * ROUNDING[sample.single] * (norm(here, dim=1) + norm(g, dim=1))
    jump = norm(dg - here, dim=1) > 1e2 * ROUNDING[sample.single] * (norm(dg, dim=1) + norm(here, dim=1))
    if same.to(torch.float64).mean() < 0.9:
        return
    if not bool(jump.any()) and bool((here == 0).all()) and _same_gradient_far_away(energy, sample):
        raise EnergyError(f"{energy.source} is linear, so it is unbounded below and has no states")
    if jump.to(torch.float64).mean() > 0.5:
        energy.notes.append(
            "piecewise linear or quadratic (ReLU?): its curvature sits in kinks, where minima have no Hessian and "
            "Newton steps fail; a smooth activation (tanh, softplus, SiLU) gives sound rates and weights"
        )


def _check_symmetry(energy: Energy, sample: _Sample, generator: torch.Generator) -> None:
    """Refuse an energy that changes under a symmetry it declares: E of moved points against E, by the largest change.

    Rounding of the moved coordinates changes E by about |grad E| |x| eps, which is allowed for.
    """
    if energy.symmetry is None:
        return
    size = sample.gradients.norm(dim=1) * (1 + sample.x.norm(dim=1))
    noise = 1e3 * sample.rounding * (sample.values.abs() + size) + 1e-9 * (sample.values.abs() + 1)
    for name, move in energy.symmetry.moves():
        moved = _attempt(energy, f"its {name}", partial(energy.value, move(sample.x, generator)))
        change = (moved - sample.values).abs()
        excess = (change / noise).nan_to_num(torch.inf)
        worst = int(excess.argmax())
        if excess[worst] > 1:
            raise EnergyError(
                f"{energy.source} declares a symmetry that it lacks: {name} changes E from "
                f"{float(sample.values[worst]):.10g} to {float(moved[worst]):.10g}; correct the declared symmetry"
            )


def _same_gradient_far_away(energy: Energy, sample: _Sample) -> bool:
    far = torch.cat([energy.gradient(scale * sample.x) for scale in (30.0, 1000.0)])
    return bool(((far - sample.gradients[:1]).abs() <= 1e-6 * sample.gradients[:1].abs()).all())


def _both_sides(sample: _Sample, step: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Step lengths (n,), and the points that far ahead and behind along the directions."""
    h = step * (1 + sample.x.square().mean(1).sqrt())
    return h, sample.x + h[:, None] * sample.directions, sample.x - h[:, None] * sample.directions


def _gaussian(energy: Energy, generator: torch.Generator, scale: float, count: int) -> torch.Tensor:
    draws = torch.randn(count, energy.dim, generator=generator, dtype=torch.float64)
    return (scale * draws).to(dtype=energy.dtype, device=energy.device)


def _attempt(energy: Energy, what: str, call: Callable[[], torch.Tensor]) -> torch.Tensor:
    try:
        return call()
    except EnergyError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise _refusal(energy, what, error) from error


def _refusal(energy: Energy, what: str, error: Exception) -> EnergyError:
    text = str(error)
    hint = next((hint for words, hint in HINTS if any(word in text for word in words)), "")
    advice = "; " + hint.format(dim=energy.dim) if hint else ""
    return EnergyError(
        f"{energy.source} failed when {what} was computed for points of shape (n, {energy.dim}): "
        f"{type(error).__name__}: {first_line(error)}{advice}"
    )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
