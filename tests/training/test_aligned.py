"""Tokenizers trained beside a teacher: paired with the unaligned, and plain at the end."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avenir.clip import Batch, Progress
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.training.aligned import AlignedEncoderObjective
from avenir.training.loop import make_objective, train
from avenir.training.objectives import make_card, make_source
from avenir.training.recipe import load_recipe
from avenir.training.step import TrainingStep
from avenir.world import load

from .test_resume import WORDS, assert_same, weights

TINY = [w.removeprefix("tokenizer.") for w in WORDS if w.startswith("tokenizer.")]
RECIPES = Path(__file__).parents[2] / "recipes"
TEACHER = f"""
extends = "{RECIPES}/dino.toml"
[encoder]
width = 24
depth = 1
blocks = [1]
heads = 2
weights.gram = 1.0
[train]
steps = 2
batch_size = 2
"""
ALIGNED = f"""
extends = "{RECIPES}/quickstart_tokenizer.toml"
[alignment]
teacher = "teacher.toml"
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("aligned")
    (folder / "teacher.toml").write_text(TEACHER)
    (folder / "aligned.toml").write_text(ALIGNED)
    return folder


def trained(runs, name, *words):
    recipe = "recipes/quickstart_tokenizer.toml" if name == "plain" else runs / "aligned.toml"
    return train(load_recipe(recipe, [*TINY, f"name={name}", *words]), runs)


def test_alignment_changes_weights_and_leaves_no_trace_in_the_world(runs):
    plain, aligned = trained(runs, "plain"), trained(runs, "aligned")
    assert weights(plain).keys() == weights(aligned).keys()
    assert load(aligned, "cpu").card.encoder == load(plain, "cpu").card.encoder
    changed = [n for n, w in weights(plain).items() if not torch.equal(w, weights(aligned)[n])]
    assert any(name.startswith("encoder.encoder.") for name in changed)
    parents = load(aligned, "cpu").card.provenance["parents"]
    assert parents["teacher"]["encoder"]["kind"] == "dino"


def test_with_a_vanishing_share_it_is_the_unaligned_run_bit_for_bit(runs):
    """Data order, initial weights and noise do not depend on alignment: arms are paired."""
    silent = trained(runs, "silent", "alignment.share=1e-30")
    assert_same(silent, trained(runs, "plain"))


def test_a_placebo_draws_the_same_noise_as_well(runs):
    silent = trained(runs, "silent_placebo", "alignment.share=1e-30", "alignment.shuffle=true")
    assert_same(silent, trained(runs, "plain"))


def test_local_correlation_needs_no_teacher(runs):
    words = ["directions=0", "relations=0", "local_correlation=1"]
    words = [*TINY, "name=smooth", *(f"alignment.{word}" for word in words)]
    smooth = train(load_recipe("recipes/quickstart_tokenizer.toml", words), runs)
    losses = (smooth / "metrics.jsonl").read_text()
    assert "local_correlation" in losses and "directions" not in losses


def test_what_cannot_decode_cannot_be_aligned(runs):
    with pytest.raises(AvenirError, match="cannot decode"):
        train(load_recipe("recipes/dino.toml", ["name=x", "alignment.directions=0"]), runs)


def test_finished_latents_cannot_be_aligned(runs):
    (runs / "decoder.toml").write_text(
        f'task = "decoder"\ntokenizer = "{RECIPES}/quickstart_tokenizer.toml"\n'
        '[data]\nkind = "synthetic"\n[alignment]\nlocal_correlation = 1.0\n'
    )
    recipe = load_recipe(runs / "decoder.toml")
    with pytest.raises(AvenirError, match="put it in the tokenizer's recipe"):
        make_card(recipe, make_source(recipe.data), None)


# Hiding the future ----------------------------------------------------------------------------

FREE = ["alignment.directions=0", "alignment.relations=0", "train.num_groups=3"]


def hiding(chance: float, *words: str) -> tuple[AlignedEncoderObjective, Batch]:
    words = (*TINY, *FREE, f"alignment.future={chance}", "encoder.look_back=2", *words)
    recipe = load_recipe("recipes/quickstart_tokenizer.toml", words)
    data = make_source(recipe.data)
    task = make_objective(recipe, data, {})
    with torch.no_grad():  # decoding looks back at nothing until it has learnt to
        task.tokenizer.decoder.look_back.mix.weight.normal_()
    return task, data.read(data.draw("train", task.num_frames, 8, 0))


def made(task: AlignedEncoderObjective, batch: Batch, monkeypatch) -> torch.Tensor:
    """Return the video that the losses compare with, as groups of frames."""
    kept = []
    decode = task.tokenizer.raw_decode
    monkeypatch.setattr(task.tokenizer, "raw_decode", lambda z: kept.append(decode(z)) or kept[0])
    task.losses(batch, Progress(0, 9, generator("future")))
    monkeypatch.undo()
    return kept[0].detach().unflatten(1, (3, -1))


def test_hidden_frames_are_made_of_earlier_ones_alone(monkeypatch):
    task, batch = hiding(1.0)
    whole, _ = hiding(0.0)
    with torch.no_grad():
        hidden = (
            (made(task, batch, monkeypatch) != made(whole, batch, monkeypatch)).flatten(2).any(2)
        )
    count = hidden.sum(dim=1)
    assert set(count.tolist()) == {0, 1, 2}
    assert torch.equal(hidden, torch.arange(3) >= 3 - count[:, None])
    f_t = task.tokenizer.compression.t

    def changed_by(group: int) -> torch.Tensor:
        video = batch.video.clone()
        video[:, group * f_t : (group + 1) * f_t] *= -1
        other = made(task, replace(batch, video=video), monkeypatch)
        return (other != made(task, batch, monkeypatch)).flatten(2).any(2)

    assert torch.equal(changed_by(2).any(dim=1), count == 0)
    assert torch.equal(changed_by(1).any(dim=1), count <= 1)
    assert changed_by(0).all()


def test_the_padding_learns_with_decoding_and_is_thrown_away(runs):
    words = [*TINY, *FREE, "name=futures", "alignment.future=1.0", "train.steps=2"]
    recipe = load_recipe("recipes/quickstart_tokenizer.toml", words)
    world = train(recipe, runs)
    assert weights(world).keys() == weights(trained(runs, "plain")).keys()
    task, batch = hiding(1.0)
    before = task.alignment.padding.detach().clone()
    TrainingStep(task.recipe, task).run(batch, Progress(0, 9, generator("learn")))
    assert not torch.equal(before, task.alignment.padding)


def test_at_chance_zero_nothing_is_hidden_bit_for_bit(runs):
    words = ["alignment.future=0.0", "alignment.share=1e-30", *FREE]
    silent = train(load_recipe(runs / "aligned.toml", [*TINY, "name=no_future", *words]), runs)
    plain = [*TINY, "name=three_groups", "train.num_groups=3"]
    assert_same(silent, train(load_recipe("recipes/quickstart_tokenizer.toml", plain), runs))


@pytest.mark.parametrize("word", ["encoder.look_back=0", "train.num_groups=1"])
def test_a_future_out_of_reach_is_refused(word):
    with pytest.raises(AvenirError, match="look_back to at least 1"):
        hiding(0.5, word)


def test_a_layer_is_for_predictors():
    with pytest.raises(AvenirError, match="into a predictor"):
        hiding(0.5, "alignment.layer=1")
