"""The house rules that can be checked: import order, light imports, one set of commands in README and CI."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import landscape

ROOT = Path(__file__).resolve().parent.parent
# A module of `landscape` imports only from its left.
ORDER = [
    *("lazy", "errors", "process", "energy", "tasks", "dynamics", "sampling", "search", "rates", "weights", "network"),
    *("checks", "store", "comparison", "configuration", "analysis", "continuation", "tables", "plots", "report", "cli"),
]
HEAVY = ("torch", "sklearn", "matplotlib", "torchsde")
# What an analysis without checks does not need.
NOT_NEEDED = (
    *("landscape.checks.run", "landscape.checks.causes", "landscape.rates.bounds", "landscape.rates.corrections"),
    *("landscape.rates.cores", "landscape.rates.grid", "landscape.rates.grid_rates", "landscape.rates.passages"),
    *("landscape.rates.langevin_monte_carlo", "scipy.ndimage"),
)
LAZY = ("landscape", "landscape.checks", "landscape.energy", "landscape.plots", "landscape.rates")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported(path: Path) -> set[str]:
    """Every module a file imports, absolute, whether at the top, in a function or for type checking."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parent, *([node.module] if node.module else [])])
            # `from landscape import energy` imports a room; `from landscape.energy import Energy` stays in it.
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "landscape" else {module}
    return names


def room(module: str) -> str:
    """The second part of a dotted name: "search" of landscape.search.minima."""
    return module.split(".")[1] if "." in module else ""


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_the_walk_over_imports_sees_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "landscape" / "search").mkdir(parents=True)
    source = tmp_path / "landscape" / "search" / "x.py"
    source.write_text(
        "import torchsde\nfrom landscape import rates\nfrom landscape.cli import main\n"
        "def f():\n    from ..weights import w\n    from . import flow\n    import nld_models.data as d\n"
    )
    assert imported(source) == {
        *("torchsde", "landscape.rates", "landscape.cli", "landscape.weights", "landscape.search", "nld_models.data")
    }


@pytest.mark.parametrize("path", sources("landscape"), ids=lambda path: str(path.relative_to(ROOT)))
def test_landscape_imports_from_the_left_only(path: Path) -> None:
    here = path.relative_to(ROOT / "landscape").with_suffix("").parts[0]
    modules = imported(path)
    assert not {m for m in modules if m.split(".")[0] in ("nld_models", "torchsde")}
    if here == "__init__":
        # The front door names every room, for type checkers alone: see the test of what an import brings in.
        return
    assert here in ORDER, f"give {here} a place in the import order"
    rooms = {room(m) for m in modules if m.split(".")[0] == "landscape"} - {here, ""}
    # The version is not a room: anyone may read it.
    rooms.discard("__version__")
    assert not rooms - set(ORDER[: ORDER.index(here)]), f"{here} imports from its right"


@pytest.mark.parametrize("path", sources("nld_models"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_packages_meet_in_few_places(path: Path) -> None:
    """nld_models takes errors, how a program runs and architectures from landscape; its adapter alone may use the rest,
    and what is made of a landscape's kinetics. Its pictures are drawn with those of landscape."""
    modules = {m for m in imported(path) if m.split(".")[0] == "landscape"}
    if path.stem not in ("landscape_adapter", "kinetics", "least_change", "refinement", "triple_well"):
        pictures = {m for m in modules if "plots" in path.parts and m.startswith("landscape.plots.")}
        assert modules - pictures <= {
            "landscape.errors", "landscape.process", "landscape.energy.architectures", "landscape.__version__",
        }  # fmt: skip
    if path.stem != "sde":
        assert "torchsde" not in imported(path)


def test_no_room_for_odds_and_ends() -> None:
    names = {path.stem for package in ("landscape", "nld_models") for path in (ROOT / package).rglob("*")}
    assert not names & {"utils", "util", "common", "helpers", "helper", "misc"}


def loaded_after(code: str, heavy: tuple[str, ...] = HEAVY) -> set[str]:
    """Which of some heavy modules are in memory after running `code` in a fresh interpreter."""
    report = f"import sys\n{code}\nprint('loaded', *[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_heavy_imports_are_noticed() -> None:
    assert loaded_after("import torch") == {"torch"}


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_answers_at_once(script: str, flag: str) -> None:
    module, function = PROJECT["scripts"][script].split(":")
    call = f"sys.argv[1:] = ['{flag}']\ntry:\n    main()\nexcept SystemExit as leaving:\n    assert not leaving.code"
    assert loaded_after(f"from {module} import {function} as main\n{call}") == set()


def test_import_landscape_is_light() -> None:
    assert loaded_after("import landscape\nassert 'analyze' in dir(landscape) and landscape.__version__") == set()


def test_an_analysis_without_checks_does_not_wait_for_what_they_need(tmp_path: Path) -> None:
    arguments = ["analyze", "potential:double-well", "--starts", "8", "--out", str(tmp_path / "out"), "--quiet"]
    code = f"from landscape.cli import main\nassert main({arguments}) in (0, 3)"
    assert loaded_after(code, NOT_NEEDED) == set()
    assert loaded_after(f"import {', '.join(NOT_NEEDED)}", NOT_NEEDED) == set(NOT_NEEDED)


def test_the_energies_of_the_benchmarks_need_torch_and_numpy_alone() -> None:
    """Competitors evaluate them in environments without scipy, for one."""
    energies = (
        "from landscape.energy.potentials import LennardJones\nfrom landscape.energy.architectures import ResidualMLP"
    )
    assert loaded_after(energies, ("scipy", "sklearn", "networkx", "matplotlib")) == set()


@pytest.mark.parametrize("package", LAZY)
def test_public_names_are_there(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


@pytest.mark.parametrize("package", LAZY)
def test_type_checkers_see_the_names_that_are_there(package: str) -> None:
    """What is imported under TYPE_CHECKING is what comes on first use, from the same modules."""
    tree = ast.parse(ROOT.joinpath(*package.split("."), "__init__.py").read_text())
    (choice,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {
        f"{node.module}.{alias.name}"
        for node in choice.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (call,) = (node for node in ast.walk(choice.orelse[0]) if isinstance(node, ast.Call))
    given = ast.literal_eval(call.args[1])
    assert told == {f"{package}.{module}.{name}" for module, names in given.items() for name in names}


def test_weights_are_public() -> None:
    assert {"SampledWeights", "sample_weights", "sublevel_basins"} <= set(landscape.__all__)


def install_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("python3 -m venv")]


def test_readme_has_one_line_to_run_and_one_to_test() -> None:
    run, test = install_lines((ROOT / "README.md").read_text())
    assert ".venv/bin/landscape analyze" in run and test.endswith(".venv/bin/python -m pytest -n 2")
    assert install_lines((ROOT / ".ci" / "run").read_text()) == [test]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
            assert "://" in target or (document.parent / target).exists(), f"{document.name}: {target}"


def test_everything_that_is_installed_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    wanted = [
        *PROJECT["dependencies"],
        *(name for extra in PROJECT["optional-dependencies"].values() for name in extra),
    ]
    names = {re.split(r"[<>=\[; ]", name)[0].lower() for name in wanted} - {PROJECT["name"]}
    assert names <= pinned
    assert "torch==2.13.0" in pins
