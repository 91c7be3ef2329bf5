"""Training on several cameras: every view for itself, and teachers are shown what encoders are."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avenir.assembly import assembled, make_conditioner
from avenir.card import Card
from avenir.clip import Condition, Progress
from avenir.conditioners import ConditionSpec
from avenir.conditioners.joint import JointConfig
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.evaluation.nearest_decoder import NearestDecoder
from avenir.predictors import LatentShape
from avenir.predictors.flow import Flow, FlowConfig
from avenir.signals import Signal
from avenir.training.loop import make_objective, train
from avenir.training.objectives import Objective, make_source
from avenir.training.recipe import load_recipe
from avenir.world import load

RECIPES = Path(__file__).parents[2] / "recipes"
RIG = """
[data]
kind = "synthetic"
size = [32, 32]
cameras = 3
[train]
steps = 2
batch_size = 2
num_samples = 0
"""
DINO = "\n[encoder]\nwidth = 24\ndepth = 1\nblocks = [1]\nheads = 2\nweights.gram = 1.0\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("rigs")
    (folder / "teacher.toml").write_text(f'extends = "{RECIPES}/dino.toml"\n{RIG}{DINO}')
    return folder


def task_of(folder: Path, recipe: str, more: str = "", *words: str) -> Objective:
    path = folder / f"mine_{recipe}"
    path.write_text(f'extends = "{RECIPES}/{recipe}"\n{RIG}{more}')
    parsed = load_recipe(path, list(words))
    parents = {
        role: load(train(each, folder), "cpu") if not isinstance(each, Path) else load(each, "cpu")
        for role, each in parsed.parents.items()
    }
    return make_objective(parsed, make_source(parsed.data), parents)


def losses(task: Objective) -> dict[str, torch.Tensor]:
    batch = task.data.read(task.data.draw("train", task.num_frames, 2, 0))
    return task.losses(batch, Progress(0, 2, generator("rigs")))


@pytest.mark.parametrize("recipe", ["quickstart_tokenizer.toml", "lewm.toml", "vjepa.toml"])
def test_encoders_learn_from_each_view_for_itself(folder, recipe):
    task = task_of(folder, recipe, "", "data.size=[64,64]")
    assert all(torch.isfinite(value).all() for value in losses(task).values())
    assert task.world.encoder.views == 3


def test_a_teacher_is_shown_the_views_that_the_tokenizer_is(folder):
    more = '[alignment]\nteacher = "teacher.toml"\n'
    task = task_of(folder, "quickstart_tokenizer.toml", more)
    found = losses(task)
    assert "directions" in found and all(torch.isfinite(v).all() for v in found.values())


def test_a_tokenizer_on_a_teacher_encodes_views_alike_before_and_after_it_is_saved(folder):
    more = '[encoder]\ncompression = [2, 16, 16]\nwidth = 8\nteacher = "teacher.toml"\n'
    path = folder / "mine_rae.toml"
    path.write_text(f'extends = "{RECIPES}/rae.toml"\n{RIG}{more}')
    world = load(train(load_recipe(path, []), folder), "cpu")
    alone = load(folder / world.card.name, "cpu").encoder
    alone.views = 1
    video = torch.randn(1, 4, 3, 32, 96).clamp(-1, 1)
    views = [alone.encode(view) for view in video.split(32, dim=-1)]
    torch.testing.assert_close(world.encoder.encode(video), torch.cat(views, dim=-1))
    groups = torch.zeros(2, 2, 3, 32, 96)
    album = NearestDecoder(world.encoder, world.encoder.encode(groups)[:, 0], groups)
    torch.testing.assert_close(album.encode(video), world.encoder.encode(video))


def test_parts_that_are_dropped_together_can_still_be_told_apart():
    """What training needs to draw its own past under guidance by parts."""
    parts = {"parts": {"actions": {"dropout": 0.0, "future_dropout": 0.0}, "text": {}}}
    config = JointConfig.parse(parts | {"dropout": 0.5})
    joint = make_conditioner(
        config.model_dump(), ConditionSpec({"actions": 2, "caption": 8}, 2, 24, 4)
    )
    said = joint({"actions": torch.randn(16, 8, 2)}, 4, 16, generator("drop"))
    assert set(said.parts) == {"actions", "text"}
    again = Condition.together(said.parts)
    torch.testing.assert_close(again.per_frame, said.per_frame)
    sampling = {"guidance": {"text": 3.0}, "num_steps": 1}
    table = {"width": 24, "depth": 1, "heads": 2, "past": 2, "chunk": 2, "self_forcing": 0.5}
    flow = Flow(FlowConfig.parse(table | {"sampling": sampling}), LatentShape(2, 4, 4))
    loss = flow.losses(torch.randn(16, 4, 2, 4, 4), said, Progress(9, 10, generator("own")))
    assert torch.isfinite(loss["flow"])


def test_guidance_of_parts_that_there_are_not_is_refused_before_training():
    predictor = FlowConfig.parse({"sampling": {"guidance": {"txt": 3.0}}}).model_dump()
    card = Card(
        fps=10.0,
        size=(64, 64),
        signals={"actions": Signal(role="action", size=2)},
        encoder={"kind": "kl"},
        conditioner={"kind": "actions"},
        predictor=predictor,
    )
    with pytest.raises(AvenirError, match="'txt'"):
        assembled(card)


def test_a_rig_takes_clips_of_its_own_size_only(folder):
    path = folder / "mine_again.toml"
    path.write_text(f'extends = "{RECIPES}/quickstart_tokenizer.toml"\n{RIG}')
    world = load(train(load_recipe(path, []), folder), "cpu")
    source = make_source(load_recipe(path, []).data)
    clip = source.clip(source.spread("test", 4, 1)[0])
    assert next(world.reconstruct([clip])).size == (32, 96)
    with pytest.raises(AvenirError, match="3 views side by side"):
        next(world.reconstruct([replace(clip, frames=clip.frames[..., :90])]))
