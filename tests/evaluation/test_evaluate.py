import base64
import json
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from avenir import read
from avenir.card import Card
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.errors import AvenirError
from avenir.evaluation import Evaluation, EvaluationConfig, evaluate
from avenir.evaluation.questions.reconstruction import measure_reconstruction
from avenir.world import World

SETTINGS = EvaluationConfig(
    num_clips=6,
    horizon_seconds=1,
    num_samples=2,
    num_train_windows=20,
    num_examples=2,
)


@pytest.fixture
def told() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture
def evaluation(world, source, tmp_path, told, capsys) -> Evaluation:
    result = evaluate(
        world,
        source,
        SETTINGS,
        tmp_path / "out",
        recipe='name = "<toy>"',
        command="avenir evaluate toy",
        report=lambda *words: told.append(words),
    )
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""
    return result


class Page(HTMLParser):
    """Checks that tags close as they open, and gathers what a browser would fetch."""

    VOID = {"meta", "input", "img", "link", "br", "path"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_everything_is_written_and_opens_again(evaluation, tmp_path):
    table = json.loads((tmp_path / "out/results.json").read_text())
    assert Evaluation.parse(table) == evaluation
    assert evaluation.settings.seed == 0 and evaluation.command == "avenir evaluate toy"
    assert evaluation.results["action_control"].shuffled is not None and evaluation.readout is None
    with Image.open(tmp_path / "out/contact_sheet.png") as sheet:
        assert sheet.width > 200


def test_progress_is_told_from_nothing_to_all(evaluation, told):
    for what in {what for what, _, _ in told}:
        steps = [(done, total) for name, done, total in told if name == what]
        assert steps[0][0] == 0 and steps[-1][0] == steps[-1][1]


def test_the_page_is_whole_and_fetches_nothing(evaluation, tmp_path):
    source = (tmp_path / "out/report.html").read_text()
    page = Page()
    page.feed(source)
    assert page.open == []
    assert all(link.startswith("data:") for link in page.links)
    assert "http" not in source and "@import" not in source and "url(" not in source
    for words in (
        "toy <world>",
        'name = "<toy>"',
        "last frame held",
        "avenir evaluate toy",
        "steps",
    ):
        assert words in page.text
    assert "<toy>" not in source
    assert "prefers-reduced-motion" in source and "prefers-color-scheme" in source


def test_the_film_holds_every_frame_of_every_example(evaluation, tmp_path):
    source = (tmp_path / "out/report.html").read_text()
    found = re.search(r"data:video/mp4;base64,([^\"]+)", source)
    assert found is not None
    (tmp_path / "film.mp4").write_bytes(base64.b64decode(found[1]))
    film = read(tmp_path / "film.mp4")
    assert film.num_frames == 4 + 10
    layout = json.loads(re.search(r'data-layout="([^"]+)"', source)[1].replace("&quot;", '"'))  # type: ignore[index]
    assert film.size == (2 * layout["height"], 3 * layout["width"])


def test_the_same_seed_gives_the_same_numbers(world, source, tmp_path, evaluation):
    again = evaluate(world, source, SETTINGS, tmp_path / "again")
    assert again.results == evaluation.results


def test_an_encoder_alone_is_measured_by_reconstruction(tmp_path):
    torch.manual_seed(0)
    source = Synthetic(SyntheticConfig(size=(32, 32)))
    encoder = {"kind": "kl", "compression": (4, 8, 8), "channels": 5, "width": 8}
    world = World.build(Card(fps=10, size=(32, 32), encoder=encoder)).eval()
    settings = EvaluationConfig(num_clips=3, horizon_seconds=0.8)
    found = evaluate(world, source, settings, tmp_path)
    with pytest.raises(AvenirError, match="no predictor that draws in steps"):
        evaluate(world, source, settings.model_copy(update={"steps": (1, 2)}), tmp_path)
    assert set(found.results) == {"reconstruction"} and found.readout is None
    reconstruction = found.results["reconstruction"]
    assert reconstruction.latent_shape == (2, 5, 4, 4)
    assert reconstruction.numbers_ratio == 3 * 4 * 8 * 8 / 5
    assert len(reconstruction.latents) == 5
    assert all(channel.kl is not None for channel in reconstruction.latents)
    assert reconstruction.bits_per_pixel is not None and reconstruction.bits_per_pixel >= 0
    assert not (tmp_path / "contact_sheet.png").exists()
    assert "PSNR" in (tmp_path / "report.html").read_text()


def test_codes_in_use_are_counted_on_held_out_video(tmp_path):
    torch.manual_seed(0)
    source = Synthetic(SyntheticConfig(size=(32, 32)))
    encoder = {"kind": "fsq", "compression": (4, 8, 8), "levels": (5, 3), "width": 8}
    world = World.build(Card(fps=10, size=(32, 32), encoder=encoder)).eval()
    settings = EvaluationConfig(num_clips=3, horizon_seconds=0.8)
    codes = evaluate(world, source, settings, tmp_path).results["reconstruction"].codes
    windows = source.spread("test", 8, 3)
    video = source.read(windows).video
    assert codes is not None and video is not None
    chosen = world.encoder.tokens(world.encoder.encode(video)).flatten().tolist()
    count = Counter(chosen)
    shares = [count[code] / len(chosen) for code in range(15)]
    assert (codes.num_tokens, codes.vocabulary) == (3 * 2 * 4 * 4, 15)
    assert codes.usage == pytest.approx(sum(share > 0.01 / 15 for share in shares) / 15)
    entropy = -sum(share * math.log(share) for share in shares if share)
    assert codes.perplexity == pytest.approx(math.exp(entropy), rel=1e-5)
    assert "Codes in use" in (tmp_path / "report.html").read_text()


def test_a_world_that_discovers_actions_is_held_to_the_true_ones(discovering, tmp_path):
    data = Synthetic(SyntheticConfig.parse({"kind": "synthetic", "size": (16, 16)}))
    for seconds, moments in ((0.8, 4), (0.7, 3)):
        settings = EvaluationConfig(num_clips=4, horizon_seconds=seconds, num_train_windows=2)
        measured = evaluate(discovering, data, settings, tmp_path)
        found = measured.results["latent_actions"]
        assert found.num_codes == 9
        assert found.num_moments == 4 * moments
        assert (
            measured.results["action_control"].steered is None
        )  # it would read them in the answer
    assert "Discovered actions" in (tmp_path / "report.html").read_text()


def test_video_in_which_nothing_moves_still_makes_a_page(world, source, tmp_path, monkeypatch):
    moving = source.clip

    def still(window):
        clip = moving(window)
        return replace(clip, frames=clip.frames[:1].repeat(clip.num_frames, 1, 1, 1))

    monkeypatch.setattr(source, "clip", still)
    found = evaluate(world, source, SETTINGS, tmp_path)
    assert "moving_psnr" not in found.results["prediction"].curves  # no frame can be scored by it
    assert set(found.results["prediction"].curves["psnr"]["copy_last"].mean) == {60.0}
    assert "nothing moved" in (tmp_path / "report.html").read_text()


def test_latent_statistics_are_those_of_the_latents(source, world, windows):
    found = measure_reconstruction(world.encoder, source, windows, 4, 0, lambda *words: None)
    video = source.read(windows).video
    for index, channel in enumerate(found.latents):
        assert channel.mean == pytest.approx(video[:, :, index].mean().item(), abs=1e-5)
        std = video[:, :, index].std(correction=0).item()
        assert channel.std == pytest.approx(std, abs=1e-5)
    assert found.psnr is not None and found.psnr.mean == 60


def test_data_of_another_size_is_refused(world, tmp_path):
    with pytest.raises(AvenirError, match="lives at"):
        evaluate(world, Synthetic(SyntheticConfig()), SETTINGS, tmp_path)
