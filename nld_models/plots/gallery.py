"""Every picture of a model by name, as `nld plot --what` uses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from landscape.errors import UsageError
from landscape.plots.picture import render
from nld_models.checkpoint import SavedModel
from nld_models.data import SequenceData
from nld_models.landscape_adapter import LearnedStates, find_states
from nld_models.plots.curves import Curves, plot_curves, read_curves
from nld_models.plots.emissions import Emissions, emissions_of, plot_emissions
from nld_models.plots.latents import latent_grid, off_plane, plot_latents
from nld_models.plots.segmentation import Segmentation, check_rows, plot_segmentation, segmentation_of
from nld_models.prior import EnergyPrior

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST = 3  # sequences that are drawn where none was named


@dataclass(frozen=True, eq=False)
class ModelScene:
    """A model, one of its seeds, and data to look at it with.

    path : of the model's file, for its training curves. data : in the units of their file, or None. sequences : rows
    of the data that are drawn, None for the first three. progress : called before what takes long.
    """

    path: Path
    saved: SavedModel
    data: SequenceData | None = None
    seed_index: int = 0
    sequences: Sequence[int] | None = None
    progress: Callable[[str], None] = lambda text: None

    @cached_property
    def curves(self) -> Curves:
        return read_curves(self.path)

    @cached_property
    def states(self) -> LearnedStates:
        """ConfigError for a model without an energy."""
        self.progress(f"seed {self.saved.model.seeds[self.seed_index]}: states")
        return find_states(self.saved.model, self.seed_index)

    @cached_property
    def segmentation(self) -> Segmentation:
        states, data = self.states, self._data()
        self.progress(f"{states.n_states} states; segmentation of {len(data):,} sequences")
        return segmentation_of(self.saved, states, data, self.seed_index)

    @cached_property
    def emissions(self) -> Emissions:
        return emissions_of(self.saved, self.states, self._data(), self.segmentation.labels, self.seed_index)

    @property
    def rows(self) -> list[int]:
        """The sequences that are drawn. UsageError for one that is not there."""
        if self.sequences is None:
            return list(range(min(FIRST, len(self._data()))))
        check_rows(len(self._data()), self.sequences)
        return list(self.sequences)

    def _data(self) -> SequenceData:
        if self.data is None:
            raise UsageError("sequences are needed: give DATA after MODEL")
        return self.data


@dataclass(frozen=True)
class ModelPicture:
    """One picture of a model.

    name : as in `nld plot --what`. title : a few words. draw : fills an empty figure (layout "constrained") and returns
    a sentence or two for those who cannot see it. needs_data : whether sequences are needed.
    size : of the figure in inches, by the scene.
    """

    name: str
    title: str
    draw: Callable[[ModelScene, Figure], str]
    size: Callable[[ModelScene], tuple[float, float]]
    needs_data: bool = True

    def why_not(self, scene: ModelScene) -> str:
        """ "" if this picture can be drawn of the scene, else the reason."""
        if self.needs_data and not isinstance(scene.saved.model.prior, EnergyPrior):
            return "it needs states, and a generic neural SDE (prior nsde) has no energy"
        return "it needs sequences: give DATA after MODEL" if self.needs_data and scene.data is None else ""

    def figure(self, scene: ModelScene) -> tuple[Figure, str]:
        """A new figure with the picture, and the text for those who cannot see it. UsageError if it cannot be drawn."""
        from matplotlib.figure import Figure

        reason = self.why_not(scene)
        if reason:
            raise UsageError(f"the picture {self.name!r} cannot be drawn: {reason}")
        figure = Figure(figsize=self.size(scene), layout="constrained")
        return figure, self.draw(scene, figure)


def _curves(scene: ModelScene, figure: Figure) -> str:
    curves = scene.curves
    plot_curves(curves, figure=figure)
    ends = [f"seed {seed} {loss:.4g}" for seed, loss in zip(curves.seeds, _last_losses(curves), strict=True)]
    text = (
        f"Training curves of {_count(len(curves.seeds), 'seed')} over {curves.steps:,} steps: "
        f"{', '.join(name.replace('_', ' ') for name in curves.values)}. Loss at the end: {', '.join(ends)}."
    )
    if curves.stopped:
        told = [f"seed {entry.seed} at step {entry.iteration} ({entry.reason})" for entry in curves.stopped]
        text += f" Stopped: {', '.join(told)}."
    return text


def _last_losses(curves: Curves) -> list[float]:
    """The mean over the last 20 steps of each seed, up to where it was stopped."""
    found = []
    for row in curves.values.get("loss", np.full((len(curves.seeds), 1), np.nan)):
        known = row[np.isfinite(row)][-20:]
        found.append(float(known.mean()) if len(known) else float("nan"))
    return found


def _segmentation(scene: ModelScene, figure: Figure) -> str:
    rows, found = scene.rows, scene.segmentation
    plot_segmentation(found, scene.states, rows, figure=figure)
    text = f"Segmentation of {_named(rows)} by seed {_seed(scene)} into {_count(found.n_states, 'state')}"
    if found.truth is None:
        return f"{text}, with the posterior mean below. The data have no labels: no truth is drawn."
    right = [f"{100 * found.accuracy(row):.1f} %" for row in rows]
    return f"{text}, below the true states, with the posterior mean; frames right: {', '.join(right)}."


def _latents(scene: ModelScene, figure: Figure) -> str:
    rows, states, found = scene.rows, scene.states, scene.segmentation
    figure.set_layout_engine("compressed")
    drawn = plot_latents(states, found, rows, grid=latent_grid(states), ax=figure.add_subplot())
    plane = drawn.grid.subspace
    frames = sum(len(at) for at in drawn.shown.values())
    text = f"Posterior means of {frames:,} frames of {_named(rows)}, coloured by state, over the energy of seed "
    text += f"{_seed(scene)} up to {drawn.grid.levels.limit:g} kT"
    if plane.is_whole_space:
        return f"{text}."
    return f"{text} on {plane.name}; they lie {off_plane(found, rows, drawn.grid):.2g} off it (root mean square)."


def _emissions(scene: ModelScene, figure: Figure) -> str:
    emissions = scene.emissions
    plot_emissions(emissions, figure=figure)
    states = [f"state {state}: {count:,} frames" for state, count in enumerate(emissions.frames.tolist())]
    farthest = np.nanmax(np.abs(emissions.decoded - emissions.observed), initial=0.0)
    return (
        f"Channels by state of seed {_seed(scene)}: the decoder at the minimum beside the mean of the frames labelled "
        f"so, with standard deviations; {', '.join(states)}. The means differ by at most "
        f"{farthest:.2g}."
    )


def _seed(scene: ModelScene) -> int:
    return scene.saved.model.seeds[scene.seed_index]


def _named(rows: Sequence[int]) -> str:
    return f"sequence{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows))}"


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")


def _latent_size(scene: ModelScene) -> tuple[float, float]:
    return (6.4, 4.8) if scene.saved.model.config.latent_dim == 1 else (6.8, 5.8)


PICTURES: dict[str, ModelPicture] = {
    picture.name: picture
    for picture in (
        ModelPicture("curves", "Training curves", _curves,
                     lambda scene: (10.2, 2.5 * -(-len(scene.curves.values) // 3) + 0.4), needs_data=False),
        ModelPicture("segmentation", "Segmented sequences", _segmentation,
                     lambda scene: (8.5, 2.7 * len(scene.rows) + 0.5)),
        ModelPicture("latents", "Latent trajectories", _latents, _latent_size),
        ModelPicture("emissions", "Emission means by state", _emissions,
                     lambda scene: (8.0, 2.0 * min(scene.states.n_states, 6) + 0.6)),
    )
}  # fmt: skip


def draw_pictures(
    scene: ModelScene, name: str | None, form: str, dpi: float = 150.0
) -> tuple[dict[str, tuple[str, bytes]], dict[str, str]]:
    """The picture of this name, or all where it is None: name -> text and file, as png, svg or pdf.

    Of all pictures, those that cannot be drawn are left out: name -> why. UsageError for a name that does not exist, a
    sequence that is not there, and a picture that was asked for and cannot be drawn.
    """
    if name is not None and name not in PICTURES:
        raise UsageError(f"there is no picture {name!r}: take one of {', '.join(PICTURES)}, or all")
    if scene.sequences is not None:
        _ = scene.rows  # refuses a sequence that is not there, before the search for states
    drawn, left_out = {}, {}
    for picture in PICTURES.values() if name is None else [PICTURES[name]]:
        reason = picture.why_not(scene)
        if reason and name is None:
            left_out[picture.name] = reason
            continue
        if not reason:
            scene.progress(f"picture: {picture.name}")
        figure, text = picture.figure(scene)
        drawn[picture.name] = text, render(figure, form, picture.title, text, dpi)
    return drawn, left_out
