"""Video of variable rate, through every verb that takes one: a second of it is a second."""

import pytest
import torch

from avenir import cli
from avenir.video import probe, read
from avenir.world import load

from ..test_video import encode, numbered, numbers

SLOWER = [33 * k for k in range(60)] + [2000 + 100 * k for k in range(40)]
"""Ticks of two seconds at 30 frames per second, then four at 10: 17 on average."""

FASTER = [200 * k for k in range(20)] + [4000 + 33 * k for k in range(60)]
"""Four seconds at 5, then two at 30."""


def shown(ticks: list[int], start: float, count: int) -> list[int]:
    """Return the numbers of the frames shown at 10 frames per second."""
    return [sum(t <= 1000 * (start + k / 10) + 0.5 for t in ticks) - 1 for k in range(count)]


@pytest.fixture
def said(monkeypatch, capsys):
    """Run a verb and return what it says."""

    def run(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["avenir", *words])
        try:
            cli.main()
        except SystemExit as end:
            assert not end.code, capsys.readouterr().err
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(("ticks", "start"), [(SLOWER, 0.0), (FASTER, 0.0), (SLOWER, 1.5)])
def test_one_second_observed_is_one_second(said, tmp_path, tiny_run, ticks, start):
    video, out = encode(tmp_path / "uneven.mp4", numbered(len(ticks)), ticks=ticks), tmp_path / "o"
    words = ["--observe", "1", "--seconds", "0.5", "--start", str(start), "--out", f"{out}.mp4"]
    told = said("predict", str(tiny_run), str(video), *words)
    assert "1.00 s observed, then 0.50 s imagined" in told
    assert numbers(read(f"{out}.mp4").frames[:10]) == shown(ticks, start, 10)


def test_in_python_no_rate_need_be_said(tmp_path, tiny_run):
    world = load(tiny_run)
    for ticks in (SLOWER, FASTER):
        video = encode(tmp_path / "uneven.mkv", numbered(len(ticks)), ticks=ticks)
        clip = read(video, seconds=3)
        assert clip.seconds == pytest.approx(3)
        seen = world.fitted(clip)
        assert numbers(seen.frames) == shown(ticks, 0, 30)
        asked = world.fitted(read(video, seconds=3, fps=10))
        assert torch.equal(seen.frames, asked.frames)
        one, other = (world.predict(given, 0.4).frames for given in (clip, asked))
        assert torch.equal(one, other)


def test_what_is_encoded_plays_as_long_as_it_did(said, tmp_path, tiny_run):
    video = encode(tmp_path / "uneven.mp4", numbered(len(SLOWER)), ticks=SLOWER)
    said("encode", str(tiny_run), "--video", str(video), "--out", str(tmp_path / "again.mp4"))
    info = probe(tmp_path / "again.mp4")
    assert (info.fps, info.seconds) == (10, pytest.approx(6, abs=0.05))


def test_features_are_painted_over_the_seconds_asked_for(said, tmp_path, tiny_run):
    video = encode(tmp_path / "uneven.mp4", numbered(len(SLOWER)), ticks=SLOWER)
    out = tmp_path / "seen.mp4"
    words = ["--video", str(video), "--seconds", "2", "--start", "1", "--out", str(out)]
    said("features", str(tiny_run), *words)
    clip = read(out)
    assert numbers(clip.frames[..., : clip.size[1] // 2]) == shown(SLOWER, 1, 20)


def test_a_plan_begins_where_the_second_ends(said, tmp_path, tiny_run):
    video = encode(tmp_path / "uneven.mp4", numbered(len(FASTER)), ticks=FASTER)
    out = tmp_path / "plan.mp4"
    words = ["--goal", str(video), "--video", str(video), "--seconds", "0.2", "--out", str(out)]
    said("plan", str(tiny_run), *words, "--candidates", "2", "--rounds", "1")
    assert numbers(read(out).frames[:10]) == shown(FASTER, 0, 10)


def test_a_game_begins_where_the_second_ends(tmp_path, tiny_run):
    from avenir.serving.backends import initial_state_of

    video = encode(tmp_path / "uneven.mp4", numbered(len(FASTER)), ticks=FASTER)
    past = initial_state_of(load(tiny_run), video, 1.0).past
    assert numbers(past.frames) == shown(FASTER, 0, 10)
