"""From the rows of a controlled experiment to what they say: gate, speed-ups, verdict.

A row is one arm trained on one seed: its learning curves, what its codec keeps, what it cost. Rows
of one seed are a pair. Knows no run and no file (learning_speed.py is the arithmetic).
"""

from collections.abc import Sequence

from pydantic import Field

from avenir.config import Config
from avenir.errors import AvenirError
from avenir.evaluation.metrics.correlation import Correlation
from avenir.evaluation.probing.passport_results import Passport
from avenir.evaluation.questions.generation import SET_METRICS, SetScores
from avenir.study.speed_up import SHARES, ArmCost, Effect, Ratio, area, effect, speed_up
from avenir.study.verdict import Arms, Verdict, verdict


class Gate(Config):
    """How equal two codecs must be for their generators to be compared."""

    psnr: float = Field(0.3, gt=0)
    """Most difference of PSNR in dB."""
    floor: float = Field(0.1, gt=0)
    """Most difference of the codec's Fréchet distance, as a share of the baseline's."""


class ArmRun(Config):
    """One arm trained on one seed."""

    protocol: str
    """Hash of what was declared."""
    arm: str
    """Its name."""
    seed: int
    """Of tokenizer and generator: its pair."""
    choice: int
    """Which settings of the grid it was trained with."""
    steps: tuple[int, ...]
    """Generator steps at which it was measured."""
    marks: dict[str, tuple[float, ...]]
    """Every metric at those steps."""
    real: SetScores = {}
    """Real clips: how well true futures are read, how far clips of training are from them."""
    codec: SetScores
    """True futures encoded and decoded."""
    held: SetScores
    """The last observed frame held."""
    seconds: dict[str, float]
    """What each run took: its generator's `per_step`, and in all every run it stands on."""
    commit: str
    """Version of the code."""
    device: str = "unknown"
    """What the generator was trained on: chance, and so a pair, is of one device. On a GPU seconds
    are those of the clock, and runs that share it slow each other down."""
    passport: Passport | None = None
    """What its latent was worth before the generator was trained; where the protocol asks."""

    @property
    def cost(self) -> ArmCost:
        """Return seconds before the generator's first step, and of each of its steps."""
        fixed = sum(value for name, value in self.seconds.items() if name != "per_step")
        return ArmCost(fixed=fixed, per_step=self.seconds["per_step"])


class Pair(Config):
    """Two arms of one seed."""

    seed: int
    """Of both."""
    psnr: tuple[float, float]
    """What their codecs keep, in dB: baseline, treatment."""
    floor: tuple[float, float]
    """Their codecs' Fréchet distances to real clips."""
    matched: bool
    """Whether the gate lets them be compared."""
    speed_up: Ratio
    """Generator only, primary metric, at the baseline's whole budget."""


class MeasuredSpeedUp(Config):
    """A speed-up over matched pairs."""

    metric: str
    """What was measured."""
    share: float
    """Share of the baseline's budget whose value is the threshold."""
    all_in: bool
    """Whether tokenizer, alignment and teacher are counted."""
    effect: Effect
    """Over pairs."""


class ArmsResult(Config):
    """One comparison."""

    name: str
    """As declared."""
    arms: Arms
    """Who."""
    pairs: tuple[Pair, ...]
    """Treatment against baseline, unmatched pairs included."""
    placebo_pairs: tuple[Pair, ...]
    """Placebo against baseline."""
    found: tuple[MeasuredSpeedUp, ...]
    """Treatment against baseline: every metric, share and way to count."""
    placebo: tuple[MeasuredSpeedUp, ...]
    """Placebo against baseline, likewise."""
    areas: dict[str, tuple[float, ...]]
    """By metric and pair: how much better the treatment is on average over log-steps."""
    verdict: Verdict
    """By the declared rule."""


class PassportCorrelation(Config):
    """One number of the passport against how fast latents were learnt, over arms."""

    number: str
    """Which."""
    arms: dict[str, tuple[float, float]]
    """By arm, means over seeds: the number, and how much better than the baseline the generator was
    on average over log-steps from a quarter of the budget on."""
    correlation: Correlation
    """Spearman's, over arms."""


class Conclusion(Config):
    """Everything that an experiment says so far."""

    name: str
    """Of the protocol."""
    protocol: str
    """Its hash."""
    data: str
    """What it ran on."""
    metrics: tuple[str, ...]
    """What was measured; the first decides."""
    rows: tuple[ArmRun, ...]
    """What was gathered."""
    comparisons: tuple[ArmsResult, ...]
    """What the rows say."""
    predictiveness: tuple[PassportCorrelation, ...] = ()
    """What passports said of it beforehand."""


def compare_arms(
    name: str,
    arms: Arms,
    rows: Sequence[ArmRun],
    metrics: Sequence[str],
    gate: Gate,
    budget: int | None = None,
) -> ArmsResult:
    """Compare arms over the seeds that all of them have rows for; the first metric decides."""
    table = {(row.arm, row.seed): row for row in rows}
    named = [arms.baseline, arms.treatment] + ([arms.placebo] if arms.placebo else [])
    seeds = sorted({seed for _, seed in table if all((arm, seed) in table for arm in named)})

    for seed in seeds:
        devices = {table[arm, seed].device for arm in named} - {"unknown"}
        if len(devices) > 1:
            raise AvenirError(
                f"rows of seed {seed} were trained on {' and '.join(sorted(devices))}: chance "
                "differs there, and they make no pair; gather the seed on one of them"
            )

    def sides(base: str, other: str) -> list[tuple[ArmRun, ArmRun]]:
        return [(table[base, seed], table[other, seed]) for seed in seeds]

    treated = sides(arms.baseline, arms.treatment)
    pairs = [_pair(base, other, metrics[0], gate, budget) for base, other in treated]
    matched = [sides for sides, pair in zip(treated, pairs, strict=True) if pair.matched]
    found = _found(matched, metrics, budget)
    placebo_pairs, placebo, rival = [], (), None
    if arms.placebo:
        every = sides(arms.baseline, arms.placebo)
        placebo_pairs = [_pair(base, other, metrics[0], gate, budget) for base, other in every]
        kept = [each for each, pair in zip(every, placebo_pairs, strict=True) if pair.matched]
        placebo = _found(kept, metrics, budget)
        against = sides(arms.placebo, arms.treatment)
        equal = [each for each in against if _pair(*each, metrics[0], gate, budget).matched]
        rival = effect([_speed_up(*each, metrics[0], 1.0, False, budget) for each in equal])
    return ArmsResult(
        name=name,
        arms=arms,
        pairs=tuple(pairs),
        placebo_pairs=tuple(placebo_pairs),
        found=found,
        placebo=placebo,
        areas={
            metric: tuple(
                area(
                    a.steps, a.marks[metric], b.marks[metric], SET_METRICS[metric].higher_is_better
                )
                for a, b in matched
            )
            for metric in metrics
        },
        verdict=verdict(
            arms,
            _whole(found, metrics[0]),
            _whole(placebo, metrics[0]) if placebo else None,
            rival,
            len(pairs) - len(matched),
        ),
    )


def _pair(base: ArmRun, other: ArmRun, metric: str, gate: Gate, budget: int | None) -> Pair:
    psnr = base.codec["psnr"], other.codec["psnr"]
    floor = base.codec["frechet"], other.codec["frechet"]
    return Pair(
        seed=base.seed,
        psnr=psnr,
        floor=floor,
        matched=abs(psnr[1] - psnr[0]) <= gate.psnr
        and abs(floor[1] - floor[0]) <= gate.floor * floor[0],
        speed_up=_speed_up(base, other, metric, 1.0, False, budget),
    )


def _found(
    sides: Sequence[tuple[ArmRun, ArmRun]], metrics: Sequence[str], budget: int | None
) -> tuple[MeasuredSpeedUp, ...]:
    return tuple(
        MeasuredSpeedUp(
            metric=metric,
            share=share,
            all_in=all_in,
            effect=effect([_speed_up(a, b, metric, share, all_in, budget) for a, b in sides]),
        )
        for metric in metrics
        for all_in in (False, True)
        for share in SHARES
    )


def _whole(found: Sequence[MeasuredSpeedUp], metric: str) -> Effect:
    return next(
        each.effect
        for each in found
        if each.metric == metric and each.share == 1.0 and not each.all_in
    )


def _speed_up(
    base: ArmRun, other: ArmRun, metric: str, share: float, all_in: bool, budget: int | None
) -> Ratio:
    if base.steps != other.steps:
        raise AvenirError(
            f"arms {base.arm!r} and {other.arm!r} were measured at steps {base.steps} and "
            f"{other.steps}; curves are compared at the same ones: run the study again"
        )
    costs = (base.cost, other.cost) if all_in else (ArmCost(), ArmCost())
    curves = base.marks[metric], other.marks[metric]
    return speed_up(
        base.steps, *curves, share, SET_METRICS[metric].higher_is_better, *costs, budget
    )
