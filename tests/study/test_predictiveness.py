"""What a passport predicts, on rows whose answer is known."""

import numpy as np
import pytest

from avenir.evaluation.metrics.bootstrap import Interval
from avenir.evaluation.probing.passport_results import Passport
from avenir.study.comparison import ArmRun
from avenir.study.predictiveness import correlate_passports
from tests.study.test_comparison import row

SPEEDS = {"u": 1.0, "a": 1.8, "p": 1.1, "r": 0.5}


def stamped(arm: str, seed: int, *, decodes: bool = True) -> ArmRun:
    """A row whose rank grows with its speed, and whose roughness falls."""
    speed = SPEEDS[arm]
    known = Interval(mean=speed**2 + 0.001 * seed)
    passport = Passport.model_construct(
        effective_rank=speed,
        high_frequencies=Interval(mean=-speed),
        local_similarity=known,
        temporal_distance=Interval(mean=1.0),
        velocity_variance=1.0,
        velocity_variance_given_past=1.0,
        linear_dynamics=(),
        inverse_dynamics=None,
        psnr=known if decodes else None,
        noise_borne=(),
        reconstructed=None,
        interpolated=None,
        between=None,
    )
    return row(arm, seed, speed).model_copy(update={"passport": passport})


def test_numbers_are_ranked_against_what_was_learnt():
    rows = [stamped(arm, seed) for seed in range(2) for arm in SPEEDS]
    found = {each.number: each for each in correlate_passports(rows, "ego_error", "u")}
    assert found["effective rank"].correlation.rho == pytest.approx(1)
    assert found["high frequencies"].correlation.rho == pytest.approx(-1)
    assert found["temporal distance"].correlation.rho is None
    assert "inverse dynamics" not in found
    number, gain = found["local similarity"].arms["a"]
    assert number == pytest.approx(1.8**2 + 0.0005)
    assert gain == pytest.approx(np.log(1.8))
    assert found["PSNR"].arms["u"][1] == 0


def test_what_is_learnt_early_does_not_count():
    rows = [stamped(arm, 0) for arm in SPEEDS]
    for each in rows:
        if each.arm == "r":
            values = (-100.0, *each.marks["ego_error"][1:])  # a splendid first evaluation
            each.marks["ego_error"] = values
    gains = {
        budget: correlate_passports(rows, "ego_error", "u", budget)[0].arms["r"][1]
        for budget in (400, 1600)
    }
    assert gains[400] > 0 > gains[1600] == pytest.approx(np.log(0.5))


def test_only_what_all_latents_have_is_ranked_and_only_where_there_is_a_baseline():
    rows = [stamped(arm, 0, decodes=arm != "r") for arm in SPEEDS] + [stamped("a", 7)]
    found = {each.number: each for each in correlate_passports(rows, "ego_error", "u")}
    assert "PSNR" not in found
    assert found["local similarity"].arms["a"][0] == pytest.approx(1.8**2)
    assert correlate_passports([stamped("a", 0)], "ego_error", "u") == ()
    assert correlate_passports([row("u", 0, 1.0)], "ego_error", "u") == ()
