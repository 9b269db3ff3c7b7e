"""The smallest change of an energy network that meets a few conditions.

Conditions c(v) = goal on parameters v, few of them, are solved by Gauss-Newton steps, each the one of least norm:

    minimise dv' M dv   subject to   J dv = goal - c,      J = dc/dv,
    dv = M^-1 J' (J M^-1 J')^-1 (goal - c),                M = F'F + ridge 1,

where |F dv|^2 is what the change costs: the path KL a time unit of the changed Langevin prior against the old one,
beta/4 E |gamma^-1/2 (grad E_new - grad E_old)|^2 (Girsanov), over given points. The rows of F are derivatives of
grad E; M is never formed (Woodbury).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

from landscape.dynamics import Dynamics

RIDGE = 1e-3  # of the mean diagonal of F'F: keeps the change smooth between the points
CHUNK = 8  # rows of a Jacobian at a time


class FlatNetwork:
    """An energy network as a function of one vector of parameters."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._names = [name for name, _ in network.named_parameters()]
        self._shapes = [p.shape for p in network.parameters()]

    def vector(self) -> torch.Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self.network.parameters()])

    @torch.no_grad()
    def set(self, v: torch.Tensor) -> None:
        for name, value in self._split(v).items():
            self.network.get_parameter(name).copy_(value)

    def energy(self, v: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """(n, d) -> (n,)."""
        return functional_call(self.network, self._split(v), (x,)).reshape(len(x))

    def hessians(self, v: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """(n, d) -> (n, d, d)."""

        def at(point: torch.Tensor) -> torch.Tensor:
            return self.energy(v, point[None])[0]

        # Reverse over reverse: forward mode would compile with a deprecated part of torch.
        return vmap(jacrev(grad(at)))(x)

    def gradient_rows(self, v: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Derivatives of grad E at x by the parameters: (n, d, p)."""

        def force(v: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
            return grad(lambda y: self.energy(v, y[None])[0])(point)

        parts = [vmap(jacrev(force), in_dims=(None, 0))(v, part) for part in x.split(100)]
        return torch.cat(parts)

    def _split(self, v: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes = [math.prod(shape) for shape in self._shapes]
        return {
            name: part.view(shape)
            for name, part, shape in zip(self._names, v.split(sizes), self._shapes, strict=True)
        }  # fmt: skip


class LeastChange:
    """Solves for conditions on a network at the least cost over points (n, d)."""

    def __init__(self, network: FlatNetwork, dynamics: Dynamics, points: torch.Tensor) -> None:
        self.network = network
        v = network.vector()
        weight = np.sqrt(dynamics.beta / (4 * dynamics.gamma_vector(points.shape[1]) * len(points)))
        rows = network.gradient_rows(v, points) * torch.as_tensor(weight).to(v)[:, None]
        self._rows = rows.flatten(0, 1)
        self._ridge = RIDGE * float(self._rows.square().sum()) / len(v)
        gram = self._rows @ self._rows.T
        gram.diagonal().add_(self._ridge)
        self._factor = torch.linalg.cholesky(gram)

    def step(self, conditions: Callable[[torch.Tensor], torch.Tensor], goal: torch.Tensor) -> torch.Tensor:
        """The Gauss-Newton step from the network's present parameters; it is not taken."""
        v = self.network.vector()
        jacobian = jacrev(conditions, chunk_size=CHUNK)(v)
        residual = goal - conditions(v)
        directions = self._divide(jacobian.T)
        normal = jacobian @ directions
        # Conditions that say the same (harmonic weights sum to 1) are met together.
        multipliers = torch.linalg.lstsq(normal, residual[:, None], rcond=1e-9, driver="gelsd").solution[:, 0]
        return directions @ multipliers

    def cost(self, change: torch.Tensor) -> float:
        """Path KL of a change of the parameters, to second order, nats a time unit."""
        return float((self._rows @ change).square().sum())

    def _divide(self, columns: torch.Tensor) -> torch.Tensor:
        """M^-1 columns."""
        inner = torch.cholesky_solve(self._rows @ columns, self._factor)
        return (columns - self._rows.T @ inner) / self._ridge
