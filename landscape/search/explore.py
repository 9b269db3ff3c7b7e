"""The search for the whole landscape: saddles of every index, and what each index-1 saddle connects."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from landscape.energy import Energy, Periodic
from landscape.energy.symmetry import distances
from landscape.errors import UsageError
from landscape.search.basins import DENSE, USED, USED_DENSE, Basins, length_scale, make_basins
from landscape.search.descents import MANY
from landscape.search.driver import Status
from landscape.search.flow import AFTER_FLOW, FlowOptions, gradient_flow
from landscape.search.lbfgs import LBFGS, relax
from landscape.search.minima import MinimaResult
from landscape.search.recognition import KnownPoints, known_points
from landscape.search.saddles import EigenvectorFollowing, follow_eigenvectors
from landscape.search.stationary import Catalogue
from landscape.search.traces import thinned, traced_flow

ALL_INDICES_DIM = 10  # up to this dimension points of every index are searched for
SIDE_STEP = 1e-2  # how far beside a saddle its two descents begin at most, in units of the landscape's scale
SIDE_HALVINGS = 10  # that step is halved until the energy falls as the Hessian foretells
SIDE_MISMATCH = 0.75
MAX_PASSES = 4  # flows in a row of one side, each beside the saddle where the last one ended
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Starts:
    """Where walks begin: points x (n, d), and the catalogue numbers (n,) of those beside which they are, or UNKNOWN."""

    x: torch.Tensor
    beside: np.ndarray


@dataclass(frozen=True)
class SaddleSearch:
    """Hyper-parameters of `find_saddles`.

    rows : walks of the first round and of each index, plus `rows_per_point` for every point that they can start from;
        later rounds have as many while some points were met by few walks, else down to a quarter.
    max_rounds : the budget. quiet_rounds : rounds in a row that must find nothing new before the search may stop; no
        more than max_rounds, or it never could.
    sweep : descents that must find no new minimum before the search is called complete.
    max_index : highest index searched for; None: every index up to d <= 10 and 100 minima, else 1.
    """

    rows: int = 100
    rows_per_point: int = 8
    max_rounds: int = 30
    quiet_rounds: int = 2
    sweep: int = 4000
    max_index: int | None = None
    walk: EigenvectorFollowing = field(default_factory=EigenvectorFollowing)
    flow: FlowOptions = field(default_factory=FlowOptions)

    def __post_init__(self) -> None:
        if min(self.rows, self.max_rounds, self.quiet_rounds) < 1 or min(self.rows_per_point, self.sweep) < 0:
            raise UsageError(f"a saddle search needs rows, max_rounds and quiet_rounds of at least 1, not {self}")
        if self.quiet_rounds > self.max_rounds:
            raise UsageError(
                f"a saddle search of max_rounds = {self.max_rounds} cannot have quiet_rounds = {self.quiet_rounds} of "
                "them find nothing new: raise max_rounds or lower quiet_rounds"
            )
        if self.max_index is not None and self.max_index < 1:
            raise UsageError(f"max_index is at least 1, not {self.max_index}")


class Explorer:
    """Search state shared by the saddle search and the connecting of unconnected states.

    Holds the catalogue of stationary points, the basins of the minima known, and the two ends of every index-1 saddle
    (catalogue numbers, UNKNOWN where a side diverged).
    """

    def __init__(
        self,
        energy: Energy,
        catalogue: Catalogue,
        minima: MinimaResult,
        generator: torch.Generator,
        config: SaddleSearch,
    ) -> None:
        self.energy, self.catalogue, self.generator, self.config = energy, catalogue, generator, config
        self.radius = minima.radius
        self.periodic = energy.symmetry if isinstance(energy.symmetry, Periodic) else None
        self.ends: dict[int, tuple[int, int]] = {}
        self.side_status: dict[tuple[int, int], Status] = {}  # (saddle, side) -> how a side without a minimum ended
        self.descents: dict[tuple[int, int], np.ndarray] = {}  # (saddle, side) -> points from the saddle to its minimum
        self._basins: Basins | None = None
        self._basin_numbers = np.zeros(0, int)
        self._outside = 0  # so many points of the catalogue are minima, or outside the basins

    # -- what is known -----------------------------------------------------------------------------------------------

    def numbers(self, index: int) -> np.ndarray:
        """Catalogue numbers of the nondegenerate points with this index."""
        found = self.catalogue.points()
        return np.nonzero((found.index == index) & ~found.degenerate)[0]

    @property
    def scale(self) -> float:
        """Half the extent of the minima; of the search cube where there is a single one."""
        large, x = self.energy.matrix_free, self.catalogue.points().x[self.numbers(0)]
        if self.periodic is not None:  # the whole of a period is of interest
            free = length_scale(x[:, ~self.periodic.mask], 0.0) if (~self.periodic.mask).any() else 0.0
            return max(free, 0.5 * float(self.periodic.lengths[self.periodic.mask].max()))
        return length_scale(x, 0.5 * self.radius * (self.energy.dim**0.5 if large else 1), radial=large)

    @property
    def _single(self) -> bool:
        """A single minimum has no extent: its saddles are looked for in the cube searched for minima, and beyond."""
        return len(self.numbers(0)) < 2

    def basins(self) -> tuple[Basins, np.ndarray]:
        """Basins of all minima known now, none of which holds another point known now, with their catalogue numbers."""
        numbers, x = self.numbers(0), self.catalogue.points().x
        if self._basins is None or len(numbers) != len(self._basin_numbers):
            # Points keep their numbers: the minima known before come first, and their regions need no second test.
            self._basins = make_basins(self.energy, x[numbers], self.generator, self.scale, self._basins)
            self._basin_numbers, self._outside = numbers, 0
        others = np.setdiff1d(np.arange(self._outside, len(x)), numbers)
        if len(others):
            self._basins = self._basins.without(self._tensor(x[others]))
        self._outside = len(x)
        return self._basins, self._basin_numbers

    # -- one round ---------------------------------------------------------------------------------------------------

    def walk(self, starts: dict[int, Starts]) -> np.ndarray:
        """Follow eigenvectors from starts towards an index: {index: starts}, in one batch, until they come near a known
        point or a new one. Catalogue numbers of what was reached (UNKNOWN: nothing)."""
        x = torch.cat([part.x for part in starts.values()])
        target = torch.cat([torch.full((len(part.x),), index, device=x.device) for index, part in starts.items()])
        hessian = self._hessians(np.concatenate([part.beside for part in starts.values()]))
        region = self.region(2 * self.radius if self._single else self.scale)
        ended = follow_eigenvectors(
            self.energy, x, target, self.scale, region, self.config.walk, hessian, known=self._known()
        )
        arrived, numbers = ended["status"] == Status.CONVERGED, ended["label"].cpu().numpy()
        self.catalogue.credit(numbers, np.ones(len(numbers), int))
        numbers[arrived.cpu().numpy()] = self.catalogue.add(ended["x"][arrived], hits="others")
        return numbers

    def _hessians(self, numbers: np.ndarray) -> torch.Tensor | None:
        """Hessians (n, d, d) of points of the catalogue, nan where the number is UNKNOWN; None where none is kept."""
        if self.energy.matrix_free:
            return None
        hessian = self._tensor(self.catalogue.points().hessian[numbers])
        hessian[torch.as_tensor(numbers == UNKNOWN, device=hessian.device)] = torch.nan
        return hessian

    def _known(self) -> tuple[KnownPoints, torch.Tensor] | None:
        """All points by which walks may be captured, and their indices."""
        found = self.catalogue.points()
        known = known_points(self.energy, found, np.arange(len(found)))
        if known is None:
            return None
        return known, torch.as_tensor(found.index, device=self.energy.device)[known.numbers]

    def starts(self, index: int, share: float = 1.0) -> Starts:
        """Where walks to `index` begin: beside points of one index less or more, between minima, in their box. share :
        how many, in units of a full round's."""
        found = self.catalogue.points()
        below, above = self.numbers(index - 1), self.numbers(index + 1)
        minima = found.x[self.numbers(0)]
        n = math.ceil(share * (self.config.rows + self.config.rows_per_point * len(below)))
        n_between = n // 4 if len(minima) > 1 else 0
        n_beside = n // 2 if len(below) else 0
        away = self._box_starts(n - n_beside - n_between)
        if n_between:
            away = torch.cat([away, self._between(minima, index + 1, n_between)])
        parts = [Starts(away, np.full(len(away), UNKNOWN))]
        if n_beside:
            parts.append(self._beside(below, n_beside))
        if len(above):
            parts.append(self._beside(above, math.ceil(share * self.config.rows_per_point * len(above))))
        return Starts(torch.cat([part.x for part in parts]), np.concatenate([part.beside for part in parts]))

    def anywhere(self, n: int) -> Starts:
        """n starts from the box of all points known, widened by half."""
        low, high = self._box(0.5 * self.scale)
        return Starts(low + self._uniform(n, self.energy.dim) * (high - low), np.full(n, UNKNOWN))

    def sweep(self, n: int) -> None:
        """n further descents, from between the minima and from their box widened by half.

        A shallow well and its saddle can both be missed by walks, and their absence leaves the Morse sum unchanged:
        of a basin that holds a part p of this region, exp(-n p) is the chance to be missed.
        """
        minima = self.catalogue.points().x[self.numbers(0)]
        low, high = self._box(0.5 * self.scale)
        x = low + self._uniform(n, self.energy.dim) * (high - low)
        if self.energy.matrix_free:
            x = self._around(minima, n)
        elif len(minima) > 1:
            x[: n // 2] = self._between(minima, 3, n // 2)
        basins, numbers = self.basins()
        x = x[basins.nearest(x)[0] < 0]
        tested = basins.radius / (USED_DENSE if self.energy.dim <= DENSE else USED)  # no state is assigned here
        models = self.energy.dim <= MANY
        known = known_points(self.energy, self.catalogue.points(), numbers, tested, models)
        descent = LBFGS(single=self.config.walk.single)
        center = 0.5 * (low + high)
        ended = relax(self.energy, x, 0.2 * self.scale, descent, center=center, first=0.5, known=known)
        self.catalogue.add(ended["x"][ended["status"] == Status.CONVERGED])

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(x, dtype=self.energy.dtype, device=self.energy.device)

    def _uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64).to(
            self.energy.device, self.energy.dtype
        )

    def _beside(self, numbers: np.ndarray, n: int) -> Starts:
        """Random soft directions away from known points: each mode drawn in inverse proportion to its stiffness."""
        found = self.catalogue.points()
        chosen = numbers[(self._uniform(n).cpu().numpy() * len(numbers)).astype(int)]
        eigenvalues, vectors = found.lowest_modes(chosen)
        draw = torch.randn(eigenvalues.shape, generator=self.generator, dtype=torch.float64).numpy()
        soft = draw / np.sqrt(np.abs(eigenvalues) + 1e-3 * np.abs(eigenvalues).max(1, keepdims=True))
        direction = np.einsum("nij,nj->ni", vectors, soft)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = self.scale * self._uniform(n, 1) ** 2
        return Starts(self._tensor(found.x[chosen]) + length * self._tensor(direction), chosen)

    def _between(self, minima: np.ndarray, corners: int, n: int) -> torch.Tensor:
        """Random convex combinations of a minimum and some of its nearest neighbours."""
        x = self._tensor(minima)
        m = len(x)
        first = (self._uniform(n) * m).long()
        order = (torch.cdist(x, x) if self.periodic is None else distances(self.periodic, x, x)).argsort(1)
        # Neighbours by rank, near ones more often (the square), never the point itself where that can be helped.
        rank = 1 + (self._uniform(n, corners - 1).square() * (m - 1)).long().clamp_max(m - 2)
        others = order[first[:, None], rank]
        weights = -torch.log(self._uniform(n, corners).clamp_min(1e-12))
        weights = weights / weights.sum(1, keepdim=True)
        chosen = x[torch.cat([first[:, None], others], 1)]
        if self.periodic is not None:
            chosen = x[first, None] + self.periodic.difference(chosen, x[first, None])
        return torch.einsum("nc,ncd->nd", weights, chosen)

    def _box(self, margin: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The box of all stationary points known, widened by `margin`; one period of periodic coordinates."""
        x = self._tensor(self.catalogue.points().x)
        low, high = x.amin(0) - margin, x.amax(0) + margin
        if self.periodic is not None:
            mask, lengths = torch.as_tensor(self.periodic.mask).to(low.device), self._tensor(self.periodic.lengths)
            low, high = torch.where(mask, 0.0, low), torch.where(mask, lengths, high)
        return low, high

    def region(self, margin: float) -> tuple[torch.Tensor, torch.Tensor]:
        """That box, without bounds in periodic coordinates: what a walk must not leave."""
        low, high = self._box(margin)
        if self.periodic is not None:
            mask = torch.as_tensor(self.periodic.mask).to(low.device)
            low, high = torch.where(mask, -torch.inf, low), torch.where(mask, torch.inf, high)
        return low, high

    def _box_starts(self, n: int) -> torch.Tensor:
        if self.energy.matrix_free:
            return self._around(self.catalogue.points().x[self.numbers(0)], n)
        low, high = self._box(self.radius if self._single else 0.25 * self.scale)
        return low + self._uniform(n, self.energy.dim) * (high - low)

    def _around(self, minima: np.ndarray, n: int) -> torch.Tensor:
        """About the minima and between them: in many dimensions nearly all of a box is its far corners."""
        x = self._between(minima, 2, n) if len(minima) > 1 else self._tensor(minima).expand(n, -1)
        unit = torch.randn(n, self.energy.dim, generator=self.generator, dtype=torch.float64)
        return x + self.scale * self._uniform(n, 1) * self._tensor((unit / unit.norm(dim=1, keepdim=True)).numpy())

    # -- connecting ----------------------------------------------------------------------------------------------------

    def connect_saddles(self) -> None:
        """Descend both sides of every index-1 saddle that has no ends yet; minima met on the way are added."""
        pending = np.array([k for k in self.numbers(1) if k not in self.ends], int)
        if not len(pending):
            return
        beside = self._sides(pending)
        traces: list[list[np.ndarray]] = [[] for _ in beside]
        reached, status = self.descend(self._tensor(beside), traces)
        found = self.catalogue.points()
        for k, saddle in enumerate(pending):
            self.ends[int(saddle)] = (int(reached[2 * k]), int(reached[2 * k + 1]))
            for side in (0, 1):
                row = 2 * k + side
                if reached[row] == UNKNOWN:
                    self.side_status[int(saddle), side] = Status(int(status[row]))
                    continue
                end = found.x[reached[row]][None]
                if self.periodic is not None:
                    end = self.periodic.nearest(end, traces[row][-1][-1:])
                points = [found.x[saddle][None], *traces[row], end]
                self.descents[int(saddle), side] = thinned(np.concatenate(points))

    def _sides(self, saddles: np.ndarray) -> np.ndarray:
        """Points beside saddles (catalogue numbers), along -v and +v of the falling mode v: (2 n, d), pairs together.

        In a wide landscape a fixed step could pass a shallow well, so the step is the longest, of SIDE_STEP scale 2^-k,
        along which the energy falls as lambda h^2 / 2 within a factor.
        """
        found = self.catalogue.points()
        values, vectors = found.lowest_modes(saddles)
        step = SIDE_STEP * self.scale * 0.5 ** np.arange(SIDE_HALVINGS + 1)
        signed = np.stack([-vectors[:, :, 0], vectors[:, :, 0]], 1).reshape(-1, 1, self.energy.dim)
        trial = found.x[saddles].repeat(2, 0)[:, None] + step[:, None] * signed
        energy = self.energy.value(trial.reshape(-1, self.energy.dim)).reshape(len(trial), -1)
        foretold = 0.5 * values[:, 0].repeat(2)[:, None] * step**2
        good = np.abs(energy - found.energy[saddles].repeat(2)[:, None] - foretold) <= SIDE_MISMATCH * np.abs(foretold)
        longest = np.where(good.any(1), good.argmax(1), SIDE_HALVINGS)
        return trial[np.arange(len(trial)), longest]

    def descend(self, x: torch.Tensor, traces: list[list[np.ndarray]] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Where the gradient flow from each row of x (n, d) leads. `traces`, a list a row, gets the ways there.

        Returns the catalogue number of the minimum reached, UNKNOWN for none, and a `Status` (n,): CONVERGED at a
        minimum, DIVERGED,
        DEGENERATE at a point with a zero eigenvalue, NOT_FINITE, UNFINISHED.
        """
        reached, status = np.full(len(x), UNKNOWN), np.full(len(x), int(Status.UNFINISHED))
        rows = torch.arange(len(x), device=x.device)
        for _ in range(MAX_PASSES):
            basins, numbers = self.basins()
            flow = gradient_flow if traces is None else traced_flow
            ended = flow(self.energy, x, basins, self.config.flow)
            row = rows.cpu().numpy()
            if traces is not None:
                for k, trace in zip(row, ended["trace"].cpu().numpy(), strict=True):
                    traces[k].append(trace)
            label = ended["label"].cpu().numpy()
            caught = (ended["status"] == Status.CAPTURED).cpu().numpy()
            reached[row[caught]] = numbers[label[caught]]
            status[row] = np.where(caught, int(Status.CONVERGED), ended["status"].cpu().numpy())
            rest = (ended["status"] == Status.CONVERGED) | (ended["status"] == Status.UNFINISHED)
            if not bool(rest.any()):
                break
            rows = rows[rest]
            at = self._come_to_rest(ended["x"][rest], basins)
            found = self.catalogue.points()
            row, kind = rows.cpu().numpy(), np.where(at < 0, int(Status.UNFINISHED), int(Status.CONVERGED))
            kind[(at >= 0) & found.degenerate[at]] = Status.DEGENERATE
            status[row] = kind
            minimum = (kind == Status.CONVERGED) & (found.index[at] == 0)
            reached[row[minimum]] = at[minimum]
            # A flow may end on another saddle where symmetry leads it there: go on beside it.
            again = (at >= 0) & (found.index[at] > 0)
            if not again.any():
                break
            status[row[again]] = Status.UNFINISHED
            rows = rows[torch.as_tensor(again, device=rows.device)]
            x = self._tensor(self._sides(at[again])[1::2])
        return reached, status

    def _come_to_rest(self, x: torch.Tensor, basins: Basins) -> np.ndarray:
        """Catalogue numbers of the points beside which flows have ended, -1 where there is none."""
        relaxed = relax(self.energy, x, AFTER_FLOW * basins.nearest(x)[1], center=x)
        arrived = relaxed["status"] == Status.CONVERGED
        at = np.full(len(x), UNKNOWN)
        at[arrived.cpu().numpy()] = self.catalogue.add(relaxed["x"][arrived])
        return at
