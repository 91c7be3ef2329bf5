"""A controlled experiment as Markdown: verdict, curves and speed-ups as tables to be published.

Knows rows and what follows from them, no run and no page.
"""

from collections.abc import Iterator, Sequence
from statistics import mean

from avenir.evaluation.metrics.correlation import Correlation
from avenir.evaluation.questions.generation import SET_METRICS
from avenir.study.comparison import ArmRun, ArmsResult, Conclusion, MeasuredSpeedUp, Pair
from avenir.study.speed_up import Effect


def learning_tables(conclusion: Conclusion) -> str:
    """Return everything of an experiment that is a number."""
    return "\n".join(_lines(conclusion))


def _lines(conclusion: Conclusion) -> Iterator[str]:
    seeds = sorted({row.seed for row in conclusion.rows})
    commits = ", ".join(sorted({row.commit for row in conclusion.rows}))
    yield f"# {conclusion.name}\n"
    yield (
        f"Data `{conclusion.data}`, seeds {', '.join(map(str, seeds))}, protocol "
        f"`{conclusion.protocol}`, commit {commits}.\n"
    )
    for compared in conclusion.comparisons:
        yield f"**{compared.name}.** {compared.verdict.sentence}\n"
    yield from _curves(conclusion)
    for compared in conclusion.comparisons:
        if any(each.effect.ratio is not None for each in compared.found):
            yield from _speed_ups(compared, conclusion.metrics)
        yield from _pairs(compared)
    if conclusion.predictiveness:
        yield from _predictiveness(conclusion)


def _curves(conclusion: Conclusion) -> Iterator[str]:
    arms = list(dict.fromkeys(row.arm for row in conclusion.rows))
    steps = conclusion.rows[0].steps if conclusion.rows else ()
    yield "## Curves\n\nMeans over seeds at generator steps; least and greatest in brackets.\n"
    yield _row(["", "arm", *(f"{step:,}" for step in steps), "codec", "last frame held"])
    yield _row(["---"] * (len(steps) + 4))
    for metric in conclusion.metrics:
        for number, arm in enumerate(arms):
            rows = [row for row in conclusion.rows if row.arm == arm]
            curves = [[row.marks[metric][at] for row in rows] for at in range(len(steps))]
            floors = [_floor(rows, "codec", metric), _floor(rows, "held", metric)]
            label = SET_METRICS[metric].label if number == 0 else ""
            yield _row([label, arm, *map(_spread, curves), *floors])
    yield ""


def _speed_ups(compared: ArmsResult, metrics: Sequence[str]) -> Iterator[str]:
    arms = compared.arms
    yield f"## {compared.name}: how many times fewer\n"
    yield (
        f"Steps, or seconds in all, that an arm needs to be as good as {arms.baseline} was at a "
        "share of the budget; geometric mean over matched pairs and its 95 % interval.\n"
    )
    sides = [(arms.treatment, compared.found)]
    if arms.placebo:
        sides.append((arms.placebo, compared.placebo))
    shares = sorted({each.share for each in compared.found})
    yield _row(["", "arm", "counted", *(f"at {share:.0%}" for share in shares)])
    yield _row(["---"] * (len(shares) + 3))
    for metric in metrics:
        for all_in in (False, True):
            for arm, found in sides:
                cells = [_effect(each) for each in _of(found, metric, all_in)]
                counted = "all in" if all_in else "generator"
                yield _row([SET_METRICS[metric].label, arm, counted, *cells])
    yield ""


def _pairs(compared: ArmsResult) -> Iterator[str]:
    yield f"## {compared.name}: pairs\n"
    yield _row(["seed", "arm", "codec PSNR, dB", "codec's Fréchet distance", "gate", "speed-up"])
    yield _row(["---"] * 6)
    arms = compared.arms
    sides: list[tuple[str, Sequence[Pair]]] = [(arms.treatment, compared.pairs)]
    if arms.placebo:
        sides.append((arms.placebo, compared.placebo_pairs))
    for arm, pairs in sides:
        for pair in pairs:
            bound = pair.speed_up.bound.removeprefix("exact")
            yield _row(
                [
                    str(pair.seed),
                    f"{arm} against {arms.baseline}",
                    f"{pair.psnr[1]:.2f}, {pair.psnr[0]:.2f}",
                    f"{pair.floor[1]:.3g}, {pair.floor[0]:.3g}",
                    "matched" if pair.matched else "unmatched",
                    f"{bound} {pair.speed_up.ratio:.2f}".strip(),
                ]
            )
    yield ""


def predictiveness_note(conclusion: Conclusion) -> str:
    """Say what is ranked against what, where passports were held against what was learnt."""
    return (
        "Numbers of each latent before its generator was trained, ranked against how much better "
        "than the baseline's that was on average over log-steps from a quarter of the budget on "
        f"({SET_METRICS[conclusion.metrics[0]].label.lower()}). Means over seeds; 95 % "
        f"intervals over arms, of which there are {len(conclusion.predictiveness[0].arms)}; "
        f"{len(conclusion.predictiveness)} numbers were tried, and some fit by chance."
    )


def _predictiveness(conclusion: Conclusion) -> Iterator[str]:
    arms = conclusion.predictiveness[0].arms
    yield f"## What passports predicted\n\n{predictiveness_note(conclusion)}\n"
    yield _row(["", "Spearman's ρ", *arms])
    yield _row(["---"] * (len(arms) + 2))
    yield _row(["better by", "", *(f"{gain:.3g}" for _, gain in arms.values())])
    for each in conclusion.predictiveness:
        numbers = [f"{number:.3g}" for number, _ in each.arms.values()]
        yield _row([each.number, _correlation(each.correlation), *numbers])
    yield ""


def _correlation(found: Correlation) -> str:
    if found.rho is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{found.rho:.2f}"
    return f"{found.rho:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _of(found: Sequence[MeasuredSpeedUp], metric: str, all_in: bool) -> Iterator[Effect]:
    chosen = [each for each in found if each.metric == metric and each.all_in == all_in]
    return (each.effect for each in sorted(chosen, key=lambda each: each.share))


def _effect(found: Effect) -> str:
    if found.ratio is None:
        return "–"
    sign = {"at least": "≥ ", "at most": "≤ ", "unknown": "? "}.get(found.bound, "")
    if found.low is None and found.high is None:
        return f"{sign}{found.ratio:.2f}"
    low, high = ("…" if x is None else f"{x:.2f}" for x in (found.low, found.high))
    return f"{sign}{found.ratio:.2f} [{low}, {high}]"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    middle = f"{mean(values):.3g}"
    return middle if len(values) == 1 else f"{middle} [{min(values):.3g}, {max(values):.3g}]"


def _floor(rows: Sequence[ArmRun], which: str, metric: str) -> str:
    values = [marks[metric] for row in rows if metric in (marks := getattr(row, which))]
    return f"{mean(values):.3g}" if values else "–"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
