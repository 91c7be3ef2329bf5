"""How well a world of text foretells bytes and writes them, beside what needs no world.

Text has no pixels to compare. What counts is what held-out bytes cost (likelihood.py); what another
world of text, the judge, would pay for what was written; and whether it repeats itself.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import log2

import torch
from jaxtyping import Int
from torch import Tensor

from avenir.config import Config
from avenir.data import Source
from avenir.device import generator, seed_of
from avenir.encoders.text import numbers
from avenir.errors import AvenirError
from avenir.evaluation.baselines import frames_of
from avenir.evaluation.continuation import Task
from avenir.evaluation.intervals import Interval, interval
from avenir.evaluation.likelihood import Likelihood, bits_per_frame, measure_likelihood
from avenir.evaluation.settings import EvaluationConfig, Report
from avenir.predictors import Predictor, TokenPredictor
from avenir.shapes import Video
from avenir.world import World

Bytes = Int[Tensor, "n T"]
"""Texts of one length, a row each."""

_BATCH = 32
_BYTES = 256
_RUN = 4
"""Bytes of a run, of which distinct ones are counted."""

WITHOUT_WORLD = {
    "uniform": "every byte as likely",
    "unigram": "as often as bytes are in training",
    "bigram": "… given the byte before",
}
"""What foretells bytes without a world."""


class Written(Config):
    """Texts that continue held-out ones, in so many steps."""

    steps: int | None
    """In which each was written; none: one byte after the other, or the true texts."""
    judged: Interval | None
    """Bits per byte that the judge pays; none where nobody judges."""
    entropy: float
    """Bits of a byte by how often each occurs in all of it."""
    distinct: float
    """Share of its runs of four bytes that are new: low where it repeats itself."""
    bytes_per_second: float | None
    """How fast it was written, all texts together; none of the true texts."""


class Filled(Config):
    """Holes in held-out texts, filled."""

    length: int
    """Bytes of each."""
    both: Interval
    """Share of bytes that are the true ones where both sides are seen."""
    before: Interval
    """The same where only what comes before is."""


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
    """Who judges what is written."""
    num_windows: int
    """Held-out texts."""
    past: int
    """Bytes given of each."""
    horizon: int
    """Bytes after them."""
    likelihood: Likelihood | None
    """What the true bytes cost; none for a world that gives no chances."""
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
    report: Report = lambda what, done, total: None,
) -> TextEvaluation:
    """Measure what applies to a world of text on held-out files.

    A second is a byte; where none are given, as many are as it remembers and as it predicts at
    once. Raises AvenirError for a judge that gives texts no chances, or one that judges itself.
    """
    started, predictor = time.monotonic(), _writer(world)
    if judge is not None:
        _check_judge(judge, world)
    chunk = predictor.room(predictor.start(_nothing_of(world, predictor.num_train_frames), None))
    past = round(settings.past_seconds or max(1, predictor.num_train_frames - chunk))
    horizon = round(settings.horizon_seconds or chunk)
    windows = source.spread("test", past + horizon, settings.num_clips)
    task = Task(source, windows, past, horizon, 1, _BATCH, settings.seed)
    video = torch.cat([frames_of(batch) for _, batch in task.batches("reading", report)])
    true = numbers(video)[..., 0, 0]
    written, made = [], true
    for steps in _steps(predictor, chunk):
        began = time.monotonic()
        with _in_steps(predictor, steps):
            made = _continued(world, task, video, report)
        rate = (time.monotonic() - began) / made[:, past:].numel()
        written.append(_counted(made, task, judge, steps, 1 / rate))
    shown = list(zip(task.groups, true, made, strict=True))[: settings.num_examples]
    return TextEvaluation(
        world=world.card.name,
        key=world.card.provenance.get("key"),
        fingerprint=source.fingerprint,
        settings=settings,
        command=command,
        judge=None if judge is None else judge.card.name,
        num_windows=len(windows),
        past=past,
        horizon=horizon,
        likelihood=measure_likelihood(world, task, report),
        without_world=_without_world(task, true, settings.num_train_windows),
        truth=_counted(true, task, judge, None, None),
        written=tuple(written),
        filled=_filled(world, task, video, made),
        passages=tuple(
            Passage(
                name=name,
                past=_said(row[:past]),
                true=_said(row[past:]),
                made=_said(other[past:]),
            )
            for name, row, other in shown
        ),
        seconds=round(time.monotonic() - started, 1),
    )


def _writer(world: World) -> Predictor:
    if world.predictor is None:
        raise AvenirError(
            f"{world.card.name!r} holds an encoder of text, of which nothing is learnt, and no "
            "predictor: evaluate a world that was trained on it"
        )
    return world.predictor


def _check_judge(judge: World, world: World) -> None:
    """Refuse who cannot say what a text costs, and who judges its own."""
    if judge.card.encoder != world.card.encoder or not isinstance(judge.predictor, TokenPredictor):
        raise AvenirError(
            f"{judge.card.name!r} was given to judge what {world.card.name!r} writes, and it gives "
            "texts of these codes no chances: name a world of text that predicts tokens"
        )
    if judge.card.provenance.get("key") == world.card.provenance.get("key"):
        raise AvenirError(f"{world.card.name!r} was given to judge itself: name another world")


def _nothing_of(world: World, num_frames: int) -> Tensor:
    shape = (1, num_frames, world.encoder.channels, 1, 1)
    return torch.zeros(shape, device=world.encoder.latent_mean.device)


def _steps(predictor: Predictor, chunk: int) -> list[int | None]:
    """Say in how many steps to write, where that is free: 1, 2, 4, … and one for every byte."""
    if not hasattr(predictor.config.sampling, "num_steps"):
        return [None]
    return [*(2**power for power in range((chunk - 1).bit_length())), chunk]


@contextmanager
def _in_steps(predictor: Predictor, steps: int | None) -> Iterator[None]:
    config = predictor.config
    if steps is not None:
        sampling = config.sampling.model_copy(update={"num_steps": steps})
        predictor.config = config.model_copy(update={"sampling": sampling})
    try:
        yield
    finally:
        predictor.config = config


def _continued(world: World, task: Task, video: Video, report: Report) -> Bytes:
    """Write on after every past; the same chance for every number of steps."""
    past, rows = video[:, : task.past], []
    for start in range(0, len(past), _BATCH):
        report("writing", start, len(past))
        chance = generator("writing", task.seed, start, device=world.encoder.latent_mean.device)
        pieces = world.imagine(past[start : start + _BATCH], {}, task.horizon, 1, chance)
        rows.append(torch.cat([piece.cpu() for piece in pieces], dim=1))
    report("writing", len(past), len(past))
    return numbers(torch.cat([past, torch.cat(rows)], dim=1))[..., 0, 0]


def _counted(
    rows: Bytes, task: Task, judge: World | None, steps: int | None, rate: float | None
) -> Written:
    """Judge what follows the past in every row, and count what it is made of."""
    future = rows[:, task.past :]
    share = future.flatten().bincount().double() / future.numel()
    runs = future.unfold(1, min(_RUN, future.shape[1]), 1).flatten(0, 1)
    return Written(
        steps=steps,
        judged=None if judge is None else _judged(rows, task, judge),
        entropy=float(-(share[share > 0] * share[share > 0].log2()).sum()),
        distinct=len(runs.unique(dim=0)) / len(runs),
        bytes_per_second=rate,
    )


def _judged(rows: Bytes, task: Task, judge: World) -> Interval:
    """Say what the judge would pay for what follows the past, as far as it sees at once."""
    predictor, device = judge.predictor, judge.encoder.latent_mean.device
    assert isinstance(predictor, TokenPredictor)
    num_past = min(task.past, predictor.num_train_frames - 1)
    ahead = min(task.horizon, predictor.num_train_frames - num_past)
    used = rows[:, task.past - num_past : task.past + ahead, None, None].to(device)
    chance = generator("judging", task.seed, device=device)
    bits = [
        bits_per_frame(predictor, judge.encoder.embed(part), None, num_past, chance).cpu()
        for part in used.split(_BATCH)
    ]
    return interval(torch.cat(bits), task.groups, task.seed)


def _without_world(task: Task, true: Bytes, num_windows: int) -> dict[str, Interval]:
    """Say what bytes cost by how often each occurs in training: alone, and after another."""
    frames, seed = task.past + task.horizon, seed_of("frequencies", task.seed)
    drawn = task._replace(windows=task.source.draw("train", frames, num_windows, seed))
    alone, pairs = torch.ones(_BYTES), torch.zeros(_BYTES, _BYTES)
    for _, batch in drawn.batches("counting", lambda what, done, total: None):
        rows = numbers(frames_of(batch))[..., 0, 0]
        alone += rows.flatten().bincount(minlength=_BYTES)
        both = rows[:, :-1] * _BYTES + rows[:, 1:]
        pairs += both.flatten().bincount(minlength=_BYTES**2).view(_BYTES, _BYTES)
    alone /= alone.sum()
    # What never followed a byte follows it as often as it occurs at all, once in all (a Dirichlet).
    after = (pairs + alone) / (pairs.sum(1, keepdim=True) + 1)
    now, before = true[:, task.past :], true[:, task.past - 1 : -1]
    costs = {
        "uniform": torch.full(now.shape, log2(_BYTES)),
        "unigram": -alone[now].log2(),
        "bigram": -after[before, now].log2(),
    }
    return {name: interval(c.mean(1), task.groups, task.seed) for name, c in costs.items()}


def _filled(world: World, task: Task, video: Video, made: Bytes) -> Filled | None:
    """Fill a hole behind the past, a quarter of what comes after it, and compare with the truth."""
    predictor = _writer(world)
    length = task.horizon // 4
    if type(predictor).fill is Predictor.fill or not length:
        return None
    device, hole = world.encoder.latent_mean.device, slice(task.past, task.past + length)
    chance = generator("filling", task.seed, device=device)
    rows = []
    for part in world.encoder.encode(video.to(device)).split(_BATCH):
        before, after = part[:, : hole.start], part[:, hole.stop :]
        rows.append(predictor.fill(before, after, None, length, chance))
    filled = numbers(world.encoder.decode(torch.cat(rows)).cpu())[..., 0, 0]
    true = numbers(video)[:, hole, 0, 0]
    right = {"both": filled == true, "before": made[:, hole] == true}
    shares = {k: interval(v.float().mean(1), task.groups, task.seed) for k, v in right.items()}
    return Filled(length=length, **shares)


def _said(row: Sequence[int] | Tensor) -> str:
    return bytes(int(number) for number in row).decode(errors="replace")
