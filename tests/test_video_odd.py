"""What recorders, phones and editors make of files: times, photos, colours, sizes.

Small inputs, one per kind of fault; `test_video_reference` holds hundreds against FFmpeg's tool.
"""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from avenir import device, video
from avenir.errors import AvenirError, VideoError
from avenir.video import decoding, reading
from avenir.video.footage import Footage
from tests.test_video import film, numbered, numbers, smooth

pytestmark = pytest.mark.filterwarnings("error")


def encode(
    path: Path,
    num_frames: int = 40,
    codec: str = "libx264",
    rate: float | Fraction = 30,
    sound_seconds: float = 0.0,
    skip: int = 1,
    **options: str,
) -> Path:
    """Write numbered frames, all of them or every `skip`th, with B-frames unless told otherwise."""
    given = {"crf": "5", "g": "12", "bf": "2"} if codec == "libx264" else {}
    with av.open(str(path), "w", format="h264" if path.suffix == ".h264" else None) as container:
        stream = container.add_stream(codec, rate=Fraction(rate), options={**given, **options})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        sound = container.add_stream("mp3", rate=44100) if sound_seconds else None
        for i, picture in enumerate(numbered(num_frames).permute(0, 2, 3, 1).contiguous().numpy()):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = i, 1 / Fraction(rate)
            if i % skip == 0:
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            silence = np.zeros((1, int(44100 * sound_seconds)), np.float32)
            heard = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
            heard.sample_rate = 44100
            container.mux([*sound.encode(heard), *sound.encode(None)])
    return path


def assert_read(path: Path, expected: list[int], rate: float, seconds: np.ndarray) -> None:
    """Hold a file against its frames and times: whole, at its rate, in windows, with memory."""
    assert numbers(video.read(path).frames) == expected
    np.testing.assert_allclose(video.timestamps(path), seconds, atol=1e-3)
    np.testing.assert_allclose(video.decode(path)[1], seconds, atol=1e-3)
    times = np.arange(len(expected)) / rate
    shown = [expected[int((seconds <= t + 1e-3).sum()) - 1] for t in times]
    assert numbers(video.read(path, fps=rate).frames)[: len(times)] == shown
    for in_memory in (True, False):
        footage = Footage(path, (32, 32), in_memory=in_memory)
        for first in (0, 5, 13, len(expected) - 4):
            assert numbers(footage.window(first / rate, 4, rate)) == shown[first : first + 4]


# Times


@pytest.mark.parametrize("suffix", [".avi", ".asf"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("rate", [30, Fraction(30000, 1001), 12])
def test_b_frames_are_read_in_order_where_no_time_is_stored(tmp_path, suffix, codec, rate):
    path = encode(tmp_path / f"clip{suffix}", codec=codec, rate=rate, bf="2", **{"q:v": "2"})
    assert_read(path, list(range(40)), float(rate), np.arange(40) / float(rate))


def test_packed_b_frames_are_read_in_order(tmp_path):
    """As old encoders put them into AVI: two frames in a packet, then one that holds none."""
    plain, packed = encode(tmp_path / "plain.avi", codec="mpeg4", bf="1"), list[bytes]()
    with av.open(str(plain)) as container, av.open(str(tmp_path / "packed.avi"), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in (packet for packet in container.demux(video=0) if packet.size):
            head, start, frame = bytes(packet).partition(b"\0\0\1\xb6")
            encoder = b"\0\0\1\xb2DivX503b1393p" if packet.is_keyframe else b""
            packed.append(head + encoder + start + frame)
            if frame[0] >> 6 == 2:  # shown in between: it goes with the frame that it needs
                packed[-2:] = [packed[-2] + packed[-1], start + b"\x7f"]
        for k, data in enumerate(packed):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.duration = stream, Fraction(1, 30), 1
            packet.pts = packet.dts = k
            packet.is_keyframe = b"DivX" in data
            output.mux(packet)
    assert packed.count(b"\0\0\1\xb6\x7f") > 10
    assert_read(tmp_path / "packed.avi", list(range(40)), 30, np.arange(40) / 30)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_joined_transport_streams_go_on(tmp_path, codec):
    one = encode(tmp_path / "one.ts", 24, codec=codec, rate=25).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(3 * one)
    assert_read(path, 3 * list(range(24)), 25.0, np.arange(72) / 25)


def test_files_joined_byte_by_byte_go_on(tmp_path):
    path = encode(tmp_path / "part.mkv")
    path.write_bytes(path.read_bytes() * 2)
    stamps = video.timestamps(path)
    assert numbers(video.read(path).frames) == [*range(40)] * 2
    assert (np.diff(stamps) > 0).all()
    np.testing.assert_array_equal(stamps, video.decode(path)[1])
    np.testing.assert_allclose(stamps[40:] - stamps[40], np.arange(40) / 30, atol=2e-3)


def test_a_transport_stream_cut_anywhere_starts_at_its_first_key_frame(tmp_path):
    data = encode(tmp_path / "one.ts", 60, rate=25).read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(data[len(data) // 188 // 4 * 188 :])
    with pytest.warns(video.VideoWarning, match="lacks"):
        found = numbers(video.read(path).frames)
    assert found == list(range(found[0], 60))
    assert 0 < found[0] <= 24
    np.testing.assert_allclose(video.timestamps(path), np.arange(len(found)) / 25, atol=1e-6)
    for in_memory in (True, False):
        window = Footage(path, (32, 32), in_memory=in_memory).window(10 / 25, 8, 25.0)
        assert numbers(window) == found[10:18]


@pytest.mark.parametrize("rate", [30, 25, 50])
def test_a_raw_stream_has_the_rate_it_says(tmp_path, rate):
    path = encode(tmp_path / "clip.h264", rate=rate)
    assert video.probe(path).fps == rate
    assert_read(path, list(range(40)), rate, np.arange(40) / rate)


def test_an_avi_of_dropped_frames_keeps_its_times(tmp_path):
    path = encode(tmp_path / "clip.avi", 60, codec="mjpeg", skip=3)
    frames, times = video.decode(path)
    assert numbers(frames) == list(range(0, 60, 3))
    np.testing.assert_allclose(times, np.arange(0, 60, 3) / 30, atol=1e-6)
    window = Footage(path, (32, 32), in_memory=False).window(1.0, 10, 30)
    assert numbers(window) == [3 * (i // 3) for i in range(30, 40)]
    assert video.read(path).num_frames == 20  # and no warning
    assert video.probe(path).declared_frames == 20


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        ([0, 40, 80, 20, 160, 200], [0, 40, 80, 80, 160, 200]),  # one strays
        ([0, 40, 500, 540, 0, 40, 80], [0, 40, 500, 540, 580, 620, 660]),  # restarted
        ([0, 40, 500, 540, 0, 620], [0, 40, 500, 540, 580, 620]),  # far astray
        ([0, None, None, 120], [0, 40, 80, 120]),  # not stored
    ],
)
def test_times_ascend_whatever_a_file_says(tmp_path, ticks, expected):
    with decoding.Video(encode(tmp_path / "clip.mkv", rate=25)) as clip:
        frames = [av.VideoFrame(32, 32) for _ in ticks]
        for frame, pts in zip(frames, ticks, strict=True):
            frame.pts = pts
        seconds = [clip.clock.seconds(frame) for frame in frames]
    np.testing.assert_allclose(seconds, np.array(expected) / 1000)


# What is called damaged, is


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi", ".ts", ".flv", ".asf"])
@pytest.mark.parametrize("sound_seconds", [0.0, 4.0])
def test_whole_files_are_not_called_damaged(tmp_path, suffix, sound_seconds):
    codec = "mpeg4" if suffix in (".avi", ".asf") else "libx264"
    path = encode(tmp_path / f"clip{suffix}", codec=codec, sound_seconds=sound_seconds)
    assert video.read(path).num_frames == 40
    assert numbers(video.read(path, start_seconds=0.9).frames) == list(range(27, 40))
    assert numbers(video.read(path, start_seconds=0.9, seconds=0.2).frames) == list(range(27, 33))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi", ".flv"])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_files_that_are_cut_off_are(tmp_path, suffix, start):
    whole = video.write(tmp_path / "whole.mp4", film(smooth(300), 30))
    path = tmp_path / f"clip{suffix}"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        if suffix == ".avi":
            stream = target.add_stream("mjpeg", rate=30)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
            for frame in source.decode(video=0):
                target.mux(stream.encode(frame.reformat(format="yuvj420p")))
        elif suffix != ".mp4":
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    data = (whole if suffix == ".mp4" else path).read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.warns(video.VideoWarning, match="cut off"):
        assert video.read(path, start_seconds=start).num_frames < 290


# Photos


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_with_exif_are_read_upright(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(smooth(1)[0].permute(1, 2, 0).numpy()).save(path, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    picture = video.read(path).frames[0].permute(1, 2, 0).numpy()
    assert picture.shape == upright.shape
    assert np.abs(picture.astype(float) - upright).mean() < 3
    info = video.probe(path)
    assert (info.height, info.width) == upright.shape[:2]


def test_exif_within_the_frames_of_a_video_is_no_obstacle(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "camera"
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuvj420p"
        for i, picture in enumerate(numbered(24).permute(0, 2, 3, 1).contiguous().numpy()):
            photo = tmp_path / "photo.jpg"
            Image.fromarray(picture).save(photo, quality=95, exif=exif)
            packet = av.Packet(photo.read_bytes())
            packet.stream, packet.pts, packet.dts = stream, i, i
            packet.time_base, packet.is_keyframe = Fraction(1, 30), True
            container.mux(packet)
    assert_read(path, list(range(24)), 30.0, np.arange(24) / 30)


# Colours and speed


@pytest.mark.parametrize(("curve", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_high_dynamic_range_is_said(tmp_path, curve, name):
    path = encode(tmp_path / "clip.mp4", 5, **{"x264-params": f"transfer={curve}"})
    with pytest.warns(video.VideoWarning, match=rf"high dynamic range \({name}\)") as warned:
        assert video.read(path).num_frames == 5
    assert len(warned) == 1


@pytest.mark.parametrize("fps", [1, 7, 12, 15, 24, 25, 29.97, 30, 50])
def test_gifs_have_the_speed_that_was_asked_for(tmp_path, fps):
    path = video.write(tmp_path / "clip.gif", film(smooth(40), fps))
    times = video.timestamps(path)
    np.testing.assert_allclose(times, np.arange(40) / fps, atol=0.00501)
    with Image.open(path) as picture:
        delays = []
        for i in range(40):
            picture.seek(i)
            delays.append(picture.info["duration"])
    assert sum(delays) == pytest.approx(1000 * 40 / fps, abs=5.01)
    assert min(delays) >= 20


@pytest.mark.parametrize("fps", [60, 100, 240])
def test_gifs_faster_than_browsers_show_are_said(tmp_path, fps):
    with pytest.warns(video.VideoWarning, match=f"at 50 fps.* not at {fps}"):
        path = video.write(tmp_path / "clip.gif", film(smooth(10), fps))
    np.testing.assert_allclose(video.timestamps(path), np.arange(10) / 50, atol=1e-6)


def test_gifs_slower_than_they_can_be_say_so(tmp_path):
    with pytest.raises(AvenirError, match=r"655\.35 s"):
        video.write(tmp_path / "clip.gif", film(smooth(2), 0.001))


# Memory


def gif(path: Path, side: int, num_frames: int, hundredths: int) -> Path:
    """A gif of few bytes and a large canvas, of which one pixel changes."""
    data = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    for _ in range(num_frames):
        data += b"\x21\xf9\x04" + struct.pack("<BHBB", 0, hundredths, 0, 0)
        data += b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    path.write_bytes(data + b";")
    return path


@pytest.fixture
def free(monkeypatch):
    """Pretend that so many bytes of memory are free."""

    def pretend(num_bytes: int) -> None:
        for module in (decoding, reading):
            monkeypatch.setattr(module, "free_memory_bytes", lambda: num_bytes)

    return pretend


def test_more_frames_than_fit_are_refused_before_they_are_decoded(tmp_path, free, monkeypatch):
    path = gif(tmp_path / "many.gif", 1000, 200, 4)
    assert path.stat().st_size < 5000
    free(2 * 10**9)
    num_painted = []
    paint = reading.Painter.__call__
    monkeypatch.setattr(
        reading.Painter, "__call__", lambda *given: num_painted.append(1) or paint(*given)
    )
    with pytest.raises(VideoError, match=r"0\.6 GB; a clip may take 0\.5 GB here"):
        video.read(path)
    with pytest.raises(VideoError, match="a clip may take"):
        video.read(gif(tmp_path / "slow.gif", 300, 3, 65535), fps=30)
    assert not num_painted
    assert video.read(path, size=(16, 16)).num_frames == 200
    assert sum(piece.num_frames for piece in video.stream(path, num_frames=50)) == 200


def test_a_picture_of_more_pixels_than_fit_is_refused(tmp_path, free):
    path = tmp_path / "photo.png"
    Image.new("RGB", (2000, 2000)).save(path)
    free(10**8)
    with pytest.raises(VideoError, match="above 3 million pixels"):
        video.read(path)
    free(10**9)
    assert video.read(path).num_frames == 1


def test_free_memory_is_that_of_the_machine_or_of_its_container(tmp_path):
    assert 2**20 < device.free_memory_bytes() < 2**50
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    for folder in (proc, cgroup):
        folder.mkdir()
    (proc / "meminfo").write_text("MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable: 700 kB\n")
    assert device.free_memory_bytes(proc, cgroup) == 700 * 1024
    (cgroup / "memory.max").write_text("max\n")
    assert device.free_memory_bytes(proc, cgroup) == 700 * 1024
    (cgroup / "memory.max").write_text("500000\n")
    (cgroup / "memory.stat").write_text("anon 200000\nfile 100000\n")
    assert device.free_memory_bytes(proc, cgroup) == 300000
