"""Networks as files that other programs open: GraphML, GEXF, node-link JSON, CSV, DOT, NPZ and a Markov model."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import UsageError
from landscape.network.markov_model import default_lag_time, transition_matrix
from landscape.network.transition_network import TransitionNetwork

if TYPE_CHECKING:
    import networkx as nx

Row = dict[str, Any]

# Names that GEXF takes for its own; networkx drops or misplaces attributes called so.
_TAKEN = {"id", "label", "type", "weight", "key", "start", "end", "pid", "viz", "parents", "slices", "spells"}


TRANSITION_COLUMNS = (
    "saddle",
    "i",
    "j",
    "saddle_energy",
    "barrier_ij",
    "barrier_ji",
    "log_rate_ij",
    "log_rate_ji",
    "rate_ij",
    "rate_ji",
    "in_rate_matrix",
)


def export_network(
    network: TransitionNetwork, format: str, path: str | os.PathLike[str], lag_time: float | None = None
) -> list[Path]:
    """Write `network` as one of FORMATS and return the paths written.

    graphml, gexf, json (node-link, edges under "edges"): the graph of `TransitionNetwork.to_networkx`, attributes
    through `clean_attributes`; networkx reads it back with `read_graphml(path, node_type=int)`,
    `read_gexf(path, node_type=int)`, `node_link_graph(json.load(file), edges="edges")`. dot: the same graph for
    Graphviz. csv: for X.csv the two files X_states.csv and X_transitions.csv (`states_table`, `transitions_table`), an
    empty field for null. npz: every array of the network and what follows from it, loads with allow_pickle=False.
    deeptime: an npz of transition_matrix, stationary_distribution and lagtime (`lag_time`, else `default_lag_time`),
    which `f = np.load(path)` and `MarkovStateModel(f["transition_matrix"], f["stationary_distribution"],
    lagtime=float(f["lagtime"]))` turn into a model; `to_deeptime` makes one at once.
    Files are written under temporary names in their folder and then renamed. UsageError: unknown format, path that
    cannot be written.
    """
    paths = export_paths(format, path)
    if lag_time is not None and format != "deeptime":
        raise UsageError(f"a lag time belongs to the format deeptime, not to {format}: leave it out")
    if format == "csv":
        contents = [csv_bytes(states_table(network)), csv_bytes(transitions_table(network), TRANSITION_COLUMNS)]
    elif format == "deeptime":
        contents = [_deeptime(network, lag_time)]
    else:
        contents = [_RENDERERS[format](network)]
    replace_files(dict(zip(paths, contents, strict=True)))
    return paths


def export_paths(format: str, path: str | os.PathLike[str]) -> list[Path]:
    """The files that `export_network` writes for `path`. UsageError: unknown format."""
    path = Path(path)
    if format not in FORMATS:
        raise UsageError(f"unknown export format {format!r}: choose one of {', '.join(FORMATS)}")
    if format != "csv":
        return [path]
    stem = path.with_suffix("") if path.suffix.lower() == ".csv" else path
    return [stem.with_name(f"{stem.name}_{table}.csv") for table in ("states", "transitions")]


def replace_files(files: Mapping[Path, bytes]) -> None:
    """Write every file under a temporary name beside it, then rename all: a file is whole or as it was before.

    UsageError where a folder is missing or cannot be written; nothing is left behind then.
    """
    temporary = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp") for path in files}
    path = Path()
    try:
        for path, data in files.items():
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            with open(temporary[path], "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            os.replace(temporary[path], path)
    except OSError as error:
        for name in temporary.values():
            with contextlib.suppress(OSError):
                name.unlink()
        reason = error.strerror or str(error)
        raise UsageError(f"cannot write {path} ({reason}): give a file name in a folder that can be written") from error


def exp_or_none(log_value: float) -> float | None:
    """exp(log_value), or None where float64 cannot hold it to full precision, or it is NaN or +inf; exp(-inf) = 0."""
    if log_value == -math.inf:
        return 0.0
    if math.isnan(log_value) or not -708.0 < log_value < 709.7:
        return None
    return math.exp(log_value)


def clean_attributes(attributes: Mapping[str, Any], nested: bool = False) -> Row:
    """Attributes that every writer accepts: str, bool, int and finite float (a float stays a float, 1.0 not 1).

    numpy scalars become Python ones. None is left out. A float that is not finite is left out and flagged by
    NAME_missing = "inf", "-inf" or "nan". Lists, arrays and mappings become JSON text (null for what is not finite), or
    stay JSON values with `nested`. Names that GEXF takes for its own get a trailing underscore.
    """
    clean: Row = {}
    for name, value in attributes.items():
        name = f"{name}_" if name in _TAKEN else name
        plain = _plain(value)
        if isinstance(value, float | np.floating) and plain is None:
            clean[f"{name}_missing"] = str(float(value))
        elif isinstance(plain, list | dict) and not nested:
            clean[name] = json.dumps(plain, allow_nan=False)
        elif plain is not None:
            clean[name] = plain
    return clean


def states_table(network: TransitionNetwork) -> list[Row]:
    """One row a state: id, energy, log_weight, those of `weights`, stationary, log_stationary, component, x_0, ...

    Python numbers; None where not known or not representable.
    """
    rows = []
    for state in range(network.n_states):
        row = {"id": state, "energy": network.energies[state], "log_weight": network.log_weights[state]}
        row |= {name: column[state] for name, column in network.weights.items()}
        row["stationary"] = exp_or_none(network.log_stationary[state])
        row["log_stationary"] = network.log_stationary[state]
        row["component"] = network.components[state]
        row |= {f"x_{axis}": value for axis, value in enumerate(network.coordinates[state])}
        rows.append({name: _plain(value) for name, value in row.items()})
    return rows


def transitions_table(network: TransitionNetwork) -> list[Row]:
    """One row a saddle, left out of the rate matrix or not.

    Columns: TRANSITION_COLUMNS, i and j being the sides. Python numbers; None where not known or not representable.
    """
    rows = []
    for saddle in range(network.n_saddles):
        sides = [side if side >= 0 else None for side in network.joins[saddle].tolist()]
        log_rates = network.log_rates[saddle]
        rates = [exp_or_none(value) for value in log_rates]
        energy, counted = network.saddle_energies[saddle], network.counted[saddle]
        values = [saddle, *sides, energy, *network.barriers[saddle], *log_rates, *rates, counted]
        rows.append({name: _plain(value) for name, value in zip(TRANSITION_COLUMNS, values, strict=True)})
    return rows


def csv_bytes(rows: list[Row], columns: Sequence[str] = ()) -> bytes:
    """Rows with equal keys as CSV, header first; None is an empty field, floats keep all digits.

    `columns`: the header where there is no row to take it from.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _plain(value: Any) -> Any:
    """JSON values only: numpy scalars and arrays to Python, floats that are not finite to None."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, str | bool | int):
        return value
    raise UsageError(
        f"an attribute must be a number, text, list or mapping, got {type(value).__name__}: convert it first"
    )


def _clean_graph(network: TransitionNetwork, nested: bool = False) -> nx.MultiDiGraph:
    """`to_networkx` with every attribute cleaned; rates that float64 cannot hold are left out and flagged."""
    import networkx as nx

    graph = network.to_networkx()
    clean = nx.MultiDiGraph(**clean_attributes(graph.graph, nested))
    for state, attributes in graph.nodes(data=True):
        clean.add_node(state, **clean_attributes(_representable(attributes), nested))
    for i, j, key, attributes in graph.edges(data=True, keys=True):
        clean.add_edge(i, j, key=key, **clean_attributes(_representable(attributes), nested))
    return clean


def _representable(attributes: Row) -> Row:
    """Without the plain numbers that float64 cannot hold though their logarithm is finite: they are flagged instead."""
    result = dict(attributes)
    for name in ("rate", "stationary"):
        if name in result and exp_or_none(result[f"log_{name}"]) is None:
            del result[name]
            result[f"{name}_missing"] = "overflow" if result[f"log_{name}"] > 0 else "underflow"
    return result


def _graphml(network: TransitionNetwork) -> bytes:
    import networkx as nx

    buffer = io.BytesIO()
    nx.write_graphml_xml(_clean_graph(network), buffer)
    return buffer.getvalue()


def _gexf(network: TransitionNetwork) -> bytes:
    import networkx as nx

    buffer = io.BytesIO()
    nx.write_gexf(_clean_graph(network), buffer)
    return buffer.getvalue()


def _json(network: TransitionNetwork) -> bytes:
    import networkx as nx

    document = nx.node_link_data(_clean_graph(network, nested=True), edges="edges")
    return (json.dumps(document, allow_nan=False, indent=1) + "\n").encode()


def _dot(network: TransitionNetwork) -> bytes:
    """Numbers stand unquoted, since readers such as pydot keep the quotes; a numeral of DOT has no exponent."""

    def written(value: Any) -> str:
        if isinstance(value, float):
            return np.format_float_positional(value, trim="0")
        return str(value) if type(value) is int else quoted(value)

    def quoted(value: Any) -> str:
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'

    def listed(attributes: Row) -> str:
        return ", ".join(f"{name}={written(value)}" for name, value in attributes.items())

    graph = _clean_graph(network)
    lines = [f"digraph {quoted(graph.name)} {{"]
    lines.append(f"  graph [{listed({k: v for k, v in graph.graph.items() if k != 'name'})}];")
    lines += [f"  {state} [{listed(attributes)}];" for state, attributes in graph.nodes(data=True)]
    lines += [f"  {i} -> {j} [{listed({'key': k, **a})}];" for i, j, k, a in graph.edges(data=True, keys=True)]
    return "\n".join([*lines, "}", ""]).encode()


def _npz(network: TransitionNetwork) -> bytes:
    names = ["energies", "coordinates", "log_weights", "joins", "saddle_energies", "log_rates", "counted", "barriers"]
    names += ["log_rate_matrix", "rate_matrix", "log_stationary", "stationary", "log_mfpt", "mfpt"]
    names += ["log_timescales", "timescales", "components"]
    arrays = {name: getattr(network, name) for name in names}
    arrays |= {f"weights_{name}": column for name, column in network.weights.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _deeptime(network: TransitionNetwork, lag_time: float | None) -> bytes:
    lag_time = default_lag_time(network) if lag_time is None else lag_time
    matrix = transition_matrix(network, lag_time)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, transition_matrix=matrix, stationary_distribution=network.stationary, lagtime=np.array(lag_time)
    )
    return buffer.getvalue()


_RENDERERS: dict[str, Callable[[TransitionNetwork], bytes]] = {
    "graphml": _graphml,
    "gexf": _gexf,
    "json": _json,
    "dot": _dot,
    "npz": _npz,
}
FORMATS = ("graphml", "gexf", "json", "csv", "dot", "npz", "deeptime")
