"""A study: declared, hashed, paired, resumable, and closed to cheats."""

import json
import shutil
import signal
import subprocess
import sys
import time
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from avenir.clip import Clip
from avenir.data.lerobot import write_dataset
from avenir.device import device_name
from avenir.errors import AvenirError
from avenir.files import alone_in
from avenir.study import Cell, Study, conclude, reseeded, run_folder, running
from avenir.study.report import write_learning_report
from avenir.study.running import execute, films, measure, run, seconds_left
from avenir.training.loop import is_finished, train
from avenir.training.recipe import Recipe, load_recipe
from avenir.world import World
from tests.oracle import GreySource, Oracle

FILES = {
    "teacher.toml": """
task = "encoder"
[data]
kind = "synthetic"
first_recording = 1000000
[encoder]
kind = "dino"
width = 24
depth = 1
heads = 2
[train]
steps = 2
batch_size = 2
num_samples = 0
""",
    "tokenizer.toml": """
task = "encoder"
[data]
kind = "synthetic"
[encoder]
kind = "kl"
compression = [4, 16, 16]
channels = 8
width = 8
depth = 1
decoder_depth = 1
[train]
steps = 3
batch_size = 2
num_groups = 2
save_seconds = 0.001
num_samples = 0
""",
    "world.toml": """
task = "predictor"
tokenizer = "tokenizer.toml"
[data]
kind = "synthetic"
[conditioner]
kind = "actions"
[predictor]
kind = "flow"
width = 16
depth = 1
patch = 1
past = 2
chunk = 1
[predictor.sampling]
num_steps = 2
[train]
steps = 4
batch_size = 2
cache_recordings = 4
save_seconds = 0.001
""",
    "study.toml": """
recipe = "world.toml"
seeds = [1]
snapshots = [1, 2, 4]
metrics = ["ego_error", "kernel_distance"]
num_clips = 8
passport = true
past = 8
horizon = 4
[arms]
unaligned = []
aligned = ["tokenizer.alignment.teacher=teacher.toml"]
[comparisons.alignment]
baseline = "unaligned"
treatment = "aligned"
""",
}


ROW = {"codec": {}, "held": {}, "seconds": {"per_step": 1.0}, "commit": ""}
"""What a row must have, empty."""


@pytest.fixture(scope="module")
def protocol(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("protocol")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder / "study.toml"


def changed(protocol: Path, tmp_path: Path, old: str, new: str) -> Path:
    for name in FILES:
        (tmp_path / name).write_text((protocol.parent / name).read_text())
    text = protocol.read_text()
    assert old in text
    (tmp_path / protocol.name).write_text(text.replace(old, new))
    return tmp_path / protocol.name


@pytest.fixture(scope="module")
def finished(protocol, tmp_path_factory) -> Study:
    study = Study(protocol, [], tmp_path_factory.mktemp("study"))
    run(study, study.protocol.seeds, workers=2)
    return study


def rows(folder: Path) -> dict[str, dict]:
    """Read everything of rows but what clocks say."""
    every = {path.stem: json.loads(path.read_text()) for path in (folder / "rows").glob("*.json")}
    return {name: {k: v for k, v in row.items() if k != "seconds"} for name, row in every.items()}


@pytest.mark.slow
def test_every_cell_has_a_row_and_the_page_tells_of_it(finished, tmp_path):
    assert set(rows(finished.folder)) == {"unaligned-1", "aligned-1"}
    conclusion = conclude(finished)
    [compared] = conclusion.comparisons
    assert len(compared.pairs) == 1
    page = write_learning_report(tmp_path, conclusion, films(finished)).read_text()
    assert compared.verdict.sentence in unescape(page)
    assert "What passports predicted" in page
    assert {"effective rank", "PSNR"} <= {each.number for each in conclusion.predictiveness}
    assert page.count("<canvas") == 2 * 3 * 3  # clips × steps × columns
    tables = (tmp_path / "results.md").read_text()
    assert "## What passports predicted" in tables
    assert compared.verdict.sentence in tables
    [psnr] = [pair.psnr for pair in compared.pairs]
    assert f"| 1 | aligned against unaligned | {psnr[1]:.2f}, {psnr[0]:.2f} |" in tables


@pytest.mark.slow
def test_arms_of_a_pair_start_alike_and_cost_what_they_stand_on(finished):
    aligned = finished.row(Cell("aligned", 1, 0))
    unaligned = finished.row(Cell("unaligned", 1, 0))
    assert aligned.device == unaligned.device == device_name()
    assert set(unaligned.seconds) == {"per_step", "tokenizer"}
    assert set(aligned.seconds) == {"per_step", "tokenizer", "teacher"}
    own = {"frechet_codec", "kernel_codec"}  # the marks that depend on the arm's own codec
    assert {k: v for k, v in aligned.held.items() if k not in own} == {
        k: v for k, v in unaligned.held.items() if k not in own
    }


@pytest.mark.slow
def test_a_study_killed_and_resumed_changes_no_number(protocol, finished, tmp_path):
    program = (
        "import sys; from pathlib import Path\n"
        "from avenir.study import Study\nfrom avenir.study.running import run\n"
        "if __name__ == '__main__':\n"
        "    study = Study(Path(sys.argv[1]), [], Path(sys.argv[2]))\n"
        "    run(study, study.protocol.seeds, 2)\n"
    )
    (tmp_path / "go.py").write_text(program)
    folder = tmp_path / "study"
    command = [sys.executable, str(tmp_path / "go.py"), str(protocol), str(folder)]
    watched = folder / "runs"
    for number in range(2):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wanted, deadline = 2 + 3 * number, time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            if (
                watched.exists()
                and len(list(watched.glob("*/state.safetensors")))
                and (len(list(watched.glob("*-*/key"))) >= wanted)
            ):
                break
            time.sleep(0.01)
        assert process.poll() is None, "the study ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(1.5)  # its workers notice that it is gone
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=300)
    assert rows(folder) == rows(finished.folder)


@pytest.mark.slow
def test_settings_are_chosen_at_the_budget_on_a_seed_that_no_pair_uses(
    protocol, tmp_path, monkeypatch
):
    grid = 'budget = 4\ngrid = [[], ["train.optim.learning_rate=0.001"]]\nsnapshots = [1, 2, 4, 6]'
    path = changed(protocol, tmp_path, "snapshots = [1, 2, 4]", grid)
    study = Study(path, [], tmp_path / "study")
    with pytest.raises(AvenirError, match="have not been chosen"):
        study.chosen("aligned")
    asked: list[Cell] = []
    begun: list[Recipe] = []

    def execute(_, cells, workers, ahead):
        asked.extend(cells)
        begun.extend(ahead)

    monkeypatch.setattr("avenir.study.running.execute", execute)
    with pytest.raises(AvenirError, match="have not been chosen"):
        run(study, study.protocol.seeds, workers=1)
    assert [tuple(cell) for cell in asked] == [
        (arm, 0, choice) for arm in ("unaligned", "aligned") for choice in (0, 1)
    ]
    stood_on = [study.recipe(Cell(arm, 1, 1)).parents["tokenizer"] for arm in study.protocol.arms]
    assert begun == stood_on  # whatever is chosen
    for cell in asked:
        trained = study.recipe(cell).train
        assert (trained.steps, trained.snapshots) == (4, (4,))
        better = (cell.arm == "aligned") == (cell.choice == 1)
        row = ROW | {"protocol": study.hash, "arm": cell.arm, "seed": 0, "choice": cell.choice}
        row |= {"steps": [4], "marks": {"ego_error": [1.0 if better else 2.0]}}
        (study.folder / "rows").mkdir(parents=True, exist_ok=True)
        (study.folder / "rows" / f"{cell.name}.json").write_text(json.dumps(row))
    assert (study.chosen("unaligned"), study.chosen("aligned")) == (0, 1)
    assert study.recipe(Cell("aligned", 1, 1)).train.snapshots == (1, 2, 4, 6)


def test_choices_read_validation_and_pairs_the_test(protocol, tmp_path, monkeypatch):
    """A leak: clips of the verdict among those that settings are chosen on."""
    study, read = Study(protocol, [], tmp_path), {}
    monkeypatch.setattr(running, "readout_of", lambda source, *rest: None)
    for cell in (Cell("aligned", study.protocol.development_seed, 0), Cell("aligned", 1, 0)):
        task = running._judge(study, study.split(cell)).held_out
        read[cell.seed] = {window.recording.name for window in task.windows}
    chosen, claimed = read[study.protocol.development_seed], read[1]
    assert chosen and claimed and not chosen & claimed
    assert all(name.startswith("validation") for name in chosen)
    assert all(name.startswith("test") for name in claimed)


@pytest.mark.slow
def test_finished_cells_are_not_run_again(finished, monkeypatch):
    monkeypatch.setattr("avenir.study.running._call", None)
    before = [path.stat().st_mtime_ns for path in (finished.folder / "rows").iterdir()]
    run(finished, finished.protocol.seeds, workers=1)
    assert [path.stat().st_mtime_ns for path in (finished.folder / "rows").iterdir()] == before


@pytest.mark.slow
def test_what_later_cells_stand_on_is_trained_ahead_of_them(protocol, tmp_path):
    study = Study(protocol, [], tmp_path)
    encoder = study.recipe(Cell("unaligned", 1, 0)).parents["tokenizer"]
    assert isinstance(encoder, Recipe)
    execute(study, [], workers=1, ahead=[encoder])
    assert is_finished(run_folder(encoder, tmp_path / "runs"))


@pytest.mark.slow
@pytest.mark.parametrize("cheat", ["the teacher", "another of its kind"])
def test_an_evaluator_akin_to_the_teacher_is_refused_before_anything_runs(
    protocol, finished, tmp_path, cheat
):
    [judge] = (finished.folder / "runs").glob("teacher-????????")
    if cheat != "the teacher":
        judge = train(load_recipe(protocol.parent / "teacher.toml", ["seed=5"]), tmp_path / "runs")
    path = changed(protocol, tmp_path, "num_clips", f'evaluator = "{judge}"\nnum_clips')
    with pytest.raises(AvenirError, match="taught to please its judge"):
        Study(path, [], tmp_path / "out")


@pytest.mark.slow
def test_a_world_is_not_judged_by_a_part_of_itself(finished, monkeypatch, tmp_path):
    run = next((finished.folder / "runs").glob("world-????????"))
    monkeypatch.setattr(finished.evaluator, "card", World.load(run, "cpu").card)
    monkeypatch.setattr("avenir.study.running._opened", lambda *study: finished)
    with pytest.raises(AvenirError, match="which it would judge"):
        opened = (finished.path, (), tmp_path, frozenset[str]())
        measure(opened, Cell("aligned", 1, 0), run, tmp_path / "row", "")


@pytest.fixture(scope="module")
def robot(tmp_path_factory) -> tuple[Path, Path]:
    """A robot's data set, its state where a bright bar is, and a study with a judge of its own."""
    root, folder = tmp_path_factory.mktemp("robot"), tmp_path_factory.mktemp("protocol")
    clips = []
    for seed in range(12):
        place = (torch.arange(20) + 5 * seed) % 56
        bar = (torch.arange(64) >= place[:, None]) & (torch.arange(64) < place[:, None] + 8)
        frames = (255 * bar)[:, None, None].expand(-1, 3, 64, -1).to(torch.uint8)
        signals = {"actions": torch.ones(20, 1), "state": place[:, None].float()}
        clips.append(Clip(frames, 10.0, signals, name=f"bar{seed}"))
    write_dataset(root, clips)
    table = 'kind = "lerobot"\ntest = {}\n'
    kept, judging = table.format('["0:4"]'), table.format('["0:8"]')
    for name, text in FILES.items():
        (folder / name).write_text(text.replace('kind = "synthetic"\n', kept))
    teaching = table.format('["0:4", "8:12"]')
    teacher = FILES["teacher.toml"].replace(
        'kind = "synthetic"\nfirst_recording = 1000000\n', teaching
    )
    (folder / "teacher.toml").write_text(teacher)
    judge = teacher.replace(teaching, judging).replace("dino", "regressor")
    judge = judge.replace("width = 24\ndepth = 1\nheads = 2", "outputs = 1\nwidths = [8, 8]")
    (folder / "judge.toml").write_text(judge)
    text = FILES["study.toml"].replace("[arms]", 'evaluator = "judge.toml"\n[arms]', 1)
    (folder / "study.toml").write_text(text.replace("ego_error", "state_error"))
    return root, folder / "study.toml"


@pytest.mark.slow
def test_a_study_on_a_robot_trains_its_own_judge(robot, tmp_path):
    root, path = robot
    study = Study(path, [f"data={root}"], tmp_path)
    run(study, study.protocol.seeds, workers=2)
    conclusion = conclude(study)
    assert len(list((tmp_path / "runs").glob("judge-????????"))) == 1
    assert {"state_error", "kernel_distance"} <= set(conclusion.rows[0].real)
    assert study.evaluator.card.encoder["kind"] == "regressor"
    assert Study(path, [f"data={root}"], tmp_path / "elsewhere").hash == study.hash


def test_the_hash_changes_with_the_judge_and_not_with_where_data_lie(robot, tmp_path, protocol):
    root, path = robot
    here = Study(path, [f"data={root}"], tmp_path).hash
    shutil.copytree(root, tmp_path / "moved")
    assert Study(path, [f"data={tmp_path / 'moved'}"], tmp_path).hash == here
    for file in path.parent.glob("*.toml"):
        (tmp_path / file.name).write_text(file.read_text())
    judge = tmp_path / "judge.toml"
    judge.write_text(judge.read_text().replace("widths = [8, 8]", "widths = [8, 12]"))
    assert Study(tmp_path / path.name, [f"data={root}"], tmp_path).hash != here
    study = Study(protocol, [], tmp_path)
    before, card = study.hash, study.evaluator.card
    study.evaluator.card = card.model_copy(update={"provenance": {"key": "another"}})
    assert study._hash() != before


def test_a_judge_to_be_trained_on_what_taught_is_refused(robot, tmp_path):
    root, path = robot
    for file in path.parent.glob("*.toml"):
        (tmp_path / file.name).write_text(file.read_text())
    judge = tmp_path / "judge.toml"
    judge.write_text(judge.read_text().replace('["0:8"]', '["0:7"]'))
    with pytest.raises(AvenirError, match="1 training recordings, 'episode_000007#"):
        Study(tmp_path / path.name, [f"data={root}"], tmp_path / "out")


def test_what_is_left_is_told_by_the_kind_of_work():
    took = {"tokenizer": [10.0, 14.0], "measure": [2.0]}
    waiting = ["tokenizer", "measure", "measure", "world"]
    expected = (12 + 2 + 2 + 26 / 3) / 2
    assert seconds_left(waiting, took, 2) == pytest.approx(expected)
    assert seconds_left(waiting, {}, 2) is None


def test_two_studies_in_one_folder_are_refused(protocol, tmp_path):
    study = Study(protocol, [], tmp_path)
    with alone_in(tmp_path, "study"), pytest.raises(AvenirError, match="another study is at work"):
        run(study, study.protocol.seeds, workers=1)


def test_rows_of_another_protocol_are_refused(protocol, tmp_path):
    study = Study(protocol, [], tmp_path)
    (tmp_path / "rows").mkdir()
    row = {
        "protocol": "other",
        "arm": "unaligned",
        "seed": 1,
        "choice": 0,
        "steps": [1, 2],
        "marks": {},
        "real": {},
        "codec": {},
        "held": {},
        "seconds": {"per_step": 1.0},
        "commit": "c",
    }
    (tmp_path / "rows" / "unaligned-1.json").write_text(json.dumps(row))
    with pytest.raises(AvenirError, match="a row of experiment other"):
        conclude(study)


@pytest.mark.parametrize(
    ("old", "new"),
    [("num_clips = 8", "num_clips = 9"), ("ego_error", "moving_psnr"), ("[1, 2, 4]", "[1, 2, 5]")],
)
def test_the_hash_changes_with_the_protocol(protocol, tmp_path, old, new):
    other = Study(changed(protocol, tmp_path, old, new), [], tmp_path)
    assert other.hash != Study(protocol, [], tmp_path).hash


def test_the_hash_changes_with_recipes_and_data_and_not_with_the_place(protocol, tmp_path):
    here = Study(protocol, [], tmp_path).hash
    assert Study(protocol, ["train.batch_size=3"], tmp_path).hash != here
    assert Study(protocol, ["data.fps=5"], tmp_path).hash != here
    assert Study(protocol, ["predictor.path=diffusion"], tmp_path).hash != here
    assert (
        Study(changed(protocol, tmp_path, "num_clips = 8", "num_clips = 8"), [], "x").hash == here
    )


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("seeds = [1]", "seeds = [0, 1]", "would have been chosen"),
        ('treatment = "aligned"', 'treatment = "lined"', "the arms are"),
        ('"kernel_distance"', '"colonel"', "no metric"),
        ("[1, 2, 4]", "[2, 4]", "quarter"),
    ],
)
def test_a_protocol_that_cannot_be_run_is_refused_before_it_runs(
    protocol, tmp_path, old, new, match
):
    with pytest.raises(AvenirError, match=match):
        Study(changed(protocol, tmp_path, old, new), [], tmp_path)


def test_a_seed_reaches_all_encoders_and_no_teacher(protocol, tmp_path):
    study = Study(protocol, [], tmp_path)
    recipe = reseeded(study.recipe(Cell("aligned", 1, 0)), 7)
    tokenizer = recipe.parents["tokenizer"]
    assert isinstance(tokenizer, Recipe)
    teacher = tokenizer.parents["teacher"]
    assert isinstance(teacher, Recipe)
    assert (recipe.seed, tokenizer.seed, teacher.seed) == (7, 7, 0)


@pytest.mark.parametrize("path", sorted(Path("studies").glob("*.toml")), ids=lambda path: path.stem)
def test_every_study_that_ships_is_declared_rightly(path, tmp_path, request):
    given = []
    if "robot" in path.stem:
        given = [f"data={request.getfixturevalue('real_data') / 'robot_g1'}"]
    study = Study(path, given, tmp_path)
    assert len({study.recipe(Cell(arm, 1, 0)).toml() for arm in study.protocol.arms}) == len(
        study.protocol.arms
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alignment", "85b00eedee275d31"),
        ("alignment-wide", "4766a3e4b7e73a4f"),
        ("latents", "e881537df68e39a0"),
    ],
)
def test_published_studies_are_still_the_same_experiment(name, expected, tmp_path):
    """A setting that is added later must not rename what was measured without it."""
    studies = Path(__file__).parents[2] / "studies"
    assert Study(studies / f"{name}.toml", [], tmp_path).hash == expected


@pytest.mark.parametrize("role", ["box", "state", "action"])
def test_films_hide_what_is_to_be_predicted(monkeypatch, tmp_path, role):
    (tmp_path / "run" / "snapshots" / "000004").mkdir(parents=True)
    monkeypatch.setattr(running, "run_folder", lambda recipe, runs: tmp_path / "run")
    monkeypatch.setattr(World, "load", lambda path, trust: Oracle("grey"))
    declared = SimpleNamespace(
        protocol=SimpleNamespace(past=4, horizon=8, snapshots=[4], arms={"arm": ()}, seeds=[1]),
        source=GreySource(grey=role),
        folder=tmp_path,
        trust=frozenset(),
        chosen=lambda arm: 0,
        recipe=lambda cell: None,
    )
    [column] = films(declared)
    errors = [
        (seen.frames.float() - made.frames.float()).abs().mean()
        for seen, made in zip(column.seen, column.made, strict=True)
    ]
    assert max(errors) < 2 if role == "action" else min(errors) > 20
