"""The pictures of the network, its rates and weights in the gallery."""

from __future__ import annotations

from landscape.plots.picture import Picture

FIELD_PICTURES: tuple[Picture, ...] = ()
