"""`analyze --check` and `landscape check`: what is printed, what is kept, and what an interruption leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from landscape import tables
from landscape.checks import CheckOptions, Checks
from landscape.store import Analysis
from tests.conftest import PaperModel
from tests.test_cli import FAST, run

POTENTIAL = "potential:double-well"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "fast.toml"
    path.write_text(FAST.replace("[weights]\ntarget_se = 0.02\n", ""))
    path.write_text(f"weights = false\n{path.read_text()}")
    return path


def test_analyze_with_a_check(fast: Path) -> None:
    """A doubtful rate is an answer: the exit code is 0."""
    done = run("analyze", POTENTIAL, "--config", fast, "--out", "out", "--beta", 10, "--check")
    assert done.code == 0, done.err
    assert (
        "transitions (1 saddle" in done.out
        and "checks (2 transitions; reference: grid; ratio = formula / reference" in done.out
    )
    rows = [line for line in done.out.splitlines() if line.endswith("asymptotics doubtful: low barrier")]
    assert len(rows) == 2
    assert max(map(len, done.out.splitlines())) <= tables.WIDTH
    document = json.loads(Path("out/analysis.json").read_text())
    assert [row["verdict"] for row in document["checks"]["transitions"]] == ["asymptotics doubtful"] * 2
    assert document["checks"]["budget"] == CheckOptions.budget


def test_check_of_a_saved_analysis(fast: Path) -> None:
    """Only the stored analysis changes, and in it only the checks and the time step; --json prints what is stored."""
    run("analyze", POTENTIAL, "--config", fast, "--out", "out", "--beta", 20)
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert json.loads(before["analysis.json"])["checks"] is None
    done = run("check", "out", "--budget", 2, "--time-step", 0.1, "--json", "--quiet")
    assert done.code == 0 and done.err == ""
    stored = json.loads(Path("out/analysis.json").read_text())
    assert done.document == stored
    changed = [path.name for path in Path("out").iterdir() if path.read_bytes() != before[path.name]]
    assert sorted(changed) == ["analysis.json", "analysis.sqlite"]
    assert stored["checks"]["time_step"] == stored["energy"]["time_step"] == 0.1
    text = run("check", "out", "--budget", 2, "--quiet")
    assert "dt 0.1" in text.out and "written: out/analysis.json" in text.out and "agrees" in text.out
    # the long time step is said from now on; rates at another temperature leave the checks out
    shown = run("rates", "out")
    assert "time step" in shown.out and "checks (2 transitions" in shown.out
    assert "the checks were made at other parameters" in " ".join(run("rates", "out", "--beta", 15).out.split())


def test_an_interrupted_check_keeps_the_analysis(fast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> Checks:
        raise KeyboardInterrupt

    monkeypatch.setattr("landscape.checks.run_checks", interrupt)
    done = run("analyze", POTENTIAL, "--config", fast, "--out", "out", "--check")
    assert done.code == 130 and "interrupted: the analysis was written to out" in done.err
    assert "states (2" in done.out and "checks (" not in done.out
    assert Analysis.load("out").checks is None
    before = Path("out/analysis.json").read_bytes()
    done = run("check", "out")
    assert done.code == 130 and "nothing was written" in done.err
    assert Path("out/analysis.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("analyze", POTENTIAL, "--check-budget", "5"), "give --check as well"),
        (("analyze", POTENTIAL, "--check", "--check-budget", "0"), "budget above 0"),
        (("analyze", POTENTIAL, "--time-step", "-1"), "a time step is finite and above 0"),
        (("check", "nowhere"), "no analysis can be read"),
        (("check", "nowhere", "--budget", "x"), "a number is needed"),
    ],
)
def test_bad_input_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = run(*words)
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1
    assert not list(Path().iterdir())


def test_another_energy_is_refused(fast: Path) -> None:
    run("analyze", POTENTIAL, "--config", fast, "--out", "out")
    done = run("check", "out", "--energy", "potential:double-well:barrier=2", "--quiet")
    assert done.code == 2 and Analysis.load("out").checks is None


def test_the_table_fits_whatever_it_says() -> None:
    """The longest of everything side by side, and a row of which nothing is known."""
    row = {
        "from": 100, "to": 101, "log_formula": -1000.0, "log_reference": -1000.5, "log_interval": [None, -999.0],
        "log_ratio": 0.5, "method": "simulation", "verdict": "asymptotics doubtful", "reason": "anharmonic well",
        "effort": "", "correction": "", "log_corrected": None, "time_step_factor": 1.2345,
    }  # fmt: skip
    blank = row | {"log_reference": None, "log_interval": [None, None], "log_ratio": None, "method": "",
                   "verdict": "not checked", "reason": "no rate was seen " * 12, "time_step_factor": None}  # fmt: skip
    checks = {
        "transitions": [row, blank], "timescales": [], "timescale_method": "", "time_step": 0.12345,
        "time_step_reason": "", "confidence": 0.95, "budget": 60.0, "seconds": 61.0,
    }  # fmt: skip
    other = row | {"method": "bracket", "log_interval": [-1000.7, -999.0]}
    text = tables.checks_text({"checks": checks | {"transitions": [row, blank, other]}})
    assert max(map(len, text.splitlines())) <= tables.WIDTH  # rates beyond float64, by two methods
    assert "+- 85 %" in text
    text = tables.checks_text({"checks": checks})
    assert max(map(len, text.splitlines())) <= tables.WIDTH
    assert "100 -> 101: no rate was seen" in text and "anharmonic well" in text
    assert tables.checks_text({"checks": None}) == tables.checks_text({}) == ""
    assert "no transition" in tables.checks_text({"checks": checks | {"transitions": []}})


@pytest.mark.slow
def test_a_published_model(paper_models: list[PaperModel], fast: Path) -> None:
    model = next(m for m in paper_models if (m.folder, m.number) == ("symmetric_overdamped", 0))
    done = run(
        "analyze", model.path, "--config", fast, "--out", "out", "--check", "--check-budget", 20, "--time-step", 0.1,
        "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.count("agrees") >= 6 and done.out.count("  x ") == 6
    assert "the time step 0.1 is long" in done.out
