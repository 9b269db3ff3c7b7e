"""Lowest modes of Hessians from matrix-vector products alone: batched Rayleigh-Ritz in Krylov subspaces.

A product maps (points, directions) to H(point) direction, row by row, as `Energy.hvp` does. "Points" may carry anything
a product needs, as long as their first axis is the row.

K. Wu and H. Simon, SIAM J. Matrix Anal. Appl. 22, 602 (2000); Y. Saad, Numerical Methods for Large Eigenvalue Problems.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from landscape.errors import UsageError
from landscape.search.lanczos import Product, Tridiagonals, ends_of, missed_part

BLOCK = 2**24  # numbers in the bases of the rows that are worked on together (128 MB in float64)
DEPENDENT = 1e-10  # a vector of which orthogonalisation leaves less than this is no new direction
DOUBT = 1e-4  # probability that a lowest eigenvalue called positive lies lower than its bound
FIRST_LOOK = 64  # steps after which a plain recurrence is looked at, and then after each quarter more


@dataclass(frozen=True)
class ModeOptions:
    """Hyper-parameters of `lowest_modes`.

    n_modes : lowest modes returned. basis : vectors in a subspace before it restarts. max_products : a row may use, and
    twice as many to prove that nothing negative was missed.
    negative_tolerance, positive_tolerance : residual norms |H v - theta v| in units of |theta| at which a negative
    mode, and the first positive one, count as resolved. zero : |theta| below this part of the largest is a zero mode.
    count : False where the n_modes lowest are wanted, within negative_tolerance, and not how many are negative.
    """

    n_modes: int = 6
    basis: int = 64
    max_products: int = 2000
    negative_tolerance: float = 1e-6
    positive_tolerance: float = 0.05
    zero: float = 1e-6
    count: bool = True

    def __post_init__(self) -> None:
        if self.n_modes < 1 or self.basis < self.n_modes + 4 or self.max_products < 1:
            raise UsageError(f"lowest modes need n_modes >= 1, basis >= n_modes + 4 and max_products >= 1, not {self}")
        if not min(self.negative_tolerance, self.positive_tolerance, self.zero) > 0:
            raise UsageError(f"the tolerances of lowest modes are positive, not {self}")


@dataclass(frozen=True)
class Modes:
    """values (n, k) ascending, vectors (n, k, d) orthonormal, residuals (n, k): |H v - theta v|. largest (n,) : largest
    |eigenvalue|, from below. resolved (n,) : the number of negative eigenvalues is certain as far as residuals tell.
    """

    values: torch.Tensor
    vectors: torch.Tensor
    residuals: torch.Tensor
    largest: torch.Tensor
    resolved: torch.Tensor


def lowest_modes(product: Product, points: torch.Tensor, dim: int, options: ModeOptions | None = None) -> Modes:
    """The lowest eigenpairs of the symmetric matrices behind `product` at each of n points.

    Thick-restart Lanczos from one fixed random direction. A row ends when its negative modes have residuals below
    negative_tolerance |theta| (zero modes, below `zero` times the largest eigenvalue, are resolved by a residual of
    that size), and the lowest positive one has a residual below positive_tolerance theta. In a dense spectrum that can
    take for ever, so positive ones may also be proved: plain Lanczos in the complement of the others, from another
    random direction, bounds the lowest eigenvalue there (`missed_part`). A row that reaches max_products has
    `resolved` False.
    """
    options = options or ModeOptions()
    m = min(options.basis, dim)
    rows = max(1, BLOCK // (2 * m * dim))
    parts = [_lowest_modes(product, part, dim, m, options) for part in points.split(rows)]
    names = ("values", "vectors", "residuals", "largest", "resolved")
    return Modes(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def mean_curvature(product: Product, points: torch.Tensor, dim: int) -> torch.Tensor:
    """An estimate (n,) of the root mean square of the eigenvalues at n points, from one product each: |H r| for a
    random unit vector r, whose square has the mean |H|^2 / d. It never exceeds the largest of them."""
    direction = _fixed_direction(torch.zeros(len(points), dim, dtype=points.dtype, device=points.device), 0)
    return product(points, direction).norm(dim=1)


def ritz_pairs(
    product: Product, points: torch.Tensor, start: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ritz values (n, m) ascending and vectors (n, d, m) in the block Krylov subspace of start (n, b, d), m = min(size,
    d): m products a row."""
    n, b, d = start.shape
    m = min(size, d)
    basis, image = start.new_zeros(n, m, d), start.new_zeros(n, m, d)
    for k in range(b):
        basis[:, k] = _new_direction(start[:, k], basis[:, :k], k)
    _grow(product, points, basis, image, b, 0)
    values, rotation = _rayleigh_ritz(basis, image)
    return values, basis.mT @ rotation


def known_modes(
    product: Product, points: torch.Tensor, seeds: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ritz values (n, m) ascending, vectors (n, m, d) and residual norms (n, m) from modes known before, `seeds`
    (n, k, d), and a Krylov space of `size` dimensions outside them: m = min(k + size, d). Its ends are sharp."""
    n, k, d = seeds.shape
    m = min(k + size, d)
    basis, image = seeds.new_zeros(n, m, d), seeds.new_zeros(n, m, d)
    for j in range(k):
        basis[:, j] = _new_direction(seeds[:, j], basis[:, :j], j)
        image[:, j] = product(points, basis[:, j])
    if m > k:
        basis[:, k] = _new_direction(_fixed_direction(seeds.new_zeros(n, d), -2), basis[:, :k], 0)
        _grow(product, points, basis, image, k + 1, k)
    values, rotation = _rayleigh_ritz(basis, image)
    vectors = rotation.mT @ basis
    return values, vectors, (rotation.mT @ image - values[:, :, None] * vectors).norm(dim=2)


def _lowest_modes(product: Product, points: torch.Tensor, dim: int, m: int, options: ModeOptions) -> Modes:
    n, k = len(points), min(options.n_modes, dim)
    kept = min(max(k + 2, m // 2), m - 2)
    real = torch.float64 if points.dtype not in (torch.float32, torch.float64) else points.dtype
    like = torch.zeros(0, dtype=real, device=points.device)
    result = Modes(
        like.new_zeros(n, k), like.new_zeros(n, k, dim), like.new_zeros(n, k), like.new_zeros(n),
        torch.zeros(n, dtype=torch.bool, device=points.device),
    )  # fmt: skip
    rows = torch.arange(n, device=points.device)
    basis, image = like.new_zeros(n, m, dim), like.new_zeros(n, m, dim)
    basis[:, 0] = _fixed_direction(basis[:, 0], 0)
    tried = torch.full((n,), -1, device=points.device)  # modes below zero when the proof was last tried
    done, products = 0, 0
    while True:
        _grow(product, points[rows], basis, image, done + 1, done, seed=products)
        products += m - done
        values, rotation = _rayleigh_ritz(basis, image)
        vectors = rotation[:, :, :k].mT @ basis
        residual = rotation[:, :, :k].mT @ image - values[:, :k, None] * vectors
        norms, largest = residual.norm(dim=2), values.abs().amax(1)
        lower, certain = _certain(values[:, :k], norms, largest, options)
        certain |= torch.full_like(certain, m == dim)
        below = (values[:, :k] < options.zero * largest[:, None]).sum(1)
        doubtful = lower & ~certain & (below != tried[rows])
        if bool(doubtful.any()):
            tried[rows[doubtful]] = below[doubtful]
            lowest = _lowest_positive(
                product, points[rows[doubtful]], values[doubtful, :k], vectors[doubtful], largest[doubtful], options
            )
            certain[doubtful] = ~lowest.isnan()
            positive = values[:, :k] >= options.zero * largest[:, None]
            first = positive & (positive.long().cumsum(1) == 1) & (certain & doubtful)[:, None]
            values = values.clone()
            values[:, :k][first] = lowest[~lowest.isnan()]
        hopeless = ~norms.isfinite().all(1) | torch.full_like(certain, products >= options.max_products)
        ended = certain | hopeless
        for name, value in (("values", values[:, :k]), ("vectors", vectors), ("residuals", norms),
                            ("largest", largest), ("resolved", certain)):  # fmt: skip
            getattr(result, name)[rows[ended]] = value[ended]
        going = ~ended
        if not bool(going.any()):
            return result
        # Keep the lower half of the Ritz vectors and the largest; go on along the residual of the lowest open mode.
        order = torch.cat([torch.arange(kept - 1), torch.tensor([m - 1])]).to(rows.device)
        turned = rotation[going][:, :, order].mT
        open_mode = _first_open(values[going, :k], norms[going], options)
        onward = residual[going, open_mode]
        old_basis, old_image, rows = basis[going], image[going], rows[going]
        basis, image = torch.zeros_like(old_basis), torch.zeros_like(old_image)
        basis[:, :kept], image[:, :kept] = turned @ old_basis, turned @ old_image
        basis[:, kept] = _new_direction(onward, basis[:, :kept], products)
        done = kept


def _certain(
    values: torch.Tensor, norms: torch.Tensor, largest: torch.Tensor, options: ModeOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows whose negative and zero modes are resolved (n,), and those of them whose lowest positive mode is, too (n,).

    Modes above the lowest positive one do not matter.
    """
    if not options.count:
        sharp = (norms <= options.negative_tolerance * values.abs()).all(1)
        return sharp, sharp
    zero = options.zero * largest[:, None]
    positive = values >= zero
    tolerance = torch.where(positive, options.positive_tolerance, options.negative_tolerance)
    fine = (norms <= tolerance * values.abs()) | ((values.abs() < zero) & (norms < zero))
    first = positive & (positive.long().cumsum(1) == 1)
    lower = (fine | positive).all(1) & positive.any(1)
    return lower, lower & (fine | ~first).all(1)


def _lowest_positive(
    product: Product, points: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor, largest: torch.Tensor,
    options: ModeOptions,
) -> torch.Tensor:  # fmt: skip
    """The lowest eigenvalue (n,) in the complement of those modes `vectors` (n, k, d) that are not positive; nan where
    it was not proved to be positive."""
    zero = options.zero * largest
    others = torch.where((values < zero[:, None])[..., None], vectors, 0)  # zero vectors project nothing away
    plain = Tridiagonals(product, points, _fixed_direction(vectors[:, 0], -1), others)
    dim, n = vectors.shape[2], len(points)
    found, open_rows = torch.full((n,), torch.nan, dtype=values.dtype, device=points.device), set(range(n))
    while open_rows and plain.n_steps < 2 * options.max_products:
        plain.extend(max(FIRST_LOOK, plain.n_steps // 4))
        for row in sorted(open_rows):
            diagonal, off_diagonal, onward = plain.row(row)
            low, high = ends_of(diagonal, off_diagonal)
            bound = low if onward == 0 else low - missed_part(dim, len(diagonal), DOUBT) * (high - low)
            if bound > float(zero[row]):
                found[row] = low
            if bound > float(zero[row]) or not low > float(zero[row]):
                open_rows.discard(row)
    return found


def _first_open(values: torch.Tensor, norms: torch.Tensor, options: ModeOptions) -> torch.Tensor:
    tolerance = torch.where(values < 0, options.negative_tolerance, options.positive_tolerance)
    return (norms > tolerance * values.abs()).to(torch.int8).argmax(1)


def _grow(
    product: Product, points: torch.Tensor, basis: torch.Tensor, image: torch.Tensor, n_vectors: int, n_products: int,
    seed: int = 0,
) -> None:  # fmt: skip
    """Fill basis and image (n, m, d) in place: each image H v, made orthogonal to the basis, is its next vector."""
    m = basis.shape[1]
    for k in range(n_products, m):
        image[:, k] = product(points, basis[:, k])
        if n_vectors < m:
            basis[:, n_vectors] = _new_direction(image[:, k], basis[:, :n_vectors], seed + n_vectors)
            n_vectors += 1


def _new_direction(vector: torch.Tensor, basis: torch.Tensor, seed: int) -> torch.Tensor:
    """Unit vectors along the part of `vector` (n, d) outside the orthonormal `basis` (n, j, d); where nothing is left
    of it (an invariant subspace) a fixed random direction takes its place."""
    found, left = _outside(vector, basis)
    lost = ~(left > DEPENDENT * vector.norm(dim=1))
    if bool(lost.any()):
        found[lost] = _outside(_fixed_direction(vector[lost], seed + 1), basis[lost])[0]
    return found


def _outside(vector: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    outside = vector
    for _ in range(2):  # twice is enough to make it orthogonal to rounding
        outside = outside - ((outside[:, None] @ basis.mT) @ basis)[:, 0]
    left = outside.norm(dim=1)
    return outside / left.clamp_min(torch.finfo(vector.dtype).tiny)[:, None], left


def _fixed_direction(like: torch.Tensor, seed: int) -> torch.Tensor:
    """One random unit vector for all rows (n, d), so that no row depends on its neighbours."""
    unit = torch.randn(like.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (unit / unit.norm()).to(like).expand_as(like)


def _rayleigh_ritz(basis: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    projected = basis @ image.mT
    finite = projected.isfinite().all(-1).all(-1)[:, None, None]  # elsewhere the residuals, not finite either, tell
    return torch.linalg.eigh(torch.where(finite, 0.5 * (projected + projected.mT), torch.eye(basis.shape[1]).to(basis)))
