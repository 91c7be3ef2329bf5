"""Every way to predict trains by its recipe, on any data, and goes on from a past."""

from pathlib import Path

import pytest
import torch

from avenir.controls import build_signals_around
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.training.loop import train
from avenir.training.objectives import make_source
from avenir.training.recipe import Recipe, load_recipe
from avenir.world import World

WAYS = {
    path.stem: path
    for path in sorted(Path("recipes/predictors").glob("*.toml"))
    if "No recipe of its own" not in path.read_text() and load_recipe(path).task == "predictor"
}
WORDS = [
    "train.steps=2",
    "train.batch_size=2",
    "train.cache_recordings=2",
    "predictor.depth=1",
    "predictor.width=32",
    "tokenizer.train.steps=2",
    "tokenizer.train.batch_size=2",
]


def words(path: Path) -> list[str]:
    encoder = load_recipe(path).parents["tokenizer"]
    assert isinstance(encoder, Recipe)
    thin = ["tokenizer.encoder.width=8"] if "width" in encoder.encoder else []
    return WORDS + thin


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*collapsed")  # after two steps, of course
@pytest.mark.parametrize("way", WAYS)
def test_a_recipe_trains_and_its_world_goes_on(way, runs):
    recipe = load_recipe(WAYS[way], words(WAYS[way]))
    world = World.load(train(recipe, runs))
    source = make_source(recipe.data)
    batch = source.read(source.spread("test", 16, 2))
    past, true = batch.video[:, :8], batch.video[:, 8:]
    signals = {name: batch.signals[name] for name in source.signals}
    made = torch.cat(list(world.imagine(past, signals, 8, 1, generator("way"))), dim=1)
    assert made.shape == true.shape and made.isfinite().all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*collapsed")
def test_a_hole_in_a_video_is_filled_in_whole_groups(runs):
    recipe = load_recipe(WAYS["masked"], words(WAYS["masked"]))
    world = World.load(train(recipe, runs))
    source = make_source(recipe.data)
    video = source.clip(source.spread("test", 16, 1)[0])
    before, after = video[:7], video[9:]
    made = world.infill(before, after, seconds=2 / source.fps)
    assert made.frames.shape == (2, *before.frames.shape[1:])
    assert torch.equal(made.frames, world.infill(before, after, seconds=2 / source.fps).frames)
    driven = build_signals_around(world.takes, before[1:], after[:6], 2)["actions"][0]
    known = [before.signals["actions"][1:], after.signals["actions"][:6]]
    assert torch.equal(driven[[*range(6), *range(8, 14)]], torch.cat(known))
    assert driven[6:8].isnan().all()
    with pytest.raises(AvenirError, match="give longer clips"):
        world.infill(before, after[:1], seconds=0.2)


@pytest.mark.parametrize("way", WAYS)
def test_the_family_takes_other_data(way):
    given = ["data=robot", "data.kind=lerobot", "data.size=[64, 80]", "data.fps=10"]
    recipe = load_recipe(WAYS[way], given)
    encoder = recipe.parents["tokenizer"]
    assert isinstance(encoder, Recipe)
    for each in (recipe, encoder):
        assert (each.data["kind"], each.data["path"]) == ("lerobot", "robot")
        assert tuple(each.data["size"]) == (64, 80)


def test_all_stand_on_one_grid_one_width_and_one_depth():
    for path in WAYS.values():
        recipe = load_recipe(path)
        encoder = recipe.parents["tokenizer"]
        assert isinstance(encoder, Recipe)
        assert tuple(encoder.encoder["compression"]) == (2, 8, 8)
        assert recipe.predictor is not None
        shape = {name: recipe.predictor[name] for name in ("width", "depth", "past")}
        assert shape == {"width": 128, "depth": 4, "past": 3}
        assert recipe.train.batch_size == 16
