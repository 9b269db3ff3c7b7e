"""Tasks: blocks, processes that are killed, a dask cluster, and the same answer whoever computes it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from test_store import same_landscape

import landscape
from landscape.energy import Energy, load_energy
from landscape.errors import LandscapeError, UsageError
from landscape.search import MinimaSearch, SaddleSearch
from landscape.search.lbfgs import relax
from landscape.store import Analysis, Store
from landscape.tasks import TaskEnergy, Workers, is_slow, task, workers
from landscape.tasks.task import BLOCK_ROWS, State
from landscape.tasks.workers import ATTEMPTS

ROOT = Path(__file__).resolve().parent.parent
SPEC = "potential:triple-well"
SMALL = landscape.AnalysisConfig(
    minima=MinimaSearch(n_starts=32),
    saddles=SaddleSearch(rows=16, rows_per_point=2, sweep=16),
    weights=None,
    exact=None,
)


# -- blocks ------------------------------------------------------------------------------------------------------------


def test_rows_come_back_in_order_whatever_the_blocks() -> None:
    """Row-wise arguments are cut with the rows, others go to every block; an observer keeps the call in one piece."""
    seen: list[int] = []

    @task(rows={"x": 2, "scale": 1, "box": 2}, doubles=lambda x: 2.0**25 / 3, calls=lambda x: 1)
    def operation(
        energy: Energy,
        x: torch.Tensor,
        scale: float | torch.Tensor,
        box: tuple[torch.Tensor, torch.Tensor],
        observe: Callable[[int], None] | None = None,
    ) -> State:
        seen.append(len(x))
        return {"sum": (x * torch.as_tensor(scale).reshape(-1, 1) + box[0] - box[1]).sum(1), "row": x[:, 0].clone()}

    energy = load_energy("potential:triple-well")
    x = torch.arange(20.0, dtype=torch.float64).reshape(10, 2)
    low, high = torch.zeros(2, dtype=torch.float64), torch.ones(10, 2, dtype=torch.float64)
    found = operation(energy, x, x[:, 0], (low, high))
    assert seen == [3, 3, 3, 1]
    assert torch.equal(found["sum"], (x * x[:, :1] - high).sum(1)) and torch.equal(found["row"], x[:, 0])
    seen.clear()
    assert torch.equal(operation(energy, x, 2.0, (low, low))["sum"], 2 * x.sum(1)) and seen == [3, 3, 3, 1]
    seen.clear()
    operation(energy, x, 2.0, (low, low), print)
    operation(energy, x[:0], 2.0, (low, low))
    assert seen == [10, 0]


def test_a_slow_energy_is_one_whose_rows_cost_not_one_whose_call_does() -> None:
    def energy(each_call: float, each_row: float) -> Energy:
        def function(x: torch.Tensor) -> torch.Tensor:
            time.sleep(each_call + each_row * len(x))
            return (x * x).sum(1)

        return Energy(function, 2)

    assert not is_slow(energy(0.05, 0)) and is_slow(energy(0, 0.02))
    plain = energy(0, 0)
    assert not is_slow(plain) and plain.evaluations.gradient == 0


def test_counters_and_rows_do_not_depend_on_who_remembers(tmp_path: Path) -> None:
    """Blocks of a large batch: computed whole, cut, remembered: the same rows, the same counts."""
    x = torch.linspace(-2, 2, 4 * BLOCK_ROWS, dtype=torch.float64).reshape(-1, 2)

    def descend(energy: Energy) -> tuple[State, dict[str, int]]:
        before = energy.evaluations.as_dict()
        state = relax(energy, x, 1.0)
        return state, {name: n - before[name] for name, n in energy.evaluations.as_dict().items()}

    expected, counts = descend(load_energy(SPEC))
    with Store.open(tmp_path) as store:
        store.begin({"any": "thing"})
        for _ in range(2):
            energy = TaskEnergy(load_energy(SPEC), answers=store)
            found, again = descend(energy)
            assert again == counts and all(torch.equal(found[name], expected[name]) for name in expected)
        assert store.searches()[-1].blocks == 2


# -- the same answer everywhere --------------------------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every energy counts as slow: small blocks, and its evaluations are tasks as well."""
    monkeypatch.setattr("landscape.analysis.is_slow", lambda energy: True)


@pytest.fixture(scope="module")
def reference() -> Analysis:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("landscape.analysis.is_slow", lambda energy: True)
        found = landscape.analyze(load_energy(SPEC), config=SMALL)
    assert len(found.states.x) == 3 and len(found.saddles.x) == 3
    return found


class Assassin:
    """Kills one process of `victims()` with SIGKILL each time that `progress` is called, at most `most` times."""

    def __init__(self, victims: Callable[[], list[int]], most: int) -> None:
        self.victims, self.left, self.killed = victims, most, 0

    def progress(self, text: str) -> None:
        if self.left and self.victims():
            self.left -= 1
            threading.Timer(0.05, self._kill).start()  # while blocks are at work

    def _kill(self) -> None:
        for pid in self.victims()[:1]:
            os.kill(pid, signal.SIGKILL)
            self.killed += 1


def test_workers_give_the_serial_answer_though_one_is_killed(slow: None, reference: Analysis) -> None:
    with Workers(2) as executor:
        assassin = Assassin(executor.processes, most=1)
        found = landscape.analyze(load_energy(SPEC), config=SMALL, executor=executor, progress=assassin.progress)
    same_landscape(found, reference)
    assert assassin.killed == 1
    assert found.energy["evaluations"] == reference.energy["evaluations"]


def test_any_executor_is_accepted(slow: None, reference: Analysis) -> None:
    with ThreadPoolExecutor(2) as executor:
        found = landscape.analyze(load_energy(SPEC), config=SMALL, executor=executor)
    same_landscape(found, reference)
    assert found.energy["evaluations"] == reference.energy["evaluations"]


def test_energies_travel_as_their_specification() -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(UsageError, match="load_energy"):
        landscape.analyze(lambda x: (x * x).sum(1), dim=1, executor=executor)


def test_a_task_that_kills_its_process_every_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of a task are its own; tasks beside the deadly one are done or told, never lost; the next find workers."""
    monkeypatch.setattr(workers, "ATTEMPTS", 2)
    with Workers(1) as executor:
        with pytest.raises(ValueError, match="invalid literal"):
            executor.submit(int, "x").result(timeout=600)
        poison, good = executor.submit(os._exit, 1), executor.submit(abs, -1)
        with pytest.raises(LandscapeError, match="died 2 times at one task"):
            poison.result(timeout=600)
        assert good.exception(timeout=600) is not None or good.result() == 1
        assert executor.submit(abs, -2).result(timeout=600) == 2
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(abs, -1)
    with pytest.raises(UsageError, match="at least 1"):
        Workers(0)
    assert ATTEMPTS == 4


@pytest.fixture
def dask() -> Iterator[object]:
    distributed = pytest.importorskip("distributed")
    state = random.getstate()  # dask draws from the global generator
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
    )
    try:
        yield cluster
    finally:
        cluster.close()
        random.setstate(state)


@pytest.mark.filterwarnings("ignore")  # dask's own
def test_a_dask_cluster_gives_the_serial_answer_though_a_worker_is_killed(
    slow: None, reference: Analysis, dask: object
) -> None:
    def victims() -> list[int]:
        return [nanny.pid for nanny in dask.workers.values() if nanny.pid]  # type: ignore[attr-defined]

    assassin = Assassin(victims, most=1)
    with workers.cluster(dask.scheduler_address) as executor:  # type: ignore[attr-defined]
        assert isinstance(executor, Executor)
        found = landscape.analyze(load_energy(SPEC), config=SMALL, executor=executor, progress=assassin.progress)
    same_landscape(found, reference)
    assert assassin.killed == 1


@pytest.mark.filterwarnings("ignore")
def test_no_scheduler_no_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    state = random.getstate()
    with pytest.raises(UsageError, match="no dask scheduler answers"), workers.cluster("nonsense://nowhere"):
        pass
    random.setstate(state)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match="dask"), workers.cluster("tcp://127.0.0.1:1"):
        pass


# -- memory ----------------------------------------------------------------------------------------------------------


MANY = """
import resource, sys, torch
from landscape import AnalysisConfig, analyze
from landscape.energy import Energy
from landscape.search import MinimaSearch, SaddleSearch
torch.set_num_threads(1)
def wells(x):
    return ((x[:, :1] ** 2 - 1) ** 2).sum(1) + (x[:, 1:] ** 2).sum(1)
minima, saddles = MinimaSearch(n_starts=100_000), SaddleSearch(max_index=1)
found = analyze(Energy(wells, 10), config=AnalysisConfig(minima=minima, saddles=saddles, weights=None, exact=None))
used = resource.getrusage(resource.RUSAGE_SELF)
print(sum(found.diagnostics["starts"].values()), len(found.states.x), used.ru_maxrss)
"""


@pytest.mark.slow
def test_a_hundred_thousand_starts_fit_into_2_gb() -> None:
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, cwd=ROOT, timeout=1200)
    assert done.returncode == 0, done.stderr
    starts, states, kilobytes = map(int, done.stdout.split())
    assert (starts, states) == (100_000, 2)
    assert kilobytes < 2 * 1024**2
