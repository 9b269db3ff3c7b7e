"""The one loop behind every batched search: rows run until they report a status, then leave the batch.

A method is a pair of an initial state and a `step` from state to state. A state is a dict of tensors whose first axis
(or another that the method names) is the row, with at least `status` (a code of `Status`, RUNNING while the row is at
work). Stopping, dropping finished rows, keeping each row's answer and counting its iterations are written here and
nowhere else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from enum import IntEnum
from typing import TypeVar

import torch

from landscape.energy import Energy

State = dict[str, torch.Tensor]
Step = Callable[[State], State]
Result = TypeVar("Result")
# A method that yields points (n, d) and is sent E (n,) and the gradient (n, d) there.
Stages = Generator[torch.Tensor, tuple[torch.Tensor, torch.Tensor], Result]


def working_copy(energy: Energy, x: torch.Tensor, single: bool) -> tuple[Energy, torch.Tensor]:
    """The energy and the points (n, d) that a method works with: both in float32 if `single`."""
    return (energy.single(), x.float()) if single else (energy, x.to(energy.dtype))


def as_given(state: State, like: torch.Tensor) -> State:
    """The real numbers of a result in the precision of the points that were given."""
    return {name: part.to(like.dtype) if part.is_floating_point() else part for name, part in state.items()}


class Status(IntEnum):
    """How one row of a search ended; `text` names the remedy."""

    RUNNING = -1
    CONVERGED = 0
    DEGENERATE = 1
    DIVERGED = 2
    UNFINISHED = 3
    NOT_FINITE = 4
    CAPTURED = 5

    @property
    def text(self) -> str:
        return _TEXT[self]


_TEXT = {
    Status.RUNNING: "still running",
    Status.CONVERGED: "converged to a stationary point",
    Status.DEGENERATE: "converged, but a Hessian eigenvalue is (nearly) zero: no harmonic weight or rate exists here",
    Status.DIVERGED: "left the region of interest: the energy falls or flattens outwards; "
    "give a box, or confine the energy",
    Status.UNFINISHED: "the iteration limit came first: allow more iterations",
    Status.NOT_FINITE: "the energy is not finite here: start elsewhere (a smaller box)",
    Status.CAPTURED: "reached the neighbourhood of a known minimum",
}


def iterate(
    step: Step,
    state: State,
    outputs: Sequence[str],
    max_iterations: int,
    observe: Callable[[torch.Tensor, State], None] | None = None,
    *,
    axes: Mapping[str, int] | None = None,
    inference: bool = False,
    leave: int = 0,
) -> State:
    """Run `step` until every row has a status or the limit is reached.

    Parameters
    ----------
    step : one iteration on all rows still at work; it may finish rows by setting their `status`.
    state : the initial state; rows that already carry a status are returned as they are.
    outputs : names of the entries to return (`status` and `iterations` always come with them).
    max_iterations, leave : rows that are RUNNING after so many steps, or when no more than so many are, are UNFINISHED.
    observe : called after each step with the original row numbers at work and the state (for recorded paths).
    axes : of entries whose rows are not the first axis, the number of the axis.
    inference : run in torch's inference mode, in which a tensor operation costs a sixth less. The step then evaluates
        energies by `evaluate`, and whatever else differentiates them by `ordinary`.

    Returns
    -------
    dict with the requested entries, `status` and `iterations`, rows in their original order.
    """
    axis = defaultdict(int, axes or {})
    if not inference:
        return _loop(step, state, outputs, max_iterations, observe, axis, leave)
    with torch.inference_mode():
        ended = _loop(step, state, outputs, max_iterations, observe, axis, leave)
    return {name: part.clone() for name, part in ended.items()}  # ordinary tensors again


def ordinary(function: Callable[..., Result], *x: torch.Tensor) -> Result:
    """function(*x) from within inference mode: of copies made outside of it, which are ordinary tensors."""
    with torch.inference_mode(False):
        return function(*(part.clone() for part in x))


def evaluate(energy: Energy, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """E (n,) and its gradient (n, d) at points x (n, d), for a step that may run in inference mode."""
    return ordinary(energy.value_and_gradient, x)


def in_one_batch(energy: Energy, *methods: Stages[Result]) -> list[Result]:
    """What methods return that run side by side: points that several of them ask for at a time are evaluated together,
    since few cost nearly as much time as many."""
    asked: dict[int, torch.Tensor] = {}
    returned: dict[int, Result] = {}

    def advance(k: int, answer: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        try:
            asked[k] = next(methods[k]) if answer is None else methods[k].send(answer)
        except StopIteration as end:
            asked.pop(k, None)
            returned[k] = end.value

    for k in range(len(methods)):
        advance(k, None)
    while asked:
        working = list(asked)
        points = [asked[k] for k in working]
        value, gradient = evaluate(energy, torch.cat(points) if len(points) > 1 else points[0])
        sizes = [len(part) for part in points]
        for k, answer in zip(working, zip(value.split(sizes), gradient.split(sizes), strict=True), strict=True):
            advance(k, answer)
    return [returned[k] for k in range(len(methods))]


def _loop(
    step: Step,
    state: State,
    outputs: Sequence[str],
    max_iterations: int,
    observe: Callable[[torch.Tensor, State], None] | None,
    axis: Mapping[str, int],
    leave: int,
) -> State:
    names = {*outputs, "status"}
    final = {name: state[name].clone() for name in names}
    n = len(state["status"])
    running = int(Status.RUNNING)
    iterations = torch.zeros(n, dtype=torch.long, device=state["status"].device)
    rows = torch.nonzero(state["status"] == running)[:, 0]
    if len(rows) < n:
        state = {name: _select(value, axis[name], rows) for name, value in state.items()}
    done = 0
    for count in range(1, max_iterations + 1):
        if len(rows) <= leave:
            break
        state, done = step(state), count
        if observe is not None:
            observe(rows, state)
        # Positions, not masks: a mask would be searched again for every entry.
        at_work = (state["status"] == running).nonzero().flatten()
        if len(at_work) < len(rows):
            for name in names:  # of all rows: those at work are written again later
                final[name].index_copy_(axis[name], rows, state[name])
            iterations.index_fill_(0, rows, count)
            state = {name: _select(value, axis[name], at_work) for name, value in state.items()}
            rows = rows.index_select(0, at_work)
    for name in names:
        final[name].index_copy_(axis[name], rows, state[name])
    final["status"][rows] = Status.UNFINISHED
    iterations[rows] = done
    return final | {"iterations": iterations}


def _select(value: torch.Tensor, axis: int, rows: torch.Tensor) -> torch.Tensor:
    if axis == 0 or axis < value.ndim - 1:
        return value.index_select(axis, rows)
    return value.gather(axis, rows.expand(*value.shape[:-1], -1))  # twice as fast along a last axis
