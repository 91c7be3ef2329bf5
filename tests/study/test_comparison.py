"""From rows to a verdict: the gate, the pairing, and what a planted cheat or gap does."""

import numpy as np
import pytest

from avenir.errors import AvenirError
from avenir.study.comparison import ArmRun, Arms, Gate, compare_arms

STEPS = (100, 200, 400, 800, 1600)
ARMS = Arms(baseline="u", treatment="a", placebo="p")


def row(arm: str, seed: int, speed: float, *, psnr: float = 22.0, floor: float = 1.0) -> ArmRun:
    """A curve that falls with log steps, `speed` times faster than the baseline's."""
    noise = 1 + 0.02 * np.random.default_rng(seed).normal()
    values = tuple(float(10 - np.log(speed * noise * step)) for step in STEPS)
    return ArmRun(
        protocol="x",
        arm=arm,
        seed=seed,
        choice=0,
        steps=STEPS,
        marks={"ego_error": values},
        codec={"psnr": psnr, "frechet": floor},
        held={},
        real={},
        seconds={"tokenizer": 100.0, "per_step": 0.1},
        commit="c",
    )


def rows() -> list[ArmRun]:
    speeds = {"u": 1.0, "a": 1.8, "p": 1.0}
    return [row(arm, seed, speed) for seed in range(6) for arm, speed in speeds.items()]


def test_a_planted_speed_up_is_found_in_every_pair():
    compared = compare_arms("alignment", ARMS, rows(), ["ego_error"], Gate())
    assert compared.verdict.supported
    whole = [f for f in compared.found if f.share == 1 and not f.all_in]
    assert whole[0].effect.ratio == pytest.approx(1.8, rel=1e-6)
    assert [pair.speed_up.ratio for pair in compared.pairs] == pytest.approx([1.8] * 6)
    assert compared.areas["ego_error"] == pytest.approx([np.log(1.8)] * 6)


def test_all_in_counts_what_was_spent_before_the_first_step():
    compared = compare_arms("alignment", ARMS, rows(), ["ego_error"], Gate())
    all_in = next(f for f in compared.found if f.share == 1 and f.all_in)
    expected = (100 + 0.1 * 1600) / (100 + 0.1 * 1600 / 1.8)
    assert all_in.effect.ratio == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gap", [{"psnr": 22.4}, {"floor": 1.15}], ids=str)
def test_a_planted_gap_in_reconstruction_is_unmatched_and_carries_no_verdict(gap):
    planted = [row("a", each.seed, 1.8, **gap) if each.arm == "a" else each for each in rows()]
    compared = compare_arms("alignment", ARMS, planted, ["ego_error"], Gate())
    assert not any(pair.matched for pair in compared.pairs)
    assert all(found.effect.num_pairs == 0 for found in compared.found)
    assert not compared.verdict.supported
    assert "6 unmatched" in compared.verdict.sentence


def test_one_unmatched_pair_is_left_out_and_counted():
    planted = [
        row("a", 0, 50.0, psnr=25.0) if (each.arm, each.seed) == ("a", 0) else each
        for each in rows()
    ]
    compared = compare_arms("alignment", ARMS, planted, ["ego_error"], Gate())
    whole = next(f for f in compared.found if f.share == 1 and not f.all_in)
    assert whole.effect.num_pairs == 5
    assert whole.effect.ratio == pytest.approx(1.8, rel=1e-6)
    assert "1 unmatched" in compared.verdict.sentence


def test_a_placebo_as_fast_as_the_treatment_refutes_it():
    planted = [row("p", each.seed, 1.9) if each.arm == "p" else each for each in rows()]
    compared = compare_arms("alignment", ARMS, planted, ["ego_error"], Gate())
    assert not compared.verdict.supported
    assert "placebo" in " ".join(compared.verdict.reasons)


def test_seeds_without_all_arms_are_not_pairs():
    some = [each for each in rows() if (each.arm, each.seed) != ("p", 3)]
    compared = compare_arms("alignment", ARMS, some, ["ego_error"], Gate())
    assert [pair.seed for pair in compared.pairs] == [0, 1, 2, 4, 5]


def test_curves_at_other_steps_are_refused():
    other = rows()[0].model_copy(update={"steps": (1, 2, 3, 4, 5)})
    with pytest.raises(AvenirError, match="measured at steps"):
        compare_arms("alignment", ARMS, [other, *rows()[1:]], ["ego_error"], Gate())


def test_rows_of_different_devices_make_no_pair():
    """Chance differs there. What does not say where it was trained is taken as it is."""
    known = [each.model_copy(update={"device": "cpu"}) for each in rows()]
    compare_arms("alignment", ARMS, [*known[:-1], rows()[-1]], ["ego_error"], Gate())
    known[-1] = known[-1].model_copy(update={"device": "a GPU"})
    with pytest.raises(AvenirError, match="rows of seed 5 were trained on a GPU and cpu"):
        compare_arms("alignment", ARMS, known, ["ego_error"], Gate())
