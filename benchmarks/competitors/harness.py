"""What every competitor shares: an energy that counts, a clock, and one JSON document as the answer."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from problems import Problem, problem

MERGE = 1e-3  # points closer than this part of the box are one, where a competitor does not say which are


@dataclass
class Counted:
    """The energy of a problem for numpy arrays, one point (d,) or many (n, d), with the points asked so far.

    limit_s : CPU seconds after which a search is to end, between two of its steps, with what it has found until then.
    """

    problem: Problem
    limit_s: float = math.inf
    values: int = 0
    gradients: int = 0
    begin: float = 0.0
    stopped: bool = False

    def start(self) -> None:
        """Counts and clock from zero."""
        self.values = self.gradients = 0
        self.begin = time.process_time()

    @property
    def cost(self) -> int:
        return self.values + self.gradients

    def out_of_time(self) -> bool:
        """Whether the search has to end now; remembered in `stopped`."""
        self.stopped = time.process_time() - self.begin > self.limit_s
        return self.stopped

    def value(self, x: np.ndarray) -> Any:
        points = torch.from_numpy(np.array(x, float, ndmin=2))
        self.values += len(points)
        with torch.no_grad():
            value = self.problem.function(points).numpy()
        return float(value[0]) if np.ndim(x) == 1 else value

    def value_and_gradient(self, x: np.ndarray) -> tuple[Any, np.ndarray]:
        points = torch.from_numpy(np.array(x, float, ndmin=2)).requires_grad_(True)
        self.gradients += len(points)
        value = self.problem.function(points)
        (gradient,) = torch.autograd.grad(value.sum(), points)
        if np.ndim(x) == 1:
            return float(value.detach()[0]), gradient.numpy()[0]
        return value.detach().numpy(), gradient.numpy()


@dataclass
class Found:
    """Points that a search calls minima and saddles, as it leaves them. note : what the numbers need to be read right.

    costs : gradient-equivalents spent when each saddle was found. gradient_equivalents : all of them, where the search
    does not go through `Counted`. started : of walks from given points, how many were made; each of those that
    converged is one of `saddles`.
    """

    minima: list[np.ndarray] = field(default_factory=list)
    saddles: list[np.ndarray] = field(default_factory=list)
    note: str = ""
    costs: list[int] = field(default_factory=list)
    gradient_equivalents: int | None = None
    started: int | None = None


Request = dict[str, Any]
Search = Callable[[Counted, Request], Found]


def walks(counted: Counted, request: Request, walk: Callable[[np.ndarray, np.ndarray], np.ndarray | None]) -> Found:
    """Single-ended searches for saddles from the given starts (n, d), one after the other, until time is up.

    walk : from a start (d,), and the minimum (d,) that it was displaced from, to a saddle (d,), None where it fails.
    """
    minima, ends, started = np.array(request["origins"]), [], 0
    for start in np.array(request["points"]):
        if counted.out_of_time():
            break
        end = walk(start, minima[started % len(minima)])
        started += 1
        if end is not None:
            ends.append(end)
    return Found([], ends, "", started=started)


def distinct(points: list[np.ndarray] | np.ndarray, counted: Counted) -> list[np.ndarray]:
    """The points that are no copies of earlier ones."""
    radius = MERGE * (counted.problem.high[0] - counted.problem.low[0])
    kept = np.zeros((0, counted.problem.dim))
    for point in points:
        if not len(kept) or np.linalg.norm(kept - point, axis=1).min() > radius:
            kept = np.vstack([kept, point])
    return list(kept)


def peak_megabytes() -> float:
    """The largest resident memory of this process; getrusage would tell that of the one that started it, if larger."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def serve(searches: dict[str, Search]) -> None:
    """Answer the request in the first argument: what the search found, what it cost, how long it took."""
    request: Request = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    np.random.seed(request["seed"])
    counted = Counted(problem(request["energy"]), request.get("limit_s", math.inf))
    for n in (1, 50):  # the first calls set torch up
        counted.value_and_gradient(counted.problem.starts(n, 0))
    search, before = searches[request["task"]], peak_megabytes()
    with _stdout_to_stderr():
        wall, cpu = time.perf_counter(), time.process_time()
        counted.start()
        found = search(counted, request)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    cost = counted.cost if found.gradient_equivalents is None else found.gradient_equivalents
    note = f"{found.note}, stopped after {counted.limit_s:.0f} s" if counted.stopped else found.note
    print(json.dumps({
        "minima": np.reshape(found.minima, (-1, counted.problem.dim)).tolist(),
        "saddles": np.reshape(found.saddles, (-1, counted.problem.dim)).tolist(), "costs": found.costs, "note": note,
        "wall_s": wall, "cpu_s": cpu, "gradient_equivalents": cost, "peak_mb": peak_megabytes(),
        "search_mb": peak_megabytes() - before, "started": found.started,
    }))  # fmt: skip


@contextmanager
def _stdout_to_stderr() -> Any:
    """Competitors print, some of them from C."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
