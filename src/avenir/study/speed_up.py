"""Does one arm of an experiment learn faster than another, and by how much?

A *pair* is one tokenizer seed and generator seed, trained with every arm on the same data order,
noise and initialisation. Each arm of a pair has a learning curve: a metric at log-spaced optimiser
steps. The speed-up of a pair is how many times fewer steps (or seconds) one arm needs to be as
good as the other became; pairs together give an interval and a test (verdict.py says what they
mean). Knows numbers only, no run and no file.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import stats
from scipy.integrate import trapezoid
from scipy.optimize import isotonic_regression

from avenir.config import Config
from avenir.errors import AvenirError
from avenir.evaluation.metrics.bootstrap import LEVEL
from avenir.evaluation.metrics.correlation import Array, Numbers, finite_numbers

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the baseline's budget whose value is a threshold; the verdict rests on the last."""

MOST_ENUMERATED = 16
"""Most pairs of which all sign patterns are tried; above it a sample of them is."""

NUM_SIGN_DRAWS = 2**16
"""How large that sample is."""

Bound = Literal["exact", "at least", "at most", "unknown"]
"""What a number says of the truth; `unknown`: it bounds it on neither side."""


class ArmCost(Config):
    """What training an arm costs; the default counts the generator's steps alone."""

    fixed: float = Field(default=0.0, ge=0)
    """Before the generator's first step: tokenizer, alignment, teacher. In seconds."""
    per_step: float = Field(default=1.0, gt=0)
    """Of one generator step, in the same unit."""

    def at(self, steps: float) -> float:
        """Return what has been spent after so many steps."""
        return self.fixed + self.per_step * steps


GENERATOR_ONLY = ArmCost()


class Ratio(Config):
    """How many times less one pair's other arm spends than its base to reach a threshold."""

    threshold: float
    """The smoothed metric of the base that both had to reach."""
    ratio: float
    """Above 1: the other arm is faster."""
    bound: Bound
    """`exact` when both crossings were seen, otherwise what the ratio says of the truth."""


class Effect(Config):
    """The speed-up over pairs; its bounds are those that censored pairs cannot overturn."""

    ratio: float | None
    """Geometric mean over pairs; none without pairs."""
    low: float | None = None
    """Lower end of the 95 % interval; none below two pairs, or when a pair is `at most`."""
    high: float | None = None
    """Upper end of the 95 % interval; none below two pairs, or when a pair is `at least`."""
    p_value: float | None = None
    """One-sided, for a ratio above 1; at most this where the bound is `at least`, and at least
    this where it is `at most`; none where it is `unknown`."""
    bound: Bound
    """What the mean says of the true one."""
    num_pairs: int
    """All pairs, censored ones included."""
    num_at_least: int = 0
    """Pairs whose other arm was there at its first evaluation."""
    num_at_most: int = 0
    """Pairs whose other arm never got there, or whose base was there at its first evaluation."""
    num_unknown: int = 0
    """Pairs of which both arms were there at the first evaluation."""


def smoothed(values: Numbers, higher_is_better: bool) -> Array:
    """Return the monotone curve nearest in least squares (isotonic regression).

    Evaluations are log-spaced, so equal weights are weights per log-step.
    """
    values = finite_numbers(values)
    return np.asarray(isotonic_regression(values, increasing=higher_is_better).x)


def steps_to(
    steps: Numbers, smoothed_values: Numbers, threshold: float, higher_is_better: bool
) -> float:
    """Return the first step at which a monotone curve attains the threshold.

    Linear in log(step) between evaluations; infinite when it never does, and the first step when
    it has already at the first evaluation.
    """
    steps, values = _curve(steps, smoothed_values)
    sign = 1 if higher_is_better else -1
    there = sign * values >= sign * threshold
    after = int(there.argmax())
    if not there[after]:
        return float("inf")
    if after == 0:
        return float(steps[0])
    before = after - 1  # strictly worse than the threshold: the difference below is not zero
    part = (threshold - values[before]) / (values[after] - values[before])
    return float(steps[before] * (steps[after] / steps[before]) ** part)


def speed_up(
    steps: Numbers,
    base: Numbers,
    other: Numbers,
    share: float,
    higher_is_better: bool,
    base_cost: ArmCost = GENERATOR_ONLY,
    other_cost: ArmCost = GENERATOR_ONLY,
    budget: float | None = None,
) -> Ratio:
    """Compare what two arms of a pair spend until the base's value at `share` of its budget.

    The budget is the last step unless said: evaluations beyond it let an arm that is somewhat
    slower still be measured. An arm that has the value at its first evaluation may have had it
    earlier, and one that ends without it would have it later: the ratio then bounds the truth from
    the side that this leaves.
    A base whose smoothed curve is flat up to that share has it at its first evaluation.
    With costs in seconds the same ratio is the all-in one.
    """
    steps, base = _curve(steps, smoothed(base, higher_is_better))
    steps, other = _curve(steps, smoothed(other, higher_is_better))
    threshold = _value_at(steps, base, share * (budget or steps[-1]))
    base_steps = steps_to(steps, base, threshold, higher_is_better)
    other_steps = steps_to(steps, other, threshold, higher_is_better)
    return Ratio(
        threshold=threshold,
        ratio=base_cost.at(base_steps) / other_cost.at(min(other_steps, float(steps[-1]))),
        bound=_bound(
            below=other_steps <= steps[0],
            above=base_steps <= steps[0] or np.isinf(other_steps),
        ),
    )


def area(steps: Numbers, base: Numbers, other: Numbers, higher_is_better: bool) -> float:
    """Return the mean over log-steps of how much better the other arm is, in the metric's unit.

    Of the curves as measured: the trapezoid rule needs no smoothing.
    """
    steps, base = _curve(steps, base)
    steps, other = _curve(steps, other)
    difference = other - base if higher_is_better else base - other
    time = np.log(steps)
    return float(trapezoid(difference, time) / (time[-1] - time[0]))


def effect(ratios: Sequence[Ratio], seed: int = 0) -> Effect:
    """Take pairs together: geometric mean, Student-t interval on log S, sign-flip p-value.

    A censored pair enters at its bound. Where some are `at least`, the numbers taken are nowhere
    above the true ones. Student's lower end may fall when one of them rises; that of the sign-flip
    test cannot, so it is taken there, and its mirror image where some are `at most`.
    """
    bounds = [ratio.bound for ratio in ratios]
    counts = {name: bounds.count(name) for name in ("at least", "at most", "unknown")}
    joint = _bound(
        below=counts["at least"] + counts["unknown"] > 0,
        above=counts["at most"] + counts["unknown"] > 0,
    )
    logs = np.log([ratio.ratio for ratio in ratios])
    if not len(logs):
        return Effect(ratio=None, bound="unknown", num_pairs=0)
    low, high = _student(logs) if len(logs) > 1 else (None, None)
    return Effect(
        ratio=float(np.exp(logs.mean())),
        low=low if joint == "exact" else _least(logs) if joint == "at least" else None,
        high=high if joint == "exact" else _most(logs) if joint == "at most" else None,
        p_value=sign_flip(logs, seed) if joint != "unknown" else None,
        bound=joint,
        num_pairs=len(logs),
        num_at_least=counts["at least"],
        num_at_most=counts["at most"],
        num_unknown=counts["unknown"],
    )


def sign_flip(values: Numbers, seed: int = 0) -> float:
    """Return the one-sided p-value of a mean above zero when all signs were fair coins.

    A sign pattern reaches the observed mean exactly when the values it flips sum to zero or less,
    so the p-value is the share of such subsets, the empty one included, and never falls when a
    value does. Every subset is taken up to `MOST_ENUMERATED` values, a seeded sample above.
    """
    values = finite_numbers(values)
    tolerance = 1e-12 * np.abs(values).sum()  # equal sums count as equal whatever their order
    if len(values) <= MOST_ENUMERATED:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums, sums + value])
        return float((sums <= tolerance).mean())
    draws = np.random.default_rng(seed).random((NUM_SIGN_DRAWS, len(values))) < 0.5
    return float((1 + (draws @ values <= tolerance).sum()) / (1 + NUM_SIGN_DRAWS))


def _bound(below: bool, above: bool) -> Bound:
    """Name what a number is when the truth may lie above it (`below`), below it, or both."""
    if below:
        return "unknown" if above else "at least"
    return "at most" if above else "exact"


def _least(logs: Array) -> float | None:
    """Return the least speed-up that the sign-flip test does not refuse; none for few pairs."""
    tail = (1 - LEVEL) / 2
    low, high = float(logs.min() - 1), float(logs.max())
    if sign_flip(logs - low) > tail:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if sign_flip(logs - middle) <= tail else (low, middle)
    return float(np.exp(low))


def _most(logs: Array) -> float | None:
    least = _least(-logs)
    return None if least is None else 1 / least


def _student(logs: Array) -> tuple[float, float]:
    half = stats.t.ppf((1 + LEVEL) / 2, len(logs) - 1) * stats.sem(logs)
    return float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def _value_at(steps: Array, values: Array, step: float) -> float:
    """Read a curve at a step, linear in log(step)."""
    if not steps[0] <= step <= steps[-1]:
        raise AvenirError(
            f"a threshold was asked for at step {step:g}, outside the evaluations at "
            f"{steps[0]:g} … {steps[-1]:g}: take another share or budget, or evaluate there"
        )
    return float(np.interp(np.log(step), np.log(steps), values))


def _curve(steps: Numbers, values: Numbers) -> tuple[Array, Array]:
    steps, values = finite_numbers(steps), finite_numbers(values)
    if len(steps) != len(values) or len(steps) < 2:
        raise AvenirError(
            f"a curve has {len(values)} values at {len(steps)} steps; give one value per step, "
            "and two steps or more"
        )
    if steps[0] <= 0 or (np.diff(steps) <= 0).any():
        raise AvenirError(f"a curve has steps {steps.tolist()}; give them above 0 and ascending")
    return steps, values
