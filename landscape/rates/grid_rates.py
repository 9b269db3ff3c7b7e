"""Spectrum, committors, passage times and core-to-core rates of a grid generator, extrapolated over grids.

Without detailed balance q_i, the probability to reach core i before all others, has a counterpart backwards in time:
q~_i, the probability that core i was the last one visited, which is the committor of the time-reversed process. Then

    k_ij = int q~_i L q_j dpi / int q~_i dpi = [ -int grad q~_i . D grad q_j dpi - int q~_i (J grad E) . grad q_j dpi ]
           / int q~_i dpi,

transitions over time with last core i, as in `landscape.rates.cores`; with J = 0, q~ = q.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import LinearOperator, bicgstab, cg, eigs, eigsh, splu

from landscape.dynamics import Dynamics
from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.rates.cores import Cores, relaxation_rates
from landscape.rates.grid import CELLS, GridGenerator, bernoulli, find_box, grid_generator

Solver = Callable[[np.ndarray], np.ndarray]

RATIO = 1.5  # of one grid's spacing to that of the next finer one
DIRECT_CELLS = 20_000  # in three dimensions: above it, conjugate gradients instead of a factorisation
CG_TOLERANCE = 1e-11
CG_ITERATIONS = 5000
BLOCK = 4  # cells along each side of the blocks on which the coarse half of the preconditioner acts
SPARE = 3  # eigenvalues beyond those asked for, without detailed balance
MIN_SHARE = 1e-3  # least part of a cell's width to a core's surface: keeps the matrix well scaled
ACCEPTED_ERROR = 0.01
ROUNDING = 1e-14  # of the largest rate between cells: an eigenvalue below a thousand times this is not resolved


@dataclass(frozen=True)
class Spectrum:
    """eigenvalues (k,) of -Q, slowest first, without the 0 of the stationary distribution; error (k,), absolute.

    Complex (by their real parts) for non-reversible dynamics.

    coarse, fine (k,) : before extrapolation. cells : kept cells of the fine grid. converged : every error is below
    1 % of its eigenvalue, and reason says why not.
    """

    eigenvalues: np.ndarray
    error: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    cells: int
    converged: bool
    reason: str


@dataclass(frozen=True)
class GridRates:
    """Rates between n cores. rates (n, n): k_ij, 0 on the diagonal, 1/time; error (n, n), absolute.

    populations (n,) : probability that core i is the last one visited, sums to 1; its error (n,).
    transit (n, n) : probability that core j != i is next if core i was last.
    coarse, fine (n, n) : rates before extrapolation. cells, box, bound : of the fine grid. converged : every rate that
    carries more than 1e-6 of its state's exits has an error below 1 %, and reason says why not.
    """

    rates: np.ndarray
    error: np.ndarray
    populations: np.ndarray
    population_error: np.ndarray
    transit: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    cells: int
    box: np.ndarray
    bound: float
    converged: bool
    reason: str

    def relaxation_rates(self) -> np.ndarray:
        """Eigenvalues (n - 1,) of the dynamics seen through the cores; see `landscape.rates.cores.relaxation_rates`."""
        return relaxation_rates(self.rates, self.transit)


@dataclass(frozen=True)
class _Dirichlet:
    """-Q with the cells of the cores taken out. label (m,): core of a cell, -1 outside; free: rows outside.

    Edges into a core end on its surface, at the part s of their length: rate D/h^2 B(s u) / s.
    cut (c,) : free cell, core, and rate of each such edge. cut_stir (c,) : its part of the circulation,
    Phi_ab / 2 pi_a, which needs no length: it carries what the committor is on the core.
    """

    label: np.ndarray
    free: np.ndarray
    matrix: sparse.csc_array
    cut_cell: np.ndarray
    cut_core: np.ndarray
    cut_rate: np.ndarray
    cut_stir: np.ndarray


def eigenvalues(generator: GridGenerator, k: int = 3) -> np.ndarray:
    """The k smallest nonzero eigenvalues of -Q on one grid, (k,), slowest first, 1/time: see `eigenfunctions`."""
    return eigenfunctions(generator, k)[0]


def eigenfunctions(generator: GridGenerator, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest nonzero eigenvalues of -Q on one grid, (k,), slowest first, 1/time, and its right eigenvectors
    (m, k), orthonormal under pi (without detailed balance: of norm 1); their signs, or phases, are arbitrary.

    Lanczos on the inverse of the symmetrised matrix, its null vector projected out, then Rayleigh-Ritz in the form
    sum over edges of pi_a Q_ab (u_a - u_b)^2, which loses no digits to cancellation. Without detailed balance Arnoldi
    on the same inverse: complex, ordered by real part. UsageError unless k < m - 1.
    """
    m = len(generator.points)
    if not 1 <= k < m - 1:
        raise UsageError(f"a generator on {m} cells has between 1 and {m - 2} such eigenvalues, not {k}")
    matrix, null = generator.symmetrised(), np.exp(0.5 * generator.log_weight)
    null = null / np.linalg.norm(null)
    top = float(matrix.diagonal().max())
    shift = 1e-11 * top
    solve = _solver(generator, (matrix + sparse.diags_array(np.full(m, shift))).tocsc(), np.arange(m))

    def inverse(v: np.ndarray) -> np.ndarray:
        v = np.ravel(v)
        x = solve(v - null * (null @ v))
        return np.asarray(x - null * (null @ x))

    operator = LinearOperator((m, m), matvec=inverse, dtype=float)
    start = np.random.default_rng(0).standard_normal(m) * null
    start -= null * (null @ start)
    if not generator.reversible:
        # the largest in modulus are not quite the slowest: a few more are looked at
        inverses, vectors = eigs(operator, k=min(k + SPARE, m - 2), which="LM", v0=start, tol=1e-10)
        values = 1 / inverses - shift
        order = np.lexsort((values.imag, values.real))[:k]
        return values[order], vectors[:, order] / null[:, None]
    vectors = eigsh(operator, k=k, which="LM", v0=start, tol=1e-9)[1]
    return _rayleigh_ritz(generator, vectors / null[:, None])


def _rayleigh_ritz(generator: GridGenerator, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pi, (a, b) = generator.stationary, generator.edges.T
    u = u - pi @ u
    slope = u[a] - u[b]
    stiffness = slope.T @ (generator.conductance()[:, None] * slope)
    values, mixing = linalg.eigh(stiffness, u.T @ (pi[:, None] * u))
    return values, u @ mixing


def committors(generator: GridGenerator, cores: Cores) -> np.ndarray:
    """q (m, n): the probability that a trajectory from cell a reaches core i before every other core. Rows sum to 1.

    Of `generator.time_reversed()`: the probability that a trajectory found at a was in core i last.
    """
    system = _dirichlet(generator, cores)
    solve = _solver(generator, system.matrix, system.free)
    root, n = np.exp(0.5 * generator.log_weight), len(cores)
    q = np.zeros((len(generator.points), n))
    inside = system.label >= 0
    q[inside, system.label[inside]] = 1
    for i in range(n):
        mine = system.cut_core == i
        enter = system.cut_rate[mine] + system.cut_stir[mine]
        source = np.bincount(system.cut_cell[mine], enter, len(root)) * root
        q[system.free, i] = np.clip(solve(source[system.free]) / root[system.free], 0, 1)
    return q


def mean_passage_times(generator: GridGenerator, target: Cores) -> np.ndarray:
    """tau (m,): the mean time from cell a until any core of `target` is entered, 0 inside. -Q tau = 1 outside."""
    system = _dirichlet(generator, target)
    root, times = np.exp(0.5 * generator.log_weight), np.zeros(len(generator.points))
    solve = _solver(generator, system.matrix, system.free)
    times[system.free] = solve(root[system.free]) / root[system.free]
    return times


def core_rates(generator: GridGenerator, cores: Cores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """On one grid k_ij (n, n), the populations int q~_i dpi (n,), and int q~_i q_j dpi / int q~_i dpi (n, n).

    k_ij = -int grad q~_i . D grad q_j dpi / int q~_i dpi and the term of the rotation (see the module), with the
    committors q_i to core i before all others, and q~_i, the same if the dynamics is reversible, backwards in time.
    """
    q, system = committors(generator, cores), _dirichlet(generator, cores)
    last = q if generator.reversible else committors(generator.time_reversed(), cores)
    n, (a, b) = len(cores), generator.edges.T
    outer = (system.label[a] < 0) & (system.label[b] < 0)
    weight = generator.conductance()[outer]
    form = (last[a[outer]] - last[b[outer]]).T @ (weight[:, None] * (q[a[outer]] - q[b[outer]]))
    inside, outside = np.eye(n)[system.cut_core], system.cut_cell
    cut_weight = np.exp(generator.log_weight[outside]) * system.cut_rate
    form += (last[outside] - inside).T @ (cut_weight[:, None] * (q[outside] - inside))
    if not generator.reversible:
        half = 0.5 * generator.current()[:, None]
        form -= last[a].T @ (half * q[b]) - last[b].T @ (half * q[a])
    populations = generator.stationary @ last
    transit = last.T @ (generator.stationary[:, None] * q) / populations[:, None]
    rates = np.maximum(-form, 0) / populations[:, None]
    np.fill_diagonal(rates, 0)
    np.fill_diagonal(transit, 0)
    return rates, populations, transit


def reference_spectrum(
    energy: Energy,
    dynamics: Dynamics,
    k: int = 3,
    *,
    box: Sequence[Sequence[float]] | np.ndarray | None = None,
    cells: int | Sequence[int] | None = None,
    cores: Cores | None = None,
    bound: float | None = None,
) -> Spectrum:
    """The k slowest relaxation rates (`eigenvalues`), extrapolated to spacing 0 (`extrapolate_with_error`).

    The grids have `cells`, cells / 1.5 and cells / 2.25 along each coordinate. Other arguments: `grid_generator`.
    """
    grids = _grids(energy, dynamics, box, cells, cores, bound)
    series = [eigenvalues(grid, k) for grid in grids]
    value, error = extrapolate_with_error([one.real for one in series], _spacing_ratio(grids))
    if not grids[0].reversible:
        turning = [one.imag for one in series]
        value = value + 1j * (turning[0] + (turning[0] - turning[1]) / (_spacing_ratio(grids) ** 2 - 1))
        error = np.hypot(error, np.abs(value.imag - turning[0]))
    floor = 1e3 * ROUNDING * float(grids[0].hop.max())
    reason = ""
    if (value.real < floor).any():
        reason = f"eigenvalue below {floor:.1e}, lost in rounding at this spacing: take the rates between cores instead"
    elif (error > ACCEPTED_ERROR * np.abs(value)).any():
        reason = f"an eigenvalue is uncertain by {(error / np.abs(value)).max():.1%}: take more cells"
    return Spectrum(value, error, series[1], series[0], len(grids[0].points), not reason, reason)


def reference_rates(
    energy: Energy,
    dynamics: Dynamics,
    cores: Cores,
    *,
    box: Sequence[Sequence[float]] | np.ndarray | None = None,
    cells: int | Sequence[int] | None = None,
    bound: float | None = None,
) -> GridRates:
    """Core-to-core rates (`core_rates`), extrapolated to spacing 0 (`extrapolate_with_error`).

    The grids have `cells`, cells / 1.5 and, if every core still holds a cell of it, cells / 2.25 along each coordinate.
    Other arguments: `grid_generator`. UsageError if a core holds no cell of the second grid.
    """
    if len(cores) < 2:
        raise UsageError(f"rates lead from one core to another, but there is {len(cores)}; give two or more")
    grids = _grids(energy, dynamics, box, cells, cores, bound)
    if len(np.unique(cores.labels(grids[2].points))) <= len(cores):
        grids.pop()
    ratio = _spacing_ratio(grids)
    rate_series, population_series, transit_series = zip(*(core_rates(grid, cores) for grid in grids), strict=True)
    rates, error = extrapolate_with_error(rate_series, ratio)
    populations, population_error = extrapolate_with_error(population_series, ratio)
    transit = extrapolate_with_error(transit_series, ratio)[0]
    counts = rates > 1e-6 * rates.sum(axis=1, keepdims=True)
    worst = float((error[counts] / rates[counts]).max()) if counts.any() else 0.0
    reason = f"a rate is uncertain by {worst:.1%}: take more cells" if worst > ACCEPTED_ERROR else ""
    return GridRates(
        rates, error, populations, population_error, transit, rate_series[1], rate_series[0],
        len(grids[0].points), grids[0].box, grids[0].bound, not reason, reason,
    )  # fmt: skip


def extrapolate(coarse: np.ndarray, fine: np.ndarray, ratio: float) -> np.ndarray:
    """Richardson: fine + (fine - coarse) / (ratio^2 - 1), for errors of order h^2 and h_coarse / h_fine = ratio.

    Where this is not positive, the fine value.
    """
    value = fine + (fine - coarse) / (ratio**2 - 1)
    return np.where(value > 0, value, fine)


def extrapolate_with_error(series: Sequence[np.ndarray], ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Extrapolation of values from grids whose spacing grows by `ratio`, finest first, and its absolute error.

    The error is the distance between the values extrapolated from the two finest and from the two coarsest of three
    grids, but not less than a tenth of the distance to the finest grid; of two grids, all of that distance.
    """
    value = extrapolate(series[1], series[0], ratio)
    step = np.abs(value - series[0])
    if len(series) > 2:
        step = np.maximum(np.abs(value - extrapolate(series[2], series[1], ratio)), 0.1 * step)
    return value, np.maximum(step, 1e-12 * np.abs(value))


def _grids(
    energy: Energy,
    dynamics: Dynamics,
    box: Sequence[Sequence[float]] | np.ndarray | None,
    cells: int | Sequence[int] | None,
    cores: Cores | None,
    bound: float | None,
) -> list[GridGenerator]:
    """Three grids with the same box and bound, finest first."""
    d = energy.dim
    if box is None and cores is not None and d <= 3:
        box, found = find_box(energy, dynamics.beta, cores, bound)
        bound = found if bound is None else bound
    shape = [int(n) for n in np.broadcast_to(CELLS.get(d, 0) if cells is None else cells, (d,))]
    grids = [grid_generator(energy, dynamics, box=box, cells=shape, cores=cores, bound=bound)]
    box, bound = grids[0].box, grids[0].bound
    for factor in (RATIO, RATIO**2):
        fewer = [max(4, round(n / factor)) for n in shape]
        grids.append(grid_generator(energy, dynamics, box=box, cells=fewer, cores=cores, bound=bound))
    return grids


def _spacing_ratio(grids: Sequence[GridGenerator]) -> float:
    return float(np.exp(np.mean(np.log(grids[1].spacing / grids[0].spacing))))


def _dirichlet(generator: GridGenerator, cores: Cores) -> _Dirichlet:
    if cores.center.shape[1] != len(generator.shape):
        raise UsageError(f"cores of dimension {cores.center.shape[1]} do not fit a grid of {len(generator.shape)}")
    label = cores.labels(generator.points)
    missing = np.setdiff1d(np.arange(len(cores)), label)
    if len(missing):
        axis = 1 / np.sqrt(np.linalg.eigvalsh(cores.form[missing[0]])[-1])
        raise UsageError(
            f"core {missing[0]} (half-width {axis:.3g}) holds no cell (spacing {generator.spacing.max():.3g}); "
            "take more cells, or a wider box or a higher bound if the core lies outside"
        )
    free = np.flatnonzero(label < 0)
    m, (a, b) = len(label), generator.edges.T
    swap = (label[a] >= 0) & (label[b] < 0)
    crossing = swap | ((label[a] < 0) & (label[b] >= 0))
    outside, inside = np.where(swap, b, a)[crossing], np.where(swap, a, b)[crossing]
    u, core = np.where(swap, -generator.step, generator.step)[crossing], label[inside]
    share = np.maximum(cores.crossing(generator.points[outside], generator.points[inside], core), MIN_SHARE)
    rate = generator.hop[crossing] * bernoulli(share * u) / share
    stir = 0.5 * np.where(swap, -generator.stirring, generator.stirring)[crossing] * np.exp(-0.5 * u)
    leave = generator.leaving((label[a] < 0) & (label[b] < 0)) + np.bincount(outside, rate, m)
    couple = generator.symmetrised()[free][:, free].tocsc()
    matrix = couple - sparse.diags_array(couple.diagonal()) + sparse.diags_array(leave[free])
    return _Dirichlet(label, free, matrix.tocsc(), outside, core, rate, stir)


def _solver(generator: GridGenerator, matrix: sparse.csc_array, cells: np.ndarray) -> Solver:
    """x = matrix^-1 b for a positive definite matrix on some cells: LU, or in three dimensions conjugate gradients
    (stabilised biconjugate ones where it is not symmetric).
    """
    if len(generator.shape) < 3 or len(cells) <= DIRECT_CELLS:
        if not generator.reversible:
            return splu(matrix, permc_spec="COLAMD").solve
        return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True}).solve
    matrix, iterate = matrix.tocsr(), cg if generator.reversible else bicgstab
    preconditioner = LinearOperator(matrix.shape, matvec=_two_level(generator, matrix, cells), dtype=float)

    def solve(b: np.ndarray) -> np.ndarray:
        x, info = iterate(matrix, b, rtol=CG_TOLERANCE, maxiter=CG_ITERATIONS, M=preconditioner)
        if info > 0 and np.linalg.norm(matrix @ x - b) > 1e-6 * np.linalg.norm(b):
            raise UsageError(f"conjugate gradients stalled after {info} steps: lower the bound or the number of cells")
        return np.asarray(x)

    return solve


def _two_level(generator: GridGenerator, matrix: sparse.csr_array, cells: np.ndarray) -> Solver:
    """Jacobi plus an exact solve on blocks of 4^3 cells, over which pi^(-1/2) x is taken as constant."""
    index = np.floor((generator.points[cells] - generator.box[:, 0]) / generator.spacing).astype(int) // BLOCK
    blocks, number = np.unique(np.ravel_multi_index(tuple(index.T), generator.shape), return_inverse=True)
    root = np.exp(0.5 * (generator.log_weight[cells] - generator.log_weight.max()))
    rows = np.arange(len(cells))
    spread = sparse.csr_array((root, (rows, number)), shape=(len(cells), len(blocks)))
    scale = 1 / np.sqrt(np.asarray(spread.power(2).sum(axis=0)).ravel())
    spread = (spread @ sparse.diags_array(scale)).tocsr()
    gather = spread.T.tocsr()
    coarse = splu((gather @ matrix @ spread).tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    inverse = 1 / matrix.diagonal()
    return lambda r: inverse * r + spread @ coarse.solve(gather @ r)
