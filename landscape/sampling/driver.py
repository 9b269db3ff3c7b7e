"""The one loop over kernels: plain running, and a warm-up in which the kernels set their scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Protocol

import torch

from landscape.energy import Energy
from landscape.sampling.metropolis import Beta, Chains
from landscape.sampling.step_size import StepSize


class Kernel(Protocol):
    """A move of every chain at once: exact kernels keep exp(-beta E), the others come near it as their step falls."""

    exact: ClassVar[bool]

    def step(
        self, energy: Energy, beta: Beta, state: Chains, generator: torch.Generator
    ) -> tuple[Chains, torch.Tensor]:
        """Move every chain once; returns the chains and the acceptance probabilities (n,), 1 without a decision."""
        ...

    def adapted(self, acceptance: torch.Tensor, step: int) -> Kernel:
        """The kernel to go on with, after warm-up step number `step` (from 0) was accepted with these probabilities."""
        ...

    def settled(self) -> Kernel:
        """The kernel with which the warm-up ends."""
        ...

    def stabilised(self, curvature: StepSize) -> Kernel:
        """The kernel with a step that is stable where |Hessian eigenvalues| of beta E reach `curvature`.

        For exact kernels a first guess, where they have no preconditioner.
        """
        ...


def run(
    kernels: Sequence[Kernel],
    energy: Energy,
    beta: Beta,
    state: Chains,
    n_sweeps: int,
    generator: torch.Generator,
    observe: Callable[[Chains], None] | None = None,
) -> tuple[Chains, list[float]]:
    """Apply every kernel in turn, n_sweeps times; `observe` sees the chains after each sweep.

    Returns the chains and the mean acceptance of each kernel over the chains that are at work (nan for no sweeps). The
    mixture of exact kernels keeps exp(-beta E), as none of them changes while it runs. A chain that a kernel without a
    Metropolis decision moves from a finite to a non-finite energy is `stopped` at its last finite position, for good.
    """
    accepted = [0.0] * len(kernels)
    for _ in range(n_sweeps):
        for k, kernel in enumerate(kernels):
            state, acceptance = _advance(kernel, energy, beta, state, generator)
            accepted[k] += _mean(acceptance, state)
        if observe is not None:
            observe(state)
    return state, [total / n_sweeps if n_sweeps else float("nan") for total in accepted]


def warm_up(
    kernels: Sequence[Kernel], energy: Energy, beta: Beta, state: Chains, n_sweeps: int, generator: torch.Generator
) -> tuple[Chains, list[Kernel]]:
    """Run n_sweeps sweeps while every kernel adapts to its acceptance. These positions are to be discarded."""
    kernels = list(kernels)
    for step in range(n_sweeps):
        for k, kernel in enumerate(kernels):
            state, acceptance = _advance(kernel, energy, beta, state, generator)
            kernels[k] = kernel.adapted(acceptance, step)
    return state, [kernel.settled() for kernel in kernels]


def _advance(
    kernel: Kernel, energy: Energy, beta: Beta, state: Chains, generator: torch.Generator
) -> tuple[Chains, torch.Tensor]:
    new, acceptance = kernel.step(energy, beta, state, generator)
    stopped = state.stopped | (state.energy.isfinite() & ~new.energy.isfinite())
    if bool(stopped.any()):
        new = state.where(stopped, new)
    return replace(new, stopped=stopped), acceptance


def _mean(acceptance: torch.Tensor, state: Chains) -> float:
    at_work = ~state.stopped
    return float(acceptance[at_work].mean()) if bool(at_work.any()) else 0.0
