"""How well a world of text predicts bytes and writes them, beside what needs no world.

Text has no pixels to compare. What counts is what held-out bytes cost; what another world of text,
the judge, would pay for what was written; and whether it repeats itself. Costs are those of every
byte of the horizon, from as much of the text before it as a world sees. Where tokens are pieces of
text, what they cost is shared out over their bytes, so that vocabularies compare.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import log2

import torch
from jaxtyping import Float, Int
from torch import Tensor

from avenir.config import Config
from avenir.console import Report, silent
from avenir.data import Source, Window
from avenir.data.text import Pieces
from avenir.device import generator, seed_of
from avenir.encoders.text import numbers
from avenir.errors import AvenirError
from avenir.evaluation.baselines import frames_of
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.metrics.bootstrap import Interval, interval
from avenir.evaluation.metrics.likelihood import bits_per_frame
from avenir.evaluation.settings import EvaluationConfig
from avenir.predictors import Predictor, TokenPredictor
from avenir.shapes import Video
from avenir.world import World

Tokens = Int[Tensor, "n T"]
"""Texts of as many tokens, a row each."""

_BATCH = 32
_RUN = 4
"""Bytes of a run, of which distinct ones are counted."""

WITHOUT_WORLD = {
    "uniform": "every token as likely",
    "unigram": "as often as tokens are in training",
    "bigram": "… given the token before",
}
"""What predicts tokens, which are bytes or pieces of text, without a world."""


class Written(Config):
    """Texts that continue held-out ones, in so many steps."""

    steps: int | None
    """In which each call wrote; none: one byte after the other, or the true texts."""
    judged: Interval | None
    """Bits per byte that the judge pays; none without a judge."""
    entropy: float
    """Bits of a byte by how often each occurs in all of it."""
    distinct: float
    """Share of its runs of four bytes that are new: low where it repeats itself."""
    bytes_per_second: float | None
    """How fast it was written, all texts together; none of the true texts."""


class Filled(Config):
    """Holes in held-out texts, filled."""

    length: int
    """Tokens of each."""
    both: Interval
    """Share of tokens that are the true ones where both sides are seen."""
    before: Interval
    """The same, in as many steps, where only what comes before is seen."""


class Passage(Config):
    """One text to read."""

    name: str
    """Where it is from."""
    past: str
    """What was given."""
    true: str
    """How it goes on."""
    made: str
    """How the world goes on."""


class TextEvaluation(Config):
    """Everything that is measured of a world of text."""

    world: str
    """Its name."""
    key: str | None
    """Hash of all that made it."""
    fingerprint: str
    """Hash of the texts."""
    settings: EvaluationConfig
    """How much was measured."""
    command: str
    """What was typed."""
    judge: str | None
    """The judge of what is written."""
    judge_bounds: bool
    """Whether what it pays is an upper bound."""
    num_windows: int
    """Held-out texts."""
    past: int
    """Tokens given of each."""
    horizon: int
    """Tokens after them."""
    at_once: int
    """Tokens that one call writes."""
    bytes_per_token: float = 1.0
    """Of the true texts after what is given."""
    cost: Interval | None
    """Bits per byte that the true texts cost; none for a world that gives no chances."""
    bounds: bool
    """Whether that is an upper bound."""
    without_world: dict[str, Interval]
    """What they cost without a world, in bits per byte: see `WITHOUT_WORLD`."""
    truth: Written
    """The true texts, judged and counted alike."""
    written: tuple[Written, ...]
    """The world's, by steps."""
    filled: Filled | None
    """None for a world that sees one side only."""
    passages: tuple[Passage, ...]
    """Some to read, written in the most steps."""
    seconds: float
    """How long measuring took."""


@torch.no_grad()
def evaluate_text(
    world: World,
    source: Source,
    settings: EvaluationConfig,
    command: str = "",
    judge: World | None = None,
    report: Report = silent,
) -> TextEvaluation:
    """Measure what applies to a world of text on held-out files.

    A second is a token; where none are given, as many are as it remembers and as it predicts at
    once. Raises AvenirError for what is no world of these tokens, and for a judge that gives them
    no chances, has read the held-out texts, or is the world itself.
    """
    started, predictor = time.monotonic(), _writer(world, source)
    pieces = Pieces.of(world.card.tokenizer)
    remembers = predictor.start(_nothing(world, predictor.num_train_frames), None).num_frames
    past = max(1, round(settings.past_seconds or remembers))
    room = predictor.room(predictor.start(_nothing(world, past), None))
    horizon = max(1, round(settings.horizon_seconds or room))
    at_once = min(room, horizon)
    # Drawn as training draws: spread evenly, most would be beginnings of files.
    seed = seed_of("held out", settings.seed)
    windows = source.draw("test", past + horizon, settings.num_clips, seed)
    if judge is not None:
        _check_judge(judge, world, windows)
    task = HeldOut(source, windows, past, horizon, 1, _BATCH, settings.seed)
    without_world = _without_world(task, pieces)
    video = torch.cat([frames_of(batch) for _, batch in task.batches("reading", report)])
    true = numbers(video)[..., 0, 0]
    written, made, every = [], true, settings.steps or _steps(predictor, at_once)
    with _in(predictor, every[0]):  # what only the first call costs is not timed
        _continued(world, task, video[:_BATCH], report)
    for steps in every:
        began = time.monotonic()
        with _in(predictor, steps):
            made = _continued(world, task, video, report)
        spent = time.monotonic() - began
        rate = float(_bytes(made, task, pieces).sum()) / spent
        written.append(_counted(made, task, pieces, judge, steps, rate))
    gives_chances = isinstance(predictor, TokenPredictor)
    shown = list(zip(task.groups, true, made, strict=True))[: settings.num_examples]
    return TextEvaluation(
        world=world.card.name,
        key=world.card.provenance.get("key"),
        fingerprint=source.fingerprint,
        settings=settings,
        command=command,
        judge=None if judge is None else judge.card.name,
        judge_bounds=judge is not None and _bounds(judge),
        num_windows=len(windows),
        past=past,
        horizon=horizon,
        at_once=at_once,
        bytes_per_token=float(_bytes(true, task, pieces).mean()) / horizon,
        cost=_paid(true, task, pieces, world) if gives_chances else None,
        bounds=_bounds(world),
        without_world=without_world(true),
        truth=_counted(true, task, pieces, judge, None, None),
        written=tuple(written),
        filled=_filled(world, task, video, at_once // 4),
        passages=tuple(
            Passage(
                name=name,
                past=_as_text(row[:past], pieces),
                true=_as_text(row[past:], pieces),
                made=_as_text(other[past:], pieces),
            )
            for name, row, other in shown
        ),
        seconds=round(time.monotonic() - started, 1),
    )


def _writer(world: World, source: Source) -> Predictor:
    if world.predictor is None:
        raise AvenirError(
            f"{world.card.name!r} holds an encoder of text, of which nothing is learnt, and no "
            "predictor: evaluate a world that was trained on it"
        )
    if source.tokenizer != world.card.tokenizer:
        ours, theirs = (
            f"{len(Pieces.of(each).pieces):,} tokens"
            for each in (world.card.tokenizer, source.tokenizer)
        )
        raise AvenirError(
            f"{world.card.name!r} is a world of {ours} and the data gives others, {theirs}: they "
            "are learnt from training files; give those that it was trained on"
        )
    return world.predictor


def _check_judge(judge: World, world: World, windows: Sequence[Window]) -> None:
    """Refuse a judge that gives no cost of a text, that is the judged, or that saw the answers."""
    name, known = judge.card.name, judge.card.provenance
    ours, theirs = ((w.card.encoder, w.card.tokenizer) for w in (world, judge))
    if ours != theirs or not isinstance(judge.predictor, TokenPredictor):
        raise AvenirError(
            f"{name!r} was given to judge what {world.card.name!r} writes, and it gives these "
            "tokens no chances: name a world of text that predicts tokens"
        )
    if known.get("key") is not None and known["key"] == world.card.provenance.get("key"):
        raise AvenirError(f"{name!r} was given to judge itself: name another world")
    read = {window.recording.identity for window in windows} & set(known.get("recordings", ()))
    if read:
        raise AvenirError(
            f"{name!r} was given to judge, and learnt from {len(read)} of the held-out texts: name "
            "a world that was trained on the same files as the one it judges"
        )


def _bounds(world: World) -> bool:
    return isinstance(world.predictor, TokenPredictor) and world.predictor.bounds


def _nothing(world: World, num_frames: int) -> Tensor:
    shape = (1, num_frames, world.encoder.channels, 1, 1)
    return torch.zeros(shape, device=world.encoder.latent_mean.device)


def _steps(predictor: Predictor, at_once: int) -> list[int | None]:
    """Say in how many steps to write, where that is free: 1, 2, 4, … and one for every byte."""
    if predictor.num_steps is None:
        return [None]
    return [*(2**power for power in range((at_once - 1).bit_length())), at_once]


def _in(predictor: Predictor, steps: int | None) -> AbstractContextManager[None]:
    return nullcontext() if steps is None else predictor.in_steps(steps)


def _continued(world: World, task: HeldOut, video: Video, report: Report) -> Tokens:
    """Write on after every past; the same chance for every number of steps."""
    past, rows = video[:, : task.past], []
    for start in range(0, len(past), _BATCH):
        report("writing", start, len(past))
        rng = generator("writing", task.seed, start, device=world.encoder.latent_mean.device)
        pieces = world.imagine(past[start : start + _BATCH], {}, task.horizon, 1, rng)
        rows.append(torch.cat([piece.cpu() for piece in pieces], dim=1))
    report("writing", len(past), len(past))
    return numbers(torch.cat([past, torch.cat(rows)], dim=1))[..., 0, 0]


def _counted(
    rows: Tokens,
    task: HeldOut,
    pieces: Pieces,
    judge: World | None,
    steps: int | None,
    rate: float | None,
) -> Written:
    """Judge what follows the past in every row, and count what it is made of."""
    texts = [pieces.text(row) for row in rows[:, task.past :].tolist()]
    every = torch.frombuffer(bytearray(b"".join(texts)), dtype=torch.uint8).long()
    share = every.bincount().double() / len(every)
    length = min(_RUN, *map(len, texts))
    runs = [text[i : i + length] for text in texts for i in range(len(text) - length + 1)]
    return Written(
        steps=steps,
        judged=None if judge is None else _paid(rows, task, pieces, judge),
        entropy=float(-(share[share > 0] * share[share > 0].log2()).sum()),
        distinct=len(set(runs)) / len(runs),
        bytes_per_second=rate,
    )


def _bytes(rows: Tokens, task: HeldOut, pieces: Pieces) -> Float[Tensor, " n"]:
    """Count the bytes that follow the past in every row."""
    futures = rows[:, task.past :].tolist()
    return torch.tensor([len(pieces.text(row)) for row in futures], dtype=torch.float)


def _paid(rows: Tokens, task: HeldOut, pieces: Pieces, world: World) -> Interval:
    """Say what a world pays for what follows the past, in bits per byte.

    All of it, in as many goes as it takes a world that predicts fewer tokens at once.
    """
    predictor, device = world.predictor, world.encoder.latent_mean.device
    assert isinstance(predictor, TokenPredictor)
    rng, bits = generator("paying", task.seed, device=device), torch.zeros(len(rows))
    done, end = task.past, task.past + task.horizon
    while done < end:
        memory = predictor.start(_nothing(world, done), None)
        ahead = min(predictor.room(memory), end - done)
        seen = rows[:, done - memory.num_frames : done + ahead, None, None].to(device)
        costs = [
            bits_per_frame(predictor, world.encoder.embed(part), None, memory.num_frames, rng)
            for part in seen.split(_BATCH)
        ]
        bits += ahead * torch.cat(costs).cpu()
        done += ahead
    return interval(bits / _bytes(rows, task, pieces).mean(), task.groups, task.seed)


def _without_world(task: HeldOut, pieces: Pieces) -> Callable[[Tokens], dict[str, Interval]]:
    """Count tokens of all training texts; return what says how much true ones cost by that."""
    count = len(pieces.pieces)
    alone, pairs = torch.ones(count), torch.zeros(count, count)
    for recording in task.source.recordings("train"):
        whole = Window(recording, 0.0, int(recording.seconds * task.source.fps))
        row = numbers(frames_of(task.source.read([whole])))[0, :, 0, 0]
        alone += row.bincount(minlength=count)
        both = row[:-1] * count + row[1:]
        pairs += both.bincount(minlength=count**2).view(count, count)
    alone /= alone.sum()
    # What never followed a token does as often as it occurs at all, once in all (a Dirichlet).
    after = (pairs + alone) / (pairs.sum(1, keepdim=True) + 1)

    def costs(true: Tokens) -> dict[str, Interval]:
        now, before = true[:, task.past :], true[:, task.past - 1 : -1]
        bits = {
            "uniform": torch.full(now.shape, log2(count)),
            "unigram": -alone[now].log2(),
            "bigram": -after[before, now].log2(),
        }
        size = _bytes(true, task, pieces).mean()
        return {n: interval(each.sum(1) / size, task.groups, task.seed) for n, each in bits.items()}

    return costs


def _filled(world: World, task: HeldOut, video: Video, length: int) -> Filled | None:
    """Fill a hole behind the past, with what comes after it and without, and compare."""
    predictor = world.predictor
    assert predictor is not None
    if type(predictor).infill is Predictor.infill or not length:
        return None
    latents = world.encoder.encode(video.to(world.encoder.latent_mean.device))
    hole = slice(task.past, task.past + length)
    true, shares = numbers(video)[:, hole, 0, 0], {}
    for name, known in {"both": None, "before": 0}.items():
        rng = generator("filling", task.seed, device=latents.device)
        rows = [
            predictor.infill(
                part[:, : hole.start], part[:, hole.stop :][:, :known], None, length, rng
            )
            for part in latents.split(_BATCH)
        ]
        made = numbers(world.encoder.decode(torch.cat(rows)).cpu())[..., 0, 0]
        shares[name] = interval((made == true).float().mean(1), task.groups, task.seed)
    return Filled(length=length, **shares)


def _as_text(row: Tensor, pieces: Pieces) -> str:
    return pieces.text(row.tolist()).decode(errors="replace")
