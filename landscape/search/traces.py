"""Gradient flows that remember where they went."""

from __future__ import annotations

import numpy as np
import torch

from landscape.energy import Energy
from landscape.search.basins import Basins
from landscape.search.driver import State
from landscape.search.flow import FlowOptions, gradient_flow
from landscape.tasks import task

TRACE = 64  # points kept of a flow


@task(rows={"x": 2}, doubles=lambda x: 256.0 * x.shape[1], calls=lambda x: 3)
def traced_flow(energy: Energy, x: torch.Tensor, basins: Basins, options: FlowOptions) -> State:
    """`gradient_flow` from each row of x (n, d), and `trace` (n, TRACE, d): points on its way at equal arclength."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = [(torch.arange(len(x), device=x.device), x)]

    def record(rows: torch.Tensor, state: State) -> None:
        through, way = state["through"], state["interior"]
        seen.append((rows[through].repeat_interleave(way.shape[1]), way[through].flatten(0, 1)))
        seen.append((rows.clone(), state["x"].clone()))

    ended = gradient_flow(energy, x, basins, options, record)
    traces = [thinned(points) for points in by_row(seen, len(x))]
    return ended | {"trace": torch.as_tensor(np.stack(traces)).to(x)}


def by_row(seen: list[tuple[torch.Tensor, torch.Tensor]], n: int) -> list[np.ndarray]:
    """The positions that each of n rows passed through, from (row numbers, positions) of every step."""
    rows = torch.cat([r for r, _ in seen]).cpu().numpy()
    x = torch.cat([p for _, p in seen]).cpu().numpy()
    order = np.argsort(rows, kind="stable")
    return np.split(x[order], np.cumsum(np.bincount(rows, minlength=n))[:-1])


def thinned(points: np.ndarray) -> np.ndarray:
    """TRACE points of a polyline (m, d), at equal arclength, both ends kept."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    keep = np.concatenate([[True], np.diff(length) > 0])
    wanted = np.linspace(0, length[-1], TRACE)
    return np.stack([np.interp(wanted, length[keep], column) for column in points[keep].T], 1)
