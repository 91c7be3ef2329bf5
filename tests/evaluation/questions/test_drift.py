"""Drift: nothing where a world knows the rule, all where it does not listen; closed forms."""

import json
import re
from dataclasses import replace

import pytest
import torch

from avenir.errors import AvenirError
from avenir.evaluation.held_out import HeldOut, of_another_recording
from avenir.evaluation.metrics.frames import BEST_PSNR
from avenir.evaluation.questions.action_control import measure_shuffled_actions
from avenir.evaluation.questions.drift import SEGMENT, WAYS, _other, failure, growth, measure_drift
from avenir.evaluation.report.charts import coloured
from avenir.evaluation.worlds_page import ComparedWorld, WorldComparison, write_comparison
from tests.evaluation.conftest import ToyWorld


def quiet(what: str, done: int, total: int) -> None:
    pass


def task(source, windows, batch_size: int = 4) -> HeldOut:
    return HeldOut(source, windows, 6, 10, 1, batch_size, 0)


def test_a_world_that_knows_the_rule_does_not_drift(source, windows):
    drift, shown = measure_drift(ToyWorld(), 5, task(source, windows), None, quiet, 2)
    for way in ("free", "forced", "codec"):
        assert all(value == BEST_PSNR for value in drift.curves["psnr"][way].mean)
    assert set(drift.curves["psnr"]) == set(WAYS)
    assert drift.failure_seconds == {"psnr": None, "moving_psnr": None, "ssim": None}
    assert drift.growth["psnr"].mean == pytest.approx(0, abs=1e-9)
    assert drift.motion.mean == pytest.approx(1)
    for each in shown:
        assert torch.equal(each.made.frames, each.seen.frames) and each.made.num_frames == 16
    assert len(shown) == 2


def test_a_world_that_does_not_listen_drifts_and_freezes_and_the_true_past_helps(source, windows):
    drift, _ = measure_drift(ToyWorld(listens=False), 5, task(source, windows), None, quiet)
    curves = drift.curves["psnr"]
    assert curves["free"].mean == curves["copy_last"].mean
    assert curves["forced"].mean[0] == curves["free"].mean[0]
    assert sum(curves["forced"].mean) > sum(curves["free"].mean)
    assert drift.growth["psnr"].mean > 0
    assert drift.motion.mean == 0


def test_results_do_not_depend_on_how_many_clips_are_read_at_once(source, windows):
    one, all_of_them = (
        measure_drift(ToyWorld(listens=False), 5, task(source, windows, size), None, quiet)[0]
        for size in (1, 6)
    )
    same = {"frames_per_second"}
    assert one.model_dump(exclude=same) == all_of_them.model_dump(exclude=same)


def test_failing_is_being_no_better_than_another_recording():
    random = torch.full((3, 4), 10.0)
    rising = torch.tensor([[2.0, 6.0, 10.0, 14.0]]).expand(3, -1)
    assert failure({"free": rising, "random": random}, "ego_error", fps=2.0) == 1.5
    assert failure({"free": 0.5 * rising, "random": random}, "ego_error", fps=2.0) is None
    falling = 20 - rising
    assert failure({"free": falling, "random": random}, "psnr", fps=2.0) == 1.5


def test_growth_is_a_share_of_the_way_from_the_codec_to_another_recording():
    free = torch.tensor([[3.0, 3.0, 7.0, 7.0], [5.0, 5.0, 5.0, 5.0]])
    ways = {"free": free, "codec": torch.full((2, 4), 2.0), "random": torch.full((2, 4), 12.0)}
    found = growth(ways, "ego_error", 2, ["a", "b"], 0)
    assert found.mean == pytest.approx((0.4 + 0.0) / 2)
    ways = {name: -values for name, values in ways.items()}
    assert growth(ways, "psnr", 2, ["a", "b"], 0).mean == pytest.approx(0.2)


def test_the_page_shows_every_world_beside_the_truth(source, windows, tmp_path):
    worlds, films = [], []
    for name, world in {"good <one>": ToyWorld(), "deaf": ToyWorld(listens=False)}.items():
        asked = task(source, windows)
        drift, shown = measure_drift(
            world, 5, asked, None, quiet, 2, noises=(0.2,), evaluator=world.encoder
        )
        control = measure_shuffled_actions(world, asked.cut(5), None, quiet)
        known = {
            "name": name,
            "key": None,
            "predictor": "toy",
            "num_parameters": 7,
            "nearest_decoder": None,
        }
        cost = {"device": "cpu", "train_seconds": 90.0, "train_gib": 0.5} if name == "deaf" else {}
        known |= cost
        worlds.append(ComparedWorld(**known, drift=drift, control=control))
        films.append(shown)
    comparison = WorldComparison(
        about="Toys", command="avenir compare", fps=10, worlds=tuple(worlds)
    )
    page = write_comparison(tmp_path, comparison, films).read_text()
    assert "good &lt;one&gt; | deaf | truth" in page
    assert page.count("<canvas") == 2 * 3  # clips × columns
    assert "not within the horizon" in page and "line-forced1" in page
    assert "Do actions matter?" in page and "What noise on the past does" in page
    assert "Kernel distance" in page
    assert page.count("1.5 min, 0.5 GiB (cpu)") == 1
    kept = json.loads((tmp_path / "drift.json").read_text())
    assert WorldComparison.parse(kept) == comparison


def test_noise_on_the_past_stays_where_nothing_takes_it_away(source, windows):
    """The toy rolls its last frame on, noise and all: as much is lost at the end as at first."""
    asked = task(source, windows)
    drift, _ = measure_drift(ToyWorld(), 5, asked, None, quiet, noises=(0.1, 0.4))
    weak, strong = drift.noised
    assert (weak.noise, strong.noise) == (0.1, 0.4)
    assert 0 < weak.early["psnr"].mean < strong.early["psnr"].mean
    assert weak.late["psnr"].mean == pytest.approx(weak.early["psnr"].mean, rel=1e-4)
    assert set(drift.curves["psnr"]) == set(WAYS)


def test_sets_of_clips_are_compared_segment_by_segment(source, windows):
    """A world that is right is at no distance; one that stands still goes away."""
    asked = HeldOut(source, source.spread("test", 30, 6), 6, 24, 1, 4, 0)
    worlds = (ToyWorld(), ToyWorld(listens=False))
    right, still = (
        measure_drift(world, 5, asked, None, quiet, evaluator=world.encoder)[0].segments
        for world in worlds
    )
    assert right["free"].mean == pytest.approx([0.0] * (24 // SEGMENT), abs=1e-9)
    assert still["free"].mean == still["copy_last"].mean
    assert len(still["forced"].mean) == len(still["random"].low) == 24 // SEGMENT


def test_another_clip_is_of_another_recording_where_there_is_one(windows):
    assert of_another_recording(windows, 5) == 0 and _other(windows, 5) == windows[0]
    alone = [replace(windows[0], start_seconds=float(start)) for start in range(4)]
    assert of_another_recording(alone, 1) is None and _other(alone, 1) == alone[3]


def test_a_single_clip_tells_nothing_of_failure(source, windows):
    with pytest.raises(AvenirError, match="more clips"):
        measure_drift(ToyWorld(), 5, task(source, windows[:1]), None, quiet)


def test_every_line_has_a_colour_and_the_first_twelve_one_of_their_own():
    colours = re.findall(r"\.line-world(\d+) \{ stroke: (#\w+);", coloured("world"))
    assert [int(number) for number, _ in colours] == list(range(48))
    assert len({colour for _, colour in colours[:12]}) == 12
    assert colours[12][1] == colours[0][1]
