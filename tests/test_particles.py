"""Searches of clusters and of periodic energies: published counts, exact rates, copies that are one point."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.sparse import csc_array
from scipy.sparse.linalg import eigsh

import landscape
from landscape.checks import end_distances
from landscape.comparison import compare_analyses
from landscape.energy import Energy, ParticleSymmetry, Periodic, load_energy
from landscape.errors import UnsupportedError, UsageError
from landscape.plots.gallery import PICTURES
from landscape.plots.picture import Scene
from landscape.search import Catalogue, MinimaSearch, SaddleSearch, StringOptions, find_minima, find_saddles
from landscape.search.particle_saddles import ParticleRounds
from landscape.store import document

# D. J. Wales's database and independent searches
MINIMA_7 = [-16.505384168, -15.9350430605, -15.5932109382, -15.5330600546]
LOG_DETS_7 = [69.94764309, 69.22680918, 67.52027057, 67.48165515]
SADDLES_7 = [
    -15.44473380, -15.31986444, -15.28342128, -15.09784565, -15.03338435, -15.02643811, -14.81639980, -14.81112965,
    -14.59694571, -14.56806144, -14.54857294, -12.54893771,
]  # fmt: skip
LOWEST_13 = [-44.3268014195, -41.4719798478, -41.4445970024, -41.3943984170]
SMALL = landscape.AnalysisConfig(minima=MinimaSearch(n_starts=100), saddles=SaddleSearch(sweep=200))


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 10))])
def test_lennard_jones_7_whole_at_default_settings(seed: int) -> None:
    """All 4 minima and 12 saddles; then copies of everything, moved by random elements, add nothing."""
    energy = load_energy("potential:lennard-jones:n=7")
    catalogue, generator = Catalogue(energy), torch.Generator().manual_seed(seed)
    minima = find_minima(energy, generator=generator, catalogue=catalogue)
    found = find_saddles(energy, minima, generator=generator, catalogue=catalogue)
    assert np.allclose(found.minima.energy, MINIMA_7, atol=1e-8)
    spectra = found.minima.eigenvalues
    assert ((spectra == 0).sum(1) == 6).all()
    assert np.allclose(np.log(np.where(spectra == 0, 1, spectra)).sum(1), LOG_DETS_7, atol=1e-6)
    assert np.allclose(found.saddles.energy, SADDLES_7, atol=1e-7)
    assert found.complete and (found.joins >= 0).all() and not np.ptp(found.joins[0] - [0, 1])
    known = len(catalogue)
    for points in (found.minima, found.saddles):
        moved = energy.symmetry.moved(torch.from_numpy(points.x), generator)
        again = catalogue.add(moved)
        assert np.allclose(catalogue.points().energy[again], points.energy, atol=1e-9)
    assert len(catalogue) == known
    for k, saddle in enumerate(found.path_saddle):
        images = found.paths.images[k]
        assert np.allclose(images[0], found.minima.x[found.joins[saddle, 0]], atol=1e-6)
        assert np.linalg.norm(np.diff(images, axis=0), axis=1).max() < 0.5  # in one piece
        last = energy.symmetry.separation(found.minima.x[found.joins[saddle, 1]][None], images[-1], 1e-4)
        assert np.isfinite(last[0]) and found.paths.energy[k].max() == pytest.approx(found.saddles.energy[saddle])


def test_states_apart_are_named_and_joined() -> None:
    """From the minima of seven atoms alone, before any round."""
    energy = load_energy("potential:lennard-jones:n=7")
    catalogue, generator = Catalogue(energy), torch.Generator().manual_seed(0)
    minima = find_minima(energy, SMALL.minima, generator=generator, catalogue=catalogue)
    rounds = ParticleRounds(energy, catalogue, minima, generator, SaddleSearch(), lambda text: None)
    assert rounds.groups()[1].tolist() == [0, 1, 2, 3]
    text = "no saddle found joins 3 of the states to the others (1, 2, 3; 4 groups)"
    assert any(text in warning for warning in rounds.result(False, StringOptions()).warnings)
    rounds.join_groups()
    assert rounds.groups()[1].tolist() == [0, 0, 0, 0]
    assert not any("no saddle found" in warning for warning in rounds.result(False, StringOptions()).warnings)


@pytest.mark.slow
def test_lennard_jones_13_beyond_4000_searches_of_pele() -> None:
    """More of them than pele found, at less than pele's 2,513 gradients a saddle; the search knows that there are more
    (the literature counts about 1,500 minima), and tells how many at least."""
    energy = load_energy("potential:lennard-jones:n=13")
    found = find_saddles(energy)
    assert len(found.minima) >= 689 and len(found.saddles) >= 2316
    assert np.allclose(found.minima.energy[:4], LOWEST_13, atol=1e-7)
    assert energy.evaluations.gradient_equivalents(39) < 1500 * len(found.saddles)
    unseen = re.search(r"leaves at least (\d+) unseen", found.warnings[0])
    assert not found.complete and unseen is not None and int(unseen[1]) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_lennard_jones_8_whole_at_default_settings(seed: int) -> None:
    """8 minima and 42 saddles, some of them met 20 times less often than others, as in the literature (Doye and Wales,
    J. Chem. Phys. 116 (2002) 3777)."""
    energy = load_energy("potential:lennard-jones:n=8")
    found = find_saddles(energy, generator=torch.Generator().manual_seed(seed))
    assert (len(found.minima), len(found.saddles), found.complete) == (8, 42, True)


@pytest.fixture(scope="module")
def six() -> landscape.Analysis:
    """Six atoms in space: the octahedron, and one with two mirror planes."""
    return landscape.analyze(load_energy("potential:lennard-jones:n=6"), landscape.Overdamped(5.0), SMALL)


def test_weights_and_rates_of_six_atoms(six: landscape.Analysis) -> None:
    """Against the textbook sums: isomers over point group orders, moments of inertia, vibrations; detailed balance is
    exact, and survives the document."""
    assert np.allclose(six.states.energy, [-12.712062, -12.302928], atol=1e-6)
    assert six.modulo is not None and six.modulo.orbits[0].order.tolist() == [48, 4]
    logs = []
    for x, values, order in zip(six.states.x, six.states.eigenvalues, (48, 4), strict=True):
        atoms = x.reshape(6, 3) - x.reshape(6, 3).mean(0)
        inertia = np.eye(3) * (atoms**2).sum() - atoms.T @ atoms
        logs.append(0.5 * np.linalg.slogdet(inertia)[1] - math.log(order) - 0.5 * np.log(values[values != 0]).sum())
    expected = logs[1] - logs[0] - 5.0 * np.diff(six.states.energy)[0]
    assert np.diff(six.log_second)[0] == pytest.approx(expected, abs=1e-9)
    joins, rates = six.saddles.joins, six.rates.log_rates
    assert (joins[:, 0] != joins[:, 1]).any()
    balance = six.log_second[joins] + rates
    assert np.allclose(balance[:, 0], balance[:, 1], atol=1e-9)
    again = landscape.Analysis.from_document(six.to_document())
    assert np.array_equal(again.rates.log_rates, rates) and np.array_equal(again.log_second, six.log_second)
    moved = six.with_dynamics(landscape.Underdamped(5.0, 1.0, 2.0))
    balance = moved.log_second[joins] + moved.rates.log_rates
    assert np.allclose(balance[:, 0], balance[:, 1], atol=1e-9)


def test_what_cannot_be_done_for_clusters_says_so(six: landscape.Analysis) -> None:
    assert six.sampled is None and six.exact is None and any("modulo" in text for text in six.warnings)
    with pytest.raises(UnsupportedError, match="checks compare"):
        landscape.analysis.check(six, load_energy("potential:lennard-jones:n=6"))


def test_many_hessians_stay_out_of_the_document_and_in_the_store(
    six: landscape.Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a document without them gives is the same where one friction serves, else it says what it lacks."""
    whole = len(json.dumps(six.to_document()))
    monkeypatch.setattr(document, "MAX_HESSIAN_NUMBERS", 18**2)
    six.save(tmp_path)
    assert landscape.Analysis.load(tmp_path).saddles.hessian is not None
    alone = landscape.Analysis.load(tmp_path / "analysis.json")
    assert alone.saddles.hessian is None and np.allclose(alone.rates.log_rates, six.rates.log_rates, atol=1e-12)
    assert (tmp_path / "analysis.json").stat().st_size < 0.7 * whole
    mixed = dataclasses.replace(alone, dynamics=landscape.Overdamped(5.0, tuple(range(1, 19))))
    with pytest.raises(UsageError, match=r"Hessian: this analysis\.json has none, read analysis"):
        _ = mixed.rates


def test_labels_do_not_depend_on_the_copy(six: landscape.Analysis) -> None:
    energy = load_energy("potential:lennard-jones:n=6")
    generator = torch.Generator().manual_seed(1)
    basins = landscape.make_basins(energy, six.states.x, generator)
    near = torch.from_numpy(six.states.x).repeat(5, 1)
    points = energy.symmetry.moved(near + 0.02 * torch.randn(near.shape, generator=generator), generator)
    assert landscape.assign_basins(energy, points, basins).tolist() == [0, 1] * 5


def test_strings_are_aligned_end_to_end(six: landscape.Analysis) -> None:
    """The end of a path may be any copy of a minimum: the nearest one is taken."""
    energy = load_energy("potential:lennard-jones:n=6")
    start = six.states.x[:1]
    end = energy.symmetry.moved(torch.from_numpy(six.states.x[1:2]), torch.Generator().manual_seed(0)).numpy()
    path = landscape.string_method(energy, start, end + 3.0)
    assert np.linalg.norm(path.images[0, -1] - path.images[0, 0]) < 2.5 < np.linalg.norm(end - start)
    assert path.saddle_energy[0] == pytest.approx(six.saddles.energy[(six.saddles.joins == [0, 1]).all(1)][0], abs=1e-6)


def test_pictures_and_comparisons_know_of_copies(six: landscape.Analysis) -> None:
    """A direction at the far end of a path is carried to the state's own copy: the curvature along it is that of the
    energy at the end itself. Planes would show one copy of each; positions would compare copies."""
    energy = load_energy("potential:lennard-jones:n=6")
    assert six.states.hessian is not None and len(six.paths.saddle) == len(six.saddles.joins) == 3
    for images, joins in zip(six.paths.images, six.saddles.joins[six.paths.saddle], strict=True):
        step, hessian = images[-1] - images[-2], np.asarray(energy.hessian(images[-1:]))[0]
        carried = energy.symmetry.carried(step, images[-1], six.states.x[joins[1]])
        assert carried @ six.states.hessian[joins[1]] @ carried == pytest.approx(step @ hessian @ step, rel=1e-6)
    record = zip(six.paths.saddle.tolist(), six.paths.images, six.paths.energy, strict=True)
    widths = end_distances(energy.symmetry, six.states.x, six.saddles.x, six.saddles.joins, record)
    for width, x, joins in zip(widths, six.saddles.x, six.saddles.joins, strict=True):  # by a search of its own
        near = energy.symmetry.nearest(six.states.x[joins], np.stack([x, x]))
        assert np.allclose(width, np.linalg.norm(near - x, axis=1), rtol=2e-3)
    scene = Scene(six, energy)
    reasons = {name: picture.why_not(scene) for name, picture in PICTURES.items()}
    for name in ("contour", "basins", "surface", "drift", "drift3d"):
        assert "all its copies" in reasons[name]
    assert not any(reasons[name] for name in ("profile", "disconnectivity", "network", "rate-matrix", "weights"))
    assert not PICTURES["contour"].why_not(Scene(six, energy, plane_choice="0,1,s2"))  # by a wish of one's own
    with pytest.raises(UsageError, match="match by weights or permutation"):
        compare_analyses(six, six)
    assert compare_analyses(six, six, "weights").pairs.tolist() == [[0, 0], [1, 1]]


def test_a_double_well_whose_halves_are_copies() -> None:
    """E(x) = E(-x) declared: one state, one saddle to itself. From one of two equal wells the rate is that of the
    formula; it is the sum over both sides of the saddle, which two wells share."""
    energy = Energy(
        load_energy("potential:double-well").function, 1, symmetry=ParticleSymmetry(1, dim=1, translation=False)
    )
    analysis = landscape.analyze(energy, landscape.Overdamped(20.0), SMALL)
    assert len(analysis.states.energy) == 1 and analysis.saddles.joins.tolist() == [[0, 0]]
    kramers = math.sqrt(2 * 1) / (2 * math.pi) * math.exp(-20 / 4)
    assert np.exp(analysis.rates.log_rates[0]).sum() == pytest.approx(kramers, rel=1e-9)
    assert not analysis.network.counted.any()


def rings(r: Any) -> Any:
    """Two rings (spheres) of minima."""
    return 8 * (r - 1) ** 2 * (r - 2) ** 2 + 0.1 * r


def well_in_a_ring(r: Any) -> Any:
    """A well at the origin, with other zero modes than the ring (sphere) of minima around it."""
    return 6.75 * r**2 * (r**2 - 1) ** 2 + 0.2 * r**2


@pytest.mark.parametrize(
    ("radial", "brackets"),
    [(rings, ((0.9, 1.1), (1.4, 1.6), (1.9, 2.1))), (well_in_a_ring, (None, (0.5, 0.7), (0.9, 1.1)))],
)
@pytest.mark.parametrize("dim", [2, 3])
def test_a_particle_about_a_fixed_origin(
    radial: Callable[[Any], Any], brackets: tuple[tuple[float, float] | None, ...], dim: int
) -> None:
    """All of its landscape is a function of the radius. Points against roots of E'(r), weights against integrals of
    r^(dim - 1) exp(-beta E) and rates against the mean first passage time of the radius, whose free energy is
    E - (dim - 1) log(r) / beta: right to O(1 / beta), which a wrong orbit volume or index is not."""

    def function(x: torch.Tensor) -> torch.Tensor:
        return radial((x.square().sum(1) + 1e-300).sqrt())

    def slope(r: float) -> float:
        return (radial(r + 1e-6) - radial(r - 1e-6)) / 2e-6

    low, top, high = (0.0 if ends is None else brentq(slope, *ends) for ends in brackets)
    energy = Energy(function, dim, symmetry=ParticleSymmetry(1, dim, translation=False))
    analysis = landscape.analyze(energy, landscape.Overdamped(60.0, 1.7), SMALL)
    assert np.allclose(np.linalg.norm(analysis.states.x, axis=1), [low, high], atol=1e-6)  # the lower one is inside
    assert np.allclose(np.linalg.norm(analysis.saddles.x, axis=1), [top], atol=1e-6)
    assert analysis.saddles.joins.tolist() == [[0, 1]] and analysis.diagnostics["converged"]
    errors = []
    for beta in (60.0, 120.0):
        found = analysis.with_dynamics(landscape.Overdamped(beta, 1.7))

        def mass(r: float, beta: float = beta) -> float:
            return r ** (dim - 1) * math.exp(-beta * radial(r))

        wells = [quad(mass, *ends, epsabs=0, epsrel=1e-9)[0] for ends in ((0, top), (top, 4))]
        time = quad(
            lambda r: quad(mass, 0, r, epsabs=0, epsrel=1e-7)[0] / mass(r), low + 1e-6, high, epsrel=1e-7, points=[top],
        )[0]  # fmt: skip
        forward, backward = found.rates.log_rates[0]
        errors.append([-np.diff(found.log_second)[0] - math.log(wells[0] / wells[1]),
                       forward + math.log(time * beta * 1.7)])  # fmt: skip
        balance = found.log_second[0] + forward, found.log_second[1] + backward
        assert balance[0] == pytest.approx(balance[1], abs=1e-9)
    assert np.abs(errors[1]).max() < 0.03
    assert (np.abs(errors[1]) < 0.7 * np.abs(errors[0]) + 2e-3).all()


def test_two_lengths_of_a_bond_in_space() -> None:
    """The one mode of a dimer that is not a zero mode goes down at the saddle: index 1 all the same."""
    bond = Energy(lambda x: rings((x[:, :3] - x[:, 3:]).norm(dim=1)), 6, symmetry=ParticleSymmetry(2))
    found = find_saddles(bond, find_minima(bond, SMALL.minima), SMALL.saddles)
    assert found.joins.tolist() == [[0, 1]] and found.complete


# -- periods -----------------------------------------------------------------------------------------------------------


def ring(x: torch.Tensor) -> torch.Tensor:
    """Two wells on a circle."""
    return torch.cos(2 * x[:, 0]) + 0.3 * torch.cos(x[:, 0] - 0.5)


def test_two_wells_on_a_circle() -> None:
    """Both ways round count: the relaxation of the two states is that of the circle's own generator, the second
    eigenvalue of a finite-volume chain on 4,000 cells; weights are integrals over one period."""
    energy = Energy(ring, 1, symmetry=Periodic((2 * math.pi,)))
    beta = 5.0
    config = landscape.AnalysisConfig(minima=MinimaSearch(n_starts=100), saddles=SaddleSearch(sweep=200))
    analysis = landscape.analyze(energy, landscape.Overdamped(beta), config)
    assert analysis.saddles.joins.tolist() == [[0, 1], [0, 1]]
    assert analysis.diagnostics["morse_sum"] == {"value": 0, "expected": 0} and analysis.diagnostics["converged"]
    n = 4000  # cells
    x = np.arange(n) * 2 * np.pi / n
    density = np.exp(-beta * (np.cos(2 * x) + 0.3 * np.cos(x - 0.5)))
    tops = np.sort(analysis.saddles.x.ravel() % (2 * np.pi))
    share = density[(x > tops[0]) & (x < tops[1])].sum() / density.sum()
    inside = (analysis.states.x.ravel() > tops[0]) & (analysis.states.x.ravel() < tops[1])
    assert analysis.exact is not None and analysis.sampled is not None
    state = int(np.flatnonzero(inside)[0])
    for found in (analysis.exact, analysis.sampled):
        error = found.standard_errors[state]
        assert abs(found.weights[state] - share) < 5 * error + 1e-4  # chance: 6e-7
    rate = np.sqrt(density[1:] / density[:-1])
    rate = np.append(rate, np.sqrt(density[0] / density[-1])) * (n / (2 * np.pi)) ** 2 / beta
    back = (
        np.append(np.sqrt(density[:-1] / density[1:]), np.sqrt(density[-1] / density[0]))
        * (n / (2 * np.pi)) ** 2
        / beta
    )
    lines = np.zeros((n, n))
    at = np.arange(n)
    lines[at, (at + 1) % n], lines[(at + 1) % n, at] = np.sqrt(rate * back), np.sqrt(rate * back)
    lines[at, at] = -(rate + np.roll(back, 1))

    exact = -np.sort(eigsh(csc_array(lines), k=2, sigma=1e-6)[0])[0]
    formula = float(np.exp(np.logaddexp.reduce(analysis.rates.log_rates.ravel())))
    assert formula == pytest.approx(exact, rel=0.15)
    assert formula / 2 != pytest.approx(exact, rel=0.3)  # one way round only
    for path, joins in zip(analysis.paths.images, analysis.saddles.joins[analysis.paths.saddle], strict=True):
        assert np.allclose(path[0], analysis.states.x[joins[0]], atol=1e-9)
        assert np.abs(np.diff(path[:, 0])).max() < 0.5
        assert energy.symmetry.separation(path[-1:], analysis.states.x[joins[1]], 1e-6)[0] < 1e-6


def test_a_torus_times_a_line_is_whole_and_does_not_depend_on_the_copy() -> None:
    """8 points with Morse sum 0. Moved by periods and shifted as a whole, they come out as the same catalogue."""

    def function(x: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
        u, v, w = (x - shift).T
        return torch.cos(u) + torch.cos(2 * v) + 0.5 * torch.cos(u + v) + 0.5 * w**2

    periods = Periodic((2 * math.pi, 2 * math.pi, None))
    results = []
    for shift in (0.0, 3.0):
        energy = Energy(lambda x, shift=shift: function(x, shift), 3, symmetry=periods)
        catalogue, generator = Catalogue(energy), torch.Generator().manual_seed(0)
        minima = find_minima(energy, SMALL.minima, generator=generator, catalogue=catalogue)
        found = find_saddles(energy, minima, SMALL.saddles, generator=generator, catalogue=catalogue)
        assert found.complete and found.morse_sum == found.expected == 0
        assert (found.minima.x >= -1e-8).all() or shift
        results.append(found)
        known = len(catalogue)
        catalogue.add(energy.symmetry.moved(torch.from_numpy(catalogue.points().x.copy()), generator))
        assert len(catalogue) == known
    first, second = results
    assert first.index_counts == second.index_counts == {0: 2, 1: 4, 2: 2, 3: 0}
    assert np.allclose(first.saddles.energy, second.saddles.energy, atol=1e-8)
    wells = np.stack([periods.separation(second.minima.x - 3.0, x, 1e-5) for x in first.minima.x])
    assert np.isfinite(wells).any(1).all()
