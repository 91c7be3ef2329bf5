"""A study runs the code that its own recipes name, and none that folders name it stands on."""

import json
import sys
from pathlib import Path

import pytest

from avenir.errors import AvenirError
from avenir.evaluation.questions.generation import SET_METRICS
from avenir.files import write_whole
from avenir.study import Cell, Study, run_folder
from avenir.study.comparison import ArmRun
from avenir.study.running import films, measure
from tests.test_trust import CARDS, NAME, TOKENIZER, edit, fails, friend, ran  # noqa: F401

WORLD = """
task = "predictor"
tokenizer = "{encoder}"
data = {{ kind = "synthetic" }}
predictor = {{ kind = "flow", width = 16, depth = 1, heads = 1, past = 1, chunk = 1 }}
"""
STUDY = """
recipe = "{recipe}"
seeds = [1]
snapshots = [1, 4]
metrics = ["ego_error"]
num_clips = 8
past = 8
horizon = 4
{more}
[arms]
plain = []
other = {arm}
[comparisons.all]
baseline = "plain"
treatment = "other"
"""


def declare(recipe="world.toml", encoder="tokenizer.toml", more="", arm="[]") -> Path:
    """Write a protocol of one's own, and its recipes."""
    tokenizer = TOKENIZER.format(kind="patches").replace("size = [16, 16], ", "")
    Path("tokenizer.toml").write_text(tokenizer)
    Path("world.toml").write_text(WORLD.format(encoder=encoder))
    Path("study.toml").write_text(STUDY.format(recipe=recipe, more=more, arm=arm))
    return Path("study.toml")


ASKED = {
    "evaluator": {"more": 'evaluator = "runs/friend"'},
    "encoder": {"encoder": "runs/friend"},
    "teacher": {"arm": '["tokenizer.alignment.teacher=runs/friend"]'},
    "recipe": {"recipe": "runs/friend/recipe.toml"},
}


@pytest.mark.parametrize("where", ASKED)
def test_code_that_a_study_stands_on_is_not_run(friend, monkeypatch, capsys, where):  # noqa: F811
    edit(friend, **CARDS["encoder"])
    (friend / "recipe.toml").write_text(TOKENIZER.format(kind=NAME))
    protocol = declare(**ASKED[where])
    words = ["study", protocol, "--trust", "runs.friend"]  # which is another name
    assert f"--trust {NAME}" in fails(monkeypatch, capsys, *words)
    said = fails(monkeypatch, capsys, "study", protocol, "--merge")  # opens no encoder
    assert f"--trust {NAME}" in said or "there is no row yet of other, plain" in said
    assert not ran()


def test_what_is_trusted_by_name_is_run(friend, monkeypatch, capsys):  # noqa: F811
    edit(friend, **CARDS["encoder"])
    protocol = declare(**ASKED["evaluator"])
    fails(monkeypatch, capsys, "study", protocol, "--trust", NAME)  # it is no evaluator
    assert ran()


@pytest.fixture
def study(friend) -> Study:  # noqa: F811
    """A study in a folder that somebody sent, whose finished runs name their code."""
    study = Study(declare(), [], Path("runs/study"))
    for arm in study.protocol.arms:
        cell = Cell(arm, 1, 0)
        run = run_folder(study.recipe(cell), study.folder / "runs")
        for folder in (run, *(run / "snapshots" / f"{step:06d}" for step in (1, 4))):
            edit(friend, **CARDS["encoder"])
            write_whole(folder / "card.json", (friend / "card.json").read_text())
    return study


def test_runs_in_a_studys_folder_are_folders_like_others(study):
    cell = Cell("plain", 1, 0)
    run = run_folder(study.recipe(cell), study.folder / "runs")
    opened = (study.path, (), study.folder, study.trust)
    for open_them in (
        lambda: films(study),
        lambda: measure(opened, cell, run, study.folder / "row.json", ""),
    ):
        with pytest.raises(AvenirError, match="names code that is not part of avenir"):
            open_them()
    assert not ran()


def test_rows_name_no_code(study, monkeypatch, capsys):
    """Nor is what they lead to run, when a study is concluded from them."""
    for arm in study.protocol.arms:
        row = ArmRun(
            protocol=study.hash,
            arm=arm,
            seed=1,
            choice=0,
            steps=(1, 4),
            marks={name: (1.0, 0.5) for name in SET_METRICS},
            codec=dict.fromkeys(SET_METRICS, 1.0),
            held=dict.fromkeys(SET_METRICS, 1.0),
            seconds={"per_step": 1.0},
            commit="c",
        ).model_dump(mode="json")
        write_whole(study.folder / "rows" / f"{arm}-1.json", json.dumps(row))
    words = ["study", study.path, "--out", study.folder, "--merge"]
    assert f"--trust {NAME}" in fails(monkeypatch, capsys, *words)
    path = study.folder / "rows" / "plain-1.json"
    path.write_text(json.dumps({"kind": NAME, **json.loads(path.read_text())}))
    assert "unknown setting" in fails(monkeypatch, capsys, *words)
    assert not ran()
    assert NAME not in sys.modules
