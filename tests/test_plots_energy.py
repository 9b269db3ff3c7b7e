"""Energy pictures: what artists hold is checked against the analysis, closed forms and `assign_basins`, not pixels."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.path
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

import landscape
from landscape import plots
from landscape.analysis import AnalysisConfig
from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.plots.drift import drift_of, flow_lines, plot_drift_line, plot_drifts, plot_flow_lines, plot_quiver
from landscape.plots.energy import plot_contour
from landscape.plots.gallery import PICTURES
from landscape.plots.grids import basin_shares, energy_grid, sublevel_field
from landscape.plots.marks import mark_minima
from landscape.plots.meshes import cut_above, isosurface, surface_mesh
from landscape.plots.picture import Scene, render
from landscape.plots.planes import (
    Subspace,
    choose_plane,
    coordinate_subspace,
    pca_subspace,
    plane_through,
    principal_subspace,
    viewing_direction,
)
from landscape.plots.profile import plot_line, plot_profile, plot_profiles
from landscape.plots.style import OKABE_ITO, kt_levels, state_color, state_colors
from landscape.plots.surface import plot_surface
from landscape.plots.volume import outer_level, plot_volume
from landscape.search import assign_basins, make_basins
from landscape.store import Analysis

NO_SAMPLE = AnalysisConfig(weights=None)
BETA = 0.1


@pytest.fixture(autouse=True)
def no_global_state() -> Iterator[None]:
    """rcParams as before, and no figure that pyplot would know."""
    before = copy.deepcopy(dict(matplotlib.rcParams))
    yield
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_the_library_never_imports_pyplot() -> None:
    for path in (Path(landscape.__file__).parent / "plots").glob("*.py"):
        assert "pyplot" not in path.read_text().replace("pyplot is never imported", ""), path.name


def _analysed(energy: Energy, **dynamics: Any) -> tuple[Analysis, Energy]:
    return landscape.analyze(energy, landscape.Overdamped(**dynamics), NO_SAMPLE), energy


def test_every_picture_is_found_in_the_package() -> None:
    """And no function that draws is missing there."""
    folder = Path(plots.__file__).parent
    defined = set(re.findall(r"^def (plot_\w+)", "".join(file.read_text() for file in folder.glob("*.py")), re.M))
    assert defined == set(plots.__all__) <= set(dir(plots))
    for name in plots.__all__:
        assert getattr(plots, name).__name__ == name
    with pytest.raises(AttributeError, match="plot_nothing"):
        _ = plots.plot_nothing


@pytest.fixture(scope="module")
def muller() -> tuple[Analysis, Energy]:
    return _analysed(landscape.load_energy("potential:muller-brown"), beta=BETA)


@pytest.fixture(scope="module")
def triple() -> tuple[Analysis, Energy]:
    """The triple well, rotated into five dimensions, with |rest|^2 added: every state lies in one tilted plane."""
    plane = landscape.load_energy("potential:triple-well")
    axes = np.linalg.qr(np.random.default_rng(3).standard_normal((5, 5)))[0]
    frame = torch.from_numpy(axes)

    def function(x: torch.Tensor) -> torch.Tensor:
        y = x @ frame.T
        return plane.function(y[:, :2]) + 2 * (y[:, 2:] ** 2).sum(1)

    return _analysed(Energy(function, 5), beta=3.0)


@pytest.fixture(scope="module")
def double() -> tuple[Analysis, Energy]:
    return _analysed(landscape.load_energy("potential:double-well"), beta=20.0)


# planes


def test_plane_through_three_points_holds_them_where_they_belong() -> None:
    points = np.array([[1.0, 0, 0, 2], [1, 3, 0, 2], [1, 1, 4, 2]])
    plane = plane_through(points)
    # by hand: the second is 3 along the first axis; the third is 1 along it and 4 up
    np.testing.assert_allclose(plane.project(points), [[0, 0], [3, 0], [1, 4]], atol=1e-12)
    np.testing.assert_allclose(plane.lift(plane.project(points)), points, atol=1e-12)
    assert (plane.distance(points) < 1e-12).all()
    assert plane.distance(np.array([2.0, 0, 0, 2])) == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_planes_keep_distances(d: int, seed: int) -> None:
    """Distances between the three points are those of their coordinates, in any dimension; axes are orthonormal."""
    points = np.random.default_rng(seed).standard_normal((3, d))
    plane = plane_through(points)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-10)
    flat = plane.project(points)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(flat[i] - flat[j]) == pytest.approx(np.linalg.norm(points[i] - points[j]), rel=1e-9)
    assert flat[2, 1] > 0


def test_points_on_a_line_span_no_plane() -> None:
    with pytest.raises(UsageError, match="one line"):
        plane_through(np.array([[0.0, 0, 0], [1, 1, 1], [3, 3, 3]]))
    with pytest.raises(UsageError, match="one line"):
        plane_through(np.zeros((3, 2)))


def test_principal_axes_are_those_of_the_covariance() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((400, 3)) * [1.0, 5.0, 3.0] + [7, 8, 9]
    plane = principal_subspace(points, 2)
    values, vectors = np.linalg.eigh(np.cov(points.T))
    for axis, column in zip(plane.axes, (2, 1), strict=True):
        assert abs(axis @ vectors[:, column]) == pytest.approx(1.0, abs=1e-9)
        assert axis[np.argmax(np.abs(axis))] > 0
    assert np.var(plane.project(points), axis=0, ddof=1) == pytest.approx(values[[2, 1]])


def test_a_single_point_takes_spare_directions() -> None:
    plane = principal_subspace(np.array([[1.0, 2, 3]]), 2, spare=np.array([[0.0, 0, 1], [0, 0, 2], [0, 1, 0]]))
    np.testing.assert_allclose(plane.axes, [[0, 0, 1], [0, 1, 0]], atol=1e-12)


def test_contour_plane_contains_the_three_minima(triple: tuple[Analysis, Energy]) -> None:
    analysis, energy = triple
    drawn = plot_contour(analysis, energy)
    assert drawn.grid.subspace.dim == 2
    assert drawn.grid.subspace.distance(analysis.states.x).max() < 1e-9
    offsets = np.asarray(drawn.minima.get_offsets())
    # the same triangle as in five dimensions, and at the energies found there
    apart = np.linalg.norm(offsets[:, None] - offsets, axis=-1)
    true = np.linalg.norm(analysis.states.x[:, None] - analysis.states.x, axis=-1)
    np.testing.assert_allclose(apart, true, atol=1e-8)
    again = energy.value(drawn.grid.subspace.lift(offsets))
    np.testing.assert_allclose(again, analysis.states.energy, atol=1e-8)


def test_planes_by_name(triple: tuple[Analysis, Energy]) -> None:
    analysis, _ = triple
    plane = choose_plane(analysis, "2,0,s1")
    wanted = np.stack([analysis.states.x[2], analysis.states.x[0], analysis.saddles.x[1]])
    assert plane.distance(wanted).max() < 1e-9
    np.testing.assert_allclose(plane.project(analysis.states.x[2]), 0, atol=1e-12)
    # all minima lie in one plane, so the principal axes span the same
    assert pca_subspace(analysis).distance(analysis.states.x).max() < 1e-3
    for bad in ("0,1", "0,1,1", "0,1,9", "a,b,c", "", "0,1,s99", "0,-1,2"):
        with pytest.raises(UsageError, match="plane"):
            choose_plane(analysis, bad)


def test_minima_in_space_are_seen_apart() -> None:
    """Two points one behind the other in the usual view, which is from azimuth -56 degrees: the view turns by 90."""
    e, a = np.radians([24.0, -56.0])
    towards = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    elevation, azimuth = viewing_direction(np.stack([-towards, towards]))
    assert elevation == 24.0 and abs(np.sin(np.radians(azimuth) - a)) > 0.85
    assert viewing_direction(np.zeros((1, 3))) == (24.0, -56.0)


# levels and colours


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.floats(0.01, 1e4))
def test_levels_are_multiples_of_kt(beta: float, zero: float, height: float) -> None:
    levels = kt_levels(beta, np.array([zero, zero + height / 2]), np.array([zero + height]))
    assert levels.values[0] == 0 and levels.values[-1] == pytest.approx(levels.limit)
    assert 7 <= len(levels.values) - 1 <= 16
    assert levels.limit >= beta * height + 5 - 1e-6
    digits = levels.step / 10 ** np.floor(np.log10(levels.step) + 1e-9)
    assert min(abs(digits - 1), abs(digits - 2), abs(digits - 5)) < 1e-6


def test_state_colors_are_safe_and_stable() -> None:
    assert [matplotlib.colors.to_hex(c).upper() for c in state_colors(7)] == list(OKABE_ITO)
    assert len({state_color(k) for k in range(21)}) == 21
    assert state_color(-1) == (1.0, 1.0, 1.0)


# contours


def _inside(path: Any, points: np.ndarray) -> np.ndarray:
    """Which points lie inside a path with holes: inside an odd number of its closed lines."""
    held = np.zeros(len(points), dtype=int)
    for polygon in path.to_polygons():
        held += matplotlib.path.Path(polygon).contains_points(points)
    return held % 2 == 1


def test_contours_lie_at_multiples_of_kt(muller: tuple[Analysis, Energy]) -> None:
    """Every vertex of every level line has that energy, evaluated anew, up to the interpolation of the grid."""
    analysis, energy = muller
    drawn = plot_contour(analysis, energy)
    levels = drawn.grid.levels
    np.testing.assert_allclose(drawn.lines.levels, levels.step * np.arange(len(drawn.lines.levels)), atol=1e-12)
    worst, checked = 0.0, 0
    for level, path in zip(drawn.lines.levels, drawn.lines.get_paths(), strict=True):
        if len(path.vertices):
            kt = BETA * (energy.value(path.vertices) - analysis.states.energy[0])
            worst, checked = max(worst, float(np.abs(kt - level).max())), checked + len(kt)
    assert checked > 1000 and worst < 0.1


def test_grey_is_exactly_what_is_above_the_limit(muller: tuple[Analysis, Energy]) -> None:
    analysis, energy = muller
    drawn = plot_contour(analysis, energy, limit=9.0)
    levels, bands = drawn.grid.levels, drawn.fill[-1]
    assert levels.limit == pytest.approx(9.0)
    grey = bands.get_facecolor()[-1]
    np.testing.assert_allclose(grey[:3], matplotlib.colors.to_rgb("#cfcfcf"), atol=1e-6)
    over = bands.get_paths()[-1]
    points = np.random.default_rng(0).uniform(*[[t[0] for t in drawn.grid.ticks], [t[-1] for t in drawn.grid.ticks]],
                                              size=(3000, 2))  # fmt: skip
    kt = BETA * (energy.value(points) - analysis.states.energy[0])
    clear = np.abs(kt - levels.limit) > 0.1
    np.testing.assert_array_equal(_inside(over, points)[clear], (kt > levels.limit)[clear])
    assert 0.1 < (kt > levels.limit).mean() < 0.9


def test_basins_have_the_colours_of_assign_basins(muller: tuple[Analysis, Energy]) -> None:
    """At points away from borders, the colour drawn is the state's that the gradient flow reaches."""
    analysis, energy = muller
    drawn = plot_contour(analysis, energy, fill="basins")
    grid = drawn.grid
    basins = make_basins(energy, analysis.states.x, torch.Generator().manual_seed(1))
    points = np.random.default_rng(1).uniform([t[0] for t in grid.ticks], [t[-1] for t in grid.ticks], size=(1500, 2))
    reachable = BETA * (energy.value(points) - analysis.states.energy[0]) < grid.levels.limit - 0.2
    points = points[reachable]
    labels = assign_basins(energy, points, basins)
    inside = {state: _inside(bands.get_paths()[0], points) for state, bands in drawn.fill.items()}
    assert set(inside) == {0, 1, 2}
    wrong = sum(int((held != (labels == state)).sum()) for state, held in inside.items())
    assert wrong <= 0.01 * len(points)  # those within a cell of a border
    for state, bands in drawn.fill.items():
        red, green, blue = bands.get_facecolor()[0][:3]
        tint = [0.72 + 0.28 * c for c in state_color(state)]
        np.testing.assert_allclose([red, green, blue], tint, atol=1e-6)


def test_sublevel_sets_end_at_the_lowest_saddle(muller: tuple[Analysis, Energy]) -> None:
    """Mueller-Brown by its published stationary points: each outline lies at the energy of the state's lowest saddle
    and has its minimum, and no other, inside."""
    analysis, energy = muller
    drawn = plot_contour(analysis, energy)
    lowest = {0: -40.66484350866, 1: -72.24894011233, 2: -72.24894011233}
    assert set(drawn.sublevel) == set(lowest)
    for state, outline in drawn.sublevel.items():
        (path,) = outline.get_paths()
        np.testing.assert_allclose(energy.value(path.vertices), lowest[state], atol=1.5)
        held = path.contains_points(analysis.states.x)
        assert held.tolist() == [k == state for k in range(3)]


def test_minima_saddles_and_paths_are_drawn_where_they_are(muller: tuple[Analysis, Energy]) -> None:
    analysis, energy = muller
    figure = Figure()
    ax = figure.add_subplot()
    drawn = plot_contour(analysis, energy, ax=ax)
    assert drawn.ax is ax
    np.testing.assert_allclose(drawn.minima.get_offsets(), analysis.states.x)
    np.testing.assert_allclose(drawn.saddles.get_offsets(), analysis.saddles.x)
    assert [text.get_text() for text in drawn.numbers] == ["0", "1", "2"]
    for line, images in zip(drawn.paths, analysis.paths.images, strict=True):
        np.testing.assert_allclose(line.get_xydata(), images)
    words = " ".join(text.get_text() for text in ax.get_legend().get_texts())
    assert all(word in words for word in ("minimum", "saddle", "minimum energy path", "border", "sub-level"))


def test_marks_off_the_plane_look_different(triple: tuple[Analysis, Energy]) -> None:
    analysis, energy = triple
    axes = np.eye(5)[:2]
    tilted = Subspace(analysis.states.x[0], axes, ("u", "v"), "some plane")
    drawn = plot_contour(analysis, energy, plane=tilted)
    faces = drawn.minima.get_facecolor()
    np.testing.assert_allclose(faces[0][:3], state_color(0), atol=1e-6)
    np.testing.assert_allclose(faces[1:, :3], 1.0)
    words = " ".join(text.get_text() for text in drawn.ax.get_legend().get_texts())
    assert "off the plane" in words and "projected" in words


def test_infinite_energies_are_grey_not_an_error() -> None:
    energy = Energy(lambda x: torch.where(x[:, 0] > 1.2, torch.inf, ((x**2) ** 2).sum(1) + x.pow(2).sum(1)), 2)
    analysis, _ = _analysed(Energy(lambda x: ((x**2) ** 2).sum(1) + x.pow(2).sum(1), 2), beta=1.0)
    drawn = plot_contour(
        analysis, energy_grid(analysis, energy, coordinate_subspace(2), limit=40.0, box=[[-2, 2], [-2, 2]])
    )
    held = _inside(drawn.fill[-1].get_paths()[-1], np.array([[1.7, 0.1], [0.3, 0.2]]))
    assert held.tolist() == [True, False]


# surfaces and isosurfaces


def _area(triangles: np.ndarray) -> float:
    """Of triangles (n, 3, 3) as seen from above; none is turned over."""
    (x1, y1), (x2, y2) = ((triangles[:, k] - triangles[:, 0])[:, :2].T for k in (1, 2))
    signed = 0.5 * (x1 * y2 - x2 * y1)
    assert (signed >= -1e-12).all()
    return float(signed.sum())


def test_surface_heights_are_energies(muller: tuple[Analysis, Energy]) -> None:
    analysis, energy = muller
    drawn = plot_surface(analysis, energy)
    grid, limit = drawn.grid, drawn.grid.levels.limit
    assert drawn.heights.max() == pytest.approx(limit) and drawn.heights.min() >= 0
    np.testing.assert_allclose(drawn.minima_at[:, 2], BETA * (analysis.states.energy - analysis.states.energy[0]))
    for line, images, values in zip(drawn.paths, analysis.paths.images, analysis.paths.energy, strict=True):
        x, y, z = line.get_data_3d()
        np.testing.assert_allclose(np.column_stack([x, y]), images)
        np.testing.assert_allclose(z, BETA * (values - analysis.states.energy[0]))
    for state, lines in drawn.sublevel.items():
        ceiling = {0: -40.66484350866, 1: -72.24894011233, 2: -72.24894011233}[state]
        level = BETA * (ceiling - analysis.states.energy[0])
        for line in lines:
            np.testing.assert_allclose(line.get_data_3d()[2], level, rtol=1e-6)
    # the sheet ends on the limit's line: its corners there have that energy
    corners = np.concatenate(drawn.polygons)
    rim = corners[np.isclose(corners[:, 2], limit)]
    assert corners[:, 2].max() <= limit * (1 + 1e-12) and len(rim) > 100
    np.testing.assert_allclose(BETA * (energy.value(rim[:, :2]) - analysis.states.energy[0]), limit, atol=0.5)
    mesh = surface_mesh(grid, every=1)
    np.testing.assert_allclose(mesh.kt, BETA * (energy.value(mesh.vertices[:, :2]) - analysis.states.energy[0]).clip(
        max=3 * limit / BETA), atol=1e-6)  # fmt: skip
    np.testing.assert_allclose(mesh.vertices[:, 2], np.minimum(mesh.kt, limit))
    below = cut_above(mesh, limit)
    used = np.unique(below.faces)
    assert below.vertices[used, 2].max() == limit and np.isclose(below.kt[used].max(), limit)
    area = _area(mesh.vertices[mesh.faces[(mesh.kt[mesh.faces] <= limit).all(1)]])
    touched = _area(mesh.vertices[mesh.faces[(mesh.kt[mesh.faces] <= limit).any(1)]])
    assert area < _area(below.vertices[below.faces]) < touched
    # an open sheet: V - E + F = 1
    edges = np.unique(np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    assert len(mesh.vertices) - len(edges) + len(mesh.faces) == 1


@pytest.fixture(scope="module")
def bowl() -> tuple[Analysis, Energy]:
    return _analysed(landscape.load_energy("potential:quadratic:d=3,kappa=2"), beta=1.5)


def test_isosurface_of_a_bowl_is_a_sphere(bowl: tuple[Analysis, Energy]) -> None:
    """beta kappa r^2 / 2 = level: radius sqrt(2 level / (beta kappa)); and a closed surface, V - E + F = 2."""
    analysis, energy = bowl
    grid = energy_grid(analysis, energy, coordinate_subspace(3))
    mesh = isosurface(grid, 3.0)
    assert mesh is not None
    radius = np.linalg.norm(mesh.vertices, axis=1)
    np.testing.assert_allclose(radius, np.sqrt(2 * 3.0 / (1.5 * 2)), rtol=2e-3)
    edges = np.unique(np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    assert len(mesh.vertices) - len(edges) + len(mesh.faces) == 2
    assert isosurface(grid, 1e9) is None


def test_volume_shows_the_sublevel_set_of_each_state() -> None:
    """Two wells along x in three dimensions: E = (x^2 - 1)^2 + y^2 + z^2, saddle at 0 with E = 1."""
    energy = Energy(lambda x: (x[:, 0] ** 2 - 1) ** 2 + x[:, 1] ** 2 + x[:, 2] ** 2, 3)
    analysis, _ = _analysed(energy, beta=8.0)
    drawn = plot_volume(analysis, energy)
    assert {mesh.state for mesh in drawn.meshes[:2]} == {0, 1} and drawn.meshes[2].state == -1
    assert len(drawn.surfaces) == 3
    for mesh in drawn.meshes:
        kt = 8.0 * energy.value(mesh.vertices)
        np.testing.assert_allclose(kt, 8.0 if mesh.state >= 0 else 9.0, atol=0.35)
        if mesh.state >= 0:  # on the minimum's side of the saddle
            assert (mesh.vertices[:, 0] * np.sign(analysis.states.x[mesh.state, 0]) > -0.06).all()
    assert outer_level(analysis, drawn.grid) == pytest.approx(9.0)


def test_without_scikit_image_there_is_one_clear_line(
    bowl: tuple[Analysis, Energy], monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis, energy = bowl
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(UsageError, match=r"scikit-image.*learned-landscape\[report\]"):
        plot_volume(analysis, energy)


# profiles


def test_profile_shows_the_energies_of_the_path(muller: tuple[Analysis, Energy]) -> None:
    analysis, energy = muller
    for path in range(len(analysis.paths.saddle)):
        drawn = plot_profile(analysis, path)
        images = analysis.paths.images[path]
        wanted = BETA * (energy.value(images) - analysis.states.energy[0])
        np.testing.assert_allclose(drawn.line.get_ydata(), wanted, atol=1e-8)
        lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(images, axis=0), axis=1))])
        np.testing.assert_allclose(drawn.images.get_xdata(), lengths, rtol=1e-9)
        saddle = analysis.saddles.energy[drawn.saddle]
        wanted_barriers = BETA * (saddle - analysis.states.energy[list(drawn.states)])
        np.testing.assert_allclose(drawn.barriers, wanted_barriers)
        assert [label.get_text() for label in drawn.labels] == [f"{b:.3g} $kT$" for b in wanted_barriers]


def test_harmonic_wells_have_the_curvature_of_the_path() -> None:
    """E = 2 (x^2 - 1)^2 + 3 y^2: curvature 16 at the minima along x, -8 at the saddle; each as a second difference."""
    energy = Energy(lambda x: 2 * (x[:, 0] ** 2 - 1) ** 2 + 3 * x[:, 1] ** 2, 2)
    analysis, _ = _analysed(energy, beta=4.0)
    drawn = plot_profile(analysis)
    curvatures = []
    for well in drawn.wells:
        x, y = np.asarray(well.get_xydata()).T
        curvatures.append((y[0] - 2 * y[50] + y[100]) / (x[50] - x[0]) ** 2)
    np.testing.assert_allclose(curvatures, [64, 64, -32], rtol=1e-3)


def test_one_dimension_is_drawn_as_a_line(double: tuple[Analysis, Energy]) -> None:
    """x^4/4 - x^2/2 at beta = 20: barrier 5 kT; the curve, basins on either side of 0, grey above the limit."""
    analysis, energy = double
    drawn = plot_line(analysis, energy)
    x, kt = np.asarray(drawn.line.get_xydata()).T
    shown = np.isfinite(kt)
    np.testing.assert_allclose(kt[shown], 20 * (x**4 / 4 - x**2 / 2 + 0.25)[shown], atol=1e-9)
    assert (kt[shown] <= drawn.grid.levels.limit).all()
    above = np.isfinite(np.asarray(drawn.above.get_ydata(), float))
    np.testing.assert_array_equal(above, ~shown)
    for state, bands in drawn.basins.items():
        (band,) = bands
        low, high = band.get_x(), band.get_x() + band.get_width()
        assert low < analysis.states.x[state, 0] < high and min(abs(low), abs(high)) < 0.01
    assert len(plot_profiles(analysis)) == 1


def test_what_cannot_be_drawn_is_said(double: tuple[Analysis, Energy], bowl: tuple[Analysis, Energy]) -> None:
    with pytest.raises(UsageError, match="profile"):
        plot_contour(*double)
    with pytest.raises(UsageError, match="contour"):
        plot_line(*bowl)
    with pytest.raises(UsageError, match="no path"):
        plot_profile(bowl[0])
    with pytest.raises(UsageError, match="3-D"):
        plot_volume(*double)
    with pytest.raises(UsageError, match="dimension"):
        plot_contour(bowl[0], double[1])
    with pytest.raises(UsageError, match="3-D axes"):
        plot_surface(*bowl, ax=Figure().add_subplot())
    with pytest.raises(UsageError, match="kT"):
        plot_contour(*bowl, limit=-1.0)


# drifts


def _whirl(points: np.ndarray) -> np.ndarray:
    """Circles around the origin, one turn in 2 pi."""
    return np.column_stack([-points[:, 1], points[:, 0]])


def test_arrows_have_the_direction_and_speed_of_the_drift() -> None:
    drawn = plot_quiver(_whirl, coordinate_subspace(2), np.array([[-2.0, 2], [-1, 1]]), arrows=8)
    assert len(drawn.starts) == 64
    np.testing.assert_allclose(drawn.vectors, _whirl(drawn.starts))
    np.testing.assert_allclose(drawn.speeds, np.linalg.norm(drawn.starts, axis=1))
    np.testing.assert_allclose(drawn.arrows.get_array(), drawn.speeds)
    pieces = np.column_stack([drawn.arrows.U, drawn.arrows.V])
    assert (np.sum(pieces * drawn.vectors, axis=1) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(pieces, axis=1), np.linalg.norm(pieces[0]))


def test_every_line_of_an_arrow_in_space_has_its_speed() -> None:
    """A shaft and the two lines of its head: each ends where the arrow points to, with the arrow's colour."""
    drawn = plot_quiver(lambda x: x * [1.0, 2.0, 3.0], coordinate_subspace(3), np.tile([-1.0, 1.0], (3, 1)), arrows=3)
    n = len(drawn.starts)
    values, segments = np.asarray(drawn.arrows.get_array()), np.asarray(drawn.arrows._segments3d)
    assert len(values) == len(segments) == 3 * n
    np.testing.assert_allclose(values[:n], drawn.speeds)
    for line, value in zip(segments[n:], values[n:], strict=True):
        shaft = np.linalg.norm(segments[:n] - line[0], axis=2).min(1).argmin()
        assert value == pytest.approx(drawn.speeds[shaft])


def test_flow_lines_of_a_whirl_are_circles() -> None:
    starts = np.array([[0.5, 0.0], [0.0, 1.0]])
    for line in flow_lines(_whirl, starts, length=3.0):
        radius = np.linalg.norm(line, axis=1)
        np.testing.assert_allclose(radius, radius[0], rtol=1e-3)
        assert np.linalg.norm(np.diff(line, axis=0), axis=1).sum() == pytest.approx(3.0, rel=1e-3)


def test_flow_lines_end_in_minima_in_their_colours(muller: tuple[Analysis, Energy]) -> None:
    analysis, energy = muller
    box = np.array([[-1.3, 1.1], [-0.2, 1.9]])
    plane = coordinate_subspace(2)
    drawn = plot_flow_lines(drift_of(analysis.dynamics, energy), plane, box, minima=analysis.states.x, lines=8)
    basins = make_basins(energy, analysis.states.x, torch.Generator().manual_seed(0))
    labels = assign_basins(energy, np.array([line[0] for line in drawn.lines]), basins)
    colors = [matplotlib.colors.to_rgb(color) for color in drawn.collection.get_colors()]
    assert (drawn.ends == labels).mean() >= 0.9
    right = sum(np.allclose(color, state_color(label)) for color, label in zip(colors, labels, strict=True))
    assert right >= 0.9 * len(labels)  # a few lines are longer than what is drawn


def test_projected_flow_lines_leave_the_plane(triple: tuple[Analysis, Energy]) -> None:
    """Followed in five dimensions: the drawn line is the projection of a curve along which the energy falls."""
    analysis, energy = triple
    plane = Subspace(np.full(5, 0.2), np.eye(5)[:2], ("u", "v"), "some plane")
    drawn = plot_flow_lines(drift_of(analysis.dynamics, energy), plane, np.array([[-1.0, 1], [-1, 1]]), lines=4)
    assert max(plane.distance(line).max() for line in drawn.lines) > 0.1
    for line, shown in zip(drawn.lines, drawn.shown, strict=True):
        np.testing.assert_allclose(plane.project(line), shown)
        assert plane.distance(line[0]) < 1e-12
        assert (np.diff(energy.value(line[:-2])) < 1e-9).all()


def test_drift_of_a_rotated_dynamics() -> None:
    """-(gamma^-1 + J) grad E by hand at E = |x|^2 / 2: (x, y) -> (-x/2 - 3y, 3x - y/4)."""
    energy = landscape.load_energy("potential:quadratic:d=2")
    dynamics = landscape.Overdamped(beta=1.0, gamma=(2.0, 4.0), rotation=[[0.0, 3.0], [-3.0, 0.0]])
    points = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    x, y = points.T
    wanted = np.column_stack([-x / 2 - 3 * y, 3 * x - y / 4])
    np.testing.assert_allclose(drift_of(dynamics, energy)(points), wanted, atol=1e-12)
    underdamped = landscape.Underdamped(beta=1.0, gamma=2.0, mass=5.0)
    np.testing.assert_allclose(drift_of(underdamped, energy)(points), -points / 2, atol=1e-12)


def test_two_drifts_side_by_side_in_two_and_three_dimensions(bowl: tuple[Analysis, Energy]) -> None:
    analysis, energy = bowl
    drift = drift_of(analysis.dynamics, energy)
    for k in (2, 3):
        space = Subspace(np.zeros(3), np.eye(3)[:k], tuple("uvw"[:k]), "part")
        box = np.tile([-1.0, 1.0], (k, 1))
        drawn = plot_drifts({"NSDE": lambda x: -drift(x), "NLD": drift}, space, box, minima=analysis.states.x)
        out, inward = drawn["NSDE"][0], drawn["NLD"][0]
        np.testing.assert_allclose(out.vectors, -inward.vectors)
        assert [pair[1].ax.get_title() for pair in drawn.values()] == ["NSDE: flow lines", "NLD: flow lines"]
        drawn["NLD"][0].ax.figure.canvas.draw()


def test_drift_in_one_dimension(double: tuple[Analysis, Energy]) -> None:
    analysis, energy = double
    drawn = plot_drift_line(drift_of(analysis.dynamics, energy), np.array([-1.5, 1.5]), minima=analysis.states.x)
    np.testing.assert_allclose(drawn.values, drawn.x - drawn.x**3, atol=1e-9)


def test_a_drift_of_another_shape_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\(n, d\)"):
        plot_quiver(lambda x: x[:, :1], coordinate_subspace(2), np.array([[-1.0, 1], [-1, 1]]))


# the gallery


def _drawn(analysis: Analysis, energy: Energy | None) -> dict[str, str]:
    """What every energy picture says, or why it is not there; each one is rendered."""
    scene, said = Scene(analysis, energy), {}
    for name in ("contour", "basins", "surface", "volume", "profile", "drift", "drift3d"):
        picture = PICTURES[name]
        said[name] = f"not: {picture.why_not(scene)}" if picture.why_not(scene) else picture.figure(scene)[1]
    return said


def test_the_gallery_in_every_dimension(
    muller: tuple[Analysis, Energy], double: tuple[Analysis, Energy], bowl: tuple[Analysis, Energy]
) -> None:
    line, plane, space, gone = _drawn(*double), _drawn(*muller), _drawn(*bowl), _drawn(muller[0], None)
    assert [name for name, text in line.items() if not text.startswith("not")] == ["profile", "drift"]
    assert [name for name, text in plane.items() if text.startswith("not")] == ["volume", "drift3d"]
    assert [name for name, text in space.items() if text.startswith("not")] == ["profile"]
    assert [name for name, text in gone.items() if not text.startswith("not")] == ["profile"]
    assert "energy is gone" in gone["contour"] and "one state only" in space["profile"]


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_pictures_can_be_written_in_every_format(muller: tuple[Analysis, Energy], form: str) -> None:
    analysis, _ = muller
    figure, text = PICTURES["profile"].figure(Scene(analysis))
    data = render(figure, form, "Energy", text)
    assert data[:4] in (b"\x89PNG", b"<?xm", b"%PDF")
    if form == "svg":
        assert text.encode().replace(b">", b"&gt;") in data


def test_basin_borders_are_where_two_shares_meet(muller: tuple[Analysis, Energy]) -> None:
    analysis, energy = muller
    grid = energy_grid(analysis, energy, coordinate_subspace(2), resolution=61)
    shares = basin_shares(grid)
    known = grid.basins >= 0
    positive = sum((np.nan_to_num(share, nan=-1.0) > 0).astype(int) for share in shares.values())
    assert (positive[known] <= 1).all() and (positive[known] == 1).mean() > 0.95
    field, level = sublevel_field(analysis, grid, 0)
    np.testing.assert_array_equal(field < level, (grid.basins == 0) & (grid.kt < level))


def test_an_energy_without_walls_is_drawn_around_its_states(muller: tuple[Analysis, Energy]) -> None:
    """A bounded energy is reachable everywhere: the box stays within a fifth of the extent around what is known."""
    analysis, _ = muller
    flat = Energy(lambda x: 0 * x.sum(1) + float(analysis.states.energy[0]), 2)
    grid = energy_grid(analysis, flat, coordinate_subspace(2), resolution=21)
    marks = np.concatenate([analysis.states.x, analysis.saddles.x, analysis.paths.images.reshape(-1, 2)])
    size = np.ptp(marks, axis=0).max()
    for tick, low, high in zip(grid.ticks, marks.min(0), marks.max(0), strict=True):
        assert low - 0.5 * size < tick[0] < low and high < tick[-1] < high + 0.5 * size


def test_states_that_fall_on_one_place_share_their_label() -> None:
    ax = Figure().add_subplot()
    positions = np.array([[0.0, 0.0], [1.0, 1.0], [0.001, 0.0]])
    _, texts = mark_minima(ax, positions, [0, 1, 2])
    assert [text.get_text() for text in texts] == ["0,2", "1"]


def test_underdamped_dynamics_says_which_drift_is_drawn(muller: tuple[Analysis, Energy]) -> None:
    analysis, energy = muller
    slow = Scene(analysis.with_dynamics(landscape.Underdamped(BETA, 1.0, 1.0)), energy)
    figure, text = PICTURES["drift"].figure(slow)
    assert "high friction" in figure.axes[0].get_title() and "-grad E / gamma" in text
    figure, text = PICTURES["drift"].figure(Scene(analysis, energy))
    assert figure.axes[0].get_title() == "drift" and "gamma" not in text


def test_profiles_of_many_paths_have_room() -> None:
    """Twelve panels, each high enough for its labels."""
    energy = landscape.load_energy("potential:coupled-chain:n=3,g=0.1")
    config = AnalysisConfig(weights=None)
    scene = Scene(landscape.analyze(energy, landscape.Overdamped(beta=12.0), config))
    assert len(scene.analysis.paths.saddle) >= 12
    figure, _ = PICTURES["profile"].figure(scene)
    figure.draw_without_rendering()
    heights = [ax.get_window_extent().height / figure.dpi for ax in figure.axes]
    assert len(heights) == 12 and min(heights) > 1.5
    assert "the 12 paths of" in figure.get_suptitle() or len(scene.analysis.paths.saddle) == 12
