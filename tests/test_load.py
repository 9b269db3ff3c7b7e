"""Loading and saving energies: every format there and back, published models against their oracles, bad files."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from landscape.energy import Energy, as_energy, load_energy, save_energy
from landscape.energy.architectures import build
from landscape.errors import EnergyError, UsageError

CONFIGS: dict[str, dict[str, Any]] = {
    "residual-mlp": {"dim": 2, "width": 8, "features": 4, "n_blocks": 2},
    "soft-minimum": {"dim": 2, "n_components": 3},
    "mlp": {"dim": 2, "hidden": [8, 8], "activation": "tanh", "confinement": 0.5},
}
DYNAMICS: dict[str, Any] = {
    "dynamics": "underdamped", "beta": 2.0, "gamma": [1.0, 3.0], "mass": [0.5, 0.25], "units": "kT", "time_unit": "ps",
}  # fmt: skip
X = np.random.default_rng(0).standard_normal((6, 2))

SOURCE = """
import torch
from torch import nn

def well(x):
    return (x**4).sum(1) / 4 - (x * x).sum(1) / 2

def planar(x):
    return well(x)

planar.dim = 2

class Network(nn.Module):
    dim = 2
    metadata = {"dynamics": "overdamped", "beta": 3.0}

    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x):
        return self.layers(x) + x.square().sum(1, keepdim=True)

class Needy(nn.Module):
    def __init__(self, width, depth):
        super().__init__()

network = Network()
table, _private = [1, 2], 3
"""


def network(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(name, CONFIGS[name])


def agree(a: Energy, b: Energy, x: np.ndarray = X) -> None:
    np.testing.assert_allclose(a(x), b(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(a.gradient(x), b.gradient(x), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(a.hessian(x), b.hessian(x), rtol=1e-9, atol=1e-10)


def refusal(spec: Any, **options: Any) -> str:
    with pytest.raises((EnergyError, UsageError)) as caught:
        load_energy(spec, **options)
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 2
    return message


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "my_energies.py"
    path.write_text(SOURCE)
    return path


def test_published_models_bring_their_dynamics_and_stationary_points(paper_model: Any) -> None:
    energy, oracle = load_energy(paper_model.path), paper_model.oracle
    metadata = energy.metadata
    assert energy.dim == oracle["dim"] and metadata["dynamics"] == oracle["dynamics"] and energy.notes == []
    assert metadata["beta"] == pytest.approx(oracle["beta"], rel=1e-6)
    assert metadata["gamma"] == pytest.approx(oracle["gamma"], rel=1e-6)
    inverse = oracle["inverse_mass"]
    assert metadata["mass"] == (None if inverse is None else pytest.approx([1 / m for m in inverse], rel=1e-6))
    points = oracle["minima"] + oracle["saddles"]
    x = np.array([point["x"] for point in points])
    np.testing.assert_allclose(energy(x), [point["energy"] for point in points], atol=1e-8)
    np.testing.assert_allclose(energy.gradient(x), 0, atol=1e-5)
    curvature = np.linalg.eigvalsh(energy.hessian(x))
    np.testing.assert_allclose(curvature, [point["hessian_eigenvalues"] for point in points], rtol=1e-4, atol=1e-4)
    assert energy.evaluations.value == len(x)


def test_the_energy_network_of_a_checkpoint_alone_is_enough(tmp_path: Path) -> None:
    module = network("residual-mlp")
    for content in (module.state_dict(), {"state_dict": module.state_dict(), "epoch": 3}):
        torch.save(content, tmp_path / "energy.pth")
        energy = load_energy(tmp_path / "energy.pth")
        agree(energy, load_energy(module))
        assert energy.dim == 2 and "dynamics" not in energy.metadata


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt2"])
def test_round_trip_of_networks(name: str, suffix: str, tmp_path: Path) -> None:
    module, path = network(name), tmp_path / f"energy{suffix}"
    assert save_energy(module, path, **DYNAMICS, extra={"note": "trained"}, rotation=[[0, 1], [-1, 0]]) == path
    energy = load_energy(path, trust=suffix == ".pt2")
    assert energy.evaluations.as_dict() == dict.fromkeys(("value", "gradient", "hvp", "hessian"), 0)
    agree(energy, load_energy(module))
    assert {key: energy.metadata[key] for key in DYNAMICS} == DYNAMICS
    assert energy.metadata["note"] == "trained" and energy.metadata["rotation"] == [[0, 1], [-1, 0]]
    assert len(energy.sha256 or "") == 64 and energy.source == str(path)
    # and once more, from the loaded energy
    again = tmp_path / f"again{suffix}"
    save_energy(energy, again)
    second = load_energy(again, trust=True)
    agree(second, energy)
    assert dict(second.metadata) == dict(energy.metadata)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_archive_takes_any_batch_and_any_torch_energy(tmp_path: Path) -> None:
    for spec in ("potential:muller-brown", "potential:coupled-chain:n=3,g=0.2", "potential:gaussian-mixture"):
        energy = load_energy(spec)
        path = save_energy(energy, tmp_path / "e.pt2", beta=0.1)
        loaded = load_energy(path, trust=True)
        x = np.random.default_rng(1).standard_normal((2000, energy.dim))
        for rows in (x, x[:1], x[:2], x[:0]):
            agree(loaded, energy, rows)
        assert loaded.metadata["beta"] == 0.1


def test_a_published_model_survives_both_formats(paper_model: Any, tmp_path: Path) -> None:
    energy = load_energy(paper_model.path)
    x = np.array([point["x"] for point in paper_model.oracle["minima"]])
    loaded = load_energy(save_energy(energy, tmp_path / "e.safetensors"))
    assert np.array_equal(loaded(x), energy(x)) and np.array_equal(loaded.hessian(x), energy.hessian(x))
    assert dict(loaded.metadata) == dict(energy.metadata)


def test_single_precision_networks_are_saved_as_they_are(tmp_path: Path) -> None:
    module = network("mlp")
    path = save_energy(module, tmp_path / "e.safetensors")
    assert load_energy(path, dtype="float32")(X).dtype == np.float32
    assert next(module.parameters()).dtype == torch.float32
    doubled = save_energy(load_energy(module), tmp_path / "d.safetensors")
    assert path.stat().st_size < 0.75 * doubled.stat().st_size


def test_scalars_become_one_number_a_coordinate(tmp_path: Path) -> None:
    path = save_energy(network("mlp"), tmp_path / "e.safetensors", beta=np.float64(2), gamma=np.array([1, 2]), mass=3)
    assert load_energy(path).metadata["gamma"] == [1.0, 2.0]
    assert load_energy(path).metadata["mass"] == [3.0, 3.0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beta": 0.0}, "beta is a finite number above 0"),
        ({"beta": float("nan")}, "beta is a finite number above 0"),
        ({"gamma": [1.0, 2.0, 3.0]}, "gamma is one number or 2"),
        ({"mass": -1.0}, "mass is a finite number above 0"),
        ({"dynamics": "brownian"}, "dynamics is overdamped or underdamped"),
        ({"extra": {"a": object()}}, "plain JSON data"),
        ({"extra": {"a": float("inf")}}, "plain JSON data"),
        ({"extra": {"config": 1}}, "may not hold config"),
        ({"dim": 3}, "has dimension 2, but 3"),
    ],
)
def test_wrong_metadata_are_not_saved(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises((EnergyError, UsageError)) as caught:
        save_energy(network("mlp"), tmp_path / "e.safetensors", **options)
    assert words in str(caught.value) and not list(tmp_path.iterdir())


def test_what_cannot_be_saved_says_so_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(EnergyError, match=r"save it as \.pt2"):
        save_energy(load_energy("potential:muller-brown"), path)
    assert path.read_bytes() == b"old"
    with pytest.raises(UsageError, match=r"saved as \.safetensors or \.pt2"):
        save_energy(network("mlp"), tmp_path / "e.pth")
    with pytest.raises(UsageError, match="there is no folder"):
        save_energy(network("mlp"), tmp_path / "none" / "e.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        save_energy(network("mlp"), tmp_path / "folder.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.safetensors", "folder.safetensors"]


class InnerGradient(nn.Module):
    """|x|^2 / 2 + |grad F|^2, with autograd called in the forward pass: torch.export loses that part's derivative."""

    dim = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x.requires_grad:
            x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad((x**4).sum() / 4 - (x * x).sum() / 2, x, create_graph=True)
        return gradient.square().sum(1) + 0.5 * x.square().sum(1)


def export(module: nn.Module, path: Path, dtype: torch.dtype = torch.float64, dynamic: bool = True) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
        program = torch.export.export(module, (torch.ones(4, 2, dtype=dtype) / 3,), dynamic_shapes=shapes)
        torch.export.save(program, path)
    return path


def test_a_derivative_lost_by_export_is_caught_on_saving_and_on_loading(tmp_path: Path) -> None:
    load_energy(InnerGradient())  # sound in memory
    with pytest.raises(EnergyError, match=r"torch\.export"):
        save_energy(InnerGradient(), tmp_path / "e.pt2")
    assert not list(tmp_path.iterdir())

    class Lost(nn.Module):
        """What such an export computes: right values, no derivative through the inner gradient."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.detach() ** 3 - x.detach()).square().sum(1) + 0.5 * x.square().sum(1)

    assert "gradient" in refusal(export(Lost(), tmp_path / "lost.pt2"), trust=True)


def test_foreign_archives(tmp_path: Path) -> None:
    module = network("mlp").eval()
    single = load_energy(export(module, tmp_path / "single.pt2", torch.float32), trust=True)
    agree(single, load_energy(module))
    assert single.dim == 2 and "dynamics" not in single.metadata
    fixed = export(module, tmp_path / "fixed.pt2", torch.float32, dynamic=False)
    assert "batches of exactly 4" in refusal(fixed, trust=True)
    assert "has dimension 2, but 3" in refusal(tmp_path / "single.pt2", trust=True, dim=3)
    (tmp_path / "single.pt2").rename(tmp_path / "renamed.pt")
    agree(load_energy(tmp_path / "renamed.pt", trust=True), single)


def test_archives_need_trust(tmp_path: Path) -> None:
    path = save_energy(network("mlp"), tmp_path / "e.pt2")
    message = refusal(path)
    assert "--trust" in message and "save_energy" in message and "runs code" in message


@pytest.mark.parametrize("trust", [False, True])
def test_damaged_archives_are_one_quiet_line(
    trust: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = save_energy(network("mlp"), tmp_path / "e.pt2").read_bytes()
    cut, junk, other = (tmp_path / name for name in ("cut.pt2", "junk.pt2", "other.pt2"))
    cut.write_bytes(whole[: len(whole) // 2])
    junk.write_bytes(b"junk" * 100)
    torch.save({"a": 1}, other)
    for path in (cut, junk):
        assert "not a torch.export archive" in refusal(path, trust=trust)
    assert ("--trust" if not trust else "cannot read") in refusal(other, trust=trust)
    assert [r for r in caplog.records if r.levelno >= logging.INFO] == [] and capfd.readouterr() == ("", "")
    assert not logging.getLogger("torch.export").disabled


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (os.environ["EVIL"],)


class Pickled(nn.Module):
    dim = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x**4).sum(1) - x.square().sum(1)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_refused_with_the_names_it_wants(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("EVIL", str(mark))
    evil = tmp_path / "evil.pth"
    if legacy:
        evil.write_bytes(pickle.dumps(Evil()))
    else:
        torch.save({"weights": Evil()}, evil)
    message = refusal(evil)
    assert f"{os.name}.mkdir" in message and "--trust" in message and not mark.exists()
    module = tmp_path / "module.pt"
    torch.save(Pickled(), module, _use_new_zipfile_serialization=not legacy)
    assert "Pickled" in refusal(module)
    energy = load_energy(module, trust=True)
    np.testing.assert_allclose(energy(X), (X**4).sum(1) - (X * X).sum(1), rtol=1e-12)


def test_other_checkpoints_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    torch.save({"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}, path)
    assert "holds fc.bias, fc.weight" in refusal(path)
    torch.save(torch.zeros(3), path)
    assert "holds a Tensor" in refusal(path)
    state = {f"energy_landscape.{key}": value for key, value in network("residual-mlp").state_dict().items()}
    torch.save(state, path)
    assert "lacks _beta, gamma" in refusal(path)
    state |= {"_beta": torch.tensor(0.5), "gamma": torch.ones(1, 3)}
    torch.save(state, path)
    assert "gamma is one number or 2" in refusal(path)
    state["gamma"] = torch.ones(1, 2)
    torch.save(state | {"energy_landscape.out_block.2.bias": torch.tensor([float("nan")])}, path)
    assert "out_block.2.bias" in refusal(path)
    del state["energy_landscape.blocks.1.0.bias"]
    torch.save(state, path)
    assert "lacks tensor blocks.1.0.bias" in refusal(path)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pt2", ".safetensors", ".txt"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 200, b"PK\x03\x04 not a zip", b"\x80\x02"])
@pytest.mark.parametrize("trust", [False, True])
def test_foreign_and_empty_files(suffix: str, content: bytes, trust: bool, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    assert str(path) in refusal(path, trust=trust)


def test_truncated_files_of_every_kind(tmp_path: Path) -> None:
    module = network("mlp")
    torch.save(network("residual-mlp").state_dict(), tmp_path / "c.pth")
    save_energy(module, tmp_path / "c.safetensors")
    for name in ("c.pth", "c.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for part in (0.1, 0.5, 0.95):
            (tmp_path / name).write_bytes(whole[: int(part * len(whole))])
            refusal(tmp_path / name)


def write_safetensors(path: Path, header: Any, change: dict[str, torch.Tensor | None] | None = None) -> Path:
    tensors = {key: value.clone() for key, value in network("mlp").state_dict().items()}
    for key, value in (change or {}).items():
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(tensors, path, metadata={"landscape": text})
    return path


HEADER = {"format": 1, "architecture": "mlp", "config": CONFIGS["mlp"], "dim": 2}


def test_a_safetensors_file_written_by_hand(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "e.safetensors", HEADER | {"beta": 2, "gamma": 0.5})
    energy = load_energy(path, dim=2)
    agree(energy, load_energy(network("mlp")))
    assert energy.metadata["beta"] == 2.0 and energy.metadata["gamma"] == [0.5, 0.5]
    minimal = {"format": 1, "architecture": "mlp", "config": CONFIGS["mlp"]}
    agree(load_energy(write_safetensors(tmp_path / "m.safetensors", minimal)), energy)


@pytest.mark.parametrize(
    ("header", "change", "words"),
    [
        ("{", {}, "is not JSON"),
        ("[1]", {}, "holds a list"),
        (HEADER | {"format": 2}, {}, "format is 1, not 2"),
        ({"architecture": "mlp"}, {}, "format is 1, not None"),
        (HEADER | {"architecture": "transformer"}, {}, "unknown architecture 'transformer'"),
        (HEADER | {"architecture": None}, {}, "names an architecture"),
        (HEADER | {"config": [2]}, {}, "names an architecture"),
        (HEADER | {"config": {"dim": 2}}, {}, "cannot be built"),
        (HEADER | {"config": CONFIGS["mlp"] | {"hidden": [10**7]}}, {}, "hidden is a whole number"),
        (HEADER | {"config": CONFIGS["mlp"] | {"hidden": [9, 8]}}, {}, ", not (9"),
        (HEADER | {"dim": 3}, {}, "dim is 3, but config says 2"),
        (HEADER | {"dim": "2"}, {}, "dim is a whole number"),
        (HEADER | {"beta": -1}, {}, "beta is a finite number above 0"),
        (HEADER | {"beta": "2"}, {}, "beta is a finite number above 0"),
        (HEADER | {"gamma": [1, 2, 3]}, {}, "gamma is one number or 2"),
        (HEADER | {"dynamics": "fast"}, {}, "dynamics is overdamped or underdamped"),
        (HEADER | {"time_unit": 3}, {}, "time_unit is a text"),
        (HEADER, {"layers.0.bias": None}, "lacks tensor layers.0.bias"),
        (HEADER, {"extra": torch.zeros(2)}, "foreign tensor extra"),
        (HEADER, {"layers.0.bias": torch.zeros(8, dtype=torch.int64)}, "layers.0.bias holds torch.int64"),
        (HEADER, {"layers.0.bias": torch.full((8,), torch.inf)}, "layers.0.bias"),
    ],
)
def test_safetensors_that_break_a_rule(header: Any, change: Any, words: str, tmp_path: Path) -> None:
    message = refusal(write_safetensors(tmp_path / "e.safetensors", header, change))
    assert words in message and "e.safetensors" in message


def test_safetensors_without_our_key(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "e.safetensors")
    assert "no metadata key 'landscape'" in refusal(tmp_path / "e.safetensors")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network("mlp"), torch.zeros(2, 2)).save(str(tmp_path / "script.pt"))
    for trust in (False, True):
        assert "TorchScript" in refusal(tmp_path / "script.pt", trust=trust)


def test_functions_modules_and_classes_in_files(source: Path) -> None:
    well = (X**4).sum(1) / 4 - (X * X).sum(1) / 2
    np.testing.assert_allclose(load_energy(f"{source}:well", dim=2)(X), well, rtol=1e-12)
    np.testing.assert_allclose(load_energy(f"{source}:planar")(X), well, rtol=1e-12)
    made, instance = load_energy(f"{source}:Network"), load_energy(f"{source}:network")
    assert made.metadata["beta"] == instance.metadata["beta"] == 3.0 and made.sha256 == instance.sha256
    # untrained parameters come from a fixed seed: the same energy in every process
    assert np.array_equal(made(X), load_energy(f"{source}:Network")(X))
    call = f"load_energy({f'{source}:Network'!r})(np.ones((1, 2)))[0]"
    code = f"import numpy as np; from landscape.energy import load_energy; print({call})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(float(made(np.ones((1, 2)))[0]), rel=1e-12)


def test_an_energy_object_named_in_code_keeps_its_own(source: Path) -> None:
    mine = "mine = Energy(well, 2, zero_modes='none really')"
    source.write_text(f"{SOURCE}\nfrom landscape.energy import Energy\n{mine}\n")
    energy = load_energy(f"{source}:mine")
    assert energy.zero_modes == "none really" and energy.source == f"{source}:mine" and energy.sha256
    assert "has dimension 2" in refusal(f"{source}:mine", dim=3)


def test_modules_of_the_current_folder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = source.parent / "a_package"
    package.mkdir()
    (package / "__init__.py").touch()
    source.rename(package / "energies.py")
    monkeypatch.chdir(source.parent)
    path = list(sys.path)
    assert load_energy("a_package.energies:planar").dim == 2
    assert sys.path == path
    assert "no module 'a_package.nothing'" in refusal("a_package.nothing:planar")
    assert load_energy("landscape.energy.potentials:MullerBrown").dim == 2


def test_a_file_imports_its_neighbours_and_is_read_afresh(source: Path) -> None:
    user = source.with_name("user.py")
    user.write_text("from my_energies import planar\n")
    try:
        assert load_energy(f"{user}:planar").dim == 2
        user.write_text("def energy(x):\n    return 3 * x.square().sum(1)\n")
        assert load_energy(f"{user}:energy", dim=1)(np.ones((1, 1)))[0] == 3
    finally:
        sys.modules.pop("my_energies", None)


def test_code_that_cannot_be_used(source: Path) -> None:
    assert "give it with --dim" in refusal(f"{source}:well")
    assert "has dimension 2, but 3 was given" in refusal(f"{source}:planar", dim=3)
    missing = refusal(f"{source}:wel")
    assert "Needy, Network, network, planar, table, well" in missing and "_private" not in missing
    assert "needs depth, width" in refusal(f"{source}:Needy")
    assert "not list" in refusal(f"{source}:table", dim=2)
    assert f"{source}:well" in refusal(source)
    assert "no such file" in refusal(f"{source.with_name('none.py')}:well")
    for text, words in (
        ("def f(:", "SyntaxError"),
        ("import not_a_module_at_all", "no module 'not_a_module_at_all'"),
        ("x = 1\n\ny = 1 / 0", "ZeroDivisionError at line 3"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("class E:\n    def __init__(self):\n        raise OSError('gone')", "OSError: gone"),
    ):
        source.write_text(text)
        assert words in refusal(f"{source}:E", dim=2)


def test_nothing_there(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.pth")
    assert "is a folder" in refusal(tmp_path)
    assert "name an energy" in refusal("")
    assert "float64 or float32, not float16" in refusal("potential:muller-brown", dtype="float16")
    assert "use cpu" in refusal("potential:muller-brown", device="warp:9")


def test_unreadable_file(tmp_path: Path) -> None:
    path = save_energy(network("mlp"), tmp_path / "e.safetensors")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert str(path) in refusal(path)


def test_a_potential_and_its_dimension() -> None:
    assert load_energy("potential:quadratic:d=3", dim=3).dim == 3
    assert "has dimension 3, but 2 was given" in refusal("potential:quadratic:d=3", dim=2)
    assert load_energy("potential:lennard-jones:n=3").zero_modes


def test_callables_and_energies_in_memory_pass_through() -> None:
    energy = load_energy(lambda x: x.square().sum(1), dim=2)
    assert load_energy(energy) is energy
    assert "torch callable" in refusal(3)


def test_the_documented_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parent.parent / "docs" / "energy-file.md").read_text()
    write, code, declare = (part.split("```")[0] for part in text.split("```python\n")[1:])
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        exec(write, {})
    energy = load_energy("energy.safetensors")
    assert energy.metadata["gamma"] == [1.0, 2.0] and energy.metadata["trained_on"]
    Path("my_energy.py").write_text(code)
    wells = load_energy("my_energy.py:wells")
    assert wells.metadata["beta"] == 4.0
    exec(declare, {"energy": wells})
    assert wells.symmetry is not None


def test_a_class_in_memory_is_made_as_one_in_a_file_is() -> None:
    space: dict[str, Any] = {"__name__": "energies"}
    with torch.random.fork_rng():
        exec(SOURCE, space)
    given = as_energy(space["Network"])
    assert given.source == "energies.Network" and given.dim == 2 and given.metadata["beta"] == 3.0
    assert np.array_equal(load_energy(space["Network"]).value(X), given.value(X)), "untrained, yet the same each time"
    with pytest.raises(EnergyError, match=r"Needy is a class that needs depth, width"):
        as_energy(space["Needy"], 2)

    class Exits:
        def __init__(self) -> None:
            raise SystemExit(0)

    with pytest.raises(EnergyError, match="making one raised SystemExit"):
        as_energy(Exits, 2)


def test_a_class_that_is_an_energy() -> None:
    class Bowl(Energy):
        def __init__(self) -> None:
            super().__init__(lambda x: x.square().sum(1), 3)

    assert as_energy(Bowl).dim == 3 and isinstance(as_energy(Bowl), Bowl)
    with pytest.raises(EnergyError, match="has dimension 3, but 2 was given"):
        as_energy(Bowl, 2)
