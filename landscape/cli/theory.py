"""`landscape theory`: constants, bias and iterations of unadjusted Langevin Monte Carlo on an analysed energy."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.cli.labelling import energy_of
from landscape.cli.terminal import Progress, emit
from landscape.errors import UnsupportedError, UsageError
from landscape.tables import GAP, WIDTH, power

if TYPE_CHECKING:
    from landscape.rates.langevin_monte_carlo import LmcConstants, LmcObserved, LmcPlan
    from landscape.store import Analysis

FORMAT, VERSION = "learned-landscape/lmc-theory", 1
LEAST_WEIGHT = 1e-300


def run_theory(arguments: argparse.Namespace) -> int:
    """The command, after threads have been set."""
    import torch

    from landscape.rates import langevin_monte_carlo as lmc
    from landscape.search import assign_basins, make_basins
    from landscape.store import Analysis

    seed = 0 if arguments.seed is None else arguments.seed
    if not 0 <= seed < 2**63:
        raise UsageError(f"a seed is a whole number from 0 to 2^63 - 1, not {seed}")
    generator = torch.Generator().manual_seed(seed)
    saved = Analysis.load(arguments.folder)
    if saved.large is not None:
        raise UsageError(f"the theory asks for whole spectra, which are not known in dimension {saved.dim}")
    if saved.modulo is not None:
        raise UnsupportedError(
            "the theory asks for every minimum by itself, without zero modes, but a state of particles stands for all "
            "its copies: hold the cluster in place (a trap, an axis) and declare no particles"
        )
    states, beta = saved.states, saved.dynamics.beta
    with Progress(arguments.quiet) as progress, contextlib.redirect_stdout(sys.stderr):
        energy = energy_of(saved, Path(arguments.folder), arguments.energy, arguments.trust)
        progress("looking for the largest curvature")
        points = np.concatenate([states.x, saved.saddles.x])
        constants = _constants(saved, lmc.local_smoothness(energy, beta, points, generator))
        start = int(np.argmax(constants.start_kl))
        planned = lmc.plan(constants, arguments.accuracy, start)
        at_step = None
        if arguments.step_size is not None:
            at_step = lmc.plan(constants, arguments.accuracy, start, arguments.step_size)
        hessians = energy.hessian(states.x) if states.hessian is None else states.hessian
        basins = make_basins(energy, states.x, generator, outside=saved.saddles.x)
        weights = _weights(saved)
        observed = lmc.observe(
            energy, beta, states.x, hessians, weights, start, constants.smoothness, arguments.accuracy,
            lambda x: assign_basins(energy, x, basins), generator, step_size=arguments.step_size, progress=progress,
        )  # fmt: skip
        bias = lmc.harmonic_bias(states.eigenvalues, weights, beta, observed.step_size)
    document = _document(saved, constants, planned, at_step, observed, bias)
    emit(json.dumps(document, allow_nan=False) if arguments.json else theory_text(document), sys.stdout)
    return 0


def _constants(saved: Analysis, smoothness: float) -> LmcConstants:
    """The constants, with the Eyring-Kramers network in the units of f = beta E: gamma = 1 / beta."""
    from landscape.dynamics import Overdamped
    from landscape.rates.langevin_monte_carlo import lmc_constants

    beta, states = saved.dynamics.beta, saved.states
    if len(states.energy) == 1:
        return lmc_constants(states.energy, states.eigenvalues, beta, smoothness)
    scaled = saved.with_dynamics(Overdamped(beta, 1 / beta))
    slowest = float(scaled.network.log_timescales[0])
    if math.isnan(slowest):
        raise UsageError(
            "the slowest timescale of this network could not be resolved: nothing can be said of LMC on it"
        )
    return lmc_constants(
        states.energy, states.eigenvalues, beta, smoothness, scaled.network.log_rate_matrix, scaled.log_second, -slowest
    )


def _weights(saved: Analysis) -> np.ndarray:
    """The sampled weights where there are any, else the harmonic ones; never 0, and summing to 1."""
    weights = np.exp(saved.log_second)
    if saved.sampled is not None:
        weights = np.where(saved.sampled.weights > 0, saved.sampled.weights, weights)
    weights = np.maximum(weights, LEAST_WEIGHT)
    return np.asarray(weights / weights.sum())


def _document(
    saved: Analysis, constants: LmcConstants, planned: LmcPlan, at_step: LmcPlan | None, observed: LmcObserved,
    bias: float,
) -> dict[str, Any]:  # fmt: skip
    inside = math.log(constants.well_curvature)
    return {
        "format": FORMAT, "version": VERSION, "energy": saved.energy["source"], "dim": constants.dim,
        "beta": saved.dynamics.beta, "states": len(saved.states.energy),
        "smoothness": constants.smoothness, "smoothness_level": constants.level, "smoothness_is_local": True,
        "well_curvature": constants.well_curvature, "log_gap": _plain(constants.log_gap),
        "log_alpha": _plain(constants.log_alpha), "log_gap_inside_wells": inside,
        "decided_by": "passages between wells (Eyring-Kramers)" if constants.between else "the softest well (harmonic)",
        "log_largest_step": _plain(constants.log_largest_step), "start": observed.start,
        "bound": _plan_record(planned), "bound_at_step_size": None if at_step is None else _plan_record(at_step),
        "harmonic_bias": _plain(bias),
        "observed": {
            "step_size": observed.step_size, "iterations": observed.iterations.tolist(),
            "kl": [_plain(value) for value in observed.kl], "floor": observed.floor, "reached": observed.reached,
            "stopped": observed.stopped,
        },
    }  # fmt: skip


def _plan_record(plan: LmcPlan) -> dict[str, Any]:
    return {
        "log_step_size": _plain(plan.log_step), "admissible": bool(plan.admissible), "kl_limit": _plain(plan.limit),
        "accuracy": plan.accuracy, "start_kl": plan.start_kl, "log_iterations": _plain(plan.log_iterations),
        "reachable": plan.log_iterations < math.inf,
    }  # fmt: skip


def theory_text(document: dict[str, Any]) -> str:
    """The document for people: constants, what the bound asks for, what was seen, and what the words mean."""
    d, seen = document, document["observed"]
    lines = _labelled(
        "LMC",
        f"x' = x - eta grad f + sqrt(2 eta) xi with f = beta E of {d['energy']}, beta {d['beta']:.6g}, dimension "
        f"{d['dim']}, {d['states']} state{'s' if d['states'] > 1 else ''}",
    )
    lines += _labelled(
        "smoothness",
        f"L = {d['smoothness']:.5g}, local: the largest curvature of f found where f - f_min <= "
        f"{d['smoothness_level']:g}; a global one need not exist",
    )
    lines += _labelled("gap", f"{power(d['log_gap'])} per unit of eta k, set by {d['decided_by']}")
    ratio = "-" if d["log_alpha"] is None else f"{math.exp(d['log_gap'] - d['log_alpha']):.3g}"
    between = (
        ", for two wells 1 / (2 Lambda(Z_1, Z_2)) (Menz and Schlichting 2014), Lambda the logarithmic mean of their "
        "weights; both are asymptotic in high barriers"
    )
    lines += _labelled(
        "alpha",
        f"{power(d['log_alpha'])}, log-Sobolev; gap / alpha = {ratio}{between if d['states'] > 1 else ''}",
    )
    lines += _labelled("steps", f"the recursion holds for eta < alpha / (4 L^2) = {power(d['log_largest_step'])}")
    lines += ["", "KL_{k+1} <= exp(-alpha eta) KL_k + 6 eta^2 d L^2 (Vempala and Wibisono 2019)"]
    lines += _plan_lines("bound", d["bound"], d["start"])
    if d["bound_at_step_size"] is not None:
        lines += _plan_lines("your step", d["bound_at_step_size"], d["start"])
    lines += ["", f"2,000 chains at eta = {seen['step_size']:.4g}, from the same start"]
    last = f"KL of the states' occupancies {seen['kl'][-1]:.3g}" if d["states"] > 1 else f"KL {seen['kl'][-1]:.3g}"
    if seen["reached"] is None:
        text = f"not at KL {d['bound']['accuracy']:g} after {seen['iterations'][-1]:,} iterations: {last}"
    else:
        text = f"{seen['reached']:,} iterations to KL {d['bound']['accuracy']:g}: {last}, of which {seen['floor']:.2g} "
        text += "is chance"
    if seen["reached"] and d["bound"]["log_step_size"] is not None:
        log_same = math.log(seen["reached"] * seen["step_size"]) - d["bound"]["log_step_size"]
        text += f"; the same eta k is {power(log_same)} iterations at the step of the bound"
    lines += _labelled("observed", text + (f"; {seen['stopped']} chains were lost" if seen["stopped"] else ""))
    bias = "infinite: the step is unstable" if d["harmonic_bias"] is None else f"{d['harmonic_bias']:.3g}"
    lines += _labelled("bias", f"KL of what LMC tends to at that step, in harmonic wells: {bias}")
    return "\n".join(lines)


def _plan_lines(label: str, plan: dict[str, Any], start: int) -> list[str]:
    step = f"eta = {power(plan['log_step_size'])}"
    if not plan["admissible"]:
        step += ", beyond alpha / (4 L^2): nothing is proven"
    limit = "no bound" if plan["kl_limit"] is None else f"KL <= {plan['kl_limit']:.3g}"
    if not plan["reachable"]:
        asked = "never"
    else:
        asked = "0" if plan["log_iterations"] is None else power(max(plan["log_iterations"], 0.0))
    return _labelled(
        label,
        f"{step}; in the limit {limit}; iterations to KL {plan['accuracy']:g} from around state {start} "
        f"(KL_0 <= {plan['start_kl']:.3g}): {asked}",
    )


def _labelled(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{label:<10}{GAP}", subsequent_indent=" " * 12)


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
