"""What `avenir show` says of the cost of a recipe whose data nobody can draw from."""

import pytest

from avenir.training.loop import cost_of
from avenir.training.recipe import Recipe, load_recipe


def recipe(where, data: str) -> Recipe:
    (where / "frames.toml").write_text(
        f'task = "encoder"\n[data]\n{data}\nsize = [32, 32]\n[encoder]\nkind = "kl"\nwidth = 8\n'
        "depth = 1\ndecoder_depth = 1\n[train]\nsteps = 2\nbatch_size = 2\nnum_samples = 0\n"
    )
    (where / "told.toml").write_text(
        f'task = "predictor"\ntokenizer = "frames.toml"\n[data]\n{data}\nsize = [32, 32]\n'
        '[predictor]\nkind = "flow"\nwidth = 16\ndepth = 1\nheads = 2\n[train]\nsteps = 2\n'
    )
    return load_recipe(where / "told.toml")


def test_data_that_are_missing_cost_nothing_yet(tmp_path):
    child = recipe(tmp_path, 'kind = "lerobot"\npath = "none"')
    lines = list(cost_of(child))
    assert [line.split(" (")[0] for line in lines] == [
        f"{each.name}: no estimate without data" for each in (child.parents["tokenizer"], child)
    ]


def test_what_a_person_would_play_costs_nothing_yet(tmp_path):
    pytest.importorskip("gymnasium")
    played = 'environment = "MountainCarContinuous-v0"\npolicy = "human"\nepisode_frames = 20'
    child = recipe(tmp_path, f'kind = "gymnasium"\n{played}')
    lines = list(cost_of(child))
    assert len(lines) == 2
    for line, each in zip(lines, (child.parents["tokenizer"], child), strict=True):
        assert line.startswith(f"{each.name}: no estimate without data (policy 'human' was given")
