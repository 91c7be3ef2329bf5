"""Does what a caption says come? Words in the middle of a future, and what a frozen reader sees.

Nothing flies in the past, nor at first in what is imagined; then a caption says that something
does. Pairs of kind and colour that the world never saw in training tell words that were understood
from pictures that were learnt by heart. The reader (`readers/visitors.py`) says how it does on the
simulator's own frames of the same visits.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avenir.clip import Batch
from avenir.config import Config
from avenir.console import Report
from avenir.data import Source
from avenir.device import seed_of
from avenir.evaluation.baselines import ceiling
from avenir.evaluation.held_out import HeldOut, Imagines, imagined
from avenir.evaluation.metrics.bootstrap import Interval
from avenir.evaluation.question import About, Measured, Question, QuestionInputs
from avenir.evaluation.readers.visitors import SeenVisitors, VisitorReader
from avenir.evaluation.report.findings import Finding, bounds, tone
from avenir.evaluation.report.html import section
from avenir.evaluation.report.tables import plain_table, written
from avenir.shapes import Video

_SECONDS, _BEFORE = 2.8, 0.8
"""Imagined, and of these before the words."""


class CaptionOutcome(Config):
    """What is read after words that asked for something."""

    num_clips: int
    """Windows."""
    appears: Interval
    """Share in which something shows."""
    kind: Interval
    """Share in which it is of the kind that was asked for; nothing is of no kind."""
    colour: Interval
    """Share in which it has the colour that was asked for."""
    both: Interval
    """Share in which both are right."""


class TextControl(Config):
    """What comes of words, and what without."""

    seconds: float
    """Imagined after the words."""
    known: CaptionOutcome
    """Of pairs of kind and colour that training shows."""
    held_out: CaptionOutcome
    """Of pairs that it does not."""
    read: CaptionOutcome
    """The simulator's own frames of all these visits: what reading alone gets wrong."""
    kept: CaptionOutcome | None = None
    """These frames encoded and decoded: what the tokenizer leaves to be read. No world is read
    better; none where the encoder cannot decode."""
    too_soon: Interval
    """Share in which something shows before it is asked for."""
    refused: Interval
    """Share in which something shows although the words say that nothing does."""
    absent: Interval
    """Share in which something shows under no text at all."""
    more_than_refused: Interval
    """How much more often something shows when it is asked for than when it is refused."""
    more_than_absent: Interval
    """How much more often something shows when it is asked for than under no text."""


class _Outcome(NamedTuple):
    """What is read of windows, in their order."""

    asked: SeenVisitors
    before: SeenVisitors
    refused: SeenVisitors
    absent: SeenVisitors
    truth: SeenVisitors
    kept: SeenVisitors | None
    pair: Float[Tensor, "b 2"]
    """Kind and colour that were asked for."""
    is_new: Bool[Tensor, " b"]
    """Whether training never shows that pair."""


def measure_text_control(
    world: Imagines, held_out: HeldOut, reader: VisitorReader, report: Report
) -> TextControl | None:
    """Ask for visitors, refuse them, and say nothing, after the same pasts and from the same noise.

    None where captions tell of no visitors, where recordings are too short to see one, and for
    views and sizes that the reader was not trained on.
    """
    source, fps = held_out.source, held_out.source.fps
    if not source.takes_visitors:
        return None
    f_t = world.encoder.compression.t
    # A latent frame is given the words of its last frame: they change with the first of one.
    horizon, before = round(_SECONDS * fps), f_t * max(1, round(_BEFORE * fps / f_t))
    too_short = source.recordings("test")[0].seconds * fps < held_out.past + horizon - 1e-6
    if too_short or source.size != reader.size:
        return None
    windows = source.spread("test", held_out.past + horizon, len(held_out.windows))
    held_out = held_out._replace(windows=windows, horizon=horizon)
    outcomes: list[_Outcome] = []
    for start in range(0, len(held_out.windows), held_out.batch_size):
        report("asking for visitors", start, len(held_out.windows))
        outcomes.append(_outcome(world, held_out, source, reader, before, start))
    report("asking for visitors", len(held_out.windows), len(held_out.windows))
    asked, soon, refused, absent, truth, kept = (
        None if None in seen else SeenVisitors(*map(torch.cat, zip(*seen, strict=True)))
        for seen in list(zip(*outcomes, strict=True))[:-2]
    )
    assert asked and soon and refused and absent and truth
    pair = torch.cat([outcome.pair for outcome in outcomes])
    new = torch.cat([outcome.is_new for outcome in outcomes])

    def mean(values: Tensor, counts: Tensor | None = None) -> Interval:
        return held_out.mean(values, torch.ones_like(new) if counts is None else counts)

    def outcome(seen: SeenVisitors, counts: Tensor) -> CaptionOutcome:
        right = (seen.pair == pair) & seen.shows[:, None]
        return CaptionOutcome(
            num_clips=int(counts.sum()),
            appears=mean(seen.shows.float(), counts),
            kind=mean(right[:, 0].float(), counts),
            colour=mean(right[:, 1].float(), counts),
            both=mean(right.all(1).float(), counts),
        )

    came = asked.shows.float()
    return TextControl(
        seconds=(held_out.horizon - before) / fps,
        known=outcome(asked, ~new),
        held_out=outcome(asked, new),
        read=outcome(truth, torch.ones_like(new)),
        kept=kept and outcome(kept, torch.ones_like(new)),
        too_soon=mean(soon.shows.float()),
        refused=mean(refused.shows.float()),
        absent=mean(absent.shows.float()),
        more_than_refused=mean(came - refused.shows.float()),
        more_than_absent=mean(came - absent.shows.float()),
    )


def _outcome(
    world: Imagines,
    held_out: HeldOut,
    source: Source,
    reader: VisitorReader,
    before: int,
    start: int,
) -> _Outcome:
    """Imagine a batch of windows in every way."""
    windows = held_out.windows[start : start + held_out.batch_size]
    begins = (held_out.past + before) / source.fps
    visited = source.with_visitors(windows, begins, seed_of("visit", held_out.seed, start), start)

    def future(steering: dict[str, Tensor]) -> Video:
        past, _ = held_out.split(visited.quiet)
        return imagined(world, past, steering, held_out.horizon, "obedience", held_out.seed, start)

    described = _held(held_out, visited.coming, before)
    refused = _held(held_out, visited.quiet, before)
    absent = dict(refused)
    absent["caption"] = refused["caption"].clone()
    absent["caption"][:, held_out.past :] = torch.nan
    asked = future(described)
    past, true = held_out.split(visited.coming)
    kept = ceiling(world.encoder, past, true) if world.encoder.can_decode else None
    return _Outcome(
        asked=reader.read(asked[:, before:]),
        before=reader.read(asked[:, :before]),
        refused=reader.read(future(refused)[:, before:]),
        absent=reader.read(future(absent)[:, before:]),
        truth=reader.read(true[:, before:]),
        kept=None if kept is None else reader.read(kept[:, before:]),
        pair=visited.pairs,
        is_new=visited.is_new,
    )


def _held(held_out: HeldOut, batch: Batch, before: int) -> dict[str, Tensor]:
    """Hold the first caption after the quiet: the end of what flies in is not known."""
    steering = dict(held_out.steering(batch))
    caption = steering["caption"].clone()
    first = held_out.past + before
    caption[:, first:] = caption[:, first : first + 1]
    return steering | {"caption": caption}


class TextControlQuestion(Question):
    """Whether what a caption says comes."""

    Answer = TextControl
    order = 60

    def applies(self, asked: QuestionInputs) -> bool:
        """Ask worlds that take captions."""
        return asked.world.predictor is not None and "caption" in asked.world.takes

    def measure(self, asked: QuestionInputs) -> Measured | None:
        """Ask for visitors, refuse them, and give no caption."""
        reader = VisitorReader.shipped(asked.world.encoder.latent_mean.device)
        found = measure_text_control(asked.world, asked.held_out, reader, asked.report)
        return None if found is None else Measured(found)

    def findings(self, answer: TextControl, about: About) -> list[Finding]:
        """Say how much more often something comes when words ask for it."""
        return [_finding(answer)]

    def section(self, measured: Measured, about: About) -> str:
        """Lay out what came."""
        found = measured.answer
        assert isinstance(found, TextControl)
        return section(
            "captions",
            "Does what a caption says come?",
            "The same past and the same noise: in the middle of the future words ask for something "
            f"that flies in, refuse it, or are left out; what is seen within {found.seconds:g} s, "
            "as a frozen network reads it, that is as often right on the simulator’s own frames as "
            "the third line says.",
            f'<div class="tables">{caption_table(found)}</div>',
        )


def caption_table(found: TextControl) -> str:
    """Lay out what was asked for, and what came of it."""
    ways = {
        "asked for, as in training": found.known,
        "… a pair that training never shows": found.held_out,
        "… simulator, read alike": found.read,
    }
    if found.kept is not None:
        ways["… simulator, through the tokenizer"] = found.kept
    lines = [
        (
            name,
            [written(x, ".0%") for x in (way.appears, way.kind, way.colour, way.both)]
            + [f"{way.num_clips:,}"],
        )
        for name, way in ways.items()
    ]
    shares = {
        "before it is asked for": found.too_soon,
        "refused": found.refused,
        "no caption": found.absent,
        "asked for, more than refused": found.more_than_refused,
        "asked for, more than without a caption": found.more_than_absent,
    }
    total = found.read.num_clips
    lines += [
        (name, [written(share, ".0%"), "", "", "", f"{total:,}"]) for name, share in shares.items()
    ]
    head = ["something shows", "its kind", "its colour", "both", "clips"]
    return plain_table("What words bring", [("", head), *lines])


def _finding(found: TextControl) -> Finding:
    """Say how often what was asked for came, and how often it was of the right kind."""
    more, known, new = found.more_than_refused, found.known, found.held_out
    shares = [each.mean for each in (more, known.appears, found.refused, known.both)]
    difference, came, otherwise, right = (0.0 if share is None else share for share in shares)
    unseen = new.both.mean
    also = "" if unseen is None else f", and in {unseen:.0%} of pairs that training never shows"
    return Finding(
        f"{difference:+.0%}".replace("-", "−"),
        f"Something flies in within {found.seconds:g} s more often when words ask for it "
        f"({came:.0%}) than when they refuse it ({otherwise:.0%}). Kind and colour are those "
        f"of the words in {right:.0%}{also}.",
        bounds(more),
        tone(more, True),
    )
