"""`landscape plot`: every picture by name, and what it says where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import landscape
from landscape.analysis import AnalysisConfig
from landscape.cli import main
from landscape.plots.gallery import PICTURES
from landscape.search import MinimaSearch

CODE = "import torch\n\ndef wells(x):\n    return ((x**2 - 1) ** 2).sum(1)\n"


def _saved(spec: str, folder: Path, beta: float, dim: int | None = None, starts: int = 200) -> Path:
    energy = landscape.load_energy(spec, dim=dim)
    config = AnalysisConfig(minima=MinimaSearch(n_starts=starts), weights=None)
    landscape.analyze(energy, landscape.Overdamped(beta=beta), config).save(folder)
    return folder


@pytest.fixture(scope="module")
def muller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved("potential:muller-brown", tmp_path_factory.mktemp("muller") / "mb.landscape", 0.1)


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved("potential:double-well", tmp_path_factory.mktemp("double") / "dw.landscape", 20.0)


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """An analysis whose energy, a file of code, is gone."""
    source = tmp_path / "wells.py"
    source.write_text(CODE)
    folder = _saved(f"{source}:wells", tmp_path / "wells.landscape", 4.0, dim=2)
    source.rename(tmp_path / "elsewhere.py")
    return folder


def _refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """The one line of an error, exit code 2, nothing on standard output."""
    assert main(["plot", *map(str, argv), "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("landscape: error: ")
    return err


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_default_picture_in_every_format(
    muller: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    target = tmp_path / f"picture.{form}"
    assert main(["plot", str(muller), "-o", str(target), "--quiet", "--size", "4,3.5", "--dpi", "60"]) == 0
    assert target.read_bytes()[:4] in (b"\x89PNG", b"<?xm", b"%PDF")
    out, err = capsys.readouterr()
    assert out.startswith(f"written: {target}\n    Contours of the energy") and err == ""
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_the_size_is_the_one_that_was_asked_for(double: Path, tmp_path: Path) -> None:
    target = tmp_path / "line.png"
    assert main(["plot", str(double), "-o", str(target), "--quiet", "--size", "5,3", "--dpi", "100"]) == 0
    width, height = (int.from_bytes(target.read_bytes()[at : at + 4]) for at in (16, 20))
    assert (width, height) == (500, 300)


def test_all_writes_a_folder_and_says_what_is_left_out(
    double: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "pictures"
    assert main(["plot", str(double), "--what", "all", "-o", str(folder), "--quiet", "--format", "svg"]) == 0
    out = capsys.readouterr().out
    written = {path.name for path in folder.iterdir()}
    for name in PICTURES:
        assert (f"{name}.svg" in written) != (f"left out: {name}: " in out)
    assert {"profile.svg", "drift.svg", "disconnectivity.svg", "network.svg", "weights.svg"} <= written
    assert "left out: contour: one dimension" in out


def test_one_dimension_gives_its_profile(double: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(double), "-o", str(tmp_path / "a.png"), "--quiet", "--dpi", "50"]) == 0
    assert "The energy over its one dimension" in capsys.readouterr().out
    assert "take the profile" in _refused(capsys, double, "--what", "contour", "-o", tmp_path / "b.png")


def test_planes_and_limits(muller: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "a.png"
    argv = ["plot", str(muller), "-o", str(target), "--quiet", "--dpi", "50", "--what", "contour"]
    assert main([*argv, "--plane", "0,1,s1", "--limit", "8"]) == 0
    out = capsys.readouterr().out
    assert "up to 8 kT" in out
    assert main([*argv, "--plane", "pca"]) == 0
    capsys.readouterr()
    assert "plane is pca" in _refused(capsys, muller, "-o", target, "--plane", "0,1")
    assert "states 0 to 2" in _refused(capsys, muller, "-o", target, "--plane", "0,1,7")
    assert "--limit" in _refused(capsys, muller, "-o", target, "--limit", "-2")
    assert "--limit" in _refused(capsys, muller, "-o", target, "--limit", "nan")


def test_pictures_without_the_energy(moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The default falls back on the paths; a contour says where the energy was; --energy finds it; code needs --trust
    only where nobody named it."""
    target = tmp_path / "a.png"
    assert main(["plot", str(moved), "-o", str(target), "--quiet", "--dpi", "50"]) == 0
    assert "minimum energy paths" in capsys.readouterr().out
    before = target.read_bytes()
    assert "say where it is with --energy" in _refused(capsys, moved, "--what", "contour", "-o", target)
    assert target.read_bytes() == before
    named = ["--energy", f"{tmp_path / 'elsewhere.py'}:wells"]
    assert main(["plot", str(moved), "--what", "contour", "-o", str(target), "--quiet", *named]) == 0
    assert "Contours" in capsys.readouterr().out
    (tmp_path / "elsewhere.py").rename(tmp_path / "wells.py")
    assert "--trust" in _refused(capsys, moved, "--what", "surface", "-o", target)
    assert main(["plot", str(moved), "--what", "surface", "-o", str(target), "--quiet", "--trust"]) == 0
    capsys.readouterr()
    assert main(["plot", str(moved), "--what", "all", "-o", str(tmp_path / "all"), "--quiet", "--dpi", "30"]) == 0
    assert "left out: contour: the energy of" in capsys.readouterr().out


def test_another_energy_is_refused(muller: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = (muller, "-o", tmp_path / "a.png", "--energy", "potential:triple-well")
    assert "is not the energy that was analysed" in _refused(capsys, *argv)


def test_bad_usage_is_one_line(muller: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png = tmp_path / "a.png"
    assert "FILE.png, FILE.svg or FILE.pdf" in _refused(capsys, muller, "-o", tmp_path / "a.gif")
    assert "FILE.png, FILE.svg or FILE.pdf" in _refused(capsys, muller, "-o", tmp_path / "a")
    assert "no analysis can be read" in _refused(capsys, tmp_path, "-o", png)
    assert "take one of contour" in _refused(capsys, muller, "--what", "landscape", "-o", png)
    assert "cannot be written" in _refused(capsys, muller, "-o", tmp_path / "none" / "a.png")
    assert "--size is W,H" in _refused(capsys, muller, "-o", png, "--size", "4")
    assert "--size is W,H" in _refused(capsys, muller, "-o", png, "--size", "4,inf")
    assert "larger --size" in _refused(capsys, muller, "-o", png, "--size", "1,1")
    assert "--dpi" in _refused(capsys, muller, "-o", png, "--dpi", "0")
    assert "does not fit" in _refused(capsys, muller, "-o", png, "--format", "svg")
    assert "writes to a folder" in _refused(capsys, muller, "--what", "all", "-o", png)
    assert "has 2" in _refused(capsys, muller, "--what", "volume", "-o", png)
    assert "one state only" in _refused(capsys, _single(tmp_path), "--what", "profile", "-o", png)
    assert not png.exists()
    plain = tmp_path / "plain"
    plain.write_text("a file")
    assert "is a file" in _refused(capsys, muller, "--what", "all", "-o", plain)


def _single(tmp_path: Path) -> Path:
    return _saved("potential:quadratic:d=2", tmp_path / "one.landscape", 1.0)


def test_a_damaged_analysis_is_told(muller: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy.landscape"
    shutil.copytree(muller, copy)
    document = json.loads((copy / "analysis.json").read_text())
    del document["states"]
    (copy / "analysis.json").write_text(json.dumps(document))
    assert "not a complete analysis" in _refused(capsys, copy / "analysis.json", "-o", tmp_path / "a.png")
    (copy / "analysis.sqlite").write_bytes(b"SQLite format 3" + bytes(500))
    assert "is damaged" in _refused(capsys, copy, "-o", tmp_path / "a.png")


def test_many_dimensions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty-four dimensions: the plane is that of the two softest directions, and the picture is there in seconds."""
    scales = np.linspace(1, 9, 24).tolist()
    source = tmp_path / "wide.py"
    source.write_text(f"import torch\nSCALES = torch.tensor({scales}, dtype=torch.float64)\n\n"
                      "def wide(x):\n    return (SCALES * x**2).sum(1)\n")  # fmt: skip
    folder = _saved(f"{source}:wide", tmp_path / "wide.landscape", 1.0, dim=24, starts=10)
    target = tmp_path / "a.png"
    assert main(["plot", str(folder), "-o", str(target), "--trust", "--quiet", "--dpi", "50"]) == 0
    assert "principal axes" in capsys.readouterr().out
