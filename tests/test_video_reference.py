"""Seven hundred generated files are read as FFmpeg's own tool reads them: same frames, same times.

Containers x codecs x B-frames x rates x edit lists x rotation x start times, and the odd things
that recorders do: joined and cut transport streams, dropped frames, longer sound, raw streams.
"""

import subprocess
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from avenir import video
from avenir.video.footage import Footage, shown
from tests.test_video import numbered

pytestmark = pytest.mark.slow

NUM_FRAMES = 16
RATES = ("24", "25", "30000/1001", "30", "50")
UNEVEN = "setpts='(N+3*gt(N,5)+floor(N/4))/(25*TB)'"
X264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 6"
X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none:pools=none:keyint=6"
VPX = "-g 6 -deadline realtime -cpu-used 8"
CODECS = {
    "h264": (f"{X264} -bf 0", "mp4 mov mkv avi asf ts flv h264"),
    "h264_b": (f"{X264} -bf 2 -b_strategy 0", "mp4 mov mkv avi asf ts flv h264"),
    "h264_open": (
        f"{X264} -bf 3 -b_strategy 0 -x264-params b-pyramid=normal:open-gop=1",
        "mp4 mkv avi ts flv h264",
    ),
    "hevc": (f"{X265}:bframes=0", "mp4 mkv ts hevc"),
    "hevc_b": (f"{X265}:bframes=3", "mp4 mov mkv ts hevc"),
    "mpeg4": ("-c:v mpeg4 -g 6", "mp4 mov mkv avi ts m4v"),
    "mpeg4_b": ("-c:v mpeg4 -g 6 -bf 2", "mp4 mov mkv avi asf ts m4v"),
    "xvid": ("-c:v libxvid -g 6 -bf 2", "avi"),
    "mpeg2": ("-c:v mpeg2video -g 6", "mpg ts mkv m2v"),
    "mpeg2_b": ("-c:v mpeg2video -g 6 -bf 2", "mpg ts mkv m2v"),
    "vp8": (f"-c:v libvpx {VPX}", "webm mkv"),
    "vp8_hidden": ("-c:v libvpx -g 6 -lag-in-frames 5 -auto-alt-ref 1 -cpu-used 4", "webm mkv"),
    "vp9": (f"-c:v libvpx-vp9 {VPX}", "webm mp4"),
    "mjpeg": ("-c:v mjpeg -pix_fmt yuvj420p -q:v 3", "avi mov mkv mjpeg"),
    "ffv1": ("-c:v ffv1", "mkv avi"),
    "gif": ("-c:v gif -pix_fmt gray", "gif"),
}
"""How each codec is asked for, and where it is put."""
RAW = {"m2v": "mpeg2video", "m4v": "m4v"}
IN_BAND = {
    "h264": "-bsf:v h264_mp4toannexb",
    "hevc": "-bsf:v hevc_mp4toannexb",
    "mpeg4": "-bsf:v dump_extra",
}
"""What puts a codec's parameters into the stream, for containers that have no other place."""
TIMED = ("mp4", "mov", "mkv", "webm", "ts", "flv", "mpg")
STRANGE = {
    "edit": ("mp4 mov", "-ss 0.13 -i {base} -map 0:v -c copy"),
    "edit_end": ("mp4", "-ss 0.21 -i {base} -map 0:v -t 0.25 -c copy"),
    "late": ("mp4 mkv ts flv", "-i {base} -map 0:v -c copy -output_ts_offset 1.7"),
    "turned": ("mp4 mov", "-display_rotation 90 -i {base} -map 0:v -c copy"),
    "flipped": ("mp4", "-display_rotation 180 -display_hflip -i {base} -map 0:v -c copy"),
    "sound": (
        "mp4 mkv avi ts flv",
        "-i {base} -f lavfi -i sine=duration=1.3:sample_rate=44100 -map 0:v -map 1:a -c:v copy"
        " -c:a libmp3lame -b:a 64k",
    ),
    "sound_first": (
        "mp4 mkv ts",
        "-i {base} -f lavfi -i sine=duration=1.3:sample_rate=44100 -map 1:a -map 0:v -c:v copy"
        " -c:a libmp3lame -b:a 64k",
    ),
    "fragments": ("mp4", "-i {base} -map 0:v -c copy -movflags frag_keyframe+empty_moov"),
    "live": ("mkv", "-i {base} -map 0:v -c copy -live 1"),
}
"""What recorders and editors do to a file, where, and how FFmpeg is asked for it."""


@dataclass(frozen=True)
class Reference:
    """What FFmpeg's tool shows: frames as `T 8 8` thumbnails, and when, from the first."""

    thumbnails: np.ndarray
    seconds: np.ndarray


def ffmpeg(folder: Path, *words: str) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "fatal", "-nostdin", "-y", *words]
    subprocess.run(command, cwd=folder, check=True, timeout=120)


def containers(codec: str, extensions: str) -> list[str]:
    return [e for e in extensions.split() if e in CODECS[codec][1].split()]


def output(codec: str, extension: str, name: str) -> list[str]:
    kind = codec.partition("_")[0]
    filtered = IN_BAND.get(kind, "") if extension in ("avi", "asf", "ts", "m4v", kind) else ""
    muxer = f"-f {RAW[extension]}" if extension in RAW else ""
    return [*filtered.split(), *muxer.split(), name]


def generate(folder: Path) -> list[Path]:
    """Encode every codec at every rate once, copy it into every container, and disturb some."""
    numbered(NUM_FRAMES)[:, 0].numpy().tofile(folder / "source.raw")
    for rate in (*RATES, "uneven"):
        raw = "-f rawvideo -pix_fmt gray -s 32x32 -framerate"
        source = [*raw.split(), "25" if rate == "uneven" else rate, "-i", "source.raw"]
        words: list[str] = []
        for codec, (encoder, extensions) in CODECS.items():
            if rate == "uneven":
                if codec.startswith("mpeg2") or not containers(codec, " ".join(TIMED)):
                    continue
                words += ["-vf", UNEVEN, "-fps_mode", "vfr", "-enc_time_base", "1:1000"]
            base = (
                extensions.split()[0]
                if codec in ("xvid", "vp8", "vp8_hidden", "ffv1", "gif")
                else "mp4"
            )
            words += [*encoder.split(), "-threads", "1", f"base_{codec}.{base}"]
        ffmpeg(folder, *source, *words)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(partial(disturb, folder, rate), sorted(folder.glob("base_*"))))
        for path in folder.glob("base_*"):
            path.unlink()
    return sorted(p for p in folder.iterdir() if p.name != "source.raw")


def disturb(folder: Path, rate: str, base: Path) -> None:
    codec, label = base.stem.removeprefix("base_"), rate.partition("/")[0]
    words = []
    for extension in CODECS[codec][1].split():
        taken = extension == "m4v" and "/" in rate  # the tool takes 30000 for the rate
        if (rate != "uneven" or extension in TIMED) and not taken:
            name = f"{codec}.{label}.{extension}"
            words += ["-map", "0:v", "-c", "copy", *output(codec, extension, name)]
    ffmpeg(folder, "-i", base.name, *words)
    if rate not in ("25", "30000/1001"):
        return
    for how, (extensions, command) in STRANGE.items():
        for extension in containers(codec, extensions):
            filled = command.format(base=base.name).split()
            ffmpeg(folder, *filled, *output(codec, extension, f"{codec}.{label}.{how}.{extension}"))
    for extension in ("ts", "mpg", "sound.ts"):
        stream = folder / f"{codec}.{label}.{extension}"
        if not stream.is_file() or (codec.startswith("mpeg4") and "/" in rate):
            continue
        data = stream.read_bytes()
        stream.with_suffix(f".joined{stream.suffix}").write_bytes(3 * data)
        cut = len(data) // 188 // 4 * 188
        if extension == "ts":
            stream.with_suffix(".spliced.ts").write_bytes(data + data[cut:])
        if extension == "ts" and codec != "h264_open":  # its parameters are sent but once
            stream.with_suffix(".cut.ts").write_bytes(data[cut:])


def references(folder: Path, paths: list[Path]) -> list[Reference]:
    """Let FFmpeg's tool decode files: every frame once, turned as it would be shown."""
    words: list[str] = []
    for path in paths:
        words += ["-threads", "1", "-i", path.name]
    for i, path in enumerate(paths):
        every = ["-map", f"{i}:v:0", "-fps_mode", "passthrough", "-enc_time_base", "demux"]
        small = ["-vf", "scale=8:8:flags=area,format=gray"]
        words += [*every, *small, "-f", "rawvideo", f"{path.name}.raw"]
        words += [*every, *small, "-f", "framecrc", f"{path.name}.times"]
    ffmpeg(folder, *words)
    return [reference(folder / path.name) for path in paths]


def reference(path: Path) -> Reference:
    lines = path.with_name(f"{path.name}.times").read_text().splitlines()
    tick = Fraction(next(line for line in lines if line.startswith("#tb"))[7:])
    ticks = np.array([int(line.split(",")[2]) for line in lines if line[0] != "#"])
    pixels = np.fromfile(path.with_name(f"{path.name}.raw"), np.uint8).reshape(-1, 8, 8)
    return Reference(pixels, (ticks - ticks[0]) * float(tick))


def same(frames: torch.Tensor, thumbnails: np.ndarray) -> bool:
    small = frames.float().mean(1).unflatten(1, (8, 4)).unflatten(3, (8, 4)).mean((2, 4))
    return len(frames) == len(thumbnails) and np.abs(small.numpy() - thumbnails).max() < 64


def check(path: Path, expected: Reference) -> str | None:
    """Say what is not as FFmpeg has it: every frame, from the middle, at rates, with memory."""
    with warnings.catch_warnings():
        lossy = path.name.split(".")[2] in ("cut", "spliced")
        warnings.simplefilter("ignore" if lossy else "error", video.VideoWarning)
        frames = video.read(path).frames
    seconds = expected.seconds
    if not same(frames, expected.thumbnails):
        return f"{len(frames)} frames for {len(seconds)}"
    if not np.allclose(video.timestamps(path), seconds, atol=1e-6):
        return f"at {video.timestamps(path)} for {seconds}"
    kept, read = (Footage(path, (32, 32), in_memory=kept) for kept in (True, False))
    middle = len(seconds) // 2
    rest = video.decode(path, start_seconds=float(seconds[middle]))[1]
    wanted = seconds[shown(seconds, seconds[middle]) :]
    if len(rest) != len(wanted) or not np.allclose(rest, wanted, atol=1e-6):
        return f"from {seconds[middle]:g} at {rest} for {wanted}"
    for fps, start in ((25.0, 0.0), (30.0, float(seconds[middle])), (47.0, float(seconds[-2]) / 3)):
        times = start + np.arange(max(1, int((seconds[-1] - start) * fps))) / fps
        thumbnails = expected.thumbnails[shown(seconds, times)]
        for footage in (kept, read):
            if not same(footage.window(start, len(times), fps), thumbnails):
                memory = "with" if footage.in_memory else "without"
                return f"other frames from {start:g} at {fps:g} fps {memory} memory"
    return None


def test_every_file_is_read_as_ffmpeg_reads_it(tmp_path):
    paths = generate(tmp_path)
    assert len(paths) >= 700
    wrong = {}
    for first in range(0, len(paths), 20):
        batch = paths[first : first + 20]
        for path, expected in zip(batch, references(tmp_path, batch), strict=True):
            fault = check(path, expected)
            if fault:
                wrong[path.name] = fault
    assert not wrong, "\n".join(f"{name}: {fault}" for name, fault in wrong.items())
