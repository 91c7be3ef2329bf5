"""The command line as a user meets it: help at once, and mistakes that end in one sentence."""

import errno
import subprocess
import sys
from pathlib import Path

import av.error
import pyarrow as pa
import pytest
import torch
from safetensors import SafetensorError

from avenir import cli
from avenir.clip import Clip
from avenir.video import read, write
from avenir.world import World
from tests.conftest import save_tiny_world

ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "recipes" / "quickstart.toml")
VERBS = ["quickstart", "import", "train", "encode", "predict", "play", "plan", "export"]
VERBS += ["evaluate", "features", "compare", "probe", "passport", "study", "show"]
HEAVY = {"torch", "numpy", "av", "matplotlib", "pyarrow", "gymnasium", "PIL", "jaxtyping"}
HEAVY |= {"starlette", "uvicorn", "onnxruntime", "transformers"}


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `avenir` as it is installed, in a process of its own."""
    command = [str(Path(sys.executable).with_name("avenir")), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("words", [[], *([verb] for verb in VERBS)], ids=" ".join)
def test_help_imports_nothing_heavy(words):
    program = (
        "import sys\n"
        "from avenir.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print('loaded', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    command = [sys.executable, "-c", program, *words, "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "Usage: " in result.stdout
    _, _, loaded = result.stdout.rpartition("loaded ")
    assert not HEAVY & set(loaded.split())


def test_help_names_every_verb():
    assert list(dict.fromkeys(command.name for command in cli.app.registered_commands)) == VERBS


@pytest.fixture
def mistake(capsys, monkeypatch):
    """Run a verb that must fail; give the sentence it ends with."""

    def fail(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["avenir", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr().err
        assert end.value.code == 1
        sentence = said[said.index("error: ") :]
        assert "Traceback" not in said
        return " ".join(sentence.split())

    return fail


@pytest.fixture
def film(tmp_path: Path) -> Path:
    frames = torch.randint(256, (12, 3, 64, 64), dtype=torch.uint8)
    return write(tmp_path / "clip.mp4", Clip(frames, 10.0))


def test_a_recipe_that_is_not_there(mistake):
    assert "there is no recipe at 'recipes/none.toml'" in mistake("train", "recipes/none.toml")


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("predictor.dept=3", "unknown setting 'predictor.dept': did you mean 'depth'?"),
        ("seeds=1", "unknown setting 'seeds': did you mean 'seed'?"),
        ("predictor.kind=flwo", "unknown predictors kind 'flwo': did you mean 'flow'?"),
        ("train.steps=0", "setting 'train.steps' was given 0"),
        ("train.steps", "override 'train.steps' was given; write it key=value"),
        ("tokenizer=nowhere.toml", "there is no recipe at"),
    ],
)
def test_a_setting_that_cannot_be(mistake, tmp_path, word, answer):
    assert answer in mistake("train", RECIPE, word, "--runs", tmp_path)


def test_data_that_are_not_there(mistake, tmp_path):
    robot = RECIPE.replace("quickstart", "robot")
    assert "is no LeRobot data set" in mistake("train", robot, f"data={tmp_path / 'nowhere'}")


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\0\0\0\x20ftypisom" + bytes(99)])
def test_a_broken_video(mistake, tmp_path, tiny_run, content):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(content)
    assert "broken.mp4'" in mistake("predict", tiny_run, broken, "--out", tmp_path / "future.mp4")
    assert not (tmp_path / "future.mp4").exists()


def test_a_video_that_is_not_there(mistake, tmp_path, tiny_run):
    assert "there is no file" in mistake("predict", tiny_run, tmp_path / "none.mp4")


def test_an_encoder_alone_cannot_predict(mistake, tmp_path, film):
    alone = save_tiny_world(tmp_path / "alone", (64, 64), predicts=False)
    future = tmp_path / "future.mp4"
    said = mistake("predict", alone, film, "--out", future)
    assert "holds an encoder and no predictor" in said
    assert list(tmp_path.glob("*future*")) == []


def test_features_of_two_encoders_stand_beside_the_video(tmp_path, tiny_run, film):
    alone, out = save_tiny_world(tmp_path / "alone", (32, 32), predicts=False), tmp_path / "see.mp4"
    result = run("features", tiny_run, alone, "--video", film, "--seconds", "0.7", "--out", out)
    assert result.returncode == 0, result.stderr
    card, shown = World.load(tiny_run, "cpu").card, read(out)
    assert card.size[0] == card.size[1]
    assert shown.size == (192, 3 * 192)
    assert shown.num_frames == round(0.7 * card.fps)
    panels = shown.frames.float().chunk(3, dim=-1)
    assert all(panel.std() > 5 for panel in panels)
    assert "clip.mp4 | " in result.stderr + result.stdout


def test_a_folder_without_a_world(mistake, tmp_path, film):
    assert "holds no world" in mistake("predict", tmp_path, film)
    assert "holds no world" in mistake("evaluate", tmp_path)


def test_actions_that_are_none(mistake, tmp_path, tiny_run, film):
    table = tmp_path / "actions.csv"
    table.write_text("steer,accelerate\nleft,1\n")
    said = mistake("predict", tiny_run, film, "--actions", table, "--out", tmp_path / "future.mp4")
    assert "does not hold actions" in said


def test_what_cannot_be_played(mistake, tmp_path, tiny_run):
    alone = save_tiny_world(tmp_path / "alone", (64, 64), predicts=False)
    assert "holds no world that can be played" in mistake("play", alone)
    assert "no page can be served at 127.0.0.1:1:" in mistake(
        "play", tiny_run, "--clips", 1, "--port", 1, "--host", "192.0.2.1"
    ).replace("192.0.2.1", "127.0.0.1")


def test_what_cannot_be_planned(mistake, tmp_path, tiny_run, film):
    assert "go together" in mistake("plan", tiny_run, "--video", film)
    videos = tmp_path / "videos"
    write(videos / "a.mp4", read(film))
    write(videos / "b.mp4", read(film))
    said = mistake("plan", tiny_run, f"data={videos}", "data.kind=folder")
    assert "no simulator to show where an action would have led" in said


def test_a_plan_is_written_with_its_actions(tmp_path, tiny_run, film):
    goal, out = tmp_path / "goal.png", tmp_path / "plan.mp4"
    write(goal, read(film)[-1:])
    words = ("plan", tiny_run, "--goal", goal, "--video", film, "--candidates", 4, "--rounds", 1)
    result = run(*words, "--seconds", 0.8, "--out", out)
    assert result.returncode == 0, result.stderr
    assert read(out).num_frames == 10 + 8
    table = out.with_suffix(".csv").read_text().splitlines()
    assert table[0] == "action 0,action 1" and len(table) == 1 + 8


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "here/out.mp4"),
        PermissionError(errno.EACCES, "Permission denied", "here/out.mp4"),
        av.error.OSError(errno.EROFS, "Read-only file system", "here/out.mp4"),
        av.error.InvalidDataError(1, "Invalid data found", "here/out.mp4"),
        SafetensorError("here/out.mp4: header too large"),
        pa.ArrowInvalid("here/out.mp4: not a parquet file"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_system_or_a_library_refused_is_one_sentence(mistake, monkeypatch, error):
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("avenir.world.load", fails)
    said = mistake("predict", "runs/none", "none.mp4")
    assert "here/out.mp4" in said
    assert len(said.splitlines()) == 1


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    def fails(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("avenir.world.load", fails)
    monkeypatch.setattr(sys, "argv", ["avenir", "predict", "runs/none", "none.mp4"])
    with pytest.raises(KeyError, match="ours"):
        cli.main()


def test_the_exit_code_of_the_installed_command(tmp_path):
    result = run("predict", tmp_path, tmp_path / "none.mp4")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_wrong_usage_is_told_from_a_mistake():
    assert run("predict").returncode == 2
    assert run("plya").returncode == 2


@pytest.mark.slow
def test_a_prediction_is_written(tmp_path, tiny_run, film):
    future = tmp_path / "future.mp4"
    result = run("predict", tiny_run, film, "--seconds", 0.7, "--observe", 0.5, "--out", future)
    assert result.returncode == 0, result.stderr
    assert "0.50 s observed, then 0.70 s imagined" in result.stderr
    assert future.stat().st_size > 0


def test_the_package_runs_as_the_command_does():
    command = [sys.executable, "-m", "avenir", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "avenir" in shown and "train" in shown
