import itertools
import json

import numpy as np
import pytest
from scipy import stats

from avenir.errors import AvenirError
from avenir.evaluation.metrics.correlation import spearman
from avenir.study.speed_up import (
    MOST_ENUMERATED,
    ArmCost,
    Effect,
    Ratio,
    area,
    effect,
    sign_flip,
    smoothed,
    speed_up,
    steps_to,
)
from avenir.study.verdict import Arms, verdict

STEPS = np.array([100, 150, 220, 330, 500, 750, 1100, 1600.0])
DECADES = (1.0, 10.0, 100.0, 1000.0)


def pair(ratio: float, bound="exact") -> Ratio:
    return Ratio(threshold=0.0, ratio=ratio, bound=bound)


def pairs(*ratios: float) -> Effect:
    return effect([pair(ratio) for ratio in ratios])


def test_isotonic_regression_is_the_min_max_of_means():
    rng = np.random.default_rng(0)
    for _ in range(20):
        y = rng.normal(size=9) + 0.2 * np.arange(9)
        expected = [
            max(min(y[j : k + 1].mean() for k in range(i, 9)) for j in range(i + 1))
            for i in range(9)
        ]
        assert np.allclose(smoothed(y, True), expected, atol=1e-12)
        assert np.allclose(smoothed(-y, False), -np.array(expected), atol=1e-12)


def test_isotonic_closed_forms():
    assert smoothed((1, 3, 2, 4), True).tolist() == [1, 2.5, 2.5, 4]
    assert smoothed((1, 3, 2, 4), False).tolist() == [2.5] * 4
    assert smoothed((4, 2, 1), False).tolist() == [4, 2, 1]


def test_crossings_are_linear_in_the_logarithm_of_the_step():
    assert steps_to(DECADES, (0, 1, 2, 3), 1.5, True) == pytest.approx(10**1.5, rel=1e-12)
    assert steps_to(DECADES, (3, 2, 1, 0), 1.5, False) == pytest.approx(10**1.5, rel=1e-12)
    assert steps_to(DECADES, (0, 1, 2, 3), 2, True) == pytest.approx(100, rel=1e-12)


def test_a_plateau_is_attained_where_it_begins():
    assert steps_to(DECADES, (0, 1, 1, 2), 1, True) == pytest.approx(10, rel=1e-12)
    assert steps_to(DECADES, (2, 1, 1, 0), 1, False) == pytest.approx(10, rel=1e-12)
    assert steps_to(DECADES, (0, 1, 1, 2), 1.5, True) == pytest.approx(10**2.5, rel=1e-12)


def test_there_at_once_and_never_there():
    assert steps_to(DECADES, (5, 6, 7, 8), 5, True) == 1
    assert steps_to(DECADES, (5, 6, 7, 8), 8.1, True) == np.inf
    assert steps_to(DECADES, (8, 7, 6, 5), 4.9, False) == np.inf


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("speed", [0.8, 1.0, 1.7, 3.0])
def test_a_known_speed_up_is_found(speed: float, share: float, higher_is_better: bool):
    steps = np.geomspace(10, 10_000, 200_001)
    sign = 1 if higher_is_better else -1

    def curve(x):
        return sign * np.tanh(np.log(x) / 5)

    found = speed_up(steps, curve(steps), curve(speed * steps), share, higher_is_better)
    if speed < share:
        assert found.bound == "at most" and found.ratio == pytest.approx(share, rel=1e-9)
    else:
        assert found.bound == "exact" and found.ratio == pytest.approx(speed, rel=1e-9)
    assert found.threshold == pytest.approx(curve(share * 10_000), rel=1e-9)


def test_a_speed_up_on_a_coarse_grid_is_exact_where_curves_are_straight():
    found = speed_up(STEPS, np.log(STEPS), np.log(2.3 * STEPS), 0.6, True)
    assert found.ratio == pytest.approx(2.3, rel=1e-12) and found.bound == "exact"
    assert found.threshold == pytest.approx(np.log(0.6 * 1600), rel=1e-12)


def test_an_arm_there_at_its_first_evaluation_is_at_least_so_fast():
    found = speed_up(DECADES, (0, 1, 2, 3), (7, 8, 9, 10), 1.0, True)
    assert (found.ratio, found.bound) == (pytest.approx(1000), "at least")


def test_an_arm_that_never_gets_there_is_at_most_so_fast():
    found = speed_up(DECADES, (3, 2, 1, 0), (3, 2.9, 2.8, 2.7), 0.1, False)
    assert found.threshold == pytest.approx(1)
    assert (found.ratio, found.bound) == (pytest.approx(100 / 1000), "at most")


def test_a_base_there_at_its_first_evaluation_may_have_been_there_before():
    later = speed_up(DECADES, (1, 1, 1, 1), (0, 1, 2, 3), 1.0, True)
    assert (later.ratio, later.bound) == (pytest.approx(1 / 10), "at most")
    never = speed_up(DECADES, (1, 1, 1, 1), (0, 0, 0, 0.5), 1.0, True)
    assert (never.ratio, never.bound) == (pytest.approx(1 / 1000), "at most")
    both = speed_up(DECADES, (1, 1, 1, 1), (2, 3, 4, 5), 1.0, True)
    assert (both.ratio, both.bound) == (1, "unknown")


def test_censored_ratios_bound_what_a_longer_and_finer_record_shows():
    steps = np.geomspace(1, 1e6, 61)
    seen = slice(20, 41)  # from step 100 to step 10 000
    for speed in (0.05, 0.5, 2.0, 20.0, 300.0):
        base, other = np.log(steps), np.log(speed * steps)
        part = speed_up(steps[seen], base[seen], other[seen], 1.0, True)
        whole = speed_up(steps, base, other, 0.01, True)
        assert whole.bound == "exact" and whole.ratio == pytest.approx(speed)
        if part.bound == "at most":
            assert part.ratio >= speed
        elif part.bound == "at least":
            assert part.ratio <= speed
        else:
            assert part.ratio == pytest.approx(speed)
        assert part.bound == ("at most" if speed < 1 else "at least" if speed > 100 else "exact")


def test_costs_turn_steps_into_seconds():
    base, other = np.log(STEPS), np.log(2 * STEPS)
    base_cost, other_cost = ArmCost(fixed=100, per_step=0.5), ArmCost(fixed=300, per_step=0.6)
    found = speed_up(STEPS, base, other, 1.0, True, base_cost, other_cost)
    assert found.ratio == pytest.approx((100 + 0.5 * 1600) / (300 + 0.6 * 800))
    never = speed_up(STEPS, other, base, 1.0, True, base_cost, other_cost)
    assert never.bound == "at most"
    assert never.ratio == pytest.approx((100 + 0.5 * 1600) / (300 + 0.6 * 1600))
    same = ArmCost(fixed=0, per_step=3.0)
    plain = speed_up(STEPS, base, other, 1.0, True)
    assert speed_up(STEPS, base, other, 1.0, True, same, same).ratio == pytest.approx(plain.ratio)


def test_curves_are_smoothed_before_they_are_compared():
    noisy = (0, 2, 1, 3)
    assert speed_up(DECADES, noisy, noisy, 1.0, True).ratio == pytest.approx(1)
    found = speed_up(DECADES, (0, 1, 1.5, 1.5), noisy, 1.0, True)
    assert found.ratio == pytest.approx(100 / 10)  # the other arm's plateau of 1.5 begins at 10


def test_area_is_the_mean_gap_over_log_steps():
    base = np.log(STEPS)
    assert area(STEPS, base, base + 0.3, True) == pytest.approx(0.3)
    assert area(STEPS, base, base + 0.3, False) == pytest.approx(-0.3)
    assert area(DECADES, (0, 0, 0, 0), (0, 0, 0, 6), True) == pytest.approx(1)


def test_what_is_no_curve_is_refused():
    with pytest.raises(AvenirError, match="4 values at 3 steps"):
        speed_up((1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4), 1.0, True)
    with pytest.raises(AvenirError, match="ascending"):
        area((1, 3, 2), (1, 2, 3), (1, 2, 3), True)
    with pytest.raises(AvenirError, match="finite"):
        smoothed((1, float("nan")), True)
    with pytest.raises(AvenirError, match="step 50, outside the evaluations at 100 … 1000"):
        speed_up((100, 1000), (0, 1), (0, 1), 0.05, True)


def test_the_interval_is_scipys_student_t_on_logarithms():
    ratios = (1.4, 2.2, 0.9, 1.7, 3.1, 1.2)
    logs = np.log(ratios)
    low, high = stats.t.interval(0.95, 5, logs.mean(), stats.sem(logs))
    same = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    found = pairs(*ratios)
    assert found.ratio == pytest.approx(stats.gmean(ratios), rel=1e-12)
    assert (found.low, found.high) == pytest.approx(np.exp([low, high]), rel=1e-12)
    assert (found.low, found.high) == pytest.approx(np.exp([same.low, same.high]), rel=1e-9)
    assert (found.bound, found.num_pairs) == ("exact", 6)


def test_the_sign_flip_test_is_the_full_enumeration_and_scipys():
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 8):
        logs = rng.normal(0.3, 1, n)
        flips = [np.dot(s, logs) for s in itertools.product((1, -1), repeat=n)]
        expected = np.mean(np.array(flips) >= logs.sum() - 1e-9)
        assert sign_flip(logs) == expected
        if n > 1:
            reference = stats.permutation_test(
                (logs,), np.mean, permutation_type="samples", alternative="greater"
            )
            assert sign_flip(logs) == pytest.approx(reference.pvalue, abs=1e-12)


def test_the_sign_flip_test_counts_ties_and_has_its_least_p():
    assert sign_flip((0.0, 0.0, 0.0)) == 1
    assert sign_flip((0.1, 0.2, -0.3)) == 5 / 8  # {}, {3}, {1, 3}, {2, 3}, and {1, 2, 3} that ties
    assert pairs(*[2.0] * 6).p_value == 1 / 64
    assert pairs(*[0.5] * 6).p_value == 1


def test_many_pairs_are_sampled_close_to_the_truth_and_the_same_every_time():
    logs = np.random.default_rng(1).normal(0.3, 1, MOST_ENUMERATED + 1)
    sums = np.zeros(1)
    for value in logs:
        sums = np.concatenate([sums + value, sums - value])
    exact = (sums >= logs.sum() - 1e-9).mean()
    assert sign_flip(logs, 3) == sign_flip(logs, 3)
    assert sign_flip(logs, 3) != sign_flip(logs, 4)
    assert sign_flip(logs, 3) == pytest.approx(exact, abs=4 * np.sqrt(exact / 2**16))


def test_one_pair_has_no_interval_and_none_has_nothing():
    one = pairs(2.0)
    assert (one.ratio, one.low, one.high, one.p_value) == (pytest.approx(2), None, None, 0.5)
    assert effect([]) == Effect(ratio=None, bound="unknown", num_pairs=0)


def test_censored_pairs_leave_only_the_bounds_they_cannot_overturn():
    exact = [pair(2.0), pair(3.0), pair(2.5), pair(2.2), pair(3.5)]
    at_least = effect([*exact, pair(4.0, "at least")])
    assert (at_least.bound, at_least.num_at_least, at_least.high) == ("at least", 1, None)
    # Of six pairs only the pattern without a flip is rare enough: the least of them is the bound.
    assert at_least.low == pytest.approx(2.0, rel=1e-6)
    at_most = effect([*exact, pair(1.5, "at most")])
    assert (at_most.bound, at_most.num_at_most, at_most.low) == ("at most", 1, None)
    assert at_most.high == pytest.approx(3.5, rel=1e-6)
    few = effect([*exact[:4], pair(4.0, "at least")])
    assert (few.low, few.high) == (None, None)
    for more in ([pair(4.0, "at least"), pair(4.0, "at most")], [pair(1.0, "unknown")]):
        found = effect([*exact, *more])
        assert (found.bound, found.low, found.high, found.p_value) == ("unknown", None, None, None)
    assert found.num_unknown == 1


def test_a_pair_that_turns_out_slower_never_lowers_the_p_value():
    rng = np.random.default_rng(0)
    for _ in range(50):
        logs = rng.normal(0.2, 1, 6)
        slower = logs - rng.exponential(1, 6) * (np.arange(6) == rng.integers(6))
        assert sign_flip(slower) >= sign_flip(logs)


def test_a_censored_pair_that_turns_out_faster_never_lowers_the_bound():
    rng = np.random.default_rng(0)
    for _ in range(20):
        logs = rng.normal(0.4, 0.2, 8)
        lows = []
        for more in (0.0, 0.3, 1.0, 4.0):
            values = np.exp(logs + more * (np.arange(8) == 7))
            censored = [*map(pair, values[:7]), pair(values[7], "at least")]
            lows.append(effect(censored).low)
        assert all(a <= b + 1e-9 for a, b in itertools.pairwise(lows))


def test_the_bound_of_the_sign_flip_test_is_where_it_stops_refusing():
    logs = np.random.default_rng(1).normal(0.4, 0.3, 9)
    low = effect([*map(pair, np.exp(logs[:8])), pair(np.exp(logs[8]), "at least")]).low
    assert low is not None
    assert sign_flip(logs - np.log(low) + 1e-6) <= 0.025 < sign_flip(logs - np.log(low) - 1e-6)


def test_evaluations_beyond_the_budget_measure_what_they_would_only_bound():
    slower = speed_up((1, 10, 100, 1000), (0, 1, 2, 3), (0, 0.5, 1, 1.5), 1.0, True, budget=10)
    assert (slower.bound, slower.threshold) == ("exact", 1.0)
    assert slower.ratio == pytest.approx(0.1)
    assert speed_up((1, 10), (0, 1), (0, 0.5), 1.0, True).bound == "at most"


def test_results_are_json_without_infinities():
    found = effect([speed_up(DECADES, (0, 1, 2, 3), (0, 0, 0, 0), 1.0, True)] * 2)
    assert Effect.model_validate_json(found.model_dump_json()) == found
    assert json.loads(found.model_dump_json())["num_at_most"] == 2


def test_intervals_cover_the_true_speed_up_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for logs in rng.normal(np.log(1.8), 0.4, (1000, 6)):
        found = pairs(*np.exp(logs))
        assert found.low is not None and found.high is not None
        covered += found.low <= 1.8 <= found.high
    assert covered / 1000 == pytest.approx(0.95, abs=0.02)  # three standard errors


# The verdict -------------------------------------------------------------------------------------

ARMS = Arms(baseline="unaligned", treatment="aligned", placebo="shuffled")
FAST = (1.8, 2.0, 1.7, 2.2, 1.6, 1.9)
LEVEL_WITH = (1.1, 0.9, 1.05, 0.95, 1.2, 0.85)


def test_a_clear_effect_is_supported_in_one_sentence():
    found = verdict(ARMS, pairs(*FAST), pairs(*LEVEL_WITH), pairs(*FAST), 0)
    assert found.supported and found.reasons == ()
    assert found.sentence == (
        "Supported: at equal reconstruction 'aligned' learns 1.86 times as fast as 'unaligned' "
        "[1.65, 2.09], 6 pairs, p = 0.016; the placebo 'shuffled' 1.00 times [0.87, 1.15]."
    )


def test_a_bounded_effect_says_so():
    fast = effect([*map(pair, FAST[:5]), pair(9.0, "at least")])
    found = verdict(ARMS, fast, pairs(*LEVEL_WITH), pairs(*FAST), 1)
    assert found.supported
    assert "at least 2.41 times as fast as 'unaligned' [1.60, ∞)" in found.sentence
    assert "6 pairs, 1 unmatched, p ≤ 0.016" in found.sentence
    few = effect([*map(pair, FAST[:3]), pair(9.0, "at least")])
    refused = verdict(ARMS, few, pairs(*LEVEL_WITH), pairs(*FAST), 0)
    assert not refused.supported
    assert "4 pairs, 1 of them known only from below, give no bound" in refused.sentence


@pytest.mark.parametrize(
    ("aligned", "above_placebo", "reason"),
    [
        (pairs(*LEVEL_WITH), pairs(*FAST), "against 'unaligned' is not above 1"),
        (pairs(*FAST), pairs(*LEVEL_WITH), "against the placebo 'shuffled' is not above 1"),
        (pairs(*FAST), None, "no placebo"),
        (
            pairs(*FAST),
            effect([]),
            "no pair at equal reconstruction compares it with the placebo 'shuffled'",
        ),
        (pairs(9.0), pairs(*FAST), "one pair gives no interval"),
        (effect([]), pairs(*FAST), "no pair at equal reconstruction"),
        (
            effect([*map(pair, FAST), pair(1.9, "at most")]),
            pairs(*FAST),
            "1 of 7 pairs bound its speed against 'unaligned' only from above",
        ),
        (
            pairs(*FAST),
            effect([*map(pair, FAST), pair(1.9, "at most")]),
            "1 of 7 pairs bound its speed against the placebo 'shuffled' only from above",
        ),
        (effect([*map(pair, FAST), pair(1, "unknown")]), pairs(*FAST), "in 1 of 7 pairs both"),
    ],
)
def test_each_failing_condition_is_named(aligned: Effect, above_placebo: Effect | None, reason):
    found = verdict(ARMS, aligned, pairs(*LEVEL_WITH), above_placebo, 2)
    assert not found.supported and len(found.reasons) == 1
    assert reason in found.reasons[0] and found.reasons[0] in found.sentence
    assert found.sentence.startswith("Not supported") and "2 unmatched" in found.sentence


def test_all_reasons_are_given_together():
    found = verdict(ARMS, pairs(*LEVEL_WITH), None, pairs(*LEVEL_WITH), 0)
    assert len(found.reasons) == 2 and all(reason in found.sentence for reason in found.reasons)


def test_few_pairs_are_a_demonstration_and_say_what_they_cannot_show():
    three = pairs(1.9, 2.0, 2.1)
    words = verdict(ARMS, three, three, three, 0).sentence
    assert words.startswith("Supported (a demonstration: with 3 pairs p is never below 0.125): ")
    five = pairs(*FAST[:5])
    assert verdict(ARMS, five, five, five, 0).sentence.startswith("Supported (a demonstration): ")
    assert "demonstration" not in verdict(ARMS, pairs(*FAST), None, None, 0).sentence
    assert "demonstration" not in verdict(ARMS, effect([]), None, None, 3).sentence


def simulated(rng: np.random.Generator, speed: float, spread: float):
    """A distance that falls with the step, at the speed asked for, with noise of both kinds."""
    steps = speed * np.exp(spread * rng.normal()) * STEPS
    return 100 * steps**-0.6 * np.exp(0.5 * spread * rng.normal(size=len(STEPS)))


def experiment(rng: np.random.Generator, aligned: float, placebo: float, spread: float = 0.1):
    """Six pairs; returns the verdict and the aligned arm's effect."""
    ratios = []
    for _ in range(6):
        u, a, p = (simulated(rng, speed, spread) for speed in (1.0, aligned, placebo))
        ratios.append([speed_up(STEPS, *arms, 1.0, False) for arms in ((u, a), (u, p), (p, a))])
    effects = [effect(column) for column in zip(*ratios, strict=True)]
    return verdict(ARMS, *effects, num_unmatched=0), effects[0]


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
def test_without_an_effect_the_unaligned_arm_is_rarely_beaten(spread: float):
    rng = np.random.default_rng(0)
    found = [experiment(rng, 1.0, 1.0, spread) for _ in range(150)]
    assert np.mean([(speed.low or 0) > 1 for _, speed in found]) <= 0.05
    assert np.mean([decided.supported for decided, _ in found]) <= 0.05


def test_without_an_effect_uncensored_pairs_are_rarely_supported():
    logs = np.random.default_rng(0).normal(0, 0.3, (1000, 2, 6))
    found = [(pairs(*np.exp(aligned)), pairs(*np.exp(aligned - p))) for aligned, p in logs]
    above_base = np.mean([(speed.low or 0) > 1 for speed, _ in found])
    assert above_base == pytest.approx(0.025, abs=0.015)  # three standard errors
    decided = [verdict(ARMS, speed, None, above, 0) for speed, above in found]
    assert 0 < np.mean([one.supported for one in decided]) <= above_base


def test_a_planted_effect_is_found_and_a_placebo_that_does_as_well_forbids_it():
    rng = np.random.default_rng(0)
    found = [experiment(rng, 2.0, 1.0) for _ in range(40)]
    assert np.mean([decided.supported for decided, _ in found]) > 0.9
    assert stats.gmean([speed.ratio for _, speed in found]) == pytest.approx(2, rel=0.05)
    as_good = [experiment(rng, 2.0, 2.0)[0].supported for _ in range(40)]
    assert np.mean(as_good) <= 0.05


def test_rank_correlation_is_scipys_with_ties_too():
    rng = np.random.default_rng(0)
    for _ in range(10):
        x, y = rng.integers(0, 6, 9), rng.normal(size=9)
        assert spearman(x, y).rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_the_correlations_interval_is_scipys_percentile_bootstrap():
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    reference = stats.bootstrap(
        (x, y),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=1,
    ).confidence_interval
    found = spearman(x, y)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.03)
    assert spearman(x, y, 5) == spearman(x, y, 5) != spearman(x, y, 6)


def test_rankings_that_say_nothing_have_no_number():
    assert spearman((1, 1, 1), (1, 2, 3)).rho is None
    assert spearman((), ()).rho is None
    two = spearman((1, 2), (3, 1))
    assert (two.rho, two.low, two.high) == (pytest.approx(-1), None, None)
    with pytest.raises(AvenirError, match="pairs"):
        spearman((1, 2), (1, 2, 3))
