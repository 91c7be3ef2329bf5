"""One page that tells of a controlled experiment: verdict, curves, numbers, and what it looks like.

Says the verdict in the same type whatever it is. Knows rows and what follows from them, no run.
"""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from avenir.evaluation.metrics.bootstrap import Curve
from avenir.evaluation.questions.generation import SET_METRICS
from avenir.evaluation.report.charts import Axis, chart, charts, coloured
from avenir.evaluation.report.html import page, resource, section
from avenir.evaluation.report.side_by_side import Column, side_by_side
from avenir.evaluation.report.tables import plain_table
from avenir.files import write_whole
from avenir.study.comparison import ArmRun, ArmsResult, Conclusion, MeasuredSpeedUp, Pair
from avenir.study.markdown import learning_tables, predictiveness_note
from avenir.study.speed_up import Effect


def write_learning_report(folder: Path, conclusion: Conclusion, films: Sequence[Column]) -> Path:
    """Write `conclusion.json`, `results.md` and `report.html`; return the page's path."""
    write_whole(folder / "results.md", learning_tables(conclusion))
    text = json.dumps(conclusion.model_dump(mode="json"), indent=1)
    write_whole(folder / "conclusion.json", text)
    path = folder / "report.html"
    write_whole(path, learning_page(conclusion, films))
    return path


def learning_page(conclusion: Conclusion, films: Sequence[Column]) -> str:
    """Return the whole page as HTML."""
    arms = list(dict.fromkeys(row.arm for row in conclusion.rows))
    seeds = sorted({row.seed for row in conclusion.rows})
    sections = [_verdicts(conclusion.comparisons), _curves(conclusion, arms)]
    sections += [_numbers(each) for each in conclusion.comparisons if each.pairs]
    if conclusion.predictiveness:
        sections.append(_predictiveness(conclusion))
    if films:
        sections.append(_watch(films))
    sections.append(_rows(conclusion.rows))
    lead = (
        f"{len(arms)} arms, {len(seeds)} seed{'s' * (len(seeds) > 1)} ({conclusion.data}); all but "
        f"the tokenizer's training is equal. Protocol {conclusion.protocol}, hashed before it ran."
    )
    style = resource("side_by_side.css") + coloured("arm")
    return page("Avenir study", conclusion.name, lead, sections, style)


def _verdicts(comparisons: Sequence[ArmsResult]) -> str:
    parts = "".join(
        f'<p class="lead"><strong>{escape(compared.name)}.</strong> '
        f"{escape(compared.verdict.sentence)}</p>"
        for compared in comparisons
    )
    return section("verdict", "Verdict", "By the rule that was declared.", parts)


def _curves(conclusion: Conclusion, arms: Sequence[str]) -> str:
    drawings, names = [], {f"arm{i}": arm for i, arm in enumerate(arms)}
    for metric in conclusion.metrics:
        curves = {
            name: _spread([row.marks[metric] for row in conclusion.rows if row.arm == arm])
            for name, arm in names.items()
        }
        better = "higher" if SET_METRICS[metric].higher_is_better else "lower"
        title = (
            f'{escape(SET_METRICS[metric].label)} <span class="note">· {better} is better; '
            f"{_floors(conclusion, metric)}</span>"
        )
        axis = Axis(conclusion.rows[0].steps, "generator steps", log=True)
        drawing = chart(curves, names, axis, SET_METRICS[metric].label)
        drawings.append((title, drawing))
    return section(
        "curves",
        "How fast each arm learns",
        "Means over seeds; bands reach from the worst seed to the best.",
        charts(names, drawings),
    )


def _spread(curves: Sequence[Sequence[float]]) -> Curve:
    table = np.array(curves)
    return Curve(
        mean=tuple(table.mean(0).tolist()),
        low=tuple(table.min(0).tolist()),
        high=tuple(table.max(0).tolist()),
    )


def _numbers(compared: ArmsResult) -> str:
    arms = compared.arms
    tables = _found_table(f"{arms.treatment} against {arms.baseline}", compared.found)
    if compared.placebo:
        tables += _found_table(f"{arms.placebo} against {arms.baseline}", compared.placebo)
    tables += _pair_table(f"Pairs: {arms.baseline}, {arms.treatment}", compared.pairs)
    if arms.placebo:
        tables += _pair_table(f"Pairs: {arms.baseline}, {arms.placebo}", compared.placebo_pairs)
    return section(
        f"numbers-{compared.name}",
        f"The numbers: {compared.name}",
        "How many times fewer steps, or less computing in all, an arm needs until it is as good as "
        "the baseline was at a share of its budget: geometric mean over matched pairs with 95 % "
        "intervals. Pairs whose codecs differ by more than the gate are unmatched and not counted.",
        f'<div class="tables">{tables}</div>',
    )


def _floors(conclusion: Conclusion, metric: str) -> str:
    """Say what needs no world scores, and what no world can be asked to beat."""
    sides = (
        ("the last frame held", [row.held for row in conclusion.rows]),
        ("true futures sent through the codec", [row.codec for row in conclusion.rows]),
        ("real clips", [row.real for row in conclusion.rows]),
    )
    words = [
        f"{name}: {np.mean([marks[metric] for marks in every]):.3g}"
        for name, every in sides
        if every and all(metric in marks for marks in every)
    ]
    return ", ".join(words)


def _predictiveness(conclusion: Conclusion) -> str:
    arms = list(conclusion.predictiveness[0].arms)
    lines = [("", ["Spearman's ρ", *map(escape, arms)])]
    gains = [f"{gain:.3g}" for _, gain in conclusion.predictiveness[0].arms.values()]
    lines.append(("Better than the baseline by", ["", *gains]))
    for each in conclusion.predictiveness:
        found = each.correlation
        rho = "–" if found.rho is None else f"{found.rho:.2f}"
        if found.low is not None and found.high is not None:
            rho += f"<small>[{found.low:.2f} … {found.high:.2f}]</small>"
        numbers = [f"{number:.3g}" for number, _ in each.arms.values()]
        lines.append((each.number, [rho, *numbers]))
    return section(
        "predictiveness",
        "What passports predicted",
        predictiveness_note(conclusion),
        f'<div class="tables">{plain_table("", lines)}</div>',
    )


def _found_table(caption: str, found: Sequence[MeasuredSpeedUp]) -> str:
    shares = sorted({each.share for each in found})
    lines = [("", [f"at {share:.0%} of the budget" for share in shares])]
    for metric in dict.fromkeys(each.metric for each in found):
        for all_in in (False, True):
            cells = [
                _effect(each.effect)
                for each in found
                if each.metric == metric and each.all_in == all_in
            ]
            lines.append(
                (f"{SET_METRICS[metric].label}, {'all in' if all_in else 'generator'}", cells)
            )
    return plain_table(escape(caption), lines)


def _effect(found: Effect) -> str:
    if found.ratio is None:
        return "–"
    sign = {"at least": "≥ ", "at most": "≤ ", "unknown": "? "}.get(found.bound, "")
    low = "" if found.low is None else f"{found.low:.2f}"
    high = "" if found.high is None else f"{found.high:.2f}"
    bounds = f"<small>[{low} … {high}]</small>" if low or high else ""
    return f"{sign}{found.ratio:.2f}×{bounds}"


def _pair_table(caption: str, pairs: Sequence[Pair]) -> str:
    lines = [("Seed", ["PSNR, dB", "Codec's Fréchet distance", "Gate", "Speed-up"])]
    for pair in pairs:
        lines.append(
            (
                str(pair.seed),
                [
                    f"{pair.psnr[0]:.2f}, {pair.psnr[1]:.2f}",
                    f"{pair.floor[0]:.3g}, {pair.floor[1]:.3g}",
                    "matched" if pair.matched else "unmatched",
                    f"{pair.speed_up.bound} {pair.speed_up.ratio:.2f}×".removeprefix("exact "),
                ],
            )
        )
    return plain_table(escape(caption), lines)


def _rows(rows: Sequence[ArmRun]) -> str:
    metrics = list(rows[0].marks) if rows else []
    lines = [("Arm, seed", [SET_METRICS[metric].label for metric in metrics] + ["Seconds in all"])]
    for row in rows:
        marks = [f"{row.marks[metric][-1]:.3g}" for metric in metrics]
        spent = row.cost.at(row.steps[-1])
        lines.append((f"{row.arm}, {row.seed}", [*marks, f"{spent:.0f}"]))
    return section(
        "rows",
        "Every row",
        "At the last step. Commits: " + ", ".join(sorted({row.commit for row in rows})) + ".",
        plain_table("", lines),
    )


def _watch(films: Sequence[Column]) -> str:
    return section(
        "watch",
        "What it looks like",
        "The same held-out pasts, actions and noise, continued by every arm after equal steps.",
        side_by_side(films, {}, differences=False),
    )
