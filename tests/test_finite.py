"""A future that is not finite is said, and not shown as black."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from avenir import cli
from avenir.clip import Clip
from avenir.controls import Controls
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.finite import finite
from avenir.video import write
from avenir.world import World, load


def past(num_frames: int = 10) -> Clip:
    chance = generator("past")
    return Clip(torch.randint(256, (num_frames, 3, 64, 64), generator=chance).byte(), 10.0)


@pytest.fixture
def world(tiny_run) -> World:
    return load(tiny_run, "cpu")


def test_what_is_finite_is_what_it_was():
    made = torch.randn(3)
    assert finite(made) is made
    for number in (torch.nan, torch.inf):
        with pytest.raises(AvenirError, match="nothing can be imagined"):
            finite(torch.tensor([0, number]))


def broken(weights: dict[str, torch.Tensor], part: str) -> str:
    """Make one number of a part NaN, as after a run that diverged, and name the weight."""
    last = [n for n, value in weights.items() if n.startswith(part) and value.is_floating_point()]
    weights[last[-1]].view(-1)[0] = torch.nan
    return last[-1]


@pytest.mark.parametrize("part", ["encoder.", "conditioner.", "predictor."])
@pytest.mark.parametrize("verb", ["predict", "encode", "evaluate"])
def test_a_verb_names_the_weight(tiny_run, tmp_path, monkeypatch, capsys, part, verb):
    weights = load_file(tiny_run / "model.safetensors")
    name = broken(weights, part)
    run = tmp_path / "run"
    run.mkdir()
    for file in ("card.json", "recipe.toml"):
        (run / file).write_text((tiny_run / file).read_text())
    save_file(weights, run / "model.safetensors")
    film = write(tmp_path / "clip.mp4", past())
    words = {"predict": [str(film)], "encode": ["--video", str(film)], "evaluate": []}[verb]
    out = tmp_path / "out.mp4"
    monkeypatch.setattr("sys.argv", ["avenir", verb, str(run), *words, "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1 and not out.exists()
    said = capsys.readouterr().err
    assert f"the weights {name!r} of {str(run)!r} hold numbers that are not finite" in said


@pytest.mark.parametrize("part", ["encoder.", "predictor."])
def test_a_world_whose_weights_break_while_it_lives_says_so(world, part):
    state = world.start(past().video, {})
    with torch.no_grad():
        name = broken({n: p.data for n, p in world.named_parameters()}, part)
    asked = [
        lambda: world.predict(past(), 0.4),
        lambda: world.step(state, None, generator("step")),
        lambda: world.foresee(state, Controls(torch.zeros(1, 2, 2)), generator("foresee")),
        lambda: list(world.reconstruct([past()])),
    ]
    del asked[2 if part == "encoder." else 3]  # which asks nothing of this part
    for make in asked:
        with pytest.raises(AvenirError, match=name):
            make()


@pytest.mark.parametrize("number", [1e10, -1e10, math.inf, -math.inf, 25])
def test_actions_that_no_training_comes_near_are_named_with_the_bounds(world, number):
    given = torch.zeros(4, 2)
    given[2, 1] = number
    state = world.start(past().video, {})
    for act in (
        lambda: world.predict(past(), 0.4, given),
        lambda: world.imagine_step(state, Controls(given[2:3]), 0),
        lambda: world.foresee(state, Controls(given[None, 2:]), generator("foresee")),
    ):
        with pytest.raises(AvenirError, match="number 1 of actions was given as .*, -1 to 1,") as e:
            act()
        assert f"{number:g}" in str(e.value)


def test_actions_a_little_out_of_bounds_and_unknown_ones_are_taken(world):
    given = torch.tensor([[2.0, -3.0], [torch.nan, torch.nan]])
    assert world.predict(past(), 0.2, given).num_frames == 2
