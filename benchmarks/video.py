"""How fast `avenir.video.read` is, as a ratio to a bare PyAV loop over the same file.

    python benchmarks/video.py [FILE …]

Without files, a 1280 x 720 one is generated. Both sides keep every frame, as rgb arrays. Rounds
alternate, so that a noisy machine slows both; the median of the rounds' ratios is printed.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import torch
from rich.console import Console
from rich.table import Table

from avenir import video
from avenir.clip import Clip

NUM_ROUNDS = 7


def bare(path: Path) -> int:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        return len([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


def whole(path: Path) -> int:
    return video.read(path).num_frames


def small(path: Path) -> int:
    return video.read(path, size=(64, 64)).num_frames


def pieces(path: Path) -> int:
    return sum(clip.num_frames for clip in video.stream(path))


def rate(work: Callable[[Path], int], path: Path) -> float:
    start = time.perf_counter()
    return work(path) / (time.perf_counter() - start)


def generate(path: Path, num_frames: int = 240) -> Path:
    rows, columns = torch.arange(720)[:, None], torch.arange(1280)
    noise = torch.randint(256, (3, 720, 1280), generator=torch.Generator().manual_seed(0)) // 4
    with video.Writer(path, fps=30) as writer:
        for i in range(num_frames):
            picture = torch.stack(
                [rows + 4 * i + 0 * columns, columns + 2 * i + 0 * rows, rows + columns]
            )
            picture = (picture % 256 + noise.roll(i, 2)) // 2
            writer.append(Clip(picture[None].to(torch.uint8), 30))
    return path


def report(paths: list[Path]) -> Table:
    table = Table(
        "file", "bare frames/s", "read", "stream", "read 64x64", title="ratio to bare PyAV"
    )
    for path in paths:
        rounds = [
            [rate(work, path) for work in (bare, whole, pieces, small)] for _ in range(NUM_ROUNDS)
        ]
        speed = statistics.median(r[0] for r in rounds)
        ratios = [statistics.median(r[i] / r[0] for r in rounds) for i in (1, 2, 3)]
        table.add_row(path.name, f"{speed:.0f}", *(f"{ratio:.2f}" for ratio in ratios))
    return table


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        given = [Path(word) for word in sys.argv[1:]]
        Console().print(report(given or [generate(Path(folder) / "generated.mp4")]))
