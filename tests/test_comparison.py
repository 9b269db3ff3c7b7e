"""Comparison of two analyses: matching against known permutations, tables and the commands compare and network."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landscape import Overdamped, compare_analyses
from landscape.cli import main
from landscape.cli.compare import MATCHES
from landscape.comparison import METHODS, match_networks, match_positions, match_weights
from landscape.comparison.matching import MISSING
from landscape.errors import UsageError
from landscape.network import network_overview
from landscape.store import Analysis, Saddles, Sampled, SavedPaths, States


def made_analysis(
    x: np.ndarray, energy: np.ndarray, curvatures: np.ndarray, joins: np.ndarray, heights: np.ndarray, **other: Any
) -> Analysis:
    """An analysis with diagonal Hessians (n, d) and saddles of curvatures (-1, 1, ..., 1), without a search."""
    d, m = x.shape[1], len(heights)
    tops = np.ones((m, d))
    tops[:, 0] = -1
    fields: dict[str, Any] = {
        "energy": {"source": "made", "dim": d, "dtype": "float64", "sha256": None},
        "dynamics": Overdamped(1.0, 1.0),
        "states": States(x, energy, np.sort(curvatures), np.array([np.diag(c) for c in curvatures]),
                         np.zeros(len(x)), np.ones(len(x), dtype=int)),
        "saddles": Saddles(np.zeros((m, d)), heights, tops, np.array([np.diag(c) for c in tops]).reshape(m, d, d),
                           np.zeros(m), joins),
        "paths": SavedPaths(np.zeros(0, int), np.zeros((0, 3, d)), *np.zeros((2, 0, 3)), np.zeros(0, bool)),
        "sampled": None,
        "diagnostics": {"converged": True, "warnings": []},
    }  # fmt: skip
    return Analysis(**(fields | other))


def random_analysis(seed: int, n: int, d: int = 2, **other: Any) -> Analysis:
    rng = np.random.default_rng(seed)
    energy = rng.normal(0, 1.5, n)
    pairs = [(i, j) for i in range(n) for j in range(i) if j == i - 1 or rng.random() < 0.3]
    joins = np.array(pairs)
    heights = energy[joins].max(axis=1) + 1 + 3 * rng.random(len(pairs))
    return made_analysis(10 * rng.normal(size=(n, d)), energy, rng.uniform(1, 9, (n, d)), joins, heights, **other)


def renumbered(analysis: Analysis, order: np.ndarray, shift: float, x: np.ndarray | None = None) -> Analysis:
    """State k of the result is state order[k]; energies are shifted, positions replaced by `x` if given."""
    s, t = analysis.states, analysis.saddles
    assert s.hessian is not None
    new = States(
        s.x[order] if x is None else x, s.energy[order] + shift, s.eigenvalues[order], s.hessian[order],
        s.gradient_norm[order], s.hits[order],
    )  # fmt: skip
    joins = np.argsort(order)[t.joins]
    return dataclasses.replace(
        analysis, states=new, saddles=dataclasses.replace(t, joins=joins, energy=t.energy + shift)
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [3, 7, 20])
def test_the_same_landscape_renumbered_is_found_again(seed: int, n: int) -> None:
    """By position and by permutation; without coordinates in common, weights and rates alone say which is which."""
    rng = np.random.default_rng(seed)
    first, order = random_analysis(seed, n), rng.permutation(n)
    for match, x in (
        ("position", None),
        ("permutation", rng.normal(size=(n, 2))),
        ("weights", rng.normal(size=(n, 2))),
    ):
        found = compare_analyses(first, renumbered(first, order, 7.5, x), match)
        np.testing.assert_array_equal(order[found.pairs[:, 1]], found.pairs[:, 0])
        assert len(found.pairs) == n and len(found.unmatched_a) == len(found.unmatched_b) == 0
        np.testing.assert_allclose(found.log_weight_ratios["second"], 0, atol=1e-12)
        linked = np.isfinite(found.log_rates[..., 0])
        np.testing.assert_allclose(found.log_rate_ratios[linked], 0, atol=1e-11)
        np.testing.assert_allclose(found.log_timescales_a, found.log_timescales_b, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_noisy_networks_with_states_missing(seed: int) -> None:
    """Rates of a second seed off by 10 %, two of seven states missing: the least cost of all injections, one by one."""
    rng = np.random.default_rng(100 + seed)
    first = random_analysis(seed, 7)
    weights, rates = first.log_second, first.network.log_rate_matrix
    kept = rng.permutation(7)[:5]
    theirs_w = weights[kept] + 0.1 * rng.normal(size=5)
    theirs = rates[np.ix_(kept, kept)] + 0.1 * rng.normal(size=(5, 5))
    pairs = match_networks(weights, rates, theirs_w, theirs)
    mirrored = match_networks(theirs_w, theirs, weights, rates)
    assert sorted(map(tuple, mirrored[:, ::-1].tolist())) == list(map(tuple, pairs.tolist()))

    def cost(chosen: tuple[int, ...]) -> float:
        total = sum(min(abs(weights[i] - theirs_w[k]), MISSING) ** 2 for k, i in enumerate(chosen))
        for (k, i), (q, j) in itertools.permutations(enumerate(chosen), 2):
            ours, other = rates[i, j], theirs[k, q]
            gap = 0.0 if ours == other == -np.inf else min(abs(ours - other), MISSING)
            total += gap**2 / 4
        return float(total)

    best = min(itertools.permutations(range(7), 5), key=cost)
    assert [(i, k) for k, i in sorted(enumerate(best), key=lambda pair: pair[1])] == [tuple(p) for p in pairs.tolist()]
    assert best == tuple(kept.tolist())


def test_positions_are_measured_in_widths_and_far_states_stay_alone() -> None:
    """0.3 off along a stiff direction (width 0.1) is 3 widths, 0.3 along a soft one is 0.3; 20 widths is no match."""
    stiffness = np.array([np.diag([100.0, 1.0])] * 3)
    x = np.array([[0.0, 0.0], [0.0, 50.0], [40.0, 0.0]])
    moved = np.array([[0.0, 50.3], [0.3, 0.0], [42.0, 0.0]])
    assert match_positions(x, moved, stiffness, stiffness, 5.0).tolist() == [[0, 1], [1, 0]]
    assert match_positions(x, moved, stiffness, stiffness, 2.9).tolist() == [[1, 0]]
    assert match_positions(x, moved, stiffness, stiffness, 21.0).tolist() == [[0, 1], [1, 0], [2, 2]]
    first = made_analysis(x, np.arange(3.0), np.tile([100.0, 1.0], (3, 1)), np.array([[0, 1], [1, 2]]), np.full(2, 5.0))
    second = dataclasses.replace(first, states=dataclasses.replace(first.states, x=moved))
    found = compare_analyses(first, second)
    np.testing.assert_allclose(found.distances, [3.0, 0.3])
    assert found.unmatched_a.tolist() == [2] and found.unmatched_b.tolist() == [2]
    # at beta 4 the wells are half as wide
    cold = [dataclasses.replace(analysis, dynamics=Overdamped(4.0)) for analysis in (first, second)]
    assert compare_analyses(*cold).pairs.tolist() == [[1, 0]]


def test_weights_alone() -> None:
    assert match_weights(np.log([0.6, 0.3, 0.1]), np.log([0.29, 0.61])).tolist() == [[0, 1], [1, 0]]


def test_errors_and_notes_stand_beside_the_numbers() -> None:
    first = random_analysis(1, 3)
    sampled = Sampled(np.array([0.5, 0.3, 0.2]), np.array([0.01, 0.02, 0.03]), 0.0, *(np.zeros(3) for _ in range(3)))
    second = dataclasses.replace(
        first, sampled=sampled, dynamics=Overdamped(2.0, 3.0), diagnostics={"converged": False, "warnings": []}
    )
    found = compare_analyses(first, second)
    np.testing.assert_array_equal(found.weights["sampled"][:, 1], sampled.weights)
    np.testing.assert_array_equal(found.weight_errors["sampled"][:, 1], sampled.standard_errors)
    assert np.isnan(found.weights["sampled"][:, 0]).all() and np.isnan(found.log_references).all()
    assert "differ in beta, gamma" in found.notes[0] and "second analysis finished without" in found.notes[1]
    document = json.loads(json.dumps(found.to_document(), allow_nan=False))
    assert document["states"][0]["weights"]["sampled"] == {
        "a": None, "b": 0.5, "se_a": None, "se_b": 0.01, "log_ratio": None,
    }  # fmt: skip
    # dE at one state and the rate from it: ln(k_a / k_b) = dE (beta_b - beta_a) + ln(gamma_b / gamma_a)
    row = next(row for row in document["rates"] if row["a"] == [1, 0])
    saddle = int(np.flatnonzero((np.sort(first.saddles.joins) == [0, 1]).all(axis=1))[0])
    barrier = first.saddles.energy[saddle] - first.states.energy[1]
    assert row["log_ratio"] == pytest.approx(barrier + np.log(3), rel=1e-9)


def test_what_is_refused() -> None:
    first, flat = random_analysis(1, 3), random_analysis(1, 3, d=1)
    with pytest.raises(UsageError, match="2 and 1 dimensions"):
        compare_analyses(first, flat)
    assert len(compare_analyses(first, flat, "permutation").pairs) == 3
    with pytest.raises(UsageError, match="by 'name'"):
        compare_analyses(first, first, "name")
    with pytest.raises(UsageError, match="greater than 0"):
        compare_analyses(first, first, max_distance=0.0)
    assert MATCHES == METHODS


# -- overview and commands ------------------------------------------------------------------------------------------


def test_overview_of_separate_parts_and_of_a_directed_network() -> None:
    lonely = made_analysis(np.zeros((1, 1)), np.zeros(1), np.ones((1, 1)), np.zeros((0, 2), int), np.zeros(0)).network
    document = network_overview(lonely)
    assert document["way"] is None and document["timescales"] == [] and document["sets"]["members"] == [[0]]
    parts = made_analysis(np.zeros((2, 1)), np.zeros(2), np.ones((2, 1)), np.zeros((0, 2), int), np.zeros(0)).network
    document = network_overview(parts)
    assert document["log_timescales"] == [None] and document["way"] is None and "no way leads" in document["notes"][0]
    ring = random_analysis(0, 3).network
    rates = ring.log_rates.copy()
    rates[0, 0] += 1
    rates[1, 1] -= 5
    rates = np.vstack([rates, [0.0, -3.0]])
    joins, heights = np.vstack([ring.joins, [[0, 2]]]), np.append(ring.saddle_energies, 9.0)
    ring = dataclasses.replace(ring, joins=joins, log_rates=rates, saddle_energies=heights)
    document = network_overview(ring, [0], [2])
    assert (
        document["sets"] is None and document["sensitivities"] is None and "no detailed balance" in document["notes"][0]
    )
    assert sum(path["share"] for path in document["way"]["pathways"]) == pytest.approx(1)
    with pytest.raises(UsageError, match="detailed balance"):
        network_overview(ring, n_sets=2)
    with pytest.raises(UsageError, match="two ends"):
        network_overview(ring, source=[0])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two searches of Metzner's triple well with different seeds."""
    folder = tmp_path_factory.mktemp("triple")
    (folder / "fast.toml").write_text("weights = false\n[minima]\nn_starts = 60\n[saddles]\nsweep = 100\n")
    folders = [folder / "0", folder / "1"]
    for seed, out in enumerate(folders):
        line = ["analyze", "potential:triple-well", "--beta", "4", "--seed", str(seed), "--quiet", "--out", str(out)]
        assert main([*line, "--config", str(folder / "fast.toml")]) == 0
    return folders


def test_network_command(saved: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The two deep wells change places over the upper well or directly; saddles and energies are the published ones."""
    assert main(["network", str(saved[0]), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    network = Analysis.load(saved[0]).network
    assert [row["stationary"] for row in document["states"]] == pytest.approx(network.stationary.tolist())
    assert document["timescales"] == pytest.approx(network.timescales.tolist())
    assert document["sets"]["representatives"] in ([0, 1], [1, 0])
    way = document["way"]
    assert way["minimax"]["height"] == pytest.approx(-1.646687453475, abs=1e-9)
    assert way["minimax"]["states"][1] == 2 and len(way["pathways"]) == 2
    # two resistors in series beside one: k_02 k_21 / (k_20 + k_21) against k_01
    rates = network.rate_matrix
    over = rates[0, 2] * rates[2, 1] / (rates[2, 0] + rates[2, 1])
    shares = {len(path["states"]): path["share"] for path in way["pathways"]}
    assert shares == pytest.approx({2: rates[0, 1] / (rates[0, 1] + over), 3: over / (rates[0, 1] + over)}, rel=1e-9)
    slowest = document["sensitivities"][0]
    assert sum(entry["derivative"] for entry in slowest["saddles"]) == pytest.approx(1, abs=0.03)
    assert main(["network", str(saved[0]), "--from", "0,1", "--to", "2", "--sets", "3", "--paths", "1"]) == 0
    text = capsys.readouterr().out
    assert "from 0, 1 to 2: rate" in text and "metastable sets (3" in text and "pathways (1, together" in text
    assert max(map(len, text.splitlines())) <= 120


def test_compare_command(saved: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, saved), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["states"]) == 3 and document["unmatched"] == {"a": [], "b": []}
    assert all(row["distance"] < 1e-6 for row in document["states"])
    assert len(document["rates"]) == 6 and all(abs(row["log_ratio"]) < 1e-6 for row in document["rates"])
    for match in MATCHES:
        assert main(["compare", *map(str, saved), "--match", match]) == 0
        text = capsys.readouterr().out
        assert f"states matched by {match} (3)" in text and "second  " in text
        assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["network", "{}", "--from", "0"], "both of --from and --to"),
        (["network", "{}", "--from", "0", "--to", "7"], "target must name states from 0 to 2"),
        (["network", "{}", "--from", "a", "--to", "1"], "comma list of states"),
        (["network", "{}", "--paths", "0"], "at least 1"),
        (["network", "{}", "--sets", "4"], "n_sets = 4"),
        (["network", "/nowhere"], "no analysis can be read"),
        (["compare", "{}", "{}", "--max-distance", "0"], "greater than 0"),
        (["compare", "{}", "/nowhere"], "no analysis can be read"),
        (["compare", "{}"], "required: DIR2"),
    ],
)
def test_bad_lines_are_refused(
    saved: list[Path], line: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(saved[0]) for word in line]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""
