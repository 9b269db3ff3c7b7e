"""Counting in a batch of trajectories: the cores, the starting points, and rates with intervals from the counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaincinv, ndtri

from landscape.dynamics import Dynamics
from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.rates.cores import Cores, relaxation_rates

FEW_COUNTS = 50  # below it intervals are exact Poisson ones
MONITORING = 0.5826  # see Detector


@dataclass(frozen=True)
class CountedRates:
    """Rates between n cores at one time step, or several taken together. (n, n) with rows from, columns to.

    rates, standard_error (n, n), interval (n, n, 2) : 1/time; 0 with the interval [0, upper] where nothing was counted.
    counts (n, n), time (n,) : N_ij and T_i. transit (n, n) : part of T_i spent between the last visit to core i and the
    next one, to another core j. trajectories : that were counted. diverged : that were lost to overflow.
    """

    rates: np.ndarray
    standard_error: np.ndarray
    interval: np.ndarray
    counts: np.ndarray
    time: np.ndarray
    transit: np.ndarray
    trajectories: int
    diverged: int

    def relaxation_rates(self) -> np.ndarray:
        """Eigenvalues (n - 1,) of the dynamics seen through the cores; see `landscape.rates.cores.relaxation_rates`."""
        return relaxation_rates(self.rates, self.transit)


class Tally:
    """Sums over trajectories r of N, N^2, N T, T, T^2, from which rates and their variances follow, and of transits."""

    def __init__(self, n: int) -> None:
        self.count, self.count_square, self.count_time = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
        self.time, self.time_square, self.transit = np.zeros(n), np.zeros(n), np.zeros((n, n))
        self.trajectories, self.diverged = 0, 0

    def add(
        self, core: np.ndarray, counts: np.ndarray, times: np.ndarray, transit: np.ndarray, finite: np.ndarray
    ) -> None:
        """Trajectories that belong to one core (r,) each: counts (r, n) of exits from there to each core, times (r,),
        transit (r, n); finite (r,) : those that did not overflow."""
        core, counts, times = core[finite], counts[finite], times[finite]
        for total, part in (
            (self.count, counts), (self.count_square, counts**2), (self.count_time, counts * times[:, None]),
            (self.time, times), (self.time_square, times**2), (self.transit, transit[finite]),
        ):  # fmt: skip
            np.add.at(total, core, part)
        self.trajectories += int(finite.sum())
        self.diverged += int((~finite).sum())

    def __add__(self, other: Tally) -> Tally:
        result = Tally(len(self.time))
        for name in vars(result):
            setattr(result, name, getattr(self, name) + getattr(other, name))
        return result

    def rates(self, confidence: float) -> CountedRates:
        total = np.where(self.time > 0, self.time, np.nan)[:, None]
        k = self.count / total
        square = self.count_square - 2 * k * self.count_time + k**2 * self.time_square[:, None]
        error = np.sqrt(np.maximum(square, 0)) / total
        tail = 0.5 * (1 - confidence)
        with np.errstate(divide="ignore", invalid="ignore"):
            # variance of the count over the Poisson one; from a handful of counts it cannot be told
            spread = np.where(self.count >= 5, np.maximum(1.0, square / self.count), 1.0)
            low = np.where(self.count > 0, gammaincinv(self.count / spread, tail), 0) * spread / total
            high = gammaincinv(self.count / spread + 1, 1 - tail) * spread / total
            width = np.exp(ndtri(1 - tail) * error / k)
        many = self.count >= FEW_COUNTS
        interval = np.stack([np.where(many, k / width, low), np.where(many, k * width, high)], axis=-1)
        diagonal = np.arange(len(k))
        k[diagonal, diagonal] = error[diagonal, diagonal] = interval[diagonal, diagonal] = 0
        count, transit = self.count.astype(int), self.transit / total
        return CountedRates(k, error, interval, count, self.time, transit, self.trajectories, self.diverged)


class Detector:
    """The cores as tensors: which one holds each point.

    A trajectory looked at only every time step h enters a region later than the continuous one, as if the region's
    surface lay -zeta(1/2)/sqrt(2 pi) = .5826 standard deviations of a step's noise further inside (M. Broadie,
    P. Glasserman and S. Kou, Math. Finance 7, 325 (1997)). For a given `noise` (d,), the standard deviations of a
    step in x, or in p if the cores have a momentum part, the surface is moved out by as much. Uncorrected, the
    quartic double well at 1.5 kT and a step of .1 is left 6 % too rarely.
    """

    def __init__(self, cores: Cores, energy: Energy, noise: torch.Tensor | None = None) -> None:
        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(np.array(values), dtype=energy.dtype, device=energy.device)

        self.center, self.form, self.symmetry = tensor(cores.center), tensor(cores.form), cores.symmetry
        self.factor = tensor(np.linalg.cholesky(cores.form))
        self.momentum = None if cores.momentum_form is None else tensor(cores.momentum_form)
        self.noise = noise
        if noise is not None:
            top = float(np.linalg.eigvalsh(cores.form)[:, -1].max())
            if self.momentum is not None:
                top = float(self.momentum.max())
            self.reach = (1 + MONITORING * math.sqrt(top) * float(noise.max())) ** 2

    def labels(self, x: torch.Tensor, p: torch.Tensor | None) -> torch.Tensor:
        """(n,) integers, -1 for none. Cores are disjoint, so the smallest level decides."""
        away = x[:, None] - self.center
        if self.symmetry is not None:
            away = self.symmetry.difference(x[:, None], self.center)
        scaled = torch.einsum("sji,nsj->nsi", self.factor, away)
        level, label = scaled.square().sum(-1).min(1)
        if p is not None and self.momentum is not None:
            level = level + p.square() @ self.momentum
        inside = level < 1
        if self.noise is not None:
            rows = torch.nonzero(~inside & (level < self.reach))[:, 0]
            if p is None or self.momentum is None:
                normal = torch.einsum("nij,nj->ni", self.form[label[rows]], away[rows, label[rows]])
            else:
                normal = p[rows] * self.momentum
            radius = level[rows].sqrt()
            inside[rows] = radius < 1 + MONITORING * (normal * self.noise).norm(dim=1) / radius
        return torch.where(inside, label, -1)


def sample_cores(
    energy: Energy, dynamics: Dynamics, cores: Cores, n: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """n points of local equilibrium in every core: x (n S, d), p (n S, d) or None, core (n S,).

    Uniform in the ellipsoid (of phase space, where cores have a momentum part), accepted with exp(-beta H).
    """
    d, form = energy.dim, cores.momentum_form
    mass = dynamics.mass_vector(d)
    inner = 2 * d if mass is not None and form is not None else d
    positions, momenta = [], []
    for i in range(len(cores)):
        back = np.linalg.inv(np.linalg.cholesky(cores.form[i]))
        found_x, found_p, found = [], [], 0
        while found < n:
            normal = torch.randn(4 * n + 64, 2 * d, generator=generator, dtype=torch.float64, device=generator.device)
            uniform = torch.rand(4 * n + 64, 2, generator=generator, dtype=torch.float64, device=generator.device)
            ball, free, radius = (t.cpu().numpy() for t in (normal[:, :inner], normal[:, d:], uniform))
            ball = ball / np.linalg.norm(ball, axis=1, keepdims=True) * radius[:, :1] ** (1 / inner)
            x = cores.center[i] + ball[:, :d] @ back
            exponent = -dynamics.beta * energy.value(x)
            p = np.zeros_like(x)
            if mass is not None and form is not None:
                p = ball[:, d:] / np.sqrt(form)
                exponent = exponent - 0.5 * dynamics.beta * (p**2 / mass).sum(axis=1)
            elif mass is not None:
                p = free * np.sqrt(mass / dynamics.beta)
            finite = np.isfinite(exponent)
            if not finite.any():
                raise UsageError(f"the energy is not finite in core {i}; check the core's centre and size")
            accepted = finite & (np.log(radius[:, 1]) < exponent - exponent[finite].max())
            found_x.append(x[accepted])
            found_p.append(p[accepted])
            found += int(accepted.sum())
        positions.append(np.concatenate(found_x)[:n])
        momenta.append(np.concatenate(found_p)[:n])

    def tensor(parts: list[np.ndarray]) -> torch.Tensor:
        return torch.as_tensor(np.concatenate(parts), dtype=energy.dtype, device=energy.device)

    label = torch.arange(len(cores), device=energy.device).repeat_interleave(n)
    return tensor(positions), None if mass is None else tensor(momenta), label
