"""Every picture of a model trained here, of an analytic energy in three dimensions, and of published models.

    python examples/pictures.py [FOLDER]          # FOLDER/MODEL/*.png, by default in ./pictures
    python examples/pictures.py --docs DOCS       # gallery.md and gallery/*.png in DOCS, without the published models

The names begin with the number of the figure in the NLD paper that shows the same of another model. The published
models are read from the folder that LANDSCAPE_PAPER_MODELS names, and left out where there is none.
"""

import argparse
import io
import os
import sys
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
from landscape.plots.style import state_colors
from landscape.weights import SampledWeights

torch.set_num_threads(1)  # more threads cost more than they bring at these sizes
OWN = Path(__file__).with_name("three_states.safetensors")
MIXTURE = "potential:gaussian-mixture:d=3,k=3,seed=0"
PUBLISHED = {"published_3d": "symmetric_overdamped/model_0.pth", "published_10d": "symmetric_overdamped/model_3.pth"}
# what the paper's figures show
FIGURES = {"contour": "1_and_3f", "drift": "3d", "drift3d": "3c", "surface": "3e", "volume": "3g"}
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
    drawn["nsde_and_nld"] = side_by_side(scene)
    return drawn


def side_by_side(scene: Scene) -> tuple[str, str, bytes]:
    """The drift of the model beside one that no energy has: the paper's figures 3a and 3b beside the same of an NLD.

    The other drift is -grad E / gamma with each pair of coordinates turned by 60 degrees.
    """
    nld = drift_of(scene.analysis.dynamics, scene.energy)
    d = scene.analysis.dim
    turn = np.eye(d)
    c, s = np.cos(np.pi / 3), np.sin(np.pi / 3)
    for k in range(0, d - 1, 2):
        turn[k : k + 2, k : k + 2] = [[c, -s], [s, c]]

    def nsde(points: np.ndarray) -> np.ndarray:
        return nld(points) @ turn.T

    grid = scene.plane
    box = np.array([[ticks[0], ticks[-1]] for ticks in grid.ticks])
    figure = Figure(figsize=(9.2, 8.0), layout="compressed")
    drifts = {"no gradient (NSDE)": nsde, "gradient (NLD)": nld}
    plot_drifts(drifts, grid.subspace, box, minima=scene.analysis.states.x, figure=figure)
    title = "A general drift and a gradient"
    text = (
        "Arrows and flow lines of two drifts: left one that no energy has, as in a neural SDE, right that of the "
        "model, whose lines end in its minima."
    )
    return title, text, render(figure, "png", title, text, DPI)


def write(folder: Path, drawn: dict[str, tuple[str, str, bytes]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, _, data) in drawn.items():
        figure = "3a_3b" if name == "nsde_and_nld" else FIGURES.get(name)
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
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def write_gallery(docs: Path) -> None:
    """gallery.md with every picture of the own model, and those of the mixture that need three dimensions."""
    own, mixture = draw(OWN), draw(MIXTURE)
    mixture = {f"mixture-{name}": mixture[name] for name in ("contour", "volume", "drift3d")}
    folder = docs / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Gallery", "",
        "Made by `python examples/pictures.py --docs docs`. The model is",
        "[three_states.safetensors](../examples/three_states.safetensors), trained with `nld train` on noisy sequences",
        "of a three-state Markov chain; pictures that need three dimensions are of a mixture of three Gaussians,",
        f"`{MIXTURE}`.", "",
    ]  # fmt: skip
    for name, (title, text, data) in {**own, **mixture}.items():
        smaller(data).save(folder / f"{name}.png", optimize=True)
        what = name.removeprefix("mixture-")
        model = "mixture" if name in mixture else "three_states"
        command = f"`landscape plot {model}.landscape --what {what} -o {what}.png`"
        if what == "nsde_and_nld":
            command = "[examples/pictures.py](../examples/pictures.py), `side_by_side`"
        heading = f"{title}, of the mixture" if name in mixture else title
        lines += [f"## {heading}", "", f"![{text}](gallery/{name}.png)", "", text, "", command, ""]
    (docs / "gallery.md").write_text("\n".join(lines).rstrip() + "\n")
    size = sum(path.stat().st_size for path in folder.glob("*.png"))
    print(f"{docs / 'gallery.md'}: {len(own) + len(mixture)} pictures, {size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("pictures"))
    parser.add_argument("--docs", type=Path, help="write the gallery of the documents there instead")
    arguments = parser.parse_args()
    if arguments.docs is not None:
        write_gallery(arguments.docs)
        return
    write(arguments.folder / "three_states", draw(OWN))
    models = os.environ.get("LANDSCAPE_PAPER_MODELS", "")
    for name, file in PUBLISHED.items():
        path = Path(models) / file
        if models and path.is_file():
            write(arguments.folder / name, draw(path, sampled=False))
        else:
            print(f"{name}: left out, {file} is not there: set LANDSCAPE_PAPER_MODELS to the folder that has it")


if __name__ == "__main__":
    main()
