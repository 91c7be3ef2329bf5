"""The semantic battery: what can be read from an encoder's latents by probes that barely learn.

Every encoder meets the same windows, beside raw pixels, a random network and, where labels are, a
segmenter that was trained on them. Probes learn from training recordings and are scored on test
recordings. What a probe reads is the same for all, however their latents are shaped:

    frame        the latent frame that ends at the last instant, area means over at most 4×4 cells
    window       all latent frames of the window, likewise: what each encoder says of the way
    likeness     the frame: the mean truth of the 20 training windows nearest to it
    predicted    what is read in the frame, as linear dynamics say it from the first stretch and the
                 actions since
    query        all latents of the last instant, through one learnt query that attends
    things       the latent under the middle of a thing, or the difference of two of them
    places       each latent of the last instant alone: it says what lies in its own pixels, or,
                 where latents are finer, in its cell of 4×4 pixels

The two instants end two stretches of 4 frames, or of the fewest that every encoder's groups divide.
A window is both stretches: every encoder sees all of it, in as many latent frames as it makes.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from avenir.config import Config
from avenir.console import Report, silent
from avenir.data import Source, Window
from avenir.device import generator, seed_of
from avenir.encoders import Encoder
from avenir.errors import AvenirError
from avenir.evaluation.baselines import frames_of
from avenir.evaluation.metrics.bootstrap import Interval, interval
from avenir.evaluation.probing.battery import Battery, Labels, labels_of
from avenir.evaluation.probing.diagnostics import channel_spectrum
from avenir.evaluation.probing.views import RAW_PIXELS, Subject, Views, references, view
from avenir.losses.distillation import effective_rank

_LOWER_IS_BETTER = ("px",)

_BATCH_NUMBERS, _BATCH_CLIPS = 2**23, 32
"""Most numbers (32 MiB), and most windows, that are encoded together."""


class SemanticsConfig(Config):
    """How much the battery learns from and judges on."""

    num_train_windows: int = Field(1500, ge=20)
    """Windows of training recordings that probes learn from."""
    num_clips: int = Field(256, ge=2)
    """Windows of test recordings that they are scored on."""
    seed: int = 0
    """Everything random derives from it."""


class AskedEncoder(Config):
    """An encoder, or what it is compared with."""

    name: str
    """As in the rows."""
    reference: bool
    """Whether it is there for comparison only."""
    compression: tuple[int, int, int]
    """Frames, rows and columns per latent."""
    frame_numbers: int
    """Numbers that a probe of a frame reads."""
    window_numbers: int
    """Numbers that a probe of a window reads."""
    place_numbers: int
    """Numbers that the probe of places reads."""
    effective_rank: float
    """Directions that latents of the last instant fill, over all test windows and places."""


class SemanticsRow(Config):
    """What one probe read in one encoder's latents."""

    encoder: str
    """Whose latents."""
    probe: str
    """What was asked, and in brackets how, when it was not by a linear map."""
    metric: str
    """R² (every number asked for alike), px (mean distance), accuracy (every class alike), mIoU."""
    value: Interval
    """On test windows."""
    difference: Interval | None
    """This encoder minus raw pixels, window by window; none for raw pixels themselves."""


class Semantics(Config):
    """The semantic battery of several encoders on one source: what `semantics.json` holds."""

    format: int = 3
    """Version of this table."""
    source: str
    """Kind of source."""
    fingerprint: str
    """Of that data."""
    settings: SemanticsConfig
    """What was asked for."""
    num_frames: int
    """Frames of a window."""
    instants: tuple[int, int]
    """Frames of a window that are asked about, counted from 0."""
    num_clips: int
    """Test windows there were."""
    num_recordings: int
    """Test recordings they come from."""
    encoders: tuple[AskedEncoder, ...]
    """Those given, then the references."""
    rows: tuple[SemanticsRow, ...]
    """Every probe of every encoder."""
    seconds: float
    """How long it took."""


class Windows(NamedTuple):
    """Windows of both splits, and the instants at which they are asked about."""

    train: list[Window]
    test: list[Window]
    held_out: Bool[Tensor, " n"]
    """Training windows that penalties are chosen on; they share no recording with the others."""
    instants: tuple[int, int]


def measure_semantics(
    encoders: Mapping[str, Encoder],
    source: Source,
    settings: SemanticsConfig,
    report: Report = silent,
) -> Semantics:
    """Ask every encoder, and the references, everything that the source knows the truth of."""
    started = time.monotonic()
    source = source.labelled()
    given = [Subject.of(name, encoder) for name, encoder in encoders.items()]
    subjects = [*given, *references(source, settings.seed)]
    if len({subject.name for subject in subjects}) < len(subjects):
        raise AvenirError(
            f"encoders are called {[s.name for s in given]}; give each a name of its own, none "
            "that a reference has"
        )
    windows = choose_windows(source, [s.compression.t for s in subjects], settings)
    train, learnt = look(subjects, source, windows.train, windows.instants, report)
    test, judged = look(subjects, source, windows.test, windows.instants, report)
    found: dict[str, dict[tuple[str, str], Tensor]] = {}
    for number, (name, views) in enumerate(learnt.items()):
        report("probing encoders", number, len(subjects))
        battery = Battery(train, test, views, judged[name], windows.held_out, settings.seed)
        found[name] = {(probe, metric): scores for probe, metric, scores in battery.scores()}
    report("probing encoders", len(subjects), len(subjects))
    groups = [window.recording.name for window in windows.test]
    return Semantics(
        source=type(source).__name__.lower(),
        fingerprint=source.fingerprint,
        settings=settings,
        num_frames=windows.test[0].num_frames,
        instants=windows.instants,
        num_clips=len(groups),
        num_recordings=len(set(groups)),
        encoders=tuple(_asked(s, judged[s.name], s not in given) for s in subjects),
        rows=tuple(_rows(found, groups, settings.seed)),
        seconds=round(time.monotonic() - started, 1),
    )


def choose_windows(source: Source, groups: Sequence[int], settings: SemanticsConfig) -> Windows:
    """Choose windows of two stretches; `groups` are the frames per latent of every encoder."""
    stretch = math.lcm(4, *groups)
    seed = seed_of("semantics", settings.seed)
    train = source.draw("train", 2 * stretch, settings.num_train_windows, seed)
    test = source.spread("test", 2 * stretch, settings.num_clips)
    names = [window.recording.name for window in train]
    known = sorted(set(names))
    if len(known) < 2:
        raise AvenirError(
            "the data has one training recording; probes need two, to choose their penalty on one "
            "they did not learn from: give data with more recordings"
        )
    order = torch.randperm(len(known), generator=generator("held out", settings.seed)).tolist()
    kept = {known[i] for i in order[: max(1, len(known) // 5)]}
    held_out = torch.tensor([name in kept for name in names])
    return Windows(train, test, held_out, (stretch - 1, 2 * stretch - 1))


@torch.no_grad()
def look(
    subjects: Sequence[Subject],
    source: Source,
    windows: Sequence[Window],
    instants: tuple[int, int],
    report: Report,
) -> tuple[Labels, dict[str, Views]]:
    """Read every window once; return the truth of it and what each subject makes of it."""
    labels: list[Labels] = []
    views: dict[str, list[Views]] = {subject.name: [] for subject in subjects}
    numbers = 3 * windows[0].num_frames * source.size[0] * source.size[1]
    size = max(1, min(_BATCH_CLIPS, _BATCH_NUMBERS // numbers))
    for start in range(0, len(windows), size):
        report("encoding windows", start, len(windows))
        batch = source.read(windows[start : start + size])
        labels.append(labels_of(batch, source, instants))
        for subject in subjects:
            views[subject.name].append(view(subject, frames_of(batch)))
    report("encoding windows", len(windows), len(windows))
    if not labels[0]:
        raise AvenirError(
            f"the data has {', '.join(source.signals) or 'no signals'}; the battery asks for "
            "actions, state or the synthetic world's labels: give data that has one of them"
        )
    joined = {name: torch.cat([part[name] for part in labels]) for name in labels[0]}
    return joined, {name: Views.joined(parts) for name, parts in views.items()}


def _asked(subject: Subject, views: Views, reference: bool) -> AskedEncoder:
    t, h, w = subject.compression
    latents = rearrange(views.places, "n h w c -> n 1 c h w")
    return AskedEncoder(
        name=subject.name,
        reference=reference,
        compression=(t, h, w),
        frame_numbers=views.pooled.shape[2],
        window_numbers=views.pooled[0].numel(),
        place_numbers=views.places.shape[3],
        effective_rank=float(effective_rank(channel_spectrum(latents))),
    )


def _rows(
    found: dict[str, dict[tuple[str, str], Float[Tensor, " n"]]], groups: Sequence[str], seed: int
) -> list[SemanticsRow]:
    return [
        SemanticsRow(
            encoder=name,
            probe=probe,
            metric=metric,
            value=_value(scores, groups, seed, metric),
            difference=None
            if name == RAW_PIXELS
            else interval(scores - found[RAW_PIXELS][probe, metric], groups, seed),
        )
        for name, table in found.items()
        for (probe, metric), scores in table.items()
    ]


def _value(scores: Float[Tensor, " n"], groups: Sequence[str], seed: int, metric: str) -> Interval:
    """Take the mean and its interval; no upper bound is above the best there can be."""
    found = interval(scores, groups, seed)
    if metric in _LOWER_IS_BETTER or found.high is None:
        return found
    return found.model_copy(update={"high": min(found.high, 1.0)})


def table(semantics: Semantics) -> str:
    """Lay the battery out, probes down and encoders across."""
    names = [encoder.name for encoder in semantics.encoders]
    cells = {(row.probe, row.metric, row.encoder): row for row in semantics.rows}
    asked = dict.fromkeys((row.probe, row.metric) for row in semantics.rows)
    read = {
        "compression": [f"{t}×{h}×{w}" for t, h, w in (e.compression for e in semantics.encoders)],
        "numbers of a frame": [f"{e.frame_numbers:,}" for e in semantics.encoders],
        "numbers of a window": [f"{e.window_numbers:,}" for e in semantics.encoders],
        "numbers of a place": [f"{e.place_numbers:,}" for e in semantics.encoders],
        "directions they fill": [f"{e.effective_rank:.1f}" for e in semantics.encoders],
    }
    lines = [["probe", "metric", *names], ["---"] * (2 + len(names))]
    lines += [[name, "", *values] for name, values in read.items()]
    for probe, metric in asked:
        words = f"{metric}, lower is better" if metric in _LOWER_IS_BETTER else metric
        lines.append([probe, words, *(_cell(cells[probe, metric, name]) for name in names)])
    laid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    settings = semantics.settings
    return (
        f"Probes learnt on {settings.num_train_windows:,} training windows of "
        f"{semantics.num_frames} frames of `{semantics.source}`, scored on {semantics.num_clips:,} "
        f"windows of {semantics.num_recordings:,} test recordings; 95 % intervals over recordings. "
        "▲ and ▼: better and worse than raw pixels, the interval of the paired difference leaving "
        f"out zero.\n\n{laid}\n"
    )


def _cell(row: SemanticsRow) -> str:
    digits, value = 2 if row.metric in _LOWER_IS_BETTER else 3, row.value
    if value.mean is None:
        return "–"
    words = f"{value.mean:.{digits}f}"
    if value.low is not None and value.high is not None:
        words += f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    gap = row.difference
    if gap is None or gap.low is None or gap.high is None or gap.low <= 0 <= gap.high:
        return words
    return f"{words} {'▲' if (gap.low > 0) != (row.metric in _LOWER_IS_BETTER) else '▼'}"
