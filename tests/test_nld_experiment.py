"""Data sets that are not the paper's, and the paper's experiments as a command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nld_models import paper_chains
from nld_models.cli import main
from nld_models.experiment import Experiment, experiment_text
from nld_models.kinetics import lagged_counts, transition_matrix
from nld_models.paper_chains import ChainSize
from nld_models.sequence_files import load_sequences
from nld_models.spirals import sample_spirals
from nld_models.triple_well import INTERVAL, TIMESCALES, WEIGHTS, sample_triple_well

CONFIG = """
[model]
decoder_hidden = 6
context = 8
[model.energy]
hidden = [8]
confinement = 0.1
[training]
iterations = 3
batch = 6
window = 12
partition_points = 128
"""


def test_the_triple_well_has_its_weights_and_timescale() -> None:
    """Against the exact weights and the generator's eigenvalue.

    100 sequences of 40 time units hold about 160 slow timescales: the share of a lower well has a standard error of
    about .5 sqrt(2 / 320) = .04, the upper one's .008, a timescale 10 %. Bounds are four of these, a false alarm below
    1 in 5,000. The weights of beta = 2 (.024 above) would pass; a timescale of 27.3 (beta = 2) fails.
    """
    data = sample_triple_well(100, 400, seed=4)
    assert data.values.shape == (100, 400, 15) and data.labels is not None
    share = np.bincount(data.labels.ravel(), minlength=3) / data.labels.size
    assert (np.abs(share - WEIGHTS) < [0.16, 0.16, 0.032]).all()
    lag = 30
    values = np.sort(np.linalg.eigvals(transition_matrix(lagged_counts(data.labels, 3, lag))).real)
    assert -lag * INTERVAL / np.log(values[1]) == pytest.approx(TIMESCALES[0], rel=0.4)
    assert np.array_equal(sample_triple_well(3, 5, seed=1).values, sample_triple_well(3, 5, seed=1).values)


def test_spirals_turn_as_labelled() -> None:
    """The sense of rotation by the summed cross product of neighbouring frames."""
    data = sample_spirals(40, 60, seed=2)
    x, y = data.values[..., 0], data.values[..., 1]
    turn = (x[:, :-1] * y[:, 1:] - y[:, :-1] * x[:, 1:]).sum(1)
    assert data.labels is not None and np.array_equal(turn < 0, data.labels[:, 0] == 1)


def test_stacks_share_an_emission_draw() -> None:
    assert Experiment(1, seeds=10).stacks() == [range(0, 4), range(4, 8), range(8, 10)]
    assert Experiment(2, seeds=3, first_seed=3).stacks() == [range(3, 4), range(4, 6)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for (number, split), _ in list(paper_chains.SIZES.items()):
        monkeypatch.setitem(paper_chains.SIZES, (number, split), ChainSize(12, 30))


@pytest.mark.usefixtures("small")
def test_an_experiment_resumes_and_leaves_no_seed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two seeds of two stacks, then the same folder again: nothing is trained twice, and the tables have all seeds."""
    (tmp_path / "c.toml").write_text(CONFIG)
    words = ["experiment", "1", "--seeds", "2", "--first-seed", "3", "-o", str(tmp_path / "e")]
    words += ["--config", str(tmp_path / "c.toml")]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(row["seed"], row["emission"]) for row in document["seeds"]] == [(3, 0), (4, 1)]
    np.testing.assert_allclose(document["true_weights"], 1 / 3)
    # log P of the chain that stays with .95: its eigenvalue .925 twice
    np.testing.assert_allclose(document["true_rates"][0][1], -np.log(0.925) / 3, rtol=1e-12)
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "e").iterdir()}
    stacks = {f"seeds_{part}.{kind}" for part in ("3_to_3", "4_to_4") for kind in ("json", "safetensors")}
    assert set(written) == {*stacks, "experiment.json"}
    assert json.loads((tmp_path / "e" / "experiment.json").read_text()) == document
    assert main(words) == 0
    text = capsys.readouterr().out
    assert {name: (tmp_path / "e" / name).stat().st_mtime_ns for name in stacks} == {
        name: written[name] for name in stacks
    }
    assert text == experiment_text(document) + "\n"
    for expected in ("Table 1", "Table 2", "Table 3", "0.047 +- 0.037", "92.6 +- 0.6", "not public", "2 seeds"):
        assert expected in text
    assert main([*words, "--noise", "hard"]) == 2
    assert "holds another experiment" in capsys.readouterr().err
    (tmp_path / "e" / "seeds_4_to_4.json").write_text("{")
    assert main(words) == 2 and "is damaged" in capsys.readouterr().err


def test_nld_data_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "s.npz")
    assert main(["data", "spirals", "-o", path, "--sequences", "6", "--length", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_sequences"] == 6
    assert load_sequences(path).values.shape == (6, 20, 2)
    assert main(["data", "triple-well", "--sequences", "4", "--length", "6"]) == 0
    assert "15 channels" in capsys.readouterr().out
    assert main(["data", "spirals", "--noise", "hard"]) == 2
    assert "--noise is for experiments 1 and 2" in capsys.readouterr().err
