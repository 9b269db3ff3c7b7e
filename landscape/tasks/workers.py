"""Processes that compute tasks: local ones that survive the loss of one, and a dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from landscape.errors import LandscapeError, UsageError

ATTEMPTS = 4  # times that a task may be at work when a process dies, before it is thought to be the cause


@dataclass(eq=False)
class _Call:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outer: Future[Any]
    inner: Future[Any] | None = None
    attempts: int = 0

    def forget(self, outer: Future[Any]) -> None:
        """Where the caller has cancelled a task that is still waiting, it is not begun."""
        if outer.cancelled() and self.inner is not None:
            self.inner.cancel()


class Workers(Executor):
    """`n` local processes, started afresh (spawn); where one dies, new ones take over and lost tasks are done again.

    A `concurrent.futures.Executor`, to be used as a context manager. concurrent.futures' own pool gives up when one of
    its processes is killed; this one replaces it. A task during which processes died four times fails with a
    LandscapeError. Tasks have to be idempotent. Each process uses one thread and writes to standard error only.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise UsageError(f"workers are a whole number of at least 1, not {n!r}")
        self.n = n
        self._lock = threading.RLock()
        self._closed = False
        self._pool = self._new_pool()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        call = _Call(function, args, kwargs, Future())
        self._hand_out(call)
        call.outer.add_done_callback(call.forget)
        return call.outer

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """After an error or an interrupt nobody waits for tasks at work: their processes are ended."""
        if kind is not None:
            with self._lock:
                self._closed = True
                for process in _processes_of(self._pool):
                    process.terminate()
        self.shutdown(wait=True, cancel_futures=kind is not None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._closed = True
            pool = self._pool
        pool.shutdown(wait, cancel_futures=cancel_futures)

    def processes(self) -> list[int]:
        """Process ids of the workers that are running now."""
        return [process.pid for process in _processes_of(self._pool) if process.pid is not None]

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.n, multiprocessing.get_context("spawn"), _begin)

    def _hand_out(self, call: _Call) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new tasks after the workers were shut down")
            pool = self._pool
            try:
                inner = pool.submit(call.function, *call.args, **call.kwargs)
            except BrokenProcessPool:  # noticed before the tasks at work were told
                pool = self._replace(pool)
                inner = pool.submit(call.function, *call.args, **call.kwargs)
        call.inner = inner
        inner.add_done_callback(lambda done: self._finish(call, pool, done))

    def _replace(self, broken: ProcessPoolExecutor) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is broken:
                self._pool = self._new_pool()
                broken.shutdown(wait=False)
            return self._pool

    def _finish(self, call: _Call, pool: ProcessPoolExecutor, done: Future[Any]) -> None:
        """Pass on how a task ended, or start it again where its process was lost."""
        if done.cancelled():
            call.outer.cancel()
            return
        error = done.exception()
        if self._closed or not isinstance(error, BrokenProcessPool):
            _settle(call.outer, error, None if error is not None else done.result())
            return
        call.attempts += 1
        if call.attempts >= ATTEMPTS:
            lost = LandscapeError(
                f"worker processes died {ATTEMPTS} times at one task (killed, or out of memory): use fewer --workers; "
                "with an output folder, finished blocks are kept, and --resume goes on from there"
            )
            _settle(call.outer, lost, None)
            return
        try:
            self._replace(pool)
            self._hand_out(call)
        except RuntimeError as closed:
            _settle(call.outer, closed, None)


def _settle(future: Future[Any], error: BaseException | None, result: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _processes_of(pool: ProcessPoolExecutor) -> list[Any]:
    return list((getattr(pool, "_processes", None) or {}).values())


def _begin() -> None:
    """In a new worker: interrupts are the parent's affair, and so is standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import torch

    torch.set_num_threads(1)


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """The dask.distributed cluster at `address` as an executor. Dask itself gives the tasks of a lost worker to others.

    UsageError without the extra `dask`, or where no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError('--scheduler needs dask: pip install "learned-landscape[dask]"') from error
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(
            f"no dask scheduler answers at {address} ({str(error) or 'time-out'}): check --scheduler"
        ) from error
    with client:
        yield client.get_executor(pure=False)
