"""The same answers on another device: on a GPU where there is one, else on a stand-in that refuses what one refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cuda_stand_in import StandIn

from landscape.analysis import analyze, check
from landscape.checks import CheckOptions
from landscape.configuration import AnalysisConfig
from landscape.dynamics import Overdamped
from landscape.energy import Energy, Periodic, load_energy
from landscape.energy.potentials import TripleWell
from landscape.sampling import SampleOptions, sample
from landscape.sampling.sampler import METHODS
from landscape.search import LBFGS, MinimaSearch, SaddleSearch, find_saddles, mountain_pass, string_method
from landscape.search.saddles import EigenvectorFollowing
from landscape.weights import ExactWeights, SampledWeights

FEW = MinimaSearch(n_starts=64)


def triple_well(device: str) -> Energy:
    return Energy(TripleWell(), 2, device=device)


def on_a_torus(x: torch.Tensor) -> torch.Tensor:
    return torch.cos(2 * x[:, 0]) + 0.5 * torch.cos(x[:, 0] + x[:, 1]) + torch.cos(x[:, 1])


def in_a_bath(x: torch.Tensor) -> torch.Tensor:
    stiffness = torch.linspace(1, 3, x.shape[1] - 1, dtype=x.dtype, device=x.device)
    return 2 * (x[:, 0] ** 2 - 1) ** 2 + x[:, 1:].square() @ stiffness


def analysis(device: str) -> list[np.ndarray]:
    config = AnalysisConfig(
        minima=FEW, saddles=SaddleSearch(sweep=64), weights=SampledWeights(target_se=0.02),
        exact=ExactWeights(target_se=0.02, draws=8000, labels=800),
    )  # fmt: skip
    found = analyze(triple_well(device), Overdamped(2.0), config)
    assert found.sampled is not None and found.exact is not None
    checked = check(found, triple_well(device), CheckOptions(budget=2.0))
    assert checked.checks is not None
    return [found.states.x, found.saddles.x, found.paths.images, found.sampled.weights, found.exact.weights]


def search(energy: Energy, **settings: Any) -> list[np.ndarray]:
    from landscape.search import find_minima

    generator, minima = torch.Generator().manual_seed(0), settings.pop("minima", FEW)
    found = find_saddles(
        energy, find_minima(energy, minima, generator=generator), SaddleSearch(sweep=64, **settings),
        generator=generator,
    )  # fmt: skip
    assert found.complete
    return [found.minima.x, found.saddles.x, found.joins]


def single(device: str) -> list[np.ndarray]:
    return search(
        triple_well(device), minima=MinimaSearch(n_starts=64, descent=LBFGS(single=True)),
        walk=EigenvectorFollowing(single=True),
    )  # fmt: skip


def periodic(device: str) -> list[np.ndarray]:
    return search(Energy(on_a_torus, 2, symmetry=Periodic((2 * np.pi, 2 * np.pi)), device=device))


def partly_periodic(device: str) -> list[np.ndarray]:
    """An angle and a double well."""
    symmetry = Periodic((2 * np.pi, None))
    return search(Energy(lambda x: torch.cos(x[:, 0]) + (x[:, 1] ** 2 - 1) ** 2, 2, symmetry=symmetry, device=device))


def large(device: str) -> list[np.ndarray]:
    return search(Energy(in_a_bath, 20, dense_dim=0, device=device))


def cluster(device: str) -> list[np.ndarray]:
    return search(load_energy("potential:lennard-jones:n=3", device=device), minima=MinimaSearch(n_starts=16))


def paths(device: str) -> list[np.ndarray]:
    energy = triple_well(device)
    x = find_saddles(energy, config=SaddleSearch(sweep=64), generator=torch.Generator().manual_seed(0)).minima.x
    string, passes = string_method(energy, x[:2], x[1:3]), mountain_pass(energy, x[:2], x[1:3])
    return [string.images, string.saddle, passes.saddle]


def chains(device: str) -> list[np.ndarray]:
    energy, starts = triple_well(device), np.zeros((4, 2))
    return [
        sample(energy, 2.0, starts, SampleOptions(method, n_draws=8, warm_up=40), torch.Generator().manual_seed(0)).x
        for method in METHODS
        if method not in ("annealed", "tempering")  # of the same kernels
    ]


@pytest.mark.parametrize("what", [analysis, single, periodic, partly_periodic, large, cluster, paths, chains])
def test_the_answers_do_not_depend_on_the_device(what: Callable[[str], list[np.ndarray]]) -> None:
    """|difference| < 1e-6 where a search ends; chains, which amplify rounding, on the stand-in only, which has none."""
    stand_in = None if torch.cuda.is_available() else StandIn()
    here = what("cpu")
    with stand_in or contextlib.nullcontext():
        there = what("cuda")
    assert stand_in is None or stand_in.operations > 100
    for first, second in zip(here, there, strict=True):
        if stand_in is not None or what not in (chains, analysis):
            np.testing.assert_allclose(second, first, rtol=0, atol=1e-6)


def test_the_stand_in_refuses_what_cuda_refuses() -> None:
    with StandIn():
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert there.device.type == "cuda" and (2 * there).device.type == "cuda" and there.cpu().device.type == "cpu"
        assert there[torch.tensor([0, 1])].shape == (2,) and there.to(here).device.type == "cpu"
        for wrong in (
            lambda: here + there, lambda: torch.where(there > 0, here, there), lambda: torch.cat([here, there]),
            lambda: here[there > 0], lambda: torch.randn(2, device="cuda", generator=torch.Generator()),
        ):  # fmt: skip
            with pytest.raises(RuntimeError):
                wrong()
        for wrong in (there.numpy, lambda: np.asarray(there)):
            with pytest.raises(TypeError, match="cpu"):
                wrong()
