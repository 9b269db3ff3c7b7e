"""3-D views that turn, by plotly: surfaces and isosurfaces as triangle meshes, with minima, saddles and paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from matplotlib.colors import to_hex

from landscape.errors import UsageError
from landscape.plots.grids import EnergyGrid
from landscape.plots.meshes import Mesh, cut_above, surface_mesh
from landscape.plots.picture import Scene
from landscape.plots.planes import viewing_direction
from landscape.plots.style import INK, KT_COLORMAP, SADDLE, state_color
from landscape.plots.volume import contour_meshes
from landscape.store import Analysis

CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False, "plotlyServerURL": ""}
STEEP = (60.0, -62.0)  # elevation and azimuth, degrees, from where no well hides behind its rim
DISTANCE = 2.35  # of the eye, in plotly's units of the box
EXTRA = 'views that turn need plotly: install it with pip install "learned-landscape[report]"'


@dataclass(frozen=True)
class View:
    """Title, the text for those who cannot see it, and the element with the scripts that draw it."""

    title: str
    text: str
    html: str


def check_extra() -> None:
    """UsageError, one line, where plotly is missing."""
    try:
        import plotly  # noqa: F401
    except ImportError as error:
        raise UsageError(EXTRA) from error


def three_d_views(scene: Scene, progress: Callable[[str], None]) -> list[View]:
    """The energy over a plane as a surface, and from three dimensions on its isosurfaces; the first brings the library.

    UsageError where plotly or scikit-image is missing, the energy is not there, or has one dimension.
    """
    check_extra()
    from plotly.offline import get_plotlyjs

    analysis = scene.analysis
    if scene.energy is None:
        raise UsageError("3-D views need the energy: say where it is with --energy, or leave --three-d out")
    if analysis.dim < 2:
        raise UsageError("3-D views need an energy of two dimensions or more: leave --three-d out")
    progress("3-D surface")
    views = [_surface(analysis, scene.plane)]
    if analysis.dim > 2:
        progress("3-D isosurfaces")
        views.append(_volume(analysis, scene.space))
    return [
        View(views[0].title, views[0].text, f"<script>{get_plotlyjs()}</script>{views[0].html}"),
        *views[1:],
    ]


def _surface(analysis: Analysis, grid: EnergyGrid) -> View:
    levels, plane = grid.levels, grid.subspace
    mesh = cut_above(surface_mesh(grid), levels.limit)  # no lid at the limit
    traces = [
        _mesh(
            mesh, intensity=np.minimum(mesh.kt, levels.limit).astype(np.float32), colorscale=_colorscale(),
            cmin=0.0, cmax=levels.limit,
            colorbar={"title": {"text": "kT"}, "len": 0.6}, hovertemplate="%{z:.2f} kT<extra></extra>",
        )
    ]  # fmt: skip
    lift = 0.02 * levels.limit  # so that lines on the surface are seen
    images = zip(analysis.paths.images, analysis.paths.energy, strict=True)
    lines = [np.column_stack([plane.project(x), levels.kt(e) + lift]) for x, e in images]
    known = (analysis.saddles.joins >= 0).all(axis=1)
    saddles = np.column_stack([plane.project(analysis.saddles.x), levels.kt(analysis.saddles.energy) + lift])[known]
    minima = np.column_stack([plane.project(analysis.states.x), levels.kt(analysis.states.energy) + lift])
    traces += _marks(lines, saddles, minima, "white")  # wells are dark
    text = (
        f"Energy over {plane.name} in kT above the lowest minimum, cut at {levels.limit:g} kT, with "
        f"{len(minima)} minima, {len(saddles)} saddles and {len(lines)} minimum energy paths. Drag to turn, pinch or "
        "scroll to zoom."
    )
    axes = [*map(_plain, plane.labels), "energy (kT)"]
    spans = [float(np.ptp(tick)) for tick in grid.ticks]
    aspect = {"x": spans[0] / max(spans), "y": spans[1] / max(spans), "z": 0.45}
    return View("Energy surface", text, _figure("surface", text, traces, axes, aspect, STEEP))


def _volume(analysis: Analysis, grid: EnergyGrid) -> View:
    space = grid.subspace
    meshes = contour_meshes(analysis, grid)
    traces = []
    for mesh in meshes:
        outer = mesh.state < 0
        color = KT_COLORMAP(float(mesh.kt[0]) / grid.levels.limit) if outer else state_color(mesh.state)
        name = f"{mesh.kt[0]:g} kT" if outer else f"state {mesh.state}: below {mesh.kt[0]:.3g} kT"
        traces.append(_mesh(mesh, color=to_hex(color), opacity=0.18 if outer else 0.5, name=name, showlegend=True,
                            hoverinfo="name"))  # fmt: skip
    known = (analysis.saddles.joins >= 0).all(axis=1)
    lines = [space.project(path) for path in analysis.paths.images]
    traces += _marks(lines, space.project(analysis.saddles.x[known]), space.project(analysis.states.x), INK)
    levels = ", ".join(f"state {mesh.state} below {mesh.kt[0]:.3g} kT" for mesh in meshes if mesh.state >= 0)
    text = f"Isosurfaces of the energy in {space.name}: {levels or 'one level'}" + "".join(
        f"; around all {mesh.kt[0]:g} kT" for mesh in meshes if mesh.state < 0
    )
    spans = [float(np.ptp(tick)) for tick in grid.ticks]
    aspect = {name: span / max(spans) for name, span in zip("xyz", spans, strict=True)}
    view = viewing_direction(space.project(analysis.states.x))
    axes = [_plain(label) for label in space.labels]
    return View("Isosurfaces", f"{text}.", _figure("isosurfaces", text, traces, axes, aspect, view))


def _mesh(mesh: Mesh, **appearance: Any) -> Any:
    """Single precision is finer than any screen, and half the size."""
    from plotly.graph_objects import Mesh3d

    x, y, z = mesh.vertices.T.astype(np.float32)
    i, j, k = mesh.faces.T.astype(np.int32)
    return Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, lighting={"ambient": 0.75, "specular": 0.05}, **appearance)


def _marks(lines: Sequence[np.ndarray], saddles: np.ndarray, minima: np.ndarray, ink: str) -> list[Any]:
    """ink : of the numbers of the states."""
    from plotly.graph_objects import Scatter3d

    traces = []
    if lines:
        gap = np.full((1, 3), np.nan)
        x, y, z = np.concatenate([part for line in lines for part in (line, gap)]).T
        traces.append(Scatter3d(x=x, y=y, z=z, mode="lines", line={"color": INK, "width": 5}, name="paths",
                                hoverinfo="name"))  # fmt: skip
    if len(saddles):
        x, y, z = saddles.T
        marker = {"symbol": "diamond", "size": 5, "color": SADDLE, "line": {"color": INK, "width": 1}}
        traces.append(Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker, name="saddles", hoverinfo="name"))
    x, y, z = minima.T
    names = [str(k) for k in range(len(minima))]
    colors = [to_hex(state_color(k)) for k in range(len(minima))]
    traces.append(
        Scatter3d(
            x=x, y=y, z=z, mode="markers+text" if len(minima) <= 40 else "markers", text=names, name="minima",
            textposition="top center", textfont={"color": ink, "size": 15},
            marker={"size": 7, "color": colors, "line": {"color": INK, "width": 1}},
            hovertemplate="state %{text}<extra></extra>",
        )
    )  # fmt: skip
    return traces


def _figure(
    name: str,
    text: str,
    traces: Sequence[Any],
    axes: Sequence[str],
    aspect: dict[str, float],
    view: tuple[float, float],
) -> str:
    """The element with a figure in it. view : elevation and azimuth from which it is seen first."""
    from plotly.graph_objects import Figure

    e, a = np.radians(view)
    eye = DISTANCE * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    camera = {"eye": dict(zip("xyz", eye.tolist(), strict=True))}
    scene = {f"{axis}axis": {"title": {"text": title}} for axis, title in zip("xyz", axes, strict=True)}
    figure = Figure(traces)
    figure.update_layout(
        template="none", margin={"l": 0, "r": 0, "t": 0, "b": 0}, uirevision=name, legend={"x": 0, "y": 1},
        scene={**scene, "aspectmode": "manual", "aspectratio": aspect, "dragmode": "turntable", "camera": camera},
        hoverlabel={"namelength": -1},
    )  # fmt: skip
    drawing = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"view-{name}", config=CONFIG, default_height="100%"
    )
    return f'<div class="view" role="img" aria-label="{escape(text)}">{drawing}</div>'


def _colorscale() -> list[list[Any]]:
    """Colours of energies in kT from 0 to the limit."""
    return [[float(at), to_hex(KT_COLORMAP(float(at) * 0.999))] for at in np.linspace(0, 1, 24)]


def _plain(label: str) -> str:
    """An axis label without the markup of matplotlib: $x_{1}$ is x1."""
    return label.translate(str.maketrans("", "", "${}_"))
