"""Minimum energy paths over the saddles of a search, from the descents that it has recorded."""

from __future__ import annotations

import numpy as np
import torch

from landscape.search.driver import Status
from landscape.search.explore import UNKNOWN, Explorer
from landscape.search.string import Paths, StringOptions, join_halves, make_paths, resample


def minimum_energy_paths(
    explorer: Explorer, saddles: np.ndarray, ends: list[tuple[int, ...]], options: StringOptions
) -> tuple[Paths, np.ndarray]:
    """The path of each saddle (catalogue numbers) with two known ends, and which saddles these are.

    Starts from the recorded descents and relaxes both halves as strings with fixed ends. Paths run from the smaller
    state number to the larger.
    """
    halves: list[list[torch.Tensor]] = [[], []]
    has_path, x_saddle = [], []
    n_left = options.n_images // 2 + 1
    for k, (number, (a, b)) in enumerate(zip(saddles, ends, strict=True)):
        if UNKNOWN in (a, b):
            continue
        sides = (0, 1) if a <= b else (1, 0)
        down, up = (explorer.descents[int(number), side] for side in sides)
        if explorer.periodic is not None:  # the path begins at the state itself, not at a copy
            shift = explorer.periodic.canonical(down[-1:]) - down[-1:]
            down, up = down + shift, up + shift
        first, second = explorer._tensor(down), explorer._tensor(up)
        halves[0].append(resample(first.flip(0)[None], n_left))
        halves[1].append(resample(second[None], options.n_images - n_left + 1))
        has_path.append(k)
        x_saddle.append(int(number))
    if not has_path:
        d = explorer.energy.dim
        empty = Paths(
            np.zeros((0, options.n_images, d)), np.zeros((0, options.n_images)), np.zeros((0, options.n_images)),
            np.zeros(0), np.zeros(0, int), np.zeros((0, d)), np.zeros(0), np.zeros(0, int),
        )  # fmt: skip
        return empty, np.zeros(0, int)
    joined = join_halves(explorer.energy, torch.cat(halves[0]), torch.cat(halves[1]), options)
    found = explorer.catalogue.points()
    converged = np.full(len(x_saddle), int(Status.CONVERGED))
    tops = found.x[x_saddle]
    if explorer.periodic is not None:
        tops = joined["images"][:, n_left - 1].cpu().numpy()
    return make_paths(joined, tops, found.energy[x_saddle], converged), np.array(has_path, int)
