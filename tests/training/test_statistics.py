"""The statistics of latents are those of the world that is loaded, whatever mode it learnt in."""

import pytest
import torch

from avenir.training.log import Log
from avenir.training.loop import make_objective, train
from avenir.training.objectives import make_source, set_latent_statistics
from avenir.training.recipe import load_recipe
from avenir.training.samples import write_samples
from avenir.world import World

SMALL = {
    "recipes/lewm.toml": ["encoder.channels=8", "encoder.width=16", "encoder.depth=1"],
    "recipes/quickstart_tokenizer.toml": ["encoder.width=8", "encoder.depth=1"],
}


@pytest.mark.filterwarnings("ignore:.*collapsed")  # after three steps, of course
@pytest.mark.parametrize("recipe", SMALL)
def test_statistics_are_those_that_the_loaded_world_has_over_the_same_data(recipe, tmp_path):
    words = ["train.steps=3", "train.batch_size=2", "train.num_groups=8", "train.num_samples=0"]
    made = load_recipe(recipe, SMALL[recipe] + words)
    world = World.load(train(made, tmp_path), "cpu")
    stored = world.encoder.latent_mean.clone(), world.encoder.latent_std.clone()
    num_frames = 8 * world.encoder.compression.t
    set_latent_statistics(world, make_source(made.data), num_frames, made.seed)
    torch.testing.assert_close(world.encoder.latent_mean, stored[0])
    torch.testing.assert_close(world.encoder.latent_std, stored[1])


def test_samples_leave_every_part_in_the_mode_it_was_in(tmp_path):
    words = ["predictor.depth=1", "predictor.width=16", "tokenizer.encoder.width=8"]
    recipe = load_recipe("recipes/quickstart.toml", words)
    encoder = recipe.parents["tokenizer"]
    source = make_source(recipe.data)
    codec = make_objective(encoder, source, {}).world
    task = make_objective(recipe, source, {"tokenizer": codec})
    before = {name: module.training for name, module in task.world.named_modules()}
    assert not before["encoder"] and before["predictor"]
    write_samples(task, tmp_path / "samples", 1, 0, Log(tmp_path, "samples", 0, 1), count=1)
    assert {name: module.training for name, module in task.world.named_modules()} == before
