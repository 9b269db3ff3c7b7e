"""Energy networks that can be rebuilt by name from plain data, in this package and in `nld_models`.

`build(name, config)` makes one and `describe_network(module)` gives name and config back; `ARCHITECTURES` lists them.
A network maps (n, d) to (n,); its `config` is the plain data that rebuilds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from landscape.errors import EnergyError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "celu": nn.CELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}

MAX_SIZE = 1_000_000


class ResidualMLP(nn.Module):
    """The energy network of the NLD paper's published models.

    h = in_block(x); h += block_k([h, x]) for each block; E = out_block(h) + softplus(_quadratic_term) |x|^2.
    Parameter names are those of the published checkpoints. The CELU layers leave kinks in the Hessian.
    """

    def __init__(self, dim: int, width: int = 96, features: int = 16, n_blocks: int = 4) -> None:
        super().__init__()
        self.config = _sizes(dim=dim, width=width, features=features) | _sizes(0, n_blocks=n_blocks)
        self.dim = dim
        self._quadratic_term = nn.Parameter(torch.tensor(0.0))
        self.in_block = nn.Sequential(nn.Linear(dim, width), nn.CELU(), nn.Linear(width, features))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(features + dim, width), nn.Tanh(), nn.Linear(width, features))
            for _ in range(n_blocks)
        )
        self.out_block = nn.Sequential(nn.Linear(features, width), nn.CELU(), nn.Linear(width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.in_block(x)
        for block in self.blocks:
            h = h + block(torch.cat([h, x], -1))
        return self.out_block(h).squeeze(-1) + functional.softplus(self._quadratic_term) * (x * x).sum(-1)


class SoftMinimum(nn.Module):
    """Soft minimum of quadratics, smooth with regular wells: minus the log of a Gaussian mixture.

    E(x) = -log sum_k exp(logits_k + log det L_k - |L_k^T (x - centers_k)|^2 / 2), with L_k lower triangular and a
    positive diagonal: component k is a Gaussian with precision L_k L_k^T and weight proportional to exp(logits_k),
    and the integral of exp(-E) is (2 pi)^(d/2) sum_k exp(logits_k). `factors` holds L_k with the logarithm of its
    diagonal on the diagonal.
    """

    def __init__(self, dim: int, n_components: int) -> None:
        super().__init__()
        self.config = _sizes(dim=dim, n_components=n_components)
        self.dim = dim
        self.logits = nn.Parameter(torch.zeros(n_components))
        self.centers = nn.Parameter(torch.randn(n_components, dim))
        self.factors = nn.Parameter(torch.zeros(n_components, dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        log_diagonal = self.factors.diagonal(dim1=-2, dim2=-1)
        factor = self.factors.tril(-1) + torch.diag_embed(log_diagonal.exp())
        whitened = torch.einsum("nki,kij->nkj", x[:, None, :] - self.centers, factor)
        return -torch.logsumexp(self.logits + log_diagonal.sum(-1) - 0.5 * whitened.square().sum(-1), -1)


class MLP(nn.Module):
    """Plain multilayer perceptron plus confinement/2 |x|^2 (a fixed number, 0 for none)."""

    def __init__(self, dim: int, hidden: list[int], activation: str = "tanh", confinement: float = 0.0) -> None:
        super().__init__()
        if not isinstance(hidden, list | tuple):
            raise EnergyError(f"hidden is a list of layer widths, not {hidden!r}")
        for width in hidden:
            _sizes(hidden=width)
        if activation not in ACTIVATIONS:
            raise EnergyError(f"unknown activation {activation!r}; known: {', '.join(ACTIVATIONS)}")
        number = isinstance(confinement, int | float) and math.isfinite(confinement)
        if not number or confinement < 0:
            raise EnergyError(f"confinement is a number of at least 0, not {confinement!r}")
        self.config: dict[str, Any] = _sizes(dim=dim)
        self.config |= {"hidden": list(hidden), "activation": activation, "confinement": float(confinement)}
        self.dim = dim
        self.confinement = confinement
        sizes = [dim, *hidden]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).squeeze(-1) + 0.5 * self.confinement * (x * x).sum(-1)


def _sizes(minimum: int = 1, **sizes: int) -> dict[str, Any]:
    """The sizes, checked. torch's own messages for a wrong one name a weight matrix, not the field."""
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= MAX_SIZE:
            raise EnergyError(f"{name} is a whole number from {minimum} to {MAX_SIZE}, not {value!r}")
    return dict(sizes)


ARCHITECTURES: dict[str, type[nn.Module]] = {"residual-mlp": ResidualMLP, "soft-minimum": SoftMinimum, "mlp": MLP}


def build(name: str, config: Mapping[str, Any]) -> nn.Module:
    """The network called `name`, with fresh parameters. Raises EnergyError for an unknown name or a wrong config."""
    if name not in ARCHITECTURES:
        raise EnergyError(f"unknown architecture {name!r}; known: {', '.join(ARCHITECTURES)}")
    try:
        return ARCHITECTURES[name](**config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EnergyError(f"architecture {name!r} cannot be built from config {dict(config)!r}: {error}") from error


def describe_network(module: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """Name and config that rebuild `module`, or None if it is none of these architectures."""
    for name, kind in ARCHITECTURES.items():
        # a subclass may compute another energy
        if isinstance(module, kind) and type(module).forward is kind.forward:
            config: Any = module.config
            return name, dict(config)
    return None
