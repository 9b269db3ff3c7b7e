"""The networks that are rebuilt by name, against the same formulas in numpy and scipy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf
from scipy.stats import multivariate_normal
from torch import nn

from landscape.energy.architectures import ACTIVATIONS, ARCHITECTURES, build, describe_network
from landscape.errors import EnergyError

CONFIGS: dict[str, dict[str, Any]] = {
    "residual-mlp": {"dim": 2, "width": 5, "features": 4, "n_blocks": 3},
    "soft-minimum": {"dim": 3, "n_components": 2},
    "mlp": {"dim": 2, "hidden": [6, 5], "activation": "silu", "confinement": 0.3},
}
NUMPY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "celu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "gelu": lambda z: 0.5 * z * (1 + erf(z / np.sqrt(2))),
    "relu": lambda z: np.maximum(z, 0),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "tanh": np.tanh,
}


def make(name: str, config: dict[str, Any], seed: int = 0) -> nn.Module:
    """The network in double precision, all parameters standard normal."""
    with torch.random.fork_rng(devices=[]):
        module = build(name, config).double()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.as_tensor(rng.standard_normal(tuple(parameter.shape))))
    return module


def state(module: nn.Module) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in module.state_dict().items()}


def evaluate(module: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.as_tensor(x)).numpy()


def test_residual_mlp() -> None:
    module = make("residual-mlp", CONFIGS["residual-mlp"])
    p, x = state(module), np.random.default_rng(1).standard_normal((7, 2))

    def two_layers(name: str, z: np.ndarray, activation: str) -> np.ndarray:
        hidden = NUMPY[activation](z @ p[f"{name}.0.weight"].T + p[f"{name}.0.bias"])
        return hidden @ p[f"{name}.2.weight"].T + p[f"{name}.2.bias"]

    h = two_layers("in_block", x, "celu")
    for k in range(3):
        h = h + two_layers(f"blocks.{k}", np.hstack([h, x]), "tanh")
    wanted = two_layers("out_block", h, "celu")[:, 0] + np.log1p(np.exp(p["_quadratic_term"])) * (x * x).sum(1)
    np.testing.assert_allclose(evaluate(module, x), wanted, rtol=1e-12)


def test_soft_minimum_is_minus_the_log_of_a_gaussian_mixture() -> None:
    module = make("soft-minimum", CONFIGS["soft-minimum"])
    p, x = state(module), np.random.default_rng(1).standard_normal((7, 3))
    density = np.zeros(7)
    for k in range(2):
        factor = np.tril(p["factors"][k], -1) + np.diag(np.exp(np.diag(p["factors"][k])))
        covariance = np.linalg.inv(factor @ factor.T)
        density += np.exp(p["logits"][k]) * multivariate_normal(p["centers"][k], covariance).pdf(x)
    wanted = -np.log(density * (2 * np.pi) ** 1.5)
    np.testing.assert_allclose(evaluate(module, x), wanted, rtol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp(activation: str) -> None:
    module = make("mlp", CONFIGS["mlp"] | {"activation": activation})
    p, x = state(module), np.random.default_rng(1).standard_normal((7, 2))
    h = x
    for k in (0, 2):
        h = NUMPY[activation](h @ p[f"layers.{k}.weight"].T + p[f"layers.{k}.bias"])
    wanted = (h @ p["layers.4.weight"].T + p["layers.4.bias"])[:, 0] + 0.15 * (x * x).sum(1)
    np.testing.assert_allclose(evaluate(module, x), wanted, rtol=1e-12)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_name_and_config_rebuild_the_network(name: str) -> None:
    module = make(name, CONFIGS[name])
    found = describe_network(module)
    assert found == (name, CONFIGS[name])
    again = make(*found, seed=5)
    again.load_state_dict(module.state_dict())
    x = np.random.default_rng(2).standard_normal((4, CONFIGS[name]["dim"]))
    assert np.array_equal(evaluate(again, x), evaluate(module, x))


def test_a_subclass_with_another_energy_is_none_of_them() -> None:
    class Shifted(ARCHITECTURES["mlp"]):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + x[:, 0]

    with torch.random.fork_rng(devices=[]):
        assert describe_network(Shifted(2, [3])) is None
        assert describe_network(nn.Linear(2, 1)) is None


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("transformer", {}, "unknown architecture 'transformer'; known: residual-mlp"),
        ("mlp", {"dim": 2}, "cannot be built from config"),
        ("mlp", {"dim": 2, "hidden": [4], "depth": 3}, "cannot be built from config"),
        ("mlp", {"dim": 0, "hidden": [4]}, "dim is a whole number"),
        ("mlp", {"dim": True, "hidden": [4]}, "dim is a whole number"),
        ("mlp", {"dim": 2, "hidden": 4}, "hidden is a list"),
        ("mlp", {"dim": 2, "hidden": [4, -1]}, "hidden is a whole number"),
        ("mlp", {"dim": 2, "hidden": [4], "activation": "sine"}, "unknown activation 'sine'"),
        ("mlp", {"dim": 2, "hidden": [4], "activation": ["tanh"]}, "cannot be built from config"),
        ("mlp", {"dim": 2, "hidden": [4], "confinement": -1.0}, "confinement"),
        ("mlp", {"dim": 2, "hidden": [4], "confinement": "1"}, "confinement"),
        ("residual-mlp", {"dim": 2, "n_blocks": -1}, "n_blocks is a whole number from 0"),
        ("residual-mlp", {"dim": 2.0}, "dim is a whole number"),
        ("soft-minimum", {"dim": 2, "n_components": 10**12}, "n_components is a whole number"),
    ],
)
def test_a_wrong_config_is_refused(name: str, config: dict[str, Any], words: str) -> None:
    with pytest.raises(EnergyError) as caught:
        build(name, config)
    assert words in str(caught.value)
