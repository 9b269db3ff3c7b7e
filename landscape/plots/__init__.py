"""Pictures of a landscape, by matplotlib.

The functions `plot_*` are imported from here on first use (PEP 562); their modules hold the rest.

Conventions that every picture keeps:

- A picture is a function `plot_*(analysis-or-data, ..., ax=None)`. It draws into `ax`, or into the axes of a new
  `matplotlib.figure.Figure` where ax is None, and returns a frozen dataclass of the artists it made and of the numbers
  that they show; its field `ax` is the axes, so that `plot_contour(...).ax.figure.savefig("contour.png")` is enough.
- The object-oriented interface only: pyplot is never imported, nothing is shown, rcParams stay as they are, no display
  is needed. Vector (SVG, PDF) and raster output are both meant.
- Colours, sizes and the levels of an energy come from `landscape.plots.style`: one colour a state in every picture
  (`state_color`), the energy in kT above the lowest minimum by `KT_COLORMAP`, what lies above the limit in
  `UNREACHABLE`.
- A state is called by its number, i; a saddle's line or label says i-j. An axis says what it shows and in which unit.
- An extra package (plotly, scikit-image) is imported where it is used; where it is missing, UsageError in one line.
- d = 1, a single state, no path: a picture draws what there is, or raises UsageError that says what it needs.

`landscape.plots.gallery.PICTURES` has every picture by name, as `landscape plot --what` and the report use them: a
`Picture` (landscape.plots.picture) draws a `Scene` (an analysis, and its energy where there is one) into an empty
figure and returns the sentence that describes it to those who cannot see it. Energy pictures are listed in
energy_gallery.py, pictures of the network and its weights in field_gallery.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from landscape.lazy import on_first_use

if TYPE_CHECKING:
    from landscape.plots.bars import plot_timescales, plot_weights
    from landscape.plots.disconnectivity import plot_disconnectivity
    from landscape.plots.drift import plot_drift_line, plot_drifts, plot_flow_lines, plot_quiver
    from landscape.plots.energy import plot_contour
    from landscape.plots.fields import plot_committor, plot_eigenvector
    from landscape.plots.matrices import plot_rate_matrix
    from landscape.plots.network import plot_network
    from landscape.plots.profile import plot_line, plot_profile, plot_profiles
    from landscape.plots.surface import plot_surface
    from landscape.plots.verdicts import plot_verdicts
    from landscape.plots.volume import plot_volume
else:
    __getattr__, __dir__ = on_first_use(
        __name__,
        {
            "bars": ("plot_timescales", "plot_weights"),
            "disconnectivity": ("plot_disconnectivity",),
            "drift": ("plot_drift_line", "plot_drifts", "plot_flow_lines", "plot_quiver"),
            "energy": ("plot_contour",),
            "fields": ("plot_committor", "plot_eigenvector"),
            "matrices": ("plot_rate_matrix",),
            "network": ("plot_network",),
            "profile": ("plot_line", "plot_profile", "plot_profiles"),
            "surface": ("plot_surface",),
            "verdicts": ("plot_verdicts",),
            "volume": ("plot_volume",),
        },
    )

__all__ = [
    "plot_committor",
    "plot_contour",
    "plot_disconnectivity",
    "plot_drift_line",
    "plot_drifts",
    "plot_eigenvector",
    "plot_flow_lines",
    "plot_line",
    "plot_network",
    "plot_profile",
    "plot_profiles",
    "plot_quiver",
    "plot_rate_matrix",
    "plot_surface",
    "plot_timescales",
    "plot_verdicts",
    "plot_volume",
    "plot_weights",
]
