"""`SequenceData`: the sequences a model is trained on, of unequal length and with missing values, ready to batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from landscape.errors import LandscapeError

Missing = Literal["refuse", "mask"]


class DataError(LandscapeError):
    """A data file, a data set or a parameter of one breaks a rule."""

    exit_code = 2


@dataclass(frozen=True, eq=False)
class SequenceData:
    """n sequences of up to T frames with c channels each.

    values : (n, T, c) float64; 0 where nothing was observed, so that no NaN reaches a network.
    mask : (n, T, c) bool; True where a value was observed. False in missing values and beyond a sequence's end.
    lengths : (n,) int64; frames of each sequence, its missing ones included.
    labels : (n, T) int64 true states, -1 where unknown or beyond the end; None without labels.
    mean, scale : (c,); values * scale + mean are in the units of the file. 0 and 1 until `standardise`.

    Make it with `from_padded` or `from_sequences`, which check.
    """

    values: np.ndarray
    mask: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray | None
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def from_padded(
        cls,
        values: np.ndarray,
        lengths: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        missing: Missing = "refuse",
    ) -> SequenceData:
        """From one array (n, T, c); NaN marks a missing value.

        lengths : (n,); by default a sequence ends with its last frame that holds any value, so that NaN frames at
        the end are padding. labels : (n, T), negative where unknown. missing : "refuse" raises DataError on a NaN
        before the end, "mask" keeps it as not observed. Infinite values are refused always.
        """
        values = _numbers(values)
        if values.ndim != 3 or 0 in values.shape:
            raise DataError(
                f"data must be (sequences, time, channels) and not empty, got shape {values.shape}; "
                "one sequence is x[None], one channel is x[:, :, None]"
            )
        if missing not in ("refuse", "mask"):
            raise DataError(f"missing must be 'refuse' or 'mask', got {missing!r}")
        n, t, c = values.shape
        mask = ~np.isnan(values)
        ends = t - np.argmax(mask.any(2)[:, ::-1], axis=1)
        lengths = np.where(mask.any((1, 2)), ends, 0) if lengths is None else _lengths(lengths, n, t)
        inside = np.arange(t) < lengths[:, None]
        mask &= inside[:, :, None]
        _check_values(values, mask, inside, missing)
        return cls(
            values=np.where(mask, values, 0.0),
            mask=mask,
            lengths=lengths,
            labels=None if labels is None else _labels(labels, inside),
            mean=np.zeros(c),
            scale=np.ones(c),
        )

    @classmethod
    def from_sequences(
        cls,
        sequences: Sequence[np.ndarray],
        labels: Sequence[np.ndarray] | None = None,
        missing: Missing = "refuse",
    ) -> SequenceData:
        """From a list of arrays (T_i, c) of any lengths, with labels (T_i,) each; NaN as in `from_padded`."""
        arrays = [_numbers(sequence) for sequence in sequences]
        for i, array in enumerate(arrays):
            if array.ndim != 2 or array.shape[1] != arrays[0].shape[-1]:
                raise DataError(
                    "every sequence must be (time, channels) with the same channels; "
                    f"sequence 0 has shape {arrays[0].shape}, sequence {i} {array.shape}"
                )
        if not arrays:
            raise DataError("there is no sequence")
        lengths = np.array([len(array) for array in arrays])
        values = np.full((len(arrays), max(lengths.max(), 1), arrays[0].shape[1]), np.nan)
        padded = None if labels is None else np.full(values.shape[:2], -1)
        for i, array in enumerate(arrays):
            values[i, : len(array)] = array
            if padded is not None and labels is not None:
                if len(labels) != len(arrays) or len(labels[i]) != len(array):
                    raise DataError(f"labels must be one a frame; those of sequence {i} do not fit its {len(array)}")
                padded[i, : len(array)] = labels[i]
        return cls.from_padded(values, lengths, padded, missing)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def n_channels(self) -> int:
        return self.values.shape[2]

    @property
    def frames(self) -> np.ndarray:
        """(n, T) bool: True before the end of each sequence."""
        return np.arange(self.values.shape[1]) < self.lengths[:, None]

    @property
    def n_missing(self) -> int:
        """Values not observed before the end of their sequence."""
        return int(self.lengths.sum()) * self.n_channels - int(self.mask.sum())

    def original_values(self) -> np.ndarray:
        """(n, T, c) in the units of the file, NaN where nothing was observed."""
        return np.where(self.mask, self.values * self.scale + self.mean, np.nan)

    def select(self, rows: np.ndarray) -> SequenceData:
        """Some of the sequences, in the order of `rows`, padded to the longest of them."""
        if not len(self.lengths[rows]):
            raise DataError("a selection needs at least one sequence")
        longest = int(self.lengths[rows].max())
        return replace(
            self,
            values=self.values[rows, :longest],
            mask=self.mask[rows, :longest],
            lengths=self.lengths[rows],
            labels=None if self.labels is None else self.labels[rows, :longest],
        )

    def standardise(self, reference: SequenceData | None = None) -> SequenceData:
        """Every channel with mean 0 and standard deviation 1 over the values observed.

        With `reference` (standardised training data), its mean and scale are used instead, so that test data
        are seen as the model saw its training data.
        """
        if reference is not None:
            if reference.n_channels != self.n_channels:
                raise DataError(f"the reference has {reference.n_channels} channels, the data have {self.n_channels}")
            mean, scale = reference.mean, reference.scale
        else:
            mean, scale = self._moments()
        values = (self.values * self.scale + self.mean - mean) / scale
        return replace(self, values=np.where(self.mask, values, 0.0), mean=mean, scale=scale)

    def split(self, fraction: float, seed: int) -> tuple[SequenceData, SequenceData]:
        """Two sets of whole sequences, drawn at random: about `fraction` of them, and the rest."""
        n = len(self)
        first = round(fraction * n) if np.isfinite(fraction) else 0
        if not 0 < first < n:
            raise DataError(f"a split must leave sequences on both sides, got fraction {fraction} of {n} sequences")
        order = np.random.default_rng(seed).permutation(n)
        return self.select(np.sort(order[:first])), self.select(np.sort(order[first:]))

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (c,) of every channel, in the units of the file."""
        counts = self.mask.sum((0, 1))
        if not counts.all():
            raise DataError(f"channel {np.argmin(counts)} has no value at all; leave it out")
        centre = self.values.sum((0, 1)) / counts
        # A second pass around the mean: a channel with a large offset keeps its digits.
        deviations = np.where(self.mask, self.values - centre, 0.0)
        centre += deviations.sum((0, 1)) / counts
        spread = np.sqrt((deviations**2).sum((0, 1)) / counts)
        constant = spread <= 1e-12 * np.abs(centre)
        if constant.any():
            raise DataError(f"channel {np.argmax(constant)} is constant and says nothing; leave it out")
        return centre * self.scale + self.mean, spread * self.scale


def _numbers(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise DataError(f"data must be real numbers, got an array of {array.dtype}")
    return array.astype(np.float64)


def _lengths(lengths: np.ndarray, n: int, t: int) -> np.ndarray:
    lengths = np.asarray(lengths)
    if lengths.shape != (n,) or lengths.dtype.kind not in "iu" or lengths.max() > t:
        raise DataError(f"lengths must be {n} integers up to {t}, got shape {lengths.shape} of {lengths.dtype}")
    return lengths.astype(np.int64)


def _labels(labels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != inside.shape or labels.dtype.kind not in "iu":
        raise DataError(f"labels must be integers of shape {inside.shape}, got {labels.dtype} of {labels.shape}")
    return np.where(inside, np.maximum(labels.astype(np.int64), -1), -1)


def _check_values(values: np.ndarray, mask: np.ndarray, inside: np.ndarray, missing: Missing) -> None:
    def first(bad: np.ndarray) -> str:
        sequence, frame, channel = np.argwhere(bad)[0]
        return f"the first in sequence {sequence}, frame {frame}, channel {channel}"

    infinite = mask & np.isinf(values)
    if infinite.any():
        raise DataError(f"values must be finite; {infinite.sum()} are infinite, {first(infinite)}")
    empty = ~mask.any((1, 2))
    if empty.any():
        raise DataError(f"every sequence needs a value; {empty.sum()} have none, the first is {np.argmax(empty)}")
    absent = inside[:, :, None] & ~mask
    if missing == "refuse" and absent.any():
        raise DataError(
            f"{absent.sum()} values are missing, {first(absent)}; fill them in, or mask them (missing='mask')"
        )
