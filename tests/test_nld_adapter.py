"""From a trained model to states: export, labels, permutation, rates; and the commands that use them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from landscape.analysis import analyze
from landscape.dynamics import from_metadata
from landscape.energy import load_energy
from nld_models.checkpoint import SavedModel, load_model
from nld_models.cli import main
from nld_models.config import TrainingConfig
from nld_models.errors import ConfigError
from nld_models.evaluation import LAG, best_permutation, encode, simulated_transitions
from nld_models.kinetics import rates_of, resolved_step
from nld_models.landscape_adapter import draw_positions, export_energy, find_states, to_landscape
from nld_models.model import LatentModel, ModelConfig
from nld_models.observation import NoiseKind
from nld_models.paper_chains import experiment, sample_experiment
from nld_models.sequence_files import load_sequences, save_sequences
from nld_models.simulation import simulate_observations
from nld_models.training import train

SMALL = ModelConfig(energy={"hidden": [8], "confinement": 0.1}, decoder_hidden=6, context=8)
SHORT = TrainingConfig(seeds=2, first_seed=4, iterations=3, batch=6, window=12, partition_points=128)
# Means, log weights and precision of the double well of `double_well`.
CENTERS, PRECISION, DIFFUSION = (-1.1, 1.0), 5.0, 0.2


def double_well(noise: NoiseKind = "constant") -> LatentModel:
    """Two seeds in one dimension; seed 1 has E = -log of two Gaussians of unequal weight, .65 and .35, and D = .2."""
    config = ModelConfig(latent_dim=1, architecture="soft-minimum", energy={"n_components": 2}, noise=noise)
    model = LatentModel(config, 3, False, (0, 1), torch.float64)
    network = model.prior.energy.network
    with torch.no_grad():
        network.get_parameter("centers")[1] = torch.tensor(CENTERS, dtype=torch.float64)[:, None]
        network.get_parameter("logits")[1] = torch.tensor([0.65, 0.35], dtype=torch.float64).log()
        network.get_parameter("factors")[1] = 0.5 * np.log(PRECISION)
        model.prior.log_d[1] = np.log(DIFFUSION)
    return model.requires_grad_(False)


def density(x: np.ndarray) -> np.ndarray:
    parts = [w * np.exp(-0.5 * PRECISION * (x - c) ** 2) for w, c in zip((0.65, 0.35), CENTERS, strict=True)]
    return np.sum(parts, 0) * np.sqrt(PRECISION / (2 * np.pi))


def grid_transitions(lag: float) -> tuple[np.ndarray, np.ndarray]:
    """(2, 2) T(lag) and basin weights (2,) of the double well from a detailed-balance rate matrix on a fine grid."""
    x = np.linspace(-3.2, 3.2, 801)
    p, h = density(x), x[1] - x[0]
    up = DIFFUSION / h**2 * np.sqrt(p[1:] / p[:-1])
    down = DIFFUSION / h**2 * np.sqrt(p[:-1] / p[1:])
    generator = np.diag(up, 1) + np.diag(down, -1)
    generator -= np.diag(generator.sum(1))
    top = x[np.argmin(np.where(np.abs(x) < 0.8, p, np.inf))]
    left = (x < top).astype(float)
    moved = expm(lag * generator) @ left
    weights = p / p.sum()
    stay_left, to_left = (
        (weights * left) @ moved / (weights @ left),
        (weights * (1 - left)) @ moved / (1 - weights @ left),
    )
    return np.array([[stay_left, 1 - stay_left], [to_left, 1 - to_left]]), np.array(
        [weights @ left, 1 - weights @ left]
    )


def test_states_weights_and_simulated_transitions_of_a_double_well() -> None:
    """Against the exact generator on a grid. 20,000 paths; 4.5 standard errors and .004 for the time step, so a false
    alarm below 1e-5. Power: a diffusion coefficient off by 40 % would move T by more than twice the tolerance."""
    model = double_well()
    states = find_states(model, 1)
    assert states.n_states == 2 and states.analysis.states.x[0, 0] < 0 < states.analysis.states.x[1, 0]
    matrix, weights = grid_transitions(LAG)
    exact = states.analysis.exact
    assert exact is not None
    assert np.abs(exact.weights - weights).max() < 4.5 * exact.standard_errors.max()
    drawn = states.label(draw_positions(states, 20_000, torch.Generator().manual_seed(1)))
    # Draws of one chain are correlated: twice the binomial error is generous.
    assert abs((drawn == 0).mean() - weights[0]) < 4.5 * 2 * np.sqrt(0.25 / 20_000)
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    start = np.where(np.arange(n)[:, None] < 0.65 * n, *CENTERS)
    step = resolved_step(states.energy, states.dynamics, torch.from_numpy(states.analysis.states.x), 0.1)
    assert step == pytest.approx(0.1 / (DIFFUSION * states.analysis.states.eigenvalues.max()))
    found = simulated_transitions(states, start, step, generator)
    tolerance = 4.5 * np.sqrt(matrix * (1 - matrix) / (0.3 * n)) + 0.004
    assert (np.abs(found - matrix) < tolerance).all()
    assert np.abs(grid_transitions(1.4 * LAG)[0] - matrix).max() > 2 * tolerance.max()


def test_simulated_observations_have_the_noise_of_their_latent_point() -> None:
    """Log noise .5 + 2 tanh(4 z + large), so that all noise is exp(2.5); 3,000 values, 5 standard errors."""
    model = double_well("state")
    assert model.decoder.spread is not None
    with torch.no_grad():
        model.decoder.log_noise += 0.5
        model.decoder.spread.outer.bias += 50.0
        model.decoder.get_parameter("mean.outer.weight").zero_()
    x = simulate_observations(SavedModel(model, np.zeros(3), np.ones(3), {}), 1, 100, 10).values
    assert x.std() == pytest.approx(np.exp(2.5), rel=5 / np.sqrt(2 * 3000))


def test_labels_follow_the_gradient_flow() -> None:
    states = find_states(double_well(), 1)
    z = np.array([[[-3.0], [-0.4]], [[0.4], [2.5]]])
    assert states.label(z).tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_exported_energy_is_the_trained_one(tmp_path: Path, dtype: torch.dtype) -> None:
    model = LatentModel(replace(SMALL, latent_dim=3), 2, False, (7, 8), dtype)
    with torch.no_grad():
        model.prior.log_d[1] = np.log(0.4)
    path = export_energy(model, tmp_path / "e.safetensors", 1)
    loaded = load_energy(path)
    z = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = model.double().prior.energy(z.expand(2, -1, -1)).detach()
    np.testing.assert_allclose(loaded.value(z.numpy()), expected[1], rtol=1e-12)
    assert np.abs(loaded.value(z.numpy()) - expected[0].numpy()).min() > 1e-4
    gradient = model.prior.energy.gradient(z.expand(2, -1, -1)).detach()
    np.testing.assert_allclose(loaded.gradient(z.numpy()), gradient[1], rtol=1e-10, atol=1e-12)
    dynamics, _ = from_metadata(loaded.metadata, 3)
    assert dynamics.kind == "overdamped" and dynamics.beta == 1
    np.testing.assert_allclose(dynamics.gamma_vector(3), 1 / 0.4, rtol=1e-6)
    assert loaded.metadata["units"] == "k_B T" and "seed 8" in loaded.metadata["trained_by"]
    with pytest.raises(ConfigError, match="seed index is from 0 to 1, got 2"):
        to_landscape(model, 2)


def test_the_trained_example() -> None:
    """examples/three_states.safetensors, from experiment 1: three states of weight 1/3 in the chain. Its first seed is
    held to what the method promises (l1 a few hundredths), not to its own numbers."""
    path = Path(__file__).resolve().parent.parent / "examples" / "three_states.safetensors"
    analysis = analyze(load_energy(path))
    assert analysis.sampled is not None and len(analysis.states.energy) == 3
    assert np.abs(analysis.sampled.weights - 1 / 3).sum() < 0.06
    assert np.abs(np.exp(analysis.log_second) - 1 / 3).sum() < 0.1
    assert {tuple(sorted(pair)) for pair in analysis.saddles.joins.tolist()} == {(0, 1), (0, 2), (1, 2)}


@pytest.mark.parametrize(("n_states", "n_true"), [(3, 3), (5, 3), (2, 4)])
def test_best_permutation_against_all_permutations(n_states: int, n_true: int) -> None:
    rng = np.random.default_rng(n_states)
    labels, truth = rng.integers(-1, n_states, (4, 50)), rng.integers(-1, n_true, (4, 50))

    def hits(order: tuple[int, ...]) -> int:
        return sum(int(((labels == state) & (truth == k)).sum()) for k, state in enumerate(order) if state >= 0)

    options = itertools.permutations([*range(n_states), *[-1] * max(0, n_true - n_states)], n_true)
    order = best_permutation(labels, truth, n_states, n_true)
    used = order[order >= 0]
    assert len(set(used)) == len(used) == min(n_states, n_true)
    assert hits(tuple(order)) == max(hits(option) for option in options)


def test_rates_are_the_logarithm() -> None:
    q = np.array([[-0.05, 0.03, 0.02], [0.01, -0.03, 0.02], [0.04, 0.01, -0.05]])
    np.testing.assert_allclose(rates_of(expm(15 * q), 15), q, rtol=1e-10, atol=1e-14)
    assert np.isnan(rates_of(np.array([[0.0, 1.0], [1.0, 0.0]]), 1)).all()  # no real logarithm
    assert np.isnan(rates_of(np.full((2, 2), 0.5), 1)).all()
    assert np.isnan(rates_of(np.array([[1.0, 0.0], [np.nan, np.nan]]), 1)).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of two seeds, barely trained, and its data with the true chain."""
    folder = tmp_path_factory.mktemp("trained")
    chain = experiment(1)
    raw = sample_experiment(chain, 1, "train", 0, 12, 20)
    save_sequences(folder / "data.npz", raw, {"transition": chain.transition})
    train(raw.standardise(), SMALL, SHORT, path=folder / "m.safetensors")
    return folder / "m.safetensors", folder / "data.npz"


def test_a_model_sees_files_as_it_saw_its_training_data(trained: tuple[Path, Path]) -> None:
    saved, data = load_model(trained[0]), load_sequences(trained[1])
    seen = saved.standardised(data)
    reference = data.standardise()
    np.testing.assert_allclose(seen.values, reference.values, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(saved.standardised(reference).values, reference.values, rtol=1e-12, atol=1e-12)
    mean, sd = encode(saved, data)
    assert mean.shape == sd.shape == (2, 12, 20, 2) and (sd > 0).all()


def test_commands(trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = map(str, trained)
    out, labels = tmp_path / "e.safetensors", tmp_path / "l.npy"
    assert main(["export", model, "-o", str(out), "--seed-index", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 5
    assert load_energy(out).dim == 2
    assert main(["segment", model, data, "-o", str(labels)]) == 0
    assert np.load(labels).shape == (12, 20)
    capsys.readouterr()
    assert main(["evaluate", model, data, "--paths", "50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["seed"] for row in document["seeds"]] == [4, 5]
    assert all(0 <= row["accuracy"] <= 1 for row in document["seeds"])
    assert main(["evaluate", model, data, "--paths", "50"]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert main(["train", data, "-o", str(trained[0]), "--resume", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["iterations"] == 3 and [entry["seed"] for entry in document["refinement"]] == [4, 5]
    made = str(tmp_path / "made.npz")
    assert main(["simulate", model, "-o", made, "--sequences", "7", "--length", "5", "--seed-index", "1"]) == 0
    simulated = load_sequences(made)
    assert simulated.values.shape == (7, 5, 15) and simulated.labels is not None and (simulated.labels >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train {data} -o {model}", "exists; go on from it with --resume, or replace it with --force"),
        ("train {data} -o {model} --resume --iterations 9", "iterations was 3 there and is 9 now"),
        ("train {data} -o {model} --resume --force", "give one of them"),
        ("train {data} -o {folder}/no/m.safetensors --iterations 1", "there is no folder"),
        ("train {folder}/no.npz -o {folder}/m.safetensors", "No such file"),
        ("train {data} -o {folder}/m.safetensors --config {folder}/no.toml", "No such file"),
        ("export {model} -o {folder}/e.safetensors --seed-index 2", "from 0 to 1"),
        ("export {data} -o {folder}/e.safetensors", "not a readable model file"),
        ("segment {model} {data} -o {folder}/labels.txt", "labels are written as .npy"),
        ("segment {model} {data} -o {folder}/l.npy --seed-index 2", "from 0 to 1"),
        ("evaluate {model} {folder}/narrow.npy", "trained on 15 channels, the data have 2"),
        ("evaluate {folder}/no.safetensors {data}", "does not exist"),
        ("evaluate {model} {data} --paths 0", "--paths"),
        ("simulate {model} -o {folder}/no/x.npz", "there is no folder"),
    ],
)
def test_one_line_and_exit_code_2(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    before = trained[0].read_bytes()
    np.save(tmp_path / "narrow.npy", np.random.default_rng(0).normal(size=(3, 9, 2)))
    words = arguments.format(model=trained[0], data=trained[1], folder=tmp_path).split()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith(f"nld {words[0]}: ")
    assert trained[0].read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["narrow.npy"]
