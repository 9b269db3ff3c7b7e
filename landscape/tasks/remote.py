"""What happens in the process that computes a block: the energy is loaded from its recipe, once, and asked."""

from __future__ import annotations

import copy
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from landscape.energy import Energy, load_energy
from landscape.energy.energy import Evaluations
from landscape.energy.recipe import Recipe
from landscape.errors import LandscapeError
from landscape.tasks.answers import Answer

_loaded = threading.local()  # an energy counts its evaluations: one for each thread


@dataclass(frozen=True)
class Order:
    """A block to be computed elsewhere.

    settings : attributes of the energy that its loading measured or chose, for the same last bit everywhere.
    sender : host and process; elsewhere torch is told to use one thread.
    """

    operation: Callable[..., Any]
    arguments: Mapping[str, Any]
    recipe: Recipe
    settings: Mapping[str, Any]
    sender: tuple[str, int]


def place() -> tuple[str, int]:
    """This host and process."""
    return socket.gethostname(), os.getpid()


def run_order(pickled: bytes) -> Answer:
    """Compute a pickled `Order`. Pickled by hand: multiprocessing's own way shares tensors through open files."""
    order: Order = pickle.loads(pickled)
    if order.sender != place():
        torch.set_num_threads(1)
    energy = _energy(order.recipe)
    for name, value in order.settings.items():
        setattr(energy, name, value)
    energy.evaluations = Evaluations()
    return compute(order.operation, energy, order.arguments)


def compute(operation: Callable[..., Any], energy: Energy, arguments: Mapping[str, Any]) -> Answer:
    """The answer of one block, with what it cost."""
    before, started = energy.evaluations.as_dict(), time.perf_counter()
    state = operation(energy, **arguments)
    spent = {name: count - before[name] for name, count in energy.evaluations.as_dict().items()}
    return Answer({name: part.cpu().numpy() for name, part in state.items()}, spent, time.perf_counter() - started)


def _energy(recipe: Recipe) -> Energy:
    if getattr(_loaded, "recipe", None) != recipe:
        energy = load_energy(
            recipe.spec, dim=recipe.dim, trust=recipe.trust, dtype=recipe.dtype, device=recipe.device
        )  # fmt: skip
        if energy.sha256 != recipe.sha256:
            raise LandscapeError(f"{recipe.spec} is another energy at the worker than here: copy the same file there")
        # A copy: a thread of this process may share the object that a module holds.
        _loaded.energy, _loaded.recipe = copy.copy(energy), recipe
    return _loaded.energy
