"""Every export opens again, in networkx or with nothing but the standard library, with equal numbers."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from landscape.errors import UsageError
from landscape.network import FORMATS, TransitionNetwork, export_network, states_table, transitions_table
from landscape.network.export import clean_attributes, exp_or_none, replace_files


@pytest.fixture
def network() -> TransitionNetwork:
    """Integer-looking floats, an unknown weight, parallel saddles, a loop, an unknown side, rates e-921 and e+922."""
    return TransitionNetwork(
        energies=np.array([0.0, 1.0, 2.5]),
        coordinates=np.array([[0.1, 2.0], [1 / 3, -1e-300], [5.0, 6.0]]),
        log_weights=np.array([0.0, -1.0, -2.5]),
        joins=np.array([[0, 1], [1, 0], [1, 2], [0, 0], [-1, 2]]),
        saddle_energies=np.array([3.0, 3.5, 4.0, 5.0, 6.0]),
        log_rates=np.array([[-1 / 3, 2 / 3], [-1.5, -2.5], [-921.5, 922.0], [-5.0, -5.0], [np.nan, -4.0]]),
        weights={"sampled": np.array([0.7, np.nan, 0.1]), "second": np.array([0.6, 0.3, 0.1])},
    )


def plain_edges(network: TransitionNetwork) -> dict[tuple[int, int, int], tuple[float, float, float]]:
    """(i, j, saddle) -> log rate, barrier, saddle energy, straight from the arrays."""
    edges = {}
    for saddle in (0, 1, 2):
        for way in (0, 1):
            i, j = int(network.joins[saddle, way]), int(network.joins[saddle, 1 - way])
            energy = network.saddle_energies[saddle]
            edges[i, j, saddle] = (network.log_rates[saddle, way], energy - network.energies[i], energy)
    return edges


def assert_same_graph(graph: nx.MultiDiGraph, network: TransitionNetwork) -> None:
    assert graph.is_directed() and graph.is_multigraph()
    assert list(graph.nodes) == [0, 1, 2]
    for state, data in graph.nodes(data=True):
        assert data["energy"] == network.energies[state] and isinstance(data["energy"], float)
        x = json.loads(data["x"]) if isinstance(data["x"], str) else data["x"]
        assert x == network.coordinates[state].tolist()
        assert data["log_stationary"] == network.log_stationary[state]
        assert data["second"] == network.weights["second"][state]
        assert data["component"] == 0 and isinstance(data["component"], int)
    assert "sampled" not in graph.nodes[1] and graph.nodes[1]["sampled_missing"] == "nan"
    edges = {(i, j, data["saddle"]): data for i, j, data in graph.edges(data=True)}
    expected = plain_edges(network)
    assert edges.keys() == expected.keys() and graph.number_of_edges() == 6
    for key, numbers in expected.items():
        data = edges[key]
        assert (data["log_rate"], data["barrier"], data["saddle_energy"]) == numbers
        assert all(isinstance(data[name], float) for name in ("log_rate", "barrier", "saddle_energy"))
        assert isinstance(data["saddle"], int)
        if abs(numbers[0]) < 700:
            np.testing.assert_allclose(data["rate"], np.exp(numbers[0]), rtol=1e-15)
    assert edges[1, 2, 2]["rate_missing"] == "underflow" and "rate" not in edges[1, 2, 2]
    assert edges[2, 1, 2]["rate_missing"] == "overflow" and "rate" not in edges[2, 1, 2]


def test_graphml(network: TransitionNetwork, tmp_path: Path) -> None:
    (path,) = export_network(network, "graphml", tmp_path / "network.graphml")
    graph = nx.read_graphml(path, node_type=int)
    assert_same_graph(graph, network)
    assert json.loads(graph.graph["saddles_left_out"]) == [3, 4]
    ids = re.findall(r'<edge [^>]*\bid="(\d+)"', path.read_text())
    assert len(ids) == len(set(ids)) == 6  # other readers refuse two edges with one id


def test_gexf(network: TransitionNetwork, tmp_path: Path) -> None:
    (path,) = export_network(network, "gexf", tmp_path / "network.gexf")
    assert_same_graph(nx.read_gexf(path, node_type=int), network)


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def test_json(network: TransitionNetwork, tmp_path: Path) -> None:
    (path,) = export_network(network, "json", tmp_path / "network.json")
    document = json.loads(path.read_text(), parse_constant=refuse_constant)
    assert_same_graph(nx.node_link_graph(document, edges="edges"), network)
    assert document["nodes"][1]["x"] == [1 / 3, -1e-300]


def test_dot(network: TransitionNetwork, tmp_path: Path) -> None:
    """By a parser of the subset that is written: one statement a line, numbers plain, all else quoted."""
    (path,) = export_network(network, "dot", tmp_path / "network.dot")
    lines = path.read_text().splitlines()
    assert lines[0] == 'digraph "learned-landscape" {' and lines[-1] == "}"
    graph = nx.MultiDiGraph()
    for line in lines[1:-1]:
        match = re.fullmatch(r"  (graph|\d+)(?: -> (\d+))? \[(.*)\];", line)
        assert match, line
        pairs = re.findall(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|(-?[0-9]+(?:\.[0-9]+)?))(?:, |$)', match[3])
        assert len(pairs) == match[3].count("=")
        data = {name: number(plain) if plain else text for name, text, plain in pairs}
        if match[1] == "graph":
            assert data["saddles_left_out"] == "[3, 4]"
        elif match[2]:
            graph.add_edge(int(match[1]), int(match[2]), **{k: v for k, v in data.items() if k != "key"})
        else:
            graph.add_node(int(match[1]), **data)
    assert_same_graph(graph, network)


def number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydot calls old names of pyparsing
def test_dot_opens_in_networkx(network: TransitionNetwork, tmp_path: Path) -> None:
    pytest.importorskip("pydot")
    (path,) = export_network(network, "dot", tmp_path / "network.dot")
    graph = nx.nx_pydot.read_dot(path)
    assert sorted(graph.nodes) == ["0", "1", "2"] and graph.number_of_edges() == 6
    rates = {(int(i), int(j), int(data["saddle"])): float(data["log_rate"]) for i, j, data in graph.edges(data=True)}
    assert rates == {key: numbers[0] for key, numbers in plain_edges(network).items()}
    assert [float(graph.nodes[state]["energy"]) for state in "012"] == [0.0, 1.0, 2.5]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dot_keeps_every_digit_of_extreme_numbers(tmp_path: Path) -> None:
    pytest.importorskip("pydot")
    logs = np.array([[-700.123, 700.456], [-1e-5, -30.0]])
    network = TransitionNetwork(
        np.array([0.0, 1e-7]), np.zeros((2, 1)), np.zeros(2), np.array([[0, 1], [0, 1]]), np.array([1.0, 2e20]), logs
    )
    (path,) = export_network(network, "dot", tmp_path / "network.dot")
    graph = nx.nx_pydot.read_dot(path)
    found = {float(data["log_rate"]): float(data["rate"]) for *_, data in graph.edges(data=True)}
    assert found == {log: math.exp(log) for log in logs.ravel().tolist()}
    assert sorted({float(data["saddle_energy"]) for *_, data in graph.edges(data=True)}) == [1.0, 2e20]
    assert float(graph.nodes["1"]["energy"]) == 1e-7


def test_csv(network: TransitionNetwork, tmp_path: Path) -> None:
    paths = export_network(network, "csv", tmp_path / "run.csv")
    assert [path.name for path in paths] == ["run_states.csv", "run_transitions.csv"]
    states, transitions = (list(csv.DictReader(path.read_text().splitlines())) for path in paths)
    assert [float(row["energy"]) for row in states] == [0, 1, 2.5]
    assert [[float(row["x_0"]), float(row["x_1"])] for row in states] == network.coordinates.tolist()
    assert [row["sampled"] for row in states] == ["0.7", "", "0.1"]
    np.testing.assert_array_equal([float(row["log_stationary"]) for row in states], network.log_stationary)
    assert [(row["i"], row["j"], row["in_rate_matrix"]) for row in transitions] == [
        ("0", "1", "True"),
        ("1", "0", "True"),
        ("1", "2", "True"),
        ("0", "0", "False"),
        ("", "2", "False"),
    ]
    assert [float(row["log_rate_ji"]) for row in transitions] == network.log_rates[:, 1].tolist()
    assert transitions[2]["rate_ij"] == transitions[2]["rate_ji"] == transitions[4]["rate_ij"] == ""
    np.testing.assert_allclose(float(transitions[1]["rate_ij"]), np.exp(-1.5), rtol=1e-15)
    assert transitions[4]["barrier_ij"] == "" and float(transitions[4]["barrier_ji"]) == 3.5


def test_csv_without_suffix_and_without_saddles(tmp_path: Path) -> None:
    lonely = TransitionNetwork(
        np.zeros(1), np.zeros((1, 1)), np.zeros(1), np.zeros((0, 2), int), np.zeros(0), np.zeros((0, 2))
    )
    paths = export_network(lonely, "csv", tmp_path / "run.v2")
    assert [path.name for path in paths] == ["run.v2_states.csv", "run.v2_transitions.csv"]
    assert paths[1].read_text().startswith("saddle,i,j,saddle_energy")
    for format in FORMATS:
        lag_time = 1.0 if format == "deeptime" else None  # no timescale to take it from
        paths = export_network(lonely, format, tmp_path / f"lonely.{format}", lag_time)
        assert all(path.stat().st_size for path in paths)


def test_npz(network: TransitionNetwork, tmp_path: Path) -> None:
    (path,) = export_network(network, "npz", tmp_path / "network.npz")
    with np.load(path, allow_pickle=False) as file:
        for name in ("energies", "coordinates", "joins", "log_rates", "log_rate_matrix", "log_mfpt", "log_timescales"):
            np.testing.assert_array_equal(file[name], getattr(network, name))
        np.testing.assert_array_equal(file["weights_sampled"], network.weights["sampled"])
        assert np.isneginf(file["log_rate_matrix"][0, 2]) and file["log_mfpt"][0, 2] > 709


def test_tables_hold_plain_python_values(network: TransitionNetwork) -> None:
    for row in states_table(network) + transitions_table(network):
        assert all(type(value) in (int, float, bool, type(None)) for value in row.values())
        json.dumps(row, allow_nan=False)


def test_clean_attributes() -> None:
    attributes = {
        "a": np.float64(1.0),
        "b": np.bool_(True),
        "c": np.int64(3),
        "d": None,
        "e": np.array([1.0, np.inf]),
        "f": -np.inf,
        "g": np.float32(0.5),
        "h": [None, np.nan, {"k": np.int32(1)}],
        "i": "text",
        "id": 7,
        "type": "saddle",
        "label": "A",
    }
    clean = clean_attributes(attributes)
    assert clean == {
        "a": 1.0,
        "b": True,
        "c": 3,
        "e": "[1.0, null]",
        "f_missing": "-inf",
        "g": 0.5,
        "h": '[null, null, {"k": 1}]',
        "i": "text",
        "id_": 7,
        "type_": "saddle",
        "label_": "A",
    }
    assert [type(clean[name]) for name in "abcg"] == [float, bool, int, float]
    assert clean_attributes(attributes, nested=True)["e"] == [1.0, None]
    with pytest.raises(UsageError, match="complex"):
        clean_attributes({"z": 1j})


def test_exp_or_none() -> None:
    assert exp_or_none(0.0) == 1.0 and exp_or_none(-np.inf) == 0.0
    assert [exp_or_none(value) for value in (np.inf, np.nan, 710.0, -709.0)] == [None] * 4


def test_unknown_format_and_unwritable_paths(network: TransitionNetwork, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'xml'.*graphml") as caught:
        export_network(network, "xml", tmp_path / "a.xml")
    assert caught.value.exit_code == 2
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "missing" / "a.json", tmp_path / "file" / "a.json", tmp_path / ("a" * 300)):
        with pytest.raises(UsageError, match="cannot write"):
            export_network(network, "json", path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    replace_files({first: b"old", second: b"old"})
    sync, calls = os.fsync, []

    def full_disk(file: int) -> None:
        calls.append(file)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UsageError, match="No space left"):
        replace_files({first: b"new", second: b"new"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert first.read_bytes() == second.read_bytes() == b"old"
