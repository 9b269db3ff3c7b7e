"""Bad input to the command `landscape`: one clear line, the documented exit code, nothing left behind.

Every case runs in an empty folder, with its input in another one.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landscape.cli import main

CODE = """
import torch
def fine(x): return ((x * x - 1) ** 2).sum(1)
def nan(x): return x.sum(1) * float("nan")
def falls(x): return -(x ** 2).sum(1)
def falls_on_one_side(x): return x[:, 0] ** 3 + x[:, 0] + x[:, 1] ** 2
def constant(x): return 0 * x.sum(1) + 3
def coupled(x): return ((x - x.mean(0)) ** 2).sum(1)
def wrong_shape(x): return x ** 2
def one_number(x): return (x ** 2).sum()
def random(x): return (x ** 2).sum(1) * (1 + torch.rand(1, generator=GENERATOR))
def raising(x): raise RuntimeError("first line\\nsecond line")
def exits(x): raise SystemExit(0)
def exits_in_search(x):
    if len(x) > 64: raise SystemExit
    return fine(x)
def outside_torch(x): return (x.detach().numpy() ** 2).sum(1)
GENERATOR = torch.Generator()
number = 3
class Exits:
    dim = 2
    def __init__(self): raise SystemExit(0)
class ExitsWhenAsked:
    def __call__(self, x): return fine(x)
    @property
    def dim(self): raise SystemExit(0)
class Module(torch.nn.Module):
    dim = 2
    def forward(self, x): return (x ** 2).sum(1)
"""


class RunsCode:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every kind of bad input, and one good analysis, `wells`."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "energies.py").write_text(CODE)
    (folder / "syntax.py").write_text("def energy(x:\n")
    (folder / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    (folder / "empty.safetensors").touch()
    (folder / "foreign.safetensors").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)
    (folder / "foreign.pth").write_text("dear diary")
    (folder / "foreign.pt2").write_bytes(b"PK\x03\x04 not a zip after all")
    torch.save({"network.0.weight": torch.zeros(40, 2, dtype=torch.float64)}, folder / "whole.pth")
    (folder / "truncated.pth").write_bytes((folder / "whole.pth").read_bytes()[:-400])
    torch.save(RunsCode(folder / "ran"), folder / "runs_code.pth")
    (folder / "runs_code.pkl").write_bytes(pickle.dumps(RunsCode(folder / "ran")))
    np.save(folder / "points.npy", np.zeros((3, 2)))
    np.save(folder / "columns.npy", np.zeros((3, 5)))
    np.save(folder / "flat.npy", np.zeros(3))
    np.save(folder / "none.npy", np.zeros((0, 2)))
    np.save(folder / "nan.npy", np.array([[0, 1], [np.nan, 0]]))
    np.save(folder / "complex.npy", np.zeros((3, 2), complex))
    np.save(folder / "runs_code.npy", np.array([RunsCode(folder / "ran")], dtype=object), allow_pickle=True)
    np.savez(folder / "archive.npz", x=np.zeros((3, 2)))
    (folder / "truncated.npy").write_bytes((folder / "points.npy").read_bytes()[:-8])
    (folder / "text.npy").write_text("0.1 0.2\n0.3 0.4\n")
    (folder / "broken.toml").write_text("seed = \n")
    (folder / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for number, text in enumerate(CONFIGS):
        (folder / f"config{number}.toml").write_text(text)
    (folder / "foreign").mkdir()
    (folder / "foreign" / "thesis.tex").touch()
    config = folder / "fast.toml"
    config.write_text("weights = false\n[minima]\nn_starts = 30\n[saddles]\nsweep = 0\n")
    with contextlib.redirect_stdout(io.StringIO()):
        command = ["analyze", f"{folder}/energies.py:fine", "--dim", "2", "--config", str(config), "--quiet"]
        assert main([*command, "--out", str(folder / "wells")]) == 0
    _damaged_analyses(folder)
    return folder


def _damaged_analyses(folder: Path) -> None:
    text = (folder / "wells" / "analysis.json").read_text()
    document = json.loads(text)
    states = [{key: value for key, value in row.items() if key != "energy"} for row in document["states"]]
    damaged = {
        "cut": text[: len(text) // 2],
        "list": "[1, 2]",
        "other": '{"format": "something else", "version": 1}',
        "newer": json.dumps({**document, "version": 99}),
        "no_energies": json.dumps({**document, "states": states}),
        "no_states": json.dumps({**document, "states": []}),
    }
    for name, content in damaged.items():
        (folder / name).mkdir()
        (folder / name / "analysis.json").write_text(content)
    (folder / "latin").mkdir()
    (folder / "latin" / "analysis.json").write_bytes(b'{"format": "\xe9"}')


CONFIGS = [
    "beta = 2",
    "[minima]\nstart = 5",
    "[minima]\nn_starts = 0",
    '[minima]\nn_starts = "many"',
    "[minima]\nstarts = 3",
    "[minima.box]\nlow = 1",
    "[minima.box]\nlow = 1\nhigh = 1",
    "[minima.box]\nlow = [1, 2]\nhigh = [3, 4, 5]",
    "[minima.box]\nlow = 0\nhigh = 1\n[minima.gaussian]\nmean = 0",
    "[saddles]\nmax_rounds = 1.5",
    "[weights]\ntarget_se = -1",
    "weights = true",
    "minima = 3",
    "seed = true",
]

ENERGIES = [
    ("missing.safetensors", "no such file"),
    ("empty.safetensors", "empty"),
    ("foreign.safetensors", "safetensors"),
    ("foreign.pth", "foreign.pth"),
    ("truncated.pth", "truncated.pth"),
    ("foreign.pt2", "not a torch.export archive"),
    ("runs_code.pth", "trust"),
    ("runs_code.pkl", "trust"),
    ("", "is a folder"),
    ("energies.py", "say which object"),
    ("energies.py:number --dim 2", "callable"),
    ("energies.py:missing --dim 2", "there is no 'missing'"),
    ("syntax.py:energy --dim 2", "syntax.py"),
    ("missing.py:energy --dim 2", "missing.py"),
    ("energies.py:fine", "--dim"),
    ("energies.py:fine --dim 0", "at least 1"),
    ("energies.py:Module --dim 3", "has dimension 2, but 3 was given"),
    ("energies.py:nan --dim 2", "NaN or infinite"),
    ("energies.py:falls --dim 2", "unbounded below"),
    ("energies.py:falls_on_one_side --dim 2", "unbounded below"),
    ("energies.py:constant --dim 2", "constant"),
    ("energies.py:coupled --dim 2", "couples"),
    ("energies.py:random --dim 2", "called again"),
    ("energies.py:wrong_shape --dim 2", "(n,) or (n, 1)"),
    ("energies.py:one_number --dim 2", "(n,) or (n, 1)"),
    ("energies.py:raising --dim 2", "RuntimeError: first line"),
    ("energies.py:outside_torch --dim 2", "torch tensor"),
    ("energies.py:exits --dim 2", "energies.py:exits called sys.exit(0)"),
    ("energies.py:exits_in_search --dim 2", "energies.py:exits_in_search called sys.exit(None)"),
    ("energies.py:Exits", "SystemExit"),
    ("energies.py:ExitsWhenAsked", "called sys.exit(0)"),
    ("leaves.py:energy --dim 2", "SystemExit at line 2"),
]

# Arguments after `analyze potential:triple-well` (d = 2), and what the line must say. GIVEN is the folder of inputs.
OPTIONS = [
    ("--beta 0", "greater than 0, not 0 (from the flag)"),
    ("--beta -2e-1", "greater than 0, not -0.2 (from the flag)"),
    ("--beta inf", "not inf"),
    ("--beta nan", "not nan"),
    ("--beta two", "a number is needed, not 'two'"),
    ("--gamma -1", "gamma is finite and greater than 0, not -1"),
    ("--gamma 1,2,3", "gamma has 3 values, but the energy has 2"),
    ("--gamma 1,,2", "comma list of numbers"),
    ("--gamma 1,-1", "not 1 -1"),
    ("--mass 2", "overdamped dynamics has no mass"),
    ("--mass 2 --dynamics overdamped", "overdamped dynamics has no mass"),
    ("--dynamics underdamped --mass 0", "mass is finite and greater than 0"),
    ("--dynamics ballistic", "invalid choice: 'ballistic'"),
    ("--dim 3", "has dimension 2, but 3 was given"),
    ("--starts 0", "at least 1"),
    ("--starts -5", "not -5"),
    ("--starts 1e3", "a whole number is needed, not '1e3'"),
    ("--seed -1", "a seed is a whole number"),
    ("--seed 99999999999999999999", "a seed is a whole number"),
    ("--threads 0", "at least 1, not 0"),
    ("--box 1", "expected 2 arguments"),
    ("--box 2 -1e-1", "low < high"),
    ("--box 0 inf", "finite bounds"),
    ("--box 0,0,0 1,1,1", "one number or 2 of them"),
    ("--box 0,0,0 1,1", "different lengths"),
    ("--starts-from GIVEN/columns.npy", "start points have 2 columns for this energy, not 5"),
    ("--starts-from GIVEN/flat.npy", "shape (3,)"),
    ("--starts-from GIVEN/none.npy", "n >= 1"),
    ("--starts-from GIVEN/nan.npy", "NaN or infinity in 1 rows, the first 1"),
    ("--starts-from GIVEN/complex.npy", "complex128"),
    ("--starts-from GIVEN/runs_code.npy", "pickled"),
    ("--starts-from GIVEN/archive.npz", ".npz archive"),
    ("--starts-from GIVEN/truncated.npy", "truncated.npy"),
    ("--starts-from GIVEN/text.npy", "no .npy file"),
    ("--starts-from GIVEN/missing.npy", "No such file"),
    ("--starts-from GIVEN", "cannot be read"),
    ("--starts-from GIVEN/points.npy --box 0 1", "leave --box out"),
    ("--starts-from GIVEN/points.npy --starts 5", "leave --starts out"),
    ("--config GIVEN/missing.toml", "No such file"),
    ("--config GIVEN/broken.toml", "TOML"),
    ("--config GIVEN/binary.toml", "TOML"),
    ("--config GIVEN/config0.toml", "unknown entry 'beta'"),
    ("--config GIVEN/config1.toml", "has no 'start'; known: n_starts"),
    ("--config GIVEN/config2.toml", "at least 1"),
    ("--config GIVEN/config3.toml", "n_starts is a whole number, not 'many'"),
    ("--config GIVEN/config4.toml", "starts is given as a table"),
    ("--config GIVEN/config5.toml", "'high'"),
    ("--config GIVEN/config6.toml", "low < high"),
    ("--config GIVEN/config7.toml", "does not fit together"),
    ("--config GIVEN/config8.toml", "not both"),
    ("--config GIVEN/config9.toml", "max_rounds is a whole number, not 1.5"),
    ("--config GIVEN/config10.toml", "target_se is greater than 0"),
    ("--config GIVEN/config11.toml", "weights is a table [weights], not True"),
    ("--config GIVEN/config12.toml", "minima is a table [minima], not 3"),
    ("--config GIVEN/config13.toml", "a seed is a whole number"),
    ("--out GIVEN/points.npy", "is a file, not a folder"),
    ("--out GIVEN/points.npy/below", "cannot be written (Not a directory)"),
    ("--out GIVEN/points.npy/below --force", "cannot be written (Not a directory)"),
    ("--out GIVEN/wells", "replace it with --force"),
    ("--out GIVEN/foreign", "left alone"),
    ("--out GIVEN/foreign --force", "left alone"),
    ("--out GIVEN/list --force", "left alone"),
    ("--frobnicate", "unrecognized arguments: --frobnicate"),
    ("--bet 3", "unrecognized arguments: --bet"),
    ("--beta", "expected one argument"),
]

# Whole command lines.
OTHERS = [
    ("", "required: COMMAND"),
    ("analyse x", "invalid choice: 'analyse'"),
    ("analyze", "name an energy, or a folder to go on with"),
    ("analyze potential:double-wel", "did you mean double-well"),
    ("analyze potential:quadratic:d=0", "d is a whole number from 1"),
    ("analyze potential:quadratic:k=2", "'k=2' is not a parameter"),
    ("rates GIVEN/missing", "no analysis can be read at"),
    ("rates GIVEN/foreign", "No such file"),
    ("rates GIVEN/points.npy", "no analysis can be read at"),
    ("rates GIVEN/cut", "is not JSON"),
    ("rates GIVEN/latin", "no analysis can be read at"),
    ("rates GIVEN/list", "not a complete analysis"),
    ("rates GIVEN/other", "something else"),
    ("rates GIVEN/newer", "99"),
    ("rates GIVEN/no_energies", "not a complete analysis"),
    ("rates GIVEN/no_states", "it has no states"),
    ("rates GIVEN/wells --beta 0", "greater than 0, not 0 (from the flag)"),
    ("rates GIVEN/wells --mass 1", "overdamped dynamics has no mass"),
    ("rates GIVEN/wells --gamma 1,2,3", "gamma has 3 values"),
    ("export GIVEN/wells --format xml -o x", "invalid choice: 'xml'"),
    ("export GIVEN/wells --format json", "required: -o/--output"),
    ("export GIVEN/wells --format json -o missing/x.json", "cannot write missing/x.json"),
    ("export GIVEN/wells --format csv -o GIVEN/points.npy/x", "cannot write"),
    ("export GIVEN/wells --format json -o GIVEN/wells/analysis.json", "is the analysis itself"),
    ("export GIVEN/wells --format json -o GIVEN/wells/analysis.sqlite", "is the analysis itself"),
    ("report GIVEN/wells -o GIVEN/wells/analysis.sqlite", "is the analysis itself"),
    ("show GIVEN/cut", "there is no analysis.sqlite"),
    ("analyze potential:double-well --workers 0", "at least 1, not 0"),
    ("analyze potential:double-well --workers 2 --scheduler tcp://127.0.0.1:1", "not allowed with argument"),
    ("analyze --resume", "or a folder to go on with"),
    ("analyze --resume GIVEN/cut", "there is no analysis.sqlite"),
    ("analyze potential:double-well --resume GIVEN/wells --out other", "leave out --out"),
    ("export GIVEN/foreign --format json -o x", "No such file"),
    ("assign GIVEN/wells GIVEN/points.npy -o x.npy", "allow it to run with --trust"),
    ("assign GIVEN/wells GIVEN/columns.npy -o x.npy --trust", "2 columns"),
    ("assign GIVEN/wells GIVEN/flat.npy -o x.npy --trust", "shape (3,)"),
    ("assign GIVEN/wells GIVEN/nan.npy -o x.npy --trust", "NaN or infinity"),
    ("assign GIVEN/wells GIVEN/runs_code.npy -o x.npy --trust", "pickled"),
    ("assign GIVEN/wells GIVEN/missing.npy -o x.npy --trust", "No such file"),
    ("assign GIVEN/wells GIVEN/points.npy -o missing/x.npy --trust", "cannot be written"),
    ("assign GIVEN/wells GIVEN/points.npy -o GIVEN/foreign --trust", "it is a folder"),
    ("assign GIVEN/wells GIVEN/points.npy -o GIVEN/points.npy --trust", "would replace the points"),
    ("assign GIVEN/wells GIVEN/points.npy -o x.npy --energy potential:muller-brown", "is not the energy that was"),
    ("assign GIVEN/wells GIVEN/points.npy -o x.npy --energy GIVEN/runs_code.pth", "trust"),
    ("assign GIVEN/foreign GIVEN/points.npy -o x.npy", "No such file"),
]


def _fails(line: str, given: Path, says: str, code: int = 2) -> None:
    """Run one command line; check the exit code, the one line, and that no file came or changed."""
    before = _snapshot(given)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = main([word.replace("GIVEN", str(given)) for word in line.split()])
    message = err.getvalue()
    assert found == code, message
    assert message.startswith("landscape: error: ") and message.count("\n") == 1, message
    assert says in message and "bug" not in message and "Traceback" not in message, message
    assert out.getvalue() == ""
    assert list(Path.cwd().iterdir()) == []
    assert _snapshot(given) == before


def _snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): path.read_bytes() for path in files}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("energy", "says"), ENERGIES)
def test_unusable_energies(given: Path, energy: str, says: str) -> None:
    _fails(f"analyze GIVEN/{energy} --json --quiet", given, says)


@pytest.mark.parametrize(("options", "says"), OPTIONS)
def test_bad_options(given: Path, options: str, says: str) -> None:
    _fails(f"analyze potential:triple-well --json --quiet {options}", given, says)


@pytest.mark.parametrize(("line", "says"), OTHERS)
def test_bad_command_lines(given: Path, line: str, says: str) -> None:
    _fails(line, given, says)


def test_zero_modes_that_are_not_declared(given: Path) -> None:
    code = "class Ring:\n    dim, zero_modes = 2, 'rotation'\n"
    code += "    def __call__(self, x):\n        return (x.square().sum(1) - 1) ** 2\n"
    (given / "ring.py").write_text(code)
    _fails("analyze GIVEN/ring.py:Ring --json --quiet", given, "declare them as its symmetry", code=3)


def test_a_damaged_analysis_can_be_replaced(given: Path) -> None:
    """Cut in half it is still recognised as ours: refused without --force, replaced with it."""
    shutil.copytree(given / "cut", "old")
    out, err = io.StringIO(), io.StringIO()
    command = ["analyze", "potential:double-well", "--config", str(given / "fast.toml"), "--out", "old", "--quiet"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        codes = [main(command), main([*command, "--force"])]
    assert codes == [2, 0] and "replace it with --force" in err.getvalue()
    assert json.loads(Path("old/analysis.json").read_text())["energy"]["dim"] == 1
