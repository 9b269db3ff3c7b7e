"""Every picture of models trained here, of an analytic energy in three dimensions, and of published models.

    python examples/pictures.py [FOLDER]          # FOLDER/MODEL/*.png, by default in ./pictures
    python examples/pictures.py --docs DOCS       # gallery.md and gallery/*.png in DOCS, without the published models

The names begin with the number of the figure in the NLD paper that shows the same of another model. The published
models are read from the folder that LANDSCAPE_PAPER_MODELS names, and left out where there is none. They are energies
alone: figures 3a, 3b, 4 and 5, which need a generic neural SDE or sequences, are of small models that are trained here
(TRAINED), on fewer and shorter sequences than the paper's and with its easy noise, about a minute for all of them.
"""

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

import landscape
from landscape.analysis import AnalysisConfig
from landscape.plots.drift import drift_of, plot_drifts
from landscape.plots.gallery import PICTURES
from landscape.plots.picture import Scene, render
from landscape.plots.planes import coordinate_subspace
from landscape.plots.style import state_colors
from landscape.weights import SampledWeights
from nld_models.checkpoint import SavedModel
from nld_models.config import complete
from nld_models.evaluation import encode
from nld_models.landscape_adapter import find_states
from nld_models.model_config import ModelConfig
from nld_models.paper_chains import experiment, sample_experiment
from nld_models.plots.gallery import PICTURES as MODEL_PICTURES
from nld_models.plots.gallery import ModelScene
from nld_models.plots.segmentation import Segmentation, plot_models, segmentation_of
from nld_models.training import train

torch.set_num_threads(1)  # more threads cost more than they bring at these sizes
OWN = Path(__file__).with_name("three_states.safetensors")
MIXTURE = "potential:gaussian-mixture:d=3,k=3,seed=0"
PUBLISHED = {"published_3d": "symmetric_overdamped/model_0.pth", "published_10d": "symmetric_overdamped/model_3.pth"}
SHORT = {"iterations": 250, "batch": 32}
# name -> experiment, prior, seeds
TRAINED = {
    "overdamped": (1, "overdamped", 2),
    "nsde": (1, "nsde", 1),
    "underdamped": (1, "underdamped", 1),
    "experiment_2": (2, "underdamped", 2),
}
# what the paper's figures show
FIGURES = {"contour": "1_and_3f", "drift": "3d", "drift3d": "3c", "surface": "3e", "volume": "3g",
           "nsde_and_nld": "3a_3b", "segmentation_1": "4", "segmentation_2": "5"}  # fmt: skip
DPI = 100


def progress(text: str) -> None:
    print(text, file=sys.stderr)


def draw(spec: str | Path, sampled: bool = True) -> dict[str, tuple[str, str, bytes]]:
    """Name -> title, text and PNG of every picture that there is of an energy."""
    progress(f"{spec}: analysing")
    energy = landscape.load_energy(str(spec))
    config = AnalysisConfig(weights=SampledWeights() if sampled else None)
    scene = Scene(landscape.analyze(energy, config=config), energy)
    drawn = {}
    for name, picture in PICTURES.items():
        reason = picture.why_not(scene)
        if reason:
            progress(f"{spec}: no {name}: {reason}")
            continue
        figure, text = picture.figure(scene)
        drawn[name] = (picture.title, text, render(figure, "png", picture.title, text, DPI))
    return drawn


def trained_here(folder: Path) -> dict[str, tuple[str, str, bytes]]:
    """Name -> title, text and PNG: figures 3a and 3b, 4 and 5, and every picture of one of the models."""
    scenes = {name: train_small(name, folder) for name in TRAINED}
    drawn = {"nsde_and_nld": side_by_side(scenes["nsde"], scenes["overdamped"])}
    one = {name: segmentation(scenes[name], 0) for name in ("underdamped", "overdamped")}
    two = {f"seed {seed}": segmentation(scenes["experiment_2"], seed) for seed in (0, 1)}
    for number, found in ((1, one), (2, two)):
        figure = Figure(figsize=(8.5, 5.9), layout="constrained")
        plot_models(found, 0, figure=figure)
        shares = ", ".join(f"{name} {100 * each.accuracy(0):.1f} %" for name, each in found.items())
        title = f"Segmentation by two models, experiment {number}"
        text = f"The first test sequence of experiment {number}: true states, learned states and posterior mean of two "
        text += f"models; frames right: {shares}."
        drawn[f"segmentation_{number}"] = (title, text, render(figure, "png", title, text, DPI))
    for name, picture in MODEL_PICTURES.items():
        figure, text = picture.figure(scenes["overdamped"])
        drawn[f"model_{name}"] = (picture.title, text, render(figure, "png", picture.title, text, DPI))
    return drawn


def train_small(name: str, folder: Path) -> ModelScene:
    """A model of TRAINED, with test sequences to look at it with."""
    progress(f"{name}: training")
    number, prior, seeds = TRAINED[name]
    chain = experiment(number, "easy")
    data = sample_experiment(chain, number, "train", seed=0, sequences=300, length=150).standardise()
    test = sample_experiment(chain, number, "test", seed=1, sequences=50, length=200)
    model = ModelConfig(prior=prior)
    path = folder / f"{name}.safetensors"
    saved, _ = train(data, model, complete(model, {**SHORT, "seeds": seeds}), path=path)
    return ModelScene(path, saved, test)


def segmentation(scene: ModelScene, seed_index: int) -> Segmentation:
    states = scene.states if seed_index == scene.seed_index else find_states(scene.saved.model, seed_index)
    return segmentation_of(scene.saved, states, scene.data, seed_index)


def side_by_side(nsde: ModelScene, nld: ModelScene) -> tuple[str, str, bytes]:
    """The drift of a generic neural SDE and of an NLD of the same data: the paper's figures 3a and 3b, and 3d.

    Each model chooses its own latent coordinates; the box holds the posterior means of both.
    """
    means = np.concatenate([encode(scene.saved, scene.data)[0][0].reshape(-1, 2) for scene in (nsde, nld)])
    low, high = means.min(0), means.max(0)
    box = np.stack([low - 0.1 * (high - low), high + 0.1 * (high - low)], axis=1)
    figure = Figure(figsize=(9.2, 8.0), layout="compressed")
    drifts = {"NSDE": free_drift(nsde.saved), "NLD": drift_of(nld.states.dynamics, nld.states.energy)}
    plot_drifts(drifts, coordinate_subspace(2), box, minima=nld.states.analysis.states.x, figure=figure)
    title = "Drift of an NSDE and of an NLD"
    text = (
        "Arrows and flow lines of the drifts of two models of the same sequences: left a generic neural SDE, whose "
        "drift is any network, right an NLD, whose drift is a gradient: its lines end in the minima of its energy."
    )
    return title, text, render(figure, "png", title, text, DPI)


def free_drift(saved: SavedModel) -> Callable[[np.ndarray], np.ndarray]:
    """The drift of the first seed: (n, d) -> (n, d)."""

    def drift(points: np.ndarray) -> np.ndarray:
        z = torch.from_numpy(points).to(saved.model.dtype).expand(len(saved.model.seeds), *points.shape)
        with torch.no_grad():
            return saved.model.prior.drift(z)[0].double().numpy()

    return drift


def write(folder: Path, drawn: dict[str, tuple[str, str, bytes]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, _, data) in drawn.items():
        figure = FIGURES.get(name)
        (folder / f"{f'figure_{figure}_' if figure else ''}{name}.png").write_bytes(data)
    print(f"{folder}: {len(drawn)} pictures")


def smaller(data: bytes) -> Image.Image:
    """A PNG with 256 colours, a third of its size; white, the colours of states and their tints among them."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    tints = [255 - part * (255 - 255 * state_colors(7)) for part in (1.0, 0.75, 0.5, 0.28)]
    states = np.concatenate([*tints, [[255, 255, 255]]])
    found = image.quantize(256 - len(states), kmeans=3).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*found[: 3 * (256 - len(states))], *states.round().astype(int).ravel().tolist()])
    return whitened(image.quantize(palette=palette, dither=Image.Dither.NONE))


def whitened(image: Image.Image) -> Image.Image:
    """The palette's entries next to white made white: the background must not be darker than the page."""
    colors = np.array(image.getpalette()).reshape(-1, 3)
    colors[colors.min(axis=1) >= 249] = 255
    image.putpalette(colors.ravel().tolist())
    return image


def write_gallery(docs: Path) -> None:
    """gallery.md: every picture of the own model, those of the mixture that need three dimensions, `trained_here`."""
    own, mixture = draw(OWN), draw(MIXTURE)
    mixture = {f"mixture-{name}": mixture[name] for name in ("contour", "volume", "drift3d")}
    with tempfile.TemporaryDirectory() as scratch:
        models = trained_here(Path(scratch))
    folder = docs / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Gallery", "",
        "Made by `python examples/pictures.py --docs docs`. The model is",
        "[three_states.safetensors](../examples/three_states.safetensors), trained with `nld train` on noisy sequences",
        "of a three-state Markov chain; pictures that need three dimensions are of a mixture of three Gaussians,",
        f"`{MIXTURE}`.",
        "The last ones, from the drifts of two models on, are of small models that the script trains on the data of",
        "the NLD paper's experiments, with easy noise.", "",
    ]  # fmt: skip
    for name, (title, text, data) in {**own, **mixture, **models}.items():
        smaller(data).save(folder / f"{name}.png", optimize=True)
        what = name.removeprefix("mixture-")
        model = "mixture" if name in mixture else "three_states"
        command = f"`landscape plot {model}.landscape --what {what} -o {what}.png`"
        if what.startswith("model_"):
            what = what.removeprefix("model_")
            command = f"`nld plot model.safetensors test.npz --what {what} -o {what}.png`"
        elif name in models:
            command = "[examples/pictures.py](../examples/pictures.py), `trained_here`"
        heading = f"{title}, of the mixture" if name in mixture else title
        lines += [f"## {heading}", "", f"![{text}](gallery/{name}.png)", "", text, "", command, ""]
    (docs / "gallery.md").write_text("\n".join(lines).rstrip() + "\n")
    size = sum(path.stat().st_size for path in folder.glob("*.png"))
    print(f"{docs / 'gallery.md'}: {len(own) + len(mixture) + len(models)} pictures, {size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("pictures"))
    parser.add_argument("--docs", type=Path, help="write the gallery of the documents there instead")
    arguments = parser.parse_args()
    if arguments.docs is not None:
        write_gallery(arguments.docs)
        return
    write(arguments.folder / "three_states", draw(OWN))
    with tempfile.TemporaryDirectory() as scratch:
        write(arguments.folder / "trained_here", trained_here(Path(scratch)))
    models = os.environ.get("LANDSCAPE_PAPER_MODELS", "")
    for name, file in PUBLISHED.items():
        path = Path(models) / file
        if models and path.is_file():
            write(arguments.folder / name, draw(path, sampled=False))
        else:
            print(f"{name}: left out, {file} is not there: set LANDSCAPE_PAPER_MODELS to the folder that has it")


if __name__ == "__main__":
    main()
