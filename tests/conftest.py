"""What all tests share: one thread, untouched global state, and the published models if they are there."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# Two threads on a busy machine of two cores spin-wait and can be a hundred times slower than one.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
PAPER_MODELS = Path(os.environ.get("LANDSCAPE_PAPER_MODELS", ROOT.parent / "shared" / "paper_models"))
NO_PAPER_MODELS = pytest.mark.skipif(
    not PAPER_MODELS.is_dir(), reason="published NLD models not found; set LANDSCAPE_PAPER_MODELS to their folder"
)


@dataclass(frozen=True)
class PaperModel:
    """One published model: `folder` such as "symmetric_overdamped", its number, the checkpoint, its oracle."""

    folder: str
    number: int
    path: Path
    oracle: dict[str, Any]


def find_paper_models() -> list[PaperModel]:
    """All of them, in a fixed order; empty where the folder does not exist."""
    return [
        PaperModel(
            folder=path.parent.name,
            number=int(path.stem.removeprefix("model_")),
            path=path,
            oracle=json.loads(path.with_name(path.stem.replace("model", "oracle") + ".json").read_text()),
        )
        for path in sorted(PAPER_MODELS.glob("*/model_*.pth"))
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`paper_model`: the test runs once for each published model."""
    if "paper_model" in metafunc.fixturenames:
        models = [pytest.param(model, id=f"{model.folder}-{model.number}") for model in find_paper_models()]
        metafunc.parametrize("paper_model", models or [pytest.param(None, id="none", marks=NO_PAPER_MODELS)])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"paper_model", "paper_models"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.paper)


@pytest.fixture(scope="session")
def paper_models() -> list[PaperModel]:
    """The nine published models; skips where they are not there."""
    models = find_paper_models()
    if not models:
        pytest.skip(f"published NLD models not found in {PAPER_MODELS}; set LANDSCAPE_PAPER_MODELS to their folder")
    return models


@pytest.fixture(autouse=True)
def global_state_untouched() -> Iterator[None]:
    """No test, and so no library function, draws from the global generators or changes torch's default dtype.

    A test that must build a network with torch's own initialisation does so inside `torch.random.fork_rng()`.
    """
    before = _global_state()
    yield
    changed = [name for name, value in _global_state().items() if value != before[name]]
    assert not changed, f"changed global state: {', '.join(changed)}"


def _global_state() -> dict[str, Any]:
    legacy: Any = np.random.get_state(legacy=False)
    return {
        "torch generator": torch.random.get_rng_state().numpy().tobytes(),
        "numpy generator": (legacy["state"]["key"].tobytes(), legacy["state"]["pos"], legacy["has_gauss"]),
        "python generator": random.getstate(),
        "torch default dtype": torch.get_default_dtype(),
        "torch threads": torch.get_num_threads(),
    }
