"""Arguments as what the library takes: parameters of the dynamics, the configuration of a search, threads."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.errors import UsageError

if TYPE_CHECKING:
    from landscape.checks import CheckOptions
    from landscape.configuration import AnalysisConfig
    from landscape.energy import Energy


def parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    from landscape.cli.labelling import load_array

    rotation = None if arguments.rotation is None else load_array(Path(arguments.rotation), "the entries of a rotation")
    return {
        "kind": arguments.dynamics, "beta": arguments.beta, "gamma": arguments.gamma, "mass": arguments.mass,
        "rotation": rotation,
    }  # fmt: skip


def check_options(arguments: argparse.Namespace) -> CheckOptions | None:
    """What --check asks for, None where it is not given."""
    from landscape.checks import CheckOptions

    if not arguments.check and arguments.check_budget is not None:
        raise UsageError("--check-budget says how long --check may take: give --check as well")
    budget = CheckOptions.budget if arguments.check_budget is None else arguments.check_budget
    seed = 0 if arguments.seed is None else arguments.seed
    options = CheckOptions(budget=budget, time_step=arguments.time_step, seed=seed)
    return options if arguments.check else None


def set_threads(given: int | None) -> None:
    """One thread unless the user says otherwise: two threads of torch on a busy machine can be 100 times slower."""
    if given is not None and given < 1:
        raise UsageError(f"--threads is a whole number of at least 1, not {given}")
    if given is None and os.environ.get("OMP_NUM_THREADS"):
        return
    import torch

    torch.set_num_threads(given or 1)


def search_config(arguments: argparse.Namespace) -> AnalysisConfig:
    """The configuration file, if any, with the flags put over it."""
    from dataclasses import replace

    from landscape.cli.labelling import load_array
    from landscape.configuration import AnalysisConfig
    from landscape.search.starts import Box, Points

    config = AnalysisConfig.from_toml(arguments.config) if arguments.config else AnalysisConfig()
    changes: dict[str, Any] = {}
    if arguments.starts is not None:
        changes["n_starts"] = arguments.starts
    if arguments.starts_from is not None:
        if arguments.box is not None or arguments.starts is not None:
            other = "--box" if arguments.box is not None else "--starts"
            raise UsageError(f"--starts-from already says where to start, and how often: leave {other} out")
        changes["starts"] = Points(load_array(Path(arguments.starts_from), "start points"))
    elif arguments.box is not None:
        if len({len(bound) for bound in arguments.box if isinstance(bound, tuple)}) > 1:
            raise UsageError(
                "the bounds of --box have different lengths: give one number a coordinate in both, or one number"
            )
        changes["starts"] = Box(*arguments.box)
    if arguments.search_dtype is not None:
        single = arguments.search_dtype == "float32"
        changes["descent"] = replace(config.minima.descent, single=single)
        saddles = replace(config.saddles, walk=replace(config.saddles.walk, single=single))
        config = replace(config, saddles=saddles)
    config = replace(config, minima=replace(config.minima, **changes)) if changes else config
    return config if arguments.seed is None else replace(config, seed=arguments.seed)


def check_starts(config: AnalysisConfig, dim: int) -> None:
    """Before anything is written: the starts fit the energy."""
    from landscape.search.starts import Box, Points

    starts = config.minima.starts
    if isinstance(starts, Points) and starts.x.shape[1] != dim:
        raise UsageError(
            f"start points have {dim} columns for this energy, not {starts.x.shape[1]}: check --starts-from"
        )
    bounds = (starts.low, starts.high) if isinstance(starts, Box) else ()
    for bound in bounds:
        if isinstance(bound, tuple) and len(bound) != dim:
            raise UsageError(
                f"a box bound is one number or {dim} of them for this energy, not {len(bound)}: check --box"
            )


def search_line(config: AnalysisConfig, energy: Energy) -> str:
    from landscape.energy import ParticleSymmetry
    from landscape.search.starts import Box, Points

    starts = config.minima.starts
    if isinstance(starts, Points):
        where = f"{len(starts.x)} given starts"
    elif isinstance(starts, Box):
        where = f"{config.minima.n_starts} starts in a box from {starts.low} to {starts.high}"
    elif starts is None and isinstance(energy.symmetry, ParticleSymmetry):
        where = f"{config.minima.n_starts} clouds of particles that find their own size"
    else:
        kind = "from a Gaussian" if starts is not None else "in a cube that finds its own scale"
        where = f"{config.minima.n_starts} starts {kind}"
    return f"{where}, seed {config.seed}"
