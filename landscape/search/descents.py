"""Descents from many starts to minima: polish, escape from saddles, and what ran away."""

from __future__ import annotations

import numpy as np
import torch

from landscape.energy import Energy, Periodic
from landscape.search.driver import State, Status
from landscape.search.lbfgs import FIRST, LBFGS, relax
from landscape.search.recognition import known_points
from landscape.search.stationary import DEGENERATE, Catalogue, StationaryPoints

MAX_ESCAPES = 10  # rounds in which rows on saddles and plateaus are pushed off
CLIMB = 1e-3  # a polish may raise the energy by this part of 1 + |E|
FAR_BELOW = 1e3  # a runaway has fallen this many energy spans below the lowest minimum
SAMPLE = 28  # where nothing is known, one row in so many goes first: the others know what these find
SECOND = 7  # and in many dimensions one row in so many next: descents are long there, and known minima cut them short
STRAGGLERS = 0.125  # part of those that go on with the next, rather than hold these up
# Dimensions beyond which minima are recognised by products, and first steps measured by the diagonal of the cube, as
# the distances to minima are. The steps of a known minimum's model would lead from afar into the basin of another one:
# a quarter of all rows in 128 dimensions, a twentieth in 32.
MANY = 50


class Descents:
    """Descents within center (d,) +- radius, of which a catalogue keeps the ends. runaway : lowest energy of a diverged
    row. periodic : the energy's symmetry where it has periods; free (d,) : coordinates without one."""

    def __init__(self, energy: Energy, options: LBFGS, generator: torch.Generator, catalogue: Catalogue) -> None:
        self.energy, self.options, self.generator, self.catalogue = energy, options, generator, catalogue
        self.center = torch.zeros(energy.dim, dtype=energy.dtype, device=energy.device)
        self.radius = 1.0
        self.many = energy.matrix_free or energy.dim > MANY
        self.runaway = np.inf
        self.periodic = energy.symmetry if isinstance(energy.symmetry, Periodic) else None
        periodic = torch.zeros(energy.dim, dtype=torch.bool, device=energy.device)
        self.free = ~periodic if self.periodic is None else ~torch.as_tensor(self.periodic.mask).to(periodic)

    def to_minima(self, x: torch.Tensor, *, count: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Descend from rows (n, d): the catalogue number (n,) that each of them reached, -1 for none, and its `Status`
        (n,). Rows that end on saddles and plateaus are pushed off and go on.

        count : as hits of the points reached.
        """
        number = np.full(len(x), -1)
        status = np.full(len(x), int(Status.UNFINISHED))
        if len(x) > SAMPLE and not len(self.minima()):
            turn = np.minimum(np.arange(len(x)) % SAMPLE, 1)
            if self.many:
                turn[(turn > 0) & (np.arange(len(x)) % SECOND > 0)] = 2
            x, last = x.clone(), turn.max()
            for k in range(last + 1):
                rows = np.flatnonzero(turn == k)
                at, leave = torch.as_tensor(rows, device=x.device), STRAGGLERS if k < last else 0.0
                number[rows], status[rows], x[at], left = self._to_minima(x[at], count, leave)
                turn[rows[left]] += 1
            return number, status
        return self._to_minima(x, count)[:2]

    def _to_minima(
        self, x: torch.Tensor, count: bool, leave: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, torch.Tensor, np.ndarray]:
        """Also where each row's last descent ended (n, d), and whether it was left behind (n,). leave : see `relax`."""
        number = np.full(len(x), -1)
        status = np.full(len(x), int(Status.UNFINISHED))
        ends, left = x.clone(), np.zeros(len(x), bool)
        pushed = np.zeros(len(x), bool)  # rows that were moved off a degenerate point: once is enough
        rows = np.arange(len(x))
        for _ in range(MAX_ESCAPES):
            known = known_points(self.energy, self.catalogue.points(), self.minimum_numbers(), models=not self.many)
            first = FIRST * (self.energy.dim**0.5 if self.many else 1.0)
            ended = relax(
                self.energy, x, self.radius, self.options, center=self.center, first=first, known=known, leave=leave
            )
            ends[torch.as_tensor(rows, device=x.device)] = ended["x"]
            behind = (ended["status"] == Status.UNFINISHED) & (ended["iterations"] < self.options.max_iterations)
            left[rows] = behind.cpu().numpy()
            at = self.settle(ended, count)
            status[rows], number[rows] = ended["status"].cpu().numpy(), at
            rows, at = rows[at >= 0], at[at >= 0]
            found = self.catalogue.points()
            flat = found.degenerate[at]
            status[rows[flat]] = Status.DEGENERATE
            unstable = (found.index[at] > 0) | (flat & ~pushed[rows])
            if not unstable.any():
                break
            pushed[rows[flat]] = True
            rows, at = rows[unstable], at[unstable]
            x = self._push_off(at)
            status[rows], number[rows] = Status.UNFINISHED, -1
        return number, status, ends, left

    def settle(self, ended: State, count: bool = False) -> np.ndarray:
        """Polish the rows of a descent: their catalogue numbers, -1 for none. Corrects `ended["status"]` in place."""
        status = ended["status"]
        self._note_runaways(ended)
        at, arrived = ended["number"].cpu().numpy(), (status == Status.CONVERGED).cpu().numpy()
        status[status == Status.CAPTURED] = int(Status.CONVERGED)
        if count:
            self.catalogue.credit(at, np.ones_like(at))
        at[arrived] = self.catalogue.add(ended["x"][arrived], hits="minima" if count else "none")
        found = self.catalogue.points()
        # A polish that climbs has left for a point which is not where the descent led.
        energy, rows = ended["energy"].cpu().numpy(), np.nonzero(at >= 0)[0]
        climbed = found.energy[at[rows]] - energy[rows] > CLIMB * (1 + np.abs(energy[rows]))
        at[rows[climbed]] = -1
        status[torch.as_tensor(arrived & (at < 0), device=status.device)] = Status.UNFINISHED
        minima = self.minima().energy
        if len(minima):
            below = ended["energy"] < minima.min() - FAR_BELOW * self.energy_span()
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

    # -- what was found ------------------------------------------------------------------------------------------------

    def minima(self) -> StationaryPoints:
        return self.catalogue.points().of_index(0)

    def minimum_numbers(self) -> np.ndarray:
        """Catalogue numbers of the minima."""
        found = self.catalogue.points()
        return np.nonzero((found.index == 0) & ~found.degenerate)[0]

    def energy_span(self) -> float:
        """Spread of the minima's energies; a thousandth of their size where there is a single level."""
        energies = self.minima().energy
        return max(float(np.ptp(energies)), 1e-3 * (1 + float(np.abs(energies).min())))

    def unbounded(self) -> bool:
        """Whether a row has run away far below the lowest minimum."""
        return bool(self.runaway < self.minima().energy.min() - FAR_BELOW * self.energy_span())

    def no_minimum(self) -> str:
        """Why there is none."""
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
