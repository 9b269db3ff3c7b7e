"""What `run_checks` returns, and its plain form in the JSON document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from landscape.checks.verdicts import intervals

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Checks:
    """Formula, reference and verdict for m directed transitions between neighbouring states, and for t timescales.

    pairs (m, 2) : from i to j. log_formula (m,) : sum over parallel saddles. log_reference (m,), log_interval (m, 2) :
    the independent rate, log(1/time), nan where there is none; the interval may begin at -inf. method : "grid",
    "operator" (Klein-Kramers), "simulation", "bracket" or "". verdict, reason, effort : texts; see `verdicts`.
    correction : the corrections that change the formula by more than 15 %; log_corrected (m,) : the rate with all that
    are known; log_string (m,) : by the reduction to one dimension along the path; see `landscape.rates.corrections`.
    time_step : whose effect was asked for, or None; time_step_factor (m,), time_step_interval (m, 2) :
    k(time_step) / k(continuous time), nan where not seen. time_step_reason : why the factor is not exact enough, or "".

    timescale_log_formula, timescale_log_reference (t,), timescale_log_interval (t, 2), timescale_verdict : the same for
    the slowest relaxation rates, slowest first.

    shrink (n,) : of the cores. confidence : of all intervals. seed, budget, seconds, tolerance (ln 1.15).
    """

    pairs: Array
    log_formula: Array
    log_reference: Array
    log_interval: Array
    method: tuple[str, ...]
    verdict: tuple[str, ...]
    reason: tuple[str, ...]
    effort: tuple[str, ...]
    correction: tuple[str, ...]
    log_corrected: Array
    log_string: Array
    time_step: float | None
    time_step_factor: Array
    time_step_interval: Array
    time_step_reason: str
    timescale_log_formula: Array
    timescale_log_reference: Array
    timescale_log_interval: Array
    timescale_verdict: tuple[str, ...]
    timescale_method: str
    shrink: Array
    confidence: float
    tolerance: float
    seed: int
    budget: float
    seconds: float

    @property
    def log_ratio(self) -> Array:
        """r = ln(k_formula / k_reference), (m,)."""
        return self.log_formula - self.log_reference

    @property
    def log_ratio_interval(self) -> Array:
        """The interval of r, (m, 2)."""
        return intervals(self.log_formula, self.log_interval)

    def to_record(self) -> dict[str, Any]:
        """Plain data: one entry a transition and a timescale; null for what is not finite."""
        ratio, spread = self.log_ratio, self.log_ratio_interval
        rows = [
            {
                "from": int(self.pairs[k, 0]), "to": int(self.pairs[k, 1]),
                "log_formula": _plain(self.log_formula[k]), "formula": _exp(self.log_formula[k]),
                "log_reference": _plain(self.log_reference[k]), "reference": _exp(self.log_reference[k]),
                "log_interval": _plain(self.log_interval[k]), "interval": _exp(self.log_interval[k]),
                "method": self.method[k], "log_ratio": _plain(ratio[k]), "log_ratio_interval": _plain(spread[k]),
                "verdict": self.verdict[k], "reason": self.reason[k], "effort": self.effort[k],
                "correction": self.correction[k], "log_corrected": _plain(self.log_corrected[k]),
                "log_string": _plain(self.log_string[k]),
                "time_step_factor": _plain(self.time_step_factor[k]),
                "time_step_interval": _plain(self.time_step_interval[k]),
            }
            for k in range(len(self.pairs))
        ]  # fmt: skip
        timescales = [
            {
                "log_formula": _plain(self.timescale_log_formula[k]),
                "log_reference": _plain(self.timescale_log_reference[k]),
                "log_interval": _plain(self.timescale_log_interval[k]), "verdict": self.timescale_verdict[k],
            }
            for k in range(len(self.timescale_verdict))
        ]  # fmt: skip
        names = ("timescale_method", "time_step", "time_step_reason", "confidence", "tolerance", "seed", "budget")
        settings = {name: getattr(self, name) for name in names}
        return {
            "transitions": rows, "timescales": timescales, "shrink": _plain(self.shrink), **settings,
            "seconds": self.seconds,
        }  # fmt: skip

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> Checks:
        """The inverse of `to_record`. KeyError, TypeError or ValueError where it is damaged."""
        rows, times = record["transitions"], record["timescales"]
        texts = ("method", "verdict", "reason", "effort", "correction")
        # an interval without a lower end is null in JSON, and so is what is unknown: only the former has a method
        lows = [-math.inf if row["method"] else math.nan for row in rows]
        ends = [[_low(row["log_interval"][0], low), _number(row["log_interval"][1])]
                for row, low in zip(rows, lows, strict=True)]  # fmt: skip
        columns: dict[str, Any] = {name: tuple(str(row[name]) for row in rows) for name in texts}
        for name in ("log_formula", "log_reference", "log_corrected", "log_string", "time_step_factor"):
            columns[name] = np.array([_number(row[name]) for row in rows], float)
        for name in ("log_formula", "log_reference"):
            columns[f"timescale_{name}"] = np.array([_number(row[name]) for row in times], float)
        names = {f.name for f in fields(Checks)} - columns.keys()
        settings = {name: record[name] for name in names if name in record and name != "shrink"}
        return Checks(
            pairs=np.array([(row["from"], row["to"]) for row in rows], int).reshape(-1, 2),
            log_interval=np.array(ends, float).reshape(-1, 2),
            time_step_interval=_pairs(rows, "time_step_interval"),
            timescale_log_interval=_pairs(times, "log_interval"),
            timescale_verdict=tuple(str(row["verdict"]) for row in times),
            shrink=np.array(record["shrink"], float),
            **columns,
            **settings,
        )


def _pairs(rows: list[Mapping[str, Any]], name: str) -> Array:
    return np.array([[_number(value) for value in row[name]] for row in rows], float).reshape(-1, 2)


def _low(value: float | None, missing: float) -> float:
    return missing if value is None else float(value)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    if np.ndim(value):
        return [_plain(item) for item in value]
    return float(value) if math.isfinite(value) else None


def _exp(log: Any) -> Any:
    """exp, null where it is unknown or beyond float64; 0 for -inf."""
    if np.ndim(log):
        return [_exp(item) for item in log]
    return math.exp(log) if log < 700 and (log > -700 or log == -math.inf) else None
