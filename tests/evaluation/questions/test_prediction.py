import torch

from avenir.evaluation.baselines import NearestPast, copy_last, mean_image, training_windows
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.metrics.frames import BEST_PSNR
from avenir.evaluation.questions.action_control import measure_shuffled_actions, shuffled
from avenir.evaluation.questions.prediction import best_of, measure_prediction


def quiet(what: str, done: int, total: int) -> None:
    pass


def task(source, windows, samples: int = 4, batch_size: int = 4) -> HeldOut:
    return HeldOut(source, windows, 6, 10, samples, batch_size, 0)


def test_the_last_frame_is_held_exactly():
    past = torch.rand(2, 3, 3, 4, 4)
    held = copy_last(past, 5)
    assert held.shape == (2, 5, 3, 4, 4)
    assert all(torch.equal(held[:, t], past[:, -1]) for t in range(5))


def test_the_mean_image_is_the_mean_of_training_frames(source):
    from avenir.device import seed_of

    windows = source.draw("train", 1, 70, seed_of("mean image", 0))
    frames = torch.cat([source.clip(window).video[0] for window in windows])
    assert torch.allclose(mean_image(source, 70, 0), frames.mean(0), atol=1e-5)


def test_the_nearest_past_finds_a_planted_duplicate_and_reads_on(source, windows):
    nearest = NearestPast(source, 6, 10, 1000, 0, quiet)
    batch = source.read(windows[:1])
    assert batch.video is not None
    found = nearest.find(batch.video[:, :6])[0]
    assert found.recording.name == "train-3"
    assert found.start_seconds == windows[0].start_seconds
    assert torch.equal(nearest.continuation(batch.video[:, :6]), batch.video[:, 6:])


def test_training_windows_are_capped_differ_and_fit(source):
    every = training_windows(source, 16, 6, 1000, 0)
    assert len(every) == 6 * 3
    some = training_windows(source, 16, 6, 7, 0)
    assert len(set(some)) == 7 and set(some) <= set(every)


def test_every_method_is_scored_at_every_frame(source, world, windows):
    continuation, examples = measure_prediction(world, task(source, windows), 50, 3, None, quiet)
    methods = {"world", "world_mean", "world_best", "copy_last", "nearest", "mean_image", "codec"}
    assert set(continuation.curves) == {"psnr", "moving_psnr", "ssim"}
    for by_method in continuation.curves.values():
        assert set(by_method) == methods
        assert all(len(curve.mean) == 10 for curve in by_method.values())
    assert [example.name.split("@")[0] for example in examples] == ["test-0", "test-1", "test-2"]
    assert examples[0].made["world"].shape == (10, 3, 16, 24)
    codec = continuation.curves["psnr"]["codec"].mean
    assert all(value == BEST_PSNR for value in codec)


def test_the_mean_of_samples_beats_one_noisy_sample_and_a_good_world_beats_copying(
    source, world, windows
):
    continuation, _ = measure_prediction(world, task(source, windows), 50, 0, None, quiet)
    rows = {
        row.method: row
        for row in continuation.rows
        if row.metric == "moving_psnr" and row.seconds is None
    }
    copy, mean = rows["copy_last"].difference, rows["world_mean"].difference
    assert copy is not None and copy.low is not None and copy.low > 0
    assert mean is not None and mean.high is not None and mean.high < 0


def test_the_best_sample_is_chosen_clip_by_clip_over_the_whole_horizon():
    nothing = torch.nan
    one = {
        "psnr": torch.tensor([[20.0, 10.0], [12.0, 12.0]]),
        "ego_error": torch.tensor([[1.0, nothing], [nothing, nothing]]),
    }
    other = {
        "psnr": torch.tensor([[16.0, 15.0], [1.0, 14.0]]),
        "ego_error": torch.tensor([[nothing, 3.0], [nothing, 2.0]]),
    }
    best = best_of([one, other])
    assert best["psnr"].tolist() == [[16.0, 15.0], [12.0, 12.0]]
    assert best["ego_error"].nan_to_num(-1).tolist() == [[1.0, -1.0], [-1.0, 2.0]]


def test_the_best_of_samples_is_no_worse_than_the_first_by_any_metric(source, world, windows):
    continuation, _ = measure_prediction(world, task(source, windows), 50, 0, None, quiet)
    for metric in continuation.curves:
        rows = {r.method: r for r in continuation.rows if r.metric == metric and r.seconds is None}
        assert rows["world_best"].value.mean > rows["world"].value.mean


def test_results_do_not_depend_on_how_many_clips_are_read_at_once_when_nothing_is_drawn(
    source, deaf_world, windows
):
    one, _ = measure_prediction(deaf_world, task(source, windows, 2, 1), 50, 0, None, quiet)
    all_of_them, _ = measure_prediction(deaf_world, task(source, windows, 2, 6), 50, 0, None, quiet)
    assert one == all_of_them


def test_shuffled_actions_lose_in_a_world_that_listens(source, world, windows):
    control = measure_shuffled_actions(world, task(source, windows), None, quiet)
    assert control is not None and control.num_clips == 6
    row = next(r for r in control.rows if r.method == "shuffled" and r.seconds is None)
    assert row.difference is not None and row.difference.low is not None
    assert row.difference.low > 0


def test_shuffled_actions_change_nothing_in_a_world_that_does_not_listen(
    source, deaf_world, windows
):
    control = measure_shuffled_actions(deaf_world, task(source, windows), None, quiet)
    assert control is not None
    assert control.curves["moving_psnr"]["true"] == control.curves["moving_psnr"]["shuffled"]


def test_only_what_leads_to_the_future_is_shuffled():
    own, other = torch.zeros(1, 5, 1), torch.ones(1, 5, 1)
    assert shuffled(own, other, 3)[0, :, 0].tolist() == [0, 0, 1, 1, 1]


def test_one_recording_alone_has_nobody_to_shuffle_with(source, world, windows):
    assert measure_shuffled_actions(world, task(source, windows[:1]), None, quiet) is None
