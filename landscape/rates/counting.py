"""Counting in a batch of trajectories: the cores, the starting points, and rates with intervals from the counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import chi2, norm

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
    counts (n, n), time (n,) : transitions and times seen, whose ratio is not quite the rate (`Tally`). transit (n, n) :
    part of the time with last core i spent between the last visit to it and the next one, to another core j.
    trajectories : that were counted. diverged : that were lost to overflow.
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
    """Sums over trajectories, from which rates and their variances follow.

    A sojourn in state i begins when core i is entered after another one and ends when another one is entered. What
    happens in its first part, up to an age at which memory is lost, is `early`, the rest `late`. Short runs see many
    sojourns begin and few end, so that late exits N' and late time T' stand for all w = (M - N) / N' of them, with M
    sojourns begun and N ended early:

        k_ij = (N_ij + w N'_ij) / (T_i + w T'_i),

    which is transitions over time if every sojourn is followed to its end, and has neither the bias of young sojourns
    (too few exits) nor that of old ones alone (on the triple well 1 kT deep, 22 % too many).
    """

    def __init__(self, n: int) -> None:
        self.begun, self.trajectories, self.diverged = np.zeros(n), 0, 0
        self.count, self.time, self.transit = np.zeros((2, n, n)), np.zeros((2, n)), np.zeros((2, n, n))
        # products, summed over trajectories, of early and late counts i -> j and early and late time in i
        self.products = np.zeros((n, n, 4, 4))

    def add(
        self, begun: np.ndarray, counts: np.ndarray, times: np.ndarray, transit: np.ndarray, finite: np.ndarray
    ) -> None:
        """begun (r, n) sojourns; counts (r, 2, n, n), times (r, 2, n), transit (r, 2, n, n), of exits early and late;
        finite (r,) : trajectories that did not overflow."""
        counts, times, n = counts[finite], times[finite], begun.shape[1]
        self.begun += begun[finite].sum(axis=0)
        self.count += counts.sum(axis=0)
        self.time += times.sum(axis=0)
        self.transit += transit[finite].sum(axis=0)
        spread = np.broadcast_to(times[..., None], (len(times), 2, n, n))
        both = np.concatenate([counts, spread], axis=1)
        self.products += np.einsum("raij,rbij->ijab", both, both)
        self.trajectories += int(finite.sum())
        self.diverged += int((~finite).sum())

    def __add__(self, other: Tally) -> Tally:
        result = Tally(len(self.begun))
        for name in vars(result):
            setattr(result, name, getattr(self, name) + getattr(other, name))
        return result

    def rates(self, confidence: float) -> CountedRates:
        ended, late = self.count.sum(axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.where(late > 0, np.maximum(1.0, (self.begun - ended) / late), 1.0)[:, None]
        time = self.time.sum(axis=0)
        total = self.time[0][:, None] + weight * self.time[1][:, None]
        total = np.where(total > 0, total, np.nan)
        count = self.count.sum(axis=0)
        seen = self.count[0] + weight * self.count[1]
        k = seen / total
        part = np.stack([np.ones_like(k), np.broadcast_to(weight, k.shape), -k, -k * weight], axis=-1)
        square = np.einsum("ija,ijab,ijb->ij", part, self.products, part)
        error = np.sqrt(np.maximum(square, 0)) / total
        tail = 0.5 * (1 - confidence)
        with np.errstate(divide="ignore", invalid="ignore"):
            # counts that are worth as much as these of unequal weight
            worth = np.where(count > 0, seen**2 / (self.count[0] + weight**2 * self.count[1]), 0)
            # variance of the count over the Poisson one; from a handful of counts it cannot be told
            excess = np.where(count >= 5, np.maximum(1.0, square * worth / seen**2), 1.0)
            low = np.where(count > 0, k * chi2.ppf(tail, 2 * worth / excess) * excess / (2 * worth), 0)
            high = k * chi2.ppf(1 - tail, 2 * worth / excess + 2) * excess / (2 * worth)
            high = np.where(count > 0, high, chi2.ppf(1 - tail, 2) / (2 * time[:, None]))
            width = np.exp(norm.ppf(1 - tail) * error / k)
        many = count >= FEW_COUNTS
        interval = np.stack([np.where(many, k / width, low), np.where(many, k * width, high)], axis=-1)
        diagonal = np.arange(len(k))
        k[diagonal, diagonal] = error[diagonal, diagonal] = interval[diagonal, diagonal] = 0
        transit = (self.transit[0] + weight * self.transit[1]) / total
        return CountedRates(k, error, interval, count.astype(int), time, transit, self.trajectories, self.diverged)


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

        self.center, self.form = tensor(cores.center), tensor(cores.form)
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
        scaled = torch.einsum("sji,nsj->nsi", self.factor, x[:, None] - self.center)
        level, label = scaled.square().sum(-1).min(1)
        if p is not None and self.momentum is not None:
            level = level + p.square() @ self.momentum
        inside = level < 1
        if self.noise is not None:
            rows = torch.nonzero(~inside & (level < self.reach))[:, 0]
            if p is None or self.momentum is None:
                normal = torch.einsum("nij,nj->ni", self.form[label[rows]], x[rows] - self.center[label[rows]])
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
