"""Emission means by state: what the decoder shows at each minimum, beside what was observed in frames labelled so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from landscape.errors import UsageError
from landscape.plots.style import INK, SMALL, TITLE, label_axes, new_axes, state_color
from nld_models.checkpoint import SavedModel
from nld_models.data import SequenceData
from nld_models.landscape_adapter import LearnedStates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

Array = np.ndarray
OFFSET = 0.17  # of decoder and observation from the channel's tick
MOST_STATES = 6
MOST_TICKS = 20
DECODED = "#4d4d4d"


@dataclass(frozen=True, eq=False)
class Emissions:
    """Channels by state, in the units of the data; (n, c) each.

    decoded, noise : mean and standard deviation of the decoder at the minimum of each state. observed, spread : mean
    and standard deviation of the observations in the frames labelled so; nan where a channel was seen in none.
    frames (n,) : how many are labelled so.
    """

    decoded: Array
    noise: Array
    observed: Array
    spread: Array
    frames: Array


@dataclass(frozen=True, eq=False)
class EmissionArtists:
    """What `plot_emission` drew of one state: error bars of the decoder and of the observations, None without frames;
    the x of a channel is its number, less or more `OFFSET`."""

    ax: Axes
    decoded: ErrorbarContainer
    observed: ErrorbarContainer | None


def emissions_of(
    saved: SavedModel, states: LearnedStates, data: SequenceData, labels: Array, seed_index: int
) -> Emissions:
    """labels (n, T) : state of every frame of the data, which are in the units of their file."""
    minima = torch.from_numpy(states.analysis.states.x).to(saved.model.dtype)
    stacked = minima.expand(len(saved.model.seeds), *minima.shape)
    with torch.no_grad():
        mean, log_noise = saved.model.decoder.decode(stacked), saved.model.decoder.noise(stacked)
    decoded = mean[seed_index].double().numpy() * saved.scale + saved.mean
    noise = np.broadcast_to(log_noise[seed_index].detach().double().exp().numpy() * saved.scale, decoded.shape)
    observed, spread = np.full(decoded.shape, np.nan), np.full(decoded.shape, np.nan)
    values = data.original_values()
    for state in range(states.n_states):
        frames = values[labels == state]  # (m, c)
        for channel in np.flatnonzero(np.isfinite(frames).any(0)):
            seen = frames[np.isfinite(frames[:, channel]), channel]
            observed[state, channel], spread[state, channel] = seen.mean(), seen.std()
    counts = np.bincount(labels[labels >= 0], minlength=states.n_states)
    return Emissions(decoded, noise, observed, spread, counts)


def plot_emission(emissions: Emissions, state: int, *, ax: Axes | None = None) -> EmissionArtists:
    """One state: each channel's mean in the decoder (diamond) and in the observations (disc), with one standard
    deviation each. UsageError for a state that is not there."""
    n, c = emissions.decoded.shape
    if not 0 <= state < n:
        raise UsageError(f"states are 0 to {n - 1} here, not {state}")
    ax = new_axes(ax, (8.0, 2.4))
    channel = np.arange(c)
    style: dict[str, Any] = {"linestyle": "", "markersize": 5, "markeredgewidth": 0.6, "elinewidth": 1.1, "capsize": 2}
    decoded = ax.errorbar(
        channel - OFFSET, emissions.decoded[state], emissions.noise[state], marker="D", color=DECODED,
        markerfacecolor="white", markeredgecolor=DECODED, label="decoder at the minimum ± its noise", **style,
    )  # fmt: skip
    observed = None
    if emissions.frames[state]:
        observed = ax.errorbar(
            channel + OFFSET, emissions.observed[state], emissions.spread[state], marker="o", color=state_color(state),
            markeredgecolor=INK, label="mean of the frames labelled so ± standard deviation", **style,
        )  # fmt: skip
    ax.set_xlim(-0.6, c - 0.4)
    ax.set_xticks(channel[:: max(1, -(-c // MOST_TICKS))])
    ax.grid(axis="y", linewidth=0.4, alpha=0.6)
    ax.set_axisbelow(True)
    count = int(emissions.frames[state])
    frames = "no frame is labelled so" if not count else f"{count:,} frame{'s' if count > 1 else ''}"
    label_axes(ax, "channel", "value", f"state {state}: {frames}")
    return EmissionArtists(ax, decoded, observed)


def plot_emissions(emissions: Emissions, *, figure: Figure | None = None) -> dict[int, EmissionArtists]:
    """A panel for each state, by state; of more than six those with most frames. figure : a new one by default."""
    from matplotlib.figure import Figure

    n = len(emissions.frames)
    chosen = np.sort(np.argsort(-emissions.frames, kind="stable")[:MOST_STATES]).tolist()
    if figure is None:
        figure = Figure(figsize=(8.0, 2.0 * len(chosen) + 0.6), layout="constrained")
    axes = figure.subplots(len(chosen), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    drawn = {state: plot_emission(emissions, state, ax=ax) for state, ax in zip(chosen, axes, strict=True)}
    for ax in axes[:-1]:
        ax.set_xlabel("")
        ax.tick_params(axis="x", labelbottom=False)
    if len(chosen) < n:
        figure.suptitle(f"the {len(chosen)} states of most frames, of {n}", fontsize=TITLE)
    _legend(figure, list(drawn.values()))
    return drawn


def _legend(figure: Figure, drawn: list[EmissionArtists]) -> None:
    fullest = next((panel for panel in drawn if panel.observed is not None), drawn[0])
    handles = [fullest.decoded] + ([] if fullest.observed is None else [fullest.observed])
    figure.legend(handles=handles, loc="outside lower center", ncol=2, fontsize=SMALL, frameon=False)
