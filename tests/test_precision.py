"""Searches in float32 with ends polished in float64, and on other devices: the same points as in float64 on the CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from oracles import TRIPLE_WELL

from landscape.cli import main
from landscape.energy import Energy
from landscape.energy.potentials import TripleWell
from landscape.errors import EnergyError
from landscape.search import LBFGS, Box, MinimaSearch, SaddleSearch, find_minima, find_saddles
from landscape.search.lbfgs import relax
from landscape.search.saddles import EigenvectorFollowing

SADDLES = [energy for energy, index in TRIPLE_WELL if index == 1]
MINIMA = [energy for energy, index in TRIPLE_WELL if index == 0]


class Recording(torch.nn.Module):
    """The triple well; notes in SEEN the precisions in which it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.well = TripleWell()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        SEEN.add(x.dtype)
        return self.well(x)


SEEN: set[torch.dtype] = set()


def test_descents_in_float32_end_where_those_in_float64_do() -> None:
    """To the rounding of float32: gradients of order 10 are known to 1e-6, and the softest curvature is 3.8."""
    energy = Energy(TripleWell(), 2)
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 - 1.5
    double, single = relax(energy, x, 2.0), relax(energy, x, 2.0, LBFGS(single=True))
    assert single["x"].dtype == torch.float64 and bool((single["status"] == double["status"]).all())
    # a row on a watershed may fall to either side
    assert ((single["x"] - double["x"]).norm(dim=1) < 1e-4).double().mean() > 0.9


def test_a_search_in_float32_finds_the_points_in_full_precision() -> None:
    SEEN.clear()
    energy = Energy(Recording(), 2)
    found = find_minima(energy, MinimaSearch(n_starts=100, starts=Box(-2.0, 2.0), descent=LBFGS(single=True)))
    assert torch.float32 in SEEN and torch.float64 in SEEN
    np.testing.assert_allclose(found.minima.energy, MINIMA, atol=1e-11)
    walks = SaddleSearch(walk=EigenvectorFollowing(single=True), sweep=200)
    saddles = find_saddles(energy, found, walks)
    assert saddles.complete
    np.testing.assert_allclose(saddles.saddles.energy, SADDLES, atol=1e-11)
    assert energy.evaluations.gradient > 100 * 5  # what the copy in float32 evaluates counts as well


def test_an_energy_of_one_precision_says_so() -> None:
    matrix = torch.eye(2, dtype=torch.float64)
    with pytest.raises(EnergyError, match="float32"):
        Energy(lambda x: (x @ matrix * x).sum(1), 2).single()
    with pytest.raises(EnergyError, match="float32"):
        Energy(lambda x: x.double().square().sum(1), 2).single()


def test_the_command_searches_in_float32(tmp_path, capsys) -> None:
    (tmp_path / "short.toml").write_text("weights = false\nexact = false\n[saddles]\nsweep = 200\n")
    command = [
        "analyze", "potential:triple-well", "--search-dtype", "float32", "--starts", "100", "--config",
        str(tmp_path / "short.toml"), "--out", str(tmp_path / "a"), "--json", "--quiet",
    ]  # fmt: skip
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["config"]["minima"]["descent"]["single"] and document["config"]["saddles"]["walk"]["single"]
    assert [state["energy"] for state in document["states"]] == pytest.approx(MINIMA, abs=1e-11)
