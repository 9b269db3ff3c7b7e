"""`Energy`: a batched energy function with derivatives, evaluation counters and metadata."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch

from landscape.energy.group import Symmetry
from landscape.energy.recipe import Recipe
from landscape.errors import EnergyError, left

Array = TypeVar("Array", np.ndarray, torch.Tensor)

# Most rows evaluated in one call. Chosen by memory: a published network keeps about 1,500 doubles a row alive for a
# gradient and three times that for a Hessian-vector product. The probe lowers both for larger energies, the first on
# a CPU to what its cache holds.
GRADIENT_CHUNK = 16384
HESSIAN_CHUNK = 4096
# Above this dimension nothing forms a d x d matrix unless asked: lowest modes, Newton steps and determinants come from
# Hessian-vector products.
DENSE_DIM = 200
# Below this many rows of (point, direction) a Hessian is one product over repeated points:
# the cost is then call overhead, and d backward passes pay it d times.
REPEATED_POINTS = 400
# Step of the gradient differences that stand in for a missing second derivative, relative to 1 + |x|: about the cube
# root of the rounding unit.
DIFFERENCE_STEP = {torch.float64: 1e-5, torch.float32: 5e-3}


@dataclass
class Evaluations:
    """Points at which each quantity was evaluated (a batch of n rows counts n).

    A value and its gradient, computed together, count as one gradient. `gradient_equivalents`
    weighs them as the field does: value and gradient 1, Hessian-vector product 2, Hessian 2 d.
    """

    value: int = 0
    gradient: int = 0
    hvp: int = 0
    hessian: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def gradient_equivalents(self, dim: int) -> int:
        return self.value + self.gradient + 2 * self.hvp + 2 * dim * self.hessian


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for messages of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class Energy:
    """An energy E: R^d -> R, evaluated on batches.

    Every method takes points of shape (n, d). Numpy arrays in give numpy arrays out; torch tensors in give
    tensors out (detached), which is what the batched loops of this package use. Rows are independent: row k of the
    answer depends on row k of the points only. The energy is in units of its own; results depend on beta * E.

    Parameters
    ----------
    function : callable, (n, d) tensor -> (n,) or (n, 1) tensor, differentiable by autograd.
        An `nn.Module` is used as it is; `landscape.load_energy` casts and freezes modules first. Where it has methods
        `closed_form_gradient` (x -> E (n,), gradient (n, d)) or `closed_form_hessian` (x -> (n, d, d)), these are used
        in place of autograd.
    dim : d.
    metadata : plain data that came with the energy (dynamics, beta, gamma, mass, units, ...); read-only here.
    source : what the user named, kept for the record. sha256 : of the file or the specification, if there is one.
    dtype, device : of every evaluation. float64 unless told otherwise.
    exact_second_derivative : False replaces Hessian-vector products by central differences of gradients.
    value_needs_grad : True for functions that call autograd inside their own forward pass.
    zero_modes : text naming continuous symmetries (translation, ...), "" if there are none.
    symmetry : the symmetries that searches, weights and rates are to respect, see `landscape.energy.symmetry`.
    dense_dim : the largest d at which whole Hessians are formed; 0 forces Hessian-vector products everywhere.
    """

    def __init__(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        dim: int,
        *,
        metadata: Mapping[str, Any] | None = None,
        source: str = "<callable>",
        sha256: str | None = None,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
        exact_second_derivative: bool = True,
        value_needs_grad: bool = False,
        zero_modes: str = "",
        symmetry: Symmetry | None = None,
        dense_dim: int = DENSE_DIM,
    ) -> None:
        if int(dim) != dim or dim < 1:
            raise EnergyError(f"the dimension of an energy is a whole number of at least 1, not {dim!r}")
        self.function = function
        self.dim = int(dim)
        self.metadata: Mapping[str, Any] = MappingProxyType(dict(metadata or {}))
        self.source = source
        self.sha256 = sha256
        self.dtype = dtype
        self.device = torch.device(device)
        self.exact_second_derivative = exact_second_derivative
        self.value_needs_grad = value_needs_grad
        self.zero_modes = zero_modes
        if symmetry is not None:
            symmetry.check(self.dim, source)
        self.symmetry = symmetry
        self.dense_dim = dense_dim
        self.gradient_chunk = GRADIENT_CHUNK
        self.hessian_chunk = HESSIAN_CHUNK
        self.evaluations = Evaluations()
        self.notes: list[str] = []  # what the probe found worth telling the user
        self.recipe: Recipe | None = None  # how another process loads it; None: it exists in this one only
        self._single: Energy | None = None

    def __repr__(self) -> str:
        return f"Energy({self.source!r}, dim={self.dim}, dtype={str(self.dtype).removeprefix('torch.')})"

    @property
    def matrix_free(self) -> bool:
        """Whether d is too large for d x d matrices (d > dense_dim). Never with a declared symmetry, whose zero modes
        are taken out of whole Hessians."""
        return self.dim > self.dense_dim and self.symmetry is None

    def single(self) -> Energy:
        """The same energy in float32, for searches whose ends are polished here; what it evaluates counts here.

        EnergyError for a function that cannot be evaluated in float32.
        """
        if self._single is None:
            from landscape.energy.adapt import own_copy  # which makes energies

            twin = copy.copy(self)
            twin.dtype, twin.function = torch.float32, own_copy(self.function, torch.float32, self.device, self.source)
            points = torch.zeros(2, self.dim, dtype=torch.float32, device=self.device)
            try:
                answered = twin._apply(points).dtype
            except RuntimeError as error:
                raise EnergyError(
                    f"{self.source} cannot be evaluated in float32 ({first_line(error)}): let it follow the dtype of "
                    "its points, or search in float64"
                ) from error
            if answered != torch.float32:
                raise EnergyError(f"{self.source} answers points in float32 by {answered}: search in float64")
            self._single = twin
        self._single.evaluations = self.evaluations
        return self._single

    def __call__(self, x: Array) -> Array:
        return self.value(x)

    def value(self, x: Array) -> Array:
        """E(x): (n, d) -> (n,)."""
        points = self._points(x)
        self.evaluations.value += len(points)
        if self.value_needs_grad:
            parts = [self._graph(part)[1].detach() for part in _even(points, self.gradient_chunk)]
        else:
            with torch.no_grad():
                parts = [self._apply(part).detach() for part in _even(points, self.gradient_chunk)]
        return self._like(x, torch.cat(parts))

    def gradient(self, x: Array) -> Array:
        """grad E(x): (n, d) -> (n, d)."""
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Array) -> tuple[Array, Array]:
        """E(x) and grad E(x), (n,) and (n, d), for the price of one gradient."""
        points = self._points(x)
        self.evaluations.gradient += len(points)
        if len(points) <= self.gradient_chunk:
            value, gradient = self._value_and_gradient(points)
        else:
            parts = [self._value_and_gradient(part) for part in _even(points, self.gradient_chunk)]
            value, gradient = (torch.cat(part) for part in zip(*parts, strict=True))
        return self._like(x, value), self._like(x, gradient)

    def _value_and_gradient(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        closed_form = getattr(self.function, "closed_form_gradient", None)
        if closed_form is not None and len(points):
            value, gradient = closed_form(points)
        else:
            leaf, value = self._graph(points)
            gradient = _derivative(value.sum(), leaf)
        # Copies: either may be a view of the function's own tensors.
        return value.detach().clone(), gradient.detach().clone(memory_format=torch.contiguous_format)

    def hvp(self, x: Array, v: Array) -> Array:
        """Hessian-vector products H(x_k) v_k: (n, d), (n, d) -> (n, d)."""
        points, directions = self._points(x), self._points(v)
        if len(points) != len(directions):
            raise EnergyError(f"hvp takes one direction a point, not {len(directions)} for {len(points)} points")
        pairs = zip(points.split(self.hessian_chunk), directions.split(self.hessian_chunk), strict=True)
        if self.exact_second_derivative:
            self.evaluations.hvp += len(points)
            return self._like(x, torch.cat([self._hvp_exact(p, q) for p, q in pairs]))
        self.evaluations.gradient += 2 * len(points)
        return self._like(x, torch.cat([self._hvp_difference(p, q) for p, q in pairs]))

    def hessian(self, x: Array) -> Array:
        """Hessians, symmetrised: (n, d) -> (n, d, d)."""
        points = self._points(x)
        n, d = points.shape
        if self.exact_second_derivative:
            self.evaluations.hessian += n
        else:
            self.evaluations.gradient += 2 * n * d
        rows = max(1, self.hessian_chunk // d) if n * d > self.hessian_chunk else n
        parts = [self._hessian_part(part) for part in points.split(max(rows, 1))]
        hessian = torch.cat(parts) if parts else points.new_zeros(0, d, d)
        return self._like(x, 0.5 * (hessian + hessian.mT))

    def _hessian_part(self, points: torch.Tensor) -> torch.Tensor:
        n, d = points.shape
        closed_form = getattr(self.function, "closed_form_hessian", None)
        if closed_form is not None and n:
            return closed_form(points).detach()
        eye = torch.eye(d, dtype=points.dtype, device=points.device)
        if not self.exact_second_derivative or n * d <= REPEATED_POINTS:
            product = self._hvp_exact if self.exact_second_derivative else self._hvp_difference
            return product(points.repeat_interleave(d, 0), eye.repeat(n, 1)).reshape(n, d, d)
        leaf, value = self._graph(points)
        gradient = _derivative(value.sum(), leaf, create_graph=True)
        columns = [_derivative((gradient * eye[k]).sum(), leaf, retain_graph=True) for k in range(d)]
        return torch.stack(columns, 1)

    def _hvp_exact(self, points: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        leaf, value = self._graph(points)
        gradient = _derivative(value.sum(), leaf, create_graph=True)
        return _derivative((gradient * directions).sum(), leaf)

    def _hvp_difference(self, points: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
        size = torch.linalg.vector_norm(points, dim=1, keepdim=True)
        unit = directions / length.clamp_min(torch.finfo(points.dtype).tiny)
        step = DIFFERENCE_STEP.get(points.dtype, 1e-5) * (1 + size)
        ends = torch.cat([points + step * unit, points - step * unit])
        leaf, value = self._graph(ends)
        forward, backward = _derivative(value.sum(), leaf).chunk(2)
        return (forward - backward) * length / (2 * step)

    def _graph(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = points.detach().clone(memory_format=torch.contiguous_format).requires_grad_(True)
        with torch.enable_grad():
            return leaf, self._apply(leaf)

    def _apply(self, points: torch.Tensor) -> torch.Tensor:
        n = len(points)
        if n == 0:  # many networks cannot take an empty batch
            return points.new_zeros(0)
        try:
            value = self.function(points)
        except SystemExit as leaving:  # it would end a whole search as if that had succeeded
            raise EnergyError(left(leaving, self.source)) from leaving
        if not isinstance(value, torch.Tensor):
            raise EnergyError(
                f"an energy returns a torch tensor, but {self.source} returned {type(value).__name__}; "
                "compute it with torch, so that it can be differentiated"
            )
        if value.shape == (n, 1) or (n == 1 and value.ndim == 0):
            value = value.reshape(n)
        if value.shape != (n,):
            raise EnergyError(
                f"an energy maps points of shape (n, {self.dim}) to (n,) or (n, 1), but {self.source} "
                f"mapped {tuple(points.shape)} to {tuple(value.shape)}; return one number a row "
                "(torch.vmap makes a batched function of one for single points)"
            )
        return value

    def _points(self, x: Array) -> torch.Tensor:
        if isinstance(x, torch.Tensor):
            points = x.detach().to(dtype=self.dtype, device=self.device)
        else:
            try:
                # an own copy in C order: torch cannot take read-only or reversed views
                copied = torch.from_numpy(np.array(x, dtype=np.float64, order="C"))
            except (TypeError, ValueError) as error:
                raise EnergyError(f"points are an array of numbers of shape (n, {self.dim}): {error}") from error
            points = copied.to(dtype=self.dtype, device=self.device)
        if points.ndim != 2 or points.shape[1] != self.dim:
            raise EnergyError(f"points have shape (n, {self.dim}) for this energy, not {tuple(points.shape)}")
        return points

    @staticmethod
    def _like(x: Array, result: torch.Tensor) -> Array:
        return result if isinstance(x, torch.Tensor) else result.cpu().numpy()


def _even(points: torch.Tensor, most: int) -> tuple[torch.Tensor, ...]:
    """Parts of at most so many rows, of sizes that differ by one at most."""
    return points.tensor_split(max(1, math.ceil(len(points) / most)))


def _derivative(
    total: torch.Tensor, leaf: torch.Tensor, *, create_graph: bool = False, retain_graph: bool | None = None
) -> torch.Tensor:
    """d total / d leaf; zero where the total does not depend on the leaf (a linear or constant energy)."""
    if torch.is_inference_mode_enabled():
        raise EnergyError("energies cannot be differentiated in torch's inference mode: leave it first")
    if not total.requires_grad:
        return torch.zeros_like(leaf)
    (result,) = torch.autograd.grad(
        total, leaf, create_graph=create_graph, retain_graph=retain_graph, allow_unused=True
    )
    return torch.zeros_like(leaf) if result is None else result
