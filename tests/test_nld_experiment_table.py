"""The table of many experiments against numbers worked out by hand; documents that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nld_models import evaluation
from nld_models.checkpoint import SavedModel
from nld_models.errors import CheckpointError
from nld_models.experiment import document_text
from nld_models.experiment_table import experiments_table, main, read_documents
from nld_models.model import LatentModel
from nld_models.model_config import ModelConfig
from nld_models.networks import StackedLinear
from nld_models.paper_chains import experiment, sample_experiment
from nld_models.prior import FreePrior

RATE = 0.02


def seed_row(seed: int, l1: float, factor: float, **other: Any) -> dict[str, Any]:
    """A seed whose rates are `factor` times the chain's, but 0 -> 1, which is the chain's."""
    rates = np.full((3, 3), factor * RATE)
    rates[0, 1] = RATE
    methods = ("exact", "draws 100000", "draws 1000", "0th order", "2nd order")
    row = {
        "seed": seed, "emission": 0, "accuracy": 0.99, "sample_accuracy": 0.97, "rates": rates.tolist(),
        "weights": {method: [0.3, 0.3, 0.4] for method in methods}, "l1": dict.fromkeys(methods, l1),
        "rate_error": 0.1, "saddles": [[0, 1], [0, 2], [1, 2]], "stopped": None, "finite": True, "refinement": None,
    }  # fmt: skip
    return row | other


def document(dynamics: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "experiment": 1, "dynamics": dynamics, "noise": "easy", "test_seed": 7, "cpu_seconds": 100.0,
        "model": {"latent_dim": 5, "architecture": "mlp", "objective": "matching"},
        "true_rates": np.full((3, 3), RATE).tolist(), "true_weights": [1 / 3] * 3, "seeds": rows,
    }  # fmt: skip


def cells(text: str, first: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_seed_counts() -> None:
    """Three seeds: a good one, one stopped at a NaN and not rolled back, one with an extra state and no rates."""
    stopped = {"seed": 1, "iteration": 9, "reason": "loss not finite", "rolled_back_to": 0}
    extra = {"exact": [0.3, 0.3, 0.3, 0.1], "draws 100000": [0.3, 0.3, 0.3, 0.1]}
    rows = [
        seed_row(0, 0.01, 2.0),
        seed_row(1, 0.03, 0.5, stopped=stopped, finite=False, accuracy=0.8, saddles=[[0, 1]]),
        seed_row(2, 0.02, 1.0, rate_error=None, weights=extra, rates=np.ones((4, 4)).tolist()),
    ]
    text = experiments_table([document("overdamped", rows)])
    found = cells(text, "1, overdamped, noise easy, d = 5, energy mlp")
    assert found[1:8] == ["3", "2 of 3", "92.67 (80.00)", "92.6", "0.0200 (0.0300)", "0.0200 (0.0300)", "0.040"]
    # five ratios of 2, five of 1/2, two of 1
    assert found[9:] == ["1.000, 0.50 to 2.00, 1 without", "2 of 3", "1", "1", "33"]
    assert cells(text, "1 |")[-1] == "loss not finite" and "1.00, 2.00, 2.00, 2.00, 2.00, 2.00" in cells(text, "0 |")
    assert "not public" in text


def test_a_free_drift_has_what_is_defined_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {"exact": [None] * 3, "draws 100000": [0.3, 0.3, 0.4]}
    l1 = {"exact": None, "draws 100000": 0.05, "0th order": None, "2nd order": None}
    row = seed_row(0, 0, 1.0, weights=weights) | {"l1": l1}
    (tmp_path / "a.json").write_text(document_text(document("nsde", [row])))
    assert main([str(tmp_path)]) == 0
    found = cells(capsys.readouterr().out, "1, nsde, noise easy, d = 5, no energy")
    assert found[2] == "1 of 1" and found[5:9] == ["n/d", "n/d", "-", "0.0500 (0.0500)"] and found[10] == "n/d"


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps(document("nsde", []))])
def test_other_files_are_refused(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="holds no"):
        read_documents(tmp_path)
    (tmp_path / "a.json").write_text(content)
    assert main([str(tmp_path)]) == 2
    assert "a.json is no document of nld experiment" in capsys.readouterr().err


def test_the_evaluation_of_a_free_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attracting point, f = -z / 2: all weight is on it; what needs an energy is nan."""
    monkeypatch.setattr(evaluation, "DRAWS", (400, 100))
    model = LatentModel(ModelConfig(prior="nsde", drift_hidden=4), 15, False, (3,), torch.float64)
    assert isinstance(model.prior, FreePrior)
    with torch.no_grad():
        for layer, gain in zip(model.prior.layers, (1e-4, 1.0, -0.5e4), strict=True):
            assert isinstance(layer, StackedLinear)
            layer.weight[0] = gain * torch.eye(*layer.weight.shape[1:])
            layer.bias[0] = 0.0
    chain = experiment(1)
    data = sample_experiment(chain, 1, "test", 0, 4, 20)
    scaled = data.standardise()
    saved = SavedModel(model.requires_grad_(False), scaled.mean, scaled.scale, {})
    (row,) = evaluation.evaluate(saved, data, chain.transition, n_paths=100)
    assert row.n_states == 1 and row.saddles == () and row.l1["draws 400"] == pytest.approx(4 / 3)
    assert row.weights["draws 400"] == 1 and np.isnan([row.weights["exact"], row.weights["2nd order"]]).all()
    assert np.isnan(row.langer).all() and np.isnan(row.rate_ratio) and row.rates == pytest.approx(0)
    assert data.labels is not None
    assert row.accuracy == pytest.approx(np.mean(data.labels == np.argmax(row.order == 0)))
