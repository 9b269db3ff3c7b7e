"""Random windows of training sequences, a batch of its own for every seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nld_models.data import DataError, SequenceData


@dataclass(frozen=True)
class Batch:
    """Windows of observations for S seeds.

    x, mask : (S, B, T, c), x is 0 where mask is False. frames : (S, B, T) bool, False beyond a sequence's end.
    equilibrated : (S, B, T) bool, the frames that the stationarity term and the initial KL may use.
    """

    x: torch.Tensor
    mask: torch.Tensor
    frames: torch.Tensor
    equilibrated: torch.Tensor


class Windows:
    """Draws windows of `length` frames, every possible one equally often; a shorter sequence is one whole window.

    equilibration : share of each sequence's start that `Batch.equilibrated` leaves out.
    """

    def __init__(self, data: SequenceData, length: int, equilibration: float, dtype: torch.dtype) -> None:
        self.length = min(length, int(data.lengths.max()))
        if self.length < 2:
            raise DataError("training needs a sequence of at least 2 frames: dynamics is what happens between frames")
        self.x = torch.as_tensor(data.values).to(dtype)
        self.mask = torch.as_tensor(data.mask)
        self.lengths = torch.as_tensor(data.lengths)
        self.first_equilibrated = torch.floor(equilibration * self.lengths).long()
        self.ends = np.maximum(data.lengths - self.length + 1, 1).cumsum()

    def draw(self, generators: Sequence[torch.Generator], batch: int) -> Batch:
        """`batch` windows for each generator, (S, batch, length, ...)."""
        parts = [self._draw(generator, batch) for generator in generators]
        return Batch(*(torch.stack(tensors) for tensors in zip(*parts, strict=True)))

    def _draw(
        self, generator: torch.Generator, batch: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        ends = torch.from_numpy(self.ends)
        window = torch.randint(int(ends[-1]), (batch,), generator=generator)
        row = torch.searchsorted(ends, window, right=True)
        start = window - torch.where(row > 0, ends[row - 1], 0)
        time = start[:, None] + torch.arange(self.length)
        inside = time < self.lengths[row, None]
        return (
            self.x[row[:, None], time],
            self.mask[row[:, None], time],
            inside,
            inside & (time >= self.first_equilibrated[row, None]),
        )


def pick_frames(batch: Batch, picks: torch.Tensor) -> torch.Tensor:
    """Flat positions (S, n) in (B, T) of equilibrated frames, uniform for uniform picks; any frame if there is none."""
    rows = []
    for k in range(len(picks)):
        allowed = torch.nonzero(batch.equilibrated[k].flatten())[:, 0]
        if not len(allowed):
            allowed = torch.nonzero(batch.frames[k].flatten())[:, 0]
        rows.append(allowed[(picks[k] * len(allowed)).long().clamp_max(len(allowed) - 1)])
    return torch.stack(rows)
