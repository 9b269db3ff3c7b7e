"""The network of states and saddles, with everything that follows from its log rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import UsageError
from landscape.network import algebra, spectrum
from landscape.network.elimination import Array

if TYPE_CHECKING:
    import networkx as nx

_COLUMNS = {"id", "energy", "x", "log_weight", "stationary", "log_stationary", "component"}


@dataclass(frozen=True, eq=False)
class TransitionNetwork:
    """n states joined by m saddles; a continuous-time Markov chain on the states.

    energies (n,): energy of each minimum. coordinates (n, d). log_weights (n,): log of the 2nd-order weights, up to a
    constant; they decide how the stationary distribution is split between parts that no saddle joins.
    joins (m, 2) int: the states on the two sides of each saddle, -1 where a side is unknown.
    saddle_energies (m,). log_rates (m, 2): log of the rates k_ij and k_ji through that saddle alone, for (i, j) = joins
    (1/time); NaN is allowed only for a saddle that is left out. weights: further columns of one number per state, such
    as zeroth, second, sampled, sampled_se; NaN where not known.

    The number of a state or saddle is its row. A saddle that joins a state to itself, or has an unknown side, is listed
    and left out of the rate matrix (`counted`); rates of parallel saddles add. Arrays are copied and read-only.
    """

    energies: Array
    coordinates: Array
    log_weights: Array
    joins: Array
    saddle_energies: Array
    log_rates: Array
    weights: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(np.atleast_1d(self.energies))
        m = len(np.atleast_1d(self.saddle_energies))
        if n == 0:
            raise UsageError("a network needs at least one state, got none: find minima first")
        coordinates = np.asarray(self.coordinates)
        if coordinates.ndim != 2:
            raise UsageError(f"coordinates must be (n, d), got shape {coordinates.shape}: one row per state")
        self._set("energies", self.energies, (n,))
        self._set("coordinates", coordinates, (n, coordinates.shape[1]))
        self._set("log_weights", self.log_weights, (n,))
        self._set("saddle_energies", self.saddle_energies, (m,))
        rates = np.asarray(self.log_rates, dtype=np.float64)
        self._set("log_rates", rates.reshape(0, 2) if m == 0 and rates.size == 0 else rates, (m, 2), finite=False)
        joins = np.asarray(self.joins)
        joins = joins.astype(np.int64).reshape(0, 2) if m == 0 and joins.size == 0 else joins
        if joins.shape != (m, 2) or not np.issubdtype(joins.dtype, np.integer):
            raise UsageError(
                f"joins must be ({m}, 2) integers, got {joins.dtype} of shape {joins.shape}: one pair per saddle"
            )
        if np.any((joins < -1) | (joins >= n)):
            raise UsageError(
                f"joins must name states 0 to {n - 1}, or -1 for unknown; got {joins.min()} to {joins.max()}"
            )
        object.__setattr__(self, "joins", _frozen(joins.astype(np.int64)))
        bad = self.counted & ~np.all(self.log_rates < np.inf, axis=1)
        if bad.any():
            saddle = int(np.flatnonzero(bad)[0])
            got = self.log_rates[saddle].tolist()
            raise UsageError(f"log rates must be numbers or -inf, got {got} at saddle {saddle}: leave it out")
        columns = {}
        for name, column in self.weights.items():
            values = np.array(column, dtype=np.float64)
            if not name.isidentifier() or name in _COLUMNS or name.startswith("x_") or values.shape != (n,):
                got = f"{name!r} of shape {values.shape}"
                raise UsageError(
                    f"weights must map new, plain names to ({n},) numbers, got {got}: rename or reshape it"
                )
            columns[name] = _frozen(values)
        object.__setattr__(self, "weights", MappingProxyType(columns))

    def _set(self, name: str, value: Array, shape: tuple[int, ...], finite: bool = True) -> None:
        array = np.array(value, dtype=np.float64)
        if array.shape != shape:
            raise UsageError(f"{name} must have shape {shape}, got {array.shape}: one row per state or saddle")
        if finite and not np.all(np.isfinite(array)):
            raise UsageError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}: leave such points out")
        object.__setattr__(self, name, _frozen(array))

    def __getstate__(self) -> dict[str, Any]:
        """Plain fields only: a mapping proxy cannot be pickled, and derived arrays can be found again."""
        names = ("energies", "coordinates", "log_weights", "joins", "saddle_energies", "log_rates")
        return {**{name: getattr(self, name) for name in names}, "weights": dict(self.weights)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)
        self.__post_init__()

    @property
    def n_states(self) -> int:
        return len(self.energies)

    @property
    def n_saddles(self) -> int:
        return len(self.saddle_energies)

    @cached_property
    def counted(self) -> Array:
        """(m,) bool: saddles that enter the rate matrix, both sides known and different."""
        return _frozen(np.all(self.joins >= 0, axis=1) & (self.joins[:, 0] != self.joins[:, 1]))

    @cached_property
    def barriers(self) -> Array:
        """(m, 2): E(saddle) - E(i) and E(saddle) - E(j); NaN for an unknown side."""
        sides = self.energies[np.maximum(self.joins, 0)]
        return _frozen(np.where(self.joins >= 0, self.saddle_energies[:, None] - sides, np.nan))

    @cached_property
    def log_rate_matrix(self) -> Array:
        """(n, n): log of the rate from i to j, summed over parallel saddles; -inf for no edge and on the diagonal."""
        matrix = np.full((self.n_states, self.n_states), -np.inf)
        (i, j), (forward, back) = self.joins[self.counted].T, self.log_rates[self.counted].T
        np.logaddexp.at(matrix, (i, j), forward)
        np.logaddexp.at(matrix, (j, i), back)
        return _frozen(matrix)

    @cached_property
    def rate_matrix(self) -> Array:
        """Q (n, n): Q[i, j] = k_ij, rows sum to 0; plain numbers, 0 or inf where float64 cannot hold them."""
        matrix = _exp(self.log_rate_matrix)
        np.fill_diagonal(matrix, -matrix.sum(axis=1))
        return _frozen(matrix)

    @cached_property
    def log_stationary(self) -> Array:
        """log of the stationary distribution (n,); `log_weights` splits it between separate parts."""
        return _frozen(algebra.log_stationary(self.log_rate_matrix, self.log_weights))

    @cached_property
    def stationary(self) -> Array:
        """Stationary distribution (n,), sums to 1."""
        return _frozen(_exp(self.log_stationary))

    @cached_property
    def log_mfpt(self) -> Array:
        """log of the mean first passage time from i to j (n, n): -inf on the diagonal, +inf where never reached."""
        return _frozen(algebra.log_mfpt(self.log_rate_matrix))

    @cached_property
    def mfpt(self) -> Array:
        """Mean first passage times (n, n); also inf where float64 cannot hold them."""
        return _frozen(_exp(self.log_mfpt))

    @cached_property
    def log_timescales(self) -> Array:
        """log of -1/eigenvalues of Q (n - 1,), slowest first, +inf once for each part beyond the first."""
        return _frozen(spectrum.log_timescales(self.log_rate_matrix))

    @cached_property
    def timescales(self) -> Array:
        """-1/eigenvalues of Q (n - 1,), slowest first; also inf where float64 cannot hold them."""
        return _frozen(_exp(self.log_timescales))

    @cached_property
    def components(self) -> Array:
        """(n,) int: which connected part each state belongs to, numbered by their first states."""
        return _frozen(algebra.components(self.log_rate_matrix))

    def log_committor(self, source: int | Sequence[int], target: int | Sequence[int]) -> Array:
        """log of the probability (n,) to reach `target` before `source` from each state."""
        return algebra.committor(self.log_rate_matrix, source, target)

    def to_networkx(self) -> nx.MultiDiGraph:
        """A networkx MultiDiGraph; nodes are the state numbers, each counted saddle gives one edge in each direction.

        Node attributes: energy, x (list), log_weight, stationary, log_stationary, component, and the columns of
        `weights`. Edge attributes: rate, log_rate, barrier, saddle (its number), saddle_energy; the edge key is
        2 saddle for joins[0] -> joins[1] and 2 saddle + 1 for the way back, so that keys are unique in the graph.
        A direction whose rate is zero (log rate -inf) has no edge. Saddles left out are listed in the graph attribute
        `saddles_left_out`. All numbers are plain Python numbers.
        """
        import networkx as nx  # 0.2 s that a network without a graph need not pay

        left_out = np.flatnonzero(~self.counted).tolist()
        graph = nx.MultiDiGraph(name="learned-landscape", saddles_left_out=left_out)
        columns = {
            "energy": self.energies,
            "x": self.coordinates,
            "log_weight": self.log_weights,
            **self.weights,
            "stationary": self.stationary,
            "log_stationary": self.log_stationary,
            "component": self.components,
        }
        for state in range(self.n_states):
            graph.add_node(state, **{name: column[state].tolist() for name, column in columns.items()})
        rates = _exp(self.log_rates)
        for saddle in np.flatnonzero(self.counted).tolist():
            for way in (0, 1):
                if self.log_rates[saddle, way] == -np.inf:
                    continue
                graph.add_edge(
                    int(self.joins[saddle, way]),
                    int(self.joins[saddle, 1 - way]),
                    key=2 * saddle + way,
                    rate=float(rates[saddle, way]),
                    log_rate=float(self.log_rates[saddle, way]),
                    barrier=float(self.barriers[saddle, way]),
                    saddle=saddle,
                    saddle_energy=float(self.saddle_energies[saddle]),
                )
        return graph


def _exp(values: Array) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.exp(values))


def _frozen(array: Array) -> Array:
    array.setflags(write=False)
    return array
