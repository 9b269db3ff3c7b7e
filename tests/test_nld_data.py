"""Markov chains with Gaussian emissions, the published experiments, sequence containers and files.

Oracles: enumeration of every path of states, scipy's Gaussian density, closed-form chains, the accuracy limits
measured for the project's notes by another implementation, and numpy's and csv's own writers.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from nld_models.data import DataError, SequenceData
from nld_models.markov import MarkovEmissionModel, count_transitions
from nld_models.paper_chains import NOISE, SIDES, accuracy_limits, experiment, sample_experiment
from nld_models.sequence_files import load_sequences, save_sequences


def random_model(seed: int, n_states: int = 3, n_channels: int = 2, spread: float = 1.0) -> MarkovEmissionModel:
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(n_states), n_states)
    factors = rng.standard_normal((n_states, n_channels, n_channels + 2))
    return MarkovEmissionModel(
        transition=transition,
        means=spread * rng.standard_normal((n_states, n_channels)),
        covariances=factors @ factors.transpose(0, 2, 1) / n_channels,
        start=rng.dirichlet(np.ones(n_states)),
    )


def log_joint_of_every_path(
    model: MarkovEmissionModel, x: np.ndarray, mask: np.ndarray
) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """log p(path, observed values of one sequence (T, c)) for all K^T paths."""

    def log_density(frame: np.ndarray, seen: np.ndarray, k: int) -> float:
        if not seen.any():
            return 0.0
        covariance = model.covariances[k][np.ix_(seen, seen)]
        return float(multivariate_normal.logpdf(frame[seen], model.means[k, seen], covariance))

    emission = np.array([[log_density(x[t], mask[t], k) for k in range(model.n_states)] for t in range(len(x))])
    paths = list(itertools.product(range(model.n_states), repeat=len(x)))
    with np.errstate(divide="ignore"):
        log_p, log_start = np.log(model.transition), np.log(model.start)
    joint = [
        log_start[path[0]]
        + sum(log_p[a, b] for a, b in itertools.pairwise(path))
        + sum(emission[t, k] for t, k in enumerate(path))
        for path in paths
    ]
    return paths, np.array(joint)


def marginal(paths: list[tuple[int, ...]], joint: np.ndarray, t: int, n_states: int) -> np.ndarray:
    """(K,) log P(state at t | observations) from the joint over paths."""
    at_t = np.array([path[t] for path in paths])
    with np.errstate(divide="ignore"):
        return np.array([logsumexp(joint[at_t == k]) for k in range(n_states)]) - logsumexp(joint)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("masked", [False, True])
def test_filter_and_smoother_are_sums_over_every_path(seed: int, masked: bool) -> None:
    model = random_model(seed)
    x, _ = model.sample(2, 6, seed)
    mask = np.random.default_rng(seed).random(x.shape) > 0.4 if masked else np.ones(x.shape, dtype=bool)
    hidden = np.where(mask, x, np.nan)
    log_filter, log_smoother = model.log_filter(hidden, mask), model.log_smoother(hidden, mask)
    for row in range(2):
        paths, joint = log_joint_of_every_path(model, x[row], mask[row])
        assert model.log_likelihood(hidden, mask)[row] == pytest.approx(logsumexp(joint), abs=1e-10)
        for t in range(6):
            assert np.allclose(log_smoother[row, t], marginal(paths, joint, t, 3), atol=1e-10)
            past, past_joint = log_joint_of_every_path(model, x[row, : t + 1], mask[row, : t + 1])
            assert np.allclose(log_filter[row, t], marginal(past, past_joint, t, 3), atol=1e-10)
    assert np.allclose(model.filter(hidden, mask).sum(2), 1) and np.allclose(model.smoother(hidden, mask).sum(2), 1)


def test_impossible_states_and_far_observations_stay_logarithms() -> None:
    """A chain that cannot go back, seen from 1,000 standard deviations away: every number is still exact."""
    model = MarkovEmissionModel(
        transition=np.array([[0.5, 0.5], [0.0, 1.0]]),
        means=np.array([[0.0], [1.0]]),
        covariances=np.ones((2, 1, 1)),
        start=np.array([1.0, 0.0]),
    )
    x = np.array([[[-1000.0], [-1000.0], [1000.0]]])
    paths, joint = log_joint_of_every_path(model, x[0], np.ones((3, 1), dtype=bool))
    smoothed = model.log_smoother(x)[0]
    assert not np.isnan(smoothed).any() and smoothed[0, 1] == -np.inf
    for t in range(3):
        assert np.allclose(smoothed[t], marginal(paths, joint, t, 2), rtol=1e-12, atol=1e-9)


def test_padding_changes_nothing_before_it() -> None:
    model = random_model(7)
    x, _ = model.sample(1, 9, 0)
    padded = np.concatenate([x, np.full((1, 4, 2), np.nan)], axis=1)
    mask = np.isfinite(padded)
    for method in ("log_filter", "log_smoother"):
        assert np.allclose(getattr(model, method)(padded, mask)[:, :9], getattr(model, method)(x), atol=1e-12)
    assert np.allclose(model.log_likelihood(padded, mask), model.log_likelihood(x), atol=1e-12)


def test_a_frame_alone_is_judged_by_bayes_with_the_stationary_prior() -> None:
    model = random_model(3)
    x, _ = model.sample(1, 5, 1)
    values, vectors = np.linalg.eig(model.transition.T)
    prior = np.real(vectors[:, np.argmax(values.real)])
    prior = prior / prior.sum()
    density = np.array([multivariate_normal.pdf(x[0], model.means[k], model.covariances[k]) for k in range(3)]).T
    expected = density * prior / (density @ prior)[:, None]
    assert np.allclose(np.exp(model.log_frame_posterior(x))[0], expected, atol=1e-12)


def test_walks_follow_the_transition_matrix_and_emissions_their_gaussians() -> None:
    """Counts of 400,000 steps and moments of each state's emissions, each within 5 standard errors.

    9 + 3 * (5 means + 15 covariances) = 69 comparisons of a normal variable at 5 sigma: false alarms below 5e-5.
    """
    model = random_model(11, n_channels=5, spread=3.0)
    x, states = model.sample(2000, 200, 4)
    counts = count_transitions(states, 3)
    assert counts.sum() == 2000 * 199
    visits = counts.sum(1, keepdims=True)
    assert np.all(np.abs(counts / visits - model.transition) < 5 * np.sqrt(model.transition / visits))
    firsts = np.bincount(states[:, 0], minlength=3) / 2000
    assert np.all(np.abs(firsts - model.start) < 5 * np.sqrt(model.start / 2000))
    for k in range(3):
        here = x[states == k] - model.means[k]
        cov = model.covariances[k]
        variances = np.diag(cov)
        assert np.all(np.abs(here.mean(0)) < 5 * np.sqrt(variances / len(here)))
        errors = np.sqrt((cov**2 + np.outer(variances, variances)) / len(here))
        assert np.all(np.abs(here.T @ here / len(here) - cov) < 5 * errors)


def test_seeds() -> None:
    model = experiment(1)
    first, again, other = (sample_experiment(model, 1, "train", seed, 3, 50) for seed in (0, 0, 1))
    test = sample_experiment(model, 1, "test", 0, 3, 50)
    assert np.array_equal(first.values, again.values) and np.array_equal(first.labels, again.labels)
    for different in (other, test):
        assert not np.isclose(first.values, different.values).any()
    easy, redrawn = experiment(1, "easy"), experiment(1, emission_seed=1)
    assert np.array_equal(easy.means, model.means) and not np.isclose(redrawn.means, model.means).any()
    assert np.allclose(easy.covariances / NOISE["easy"] ** 2, model.covariances / NOISE["medium"] ** 2)
    # The emission seed alone makes the chain: the walk's states do not depend on it.
    walk = sample_experiment(redrawn, 1, "train", 0, 3, 50)
    assert np.array_equal(walk.labels, first.labels)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("noise", list(NOISE))
def test_experiments_are_as_described(number: int, noise: str) -> None:
    model = experiment(number, noise, emission_seed=5)
    stationary = (1 / 3, 1 / 3, 1 / 3) if number == 1 else (0.45, 0.35, 0.2)
    assert np.allclose(model.stationary, stationary, rtol=0, atol=1e-14)
    flow = model.stationary[:, None] * model.transition
    assert np.allclose(flow, flow.T, rtol=0, atol=1e-15)
    if number == 1:
        assert np.all(model.transition[~np.eye(3, dtype=bool)] == 0.025)
    distances = [np.linalg.norm(model.means[i] - model.means[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert np.allclose(distances, SIDES) and SIDES == (2.6, 2.0, 1.95)
    eigenvalues = np.linalg.eigvalsh(model.covariances) / NOISE[noise] ** 2
    assert np.allclose(eigenvalues.mean(1), 1) and np.all(eigenvalues[:, -1] / eigenvalues[:, 0] < 2.5 / 0.4)
    assert not np.allclose(eigenvalues[0], eigenvalues[1])
    # Full covariances in a random plane: no channel is left out or left alone.
    assert np.all(np.abs(model.means) > 0) and np.count_nonzero(np.abs(model.covariances) < 1e-12) == 0


def test_published_sizes() -> None:
    for number, split, shape in (
        (1, "test", (500, 500, 15)),
        (2, "test", (500, 200, 15)),
        (2, "train", (6000, 200, 15)),
    ):
        data = sample_experiment(experiment(number), number, split)
        assert data.values.shape == shape and data.labels is not None
        assert np.all(data.labels[:, 0] == 0) and data.n_missing == 0


# Accuracy in % of one frame, filter and smoother at T = 200: the project's notes, one unknown draw of the emissions.
LIMITS = {
    (1, "easy"): (99.9, 99.95, 99.99),
    (1, "medium"): (98.4, 99.6, 99.9),
    (1, "hard"): (94.4, 98.5, 99.5),
    (2, "easy"): (99.9, 99.95, 99.98),
    (2, "medium"): (98.6, 99.6, 99.9),
    (2, "hard"): (95.2, 98.7, 99.5),
}


@pytest.mark.parametrize(("number", "noise"), list(LIMITS))
def test_accuracy_limits(number: int, noise: str) -> None:
    """Mean over 8 draws of the emissions, 200 sequences each, within .3 percentage points (one hard frame: .7).

    The noted numbers come from one draw, whose standard deviation is up to .2 points (filter), .07 (smoother), .25
    (frame) and .6 (frame at hard noise) by a separate implementation: a looser bound than the error of our mean. Seeds
    are fixed, so there is no false alarm. Filtering one frame late (4 to 5 points) or swapping two means fails.
    """
    limits = []
    for emission_seed in range(8):
        model = experiment(number, noise, emission_seed)
        found = accuracy_limits(model, sample_experiment(model, number, "test", emission_seed, 200, 200))
        limits.append([100 * found.frame, 100 * found.filter, 100 * found.smoother])
    difference = np.abs(np.mean(limits, axis=0) - LIMITS[number, noise])
    assert np.all(difference < (0.7 if noise == "hard" else 0.3, 0.3, 0.3)), difference


def test_count_transitions_leaves_unknown_states_out() -> None:
    states = np.array([[0, 1, 1, -1, 0], [2, 0, -1, -1, -1]])
    assert np.array_equal(count_transitions(states, 3), [[0, 1, 0], [0, 1, 0], [1, 0, 0]])
    with pytest.raises(DataError, match="below 2"):
        count_transitions(states, 2)


MODEL: dict[str, Any] = {
    "transition": np.array([[0.5, 0.5], [0.5, 0.5]]),
    "means": np.zeros((2, 1)),
    "covariances": np.ones((2, 1, 1)),
    "start": np.array([1.0, 0.0]),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": np.array([[0.5, 0.6], [0.5, 0.5]])}, "sum to 1"),
        ({"transition": np.array([[1.5, -0.5], [0.5, 0.5]])}, "probabilities"),
        ({"transition": np.ones(2)}, "must be \\(K, K\\)"),
        ({"start": np.ones(3) / 3}, "start must be"),
        ({"means": np.array([[np.nan], [0.0]])}, "finite"),
        ({"covariances": -np.ones((2, 1, 1))}, "positive definite"),
        ({"means": np.zeros((2, 2)), "covariances": np.array([[[1.0, 0.5], [0.0, 1.0]]] * 2)}, "symmetric"),
    ],
)
def test_models_that_are_none(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        MarkovEmissionModel(**{**MODEL, **change})


def test_questions_without_an_answer() -> None:
    with pytest.raises(DataError, match="closed pieces"):
        _ = MarkovEmissionModel(**{**MODEL, "transition": np.eye(2)}).stationary
    model = MarkovEmissionModel(**MODEL)
    for x in (np.zeros((1, 2, 3)), np.full((1, 2, 1), np.nan), np.full((1, 2, 1), 1e200)):
        with pytest.raises(DataError, match="observations"):
            model.filter(x)
    for arguments in ((3, "medium", 0), (1, "loud", 0), (1, "easy", -1)):
        with pytest.raises(DataError):
            experiment(*arguments)


# --- SequenceData


def uneven() -> SequenceData:
    rng = np.random.default_rng(0)
    sequences = [5 + 3 * rng.standard_normal((t, 2)) for t in (4, 7, 1, 6)]
    sequences[1][2, 0] = np.nan
    return SequenceData.from_sequences(sequences, [np.arange(t) % 2 for t in (4, 7, 1, 6)], missing="mask")


def test_unequal_lengths_and_missing_values() -> None:
    data = uneven()
    assert data.values.shape == (4, 7, 2) and data.lengths.tolist() == [4, 7, 1, 6] and data.n_missing == 1
    assert np.array_equal(data.frames.sum(1), data.lengths)
    assert data.labels is not None and data.labels[0].tolist() == [0, 1, 0, 1, -1, -1, -1]
    assert not data.mask[1, 2, 0] and data.mask[1, 2, 1] and not data.mask[2, 1:].any()
    assert np.isfinite(data.values).all() and np.all(data.values[~data.mask] == 0)


def test_standardise_uses_observed_values_only_and_can_be_undone() -> None:
    data = uneven()
    scaled = data.standardise()
    for k in range(2):
        observed = scaled.values[:, :, k][data.mask[:, :, k]]
        assert observed.mean() == pytest.approx(0, abs=1e-14) and observed.std() == pytest.approx(1, abs=1e-14)
        raw = data.values[:, :, k][data.mask[:, :, k]]
        assert scaled.mean[k] == pytest.approx(raw.mean()) and scaled.scale[k] == pytest.approx(raw.std())
    assert np.all(scaled.values[~data.mask] == 0)
    assert np.allclose(scaled.original_values(), data.original_values(), equal_nan=True)
    again = scaled.standardise()
    assert np.allclose(again.values, scaled.values) and np.allclose(again.mean, scaled.mean)
    other = SequenceData.from_padded(np.full((1, 2, 2), 5.0)).standardise(scaled)
    assert np.allclose(other.values, (5 - scaled.mean) / scaled.scale)


def test_standardise_keeps_the_digits_of_a_large_offset() -> None:
    data = SequenceData.from_padded(1e9 + np.arange(1000.0).reshape(10, 100, 1))
    assert data.standardise().scale[0] == pytest.approx(np.sqrt((1000**2 - 1) / 12), rel=1e-12)


def test_split_is_by_sequence() -> None:
    data = SequenceData.from_padded(np.arange(40.0).reshape(10, 4, 1))
    train, held_out = data.split(0.7, seed=1)
    assert len(train) == 7 and len(held_out) == 3
    assert sorted([*train.values[:, 0, 0], *held_out.values[:, 0, 0]]) == [4.0 * i for i in range(10)]
    assert np.array_equal(data.split(0.7, seed=1)[0].values, train.values)
    assert any(not np.array_equal(data.split(0.7, seed)[0].values, train.values) for seed in range(2, 6))
    short = uneven().select(np.array([2, 0]))
    assert short.values.shape == (2, 4, 2) and short.lengths.tolist() == [1, 4]
    for fraction in (0.0, 1.0, -1.0, 0.01, float("nan")):
        with pytest.raises(DataError, match="both sides"):
            data.split(fraction, seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 4)), "one sequence is x\\[None\\]"),
        (np.zeros((0, 4, 1)), "not empty"),
        (np.array([[[1.0], [np.nan], [2.0]]]), "1 values are missing, the first in sequence 0, frame 1, channel 0"),
        (np.array([[[1.0], [np.inf]]]), "1 are infinite"),
        (np.array([[[1.0]], [[np.nan]]]), "1 have none, the first is 1"),
        (np.zeros((1, 2, 1), dtype=complex), "real numbers"),
        (np.array([[["a"]]]), "real numbers"),
    ],
)
def test_data_that_break_a_rule(values: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SequenceData.from_padded(values)


def test_more_rules() -> None:
    ones = np.ones((2, 3, 1))
    for arguments, message in (
        ({"lengths": np.array([3, 4])}, "up to 3"),
        ({"lengths": np.array([3.0, 1.0])}, "integers"),
        ({"lengths": np.array([3, 0])}, "have none"),
        ({"labels": np.zeros((2, 2), dtype=int)}, "labels"),
        ({"missing": "drop"}, "'drop'"),
    ):
        with pytest.raises(DataError, match=message):
            SequenceData.from_padded(ones, **arguments)
    with pytest.raises(DataError, match="channel 0 is constant"):
        SequenceData.from_padded(ones).standardise()
    with pytest.raises(DataError, match="same channels"):
        SequenceData.from_sequences([np.zeros((2, 1)), np.zeros((2, 2))])
    with pytest.raises(DataError, match="one a frame"):
        SequenceData.from_sequences([np.zeros((2, 1))], [np.zeros(3, dtype=int)])
    empty_channel = np.stack([np.arange(4.0), np.full(4, np.nan)], 1)[None]
    with pytest.raises(DataError, match="channel 1 has no value"):
        SequenceData.from_padded(empty_channel, missing="mask").standardise()


# --- files


def same(a: SequenceData, b: SequenceData) -> bool:
    labels = (a.labels is None and b.labels is None) or np.array_equal(a.labels, b.labels)
    values = np.allclose(a.original_values(), b.original_values(), rtol=1e-14, atol=1e-14, equal_nan=True)
    return bool(values and labels and np.array_equal(a.lengths, b.lengths) and np.array_equal(a.mask, b.mask))


def test_written_and_read_again(tmp_path: Path) -> None:
    data = uneven()
    save_sequences(tmp_path / "a.npz", data.standardise(), {"seed": 3})
    assert same(load_sequences(tmp_path / "a.npz", missing="mask"), data)
    with pytest.raises(DataError, match=r"a\.npz: 1 values are missing"):
        load_sequences(tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_npy_and_npz_as_numpy_writes_them(tmp_path: Path) -> None:
    sequences = [np.arange(2.0 * t).reshape(t, 2) for t in (3, 5)]
    padded = np.full((2, 5, 2), np.nan)
    padded[0, :3], padded[1] = sequences
    np.save(tmp_path / "a.npy", padded)
    np.savez(tmp_path / "b.npz", *sequences)
    np.savez_compressed(tmp_path / "c.npz", anything=padded)
    expected = SequenceData.from_sequences(sequences)
    assert all(same(load_sequences(tmp_path / name), expected) for name in ("a.npy", "b.npz", "c.npz"))


def test_csv_forms(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"

    def load(text: str, **how: Any) -> SequenceData:
        path.write_bytes(text.encode())
        return load_sequences(path, **how)

    plain = load("1,2\n3,4\n")
    assert plain.values.tolist() == [[[1, 2], [3, 4]]] and plain.labels is None
    # A byte-order mark, Windows line ends, semicolons, interleaved sequences, labels, a blank line.
    named = load("\ufeffSequence;x;Label;time\r\nb;1;2;0\r\na;5;0;7\r\nb;2;;0.1\r\n\r\na;6;1;7.1\r\n")
    assert named.values[:, :, 0].tolist() == [[1, 2], [5, 6]]
    assert named.labels is not None and named.labels.tolist() == [[2, -1], [0, 1]]
    # Times .1 apart with a frame left out; printed decimals are not exact multiples.
    gap = load("time\tx\n0.1\t1\n0.2\t2\n0.4\t4\n", missing="mask")
    assert gap.values[0, :, 0].tolist() == [1, 2, 0, 4] and gap.n_missing == 1
    holes = load("a,b\n1,NA\nnan,2\n,3\n", missing="mask")
    assert holes.mask[0].tolist() == [[True, False], [False, True], [False, True]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("a,b\n", "no frames"),
        ("time,label\n1,2\n", "no column"),
        ("a,b\n1,2\n1,2,3\n", "line 3 has 3 cells"),
        ("a\n1\nx\n", "line 3, column a: 'x'"),
        (",a\n0,1\n1,2\n", "name of its own"),
        ("a,a\n0,1\n1,2\n", "name of its own"),
        ("time,a\n2,1\n1,2\n", "grows"),
        ("time,a\n0,1\n1,2\n2.5,2\n", "gap of 1.5"),
        ("time,a\n0,1\n1,2\n1e12,2\n", "check its time column"),
        ("label,a\n0.5,1\n", "whole numbers"),
        ("a,b\n1,\n", "1 values are missing"),
        ("a\ninf\n", "infinite"),
        ("a\n1\n\xff".encode("latin-1"), "UTF-8"),
    ],
)
def test_csv_that_breaks_a_rule(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as caught:
        load_sequences(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_csv_by_the_standard_writer(tmp_path: Path) -> None:
    data = uneven()
    with open(tmp_path / "a.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sequence", "a", "b", "label"])
        assert data.labels is not None
        for i, length in enumerate(data.lengths):
            for t in range(length):
                cells = [
                    repr(float(v)) if seen else "" for v, seen in zip(data.values[i, t], data.mask[i, t], strict=True)
                ]
                writer.writerow([f"run {i}", *cells, data.labels[i, t]])
    assert same(load_sequences(tmp_path / "a.csv", missing="mask"), data)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(place=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans(), kind=st.sampled_from(["npy", "npz", "csv"]))
def test_damaged_files_are_refused_in_one_line_or_read(
    place: float, byte: int, cut: bool, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One byte changed or the rest cut off anywhere: numbers, or DataError; never another exception."""
    path = tmp_path_factory.mktemp("damaged") / f"a.{kind}"
    values = np.arange(12.0).reshape(2, 3, 2) + 0.5
    if kind == "npy":
        np.save(path, values)
    elif kind == "npz":
        np.savez_compressed(path, sequences=values)
    else:
        path.write_text("sequence,a\nx,1.5\nx,2.5\ny,3.5\n")
    content = path.read_bytes()
    at = min(int(place * len(content)), len(content) - 1)
    path.write_bytes(content[:at] if cut else content[:at] + bytes([byte]) + content[at + 1 :])
    try:
        data = load_sequences(path)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(data.values).all()
