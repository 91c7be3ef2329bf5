"""The page: what was measured, to look at. One file, nothing fetched, light and dark.

Writes `results.json`, `report.html` and `contact_sheet.png`. Measures nothing.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from avenir.evaluation.charts import chart
from avenir.evaluation.continuation import METHODS, Continuation, Example
from avenir.evaluation.control import Control
from avenir.evaluation.results import Evaluation
from avenir.evaluation.findings import findings
from avenir.evaluation.metrics import METRICS
from avenir.evaluation.pictures import PANELS, contact_sheet, mosaic
from avenir.evaluation.tables import (
    channel_table,
    definitions,
    readout_facts,
    reconstruction_facts,
    score_table,
)

_CONTROL = {"true": "true actions", "shuffled": "another recording's actions"}


def write_report(
    folder: Path,
    evaluation: Evaluation,
    examples: Sequence[Example],
    recipe: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write everything an evaluation leaves behind into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(evaluation.model_dump_json(indent=2) + "\n")
    sheet = b""
    if examples:
        buffer = io.BytesIO()
        contact_sheet(examples, evaluation.fps).save(buffer, "PNG", optimize=True)
        sheet = buffer.getvalue()
        (folder / "contact_sheet.png").write_bytes(sheet)
    page = report_page(evaluation, examples, sheet, recipe, provenance)
    (folder / "report.html").write_text(page)


def report_page(
    evaluation: Evaluation,
    examples: Sequence[Example],
    sheet: bytes,
    recipe: str,
    provenance: Mapping[str, Any],
) -> str:
    """Return the whole page as HTML."""
    sections = [findings(evaluation)]
    if examples:
        sections.append(_player(evaluation, examples))
    if evaluation.continuation is not None:
        sections.append(_curves(evaluation, evaluation.continuation))
        sections.append(_tables(evaluation.continuation))
    if evaluation.control is not None:
        sections.append(_control(evaluation, evaluation.control))
    sections.append(_reconstruction(evaluation))
    if sheet:
        sections.append(_sheet(sheet))
    sections.append(_more(evaluation, recipe, provenance))
    script = f"<script>\n{_resource('player.js')}</script>" if examples else ""
    return Template(_resource("report.html")).substitute(
        title=escape(evaluation.world),
        lead=escape(_lead(evaluation)),
        sections="\n".join(sections),
        script=script,
    )


def _lead(evaluation: Evaluation) -> str:
    height, width = evaluation.size
    shape = f"{width}×{height} pixels at {evaluation.fps:g} frames per second"
    continuation = evaluation.continuation
    if continuation is None:
        count, recordings = (
            evaluation.reconstruction.num_clips,
            evaluation.reconstruction.num_recordings,
        )
        return (
            f"An encoder on {count:,} held-out clips from {recordings:,} recordings "
            f"({evaluation.source}), {shape}."
        )
    fps = evaluation.fps
    return (
        f"{continuation.num_clips:,} held-out clips from {continuation.num_recordings:,} "
        f"recordings ({evaluation.source}), {shape}: {continuation.past / fps:.1f} s observed, "
        f"{continuation.horizon / fps:.1f} s imagined, {continuation.num_samples} futures of each."
    )


def _player(evaluation: Evaluation, examples: Sequence[Example]) -> str:
    film = mosaic(examples, evaluation.fps)
    past, horizon = len(examples[0].past), len(examples[0].true)
    layout = {
        "fps": evaluation.fps,
        "past": past,
        "frames": past + horizon,
        "height": film.height,
        "width": film.width,
    }
    rows = "".join(_row(number, example, layout) for number, example in enumerate(examples))
    heads = "".join(f"<div>{escape(panel)}</div>" for panel in PANELS)
    boundary = 100 * (past - 0.5) / max(1, past + horizon - 1)
    return f"""<section id="player" aria-labelledby="watch" data-layout="{escape(json.dumps(layout))}">
<h2 id="watch">Observed, imagined, true</h2>
<p class="note">The first clips of the test, not chosen. All play in step; a frame round the middle
panel says that it is imagined. Space plays, arrow keys step.</p>
<div class="bar"><button type="button">Play</button>
<div class="track"><span class="mark" style="left:{boundary:.2f}%">imagined from here</span>
<input type="range" min="0" max="{past + horizon - 1}" value="0" aria-label="Frame"></div>
<output aria-live="off"></output></div>
<div class="heads">{heads}</div>
{rows}
<video controls loop muted playsinline preload="auto" aria-label="All examples"
 src="data:video/mp4;base64,{film.mp4}"></video>
</section>"""


def _row(number: int, example: Example, layout: Mapping[str, Any]) -> str:
    panels = "".join(
        f'<canvas width="{layout["width"]}" height="{layout["height"]}" data-row="{number}" '
        f'data-column="{column}" role="img" aria-label="{escape(panel)}: {escape(example.name)}">'
        "</canvas>"
        for column, panel in enumerate(PANELS)
    )
    return f'<figure class="row">{panels}<figcaption>{escape(example.name)}</figcaption></figure>'


def _curves(evaluation: Evaluation, continuation: Continuation) -> str:
    used = [m for m in METHODS if any(m in by for by in continuation.curves.values())]
    legend = "".join(
        f'<li><svg viewBox="0 0 30 10" aria-hidden="true"><path class="line line-{method}" '
        f'd="M0 5H30" fill="none"/></svg>{escape(METHODS[method])}</li>'
        for method in used
    )
    cards = []
    for name, by_method in continuation.curves.items():
        ordered = {method: by_method[method] for method in METHODS if method in by_method}
        cards.append(_chart_card(name, ordered, METHODS, evaluation.fps))
    return f"""<section aria-labelledby="age"><h2 id="age">How the continuation ages</h2>
<p class="note">Means over clips at every frame ahead; bands are 95&nbsp;% intervals by recording.
The mean of samples scores higher on PSNR because it blurs: a bound, not a video. The codec’s line is
the true future encoded and decoded: no world on this encoder can pass it.</p>
<ul class="legend">{legend}</ul><div class="charts">{"".join(cards)}</div></section>"""


def _chart_card(name: str, curves: Mapping[str, Any], labels: Mapping[str, str], fps: float) -> str:
    metric = METRICS[name]
    title = f"{metric.label}, {metric.unit}" if metric.unit else metric.label
    better = "higher is better" if metric.higher_is_better else "lower is better"
    return (
        f'<figure class="card"><h3>{escape(title)} <span class="note">· {better}</span></h3>'
        f"{chart(curves, labels, fps, title)}</figure>"
    )


def _tables(continuation: Continuation) -> str:
    tables = "".join(
        score_table(metric, continuation.rows, METHODS, "world")
        for metric in METRICS
        if metric in continuation.curves
    )
    return f"""<section aria-labelledby="numbers"><h2 id="numbers">The numbers</h2>
<p class="note">At chosen frames and over all of them, with 95&nbsp;% intervals. Below each, how far the
world’s one sample is ahead (+) or behind (−), clip by clip; in colour where the interval leaves out
zero.</p><div class="tables">{tables}</div></section>"""


def _control(evaluation: Evaluation, control: Control) -> str:
    cards = "".join(
        _chart_card(name, curves, _CONTROL, evaluation.fps)
        for name, curves in control.curves.items()
    )
    tables = "".join(
        score_table(metric, control.rows, _CONTROL, "true") for metric in control.curves
    )
    legend = "".join(
        f'<li><svg viewBox="0 0 30 10" aria-hidden="true"><path class="line line-{method}" '
        f'd="M0 5H30" fill="none"/></svg>{escape(label)}</li>'
        for method, label in _CONTROL.items()
    )
    return f"""<section aria-labelledby="control"><h2 id="control">Do actions matter?</h2>
<p class="note">The same past and the same noise, once under the true future actions and once under those
of another recording; {control.num_clips:,} pairs.</p>
<ul class="legend">{legend}</ul><div class="charts">{cards}</div>
<div class="tables after">{tables}</div></section>"""


def _reconstruction(evaluation: Evaluation) -> str:
    return f"""<section aria-labelledby="keeps"><h2 id="keeps">What the encoder keeps</h2>
<p class="note">Held-out clips sent through the encoder and back.</p>
<div class="card">{reconstruction_facts(evaluation.reconstruction)}</div>
<details><summary>Every latent channel</summary>{channel_table(evaluation.reconstruction)}</details>
</section>"""


def _sheet(sheet: bytes) -> str:
    encoded = base64.b64encode(sheet).decode()
    return f"""<section aria-labelledby="sheet"><h2 id="sheet">Contact sheet</h2>
<p class="note">Frames counted from the last observed one, which is 0.</p>
<img class="sheet" alt="Frames of three examples, imagined above true"
 src="data:image/png;base64,{encoded}"></section>"""


def _more(evaluation: Evaluation, recipe: str, provenance: Mapping[str, Any]) -> str:
    cost = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in provenance.items()
    )
    settings = json.dumps(evaluation.settings.model_dump(), indent=2)
    read = readout_facts(evaluation.readout) if evaluation.readout is not None else ""
    command = f"<pre>{escape(evaluation.command)}</pre>" if evaluation.command else ""
    return f"""<section aria-labelledby="how"><h2 id="how">How it was measured</h2>
<p class="note">In {evaluation.seconds:.0f} s, seed {evaluation.settings.seed}.</p>{command}
{read}
<details><summary>What each number means</summary>{definitions(evaluation)}</details>
<details><summary>What the world cost</summary><dl>{cost}</dl></details>
<details><summary>Settings of this evaluation</summary><pre>{escape(settings)}</pre></details>
<details><summary>The world’s recipe, every setting in force</summary><pre>{escape(recipe)}</pre></details>
</section>"""


def _resource(name: str) -> str:
    return files("avenir.evaluation").joinpath(name).read_text(encoding="utf-8")
