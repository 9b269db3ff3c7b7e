"""Pictures of the network: what the artists hold is what the analysis says."""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from synthetic import random_analysis, random_checks

from landscape import analyze
from landscape.dynamics import Overdamped, Underdamped
from landscape.energy import Energy, load_energy
from landscape.errors import UnsupportedError, UsageError
from landscape.plots.bars import plot_timescales, plot_weights
from landscape.plots.disconnectivity import plot_disconnectivity
from landscape.plots.field_gallery import FIELD_PICTURES
from landscape.plots.fields import plot_committor, plot_eigenvector
from landscape.plots.layout import edges_between, positions
from landscape.plots.matrices import plot_rate_matrix
from landscape.plots.network import plot_network
from landscape.plots.picture import Scene
from landscape.plots.verdicts import plot_verdicts
from landscape.store import Analysis


@pytest.fixture(scope="module")
def triple_well() -> tuple[Analysis, Energy]:
    energy = load_energy("potential:triple-well")
    return analyze(energy, Overdamped(beta=3.0, gamma=1.0)), energy


def minimax(analysis: Analysis, start: int) -> np.ndarray:
    """Lowest highest saddle from `start` to every state, by Dijkstra's search with max in place of the sum."""
    best = np.full(len(analysis.states.energy), np.inf)
    queue = [(analysis.states.energy[start], start)]
    while queue:
        height, state = heapq.heappop(queue)
        if height >= best[state]:
            continue
        best[state] = height
        for (i, j), saddle in zip(analysis.saddles.joins.tolist(), analysis.saddles.energy, strict=True):
            if state in (i, j) and i != j:
                heapq.heappush(queue, (max(height, saddle), j if state == i else i))
    return best


def drawn_merge(segments: np.ndarray, crossings: np.ndarray, x: float, other: float) -> float:
    """The height at which two leaves meet, followed along the drawn lines alone: from the foot of a leaf up its riser,
    along the crossing that begins there, up the riser that begins where that ends, and so on."""

    def climb(place: float) -> set[tuple[float, float]]:
        """Every corner (x, height) that the lines from a leaf pass on their way up."""
        height = min(y for x0, y in segments[:, 0] if x0 == place)
        passed: set[tuple[float, float]] = set()
        while True:
            top = [s[1, 1] for s in segments if s[0, 0] == place and np.isclose(s[0, 1], height)]
            across = [c for c in crossings if c[0, 0] == place and np.isclose(c[0, 1], top[0])]
            if not across:
                return passed
            place, height = across[0][1]
            passed.add((place, height))

    return min(height for _, height in climb(x) & climb(other))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lines_of_the_disconnectivity_graph_meet_at_the_minimax_barriers(seed: int) -> None:
    analysis = random_analysis(14, seed=seed)
    drawn = plot_disconnectivity(analysis)
    risers, crossings = np.array(drawn.risers.get_segments()), np.array(drawn.crossings.get_segments())
    places = drawn.tree.positions
    lowest, beta = analysis.states.energy.min(), analysis.dynamics.beta
    for i in range(14):
        expected = beta * (minimax(analysis, i) - lowest)
        foot = risers[np.flatnonzero(drawn.riser_nodes == i)[0], 0]
        assert np.allclose(foot, [places[i], beta * (analysis.states.energy[i] - lowest)])
        for j in range(14):
            if j != i:
                assert np.isclose(drawn_merge(risers, crossings, places[i], places[j]), expected[j])


def test_disconnectivity_in_energy_units_and_in_parts() -> None:
    analysis = random_analysis(12)
    apart = replace(analysis.saddles, joins=np.where(analysis.saddles.joins == 11, 0, analysis.saddles.joins))
    drawn = plot_disconnectivity(replace(analysis, saddles=apart), unit="energy")
    assert len(drawn.tree.roots) == 2
    assert np.array_equal(np.sort(drawn.height[:12]), analysis.states.energy)
    assert set(drawn.height[12:]) <= set(analysis.saddles.energy)
    with pytest.raises(UsageError, match="units"):
        plot_disconnectivity(analysis, unit="eV")  # type: ignore[arg-type]


def test_heavy_lines_are_darker_and_on_top() -> None:
    drawn = plot_disconnectivity(random_analysis(30))
    light = drawn.risers.get_colors()[:, :3].sum(axis=1)
    assert (np.diff(light) <= 1e-9).all() and light[0] > light[-1] + 0.5


def test_labels_of_a_large_graph_name_the_heaviest_and_stay_apart() -> None:
    analysis = random_analysis(400)
    drawn = plot_disconnectivity(analysis)
    assert len(drawn.labels) >= 3
    named = [int(label.get_text()) for label in drawn.labels]
    assert set(named) <= set(np.argsort(-analysis.network.weights["sampled"], kind="stable")[:14].tolist())
    boxes = [label.get_window_extent() for label in drawn.labels]
    assert not any(box.overlaps(other) for k, box in enumerate(boxes) for other in boxes[k + 1 :])
    # every label hangs under its own line
    places = [label.get_position()[0] for label in drawn.labels]
    assert places == pytest.approx(drawn.tree.positions[named])


@pytest.mark.parametrize("column", ["second", "zeroth", "sampled"])
def test_node_areas_are_proportional_to_weights(column: str) -> None:
    analysis = random_analysis(9)
    drawn = plot_network(analysis, weights=column)
    weights = analysis.network.weights[column][drawn.shown]
    areas = drawn.nodes.get_sizes()
    assert np.allclose(areas / areas.sum(), weights / weights.sum(), rtol=1e-12)


def test_edges_carry_barriers_rates_and_fluxes() -> None:
    analysis = random_analysis(7)
    network = analysis.network
    edges = edges_between(network, analysis.dynamics.beta, np.arange(7))
    assert edges.direct.all()
    pairs = {tuple(sorted(pair)) for pair in network.joins[network.counted].tolist()}
    assert {tuple(pair) for pair in edges.ends.tolist()} == pairs
    for (i, j), barrier, rate, flux in zip(edges.ends, edges.barrier, edges.log_rate, edges.log_flux, strict=True):
        between = (np.sort(network.joins, axis=1) == sorted((i, j))).all(axis=1)
        lowest = network.saddle_energies[between].min()
        assert np.allclose(barrier, 1.5 * (lowest - network.energies[[i, j]]))
        assert np.allclose(np.exp(rate), [network.rate_matrix[i, j], network.rate_matrix[j, i]])
        # detailed balance: the flux is the same both ways
        assert np.allclose(flux, np.log(network.stationary[i] * network.rate_matrix[i, j]))


def test_width_grows_with_the_flux() -> None:
    drawn = plot_network(random_analysis(8))
    flux = drawn.edges.log_flux.max(axis=1)
    widths = np.array([line.get_linewidth() for line in drawn.lines])
    order = np.argsort(flux)
    assert (np.diff(widths[order]) >= 0).all() and widths[order[-1]] > 2 * widths[order[0]]


def test_rates_have_an_arrow_each_way_as_wide_as_they_are_large() -> None:
    drawn = plot_network(random_analysis(8), edges="rate")
    widths = np.array([line.get_linewidth() for line in drawn.lines]).reshape(-1, 2)
    assert widths.shape == drawn.edges.log_rate.shape
    order = np.argsort(drawn.edges.log_rate.ravel())
    assert (np.diff(widths.ravel()[order]) >= 0).all() and np.ptp(widths) > 1
    with pytest.raises(UsageError, match="flux"):
        plot_network(random_analysis(3), edges="speed")  # type: ignore[arg-type]


def test_barriers_written_are_those_of_the_edges() -> None:
    analysis = random_analysis(5)
    drawn = plot_network(analysis)
    expected = set()
    for (a, b), barrier in zip(drawn.shown[drawn.edges.ends], drawn.edges.barrier, strict=True):
        first, second = barrier if a < b else barrier[::-1]
        expected.add(f"{first:.1f} | {second:.1f}")
    written = {label.get_text() for label in drawn.barrier_labels}
    assert written <= expected and len(drawn.barrier_labels) + drawn.labels_left_out == len(drawn.edges.ends)
    assert written


@pytest.mark.parametrize(("n", "seed"), [(3, 0), (8, 1), (25, 2), (120, 3)])
def test_no_label_overlaps_another_or_a_node(n: int, seed: int) -> None:
    drawn = plot_network(random_analysis(n, seed=seed))
    boxes = [label.get_window_extent() for label in [*drawn.barrier_labels, *drawn.node_labels]]
    numbered = [label for label in drawn.node_labels if not label.get_path_effects()]  # inside their nodes
    nodes = [Bbox.from_bounds(*(at - r), *(2 * r)) for at, r in _discs(drawn)]
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])
    for label in drawn.barrier_labels:
        assert not any(label.get_window_extent().overlaps(node) for node in nodes)
    assert len(numbered) <= len(drawn.shown)


def _discs(drawn) -> list[tuple[np.ndarray, np.ndarray]]:
    """Centre and half side, twice, of the square in each node's disc, in pixels."""
    ax = drawn.ax
    centres = ax.transData.transform(drawn.position)
    radii = np.sqrt(drawn.nodes.get_sizes() / np.pi) * ax.figure.dpi / 72 * np.sqrt(0.5)
    return [(at, np.array([r, r])) for at, r in zip(centres, radii, strict=True)]


def test_layout_is_the_same_on_every_run_and_for_moved_coordinates() -> None:
    analysis = random_analysis(20)
    first, again = plot_network(analysis), plot_network(random_analysis(20))
    assert np.array_equal(first.position, again.position)
    x, ends = analysis.states.x, edges_between(analysis.network, 1.0, np.arange(20)).ends
    moved = positions(x + 1e-7 * np.random.default_rng(0).normal(size=x.shape), ends)
    assert np.abs(moved - positions(x, ends)).max() < 1e-2


def test_nodes_do_not_overlap() -> None:
    for n, seed in ((4, 0), (12, 1), (30, 2)):
        drawn = plot_network(random_analysis(n, seed=seed))
        centres = drawn.ax.transData.transform(drawn.position) * 72 / drawn.ax.figure.dpi
        radius = np.sqrt(drawn.nodes.get_sizes() / np.pi)
        gap = np.linalg.norm(centres[:, None] - centres, axis=-1) - radius[:, None] - radius
        assert gap[~np.eye(len(radius), dtype=bool)].min() > 0


def test_of_a_large_network_the_heaviest_are_drawn_in_one_piece() -> None:
    analysis = random_analysis(300)
    drawn = plot_network(analysis, max_states=12, weights="second")
    assert np.array_equal(drawn.shown, np.argsort(-analysis.log_second, kind="stable")[:12])
    reached, waiting = {0}, [0]
    while waiting:
        here = waiting.pop()
        near = {int(b if a == here else a) for a, b in drawn.edges.ends if here in (a, b)} - reached
        reached |= near
        waiting += near
    assert reached == set(range(12))
    heights = [minimax(analysis, int(state)) for state in drawn.shown]
    lowest = analysis.states.energy[drawn.shown]
    for (a, b), barrier, direct in zip(drawn.edges.ends, drawn.edges.barrier, drawn.edges.direct, strict=True):
        if not direct:  # over the minimax way, which leads through states that are not drawn
            assert np.isclose(barrier[0] / 1.5 + lowest[a], heights[a][drawn.shown[b]])


@pytest.mark.parametrize("n", [1, 2])
def test_the_smallest_networks_are_drawn(n: int) -> None:
    analysis = random_analysis(n)
    assert len(plot_network(analysis).nodes.get_sizes()) == n
    assert len(plot_disconnectivity(analysis).tree.heights) == n - 1
    assert len(plot_weights(analysis).shown) == n
    if n == 1:
        with pytest.raises(UsageError, match="two states"):
            plot_rate_matrix(analysis)
        with pytest.raises(UsageError, match="no finite timescale"):
            plot_timescales(analysis)


def test_error_bars_are_the_standard_errors() -> None:
    analysis = random_analysis(6)
    assert analysis.sampled is not None
    drawn = plot_weights(analysis)
    (bars,) = drawn.bars["sampled"][2]
    segments = np.array(bars.get_segments())
    half = (segments[:, 1, 1] - segments[:, 0, 1]) / 2
    assert np.allclose(half, analysis.sampled.standard_errors[drawn.shown], rtol=1e-9)
    assert np.allclose(segments[:, :, 1].mean(axis=1), analysis.sampled.weights[drawn.shown], rtol=1e-9)
    for name in ("zeroth", "second", "sampled"):
        assert np.allclose(drawn.bars[name][0].get_ydata(), analysis.network.weights[name][drawn.shown])
    assert set(drawn.bars) == {"zeroth", "second", "sampled"}


def test_methods_stand_side_by_side() -> None:
    drawn = plot_weights(random_analysis(6))
    places = np.array([bar[0].get_xdata() for bar in drawn.bars.values()])
    assert len(np.unique(places)) == places.size and np.abs(places - np.arange(6)).max() < 0.5


def test_timescales_are_drawn_as_they_are_also_beyond_float64() -> None:
    analysis = random_analysis(8)
    drawn = plot_timescales(analysis)
    assert np.allclose(drawn.line.get_ydata() * np.log(10), analysis.network.log_timescales)
    cold = replace(analysis, dynamics=Overdamped(400.0, 1.0), sampled=None)
    slow = plot_timescales(cold)
    assert slow.shown[0] > 400 and "10^{" in " ".join(t.get_text() for t in slow.ax.get_yticklabels())


def test_rate_matrix_shows_every_rate() -> None:
    analysis = random_analysis(6)
    drawn = plot_rate_matrix(analysis)
    image = np.ma.asarray(drawn.image.get_array())
    rates = analysis.network.rate_matrix
    off = ~np.eye(6, dtype=bool)
    assert np.array_equal(np.ma.getmaskarray(image), ~(off & (rates > 0)))
    assert np.allclose(10.0 ** image.compressed(), rates[off & (rates > 0)])
    texts = np.array([text.get_text().replace("\u2212", "-") for text in drawn.texts], dtype=object).reshape(6, 6)
    assert np.allclose(texts.astype(float), rates, rtol=0.06)
    assert all(texts[k, k].startswith("-") for k in range(6))
    assert plot_rate_matrix(random_analysis(20), max_states=12).texts == []


def test_verdicts_stand_beside_ratios_and_intervals() -> None:
    verdict = ("agrees", "asymptotics doubtful", "undecided", "not converged")
    checks = random_checks(np.random.default_rng(1), 4, verdict)
    drawn = plot_verdicts(checks)
    assert [float(p.get_xdata()[0]) for p in drawn.points] == pytest.approx(checks.log_ratio)
    ends = np.array([line.get_xdata() for line in drawn.lines])
    expected = np.stack([checks.log_formula - checks.log_interval[:, k] for k in (1, 0)], axis=1)
    assert np.allclose(ends, expected)
    assert [text.get_text() for text in drawn.ax.texts] == list(verdict)
    assert len({(p.get_color(), p.get_marker()) for p in drawn.points}) == 4
    many = random_checks(np.random.default_rng(2), 80, ("agrees",) * 80)
    assert set(plot_verdicts(many, max_rows=10).rows) == set(np.argsort(-np.abs(many.log_ratio))[:10])


def test_committor_is_that_of_a_barrier_in_one_coordinate() -> None:
    """E = (x^2 - 1)^2 + 2 y^2 leaves y alone: outside the cores q = integral of exp(beta (x^2 - 1)^2) dx."""
    energy = load_energy(_separable())
    analysis = analyze(energy, Overdamped(beta=3.0, gamma=1.0))
    drawn = plot_committor(analysis, energy, source=0, target=1, cells=120)
    right = analysis.states.x[1, 0] > 0
    x, y = drawn.points.T
    middle = np.abs(x) < 0.3
    fine = np.linspace(-1, 1, 20001)
    density = np.exp(3.0 * (fine**2 - 1) ** 2)
    exact = np.interp(x[middle], fine, np.cumsum(density) / density.sum())
    found = drawn.values[middle] if right else 1 - drawn.values[middle]
    near = np.abs(y[middle]) < 0.3
    # cores have a half-width of .2, which moves q by about a percent at these barriers of 3 kT
    assert np.abs(found - exact)[near].max() < 0.03
    assert np.isin(np.asarray(drawn.mesh.get_array()), drawn.values).all()
    # the grey begins on the line of the energy at the limit (5 kT over the barrier of 3), not at steps of the cells
    border = drawn.above.get_paths()[0].vertices
    (left, right_end), (low, high) = drawn.ax.get_xlim(), drawn.ax.get_ylim()
    inside = (border > [left, low]).all(1) & (border < [right_end, high]).all(1)
    assert inside.sum() > 100
    assert np.allclose(3.0 * energy.value(border[inside]), 8.0, atol=0.1)
    narrow = plot_committor(analysis, energy, source=0, target=1, cells=60, limit=4.0)
    assert narrow.above.levels[0] == 4.0


def _separable():
    import torch

    class Separable(torch.nn.Module):
        dim = 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, 0] ** 2 - 1) ** 2 + 2 * x[:, 1] ** 2

    return Separable()


def test_eigenfunctions_have_the_rates_of_the_generator(triple_well: tuple[Analysis, Energy]) -> None:
    """ORACLES: eigenvalues of the triple well at beta 1.67; here the same relation at beta 3, between two routes."""
    analysis, energy = triple_well
    drawn = plot_eigenvector(analysis, energy, which=1, cells=80)
    at = [int(np.linalg.norm(drawn.points - x, axis=1).argmin()) for x in analysis.states.x]
    # the slowest process exchanges the two deep wells, which lie mirrored, and vanishes at the shallow one
    assert np.isclose(drawn.values[at[0]], -drawn.values[at[1]], rtol=1e-3)
    assert abs(drawn.values[at[2]]) < 0.02
    assert drawn.rate == pytest.approx(np.exp(-analysis.network.log_timescales[0]), rel=0.35)


def test_fields_say_what_they_need(triple_well: tuple[Analysis, Energy]) -> None:
    analysis, energy = triple_well
    with pytest.raises(UnsupportedError, match="two dimensions"):
        plot_committor(random_analysis(3), energy)
    with pytest.raises(UnsupportedError, match="overdamped"):
        plot_eigenvector(analysis.with_dynamics(Underdamped(3.0, 1.0, 1.0)), energy)
    with pytest.raises(UsageError, match="two different states"):
        plot_committor(analysis, energy, source=1, target=1)
    with pytest.raises(UsageError, match="numbered from 1 to 3"):
        plot_eigenvector(analysis, energy, which=4)


def test_every_picture_of_the_gallery_is_drawn_and_described(triple_well: tuple[Analysis, Energy]) -> None:
    analysis, energy = triple_well
    scene = Scene(replace(analysis, checks=random_checks(np.random.default_rng(0), 2, ("agrees",) * 2)), energy)
    for picture in FIELD_PICTURES:
        assert picture.why_not(scene) == ""
        figure, text = picture.figure(scene)
        assert len(text) > 40 and any(letter.isdigit() for letter in text) and text.endswith(".")
        assert figure.axes and "nan" not in text
    assert "landscape check" in next(p for p in FIELD_PICTURES if p.name == "verdicts").why_not(Scene(analysis))


def test_pictures_draw_into_the_axes_they_are_given() -> None:
    analysis = random_analysis(5)
    figure = Figure(figsize=(12, 4))
    parts = figure.subfigures(1, 2)
    left, right = parts[0].subplots(), parts[1].subplots()
    assert plot_network(analysis, ax=left).ax is left and plot_disconnectivity(analysis, ax=right).ax is right
