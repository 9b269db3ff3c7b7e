"""The page: sections in order, put into the template with everything it needs inside."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from landscape import __version__
from landscape.checks.verdicts import VERDICTS
from landscape.energy import Energy
from landscape.plots.bars import SOLVABLE
from landscape.plots.labels import quantity
from landscape.plots.layout import log_weights
from landscape.plots.picture import Scene
from landscape.report import tables
from landscape.report.figures import draw_all
from landscape.report.views import View, three_d_views
from landscape.store import Analysis

# No address may be asked for anything; blob: is for the pictures that plotly saves from memory.
POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def report_page(
    analysis: Analysis,
    energy: Energy | None = None,
    *,
    why_no_energy: str = "",
    three_d: bool = False,
    command: str = "",
    date: str = "",
    progress: Callable[[str], None] | None = None,
) -> str:
    """The report on an analysis as one HTML page that asks no other file or address for anything.

    energy : what was analysed; without it the pictures that need its values are left out, and the page says so and
    why (`why_no_energy`). three_d : with views that turn (extra `report`; 5 MB more). command, date : of this report.
    UsageError where the extra is missing, or 3-D views are wanted and cannot be had.
    """
    report = progress or (lambda text: None)
    scene = Scene(analysis, energy)
    views = three_d_views(scene, report) if three_d else []
    pictures, missing = draw_all(scene, report)
    if energy is None and why_no_energy:
        missing = [(title, reason.replace("the energy is gone", why_no_energy)) for title, reason in missing]
    sections = [
        ("summary", "Summary", _summary(analysis)),
        ("warnings", "Warnings and verdicts", _warnings(analysis)),
        ("views", "Views that turn", "".join(map(_view, views))),
        (
            "figures",
            "Figures",
            f'<div class="figures">{"".join(p.html() for p in pictures)}</div>' + _left_out(missing),
        ),
        ("tables", "Tables", _tables(analysis)),
        ("settings", "Parameters", tables.parameters_table(analysis)),
    ]
    sections = [section for section in sections if section[2]]
    source = Path(str(analysis.energy.get("source", "an energy"))).name
    return _template().substitute(
        title=escape(f"Energy landscape of {source}"),
        policy=POLICY,
        version=escape(__version__),
        style=_asset("style.css"),
        lead=_lead(analysis),
        contents=" ".join(f'<a href="#{name}">{title}</a>' for name, title, _ in sections),
        body="\n".join(
            f'<section id="{name}">\n<h2>{title}</h2>\n{html}\n</section>' for name, title, html in sections
        ),
        footer=_footer(analysis, command, date),
        script=_asset("sort.js"),
    )


def _asset(name: str) -> str:
    return files("landscape.report").joinpath(name).read_text(encoding="utf-8")


def _template() -> Template:
    return Template(_asset("template.html"))


def _lead(analysis: Analysis) -> str:
    record, dynamics = analysis.energy, analysis.dynamics
    facts = [f"{analysis.dim} dimension{'s' if analysis.dim > 1 else ''}", f"{dynamics.kind} dynamics"]
    facts.append(f"beta {dynamics.beta:.6g}")
    facts += [f"{words} {record[key]}" for key, words in (("units", "energies in"), ("time_unit", "time unit"))
              if record.get(key)]  # fmt: skip
    return f'<p class="lead">{escape(", ".join(facts))}</p>'


def _summary(analysis: Analysis) -> str:
    network, diagnostics = analysis.network, analysis.diagnostics
    logs, method = log_weights(analysis)
    heaviest = int(np.argmax(logs))
    facts = [
        ("states", f"{network.n_states:,}", "minima of the energy"),
        ("saddles", f"{network.n_saddles:,}", f"{int(network.counted.sum()):,} join two known states"),
        ("heaviest state", str(heaviest), f"weight {math.exp(logs[heaviest]):.4g} ({method})"),
        ("search", "converged" if diagnostics["converged"] else "NOT converged", _morse(diagnostics)),
    ]
    slowest = _log_timescales(analysis)
    if len(slowest):
        unit = analysis.energy.get("time_unit") or "units of time"
        facts.append(("slowest relaxation", quantity(float(slowest[0]), 4), unit))
    unseen = diagnostics.get("unseen")
    if isinstance(unseen, Mapping) and unseen.get("upper") is not None:
        facts.append(("unseen states", f"≤ {unseen['upper']:.2g}", "chance that a further start finds a new minimum"))
    if analysis.checks is not None:
        counts = Counter(analysis.checks.verdict)
        text = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        facts.append(("rates checked", str(len(analysis.checks.pairs)), text))
    cards = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(text)}</small></dd></div>"
        for name, value, text in facts
    )
    return f'<dl class="facts">{cards}</dl>'


def _morse(diagnostics: Mapping[str, Any]) -> str:
    morse = diagnostics["morse_sum"]
    if morse["value"] is None:
        return ""
    expected = "" if morse["expected"] is None else f" ({morse['expected']} expected)"
    return f"Morse sum {morse['value']}{expected}"


def _warnings(analysis: Analysis) -> str:
    texts = analysis.warnings
    if not analysis.diagnostics["converged"]:
        texts = ["the search had not converged: states, saddles and all that follows may be incomplete", *texts]
    html = '<p class="fine">No warnings.</p>'
    if texts:
        html = f'<ul class="warnings">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>'
    if analysis.checks is None:
        how = "No rate has been checked against an independent estimate: <code>landscape check DIR</code> does it."
        return f'{html}<p class="note">{how}</p>'
    unit = analysis.energy.get("time_unit")
    html += tables.checks_table(analysis.checks, unit or "time")
    return html + tables.timescale_checks_table(analysis.checks, unit or "units of time")


def _view(view: View) -> str:
    caption = f"<figcaption>{escape(view.text)}</figcaption>"
    return f'<figure class="wide"><h3>{escape(view.title)}</h3>{view.html}{caption}</figure>'


def _left_out(missing: list[tuple[str, str]]) -> str:
    if not missing:
        return ""
    texts = [re.sub("`([^`]*)`", r"<code>\1</code>", escape(reason)) for _, reason in missing]
    rows = "".join(f"<li>{escape(title)}: {text}.</li>" for (title, _), text in zip(missing, texts, strict=True))
    return f'<h3>Pictures that are not here</h3><ul class="note">{rows}</ul>'


def _tables(analysis: Analysis) -> str:
    parts = [tables.states_table(analysis)]
    if analysis.network.n_saddles:
        parts.append(tables.transitions_table(analysis))
    slowest = _log_timescales(analysis)
    if len(slowest):
        parts.append(tables.timescales_table(slowest, analysis.energy.get("time_unit") or "units of time"))
    return "\n".join(parts)


def _log_timescales(analysis: Analysis) -> np.ndarray:
    """Slowest first; none for networks in which they would take minutes."""
    return analysis.network.log_timescales if analysis.network.n_states <= SOLVABLE else np.zeros(0)


def _footer(analysis: Analysis, command: str, date: str) -> str:
    record, made = analysis.energy, analysis.provenance
    lines = ["<h2>How this was made</h2>"]
    if made.get("command"):
        when = ", ".join(str(made[key]) for key in ("version", "date") if made.get(key))
        lines.append(f"<p>The analysis{escape(f' ({when})' if when else '')}:</p><pre>{escape(made['command'])}</pre>")
    else:
        lines.append("<p>The analysis was made from Python, or by a version that did not note its command.</p>")
    if made.get("check"):
        lines.append(f"<p>The verdicts:</p><pre>{escape(made['check'])}</pre>")
    if command:
        when = f" (learned-landscape {__version__}{f', {date}' if date else ''})"
        lines.append(f"<p>This report{escape(when)}:</p><pre>{escape(command)}</pre>")
    names = {"value": "values", "gradient": "gradients", "hvp": "Hessian-vector products", "hessian": "Hessians"}
    counts = record.get("evaluations") or {}
    cost = ", ".join(f"{counts[key]:,} {name}" for key, name in names.items() if key in counts)
    facts = [f"Energy: {record.get('source')}", f"{record.get('dtype')}"]
    facts += [f"sha256 {record['sha256']}"] if record.get("sha256") else []
    facts += [f"evaluations: {cost}"] if cost else []
    return "\n".join([*lines, f"<p>{escape('; '.join(facts))}.</p>"])
