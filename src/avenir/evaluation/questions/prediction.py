"""How the continuation ages: scores at every frame of the horizon, beside what needs no world.

A world's single sample, the mean of several and the best of them stand beside the last frame held,
the mean training image, the nearest training past's own future, and the codec's ceiling: the true
future encoded and decoded. The mean of samples does better on PSNR because it blurs, and the best
is chosen by the truth, clip by clip and metric by metric: bounds, not video.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import chain
from typing import Any, NamedTuple

import torch
from einops import reduce
from torch import Tensor

from avenir.clip import Batch, to_frames
from avenir.config import Config
from avenir.console import Report
from avenir.device import generator
from avenir.evaluation.baselines import NearestPast, ceiling, copy_last, mean_image
from avenir.evaluation.held_out import HeldOut, Imagines
from avenir.evaluation.metrics.bootstrap import Curve
from avenir.evaluation.metrics.frames import METRICS, Scores
from avenir.evaluation.metrics.score_table import ScoreRow, ScoreTable, horizons, rows_of
from avenir.evaluation.question import About, Measured, Question, QuestionInputs
from avenir.evaluation.readers.readout import Readout, StateReadout, score
from avenir.evaluation.report.findings import Finding, bounds, tone
from avenir.evaluation.report.html import metric_charts, player, section
from avenir.evaluation.report.pictures import PANELS, Example, contact_sheet, mosaic
from avenir.evaluation.report.tables import score_table
from avenir.shapes import Frames, Video

_RIVALS = ("copy_last", "nearest", "mean_image")
"""What needs no world."""

METHODS = {
    "world": "world, one sample",
    "world_mean": "world, mean of samples",
    "world_best": "world, best of samples",
    "copy_last": "last frame held",
    "nearest": "nearest training past",
    "mean_image": "mean training image",
    "codec": "codec, true future",
    "truth": "true frames",
}
"""Every way to continue, in the order of tables. `truth` appears in what is read from frames: it
is the reader's own error."""


class Prediction(Config):
    """The continuation against the horizon."""

    num_clips: int
    """Held-out windows continued."""
    num_recordings: int
    """Recordings they come from."""
    past: int
    """Frames observed."""
    horizon: int
    """Frames imagined."""
    num_samples: int
    """Futures in the mean of samples."""
    num_train_windows: int
    """Training pasts among which the nearest was sought."""
    curves: dict[str, dict[str, Curve]]
    """By metric and method."""
    rows: tuple[ScoreRow, ...]
    """Numbers at chosen horizons."""


def measure_prediction(
    world: Imagines,
    held_out: HeldOut,
    num_train_windows: int,
    num_examples: int,
    readout: Readout | None,
    report: Report,
) -> tuple[Prediction, list[Example]]:
    """Continue every window in every way and score it; keep the first few to look at."""
    mean = mean_image(held_out.source, num_train_windows, held_out.seed)
    nearest = NearestPast(
        held_out.source, held_out.past, held_out.horizon, num_train_windows, held_out.seed, report
    )
    table, examples = ScoreTable(), []
    for start, batch in held_out.batches("continuation", report):
        past, true = held_out.split(batch)
        shown = max(0, min(num_examples - len(examples), len(past)))
        kept: dict[str, Frames] = {}
        imagined = _imagined(world, held_out, batch, start, readout)
        table.add("world", imagined.scores[0])
        kept["world"] = to_frames(imagined.first[:shown])
        if held_out.num_samples > 1:
            table.add("world_best", best_of(imagined.scores))
        ways = _ways(world, held_out, batch, nearest, mean)
        for method, video in chain([("world_mean", imagined.mean)], ways):
            table.add(method, score(video, true, past, batch, readout))
            kept[method] = to_frames(video[:shown])
        if readout is not None:
            table.add("truth", readout.compare(true, batch, held_out.past))
        examples += [
            Example(
                batch.names[row],
                to_frames(past[row]),
                to_frames(true[row]),
                {method: frames[row] for method, frames in kept.items()},
            )
            for row in range(shown)
        ]
    frames = horizons(held_out.horizon, held_out.source.fps)
    return Prediction(
        num_clips=len(held_out.windows),
        num_recordings=len(set(held_out.groups)),
        past=held_out.past,
        horizon=held_out.horizon,
        num_samples=held_out.num_samples,
        num_train_windows=len(nearest.windows),
        curves=table.curves(held_out.groups, held_out.seed),
        rows=table.rows(held_out.groups, held_out.seed, "world", frames),
    ), examples


def best_of(samples: Sequence[Scores]) -> Scores:
    """Return every clip's scores of the sample that is best over the horizon, by each metric."""
    best = {}
    for name in samples[0]:
        each = torch.stack([scores[name] for scores in samples])
        means = each.nanmean(2) if METRICS[name].higher_is_better else -each.nanmean(2)
        chosen = means.nan_to_num(-torch.inf).argmax(0)
        best[name] = each[chosen, torch.arange(each.shape[1])]
    return best


def _ways(
    world: Imagines, held_out: HeldOut, batch: Batch, nearest: NearestPast, mean: Tensor
) -> Iterator[tuple[str, Video]]:
    """Continue a batch in every way that needs no world, and through its codec."""
    past, true = held_out.split(batch)
    yield "copy_last", copy_last(past, held_out.horizon)
    yield "nearest", nearest.continuation(past)
    yield "mean_image", mean.expand_as(true)
    if world.encoder.can_decode:
        yield "codec", ceiling(world.encoder, past, true)


class _ImaginedScores(NamedTuple):
    first: Video
    """The first sample."""
    mean: Video
    """The mean of all."""
    scores: list[Scores]
    """Of every sample."""


@torch.no_grad()
def _imagined(
    world: Imagines,
    held_out: HeldOut,
    batch: Batch,
    start: int,
    readout: Readout | StateReadout | None,
) -> _ImaginedScores:
    """Imagine and score piece by piece; never hold all samples at full length."""
    past, true = held_out.split(batch)
    rng = generator("continuation", held_out.seed, start, device=world.encoder.latent_mean.device)
    k, done, first, mean = held_out.num_samples, 0, [], []
    scores: list[list[Scores]] = [[] for _ in range(k)]
    for piece in world.imagine(past, held_out.steering(batch), held_out.horizon, k, rng):
        piece = piece.clamp(-1, 1)
        first.append(piece[::k].cpu())
        mean.append(reduce(piece, "(b k) ... -> b ...", "mean", k=k).cpu())
        here = true[:, done : done + piece.shape[1]]
        for sample in range(k):
            made = piece[sample::k].cpu()
            scores[sample].append(score(made, here, past, batch, readout, done))
        done += piece.shape[1]
    joined = [
        {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}
        for parts in scores
    ]
    return _ImaginedScores(torch.cat(first, 1), torch.cat(mean, 1), joined)


class PredictionQuestion(Question):
    """How a prediction ages, beside what needs no world."""

    Answer = Prediction
    order = 10

    def applies(self, asked: QuestionInputs) -> bool:
        """Ask worlds that predict."""
        return asked.world.predictor is not None

    def measure(self, asked: QuestionInputs) -> Measured:
        """Continue every window in every way; the contact sheet is a file of its own."""
        settings = asked.settings
        prediction, examples = measure_prediction(
            asked.world,
            asked.held_out,
            settings.num_train_windows,
            settings.num_examples,
            asked.readout,
            asked.report,
        )
        files = {}
        if examples:
            buffer = io.BytesIO()
            sheet = contact_sheet(examples, asked.held_out.source.fps)
            sheet.save(buffer, "PNG", optimize=True)
            files["contact_sheet.png"] = buffer.getvalue()
        return Measured(prediction, examples, files)

    def findings(self, answer: Prediction, about: About) -> list[Finding]:
        """Say whether one sample beats what needs no world, a second ahead."""
        metrics = [name for name in ("moving_psnr", "ego_error") if name in answer.curves]
        return [_against_rivals(answer, metric) for metric in metrics]

    def section(self, measured: Measured, about: About) -> str:
        """Show examples, curves, numbers and the contact sheet."""
        assert isinstance(measured.answer, Prediction)
        parts = [_player(measured.pictures, about.fps)] if measured.pictures else []
        parts += [_curves(measured.answer, about), _tables(measured.answer)]
        parts += [_sheet(sheet) for sheet in measured.files.values()]
        return "\n".join(parts)

    def definitions(self, answer: Prediction) -> dict[str, str]:
        """Explain the baselines."""
        return {
            "Last frame held": "the last observed frame, unchanged.",
            "Mean training image": "the mean of frames drawn from the training recordings.",
            "Mean of samples": "the pixel-wise mean of several futures of one past.",
            "Nearest training past": "what followed the training clip whose past is nearest in L2 "
            f"over shrunk frames, among {answer.num_train_windows:,}.",
        }


def _player(examples: Sequence[Example], fps: float) -> str:
    film = mosaic(examples, fps)
    past, horizon = len(examples[0].past), len(examples[0].true)
    layout = {
        "fps": fps,
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


def _curves(prediction: Prediction, about: About) -> str:
    used = {method for by_method in prediction.curves.values() for method in by_method}
    labels = {method: label for method, label in METHODS.items() if method in used}
    read = about.readout
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
        metric_charts(prediction.curves, labels, about.fps),
    )


def _tables(prediction: Prediction) -> str:
    tables = "".join(score_table(name, prediction.rows, METHODS, "world") for name in METRICS)
    return section(
        "numbers",
        "The numbers",
        "At chosen frames and over all of them, with 95 % intervals. The last line of each: how "
        "far the world’s one sample is ahead (+) or behind (−), clip by clip; in colour where the "
        "interval leaves out zero.",
        f'<div class="tables">{tables}</div>',
    )


def _sheet(sheet: bytes) -> str:
    return section(
        "sheet",
        "Contact sheet",
        "Frames counted from the last observed one, which is 0.",
        '<img class="sheet" alt="Frames of three examples, imagined above true" '
        f'src="data:image/png;base64,{base64.b64encode(sheet).decode()}">',
    )


def _against_rivals(prediction: Prediction, metric: str) -> Finding:
    """Compare the world's one sample with the best of what needs no world, over one second."""
    seconds = _near_one_second(prediction.rows)
    rows = {row.method: row for row in rows_of(prediction.rows, metric, seconds)}
    about = METRICS[metric]
    rivals = [rows[m] for m in _RIVALS if m in rows and rows[m].value.mean is not None]
    best = (max if about.higher_is_better else min)(
        rivals, key=lambda row: row.value.mean or 0.0, default=None
    )
    if best is None or best.difference is None or best.difference.mean is None:
        return Finding("–", f"{about.label}: nothing moved that could be scored.")
    when = f"{seconds:g} s ahead" if seconds is not None else "over all frames"
    sure = tone(best.difference, about.higher_is_better)
    verdict = {
        "good": "better than",
        "bad": "worse than",
        "": "not to be told from",
    }[sure]
    ours = rows["world"].value.mean
    return Finding(
        f"{best.difference.mean:+.2f} {about.unit}".replace("-", "−"),
        f"{about.label} {when}: one sample ({ours:.2f} {about.unit}) is {verdict} the best that "
        f"needs no world, {METHODS[best.method]} ({best.value.mean:.2f}).",
        bounds(best.difference),
        sure,
    )


def _near_one_second(rows: Sequence[ScoreRow]) -> float | None:
    horizons = [row.seconds for row in rows if row.seconds is not None and row.seconds <= 1]
    return max(horizons, default=None)
