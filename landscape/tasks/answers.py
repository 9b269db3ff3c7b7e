"""What a task was asked and what it answered, as plain data."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

FORMAT = 9  # of the keys: one more when an operation changes what it computes


@dataclass(frozen=True, eq=False)
class Answer:
    """What one block came to.

    arrays : by name, rows first. evaluations : of the energy, by kind. seconds : that it took.
    """

    arrays: Mapping[str, np.ndarray]
    evaluations: Mapping[str, int]
    seconds: float


class Answers(Protocol):
    """A memory of answers: a store that outlives the process."""

    def get(self, key: bytes) -> Answer | None: ...

    def put(self, key: bytes, name: str, answer: Answer) -> None: ...


def key_of(name: str, energy: str, arguments: Mapping[str, Any]) -> bytes:
    """32 bytes that name a question: the operation, the energy and every argument, bit by bit."""
    digest = hashlib.blake2b(f"{FORMAT} {name} {energy}".encode(), digest_size=32)
    _feed(digest, arguments)
    return digest.digest()


def _feed(digest: hashlib.blake2b, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype.str} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        digest.update(f"{type(value).__qualname__} ".encode())
        for field in dataclasses.fields(value):
            digest.update(f"{field.name} ".encode())
            _feed(digest, getattr(value, field.name))
    elif isinstance(value, Mapping):
        for name in sorted(value):
            digest.update(f"{name} ".encode())
            _feed(digest, value[name])
    elif isinstance(value, tuple | list):
        digest.update(f"{len(value)} ".encode())
        for part in value:
            _feed(digest, part)
    elif value is None or isinstance(value, bool | int | float | str):
        digest.update(f"{type(value).__name__} {value!r} ".encode())
    else:
        raise TypeError(f"a task takes arrays, numbers, texts and dataclasses of these, not {type(value).__name__}")
