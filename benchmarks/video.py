"""How fast `avenir.video.read` is, as a ratio to a bare PyAV loop over the same file.

    python benchmarks/video.py [FILE …]

Without files, a 1280 x 720 one is generated. Both sides keep every frame, as rgb arrays. Every
measurement has a process of its own, so that none reuses another's memory, and the order rotates;
printed are medians of ratios, of the time on the clock and of the time on processors, which a
busy machine disturbs less.
"""

import multiprocessing
import os
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


def pieces(path: Path) -> int:
    return sum(clip.num_frames for clip in video.stream(path))


def small(path: Path) -> int:
    return video.read(path, size=(64, 64)).num_frames


WORKS = {"read": whole, "stream": pieces, "read 64x64": small}


def measure(work: Callable[[Path], int], path: Path) -> tuple[int, float, float]:
    """Return (frames, seconds on the clock, seconds on processors)."""
    torch.set_num_threads(1)
    before, start = os.times(), time.perf_counter()
    num_frames = work(path)
    seconds, after = time.perf_counter() - start, os.times()
    return num_frames, seconds, after.user + after.system - before.user - before.system


def generate(path: Path, num_frames: int = 240) -> int:
    rows, columns = torch.arange(720)[:, None], torch.arange(1280)
    noise = torch.randint(256, (3, 720, 1280), generator=torch.Generator().manual_seed(0)) // 4
    with video.Writer(path, fps=30) as writer:
        for i in range(num_frames):
            ramps = [rows + 4 * i + 0 * columns, columns + 2 * i + 0 * rows, rows + columns]
            picture = (torch.stack(ramps) % 256 + noise.roll(i, 2)) // 2
            writer.append(Clip(picture[None].to(torch.uint8), 30))
    return num_frames


def report(paths: list[Path]) -> Table:
    table = Table("file", "bare frames/s", *WORKS, title="times faster than bare PyAV: clock (cpu)")
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for path in paths or [Path(tempfile.mkdtemp()) / "generated.mp4"]:
            if not path.exists():
                pool.apply(generate, (path,))
            rounds = []
            for number in range(NUM_ROUNDS):
                works = [bare, *WORKS.values()]
                order = works[number % len(works) :] + works[: number % len(works)]
                taken = {work: pool.apply(measure, (work, path)) for work in order}
                rounds.append([taken[work] for work in works])
            speed = statistics.median(r[0][0] / r[0][1] for r in rounds)
            cells = []
            for i in range(1, len(WORKS) + 1):
                clock, cpu = (statistics.median(r[0][k] / r[i][k] for r in rounds) for k in (1, 2))
                cells.append(f"{clock:.2f} ({cpu:.2f})")
            table.add_row(path.name, f"{speed:.0f}", *cells)
    return table


if __name__ == "__main__":
    Console().print(report([Path(word) for word in sys.argv[1:]]))
