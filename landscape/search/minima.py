"""Multi-start search for minima, with saddle escape, a scale found from the energy itself, and hops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import torch

from landscape.energy import Energy, ParticleSymmetry, as_energy
from landscape.errors import EnergyError, UsageError
from landscape.search.descents import Descents
from landscape.search.driver import Status
from landscape.search.hops import hop
from landscape.search.lbfgs import LBFGS
from landscape.search.region import Region, find_scale, region_starts
from landscape.search.starts import Box, Gaussian, Points, draw_finite
from landscape.search.stationary import Catalogue, StationaryPoints, canonical_order
from landscape.search.unseen import LARGE, Unseen, unseen_probability

Progress = Callable[[str], None]


@dataclass(frozen=True)
class MinimaSearch:
    """Hyper-parameters of `find_minima`.

    n_starts : rows of the multi-start search (ignored for given points).
    starts : Box, Gaussian, Points, or None: a cube that finds the energy's own scale.
    descent : the local optimiser.
    hops : further descents from known minima at most, as a multiple of the starts; None: 1, and 0 for given points.
    """

    n_starts: int = 1000
    starts: Box | Gaussian | Points | None = None
    descent: LBFGS = field(default_factory=LBFGS)
    hops: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.n_starts, Integral) or self.n_starts < 1:
            raise UsageError(f"a search needs a whole number of starts, at least 1, not {self.n_starts!r}")
        if self.hops is not None and not 0 <= self.hops < np.inf:
            raise UsageError(f"hops are a multiple of the starts, a number of at least 0, not {self.hops!r}")


@dataclass(frozen=True)
class MinimaResult:
    """What `find_minima` returns.

    minima : nondegenerate minima, lowest energy first. degenerate : points with a zero Hessian eigenvalue, apart.
    start_status (n,) : a `Status` code for each start. start_state (n,) : the minimum each start reached, -1 for none.
    center (d,), radius : the cube center +- radius that was searched.
    converged : no row ran away far below the lowest minimum.
    warnings : texts. unseen : how probable it is that a further start, drawn as the n were, finds a minimum that none
    of them found (hops, which begin where something was found, do not enter); None for given points, which are no
    random sample.
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

    Every start descends by L-BFGS until it comes to rest, or where energy and gradient are those of the model of a
    minimum that is known by then; new points are polished by Newton's method and classified by their Hessians. Some
    starts go first, so that the others know what these found. A start that lands on a saddle or plateau is pushed off
    along negative curvature and goes on (Jin et al. 2017; Zhang and Li 2021), so a saddle is never reported as a
    minimum. Rows that run away are DIVERGED and reported, never dropped silently. Where minima were met by so few
    starts that another search would miss .05 of them or more on average, hops from those met least often follow, until
    they find nothing more.

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
    report = progress or (lambda text: None)
    descents = Descents(energy, config.descent, generator, catalogue)
    if region is not None:
        descents.center, descents.radius = torch.as_tensor(region.center).to(descents.center), region.radius
    elif config.starts is None:
        find_scale(descents, config.n_starts, report)
    x = _starts(descents, config)
    known_before = descents.minimum_numbers()
    number, status = descents.to_minima(x, count=True)
    report(f"minima: {len(x)} starts, {len(descents.minima())} minima")
    if not len(descents.minima()):
        raise EnergyError(descents.no_minimum())
    given = isinstance(config.starts, Points)
    unseen = None if given else _unseen(descents, number, known_before)
    most = config.hops if config.hops is not None else 0.0 if given else 1.0
    hop(descents, len(x), round(most * len(x)), report)
    return _result(descents, number, status, unseen)


def _starts(descents: Descents, config: MinimaSearch) -> torch.Tensor:
    """The requested number of starts (n, d), in the cube found, or as the user said."""
    energy, starts = descents.energy, config.starts
    if starts is None:
        return region_starts(descents, config.n_starts)
    if isinstance(starts, Points):
        x = torch.as_tensor(starts.x, dtype=energy.dtype, device=energy.device)
        if x.shape[1] != energy.dim:
            raise UsageError(f"start points have {x.shape[1]} columns, but the energy has dimension {energy.dim}")
    else:
        x = draw_finite(energy, starts, config.n_starts, descents.generator)
    descents.center = 0.5 * (x.amax(0) + x.amin(0))
    extent = float((x - descents.center).abs().max())
    # A single start has no extent, and the descent of a narrow bundle may still lead far.
    descents.radius = max(extent, 1e-2 * (1 + float(descents.center.abs().max()))) if extent > 0 else 1.0
    return x


def _unseen(descents: Descents, number: np.ndarray, known_before: np.ndarray) -> Unseen:
    reached = np.where(np.isin(number, descents.minimum_numbers()), number, -1)
    return unseen_probability(reached, known_before)


def _result(descents: Descents, number: np.ndarray, status: np.ndarray, unseen: Unseen | None) -> MinimaResult:
    """number, status (n,) : what each start came to."""
    points, found = descents.minima(), descents.catalogue.points()
    order = canonical_order(points.energy, points.x)
    state = np.full(len(number), -1)
    rank = {int(k): i for i, k in enumerate(descents.minimum_numbers()[order])}
    for row, k in enumerate(number):
        state[row] = rank.get(int(k), -1)
    return MinimaResult(
        points.select(order), found.select(found.degenerate).ordered(), status, state,
        descents.center.cpu().numpy(), descents.radius, not descents.unbounded(),
        tuple(_warnings(descents, status, unseen)), unseen,
    )  # fmt: skip


def _warnings(descents: Descents, status: np.ndarray, unseen: Unseen | None) -> list[str]:
    warnings = []
    for kind in (Status.DIVERGED, Status.UNFINISHED, Status.NOT_FINITE, Status.DEGENERATE):
        if count := int((status == kind).sum()):
            warnings.append(f"{count} of {len(status)} starts: {kind.text}")
    if descents.unbounded():
        warnings.append(
            f"the energy is unbounded below as far as the search went (E = {descents.runaway:.3g} was reached): "
            "exp(-beta E) cannot be normalised, so weights compare the states found with each other only"
        )
    if unseen is not None and unseen.upper > LARGE:
        warnings.append(
            f"up to {unseen.upper:.1%} of further starts may find a minimum that no start has found yet "
            f"({unseen.confidence:.0%} confidence; estimate {unseen.estimate:.1%} from {unseen.starts} starts): "
            "search with more starts"
        )
    return warnings
