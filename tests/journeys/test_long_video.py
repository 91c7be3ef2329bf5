"""Long video in bounded memory, and hostile files through `avenir predict`."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from avenir.clip import Clip
from avenir.video import Writer, probe

from ..conftest import save_tiny_world

SIZE = (144, 256)


def run(*words: str, timeout: float = 300) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run the command line in a process of its own; return it and its peak memory in MB."""
    program = (
        "import sys, torch\n"
        "torch.set_num_threads(1)\n"
        "from avenir.cli import main\n"
        "from tests.peak import peak_mb\n"
        "sys.argv = ['avenir', *sys.argv[1:]]\n"
        "try:\n    main()\n"
        "finally:\n    print('PEAK', peak_mb())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=timeout
    )
    peak = [line for line in done.stdout.splitlines() if line.startswith("PEAK")]
    return done, float(peak[-1].split()[1]) if peak else float("nan")


def write_video(path: Path, seconds: int) -> Path:
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 255, (3, *SIZE), generator=generator, dtype=torch.uint8)
    with Writer(path, fps=10.0) as writer:
        for second in range(seconds):
            frames = torch.stack([picture.roll(10 * second + k, -1) for k in range(10)])
            writer.append(Clip(frames, 10.0))
    return path


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_what_is_encoded_or_imagined(tmp_path):
    folder = str(save_tiny_world(tmp_path / "run", SIZE))
    peaks = {}
    for seconds in (10, 60):
        video = str(write_video(tmp_path / f"{seconds}.mp4", seconds))
        out = tmp_path / f"reconstructed_{seconds}.mp4"
        done, peaks["encode", seconds] = run("encode", folder, "--video", video, "--out", str(out))
        assert done.returncode == 0, done.stderr
        assert probe(out).seconds == pytest.approx(seconds, abs=0.11)
    for seconds in (4, 20):
        out = tmp_path / f"imagined_{seconds}.mp4"
        words = ["predict", folder, video, "--seconds", str(seconds), "--out", str(out)]
        done, peaks["predict", seconds] = run(*words)
        assert done.returncode == 0, done.stderr
        assert probe(out).seconds == pytest.approx(1 + seconds, abs=0.11)
    assert peaks["encode", 60] - peaks["encode", 10] < 60, peaks
    assert peaks["predict", 20] - peaks["predict", 4] < 60, peaks


GOOD = {"06_variable_frame_rate.mp4", "07_odd_63x47.mp4", "08_10bit.mp4"}
GOOD |= {"09_rotated_metadata_90.mp4"}
EITHER = {"01_truncated.mp4", "03_mp4_named.jpg", "10_huge_claimed_resolution.mp4"}


@pytest.mark.slow
def test_hostile_files_are_continued_or_refused_in_words(tiny_run, real_data, tmp_path):
    with (real_data / "corrupt" / "corrupt.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert len(names) == 12
    for name in names:
        out = tmp_path / f"{name}.mp4"
        video = str(real_data / "corrupt" / name)
        words = ["predict", str(tiny_run), video, "--seconds", "0.5", "--out", str(out)]
        done, peak = run(*words, "--observe", "0.5", timeout=60)
        assert peak < 1000, f"{name} took {peak:.0f} MB"
        assert "Traceback" not in done.stderr, done.stderr
        if name not in EITHER:
            assert (done.returncode == 0) == (name in GOOD), f"{name}: {done.stderr}"
        if done.returncode == 0:
            assert probe(out).declared_frames >= 6
        else:
            assert done.stderr.splitlines()[-1].startswith("error: "), done.stderr
            assert done.returncode == 1
            assert not out.exists(), f"{name} left a broken file behind"
