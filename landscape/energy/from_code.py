"""Energies named in Python code: `file.py:name` and `package.module:name`. This runs the code, by design.

Random numbers drawn while the code is imported come from a fixed seed, so that an untrained network named this way is
the same energy in every process.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from landscape.energy.energy import first_line
from landscape.energy.from_file import names
from landscape.errors import EnergyError


def read_code(spec: str) -> tuple[Any, Path | None]:
    """The object that `spec` names, and the file it comes from (None if it has none).

    A class is called without arguments. EnergyError if the code cannot be imported or has no such name.
    """
    where, _, name = spec.rpartition(":")
    if where.endswith(".py") and not Path(where).is_file():
        raise EnergyError(f"{where}: there is no such file")
    with _seeded():
        module = _run(spec, where)
        found = _member(module, name, spec)
        if inspect.isclass(found):
            found = _instance(found, spec)
    file = getattr(module, "__file__", None)
    return found, Path(file) if file else None


def instance_of(kind: type, name: str) -> Any:
    """One of a class given in memory, as `read_code` makes one: without arguments, random numbers from a fixed seed."""
    with _seeded():
        return _instance(kind, name)


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def public_names(path: Path) -> list[str]:
    """What a Python file defines at top level, found without running it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                found += [leaf.id for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]
    return [name for name in dict.fromkeys(found) if not name.startswith("_")]


@contextmanager
def importable_from(folder: Path) -> Iterator[None]:
    """Modules beside the user's file, or in the current folder, can be imported inside this block."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _run(spec: str, where: str) -> ModuleType:
    """Import the module; a file is run afresh each time, since it may have been edited."""
    try:
        if not where.endswith(".py"):
            with importable_from(Path.cwd()):
                importlib.invalidate_caches()
                return importlib.import_module(where)
        path = Path(where).resolve()
        # a name of its own, so that two files called energy.py do not meet
        unique = f"landscape_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        plan = importlib.util.spec_from_file_location(unique, path)
        if plan is None or plan.loader is None:
            raise ImportError(f"{path} is not Python source")
        module = importlib.util.module_from_spec(plan)
        sys.modules[unique] = module
        with importable_from(path.parent):
            plan.loader.exec_module(module)
        return module
    except ModuleNotFoundError as error:
        raise EnergyError(f"{spec}: there is no module {error.name!r} here; install it or check the name") from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        line = _last_line_in(error, where)
        raise EnergyError(f"{spec}: importing it raised {type(error).__name__}{line}: {first_line(error)}") from error


def _last_line_in(error: BaseException, where: str) -> str:
    """at line N", the deepest one inside the user's file, if it can be told."""
    number, trace = None, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == Path(where).name:
            number = trace.tb_lineno
        trace = trace.tb_next
    return f" at line {number}" if number else ""


def _member(module: ModuleType, name: str, spec: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not part or not hasattr(found, part):
            file = getattr(module, "__file__", None)
            known = public_names(Path(file)) if file else []
            raise EnergyError(f"{spec}: there is no {name!r} in it; it defines {names(known, most=8)}")
        found = getattr(found, part)
    return found


def _instance(kind: type, spec: str) -> Any:
    try:
        needed = [
            parameter.name
            for parameter in inspect.signature(kind).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):
        needed = []
    if needed:
        raise EnergyError(
            f"{spec} is a class that needs {names(needed)}; name an instance or a class without required arguments"
        )
    try:
        return kind()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise EnergyError(f"{spec}: making one raised {type(error).__name__}: {first_line(error)}") from error
