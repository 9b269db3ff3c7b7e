"""Pictures of a landscape, by matplotlib.

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
