"""Do actions matter? The same past and the same noise under the true and under others' actions.

A world that listens loses when its future actions are another recording's; one that ignores them
does not. Paired clip by clip, so that the interval is that of the difference. Where a simulator
can say what would have been, the ego is steered to either side, and where it goes is held to that.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avenir.clip import Batch
from avenir.config import Config
from avenir.console import Report
from avenir.data import Source
from avenir.device import seed_of
from avenir.evaluation.held_out import HeldOut, Imagines, imagined, of_another_recording
from avenir.evaluation.metrics.bootstrap import Curve, Interval, interval
from avenir.evaluation.metrics.correlation import Correlation, spearman
from avenir.evaluation.metrics.frames import METRICS
from avenir.evaluation.metrics.score_table import ScoreRow, ScoreTable, horizons, rows_of
from avenir.evaluation.question import About, Measured, Question, QuestionInputs
from avenir.evaluation.readers.readout import Readout, score
from avenir.evaluation.report.findings import Finding, bounds, tone
from avenir.evaluation.report.html import metric_charts, section
from avenir.evaluation.report.tables import plain_table, score_table, written

_LABELS = {"true": "true actions", "shuffled": "another recording's actions"}

_METRICS = ("moving_psnr", "ego_error")
"""What actions are expected to change."""

APART = 2.0
"""In pixels: egos that are truly no farther apart say nothing of which way they went."""

_SHOWS = 0.5
"""Share of the ego that must show to say where it is."""

_GENTLEST, _HARDEST = 0.3, 1.0
"""Between these it is steered, once to one side and once to the other."""


class ShuffledActions(Config):
    """True against shuffled actions."""

    num_clips: int
    """Windows continued twice."""
    num_recordings: int
    """Recordings they come from."""
    curves: dict[str, dict[str, Curve]]
    """By metric, then `true` and `shuffled`."""
    rows: tuple[ScoreRow, ...]
    """Numbers at chosen horizons; `difference` is true minus shuffled."""


def measure_shuffled_actions(
    world: Imagines, held_out: HeldOut, readout: Readout | None, report: Report
) -> ShuffledActions | None:
    """Continue every window under its own and under another recording's actions.

    None when nothing steers, or when no batch holds two recordings.
    """
    table, groups = ScoreTable(), []
    for start, batch in held_out.batches("true and shuffled actions", report):
        windows = held_out.windows[start : start + held_out.batch_size]
        pairs = [(row, of_another_recording(windows, row)) for row in range(len(windows))]
        rows = [row for row, other in pairs if other is not None]
        partners = [other for _, other in pairs if other is not None]
        steering = held_out.steering(batch)
        if "actions" not in steering or not rows:
            continue
        own = {name: signal[rows] for name, signal in steering.items()}
        theirs = shuffled(own["actions"], steering["actions"][partners], held_out.past)
        others = own | {"actions": theirs}
        past, true = (video[rows] for video in held_out.split(batch))
        kept = Batch(None, {name: signal[rows] for name, signal in batch.signals.items()})
        for method, signals in (("true", own), ("shuffled", others)):
            made = imagined(world, past, signals, held_out.horizon, "control", held_out.seed, start)
            scores = score(made, true, past, kept, readout)
            table.add(method, {name: scores[name] for name in _METRICS if name in scores})
        groups += [windows[row].recording.name for row in rows]
    if not groups:
        return None
    frames = horizons(held_out.horizon, held_out.source.fps)
    return ShuffledActions(
        num_clips=len(groups),
        num_recordings=len(set(groups)),
        curves=table.curves(groups, held_out.seed),
        rows=table.rows(groups, held_out.seed, "true", frames),
    )


class Steered(Config):
    """Where the ego went in pairs of futures that differ in how it was steered."""

    seconds: float
    """After so long."""
    num_pairs: int
    """Pairs of which the egos are truly more than 2 px apart by then, and to be seen."""
    right_way: Interval
    """Share of them whose imagined egos are apart the same way; one that is lost is not."""
    read_right_way: Interval
    """The same of the simulator's frames: what reading alone gets wrong."""
    reach: Interval
    """How far apart they are imagined along the true way, as a share of how far they truly are."""
    rank_correlation: Correlation
    """Spearman's, of how far apart across they are imagined and truly are; lost ones nowhere."""
    psnr: Interval
    """PSNR of pixels that moved, of what is imagined against what the simulator says, in dB."""


class Counterfactuals(Config):
    """The same past steered to either side, imagined and simulated."""

    num_clips: int
    """Windows, each steered to both sides."""
    rows: tuple[Steered, ...]
    """By horizon."""


class ActionControl(Config):
    """Whether actions matter."""

    shuffled: ShuffledActions | None = None
    """True against shuffled actions; none when nothing steers, or no two recordings are there."""
    steered: Counterfactuals | None = None
    """Where the ego goes when it is steered to either side; none where it cannot be known."""


class _Side(NamedTuple):
    """Futures steered to one side, a batch of them."""

    ego: Float[Tensor, "b F 2"]
    """Where it truly is; NaN where it hardly shows."""
    imagined: Float[Tensor, "b F 2"]
    """Where it is read in what is imagined."""
    read: Float[Tensor, "b F 2"]
    """Where it is read in the simulator's frames."""
    psnr: Float[Tensor, "b F"]


def measure_counterfactuals(
    world: Imagines, held_out: HeldOut, readout: Readout | None, report: Report
) -> Counterfactuals | None:
    """Steer every window to either side, from the same noise, beside a simulator that does so too.

    None where counterfactuals are not known, or no reader knows the frames; and of a world that
    would have to read its own actions in the simulator's answer.
    """
    known = held_out.source.knows_counterfactuals
    if not known or readout is None or held_out.discover is not None:
        return None
    sides: tuple[list[_Side], list[_Side]] = ([], [])
    for start in range(0, len(held_out.windows), held_out.batch_size):
        report("steered to either side", start, len(held_out.windows))
        count = len(held_out.windows[start : start + held_out.batch_size])
        rng = np.random.default_rng(seed_of("counterfactual", held_out.seed, start))
        pedal = rng.uniform(-0.5, 1, count)
        for sign, gathered in zip((-1, 1), sides, strict=True):
            steer = sign * rng.uniform(_GENTLEST, _HARDEST, count)
            held = torch.tensor(np.stack([steer, pedal], axis=1), dtype=torch.float32)
            gathered.append(_side(world, held_out, held_out.source, readout, held, start))
    report("steered to either side", len(held_out.windows), len(held_out.windows))
    left, right = (_Side(*map(torch.cat, zip(*side, strict=True))) for side in sides)
    frames = horizons(held_out.horizon, held_out.source.fps)
    rows = [
        _steered(seconds, left, right, where.stop - 1, held_out)
        for seconds, where in frames.items()
        if seconds is not None
    ]
    return Counterfactuals(num_clips=len(held_out.windows), rows=tuple(rows))


def _side(
    world: Imagines,
    held_out: HeldOut,
    source: Source,
    readout: Readout,
    held: Float[Tensor, "b 2"],
    start: int,
) -> _Side:
    """Hold an action in windows from `start` on, in the simulator and in the world."""
    actions = held[:, None].expand(-1, held_out.horizon, -1)
    batch = source.counterfactual(held_out.windows[start : start + len(held)], actions)
    past, true = held_out.split(batch)
    steering = held_out.steering(batch)
    made = imagined(world, past, steering, held_out.horizon, "control", held_out.seed, start)
    ego, visible = (batch.signals[name][:, held_out.past :] for name in ("ego", "ego_visible"))
    return _Side(
        torch.where(visible >= _SHOWS, ego, torch.nan),
        readout.read(made).ego,
        readout.read(true).ego,
        score(made, true, past, batch, None)["moving_psnr"],
    )


def _steered(seconds: float, left: _Side, right: _Side, frame: int, held_out: HeldOut) -> Steered:
    """Sum up pairs at one frame."""
    apart, imagined, read = (
        there[:, frame] - here[:, frame] for here, there in zip(left[:3], right[:3], strict=True)
    )
    counts = apart.norm(dim=-1) > APART
    groups = [name for name, kept in zip(held_out.groups, counts.tolist(), strict=True) if kept]
    true, made, read = apart[counts], imagined[counts], read[counts]
    along = (made * true).sum(-1) / true.square().sum(-1)
    psnr = (left.psnr[counts, frame] + right.psnr[counts, frame]) / 2

    def mean(values: Tensor) -> Interval:
        return interval(values, groups, held_out.seed) if groups else Interval(mean=None)

    return Steered(
        seconds=seconds,
        num_pairs=len(groups),
        right_way=mean(_same_way(made, true).float()),
        read_right_way=mean(_same_way(read, true).float()),
        reach=mean(along.nan_to_num()),
        rank_correlation=spearman(
            made[:, 0].nan_to_num().numpy(), true[:, 0].numpy(), held_out.seed
        ),
        psnr=mean(psnr),
    )


def _same_way(these: Float[Tensor, "n 2"], those: Float[Tensor, "n 2"]) -> Bool[Tensor, " n"]:
    """Say which point the same way; what is not known does not."""
    return (these * those).sum(-1) > 0


def shuffled(own: Tensor, other: Tensor, past: int) -> Tensor:
    """Replace what leads to future frames; the action at the last observed frame is the first."""
    return torch.cat([own[:, : past - 1], other[:, past - 1 :]], dim=1)


class ActionControlQuestion(Question):
    """Whether actions matter."""

    Answer = ActionControl
    order = 40

    def applies(self, asked: QuestionInputs) -> bool:
        """Ask worlds that take actions."""
        return asked.world.predictor is not None and "actions" in asked.world.takes

    def measure(self, asked: QuestionInputs) -> Measured:
        """Compare true with shuffled actions, and steer to either side where it can be known."""
        common = asked.world, asked.held_out, asked.readout, asked.report
        shuffled = measure_shuffled_actions(*common)
        steered = measure_counterfactuals(*common)
        return Measured(ActionControl(shuffled=shuffled, steered=steered))

    def findings(self, answer: ActionControl, about: About) -> list[Finding]:
        """Say whether true actions do better, and how often the ego goes the right way."""
        found = [] if answer.shuffled is None else [_shuffled_finding(answer.shuffled)]
        return found + ([] if answer.steered is None else _steered_findings(answer.steered))

    def section(self, measured: Measured, about: About) -> str:
        """Draw both futures against the horizon."""
        assert isinstance(measured.answer, ActionControl)
        control, steered = measured.answer.shuffled, measured.answer.steered
        if control is None:
            return ""
        tables = "".join(score_table(name, control.rows, _LABELS, "true") for name in METRICS)
        note = (
            "The same past and the same noise, once under the true future actions and once under "
            f"those of another recording; {control.num_clips:,} pairs."
        )
        if steered is not None:
            tables += steering_table(steered)
            note += (
                " Then steered to the left and to the right, beside a simulator that does the "
                f"same: of {steered.num_clips:,} pairs those count whose egos are truly more than "
                f"{APART:g} px apart. An ego that is lost went nowhere."
            )
        charts = metric_charts(control.curves, _LABELS, about.fps)
        body = f'{charts}<div class="tables after">{tables}</div>'
        return section("control", "Do actions matter?", note, body)


def steering_table(counterfactuals: Counterfactuals) -> str:
    """Lay out where the ego went, horizons across."""
    rows = counterfactuals.rows

    def ranks(row: Steered) -> str:
        found = row.rank_correlation
        return written(Interval(mean=found.rho, low=found.low, high=found.high))

    return plain_table(
        "Steered to either side",
        [
            ("", [f"{row.seconds:g} s" for row in rows]),
            ("went the right way", [written(row.right_way, ".0%") for row in rows]),
            ("… simulator, read alike", [written(row.read_right_way, ".0%") for row in rows]),
            ("… how far, as a share of the truth", [written(row.reach, ".2f") for row in rows]),
            ("rank correlation of how far, across", [ranks(row) for row in rows]),
            ("PSNR of moving pixels, dB", [written(row.psnr, ".2f") for row in rows]),
            ("pairs that tell", [f"{row.num_pairs:,}" for row in rows]),
        ],
    )


def _shuffled_finding(control: ShuffledActions) -> Finding:
    metric = "moving_psnr"
    rows = rows_of(control.rows, metric, None)
    row = next((row for row in rows if row.method == "shuffled"), None)
    if row is None or row.difference is None or row.difference.mean is None:
        return Finding("–", "Actions: nothing moved that could be scored.")
    sure = tone(row.difference, True)
    verdict = {
        "good": "Actions matter: true ones do better than another recording’s",
        "bad": "True actions do worse than another recording’s",
        "": "No effect of actions was found: true against another recording’s",
    }[sure]
    return Finding(
        f"{row.difference.mean:+.2f} dB".replace("-", "−"),
        f"{verdict}, PSNR of moving pixels over all frames.",
        bounds(row.difference),
        sure,
    )


def _steered_findings(counterfactuals: Counterfactuals) -> list[Finding]:
    rows = [row for row in counterfactuals.rows if row.num_pairs and row.seconds <= 1]
    if not rows:
        return []
    row: Steered = rows[-1]
    share = row.right_way
    assert share.mean is not None
    sure = "Too few recordings for an interval."
    if share.low is not None and share.high is not None:
        sure = f"95 % interval {share.low:.0%} to {share.high:.0%}."
    sentence = (
        f"of egos, steered to the left and to the right, are imagined apart the right way after "
        f"{row.seconds:g} s; {row.num_pairs:,} pairs."
    )
    above_half = Interval(
        mean=share.mean - 0.5,
        low=None if share.low is None else share.low - 0.5,
        high=None if share.high is None else share.high - 0.5,
    )
    return [Finding(f"{share.mean:.0%}", sentence, sure, tone(above_half, True))]
