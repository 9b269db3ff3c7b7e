"""Underdamped dynamics in one dimension: relaxation rates by the Klein-Kramers operator.

With f = rho / (pi^(1/2) phi), phi the Gaussian of p, expanded in Hermite functions of p (Brinkman hierarchy):

    d c_n / dt = -n (gamma / m) c_n - sqrt(n) D c_{n-1} + sqrt(n+1) D^T c_{n+1},   D = v (d/dx + beta E'/2),

v = (beta m)^(-1/2). Even n live at the centres of N cells, odd n on the faces between them, where central differences
are of second order and pi^(1/2) is an exact null vector. The spacing is extrapolated to 0; the number of Hermite
functions doubles until the answer stands still. H. Risken, The Fokker-Planck Equation, chapter 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigs, splu

from landscape.dynamics import Dynamics, Overdamped, Underdamped
from landscape.energy import Energy
from landscape.errors import UnsupportedError, UsageError
from landscape.rates.cores import Cores
from landscape.rates.grid import GridGenerator, find_box, grid_generator, symmetric_bernoulli
from landscape.rates.grid_rates import ACCEPTED_ERROR, RATIO, extrapolate, extrapolate_with_error

CELLS = 300
HERMITE = 24
MAX_UNKNOWNS = 400_000
NEAREST = (
    8  # eigenvalues nearest to 0 that are computed: at low friction oscillating ones can lie nearer than slow ones
)


@dataclass(frozen=True)
class KleinKramersSpectrum:
    """eigenvalues (k,) complex, of the operator without its 0, smallest |Re| first, 1/time; error (k,), absolute.

    slowest : smallest nonzero |Re|. cells, hermite : of the finest solve. converged : the error of the slowest is below
    1 % of it, and reason says why not.
    """

    eigenvalues: np.ndarray
    error: np.ndarray
    cells: int
    hermite: int
    converged: bool
    reason: str

    @property
    def slowest(self) -> float:
        return float(abs(self.eigenvalues[0].real))


@dataclass(frozen=True)
class KleinKramersRates:
    """rates (n, n), error (n, n), 1/time: the effective rates Q of the slow modes, 0 on the diagonal.

    Their relaxation rates are those of the operator; counted rates K and transits M (see `cores`) obey Q = M^-1 K up to
    terms of second order.
    spectrum : of the operator, with the verdict on convergence.
    """

    rates: np.ndarray
    error: np.ndarray
    spectrum: KleinKramersSpectrum


def klein_kramers_spectrum(
    energy: Energy,
    dynamics: Dynamics,
    k: int = 1,
    *,
    box: Sequence[float] | None = None,
    cores: Cores | None = None,
    cells: int = CELLS,
    hermite: int = HERMITE,
) -> KleinKramersSpectrum:
    """The k slowest relaxation rates of underdamped dynamics in one dimension.

    box : (low, high), else found around the cores. cells : of the finer of two grids. hermite : functions of p to start
    with. Two symmetric wells relax at slowest = 2 k, wells of weights w_1, w_2 at slowest = k_12 / w_2. The
    error adds the step of the extrapolation in the spacing to the change of the last doubling of `hermite`.
    UnsupportedError unless d = 1 and the dynamics is underdamped; UsageError for numbers that make no sense.
    """
    if energy.dim != 1 or not isinstance(dynamics, Underdamped):
        raise UnsupportedError(
            f"the Klein-Kramers operator is for underdamped dynamics in one dimension, not {dynamics.kind} in "
            f"{energy.dim}; use the grid generator or simulated passages"
        )
    if not (1 <= k <= NEAREST // 2 and cells >= 16 and hermite >= 4):
        raise UsageError(f"choose 1 <= k <= {NEAREST // 2}, cells >= 16, hermite >= 4; got {k}, {cells}, {hermite}")
    if box is None:
        if cores is None:
            raise UsageError("the Klein-Kramers operator needs a box, or cores around which to find one")
        limits = find_box(energy, dynamics.beta, cores)[0]
    else:
        limits = np.asarray(box, dtype=float).reshape(1, 2)
    fewer = round(cells / RATIO)
    coarse = _eigenvalues(energy, dynamics, limits, fewer, hermite, k)
    change, reason = np.inf, ""
    while True:
        if 2 * hermite * cells > MAX_UNKNOWNS:
            reason = f"{hermite} Hermite functions do not suffice at this friction"
            break
        hermite *= 2
        previous, coarse = coarse, _eigenvalues(energy, dynamics, limits, fewer, hermite, k)
        change = np.abs(coarse - previous)
        if change[0] < 1e-4 * abs(coarse[0].real):
            break
    fine = _eigenvalues(energy, dynamics, limits, cells, hermite, k)
    value, error = _extrapolate(coarse, fine, fewer, cells)
    error = error + change
    if not reason and error[0] > ACCEPTED_ERROR * abs(value[0].real):
        reason = f"the spacing still changes the slowest rate by {error[0] / abs(value[0].real):.1%}: take more cells"
    return KleinKramersSpectrum(value, error, cells, hermite, not reason, reason)


def _extrapolate(coarse: np.ndarray, fine: np.ndarray, fewer: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    # |Re| is what must stay positive; imaginary parts may have either sign
    real = extrapolate(-coarse.real, -fine.real, cells / fewer)
    imaginary = fine.imag + (fine.imag - coarse.imag) / ((cells / fewer) ** 2 - 1)
    value = -real + 1j * imaginary
    return value, np.abs(value - fine)


def klein_kramers_matrix(
    energy: Energy, dynamics: Underdamped, limits: np.ndarray, cells: int, hermite: int
) -> tuple[sparse.csc_array, np.ndarray]:
    """The operator on (c_0, ..., c_{hermite-1}), and its null vector. c_n has an entry a cell (even n) or face.

    Down the hierarchy: from centres to faces (v/h) w^(1/2) difference of c / pi^(1/2), with w the Scharfetter-Gummel
    mean of pi on the face, which makes pi^(1/2) an exact null vector; from faces to centres likewise.
    """
    grid = _positions(energy, dynamics, limits, cells)
    n, h = len(grid.points), float(grid.spacing[0])
    velocity = 1 / np.sqrt(dynamics.beta * float(dynamics.mass_vector(1)[0]))
    half = 0.5 * grid.step
    # w / pi_a = B(u); (w / pi_a)^(1/2) and (w / pi_b)^(1/2), in the form that cannot overflow
    mean = np.sqrt(symmetric_bernoulli(grid.step))
    to_a, to_b = mean * np.exp(-0.5 * half), mean * np.exp(0.5 * half)
    m, ends = len(half), grid.edges.T.ravel()  # as many faces as cells where the ends meet, else one less
    places = (np.tile(np.arange(m), 2), ends)
    faces = sparse.csr_array((np.concatenate([-to_a, to_b]) * (velocity / h), places), shape=(m, n))
    centers = sparse.csr_array((np.concatenate([1 / to_a, -1 / to_b]) * (velocity / h), places[::-1]), shape=(n, m))
    collision = float(dynamics.collision_rate(1)[0])
    blocks: list[list[sparse.dia_array | None]] = [[None] * hermite for _ in range(hermite)]
    for level in range(hermite):
        size = n if level % 2 == 0 else m
        blocks[level][level] = sparse.diags_array(np.full(size, -level * collision))
        if level + 1 < hermite:
            down = np.sqrt(level + 1) * (faces if level % 2 == 0 else centers)
            blocks[level + 1][level], blocks[level][level + 1] = -down, down.T
    matrix = sparse.block_array(blocks, format="csc")
    null = np.zeros(matrix.shape[0])
    null[:n] = np.exp(0.5 * grid.log_weight)
    return matrix, null


def klein_kramers_rates(
    energy: Energy, dynamics: Dynamics, cores: Cores, *, cells: int = CELLS, hermite: int = HERMITE
) -> KleinKramersRates:
    """Rates between n cores in one dimension, underdamped, from the n slowest modes of the operator (0 among them).

    Q = A diag(lambda) A^-1, A_ik the mean of mode k over core i. UsageError for fewer than two cores or more than five.
    """
    n = len(cores)
    if not 2 <= n <= NEAREST // 2 + 1:
        raise UsageError(f"these rates are for 2 to {NEAREST // 2 + 1} cores, not {n}; use simulated passages")
    spectrum = klein_kramers_spectrum(energy, dynamics, n - 1, cores=cores, cells=cells, hermite=hermite)
    if (np.abs(spectrum.eigenvalues.imag) > 1e-6 * spectrum.slowest).any():
        raise UsageError(f"fewer than {n} slow modes: at this friction motion between the cores oscillates")
    if not isinstance(dynamics, Underdamped):  # said by the call above; told to the type checker here
        raise UnsupportedError("the Klein-Kramers operator is for underdamped dynamics")
    limits = find_box(energy, dynamics.beta, cores)[0]
    fewer, pair = round(cells / RATIO), []
    for number in (fewer, cells):
        grid = _positions(energy, dynamics, limits, number)
        values, modes = _modes(energy, dynamics, limits, number, spectrum.hermite, n - 1)
        label, root = cores.labels(grid.points), np.exp(0.5 * grid.log_weight)
        inside = (label == np.arange(n)[:, None]) * root**2
        means = inside @ (modes.real / root[:, None]) / inside.sum(axis=1, keepdims=True)
        shape = np.column_stack([np.ones(n), means])
        pair.append(np.linalg.solve(shape.T, (shape * np.concatenate([[0.0], values.real])).T).T)
    rates, error = extrapolate_with_error(pair[::-1], cells / fewer)
    np.fill_diagonal(rates, 0)
    np.fill_diagonal(error, 0)
    return KleinKramersRates(rates, error, spectrum)


def _positions(energy: Energy, dynamics: Dynamics, limits: np.ndarray, cells: int) -> GridGenerator:
    return grid_generator(energy, Overdamped(dynamics.beta, dynamics.gamma), box=limits, cells=cells)


def _eigenvalues(
    energy: Energy, dynamics: Underdamped, limits: np.ndarray, cells: int, hermite: int, k: int
) -> np.ndarray:
    return _modes(energy, dynamics, limits, cells, hermite, k)[0]


def _modes(
    energy: Energy, dynamics: Underdamped, limits: np.ndarray, cells: int, hermite: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k eigenvalues of smallest |Re| but 0, and the c_0 part (N, k) of their eigenvectors.

    Reversing p turns the operator into its transpose, so c_0 belongs to left and right eigenvectors alike.
    """
    matrix, null = klein_kramers_matrix(energy, dynamics, limits, cells, hermite)
    centers = int(np.count_nonzero(null))
    null = null / np.linalg.norm(null)
    m = len(null)
    shift = 1e-9 * float(dynamics.collision_rate(1)[0])
    solve = splu((matrix - sparse.diags_array(np.full(m, shift))).tocsc()).solve

    # the null vector is the same from the left and from the right, as c_0 is coupled through D alone
    def inverse(v: np.ndarray) -> np.ndarray:
        v = np.ravel(v)
        x = solve(v - null * (null @ v))
        return np.asarray(x - null * (null @ x))

    start = np.random.default_rng(0).standard_normal(m)
    operator = LinearOperator((m, m), matvec=inverse, dtype=float)
    values, vectors = eigs(operator, k=NEAREST, which="LM", v0=start, tol=1e-10)
    rates = 1 / values + shift
    order = np.argsort(np.abs(rates.real))[:k]
    return np.asarray(rates[order]), np.asarray(vectors[:centers, order])
