"""R-hat, effective sizes and crossings where they are known; `sample` and its command from start to file."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from landscape.cli import main
from landscape.cli.arguments import SAMPLERS
from landscape.energy import Energy
from landscape.energy.potentials import DoubleWell, Quadratic
from landscape.errors import UsageError
from landscape.sampling import SampleOptions, Samples, count_crossings, diagnose_chains, sample
from landscape.sampling.sampler import METHODS, UNADJUSTED


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def autoregressive(rho: float, n_draws: int, n_chains: int, seed: int) -> np.ndarray:
    """x' = rho x + sqrt(1 - rho^2) z from equilibrium: (n_draws, n_chains, 1)."""
    rng = np.random.default_rng(seed)
    x = np.empty((n_draws, n_chains, 1))
    x[0, :, 0] = rng.standard_normal(n_chains)
    for k in range(1, n_draws):
        x[k, :, 0] = rho * x[k - 1, :, 0] + math.sqrt(1 - rho**2) * rng.standard_normal(n_chains)
    return x


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_autocorrelation_time_of_an_autoregressive_chain(rho: float) -> None:
    """(1 + rho) / (1 - rho) within a tenth at 80,000 draws, and the error of the mean that follows from it."""
    found = diagnose_chains(autoregressive(rho, 4000, 20, 0), ("x",))
    tau = (1 + rho) / (1 - rho)
    assert found.autocorrelation_time[0] == pytest.approx(tau, rel=0.1)
    assert found.standard_error[0] == pytest.approx(math.sqrt(tau / 80_000), rel=0.1)
    assert found.ess_bulk[0] == pytest.approx(80_000 / tau, rel=0.12)
    assert found.r_hat[0] < 1.01 and found.doubts == []


def test_chains_that_disagree_are_noticed() -> None:
    """Ten chains of which one is shifted, one is wider, or all drift alike: R-hat above 1.01 in each case; 20 sets of
    good chains all stay below."""
    good = [diagnose_chains(autoregressive(0.3, 1000, 10, seed), ("x",)) for seed in range(1, 21)]
    assert max(float(found.r_hat[0]) for found in good) < 1.01
    chains = autoregressive(0.3, 1000, 10, 0)
    shifted, wider, drifting = chains.copy(), chains.copy(), chains + np.linspace(-0.5, 0.5, 1000)[:, None, None]
    shifted[:, 0] += 1.5
    wider[:, 0] *= 3
    for bad in (shifted, wider, drifting):
        found = diagnose_chains(bad, ("x",))
        assert found.r_hat[0] > 1.01
        assert "have not forgotten" in " ".join(found.doubts)
    short = diagnose_chains(autoregressive(0.9, 200, 4, 0), ("x",))
    assert "below 400" in " ".join(short.doubts)


def test_a_quantity_that_never_changes_is_no_certainty() -> None:
    values = np.concatenate([autoregressive(0.0, 100, 4, 0), np.ones((100, 4, 1))], 2)
    found = diagnose_chains(values, ("x", "y"))
    assert math.isnan(found.r_hat[1]) and found.doubts == ["y never changed: every move was refused"]
    for shape in ((7, 4, 1), (100, 1, 1)):
        with pytest.raises(UsageError, match="8 draws"):
            diagnose_chains(np.zeros(shape), ("x",))


def test_crossings_are_counted_and_chains_that_stayed_are_named() -> None:
    label = np.array([[0, 1, -1, 2], [0, 0, -1, 2], [1, 0, -1, 2], [1, 1, -1, 2]])
    found = count_crossings(label, 3, 5)
    np.testing.assert_array_equal(found.changes, [1, 2, 0, 0])
    np.testing.assert_array_equal(found.stayed, [False, False, True, True])
    np.testing.assert_allclose(found.share, [4 / 16, 4 / 16, 4 / 16, 4 / 16])
    per_chain = np.array([0.5, 0.5, 0, 0])
    np.testing.assert_allclose(found.standard_error[0], per_chain.std(ddof=1) / 2)
    assert found.doubts == ["2 of 4 chains never left the basin of the start: take more draws, or move by tempering"]
    assert count_crossings(np.zeros((9, 4), int), 3, 1).doubts == []  # one basin, and nobody knows of another
    assert count_crossings(np.array([[0, 1], [1, 0]]), 2, 1).doubts == []


def draw(method: str, energy: Energy, beta: float, starts: torch.Tensor, **options: int) -> Samples:
    return sample(
        energy, beta, starts, SampleOptions(method=method, **options), generator(0),
        lambda x: (x[:, 0] > 0).long().numpy(), 2,
    )  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_method_draws_from_a_gaussian_by_itself(method: str) -> None:
    """Curvature 2, beta 1.5: means 0 and variances 1/3 within 5 of their own standard errors (1e-5 in all), and 5 % for
    the variances of methods without a decision; nothing but the energy was told."""
    energy = Energy(Quadratic(2, 2.0), 2)
    starts = 0.3 * torch.randn(24, 2, dtype=torch.float64, generator=generator(1))
    found = draw(method, energy, 1.5, starts, n_draws=200, warm_up=100)
    assert found.x.shape == (200, 24, 2) and found.energy.shape == (200, 24)
    np.testing.assert_allclose(found.energy, (found.x**2).sum(2), rtol=1e-12)
    d = found.diagnostics
    assert (np.abs(d.mean[1:]) < 5 * d.standard_error[1:]).all()
    # <E> = d / (2 beta) = 2/3
    slack = 0.05 * 2 / 3 if method in UNADJUSTED else 0.0
    assert abs(d.mean[0] - 2 / 3) < 5 * d.standard_error[0] + slack
    assert math.isnan(found.acceptance) == (method in UNADJUSTED)
    assert found.crossings is not None and found.crossings.label.shape[1] == 24
    assert d.r_hat.max() < 1.1
    assert bool(found.notes) == (method in UNADJUSTED)
    assert (len(found.betas) > 1) == (method == "tempering") == (len(found.exchange) > 0)
    if method in ("mala", "ghmc"):
        again = draw(method, energy, 1.5, starts, n_draws=200, warm_up=100)
        np.testing.assert_array_equal(found.x, again.x)


def test_chains_over_a_high_barrier_are_not_called_converged() -> None:
    """Barrier 10 kT: Metropolis-adjusted chains stay where they are, and it is said; tempering mixes, share 1/2."""
    energy = Energy(DoubleWell(), 1)
    starts = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).repeat(12, 1)
    found = draw("mala", energy, 40.0, starts, n_draws=200, warm_up=100)
    assert not found.converged and "24 of 24 chains never left the basin" in found.reason and "R-hat" in found.reason
    alike = draw("mala", energy, 40.0, starts[:1].repeat(24, 1), n_draws=200, warm_up=100)
    assert alike.crossings is not None and alike.crossings.stayed.all()
    moved = draw("tempering", energy, 40.0, starts, n_draws=400, warm_up=150)
    assert moved.crossings is not None and not moved.crossings.stayed.any()
    assert abs(moved.crossings.share[1] - 0.5) < 4.5 * moved.crossings.standard_error[1]
    assert moved.betas[0] == 40.0 and moved.betas[-1] <= 20.0 and moved.exchange.min() > 0.4


def test_chains_that_run_away_are_told() -> None:
    """LMC beyond its stability on a quartic: chains stop at their last finite place, the others are diagnosed; where
    all are lost it is an error."""
    energy = Energy(lambda x: 0.25 * (x**4).sum(1), 1)
    starts = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
    options = SampleOptions(method="lmc", n_draws=60, warm_up=20, thin=1, step_size=0.25)
    found = sample(energy, 1.0, starts, options, generator(0))
    assert np.isfinite(found.x).all()
    if found.stopped.any():
        assert not found.converged and "non-finite" in found.reason
    with pytest.raises(UsageError, match="smaller step size"):
        wild = SampleOptions(method="lmc", n_draws=60, warm_up=20, thin=1, step_size=30.0)
        sample(energy, 1.0, starts, wild, generator(0))


def test_options_that_make_no_sense_are_refused() -> None:
    for bad in (
        {"method": "gibbs"}, {"n_draws": 4}, {"warm_up": 0}, {"thin": 0}, {"step_size": -1.0}, {"hottest": 2.0},
        {"method": "tempering", "step_size": 0.1}, {"n_leapfrog": 0},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            SampleOptions(**bad)
    energy = Energy(Quadratic(2, 1.0), 2)
    for starts, beta in ((torch.zeros(2, 2), 1.0), (torch.zeros(8, 3), 1.0), (torch.zeros(8, 2), -1.0)):
        with pytest.raises(UsageError):
            sample(energy, beta, starts, SampleOptions(), generator(0))
    assert SAMPLERS == METHODS


def run_command(*words: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def test_the_command_writes_draws_and_tells_whether_they_converged(tmp_path: Path) -> None:
    target = tmp_path / "draws.npz"
    words = ("sample", "potential:quadratic:d=2,kappa=2", "--beta", 1.5, "-n", 16000, "-o", target)
    code, out, err = run_command(*words, "--seed", 3, "--quiet")
    assert (code, err) == (0, "")
    assert "converged   yes" in out and "acceptance" in out and "R-hat" in out
    with np.load(target) as file:
        assert file["x"].shape == (500, 32, 2) and file["energy"].shape == (500, 32)
        assert str(file["method"]) == "mala" and bool(file["converged"]) and int(file["seed"]) == 3
        assert (file["label"] == 0).all() and file["x"].var() == pytest.approx(1 / 3, rel=0.1)
        first = file["x"].copy()
    assert run_command(*words, "--seed", 3, "--quiet")[0] == 0
    with np.load(target) as file:
        np.testing.assert_array_equal(file["x"], first)
    assert list(tmp_path.iterdir()) == [target]


def test_the_command_on_an_analysis_and_stuck_chains(tmp_path: Path) -> None:
    """Exit code 3 and a reason; one JSON document and nothing else on standard output."""
    folder, target, options = tmp_path / "double.landscape", tmp_path / "draws.npz", tmp_path / "fast.toml"
    options.write_text("weights = false\n[minima]\nn_starts = 60\n[saddles]\nsweep = 100\n")
    words = ("potential:double-well", "--beta", 40, "--out", folder, "--quiet", "--config", options)
    assert run_command("analyze", *words)[0] == 0
    words = ("sample", folder, "-n", 640, "--chains", 16, "--warm-up", 40, "-o", target, "--quiet", "--json")
    code, out, err = run_command(*words, "--method", "hmc")
    document = json.loads(out)
    assert code == 3 and err == "" and not document["converged"]
    assert document["beta"] == 40.0 and "never left" in document["reason"]
    # A first step may cross, as about one in 25 does, none after it: five of 16 once in a thousand runs.
    stayed = [row["chains_stayed"] for row in document["basins"]]
    assert sum(stayed) >= 12 and min(stayed[:2]) >= 5 and stayed[2] == 0
    assert {row["name"] for row in document["quantities"]} == {"energy", "x_0"}
    np.save(tmp_path / "starts.npy", np.full((3, 1), -1.0))
    code, out, _ = run_command(*words, "--starts-from", tmp_path / "starts.npy", "--beta", 30)
    assert json.loads(out)["basins"][0]["chains_begun"] in (0, 16) and json.loads(out)["beta"] == 30.0


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "draws.npz"
    good = ["sample", "potential:double-well", "-n", "100", "-o", str(target), "--quiet"]
    for bad in (
        ["--step-size", "-1"], ["--hottest", "3"], ["--chains", "2"], ["--beta", "0"], ["--seed", "-1"], ["-n", "0"],
        ["-n", "10"], ["--warm-up", "0"], ["--starts-from", str(tmp_path / "none.npy")], ["--method", "gibbs"],
        ["-o", str(tmp_path / "no" / "such.npz")],
    ):  # fmt: skip
        code, out, err = run_command(*good, *bad)
        assert (code, out) == (2, "") and err.count("\n") == 1 and "bug" not in err, (bad, err)
    assert run_command(*good[:1], tmp_path, *good[2:])[0] == 2
    code, _, err = run_command("sample", "potential:lennard-jones:n=3", "-n", "100", "-o", target)
    assert code == 3 and "zero modes" in err
    assert not target.exists()
