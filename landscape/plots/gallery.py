"""Every picture by name, in the order in which a report shows them."""

from __future__ import annotations

from landscape.plots.energy_gallery import ENERGY_PICTURES
from landscape.plots.field_gallery import FIELD_PICTURES
from landscape.plots.picture import Picture

PICTURES: dict[str, Picture] = {picture.name: picture for picture in (*ENERGY_PICTURES, *FIELD_PICTURES)}
