import json

import numpy as np
import torch

from avenir.evaluation.metrics.bootstrap import Interval, bootstrap, curve, interval
from avenir.evaluation.metrics.score_table import ScoreTable, horizons


def test_mean_and_bounds_of_one_recording_are_a_mean_without_bounds():
    assert interval(torch.tensor([1.0, 3.0]), ["a", "a"]) == Interval(mean=2.0)


def test_unknown_values_are_left_out():
    found = interval(torch.tensor([1.0, float("nan"), 3.0]), ["a", "b", "c"])
    assert found.mean == 2
    assert interval(torch.tensor([float("nan")] * 2), ["a", "b"]) == Interval(mean=None)


def test_the_same_seed_gives_the_same_interval_and_json_holds_no_nan():
    values = torch.randn(20, generator=torch.Generator().manual_seed(0))
    names = [str(i) for i in range(20)]
    assert interval(values, names, 3) == interval(values, names, 3)
    curves = curve(torch.full((2, 3), float("nan")), ["a", "b"])
    assert json.loads(curves.model_dump_json())["mean"] == [None, None, None]


def test_clips_of_one_recording_do_not_count_as_independent():
    recordings = torch.randn(10, 1, generator=torch.Generator().manual_seed(0))
    values = recordings.repeat_interleave(50, 0)
    names = [str(i // 50) for i in range(500)]
    _, low, high = bootstrap(values, names)
    _, low_one, high_one = bootstrap(recordings, [str(i) for i in range(10)])
    assert np.allclose(low, low_one) and np.allclose(high, high_one)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        effects = np.repeat(rng.normal(0, 1, 40), 3) + rng.normal(0, 1, 120)
        names = [str(i // 3) for i in range(120)]
        found = interval(torch.from_numpy(effects), names, trial)
        assert found.low is not None and found.high is not None
        covered += found.low <= 0 <= found.high
    assert 0.90 <= covered / 200 <= 0.985


def test_paired_differences_are_far_surer_than_the_means():
    chance = torch.Generator().manual_seed(0)
    hard = 10 * torch.randn(30, 5, generator=chance)
    tally = ScoreTable()
    tally.add("world", {"psnr": hard + 1})
    tally.add("copy_last", {"psnr": hard})
    rows = tally.rows([str(i) for i in range(30)], 0, "world", {None: slice(0, 5)})
    ours, copy = rows
    assert ours.difference is None and copy.difference is not None
    assert copy.difference.mean == 1 and copy.difference.low is not None
    assert copy.difference.low > 0.999
    assert ours.value.high is not None and ours.value.low is not None
    assert ours.value.high - ours.value.low > 1


def test_horizons_double_as_far_as_they_fit_and_name_the_last_frame():
    assert horizons(20, 10.0) == {
        0.5: slice(4, 5),
        1.0: slice(9, 10),
        2.0: slice(19, 20),
        None: slice(0, 20),
    }
