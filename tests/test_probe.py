"""The probe: sound energies pass unmarked, each trap of the ecosystem is refused or degraded with its reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landscape.energy import Energy, as_energy, probe_energy
from landscape.energy.architectures import ACTIVATIONS, MLP
from landscape.energy.energy import GRADIENT_CHUNK
from landscape.errors import EnergyError

Function = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def own_random_numbers() -> Iterator[None]:
    """Networks are initialised, and noisy energies drawn, from a generator state that is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def confined(x: torch.Tensor) -> torch.Tensor:
    return (x**4).sum(1) / 4 - (x * x).sum(1) / 2


def refusal(function: Any, dim: int = 3) -> str:
    with pytest.raises(EnergyError) as caught:
        as_energy(function, dim)
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 2
    return message


def deep(activation: str, confinement: float, dim: int = 3) -> MLP:
    return MLP(dim, [32, 32, 32], activation, confinement)


@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a != "relu"])
@pytest.mark.parametrize("dim", [1, 3, 50])
def test_smooth_and_kinked_networks_pass_unmarked(activation: str, dim: int) -> None:
    energy = as_energy(deep(activation, 0.5, dim))
    assert energy.notes == [] and energy.exact_second_derivative and not energy.value_needs_grad


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_units_do_not_matter(scale: float) -> None:
    energy = as_energy(lambda x: scale * confined(x) + 3 * scale, 2)
    assert energy.notes == []


def test_quadratics_and_wells_far_apart_pass_unmarked() -> None:
    assert as_energy(lambda x: (x * x).sum(1), 3).notes == []
    assert as_energy(lambda x: torch.logaddexp(((x - 50) ** 2).sum(1), ((x + 50) ** 2).sum(1)), 2).notes == []


def test_counters_stand_where_they_stood() -> None:
    assert as_energy(confined, 2).evaluations.as_dict() == dict.fromkeys(("value", "gradient", "hvp", "hessian"), 0)
    energy = Energy(confined, 2)
    energy(np.zeros((3, 2)))
    probe_energy(energy)
    assert energy.evaluations.as_dict() == {"value": 3, "gradient": 0, "hvp": 0, "hessian": 0}


def test_a_second_probe_does_not_repeat_the_notes() -> None:
    energy = as_energy(deep("relu", 0.5))
    assert len(energy.notes) == 1
    probe_energy(energy)
    assert len(energy.notes) == 1


def test_dropout_and_noise_are_refused_in_functions_and_switched_off_in_modules() -> None:
    network = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 1))
    assert "dropout" in refusal(lambda x: network(x.float()).double())
    assert "dropout" in refusal(lambda x: confined(x) + 1e-6 * torch.randn(len(x), dtype=x.dtype))
    as_energy(network, 3)
    assert network.training and network[0].weight.dtype == torch.float32 and network[0].weight.requires_grad


@pytest.mark.parametrize(
    "coupled",
    [
        lambda x: confined(x) - confined(x).mean(),
        lambda x: confined(x) / len(x),
        lambda x: torch.cumsum(confined(x), 0),
        lambda x: confined(x) + 1e-3 * confined(x).roll(1),
        lambda x: torch.log_softmax(confined(x), 0),
    ],
)
def test_energies_coupled_over_the_batch_are_refused(coupled: Function) -> None:
    assert "couples the points of a batch" in refusal(coupled)


def test_batch_normalisation_in_training_mode_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)).double()
    assert "couples" in refusal(lambda x: network(x))
    as_energy(network, 3)  # the copy is put into evaluation mode


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x: x.sum(), "one number a row"),
        (lambda x: confined(x).sum(0, keepdim=True).repeat(2), "one number a row"),
        (lambda x: confined(x[0]), "IndexError"),
        (lambda x: np.zeros(len(x)), "torch tensor, but"),
        (lambda x: confined(x).float(), "returned float32 for float64 points"),
        (lambda x: (x > 0).sum(1), "returned int64"),
        (lambda x: confined(x) * torch.nan, "NaN or infinite at every probe point"),
        (lambda x: confined(x) + torch.inf, "NaN or infinite at every probe point"),
        (lambda x: torch.full((len(x),), 2.0, dtype=x.dtype), "is constant"),
        (lambda x: 0 * x.sum(1) + 1.7, "is constant"),
        (lambda x: x @ torch.tensor([1.0, -2.0, 0.5], dtype=x.dtype) + 3, "linear, so it is unbounded below"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
        (lambda x: torch.as_tensor((x.detach().numpy() ** 2).sum(1)), "autograd finds no gradient"),
        (lambda x: confined(x.detach()), "autograd finds no gradient"),
        (lambda x: confined(x) + confined(x.detach()), "disagrees with differences"),
        (lambda x: confined(torch.round(x * 1e3) / 1e3), "no gradient"),
        (lambda x: torch.as_tensor(np.square(x.numpy()).sum(1)), "compute with torch throughout"),
        (lambda x: x.mul_(2).square().sum(1), "do not change the points in place"),
        (nn.Linear(5, 1), "is 3 its dimension?"),
        ("not an energy", "a torch callable, not str"),
    ],
)
def test_unusable_energies_are_refused_with_the_reason(wrong: Any, words: str) -> None:
    assert words in refusal(wrong)


def test_a_float32_network_in_a_function_is_refused_with_the_cure() -> None:
    network = nn.Linear(3, 1)
    assert "cast it to float64" in refusal(lambda x: network(x))


def test_parameters_that_are_not_finite_are_named() -> None:
    network = deep("tanh", 0.5)
    with torch.no_grad():
        network.layers[2].bias[3] = torch.nan
    assert "layers.2.bias" in refusal(network)


def test_energies_defined_on_a_part_of_space_are_kept_with_a_note() -> None:
    assert as_energy(lambda x: (x - torch.log(x)).sum(1), 3).notes == []  # enough points by drawing again
    rare = as_energy(lambda x: (x - torch.log(x)).sum(1), 7)
    assert "finite at only" in rare.notes[0]


def test_energies_flat_or_undefined_near_the_origin_are_looked_at_further_out() -> None:
    assert as_energy(lambda x: torch.relu(x.square().sum(1) - 100) ** 2, 2).notes == []
    assert as_energy(lambda x: torch.log(x.square().sum(1) - 400), 2).exact_second_derivative


def test_single_precision_inside_is_noted() -> None:
    network = deep("tanh", 0.0)
    energy = as_energy(lambda x: network(x.float()).double(), 3)
    assert any("single precision" in note for note in energy.notes)
    whole = as_energy(deep("tanh", 0.5), dtype="float32")
    assert whole.notes == [] and whole(np.zeros((2, 3))).dtype == np.float32


def inner_gradient(create_graph: bool, enable: bool = False) -> Function:
    """|grad F|^2, the kind of energy that calls autograd in its own forward pass."""

    def energy(x: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(enable or torch.is_grad_enabled()):
            if enable and not x.requires_grad:
                x = x.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(confined(x).sum(), x, create_graph=create_graph)
            return gradient.square().sum(1) + (0 if create_graph else confined(x))

    return energy


@pytest.mark.parametrize("enable", [False, True])
def test_autograd_inside_the_forward_pass_works_if_it_keeps_its_graph(enable: bool) -> None:
    energy = as_energy(inner_gradient(True, enable), 2)
    assert energy.value_needs_grad is not enable
    x = np.random.default_rng(0).standard_normal((5, 2))
    np.testing.assert_allclose(energy(x), ((x**3 - x) ** 2).sum(1), rtol=1e-12)
    np.testing.assert_allclose(energy.gradient(x), 2 * (x**3 - x) * (3 * x * x - 1), rtol=1e-10)
    assert energy.exact_second_derivative and energy.notes == []


def test_autograd_inside_the_forward_pass_without_its_graph_is_refused() -> None:
    assert "create_graph=True" in refusal(inner_gradient(False), 2)


def test_a_missing_second_derivative_falls_back_to_differences() -> None:
    centres = torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64)
    energy = as_energy(lambda x: -torch.logsumexp(-2 * torch.cdist(x, centres) ** 2, 1), 2)
    assert not energy.exact_second_derivative and "second derivative" in energy.notes[0]
    exact = Energy(lambda x: -torch.logsumexp(-2 * (x[:, None] - centres).square().sum(2), 1), 2)
    x = np.random.default_rng(0).standard_normal((6, 2))
    np.testing.assert_allclose(energy.hessian(x), exact.hessian(x), atol=1e-7)


class FirstOrderOnly(torch.autograd.Function):
    """x^2 whose backward pass hides its dependence on x: the second derivative comes out as zero, silently."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return 2 * ctx.saved_tensors[0].detach() * grads[0]


def test_a_second_derivative_that_is_silently_wrong_is_found() -> None:
    energy = as_energy(lambda x: FirstOrderOnly.apply(x).sum(1), 2)
    assert not energy.exact_second_derivative and "disagree" in energy.notes[0]
    np.testing.assert_allclose(energy.hessian(np.ones((1, 2)))[0], 2 * np.eye(2), atol=1e-8)


def test_a_product_that_is_right_once_only_is_found() -> None:
    calls = 0

    class Tired(Energy):
        def hvp(self, x: Any, v: Any) -> Any:
            nonlocal calls
            calls += self.exact_second_derivative
            product = super().hvp(x, v)
            return product if calls < 2 or not self.exact_second_derivative else 0 * product

    energy = Tired(confined, 2)
    probe_energy(energy)
    assert not energy.exact_second_derivative


def test_attention_is_degraded_or_right() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.embed = nn.Linear(1, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.embed(x[:, :, None])).square().sum((1, 2)) * x.square().sum(1)

    energy = as_energy(Attention(), 3)
    x = np.random.default_rng(0).standard_normal((3, 3))
    h = 1e-5
    for axis in range(3):
        e = np.eye(3)[axis]
        slope = (energy.gradient(x + h * e) - energy.gradient(x - h * e)) / (2 * h)
        np.testing.assert_allclose(energy.hessian(x)[:, axis], slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("confinement", [0.0, 0.5])
def test_piecewise_linear_networks_get_a_note(confinement: float) -> None:
    energy = as_energy(deep("relu", confinement))
    assert len(energy.notes) == 1 and "smooth activation" in energy.notes[0]


def test_an_absolute_value_is_not_linear() -> None:
    energy = as_energy(lambda x: (x - 40).abs().sum(1), 2)
    assert energy.dim == 2


def test_torchscript_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(nn.Sequential(nn.Linear(2, 1)), torch.zeros(2, 2))
    assert "TorchScript" in refusal(scripted, 2)


def test_modules_are_copied_and_methods_rebound() -> None:
    class Model(nn.Module):
        dim = 2

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def energy(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * confined(x)

    model = Model()
    energy = as_energy(model.energy, 2)
    with torch.no_grad():
        model.scale.fill_(7.0)
    x = np.array([[2.0, 0.0]])
    assert energy(x)[0] == pytest.approx(4.0)
    assert model.scale.dtype == torch.float32 and model.scale.requires_grad and model.training
    assert as_energy(energy) is energy
    with pytest.raises(EnergyError, match="dimension 2, but 3"):
        as_energy(energy, 3)


def test_the_dimension_is_asked_for_only_where_it_is_missing() -> None:
    assert as_energy(deep("tanh", 1.0)).dim == 3
    with pytest.raises(EnergyError, match="give it with --dim"):
        as_energy(confined)
    with pytest.raises(EnergyError, match="has dimension 3, but 2 was given"):
        as_energy(deep("tanh", 1.0), 2)
    with pytest.raises(EnergyError, match="whole number"):
        as_energy(confined, 0)


def test_wide_networks_are_evaluated_in_smaller_chunks() -> None:
    """A network of six layers keeps six activations of its width a row: 8 MiB of them are worked on together, or those
    of 512 rows, and 256 MiB of a Hessian's may live at once."""
    tiny, small, wide = (as_energy(MLP(2, [width] * 6, "tanh", 1.0)) for width in (4, 64, 1024))
    huge = as_energy(MLP(2, [2**17], "tanh", 1.0))
    assert tiny.gradient_chunk == GRADIENT_CHUNK
    assert 2**23 / (8 * 64 * 14) < small.gradient_chunk < 2**23 / (8 * 64 * 6)
    assert wide.gradient_chunk == 512
    assert 2**28 / (8 * 2**17 * 3) < huge.gradient_chunk <= 2**28 / (8 * 2**17)
    assert 2**26 / (8 * 1024 * 14) < wide.hessian_chunk < 2**26 / (8 * 1024 * 6)
    x = np.random.default_rng(0).standard_normal((wide.gradient_chunk + 1, 2))
    rows = [0, -1]
    np.testing.assert_allclose(wide.gradient(x)[rows], wide.gradient(x[rows]), rtol=1e-10)
