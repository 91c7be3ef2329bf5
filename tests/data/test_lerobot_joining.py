"""Rows of LeRobot data sets meet their own frames, or are refused: never the frame beside."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.lerobot_sets import TABLE, numbered, numbered_set, numbers_of, source

from avenir import video
from avenir.data import Window
from avenir.data.lerobot import joining
from avenir.errors import AvenirError
from avenir.splits import SPLITS

AGES = np.r_[np.arange(29) / 20, 1e9]
"""Timestamps whose last is years later."""


def joined(path: Path, **settings) -> dict[str, tuple[list[int], list[int]]]:
    """Read (numbers on the frames, numbers in the rows) of every episode."""
    data, found = source(path, **settings), {}
    for recording in (each for split in SPLITS for each in data.recordings(split)):
        num_frames = round(recording.seconds * data.fps)
        clip = data.clip(Window(recording, 0.0, num_frames))
        rows = clip.signals["actions"][:, 0].int().tolist()
        found[recording.name] = (numbers_of(clip.frames), rows)
    return dict(sorted(found.items()))


def assert_joined(path: Path, lengths: list[int], **settings) -> None:
    first = 0
    for (frames, rows), length in zip(joined(path, **settings).values(), lengths, strict=True):
        assert frames == rows == list(range(first, first + length))
        first += length


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
@pytest.mark.parametrize("video_fps", [30000 / 1001, 30.03, 29.5])
def test_a_video_of_almost_the_rate_has_a_frame_for_every_row(tmp_path, video_fps, memory_gb):
    """After 500 rows at 29.97 the frame nearest in time is the one before."""
    numbered_set(tmp_path, [40, 700], fps=30.0, video_fps=video_fps)
    with pytest.warns(video.VideoWarning) if video_fps == 29.5 else nullcontext():
        assert_joined(tmp_path, [40, 700], memory_gb=memory_gb)


@pytest.mark.parametrize("video_fps", [25.0, 60.0])
def test_a_video_of_another_rate_is_joined_by_number_aloud(tmp_path, video_fps):
    numbered_set(tmp_path, [50, 40], fps=30.0, video_fps=video_fps)
    with pytest.warns(video.VideoWarning, match=f"plays {video_fps:g} .* its rows are at 30"):
        assert_joined(tmp_path, [50, 40])


@pytest.mark.parametrize("num_frames", [None, 90])
@pytest.mark.parametrize("shift", [-0.02, -0.001, 0.001, 0.02])
def test_a_start_a_little_off_shifts_no_episode(tmp_path, shift, num_frames):
    """Neither where every frame has its row, nor where the video goes on and time decides."""
    starts = [0.0, 1.5 + shift, 3.0 + shift]
    numbered_set(tmp_path, [30, 30, 20], starts=starts, num_frames=num_frames)
    assert_joined(tmp_path, [30, 30, 20])


def test_what_fits_neither_in_number_nor_in_time_is_refused(tmp_path):
    numbered_set(tmp_path, [700, 20], fps=30.0, video_fps=29.97, num_frames=721)
    with pytest.raises(AvenirError, match=r"file-000\.mp4.*29\.97.*30 per second.*convert"):
        source(tmp_path)


def test_a_video_of_the_same_span_at_another_rate_is_refused(tmp_path):
    numbered_set(tmp_path, [60], fps=30.0, video_fps=25.0, num_frames=50)
    with pytest.raises(AvenirError, match="25 per second.*60 rows at 30"):
        source(tmp_path)


def test_of_a_video_at_twice_the_rate_every_second_frame_is_taken(tmp_path):
    numbered_set(tmp_path, [30], fps=30.0, video_fps=60.0, num_frames=61)
    ((frames, rows),) = joined(tmp_path).values()
    assert frames == [2 * row for row in rows] == list(range(0, 60, 2))


def test_rows_that_a_recorder_dropped_leave_a_gap(tmp_path):
    kept = np.r_[0:20, 30:60]
    numbered_set(tmp_path, [50], num_frames=60, action=kept.astype(np.float32), timestamp=kept / 20)
    data = source(tmp_path)
    (recording,) = data.recordings("train")
    assert recording.seconds == pytest.approx(3.0)
    clip = data.clip(Window(recording, 0.75, 25))
    expected = [15, 16, 17, 18, *[19] * 11, *range(30, 40)]
    assert numbers_of(clip.frames) == clip.signals["actions"][:, 0].tolist() == expected


def test_rows_that_only_their_numbers_say_were_dropped_leave_a_gap(tmp_path):
    kept = np.r_[0:20, 30:60]
    columns = {"action": kept.astype(np.float32), "frame_index": kept}
    for name, stamps in (("none", None), ("zero", np.zeros(50))):
        numbered_set(tmp_path / name, [50], num_frames=60, timestamp=stamps, **columns)
        with pytest.warns(video.VideoWarning) if stamps is not None else nullcontext():
            ((frames, rows),) = joined(tmp_path / name).values()
        assert frames == rows == [*range(20), *[19] * 10, *range(30, 60)]


def test_an_episode_whose_rows_are_there_twice_is_left_out(tmp_path):
    twice = np.r_[np.repeat(np.arange(15), 2), 0:30]
    numbered_set(tmp_path, [30, 30], frame_index=twice)
    data = source(tmp_path)
    (skipped,) = data.skipped
    assert skipped.name == "episode_000000"
    assert "15 of its 30 rows" in skipped.reason
    assert "'frame_index' of another one; write each row once" in skipped.reason


def test_of_episodes_that_begin_together_none_is_known(tmp_path):
    numbered_set(tmp_path, [20, 20, 20, 20], starts=[0.0, 1.0, 1.01, 2.0], num_frames=60)
    data = source(tmp_path)
    assert [skipped.name for skipped in data.skipped] == ["episode_000001", "episode_000002"]
    assert all("or shows another one" in skipped.reason for skipped in data.skipped)
    found = joined(tmp_path)
    assert found["episode_000000"] == (list(range(20)), list(range(20)))
    assert found["episode_000003"] == (list(range(40, 60)), list(range(60, 80)))


def test_timestamps_of_another_zero_are_moved(tmp_path):
    stamps = 1.7e9 + np.arange(30) / 20
    numbered_set(tmp_path, [30], num_frames=33, timestamp=stamps)
    assert_joined(tmp_path, [30])


@pytest.mark.parametrize("num_frames", [30, 33])
@pytest.mark.parametrize(
    "stamps", [np.zeros(30), np.arange(30) * 50.0, -np.arange(30) / 20, np.full(30, np.nan), AGES]
)
def test_timestamps_that_are_none_are_said(tmp_path, stamps, num_frames):
    numbered_set(tmp_path, [30], num_frames=num_frames, timestamp=stamps)
    with pytest.warns(video.VideoWarning, match="no ascending seconds"):
        assert_joined(tmp_path, [30])


def test_tables_without_timestamps_are_read(tmp_path):
    numbered_set(tmp_path, [20, 30], num_frames=52, timestamp=None, frame_index=None)
    assert_joined(tmp_path, [20, 30])


def test_rows_out_of_order_are_put_in_order(tmp_path):
    numbered_set(tmp_path, [20, 30])
    table = pq.read_table(tmp_path / TABLE)
    pq.write_table(table.take(np.random.default_rng(0).permutation(50)), tmp_path / TABLE)
    assert_joined(tmp_path, [20, 30])


def test_no_episode_goes_on_into_the_next(tmp_path):
    numbered_set(tmp_path, [30, 30], starts=[0.0, 1.25], num_frames=56)
    with pytest.warns(video.VideoWarning, match="episode_000000.*30 rows.*25 frames"):
        frames, _ = joined(tmp_path)["episode_000000"]
    assert frames == list(range(25))


def test_a_video_that_ends_before_an_episode_is_to_blame(tmp_path):
    numbered_set(tmp_path, [30, 30, 30], num_frames=60)
    data = source(tmp_path)
    (skipped,) = data.skipped
    assert skipped.name == "episode_000002"
    assert "ends at 2.95 s, before the episode begins at 3.00 s" in skipped.reason


def test_a_join_by_time_is_the_identity_whatever_the_error():
    """Frame k is found for row k as long as both errors together stay below a quarter frame."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        num_rows, fps = rng.integers(2, 400), rng.choice([5.0, 10.0, 29.97, 30.0, 60.0])
        first, extra = rng.integers(0, 50), rng.integers(0, 20)
        stamps = (np.arange(first + num_rows + extra) + rng.uniform(-0.12, 0.12)) / fps
        jitter = rng.uniform(-0.12, 0.12, num_rows)
        wanted = (first + np.arange(num_rows) + jitter) / fps
        (found,) = joining.by_time(stamps, [wanted], fps)
        assert found is not None
        assert found.tolist() == list(range(first, first + num_rows))


@pytest.mark.parametrize("num_episodes", [1, 7])
def test_a_join_by_time_never_slips(num_episodes):
    """Whatever the two rates are: every row meets its own frame, or the join is refused."""
    rng = np.random.default_rng(0)
    refused, accepted = 0, 0
    for _ in range(200):
        length, ratio = int(rng.integers(20, 500)), rng.normal(1, 0.002)
        stamps = np.arange(num_episodes * length + 10) / (30 * ratio)
        wanted = np.split(np.arange(num_episodes * length) / 30, num_episodes)
        for number, found in enumerate(joining.by_time(stamps, wanted, 30.0)):
            refused, accepted = refused + (found is None), accepted + (found is not None)
            first = number * length
            assert found is None or found.tolist() == list(range(first, first + len(found)))
    assert min(refused, accepted) > 20


def test_the_numbers_on_frames_are_read():
    assert numbers_of(numbered(50, 4000).frames) == list(range(4000, 4050))
    assert torch.equal(numbered(3).frames[1:], numbered(2, 1).frames)
