"""Video files: what is written is read, at any time and rate; hostile files end in a sentence."""

import contextlib
import csv
import json
import struct
import subprocess
import sys
import warnings
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from avenir import video
from avenir.clip import Clip
from avenir.errors import AvenirError, VideoError
from avenir.video.footage import Footage, Pictures, resample, shown

pytestmark = pytest.mark.filterwarnings("error")


def film(frames: torch.Tensor, fps: float) -> Clip:
    return Clip(frames, float(fps))


def smooth(num_frames: int = 40, height: int = 48, width: int = 64) -> torch.Tensor:
    """Frames that compress well and differ: a slanted ramp, with a bright square that travels."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    frames = torch.stack(
        [
            torch.stack([rows + columns + 40, 2 * columns + 0 * rows + i, 200 - rows - 0 * columns])
            for i in range(num_frames)
        ]
    )
    for i in range(num_frames):
        frames[i, :, 8:20, i % (width - 12) : i % (width - 12) + 12] = 230
    return frames.clamp(0, 255).to(torch.uint8)


def numbered(num_frames: int) -> torch.Tensor:
    """Frames whose number is written on them in eight black and white stripes."""
    bits = torch.arange(num_frames)[:, None] >> torch.arange(8) & 1
    stripes = bits.repeat_interleave(4, 1) * 255
    return stripes[:, None, None].expand(-1, 3, 32, -1).to(torch.uint8).contiguous()


def numbers(frames: torch.Tensor) -> list[int]:
    stripes = frames.float().mean((1, 2)).unflatten(1, (8, -1)).mean(2) > 128
    return (stripes.int() << torch.arange(8)).sum(1).tolist()


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    error = (one.float() - other.float()).square().mean()
    return float(10 * torch.log10(255**2 / error))


def encode(
    path: Path,
    frames: torch.Tensor,
    pixel_format: str = "yuv420p",
    ticks: list[int] | None = None,
    rotation: int | None = None,
    gop: int = 12,
) -> Path:
    """Write by hand what `avenir.video.write` never does; ticks are thousandths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5", "g": str(gop)})
        stream.height, stream.width = frames.shape[2:]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i, picture in enumerate(frames.permute(0, 2, 3, 1).contiguous().numpy()):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = ticks[i] if ticks else 40 * i, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# Writing and reading again


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("fps", [30.0, 30000 / 1001, 12.5])
def test_what_is_written_is_read(tmp_path, suffix, fps):
    frames = smooth()
    path = video.write(tmp_path / f"clip{suffix}", film(frames, fps))
    clip = video.read(path)
    assert clip.frames.shape == frames.shape
    assert clip.fps == pytest.approx(fps, abs=1e-3)
    assert psnr(clip.frames, frames) > 32
    assert len(video.timestamps(path)) == len(frames)
    info = video.probe(path)
    assert (info.height, info.width, info.rotation) == (48, 64, 0)
    assert info.declared_frames in (None, len(frames))


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 250, 250)])
def test_colours_survive(tmp_path, colour):
    frames = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).repeat(6, 1, 32, 32)
    read = video.read(video.write(tmp_path / "clip.mp4", film(frames, 10))).frames
    assert (read.int() - frames.int()).abs().max() <= 4


def test_odd_sizes_gain_a_repeated_edge(tmp_path):
    frames = smooth(10, 47, 63)
    read = video.read(video.write(tmp_path / "clip.mp4", film(frames, 10))).frames
    assert read.shape == (10, 3, 48, 64)
    assert psnr(read[:, :, :47, :63], frames) > 30
    assert (read[:, :, 47].int() - read[:, :, 46].int()).abs().float().mean() < 6


def test_key_frames_come_every_twelve_frames(tmp_path):
    path = video.write(tmp_path / "clip.mp4", film(smooth(60), 25))
    with av.open(str(path)) as container:
        keys = [i for i, p in enumerate(container.demux(video=0)) if p.is_keyframe and p.size]
    assert keys[0] == 0
    assert max(np.diff([*keys, 60])) <= 12


def test_the_index_comes_first_so_that_browsers_can_start(tmp_path):
    data = video.write(tmp_path / "clip.mp4", film(smooth(), 25)).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_clips_can_be_appended(tmp_path):
    clip = film(smooth(40), 25)
    with video.Writer(tmp_path / "pieces.mp4", 25) as writer:
        for first in range(0, 40, 15):
            writer.append(clip[first : first + 15])
    whole = video.write(tmp_path / "whole.mp4", clip)
    assert torch.equal(video.read(tmp_path / "pieces.mp4").frames, video.read(whole).frames)


def test_the_same_frames_become_the_same_bytes(tmp_path):
    for size in ((32, 32), (48, 64), (64, 96)):
        clip = film(smooth(40, *size), 25)
        written = {video.write(tmp_path / "clip.mp4", clip).read_bytes() for _ in range(5)}
        assert len(written) == 1


def test_a_failed_write_leaves_no_file(tmp_path):
    def interrupted():
        with video.Writer(tmp_path / "clip.mp4", 25) as writer:
            writer.append(film(smooth(5), 25))
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_says_the_cure(tmp_path):
    several = film(smooth(4).expand(3, -1, -1, -1, -1), 10)
    with pytest.raises(AvenirError, match=r"clip\.sample"):
        video.write(tmp_path / "clip.mp4", several)
    with pytest.raises(AvenirError, match=r"\.mp4"):
        video.write(tmp_path / "clip.wmv", film(smooth(4), 10))
    with pytest.raises(AvenirError, match="one"):
        video.write(tmp_path / "clip.png", film(smooth(4), 10))
    with pytest.raises(AvenirError, match="resized"), video.Writer(tmp_path / "a.mp4", 10) as out:
        out.append(film(smooth(4), 10))
        out.append(film(smooth(4, 24, 24), 10))


def test_pictures_are_videos(tmp_path):
    frames = smooth(8)
    one = film(frames[:1], 10)
    assert torch.equal(video.read(video.write(tmp_path / "one.png", one)).frames, frames[:1])
    moving = video.read(video.write(tmp_path / "many.gif", film(frames, 10)))
    assert moving.frames.shape == frames.shape
    assert moving.fps == pytest.approx(10)
    assert psnr(moving.frames, frames) > 25


# Time


def test_a_window_is_the_same_as_reading_everything(tmp_path):
    path = encode(tmp_path / "clip.mp4", numbered(100), gop=30)
    whole = video.read(path).frames
    assert numbers(whole) == list(range(100))
    for first, count in [(0, 5), (1, 1), (29, 4), (30, 30), (47, 12), (95, 5)]:
        window = video.read(path, seconds=count / 25, start_seconds=first / 25)
        assert torch.equal(window.frames, whole[first : first + count])


def test_the_frame_shown_at_a_time_is_the_last_one_before_it(tmp_path):
    path = encode(tmp_path / "clip.mp4", numbered(50))
    assert numbers(video.read(path, seconds=0.04, start_seconds=0.079).frames) == [1]
    assert numbers(video.read(path, seconds=0.04, start_seconds=0.08).frames) == [2]
    assert numbers(video.read(path, seconds=0.5, start_seconds=0.09, fps=10).frames) == [
        int((0.09 + k / 10) / 0.04) for k in range(5)
    ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("fps", [5, 10, 24, 25, 30, 60])
def test_resampling_is_by_timestamps(tmp_path, suffix, fps):
    path = encode(tmp_path / f"clip{suffix}", numbered(50))
    read = numbers(video.read(path, fps=fps).frames)
    assert read == [int(k * 25 / fps + 1e-6) for k in range(2 * fps)]


def test_variable_rates_are_read_by_timestamps(tmp_path):
    gaps = [40, 10, 10, 200, 40, 80, 1000, 20, 40, 40]
    ticks = [0, *np.cumsum(gaps).tolist()]
    path = encode(tmp_path / "clip.mkv", numbered(11), ticks=ticks)
    np.testing.assert_allclose(video.timestamps(path) * 1000, ticks, atol=1)
    assert numbers(video.read(path).frames) == list(range(11))
    stamps = np.array(ticks) / 1000
    for start in (0.0, 0.055, 0.3):
        times = start + np.arange(10) / 10
        expected = [int((stamps <= t + 1e-9).sum()) - 1 for t in times]
        read = video.read(path, seconds=1, start_seconds=start, fps=10).frames
        assert numbers(read) == expected


def test_frames_without_a_steady_rate_keep_their_times(tmp_path):
    ticks = [33 * k for k in range(30)] + [1000 + 100 * k for k in range(20)]
    path = encode(tmp_path / "clip.mkv", numbered(50), ticks=ticks)
    clip = video.read(path)
    assert clip.num_frames == 50 and clip.seconds == pytest.approx(2.94)
    assert clip.fps == pytest.approx(50 / 2.94)  # their mean
    for cut, seconds in ((clip[:30], 1.0), (clip[30:], 1.94), (clip[25:35:2], 0.166 + 0.5)):
        assert cut.seconds == pytest.approx(seconds, abs=0.012)
        assert cut.num_frames / cut.fps == pytest.approx(cut.seconds)
    assert numbers(clip[30:].resampled(10.0).frames) == list(range(30, 49))
    with pytest.raises(AvenirError, match="3 edges in time for 50 frames"):
        Clip(clip.frames, 10.0, edges=torch.zeros(3))
    # A file has one rate: what is written lasts as long, and shows at every time what was shown.
    written = video.read(video.write(tmp_path / "even.mp4", clip))
    assert written.edges is None and written.seconds == pytest.approx(2.94, abs=0.04)
    times = np.arange(written.num_frames) / clip.fps
    when = shown(np.array(ticks) / 1000, times)
    assert numbers(written.frames) == when.tolist()


def test_signals_of_uneven_frames_are_kept_by_time():
    frames = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    rows = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    edges = torch.tensor([0.0, 0.1, 0.5, 0.6, 0.8])
    clip = Clip(frames, 5.0, {"moved": rows, "held": rows}, edges=edges)
    even = clip.resampled(5.0, summed=["moved"])
    assert even.signals["held"][:, 0].tolist() == [1, 2, 4, 8]
    assert even.signals["moved"].sum() == 1 + 2 + 4 + 8
    often = clip.resampled(10.0).signals["held"][:, 0].tolist()
    assert often == [1, 2, 2, 2, 2, 4, 8, 8]  # of the frame that is shown, however often
    steady = replace(clip, edges=None).resampled(10.0).signals["held"][:, 0].tolist()
    assert steady == [1, 1, 2, 2, 4, 4, 8, 8]


def test_pieces_are_the_whole(tmp_path):
    path = encode(tmp_path / "clip.mp4", smooth(50))
    for settings in ({}, {"fps": 10}, {"seconds": 1, "start_seconds": 0.5, "size": (16, 16)}):
        pieces = list(video.stream(path, num_frames=7, **settings))
        assert all(piece.num_frames == 7 for piece in pieces[:-1])
        assert torch.equal(
            torch.cat([p.frames for p in pieces]), video.read(path, **settings).frames
        )


def test_resizing_while_reading_is_resizing_after(tmp_path):
    path = encode(tmp_path / "clip.mp4", smooth(10))
    for size in ((16, 16), (20, 60), (96, 96)):
        assert torch.equal(
            video.read(path, size=size).frames, video.read(path).resized(*size).frames
        )


def test_starting_after_the_end_says_where_the_end_is(tmp_path):
    path = encode(tmp_path / "clip.mp4", numbered(25))
    with pytest.raises(VideoError, match=r"ends at 1\.000 s"):
        video.read(path, start_seconds=1.5)


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"seconds": -1}, {"start_seconds": -0.5}])
def test_impossible_times_say_so(tmp_path, wrong):
    path = encode(tmp_path / "clip.mp4", numbered(5))
    with pytest.raises(AvenirError, match="=-?[0-9.]+ was given"):
        video.read(path, **wrong)


# Pictures


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path, clockwise):
    frames = smooth(5)
    path = encode(tmp_path / "clip.mp4", frames, rotation=-clockwise)
    expected = frames.rot90(-clockwise // 90, dims=(2, 3))
    read = video.read(path).frames
    assert read.shape == expected.shape
    assert psnr(read, expected) > 30
    info = video.probe(path)
    assert (info.rotation, info.height, info.width) == (clockwise, *expected.shape[2:])
    small = video.read(path, size=(16, 16)).frames
    assert torch.equal(small, video.read(path).resized(16, 16).frames)


def test_ten_bits_become_eight(tmp_path):
    frames = smooth(5)
    path = encode(tmp_path / "clip.mp4", frames, pixel_format="yuv420p10le")
    assert video.probe(path).pixel_format == "yuv420p10le"
    assert psnr(video.read(path).frames, frames) > 30


def test_odd_sizes_are_read_whole(tmp_path):
    frames = smooth(5, 47, 63)
    path = encode(tmp_path / "clip.mp4", frames, pixel_format="yuv444p")
    assert psnr(video.read(path).frames, frames) > 35


def test_percent_signs_and_wrong_extensions_do_not_matter(tmp_path):
    written = video.write(tmp_path / "one.mp4", film(smooth(5), 10))
    for name in ("100%d.mp4", "clip.jpg", "clip", "name with : and ?.avi"):
        path = tmp_path / name
        path.write_bytes(written.read_bytes())
        assert video.read(path).num_frames == 5


# Hostile files


def test_a_cut_file_keeps_its_good_frames_and_warns(tmp_path):
    path = video.write(tmp_path / "clip.mp4", film(smooth(60), 25))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.warns(video.VideoWarning, match="of the 60 frames"):
        clip = video.read(path)
    assert 12 <= clip.num_frames < 60
    assert psnr(clip.frames, smooth(60)[: clip.num_frames]) > 30
    assert len(video.timestamps(path)) == clip.num_frames
    assert video.read(path, seconds=0.2).num_frames == 5  # nothing is missing there


def test_damage_in_the_middle_does_not_end_the_file(tmp_path):
    path = video.write(tmp_path / "clip.mp4", film(smooth(120), 25))
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + len(data) // 2
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", video.VideoWarning)
        assert 80 < video.read(path).num_frames <= 120


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_no_damage_brings_the_reader_down(tmp_path, suffix):
    data = video.write(tmp_path / f"clip{suffix}", film(smooth(30), 25)).read_bytes()
    path = tmp_path / f"damaged{suffix}"
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = bytearray(data[: rng.integers(len(data))] if seed % 3 == 0 else data)
        for _ in range(rng.integers(1, 12)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(damaged)
        for work in (video.probe, video.read, video.timestamps):
            with warnings.catch_warnings(), contextlib.suppress(VideoError):
                warnings.simplefilter("ignore", video.VideoWarning)
                work(path)


def test_a_damaged_timestamp_does_not_fill_the_memory(tmp_path):
    ticks = [*range(0, 1000, 40), 10**9, *range(1000, 2000, 40)]
    path = encode(tmp_path / "clip.mkv", numbered(51), ticks=sorted(ticks))
    assert video.read(path).num_frames == 51
    with pytest.raises(VideoError, match="timestamps are damaged"):
        video.read(path, fps=10)


def png(path: Path, side: int) -> Path:
    """A black picture of `side x side`: few bytes, many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + 3 * side)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    path.write_bytes(start + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def test_unreadable_files_say_which_and_why(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile one.mp4\n")
    video.write(tmp_path / "one.mp4", film(smooth(5), 10))
    whole = (tmp_path / "one.mp4").read_bytes()
    (tmp_path / "no_index.mp4").write_bytes(whole.replace(b"moov", b"none", 1))
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    reasons = {
        "empty.mp4": "empty",
        "text.mp4": "text",
        "noise.mp4": "no readable video",
        "list.mp4": "playlist|text",
        "no_index.mp4": "index",
        "sound.mp4": "no video stream, only audio",
        "nowhere.mp4": "no file",
        ".": "folder",
    }
    for name, reason in reasons.items():
        for work in (video.probe, video.read, video.timestamps):
            with pytest.raises(VideoError, match=reason) as caught:
                work(tmp_path / name)
            assert (tmp_path / name).name in str(caught.value)


MEASURE = """
import json, sys, warnings
from avenir import video
from avenir.errors import VideoError
from tests.peak import peak_mb
found = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        clip = video.read(sys.argv[1])
        found["shape"] = list(clip.frames.shape)
        found["resampled"] = video.read(sys.argv[1], fps=10).num_frames
        found["info"] = video.probe(sys.argv[1]).declared_frames
    except VideoError as error:
        found["error"] = str(error)
found["warned"] = bool(caught)
found["peak_mb"] = peak_mb()
print(json.dumps(found))
"""


def measured(path: Path) -> dict:
    """Read a file in a process of its own, within 60 seconds and 1 GB."""
    command = [sys.executable, "-c", MEASURE, str(path)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = json.loads(output)
    assert found["peak_mb"] < 1000
    return found


@pytest.mark.slow
def test_a_picture_of_endless_size_is_refused_in_bounded_memory(tmp_path):
    found = measured(png(tmp_path / "bomb.png", 16000))
    assert "million pixels" in found["error"]
    assert found["peak_mb"] < 500


HOSTILE = {
    "01_truncated.mp4": {"shape": [128, 3, 144, 256], "warned": True},
    "02_zero_bytes.mp4": {"error": "empty"},
    "03_mp4_named.jpg": {"shape": [221, 3, 144, 256], "warned": False},
    "04_audio_only.mp4": {"error": "no video stream"},
    "05_one_frame.mp4": {"shape": [1, 3, 144, 256]},
    "06_variable_frame_rate.mp4": {"shape": [60, 3, 144, 256], "resampled": 37},
    "07_odd_63x47.mp4": {"shape": [60, 3, 47, 63]},
    "08_10bit.mp4": {"shape": [60, 3, 144, 256]},
    "09_rotated_metadata_90.mp4": {"shape": [221, 3, 256, 144]},
    "10_huge_claimed_resolution.mp4": {"shape": [221, 3, 144, 256]},
    "11_text_renamed.mp4": {"error": "text"},
    "12_missing_moov.mp4": {"error": "index (moov) is missing"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_behave_as_their_list_says(real_data, name):
    with (real_data / "corrupt" / "corrupt.csv").open() as file:
        assert name in {row["file"] for row in csv.DictReader(file)}
    found = measured(real_data / "corrupt" / name)
    expected = dict(HOSTILE[name])
    reason = expected.pop("error", None)
    assert (reason in found["error"]) if reason else "error" not in found, found
    assert {key: found[key] for key in expected} == expected


def test_the_rotated_file_is_the_other_one_turned(real_data):
    upright = video.read(real_data / "corrupt" / "03_mp4_named.jpg", seconds=1).frames
    turned = video.read(real_data / "corrupt" / "09_rotated_metadata_90.mp4", seconds=1).frames
    assert torch.equal(turned, upright.rot90(-1, dims=(2, 3)))


# Footage and signals by time


def test_footage_in_memory_is_footage_on_demand(tmp_path):
    path = encode(tmp_path / "clip.mp4", numbered(100))
    kept = Footage(path, (16, 16), in_memory=True, start_seconds=1, seconds=2)
    read = Footage(path, (16, 16), in_memory=False, start_seconds=1, seconds=2)
    for start in (0.0, 0.015, 1.0, 1.2):
        for fps in (7, 10, 25, 40):
            frames = kept.window(start, 5, fps)
            assert torch.equal(frames, read.window(start, 5, fps))
            expected = [25 + min(49, int((start + k / fps) * 25 + 1e-6)) for k in range(5)]
            assert numbers(frames) == expected


def test_every_phase_of_the_recording_is_used(tmp_path):
    path = encode(tmp_path / "clip.mp4", numbered(50))
    footage = Footage(path, (16, 16), in_memory=True)
    firsts = {numbers(footage.window(start, 3, 5))[0] for start in np.linspace(0, 0.2, 50)}
    assert firsts == set(range(6))


def test_pictures_in_order_are_footage(tmp_path):
    frames = numbered(12)
    paths = [video.write(tmp_path / f"{i}.png", film(frames[i : i + 1], 1)) for i in range(12)]
    for in_memory in (True, False):
        pictures = Pictures(paths, 10, (16, 16), in_memory=in_memory)
        assert numbers(pictures.window(0.25, 4, 5)) == [2, 4, 6, 8]
    paths[5].write_bytes(b"broken")
    with pytest.warns(video.VideoWarning, match=r"5\.png"):
        assert numbers(Pictures(paths, 10, (16, 16), in_memory=True).window(0, 8, 10))[5] == 4


def test_shown_is_the_last_timestamp_not_later():
    stamps = np.array([0.0, 0.1, 0.35])
    assert shown(stamps, np.array([-1, 0, 0.0999, 0.1, 0.34, 0.35, 9])).tolist() == [
        0, 0, 1, 1, 1, 2, 2,
    ]  # fmt: skip


def test_actions_resample_to_slower_rates():
    values, stamps = np.arange(1.0, 13)[:, None], np.arange(12) / 30

    def at(fps: float, num_frames: int, how, start: float = 0.0):
        return resample(values, stamps, 12 / 30, start, num_frames, fps, how)[:, 0].tolist()

    assert (
        at(30, 12, "absolute") == at(30, 12, "delta") == at(30, 12, "observed") == [*range(1, 13)]
    )
    assert at(10, 4, "absolute") == [3, 6, 9, 12]  # the last before the next target frame
    assert at(10, 4, "delta") == [6, 15, 24, 33]  # nothing of the motion is lost
    assert at(10, 4, "observed") == [1, 4, 7, 10]  # what belongs to the frame that is shown
    assert at(10, 3, "delta", start=1 / 30) == [9, 18, 27]


def test_actions_resample_to_faster_rates():
    values, stamps = np.array([[1.0], [2.0], [4.0]]), np.arange(3) / 10
    slow = [resample(values, stamps, 0.3, 0, 6, 20, how)[:, 0] for how in ("absolute", "delta")]
    assert slow[0].tolist() == [1, 1, 2, 2, 4, 4]
    assert slow[1].tolist() == [0, 1, 0, 2, 0, 4]  # beside the step to the next recorded frame


def test_a_row_that_is_unknown_leaves_the_others_known():
    values, stamps = np.array([[1.0, 1], [2, np.nan], [4, 4], [8, 8]]), np.arange(4) / 20
    found = resample(values, stamps, 0.2, 0, 2, 10, "delta")
    np.testing.assert_array_equal(found, [[3, np.nan], [12, 12]])
    frames = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    clip = Clip(frames, 20.0, {"moved": torch.from_numpy(values)}).resampled(10.0, ["moved"])
    np.testing.assert_array_equal(clip.signals["moved"], found)


@pytest.mark.parametrize("fps", [3, 7.3, 10, 30, 45])
def test_sums_of_deltas_do_not_depend_on_the_rate(fps):
    rng = np.random.default_rng(0)
    stamps = np.cumsum(rng.uniform(0.01, 0.1, 40)) - 0.01
    values = rng.normal(size=(40, 2))
    end = stamps[-1] + 0.05
    num_frames = int(np.ceil((end - stamps[0]) * fps))
    total = resample(values, stamps, end, stamps[0], num_frames, fps, "delta").sum(0)
    np.testing.assert_allclose(total, values.sum(0), atol=1e-9)
