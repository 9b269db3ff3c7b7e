"""The pictures of the gallery as images inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from landscape.errors import LandscapeError
from landscape.plots.gallery import PICTURES
from landscape.plots.picture import Scene, render

SVG_BYTES = 120_000  # drawings up to this size stay vectors; larger ones become pixels
DPI, LEAST_DPI = 150, 60
ALL_BYTES = 1_300_000  # of all images; as base64 they take a third more
WIDE = 8.0  # inches from which on a picture has a row of its own


@dataclass(frozen=True)
class Embedded:
    """One picture: its place in the gallery, the text for those who cannot see it, and the image."""

    name: str
    title: str
    text: str
    kind: str
    data: bytes
    wide: bool

    def html(self) -> str:
        """A figure element without any reference to a file."""
        source = f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"
        return (
            f'<figure id="picture-{escape(self.name)}"{" class=wide" if self.wide else ""}>'
            f"<h3>{escape(self.title)}</h3>"
            f'<img src="{source}" alt="{escape(self.text)}"><figcaption>{escape(self.text)}</figcaption></figure>'
        )


def draw_all(scene: Scene, progress: Callable[[str], None]) -> tuple[list[Embedded], list[tuple[str, str]]]:
    """Every picture of the gallery that this scene has, and (title, reason) for each of the others."""
    drawn: list[tuple[str, str, Figure, bool]] = []
    missing: list[tuple[str, str]] = []
    for name, picture in PICTURES.items():
        reason = picture.why_not(scene)
        if not reason:
            progress(f"drawing {picture.title}")
            try:
                figure, text = picture.figure(scene)
            except LandscapeError as error:
                reason = str(error)
            else:
                drawn.append((name, text, figure, picture.size[0] >= WIDE))
        if reason:
            missing.append((picture.title, reason))
    progress("embedding the pictures")
    images = _within_budget([figure for _, _, figure, _ in drawn])
    return [
        Embedded(name, PICTURES[name].title, text, kind, data, wide)
        for (name, text, _, wide), (kind, data) in zip(drawn, images, strict=True)
    ], missing


def _within_budget(figures: list[Figure]) -> list[tuple[str, bytes]]:
    """Images that take `ALL_BYTES` at most if that can be: the largest ones lose resolution first."""
    images = [image_of(figure) for figure in figures]
    resolution = [float(DPI)] * len(figures)
    while sum(len(data) for _, data in images) > ALL_BYTES:
        sizes = [len(data) if dpi > LEAST_DPI else 0 for (_, data), dpi in zip(images, resolution, strict=True)]
        largest = max(range(len(sizes)), key=sizes.__getitem__)
        if not sizes[largest]:
            break
        resolution[largest] *= 0.8
        images[largest] = ("png", _pixels(figures[largest], resolution[largest]))
    return images


def image_of(figure: Figure) -> tuple[str, bytes]:
    """The figure as ("svg+xml", bytes) if that is small, else as ("png", bytes); the same bytes on every run."""
    vectors = _saved(figure, "svg", DPI)
    if len(vectors) <= SVG_BYTES:
        return "svg+xml", vectors
    pixels = _pixels(figure, DPI)
    return ("svg+xml", vectors) if len(vectors) <= len(pixels) else ("png", pixels)


def _pixels(figure: Figure, dpi: float) -> bytes:
    """A PNG of 256 colours, which takes a third of the bytes and looks the same."""
    image = Image.open(io.BytesIO(_saved(figure, "png", dpi))).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _saved(figure: Figure, kind: str, dpi: float) -> bytes:
    with matplotlib.rc_context({"svg.hashsalt": "learned-landscape"}):
        return render(figure, kind, "", "", dpi)
