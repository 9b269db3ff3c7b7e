"""Pictures of models: what artists hold is checked against the model, its file and the data, not pixels."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import nld_models
from landscape.errors import UsageError
from landscape.plots.style import state_color
from nld_models.checkpoint import SavedModel, read_file, write_file
from nld_models.cli import main
from nld_models.config import TrainingConfig
from nld_models.data import SequenceData
from nld_models.errors import CheckpointError
from nld_models.evaluation import encode, segment
from nld_models.landscape_adapter import LearnedStates, find_states
from nld_models.model import LatentModel
from nld_models.model_config import ModelConfig
from nld_models.paper_chains import experiment, sample_experiment
from nld_models.plots.curves import Curves, plot_curve, plot_curves, read_curves, running_mean
from nld_models.plots.emissions import Emissions, emissions_of, plot_emission, plot_emissions
from nld_models.plots.gallery import PICTURES, ModelScene, draw_pictures
from nld_models.plots.latents import latent_grid, off_plane, plot_latents
from nld_models.plots.segmentation import Segmentation, plot_models, plot_segmentation, plot_strips, segmentation_of
from nld_models.sequence_files import save_sequences
from nld_models.training import Stopped, train

SMALL = ModelConfig(energy={"hidden": [8], "confinement": 0.1}, decoder_hidden=6, context=8)
SHORT = TrainingConfig(seeds=2, first_seed=4, iterations=3, batch=6, window=12, partition_points=128)
MEAN, SCALE = 3.0, 2.0
CENTERS = np.array([[2.0, 0.0, 0.5, 0.0], [-1.0, 1.7, -0.5, 0.3], [0.5, -1.7, 0.2, -0.4]])


@pytest.fixture(autouse=True)
def no_global_state() -> Iterator[None]:
    """rcParams as before, and no figure that pyplot would know."""
    before = copy.deepcopy(dict(matplotlib.rcParams))
    yield
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def wells(dim: int) -> SavedModel:
    """Two seeds; seed index 1 has E = -log of three Gaussians of width 0.4 at CENTERS, and an encoder whose mean is the
    first `dim` of its 2 dim standardised channels, whatever came before."""
    config = ModelConfig(latent_dim=dim, architecture="soft-minimum", energy={"n_components": 3})
    model = LatentModel(config, 2 * dim, False, (5, 6), torch.float64)
    network = model.prior.energy.network
    with torch.no_grad():
        network.get_parameter("centers")[1] = torch.from_numpy(CENTERS[:, :dim])
        network.get_parameter("logits")[1] = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
        network.get_parameter("factors")[1] = -np.log(0.4) * torch.eye(dim)
        for parameter in model.encoder.node.parameters():
            parameter.zero_()
        model.encoder.skip.zero_()
        model.encoder.skip[:, :dim] = torch.eye(dim, dtype=torch.float64)
    return SavedModel(model.requires_grad_(False), np.full(2 * dim, MEAN), np.full(2 * dim, SCALE), {"finished": True})


def walks(dim: int, labelled: bool = True) -> tuple[SequenceData, np.ndarray]:
    """Three sequences, the second shorter, in the units of a file, and the component (3, 40) that each frame is near:
    within 0.25 of its centre in every coordinate. True states are 2, 0, 1 for components 0, 1, 2; some are unknown."""
    rng = np.random.default_rng(0)
    component = np.repeat(rng.integers(0, 3, (3, 8)), 5, axis=1)
    z = CENTERS[component][..., :dim] + rng.uniform(-0.25, 0.25, (3, 40, dim))
    values = np.concatenate([z, rng.standard_normal(z.shape)], 2) * SCALE + MEAN
    lengths = np.array([40, 31, 40])
    truth = np.array([2, 0, 1])[component]
    truth[0, :4] = -1
    return SequenceData.from_padded(values, lengths, truth if labelled else None, "mask"), component


def component_state(states: LearnedStates, dim: int) -> np.ndarray:
    """The state whose minimum is at the centre of each component, (3,)."""
    distance = np.linalg.norm(states.analysis.states.x[:, None] - CENTERS[:, :dim], axis=2)
    assert states.n_states == 3 and distance.min(0).max() < 0.1
    return distance.argmin(0)


@pytest.fixture(scope="module", params=[1, 2, 4], ids="d={}".format)
def model(request: pytest.FixtureRequest) -> tuple[SavedModel, LearnedStates, int]:
    saved = wells(request.param)
    return saved, find_states(saved.model, 1), request.param


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model file of two seeds, trained for three steps, and labelled data beside it."""
    folder = tmp_path_factory.mktemp("trained")
    data = sample_experiment(experiment(1, "easy"), 1, "train", seed=0, sequences=12, length=30)
    save_sequences(folder / "data.npz", data)
    train(data.standardise(), SMALL, SHORT, path=folder / "model.safetensors")
    return folder / "model.safetensors", folder / "data.npz"


def test_segments_are_the_labels_and_the_truth_is_translated(model: tuple[SavedModel, LearnedStates, int]) -> None:
    """Drawn runs give back, frame by frame, what `segment` says, the component that each frame is near, and the truth
    in numbers of the learned states, in their colours."""
    saved, states, dim = model
    data, component = walks(dim)
    found = segmentation_of(saved, states, data, 1)
    standing = component_state(states, dim)
    assert np.array_equal(found.labels, segment(saved, states, data, 1))
    assert found.order.tolist() == standing[[1, 2, 0]].tolist()
    inside = data.frames
    assert np.array_equal(found.labels[inside], standing[component][inside]) and (found.labels[~inside] == -1).all()
    for row in range(3):
        strips, posterior = plot_segmentation(found, states, [row], figure=Figure(layout="constrained"))[row]
        length = data.lengths[row]
        expected = {"learned": found.labels[row, :length], "truth": standing[component][row, :length].copy()}
        if row == 0:
            expected["truth"][:4] = -1
        for name, labels in expected.items():
            runs = strips.runs[name]
            assert np.array_equal(np.repeat(runs[:, 0], runs[:, 2] - runs[:, 1]), labels)
            boxes = [path.get_extents() for path in strips.collections[name].get_paths()]
            assert [(box.x0, box.x1) for box in boxes] == [(a, b) for _, a, b in runs.tolist()]
            colors = strips.collections[name].get_facecolor()[:, :3]
            np.testing.assert_allclose(colors, [state_color(k) for k in runs[:, 0].tolist()])
        assert len(strips.collections["wrong"].get_paths()) == 0 and found.accuracy(row) == 1
        assert "100.0 % of frames right" in strips.ax.get_title()
        wide = {text.get_text() for text in strips.numbers}
        assert wide == {str(k) for k in expected["learned"]}
        mean = encode(saved, data)[0][1, row, :length]
        shown = np.column_stack([line.get_ydata() for line in posterior.lines])
        assert shown.shape == (length, 2 if dim == 4 else dim)
        if dim < 4:
            np.testing.assert_allclose(shown, mean)
            np.testing.assert_allclose(mean, (data.values[row, :length, :dim] - MEAN) / SCALE, atol=1e-12)


def test_wrong_frames_are_marked_and_counted() -> None:
    truth = np.array([[0, 0, 1, 1, -1, 1], [-1, -1, -1, -1, -1, -1]])
    labels = np.array([[1, 0, 0, -1, 0, 0], [0, 1, 1, 1, 1, 1]])
    nothing = np.zeros((2, 6, 1))
    found = Segmentation(labels, nothing, nothing, truth, np.array([1, 0]), np.array([6, 6]), 2)
    # Right: frames 0, 2 and 5 of the five known ones.
    assert found.accuracy(0) == pytest.approx(3 / 5) and np.isnan(found.accuracy(1))
    drawn = plot_strips(found, 0)
    boxes = [path.get_extents() for path in drawn.collections["wrong"].get_paths()]
    assert [(box.x0, box.x1) for box in boxes] == [(1, 2), (3, 4)]
    white = [tuple(color[:3]) == to_rgb("white") for color in drawn.collections["learned"].get_facecolor()]
    assert white == (drawn.runs["learned"][:, 0] == -1).tolist() and sum(white) == 1
    with pytest.raises(UsageError, match="sequences are 0 to 1"):
        plot_strips(found, 2)
    # A third true state that no learned one stands for is never right.
    more = replace(found, truth=np.full((2, 6), 2), order=np.array([1, 0, -1]))
    assert more.accuracy(0) == 0


def test_models_are_compared_in_the_order_of_the_true_states() -> None:
    """Two models with other numbers for their states, one with a state too many: the truth is drawn the same."""
    truth = np.array([[0, 1, 1, 2, 2, -1]])
    first = np.array([[2, 0, 0, 1, 2, -1]])
    second = np.array([[0, 3, 1, 1, 2, 2]])
    nothing, length = np.zeros((1, 6, 2)), np.array([6])
    models = {
        "first": Segmentation(first, nothing, nothing, truth, np.array([2, 0, 1]), length, 3),
        "second": Segmentation(second, nothing, nothing, truth, np.array([0, 3, 1]), length, 4),
    }
    drawn = plot_models(models, 0)
    learned = {"first": [0, 1, 1, 2, 0, -1], "second": [0, 1, 2, 2, 3, 3]}
    for name, (strips, _) in drawn.items():
        for strip, labels in (("truth", truth[0]), ("learned", learned[name])):
            runs = strips.runs[strip]
            assert np.repeat(runs[:, 0], runs[:, 2] - runs[:, 1]).tolist() == list(labels)
        assert strips.ax.get_title() == f"{name}, sequence 0: {'80.0' if name == 'first' else '60.0'} % of frames right"
    words = [text.get_text() for text in drawn["first"][0].ax.figure.legends[0].get_texts()]
    assert "state 1 (true state 1)" in words and "state 3 (no true state)" in words
    lost = replace(
        models["first"], order=np.array([2, -1, 1])
    )  # true state 1 has none, learned state 0 stands for none
    again = lost.in_true_order()
    assert again.labels.tolist() == [[0, 3, 3, 2, 0, -1]] and again.order.tolist() == [0, -1, 2]
    assert again.accuracy(0) == lost.accuracy(0) == 2 / 5 and again.n_states == 4
    with pytest.raises(UsageError, match="no model"):
        plot_models({}, 0)


def test_data_without_labels_have_no_truth() -> None:
    saved = wells(2)
    states = find_states(saved.model, 1)
    data, _ = walks(2, labelled=False)
    found = segmentation_of(saved, states, data, 1)
    assert found.truth is None and found.translated is None and np.isnan(found.accuracy(0))
    strips = plot_strips(found, 1)
    assert list(strips.collections) == ["learned"] and [t.get_text() for t in strips.ax.get_yticklabels()] == [
        "learned"
    ]
    scene = ModelScene(Path("none"), saved, data, 1)
    figure, text = PICTURES["segmentation"].figure(scene)
    assert "no labels: no truth is drawn" in text and len(figure.axes) == 6


def test_latents_lie_where_the_posterior_means_are(model: tuple[SavedModel, LearnedStates, int]) -> None:
    saved, states, dim = model
    data, component = walks(dim)
    found = segmentation_of(saved, states, data, 1)
    grid = latent_grid(states)
    drawn = plot_latents(states, found, [0, 1], grid=grid)
    for row in (0, 1):
        length = data.lengths[row]
        at = np.asarray(drawn.points[row].get_offsets())
        mean = (data.values[row, :length, :dim] - MEAN) / SCALE
        if dim == 1:
            height = -np.log(np.exp(-3.125 * (mean - CENTERS[:, :1].T) ** 2) @ [0.5, 0.3, 0.2])
            lowest = min(-np.log(np.exp(-3.125 * (CENTERS[:, :1] - CENTERS[:, :1].T) ** 2) @ [0.5, 0.3, 0.2]))
            np.testing.assert_allclose(at, np.column_stack([mean, height - lowest]), atol=2e-3)
        else:
            expected = mean if dim == 2 else (mean - grid.subspace.origin) @ grid.subspace.axes.T
            np.testing.assert_allclose(at, expected, atol=1e-12)
            np.testing.assert_allclose(drawn.traces[row].get_segments()[0], expected, atol=1e-12)
        colors = [state_color(k) for k in component_state(states, dim)[component[row, :length]].tolist()]
        np.testing.assert_allclose(drawn.points[row].get_facecolor()[:, :3], colors)
        (low_x, high_x), (low_y, high_y) = drawn.ax.get_xlim(), drawn.ax.get_ylim()
        assert ((low_x < at[:, 0]) & (at[:, 0] < high_x) & (low_y < at[:, 1]) & (at[:, 1] < high_y)).all()
    labels = [text.get_text() for text in drawn.ax.get_legend().get_texts()]
    assert labels[-1] == "posterior mean of a frame" and "minimum of state i" in labels
    assert (off_plane(found, [0, 1], grid) > 0.05) == (dim == 4)


def test_emissions_are_the_decoder_at_the_minima_and_the_means_of_labelled_frames() -> None:
    saved = wells(2)
    states = find_states(saved.model, 1)
    data, component = walks(2)
    values = data.original_values()
    values[0, 5, 3] = np.nan  # one value is missing
    data = SequenceData.from_padded(values, data.lengths, data.labels, "mask")
    labels = np.where(data.frames, component_state(states, 2)[component], -1)
    found = emissions_of(saved, states, data, labels, 1)
    z = torch.from_numpy(states.analysis.states.x).expand(2, -1, -1)
    np.testing.assert_allclose(found.decoded, saved.model.decoder.decode(z)[1] * SCALE + MEAN)
    np.testing.assert_allclose(found.noise, np.full((3, 4), SCALE) * saved.model.decoder.log_noise[1].exp().numpy())
    for state in range(3):
        frames = values[labels == state]
        np.testing.assert_allclose(found.observed[state], np.nanmean(frames, 0))
        np.testing.assert_allclose(found.spread[state], np.nanstd(frames, 0))
        assert found.frames[state] == len(frames)
    for state, panel in plot_emissions(found).items():
        assert panel.observed is not None and f"{found.frames[state]} frames" in panel.ax.get_title()
        for bars, means, errors in (
            (panel.decoded, found.decoded, found.noise), (panel.observed, found.observed, found.spread)
        ):  # fmt: skip
            np.testing.assert_allclose(bars[0].get_ydata(), means[state])
            ends = np.array([segment[:, 1] for segment in bars[2][0].get_segments()])
            np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 2 * errors[state])
        assert to_rgb(panel.observed[0].get_color()) == state_color(state)


def test_a_state_without_frames_has_its_decoder_alone() -> None:
    values = np.arange(12.0).reshape(2, 6)
    nothing = np.where(np.arange(2)[:, None] == 0, values, np.nan)
    found = Emissions(values, np.ones((2, 6)), nothing, nothing, np.array([1, 0]))
    panel = plot_emission(found, 1)
    assert panel.observed is None and panel.ax.get_title() == "state 1: no frame is labelled so"
    assert plot_emission(found, 0).ax.get_title() == "state 0: 1 frame"
    with pytest.raises(UsageError, match="states are 0 to 1"):
        plot_emission(found, 2)
    many = Emissions(*(np.zeros((9, 2)) for _ in range(4)), np.array([0, 9, 8, 7, 1, 6, 5, 4, 0]))
    assert list(plot_emissions(many)) == [1, 2, 3, 5, 6, 7]


def test_curves_are_those_in_the_file(trained: tuple[Path, Path]) -> None:
    path, _ = trained
    curves = read_curves(path)
    stored = {name[6:]: tensor.numpy() for name, tensor in read_file(path)[0].items() if name.startswith("curve.")}
    assert curves.seeds.tolist() == [4, 5] and curves.steps == 3 and set(curves.values) == set(stored)
    drawn = plot_curves(curves)
    assert next(iter(drawn)) == "loss" and set(drawn) == set(stored)
    for name, panel in drawn.items():
        for k, seed in enumerate((4, 5)):
            assert panel.lines[seed].get_xdata().tolist() == [1, 2, 3]
            np.testing.assert_array_equal(panel.lines[seed].get_ydata(), stored[name][k])
            np.testing.assert_allclose(panel.means[seed].get_ydata(), stored[name][k].mean())
        assert panel.marks == {}
    with pytest.raises(UsageError, match="take one of loss"):
        plot_curve(curves, "accuracy")


def test_a_stopped_seed_is_marked_where_it_stopped() -> None:
    values = np.vstack([np.linspace(9, 1, 50), np.linspace(8, 2, 50)])
    values[1, 30:] = np.nan
    curves = Curves(np.array([3, 4]), {"loss": values}, (Stopped(4, 30, "loss not finite", 25),), 80)
    panels = plot_curves(curves)
    (mark,) = panels["loss"].marks.values()
    assert mark.get_xdata() == [30] and mark.get_ydata() == [values[1, 29]]
    figure = panels["loss"].ax.figure
    words = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "seed 4, stopped" in words and "seed 3" in words and "stopped: not finite" in words
    assert figure.get_suptitle() == "Training, 50 of 80 steps"


def test_of_many_seeds_those_that_stopped_are_named() -> None:
    curves = Curves(np.arange(20, 32), {"loss": np.ones((12, 4))}, (Stopped(31, 2, "loss not finite", 0),), 4)
    figure = plot_curves(curves)["loss"].ax.figure
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[:9] == [*(f"seed {seed}" for seed in range(20, 27)), "seed 31, stopped", "and 4 more seeds"]


def test_the_running_mean_by_hand() -> None:
    values = np.array([1.0, 2.0, 6.0, np.nan, 5.0])
    np.testing.assert_allclose(running_mean(values, 2), [1.5, 3.0, 4.0, np.nan, 5.0])


def test_a_file_without_curves_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    tensors, document = read_file(trained[0])
    bare = {name: tensor for name, tensor in tensors.items() if not name.startswith("curve.")}
    write_file(tmp_path / "bare.safetensors", bare, {k: v for k, v in document.items() if k != "format"})
    with pytest.raises(CheckpointError, match="training curves are missing"):
        read_curves(tmp_path / "bare.safetensors")


def test_a_free_drift_has_curves_alone(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data = sample_experiment(experiment(1, "easy"), 1, "train", seed=0, sequences=12, length=30)
    path = tmp_path / "nsde.safetensors"
    saved, _ = train(data.standardise(), replace(SMALL, prior="nsde", learned=None), SHORT, path=path)
    drawn, left_out = draw_pictures(ModelScene(path, saved, data), None, "svg", 50)
    assert set(drawn) == {"curves"} and set(left_out) == set(PICTURES) - {"curves"}
    assert all("has no energy" in reason for reason in left_out.values())
    with pytest.raises(UsageError, match="'latents' cannot be drawn: it needs states"):
        draw_pictures(ModelScene(path, saved, data), "latents", "svg")


def test_the_command_writes_every_picture(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = map(str, trained)
    folder = tmp_path / "new" / "pictures"
    argv = ["plot", model, data, "--what", "all", "-o", str(folder), "--sequence", "4", "--seed-index", "1", "--json"]
    assert main(argv) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["seed"] == 5 and document["left_out"] == {}
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.png" for name in PICTURES)
    texts = {Path(entry["file"]).stem: entry["text"] for entry in document["pictures"]}
    assert "sequence 4 by seed 5" in texts["segmentation"] and "30 frames of sequence 4" in texts["latents"]
    assert texts["segmentation"].encode("latin-1") in (folder / "segmentation.png").read_bytes()
    assert main(argv) == 2 and "exists" in capsys.readouterr().err
    assert main(["plot", model, "-o", str(tmp_path / "a.svg")]) == 0
    assert "Training curves of 2 seeds over 3 steps" in capsys.readouterr().out
    assert (tmp_path / "a.svg").read_bytes()[:5] == b"<?xml"


BAD = {
    "no data": (["--what", "latents"], False, "give DATA"),
    "sequence without data": (["--sequence", "1"], False, "give DATA"),
    "unknown": (["--what", "landscape"], True, "take one of curves"),
    "sequence": (["--sequence", "12"], True, "0 to 11"),
    "sequence of all": (["--sequence", "12", "--what", "all"], True, "0 to 11"),
    "seed": (["--seed-index", "2"], True, "0 to 1"),
    "format": (["--format", "svg"], True, "does not fit"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_usage_is_one_line(
    case: str, trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, with_data, message = BAD[case]
    output = tmp_path / ("pictures" if "all" in flags else "a.png")
    given = [str(path) for path in trained[: 1 + with_data]]
    assert main(["plot", *given, "-o", str(output), *flags]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err and list(tmp_path.iterdir()) == []


def test_bad_outputs_are_one_line(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, flags, message in (
        ("a.gif", [], "FILE.png, FILE.svg or FILE.pdf"), ("none/a.png", [], "cannot be written"),
        ("a.png", ["--what", "all"], "writes to a folder"),
    ):  # fmt: skip
        assert main(["plot", str(trained[0]), "-o", str(tmp_path / name), *flags]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and message in err and list(tmp_path.iterdir()) == []


def test_pictures_never_import_pyplot() -> None:
    for path in (Path(nld_models.__file__).parent / "plots").glob("*.py"):
        assert "pyplot" not in path.read_text(), path.name
