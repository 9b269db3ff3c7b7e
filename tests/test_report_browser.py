"""The report in a real browser: no errors, every figure there, sorting works, the 3-D views draw."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from synthetic import random_analysis

from landscape import analyze
from landscape.dynamics import Overdamped
from landscape.energy import load_energy
from landscape.report import report_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, as .ci/run does"),
]
# WebGL by software, so that 3-D views are drawn on machines without a graphics card.
FLAGS = (
    "--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--enable-logging=stderr",
)  # fmt: skip

HINT = "Canvas2D: Multiple readback operations"  # on speed, from the picking of plotly: no error

BEFORE = """<script>
window.faults = [];
addEventListener("error", event => faults.push("error: " + (event.message || event.target.outerHTML)), true);
addEventListener("unhandledrejection", event => faults.push("rejected: " + event.reason));
addEventListener("securitypolicyviolation", event => faults.push("policy: " + event.blockedURI));
for (const level of ["error", "warn"]) {
  const say = console[level];
  console[level] = (...words) => { faults.push(level + ": " + words.join(" ")); say.apply(console, words); };
}
</script>"""
AFTER = """<script>
addEventListener("load", () => setTimeout(async () => {
  const box = element => { const b = element.getBoundingClientRect(); return [b.x, b.y + scrollY, b.width, b.height]; };
  const keys = (table, column) => Array.from(table.tBodies[0].rows, row =>
    row.cells[column].dataset.key ?? row.cells[column].textContent);
  const sorted = {};
  for (const table of document.querySelectorAll("table.sortable")) {
    sorted[table.id] = Array.from(table.tHead.rows[0].cells, (cell, column) => {
      const original = keys(table, column), seen = [];
      for (const turn of [1, 2]) {
        cell.querySelector("button").click();
        seen.push([cell.getAttribute("aria-sort"), keys(table, column)]);
      }
      return [original, ...seen];
    });
  }
  const views = Array.from(document.querySelectorAll(".view .js-plotly-plot"));
  const shots = await Promise.all(views.map(view => Plotly.toImage(view, {format: "png", width: 400, height: 300})));
  const found = {
    faults, sorted,
    images: Array.from(document.images, i => [i.complete, i.naturalWidth, i.naturalHeight, box(i), i.alt.length]),
    views: views.map((view, k) =>
      [box(view), view.querySelectorAll("canvas").length, Array.from(view.data, trace => trace.type), shots[k]]),
    width: [document.documentElement.scrollWidth, innerWidth],
    resources: performance.getEntriesByType("resource").map(r => r.name).filter(n => !/^(data|blob):/.test(n)),
  };
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}, 1500));
</script></body>"""


def browse(page: str, folder: Path, *flags: str) -> tuple[str, list[str]]:
    """The DOM that Chromium makes of a page, and the lines that its console wrote."""
    assert CHROMIUM is not None
    file = folder / "page.html"
    file.write_text(page)
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=8000", *flags,
         file.as_uri()],
        capture_output=True, text=True, timeout=400, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout, [line for line in console if HINT not in line]


def look_at(page: str, folder: Path, size: str) -> dict[str, Any]:
    """What the script in the page found, at a window of this size."""
    watched = page.replace("<head>", f"<head>{BEFORE}").replace("</body>", AFTER)
    assert watched.count(BEFORE) == 1 and AFTER in watched
    dom, console = browse(watched, folder, f"--window-size={size}", "--dump-dom")
    match = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert match, f"the page did not come to its end: {console}"
    found = json.loads(unescape(match.group(1)))
    assert found["faults"] == [] and console == []
    assert found["resources"] == []
    return found


@pytest.fixture(scope="module")
def page() -> str:
    return report_page(random_analysis(40))


@pytest.mark.parametrize("size", ["1280,900", "500,900"])
def test_figures_are_drawn_and_fit_into_the_window(page: str, tmp_path: Path, size: str) -> None:
    found = look_at(page, tmp_path, size)
    assert len(found["images"]) == page.count("<img") >= 6
    for complete, width, height, box, text in found["images"]:
        assert complete and width > 200 and height > 100 and text > 40
        assert box[2] > 200 and box[3] > 100 and box[0] >= 0 and box[0] + box[2] <= found["width"][1] + 1
        assert math.isclose(box[2] / box[3], width / height, rel_tol=0.02)
    assert found["width"][0] <= found["width"][1]  # nothing makes the page itself wider than the window


def test_every_column_sorts_both_ways(page: str, tmp_path: Path) -> None:
    found = look_at(page, tmp_path, "1280,900")
    assert set(found["sorted"]) == {"states", "transitions", "timescales", "parameters"}
    for columns in found["sorted"].values():
        assert len(columns) > 1
        for original, (up, rising), (down, falling) in columns:
            assert (up, down) == ("ascending", "descending")
            assert sorted(rising) == sorted(falling) == sorted(original)
            known = [key for key in rising if key]
            numeric = all(re.fullmatch(r"-?(\d.*|Infinity)", key) for key in known)
            value = (lambda key: float(key.replace("Infinity", "inf"))) if numeric else str.casefold
            if numeric:
                assert [value(k) for k in known] == sorted(map(value, known))
                assert [value(k) for k in falling if k] == sorted(map(value, known), reverse=True)
            else:
                assert known[::-1] == [key for key in falling if key] or len(set(known)) < len(known)
            unknown = len(rising) - len(known)
            assert not any(rising[len(known) :]) and not any(falling[len(known) :]) and unknown >= 0


def test_the_watch_notices_errors_and_requests(page: str, tmp_path: Path) -> None:
    for broken in ("<script>nothing.here()</script>", '<img src="https://example.invalid/x.png" alt="x">'):
        with pytest.raises(AssertionError):
            look_at(page.replace("</main>", f"{broken}</main>"), tmp_path, "1280,900")


def test_3d_views_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the still pictures have tests of their own, and take most of the time
    monkeypatch.setattr("landscape.report.figures.PICTURES", {})
    energy = load_energy("potential:coupled-chain:n=3,g=0.5")
    analysis = analyze(energy, Overdamped(beta=12.0, gamma=1.0))
    page = report_page(analysis, energy, three_d=True)
    found = look_at(page, tmp_path, "700,900")
    assert len(found["views"]) == 2
    for box, canvases, kinds, shot in found["views"]:
        assert box[2] > 500 and box[3] > 300
        assert canvases >= 1 and kinds.count("mesh3d") >= 1 and kinds.count("scatter3d") >= 2
        picture = Image.open(io.BytesIO(base64.b64decode(shot.partition(",")[2]))).convert("RGB")
        middle = picture.crop((60, 40, 320, 260))
        colors = middle.getcolors(maxcolors=1_000_000) or []
        painted = sum(count for count, rgb in colors if max(rgb) - min(rgb) > 20)
        # a surface in colour, shaded: not axes alone
        assert len(colors) > 500 and painted > 0.05 * middle.width * middle.height
