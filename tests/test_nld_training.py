"""Training: seeds stacked or alone, checkpoints and resume, kill -9, the guard, and a chain learned end to end."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from landscape.dynamics import Overdamped, from_metadata
from landscape.energy import load_energy
from nld_models.checkpoint import load_model, read_file, write_file
from nld_models.config import TrainingConfig, read_config
from nld_models.data import DataError, SequenceData
from nld_models.errors import CheckpointError, ConfigError, TrainingError
from nld_models.evaluation import encode, evaluate
from nld_models.landscape_adapter import export_energy, to_landscape
from nld_models.markov import MarkovEmissionModel
from nld_models.matching import MatchingNoise
from nld_models.model import LatentModel
from nld_models.model_config import ModelConfig
from nld_models.paper_chains import experiment, sample_experiment
from nld_models.refinement import refine_model
from nld_models.sequence_files import load_sequences, save_sequences
from nld_models.training import Progress, train
from nld_models.windows import Batch, Windows

ROOT = Path(__file__).resolve().parent.parent
ENERGY = {"hidden": [8], "activation": "tanh", "confinement": 0.1}
SMALL = ModelConfig(energy=ENERGY, decoder_hidden=6, context=8)
SHORT = TrainingConfig(seeds=2, iterations=20, batch=6, window=12, partition_points=128, save_every=6)


@pytest.fixture(scope="module")
def data() -> SequenceData:
    return sample_experiment(experiment(1), 1, "train", 0, 20, 25).standardise()


def parameters(model: LatentModel) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def test_stacked_seeds_equal_single_ones(data: SequenceData) -> None:
    """Same initial values, batches and noise; products of another batch size may round differently."""
    config = replace(SHORT, dtype="float64", first_seed=3)
    both, _ = train(data, SMALL, config)
    for k in range(2):
        alone, result = train(data, SMALL, replace(config, seeds=1, first_seed=3 + k))
        assert result.seeds.tolist() == [3 + k]
        for name, value in parameters(alone.model).items():
            torch.testing.assert_close(value[0], parameters(both.model)[name][k], rtol=1e-8, atol=1e-10)


class Interrupted(Exception):
    pass


KINDS: dict[str, dict[str, object]] = {
    "rotated": {"prior": "rotated", "noise": "state"},
    "nsde": {"prior": "nsde", "drift_hidden": 6, "direction": "reversed"},
    "underdamped": {"prior": "underdamped"},
    "underdamped, simulated": {"prior": "underdamped", "objective": "simulated", "substeps": 2, "learned": ("mass",)},
    "overdamped, simulated": {"objective": "simulated", "substeps": 2, "learned": ("beta",)},
    "nsde by torchsde": {"prior": "nsde", "objective": "simulated", "substeps": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_resumes_loads_and_exports(data: SequenceData, tmp_path: Path, kind: str) -> None:
    model = ModelConfig(energy=ENERGY, decoder_hidden=6, context=8, **KINDS[kind])  # type: ignore[arg-type]
    backend = "torchsde" if "torchsde" in kind else "own"
    config = replace(SHORT, iterations=12, window=7, backend=backend)  # type: ignore[arg-type]
    whole, result = train(data, model, config)
    assert not result.stopped and np.isfinite(result.curves["loss"]).all()
    before = LatentModel(model, data.n_channels, False, whole.model.seeds, torch.float32).state_dict()
    moved = {name for name, value in parameters(whole.model).items() if not torch.equal(value, before[name])}
    gamma = "prior.log_gamma" if model.prior == "underdamped" else "prior.log_d"
    coefficients = {"beta": "prior.log_beta", "gamma": gamma, "mass": "prior.log_mass"}
    for name, parameter in coefficients.items():
        assert (parameter in moved) == model.learns(name)

    def stop(progress: Progress) -> None:
        raise Interrupted

    path = tmp_path / "m.safetensors"
    with pytest.raises(Interrupted):
        train(data, model, config, path=path, progress=stop)
    assert load_model(path).document["iteration"] == 6
    resumed, again = train(data, model, config, path=path, resume=True)
    loaded = load_model(path)
    for name, value in parameters(whole.model).items():
        assert torch.equal(value, parameters(resumed.model)[name]), name
        assert torch.equal(value, parameters(loaded.model)[name]), name
    assert np.array_equal(result.resolution, again.resolution, equal_nan=True)
    assert loaded.document["resolved"] == again.resolved.tolist()
    assert np.isnan(result.resolution).all() == (model.objective == "matching")
    mean, sd = encode(loaded, data)
    assert mean.shape == (2, 20, 25, 2) and np.isfinite(mean).all() and (sd > 0).all()
    if model.prior == "nsde":
        with pytest.raises(ConfigError, match="no energy to export"):
            export_energy(loaded.model, tmp_path / "e.safetensors", 1)
        return
    energy = load_energy(export_energy(loaded.model, tmp_path / "e.safetensors", 1))
    dynamics, origins = from_metadata(energy.metadata, 2)
    expected = to_landscape(loaded.model, 1)[1]
    assert dynamics.kind == expected.kind and set(origins.values()) == {"file"}
    for name in ("gamma_vector", "mass_vector", "rotation_matrix"):
        np.testing.assert_equal(getattr(dynamics, name)(2), getattr(expected, name)(2))
    prior = loaded.model.prior
    with torch.no_grad():
        np.testing.assert_allclose(
            dynamics.beta * dynamics.gamma_vector(2), 1 / prior.diffusion(2)[1].expand(2).numpy(), rtol=1e-6
        )
    assert (dynamics.kind == "underdamped") == (model.prior == "underdamped")
    assert (dynamics.rotation_matrix(2) is not None) == (model.prior == "rotated")


def test_resuming_a_finished_model_keeps_what_the_second_stage_wrote(data: SequenceData, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    train(data, SMALL, SHORT, path=path)
    tensors, document = read_file(path)
    tensors["model.prior.log_d"] += 1.0
    write_file(path, tensors, document | {"refinement": [{"seed": 0}]})
    again, _ = train(data, SMALL, SHORT, path=path, resume=True)
    assert torch.equal(again.model.get_parameter("prior.log_d"), tensors["model.prior.log_d"])
    assert refine_model(again, data, path=path)[1] == ()


@pytest.mark.parametrize("kind", ["overdamped", "rotated", "nsde", "underdamped"])
def test_threads_change_no_bit(data: SequenceData, kind: str) -> None:
    model = ModelConfig(prior=kind, energy=ENERGY, decoder_hidden=6, context=8)  # type: ignore[arg-type]
    config = replace(SHORT, seeds=5, iterations=8)
    one, first = train(data, model, config)
    two, second = train(data, model, config, threads=2)
    for name, value in parameters(one.model).items():
        assert torch.equal(value, parameters(two.model)[name]), name
    for name, curve in first.curves.items():
        np.testing.assert_array_equal(curve, second.curves[name])


def test_the_second_stage_does_not_depend_on_processes(data: SequenceData, tmp_path: Path) -> None:
    saved, _ = train(data, SMALL, SHORT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone, _ = refine_model(copy.deepcopy(saved), data)
        told: list[str] = []
        path = tmp_path / "m.safetensors"
        train(data, SMALL, SHORT, path=path)
        together, found = refine_model(saved, data, path=path, processes=2, progress=told.append)
    finally:
        torch.set_num_threads(threads)
    assert len(found) == len(saved.model.seeds) == len(told) - 1
    assert alone.document["refinement"] == together.document["refinement"]
    assert load_model(path).document["refinement"] == together.document["refinement"]
    for name, value in parameters(alone.model).items():
        assert torch.equal(value, parameters(together.model)[name]), name


def test_a_step_too_long_for_the_energy_is_told(data: SequenceData) -> None:
    """The curvature of a stiff confinement alone: substeps of 1 are too long for D times 40, those of 256 are not."""
    model = replace(SMALL, objective="simulated", substeps=1, energy={"hidden": [4], "confinement": 40.0})
    config = replace(SHORT, iterations=1, window=3, seeds=1)
    coarse = train(data, model, config)[1]
    assert coarse.resolution[0] == pytest.approx(20, rel=0.1) and not coarse.resolved[0]
    fine = train(data, replace(model, substeps=256), config)[1]
    assert fine.resolution[0] == pytest.approx(20 / 256, rel=0.1) and fine.resolved[0]


@pytest.mark.parametrize(
    "settings", [{"direction": "reversed"}, {"noise": "state"}, {"objective": "simulated", "substeps": 2}], ids=str
)
def test_options_learn(data: SequenceData, settings: dict[str, object]) -> None:
    config = replace(SHORT, iterations=60, kl_warmup=0.0, kl_start=1.0, learning_rate=2e-2)
    loss = train(data, replace(SMALL, **settings), config)[1].curves["loss"]  # type: ignore[arg-type]
    assert (loss[:, -10:].mean(1) < loss[:, :10].mean(1) - 1).all()


@pytest.mark.parametrize("save_every", [6, 7])
def test_resumed_training_is_the_uninterrupted_one(data: SequenceData, tmp_path: Path, save_every: int) -> None:
    config, path = replace(SHORT, save_every=save_every), tmp_path / "m.safetensors"
    whole, result = train(data, SMALL, config)

    def stop(progress: Progress) -> None:
        if progress.iteration == 10:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(data, SMALL, config, path=path, progress=stop)
    checkpoint = load_model(path)
    assert not checkpoint.finished and checkpoint.document["iteration"] == save_every
    resumed, again = train(data, SMALL, config, path=path, resume=True)
    for name, value in parameters(whole.model).items():
        assert torch.equal(value, parameters(resumed.model)[name]), name
    for name, curve in result.curves.items():
        assert np.array_equal(curve, again.curves[name]), name
    stored = load_model(path)
    assert stored.finished and torch.equal(stored.model.prior.log_d, whole.model.prior.log_d)
    finished, _ = train(data, SMALL, config, path=path, resume=True)
    assert torch.equal(finished.model.prior.log_d, whole.model.prior.log_d)
    assert list(tmp_path.iterdir()) == [path]


def test_resume_refuses_other_data_and_settings(data: SequenceData, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    config = replace(SHORT, iterations=2)
    with pytest.raises(CheckpointError, match="does not exist"):
        train(data, SMALL, config, path=path, resume=True)
    train(data, SMALL, config, path=path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="batch was 6 there and is 7 now"):
        train(data, SMALL, replace(config, batch=7), path=path, resume=True)
    with pytest.raises(CheckpointError, match="context was 8 there and is 9 now"):
        train(data, replace(SMALL, context=9), config, path=path, resume=True)
    with pytest.raises(CheckpointError, match="other data"):
        train(data.select(np.arange(19)), SMALL, config, path=path, resume=True)
    assert path.read_bytes() == before


def test_a_killed_run_loses_nothing(data: SequenceData, tmp_path: Path) -> None:
    """kill -9 at several moments: the file always loads, and the resumed run ends where an uninterrupted one does."""
    path, source, config = tmp_path / "m.safetensors", tmp_path / "data.npz", tmp_path / "c.toml"
    save_sequences(source, data)
    config.write_text(
        "[model]\ndecoder_hidden = 6\ncontext = 8\nenergy = {hidden = [8]}\n"
        "[training]\nbatch = 6\nwindow = 12\npartition_points = 128\nsave_every = 1\niterations = 60\n"
    )
    command = [sys.executable, "-m", "nld_models.cli", "train", str(source), "-o", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    steps = []
    for wait in (0.05, 0.3):
        start = [*command, "--resume"] if path.exists() else [*command, "--config", str(config)]
        process = subprocess.Popen(start, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        before = path.stat().st_mtime_ns if path.exists() else 0
        deadline = time.monotonic() + 60
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps.append(load_model(path).document["iteration"])
    assert 0 <= steps[0] < steps[1] < 60
    done = subprocess.run(
        [*command, "--resume", "--json"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["seeds"][0]["loss"] > 0
    tables = read_config(config)
    # From the file, as the command does: standardising twice would round differently.
    whole, _ = train(
        load_sequences(source, "mask").standardise(),
        ModelConfig(**tables["model"]),
        TrainingConfig(**tables["training"]),
    )
    for name, value in parameters(whole.model).items():
        assert torch.equal(value, parameters(load_model(path).model)[name]), name


def poison(monkeypatch: pytest.MonkeyPatch, seeds: set[int], call: int) -> None:
    """From the given evaluation of the loss on, the path KL of some seeds is nan, with nan gradients."""
    real, calls = LatentModel.terms, [0]

    def terms(model: LatentModel, batch: Batch, noise: MatchingNoise) -> dict[str, torch.Tensor]:
        found = real(model, batch, noise)
        if calls[0] >= call:
            factors = [float("nan") if seed in seeds else 1.0 for seed in model.seeds]
            found["path_kl"] = found["path_kl"] * torch.tensor(factors)
        calls[0] += 1
        return found

    monkeypatch.setattr(LatentModel, "terms", terms)


def test_the_guard_rolls_one_seed_back_and_trains_the_other(
    data: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, expected = train(data, SMALL, SHORT)

    def stop(progress: Progress) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):  # leaves the state before step 6 in a file
        train(data, SMALL, SHORT, path=tmp_path / "a.safetensors", progress=stop)
    good = load_model(tmp_path / "a.safetensors")
    assert good.document["iteration"] == 6
    poison(monkeypatch, {1}, call=9)
    path = tmp_path / "m.safetensors"
    saved, result = train(data, SMALL, SHORT, path=path)
    (stopped,) = result.stopped
    assert (stopped.seed, stopped.iteration, stopped.rolled_back_to) == (1, 9, 6)
    assert stopped.reason == "path_kl, loss not finite"
    for name, value in parameters(saved.model).items():
        assert torch.equal(value[0], parameters(clean.model)[name][0]), name
        assert torch.equal(value[1], parameters(good.model)[name][1]), name
        assert torch.equal(value, parameters(load_model(path).model)[name]), name
    assert np.isfinite(result.curves["loss"][0]).all()
    assert np.array_equal(result.curves["loss"][1, :9], expected.curves["loss"][1, :9])
    assert np.isnan(result.curves["loss"][1, 9:]).all()


def test_the_guard_stops_when_no_seed_is_left(
    data: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {0, 1}, call=8)
    path = tmp_path / "m.safetensors"
    with pytest.raises(TrainingError, match=r"every seed stopped; seed 0 at step 8 .*rolled back to step 6"):
        train(data, SMALL, SHORT, path=path)
    assert all(value.isfinite().all() for value in load_model(path).model.state_dict().values())


def test_missing_values_and_unequal_lengths(data: SequenceData, tmp_path: Path) -> None:
    """Training on them; the model then reads complete data, but not the other way round."""
    values = data.original_values()
    values[np.random.default_rng(0).random(values.shape) < 0.1] = np.nan
    values[3, 9:] = np.nan
    holes = SequenceData.from_padded(values, missing="mask").standardise()
    saved, result = train(holes, SMALL, replace(SHORT, iterations=3))
    assert holes.n_missing > 500 and np.isfinite(result.curves["loss"]).all()
    assert np.isfinite(encode(saved, data)[0]).all()
    complete, _ = train(data, SMALL, replace(SHORT, iterations=3))
    with pytest.raises(DataError, match="without missing values"):
        encode(complete, holes)


def test_clipping_is_by_seed(data: SequenceData, monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed's huge gradient is cut and leaves the other seed's steps as they were."""
    plain, _ = train(data, SMALL, replace(SHORT, iterations=3))
    real = LatentModel.terms

    def terms(model: LatentModel, batch: Batch, noise: MatchingNoise) -> dict[str, torch.Tensor]:
        found = real(model, batch, noise)
        factors = torch.tensor([1e6 if seed == 1 else 1.0 for seed in model.seeds])
        return {name: value * factors for name, value in found.items()}

    monkeypatch.setattr(LatentModel, "terms", terms)
    seen: list[float] = []
    step = torch.optim.Adam.step

    def watched(optimizer: torch.optim.Adam) -> None:
        parameters = optimizer.param_groups[0]["params"]
        seen.append(float(sum(p.grad[1].double().square().sum() for p in parameters)) ** 0.5)
        step(optimizer)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    saved, result = train(data, SMALL, replace(SHORT, iterations=3))
    assert (result.curves["gradient_norm"][1] > 1e4).all()
    assert seen == pytest.approx([SHORT.clip] * 3, rel=1e-5)
    for name, value in parameters(saved.model).items():
        assert torch.equal(value[0], parameters(plain.model)[name][0]), name


def test_windows_cover_every_place_equally_often() -> None:
    """Starts of windows of 3 in sequences of 5, 2 and 3 frames: 3 + 1 + 1 places, 20 % each.

    5,000 draws; 5 standard errors, false-alarm rate 3e-6.
    """
    values = np.full((3, 5, 1), np.nan)
    for row, length in enumerate((5, 2, 3)):
        values[row, :length, 0] = 10 * row + np.arange(length)
    windows = Windows(SequenceData.from_padded(values), 3, 0.25, torch.float64)
    batch = windows.draw([torch.Generator().manual_seed(0)], 5000)
    first, counts = np.unique(batch.x[0, :, 0, 0], return_counts=True)
    assert first.tolist() == [0, 1, 2, 10, 20]
    assert np.abs(counts / 5000 - 0.2).max() < 5 * np.sqrt(0.16 / 5000)
    short = batch.x[0, :, 0, 0] == 10
    assert (batch.frames[0, short].sum(1) == 2).all() and (batch.frames[0, ~short].sum(1) == 3).all()
    begun = (batch.x[0, :, 0, 0] == 0).nonzero()[0]
    assert batch.equilibrated[0, begun].tolist() == [[False, True, True]]  # a quarter of 5 frames, rounded down
    with pytest.raises(DataError, match="at least 2 frames"):
        Windows(SequenceData.from_padded(np.ones((3, 1, 1))), 3, 0.0, torch.float64)


def test_a_two_state_chain_is_learned() -> None:
    """Weights (.6, .4), all seeds: two states, accuracy near the exact filter's, weights and time scale about right."""
    chain = MarkovEmissionModel(
        transition=np.array([[0.96, 0.04], [0.06, 0.94]]),
        means=np.array([[0.0, 0.0, 0.0], [2.0, 1.0, -1.0]]),
        covariances=0.25 * np.stack([np.eye(3)] * 2),
        start=np.array([0.6, 0.4]),
    )
    data = SequenceData.from_padded(chain.sample(300, 100, 1)[0])
    model = ModelConfig(latent_dim=1, energy=ENERGY | {"hidden": [16]}, decoder_hidden=8, context=16)
    config = TrainingConfig(seeds=2, iterations=250, batch=24, window=41, partition_points=512, learning_rate=1e-2)
    saved, result = train(data.standardise(), model, config)
    assert not result.stopped
    x, states = chain.sample(60, 100, 2)
    test = SequenceData.from_padded(x, labels=states)
    limit = (chain.filter(x).argmax(2) == states).mean()
    for row in evaluate(saved, test, chain.transition, n_paths=8000):
        assert row.n_states == 2 and row.saddles == ((0, 1),)
        assert row.accuracy > limit - 0.02
        assert row.l1["exact"] < 0.25
        assert 0.6 < row.rate_ratio < 1.6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nbatchsize = 3\n", r"\[training\] has no 'batchsize'"),
        ("[trainer]\n", "unknown entry 'trainer'"),
        ("seeds = 3\n", "unknown entry 'seeds'"),
        ("[training\n", "is not TOML"),
    ],
)
def test_wrong_config_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "iterations is a whole number of at least 1, not 0"),
        ({"batch": True}, "batch is a whole number"),
        ({"window": 1}, "window is a whole number of at least 2"),
        ({"clip": 0}, "clip is a finite number above 0"),
        ({"kl_start": 1.5}, "kl_start is at most 1"),
        ({"equilibration": 1.0}, "equilibration leaves out a share below 1"),
        ({"dtype": "float16"}, "dtype is one of float32, float64"),
        ({"learning_rate": "fast"}, "learning_rate is a finite number above 0, not 'fast'"),
    ],
)
def test_wrong_settings_of_training(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**settings)  # type: ignore[arg-type]


def test_damaged_model_files(data: SequenceData, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    train(data, SMALL, replace(SHORT, iterations=1), path=path)
    tensors, document = read_file(path)
    del document["format"]
    broken = {
        "cut": lambda: path.write_bytes(path.read_bytes()[:-100]),
        "text": lambda: path.write_text("not a model"),
        "missing": lambda: write_file(path, {k: v for k, v in tensors.items() if "log_d" not in k}, document),
        "shape": lambda: write_file(path, tensors | {"model.prior.log_d": torch.zeros(5)}, document),
        "sizes": lambda: write_file(path, tensors, document | {"model": {"latent_dim": -1}}),
        "format": lambda: write_file(path, tensors, document | {"format": 99}),
    }
    for name, damage in broken.items():
        write_file(path, tensors, document)
        load_model(path)
        damage()
        with pytest.raises(CheckpointError, match=r"m\.safetensors") as caught:
            load_model(path)
        assert "\n" not in str(caught.value), name


def test_a_rotation_is_learned_from_what_rotates() -> None:
    """z' = -A z with eigenvalues -.15 +- .6 i, noise that keeps a unit Gaussian, seen with noise .1: the learned drift
    turns as fast within 25 %, on every seed. A model without a rotation has real eigenvalues."""
    rng, decay, angle = np.random.default_rng(0), np.exp(-0.15), 0.6
    turn = decay * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    z = np.empty((200, 60, 2))
    z[:, 0] = rng.normal(size=(200, 2))
    for k in range(1, 60):
        z[:, k] = z[:, k - 1] @ turn.T + np.sqrt(1 - decay**2) * rng.normal(size=(200, 2))
    data = SequenceData.from_padded(z + 0.1 * rng.normal(size=z.shape)).standardise()
    model = ModelConfig(prior="rotated", decoder="linear", energy=ENERGY, context=12)
    config = TrainingConfig(seeds=2, iterations=200, batch=24, window=31, partition_points=256, learning_rate=2e-2)
    saved, result = train(data, model, config)
    assert not result.stopped
    for k in range(2):
        energy, dynamics = to_landscape(saved.model, k)
        assert isinstance(dynamics, Overdamped)
        drift = -dynamics.mobility(2) @ energy.hessian(np.zeros((1, 2)))[0]
        assert np.abs(np.linalg.eigvals(drift).imag).max() == pytest.approx(angle, rel=0.25)
