"""`TrainingConfig`, and reading it and a `ModelConfig` from a TOML file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nld_models.checkpoint import DTYPES
from nld_models.errors import ConfigError
from nld_models.model import BACKENDS, Backend
from nld_models.model_config import ModelConfig, check_choice, check_count, check_positive

FINAL_RATE = 0.02  # of the learning rate, at the end of the cosine


@dataclass(frozen=True)
class TrainingConfig:
    """Hyper-parameters of `train`; the defaults are the recipe of matching, `recipe` has that of a model.

    seeds, first_seed : seeds first_seed, ..., first_seed + seeds - 1 train together; each has its own initial values,
    batches and noise. iterations, batch, window : Adam steps, windows a step, frames a window. learning_rate : its
    peak, after a linear rise over the first `rate_warmup` of the steps; then a cosine. kl_start : weight of the KL
    terms at the start, rising linearly to 1 over the first `kl_warmup` of the steps. stationarity_weight,
    equilibration : see `model`. partition_points : points of each estimate of log Z. clip : largest norm of a seed's
    gradient. save_every : steps from one checkpoint (and state to roll back to) to the next. backend : who integrates
    the paths of the simulated objective, "own" or "torchsde" (Euler-Maruyama). adjoint_clip : largest gradient that
    its back-propagation carries from one observation to the one before, a sample, see `simulated`.
    """

    seeds: int = 1
    first_seed: int = 0
    iterations: int = 800
    batch: int = 64
    window: int = 61
    learning_rate: float = 1e-2
    rate_warmup: float = 0.05
    kl_start: float = 0.05
    kl_warmup: float = 0.3
    stationarity_weight: float = 0.1
    equilibration: float = 0.25
    partition_points: int = 1024
    clip: float = 10.0
    save_every: int = 50
    dtype: str = "float32"
    backend: Backend = "own"
    adjoint_clip: float = 100.0

    def __post_init__(self) -> None:
        for name in ("seeds", "iterations", "batch", "save_every"):
            check_count(name, getattr(self, name))
        check_count("first_seed", self.first_seed, 0)
        check_count("window", self.window, 2)
        check_count("partition_points", self.partition_points, 128)
        for name in ("learning_rate", "clip", "adjoint_clip"):
            check_positive(name, getattr(self, name))
        for name in ("rate_warmup", "kl_start", "kl_warmup", "stationarity_weight", "equilibration"):
            check_positive(name, getattr(self, name), zero=True)
        for name in ("rate_warmup", "kl_start", "kl_warmup"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} is at most 1, not {getattr(self, name)!r}")
        if self.equilibration >= 1:
            raise ConfigError(f"equilibration leaves out a share below 1 of each sequence, not {self.equilibration!r}")
        check_choice("dtype", self.dtype, tuple(DTYPES))
        check_choice("backend", self.backend, BACKENDS)

    def kl_weight(self, iteration: int) -> float:
        ramp = iteration / (self.kl_warmup * self.iterations) if self.kl_warmup else 1.0
        return self.kl_start + (1 - self.kl_start) * min(1.0, ramp)

    def rate(self, iteration: int) -> float:
        warm = max(1.0, self.rate_warmup * self.iterations)
        cosine = 0.5 * (1 + math.cos(math.pi * iteration / self.iterations))
        return self.learning_rate * min(1.0, (iteration + 1) / warm) * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


def recipe(model: ModelConfig) -> TrainingConfig:
    """The default settings for a model: paths cost more than marginals, so that their windows are shorter."""
    return TrainingConfig() if model.objective == "matching" else TrainingConfig(window=31)


def complete(model: ModelConfig, given: Mapping[str, Any]) -> TrainingConfig:
    """The recipe of a model with some settings given."""
    return TrainingConfig(**{**asdict(recipe(model)), **given})


def read_config(path: str | Path) -> dict[str, dict[str, Any]]:
    """The tables [model] and [training] of a TOML file, with the fields of `ModelConfig` and `TrainingConfig`.

    Only names are checked here: the classes check the values. ConfigError for a file that cannot be read, and for an
    unknown name.
    """
    try:
        with open(path, "rb") as file:
            given = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    kinds: dict[str, type] = {"model": ModelConfig, "training": TrainingConfig}
    for table, entries in given.items():
        if table not in kinds or not isinstance(entries, Mapping):
            raise ConfigError(f"{path}: unknown entry {table!r}; known: the tables [model] and [training]")
        known = [f.name for f in fields(kinds[table])]
        for name in entries:
            if name not in known:
                raise ConfigError(f"{path}: [{table}] has no {name!r}; known: {', '.join(known)}")
    return {table: dict(given.get(table, {})) for table in kinds}
