"""Models beside the truth: the numbers are the measured ones, the pictures the decoded ones."""

import base64
import json
import re
from html import unescape
from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

from avenir.card import Card
from avenir.cli.compare import compare as command
from avenir.clip import Clip, to_frames
from avenir.data import Recording, Window
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.errors import AvenirError
from avenir.evaluation.compare_encoders import NUM_SHOWN, EncoderComparison, NamedWorld, compare
from avenir.evaluation.questions.reconstruction import measure_reconstruction
from avenir.evaluation.report.side_by_side import GAIN
from avenir.video import read, write
from avenir.world import World
from tests.conftest import save_tiny_world


def tiny(channels: int, size: tuple[int, int] = (32, 32), fps: float = 10.0) -> World:
    """Make a small tokenizer of random weights."""
    torch.manual_seed(channels)
    encoder = {"kind": "kl", "compression": (2, 8, 8), "channels": channels, "width": 8}
    return World.build(Card(fps=fps, size=size, encoder=encoder)).eval()


def held_out(size: tuple[int, int] = (32, 32), count: int = 6) -> tuple[Synthetic, dict]:
    source = Synthetic(SyntheticConfig(size=size))
    return source, {window: source.clip(window) for window in source.spread("test", 10, count)}


def dimmed(light: float) -> World:
    """Make a world whose encoder gives every picture back darker, and nothing else."""
    world = tiny(2, (64, 64))
    world.encoder.encode = lambda video: video
    world.encoder.decode = lambda latents: light * latents
    return world


def opened(folder: Path) -> tuple[str, dict, list[dict[str, str]], Clip]:
    """Open a page as a browser does: its text, the layout, the canvases, the film."""
    page = (folder / "comparison.html").read_text()
    layout = json.loads(unescape(re.search(r'data-layout="([^"]+)"', page)[1]))  # type: ignore[index]
    canvases = [
        dict(re.findall(r'([\w-]+)="([^"]*)"', c)) for c in re.findall("<canvas[^>]*", page)
    ]
    film = re.search(r"data:video/mp4;base64,([^\"]+)", page)
    assert film is not None
    (folder / "film.mp4").write_bytes(base64.b64decode(film[1]))
    return page, layout, canvases, read(folder / "film.mp4")


def panel(film: Clip, layout: dict, row: int, column: int, height: int) -> Tensor:
    """Cut a panel out of the film and undo its enlargement to a whole multiple of `height`."""
    times = layout["height"] // height
    assert times * height == layout["height"]
    across = slice(column * layout["width"] + times // 2, (column + 1) * layout["width"], times)
    down = slice(row * layout["height"] + times // 2, (row + 1) * layout["height"], times)
    return film.frames[:, :, down, across]


def apart(made: Tensor, true: Tensor) -> float:
    """Return the mean distance in levels of 255."""
    return float((made.float() - true.float()).abs().mean())


def test_the_numbers_are_those_of_the_reconstruction(tmp_path):
    models = [NamedWorld("few", tiny(2)), NamedWorld("more", tiny(5))]
    source, clips = held_out(count=5)
    found = compare(models, clips, tmp_path, "synthetic", command="avenir compare few more")
    assert EncoderComparison.parse(json.loads((tmp_path / "comparison.json").read_text())) == found
    page = (tmp_path / "comparison.html").read_text()
    for model, compared in zip(models, found.models, strict=True):
        expected = measure_reconstruction(
            model.world.encoder, source, list(clips), 1, 0, lambda *words: None
        )
        assert compared.reconstruction == expected
        assert expected.psnr is not None and expected.ssim is not None
        assert f"{expected.psnr.mean:.2f} <small>[{expected.psnr.low:.2f}" in page
        assert f"{expected.ssim.mean:.3f} <small>[{expected.ssim.low:.3f}" in page
        assert f"{3 * 2 * 8 * 8 / model.world.encoder.channels:.1f} times" in page
        assert f"2×8×8, {model.world.encoder.channels}\u00a0channels" in page
        assert f"at most {expected.bits_per_pixel:.3f}" in page
    assert f"{NUM_SHOWN} of the 5 clips" in page and "avenir compare few more" in page
    assert found.models[0].frames == found.models[1].frames
    assert "different pixels" not in page


def test_the_film_holds_what_each_encoder_makes_and_how_far_it_is_from_the_truth(tmp_path):
    lights = (0.9, 0.6)
    source, clips = held_out((64, 64), 2)
    compare(
        [NamedWorld(str(light), dimmed(light)) for light in lights], clips, tmp_path, "synthetic"
    )
    _, layout, _, film = opened(tmp_path)
    assert film.num_frames == layout["frames"] == 10 and film.fps == layout["fps"] == 10
    for row, window in enumerate(clips):
        true = source.clip(window)
        assert apart(panel(film, layout, 2 * row, 2, 64), true.frames) < 3
        for column, light in enumerate(lights):
            made = to_frames(light * true.video)[0]
            assert apart(panel(film, layout, 2 * row, column, 64), made) < 3
            gap = (GAIN * (made.int() - true.frames.int()).abs()).clamp(max=255)
            assert apart(panel(film, layout, 2 * row + 1, column, 64), gap) < 5
            assert gap.float().mean() > 10


def test_one_encoder_twice_gives_two_equal_columns(tmp_path):
    world, (_, clips) = tiny(3), held_out(count=2)
    found = compare([NamedWorld("a", world), NamedWorld("b", world)], clips, tmp_path, "synthetic")
    first, second = found.models
    assert first == second.model_copy(update={"name": "a"}) and second.name == "b"
    _, layout, canvases, film = opened(tmp_path)
    assert len(canvases) == 2 * (3 + 2)
    for row in range(4):
        left, right = (panel(film, layout, row, column, 32) for column in range(2))
        assert apart(left, right) < 2


def test_sizes_and_rates_that_differ_are_shown_at_one_height(tmp_path):
    models = [
        NamedWorld("<odd>", tiny(2, (33, 47))),
        NamedWorld("slow", tiny(2, (16, 16), fps=5.0)),
    ]
    frames = torch.randint(256, (11, 3, 33, 47), dtype=torch.uint8)
    clips = {Window(Recording("noise", 1.1), 0.0, 11): Clip(frames, 10.0)}
    found = compare(models, clips, tmp_path, "noise")
    assert [m.reconstruction.num_frames for m in found.models] == [11, 5]
    assert found.models[0].frames != found.models[1].frames
    page, layout, canvases, film = opened(tmp_path)
    assert film.size == (2 * layout["height"], 3 * layout["width"])
    assert layout["height"] % 2 == layout["width"] % 2 == 0
    shapes = [int(c["width"]) / int(c["height"]) for c in canvases]
    assert shapes == pytest.approx([47 / 33, 1, 47 / 33, 47 / 33, 1], rel=0.02)
    assert {int(c["height"]) for c in canvases} == {layout["height"]}
    assert max(int(c["width"]) for c in canvases) == layout["width"]
    assert "different pixels" in page and "no intervals" in page
    assert "47×33 at 10 fps" in page and "16×16 at 5 fps" in page
    assert "&lt;odd&gt;" in page and "<odd>" not in page


def test_the_page_fetches_nothing_and_can_be_read(tmp_path):
    _, clips = held_out(count=1)
    compare([NamedWorld("one", tiny(2))], clips, tmp_path, "synthetic")
    page, _, canvases, _ = opened(tmp_path)
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links and all(link.startswith("data:") for link in links)
    assert "http" not in page and "@import" not in page and "url(" not in page
    assert "prefers-reduced-motion" in page and "prefers-color-scheme" in page
    assert all(canvas["role"] == "img" and canvas["aria-label"] for canvas in canvases)
    for tag in ("table", "thead", "tbody", "tr", "th", "td", "section", "div", "script", "style"):
        assert len(re.findall(f"<{tag}[ >]", page)) == page.count(f"</{tag}>")


def test_an_encoder_that_cannot_decode_is_refused_before_anything_is_measured(tmp_path):
    segmenter = World.build(Card(fps=10, size=(32, 32), encoder={"kind": "segmenter"}))
    _, clips = held_out()
    models = [NamedWorld("tokenizer", tiny(2)), NamedWorld("reader", segmenter)]
    with pytest.raises(AvenirError, match="'reader' holds a 'segmenter'.*cannot decode.*features"):
        compare(models, clips, tmp_path / "out", "synthetic")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def typed(monkeypatch):
    """Type `avenir compare` and what follows."""
    app = typer.Typer()
    app.command()(command)

    def run(*words: object):
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    """Two run folders of one name."""
    small = save_tiny_world(tmp_path / "small" / "tiny", (32, 32), predicts=False)
    return [save_tiny_world(tmp_path / "large" / "tiny", (48, 64)), small]


def test_held_out_clips_end_to_end(typed, runs, tmp_path):
    out = tmp_path / "out"
    result = typed(*runs, "data.episode_frames=20", "--clips", 3, "--seconds", 0.8, "--out", out)
    assert result.exit_code == 0, result.output
    found = EncoderComparison.parse(json.loads((out / "comparison.json").read_text()))
    assert [model.name for model in found.models] == ["large/tiny", "small/tiny"]
    assert [model.size for model in found.models] == [(48, 64), (32, 32)]
    for model in found.models:
        kept = model.reconstruction
        assert (kept.num_clips, kept.num_recordings, kept.num_frames) == (3, 3, 8)
        assert kept.psnr is not None
        assert f"{model.name}  PSNR {kept.psnr.mean:.2f} dB" in result.output
    assert str(out / "comparison.html") in result.output
    assert "Held out from data.episode_frames=20: 3 clips" in (out / "comparison.html").read_text()


def test_a_video_end_to_end(typed, runs, tmp_path):
    source = Synthetic(SyntheticConfig(size=(90, 120), fps=20.0))
    film = write(tmp_path / "clip.mp4", source.clip(source.spread("test", 30, 1)[0]))
    out = tmp_path / "out"
    words = ["--video", film, "--seconds", 0.6, "--start", 0.4, "--out", out]
    result = typed(*runs, *words)
    assert result.exit_code == 0, result.output
    page, layout, _, shown = opened(out)
    assert "clip.mp4: one clip of 0.6\u00a0s" in page and "clip at 0.4\u00a0s" in page
    assert shown.num_frames == 6
    seen = read(film, 0.6, 0.4, 10.0, (48, 64))
    assert apart(panel(shown, layout, 0, 2, 48), seen.frames) < 3


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["data=videos"], "no run"),
        (["run", "data=videos", "--video", "clip.mp4"], "leave one of the two out"),
        (["nowhere"], "holds no world"),
    ],
)
def test_mistakes_name_their_cure(typed, words, answer):
    result = typed(*words)
    assert isinstance(result.exception, AvenirError)
    assert answer in str(result.exception)
