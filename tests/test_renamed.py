"""What earlier versions wrote opens today, and computes what it computed.

Names of settings and of weights have changed since (`avenir/renamed.py`); the folders in
`fixtures/before_21` were written before.
"""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from avenir import renamed
from avenir.data import Source
from avenir.errors import AvenirError, TrainingError
from avenir.training.loop import train
from avenir.training.recipe import Recipe, load_recipe
from avenir.world import World, load

FOLDER = Path(__file__).parent / "fixtures" / "before_21"
RUNS = sorted(path.parent.name for path in FOLDER.glob("*/card.json"))


def some(values: Tensor) -> Tensor:
    """About 64 numbers, evenly spread."""
    flat = values.detach().float().flatten()
    return flat[:: max(1, len(flat) // 64)].clone()


def source_of(run: str) -> Source:
    """The data a run was trained on, as its recipe says."""
    from avenir.training.objectives import make_source

    return make_source(load_recipe(FOLDER / run / "recipe.toml").data)


@torch.no_grad()
def outputs(run: str) -> dict[str, Tensor]:
    """What a run makes of held-out clips: latents, decoded frames, two predicted chunks."""
    world = load(FOLDER / run, "cpu")
    f_t = world.encoder.compression.t
    if run == "language":
        text = torch.tensor(list(b"def number_7():\n    return 42"))
        video = world.encoder.decode(world.encoder.embed(text[None, :, None, None]))
        signals: dict[str, Tensor] = {}
    else:
        data = source_of(run)
        batch = data.read(data.draw("test", 6 * f_t, 2, 0))
        assert batch.video is not None
        video, signals = batch.video, batch.signals
    latents = world.encoder.encode(video)
    made = {"latents": some(latents)}
    if world.encoder.can_decode:
        made["decoded"] = some(world.encoder.decode(latents))
    if world.predictor is not None:
        generator = torch.Generator().manual_seed(0)
        if world.discovers:
            signals = {"actions": world.discovered(video)}
            made["actions"] = some(signals["actions"][:, f_t:])
        past = 4 * f_t
        horizon = video.shape[1] - past
        known = {name: signals[name] for name in world.takes}
        pieces = world.imagine(video[:, :past], known, horizon, 1, generator)
        made["predicted"] = some(torch.cat(list(pieces), dim=1))
    return {f"{run}.{name}": values for name, values in made.items()}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_computes_what_it_computed(run):
    expected = load_file(FOLDER / "expected.safetensors")
    made = outputs(run)
    assert made.keys() == {name for name in expected if name.startswith(f"{run}.")}
    for name, values in made.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-4, atol=1e-5, equal_nan=True)
        assert values.nan_to_num().std() > 1e-3  # what is all alike would be equal to anything


@pytest.mark.parametrize("run", RUNS)
def test_the_recipe_in_a_run_is_read(run):
    recipe = load_recipe(FOLDER / run / "recipe.toml")
    parents = [each for each in recipe.parents.values() if isinstance(each, Recipe)]
    assert len(parents) == (recipe.task == "predictor")
    assert Recipe.parse(recipe.model_dump()) == recipe


def test_a_world_that_was_read_and_saved_again_is_one_of_today(tmp_path):
    load(FOLDER / "flow", "cpu").save(tmp_path / "again")
    again, before = World.load(tmp_path / "again", "cpu"), World.load(FOLDER / "flow", "cpu")
    assert all(map(torch.equal, again.state_dict().values(), before.state_dict().values()))
    assert again.card == before.card


def test_a_run_that_was_interrupted_says_why_it_does_not_go_on(tmp_path):
    recipe = load_recipe(FOLDER / "interrupted" / "recipe.toml")
    parent = shutil.copytree(FOLDER / "kl", tmp_path / "parent")
    folder = shutil.copytree(FOLDER / "interrupted", tmp_path / "interrupted")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TrainingError, match="an earlier version of avenir"):
        train(recipe.on({"tokenizer": parent}), tmp_path, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.stat().st_size} == (
        before
    )


def test_a_recipe_with_an_old_name_is_told_the_new_one(tmp_path):
    recipe = (
        'task = "predictor"\ntokenizer = {run = "x"}\n[data]\nkind = "synthetic"\n[predictor]\n'
    )
    (tmp_path / "mine.toml").write_text(f'{recipe}kind = "flow"\nscratch = 0.5\n')
    message = "'predictor.scratch': it is called 'unconditional_probability' now"
    with pytest.raises(AvenirError, match=message):
        load_recipe(tmp_path / "mine.toml")


@pytest.mark.parametrize("run", RUNS)
def test_settings_keep_their_values_under_their_new_names(run):
    """Every number of an old recipe is there, in the same order, at the same depth."""
    old = tomllib.loads((FOLDER / run / "recipe.toml").read_text())

    def values(table: object) -> list[object]:
        return [values(each) for each in table.values()] if isinstance(table, dict) else [table]

    new = renamed.settings(old)
    assert values(new) == values(old)
    assert renamed.settings(new) == new
    assert renamed.originals(new) == old


def test_an_override_is_known_by_its_original_name():
    word = "tokenizer.tokenizer.alignment.decay_fraction=0.6"
    assert renamed.original_word(word) == "encoder.encoder.alignment.let_go=0.6"
    assert renamed.original_word("tokenizer=patches.toml") == "encoder=patches.toml"
    assert renamed.original_word("predictor.shift=4.0") == "predictor.shift=4.0"


def test_a_setting_of_a_kind_that_is_not_ours_keeps_its_name():
    table = {"predictor": {"kind": "my_lab.flow", "scratch": 0.5}}
    assert renamed.settings(table) == table


def test_a_playthrough_opens_to_the_same_frames():
    from avenir.serving.backends import backends_of, initial_states_of
    from avenir.serving.player import Player
    from avenir.serving.playthrough import read_playthrough

    world, data = load(FOLDER / "flow", "cpu"), source_of("flow")
    initial_states = initial_states_of(data, world, 1, 6)
    player = Player(backends_of(world, initial_states, True), initial_states, data.signals)
    text = (FOLDER / "playthrough.json").read_text()
    key = world.card.provenance["key"]
    list(player.open(read_playthrough(text), key))  # raises where a frame is another
    assert player.now == 3
    assert player.kept(key).frames == json.loads(text)["frames"]


def test_a_row_of_a_study_is_read():
    from avenir.study import read_row

    row = read_row(FOLDER / "row.json", "0eeb091209433850")
    assert (row.arm, row.seed, row.steps[-1]) == ("aligned", 11, 900)


if __name__ == "__main__":  # at the commit that wrote the folders
    every = [outputs(run) for run in RUNS]
    save_file({n: v for made in every for n, v in made.items()}, FOLDER / "expected.safetensors")
