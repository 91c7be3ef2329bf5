"""Recipes: what is said, what is filled in, and what is answered to a mistake."""

import re
import tomllib
from pathlib import Path

import pytest

from avenir.config import Config, merged, parse_overrides, to_toml
from avenir.errors import AvenirError
from avenir.registry import EXTRAS, ROLES, find, kinds, needing, parse
from avenir.training.recipe import Recipe, find_recipe, load_recipe

RECIPES = [
    path
    for path in sorted(Path("recipes").rglob("*.toml"))
    if "No recipe of its own" not in path.read_text()
]


def test_overrides_are_toml_or_plain_text():
    table = parse_overrides(["train.steps=3", "data=some/videos", "a.b.c=[1, 2]", "flag=true"])
    assert table == {
        "train": {"steps": 3},
        "data": "some/videos",
        "a": {"b": {"c": [1, 2]}},
        "flag": True,
    }


@pytest.mark.parametrize("word", ["steps", "=3", ""])
def test_an_override_without_key_or_value_is_explained(word):
    with pytest.raises(AvenirError, match="write it key=value"):
        parse_overrides([word])


def test_tables_merge_key_by_key():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}}) == {
        "a": {"b": 1, "c": 4},
        "d": 3,
    }


def test_toml_round_trip():
    table = {
        "name": 'a "b"',
        "flag": True,
        "list": [1, 2.5],
        "sub": {"deep": {"x": 1}},
        "none": None,
    }
    back = tomllib.loads(to_toml(table))
    assert back == {k: v for k, v in table.items() if v is not None}


@pytest.mark.parametrize("role", ROLES)
def test_every_kind_is_found_by_its_file_and_has_settings(role):
    for kind in kinds(role):
        cls = find(role, kind)
        assert issubclass(cls.Config, Config)
        assert cls.Config.model_fields["kind"].default == kind


def test_an_unknown_kind_is_answered_with_the_nearest_one():
    with pytest.raises(AvenirError, match="did you mean 'flow'"):
        find("predictors", "flw")


def test_an_unknown_setting_is_answered_with_the_nearest_one():
    with pytest.raises(AvenirError, match=r"'encoder\.chanels': did you mean 'channels'"):
        parse("encoders", {"kind": "kl", "chanels": 4}, "encoder")


def test_a_wrong_value_says_where_and_what():
    with pytest.raises(AvenirError, match=r"'encoder\.channels' was given 0"):
        parse("encoders", {"kind": "kl", "channels": 0}, "encoder")


def test_a_parent_takes_data_and_overrides_from_its_child(tmp_path):
    (tmp_path / "tokenizer.toml").write_text(
        'task = "encoder"\n[data]\nkind = "synthetic"\n[encoder]\nkind = "kl"\n'
    )
    (tmp_path / "world.toml").write_text(
        'task = "predictor"\ntokenizer = "tokenizer.toml"\n[data]\nkind = "synthetic"\nfps = 5\n'
        '[predictor]\nkind = "flow"\n'
    )
    words = [
        "data.fps=8",
        "tokenizer.train.steps=7",
        "tokenizer.encoder.channels=3",
        "train.steps=9",
    ]
    recipe = load_recipe(tmp_path / "world.toml", words)
    parent = recipe.parents["tokenizer"]
    assert isinstance(parent, Recipe)
    assert (recipe.train.steps, parent.train.steps, parent.encoder["channels"]) == (9, 7, 3)
    assert recipe.data["fps"] == parent.data["fps"] == 8
    assert Recipe.parse(tomllib.loads(recipe.toml())) == recipe


def test_the_key_changes_with_what_matters_and_only_then():
    recipe = load_recipe("recipes/quickstart_tokenizer.toml")
    other = load_recipe("recipes/quickstart_tokenizer.toml", ["seed=1"])
    quiet = load_recipe("recipes/quickstart_tokenizer.toml", ["train.num_samples=9", "name=x"])
    assert recipe.key("data", {}) != other.key("data", {})
    assert recipe.key("data", {}) != recipe.key("other data", {})
    assert recipe.key("data", {}) == quiet.key("data", {})


def test_the_key_of_an_aligned_tokenizer_changes_with_its_teacher(tmp_path):
    words = ["alignment.teacher=dino.toml", "alignment.share=0.3"]
    aligned = load_recipe("recipes/quickstart_tokenizer.toml", words)
    assert aligned.key("data", {"teacher": "a"}) != aligned.key("data", {"teacher": "b"})
    assert aligned.key("data", {"teacher": "a"}) == aligned.key("data", {"teacher": "a"})


def test_a_teacher_takes_data_and_overrides_from_its_child(tmp_path):
    (tmp_path / "child.toml").write_text(
        'task = "encoder"\nextends = "tokenizer.toml"\n[alignment]\nteacher = "teacher.toml"\n'
    )
    (tmp_path / "tokenizer.toml").write_text('[data]\nkind = "synthetic"\n[encoder]\nkind = "kl"\n')
    (tmp_path / "teacher.toml").write_text('task = "encoder"\n[encoder]\nkind = "dino"\n')
    words = ["data.fps=8", "alignment.teacher.encoder.width=32", "alignment.shuffle=true"]
    recipe = load_recipe(tmp_path / "child.toml", words)
    teacher = recipe.parents["teacher"]
    assert isinstance(teacher, Recipe)
    assert recipe.alignment is not None and recipe.alignment.shuffle
    assert recipe.data["fps"] == teacher.data["fps"] == 8
    assert teacher.encoder["width"] == 32
    assert Recipe.parse(tomllib.loads(recipe.toml())) == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_resolves(path):
    brings_data = "synthetic" in path.read_text() or path.parent.name == "predictors"
    recipe = load_recipe(path, [] if brings_data else ["data=somewhere"])
    assert recipe.name == path.stem


def test_recipes_that_avenir_brings_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("recipes/quickstart.toml", "quickstart.toml"):
        assert find_recipe(Path(name)).name == "quickstart.toml"
        assert find_recipe(Path(name)).exists()
    for name in ("recipes/predictors/flow.toml", "predictors/flow.toml"):
        assert load_recipe(find_recipe(Path(name))).name == "flow"
    assert find_recipe(Path("recipes/none.toml")) == Path("recipes/none.toml")


def test_a_data_path_and_other_settings_of_the_data_go_together():
    words = ["data=videos", 'data.test=["a*"]', "data.fps=5"]
    recipe = load_recipe("recipes/driving.toml", words)
    parent = recipe.parents["tokenizer"]
    assert isinstance(parent, Recipe)
    for data in (recipe.data, parent.data):
        assert (data["path"], list(data["test"]), data["fps"]) == ("videos", ["a*"], 5)


def test_a_missing_module_names_the_extra_that_brings_it():
    with (
        pytest.raises(AvenirError, match=r"^playing needs .*'uvicorn\.server'.*avenir\[serve\]'$"),
        needing("playing"),
    ):
        raise ModuleNotFoundError(name="uvicorn.server")
    with pytest.raises(AvenirError, match="check the name"), needing("it"):
        import no_such_module_at_all  # noqa: F401  # type: ignore[import-not-found]


def test_every_extra_is_one_that_the_package_has():
    declared = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    brought = {
        extra: {re.split(r"[\[><=]", need)[0] for need in needs}
        for extra, needs in declared["optional-dependencies"].items()
    }
    assert set(EXTRAS.values()) <= set(brought)
    assert {"starlette", "uvicorn", "websockets"} == brought["serve"]
    assert brought["serve"] | brought["onnx"] <= set(EXTRAS)
