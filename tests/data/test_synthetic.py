import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from avenir import registry
from avenir.data import Window, batches
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.data.synthetic.colours import PALETTES, TEXTURES
from avenir.data.synthetic.driver import draw_whims
from avenir.data.synthetic.layout import draw_layout
from avenir.data.synthetic.motion import traffic_at
from avenir.data.synthetic.simulator import Simulator, drive_episodes
from avenir.data.synthetic.things import BODIES, LOOP, MOVING, NUM_SLOTS, SLOTS, Class
from avenir.errors import AvenirError
from avenir.splits import Split


@pytest.fixture(scope="module")
def source() -> Synthetic:
    return Synthetic(SyntheticConfig(labels=True, episode_frames=24))


def seen(segmentation: torch.Tensor, kind: Class) -> torch.Tensor:
    """Pixels `n 2` as x, y."""
    return torch.nonzero(segmentation == kind).flip(-1).float()


def test_the_registry_finds_it_and_reads_its_settings() -> None:
    assert registry.find("data", "synthetic") is Synthetic
    config = registry.parse("data", {"kind": "synthetic", "size": [32, 48]})
    assert config == SyntheticConfig(size=(32, 48))


def test_a_batch_is_its_windows_one_by_one_bit_for_bit(source: Synthetic) -> None:
    windows = source.draw("train", 6, 5, seed=3) + source.draw("test", 6, 2, seed=3)
    batch = source.read(windows)
    for row, window in enumerate(windows):
        clip = source.clip(window)
        assert batch.video is not None
        assert torch.equal(batch.video[row], clip.video[0])
        for name, signal in clip.signals.items():
            assert torch.equal(batch.signals[name][row], signal), name


def test_a_frame_is_the_same_through_every_window(source: Synthetic) -> None:
    recording = source.recordings("train")[7]
    whole = source.clip(Window(recording, 0.0, 24))
    part = source.clip(Window(recording, 9 / source.fps, 5))
    assert torch.equal(part.frames, whole.frames[9:14])
    for name, signal in part.signals.items():
        assert torch.equal(signal, whole.signals[name][9:14]), name


def test_train_and_test_share_no_palette_no_texture_and_no_seed(source: Synthetic) -> None:
    assert not set(PALETTES["train"]) & set(PALETTES["test"])
    assert not set(TEXTURES["train"]) & set(TEXTURES["test"])
    grounds = {split: {p.ground for p in PALETTES[split]} for split in PALETTES}
    assert not grounds["train"] & grounds["test"]
    train, test = draw_layout(range(99), ["train"] * 99), draw_layout(range(99), ["test"] * 99)
    assert set(train.palette) == set(range(len(PALETTES["train"])))
    assert set(test.palette) == {len(PALETTES["train"]) + i for i in range(len(PALETTES["test"]))}
    assert not set(train.texture) & set(test.texture)
    same = [source.clip(Window(source.recordings(s)[0], 0.0, 2)) for s in ("train", "test")]
    assert not torch.equal(same[0].signals["actions"], same[1].signals["actions"])


def test_windows_are_drawn_by_the_seed_alone(source: Synthetic) -> None:
    assert source.draw("train", 8, 16, seed=1) == source.draw("train", 8, 16, seed=1)
    assert source.draw("train", 8, 16, seed=1) != source.draw("train", 8, 16, seed=2)
    split: Split
    for split in ("train", "test"):
        for window in (*source.draw(split, 8, 50, seed=0), *source.spread(split, 8, 50)):
            last = window.start_seconds * source.fps + 8
            assert window.recording.name.startswith(split) and last <= 24 + 1e-6
    few, many = source.spread("test", 8, 4), source.spread("test", 8, 9)
    assert many[:4] == few and len({window.recording for window in many}) == 9


def test_training_batches_resume(source: Synthetic) -> None:
    def run(first: int) -> list[torch.Tensor]:
        stream = batches(source, num_frames=4, batch_size=2, seed=5, first_step=first, last_step=4)
        return [batch.video for batch in stream if batch.video is not None]

    for uninterrupted, resumed in zip(run(0)[2:], run(2), strict=True):
        assert torch.equal(uninterrupted, resumed)


def test_only_actions_travel_unless_labels_are_asked_for(source: Synthetic) -> None:
    bare = Synthetic(SyntheticConfig(episode_frames=24))
    windows = source.draw("train", 3, 2, seed=0)
    assert set(bare.read(windows).signals) == set(bare.signals) == {"actions"}
    labels = source.read(windows).signals
    assert {name: tuple(signal.shape) for name, signal in labels.items()} == {
        "actions": (2, 3, 2),
        "ego": (2, 3, 2),
        "ego_visible": (2, 3, 1),
        "speed": (2, 3, 1),
        "objects": (2, 3, NUM_SLOTS, 4),
        "counts": (2, 3, 4),
        "segmentation": (2, 3, 64, 64),
        "depth_order": (2, 3, len(BODIES)),
    }
    assert labels["segmentation"].dtype == torch.uint8
    assert labels["actions"].abs().max() <= 1
    assert bare.fingerprint == source.fingerprint
    assert bare.fingerprint != Synthetic(SyntheticConfig(episode_frames=25)).fingerprint
    assert bare.fingerprint != Synthetic(SyntheticConfig(first_recording=1)).fingerprint


def test_data_sets_that_begin_apart_share_no_training_recording_and_every_test_recording():
    first = Synthetic(SyntheticConfig(train_recordings=5))
    second = Synthetic(SyntheticConfig(train_recordings=5, first_recording=5))
    names = [{r.name for r in source.recordings("train")} for source in (first, second)]
    assert not names[0] & names[1]
    assert [r.name for r in second.recordings("train")[1:3]] == ["train-0000006", "train-0000007"]
    assert list(first.recordings("test")) == list(second.recordings("test"))


def test_the_ego_is_where_its_pixels_are(source: Synthetic) -> None:
    labels = source.read(source.draw("train", 12, 8, seed=1)).signals
    off = []
    for frame in torch.nonzero(labels["ego_visible"][..., 0] == 1):
        pixels = seen(labels["segmentation"][tuple(frame)], Class.EGO)
        off.append((pixels.mean(0) - labels["ego"][tuple(frame)]).abs().max())
        extent = pixels.max(0).values - pixels.min(0).values + 1
        assert extent.max() >= 12 and extent.min() >= 8
    assert len(off) > 50 and max(off) < 1


def test_objects_are_where_their_pixels_are_and_large_enough(source: Synthetic) -> None:
    labels = source.read(source.draw("train", 8, 24, seed=2)).signals
    sides = []
    for episode, frame, slot in torch.nonzero(labels["objects"][..., 3] == 1):
        here, kind = labels["objects"][episode, frame], Class(SLOTS[slot])
        same = (here[:, 2] == kind) & (here[:, 3] > 0)
        if same.sum() > 1:
            continue
        pixels = seen(labels["segmentation"][episode, frame], kind)
        assert (pixels.mean(0) - here[slot, :2]).abs().max() < 1, kind
        sides.append((pixels.max(0).values - pixels.min(0).values + 1).max())
    assert len(sides) > 100
    assert np.mean(np.array(sides) >= 8) > 0.9


def test_counts_and_visibility_agree_with_the_segmentation(source: Synthetic) -> None:
    labels = source.read(source.draw("test", 8, 8, seed=2)).signals
    objects = labels["objects"]
    assert objects[..., 3].min() >= 0 and objects[..., 3].max() == 1
    for index, kind in enumerate(MOVING):
        shown = ((objects[..., 2] == kind) & (objects[..., 3] > 0)).sum(-1)
        assert torch.equal(labels["counts"][..., index].long(), shown)
        assert torch.equal((labels["segmentation"] == kind).flatten(2).any(-1), shown > 0)


def test_what_lies_higher_hides_what_lies_lower(source: Synthetic) -> None:
    labels = source.read(source.draw("train", 24, 32, seed=4)).signals
    hidden = labels["ego_visible"][..., 0] < 0.5
    assert 0.01 < hidden.float().mean() < 0.5
    near = labels["ego"][hidden].round().long()
    cover = labels["segmentation"][hidden][torch.arange(len(near)), near[:, 1], near[:, 0]]
    assert set(cover.tolist()) <= {Class.EGO, Class.TREE, Class.BRIDGE, Class.TRUCK}
    assert Class.BRIDGE in cover
    ranks = labels["depth_order"][0, 0]
    ego, trucks = ranks[-1], ranks[:-1][torch.tensor(SLOTS) == Class.TRUCK]
    assert (trucks > ego).all() and (ranks < ego).sum() == NUM_SLOTS - len(trucks)


def test_steering_moves_the_ego_and_nothing_else() -> None:
    layout = draw_layout(range(40), ["train"] * 40)
    left, right = (
        drive_episodes(layout, np.full((40, 6, 2), [side, 0.0]), 6, fps=10.0) for side in (-1, 1)
    )
    assert (right.ego.x[:, 5] - left.ego.x[:, 5] > 4).mean() > 0.9
    assert np.array_equal(left.traffic.x, right.traffic.x)
    assert np.array_equal(left.traffic.y, right.traffic.y)


def test_accelerating_scrolls_the_world_faster() -> None:
    seconds, rows = np.tile([0.0, 0.5], (12, 1)), []
    for pedal in (-1.0, 1.0):
        simulator = Simulator()
        frames = [simulator.reset(range(12))]
        frames += [simulator.step(np.tile([0.0, pedal], (12, 1))) for _ in range(5)]
        own = np.diff(traffic_at(simulator.layout, seconds).y, axis=1)[:, 0]
        seen = frames[5][1]["objects"][..., 1] - frames[0][1]["objects"][..., 1]
        rows.append((seen - own + LOOP / 2) % LOOP - LOOP / 2)
    assert (rows[1] - rows[0] > 6).all()


def test_many_worlds_step_as_one_alone() -> None:
    seeds, actions = [3, 14, 15], np.random.default_rng(0).uniform(-1, 1, (4, 3, 2))
    together = Simulator()
    together.reset(seeds, "test")
    alone = [Simulator() for _ in seeds]
    for seed, simulator in zip(seeds, alone, strict=True):
        simulator.reset([seed], "test")
    for action in actions:
        frames, labels = together.step(action)
        for row, simulator in enumerate(alone):
            frame, label = simulator.step(action[row : row + 1])
            assert np.array_equal(frame[0], frames[row])
            assert all(np.array_equal(label[name][0], labels[name][row]) for name in labels)


def test_a_copied_simulator_is_a_branch() -> None:
    simulator = Simulator()
    simulator.reset([1])
    simulator.step(np.array([[0.3, 1.0]]))
    branch = copy.copy(simulator)
    there, _ = branch.step(np.array([[1.0, 1.0]]))
    branch.step(np.array([[1.0, 1.0]]))
    here, _ = simulator.step(np.array([[1.0, 1.0]]))
    assert np.array_equal(here, there)


def test_the_driver_roams_and_stays_on_the_road_mostly() -> None:
    layout, count = draw_layout(range(200), ["train"] * 200), 200
    driven = drive_episodes(layout, draw_whims(range(count), 64, 0.1), 64, fps=10.0)
    assert np.median(np.ptp(driven.ego.x, axis=1)) >= 32
    away = np.abs(driven.ego.x - layout.centre(driven.ego.y))
    assert np.mean(away < layout.half_road[:, None]) > 0.75
    assert 15 < driven.ego.speed.mean() < 35
    assert np.abs(driven.actions).max() <= 1 and (driven.actions.std((0, 1)) > 0.3).all()


def test_held_actions_last_for_their_share_of_the_time() -> None:
    plain, whims = (
        draw_whims(range(300), 64, 0.1),
        draw_whims(range(300), 64, 0.1, held_action_fraction=0.4),
    )
    assert np.isnan(plain.held).all()
    assert np.array_equal(plain.offset, whims.offset)
    held = ~np.isnan(whims.held[..., 0])
    assert held.mean() == pytest.approx(0.4, abs=0.02)
    same = (whims.held[:, 1:] == whims.held[:, :-1]).all(-1)[held[:, 1:] & held[:, :-1]]
    assert same.mean() > 0.9
    layout = draw_layout(range(300), ["train"] * 300)
    driven = drive_episodes(layout, whims, 64, fps=10.0)
    assert np.array_equal(driven.actions[held], whims.held[held])


def test_what_would_have_been_differs_from_the_other_action_on(source: Synthetic) -> None:
    windows = source.draw("train", 12, 5, seed=0)
    was = source.read(windows)
    same = source.counterfactual(windows, was.signals["actions"][:, 5:11])
    assert torch.equal(same.video, was.video)
    steered = torch.tensor([1.0, 0.0]).expand(5, 6, 2)
    other = source.counterfactual(windows, steered)
    assert torch.equal(other.video[:, :6], was.video[:, :6])
    assert torch.equal(other.signals["actions"][:, 5:11], steered)
    assert torch.equal(other.signals["actions"][:, :5], was.signals["actions"][:, :5])
    assert (other.video[:, 6:] != was.video[:, 6:]).flatten(2).any(2).float().mean() > 0.9
    again = source.counterfactual(windows[2:3], steered[2:3])
    assert torch.equal(again.video, other.video[2:3])


def test_the_simulator_goes_on_from_where_a_window_ends(source: Synthetic) -> None:
    whole = source.draw("train", 10, 1, seed=3)[0]
    clip, cut = source.clip(whole), replace(whole, num_frames=6)
    simulator = source.simulator_at(cut)
    for frame in range(6, 10):
        action = clip.signals["actions"][frame - 1].double().numpy()
        seen, _ = simulator.step(action[None])
        assert torch.equal(torch.from_numpy(seen[0]), clip.frames[frame])


@pytest.mark.parametrize("size", [(32, 32), (24, 48), (33, 47)])
def test_other_sizes_show_the_same_world(size: tuple[int, int]) -> None:
    frames, labels = Simulator(size).reset([5])
    _, reference = Simulator((64, 64)).reset([5])
    assert frames.shape == (1, 3, *size)
    assert labels["segmentation"].shape == (1, *size)
    scale = size[1] / 64
    assert (labels["ego"][0, 0] + 0.5) / scale == pytest.approx(reference["ego"][0, 0] + 0.5)


def test_errors_say_the_cure(source: Synthetic) -> None:
    with pytest.raises(AvenirError, match="episode_frames=25"):
        source.draw("train", 25, 1, seed=0)
    with pytest.raises(AvenirError, match=r"use \(64, 64\)"):
        Synthetic(SyntheticConfig(size=(400, 64)))
    with pytest.raises(AvenirError, match="reset"):
        Simulator().step(np.zeros((1, 2)))
    simulator = Simulator()
    simulator.reset([0, 1])
    with pytest.raises(AvenirError, match="steer and accelerate"):
        simulator.step(np.zeros((1, 2)))


def test_it_is_a_gymnasium_environment() -> None:
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    from avenir.data.synthetic.environment import DrivingEnv

    check_env(DrivingEnv(), skip_render_check=True)
    environment = DrivingEnv(episode_frames=4)
    first, info = environment.reset(seed=3)
    assert np.array_equal(environment.reset(seed=3)[0], first)
    assert info["segmentation"].shape == (64, 64)
    ends = [environment.step(np.array([0, 1], np.float32))[3] for _ in range(3)]
    assert ends == [False, False, True]
    assert environment.render() is environment.seen
