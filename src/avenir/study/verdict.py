"""What an experiment shows, in one sentence, by a rule that was declared before it ran.

Knows effects (speed_up.py), no curve.
"""

from avenir.config import Config
from avenir.evaluation.metrics.bootstrap import LEVEL
from avenir.study.speed_up import Effect

ENOUGH_PAIRS = 6
"""Fewer pairs than this are a demonstration."""


class Arms(Config):
    """Arms that are compared pair by pair."""

    baseline: str
    """Arm that sets the thresholds."""
    treatment: str
    """Arm that is claimed to learn faster."""
    placebo: str | None = None
    """Arm that gets the same treatment without what is claimed to matter."""


class Verdict(Config):
    """What the experiment shows, in one sentence."""

    supported: bool
    """Whether the treatment learns faster than the baseline and than the placebo."""
    sentence: str
    """For the reader."""
    reasons: tuple[str, ...]
    """Everything that stands against it; empty when supported."""


def verdict(
    arms: Arms,
    treatment_vs_base: Effect,
    placebo_vs_base: Effect | None,
    treatment_vs_placebo: Effect | None,
    num_unmatched: int,
) -> Verdict:
    """Decide by the declared rule: the effects are those of matched pairs at share 1.

    Supported when the lower 95 % bound is above 1, against the baseline and against the
    placebo; an `at most` or `unknown` pair leaves no lower bound. `num_unmatched` pairs were left
    out because their arms do not reconstruct equally well.
    """
    reasons = _doubts(treatment_vs_base, repr(arms.baseline))
    if treatment_vs_placebo is None:
        reasons.append("there is no placebo to compare with")
    elif treatment_vs_base.num_pairs:
        reasons += _doubts(treatment_vs_placebo, f"the placebo {arms.placebo!r}")
    found = _finding(arms, treatment_vs_base, placebo_vs_base, num_unmatched)
    because = f"; because {', and '.join(reasons)}" if reasons else ""
    head = f"{'Not supported' if reasons else 'Supported'}{_caveat(treatment_vs_base.num_pairs)}"
    sentence = f"{head}: {found}{because}."
    return Verdict(supported=not reasons, sentence=sentence, reasons=tuple(reasons))


def _doubts(found: Effect, rival: str) -> list[str]:
    """Say why an effect has no lower bound above 1; nothing when it has."""
    if found.num_pairs == 0:
        return [f"no pair at equal reconstruction compares it with {rival}"]
    if found.num_pairs == 1:
        return [f"one pair gives no interval against {rival}"]
    reasons = []
    if found.num_at_most:
        reasons.append(
            f"{found.num_at_most} of {found.num_pairs} pairs bound its speed against {rival} "
            "only from above"
        )
    if found.num_unknown:
        reasons.append(
            f"in {found.num_unknown} of {found.num_pairs} pairs both it and {rival} were there "
            "at the first evaluation"
        )
    if found.low is None and not reasons:
        reasons.append(
            f"{found.num_pairs} pairs, {found.num_at_least} of them known only from below, give no "
            f"bound against {rival}"
        )
    if found.low is not None and found.low <= 1:
        reasons.append(f"its interval against {rival} is not above 1 {_interval(found)}")
    return reasons


def _finding(arms: Arms, found: Effect, placebo: Effect | None, num_unmatched: int) -> str:
    unmatched = f", {num_unmatched} unmatched" if num_unmatched else ""
    if not found.num_pairs:
        return f"0 pairs{unmatched}"
    words = [
        f"at equal reconstruction {arms.treatment!r} learns {_times(found)} as fast as "
        f"{arms.baseline!r} {_interval(found)}".rstrip(),
        f"{found.num_pairs} pair{'s' if found.num_pairs > 1 else ''}{unmatched}",
        _p_value(found),
    ]
    text = ", ".join(filter(None, words))
    if placebo is None or not placebo.num_pairs:
        return text
    return f"{text}; the placebo {arms.placebo!r} {_times(placebo)} {_interval(placebo)}".rstrip()


def _times(found: Effect) -> str:
    bound = {"exact": "", "unknown": "an uncertain "}.get(found.bound, f"{found.bound} ")
    return f"{bound}{found.ratio:.2f} times"


def _interval(found: Effect) -> str:
    if found.low is not None:
        return f"[{found.low:.2f}, " + ("∞)" if found.high is None else f"{found.high:.2f}]")
    return "" if found.high is None else f"(0, {found.high:.2f}]"


def _p_value(found: Effect) -> str:
    if found.p_value is None:
        return ""
    sign = {"at least": "≤", "at most": "≥"}.get(found.bound, "=")
    return f"p {sign} {found.p_value:{'.3f' if found.p_value >= 0.001 else '.0e'}}"


def _caveat(num_pairs: int) -> str:
    """Name a small experiment a demonstration, and the least p-value it can have."""
    if not 0 < num_pairs < ENOUGH_PAIRS:
        return ""
    least = 2.0**-num_pairs
    if least < 1 - LEVEL:
        return " (a demonstration)"
    pairs = "1 pair" if num_pairs == 1 else f"{num_pairs} pairs"
    return f" (a demonstration: with {pairs} p is never below {least:g})"
