"""A world: what it gives for what it is given, saved and loaded, whole or piece by piece."""

import json

import pytest
import torch

from avenir.clip import Clip
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.world import World, load

from .conftest import save_tiny_world


@pytest.fixture(scope="module")
def world(tiny_run) -> World:
    return load(tiny_run)


def clip(num_frames: int = 7, size: tuple[int, int] = (64, 64), fps: float = 10.0) -> Clip:
    frames = torch.randint(0, 255, (num_frames, 3, *size), dtype=torch.uint8)
    return Clip(frames, fps, {"actions": torch.randn(num_frames, 2)})


def test_saving_and_loading_changes_nothing(world, tiny_run, tmp_path):
    world.save(tmp_path / "again")
    given = clip()
    one, other = (w.predict(given, 1.0).frames for w in (world, load(tmp_path / "again")))
    assert torch.equal(one, other)


def test_the_future_has_the_seconds_and_samples_asked_for(world):
    future = world.predict(clip(), 1.3, samples=3)
    assert future.frames.shape == (3, 13, 3, 64, 64)
    assert future.sample(1).frames.shape == (13, 3, 64, 64)
    assert not torch.equal(future.sample(0).frames, future.sample(1).frames)


def test_a_seed_is_a_future(world):
    given = clip()
    assert torch.equal(
        world.predict(given, 0.5, seed=1).frames, world.predict(given, 0.5, seed=1).frames
    )
    assert not torch.equal(
        world.predict(given, 0.5, seed=1).frames, world.predict(given, 0.5, seed=2).frames
    )


def test_predict_is_stream_put_together(world):
    given = clip()
    pieces = list(world.stream(given, 2.0))
    assert len(pieces) > 1
    whole = world.predict(given, 2.0)
    assert torch.equal(torch.cat([piece.frames for piece in pieces]), whole.frames)


def test_decoding_the_rollout_in_pieces_equals_decoding_it_at_once(world):
    given = clip(8)
    latents = world.encoder.encode(given.video)
    condition = world.conditioner({"actions": given.signals["actions"][None]}, 4 + 6, 1)
    from avenir.rollout import rollout

    chunks = list(rollout(world.predictor, latents, condition, 6, generator("predict", 0)))
    at_once = world.encoder.decode(torch.cat([latents, *chunks], dim=1))[:, 8:]
    signals = {"actions": torch.full((1, 20, 2), float("nan"))}
    signals["actions"][:, :8] = given.signals["actions"]
    pieces = list(world.imagine(given.video, signals, 12, 1, generator("predict", 0)))
    torch.testing.assert_close(torch.cat(pieces, dim=1), at_once, atol=1e-5, rtol=1e-5)


def test_row_i_of_actions_leads_to_imagined_frame_i(world):
    given = clip(6)
    base = torch.zeros(6, 2)
    before = world.predict(given, 0.6, actions=base).frames
    changed = base.clone()
    changed[4] = 5
    after = world.predict(given, 0.6, actions=changed).frames
    moved = (after != before).flatten(1).any(1).tolist()
    assert moved[4:] == [True, True]


def test_clips_of_any_size_rate_and_odd_length_are_brought_to_the_worlds(world):
    future = world.predict(clip(31, (47, 63), fps=30.0), 0.5)
    assert future.frames.shape == (5, 3, 64, 64)
    assert future.fps == 10


def test_reconstruction_piece_by_piece_equals_at_once(world):
    given = clip(11)
    whole = list(world.reconstruct([given]))[0].frames
    pieces = list(world.reconstruct([given[:4], given[4:8], given[8:]]))
    assert [piece.num_frames for piece in pieces] == [4, 4, 3]
    difference = torch.cat([p.frames for p in pieces]).int() - whole.int()
    assert difference.abs().max() <= 1


def test_mistakes_are_explained(world, tmp_path):
    with pytest.raises(AvenirError, match="at least 2"):
        world.predict(clip(1), 1.0)
    with pytest.raises(AvenirError, match=r"takes `F 2`"):
        world.predict(clip(), 1.0, actions=torch.zeros(10, 3))
    with pytest.raises(AvenirError, match="less than one frame"):
        world.predict(clip(), 0.01)
    encoder = load(save_tiny_world(tmp_path / "encoder", (64, 64), predicts=False))
    with pytest.raises(AvenirError, match="no predictor"):
        encoder.predict(clip(), 1.0)
    with pytest.raises(AvenirError, match="holds no world"):
        load(tmp_path / "nowhere")
    card = json.loads((tmp_path / "encoder" / "card.json").read_text())
    (tmp_path / "encoder" / "card.json").write_text(json.dumps(card | {"format": 99}))
    with pytest.raises(AvenirError, match="upgrade"):
        load(tmp_path / "encoder")
