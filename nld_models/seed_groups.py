"""The gradient of a stacked model, its seeds shared out among threads.

Seeds have nothing in common, so a part of the stack has the numbers, bit by bit, that its seeds have in the whole.
Products of the sizes of training gain little from two threads inside each of them; a thread for half of the seeds does.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from nld_models.model import LatentModel

SMALLEST = 2  # seeds of a part: products of a stack of one are computed, and rounded, in another way
Terms = dict[str, torch.Tensor]


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class SeedGroups:
    """Parts of a model, each of some of its seeds, on the same memory: what changes the model changes the parts."""

    def __init__(self, model: LatentModel, threads: int) -> None:
        n = len(model.seeds)
        groups = max(1, min(threads, n // SMALLEST))
        bounds = [n * g // groups for g in range(groups + 1)]
        self.model = model
        self.rows = [slice(*pair) for pair in itertools.pairwise(bounds)]
        self.parts = [model] if groups == 1 else [self._part(rows) for rows in self.rows]

    def _part(self, rows: slice) -> LatentModel:
        whole = self.model
        part = LatentModel(whole.config, whole.n_channels, whole.mask_input, whole.seeds[rows], whole.dtype)
        part.stepping = whole.stepping
        for name, parameter in part.named_parameters():
            shared = whole.get_parameter(name)
            parameter.data = shared.data[rows]
            parameter.requires_grad_(shared.requires_grad)
        return part

    def differentiate(self, terms: Callable[[LatentModel, slice], Terms]) -> Terms:
        """Set the gradient of every parameter to that of the sum of `loss`; return the terms of all seeds, (S,) each.

        terms : from a part and its seeds' positions to the terms of the loss, (seeds,) each, `loss` among them.
        """

        def work(part: LatentModel, rows: slice) -> Terms:
            part.zero_grad()
            found = terms(part, rows)
            found["loss"].sum().backward()
            return {name: values.detach() for name, values in found.items()}

        if len(self.parts) == 1:
            return work(self.model, self.rows[0])
        with ThreadPoolExecutor(len(self.parts)) as pool:
            found = list(pool.map(work, self.parts, self.rows))
        for name, parameter in self.model.named_parameters():
            gradients = [part.get_parameter(name).grad for part in self.parts]
            present = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = torch.cat(present) if present else None
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}
