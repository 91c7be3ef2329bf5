"""An exported world does what the world does, step after step, and says what it cannot do."""

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from avenir import export as exporting
from avenir.card import Card
from avenir.cli import app
from avenir.clip import Clip
from avenir.controls import Controls
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.export import CLOSE, Exported, OnnxWorld, export
from avenir.serving.backends import Direction, backends_of, initial_states_of
from avenir.serving.player import Player
from avenir.signals import Signal
from avenir.world import World, load

ACTIONS = Signal(role="action", size=2, low=(-1.0, -1.0), high=(1.0, 1.0))
WEATHER = Signal(role="metadata", size=2, names=("day", "night"), low=(0.0, 0.0), high=(1.0, 1.0))


def world(conditioner: dict | None = None, signals: dict | None = None, **settings) -> World:
    """A world of random weights, 16×16 pixels at 10 fps."""
    predictor = {"kind": "flow", "width": 16, "depth": 2, "heads": 2, "past": 2, "chunk": 2}
    card = Card.model_validate(
        {
            "name": "tiny",
            "fps": 10.0,
            "size": (16, 16),
            "signals": signals or {"actions": ACTIONS},
            "encoder": {"kind": "kl", "compression": (2, 8, 8), "width": 8, "depth": 1}
            | settings.pop("encoder", {}),
            "conditioner": conditioner or {"kind": "actions"},
            "predictor": predictor
            | {"sampling": {"num_steps": 2} | settings.pop("sampling", {})}
            | settings,
        }
    )
    torch.manual_seed(0)
    made = World.build(card).eval()
    with torch.no_grad():  # what starts at zero would make every future the same
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def clip(made: World, num_frames: int = 9) -> Clip:
    chance = generator("clip", num_frames)
    frames = torch.randint(0, 256, (num_frames, 3, 16, 16), dtype=torch.uint8, generator=chance)
    rows = {
        "actions": torch.rand(num_frames, 2, generator=chance) * 2 - 1,
        "weather": torch.eye(2)[torch.randint(2, (num_frames,), generator=chance)],
        "boxes": torch.rand(num_frames, 12, generator=chance).add(0.5),
        "caption": Signal.text(24).encode_text("nothing flies").expand(num_frames, -1),
    }
    return Clip(frames, 10.0, {name: rows[name] for name in made.takes})


def silent(what: str) -> None:
    """Tell nobody."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[World, Path]:
    """A world that takes actions, and the folder it was exported to."""
    made, folder = world(), tmp_path_factory.mktemp("plain") / "onnx"
    export(made, folder, clip(made), silent)
    return made, folder


def compared(made: World, folder: Path, steps: list[Controls]) -> float:
    """Step through both alike and return the largest difference of a frame."""
    past, exported = clip(made), OnnxWorld(folder)
    assert exported.takes == made.takes
    signals = {name: signal[None] for name, signal in past.signals.items()}
    one, other = made.start(past.video, signals), exported.start(past.video, signals)
    assert torch.equal(one.video, other.video)
    off = []
    for number, controls in enumerate(steps):
        one = made.imagine_step(one, controls, number)
        other = exported.imagine_step(other, controls, number)
        off.append(float((one.video - other.video).abs().max()))
        torch.testing.assert_close(
            other.memory.latents[:, -1:], one.memory.latents[:, -1:], atol=CLOSE, rtol=1e-3
        )
    return max(off)


STEERED = [
    Controls(each and torch.tensor(each))
    for each in (None, (1.0, 0.0), (-1.0, 0.5), None, (0.0, 1.0))
]


def test_steps_are_those_of_the_world(plain):
    made, folder = plain
    assert compared(made, folder, STEERED) < CLOSE
    moved = made.imagine_step(start(made), Controls(torch.tensor([1.0, 0.0])), 0).video
    other = made.imagine_step(start(made), Controls(torch.tensor([-1.0, 0.0])), 0).video
    assert (moved - other).abs().max() > 100 * CLOSE  # or else any action would have done


def start(made: World):
    past = clip(made)
    return made.start(past.video, {name: rows[None] for name, rows in past.signals.items()})


@pytest.mark.slow
def test_words_and_signals_guided_apart_are_heard_alike(tmp_path):
    signals = {"actions": ACTIONS, "weather": WEATHER, "caption": Signal.text(24)}
    parts = {"actions": {}, "text": {}, "metadata": {"signals": ["weather"]}}
    made = world(
        {"kind": "joint", "parts": parts}, signals, sampling={"guidance": {"text": 3.0}}, chunk=1
    )
    night = {"weather": torch.tensor([0.0, 1.0])}
    steps = [
        Controls(torch.tensor([1.0, 0.0]), "a red plane"),
        Controls(text="nothing flies", signals=night),
        Controls(torch.tensor([0.0, -1.0])),
        Controls(signals=night),
    ]
    export(made, tmp_path / "onnx", clip(made), silent)
    assert compared(made, tmp_path / "onnx", steps) < CLOSE


@pytest.mark.slow
def test_boxes_are_looked_at_alike(tmp_path):
    made = world(
        {"kind": "joint", "parts": {"actions": {}, "boxes": {}}},
        {"actions": ACTIONS, "boxes": Signal(role="box", size=12)},
        attention="factorised",
        shortcut=0.25,
        sampling={"num_steps": 1},
    )
    boxes = {"boxes": torch.rand(12) + 0.5}
    steps = [
        Controls(signals=boxes),
        Controls(torch.tensor([1.0, 0.0])),
        Controls(torch.zeros(2), signals=boxes),
    ]
    export(made, tmp_path / "onnx", clip(made), silent)
    assert compared(made, tmp_path / "onnx", steps) < CLOSE


@pytest.mark.slow
def test_actions_that_were_discovered_are_played_alike(tmp_path, discovering):
    past = discovering.fitted(clip(discovering))
    export(discovering, tmp_path / "onnx", past, silent)
    assert OnnxWorld(tmp_path / "onnx").takes == discovering.takes


def test_the_graphs_and_what_is_said_of_them_are_enough(plain):
    """Whoever has onnxruntime and world.json alone gets the same frames."""
    made, folder = plain
    past = clip(made)
    about = Exported.model_validate_json((folder / "world.json").read_text())
    encode, step = (onnxruntime.InferenceSession(folder / f"{n}.onnx") for n in ("encode", "step"))
    n, f_t = about.num_latents, about.f_t
    frames = past.frames.numpy().astype(np.float32)[None, -n * f_t :] / 127.5 - 1
    (latents,) = encode.run(None, {"video": frames})
    rows = np.full((1, (n + 2) * f_t, 2), np.nan, np.float32)
    known = past.signals["actions"].numpy()[-(n + 1) * f_t :]
    rows[0, f_t * (n + 1) - len(known) : f_t * (n + 1)] = known
    rows[0, -1 - f_t : -1] = 1.0, -1.0  # what leads into the frames to come
    noise = torch.randn((1, 1, *about.latent), generator=generator("dream", 0, 0)).numpy()
    made_frames, latent = step.run(None, {"latents": latents, "noise": noise, "actions": rows})
    assert latent.shape == (1, 1, *about.latent) and made_frames.shape == (1, f_t, 3, *about.size)
    expected = made.imagine_step(start(made), Controls(torch.tensor([1.0, -1.0])), 0)
    np.testing.assert_allclose(made_frames, expected.video.numpy(), atol=CLOSE)


def test_a_state_is_a_value(plain):
    made, folder = plain
    past = clip(made)
    exported = OnnxWorld(folder)
    here = exported.start(past.video, {"actions": past.signals["actions"][None]})
    left, right = torch.tensor([[-1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    one = exported.imagine_step(here, Controls(left), 3)
    other = exported.imagine_step(here, Controls(right), 3)
    assert torch.equal(exported.imagine_step(here, Controls(left), 3).video, one.video)
    assert not torch.equal(one.video, other.video)
    assert not torch.equal(exported.imagine_step(here, Controls(left), 4).video, one.video)


@pytest.mark.parametrize("num_frames", [4, 5, 7])
def test_a_past_of_any_length_is_begun_from_alike(plain, num_frames):
    """Groups end at its last frame; an action from before the first of them is not known."""
    made, folder = plain
    past = clip(made, num_frames)
    known = {"actions": past.signals["actions"][None]}
    action = torch.tensor([[1.0, 0.0]])
    one = made.imagine_step(made.start(past.video, known), Controls(action), 0)
    exported = OnnxWorld(folder)
    other = exported.imagine_step(exported.start(past.video, known), Controls(action), 0)
    torch.testing.assert_close(other.video, one.video, atol=CLOSE, rtol=0)


def test_what_is_of_another_shape_is_refused_in_words(plain, tmp_path):
    made, folder = plain
    past, exported = clip(made), OnnxWorld(folder)
    here = exported.start(past.video, {})
    for video in (past.video.repeat(2, 1, 1, 1, 1), past.video[..., :8]):
        with pytest.raises(AvenirError, match="one clip at a time"):
            exported.start(video, {})
    with pytest.raises(AvenirError, match="begins from 4"):
        exported.start(past.video[:, :3], {})
    with pytest.raises(AvenirError, match="takes `F 2`"):
        exported.imagine_step(here, Controls(torch.zeros(1, 1, 3)), 0)
    shutil.copytree(folder, tmp_path / "onnx")
    (tmp_path / "onnx" / "step.onnx").write_bytes(b"no graph")
    with pytest.raises(AvenirError, match="a damaged one"):
        OnnxWorld(tmp_path / "onnx")


def test_what_computes_with_more_than_tensors_is_refused(tmp_path, monkeypatch):
    made = world()
    fit = made.conditioner.forward

    def forward(signals, *rest):
        return fit({n: rows + rows.numpy().size for n, rows in signals.items()}, *rest)

    monkeypatch.setattr(made.conditioner, "forward", forward)
    with pytest.raises(AvenirError, match=r"step.onnx cannot be written.*text_encoder"):
        export(made, tmp_path / "onnx", clip(made), silent)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings",
    [{"sampling": {"sampler": "ddpm"}}, {"sampling": {"past_noise": 0.1}}, {"sinks": 1}],
)
def test_a_step_that_needs_more_is_refused(tmp_path, settings):
    made = world(**settings)
    with pytest.raises(AvenirError, match="use sampler 'euler'"):
        export(made, tmp_path / "onnx", clip(made), silent)
    assert not any(tmp_path.iterdir())


def test_other_predictors_and_short_clips_are_refused(tmp_path):
    made = world()
    with pytest.raises(AvenirError, match="begins from 4: give a longer one"):
        export(made, tmp_path / "onnx", clip(made, 3), silent)
    with pytest.raises(AvenirError, match="avenir export RUN"):
        OnnxWorld(tmp_path)


@pytest.mark.parametrize("off", [2 * CLOSE, float("nan")])
def test_what_comes_out_otherwise_is_not_written(tmp_path, monkeypatch, off):
    monkeypatch.setattr(exporting, "_difference", lambda *_: off)
    monkeypatch.setattr(exporting, "_traced", lambda *_: None)
    monkeypatch.setattr(exporting, "OnnxWorld", lambda *_: None)
    made = world()
    with pytest.raises(AvenirError, match="nothing was written"):
        export(made, tmp_path / "onnx", clip(made), silent)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_verb_writes_into_the_run_and_says_how_close_it_is(tiny_run):
    said = CliRunner().invoke(app, ["export", str(tiny_run), "--steps", "1"])
    assert said.exit_code == 0, said.output
    assert "frames differ by" in said.output.replace("\n", " ")
    exported = OnnxWorld(tiny_run / "onnx").about
    assert (exported.f_t, exported.num_steps) == (2, 1)
    about = tiny_run / "onnx" / "world.json"
    about.write_text(about.read_text().replace("after 0 steps", "after 7 steps"))
    stale = CliRunner().invoke(app, ["play", str(tiny_run), "--onnx"])
    assert "write it anew with `avenir export" in str(stale.exception)


def test_it_is_played_rewound_pushed_kept_and_opened_as_the_world_is(tiny_run, tmp_path):
    made, source = load(tiny_run, "cpu"), Synthetic(SyntheticConfig(episode_frames=30))
    initial_states = initial_states_of(source, made, 2, 6)
    export(made, tmp_path / "onnx", initial_states[0].past, silent)
    exported = OnnxWorld(tmp_path / "onnx")
    one = Player(backends_of(made, initial_states, True), initial_states, made.takes)
    other = Player(backends_of(made, initial_states, True, exported), initial_states, made.takes)
    direction = Direction("anything", torch.randn(one.latents.shape))
    for player in (one, other):
        for action in ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)):
            player.step(action)
        player.set_edit(direction, 2.0)
        player.step((0.0, 0.0))
    assert (one.frames("world").int() - other.frames("world").int()).abs().max() <= 1
    assert (one.latents - other.latents).abs().max() < CLOSE
    kept, last = other.kept("a key onnx"), other.frames("world")
    other.rewind(1)
    assert not torch.equal(other.frames("world"), last)
    assert list(other.open(kept, "a key onnx")) == [None] * 4
    assert torch.equal(other.frames("world"), last)
