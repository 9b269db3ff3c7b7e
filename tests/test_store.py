"""The store: what survives SIGKILL, a full disk and a damaged file, who may write, and what a second search adds."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing import Launcher

from landscape.cli import main
from landscape.errors import UsageError
from landscape.store import Analysis, Reader, Store, database
from landscape.tasks import Answer
from landscape.tasks.answers import key_of

CHAIN = "potential:coupled-chain:n=3,g=0.1"  # 8 minima, 12 saddles, 6 and 1 of higher index
QUICK = "weights = false\nexact = false\n[minima]\nn_starts = 60\n[saddles]\nsweep = 60\nrows = 40\n"
KILLS = 20


def run(*argv: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in argv])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.toml").write_text(QUICK)


@pytest.fixture(scope="module")
def wells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished analysis of the double well."""
    folder = tmp_path_factory.mktemp("wells")
    (folder / "quick.toml").write_text(QUICK)
    code, _, err = run(
        "analyze", "potential:double-well", "--config", folder / "quick.toml", "-o", folder / "out", "--quiet"
    )
    assert code == 0, err
    return folder / "out"


@pytest.fixture
def copy(wells: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(wells, tmp_path / "copy"))


def same_landscape(found: Analysis, reference: Analysis) -> None:
    """Equal ids (the order of rows), indices and joins; positions to 1e-6."""
    for name in ("states", "saddles"):
        here, there = getattr(found, name), getattr(reference, name)
        assert here.x.shape == there.x.shape and np.abs(here.x - there.x).max() < 1e-6
        assert np.array_equal((here.eigenvalues < 0).sum(1), (there.eigenvalues < 0).sum(1))
    assert np.array_equal(found.saddles.joins, reference.saddles.joins)
    assert found.diagnostics["index_counts"] == reference.diagnostics["index_counts"]
    assert np.array_equal(found.states.hits, reference.states.hits)


# -- killed ----------------------------------------------------------------------------------------------------------


def test_a_search_that_is_killed_at_20_random_moments_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """SIGKILL after a random amount of work, again and again, in the search, its resumption, and in one that adds
    starts to it; whatever finishes in between is the undisturbed answer, and a new search begins."""
    draw = np.random.default_rng(0)
    with Launcher(tmp_path) as launcher:
        first = ("analyze", CHAIN, "--config", "quick.toml", "--quiet")
        more = ("--starts", "100")
        code, seconds = launcher.run(*first, "-o", "whole")
        assert code == 0
        reference = {first: Analysis.load("whole")}
        assert launcher.run("analyze", "--resume", "whole", *more, "--quiet")[0] == 0
        reference[more] = Analysis.load("whole")
        assert len(reference[first].states.x) == 8 and len(reference[first].saddles.x) == 12

        kills, finished, at_work = 0, 0, first
        command = [*first, "-o", "out"]
        while kills < KILLS or command[1] == "--resume":
            limit = draw.uniform(0, seconds) if kills < KILLS else None
            code, _ = launcher.run(*command, kill_after=limit)
            if code == -9:
                kills += 1
                # Begun, or even finished when the signal came: of the first search one is on record, of the second two.
                if (tmp_path / "out" / "analysis.sqlite").exists() and begun(tmp_path / "out", 1 + (at_work == more)):
                    command = ["analyze", "--resume", "out", "--quiet"]
                continue
            assert code == 0, launcher.errors.read_text()
            same_landscape(Analysis.load("out"), reference[at_work])
            finished += 1
            if at_work == first:
                at_work, command = more, ["analyze", "--resume", "out", *more, "--quiet"]
                if kills >= KILLS:
                    break
            else:
                at_work, command = first, [*first, "-o", "out", "--force"]
    assert finished >= 2
    assert not list((tmp_path / "out").glob("*-wal")), "the file can be copied"


def begun(folder: Path, number: int) -> bool:
    with Reader.open(folder) as reader:
        searches = reader.searches()
    return bool(searches) and (searches[-1].finished is None or len(searches) == number)


# -- one writer, readers, damage, space -------------------------------------------------------------------------------


def test_a_second_process_is_refused_politely_and_may_read(copy: Path) -> None:
    with Store.open(copy):
        for command in (["analyze", "--resume", copy], ["check", copy], ["analyze", "potential:double-well", "-o", copy,
                        "--force"]):  # fmt: skip
            code, _, err = run(*command)
            assert code == 2 and "another process is at work" in err and err.count("\n") == 1
        assert run("rates", copy)[0] == 0 and run("show", copy)[0] == 0
    assert run("analyze", "--resume", copy, "--quiet")[0] == 0


@pytest.mark.parametrize("how", ["cut", "garbled", "another file"])
def test_a_damaged_store_is_told_and_leaves_the_good_copy(copy: Path, how: str) -> None:
    file = copy / "analysis.sqlite"
    data = bytearray(file.read_bytes())
    if how == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif how == "garbled":
        data[4096:] = bytes(len(data) - 4096)
        file.write_bytes(data)
    else:
        file.write_text("no database")
    good = (copy / "analysis.json").read_bytes()
    for command in (["show", copy], ["rates", copy], ["analyze", "--resume", copy]):
        code, _, err = run(*command)
        assert code == 2 and "is damaged" in err and "analysis.json still holds" in err and err.count("\n") == 1
    assert (copy / "analysis.json").read_bytes() == good and run("rates", copy / "analysis.json")[0] == 0
    again = ["analyze", "potential:double-well", "--config", "quick.toml", "-o", copy, "--quiet"]
    assert run(*again)[0] == 2 and run(*again, "--force")[0] == 0 and run("rates", copy)[0] == 0


def test_a_full_disk_is_told_keeps_what_was_there_and_the_search_goes_on(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sqlite answers as on a full disk once its file would have more pages than now."""
    opened = database._for_writing

    def crowded(file: Path) -> sqlite3.Connection:
        connection = opened(file)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 4}")
        return connection

    before = Analysis.load(copy).to_document()
    command = ["analyze", CHAIN, "--config", "quick.toml", "-o", copy, "--quiet", "--force"]
    with monkeypatch.context() as patch:
        patch.setattr(database, "_for_writing", crowded)
        code, _, err = run(*command)
    assert code == 2 and "full" in err and "--resume goes on" in err and err.count("\n") == 1
    assert Analysis.load(copy).to_document() == before
    assert run("analyze", "--resume", copy, "--quiet")[0] == 0
    assert len(Analysis.load(copy).states.x) == 8


def test_the_store_is_one_file_that_holds_what_the_json_holds(wells: Path, tmp_path: Path) -> None:
    """Every command reads the store; without it, analysis.json serves, to the last digit."""
    assert sorted(path.name for path in wells.iterdir()) == [
        *("analysis.json", "analysis.sqlite", "network.graphml", "states.csv", "transitions.csv")
    ]
    for name in ("analysis.sqlite", "analysis.json"):
        (tmp_path / name).mkdir()
        shutil.copy(wells / name, tmp_path / name)
        assert Analysis.load(tmp_path / name).to_document() == json.loads((wells / "analysis.json").read_text())
        assert run("rates", tmp_path / name, "--json")[1] == run("rates", wells, "--json")[1]
        assert run("export", tmp_path / name, "--format", "csv", "-o", tmp_path / name / "net")[0] == 0
    with contextlib.closing(sqlite3.connect(wells / "analysis.sqlite")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        assert db.execute("PRAGMA user_version").fetchone()[0] == database.SCHEMA
        assert db.execute("PRAGMA auto_vacuum").fetchone()[0] == 1, "full: what is dropped must not stay in the file"
        kinds = {row[0] for row in db.execute("SELECT DISTINCT typeof(energy) FROM points")}
        assert kinds == {"real"}, "numpy's own numbers would be stored as blobs"


# -- going on -------------------------------------------------------------------------------------------------------


def test_more_starts_add_to_what_was_found(copy: Path) -> None:
    before = Analysis.load(copy)
    code, out, err = run("analyze", "--resume", copy, "--starts", "250", "--json", "--quiet")
    found = json.loads(out)
    assert code == 0, err
    assert sum(found["diagnostics"]["starts"].values()) == 250 and found["config"]["minima"]["n_starts"] == 250
    assert found["diagnostics"]["unseen"]["starts"] == 190
    for state, x, hits in zip(found["states"], before.states.x, before.states.hits, strict=True):
        assert np.abs(state["x"] - x).max() < 1e-6 and state["hits"] > hits
    shown = json.loads(run("show", copy, "--json")[1])
    assert [search["adds_to"] for search in shown["searches"]] == [None, 1] and shown["finished"]
    assert shown["analysis"] == json.loads((copy / "analysis.json").read_text())
    code, _, err = run("analyze", "--resume", copy, "--starts", "250")
    assert code == 2 and "250 starts have been made" in err


def test_what_cannot_go_on_is_refused(copy: Path, tmp_path: Path) -> None:
    for words, says in (
        (["--beta", "2"], "leave out --beta"),
        (["--seed", "2", "--force"], "leave out --seed, --force"),
        (["-o", "elsewhere"], "leave out --out"),
    ):
        code, _, err = run("analyze", "--resume", copy, *words)
        assert code == 2 and says in err
    code, _, err = run("analyze", "potential:quadratic:d=1", "--resume", copy)
    assert code == 2 and "has changed since" in err
    code, _, err = run("analyze", "--resume", tmp_path / "nowhere")
    assert code == 2 and "there is no analysis.sqlite" in err
    (copy / "analysis.sqlite").unlink()
    code, _, err = run("analyze", "--resume", copy)
    assert code == 2 and "there is no analysis.sqlite" in err


def test_an_energy_that_has_changed_is_refused_and_code_asks_for_trust(tmp_path: Path) -> None:
    file = tmp_path / "wells.py"
    file.write_text("def wells(x):\n    return ((x * x - 1) ** 2).sum(1)\n")
    assert run("analyze", "wells.py:wells", "--dim", "1", "--config", "quick.toml", "--quiet")[0] == 0
    code, _, err = run("analyze", "--resume", "wells.landscape")
    assert code == 2 and "is code" in err and "--trust" in err
    assert run("analyze", "--resume", "wells.landscape", "--trust", "--quiet")[0] == 0
    file.write_text("def wells(x):\n    return ((x * x - 2) ** 2).sum(1)\n")
    code, _, err = run("analyze", "wells.py:wells", "--resume", "wells.landscape", "--starts", "400")
    assert code == 2 and "has changed since the search began" in err
    # The same file, other values: it reads something else that has changed.
    file.write_text("def wells(x):\n    return ((x * x - 1) ** 2).sum(1)\n")
    with contextlib.closing(sqlite3.connect("wells.landscape/analysis.sqlite")) as db, db:
        ((text,),) = db.execute("SELECT record FROM searches").fetchall()
        record = json.loads(text)
        record["energy"]["values"][0] += 1e-4
        db.execute("UPDATE searches SET record = ?", (json.dumps(record),))
    code, _, err = run("analyze", "wells.py:wells", "--resume", "wells.landscape", "--starts", "400")
    assert code == 2 and "its values differ" in err


def test_a_process_killed_before_its_search_began_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    database._create(tmp_path / "out" / "analysis.sqlite")
    (tmp_path / "out" / f"{database.STAGING}left").mkdir()
    code, _, err = run("analyze", "potential:double-well", "--config", "quick.toml", "-o", "out", "--quiet")
    assert code == 0, err


def test_an_energy_without_a_minimum_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "slope.py").write_text("def slope(x):\n    return x.sum(1)\n")
    assert run("analyze", "slope.py:slope", "--dim", "2", "--config", "quick.toml", "--quiet")[0] == 2
    assert not (tmp_path / "slope.landscape").exists()


# -- answers --------------------------------------------------------------------------------------------------------


def test_answers_come_back_bit_by_bit(tmp_path: Path) -> None:
    arrays = {
        "x": np.random.default_rng(0).normal(size=(3, 2)), "status": np.array([0, -1, 3]),
        "odd": np.array([np.nan, -0.0, np.inf]), "empty": np.zeros((0, 4)), "flag": np.array([True, False]),
    }  # fmt: skip
    key = key_of("operation", "energy", {"x": torch.zeros(2)})
    with Store.open(tmp_path) as store:
        store.begin({"any": "thing"})
        store.put(key, "operation", Answer(arrays, {"value": 7}, 0.25))
        assert store.get(b"another") is None
    with Store.open(tmp_path) as store:
        found = store.get(key)
        assert found is not None and dict(found.evaluations) == {"value": 7} and found.seconds == 0.25
        assert found.arrays.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found.arrays[name].dtype == array.dtype and found.arrays[name].tobytes() == array.tobytes()
        store.resume(store.searches()[-1])
        store.finish("today")
        assert store.get(key) is None, "what is finished needs no blocks"


def test_every_bit_of_a_question_is_in_its_key() -> None:
    x = torch.zeros(2, 1, dtype=torch.float64)
    questions: list[dict[str, Any]] = [
        {"x": x}, {"x": x + 5e-324}, {"x": x.reshape(1, 2)}, {"x": x.to(torch.float32)}, {"x": x, "radius": 1.0},
        {"x": x, "radius": 1}, {"x": x, "radius": None}, {"x": x, "radius": "1"}, {"x": -x}, {"y": x},
        {"x": x, "region": (x, x)}, {"x": x, "region": (x, x, x)},
    ]  # fmt: skip
    keys = {key_of("operation", "energy", question) for question in questions}
    keys |= {key_of("another", "energy", questions[0]), key_of("operation", "other", questions[0])}
    assert len(keys) == len(questions) + 2
    assert key_of("operation", "energy", {"x": x.clone()}) in keys
    with pytest.raises(TypeError):
        key_of("operation", "energy", {"observe": print})


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.begin({"any": "thing"})
    with contextlib.closing(sqlite3.connect(tmp_path / "analysis.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="schema version 99"):
        Store.open(tmp_path)
    with pytest.raises(UsageError, match="schema version 99"):
        Reader.open(tmp_path)
