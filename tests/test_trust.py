"""What is opened cannot harm: nobody's code is run unasked, and nothing else of a folder hurts."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import avenir
from avenir import cli
from avenir.card import Card
from avenir.clip import Clip
from avenir.config import Config, to_toml
from avenir.data.lerobot import write_dataset
from avenir.errors import AvenirError
from avenir.registry import code_in, find, kinds, working_directory_last
from avenir.training import loop
from avenir.training.loop import cost_of, train
from avenir.training.recipe import data_of, load_recipe
from avenir.video import write
from avenir.world import World
from tests.conftest import save_tiny_world

PLANTED = """
from pathlib import Path
from avenir.config import Config
from avenir.encoders.patches import Patches, PatchesConfig
Path("ran").touch()

class PayloadConfig(PatchesConfig):
    kind: str = "runs.friend.payload"

class Payload(Patches):
    Config = PayloadConfig

def act(environment, rng):
    return lambda observation: environment.action_space.sample()
"""
WORKER = """
import multiprocessing
from avenir import cli
from avenir.card import Card

def work():
    worker = multiprocessing.get_context("spawn").Process(target=print, args=("done",))
    worker.start()
    worker.join()

if __name__ == "__main__":
    cli.app = work
    cli.main()
"""
STRANGERS = ["avenir", "numpy", "pandas", "av", "torch", "PIL", "sitecustomize", "usercustomize"]
STRANGERS += ["struct", "pyarrow", "safetensors", "gymnasium", "uvicorn", "onnx", "transformers"]
STRANGERS += ["typer", "rich", "jax", "tensorflow", "matplotlib", "scipy", "IPython", "cv2"]
"""What a verb, or a library that it imports, might look for: some are not installed."""
ALL_VERBS = """
import sys
from avenir import cli

FILM = "videos/a.mp4"
DATA = ["data.train_recordings=24", "data.test_recordings=8"]
LINES = [
    ["import", "videos", "--to", "set", "--size", "16x16"],
    ["train", "tokenizer.toml", "train.steps=1", "train.batch_size=1", "train.num_samples=0"],
    ["show", "tokenizer.toml", "train.steps=1", "train.batch_size=1"],
    ["predict", "run", FILM, "--out", "more.mp4"],
    ["encode", "run"],
    ["features", "run", "--video", FILM, "--out", "seen.mp4"],
    ["export", "run", "--steps", "1"],
    ["evaluate", "run", "--clips", "2", "--seconds", "1", "--samples", "1"],
    ["compare", "run", "--clips", "2", "--seconds", "1"],
    ["probe", "run", "--clips", "2"],
    ["passport", "run", "--clips", "2"],
    ["plan", "run", "--starts", "2", "--candidates", "2", "--rounds", "1", "--seconds", "0.4"],
    ["play", "run", "--host", "256.0.0.1"],
    ["study", "tokenizer.toml"],
    ["quickstart", "train.steps=0"],
]
if __name__ == "__main__":
    for line in LINES:
        sys.argv = ["avenir", *line]
        try:
            cli.main()
        except SystemExit as end:
            print(line[0], end.code, file=sys.stderr)
    assert {line[0] for line in LINES} == {each.name for each in cli.app.registered_commands}
    print("done")
"""
NAME = "runs.friend.payload"
TOKENIZER = """
task = "encoder"
data = {{ kind = "synthetic", size = [16, 16], train_recordings = 4 }}
encoder = {{ kind = "{kind}", compression = [2, 8, 8] }}
"""


@pytest.fixture
def friend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder that somebody sent, with a module in it, below the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = save_tiny_world(Path("runs") / "friend", (16, 16))
    (folder / "payload.py").write_text(PLANTED)
    Path("plain").mkdir()
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("runs", "planted"):
            del sys.modules[name]


def edit(folder: Path, **changes: Any) -> None:
    """Change what a card says."""
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_module(path: Path, content: str) -> None:
    """Write a module, and the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def ran() -> bool:
    """Say whether the planted module was imported."""
    return Path("ran").exists()


def fails(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: object) -> str:
    """Run a verb that must fail, and return the sentence it ends with."""
    monkeypatch.setattr(sys, "argv", ["avenir", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    return " ".join(said[said.index("error: ") :].split())


CARDS: dict[str, dict[str, Any]] = {
    "encoder": {"encoder": {"kind": NAME, "compression": [2, 8, 8]}},
    "teacher": {"encoder": {"kind": "rae", "teacher": {"kind": NAME}}},
    "conditioner": {"conditioner": {"kind": NAME}},
    "part": {"conditioner": {"kind": "joint", "parts": {"actions": {}, NAME: {}}}},
    "predictor": {"predictor": {"kind": NAME}},
    "lineage": {"provenance": {"parents": {"teacher": {"encoder": {"kind": NAME}}}}},
}


@pytest.mark.parametrize("where", CARDS)
def test_code_that_a_card_names_is_not_run(friend, where):
    edit(friend, **CARDS[where])
    with pytest.raises(AvenirError, match="names code that is not part of avenir") as error:
        avenir.load(friend, "cpu")
    assert not ran()
    assert f"{NAME!r} ({Path.cwd() / 'runs' / 'friend' / 'payload.py'})" in str(error.value)
    assert f"--trust {NAME}" in str(error.value)
    with pytest.raises(AvenirError, match="names code"):
        World.load(friend, "cpu", trust=["runs.friend"])
    with pytest.raises(AvenirError, match="names code"):
        World.load(friend, "cpu", trust=NAME)  # a word is no list of words
    assert not ran()


VERBS = {
    "predict": ["film.mp4"],
    "play": ["--port", "0"],
    "plan": [],
    "export": [],
    "encode": [],
    "evaluate": [],
    "features": ["--video", "film.mp4"],
    "compare": [],
    "probe": [],
    "passport": [],
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_runs_what_a_card_names(friend, monkeypatch, capsys, verb):
    write(Path("film.mp4"), Clip(torch.zeros(12, 3, 16, 16, dtype=torch.uint8), 10.0))
    edit(friend, **CARDS["encoder"])
    assert f"--trust {NAME}" in fails(monkeypatch, capsys, verb, friend, *VERBS[verb])
    assert not ran()


ELSEWHERE = {"import", "quickstart", "show", "study", "train"}
"""Verbs that open no run folder themselves: each has a test of its own, `study` in tests/study."""


def test_every_verb_is_among_them():
    names = {command.name for command in cli.app.registered_commands}
    assert names == VERBS.keys() | ELSEWHERE


def test_the_quickstart_trusts_no_run_that_is_there_already(friend, monkeypatch, capsys):
    edit(friend, **CARDS["encoder"])
    monkeypatch.setattr(loop, "_holds", lambda folder, key: True)  # who sent it knows the key
    for name in ("quickstart", "quickstart_tokenizer"):
        shutil.copytree(friend, Path("runs") / name)
    assert f"--trust {NAME}" in fails(monkeypatch, capsys, "quickstart")
    assert not ran()


def test_a_data_set_and_what_lies_in_it_run_nothing(friend, monkeypatch, capsys):
    film = Clip(torch.zeros(12, 3, 16, 16, dtype=torch.uint8), 10.0)
    write_dataset(Path("set"), [film, film])
    info = Path("set") / "meta" / "info.json"
    info.write_text(json.dumps({"kind": NAME, **json.loads(info.read_text())}))
    write_module(Path("set") / "meta" / "payload.py", PLANTED)
    write_module(Path("set") / "conftest.py", PLANTED)
    monkeypatch.setattr(sys, "argv", ["avenir", "import", "set", "--to", "to", "--size", "16x16"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code, capsys.readouterr().err
    assert f"unknown data kind {NAME!r}" not in capsys.readouterr().err
    assert not ran()


def test_no_evaluator_and_no_parent_runs_code(friend, monkeypatch, capsys):
    mine = save_tiny_world(Path("runs") / "mine", (16, 16))
    edit(friend, **CARDS["encoder"])
    for verb in ("evaluate", "passport"):
        said = fails(monkeypatch, capsys, verb, mine, "--evaluator", friend)
        assert f"--trust {NAME}" in said
    recipe = Path("world.toml")
    table = f'task = "predictor"\ntokenizer = "{friend}"\ndata = {{ kind = "synthetic" }}\n'
    recipe.write_text(table + 'predictor = { kind = "flow" }\n')
    for verb in ("train", "show"):
        assert f"--trust {NAME}" in fails(monkeypatch, capsys, verb, recipe)
    for in_python in (lambda: train(load_recipe(recipe), Path("runs")), lambda: said_of(recipe)):
        with pytest.raises(AvenirError, match="names code"):
            in_python()
    assert not ran()


def said_of(recipe: Path) -> list[str]:
    """Estimate what a recipe costs, in Python."""
    return list(cost_of(load_recipe(recipe)))


DATA = {
    "source": f'kind = "{NAME}"',
    "policy": f'kind = "gymnasium"\nenvironment = "CartPole-v1"\npolicy = "{NAME}:act"',
    "environment": f'kind = "gymnasium"\nenvironment = "{NAME}:Any-v0"',
}


@pytest.mark.parametrize("where", DATA)
@pytest.mark.parametrize("verb", [*sorted(VERBS.keys() - {"predict", "features"})])
def test_code_that_a_runs_recipe_names_is_not_run(friend, monkeypatch, capsys, verb, where):
    (friend / "recipe.toml").write_text(f'name = "tiny"\n[data]\n{DATA[where]}\n')
    assert "names code" in fails(monkeypatch, capsys, verb, friend)
    with pytest.raises(AvenirError, match="names code"):
        data_of(friend, [])
    assert not ran()


def test_a_recipe_in_a_run_is_the_runs(friend, monkeypatch, capsys):
    (friend / "recipe.toml").write_text(TOKENIZER.format(kind=NAME))
    Path("mine.toml").write_text(f'extends = "{friend}/recipe.toml"\n')
    for recipe in (friend / "recipe.toml", Path("mine.toml")):
        for verb in ("train", "show"):
            assert f"--trust {NAME}" in fails(monkeypatch, capsys, verb, recipe)
    assert not ran()
    assert load_recipe(friend / "recipe.toml", trust=[NAME]).encoder["kind"] == NAME


def test_a_policy_without_a_function_imports_nothing(friend):
    pytest.importorskip("gymnasium")
    from avenir.data.gymnasium.policies import policy_named

    with pytest.raises(AvenirError, match="names no function"):
        policy_named(NAME, "CartPole-v1")
    assert not ran()


def test_what_is_trusted_by_name_is_run(friend):
    edit(friend, **CARDS["encoder"], predictor=None, conditioner=None)
    World.build(Card.parse(json.loads((friend / "card.json").read_text()))).save(friend)
    Path("ran").unlink()
    del sys.modules[NAME]
    assert type(avenir.load(friend, "cpu", trust=[NAME]).encoder).__name__ == "Payload"
    assert ran()


def test_my_own_recipe_runs_my_own_code(friend, monkeypatch):
    Path("tokenizer.toml").write_text(TOKENIZER.format(kind=NAME))
    Path("world.toml").write_text(
        'task = "predictor"\ntokenizer = "tokenizer.toml"\n'
        "data = { kind = 'synthetic', size = [16, 16], train_recordings = 4 }\n"
        "predictor = { kind = 'flow', width = 16, depth = 1, heads = 1, past = 1, chunk = 1 }\n"
        "train = { steps = 1, batch_size = 1, num_samples = 0, cache_recordings = 0 }\n"
    )
    run = train(load_recipe("world.toml"), Path("runs"))
    assert ran()
    with pytest.raises(AvenirError, match="names code"):
        World.load(run, "cpu")
    words = ["encode", run, "--trust", NAME, "data.train_recordings=2", "data.test_recordings=1"]
    monkeypatch.setattr(sys, "argv", ["avenir", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0


def test_what_an_argument_names_is_trusted(friend):
    data = data_of(friend, [f"data.kind={NAME}"])
    assert data["kind"] == NAME


def test_all_that_would_be_imported_is_found():
    table = {
        "kind": "flow",
        "inner": [{"kind": "a.b"}, {"parts": {"c.d": {"kind": 3}}}],
        "environment": "e:f-v0",
        "policy": "random",
        "notes": "g.h",
    }
    assert set(code_in(table)) == {"a.b", "c.d", "e:f-v0"}


def test_the_working_directory_is_looked_at_last_and_only_within(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with working_directory_last():
        assert sys.path == [*before, str(tmp_path)]
    assert sys.path == before


@pytest.mark.slow
def test_a_module_in_the_working_directory_is_nobodys(tmp_path):
    """Whichever verb is run, all in one process: what is imported once is not looked for again."""
    here = tmp_path / "here"
    run = save_tiny_world(here / "run", (16, 16))
    small = {"kind": "synthetic", "size": [16, 16], "train_recordings": 24, "test_recordings": 8}
    (run / "recipe.toml").write_text(to_toml({"name": "tiny", "data": small}))
    (here / "tokenizer.toml").write_text(TOKENIZER.format(kind="patches"))
    write(here / "videos" / "a.mp4", Clip(torch.zeros(30, 3, 16, 16, dtype=torch.uint8), 10.0))
    for name in STRANGERS:
        write_module(here / f"{name}.py", f"from pathlib import Path\nPath('ran-{name}').touch()\n")
    write_module(tmp_path / "all_verbs.py", ALL_VERBS)
    write_module(tmp_path / "work.py", WORKER)
    for program in ("work.py", "all_verbs.py"):
        command = [sys.executable, tmp_path / program]
        result = subprocess.run(command, cwd=here, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert result.stdout.endswith("done\n")
    assert not list(here.glob("ran*"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of one's own, to be damaged."""
    return save_tiny_world(tmp_path / "run", (16, 16))


BOMBS = [
    {"encoder": {"depth": 10**9}},
    {"encoder": {"width": 20_000}},
    {"encoder": {"compression": [2**40, 8, 8]}},
    {"encoder": {"channels": 10**18}},
    {"predictor": {"depth": 10**9}},
    {"predictor": {"width": 10**30}},
    {"predictor": {"past": 10**9}},
    {"predictor": {"chunk": 10**9}},
    {"predictor": {"sampling": {"num_steps": 10**9}}},
    {"encoder": {"look_back": 10**9}},
    {"size": [100_000, 100_000]},
    {"fps": 0},
    {"fps": 10**400},
    {"views": 10**9},
    {"signals": {"actions": {"size": 10**12}}},
    {"signals": {"actions": {"low": [0.0]}}},
    {"conditioner": {"kind": 3}},
    {"provenance": {"steps": "many"}},
    {"encoder": None},
]


@pytest.mark.parametrize("bomb", BOMBS, ids=str)
def test_a_card_that_asks_for_too_much_is_refused_before_anything_is_built(run, bomb, monkeypatch):
    card = json.loads((run / "card.json").read_text())
    for key, value in bomb.items():
        edit(run, **{key: {**card[key], **value} if isinstance(value, dict) else value})
    monkeypatch.setattr(World, "build", None)
    with pytest.raises(AvenirError):
        World.load(run, "cpu")


WEIGHED = {"width", "depth", "decoder_depth", "heads", "kv_heads", "patch", "channels", "frames"}
WEIGHED |= {"compression", "levels", "widths", "outputs", "num_classes", "vocabulary", "blocks"}
WEIGHED |= {"num_prototypes", "bottleneck", "size", "actions", "group", "categories", "hidden"}
WEIGHED |= {"predictor_width", "predictor_depth", "rows", "block", "layers"}
"""What weights have the shape, or the number, of: they are held against those there are."""


def numbers_of(config: type[Config]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every whole number that a table of settings, or one in it, may say."""
    schema = config.model_json_schema()
    for table in (schema, *schema.get("$defs", {}).values()):
        for name, setting in table.get("properties", {}).items():
            todo = [setting]
            while todo:
                each = todo.pop()
                todo += [*each.get("anyOf", ()), *each.get("prefixItems", ())]
                todo += [inner for inner in [each.get("items")] if inner]
                if each.get("type") == "integer":
                    yield name, each


@pytest.mark.parametrize("role", ["encoders", "conditioners", "predictors"])
def test_whatever_costs_only_when_it_is_used_has_a_bound(role):
    for kind in kinds(role):
        for name, number in numbers_of(find(role, kind).Config):
            assert "maximum" in number or name in WEIGHED, (kind, name)
            assert number.get("maximum", 0) < 10**9


def test_weights_of_another_shape_or_kind_are_refused_unread(run, monkeypatch):
    weights = load_file(run / "model.safetensors")
    name = next(name for name, value in weights.items() if value.ndim == 2)
    monkeypatch.setattr(World, "build", None)
    for value in (weights[name].T.contiguous()[1:], weights[name].int()):
        save_file(weights | {name: value}, run / "model.safetensors")
        with pytest.raises(AvenirError, match="do not fit what its card describes"):
            World.load(run, "cpu")
    for content in (b"", b"\xff" * 100, (2**62).to_bytes(8, "little")):
        (run / "model.safetensors").write_bytes(content)
        with pytest.raises(AvenirError, match="damaged"):
            World.load(run, "cpu")
    (run / "model.safetensors").unlink()
    with pytest.raises(AvenirError, match="holds no world: model.safetensors is missing"):
        World.load(run, "cpu")


CARDLIKE = ["", "[]", "3", "null", "[" * 100_000, '{"a":' * 200, '{"fps": ' + "9" * 5000 + "}"]
CARDLIKE += ['{"name": "\\ud800", "fps": 1, "size": [16, 16], "encoder": {"kind": "kl"}}', "\x00"]


@pytest.mark.parametrize("content", CARDLIKE, ids=range(len(CARDLIKE)))
def test_what_is_no_card_is_refused(run, content):
    (run / "card.json").write_text(content)
    with pytest.raises(AvenirError):
        World.load(run, "cpu")


@pytest.mark.parametrize("name", ["card.json", "model.safetensors", "recipe.toml"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_regular_files_are_read(run, name, make):
    (run / name).unlink()
    make(run / name)
    with pytest.raises(AvenirError, match="no regular file"):
        World.load(run, "cpu")
        data_of(run, [])


@pytest.mark.parametrize("name", ["../../x", "/x", "", ".x", "a/b", "a\\b", "a\nb", "x" * 300])
def test_a_recipe_names_a_folder_and_no_path(tmp_path, name):
    path = tmp_path / "recipe.toml"
    path.write_text(f"name = {json.dumps(name)}\n" + TOKENIZER.format(kind="patches"))
    with pytest.raises(AvenirError, match="'name'"):
        load_recipe(path)


def test_a_recipe_does_not_extend_itself(tmp_path):
    first, second, third = (tmp_path / f"{number}.toml" for number in range(3))
    first.write_text('extends = "0.toml"\n')
    second.write_text('extends = "2.toml"\n')
    third.write_text('extends = "./1.toml"\n')
    for path in (first, second, third):
        with pytest.raises(AvenirError, match="cannot stand on itself"):
            load_recipe(path)
    first.write_text("extends = 3\n")
    with pytest.raises(AvenirError, match="name one file"):
        load_recipe(first)
    os.mkfifo(tmp_path / "pipe.toml")
    first.write_text('extends = "pipe.toml"\n')
    with pytest.raises(AvenirError, match="no regular file"):
        load_recipe(first)


def test_two_recipes_that_stand_on_each_other_are_refused(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        table = f'task = "decoder"\ntokenizer = "{other}.toml"\ndata = {{ kind = "synthetic" }}\n'
        (tmp_path / f"{one}.toml").write_text(table)
    with pytest.raises(AvenirError, match="cannot stand on itself"):
        load_recipe(tmp_path / "a.toml")


def test_an_unfinished_world_says_so_and_nothing_stands_on_it(run, tmp_path, monkeypatch, capsys):
    provenance = {"key": "k", "steps": 300, "finished": False}
    edit(run, provenance=provenance)
    (run / "recipe.toml").write_text(
        'name = "tiny"\ndata = { kind = "synthetic" }\n[train]\nsteps = 1000\n'
    )
    assert World.load(run, "cpu").card.provenance == provenance
    write(tmp_path / "film.mp4", Clip(torch.zeros(12, 3, 16, 16, dtype=torch.uint8), 10.0))
    words = ["features", run, "--video", tmp_path / "film.mp4", "--out", tmp_path / "seen.mp4"]
    monkeypatch.setattr(sys, "argv", ["avenir", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert "is unfinished: 300 of 1000 steps" in " ".join(capsys.readouterr().err.split())
    recipe = tmp_path / "world.toml"
    recipe.write_text(
        f'task = "predictor"\ntokenizer = "{run}"\npredictor = {{ kind = "flow" }}\n'
        'data = { kind = "synthetic", size = [16, 16] }\n'
    )
    said = fails(monkeypatch, capsys, "train", recipe, "--runs", tmp_path / "runs")
    assert "is unfinished: 300 of 1000 steps; train it to the end first" in said
