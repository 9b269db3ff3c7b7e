"""The pictures of the network, its rates and weights in the gallery."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from landscape.plots.bars import METHODS, SOLVABLE, plot_timescales, plot_weights
from landscape.plots.disconnectivity import plot_disconnectivity
from landscape.plots.fields import FieldArtists, plot_committor, plot_eigenvector, why_no_grid
from landscape.plots.labels import quantity
from landscape.plots.matrices import plot_rate_matrix
from landscape.plots.network import NetworkArtists, plot_network
from landscape.plots.picture import Picture, Scene
from landscape.plots.verdicts import MARKS, plot_verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 8  # states whose numbers a description gives


def _disconnectivity(scene: Scene, figure: Figure) -> str:
    drawn = plot_disconnectivity(scene.analysis, ax=figure.add_subplot())
    tree, n = drawn.tree, len(drawn.tree.energies)
    text = f"Disconnectivity graph of {_count(n, 'minimum', 'minima')}, coloured by weight."
    if len(tree.heights):
        merges = drawn.height[n:]
        text += (
            f" Groups merge at {_range(f'{merges.min():.4g}', f'{merges.max():.4g}')} kT above the lowest minimum; "
            f"the minima lie up to {drawn.height[:n].max():.4g} kT above it."
        )
    parts = len(tree.roots)
    return text if parts == 1 else f"{text} {parts} parts are not joined by any saddle found."


def _network(scene: Scene, figure: Figure) -> str:
    drawn = plot_network(scene.analysis, ax=figure.add_subplot())
    return f"{_drawn_network(drawn)} Edge widths grow with the equilibrium flux."


def _network_rates(scene: Scene, figure: Figure) -> str:
    drawn = plot_network(scene.analysis, edges="rate", ax=figure.add_subplot())
    logs = drawn.edges.log_rate[drawn.edges.direct]
    text = f"{_drawn_network(drawn)} Arrow widths grow with the rates"
    if not logs.size:
        return f"{text}."
    spread = _range(quantity(float(logs.min())), quantity(float(logs.max())))
    return f"{text}, {spread} per {_time_unit(scene)}."


def _drawn_network(drawn: NetworkArtists) -> str:
    heavy = ", ".join(f"state {s} {w:.3g}" for s, w in zip(drawn.shown[:NAMED], drawn.weights[:NAMED], strict=True))
    text = f"Network of {_count(len(drawn.shown), 'state')}; node areas are the weights: {heavy}"
    text += f" and {len(drawn.shown) - NAMED} lighter ones." if len(drawn.shown) > NAMED else "."
    direct = drawn.edges.barrier[drawn.edges.direct]
    if len(direct):
        spread = _range(f"{direct.min():.3g}", f"{direct.max():.3g}")
        text += f" {_count(len(direct), 'edge')}, with barriers of {spread} kT."
    return text


def _rate_matrix(scene: Scene, figure: Figure) -> str:
    drawn = plot_rate_matrix(scene.analysis, ax=figure.add_subplot())
    values = np.ma.asarray(drawn.image.get_array()).compressed() * np.log(10)
    text = f"Rate matrix of {_count(len(drawn.shown), 'state')} in colours of its logarithm"
    if not len(values):
        return f"{text}, without a rate: no saddle joins two of them."
    spread = _range(quantity(float(values.min())), quantity(float(values.max())))
    return f"{text}; {_count(len(values), 'rate')} of {spread} per {_time_unit(scene)}."


def _weights(scene: Scene, figure: Figure) -> str:
    drawn = plot_weights(scene.analysis, ax=figure.add_subplot())
    words = {name: text for name, text, _, _ in METHODS}
    texts = []
    for name, values in drawn.values.items():
        numbers = [
            f"{value:.3g}" + (f" ± {error:.2g}" if np.isfinite(error) else "")
            for value, error in zip(values[:NAMED], drawn.errors[name][:NAMED], strict=True)
        ]
        texts.append(f"{words[name]} {', '.join(numbers)}")
    n, named = len(scene.analysis.states.energy), ", ".join(map(str, drawn.shown[:NAMED]))
    which = f"states {named}" if n <= NAMED else f"the {NAMED} heaviest of {n:,} states, {named},"
    return f"Weights of {which} by each method: {'; '.join(texts)}."


def _timescales(scene: Scene, figure: Figure) -> str:
    drawn = plot_timescales(scene.analysis, ax=figure.add_subplot())
    times = ", ".join(quantity(float(log * np.log(10))) for log in drawn.shown[:NAMED])
    more = " ..." if drawn.total > NAMED else ""
    return f"{_count(drawn.total, 'relaxation timescale')}, slowest first: {times}{more} ({_times(scene)})."


def _committor(scene: Scene, figure: Figure) -> str:
    assert scene.energy is not None
    figure.set_layout_engine("compressed")
    drawn = plot_committor(scene.analysis, scene.energy, limit=scene.limit, ax=figure.add_subplot())
    first, second = drawn.states
    values = ", ".join(f"state {k} {value:.2g}" for k, value in enumerate(_at_minima(drawn)))
    return f"Map of the probability to reach state {second} before state {first}: at the minima {values}."


def _eigenvectors(scene: Scene, figure: Figure) -> str:
    assert scene.energy is not None
    count = min(2, len(scene.analysis.states.energy) - 1)
    texts = []
    figure.set_layout_engine("compressed")
    for k, ax in enumerate(np.atleast_1d(figure.subplots(1, count)), start=1):
        drawn = plot_eigenvector(scene.analysis, scene.energy, which=k, limit=scene.limit, ax=ax)
        values = ", ".join(f"{value:+.2g}" for value in _at_minima(drawn))
        texts.append(f"number {k}, relaxation time {1 / drawn.rate:.4g} {_times(scene)}, at the minima {values}")
    return f"Maps of the slowest eigenfunctions of the generator: {'; '.join(texts)}."


def _verdicts(scene: Scene, figure: Figure) -> str:
    checks = scene.analysis.checks
    assert checks is not None
    drawn = plot_verdicts(checks, ax=figure.add_subplot())
    counts = Counter(checks.verdict)
    text = ", ".join(f"{counts[verdict]} {verdict}" for verdict in MARKS if counts[verdict])
    known = drawn.ratio[np.isfinite(drawn.ratio)]
    spread = f"; formula over reference {_range(f'{known.min():.3g}', f'{known.max():.3g}')}" if len(known) else ""
    return f"Rates by the formula against independent ones, {_count(len(checks.pairs), 'transition')}: {text}{spread}."


def _at_minima(drawn: FieldArtists) -> list[float]:
    """The field at the minima, of the first few states."""
    nearest = [int(np.linalg.norm(drawn.points - x, axis=1).argmin()) for x in drawn.minima[:NAMED]]
    return [float(drawn.values[cell]) for cell in nearest]


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _time_unit(scene: Scene) -> str:
    """In the singular."""
    return scene.analysis.energy.get("time_unit") or "unit of time"


def _times(scene: Scene) -> str:
    return scene.analysis.energy.get("time_unit") or "units of time"


def _alone(scene: Scene) -> str:
    return "" if len(scene.analysis.states.energy) > 1 else "one state only: there is no transition"


def _no_timescale(scene: Scene) -> str:
    n = len(scene.analysis.states.energy)
    if n > SOLVABLE:
        return f"timescales of {n:,} states take minutes, and pictures compute them up to {SOLVABLE} states"
    if _alone(scene):
        return _alone(scene)
    return "" if np.isfinite(scene.analysis.network.log_timescales).any() else "no timescale is finite"


def _no_checks(scene: Scene) -> str:
    checks = scene.analysis.checks
    if checks is None:
        return "no rate has been checked: `landscape check DIR` does it"
    return "" if len(checks.pairs) else "no transition between neighbouring states was there to check"


def _no_field(scene: Scene) -> str:
    return why_no_grid(scene.analysis)


FIELD_PICTURES: tuple[Picture, ...] = (
    Picture("disconnectivity", "Disconnectivity graph", _disconnectivity),
    Picture("network", "Transition network", _network, size=(6.8, 5.4)),
    Picture("network-rates", "Rates of the network", _network_rates, _alone, size=(6.8, 5.4)),
    Picture("rate-matrix", "Rate matrix", _rate_matrix, _alone, size=(6.0, 5.0)),
    Picture("timescales", "Relaxation timescales", _timescales, _no_timescale, size=(6.4, 4.0)),
    Picture("weights", "Weights by every method", _weights, size=(6.8, 4.2)),
    Picture("verdicts", "Formula against reference rates", _verdicts, _no_checks, size=(9.0, 4.6)),
    Picture("committor", "Committor", _committor, _no_field, needs_energy=True, size=(6.4, 4.8)),
    Picture("eigenvectors", "Slowest eigenfunctions", _eigenvectors, _no_field, needs_energy=True, size=(10.4, 4.2)),
)
