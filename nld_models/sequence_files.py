"""Sequences from and to files: .npy, .npz and CSV.

- .npy: one array (sequences, time, channels); shorter sequences end in NaN frames.
- .npz: that array as `sequences` (or the only array in the file), with `lengths` (n,) and `labels` (n, T) if there are
  any; or one array (time, channels) a sequence, as `numpy.savez(file, *sequences)` writes them.
- .csv: one frame a row. A header names the columns: `sequence` (any text; without it all is one sequence), `time`,
  `label` (integer true state) and, under any other name, the channels. Without a header all columns are channels.
  With `time` a sequence's rows must go forward in whole multiples of one step; frames left out are missing.
  Comma, semicolon or tab; empty, `nan` and `NA` are missing values.
"""

from __future__ import annotations

import contextlib
import csv
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nld_models.data import DataError, Missing, SequenceData

FORMATS = (".npy", ".npz", ".csv")
MISSING_WORDS = ("", "nan", "na")
# Times are printed decimals: a gap may be off a whole number of steps by this much of a step.
STEP_TOLERANCE = 1e-3
# Beyond this a time column is a mistake, not a sparse record, and filling it in could take all memory.
MOST_FRAMES_A_ROW = 1000


def load_sequences(path: str | Path, missing: Missing = "refuse") -> SequenceData:
    """The sequences in a .npy, .npz or .csv file (see the top of this module), not standardised.

    missing : "refuse" raises DataError on a missing value, "mask" keeps it as not observed.
    Raises DataError, naming the file, for a file that cannot be read or breaks a rule.
    """
    path = Path(path)
    readers = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv}
    try:
        if path.suffix.lower() not in readers:
            raise DataError(f"data must be one of {', '.join(FORMATS)}, got {path.suffix or 'no suffix'}")
        return readers[path.suffix.lower()](path, missing)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file in UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}: not a readable .csv file ({error})") from None


def save_sequences(path: str | Path, data: SequenceData, parameters: Mapping[str, Any] | None = None) -> None:
    """Write a .npz that `load_sequences` reads back, in the units of the source, with more named arrays if given.

    Written beside its place and renamed, so that an interrupted run leaves no half of a file.
    """
    path = Path(path)
    arrays: dict[str, Any] = {"sequences": data.original_values(), "lengths": data.lengths}
    if data.labels is not None:
        arrays["labels"] = data.labels
    if path.suffix.lower() != ".npz":
        raise DataError(f"sequences are written as .npz, got {path}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, **(arrays | dict(parameters or {})))
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _read_npy(path: Path, missing: Missing) -> SequenceData:
    array = _load_arrays(path)
    if isinstance(array, dict):
        raise DataError("this is a .npz file under another name; rename it")
    return SequenceData.from_padded(array, missing=missing)


def _read_npz(path: Path, missing: Missing) -> SequenceData:
    arrays = _load_arrays(path)
    if not isinstance(arrays, dict):
        raise DataError("this is a .npy file under another name; rename it")
    whole = "sequences" if "sequences" in arrays else next(iter(arrays), "")
    if whole == "sequences" or (len(arrays) == 1 and arrays[whole].ndim == 3):
        return SequenceData.from_padded(arrays[whole], arrays.get("lengths"), arrays.get("labels"), missing)
    if not arrays or any(array.ndim != 2 for array in arrays.values()):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
        raise DataError(
            "needs an array `sequences` (sequences, time, channels), or one array (time, channels) a sequence; "
            f"found {shapes}"
        )
    return SequenceData.from_sequences(list(arrays.values()), missing=missing)


def _load_arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """What numpy reads: one array, or an archive's arrays by name; never a pickle."""
    # Opened here, because numpy leaves a file open that turns out to be no archive.
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
        except Exception as error:
            # Damaged bytes reach the parsers of zip, zlib, headers and Python literals, each with errors of its own.
            reason = " ".join(str(error).split())
            raise DataError(f"not a readable {path.suffix} file of numbers ({reason})") from None


def _read_csv(path: Path, missing: Missing) -> SequenceData:
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        delimiter = max(",;\t", key=first.count)
        rows = [(line, row) for line, row in enumerate(csv.reader(file, delimiter=delimiter), 1) if any(row)]
    if not rows:
        raise DataError("the file is empty")
    header = [cell.strip() for cell in rows[0][1]]
    if all(_is_number(cell) for cell in header):
        header = [str(k) for k in range(len(header))]
    else:
        rows = rows[1:]
        if "" in header or len(set(header)) < len(header):
            raise DataError("every column needs a name of its own (or none has one); leave an index column out")
    roles = {name.lower(): k for k, name in enumerate(header) if name.lower() in ("sequence", "time", "label")}
    channels = [k for k in range(len(header)) if k not in roles.values()]
    if not rows or not channels:
        raise DataError("the file has no frames" if channels else "no column is left for a channel")
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(f"line {line} has {len(row)} cells, the first line has {len(header)}")
    # A sequence is a block of rows with the same name, wherever they stand; sequences keep the order of the file.
    numbers: dict[str, list[int]] = {}
    for k, (_, row) in enumerate(rows):
        numbers.setdefault(row[roles["sequence"]].strip() if "sequence" in roles else "", []).append(k)
    columns = channels + [roles[name] for name in ("time", "label") if name in roles]
    table = np.array([[_number(row[k], line, header[k]) for k in columns] for line, row in rows])
    blocks = [table[block] for block in numbers.values()]
    if "time" in roles:
        blocks = _on_grid(blocks, list(numbers), len(channels))
    labels = [_whole_labels(block[:, -1]) for block in blocks] if "label" in roles else None
    return SequenceData.from_sequences([block[:, : len(channels)] for block in blocks], labels, missing)


def _on_grid(blocks: list[np.ndarray], names: list[str], column: int) -> list[np.ndarray]:
    """Rows at equal steps of the time in `column`, the frames left out filled with NaN."""
    gaps = [np.diff(block[:, column]) for block in blocks]
    for name, gap, block in zip(names, gaps, blocks, strict=True):
        if not (np.isfinite(block[:, column]).all() and np.all(gap > 0)):
            raise DataError(f"time must be a number that grows from row to row; in sequence {name!r} it does not")
    step = min((gap.min() for gap in gaps if gap.size), default=1.0)
    filled = []
    for name, gap, block in zip(names, gaps, blocks, strict=True):
        steps = np.rint(gap / step)
        if np.any(np.abs(gap / step - steps) > STEP_TOLERANCE * steps):
            worst = gap[np.argmax(np.abs(gap / step - steps))]
            raise DataError(f"time must go in whole steps of {step:g}; sequence {name!r} has a gap of {worst:g}")
        places = np.concatenate([[0.0], np.cumsum(steps)])
        if places[-1] > MOST_FRAMES_A_ROW * len(block):
            raise DataError(
                f"sequence {name!r} has {len(block)} rows over {places[-1]:g} steps of {step:g}; check its time column"
            )
        places = places.astype(np.int64)
        frames = np.full((int(places[-1]) + 1, block.shape[1]), np.nan)
        frames[places] = block
        filled.append(frames)
    return filled


def _whole_labels(labels: np.ndarray) -> np.ndarray:
    known = np.where(np.isnan(labels), -1, labels)
    if np.any(known != np.rint(known)):
        raise DataError(f"labels must be whole numbers, got {known[known != np.rint(known)][0]:g}")
    return known.astype(np.int64)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in MISSING_WORDS
    return True


def _number(cell: str, line: int, column: str) -> float:
    cell = cell.strip()
    if cell.lower() in MISSING_WORDS:
        return np.nan
    try:
        return float(cell)
    except ValueError:
        raise DataError(f"line {line}, column {column}: {cell!r} is not a number") from None
