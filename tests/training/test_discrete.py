"""Discrete tokenizers train: their codes are in use, they resume, and a collapse is told."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avenir.clip import Progress
from avenir.device import generator
from avenir.registry import find
from avenir.training import loop, step
from avenir.training.loop import train
from avenir.training.recipe import Recipe
from avenir.world import World

ENCODERS = {
    "fsq": {"kind": "fsq", "levels": [5, 4, 3]},
    "vq": {"kind": "vq", "vocabulary": 60, "channels": 4},
}
SMALL = {"compression": [4, 16, 16], "width": 8, "depth": 1, "decoder_depth": 1}


def recipe(kind: str, **changes: object) -> Recipe:
    table = {
        "name": kind,
        "task": "encoder",
        "data": {"kind": "synthetic"},
        "encoder": ENCODERS[kind] | SMALL,
        "train": {"steps": 12, "batch_size": 2, "num_groups": 2, "num_samples": 0},
    }
    return Recipe.parse(table | changes)


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def run(request, tmp_path_factory) -> tuple[str, Path]:
    return request.param, train(recipe(request.param), tmp_path_factory.mktemp(request.param))


def test_stopped_and_gone_on_is_the_uninterrupted_run_bit_for_bit(run, tmp_path, monkeypatch):
    kind, folder = run
    original, calls = step.TrainingStep.run, []

    def interrupted(self, batch, progress):
        calls.append(progress.step)
        if len(calls) == 5 + 7:  # five steps are its estimate
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, progress)

    monkeypatch.setattr(step.TrainingStep, "run", interrupted)
    with pytest.raises(loop.Interrupted):
        train(recipe(kind), tmp_path)
    again = train(recipe(kind), tmp_path)
    one, other = (load_file(each / "model.safetensors") for each in (folder, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_world_that_was_opened_knows_its_codes(run):
    encoder = World.load(run[1], "cpu").encoder
    video = torch.rand(2, 8, 3, 64, 64) * 2 - 1
    latents = encoder.encode(video)
    tokens = encoder.tokens(latents)
    assert encoder.vocabulary == 60 and tokens.max() < 60
    torch.testing.assert_close(encoder.embed(tokens), latents)
    assert len(tokens.unique()) > 1


def test_usage_is_logged_beside_the_losses(run):
    lines = (run[1] / "metrics.jsonl").read_text()
    assert '"usage"' in lines and '"perplexity"' in lines


@pytest.mark.filterwarnings("ignore:after .* steps:UserWarning")
def test_codes_can_be_aligned(tmp_path, run):
    kind, folder = run
    asked = {"directions": 0.0, "relations": 0.0, "local_correlation": 1.0, "share": 1.0}
    aligned = load_file(train(recipe(kind, alignment=asked), tmp_path) / "model.safetensors")
    plain = load_file(folder / "model.safetensors")
    assert aligned.keys() == plain.keys()
    assert any(not torch.equal(aligned[name], plain[name]) for name in plain if "encoder" in name)


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_a_collapsed_codebook_is_told_and_a_sound_one_is_not(kind, recwarn):
    cls = find("encoders", kind)
    encoder = cls(cls.Config.parse(ENCODERS[kind] | SMALL))
    end = Progress(9, 10, generator("end"))
    encoder.code_usage.add(torch.arange(60))
    encoder.after_step(end)
    assert not recwarn.list
    for _ in range(20):
        encoder.code_usage.add(torch.tensor([7, 8] * 300))
    encoder.after_step(Progress(7, 10, generator("middle")))
    assert not recwarn.list
    with pytest.warns(UserWarning, match="as much as 2 codes .* of 60: the codebook has collapsed"):
        encoder.after_step(end)
