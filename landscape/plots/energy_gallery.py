"""The energy pictures of the gallery."""

from __future__ import annotations

from landscape.plots.picture import Picture

ENERGY_PICTURES: tuple[Picture, ...] = ()
