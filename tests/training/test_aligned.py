"""Tokenizers trained beside a teacher: paired with the unaligned, and plain at the end."""

from pathlib import Path

import pytest
import torch

from avenir.errors import AvenirError
from avenir.training.loop import train
from avenir.training.recipe import load_recipe
from avenir.training.tasks import make_card, make_source
from avenir.world import load

from .test_resume import WORDS, assert_same, weights

TINY = [w.removeprefix("encoder.") for w in WORDS if w.startswith("encoder.")]
RECIPES = Path(__file__).parents[2] / "recipes"
TEACHER = f"""
extends = "{RECIPES}/dino.toml"
[encoder]
width = 24
depth = 1
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


def test_alignment_belongs_in_the_tokenizers_recipe():
    words = ["alignment.directions=0", "alignment.relations=0", "alignment.local_correlation=1"]
    with pytest.raises(AvenirError, match="put it in the tokenizer's recipe"):
        recipe = load_recipe("recipes/quickstart.toml", [*WORDS, *words])
        make_card(recipe, make_source(recipe.data), None)
