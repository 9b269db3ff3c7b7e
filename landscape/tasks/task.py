"""The decorator that makes a batched operation a task, and how its rows are cut into blocks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, TypeVar, cast

import torch

from landscape.energy import Energy

State = dict[str, torch.Tensor]
Function = TypeVar("Function", bound=Callable[..., State])
Measure = Callable[[torch.Tensor], float]

# The size of a block depends on the energy and the operation alone, never on the number of workers: a block's rows come
# out bit by bit the same, whoever computes them.
BLOCK_DOUBLES = 2**25  # of working memory (256 MB)
BLOCK_ROWS = 8192
SLOW_CALLS = 16  # evaluations of a slow energy that make a block worth a trip to another process
WIDE = 64  # from this dimension on second derivatives are not kept whole for every row


def matrix_doubles(x: torch.Tensor) -> float:
    """Working memory a row of an operation that keeps a matrix for each point x (n, d)."""
    return 8.0 * x.shape[1] * min(x.shape[1], WIDE)


@dataclass(frozen=True)
class Shape:
    """How an operation (energy, ...) -> dict of tensors, all with rows first, treats its rows.

    rows : arguments that have one row a point, with the number of their axes: `{"x": 2, "radius": 1}`. The first of
    them always has rows; another is cut with it where it is a tensor of so many axes, else every block gets it whole.
    doubles, calls : of one row, given the first argument: numbers kept in memory, evaluations of the energy a step.
    """

    rows: Mapping[str, int]
    doubles: Measure
    calls: Measure

    def block_rows(self, first: torch.Tensor, slow: bool) -> int:
        rows = min(BLOCK_ROWS, BLOCK_DOUBLES / self.doubles(first))
        return max(1, int(min(rows, SLOW_CALLS / self.calls(first)) if slow else rows))

    def cut(self, arguments: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        """The arguments of rows start to stop. Rows are copied: a view's alignment could change the last bit."""

        def part(value: Any, axes: int | None) -> Any:
            if isinstance(value, tuple):
                return tuple(part(entry, axes) for entry in value)
            if isinstance(value, torch.Tensor) and value.ndim == axes:
                return value[start:stop].clone()
            return value

        return {name: part(value, self.rows.get(name)) for name, value in arguments.items()}


def task(rows: Mapping[str, int], doubles: Measure, calls: Measure) -> Callable[[Function], Function]:
    """Make a batched operation a task (see `Shape` for the arguments).

    It is called as before. Many rows are worked off in blocks, which bounds the memory. Where the energy is a
    `TaskEnergy`, that decides: blocks it remembers are not computed, others may go to other processes. The operation
    has to be a function of its arguments alone, without randomness, in which every row is on its own. A call that is
    given a function (an observer) is no task: it runs here, in one piece.
    """
    shape = Shape(rows, doubles, calls)

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        energy_name, first_name = next(iter(signature.parameters)), next(iter(rows))

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> State:
            arguments = signature.bind(*args, **kwargs).arguments
            energy: Energy = arguments.pop(energy_name)
            first = arguments[first_name]
            if any(callable(value) and not is_dataclass(value) for value in arguments.values()):
                return function(energy, **arguments)
            handle = getattr(energy, "run_blocks", None)
            n, size = len(first), shape.block_rows(first, bool(getattr(energy, "slow", False)))
            if n == 0 or (handle is None and n <= size):
                return function(getattr(energy, "plain", energy), **arguments)
            ends = range(0, n, size)
            blocks = [arguments] if n <= size else [shape.cut(arguments, at, min(at + size, n)) for at in ends]
            if handle is None:
                return joined([function(energy, **block) for block in blocks])
            return joined(handle(run, blocks))

        return cast(Function, run)

    return decorate


def joined(parts: list[State]) -> State:
    """The answers of all blocks, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
