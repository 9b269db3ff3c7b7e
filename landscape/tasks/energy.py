"""`TaskEnergy`: an energy whose batched work is cut into blocks, remembered, and handed to other processes."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, as_completed
from typing import Any

import torch

from landscape.energy import Energy
from landscape.energy.energy import Array, Evaluations
from landscape.energy.recipe import Recipe
from landscape.errors import LandscapeError, UsageError
from landscape.tasks.answers import Answer, Answers, key_of
from landscape.tasks.remote import Order, compute, place, run_order
from landscape.tasks.task import State, matrix_doubles, task

SLOW_SECONDS = 2e-3  # a gradient of one more row in the batch that takes longer makes an energy slow
FEW, MORE = 4, 12  # rows by which that is measured
WORTH_KEEPING = 5e-3  # an answer that took fewer seconds is computed anew faster than it is found
LOST = "the workers are gone"
REMEDY = "with an output folder, finished blocks are kept, and --resume goes on from there"
SETTINGS = ("gradient_chunk", "hessian_chunk", "exact_second_derivative", "value_needs_grad", "dense_dim")


def uncounted(energy: Energy) -> Energy:
    """The energy with counters of its own, for evaluations that are no part of a search."""
    copied = Energy.__new__(Energy)
    vars(copied).update(vars(energy) | {"evaluations": Evaluations()})
    return copied


def is_slow(energy: Energy) -> bool:
    """Whether each further row of a batch costs more than 2 ms: then blocks are small, and workers pay.

    An energy with one slow call for any number of rows is not slow in this sense: one large batch is best for it.
    """

    def seconds(rows: int) -> float:
        started = time.perf_counter()
        plain.value_and_gradient(torch.zeros(rows, energy.dim, dtype=energy.dtype, device=energy.device))
        return time.perf_counter() - started

    plain = uncounted(energy)
    for _ in range(3):  # a busy machine can slow any one of them
        if seconds(MORE) < (MORE - FEW) * SLOW_SECONDS or seconds(MORE) - seconds(FEW) < (MORE - FEW) * SLOW_SECONDS:
            return False
    return True


class TaskEnergy(Energy):
    """The energy `plain`, and what is done with the blocks of tasks that are given it.

    answers : a memory of answers; None: nothing is remembered. executor : where blocks are computed; None: here. It is
    asked where there is more than one. slow : see `is_slow`; evaluations of a slow energy are tasks as well, so that
    everything that asks it in batches is remembered and shared out.

    Counters, metadata and everything else are those of `plain`. Blocks that are computed elsewhere or remembered count
    as if they had been evaluated here. UsageError for an executor with an energy that no other process can load.
    """

    def __init__(
        self,
        plain: Energy,
        *,
        answers: Answers | None = None,
        executor: Executor | None = None,
        slow: bool = False,
    ) -> None:
        vars(self).update(vars(plain))
        self.plain, self.answers, self.executor, self.slow = plain, answers, executor, slow
        if executor is not None and plain.recipe is None:
            raise UsageError(
                f"workers load the energy themselves, and {plain.source} exists in this process only: give "
                "load_energy('FILE'), load_energy('file.py:name') or load_energy('package.module:name')"
            )
        self._fingerprint = _fingerprint(plain) if answers is not None else ""

    # -- tasks ------------------------------------------------------------------------------------------------------

    def run_blocks(self, operation: Callable[..., State], blocks: list[Mapping[str, Any]]) -> list[State]:
        """The answers of the blocks, in their order: remembered, or computed and then remembered."""
        name = f"{operation.__module__}.{operation.__qualname__}"
        keys = [b"" if self.answers is None else key_of(name, self._fingerprint, block) for block in blocks]
        found: dict[int, State] = {}
        missing = []
        for at, key in enumerate(keys):
            answer = None if self.answers is None else self.answers.get(key)
            if answer is None:
                missing.append(at)
            else:
                found[at] = self._told(answer)
        if self.executor is not None and self.recipe is not None and len(missing) > 1:
            todo = {at: blocks[at] for at in missing}
            for at, answer in self._elsewhere(self.executor, self.recipe, operation, todo):
                self._keep(keys[at], name, answer)
                found[at] = self._told(answer)
        else:
            for at in missing:
                found[at] = self._here(operation, blocks[at], keys[at], name)
        return [found[at] for at in range(len(blocks))]

    def _here(self, operation: Callable[..., State], block: Mapping[str, Any], key: bytes, name: str) -> State:
        if self.answers is None:
            return operation(self.plain, **block)
        answer = compute(operation, self.plain, block)
        self._keep(key, name, answer)
        return self._tensors(answer)

    def _elsewhere(
        self,
        executor: Executor,
        recipe: Recipe,
        operation: Callable[..., State],
        blocks: Mapping[int, Mapping[str, Any]],
    ) -> Iterator[tuple[int, Answer]]:
        """Numbers of blocks and their answers, as they come in."""
        settings = {name: getattr(self.plain, name) for name in SETTINGS}
        futures: dict[Future[Answer], int] = {}
        try:
            for at, block in blocks.items():
                order = Order(operation, block, recipe, settings, place())
                futures[executor.submit(run_order, pickle.dumps(order))] = at
            for future in as_completed(futures):
                yield futures[future], future.result()
        except LandscapeError:
            raise
        except (BrokenExecutor, CancelledError) as error:
            raise LandscapeError(f"{LOST} ({error or type(error).__name__}): {REMEDY}") from error
        except Exception as error:
            if type(error).__module__.split(".")[0] != "distributed":
                raise
            raise LandscapeError(f"{LOST} ({' '.join(str(error).split())[:200]}): {REMEDY}") from error
        finally:
            for future in futures:
                future.cancel()

    def _keep(self, key: bytes, name: str, answer: Answer) -> None:
        if self.answers is not None and answer.seconds >= WORTH_KEEPING:
            self.answers.put(key, name, answer)

    def _told(self, answer: Answer) -> State:
        for name, count in answer.evaluations.items():
            setattr(self.evaluations, name, getattr(self.evaluations, name) + count)
        return self._tensors(answer)

    def _tensors(self, answer: Answer) -> State:
        return {name: torch.tensor(array, device=self.device) for name, array in answer.arrays.items()}

    # -- evaluations of a slow energy -------------------------------------------------------------------------------

    def value(self, x: Array) -> Array:
        if not self.slow:
            return super().value(x)
        return self._like(x, values(self, self._points(x))["value"])

    def value_and_gradient(self, x: Array) -> tuple[Array, Array]:
        if not self.slow:
            return super().value_and_gradient(x)
        found = gradients(self, self._points(x))
        return self._like(x, found["value"]), self._like(x, found["gradient"])

    def hvp(self, x: Array, v: Array) -> Array:
        if not self.slow:
            return super().hvp(x, v)
        return self._like(x, products(self, self._points(x), self._points(v))["product"])

    def hessian(self, x: Array) -> Array:
        if not self.slow:
            return super().hessian(x)
        return self._like(x, hessians(self, self._points(x))["hessian"])


@task(rows={"x": 2}, doubles=lambda x: 32.0 * x.shape[1], calls=lambda x: 1)
def values(energy: Energy, x: torch.Tensor) -> State:
    return {"value": energy.value(x)}


@task(rows={"x": 2}, doubles=lambda x: 32.0 * x.shape[1], calls=lambda x: 1)
def gradients(energy: Energy, x: torch.Tensor) -> State:
    value, gradient = energy.value_and_gradient(x)
    return {"value": value, "gradient": gradient}


@task(rows={"x": 2, "v": 2}, doubles=lambda x: 32.0 * x.shape[1], calls=lambda x: 2)
def products(energy: Energy, x: torch.Tensor, v: torch.Tensor) -> State:
    return {"product": energy.hvp(x, v)}


@task(rows={"x": 2}, doubles=matrix_doubles, calls=lambda x: 2 * x.shape[1])
def hessians(energy: Energy, x: torch.Tensor) -> State:
    return {"hessian": energy.hessian(x)}


def _fingerprint(energy: Energy) -> str:
    """What makes two energies one: the hash of the file, and values at fixed points, bit by bit."""
    points = torch.linspace(-1, 1, 4 * energy.dim, dtype=torch.float64).reshape(4, energy.dim)
    digest = hashlib.sha256(uncounted(energy).value(points).cpu().numpy().tobytes()).hexdigest()
    settings = [str(getattr(energy, name)) for name in SETTINGS]
    return " ".join([str(energy.sha256), digest, str(energy.dim), str(energy.dtype), str(energy.device), *settings])
