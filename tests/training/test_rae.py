"""Tokenizers on a teacher: it is trained first, stays as it was, and is saved along."""

import tomllib
from pathlib import Path

import pytest
import torch

from avenir.card import Card
from avenir.errors import AvenirError
from avenir.evaluation.independence import check_judge
from avenir.training.loop import cost_of, train
from avenir.training.recipe import Recipe, load_recipe
from avenir.world import World, load

from .test_resume import assert_same, weights

TINY = [
    "train.steps=3",
    "train.batch_size=2",
    "train.num_samples=1",
    "encoder.compression=[2, 16, 16]",
    "encoder.channels=6",
    "encoder.width=8",
    "encoder.decoder_depth=1",
]
TEACHER = [
    "encoder.teacher.train.steps=2",
    "encoder.teacher.train.batch_size=2",
    "encoder.teacher.encoder.width=24",
    "encoder.teacher.encoder.depth=1",
    "encoder.teacher.encoder.blocks=[1]",
    "encoder.teacher.encoder.heads=2",
    "encoder.teacher.encoder.weights.gram=1.0",
]


def recipe(*words: str) -> Recipe:
    return load_recipe("recipes/rae.toml", [*TINY, *words])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return train(recipe(*TEACHER), tmp_path_factory.mktemp("rae"))


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return torch.rand(1, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def teacher_in(folder: Path) -> dict[str, torch.Tensor]:
    """Return the teacher's weights and statistics in a saved world, named as in its own."""
    start = "encoder.teacher."
    found = {n: w for n, w in weights(folder).items() if n.startswith(start)}
    return {f"encoder.{n.removeprefix(start)}": w for n, w in found.items()}


def assert_teacher_is_that_of(folder: Path, teacher: Path) -> None:
    inside, outside = teacher_in(folder), weights(teacher)
    assert inside.keys() == outside.keys()
    for name in inside:
        assert torch.equal(inside[name], outside[name]), name


# Training ---------------------------------------------------------------------------------------


def test_the_teacher_is_that_of_its_run_bit_for_bit_and_the_rest_learns(run):
    assert_teacher_is_that_of(run, run.parent / "dino")
    assert teacher_in(run)["encoder.latent_std"].std() > 0
    narrow = weights(run)["encoder.encoder.narrow.weight"].unflatten(1, (8, 24))
    assert not torch.equal(narrow[:, 0], narrow[:, 1])


def test_the_card_holds_the_teachers_table_and_the_runs_lineage(run):
    card, teacher = load(run, "cpu").card, load(run.parent / "dino", "cpu").card
    assert card.encoder["teacher"] == teacher.encoder
    assert card.provenance["parents"]["teacher"]["provenance"]["key"] == teacher.provenance["key"]
    with pytest.raises(AvenirError, match="is part of 'rae'"):
        check_judge(teacher, card)
    with pytest.raises(AvenirError, match="share an objective"):
        check_judge(teacher.model_copy(update={"provenance": {}}), card)


def test_saving_and_loading_changes_no_latent_and_needs_no_other_folder(run, video, tmp_path):
    world = load(run, "cpu")
    world.save(tmp_path / "again")
    again = load(tmp_path / "again", "cpu").encoder
    latents = world.encoder.encode(video)
    assert torch.equal(again.encode(video), latents)
    assert torch.equal(again.decode(latents), world.encoder.decode(latents))


def test_a_finished_teacher_gives_the_same_run(run, tmp_path):
    finished = recipe(f"encoder.teacher={run.parent / 'dino'}")
    assert train(finished, run.parent) == run
    assert_same(train(finished, tmp_path), run)


def test_its_decoder_trains_on_and_its_latents_stay(run, video, tmp_path):
    (tmp_path / "decoder.toml").write_text(
        f'task = "decoder"\ntokenizer = "{run}"\n[data]\nkind = "synthetic"\n'
        "[decoder.weights]\nadversarial = 0.1\n"
        "[train]\nsteps = 2\nbatch_size = 2\nnum_samples = 0\n"
    )
    folder = train(load_recipe(tmp_path / "decoder.toml"), tmp_path / "runs")
    assert_teacher_is_that_of(folder, run.parent / "dino")
    before, after = load(run, "cpu"), load(folder, "cpu")
    latents = before.encoder.encode(video)
    assert torch.equal(after.encoder.encode(video), latents)
    assert not torch.equal(after.encoder.decode(latents), before.encoder.decode(latents))


def test_a_predictor_stands_on_it(run, tmp_path):
    words = ["steps=2", "batch_size=2", "num_samples=0", "cache_recordings=2"]
    small = ["predictor.width=16", "predictor.depth=1", f"tokenizer={run}"]
    world = load_recipe("recipes/quickstart.toml", [*small, *(f"train.{w}" for w in words)])
    folder = train(world, tmp_path)
    assert_teacher_is_that_of(folder, run.parent / "dino")
    assert load(folder, "cpu").card.encoder == load(run, "cpu").card.encoder


def test_neighbouring_latents_may_be_asked_to_be_alike(run, tmp_path):
    words = ["directions=0", "relations=0", "local_correlation=1"]
    asked = recipe(
        f"encoder.teacher={run.parent / 'dino'}", *(f"alignment.{word}" for word in words)
    )
    folder = train(asked, tmp_path)
    assert "local_correlation" in (folder / "metrics.jsonl").read_text()
    assert_teacher_is_that_of(folder, run.parent / "dino")
    assert weights(folder).keys() == weights(run).keys()


def test_public_weights_of_a_teacher_are_named_and_not_saved(video, tmp_path):
    pytest.importorskip("transformers")
    from tests.test_hub import save_tiny

    model = save_tiny(tmp_path / "model")
    table = {"kind": "rae", "teacher": {"kind": "hub", "model": str(model)}, "width": 8}
    table |= {"channels": 6, "compression": (2, 8, 8), "decoder_depth": 1}
    world = World.build(Card(fps=10.0, size=(64, 64), encoder=table))
    world.save(tmp_path / "world")
    inside = teacher_in(tmp_path / "world")
    names = {f"encoder.{name}" for name in ("_extra_state", "latent_mean", "latent_std")}
    assert inside.keys() == names
    latents = world.encoder.encode(video)
    assert torch.equal(load(tmp_path / "world", "cpu").encoder.encode(video), latents)
    save_tiny(model)
    with pytest.raises(AvenirError, match="have changed"):
        load(tmp_path / "world", "cpu")


# Recipes ----------------------------------------------------------------------------------------


def test_a_teacher_takes_data_and_overrides_from_its_child():
    child = recipe("encoder.teacher.train.steps=3", "data.fps=8")
    teacher = child.parents["teacher"]
    assert isinstance(teacher, Recipe)
    assert (teacher.name, teacher.train.steps, child.train.steps) == ("dino", 3, 3)
    assert teacher.data["fps"] == child.data["fps"] == 8
    assert Recipe.parse(tomllib.loads(child.toml())) == child


def test_settings_of_a_finished_teacher_cannot_change(run, tmp_path):
    (tmp_path / "child.toml").write_text(
        'task = "encoder"\n[data]\nkind = "synthetic"\n'
        f'[encoder]\nkind = "rae"\nteacher = "{run.parent / "dino"}"\n'
    )
    with pytest.raises(AvenirError, match="is a finished run"):
        load_recipe(tmp_path / "child.toml", ["encoder.teacher.train.steps=9"])


def test_overrides_make_a_tokenizer_one_on_a_teacher(tmp_path):
    (tmp_path / "plain.toml").write_text(
        'task = "encoder"\n[data]\nkind = "synthetic"\n[encoder]\nkind = "kl"\nwidth = 8\n'
    )
    (tmp_path / "world.toml").write_text(
        'task = "predictor"\ntokenizer = "plain.toml"\n[data]\nkind = "synthetic"\n'
        '[predictor]\nkind = "flow"\n'
    )
    teacher = Path("recipes/dino.toml").resolve()
    words = ["tokenizer.encoder.kind=rae", f"tokenizer.encoder.teacher={teacher}"]
    tokenizer = load_recipe(tmp_path / "world.toml", words).parents["tokenizer"]
    assert isinstance(tokenizer, Recipe)
    assert (tokenizer.encoder["kind"], tokenizer.encoder["width"]) == ("rae", 8)
    assert isinstance(tokenizer.parents["teacher"], Recipe)


def test_the_key_is_of_the_teachers_run_and_not_of_where_it_lies():
    child = recipe()
    elsewhere = child.on({"teacher": Path("elsewhere")})
    assert elsewhere.parents == {"teacher": Path("elsewhere")}
    assert elsewhere.key("data", {"teacher": "a"}) == child.key("data", {"teacher": "a"})
    assert child.key("data", {"teacher": "b"}) != child.key("data", {"teacher": "a"})


def test_what_it_costs_is_said_of_the_teacher_as_well():
    teacher, child = cost_of(recipe(*TEACHER))
    assert teacher.startswith("dino: windows of 1 frames")
    assert child.startswith("rae: ") and "latents 2 6 4 4" in child


def test_a_second_teacher_is_refused_before_anything_trains(tmp_path):
    with pytest.raises(AvenirError, match=r"leave alignment\.teacher out"):
        train(recipe(*TEACHER, "alignment.teacher=dino.toml"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_teacher_it_asks_for_one(tmp_path):
    (tmp_path / "alone.toml").write_text(
        'task = "encoder"\n[data]\nkind = "synthetic"\n[encoder]\nkind = "rae"\n'
    )
    with pytest.raises(AvenirError, match=r"'encoder\.teacher' is missing"):
        load_recipe(tmp_path / "alone.toml")
