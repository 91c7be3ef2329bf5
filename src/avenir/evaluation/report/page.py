"""The page: what was measured, to look at. One file, nothing fetched, light and dark.

Writes `results.json`, `report.html` and `contact_sheet.png`. Measures nothing.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Protocol

import torch

from avenir.evaluation.metrics.bootstrap import Curve
from avenir.evaluation.metrics.frames import METRICS
from avenir.evaluation.questions.action_control import APART, Control
from avenir.evaluation.questions.box_control import BoxControl
from avenir.evaluation.questions.likelihood import Likelihood
from avenir.evaluation.questions.novel_views import ImaginedViews, Looks
from avenir.evaluation.questions.prediction import METHODS, Continuation, Example
from avenir.evaluation.questions.text_control import Obedience
from avenir.evaluation.report.charts import Axis, chart, charts
from avenir.evaluation.report.findings import findings
from avenir.evaluation.report.pictures import PANELS, contact_sheet, embedded, mosaic
from avenir.evaluation.report.tables import (
    box_table,
    channel_table,
    definitions,
    distance_table,
    facts_list,
    imagined_views_table,
    likelihood_facts,
    obedience_table,
    readout_facts,
    reconstruction_facts,
    score_table,
    steering_table,
    title_of,
)
from avenir.evaluation.results import Evaluation
from avenir.evaluation.settings import EvaluationConfig
from avenir.files import write_whole

_CONTROL = {"true": "true actions", "shuffled": "another recording's actions"}


def write_report(
    folder: Path,
    evaluation: Evaluation,
    examples: Sequence[Example],
    recipe: str,
    provenance: Mapping[str, Any],
    looks: Looks | None = None,
) -> None:
    """Write everything an evaluation leaves behind into `folder`."""
    write_whole(folder / "results.json", evaluation.model_dump_json(indent=2) + "\n")
    sheet = b""
    if examples:
        buffer = io.BytesIO()
        contact_sheet(examples, evaluation.fps).save(buffer, "PNG", optimize=True)
        sheet = buffer.getvalue()
        write_whole(folder / "contact_sheet.png", sheet)
    html = report_page(evaluation, examples, sheet, recipe, provenance, looks)
    write_whole(folder / "report.html", html)


def report_page(
    evaluation: Evaluation,
    examples: Sequence[Example],
    sheet: bytes,
    recipe: str,
    provenance: Mapping[str, Any],
    looks: Looks | None = None,
) -> str:
    """Return the whole page as HTML; `looks` are of views that were imagined."""
    sections = [findings(evaluation)]
    if examples:
        sections.append(_player(evaluation, examples))
    if evaluation.continuation is not None:
        sections.append(_curves(evaluation, evaluation.continuation))
        sections.append(_tables(evaluation.continuation))
        sections.append(_generation(evaluation))
    if evaluation.likelihood is not None:
        sections.append(_likelihood(evaluation.likelihood))
    if evaluation.control is not None:
        sections.append(_control(evaluation, evaluation.control))
    if evaluation.obedience is not None:
        sections.append(_obedience(evaluation.obedience))
    if evaluation.boxes is not None:
        sections.append(_boxes(evaluation.boxes))
    if evaluation.imagined_views is not None and looks is not None:
        sections.append(_imagined_views(evaluation.imagined_views, looks, evaluation.fps))
    sections.append(_reconstruction(evaluation))
    if sheet:
        sections.append(_sheet(sheet))
    known = readout_facts(evaluation.readout) if evaluation.readout is not None else ""
    known += details("What each number means", definitions(evaluation))
    sections.append(how(evaluation, recipe, provenance, known))
    return page("Avenir evaluation", evaluation.world, _lead(evaluation), sections)


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
    fps, futures = evaluation.fps, continuation.num_samples
    return (
        f"{continuation.num_clips:,} held-out clips from {continuation.num_recordings:,} "
        f"recordings ({evaluation.source}), {shape}: "
        f"{continuation.past / fps:.1f}\u00a0s observed, {continuation.horizon / fps:.1f}\u00a0s "
        f"imagined, {futures} future{'s' * (futures > 1)} of each." + _album(evaluation.album)
    )


def _album(count: int | None) -> str:
    if count is None:
        return ""
    return (
        f" The encoder cannot decode: what is shown and measured are those of {count:,} groups of "
        "training frames whose latents are nearest to what is foreseen; so is the codec's line."
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
    boundary = 100 * (past - 0.5) / max(1, past + horizon - 1)
    return section(
        "watch",
        "Observed, imagined, true",
        "The first clips of the test, not chosen, all in step. When imagination begins, the "
        "observed frame is held and the imagined one is framed. Space plays, arrow keys step.",
        player(
            film.mp4,
            layout,
            f'<div class="examples">{rows}</div>',
            f'<span class="mark" style="left:{boundary:.2f}%">imagined from here</span>',
        ),
    )


def _row(number: int, example: Example, layout: Mapping[str, Any]) -> str:
    name = escape(example.name)
    panels = "".join(
        f'<div><canvas width="{layout["width"]}" height="{layout["height"]}" '
        f'data-row="{number}" data-column="{column}" role="img" '
        f'aria-label="{panel}: {name}"></canvas>{panel}</div>'
        for column, panel in enumerate(PANELS)
    )
    return f'<figure class="row">{panels}<figcaption>{name}</figcaption></figure>'


def _curves(evaluation: Evaluation, continuation: Continuation) -> str:
    used = {method for by_method in continuation.curves.values() for method in by_method}
    labels = {method: label for method, label in METHODS.items() if method in used}
    read = evaluation.readout
    reader = (
        " Positions are read from frames by a segmenter, the same for all: on real test frames it "
        f"is off by {read.ego_error.mean:.2f} px for the ego and {read.object_error.mean:.2f} px "
        f"for other things, and overlaps {read.ego_iou.mean:.0%} of the ego."
        if read is not None
        else ""
    )
    return section(
        "age",
        "How the continuation ages",
        "Means over clips at every frame ahead; bands are 95 % intervals by recording. The mean of "
        "samples scores higher on PSNR because it blurs: a bound, not a video. The codec’s line "
        "is the true future encoded and decoded: what imagining exactly the right latents scores."
        + reader,
        _charts(continuation.curves, labels, evaluation.fps),
    )


def _tables(continuation: Continuation) -> str:
    tables = "".join(score_table(name, continuation.rows, METHODS, "world") for name in METRICS)
    return section(
        "numbers",
        "The numbers",
        "At chosen frames and over all of them, with 95 % intervals. The last line of each: how "
        "far the world’s one sample is ahead (+) or behind (−), clip by clip; in colour where the "
        "interval leaves out zero.",
        f'<div class="tables">{tables}</div>',
    )


def _generation(evaluation: Evaluation) -> str:
    generation = evaluation.generation
    note = f"Not compared: {evaluation.left_out}."
    if generation is not None:
        note = (
            f"Futures of {generation.num_clips:,} clips as one set, beside the true futures, in "
            f"the features of {generation.evaluator!r}, which nothing here was taught by. Real "
            "clips, as many of training recordings, say how small a distance can be; the codec’s, "
            "how small imagining exactly the right latents would make it."
        )
    return section(
        "sets", "As a set of clips", note, distance_table(generation) if generation else ""
    )


def _likelihood(likelihood: Likelihood) -> str:
    return section(
        "cost",
        "What tokens cost",
        "How many bits the true future costs to write down, given the past, with the chances that "
        "the predictor gives it. Costs of a pixel compare between vocabularies.",
        f'<div class="card">{likelihood_facts(likelihood)}</div>',
    )


def _control(evaluation: Evaluation, control: Control) -> str:
    tables = "".join(score_table(name, control.rows, _CONTROL, "true") for name in METRICS)
    note = (
        "The same past and the same noise, once under the true future actions and once under "
        f"those of another recording; {control.num_clips:,} pairs."
    )
    steered = evaluation.counterfactuals
    if steered is not None:
        tables += steering_table(steered)
        note += (
            " Then steered to the left and to the right, beside a simulator that does the same: "
            f"of {steered.num_clips:,} pairs those tell whose egos are truly more than {APART:g} "
            "px apart. An ego that is lost went nowhere."
        )
    charts = _charts(control.curves, _CONTROL, evaluation.fps)
    return section(
        "control",
        "Do actions matter?",
        note,
        f'{charts}<div class="tables after">{tables}</div>',
    )


def _obedience(obedience: Obedience) -> str:
    return section(
        "obedience",
        "Does what is said come?",
        "The same past and the same noise: in the middle of the future words ask for something "
        f"that flies in, refuse it, or are not said; what is seen within {obedience.seconds:g} s, "
        "as a frozen network reads it, that is as often right on the simulator’s own frames as "
        "the third line says.",
        f'<div class="tables">{obedience_table(obedience)}</div>',
    )


def _boxes(boxes: BoxControl) -> str:
    return section(
        "boxes",
        "Do things come where boxes say?",
        f"The same past and the same noise, {boxes.seconds:g} s imagined: told the boxes of what "
        "truly follows, of another recording, and none. A box is filled when a third of it shows "
        "its class, as a frozen network reads it.",
        f'<div class="tables">{box_table(boxes)}</div>',
    )


def _imagined_views(imagined: ImaginedViews, looks: Looks, fps: float) -> str:
    both = torch.cat([looks.true, looks.made], dim=-2)
    scale = max(1, 768 // both.shape[-1])
    film = embedded([both.repeat_interleave(scale, -1).repeat_interleave(scale, -2)], fps)
    return section(
        "views",
        "What does a camera see that is not given?",
        f"Every view in turn is hidden for all of {imagined.num_frames} frames and imagined from "
        f"the others, in {imagined.num_clips:,} clips. Above what the cameras saw of one clip, "
        "below each view as it was imagined.",
        f'<video class="sheet" controls loop muted playsinline aria-label="Views, true and '
        f'imagined" src="data:video/mp4;base64,{film}"></video>'
        f'<div class="tables">{imagined_views_table(imagined)}</div>',
    )


def _charts(
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


def _reconstruction(evaluation: Evaluation) -> str:
    reconstruction = evaluation.reconstruction
    return section(
        "keeps",
        "What the encoder keeps",
        "Held-out clips sent through the encoder and back.",
        f'<div class="card">{reconstruction_facts(reconstruction)}</div>'
        + details("Every latent channel", channel_table(reconstruction)),
    )


def _sheet(sheet: bytes) -> str:
    return section(
        "sheet",
        "Contact sheet",
        "Frames counted from the last observed one, which is 0.",
        '<img class="sheet" alt="Frames of three examples, imagined above true" '
        f'src="data:image/png;base64,{base64.b64encode(sheet).decode()}">',
    )


class Measured(Protocol):
    """What every evaluation says of how it was made."""

    settings: EvaluationConfig
    command: str
    seconds: float


def how(evaluation: Measured, recipe: str, provenance: Mapping[str, Any], known: str = "") -> str:
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
