"""The one loop over kernels: plain running, and a warm-up in which the kernels set their scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from landscape.energy import Energy
from landscape.sampling.metropolis import Chains


class Kernel(Protocol):
    """A move that keeps exp(-beta E), for every chain at once."""

    def step(
        self, energy: Energy, beta: float, state: Chains, generator: torch.Generator
    ) -> tuple[Chains, torch.Tensor]:
        """Move every chain once; returns the chains and the acceptance probabilities (n,)."""
        ...

    def adapted(self, acceptance: float, step: int) -> Kernel:
        """The kernel to go on with, after warm-up step number `step` (from 0) was accepted at this mean rate."""
        ...


def run(
    kernels: Sequence[Kernel],
    energy: Energy,
    beta: float,
    state: Chains,
    n_sweeps: int,
    generator: torch.Generator,
    observe: Callable[[Chains], None] | None = None,
) -> tuple[Chains, list[float]]:
    """Apply every kernel in turn, n_sweeps times; `observe` sees the chains after each sweep.

    Returns the chains and the mean acceptance of each kernel (nan for no sweeps). The mixture of kernels keeps
    exp(-beta E), as none of them changes while it runs.
    """
    accepted = [0.0] * len(kernels)
    for _ in range(n_sweeps):
        for k, kernel in enumerate(kernels):
            state, acceptance = kernel.step(energy, beta, state, generator)
            accepted[k] += float(acceptance.mean())
        if observe is not None:
            observe(state)
    return state, [total / n_sweeps if n_sweeps else float("nan") for total in accepted]


def warm_up(
    kernels: Sequence[Kernel], energy: Energy, beta: float, state: Chains, n_sweeps: int, generator: torch.Generator
) -> tuple[Chains, list[Kernel]]:
    """Run n_sweeps sweeps while every kernel adapts to its acceptance. These positions are to be discarded."""
    kernels = list(kernels)
    for step in range(n_sweeps):
        for k, kernel in enumerate(kernels):
            state, acceptance = kernel.step(energy, beta, state, generator)
            kernels[k] = kernel.adapted(float(acceptance.mean()), step)
    return state, kernels
