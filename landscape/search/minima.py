"""Multi-start search for minima, with saddle escape and a scale found from the energy itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from landscape.energy import Energy
from landscape.errors import EnergyError, UsageError
from landscape.search.driver import Status
from landscape.search.lbfgs import LBFGS, relax
from landscape.search.starts import Box, Gaussian, Points, draw_finite
from landscape.search.stationary import Catalogue, StationaryPoints, canonical_order

Progress = Callable[[str], None]

PILOT_SCALES = (0.1, 0.3, 1.0, 3.0)  # standard deviations of the coarse descent's starts
MAX_DOUBLINGS = 10
MAX_REPEATS = 4  # further draws at one width while the shell still finds new minima well inside
MAX_ESCAPES = 10  # rounds in which rows on saddles and plateaus are pushed off
FAR_BELOW = 1e3  # a runaway has fallen this many energy spans below the lowest minimum


@dataclass(frozen=True)
class MinimaSearch:
    """Hyper-parameters of `find_minima`.

    n_starts : rows of the multi-start search (ignored for given points).
    starts : Box, Gaussian, Points, or None: a cube that finds the energy's own scale.
    descent : the local optimiser.
    """

    n_starts: int = 1000
    starts: Box | Gaussian | Points | None = None
    descent: LBFGS = field(default_factory=LBFGS)

    def __post_init__(self) -> None:
        if int(self.n_starts) != self.n_starts or self.n_starts < 1:
            raise UsageError(f"a search needs at least 1 start, not {self.n_starts!r}")


@dataclass(frozen=True)
class MinimaResult:
    """What `find_minima` returns.

    minima : nondegenerate minima, lowest energy first. degenerate : points with a zero Hessian eigenvalue, apart.
    start_status (n,) : a `Status` code for each start. start_state (n,) : the minimum each start reached, -1 for none.
    center (d,), radius : the cube center +- radius that was searched.
    converged : the cube holds every minimum in its inner half and its outer shell gave nothing new.
    warnings : texts.
    """

    minima: StationaryPoints
    degenerate: StationaryPoints
    start_status: np.ndarray
    start_state: np.ndarray
    center: np.ndarray
    radius: float
    converged: bool
    warnings: tuple[str, ...]


def find_minima(
    energy: Energy,
    config: MinimaSearch | None = None,
    *,
    generator: torch.Generator | None = None,
    catalogue: Catalogue | None = None,
    progress: Progress | None = None,
) -> MinimaResult:
    """All minima that a batched multi-start descent reaches.

    Every start descends by L-BFGS, is polished by Newton's method and classified by its Hessian. A start that lands on a saddle or plateau
    is pushed off along negative curvature and goes on (Jin et al. 2017; Zhang and Li 2021), so a saddle is never
    reported as a minimum. Rows that run away are DIVERGED and reported, never dropped silently.

    `catalogue` collects every stationary point met on the way. Raises EnergyError if no start reaches a minimum.
    """
    config = config or MinimaSearch()
    generator = generator or torch.Generator().manual_seed(0)
    catalogue = catalogue if catalogue is not None else Catalogue(energy)
    search = _MultiStart(energy, config, generator, catalogue, progress or (lambda text: None))
    if config.starts is None:
        search.find_scale()
    search.main_round()
    return search.result()


class _MultiStart:
    """The state of one multi-start search: the cube, and what each start came to."""

    def __init__(
        self,
        energy: Energy,
        config: MinimaSearch,
        generator: torch.Generator,
        catalogue: Catalogue,
        progress: Progress,
    ) -> None:
        self.energy, self.config, self.generator = energy, config, generator
        self.catalogue, self.progress = catalogue, progress
        self.center = torch.zeros(energy.dim, dtype=energy.dtype, device=energy.device)
        self.radius = 1.0
        self.converged = True
        self.status = np.zeros(0, int)
        self.number = np.zeros(0, int)  # catalogue number that each start reached, -1 for none
        self.runaway = np.inf  # lowest energy of a diverged row
        self.warnings: list[str] = []

    # -- the rounds -----------------------------------------------------------------------------------------------

    def find_scale(self) -> None:
        """Double the cube until every minimum lies in its inner half and the outer shell yields nothing new."""
        self._coarse_descent()
        n = max(64, self.config.n_starts // 8)
        doublings = repeats = 0
        while doublings <= MAX_DOUBLINGS:
            known = len(self._minima())
            x = draw_finite(self.energy, self._cube(), n, self.generator)
            shell = ((x - self.center).abs().amax(1) > 0.5 * self.radius).cpu().numpy()
            reached = self._descend(x)
            minima = self._minima()
            self.progress(f"minima: cube half-width {self.radius:.3g}, {len(minima)} minima")
            inside = bool((np.abs(minima.x - self.center.cpu().numpy()) <= 0.5 * self.radius).all())
            fresh = bool(np.isin(reached[shell], self._minimum_numbers()[known:]).any())
            if len(minima) and inside and doublings > 0 and (not fresh or repeats == MAX_REPEATS):
                return
            if len(minima) and inside and doublings > 0:
                repeats += 1  # the shell found wells that the cube holds well inside: draw again, not wider
            else:
                self.radius *= 2
                doublings += 1
        self.converged = False
        self.warnings.append(
            f"the search region still grows at half-width {self.radius:g}: minima may lie outside (a periodic energy?); give --box"
        )

    def main_round(self) -> None:
        """The requested number of starts, in the cube found, or as the user said."""
        starts = self.config.starts
        n = self.config.n_starts
        if isinstance(starts, Points):
            x = torch.as_tensor(starts.x, dtype=self.energy.dtype, device=self.energy.device)
            if x.shape[1] != self.energy.dim:
                raise UsageError(f"start points have {x.shape[1]} columns, but the energy has dimension {self.energy.dim}")
        elif starts is not None:
            x = draw_finite(self.energy, starts, n, self.generator)
        else:
            # Half over the cube; half over the box of the minima, since the basins of inner minima are small seen from afar.
            inner = draw_finite(self.energy, self._box_of_minima(), n // 2, self.generator)
            x = torch.cat([inner, draw_finite(self.energy, self._cube(), n - n // 2, self.generator)])
        if starts is not None:
            self.center = 0.5 * (x.amax(0) + x.amin(0))
            self.radius = max(float((x - self.center).abs().max()), 1e-3 * (1 + float(self.center.abs().max())))
        self._descend(x, record=True)
        self.progress(f"minima: {len(x)} starts, {len(self._minima())} minima")
        if not len(self._minima()):
            raise EnergyError(self._no_minimum())

    def result(self) -> MinimaResult:
        points, numbers = self._minima(), self._minimum_numbers()
        found = self.catalogue.points()
        order = canonical_order(points.energy, points.x)
        state = np.full(len(self.number), -1)
        rank = {int(numbers[k]): i for i, k in enumerate(order)}
        for row, number in enumerate(self.number):
            state[row] = rank.get(int(number), -1)
        self._warn_about_rows()
        return MinimaResult(
            points.select(order), found.select(found.degenerate).ordered(), self.status, state,
            self.center.cpu().numpy(), self.radius, self.converged, tuple(self.warnings),
        )  # fmt: skip

    # -- one batch of descents -----------------------------------------------------------------------------------

    def _descend(self, x: torch.Tensor, record: bool = False) -> np.ndarray:
        """Relax, polish, escape from saddles; returns the catalogue number that each row reached (-1: none)."""
        number = np.full(len(x), -1)
        status = np.full(len(x), int(Status.UNFINISHED))
        rows = np.arange(len(x))
        for _ in range(MAX_ESCAPES):
            ended = relax(self.energy, x, self.radius, self.config.descent, center=self.center)
            status[rows] = ended["status"].cpu().numpy()
            diverged = ended["status"] == Status.DIVERGED
            if bool(diverged.any()):
                self.runaway = min(self.runaway, float(ended["energy"][diverged].min()))
            arrived = ended["status"] == Status.CONVERGED
            rows, points = rows[arrived.cpu().numpy()], ended["x"][arrived]
            number[rows] = self.catalogue.add(points, count_hits=record)
            found = self.catalogue.points()
            status[rows[number[rows] < 0]] = Status.UNFINISHED
            settled = number[rows] >= 0
            flat = settled & found.degenerate[number[rows]]
            status[rows[flat]] = Status.DEGENERATE
            on_saddle = settled & (found.index[number[rows]] > 0)
            if not on_saddle.any():
                break
            rows = rows[on_saddle]
            x = self._push_off(number[rows])
            number[rows] = -1
        if record:
            self.status, self.number = status, number
        return number

    def _push_off(self, numbers: np.ndarray) -> torch.Tensor:
        """Points beside the given saddles, along a random combination of their directions of negative curvature."""
        found = self.catalogue.points()
        x = torch.as_tensor(found.x[numbers], dtype=self.energy.dtype, device=self.energy.device)
        eigenvalues, vectors = torch.linalg.eigh(torch.as_tensor(found.hessian[numbers]))
        draw = torch.randn(eigenvalues.shape, generator=self.generator, dtype=torch.float64)
        direction = torch.einsum("nij,nj->ni", vectors, torch.where(eigenvalues < 0, draw, 0))
        direction = direction / direction.norm(dim=1, keepdim=True)
        return x + 1e-2 * self.radius * direction.to(x)

    # -- the region -----------------------------------------------------------------------------------------------

    def _coarse_descent(self) -> None:
        """Put the cube around the best of a few hundred crude descents, wide enough for where they all ended."""
        n = max(16, self.config.n_starts // 16)
        drawn = [draw_finite(self.energy, Gaussian(0.0, scale), n, self.generator) for scale in PILOT_SCALES]
        coarse = LBFGS(max_iterations=200, step_tolerance=1e-3)
        ended = relax(self.energy, torch.cat(drawn), self.radius, coarse)
        usable = (ended["status"] != Status.DIVERGED) & ended["energy"].isfinite()
        diverged = ended["status"] == Status.DIVERGED
        if bool(diverged.any()):
            self.runaway = float(ended["energy"][diverged].min())
        if not bool(usable.any()):
            raise EnergyError(self._no_minimum())
        best = torch.where(usable, ended["energy"], torch.inf).argmin()
        self.center = ended["x"][best].clone()
        spread = float((ended["x"][usable] - self.center).abs().max())
        self.radius = 2 * spread if spread > 1e-2 * PILOT_SCALES[0] else 1.0

    def _cube(self) -> Box:
        center = self.center.cpu().numpy()
        return Box(tuple(center - self.radius), tuple(center + self.radius))

    def _box_of_minima(self) -> Box:
        x = self._minima().x
        low, high = x.min(0), x.max(0)
        margin = 0.25 * max(float((high - low).max()), 0.1 * self.radius)
        return Box(tuple(low - margin), tuple(high + margin))

    # -- what was found ---------------------------------------------------------------------------------------------

    def _minima(self) -> StationaryPoints:
        return self.catalogue.points().of_index(0)

    def _minimum_numbers(self) -> np.ndarray:
        found = self.catalogue.points()
        return np.nonzero((found.index == 0) & ~found.degenerate)[0]

    def _no_minimum(self) -> str:
        found = self.catalogue.points()
        if found.degenerate.any():
            why = "the points reached are degenerate (a Hessian eigenvalue is zero: a flat direction or a continuous symmetry)"
        elif np.isfinite(self.runaway):
            why = "every start ran away: the energy is unbounded below, or flat far out"
        else:
            why = "no start converged"
        return (
            f"an analysis needs at least one minimum, but the search of {self.energy.source} found none: {why}; "
            "confine the energy, or give --box or --starts-from near its wells"
        )

    def _warn_about_rows(self) -> None:
        counts = {status: int((self.status == status).sum()) for status in Status}
        for status in (Status.DIVERGED, Status.UNFINISHED, Status.NOT_FINITE, Status.DEGENERATE):
            if counts[status]:
                self.warnings.append(f"{counts[status]} of {len(self.status)} starts: {status.text}")
        energies = self._minima().energy
        span = max(float(np.ptp(energies)), 1e-3 * (1 + abs(float(energies.min()))))
        if self.runaway < energies.min() - FAR_BELOW * span:
            self.converged = False
            self.warnings.append(
                f"the energy is unbounded below as far as the search went (E = {self.runaway:.3g} was reached): "
                "exp(-beta E) cannot be normalised, so weights compare the states found with each other only"
            )
