"""The command `landscape`: what each command prints and writes. Bad input has tests of its own.

Commands run in this process, where possible: importing torch costs two seconds a process.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath
import networkx as nx
import numpy as np
import pytest

from landscape import tables
from landscape.cli import commands, main, terminal
from landscape.cli.arguments import FORMATS, NETWORK_FORMATS, parse
from landscape.cli.output import check_folder, default_folder
from landscape.energy.catalogue import POTENTIALS
from landscape.errors import LandscapeError
from landscape.network import export

ROOT = Path(__file__).resolve().parent.parent
# Enough to be right on the small energies used here, without the margin of safety of the defaults.
FAST = "[minima]\nn_starts = 60\n[saddles]\nsweep = 100\n[weights]\ntarget_se = 0.02\n"


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        return found


def run(*argv: object) -> Run:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in argv])
    return Run(code, out.getvalue(), err.getvalue())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "fast.toml"
    path.write_text(FAST)
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory, fast: Path) -> tuple[Path, Run]:
    """The analysed triple well, and what was printed."""
    folder = tmp_path_factory.mktemp("triple") / "out"
    return folder, run("analyze", "potential:triple-well", "--config", fast, "--out", folder, "--beta", "1.5")


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory, fast: Path) -> Path:
    folder = tmp_path_factory.mktemp("double") / "out"
    assert run("analyze", "potential:double-well", "--config", fast, "--out", folder, "--quiet").code == 0
    return folder


# -- analyze ----------------------------------------------------------------------------------------------------------


def test_analyze_finds_the_known_states_and_prints_what_it_wrote(triple: tuple[Path, Run]) -> None:
    """Energies of Metzner, Schuette and Vanden-Eijnden's triple well, to the digits shown; numbers equal the file's."""
    folder, done = triple
    document = json.loads((folder / "analysis.json").read_text())
    assert done.code == 0
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= tables.WIDTH
    pattern = r" *(\d+) +(\S+) +(\S+) +(\S+) +(\S+) \+- (\S+) +(\S+) \+- (\S+) +(\d+) +(\S+) +(\S+)"
    rows = [match.groups() for line in lines if (match := re.fullmatch(pattern, line))]
    assert [row[1] for row in rows] == ["-3.99486", "-3.99486", "-2.17215"]
    for row, state in zip(rows, document["states"], strict=True):
        w = state["weights"]
        known = [state["id"], state["energy"], w["zeroth"], w["second"]]
        known += [w["sampled"], w["sampled_se"], w["exact"], w["exact_se"], state["hits"]]
        assert np.allclose([float(cell) for cell in row], [*known, *state["x"]], rtol=0, atol=5.1e-5)
    pattern = r" *(\d+) +(\d+) -> (\d+) +(\S+) +(\S+) +(\S+) +(\S+) +(\S+) *(.*)"
    rows = [match.groups() for line in lines if (match := re.fullmatch(pattern, line))]
    assert [row[3] for row in rows] == ["-1.64669", "-1.64669", "-1.38459"]
    for row, saddle in zip(rows, document["saddles"], strict=True):
        barriers = [1.5 * (saddle["energy"] - document["states"][end]["energy"]) for end in saddle["joins"]]
        assert np.allclose([float(cell) for cell in row[4:6]], barriers, rtol=0, atol=5.1e-3)
        assert [int(row[0]), int(row[1]), int(row[2])] == [saddle["id"], *saddle["joins"]]
        assert np.allclose([float(cell) for cell in row[6:8]], saddle["rates"], rtol=5.1e-4)
        assert row[8] == "low barrier"
    times = next(line for line in lines if line.startswith("timescales")).split()[1:]
    assert np.allclose([float(cell) for cell in times], document["network"]["timescales"], rtol=5.1e-4)
    assert "3 minima, 3 saddles, 1 of index 2, Morse sum 1 (1 expected)" in done.out
    gradients = document["energy"]["evaluations"]["gradient"]
    assert f"{gradients:,} gradients" in done.out and f"{folder}/: analysis.json, states.csv" in done.out
    for warning in document["diagnostics"]["warnings"]:
        assert warning in " ".join(done.out.split())


def test_the_header_says_where_each_parameter_came_from(tmp_path: Path, fast: Path) -> None:
    (tmp_path / "wells.py").write_text(
        "print('noise while importing')\n"
        "class Wells:\n    dim = 2\n"
        "    metadata = {'dynamics': 'underdamped', 'beta': 2.5, 'time_unit': 'ns', 'units': 'kJ/mol'}\n"
        "    def __call__(self, x):\n        print('noise')\n        return ((x * x - 1) ** 2).sum(1)\n"
    )
    done = run("analyze", "wells.py:Wells", "--config", fast, "--gamma", "3,1e-1", "--seed", "7", "--quiet")
    header = " ".join(done.out.split("\n\n")[0].split())
    assert "wells.py:Wells (dimension 2, float64, units kJ/mol, time unit ns, sha256 " in header
    assert "dynamics underdamped (file), beta 2.5 (file), gamma 3 0.1 (flag), mass 1 (default)" in header
    assert "search 60 starts in a cube that finds its own scale, seed 7" in header
    assert "rates per ns" in done.out and done.code == 0
    assert "noise" not in done.out and "noise while importing" in done.err
    assert (tmp_path / "Wells.landscape" / "analysis.json").exists()
    again = run("analyze", "wells.py:Wells", "--config", fast, "--dynamics", "overdamped", "--json", "--out", "other")
    assert again.code == 0 and again.document["dynamics"]["mass"] is None
    assert again.document["dynamics"]["origins"] == {"dynamics": "flag", "beta": "file", "gamma": "default"}


def test_json_is_the_file_and_nothing_else(tmp_path: Path, fast: Path) -> None:
    done = run("analyze", "potential:double-well", "--config", fast, "--json", "--box", "-1e-1", "2")
    assert done.code == 0
    assert done.out.strip() == (tmp_path / "double-well.landscape" / "analysis.json").read_text()
    assert [state["x"] for state in done.document["states"]] == [[pytest.approx(-1)], [pytest.approx(1)]]
    assert done.document["config"]["minima"]["starts"] == {"low": -0.1, "high": 2.0}
    assert sorted(contents(tmp_path)) == [
        f"double-well.landscape/{name}"
        for name in ("analysis.json", "analysis.sqlite", "network.graphml", "states.csv", "transitions.csv")
    ]


def test_starts_from_a_file(tmp_path: Path, fast: Path) -> None:
    np.save(tmp_path / "starts.npy", np.linspace(0.5, 2, 17, dtype=np.float32)[:, None])
    done = run("analyze", "potential:double-well", "--config", fast, "--starts-from", "starts.npy", "--json")
    assert done.code == 0 and sum(done.document["diagnostics"]["starts"].values()) == 17
    # The well on the left is found from the saddle; none of the given starts falls into it.
    assert [state["hits"] for state in done.document["states"]][1] >= 17


def test_one_state_is_a_result(fast: Path) -> None:
    done = run("analyze", "potential:quadratic:d=1", "--config", fast)
    assert done.code == 0 and "transitions: no saddle found" in done.out
    assert "one state only: its weight is 1" in " ".join(done.out.split())
    document = run("rates", "quadratic.landscape", "--json").document
    assert [state["weights"]["second"] for state in document["states"]] == [1.0]


def test_not_converged_is_written_and_exits_with_3(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(FAST.replace("sweep = 100", "sweep = 100\nmax_rounds = 1\nquiet_rounds = 1"))
    done = run("analyze", "potential:double-well", "--config", "short.toml", "--quiet")
    assert done.code == 3 and "\nconverged   no" in done.out
    assert (
        json.loads((tmp_path / "double-well.landscape" / "analysis.json").read_text())["diagnostics"]["converged"]
        is False
    )
    done = run("analyze", "potential:double-well", "--config", "short.toml", "--json", "--force")
    assert done.code == 3 and done.document["diagnostics"]["converged"] is False
    assert "landscape: note: finished without converging" in done.err
    done = run("rates", "double-well.landscape", "--beta", "2")
    assert done.code == 3 and "\nconverged   no" in done.out and "timescales" in done.out and done.err == ""
    done = run("rates", "double-well.landscape", "--json")
    assert done.code == 3 and done.document["states"] and "note: finished without converging" in done.err
    assert "exit code is 3" in " ".join(run("rates", "--help").out.split())


def test_force_replaces_only_when_the_new_one_is_finished(
    tmp_path: Path, fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["analyze", "potential:double-well", "--config", fast, "--quiet", "--force"]
    folder = tmp_path / "double-well.landscape"
    assert run(*command).code == 0
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("landscape.analysis.find_saddles", interrupted)
        done = run(*command, "--seed", "1")
        kept = "what was found is kept; go on with: landscape analyze --resume double-well.landscape"
        assert (done.code, done.err) == (130, f"landscape: interrupted: {kept}\n")
        assert run(*command, "--out", "new/folder").code == 130
    del before["analysis.sqlite"]  # it holds the search that was interrupted as well
    assert {name: data for name, data in contents(folder).items() if name in before} == before
    assert run("rates", folder, "--json").document["config"]["seed"] == 0
    assert list(contents(tmp_path / "new")) == ["folder/analysis.sqlite"]
    assert "is not finished: go on with" in run("rates", "new/folder").err
    assert "holds a search that is not finished" in run(*command[:-1], "--out", "new/folder").err
    assert run(*command, "--beta", "2").code == 0
    after = contents(folder)
    assert after["notes.txt"] == b"mine" and json.loads(after["analysis.json"])["dynamics"]["beta"] == 2
    assert sorted(after) == sorted([*before, "analysis.sqlite"])


def test_an_interruption_says_what_was_written(
    tmp_path: Path, fast: Path, monkeypatch: pytest.MonkeyPatch, double: Path
) -> None:
    """While the tables are printed, all is there; between the four renames of `Analysis.save`, some of it is, and the
    store, which commands read, holds the new analysis: --resume writes the rest."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "double-well.landscape"
    command = ["analyze", "potential:double-well", "--config", fast, "--quiet", "--force"]
    with monkeypatch.context() as patch:
        patch.setattr("landscape.tables.analysis_text", interrupted)
        for _ in range(2):  # into a new folder, and over an analysis
            done = run(*command)
            assert (done.code, done.err) == (
                130,
                f"landscape: interrupted: the analysis was written to {folder.name}\n",
            )
        assert run("rates", folder).err == "landscape: interrupted: nothing was written\n"
    assert run("rates", folder).code == 0
    before = contents(folder)
    rename = os.replace

    def second_rename(source: Path, target: Path) -> None:
        if Path(target) == Path(folder.name) / "transitions.csv":
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", second_rename)
        done = run(*command, "--beta", "2")
    assert done.code == 130 and f"only {folder.name}/network.graphml came to be written" in done.err
    changed = {name for name, data in contents(folder).items() if data != before[name]}
    assert changed == {"network.graphml", "analysis.sqlite"}
    assert run("rates", folder, "--json").document["dynamics"]["beta"] == 2
    assert run("analyze", "--resume", folder, "--quiet").code == 0
    assert json.loads((folder / "analysis.json").read_text())["dynamics"]["beta"] == 2
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", second_rename)
        folder.rename("earlier")
        assert "landscape analyze --resume" in run(*command).err
    assert list(contents(folder)) == ["analysis.sqlite"]
    np.save(tmp_path / "points.npy", np.zeros((1, 1)))
    with monkeypatch.context() as patch:
        patch.setattr("landscape.cli.commands.emit", interrupted)
        patch.setattr("landscape.tables.labels_text", interrupted)
        done = run("assign", double, "points.npy", "-o", "labels.npy", "--quiet")
        assert done.err == "landscape: interrupted: the labels were written to labels.npy\n"
        done = run("export", double, "--format", "csv", "-o", "net")
        assert done.err == "landscape: interrupted: the network was written to net_states.csv, net_transitions.csv\n"


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("a/b/model_1.safetensors", "model_1.landscape"),
        ("model.v2.pth", "model.v2.landscape"),
        ("some/file.py:energy", "energy.landscape"),
        ("package.module:Make", "Make.landscape"),
        ("potential:coupled-chain:n=4,g=0.3", "coupled-chain.landscape"),
        ("a b/über model.pt2", "ber_model.landscape"),
        ("...", "energy.landscape"),
    ],
)
def test_default_folder(spec: str, name: str) -> None:
    assert default_folder(spec) == Path(name)


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--box -1e-1 2", "box", [-0.1, 2]),
        ("--box -.5 -1E-3", "box", [-0.5, -0.001]),
        ("--box -1,-2e0 3,.5", "box", [(-1, -2), (3, 0.5)]),
        ("--box -inf 1_0", "box", [-math.inf, 10]),
        ("--gamma -1", "gamma", -1),
        ("--gamma=-1e-3", "gamma", -0.001),
        ("--mass 1,2.5,1e-3", "mass", (1, 2.5, 0.001)),
        ("--beta .5", "beta", 0.5),
        ("--beta -2e-10", "beta", -2e-10),
        ("--seed 12", "seed", 12),
    ],
)
def test_every_float_of_python_is_read(words: str, name: str, value: object) -> None:
    assert getattr(parse(["analyze", "x.pth", *words.split()]), name) == value


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--out -1", "out", "-1"),
        ("--out -1 --box -1e0 -2", "out", "-1"),
        ("--out=-1e-1", "out", "-1e-1"),
        ("--starts-from -5", "starts_from", "-5"),
        ("--config -2", "config", "-2"),
        ("--beta 1 --out -1", "out", "-1"),
    ],
)
def test_names_that_look_like_numbers_stay_as_they_are(words: str, name: str, value: str) -> None:
    assert getattr(parse(["analyze", "x.pth", *words.split()]), name) == value
    assert parse(["export", "-1", "--format", "json", "-o", "-2"]).output == "-2"


def test_help_and_version() -> None:
    done = run("--version")
    assert done.code == 0 and re.fullmatch(r"learned-landscape \d+\.\d+\.\d+\n", done.out)
    for command in ([], *([name] for name in commands.COMMANDS)):
        done = run(*command, "--help")
        assert done.code == 0 and "exit codes: 0 done" in " ".join(done.out.split()) and done.err == ""


def test_formats_offered_are_those_that_exist() -> None:
    assert NETWORK_FORMATS == export.FORMATS and {*FORMATS} == {*NETWORK_FORMATS, "pathsample"}


# -- rates, export, assign, potentials --------------------------------------------------------------------------------


def test_rates_at_other_parameters_are_kramers(double: Path) -> None:
    """Double well: V''(+-1) = 2, V''(0) = -1, barrier 1/4, so k = mu sqrt(2)/(2 pi) exp(-beta/4), mu = 1/gamma
    overdamped and sqrt(gamma^2/4 m^2 + 1/m) - gamma/2m underdamped (Kramers 1940)."""
    before = contents(double)
    done = run("rates", double, "--beta", "40", "--gamma", "4")
    rate = math.sqrt(2) / (2 * math.pi) * math.exp(-10) / 4
    assert done.code == 0 and f"{rate:.3e}  {rate:.3e}" in done.out
    assert f"timescales  {1 / (2 * rate):.3e}" in done.out
    assert "overdamped (saved analysis), beta 40 (flag), gamma 4 (flag)" in done.out
    assert "the sampled weights were drawn at beta = 1" in done.out
    done = run("rates", double, "--dynamics", "underdamped", "--gamma", "3", "--mass", "2", "--json")
    rate = (math.sqrt(9 / 16 + 0.5) - 0.75) * math.sqrt(2) / (2 * math.pi) * math.exp(-0.25)
    assert done.document["saddles"][0]["rates"] == [pytest.approx(rate, rel=1e-9)] * 2
    assert done.document["states"][0]["weights"]["sampled"] is not None
    done = run("rates", double, "--beta", "2", "--json")
    assert all(state["weights"]["sampled"] is None for state in done.document["states"])
    assert contents(double) == before


def test_rates_default_to_the_saved_parameters(triple: tuple[Path, Run]) -> None:
    folder, _ = triple
    saved = json.loads((folder / "analysis.json").read_text())
    again = run("rates", folder, "--json").document
    assert again["dynamics"]["beta"] == 1.5 and again["dynamics"]["origins"]["beta"] == "saved analysis"
    for name in ("states", "saddles", "paths", "network", "diagnostics", "energy"):
        assert again[name] == saved[name]


@pytest.mark.parametrize("format", ["graphml", "gexf", "json", "csv", "npz", "dot"])  # the others: test_pathsample.py
def test_export(triple: tuple[Path, Run], tmp_path: Path, format: str) -> None:
    folder, _ = triple
    rates = sorted(
        rate for row in json.loads((folder / "analysis.json").read_text())["saddles"] for rate in row["rates"]
    )
    file = tmp_path / f"net.{format}"
    done = run("export", folder, "--format", format, "-o", file)
    assert done.code == 0 and done.err == ""
    assert all(Path(name).exists() for name in done.out.removeprefix("written: ").strip().split(", "))
    found: list[float]
    if format in ("graphml", "gexf", "json"):
        readers: dict[str, Callable[[Path], Any]] = {
            "graphml": nx.read_graphml, "gexf": nx.read_gexf,
            "json": lambda path: nx.node_link_graph(json.loads(path.read_text()), edges="edges"),
        }  # fmt: skip
        found = [rate for *_, rate in readers[format](file).edges(data="rate")]
    elif format == "csv":
        lines = [line.split(",") for line in (tmp_path / "net_transitions.csv").read_text().splitlines()]
        found = [float(line[lines[0].index(name)]) for line in lines[1:] for name in ("rate_ij", "rate_ji")]
    elif format == "npz":
        found = np.exp(np.load(file, allow_pickle=False)["log_rates"]).ravel().tolist()
    else:
        found = [float(rate) for rate in re.findall(r"\brate=([^,]+),", file.read_text())]
    assert sorted(found) == pytest.approx(rates, rel=1e-12)


def test_assign_labels_by_basin(double: Path, tmp_path: Path) -> None:
    """In the double well the basins are x < 0 and x > 0; the saddle itself belongs to neither."""
    points = np.random.default_rng(1).normal(0, 2, (20_000, 1))
    points[17] = 0.0
    np.save(tmp_path / "points.npy", points)
    done = run("assign", double, "points.npy", "-o", "labels", "--quiet")
    assert done.code == 0 and done.err == ""
    labels = np.load(tmp_path / "labels", allow_pickle=False)
    expected = np.where(points[:, 0] < 0, 0, 1)
    expected[17] = -1
    assert labels.dtype == np.int64 and np.array_equal(labels, expected)
    rows = [line.split() for line in done.out.splitlines()[1:4]]
    assert [int(row[2].replace(",", "")) for row in rows] == [np.sum(expected == k) for k in (0, 1, -1)]
    assert sorted(os.listdir(tmp_path)) == ["labels", "points.npy"]


def test_assign_finds_the_energy_again(tmp_path: Path, fast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another directory, and after analysis and energy moved together; not once the energy has changed."""
    home = tmp_path / "home"
    home.mkdir()
    code = "def wells(x):\n    return ((x * x - 1) ** 2).sum(1)\n"
    (home / "wells.py").write_text(code)
    np.save(tmp_path / "points.npy", np.array([[-2.0], [0.3]]))
    monkeypatch.chdir(home)
    assert run("analyze", "wells.py:wells", "--dim", "1", "--config", fast, "--quiet").code == 0
    monkeypatch.chdir(tmp_path)
    done = run("assign", "home/wells.landscape", "points.npy", "-o", "a.npy", "--quiet")
    assert done.code == 2 and "is code" in done.err and "--trust" in done.err
    assert run("assign", "home/wells.landscape", "points.npy", "-o", "a.npy", "--trust").code == 0
    home.rename(tmp_path / "moved")
    assert run("assign", "moved/wells.landscape", "points.npy", "-o", "b.npy", "--trust").code == 0
    assert np.load("a.npy").tolist() == np.load("b.npy").tolist() == [0, 1]
    (tmp_path / "moved" / "wells.py").write_text(code.replace("- 1)", "- 2)"))
    done = run("assign", "moved/wells.landscape", "points.npy", "-o", "c.npy", "--trust")
    assert done.code == 2 and "has changed since it was analysed" in done.err
    done = run("assign", "moved/wells.landscape", "points.npy", "-o", "c.npy", "--energy", "moved/wells.py:wells")
    assert done.code == 2 and "is not the energy that was analysed" in done.err
    (tmp_path / "elsewhere.py").write_text(code)
    (tmp_path / "moved" / "wells.py").unlink()
    done = run("assign", "moved/wells.landscape", "points.npy", "-o", "c.npy", "--trust")
    assert done.code == 2 and "--energy" in done.err and not Path("c.npy").exists()
    done = run("assign", "moved/wells.landscape", "points.npy", "-o", "c.npy", "--energy", "elsewhere.py:wells")
    assert done.code == 0 and np.load("c.npy").tolist() == [0, 1]


def test_potentials_are_listed_without_torch() -> None:
    code = (
        "import sys\nfrom landscape.cli import main\ncode = main(['potentials'])\nprint(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 False"
    for name, info in POTENTIALS.items():
        assert f"potential:{name}" in done.stdout and info.text in done.stdout


def test_a_program_keeps_the_collector_out_of_its_way() -> None:
    """The exit code is main's, also when it raises; the library alone leaves the collector as it was."""
    code = (
        "import gc, landscape.process as process\nbefore = gc.get_threshold()\n"
        "print(process.alone(lambda: 3), gc.get_threshold()[0] > before[0], gc.get_freeze_count() > 0)\n"
        "process.alone(lambda: 1 / 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["3", "True", "True"] and "ZeroDivisionError" in done.stderr and done.returncode == 1
    code = (
        "import gc, landscape.process as process\nbefore = gc.get_threshold(), gc.get_freeze_count()\n"
        "import landscape.cli\nprocess.imported()\nprint((gc.get_threshold(), gc.get_freeze_count()) == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True"]


def test_a_search_is_not_held_up_by_the_collector(tmp_path: Path) -> None:
    """The collector never looks at what a search imports, and is there for what is made from then on."""
    arguments = ["landscape", "analyze", "potential:double-well", "--starts", "8", "--out", str(tmp_path / "out")]
    code = (
        f"import gc, sys\nfrom landscape import cli, process\nlooks = []\nsys.argv = {arguments}\n"
        "gc.callbacks.append(lambda phase, info: looks.append(phase))\n"
        "assert cli.command() in (0, 3)\nprint(len(looks), gc.get_threshold()[0] == process.OBJECTS)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 True", done.stderr


# -- tables -----------------------------------------------------------------------------------------------------------


def made_up(n: int, m: int, dim: int) -> dict[str, Any]:
    """A document with n states and m saddles, long numbers, and everything that can be null."""
    rng = np.random.default_rng(0)
    weights = {
        "zeroth": None,
        "second": 0.25,
        "sampled": None,
        "sampled_se": None,
        "log_zeroth": -2000.0,
        "log_second": -1.4,
    }
    states = [
        {"id": k, "energy": -1e4 + k, "hits": 10**k % 99999, "weights": weights, "x": rng.normal(0, 50, dim).tolist()}
        for k in range(n)
    ]
    joins = [[0, None], [1, 1], [0, n - 1]]
    logs = [[None, None], [None, None], [-3000.5, 3.25]]
    saddles = [
        {
            "id": k,
            "energy": -9e3 + k,
            "joins": joins[k % 3],
            "log_rates": logs[k % 3],
            "low_barrier": True,
            "low_friction": True,
        }
        for k in range(m)
    ]
    evaluations = {"value": 10**7, "gradient": 10**9, "hvp": 10**8, "hessian": 10**6}
    return {
        "energy": {
            "source": "x.pth", "dim": dim, "dtype": "float64", "sha256": None, "time_unit": None,
            "evaluations": evaluations,
        },
        "dynamics": {
            "kind": "underdamped", "beta": 1.0, "gamma": [1.0] * dim, "mass": list(range(1, dim + 1)), "origins": {},
        },
        "states": states, "saddles": saddles,
        "network": {"log_timescales": [9000.0, *[None] * (n - 2)]},
        "diagnostics": {
            "index_counts": {"0": n, "1": m}, "morse_sum": {"value": None, "expected": None}, "converged": False,
            "warnings": ["word " * 100],
        },
    }  # fmt: skip


@pytest.mark.parametrize("dim", [1, 3, 12, 300])
def test_large_tables_fit_and_say_what_is_missing(dim: int) -> None:
    document = made_up(50, 61, dim)
    text = tables.header_text(document["energy"], document["dynamics"]) + "\n" + tables.analysis_text(document)
    lines = text.splitlines()
    assert max(map(len, lines)) <= tables.WIDTH
    assert "... 10 more states not shown: all are in states.csv" in lines
    assert "... 21 more saddles not shown: all are in transitions.csv" in lines
    assert sum("leads out of the region" in line for line in lines) == 14
    assert sum("joins a state to itself" in line for line in lines) == 13
    row = next(line for line in lines if "-> 49" in line).split()
    slow, fast = (mpmath.nstr(mpmath.exp(log), 4) for log in (-3000.5, 3.25))
    assert row[:7] == ["2", "0", "->", "49", "-8998.00", "1002.00", "953.00"]
    assert row[7:] == [slow, f"{float(fast):.3e}", "low", "barrier", "and", "friction"]
    assert (f"... {dim} in all" in text) == (dim >= 12)
    assert "gamma 1, mass 1" in text and "None" not in text


@pytest.mark.parametrize("log", [-1e6, -3000.5, -709.0, -700.0, -1.0, 0.0, 2.302585, 699.9, 705.0, 2302.585092994, 1e5])
def test_numbers_beyond_float64_are_shown_from_their_logarithm(log: float) -> None:
    with mpmath.workdps(30):
        assert abs(mpmath.mpf(tables.power(log)) / mpmath.exp(log) - 1) < 6e-4
    mantissa = tables.power(log).split("e")[0].lstrip("-")
    assert 1 <= float(mantissa) < 10


def test_no_negative_zero_and_no_lost_column() -> None:
    assert tables.fixed(-1e-9, 4) == "0.0000" and tables.fixed(-0.04, 1) == "0.0"
    assert tables.fixed(-1.23456e30, 2) == "-1.23456000e+30"
    assert tables.aligned(["a", "b"], [["1", "x"], ["22", "yy"]], left=("b",)) == [" a  b", " 1  x", "22  yy"]


# -- terminal, interruption, bugs -------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_rewrites_its_line_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        now[0] = 0.0
        with terminal.Progress() as progress:
            for _ in range(11):
                progress("step " + "long " * 60)
                now[0] += 0.5
        text = stream.getvalue()
        if stream.isatty():
            lines = text.split("\r\x1b[K")
            assert len(lines) == 13 and "\n" not in text and lines[-1] == "" and max(map(len, lines)) < 100
        else:
            assert [line.split()[0] for line in text.splitlines()] == ["0.0", "2.0", "4.0"]
    with terminal.Progress(quiet=True) as progress:
        progress("nothing")
    assert stream.getvalue() == text


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        terminal.emit("to nobody", stream)
        terminal.emit("still to nobody", stream)
    terminal.emit("no stream at all", None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as stream, pytest.raises(LandscapeError, match="No space left"):
        terminal.emit("too much", stream)


def test_an_unexpected_error_is_one_line_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise ValueError("odd\nthing")

    monkeypatch.setitem(commands.COMMANDS, "potentials", broken)
    monkeypatch.delenv("LANDSCAPE_TRACEBACK", raising=False)
    done = run("potentials")
    assert done.code == 1 and done.err.count("\n") == 1
    assert "this is a bug, please report it: ValueError: odd thing" in done.err and "LANDSCAPE_TRACEBACK=1" in done.err
    monkeypatch.setenv("LANDSCAPE_TRACEBACK", "1")
    done = run("potentials")
    assert done.code == 1 and "Traceback" in done.err and "in broken" in done.err


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_search_that_is_stopped_leaves_a_store_to_go_on_with(tmp_path: Path, kind: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(
        "import time, pathlib\n"
        "def slow(x):\n"
        "    if len(x) > 64:  # the search, not the probe\n"
        "        pathlib.Path('searching').touch()\n"
        "        time.sleep(0.05)\n"
        "    return ((x * x - 1) ** 2).sum(1)\n"
    )
    command = [sys.executable, "-m", "landscape.cli", "analyze", "slow.py:slow", "--dim", "2", "--out", "a/b"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "searching").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (tmp_path / "a" / "b").is_dir(), "the folder is tried before the search starts"
    process.send_signal(kind)
    _, err = process.communicate(timeout=60)
    files = {name for name in contents(tmp_path) if "__pycache__" not in name}
    assert {name for name in files if not name.endswith(("-wal", "-shm"))} == {
        *("slow.py", "searching", "a/b/analysis.sqlite")
    }
    if kind == signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in err
        assert err.splitlines()[-1].endswith("what was found is kept; go on with: landscape analyze --resume a/b")
    done = run("show", "a/b", "--json")
    assert done.code == 0 and not done.document["finished"] and done.document["analysis"] is None
    assert "go on with  landscape analyze --resume a/b" in run("show", "a/b").out
    with pytest.raises(LandscapeError, match="--resume"):
        check_folder(tmp_path / "a" / "b", force=False)
