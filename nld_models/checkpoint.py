"""Model files: one safetensors file with the parameters of all seeds, and JSON in its header under the key `nld`.

A file appears whole or not at all (written beside its place, flushed to disk, renamed), so a killed run leaves the
last good one. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from nld_models.data import DataError, SequenceData
from nld_models.errors import CheckpointError, ConfigError
from nld_models.model import LatentModel
from nld_models.model_config import ModelConfig

KEY = "nld"
FORMAT = 1
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class SavedModel:
    """A model from a file: all seeds, the scaling of its data, and the JSON document that came with it.

    mean, scale : (c,), the channels' standardisation; the model sees (x - mean) / scale.
    """

    model: LatentModel
    mean: np.ndarray
    scale: np.ndarray
    document: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        return bool(self.document["finished"])

    def standardised(self, data: SequenceData) -> SequenceData:
        """`data`, in the units of a file, as the model saw its training data. DataError if the channels do not fit."""
        if data.n_channels != self.model.n_channels:
            raise DataError(
                f"the model was trained on {self.model.n_channels} channels, the data have {data.n_channels}"
            )
        if data.n_missing and not self.model.mask_input:
            raise DataError("the model was trained on data without missing values, so it cannot read data with some")
        values = (data.values * data.scale + data.mean - self.mean) / self.scale
        return SequenceData(
            np.where(data.mask, values, 0.0), data.mask, data.lengths, data.labels, self.mean, self.scale
        )


def write_file(path: Path, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and a JSON document, atomically. CheckpointError if that fails."""
    if not path.parent.is_dir():
        raise CheckpointError(f"{path} cannot be written: there is no folder {path.parent}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    flat = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with open(temporary, "xb") as file:
            file.write(save(flat, metadata={KEY: json.dumps({"format": FORMAT, **document}, allow_nan=False)}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def read_file(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The inverse of `write_file`. CheckpointError, naming the file, if it is no model file."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable model file: {' '.join(str(error).split())}") from None
    if text is None:
        raise CheckpointError(f"{path} is a safetensors file, but not a model of nld train")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} is a damaged model file: {error}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is a damaged model file: its header is no table")
    if document.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {document.get('format')!r}, not {FORMAT}; update learned-landscape")
    return tensors, document


def model_tensors(model: LatentModel) -> dict[str, torch.Tensor]:
    return {f"model.{name}": parameter for name, parameter in model.named_parameters()}


def model_document(model: LatentModel) -> dict[str, Any]:
    """What rebuilds `model`, as plain data."""
    return {
        "kind": model.config.prior,
        "model": model.config.as_dict(),
        "n_channels": model.n_channels,
        "mask_input": model.mask_input,
        "seeds": list(model.seeds),
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def load_model(path: str | Path) -> SavedModel:
    """The model in a file written by training, finished or not. CheckpointError if it cannot be read."""
    tensors, document = read_file(Path(path))
    return restore(tensors, document, str(path))


def restore(tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any], where: str) -> SavedModel:
    try:
        if not (0 <= document["iteration"] <= document["training"]["iterations"]) or document["finished"] is None:
            raise ValueError(f"step {document['iteration']} of {document['training']['iterations']}")
        model = LatentModel(
            ModelConfig(**document["model"]),
            document["n_channels"],
            document["mask_input"],
            document["seeds"],
            DTYPES[document["dtype"]],
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                stored = tensors[f"model.{name}"]
                if stored.shape != parameter.shape:
                    raise ValueError(f"{name} has shape {tuple(stored.shape)}, not {tuple(parameter.shape)}")
                parameter.copy_(stored)
        return SavedModel(model, tensors["data.mean"].numpy(), tensors["data.scale"].numpy(), document)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{where} is a damaged model file: {error}") from None
