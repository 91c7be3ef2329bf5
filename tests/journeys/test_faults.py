"""Power cuts and full disks at every operation: the same command ends with the same bits."""

import sys
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Self

import pytest
import torch

from avenir import cli, console
from avenir.clip import Clip
from avenir.data.lerobot import write_dataset
from avenir.study import running
from avenir.training import loop
from avenir.training.estimate import Cost
from avenir.video import write
from tests.faults import (
    Enough,
    Tree,
    cuts,
    full_from,
    is_part,
    restore,
    tree,
    without_clocks,
)

TOKENIZER = """
task = "encoder"
[data]
kind = "lerobot"
test = ["0:2"]
[encoder]
kind = "kl"
compression = [2, 16, 16]
channels = 2
width = 8
depth = 1
decoder_depth = 1
[train]
steps = 2
batch_size = 1
num_groups = 4
num_samples = 1
save_seconds = 0.0001
"""
WORLD = """
task = "predictor"
tokenizer = "tokenizer.toml"
[data]
kind = "lerobot"
test = ["0:2"]
[conditioner]
kind = "actions"
[predictor]
kind = "flow"
width = 16
depth = 1
patch = 1
past = 1
chunk = 1
[predictor.sampling]
num_steps = 1
[train]
steps = 2
batch_size = 1
num_samples = 0
snapshots = [1]
cache_recordings = 2
save_seconds = 0.0001
"""


STUDY = """
recipe = "world.toml"
evaluator = "judge.toml"
seeds = [1]
snapshots = [1, 4]
metrics = ["state_error", "kernel_distance"]
num_clips = 8
past = 2
horizon = 4
[arms]
plain = []
wide = ["predictor.width=24", "train.save_seconds=600"]
[comparisons.width]
baseline = "plain"
treatment = "wide"
"""
JUDGE = """
task = "encoder"
[data]
kind = "lerobot"
test = ["0:2"]
[encoder]
kind = "regressor"
outputs = 1
widths = [8, 8]
[train]
steps = 2
batch_size = 2
num_samples = 0
"""


def film(seed: int) -> Clip:
    """A bright bar that moves."""
    place = (torch.arange(12) + 5 * seed) % 24
    bar = (torch.arange(32) >= place[:, None]) & (torch.arange(32) < place[:, None] + 8)
    frames = (255 * bar)[:, None, None].expand(-1, 3, 32, -1).to(torch.uint8)
    signals = {"actions": torch.ones(12, 1) * seed, "state": place[:, None].float()}
    return Clip(frames.contiguous(), 10.0, signals, name=f"bar{seed}")


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A data set and recipes."""
    write_dataset(tmp_path / "data", [film(seed) for seed in range(4)])
    for name, text in {
        "tokenizer": TOKENIZER,
        "world": WORLD,
        "study": STUDY,
        "judge": JUDGE,
    }.items():
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


@pytest.fixture
def avenir(monkeypatch, capsys) -> Callable[..., str]:
    """The command line: what it says when it fails, or nothing. It does not time its steps."""
    cost = Cost(num_parameters=0, num_trained=0, step_seconds=0, seconds=0, memory_bytes=0)
    monkeypatch.setattr(loop, "estimate", lambda *_: cost)

    def call(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["avenir", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr().err
        assert end.value.code in (0, 1), said
        return said if end.value.code else ""

    return call


def essence(left: Tree) -> Tree:
    """Return what must be the same: all bytes, but of pages and logs, and but what clocks say."""
    assert not [name for name in left if is_part(name)]
    return {
        name: without_clocks(name, content)
        for name, content in left.items()
        if content is not None and not name.endswith((".log", ".html", ".md"))
    }


def faults_change_nothing(
    root: Path, command: Callable[[], str], monkeypatch, begin: Tree | None = None
) -> int:
    """Cut a command before each of its operations, and let each find a full disk.

    It begins with nothing in `root`, or with what is given, and is all that writes there. Returns
    from how many different trees it went on.
    """

    def goes_on(left: Tree) -> None:
        restore(root, left)
        assert not command()
        assert essence(tree(root)) == expected

    def runs() -> None:
        assert not command()

    begin = begin or {}
    restore(root, begin)
    found = cuts(root, runs, monkeypatch)
    expected = essence(tree(root))
    for left in list(found.values()):
        goes_on(left)
    for number in count():
        restore(root, begin)
        try:
            with full_from(number, root, monkeypatch):
                said = command()
        except Enough:
            return len(found)
        assert "the disk is full: free some space" in said, said
        assert str(root) in said
        left = tree(root)
        assert not [name for name in left if is_part(name)]
        if found.add(left):
            goes_on(left)
    raise AssertionError


@pytest.mark.slow
def test_training(given, avenir, monkeypatch):
    """A tokenizer and a world on its cached latents, with states, samples and a snapshot."""
    words = ["train", given / "world.toml", f"data={given / 'data'}", "--runs", given / "runs"]
    assert faults_change_nothing(given / "runs", lambda: avenir(*words), monkeypatch) > 10


@pytest.mark.slow
def test_encoding(given, avenir, monkeypatch):
    data, runs = f"data={given / 'data'}", given / "runs"
    assert not avenir("train", given / "tokenizer.toml", data, "--runs", runs)
    words = ["encode", runs / "tokenizer", data, "--out", given / "latents"]
    assert faults_change_nothing(given / "latents", lambda: avenir(*words), monkeypatch) > 10


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for seed in range(2):
        path = write(tmp_path / "videos" / f"bar{seed}.mp4", film(seed))
        path.with_suffix(".csv").write_text("push\n" + "0.5\n" * 12)
    return tmp_path / "videos"


@pytest.mark.slow
def test_importing(videos, avenir, monkeypatch, tmp_path):
    words = ["import", videos, "--to", tmp_path / "to", "--size", "32x32", "--test", "bar1"]
    assert faults_change_nothing(tmp_path / "to", lambda: avenir(*words), monkeypatch) > 10


@pytest.mark.slow
def test_importing_again_what_changed(videos, avenir, monkeypatch, tmp_path):
    words = ["import", videos, "--to", tmp_path / "to", "--size", "32x32", "--test", "bar1"]
    assert not avenir(*words)
    (videos / "bar0.csv").write_text("push\n" + "0.25\n" * 12)
    begin = tree(tmp_path / "to")
    assert faults_change_nothing(tmp_path / "to", lambda: avenir(*words), monkeypatch, begin) > 10


class Here:
    """Runs the jobs of a pool of processes at once and in this one, but none from `end` on.

    `began` is what lay in a folder when each began.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.began = root, dict[Path, Tree]()
        self.end: Path | None = None

    def __call__(self, *told: object) -> Self:
        """Stand for a new pool, whose processes have not opened a study yet."""
        running._opened.cache_clear()
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, call: Callable[..., None], job: running.Job, path: Path) -> Future[None]:
        """Do it, and return that it is done, or why not."""
        if path == self.end:
            raise Ended
        self.began.setdefault(path, tree(self.root))
        # `file` would be the stream of now, which is closed when the test ends.
        future, file = Future[None](), console.console._file
        try:
            future.set_result(call(job, path))
        except Exception as error:
            future.set_exception(error)
        finally:
            console.console.file = file
        return future


class Ended(Exception):
    """A study has come to the job before which it was to end."""


@pytest.mark.slow
def test_a_study(given, avenir, monkeypatch):
    """Training of its tokenizer, judge and worlds, rows, verdict and pages, at every operation.

    A job is a process of its own and knows of those before it what is on the disk. So after a fault
    the command is followed to the beginning of the next job: where the disk holds the same bits as
    without a fault, so does all that comes of them.
    """
    root = given / "study"
    here = Here(root)
    monkeypatch.setattr(running, "ProcessPoolExecutor", here)
    monkeypatch.setattr(running, "commit", lambda: "unknown")
    monkeypatch.setattr(running, "seconds_per_step", lambda _: 1.0)  # rows hold what clocks say
    monkeypatch.setattr(running, "films", lambda study: [])  # which only reads
    words = ["study", given / "study.toml", f"data={given / 'data'}", "--out", root, "--workers", 1]

    def command() -> str:
        try:
            return avenir(*words)
        except Ended:
            return ""

    assert not command()
    ends = dict(here.began) | {None: tree(root)}
    begin, different = {}, 0
    assert len(ends) == 7  # a tokenizer, a judge, two worlds, two rows, and all
    for here.end in list(ends)[1:]:
        different += faults_change_nothing(root, command, monkeypatch, begin)
        restore(root, begin)
        assert not command()
        assert essence(tree(root)) == essence(ends[here.end])
        begin = ends[here.end]
    assert different > 100
