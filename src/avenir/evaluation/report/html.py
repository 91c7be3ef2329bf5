"""What pages are built of: one file, nothing fetched, light and dark. Knows no question."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Protocol

from avenir.evaluation.metrics.bootstrap import Curve
from avenir.evaluation.metrics.frames import METRICS
from avenir.evaluation.report.charts import Axis, chart, charts
from avenir.evaluation.report.tables import facts_list, title_of
from avenir.evaluation.settings import EvaluationConfig


def page(kicker: str, title: str, lead: str, sections: Sequence[str], style: str = "") -> str:
    """Return a page of sections that fetches nothing; `style` is laid over the common one."""
    return Template(resource("report.html")).substitute(
        kicker=escape(kicker),
        title=escape(title),
        lead=escape(lead),
        sections="\n".join(sections),
        style=style,
    )


def player(film: str, layout: Mapping[str, float], panels: str, mark: str = "") -> str:
    """Return what plays an mp4 given in base64 in the canvases of `panels`, all in step.

    `layout` says fps, frames and how many of them are the past, height and width of a panel. A
    canvas names the row and column of its panel in the film; `mark` stands on the time line.
    """
    return f"""<div id="player" data-layout="{escape(json.dumps(layout))}">
<div class="bar"><button type="button">Play</button>
<div class="track">{mark}
<input type="range" min="0" max="{layout["frames"] - 1}" value="0" aria-label="Frame"></div>
<output aria-live="off"></output></div>
{panels}
<video controls loop muted playsinline preload="auto" aria-label="All examples"
 src="data:video/mp4;base64,{film}"></video></div>
<script>
{resource("player.js")}</script>"""


def metric_charts(
    curves: Mapping[str, Mapping[str, Curve]], labels: Mapping[str, str], fps: float
) -> str:
    """Draw every metric, with one legend above."""
    drawings = []
    for name, by_method in curves.items():
        ordered = {method: by_method[method] for method in labels if method in by_method}
        axis = Axis.horizon(max(len(curve.mean) for curve in ordered.values()), fps)
        drawing = chart(ordered, labels, axis, METRICS[name].label)
        drawings.append((title_of(METRICS[name]), drawing))
    return charts(labels, drawings)


class MadeHow(Protocol):
    """What every evaluation says of how it was made."""

    settings: EvaluationConfig
    command: str
    seconds: float


def how(evaluation: MadeHow, recipe: str, provenance: Mapping[str, Any], known: str = "") -> str:
    """Return the last section: how it was measured, on what; `known` stands behind the command."""
    settings = json.dumps(evaluation.settings.model_dump(), indent=2)
    parts = [
        f"<pre>{escape(evaluation.command)}</pre>" if evaluation.command else "",
        known,
        details("What the world cost", facts_list(provenance)),
        details("Settings of this evaluation", f"<pre>{escape(settings)}</pre>"),
        details("The world’s recipe, every setting in force", f"<pre>{escape(recipe)}</pre>"),
    ]
    return section(
        "how",
        "How it was measured",
        f"In {evaluation.seconds:.0f} s, seed {evaluation.settings.seed}.",
        "".join(parts),
    )


def section(name: str, title: str, note: str, body: str) -> str:
    """Return one section under its heading, with a sentence on how to read it."""
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>'
        f'<p class="note">{escape(note)}</p>{body}</section>'
    )


def details(summary: str, body: str) -> str:
    """Return what is shown only when asked for."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def resource(name: str) -> str:
    """Read a file that lies beside this one."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
