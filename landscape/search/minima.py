"""Multi-start search for minima, with saddle escape and a scale found from the energy itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import torch

from landscape.energy import Energy, ParticleSymmetry, Periodic, as_energy
from landscape.errors import EnergyError, UsageError
from landscape.search.driver import State, Status
from landscape.search.lbfgs import LBFGS, relax
from landscape.search.starts import Box, Gaussian, Points, draw_finite
from landscape.search.stationary import DEGENERATE, Catalogue, StationaryPoints, canonical_order
from landscape.search.unseen import LARGE, Unseen, unseen_probability

Progress = Callable[[str], None]

PILOT_SCALES = (0.1, 0.3, 1.0, 3.0)  # standard deviations of the coarse descent's starts
FAR_PILOTS = (10.0, 100.0, 1e3, 1e4)  # more of them, a few starts each, for landscapes in other units of length
N_FAR = 8
MAX_DOUBLINGS = 10
MAX_REPEATS = 4  # further draws at one width while the shell still finds new minima well inside
MAX_ESCAPES = 10  # rounds in which rows on saddles and plateaus are pushed off
CLIMB = 1e-3  # a polish may raise the energy by this part of 1 + |E|
NEAR_DECADES = 3.0  # starts around known minima reach from the radius down to a thousandth of it
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
        if not isinstance(self.n_starts, Integral) or self.n_starts < 1:
            raise UsageError(f"a search needs a whole number of starts, at least 1, not {self.n_starts!r}")


@dataclass(frozen=True)
class MinimaResult:
    """What `find_minima` returns.

    minima : nondegenerate minima, lowest energy first. degenerate : points with a zero Hessian eigenvalue, apart.
    start_status (n,) : a `Status` code for each start. start_state (n,) : the minimum each start reached, -1 for none.
    center (d,), radius : the cube center +- radius that was searched.
    converged : the cube holds every minimum in its inner half and its outer shell gave nothing new.
    warnings : texts. unseen : how probable it is that a further start finds a new minimum; None for given points, which
    are no random sample.
    """

    minima: StationaryPoints
    degenerate: StationaryPoints
    start_status: np.ndarray
    start_state: np.ndarray
    center: np.ndarray
    radius: float
    converged: bool
    warnings: tuple[str, ...]
    unseen: Unseen | None = None


@dataclass(frozen=True, eq=False)
class Region:
    """The cube center +- radius, center (d,), that a search for minima has found to hold them."""

    center: np.ndarray
    radius: float


def find_minima(
    energy: Energy | Callable[[torch.Tensor], torch.Tensor],
    config: MinimaSearch | None = None,
    *,
    generator: torch.Generator | None = None,
    catalogue: Catalogue | None = None,
    progress: Progress | None = None,
    region: Region | None = None,
) -> MinimaResult:
    """All minima that a batched multi-start descent reaches.

    Every start descends by L-BFGS, is polished by Newton's method and classified by its Hessian. A start that lands
    on a saddle or plateau is pushed off along negative curvature and goes on (Jin et al. 2017; Zhang and Li 2021), so a
    saddle is never reported as a minimum. Rows that run away are DIVERGED and reported, never dropped silently.

    energy : an `Energy`, or a torch callable with a `dim`; others go through `landscape.as_energy` first.
    `catalogue` collects every stationary point met on the way. `region` : that of an earlier search, in place of a
    search for the energy's scale. Raises EnergyError if no start reaches a minimum.
    """
    energy = as_energy(energy)
    config = config or MinimaSearch()
    generator = generator or torch.Generator().manual_seed(0)
    catalogue = catalogue if catalogue is not None else Catalogue(energy)
    if isinstance(energy.symmetry, ParticleSymmetry):
        from landscape.search.particles import find_particle_minima  # it takes its options and result from here

        return find_particle_minima(energy, config, generator, catalogue, progress)
    search = _MultiStart(energy, config, generator, catalogue, progress or (lambda text: None))
    if region is not None:
        search.center, search.radius = torch.as_tensor(region.center).to(search.center), region.radius
    elif config.starts is None:
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
        self.periodic = energy.symmetry if isinstance(energy.symmetry, Periodic) else None
        periodic = torch.zeros(energy.dim, dtype=torch.bool, device=energy.device)
        self.free = ~periodic if self.periodic is None else ~torch.as_tensor(self.periodic.mask).to(periodic)
        self.converged = True
        self.status = np.zeros(0, int)
        self.number = np.zeros(0, int)  # catalogue number that each start reached, -1 for none
        self.known_before = np.zeros(0, int)  # minima known before the main round
        self.runaway = np.inf  # lowest energy of a diverged row
        self.warnings: list[str] = []

    # -- the rounds -----------------------------------------------------------------------------------------------

    def find_scale(self) -> None:
        """Double the cube until every minimum lies in its inner half and the outer shell yields nothing new."""
        self._coarse_descent()
        if not bool(self.free.any()):
            return
        n = max(64, self.config.n_starts // 8)
        doublings = repeats = 0
        while doublings <= MAX_DOUBLINGS:
            known = len(self._minima())
            x = draw_finite(self.energy, self._cube(), n, self.generator)
            shell = ((x - self.center)[:, self.free].abs().amax(1) > 0.5 * self.radius).cpu().numpy()
            reached = self._descend(x)
            minima = self._minima()
            self.progress(f"minima: cube half-width {self.radius:.3g}, {len(minima)} minima")
            gap = np.abs(minima.x - self.center.cpu().numpy())[:, self.free.cpu().numpy()]
            inside = bool((gap <= 0.5 * self.radius).all())
            fresh = bool(np.isin(reached[shell], self._minimum_numbers()[known:]).any())
            inside = inside and len(minima) > 0
            if inside and doublings > 0 and (not fresh or repeats == MAX_REPEATS):
                return
            if inside and doublings > 0:
                repeats += 1  # the shell found wells that the cube holds well inside: draw again, not wider
            else:
                self.radius *= 2
                doublings += 1
        if not len(self._minima()):
            return  # the main round says why there is none
        raise EnergyError(
            f"the minima of an energy lie in a bounded region, but {self.energy.source} has ever more of them up to "
            f"half-width {self.radius:g} (a periodic energy? declare its periods); give --box, or starts of your own"
        )

    def main_round(self) -> None:
        """The requested number of starts, in the cube found, or as the user said."""
        starts = self.config.starts
        n = self.config.n_starts
        if isinstance(starts, Points):
            x = torch.as_tensor(starts.x, dtype=self.energy.dtype, device=self.energy.device)
            if x.shape[1] != self.energy.dim:
                raise UsageError(
                    f"start points have {x.shape[1]} columns, but the energy has dimension {self.energy.dim}"
                )
        elif starts is not None:
            x = draw_finite(self.energy, starts, n, self.generator)
        else:
            # Half over the cube; the others over the box of the minima and around single minima, since inner basins are
            # small seen from afar.
            inner = n // 4 if len(self._minima()) else 0
            parts = [draw_finite(self.energy, self._cube(), n - 2 * inner, self.generator)]
            if inner:
                parts += [
                    draw_finite(self.energy, self._box_of_minima(), inner, self.generator),
                    self._near_minima(inner),
                ]
            x = torch.cat(parts)
        if starts is not None:
            self.center = 0.5 * (x.amax(0) + x.amin(0))
            extent = float((x - self.center).abs().max())
            # A single start has no extent, and the descent of a narrow bundle may still lead far.
            self.radius = max(extent, 1e-2 * (1 + float(self.center.abs().max()))) if extent > 0 else 1.0
        self.known_before = self._minimum_numbers()
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
        unseen = self._unseen()
        return MinimaResult(
            points.select(order), found.select(found.degenerate).ordered(), self.status, state,
            self.center.cpu().numpy(), self.radius, self.converged, tuple(self.warnings), unseen,
        )  # fmt: skip

    # -- one batch of descents -----------------------------------------------------------------------------------

    def _descend(self, x: torch.Tensor, record: bool = False) -> np.ndarray:
        """Relax, polish, escape from saddles; returns the catalogue number that each row reached (-1: none)."""
        number = np.full(len(x), -1)
        status = np.full(len(x), int(Status.UNFINISHED))
        pushed = np.zeros(
            len(x), bool
        )  # rows that were moved off a plateau or another degenerate point: once is enough
        rows = np.arange(len(x))
        for _ in range(MAX_ESCAPES):
            ended = relax(self.energy, x, self.radius, self.config.descent, center=self.center)
            at = self._settle(ended, record)
            status[rows], number[rows] = ended["status"].cpu().numpy(), at
            rows, at = rows[at >= 0], at[at >= 0]
            found = self.catalogue.points()
            flat = found.degenerate[at]
            status[rows[flat]] = Status.DEGENERATE
            leave = (found.index[at] > 0) | (flat & ~pushed[rows])
            if not leave.any():
                break
            pushed[rows[flat]] = True
            rows, at = rows[leave], at[leave]
            x = self._push_off(at)
            status[rows], number[rows] = Status.UNFINISHED, -1
        if record:
            self.status, self.number = status, number
        return number

    def _settle(self, ended: State, record: bool) -> np.ndarray:
        """Polish the rows of a descent: their catalogue numbers, -1 for none. Corrects `ended["status"]` in place."""
        status = ended["status"]
        self._note_runaways(ended)
        at = np.full(len(status), -1)
        arrived = (status == Status.CONVERGED).cpu().numpy()
        at[arrived] = self.catalogue.add(ended["x"][arrived], hits="minima" if record else "none")
        found = self.catalogue.points()
        # A polish that climbs has left for a point which is not where the descent led.
        energy, rows = ended["energy"].cpu().numpy(), np.nonzero(at >= 0)[0]
        climbed = found.energy[at[rows]] - energy[rows] > CLIMB * (1 + np.abs(energy[rows]))
        at[rows[climbed]] = -1
        status[torch.as_tensor(arrived & (at < 0), device=status.device)] = Status.UNFINISHED
        minima = self._minima().energy
        if len(minima):
            below = ended["energy"] < minima.min() - FAR_BELOW * self._energy_span()
            status[below & (status == Status.UNFINISHED)] = Status.DIVERGED
            self._note_runaways(ended)
        return at

    def _note_runaways(self, ended: State) -> None:
        diverged = ended["status"] == Status.DIVERGED
        if bool(diverged.any()):
            self.runaway = min(self.runaway, float(ended["energy"][diverged].nan_to_num(-torch.inf).min()))

    def _push_off(self, numbers: np.ndarray) -> torch.Tensor:
        """Points beside the given saddles and plateaus, along a random combination of their falling (or flat) modes."""
        found = self.catalogue.points()
        x = torch.as_tensor(found.x[numbers], dtype=self.energy.dtype, device=self.energy.device)
        eigenvalues, vectors = (torch.as_tensor(part, dtype=torch.float64) for part in found.lowest_modes(numbers))
        largest = torch.as_tensor(np.abs(found.eigenvalues[numbers]).max(1), dtype=torch.float64)
        draw = torch.randn(eigenvalues.shape, generator=self.generator, dtype=torch.float64)
        falling = eigenvalues < 0
        flat = torch.as_tensor(found.degenerate[numbers])[:, None] & (
            eigenvalues.abs() <= DEGENERATE * largest[:, None]
        )
        modes = torch.where(falling.any(1, keepdim=True), falling, flat)
        modes = torch.where(modes.any(1, keepdim=True), modes, True)  # a Hessian that vanishes as a whole
        direction = torch.einsum("nij,nj->ni", vectors, torch.where(modes, draw, 0))
        direction = direction / direction.norm(dim=1, keepdim=True)
        return x + 1e-2 * self.radius * direction.to(x)

    # -- the region -----------------------------------------------------------------------------------------------

    def _coarse_descent(self) -> None:
        """Put the cube around the lowest minimum of a few hundred descents, wide enough for all the minima they meet.

        The starts lie around the origin; most of them at distances of order 1, a few each much farther out. A second
        round starts around the best point of the first, for wells far from the origin.
        """
        for center in (None, self.center):
            x, reach = self._pilot_starts(center)
            ended = relax(self.energy, x, reach, LBFGS(max_iterations=200), center=center)
            self._settle(ended, record=False)
            minima = self._minima()
            usable = (ended["status"] != Status.DIVERGED) & ended["energy"].isfinite()
            if len(minima):
                best = torch.as_tensor(minima.x[minima.energy.argmin()])
            elif bool(usable.any()):
                best = ended["x"][torch.where(usable, ended["energy"], torch.inf).argmin()]
            else:
                raise EnergyError(self._no_minimum())
            self.center.copy_(best)
            near = float((self.center).abs().max()) < PILOT_SCALES[-1]
            if near:
                break
        ends = torch.as_tensor(minima.x).to(x) if len(minima) else ended["x"][usable]
        if not bool(self.free.any()):
            self.radius = 0.5 * float(self.periodic.lengths.max()) if self.periodic is not None else self.radius
            return
        spread = float((ends - self.center)[:, self.free].abs().max())
        self.radius = 2 * spread if spread > 1e-4 * (1 + float(self.center.abs().max())) else 1.0

    def _pilot_starts(self, center: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Finite starts of the coarse descent and the length scale that each of them assumes."""
        n = max(16, self.config.n_starts // 16)
        counts = torch.tensor([n] * len(PILOT_SCALES) + [N_FAR] * len(FAR_PILOTS))
        scale = torch.tensor(PILOT_SCALES + FAR_PILOTS, dtype=torch.float64).repeat_interleave(counts)
        unit = torch.randn(len(scale), self.energy.dim, generator=self.generator, dtype=torch.float64)
        x = (scale[:, None] * unit).to(self.energy.device, self.energy.dtype)
        if center is not None:
            x = x + center
        finite = self.energy.value(x).isfinite()
        if not bool(finite.any()):
            x = draw_finite(self.energy, Gaussian(0.0, PILOT_SCALES[-1]), n, self.generator)
            return x, torch.ones(n, dtype=x.dtype, device=x.device)
        return x[finite], scale.to(x).clamp_min(1.0)[finite]

    def _cube(self) -> Box:
        center, reach = self.center.cpu().numpy(), np.full(self.energy.dim, self.radius)
        if self.periodic is not None:  # one period is all there is
            reach = np.where(self.periodic.mask, 0.5 * self.periodic.lengths, reach)
        return Box(tuple(center - reach), tuple(center + reach))

    def _box_of_minima(self) -> Box:
        x = self._minima().x
        low, high = x.min(0), x.max(0)
        margin = 0.25 * max(float((high - low).max()), 0.1 * self.radius)
        return Box(tuple(low - margin), tuple(high + margin))

    def _near_minima(self, n: int) -> torch.Tensor:
        """n points around random minima, at distances spread evenly over the orders of magnitude below the radius."""
        minima = self._minima().x
        draw = torch.rand(n, 2, generator=self.generator, dtype=torch.float64)
        unit = torch.randn(n, self.energy.dim, generator=self.generator, dtype=torch.float64)
        unit = unit / unit.norm(dim=1, keepdim=True)
        chosen = torch.as_tensor(minima)[(draw[:, 0] * len(minima)).long()]
        x = chosen + self.radius * 10 ** (-NEAR_DECADES * draw[:, 1:]) * unit
        x = x.to(self.energy.device, self.energy.dtype)
        finite = self.energy.value(x).isfinite()
        return torch.where(finite[:, None], x, chosen.to(x))

    # -- what was found ---------------------------------------------------------------------------------------------

    def _minima(self) -> StationaryPoints:
        return self.catalogue.points().of_index(0)

    def _energy_span(self) -> float:
        """Spread of the minima's energies; a thousandth of their size where there is a single level."""
        energies = self._minima().energy
        return max(float(np.ptp(energies)), 1e-3 * (1 + float(np.abs(energies).min())))

    def _minimum_numbers(self) -> np.ndarray:
        found = self.catalogue.points()
        return np.nonzero((found.index == 0) & ~found.degenerate)[0]

    def _no_minimum(self) -> str:
        found = self.catalogue.points()
        if found.degenerate.any():
            why = "the points reached are degenerate (a zero Hessian eigenvalue: a flat direction or a symmetry)"
        elif self.runaway < np.inf:
            why = "every start ran away: the energy is unbounded below, or flat far out"
        else:
            why = "no start came to a point with zero gradient (kinks, singularities, or too few iterations)"
        return (
            f"an analysis needs at least one minimum, but the search of {self.energy.source} found none: {why}; "
            "confine the energy, or give --box or --starts-from near its wells"
        )

    def _unseen(self) -> Unseen | None:
        if isinstance(self.config.starts, Points):
            return None
        reached = np.where(np.isin(self.number, self._minimum_numbers()), self.number, -1)
        unseen = unseen_probability(reached, self.known_before)
        if unseen.upper > LARGE:
            self.warnings.append(
                f"up to {unseen.upper:.1%} of further starts may find a minimum that no start has found yet "
                f"({unseen.confidence:.0%} confidence; estimate {unseen.estimate:.1%} from {unseen.starts} starts): "
                "search with more starts"
            )
        return unseen

    def _warn_about_rows(self) -> None:
        counts = {status: int((self.status == status).sum()) for status in Status}
        for status in (Status.DIVERGED, Status.UNFINISHED, Status.NOT_FINITE, Status.DEGENERATE):
            if counts[status]:
                self.warnings.append(f"{counts[status]} of {len(self.status)} starts: {status.text}")
        energies = self._minima().energy
        if self.runaway < energies.min() - FAR_BELOW * self._energy_span():
            self.converged = False
            self.warnings.append(
                f"the energy is unbounded below as far as the search went (E = {self.runaway:.3g} was reached): "
                "exp(-beta E) cannot be normalised, so weights compare the states found with each other only"
            )
