"""PATHSAMPLE files read by a parser of their own, and Markov models at a lag time beside deeptime's own numbers."""

from __future__ import annotations

import builtins
import math
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.linalg

from landscape.cli import main
from landscape.dynamics import Underdamped
from landscape.errors import UsageError
from landscape.network import (
    TransitionNetwork,
    default_lag_time,
    export_network,
    export_pathsample,
    to_deeptime,
    transition_matrix,
)
from landscape.rates import langer_rates

FAST = "[minima]\nn_starts = 40\n[saddles]\nsweep = 60\n"


@pytest.fixture(scope="module")
def double_well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("double")
    (folder / "fast.toml").write_text("weights = false\n" + FAST)
    line = ["analyze", "potential:double-well", "--config", str(folder / "fast.toml"), "--quiet"]
    assert main([*line, "--out", str(folder / "out")]) == 0
    return folder / "out"


MINIMA = np.array([-2.0, -1.0 / 3.0, 0.5])
CURVATURES = np.array([[1.0, 2.0], [0.3, 5.0], [4.0, 4.5]])
SADDLES = np.array([1.0, 1.5, 2.0, 0.7])
SADDLE_CURVATURES = np.array([[-1.0, 2.0], [-0.3, 5.0], [-4.0, 4.5], [-2.0, 1.0]])
JOINS = np.array([[0, 1], [2, 1], [0, -1], [2, 2]])


def read_pathsample(folder: Path) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Fortran list-directed input: numbers between blanks, line by line."""
    minima = [line.split() for line in (folder / "min.data").read_text().splitlines()]
    saddles = [line.split() for line in (folder / "ts.data").read_text().splitlines()]
    assert all(len(line) == 6 for line in minima) and all(len(line) == 8 for line in saddles)
    return (
        [(float(e), float(log), int(order), *map(float, rest)) for e, log, order, *rest in minima],
        [(float(e), float(v), int(o), int(i), int(j), *map(float, rest)) for e, v, o, i, j, *rest in saddles],
    )


def test_pathsample_round_trip_and_its_rates(tmp_path: Path) -> None:
    """Rates from the files alone are those of transition state theory, the limit of Langer's at no friction."""
    files = export_pathsample(tmp_path / "new" / "db", MINIMA, CURVATURES, SADDLES, SADDLE_CURVATURES, JOINS)
    assert [file.name for file in files] == ["min.data", "ts.data"]
    minima, saddles = read_pathsample(tmp_path / "new" / "db")
    assert [row[0] for row in minima] == MINIMA.tolist() and [row[0] for row in saddles] == SADDLES[[0, 1, 3]].tolist()
    assert [row[3:5] for row in saddles] == [(1, 2), (3, 2), (3, 3)]
    assert all(row[2] == 1 for row in minima + saddles) and {row[-3:] for row in minima + saddles} == {(1.0, 1.0, 1.0)}
    beta = 1.7
    hessians = np.array([np.diag(values) for values in SADDLE_CURVATURES])
    langer = langer_rates(Underdamped(beta, 1e-9), MINIMA, CURVATURES, SADDLES, SADDLE_CURVATURES, hessians, JOINS)
    for row, number in zip(saddles, (0, 1, 3), strict=True):
        for end, log_rate in zip(row[3:5], langer.log_rates[number], strict=True):
            energy, log_product = minima[end - 1][:2]
            theory = math.exp((log_product - row[1]) / 2 - beta * (row[0] - energy)) / (2 * math.pi)
            assert theory == pytest.approx(math.exp(log_rate), rel=1e-7)


def test_pathsample_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="minimum 1 has a Hessian eigenvalue -1"):
        bad = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])
        export_pathsample(tmp_path, MINIMA, bad, SADDLES, SADDLE_CURVATURES, JOINS)
    with pytest.raises(UsageError, match="saddle 0"):
        export_pathsample(tmp_path, MINIMA, CURVATURES, SADDLES, np.abs(SADDLE_CURVATURES), JOINS)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        export_pathsample(tmp_path / "file", MINIMA, CURVATURES, SADDLES, SADDLE_CURVATURES, JOINS)
    export_pathsample(tmp_path, MINIMA[:1], CURVATURES[:1], np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2), dtype=int))
    assert (tmp_path / "ts.data").read_text() == "" and len(read_pathsample(tmp_path)[0]) == 1


def network_of(log_rates: np.ndarray) -> TransitionNetwork:
    """Any log rates (n, n) as a network; energies mean nothing."""
    n = len(log_rates)
    joins = np.array([(i, j) for i in range(n) for j in range(i)])
    rates = np.array([[log_rates[i, j], log_rates[j, i]] for i, j in joins])
    return TransitionNetwork(np.zeros(n), np.zeros((n, 1)), np.zeros(n), joins, np.ones(len(joins)), rates)


def reversible_rates(seed: int, n: int, spread: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    energy, saddle = rng.normal(size=n), spread * rng.random((n, n))
    return np.asarray(energy[:, None] - np.maximum(saddle, saddle.T) - 1)


@pytest.mark.parametrize("lag_time", [1e-9, 0.3, 25.0, 1e6])
def test_transition_matrix_against_scipy(lag_time: float) -> None:
    for log_rates in (reversible_rates(0, 12, 3.0), np.random.default_rng(1).normal(-1, 1, (12, 12))):
        network = network_of(log_rates)
        ours = transition_matrix(network, lag_time)
        np.testing.assert_allclose(ours, scipy.linalg.expm(network.rate_matrix * lag_time), rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(ours.sum(axis=1), 1, rtol=1e-14)
        np.testing.assert_allclose(network.stationary @ ours, network.stationary, rtol=1e-11)


def test_transition_matrix_of_a_stiff_network_against_multiprecision() -> None:
    """Rates over 1e-26 to 1 at a lag time of 1e6: small probabilities keep nine digits, which expm loses."""
    network = network_of(reversible_rates(3, 6, 60.0))
    ours = transition_matrix(network, 1e6)
    with mpmath.workdps(80):
        generator = mpmath.matrix(6, 6)
        for i in range(6):
            for j in range(6):
                if i != j:
                    generator[i, j] = 10**6 * mpmath.exp(mpmath.mpf(float(network.log_rate_matrix[i, j])))
            generator[i, i] = -mpmath.fsum(generator[i, j] for j in range(6) if j != i)
        values, vectors = mpmath.eig(generator)
        full = vectors * mpmath.diag([mpmath.exp(value) for value in values]) * vectors**-1
        exact = np.array([[float(mpmath.re(full[i, j])) for j in range(6)] for i in range(6)])
    assert exact.min() < 1e-15
    np.testing.assert_allclose(ours, exact, rtol=1e-9)


def test_deeptime_finds_our_numbers() -> None:
    """Timescales and mean first passage times of deeptime on a well-conditioned network are ours."""
    markov = pytest.importorskip("deeptime.markov")
    network = network_of(reversible_rates(2, 7, 2.0))
    lag_time = 1e-6 * network.timescales[0]
    model = to_deeptime(network, lag_time)
    np.testing.assert_array_equal(model.stationary_distribution, network.stationary)
    np.testing.assert_allclose(model.timescales(), network.timescales, rtol=1e-7)
    # a visit to the target that is over before the next step goes unseen: one in 1e4 or so
    for target in (0, 4):
        theirs = markov.tools.analysis.mfpt(model.transition_matrix, target, tau=lag_time)
        np.testing.assert_allclose(theirs, network.mfpt[:, target], rtol=1e-4, atol=lag_time)
    assert to_deeptime(network).lagtime == default_lag_time(network) == pytest.approx(network.timescales[0] / 10)
    ring = np.full((3, 3), -np.inf)
    ring[[0, 1, 2], [1, 2, 0]] = 0.0
    assert to_deeptime(network_of(ring), 0.5).stationary_distribution == pytest.approx(np.full(3, 1 / 3))


def test_the_exported_model_is_two_lines_away(tmp_path: Path) -> None:
    markov = pytest.importorskip("deeptime.markov.msm")
    network = network_of(reversible_rates(2, 7, 2.0))
    (path,) = export_network(network, "deeptime", tmp_path / "model.npz", lag_time=0.25)
    f = np.load(path, allow_pickle=False)
    model = markov.MarkovStateModel(
        f["transition_matrix"], f["stationary_distribution"], lagtime=float(f["lagtime"])
    )  # fmt: skip
    np.testing.assert_allclose(model.timescales(), network.timescales, rtol=1e-8)


def test_bad_lag_times_and_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(reversible_rates(2, 4, 2.0))
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="lag time is finite"):
            transition_matrix(network, wrong)
    with pytest.raises(UsageError, match="belongs to the format deeptime"):
        export_network(network, "npz", tmp_path / "a.npz", lag_time=1.0)
    with pytest.raises(UsageError, match="no timescale"):
        default_lag_time(network_of(np.full((2, 2), -np.inf)))
    with pytest.raises(UsageError, match="beyond floating point"):
        default_lag_time(network_of(np.full((2, 2), -800.0)))
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("deeptime"):
            raise ImportError("No module named 'deeptime'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r'pip install "learned-landscape\[deeptime\]"'):
        to_deeptime(network)


def test_commands(double_well: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """V = (x^2 - 1)^2 / 4: V'' = 2 at +-1 and -1 at 0, barrier 1/4."""
    assert main(["export", str(double_well), "--format", "pathsample", "-o", str(tmp_path / "db")]) == 0
    assert capsys.readouterr().out == f"written: {tmp_path / 'db' / 'min.data'}, {tmp_path / 'db' / 'ts.data'}\n"
    minima, saddles = read_pathsample(tmp_path / "db")
    assert [row[1] for row in minima] == pytest.approx([math.log(2)] * 2)
    assert len(saddles) == 1 and saddles[0][0] - minima[0][0] == pytest.approx(0.25) and saddles[0][1] == 0
    assert {saddles[0][3], saddles[0][4]} == {1, 2}
    file = tmp_path / "model.npz"
    assert main(["export", str(double_well), "--format", "deeptime", "-o", str(file), "--lag-time", "2"]) == 0
    rate = math.sqrt(2) / (2 * math.pi) * math.exp(-0.25)
    moved = (1 - math.exp(-2 * rate * 2)) / 2
    assert np.load(file)["transition_matrix"][0, 1] == pytest.approx(moved, rel=1e-6)
    for format in ("pathsample", "csv"):
        assert main(["export", str(double_well), "--format", format, "-o", str(file), "--lag-time", "2"]) == 2
        assert "a lag time belongs to" in capsys.readouterr().err
