"""`nld` as a user meets it: in a process of its own for the messages, in this one for the numbers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nld_models.cli import main
from nld_models.paper_chains import experiment
from nld_models.sequence_files import load_sequences

ROOT = Path(__file__).resolve().parent.parent


def test_made_data_come_back_from_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made.npz"
    arguments = "2 --noise hard --split test --seed 3 --emission-seed 5 --sequences 40 --length 30 --json -o"
    assert main(["data", *arguments.split(), str(out)]) == 0
    document = json.loads(capsys.readouterr().out)
    data = load_sequences(out)
    model = experiment(2, "hard", 5)
    assert data.values.shape == (40, 30, 15) and document["lengths"] == {"min": 30, "max": 30, "total": 1200}
    hits = model.filter(data.values).argmax(2) == data.labels
    assert document["accuracy_limits"]["filter"] == pytest.approx(hits.mean(), abs=1e-12)
    assert document["label_frames"]["0"] == int((data.labels == 0).sum())
    with np.load(out) as archive:
        assert np.array_equal(archive["transition"], model.transition)
        assert np.array_equal(archive["means"], model.means)
        assert (archive["seed"], archive["emission_seed"], archive["noise"]) == (3, 5, "hard")
    assert list(tmp_path.iterdir()) == [out]


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made.npz"
    arguments = ["data", "1", "--sequences", "3", "--length", "4", "-o", str(out)]
    assert main(arguments) == 0
    first = out.read_bytes()
    assert main([*arguments, "--seed", "1"]) == 2
    assert "--force" in capsys.readouterr().err and out.read_bytes() == first
    assert main([*arguments, "--seed", "1", "--force"]) == 0
    assert out.read_bytes() != first


def test_a_file_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("sequence,a,b,label\nx,1,10,0\nx,3,,0\ny,5,30,1\n")
    assert main(["data", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["lengths"] == {"min": 1, "max": 2, "total": 3} and document["missing_values"] == 1
    assert document["label_frames"] == {"0": 2, "1": 1}
    assert document["channels"][0] == {
        "mean": 3,
        "sd": pytest.approx((8 / 3) ** 0.5),
        "min": 1,
        "max": 5,
        "observed": 3,
    }
    assert document["channels"][1] == {"mean": 20, "sd": 10, "min": 10, "max": 30, "observed": 2}
    assert main(["data", str(path)]) == 0
    text = capsys.readouterr().out
    assert "2 sequences of 1 to 2 frames (3 in all), 2 channels" in text and "missing values: 1 of 6" in text
    assert main(["data", str(path), "--missing", "refuse"]) == 2


BAD = {
    "no command": ([], "COMMAND"),
    "no source": (["data"], "spirals|FILE"),
    "missing file": (["data", "nowhere.npz"], "nowhere.npz: No such file"),
    "foreign suffix": (["data", "notes.txt"], ".npy, .npz, .csv"),
    "truncated": (["data", "short.npz"], "short.npz: not a readable .npz file"),
    "pickle": (["data", "objects.npy"], "objects.npy: not a readable .npy file"),
    "words": (["data", "words.csv"], "line 3, column a: 'two' is not a number"),
    "constant channel": (["data", "constant.npy"], "channel 0 is constant"),
    "seed": (["data", "1", "--seed", "-1"], "whole number"),
    "noise": (["data", "1", "--noise", "loud"], "easy"),
    "no sequences": (["data", "1", "--sequences", "0"], "at least one sequence"),
    "folder missing": (["data", "1", "--sequences", "2", "-o", "none/x.npz"], "cannot write"),
    "wrong output": (["data", "1", "--sequences", "2", "-o", "x.csv"], ".npz"),
    "flag of the other kind": (["data", "words.csv", "--seed", "1"], "--seed is for data that are made"),
    "flag of files": (["data", "1", "--missing", "mask"], "--missing is for files"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad")
    np.savez(path / "whole.npz", sequences=np.zeros((2, 3, 4)))
    (path / "short.npz").write_bytes((path / "whole.npz").read_bytes()[:200])
    np.save(path / "objects.npy", np.array([np.zeros(2), np.zeros(3)], dtype=object))
    np.save(path / "constant.npy", np.ones((2, 3, 1)))
    (path / "words.csv").write_text("a,b\n1,2\ntwo,3\n")
    (path / "notes.txt").write_text("1\n")
    return path


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_2(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = BAD[case]
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    try:
        code = main(arguments)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    captured = capsys.readouterr()
    assert code == 2 and captured.out == ""
    assert captured.err.count("\n") == 1 and message in captured.err
    assert sorted(folder.iterdir()) == before


def test_an_interrupt_is_quiet_and_leaves_nothing(tmp_path: Path) -> None:
    """Interrupted while it works (the full test set takes seconds): exit 130, one line, no file."""
    command = [
        sys.executable,
        "-c",
        "import sys, nld_models.cli as c; print('up', flush=True); sys.exit(c.main(sys.argv[1:]))",
    ]
    process = subprocess.Popen(
        [*command, "data", "1", "--sequences", "20000", "-o", str(tmp_path / "x.npz")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == "nld data: interrupted\n"
    assert list(tmp_path.iterdir()) == []
