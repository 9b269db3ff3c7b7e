"""Which known stationary point a search is about to reach, told from energies and gradients that it has anyway."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from landscape.energy import Energy, Periodic
from landscape.energy.symmetry import distances
from landscape.search.stationary import NEWTON_TOLERANCE, NOISE, StationaryPoints

TOLERANCE = 0.1  # of the model of a known point, relative to the size of what it foretells
BLOCK = 2**22  # numbers in the matrices that are gathered together


@dataclass(frozen=True, eq=False)
class KnownPoints:
    """Nondegenerate stationary points x_i with their quadratic models E_i + dx.H_i dx / 2, dx = y - x_i.

    numbers (k,) : their numbers in the catalogue. x (k, d). energy (k,). eigenvalues (k, d) : of the Hessians, none 0.
    modes (k, d, d) : eigenvectors, one a row. symmetry : of a periodic energy, whose copies are all looked at.
    """

    numbers: torch.Tensor
    x: torch.Tensor
    energy: torch.Tensor
    eigenvalues: torch.Tensor
    modes: torch.Tensor
    symmetry: Periodic | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def to(self, like: torch.Tensor) -> KnownPoints:
        """The same on the device and in the precision of `like`."""
        parts = {name: getattr(self, name).to(like) for name in ("x", "energy", "eigenvalues", "modes")}
        return replace(self, numbers=self.numbers.to(like.device), **parts)

    def recognise(
        self, y: torch.Tensor, energy: torch.Tensor, gradient: torch.Tensor, tolerance: float = TOLERANCE
    ) -> torch.Tensor:
        """Numbers (n,) of the points beside which y (n, d) lie, energy (n,) and gradient (n, d) there given; -1: none.

        In scaled modes, u = |L|^(1/2) V dx and w = |L|^(-1/2) V grad E with H = V' L V and s = sign L, the model of the
        nearest point foretells w = s u and E - E_i = s.u^2 / 2. It has to be right to |w - s u| <= tolerance |u| and
        |E - E_i - s.u^2 / 2| <= tolerance |u|^2 / 2, but for rounding. |w - s u| is how far Newton's step from y misses
        x_i, in the norm of the energy: neither units of length nor stiff modes beside soft ones change the answer.
        """
        number = self.numbers.new_full((len(y),), -1)
        if not len(self):
            return number
        at = distances(self.symmetry, y, self.x).argmin(1)
        noise = NOISE * torch.finfo(y.dtype).eps * (1 + energy.abs())
        for rows in torch.arange(len(y), device=y.device).split(max(1, BLOCK // self.modes[0].numel())):
            near = at[rows]
            away = self._away(y[rows], near)
            stiffness = self.eigenvalues[near]
            root = stiffness.abs().sqrt()
            both = torch.bmm(self.modes[near], torch.stack([away, gradient[rows]], 2))
            u, w = root * both[:, :, 0], both[:, :, 1] / root
            size = u.square().sum(1)
            # Points are known to the tolerance of their polish.
            floor = root.amax(1) * NEWTON_TOLERANCE * (1 + y[rows].norm(dim=1))
            missed = (w - stiffness.sign() * u).norm(dim=1) <= tolerance * size.sqrt() + floor
            foretold = 0.5 * (stiffness.sign() * u.square()).sum(1)
            rise = (energy[rows] - self.energy[near] - foretold).abs() <= 0.5 * tolerance * size + noise[rows]
            number[rows] = torch.where(missed & rise, self.numbers[near], -1)
        return number

    def _away(self, y: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        return y - self.x[near] if self.symmetry is None else self.symmetry.difference(y, self.x[near])


def known_points(energy: Energy, found: StationaryPoints, rows: np.ndarray) -> KnownPoints | None:
    """The nondegenerate ones of some points of a catalogue (their numbers, (m,)); None where there is none, or where
    Hessians are not kept, or points have copies by more than periods."""
    if energy.matrix_free or not (energy.symmetry is None or isinstance(energy.symmetry, Periodic)):
        return None
    sharp = np.asarray(rows)[~found.degenerate[rows]]
    if not len(sharp):
        return None
    values, vectors = found.lowest_modes(sharp)
    x = torch.as_tensor(found.x[sharp], dtype=energy.dtype, device=energy.device)
    level, curvature = torch.as_tensor(found.energy[sharp]).to(x), torch.as_tensor(values).to(x)
    modes = torch.as_tensor(vectors).to(x).mT.contiguous()
    return KnownPoints(torch.as_tensor(sharp, device=energy.device), x, level, curvature, modes, energy.symmetry)
