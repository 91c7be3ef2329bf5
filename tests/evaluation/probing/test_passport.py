"""Passports: nothing is lost where nothing can be, and the whole of it on a tiny run."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
import typer
from typer.testing import CliRunner

from avenir.card import Card
from avenir.cli.passport import passport
from avenir.clip import to_frames
from avenir.console import silent
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.errors import AvenirError
from avenir.evaluation.probing.passport import Bench, Clips, measure_passports
from avenir.evaluation.probing.passport_results import (
    PassportConfig,
    Passports,
    recommendations,
    table,
)
from avenir.evaluation.readers.readout import evaluator_for
from avenir.signals import Signal
from avenir.world import World
from tests.conftest import save_tiny_world


def clips_of(video, groups):
    return Clips(to_frames(video), None, groups)


@pytest.fixture
def pixels(world):
    """A world whose latents are the pixels, which stands for evaluators as well."""
    card = Card(name="pixels", fps=10, size=(16, 24), encoder={"kind": "pixels"})
    return SimpleNamespace(encoder=world.encoder, card=card)


def bench_of(video, groups, evaluator):
    clips = clips_of(video, groups)
    return Bench(10.0, clips, clips, evaluator, 0, silent)


def test_nothing_is_lost_between_clips_that_occur_twice_and_stand_still(pixels):
    still = torch.rand(6, 1, 3, 8, 12).repeat(2, 4, 1, 1, 1) * 1.6 - 0.8
    found = bench_of(still, [str(i) for i in range(12)], pixels).passport("pixels", pixels)
    for distance in (found.reconstructed, found.interpolated, found.between):
        assert distance is not None
        assert distance.frechet == pytest.approx(0, abs=1e-6)
        assert distance.kernel.mean == pytest.approx(0, abs=1e-9)
    assert found.temporal_distance.mean == 0
    assert found.psnr is not None and found.psnr.mean == 60


def test_clips_that_differ_and_move_do_lose(pixels):
    video = torch.rand(12, 4, 3, 8, 12) * 1.6 - 0.8
    found = bench_of(video, [str(i) for i in range(12)], pixels).passport("pixels", pixels)
    assert found.reconstructed is not None and found.reconstructed.frechet < 1e-6
    for distance in (found.interpolated, found.between):
        assert distance is not None and distance.kernel.low is not None
        assert distance.frechet > 1 and distance.kernel.low > 0


def test_noise_costs_what_it_must_when_latents_are_pixels(pixels):
    grey = torch.zeros(4, 2, 3, 16, 24)
    found = bench_of(grey, list("abcd"), pixels).passport("pixels", pixels)
    for borne in found.noise_borne[:2]:  # more would be clipped
        # Noise σ in [-1, 1] is σ/2 in [0, 1]; equal frames score 60 dB.
        assert borne.drop.mean == pytest.approx(60 + 20 * math.log10(borne.noise / 2), abs=0.2)


def test_without_evaluator_or_decoder_the_rest_is_measured(pixels):
    video, groups = torch.rand(10, 4, 3, 8, 12), [str(i) for i in range(10)]
    found = bench_of(video, groups, None).passport("pixels", pixels)
    assert found.psnr is not None and found.reconstructed is None and found.interpolated is None
    pixels.encoder.can_decode = False
    found = bench_of(video, groups, pixels).passport("pixels", pixels)
    assert found.psnr is None and found.between is None and found.noise_borne == ()
    assert found.effective_rank > 2.9 and found.velocity_variance > 0


@pytest.mark.parametrize("channels", [4, 64])
def test_recommendations_follow_from_the_latent(channels):
    found = {r.setting: r.value for r in recommendations(4, channels, 16, 16, 0.5)}
    shift = math.sqrt(4 * channels * 256 / 4096)
    assert found["predictor.shift"] == pytest.approx(max(1, shift), abs=0.01)
    assert found["scale"] == 2
    assert found["predictor.predicts"] == ("data" if channels == 64 else "velocity")
    assert found["predictor.width"] == (128 if channels == 64 else 16)
    assert {r.setting: r.value for r in recommendations(4, 4, 8, 8, 0.95)}["scale"] == 1


@pytest.fixture(scope="module")
def passports(tiny_run):
    source = Synthetic(SyntheticConfig())
    settings = PassportConfig(num_clips=10, num_frames=8)
    worlds = {"tiny": World.load(tiny_run, "cpu"), "judge": evaluator_for(source, "cpu")}
    return measure_passports(worlds, source, settings, evaluator_for(source, "cpu"))


def test_a_tiny_world_and_an_encoder_that_cannot_decode_get_their_passports(passports):
    tiny, judge = passports.passports
    assert passports.evaluator == "synthetic_segmenter" and passports.num_recordings == 10
    assert tiny.latent_shape == (4, 16, 8, 8) and tiny.regressed_shape == (16, 8, 8)
    assert [ahead.step for ahead in tiny.linear_dynamics] == [1, 2]
    assert tiny.linear_dynamics[0].seconds == pytest.approx(0.2)
    assert tiny.interpolated is not None and tiny.interpolated.frechet > 0
    assert tiny.inverse_dynamics is not None and len(tiny.noise_borne) == 3
    assert judge.latent_shape == (8, 11, 64, 64) and judge.psnr is None
    assert [ahead.step for ahead in judge.linear_dynamics] == [1, 2, 4]
    assert Passports.model_validate_json(passports.model_dump_json()) == passports


def test_the_table_shows_every_encoder_and_says_what_follows(passports):
    text = table(passports)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(row.count("|") == 4 for row in rows)
    assert "| effective rank ↑ |" in text and "**judge**" in text
    assert "nan" not in text and "None" not in text


def test_the_same_seed_gives_the_same_passport(passports, tiny_run):
    source = Synthetic(SyntheticConfig())
    again = measure_passports(
        {"tiny": World.load(tiny_run, "cpu")},
        source,
        PassportConfig(num_clips=10, num_frames=8),
        evaluator_for(source, "cpu"),
    )
    assert again.passports[0] == passports.passports[0]


def test_clips_of_broken_groups_and_data_of_another_size_are_refused(tiny_run, tmp_path):
    worlds = {"tiny": World.load(tiny_run, "cpu")}
    with pytest.raises(AvenirError, match=r"7 frames .* groups of 2 .* --frames 6 or 8"):
        measure_passports(worlds, Synthetic(SyntheticConfig()), PassportConfig(num_frames=7), None)
    with pytest.raises(AvenirError, match=r"of \(32, 32\) at 10 fps; 'world' lives at \(64, 64\)"):
        source = Synthetic(SyntheticConfig(size=(32, 32)))
        measure_passports(worlds, source, PassportConfig(), None)
    with pytest.raises(AvenirError, match="'world' lives at"):
        source = Synthetic(SyntheticConfig())
        other = World.load(save_tiny_world(tmp_path, (32, 32)), "cpu")
        measure_passports(worlds, source, PassportConfig(), other)
    with pytest.raises(AvenirError, match="one test recording"):
        source = Synthetic(SyntheticConfig(test_recordings=1))
        measure_passports(worlds, source, PassportConfig(num_clips=4, num_frames=4), None)


def test_a_teacher_may_not_judge_what_it_taught(tiny_run):
    world, judge = World.load(tiny_run, "cpu"), World.load(tiny_run, "cpu")
    judge.card = judge.card.model_copy(update={"name": "judge", "provenance": {"key": "t"}})
    parents = {"teacher": judge.card.model_dump()}
    world.card = world.card.model_copy(update={"provenance": {"key": "w", "parents": parents}})
    with pytest.raises(AvenirError, match="'judge' is part of 'world'"):
        source = Synthetic(SyntheticConfig())
        measure_passports({"tiny": world}, source, PassportConfig(), judge)


def test_actions_that_are_not_all_known_are_left_out(source, monkeypatch):
    source.signals = {"actions": Signal(role="action", size=1)}
    windows = source.spread("test", 6, 3)
    assert Clips.read(source, windows, silent).actions is not None
    read = source.read

    def with_a_gap(windows):
        batch = read(windows)
        batch.signals["actions"][0, 2] = torch.nan
        return batch

    monkeypatch.setattr(source, "read", with_a_gap)
    assert Clips.read(source, windows, silent).actions is None


def test_the_verb_writes_the_table_of_several_runs(tiny_run, tmp_path):
    other = save_tiny_world(tmp_path / "other", (64, 64), predicts=False)
    app = typer.Typer()
    app.command()(passport)
    words = [str(tiny_run), str(other), "data.episode_frames=12", "--clips", "5", "--frames", "6"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.exception
    found = json.loads((tmp_path / "out" / "passport.json").read_text())
    assert [each["name"] for each in found["passports"]] == ["tiny", "other"]
    assert found["settings"]["num_clips"] == 5 and found["evaluator"] == "synthetic_segmenter"
    assert (tmp_path / "out" / "passport.md").read_text() in result.output


def test_the_verb_needs_a_run():
    app = typer.Typer()
    app.command()(passport)
    result = CliRunner().invoke(app, ["data.size=[64,64]"])
    assert isinstance(result.exception, AvenirError)
