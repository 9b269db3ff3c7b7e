"""Networks stacked over seeds: S independent parameter sets evaluated as one batch.

Every parameter carries the seeds as its first axis, so one call serves all seeds, an elementwise optimiser keeps them
apart, and seed k can be cut out again. Seed k's initial values come from generator k alone: they do not depend on how
many seeds are stacked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from landscape.energy.architectures import build


def uniform(generators: Sequence[torch.Generator], shape: Sequence[int], bound: float) -> nn.Parameter:
    """(S, *shape): slice k uniform in [-bound, bound], drawn from generator k."""
    draws = [torch.rand(*shape, generator=generator, dtype=torch.float64) for generator in generators]
    return nn.Parameter((2 * torch.stack(draws) - 1) * bound)


class StackedLinear(nn.Module):
    """y = x W + b for every seed: (S, n, n_in) -> (S, n, n_out); initial values within gain / sqrt(n_in)."""

    def __init__(self, generators: Sequence[torch.Generator], n_in: int, n_out: int, gain: float = 1.0) -> None:
        super().__init__()
        bound = gain / math.sqrt(n_in)
        self.weight = uniform(generators, (n_in, n_out), bound)
        self.bias = uniform(generators, (1, n_out), bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class StackedMLP(nn.Module):
    """One hidden tanh layer: (S, n, n_in) -> (S, n, n_out)."""

    def __init__(
        self, generators: Sequence[torch.Generator], n_in: int, hidden: int, n_out: int, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.inner = StackedLinear(generators, n_in, hidden)
        self.outer = StackedLinear(generators, hidden, n_out, gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.tanh(self.inner(x)))


class StackedEnergy(nn.Module):
    """E(z) of every seed: (S, n, d) -> (S, n), with a network of `landscape.energy.architectures`.

    On one core and at training's batch sizes vmap over the stacked parameters costs within 30 % of a loop over the
    seeds in either direction; what counts is that any architecture works, without a second implementation.
    """

    def __init__(
        self, generators: Sequence[torch.Generator], architecture: str, dim: int, config: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.architecture, self.dim, self.config = architecture, dim, dict(config)
        networks = []
        for generator in generators:
            seed = int(torch.randint(2**62, (), generator=generator))
            # torch's initialisers know the global generator only; the fork hands it back untouched.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                networks.append(self._build())
        self.network = networks[0]
        for name, stacked in stack_module_state(networks)[0].items():
            owner, _, leaf = name.rpartition(".")
            self.network.get_submodule(owner).register_parameter(leaf, nn.Parameter(stacked.detach()))

    def _build(self) -> nn.Module:
        return build(self.architecture, {"dim": self.dim, **self.config}).double()

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        def one(parameters: dict[str, torch.Tensor], points: torch.Tensor) -> torch.Tensor:
            return functional_call(self.network, parameters, (points,))

        return vmap(one)(dict(self.network.named_parameters()), z)

    def gradient(self, z: torch.Tensor) -> torch.Tensor:
        """grad E at z, (S, n, d), itself differentiable by z and the parameters when grad mode is on."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            leaf = z if z.requires_grad else z.detach().requires_grad_(True)
            (result,) = torch.autograd.grad(self(leaf).sum(), leaf, create_graph=keep)
        return result

    def unstack(self, k: int) -> nn.Module:
        """Seed k's network on its own, in float64, frozen."""
        module = self._build_quietly()
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                module.get_parameter(name).copy_(parameter[k])
        return module.requires_grad_(False)

    @torch.no_grad()
    def restack(self, k: int, network: nn.Module) -> None:
        """Put a network of the same architecture in place of seed k's."""
        for name, parameter in self.network.named_parameters():
            parameter[k] = network.get_parameter(name)

    def _build_quietly(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return self._build()
