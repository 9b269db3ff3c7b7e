"""Relaxation timescales of a network, to high relative accuracy however widely they are separated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from landscape.errors import LandscapeError
from landscape.network.algebra import communicating_classes, components, log_stationary
from landscape.network.elimination import Array, Eliminated, checked_log_rates, eliminate, log_sum

_MOST_SWEEPS = 60
_LARGEST_MULTIPRECISION = 32
_MOST_DIGITS = 3000


def log_timescales(log_rates: Array) -> Array:
    """log of the n - 1 relaxation times -1/Re(eigenvalue of Q), slowest first; +inf once per extra separate part.

    Q is the rate matrix of `log_rates` (n, n), as in `algebra`. Reversible networks (detailed balance through every
    edge to 1e-9): relative error about 1e-14 n of each timescale, whatever the spread. The symmetrised matrix
    -pi^1/2 Q pi^-1/2 = X D X^T is factored by elimination in logarithms, fastest state first, so that D holds all of
    the spread and X is well conditioned; one-sided Jacobi rotations on X D^1/2, each column with a logarithmic scale of
    its own, give the eigenvalues (Demmel et al., Linear Algebra Appl. 299, 21, 1999; Drmac and Veselic, SIAM J. Matrix
    Anal. Appl. 29, 1322, 2008; the factorisation after Ye, Math. Comp. 77, 2195, 2008).
    Measured: 100 states .02 s, 500 states .5 s (wide spread) to 10 s (rates all alike).
    Other networks: float64 where its error bound is below 1e-8, else multiprecision up to n = 32, checked by repeating
    it with more digits; a timescale that neither resolves is NaN and stands before the resolved ones.
    """
    matrix = checked_log_rates(log_rates)
    finite = -_log_eigenvalues_reversible(matrix) if is_reversible(matrix) else _general(matrix)
    extra = len(matrix) - 1 - len(finite)
    return np.concatenate([np.full(extra, np.inf), finite])


def is_reversible(log_rates: Array, tolerance: float = 1e-9) -> bool:
    """True if some pi has pi_i k_ij = pi_j k_ji on every edge, to `tolerance` in the logarithm."""
    matrix = checked_log_rates(log_rates)
    linked = matrix > -np.inf
    if np.any(linked != linked.T):
        return False
    source, target = np.nonzero(linked)
    if len(source) == 0:
        return True
    slope = matrix[source, target] - matrix[target, source]
    potential = np.zeros(len(matrix))
    labels = components(matrix)
    graph = csr_array(linked)
    for root in np.unique(labels, return_index=True)[1]:
        order, parent = breadth_first_order(graph, root, directed=True)
        for node in order[1:]:
            up = parent[node]
            potential[node] = potential[up] + matrix[up, node] - matrix[node, up]
    size = np.max(np.abs(matrix[linked])) + np.max(np.abs(potential))
    return bool(np.max(np.abs(slope - potential[target] + potential[source])) <= tolerance + 1e-13 * size)


class Modes(NamedTuple):
    """The r relaxation modes of a reversible network, slowest first.

    -pi^1/2 Q pi^-1/2 = X D X^T, and D^1/2 X^T = W Sigma V^T is the singular value decomposition.
    """

    log_eigenvalues: Array
    """(r,): log of the nonzero eigenvalues of -Q; Sigma is their root."""
    vectors: Array
    """V^T (r, n): unit eigenvectors of the symmetrised generator, pi^1/2 times the eigenfunctions."""
    pivot_vectors: Array
    """W^T (r, r): the other singular vectors, one entry for each of the first r records."""
    records: list[Eliminated]
    """The elimination that X and D come from, those of the r pivots first, then the last state of each part."""


def reversible_modes(log_rates: Array) -> Modes:
    """All modes of a network with detailed balance; vectors to a few eps over the relative gaps of the eigenvalues."""
    matrix = checked_log_rates(log_rates)
    triangle, orthonormal, half_scale, records = _factor(matrix)
    rotation = np.eye(len(half_scale))
    rows, log_scale = _scaled_rows(triangle, half_scale)
    log_scale = log_scale + _orthogonalise(rows, log_scale, rotation)
    order = np.argsort(log_scale)
    pivots = [record for record in records if record.log_escape > -np.inf]
    lasts = [record for record in records if record.log_escape == -np.inf]
    return Modes(2 * log_scale[order], (rotation @ orthonormal.T)[order], rows[order], pivots + lasts)


def _log_eigenvalues_reversible(matrix: Array) -> Array:
    """log of the nonzero eigenvalues of -Q, smallest first, of a reversible network."""
    triangle, _, half_scale, _ = _factor(matrix)
    rows, log_scale = _scaled_rows(triangle, half_scale)
    return np.asarray(np.sort(2 * (log_scale + _orthogonalise(rows, log_scale))))


def _factor(matrix: Array) -> tuple[Array, Array, Array, list[Eliminated]]:
    """X = Q R and log D^1/2 of the symmetrised generator X D X^T: R (r, r), Q (n, r), (r,), and the elimination."""
    n = len(matrix)
    records = eliminate(matrix.copy(), np.zeros(n), np.arange(n), fastest_first=True)
    pivots = [record for record in records if record.log_escape > -np.inf]
    factor = np.zeros((n, len(pivots)))
    for column, record in enumerate(pivots):
        factor[record.node, column] = 1.0
        # k_ij k_ji is symmetric under detailed balance, so that the unknown pi drops out of X
        back = record.log_into - record.log_escape
        factor[record.out, column] = -np.exp((record.log_branching + back) / 2)
    orthonormal, triangle = np.linalg.qr(factor)
    return triangle, orthonormal, np.array([record.log_escape / 2 for record in pivots]), records


def _scaled_rows(triangle: Array, half_scale: Array) -> tuple[Array, Array]:
    """The rows of R D^1/2, each divided by exp of its scale.

    Singular values of R D^1/2 are those of its transpose, whose columns are already almost orthogonal if D is graded.
    """
    ratio = np.exp(np.minimum(half_scale[:, None] - half_scale[None, :], 50.0))
    return np.ascontiguousarray((triangle.T * ratio).T), half_scale


def _orthogonalise(rows: Array, log_scale: Array, rotation: Array | None = None) -> Array:
    """One-sided Jacobi on the vectors exp(log_scale_j) rows_j (r, r): log of the final length / exp(log_scale_j).

    Rounds of disjoint pairs (round robin). With u_p, u_q of unit length, c = u_p . u_q and r <= 1 the ratio of the
    lengths, the rotation is u_p - tau r^2 u_q and u_q + tau u_p with
    tau = -2 c / (1 - r^2 + sqrt((1 - r^2)^2 + 4 r^2 c^2)). No quantity but r depends on the scales, and r may underflow
    to 0 without harm. `rows` is overwritten with the unit vectors reached; `rotation` (r, r), if given, is multiplied
    from the left by the rotations of the vectors themselves (tangent tau r).
    """
    count = len(rows)
    length = np.linalg.norm(rows, axis=1)
    rows /= length[:, None]
    gain: Array = np.log(length)
    tolerance = 4 * np.finfo(np.float64).eps * max(count, 4)
    circle = np.arange(count + count % 2)
    for _ in range(_MOST_SWEEPS):
        open_pairs = np.abs(rows @ rows.T) > tolerance
        np.fill_diagonal(open_pairs, False)
        if not open_pairs.any():
            return gain
        for _ in range(len(circle) - 1):
            first, second = circle[: len(circle) // 2], circle[: len(circle) // 2 - 1 : -1]
            circle = np.concatenate([circle[:1], circle[-1:], circle[1:-1]])
            real = (first < count) & (second < count)
            p, q = first[real], second[real]
            p, q = p[open_pairs[p, q]], q[open_pairs[p, q]]
            cosine = np.einsum("ij,ij->i", rows[p], rows[q])
            p, q, cosine = p[cosine != 0], q[cosine != 0], cosine[cosine != 0]
            if len(p) == 0:
                continue
            level = log_scale + gain
            swap = level[p] < level[q]
            p, q = np.where(swap, q, p), np.where(swap, p, q)
            gap = level[q] - level[p]
            square = np.exp(2 * gap)
            spread = -np.expm1(2 * gap)
            tau = -2 * cosine / (spread + np.sqrt(spread**2 + 4 * square * cosine**2))
            shrink = 1 / np.sqrt(1 + square * tau**2)[:, None]
            large = (rows[p] - (tau * square)[:, None] * rows[q]) * shrink
            small = (rows[q] + tau[:, None] * rows[p]) * shrink
            for index, vector in ((p, large), (q, small)):
                size = np.linalg.norm(vector, axis=1)
                rows[index] = vector / size[:, None]
                gain[index] += np.log(size)
            if rotation is not None:
                tangent = (tau * np.exp(gap))[:, None]
                turned = (rotation[p] - tangent * rotation[q]) * shrink, (rotation[q] + tangent * rotation[p]) * shrink
                rotation[p], rotation[q] = turned
    raise LandscapeError(f"timescales: Jacobi rotations did not settle in {_MOST_SWEEPS} sweeps; report this network")


def _general(matrix: Array) -> Array:
    """log timescales of any network without its zero eigenvalues, slowest first, NaN where not resolved."""
    _, closed = communicating_classes(matrix)
    zeros = int(closed.sum())
    scale = float(np.max(matrix))
    values = _by_float64(matrix - scale, zeros)
    if np.isnan(values).any() and len(matrix) <= _LARGEST_MULTIPRECISION:
        values = _by_multiprecision(matrix - scale, zeros, values)
    return values - scale


def _by_float64(matrix: Array, zeros: int) -> Array:
    """Timescales by an ordinary eigensolver; NaN where the first-order error bound exceeds 1e-8 of the value."""
    log_pi = log_stationary(matrix, np.zeros(len(matrix)))
    # pi^1/2 Q pi^-1/2 is close to normal; without a positive pi (states left for ever) Q itself has to do
    log_pi = log_pi if np.all(np.isfinite(log_pi)) else np.zeros(len(matrix))
    scaled = -np.exp(matrix + (log_pi[:, None] - log_pi[None, :]) / 2)
    np.fill_diagonal(scaled, np.exp(log_sum(matrix)))
    values, left, right = scipy.linalg.eig(scaled, left=True, right=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = 1 / np.abs(np.einsum("ij,ij->j", left.conj(), right))
        error = np.finfo(np.float64).eps * len(matrix) * np.linalg.norm(scaled) * condition
        order = np.argsort(values.real)[zeros:]
        resolved = error[order] < 1e-8 * values.real[order]
        return np.where(resolved, -np.log(values.real[order]), np.nan)


def _by_multiprecision(matrix: Array, zeros: int, fallback: Array) -> Array:
    """Timescales with as many digits as it takes for two runs to agree to 1e-10, else `fallback`."""
    spread = float(np.ptp(matrix[matrix > -np.inf])) / np.log(10)
    digits = int(40 + 2 * spread)
    previous = None
    while digits <= _MOST_DIGITS:
        current = _log_times_at(matrix, zeros, digits)
        if previous is not None and np.allclose(current, previous, rtol=0, atol=1e-10, equal_nan=False):
            return current
        previous, digits = current, int(1.5 * digits)
    return fallback


def _log_times_at(matrix: Array, zeros: int, digits: int) -> Array:
    """log -1/Re(eigenvalue) at a given number of digits, NaN where the real part is not negative."""
    import mpmath  # slow to import, and only stiff networks without detailed balance need it

    with mpmath.workdps(digits):
        n = len(matrix)
        generator = mpmath.matrix(n, n)
        for i, j in np.argwhere(matrix > -np.inf):
            generator[i, j] = mpmath.exp(mpmath.mpf(float(matrix[i, j])))
        for i in range(n):
            generator[i, i] = -mpmath.fsum(generator[i, j] for j in range(n) if j != i)
        values = mpmath.eig(generator, left=False, right=False)
        decay = sorted(-mpmath.re(value) for value in values)[zeros:]
        return np.array([float(-mpmath.log(rate)) if rate > 0 else np.nan for rate in decay])
