"""The configuration of an analysis as TOML: every setting can be given, and what an analysis saves can be read back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import landscape
from landscape.analysis import AnalysisConfig
from landscape.energy import load_energy
from landscape.errors import UsageError
from landscape.search import LBFGS, Box, FlowOptions, Gaussian, MinimaSearch, Points, SaddleSearch, StringOptions
from landscape.search.saddles import EigenvectorFollowing
from landscape.weights import SampledWeights

EVERYTHING = AnalysisConfig(
    seed=7,
    minima=MinimaSearch(n_starts=40, starts=Box((-2.0,), 2.0), descent=LBFGS(5, 900, 2e-5), hops=0.5),
    saddles=SaddleSearch(
        90, 7, 20, 1, 50, 1, EigenvectorFollowing(60, 2e-4, 0.05, 0.2), FlowOptions(tolerance=5e-4, max_iterations=3000)
    ),
    paths=StringOptions(15, 400, 0.05),
    weights=SampledWeights(n_chains=32, target_se=0.05, max_sweeps=400),
)


def as_toml(tables: Mapping[str, Any], name: str = "") -> str:
    """A saved config as TOML: None is left out, but for `weights`, where it means that nothing is sampled."""
    plain = {key: value for key, value in tables.items() if not isinstance(value, Mapping) and value is not None}
    if not name and tables["weights"] is None:
        plain["weights"] = False
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    inner = [(f"{name}.{key}" if name else key, table) for key, table in tables.items() if isinstance(table, Mapping)]
    return "\n".join([*lines, *(as_toml(table, below) for below, table in inner)])


@pytest.mark.parametrize(
    "config",
    [
        EVERYTHING,
        dataclasses.replace(EVERYTHING, minima=MinimaSearch(30, Gaussian((0.5,), 2.0)), weights=None),
        AnalysisConfig(minima=MinimaSearch(30), saddles=SaddleSearch(sweep=0), weights=None),
    ],
    ids=["box", "gaussian", "no-starts"],
)
def test_a_saved_config_is_read_back_equal(config: AnalysisConfig, tmp_path: Path) -> None:
    landscape.analyze(load_energy("potential:double-well"), config=config).save(tmp_path)
    saved = json.loads((tmp_path / "analysis.json").read_text())["config"]
    (tmp_path / "saved.toml").write_text(as_toml(saved))
    assert AnalysisConfig.from_toml(tmp_path / "saved.toml") == config


def test_given_start_points_are_not_in_the_config(tmp_path: Path) -> None:
    config = AnalysisConfig(minima=MinimaSearch(starts=Points(np.array([[-2.0], [2.0]]))), weights=None)
    saved = landscape.analyze(load_energy("potential:double-well"), config=config).to_document()["config"]
    (tmp_path / "saved.toml").write_text(as_toml(saved))
    with pytest.raises(UsageError, match=r"\[minima.starts\] has low and high.*--starts-from"):
        AnalysisConfig.from_toml(tmp_path / "saved.toml")
    saved["minima"]["starts"] = None
    (tmp_path / "saved.toml").write_text(as_toml(saved))
    assert AnalysisConfig.from_toml(tmp_path / "saved.toml") == AnalysisConfig(weights=None)


def test_every_field_of_every_class_can_be_given() -> None:
    """EVERYTHING differs from the defaults in each number of the searches, so that none is read back by chance."""
    for given, default in ((EVERYTHING.saddles, SaddleSearch()), (EVERYTHING.minima, MinimaSearch())):
        for field in dataclasses.fields(given):
            assert getattr(given, field.name) != getattr(default, field.name), field.name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[minima.descent]\nmemry = 3", r"\[minima.descent\] has no 'memry'; known: memory, max_iterations"),
        ("[minima.descent]\nmemory = 3.5", r"\[minima.descent\] memory is a whole number, not 3.5"),
        ("[minima.descent]\nmemory = 0", "memory >= 1"),
        ("[minima]\ndescent = 3", r"descent is given as a table \[minima.descent\], not 3"),
        ("[saddles]\nwalk = [1, 2]", r"walk is given as a table \[saddles.walk\]"),
        ("[saddles.walk]\nstep_tolerance = true", r"\[saddles.walk\] step_tolerance is a number, not True"),
        ("[saddles.flow]\ntolerance = 'fine'", r"\[saddles.flow\] tolerance is a number, not 'fine'"),
        ("[saddles.flow.deeper]\nx = 1", r"\[saddles.flow\] has no 'deeper'"),
        ("[saddles]\nmax_rounds = 1", "max_rounds = 1 cannot have quiet_rounds = 2"),
        ("[minima.starts]\nlow = 0\nmean = 1", r"\[minima.starts\] has no 'mean'"),
        ("[minima.starts]", "low and high, or mean"),
        ("[minima.starts]\nlow = 0\nhigh = 1\n[minima.box]\nlow = 0\nhigh = 1", "not both"),
        ("[minima.box]\nlow = ['a']\nhigh = 1", "low is a number or a list of numbers"),
    ],
)
def test_what_is_wrong_is_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UsageError, match=says):
        AnalysisConfig.from_toml(tmp_path / "config.toml")
