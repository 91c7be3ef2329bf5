"""Numbers as HTML tables and lists, each with its interval. Knows no pictures and no curves."""

from collections.abc import Mapping, Sequence
from html import escape

from avenir.evaluation.metrics.bootstrap import Interval
from avenir.evaluation.metrics.frames import METRICS, Metric
from avenir.evaluation.metrics.score_table import Row
from avenir.evaluation.questions.action_control import Counterfactuals, Steered
from avenir.evaluation.questions.box_control import BoxControl
from avenir.evaluation.questions.generation import DISTANCES, MARKS, Generation
from avenir.evaluation.questions.likelihood import Likelihood
from avenir.evaluation.questions.novel_views import ImaginedView, ImaginedViews
from avenir.evaluation.questions.reconstruction import Reconstruction
from avenir.evaluation.questions.text_control import Obedience
from avenir.evaluation.readers.readout import CUT_OFF, ReadoutScore
from avenir.evaluation.report.findings import tone
from avenir.evaluation.results import Evaluation

_SETS = {
    "world": "world, one sample",
    "copy_last": "last frame held",
    "codec": "codec, true futures",
    "real": "real clips of training",
}
"""Sets of clips, in the order of their table."""

CEILINGS = ("codec", "truth")
"""Methods that know the future: nobody competes with them."""


def score_table(name: str, rows: Sequence[Row], labels: Mapping[str, str], reference: str) -> str:
    """Lay one metric out, methods down and horizons across; nothing when it was not scored."""
    rows = [row for row in rows if row.metric == name]
    if not rows:
        return ""
    horizons = list(dict.fromkeys(row.seconds for row in rows))
    methods = [method for method in labels if any(row.method == method for row in rows)]
    cells = {(row.method, row.seconds): row for row in rows}
    metric = METRICS[name]
    head = "".join(
        f'<th scope="col">{"all frames" if seconds is None else f"{seconds:g} s"}</th>'
        for seconds in horizons
    )
    body = ""
    for method in methods:
        line = "".join(_cell(cells[method, seconds], metric) for seconds in horizons)
        ours = ' class="ours"' if method == reference else ""
        body += f'<tr{ours}><th scope="row">{escape(labels[method])}</th>{line}</tr>'
    return (
        f'<div class="scroll"><table><caption>{title_of(metric)}</caption>'
        f'<thead><tr><th scope="col"></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def distance_table(generation: Generation) -> str:
    """Lay out sets of clips, one below the other."""
    head = "".join(f'<th scope="col">{title_of(MARKS[name])}</th>' for name in DISTANCES)
    body = ""
    sets = [(method, label, generation.marks[method]) for method, label in _SETS.items()]
    sets[1:1] = [
        ("in steps", f"… in {_count(steps, 'step')}", marks)
        for steps, marks in generation.in_steps.items()
    ]
    for method, label, marks in sets:
        cells = (f"{marks[name]:.3g}" if name in marks else "–" for name in DISTANCES)
        line = "".join(f"<td>{_minus(cell)}</td>" for cell in cells)
        ours = ' class="ours"' if method == "world" else ""
        body += f'<tr{ours}><th scope="row">{escape(label)}</th>{line}</tr>'
    return (
        '<div class="scroll"><table><thead><tr><th scope="col"></th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


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


def obedience_table(obedience: Obedience) -> str:
    """Lay out what was asked for, and what came of it."""
    ways = {
        "asked for, as in training": obedience.known,
        "… a pair that training never shows": obedience.held_out,
        "… simulator, read alike": obedience.read,
    }
    if obedience.kept is not None:
        ways["… simulator, through the tokenizer"] = obedience.kept
    lines = [
        (
            name,
            [written(x, ".0%") for x in (way.appears, way.kind, way.colour, way.both)]
            + [f"{way.num_clips:,}"],
        )
        for name, way in ways.items()
    ]
    shares = {
        "before it is asked for": obedience.too_soon,
        "refused": obedience.refused,
        "nothing said": obedience.unsaid,
        "asked for, more than refused": obedience.more_than_refused,
        "asked for, more than nothing said": obedience.more_than_unsaid,
    }
    total = obedience.read.num_clips
    lines += [
        (name, [written(share, ".0%"), "", "", "", f"{total:,}"]) for name, share in shares.items()
    ]
    head = ["something shows", "its kind", "its colour", "both", "clips"]
    return plain_table("What words bring", [("", head), *lines])


def box_table(boxes: BoxControl) -> str:
    """Lay out which boxes were filled, told and untold."""
    lines = [
        ("where things truly are, told", [boxes.told, boxes.overlap]),
        ("… nothing told", [boxes.untold, boxes.overlap_untold]),
        ("… difference", [boxes.more_than_untold]),
        ("… simulator, read alike", [boxes.read, boxes.overlap_read]),
        ("… simulator, through the tokenizer", [boxes.kept]),
        ("where those of another recording are, told", [boxes.moved]),
        ("… nothing told", [boxes.moved_untold]),
        ("… difference", [boxes.more_than_moved_untold]),
    ]
    cells = [
        (name, [written(each, ".0%") for each in found] + [""] * (2 - len(found)))
        for name, found in lines
    ]
    head = ["boxes filled", "overlap of what moves with the truth"]
    return plain_table("What boxes bring", [("", head), *cells])


def imagined_views_table(imagined: ImaginedViews) -> str:
    """Lay out every view that was imagined from the others, and what stands beside it."""
    head = ["imagined", "nearest given view", "difference", "… moved by geometry", "tokenizer"]
    head += ["agrees where others see it", "… the truth does"]
    lines = [
        (
            f"view {number}",
            [written(getattr(view, name), ".2f") for name in ImaginedView.model_fields],
        )
        for number, view in enumerate(imagined.views)
    ]
    return plain_table("PSNR of a view that is not given, dB", [("", head), *lines])


def plain_table(caption: str, lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Lay out lines, each a name and cells in HTML; the first is the head."""

    def line(tag: str, name: str, cells: Sequence[str]) -> str:
        inside = "".join(f"<{tag}>{cell}</{tag}>" for cell in cells)
        return f'<tr><th scope="row">{escape(name)}</th>{inside}</tr>'

    head, *body = lines
    rows = "".join(line("td", name, cells) for name, cells in body)
    title = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{title}<thead>{line("th", *head)}</thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def title_of(metric: Metric) -> str:
    """Name a metric with its unit and say which way is better."""
    unit = f", {metric.unit}" if metric.unit else ""
    better = "higher is better" if metric.higher_is_better else "lower is better"
    return f'{escape(metric.label)}{unit} <span class="note">· {better}</span>'


def _cell(row: Row, metric: Metric) -> str:
    digits = 2 if metric.unit else 3
    if row.value.mean is None:
        return "<td>–</td>"
    lines = [f"{row.value.mean:.{digits}f}", f"<small>{_bounds(row.value, digits)}</small>"]
    contest = row.method not in CEILINGS
    if contest and row.difference is not None and row.difference.mean is not None:
        ahead = row.difference.mean if metric.higher_is_better else 0 - row.difference.mean
        sure = tone(row.difference, metric.higher_is_better)
        bounds = _bounds(row.difference, digits, metric.higher_is_better)
        lines.append(f'<small class="{sure}">{_minus(f"{ahead:+.{digits}f}")} {bounds}</small>')
    return f"<td>{''.join(lines)}</td>"


def reconstruction_facts(reconstruction: Reconstruction) -> str:
    """List what an encoder does to a clip."""
    f_t, f_h, f_w = reconstruction.compression
    t, c, h, w = reconstruction.latent_shape
    facts = {
        "One latent stands for": f"{_count(f_t, 'frame')} of {f_h}×{f_w} pixels",
        "Latents of a clip": f"{t}×{c}×{h}×{w} (t c h w) for {reconstruction.num_frames} frames",
        "Fewer numbers": f"{reconstruction.numbers_ratio:.1f} times",
    }
    if reconstruction.bits_per_pixel is not None:
        facts["Rate"] = f"at most {reconstruction.bits_per_pixel:.3f} bits per pixel (raw: 24)"
    codes = reconstruction.codes
    if codes is not None:
        facts["Codes in use"] = (
            f"{codes.usage:.1%} of {codes.vocabulary:,} on {codes.num_tokens:,} tokens; as many "
            f"as {codes.perplexity:,.0f} chosen equally"
        )
    if reconstruction.psnr is not None:
        facts["PSNR"] = f"{_with_bounds(reconstruction.psnr, 2)} dB"
    if reconstruction.ssim is not None:
        facts["SSIM"] = _with_bounds(reconstruction.ssim, 3)
    facts["Measured on"] = (
        f"{reconstruction.num_clips:,} clips of {reconstruction.num_recordings:,} recordings"
    )
    return facts_list(facts)


def likelihood_facts(likelihood: Likelihood) -> str:
    """List what held-out tokens cost."""
    most = "at most " if likelihood.bound else ""
    facts = {
        "A token": f"{most}{_with_bounds(likelihood.bits_per_token, 3)} bits of "
        f"{likelihood.vocabulary_bits:.2f}",
        "A pixel": f"{most}{_with_bounds(likelihood.bits_per_pixel, 4)} bits",
        "Measured on": f"{_count(likelihood.num_frames, 'latent frame')} of "
        f"{likelihood.num_windows:,} windows, {likelihood.num_past} before them given",
    }
    return facts_list(facts)


def channel_table(reconstruction: Reconstruction) -> str:
    """Lay out the statistics of every latent channel."""
    body = "".join(
        f'<tr><th scope="row">{number}</th><td>{_minus(f"{channel.mean:.3f}")}</td>'
        f"<td>{channel.std:.3f}</td>"
        f"<td>{'–' if channel.kl is None else f'{channel.kl:.3f}'}</td></tr>"
        for number, channel in enumerate(reconstruction.latents)
    )
    return (
        '<div class="scroll"><table><thead><tr><th scope="col">channel</th>'
        '<th scope="col">mean</th><th scope="col">deviation</th>'
        '<th scope="col">divergence, nats</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def readout_facts(score: ReadoutScore) -> str:
    """Say how well the reader of positions reads real frames."""
    facts = {
        "Ego overlap (IoU)": _with_bounds(score.ego_iou, 3),
        "Ego position error": f"{_with_bounds(score.ego_error, 2)} px",
        "Object position error": f"{_with_bounds(score.object_error, 2)} px",
        "Overlap of cars and trucks (IoU)": _with_bounds(score.large_iou, 3),
        "Overlap of motorbikes and pedestrians (IoU)": _with_bounds(score.small_iou, 3),
        "Pixels given their class": _with_bounds(score.pixel_accuracy, 3),
    }
    return (
        '<div class="card"><h3>The reader of positions, on real test frames</h3>'
        f'<p class="note">{score.num_clips:,} recordings it never saw, {score.num_frames} frames '
        f"of each. No reading of imagined frames is finer than this.</p>{facts_list(facts)}</div>"
    )


def definitions(evaluation: Evaluation) -> str:
    """Explain every number on the page."""
    words = {
        "Interval": "95 %, from 1,000 draws of whole recordings with replacement.",
        "PSNR": "10·log10(1 / mean squared error), pixels in [0, 1]; at most 60 dB.",
        "PSNR of moving pixels": "over the pixels of which a colour channel differs from the last "
        "observed frame by more than 10 of 255 levels; frames without any are left out.",
        "SSIM": "Wang et al. 2004: 11×11 Gaussian window of deviation 1.5, mean over channels.",
        "Last frame held": "the last observed frame, unchanged.",
        "Mean training image": "the mean of frames drawn from the training recordings.",
        "Mean of samples": "the pixel-wise mean of several futures of one past.",
    }
    if evaluation.continuation is not None:
        words["Nearest training past"] = (
            "what followed the training clip whose past is nearest in L2 over shrunk frames, among "
            f"{evaluation.continuation.num_train_windows:,}."
        )
    if evaluation.readout is not None:
        words |= {
            "Ego position error": "distance between the middles of the ego’s pixels, read and "
            f"true, at most {CUT_OFF:g} px; an ego not found counts {CUT_OFF:g} px. Frames where "
            "less than half of it shows are left out.",
            "Object position error": "half the mean distance from each thing that is there to the "
            f"nearest read, half the reverse, at most {CUT_OFF:g} px each.",
            "Position error of what was hidden": "of things seen in the past, hidden at its end or "
            "later and back since: their mean distance to the nearest thing read, at most "
            f"{CUT_OFF:g} px; frames without any are left out.",
        }
    return facts_list(words)


def facts_list(facts: Mapping[str, object]) -> str:
    """List names with what is known of them."""
    items = (f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    return f"<dl>{''.join(items)}</dl>"


def written(found: Interval | None, spec: str = ".2f") -> str:
    """Write a mean and, small, its bounds in HTML, each by a format such as `.2f`."""
    if found is None or found.mean is None:
        return "–"
    spec = f"z{spec}"  # no minus before a nought
    mean = _minus(format(found.mean, spec))
    if found.low is None or found.high is None:
        return mean
    low, high = (_minus(format(end, spec)) for end in (found.low, found.high))
    return f"{mean} <small>[{low},\u00a0{high}]</small>"


def _with_bounds(interval: Interval, digits: int) -> str:
    if interval.mean is None:
        return "–"
    return f"{interval.mean:.{digits}f} {_bounds(interval, digits)}".strip()


def _bounds(interval: Interval, digits: int, as_it_is: bool = True) -> str:
    """Write an interval, or that of its negative."""
    if interval.low is None or interval.high is None:
        return ""
    low, high = (interval.low, interval.high) if as_it_is else (0 - interval.high, 0 - interval.low)
    return _minus(f"[{low:.{digits}f}, {high:.{digits}f}]")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
