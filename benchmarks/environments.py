"""Competitors in environments of their own, made once, and asked as subprocesses of one thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
CACHE = Path.home() / ".cache" / "learned-landscape" / "competitors"
# What pip installs for each competitor, besides the torch that evaluates the energies; None: this environment.
REQUIREMENTS: dict[str, list[str] | None] = {
    "ours": None,
    "scipy_lbfgsb": ["scipy"],
    "scipy_hopping": ["scipy"],
    "torch_adam": ["numpy"],
    "pele_search": ["pele"],
    "topsearch_search": ["topsearch"],
    "ase_search": ["ase"],
}
VARIABLES = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


@dataclass
class Environments:
    """Virtual environments under `folder`; what cannot be installed is remembered with its reason."""

    folder: Path
    reasons: dict[str, str]

    def python(self, competitor: str) -> Path | None:
        """The interpreter of a competitor's environment, made on first use; None where that fails (see `reasons`)."""
        needs = REQUIREMENTS[competitor]
        if needs is None:
            return Path(sys.executable)
        name = "-".join(needs)
        python = self.folder / name / "bin" / "python"
        if (self.folder / name / "complete").exists():
            return python
        if name in self.reasons:
            return None
        print(f"making the environment of {name} in {self.folder}", file=sys.stderr)
        venv.create(self.folder / name, with_pip=True)
        command = [python, "-m", "pip", "install", "-q", *needs, _pinned_torch()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            self.reasons[name] = (done.stderr.strip() or "pip failed").splitlines()[-1]
            return None
        (self.folder / name / "complete").touch()
        return python

    def ask(self, competitor: str, request: dict[str, Any], limit: float) -> dict[str, Any]:
        """The competitor's answer, or {"not_measured": reason}."""
        python = self.python(competitor)
        if python is None:
            return {"not_measured": self.reasons["-".join(REQUIREMENTS[competitor] or [])]}
        paths = os.pathsep.join([str(BENCHMARKS), str(ROOT)])
        variables = os.environ | VARIABLES | {"PYTHONPATH": paths}
        command = [str(python), "-m", f"competitors.{competitor}", json.dumps(request)]
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, env=variables, cwd=folder, timeout=limit
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return {"not_measured": f"not done after {limit:.0f} s"}
        if done.returncode:
            return {"not_measured": (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]}
        return json.loads(done.stdout.strip().splitlines()[-1])


def _pinned_torch() -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith("torch=="))
