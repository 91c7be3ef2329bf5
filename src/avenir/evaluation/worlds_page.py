"""Several worlds beside the truth: the same pasts continued by each, how each ages, on one page.

Writes `drift.json` and `drift.html`. Knows what was measured, and measures nothing.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from avenir.config import Config
from avenir.evaluation.metrics.bootstrap import Curve, Interval
from avenir.evaluation.metrics.frames import METRICS, Metric
from avenir.evaluation.questions.action_control import ShuffledActions
from avenir.evaluation.questions.drift import SEGMENT, WAYS, Drift, ImaginedClip
from avenir.evaluation.questions.generation import SET_METRICS
from avenir.evaluation.report.charts import Axis, chart, charts, coloured
from avenir.evaluation.report.html import page, resource, section
from avenir.evaluation.report.side_by_side import Column, side_by_side
from avenir.evaluation.report.tables import plain_table, title_of, written
from avenir.files import write_whole

FORMAT = 2
"""Version of `drift.json`."""

_REFERENCES = ("copy_last", "random")
"""Ways that no world has a part in: alike for all."""

_IN_FACTS = {"moving_psnr", "ego_error"}
"""Metrics whose failure stands below the pictures; the tables have all."""


class ComparedWorld(Config):
    """One world of a comparison."""

    name: str
    """As on the page."""
    key: str | None
    """The key of the run that made it."""
    predictor: str
    """Kind of its predictor."""
    num_parameters: int
    """Of encoder, conditioner and predictor."""
    device: str | None = None
    """What its predictor was trained on; none where the run does not say."""
    train_seconds: float | None = None
    """What that took: of the processor, or on a GPU by the clock."""
    train_gib: float | None = None
    """Most memory that it held there."""
    nearest_decoder: int | None
    """How many groups of training frames stand in for pictures; none: its encoder decodes."""
    drift: Drift
    """How it ages."""
    control: ShuffledActions | None
    """Whether its actions matter, over a trained length; none: nothing steers it."""


class WorldComparison(Config):
    """Several worlds on the same clips: what `drift.json` holds."""

    format: int = FORMAT
    """Version of this table."""
    about: str
    """Where the clips come from."""
    command: str
    """What was typed."""
    fps: float
    """Frames per second."""
    worlds: tuple[ComparedWorld, ...]
    """In the order given."""


def write_comparison(
    folder: Path, comparison: WorldComparison, films: Sequence[Sequence[ImaginedClip]]
) -> Path:
    """Write `drift.json` and `drift.html`; `films` are every world's clips to look at."""
    write_whole(folder / "drift.json", comparison.model_dump_json(indent=2) + "\n")
    path = folder / "drift.html"
    write_whole(path, drift_page(comparison, films))
    return path


def drift_page(comparison: WorldComparison, films: Sequence[Sequence[ImaginedClip]]) -> str:
    """Return the whole page as HTML."""
    sections = []
    if films and films[0]:
        sections.append(_watch(comparison, films))
    sections += [_curves(comparison), _numbers(comparison)]
    if any(world.control is not None for world in comparison.worlds):
        sections.append(_control(comparison.worlds))
    if comparison.worlds[0].drift.noised:
        sections.append(_noise(comparison.worlds))
    sections.append(_how(comparison))
    first = comparison.worlds[0].drift
    lead = (
        f"{comparison.about}: {first.num_clips:,} clips, {first.past / comparison.fps:.1f}\u00a0s "
        f"observed, {first.horizon / comparison.fps:.1f}\u00a0s imagined."
    )
    title = " | ".join([*(world.name for world in comparison.worlds), "truth"])
    style = resource("comparison.css") + resource("side_by_side.css")
    style += coloured("world", line="stroke-width: 2.6;")
    style += coloured("forced", line="stroke-dasharray: 5 4;", band="opacity: .07;")
    style += ".line-random { stroke: var(--muted); stroke-dasharray: 1 4; }\n"
    style += ".tables th { white-space: normal; }\n"
    style += ".compared .facts tr:first-child td { font-size: 1rem; }\n"
    return page("Avenir comparison", title, lead, sections, style)


def _watch(comparison: WorldComparison, films: Sequence[Sequence[ImaginedClip]]) -> str:
    columns = []
    for world, film in zip(comparison.worlds, films, strict=True):
        made, seen = [each.made for each in film], [each.seen for each in film]
        columns.append(Column(world.name, seen, made, _facts(world)))
    past = comparison.worlds[0].drift.past / comparison.fps
    return section(
        "watch",
        "Observed, then imagined",
        f"The first {past:.1f} s are observed and the rest imagined, all in step beside the truth. "
        "Space plays, arrow keys step.",
        side_by_side(columns, {}, differences=False),
    )


def _facts(world: ComparedWorld) -> dict[str, str]:
    drift = world.drift
    facts = {
        "Predictor": escape(world.predictor),
        "Parameters": f"{world.num_parameters / 1e6:.1f} M",
        "Moves": f"{written(drift.motion, '.0%')} of what truly moves, at the end",
        "Frames a second": f"{drift.frames_per_second:.0f}",
    }
    if world.train_seconds is not None and world.train_gib is not None:
        facts["Predictor trained in"] = (
            f"{world.train_seconds / 60:.1f} min, {world.train_gib:.1f} GiB ({world.device})"
        )
    if world.nearest_decoder is not None:
        facts["Pictures"] = f"the nearest of {world.nearest_decoder:,} groups of training frames"
    for name in sorted(_IN_FACTS & drift.failure_seconds.keys()):
        seconds = drift.failure_seconds[name]
        fails = "not within the horizon" if seconds is None else f"after {seconds:.1f}\u00a0s"
        facts[f"Fails by {METRICS[name].label}"] = fails
    return facts


def _curves(comparison: WorldComparison) -> str:
    labels = {f"world{i}": world.name for i, world in enumerate(comparison.worlds)}
    labels |= {
        f"forced{i}": f"{world.name}, {WAYS['forced']}" for i, world in enumerate(comparison.worlds)
    }
    labels |= {way: WAYS[way] for way in _REFERENCES}
    drawings = []
    for metric in comparison.worlds[0].drift.curves:
        curves = _of_all([world.drift.curves[metric] for world in comparison.worlds])
        axis = Axis.horizon(comparison.worlds[0].drift.horizon, comparison.fps)
        drawing = chart(curves, labels, axis, METRICS[metric].label)
        drawings.append((title_of(METRICS[metric]), drawing))
    if comparison.worlds[0].drift.segments:
        drawings.append(_segments(comparison, labels))
    lengths = ", ".join(
        f"{world.name} {world.drift.trained / comparison.fps:.1f}\u00a0s"
        for world in comparison.worlds
    )
    return section(
        "age",
        "How each ages",
        "Means over clips at every frame ahead; bands are 95 % intervals by recording. Between a "
        "world's two lines lies its drift. Trained on windows of: " + lengths + ".",
        charts(labels, drawings),
    )


def _segments(comparison: WorldComparison, labels: Mapping[str, str]) -> tuple[str, str]:
    """Draw how pictures decay, one point for each segment."""
    metric, curves = (
        SET_METRICS["kernel_distance"],
        _of_all([w.drift.segments for w in comparison.worlds]),
    )
    ends = [(i + 1) * SEGMENT / comparison.fps for i in range(len(curves["world0"].mean))]
    drawing = chart(curves, labels, Axis(ends, "seconds ahead"), metric.label)
    return f"{title_of(metric)}, {SEGMENT} frames together", drawing


def _of_all(worlds: Sequence[Mapping[str, Curve]]) -> Mapping[str, Curve]:
    """Name the lines of every world, and those that are alike for all."""
    curves = {}
    for i, ways in enumerate(worlds):
        curves |= {f"world{i}": ways["free"], f"forced{i}": ways["forced"]}
    return curves | {way: worlds[0][way] for way in _REFERENCES}


def _numbers(comparison: WorldComparison) -> str:
    tables = ""
    for metric in comparison.worlds[0].drift.curves:
        lines = [("", [*map(escape, WAYS.values()), "growth", "fails"])]
        for world in comparison.worlds:
            drift, ways = world.drift, world.drift.curves[metric]
            fails = drift.failure_seconds[metric]
            cells = [
                *(_mean(ways[way]) if way in ways else "–" for way in WAYS),
                written(drift.growth[metric], ".0%"),
                "never" if fails is None else f"{fails:.1f}\u00a0s",
            ]
            lines.append((world.name, cells))
        tables += plain_table(title_of(METRICS[metric]), lines)
    return section(
        "numbers",
        "The numbers",
        "Means over all frames. Growth: how much worse the last trained length is than the first "
        "(or the second half than the first, of a shorter horizon), as a share of the way from the "
        "codec to another clip's future. Fails: when a world on its own is first no better than "
        "another clip's future.",
        f'<div class="tables">{tables}</div>',
    )


def _control(worlds: Sequence[ComparedWorld]) -> str:
    lost = {
        world.name: {
            row.metric: row.difference
            for row in world.control.rows
            if row.seconds is None and row.difference is not None
        }
        for world in worlds
        if world.control is not None
    }
    metrics = list(dict.fromkeys(name for rows in lost.values() for name in rows))
    lines = [("", [_named(METRICS[name]) for name in metrics])]
    for world, rows in lost.items():
        found = [(rows.get(name), METRICS[name]) for name in metrics]
        cells = ["–" if row is None else _difference(row, metric) for row, metric in found]
        lines.append((world, cells))
    return section(
        "control",
        "Do actions matter?",
        "How much is lost under another recording's actions, from the same past and noise, over a "
        "window as long as those of training: above zero where a world listens.",
        f'<div class="tables">{plain_table("", lines)}</div>',
    )


def _noise(worlds: Sequence[ComparedWorld]) -> str:
    tables = ""
    for name, metric in METRICS.items():
        lines = [("", ["noise", "lost at first", "lost at the end"])]
        for world in worlds:
            for each in world.drift.noised:
                if name in each.early:
                    lost = [written(each.early[name]), written(each.late[name])]
                    lines.append((world.name, [f"{each.noise:g}", *lost]))
        tables += plain_table(_named(metric), lines) if len(lines) > 1 else ""
    return section(
        "noise",
        "What noise on the past does",
        "How much is lost in the first trained length and how much still in the last, or in the "
        "halves of a shorter horizon, when what was observed is noisy (its standard deviation; "
        "pixels are in [−1, 1]).",
        f'<div class="tables">{tables}</div>',
    )


def _named(metric: Metric) -> str:
    """Name a metric of which a loss is shown, without the way it goes."""
    return escape(f"{metric.label}, {metric.unit}" if metric.unit else metric.label)


def _difference(better: Interval, metric: Metric) -> str:
    """Write how much better something is, whichever way the metric goes."""
    sign = 1 if metric.higher_is_better else -1
    ends = [None if x is None else sign * x for x in (better.low, better.mean, better.high)]
    low, mean, high = ends if sign > 0 else ends[::-1]
    return written(Interval(mean=mean, low=low, high=high))


def _how(comparison: WorldComparison) -> str:
    command = f"<pre>{escape(comparison.command)}</pre>" if comparison.command else ""
    return section("how", "How it was measured", "One future of every clip.", command)


def _mean(curve: Curve) -> str:
    values = [value for value in curve.mean if value is not None]
    return f"{sum(values) / len(values):.2f}" if values else "–"
