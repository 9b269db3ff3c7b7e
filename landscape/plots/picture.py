"""`Scene`, what is drawn, and `Picture`, how: the entries of the gallery that the command and the report draw from."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from landscape.errors import UsageError
from landscape.plots.energy import plane_grid
from landscape.plots.grids import EnergyGrid
from landscape.plots.style import SIZE
from landscape.plots.volume import space_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from landscape.energy import Energy
    from landscape.store import Analysis


@dataclass(frozen=True, eq=False)
class Scene:
    """An analysis and how to look at it.

    energy : None where it is gone; pictures that need its values are then not to be had. plane_choice : as
    `choose_plane` takes it. limit : highest energy shown, in kT above the lowest minimum; None: chosen.
    """

    analysis: Analysis
    energy: Energy | None = None
    plane_choice: str | None = None
    limit: float | None = None

    @cached_property
    def plane(self) -> EnergyGrid:
        """Energies on the plane, evaluated once for all pictures. UsageError where d = 1, or the energy is gone."""
        return plane_grid(self.analysis, self._energy(), self.plane_choice, self.limit)

    @cached_property
    def space(self) -> EnergyGrid:
        """Energies in the 3-D subspace, evaluated once. UsageError where d < 3, or the energy is gone."""
        return space_grid(self.analysis, self._energy(), limit=self.limit)

    def _energy(self) -> Energy:
        if self.energy is None:
            raise UsageError("this picture needs energies, and the energy is gone: say where it is")
        return self.energy


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery.

    name : as in `landscape plot --what`. title : a few words. draw : fills an empty figure (layout "constrained") and
    returns one or two sentences for those who cannot see it: what is drawn, with its main numbers. missing : "" where
    the scene has what the picture needs, else why not, as a clause ("one state only: there is no transition").
    needs_energy : whether energies are evaluated. size : of the figure in inches; height : instead of the size's, where
    it depends on how much there is to draw.
    """

    name: str
    title: str
    draw: Callable[[Scene, Figure], str]
    missing: Callable[[Scene], str] = lambda scene: ""
    needs_energy: bool = False
    size: tuple[float, float] = SIZE
    height: Callable[[Scene], float] | None = None

    def why_not(self, scene: Scene) -> str:
        """ "" if this picture can be drawn of the scene, else the reason."""
        if self.needs_energy and scene.energy is None:
            return "it needs energies, and the energy is gone"
        return self.missing(scene)

    def figure(self, scene: Scene, size: tuple[float, float] | None = None) -> tuple[Figure, str]:
        """A new figure with the picture, and the text for those who cannot see it. UsageError if it cannot be drawn."""
        from matplotlib.figure import Figure

        reason = self.why_not(scene)
        if reason:
            raise UsageError(f"the picture {self.name!r} cannot be drawn: {reason}")
        own = self.size if self.height is None else (self.size[0], self.height(scene))
        figure = Figure(figsize=size or own, layout="constrained")
        return figure, self.draw(scene, figure)


def render(figure: Figure, form: str, title: str, text: str, dpi: float = 150.0) -> bytes:
    """The file of a figure as "png", "svg" or "pdf", with its title and the text for those who cannot see it inside.

    UsageError for another format, and for a figure too small for its labels.
    """
    metadata = {
        "png": {"Title": title, "Description": text},
        "svg": {"Title": title, "Description": text, "Date": None},
        "pdf": {"Title": title, "Subject": text, "CreationDate": None},
    }
    if form not in metadata:
        raise UsageError(f"a picture is written as png, svg or pdf, not {form!r}")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*layout not applied", category=UserWarning)
        try:
            figure.savefig(buffer, format=form, dpi=dpi, metadata=metadata[form])
        except UserWarning as warning:
            width, height = figure.get_size_inches()
            raise UsageError(
                f"labels and legend leave no room for a picture of {width:g} x {height:g} inches: give a larger --size"
            ) from warning
    return buffer.getvalue()
