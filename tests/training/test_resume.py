"""A run that was stopped or killed ends, bit for bit, like one that never stopped."""

import os
import pickle
import pty
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from select import select

import pytest
import torch
from safetensors.torch import load_file

from avenir.card import seconds_per_step
from avenir.errors import AvenirError, TrainingError
from avenir.files import alone_in, read_rows
from avenir.tensors import load_tensors, save_tensors
from avenir.training import loop, step
from avenir.training.checkpoint import STATE
from avenir.training.loop import train
from avenir.training.recipe import Recipe, load_recipe
from avenir.world import World


@pytest.fixture(autouse=True)
def _hang_up():
    """Take hang-ups as a terminal gives them, also where tests are run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


WORDS = [
    "train.steps=12",
    "train.batch_size=2",
    "train.num_samples=0",
    "train.cache_recordings=4",
    "predictor.width=16",
    "predictor.depth=1",
    "tokenizer.train.steps=12",
    "tokenizer.train.batch_size=2",
    "tokenizer.train.num_samples=0",
    "tokenizer.encoder.width=8",
    "tokenizer.encoder.depth=1",
    "tokenizer.encoder.decoder_depth=1",
]


def tiny(*words: str) -> Recipe:
    return load_recipe("recipes/quickstart.toml", [*WORDS, *words])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return train(tiny(), tmp_path_factory.mktemp("uninterrupted"))


@pytest.fixture(scope="module")
def one_stage(tmp_path_factory) -> tuple[Recipe, Path]:
    """A recipe of one short stage, and its run."""
    words = [w.removeprefix("tokenizer.") for w in WORDS if w.startswith("tokenizer.")]
    recipe = load_recipe("recipes/quickstart_tokenizer.toml", words)
    return recipe, train(recipe, tmp_path_factory.mktemp("one_stage"))


def interrupted_at(
    number: int, recipe: Recipe, runs: Path, monkeypatch, asked: int = signal.SIGINT
) -> Path:
    """Train until a signal at a step asks to end; return the folder that is left."""
    original = step.TrainingStep.run

    def interrupted(self, batch, progress):
        if progress.step == number - 1:
            signal.raise_signal(asked)
        return original(self, batch, progress)

    with monkeypatch.context() as patched, pytest.raises(loop.Interrupted) as stopped:
        patched.setattr(step.TrainingStep, "run", interrupted)
        train(recipe, runs)
    assert stopped.value.exit_code == 128 + asked
    return runs / recipe.name


def test_a_finished_run_is_not_trained_again(uninterrupted):
    before = (uninterrupted / "model.safetensors").stat().st_mtime_ns
    train(tiny(), uninterrupted.parent)
    assert (uninterrupted / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_of_another_recipe_is_refused(uninterrupted):
    with pytest.raises(TrainingError, match="another recipe"):
        train(tiny("seed=5"), uninterrupted.parent, uninterrupted)


def test_ctrl_c_saves_and_the_same_command_goes_on(uninterrupted, tmp_path, monkeypatch):
    original, calls = step.TrainingStep.run, []

    def interrupted(self, batch, progress):
        calls.append(progress.step)
        if len(calls) == 17 + 5:  # five steps of each run are its estimate
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, progress)

    monkeypatch.setattr(step.TrainingStep, "run", interrupted)
    with pytest.raises(loop.Interrupted, match="run the same command again"):
        while True:
            train(tiny(), tmp_path)
            calls.clear()
    monkeypatch.setattr(step.TrainingStep, "run", original)
    assert_same(train(tiny(), tmp_path), uninterrupted)


@pytest.mark.parametrize("harm", ["a bit", "the end", "all", "another run", "too many steps"])
def test_from_a_damaged_state_a_run_begins_anew(one_stage, harm, tmp_path, monkeypatch, capsys):
    recipe, complete = one_stage
    folder = interrupted_at(7, recipe, tmp_path, monkeypatch)
    state = folder / STATE
    whole, (tensors, about) = state.read_bytes(), load_tensors(state)
    at = len(whole) - 100
    flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    harmed = {"a bit": flipped, "the end": whole[:at], "all": b""}
    if harm in harmed:
        state.write_bytes(harmed[harm])
    else:
        change = {"another run": {"key": "another"}, "too many steps": {"step": "13"}}
        save_tensors(state, tensors, about | change[harm])
    capsys.readouterr()
    assert_same(train(recipe, tmp_path), complete)
    said = " ".join(capsys.readouterr().err.split())
    assert f"beginning anew, for '{state}' is" in said
    assert "going on" not in said


def test_what_an_old_full_disk_left_goes_on(one_stage, tmp_path, monkeypatch):
    """Card and key are empty, the last row is torn: as earlier versions left them."""
    recipe, complete = one_stage
    folder = interrupted_at(7, recipe, tmp_path, monkeypatch)
    (folder / "card.json").write_text("")
    (folder / "key").write_text("")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "l')
    assert_same(train(recipe, tmp_path), complete)
    steps = [row["step"] for row in read_rows(folder / "metrics.jsonl")]
    assert steps == [row["step"] for row in read_rows(complete / "metrics.jsonl")]


def test_a_run_cut_before_its_state_was_removed_is_finished(one_stage, tmp_path, monkeypatch):
    recipe, complete = one_stage
    state = (interrupted_at(7, recipe, tmp_path, monkeypatch) / STATE).read_bytes()
    folder = train(recipe, tmp_path)
    card = (folder / "card.json").read_bytes()
    (folder / STATE).write_bytes(state)
    train(recipe, tmp_path)
    assert (folder / "card.json").read_bytes() == card
    assert not (folder / STATE).exists()
    (folder / "card.json").unlink()  # a cut between the two files of a world
    assert_same(train(recipe, tmp_path), complete)


def test_a_folder_is_trained_in_by_one(one_stage, tmp_path):
    recipe, _ = one_stage
    with (
        alone_in(tmp_path / recipe.name, "training"),
        pytest.raises(AvenirError, match="another training is at work .* wait for it"),
    ):
        train(recipe, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_to_end_save(one_stage, number, tmp_path, monkeypatch):
    recipe, complete = one_stage
    interrupted_at(7, recipe, tmp_path, monkeypatch, number)
    assert_same(train(recipe, tmp_path), complete)


def test_a_hangup_that_is_ignored_stays_so(one_stage, tmp_path):
    recipe, complete = one_stage
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with loop.stopping() as asked:
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not asked


def test_ctrl_c_twice_ends_at_once(one_stage, tmp_path, monkeypatch):
    recipe, complete = one_stage
    original = step.TrainingStep.run

    def interrupted(self, batch, progress):
        if progress.step == 7:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, progress)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(step.TrainingStep, "run", interrupted)
        train(recipe, tmp_path)
    assert_same(train(recipe, tmp_path), complete)


def test_ctrl_c_at_the_last_step_finishes_and_then_stops(uninterrupted, tmp_path, monkeypatch):
    original, parent = step.TrainingStep.run, tiny().parents["tokenizer"]

    def interrupted(self, batch, progress):
        if progress.step == parent.train.steps - 1 and not self.recipe.parents:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, progress)

    monkeypatch.setattr(step.TrainingStep, "run", interrupted)
    with pytest.raises(loop.Interrupted):
        train(tiny(), tmp_path)
    assert World.load(tmp_path / parent.name).card.provenance["finished"]
    assert not (tmp_path / tiny().name).exists()
    assert_same(train(tiny(), tmp_path), uninterrupted)


def test_a_loss_that_is_not_finite_names_its_batch(tmp_path, monkeypatch):
    from avenir.encoders.kl import KL

    original = KL.losses

    def broken(self, batch, progress):
        losses = original(self, batch, progress)
        return losses | {"l1": losses["l1"] * float("nan")}

    monkeypatch.setattr(KL, "losses", broken)
    with pytest.raises(TrainingError, match=r"step 0: l1 is not finite on the batch .*@"):
        train(tiny(), tmp_path)


@pytest.mark.slow
def test_five_kills_change_nothing(uninterrupted, tmp_path):
    """SIGKILL at five random moments, resumed each time, against never stopping."""
    program = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from avenir.training.loop import train\n"
        "from avenir.training.recipe import load_recipe\n"
        "recipe = load_recipe('recipes/quickstart.toml', sys.argv[2:])\n"
        "train(recipe, Path(sys.argv[1]))\n"
    )
    words = [*WORDS, "train.save_seconds=0.001", "tokenizer.train.save_seconds=0.001"]
    command = [sys.executable, "-c", program, str(tmp_path), *words]
    chance, kills, moment = random.Random(0), 0, 0.0
    while kills < 5:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        state = [
            tmp_path / name / "state.safetensors" for name in ("quickstart_tokenizer", "quickstart")
        ]
        before = [path.stat().st_mtime_ns if path.exists() else 0 for path in state]
        while time.monotonic() < deadline and process.poll() is None:
            now = [path.stat().st_mtime_ns if path.exists() else 0 for path in state]
            if now != before:
                break
            time.sleep(0.005)
        moment = chance.uniform(0, 0.4)
        time.sleep(moment)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=300)
    assert kills >= 3, "the run ended before it could be killed often enough"
    assert_same(tmp_path / "quickstart", uninterrupted)
    assert_same(tmp_path / "quickstart_tokenizer", uninterrupted.parent / "quickstart_tokenizer")


def test_what_stopped_a_run_is_told_in_another_process():
    error = loop.Interrupted("it after 1 of 2 steps", Path("runs/it"), signal.SIGTERM)
    told = pickle.loads(pickle.dumps(error))
    assert str(told) == str(error)
    assert "stopped it after 1 of 2 steps; all is saved in runs/it" in str(told)
    assert told.exit_code == 128 + signal.SIGTERM


def begun(one_stage, runs: Path) -> list[str]:
    """Return a command that trains for minutes."""
    recipe, _ = one_stage
    (runs / "long.toml").write_text(recipe.toml())
    avenir = str(Path(sys.executable).with_name("avenir"))
    return [avenir, "train", str(runs / "long.toml"), "train.steps=100000", "--runs", str(runs)]


def wait_for_steps(folder: Path, look: Callable[[], object]) -> None:
    """Wait for the first row of a run that has begun."""
    deadline = time.monotonic() + 60
    while not read_rows(folder / "metrics.jsonl"):
        assert time.monotonic() < deadline
        look()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0, 0.05, 0.3])
def test_ctrl_c_twice_is_quiet(one_stage, tmp_path, gap):
    with subprocess.Popen(begun(one_stage, tmp_path), stderr=subprocess.PIPE, text=True) as run:
        wait_for_steps(tmp_path / one_stage[0].name, lambda: None)
        run.send_signal(signal.SIGINT)
        time.sleep(gap)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    # When it is about to leave, the system ends it: of that a shell says 130 as well.
    assert run.returncode in (128 + signal.SIGINT, -signal.SIGINT)
    assert "Traceback" not in said
    assert "Exception" not in said


@pytest.mark.slow
def test_a_terminal_that_hangs_up_saves(one_stage, tmp_path):
    program = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    program += "os.execv(sys.argv[1], sys.argv[1:])"
    command, folder = begun(one_stage, tmp_path), tmp_path / one_stage[0].name
    here, there = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program, *command],
        stdin=there,
        stdout=there,
        stderr=there,
        start_new_session=True,
    ) as run:
        os.close(there)
        wait_for_steps(folder, lambda: select([here], [], [], 0)[0] and os.read(here, 4096))
        os.close(here)
        assert run.wait(60) == 128 + signal.SIGHUP
    load_tensors(folder / STATE)


def test_what_a_step_took_is_the_processors_time_on_a_cpu_and_the_clocks_on_a_gpu():
    known = {"seconds_here": 8.0, "processor_seconds_here": 6.0, "steps_here": 2, "steps": 10}
    assert seconds_per_step(known | {"device": "cpu"}) == 3
    assert seconds_per_step(known | {"device": "A GPU"}) == 4
    assert seconds_per_step({"device": "cpu", "steps_here": 2}) is None
