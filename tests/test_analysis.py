"""`analyze` as a whole: what it says when an energy is unusual."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import landscape
from landscape.energy import Energy, load_energy
from landscape.errors import EnergyError, UnsupportedError
from landscape.search import Box, MinimaSearch, SaddleSearch
from landscape.weights import SampledWeights


def small(**weights: object) -> landscape.AnalysisConfig:
    return landscape.AnalysisConfig(minima=MinimaSearch(n_starts=200), weights=SampledWeights(**weights))


def test_a_periodic_energy_is_refused_with_the_remedy() -> None:
    with pytest.raises(EnergyError, match="periodic"):
        landscape.analyze(lambda x: torch.cos(x).sum(1), dim=2)


def test_weights_of_an_energy_that_cannot_be_normalised_are_null() -> None:
    """In a box a periodic energy has minima, but its chains leave for others without end."""
    config = landscape.AnalysisConfig(
        minima=MinimaSearch(n_starts=200, starts=Box(-6.0, 6.0)),
        saddles=SaddleSearch(max_rounds=2, quiet_rounds=1, sweep=0),
    )
    analysis = landscape.analyze(lambda x: torch.cos(x).sum(1), config=config, dim=1)
    assert analysis.sampled is None and not analysis.diagnostics["converged"]
    assert any("cannot be normalised" in text for text in analysis.warnings)


def test_a_state_that_was_never_sampled_has_an_error() -> None:
    """Triple well at beta = 10: the upper well has a weight of 1e-8, which no chain can tell from 1e-5."""
    analysis = landscape.analyze(load_energy("potential:triple-well"), landscape.Overdamped(10.0), small())
    assert analysis.sampled is not None
    assert analysis.sampled.weights[2] < 1e-3 and analysis.sampled.standard_errors[2] > 1e-6
    assert any("never sampled" in text for text in analysis.warnings)


@pytest.mark.parametrize("spec", ["coupled-chain:n=3,g=0.6666666666666666", "coupled-chain:n=4,g=1"])
def test_a_degenerate_saddle_gets_no_rate_and_is_said(spec: str) -> None:
    analysis = landscape.analyze(load_energy(f"potential:{spec}"), config=small())
    assert len(analysis.states.energy) == 2 and len(analysis.saddles.energy) == 0
    degenerate = [point for point in analysis.other_points if point["kind"] == "degenerate"]
    assert len(degenerate) == 1 and np.abs(degenerate[0]["x"]).max() < 1e-2
    assert not analysis.diagnostics["converged"]
    assert any("degenerate point" in text and "no rate formula" in text for text in analysis.warnings)
    assert analysis.to_document()["network"]["log_rate_matrix"][0][1] is None


def test_zero_modes_that_are_not_declared_are_refused() -> None:
    ring = Energy(lambda x: (x.square().sum(1) - 1) ** 2, 2, zero_modes="rotation")
    with pytest.raises(UnsupportedError, match="declare them as its symmetry"):
        landscape.analyze(ring)


def test_rates_beyond_float64_leave_null_and_keep_their_logarithms() -> None:
    analysis = landscape.analyze(load_energy("potential:double-well"), landscape.Overdamped(1.0), small())
    document = analysis.with_dynamics(landscape.Overdamped(5000.0)).to_document()
    network = document["network"]
    assert network["rate_matrix"] == [[None, None], [None, None]]
    # Kramers: k = sqrt(2) / (2 pi) exp(-beta / 4)
    expected = 0.5 * np.log(2) - np.log(2 * np.pi) - 5000 / 4
    assert network["log_rate_matrix"][0][1] == pytest.approx(expected, rel=1e-12)
    single = landscape.analyze(lambda x: (x * x).sum(1), config=small(), dim=1).to_document()
    assert single["network"]["rate_matrix"] == [[0.0]] and single["states"][0]["weights"]["second"] == 1.0


def test_search_functions_take_plain_callables() -> None:
    def wells(x: torch.Tensor) -> torch.Tensor:
        return (x[:, 0] ** 2 - 1) ** 2 + x[:, 1] ** 2

    ends = np.array([[-1.0, 0.0]]), np.array([[1.0, 0.0]])
    assert landscape.string_method(wells, *ends).saddle_energy == pytest.approx([1.0])
    assert landscape.mountain_pass(wells, *ends).energy == pytest.approx([1.0])
    with pytest.raises(EnergyError, match="dim"):
        landscape.find_minima(wells)
