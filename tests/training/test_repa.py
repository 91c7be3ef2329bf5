"""Predictors trained beside a teacher: paired with the unaligned, and plain at the end."""

from dataclasses import replace

import pytest
import torch

from avenir.clip import Progress
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.losses import alignment as losses
from avenir.training.aligned import AlignedPredictorObjective
from avenir.training.loop import make_objective, train
from avenir.training.objectives import make_source
from avenir.training.recipe import load_recipe
from avenir.world import World, load

from .test_aligned import RECIPES, TEACHER
from .test_resume import WORDS, assert_same, weights

STEPS = ["train.steps=6", "train.cache_recordings=0", "predictor.depth=3"]
ALIGNED = f"""
extends = "{RECIPES}/quickstart.toml"
tokenizer = "{RECIPES}/quickstart_tokenizer.toml"
[alignment]
teacher = "teacher.toml"
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("repa")
    (folder / "teacher.toml").write_text(TEACHER)
    (folder / "repa.toml").write_text(ALIGNED)
    return folder


def recipe_of(runs, name, *words):
    path = RECIPES / "quickstart.toml" if name == "plain" else runs / "repa.toml"
    return load_recipe(path, [*WORDS, *STEPS, f"name={name}", *words])


def trained(runs, name, *words):
    return train(recipe_of(runs, name, *words), runs)


def task_of(runs, *words) -> AlignedPredictorObjective:
    """Make the task on parents that an earlier run has trained."""
    recipe = recipe_of(runs, "task", *words)
    parents = {role: trained_parent(runs, role) for role in ("tokenizer", "teacher")}
    return make_objective(recipe, make_source(recipe.data), parents)


def trained_parent(runs, role) -> World:
    trained(runs, "aligned")
    return World.load(
        runs / {"tokenizer": "quickstart_tokenizer", "teacher": "teacher"}[role], "cpu"
    )


def test_it_changes_the_predictor_and_leaves_no_trace_in_the_world(runs):
    plain, aligned = trained(runs, "plain"), trained(runs, "aligned")
    assert weights(plain).keys() == weights(aligned).keys()
    changed = {n for n, w in weights(plain).items() if not torch.equal(w, weights(aligned)[n])}
    assert any(name.startswith("predictor.transformer.blocks.0.") for name in changed)
    assert not any(name.startswith("encoder.") for name in changed)
    cards = [load(run, "cpu").card for run in (plain, aligned)]
    assert cards[0].predictor == cards[1].predictor
    assert cards[1].provenance["parents"]["teacher"]["encoder"]["kind"] == "dino"


@pytest.mark.parametrize("word", ["shuffle=false", "shuffle=true", "layer=3"])
def test_with_a_vanishing_share_it_is_the_unaligned_run_bit_for_bit(runs, word):
    silent = trained(runs, f"silent_{word}", "alignment.share=1e-30", f"alignment.{word}")
    assert_same(silent, trained(runs, "plain"))


def test_compared_are_the_frames_to_predict_with_what_they_truly_show(runs, monkeypatch):
    task, seen = task_of(runs, "predictor.full_past_probability=1.0"), []
    directions = losses.directions

    def watched(projected, features, margin, counts):
        seen.append((projected, features, counts))
        return directions(projected, features, margin, counts)

    monkeypatch.setattr(losses, "directions", watched)
    batch = task.data.read(task.data.draw("train", task.num_frames, 4, 0))
    past = task.num_frames - task.world.encoder.compression.t
    changed = batch.video.clone()
    changed[:, past:] *= -1
    for video in (batch.video, changed):
        loss = task.losses(replace(batch, video=video), Progress(0, 9, generator("true")))
    projected, features, counts = seen[0]
    assert counts.tolist() == [[0, 0, 1]] * 4  # two frames of past, one to predict
    gradient = torch.autograd.grad(loss["directions"], seen[1][0])[0].abs().sum((0, 2, 3, 4))
    assert gradient[:2].tolist() == [0, 0] and gradient[2] > 0
    assert not torch.equal(features[:, 2], seen[1][1][:, 2])
    h, w = (size // 16 for size in task.data.size)  # tokens are 2×2 latents of 8×8 pixels
    assert projected.shape[3:] == features.shape[3:] == (h, w)


def test_neighbours_in_a_frame_are_mixed_before_they_are_projected():
    config = losses.AlignmentConfig(relations=0)
    cell = losses.Compression(1, 8, 8)
    aligned = losses.Alignment(config, cell, 4, cell, 6, mixed=True)
    tokens = torch.randn(1, 2, 4, 5, 5)
    other = tokens.clone()
    other[0, 1, :, 2, 2] += 1
    with torch.no_grad():
        one, two = (aligned._projected(aligned.project, each) for each in (tokens, other))
    reached = (one != two).any(dim=2)[0]
    assert not reached[0].any()
    assert reached[1].nonzero().tolist() == [[y, x] for y in (1, 2, 3) for x in (1, 2, 3)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.cache_recordings=4"], "set train.cache_recordings to 0"),
        (["alignment.layer=4"], "the predictor has 3 blocks"),
        (["alignment.future=0.5"], "for tokenizers"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_words(runs, words, message):
    with pytest.raises(AvenirError, match=message):
        task_of(runs, *words)


def test_a_predictor_is_not_aligned_without_a_teacher(runs):
    words = ["alignment.directions=0", "alignment.relations=0"]
    with pytest.raises(AvenirError, match="needs a teacher"):
        train(load_recipe("recipes/quickstart.toml", [*WORDS, *STEPS, "name=none", *words]), runs)
