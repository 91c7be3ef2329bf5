"""Cameras see what a pinhole sees of the painted picture, and agree where they see the same."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from avenir.clip import to_frames
from avenir.data import Window
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.data.synthetic.rig import (
    OVERLAP,
    PITCH,
    camera,
    correspondence,
    draw_rig,
    overhead,
    project,
    take_views,
)
from avenir.data.synthetic.visitors import Visit, Visitor
from avenir.errors import AvenirError


def source(**settings) -> Synthetic:
    return Synthetic(SyntheticConfig.parse({"cameras": 3, **settings}))


def rigs(count: int, num_rigs: int, aspect: float = 1.0) -> Tensor:
    return torch.stack([draw_rig(seed, count, aspect) for seed in range(num_rigs)])


def straight(x: float, y: float, distance: float, focal: float) -> Tensor:
    """Return a camera that looks straight down, of a square view."""
    given = torch.tensor([distance, 0.0, 0.0, focal], dtype=torch.float64)
    return camera(torch.tensor([x, y], dtype=torch.float64), *given)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (48, 64), (40, 24)])
def test_from_straight_above_the_picture_is_as_it_was_painted(size):
    frames = noise(2, 3, 3, *size)
    above = overhead(size[0] / size[1]).expand(2, 1, 16)
    assert np.array_equal(take_views(frames, above, size), frames)


@pytest.mark.parametrize(("distance", "focal"), [(0.5, 1.0), (1.0, 2.0)])
def test_from_half_as_high_or_twice_as_near_a_quarter_is_seen(distance, focal):
    frames = noise(1, 2, 3, 64, 64)
    ahead_right = straight(0.25, 0.25, distance, focal)
    seen = take_views(frames, ahead_right[None, None], (32, 32))
    assert np.array_equal(seen, frames[..., :32, 32:])


def test_views_stand_side_by_side_from_the_left():
    frames, both = noise(1, 2, 3, 64, 64), rigs(2, 1)
    left, right = (take_views(frames, both[:, [view]], (16, 24)) for view in (0, 1))
    assert np.array_equal(
        take_views(frames, both, (16, 24)), np.concatenate([left, right], axis=-1)
    )


def test_the_numbers_are_those_of_a_pinhole():
    cameras = rigs(3, 20).flatten(0, 1)
    intrinsics, pose = cameras[:, :4], cameras[:, 4:].unflatten(1, (3, 4))
    places = torch.rand(60, 5, 2, dtype=torch.float64)
    ground = torch.stack([places[..., 0] - 0.5, 0.5 - places[..., 1]], dim=-1)
    ground = torch.cat([ground, torch.zeros(60, 5, 1), torch.ones(60, 5, 1)], dim=-1)
    seen = torch.einsum("nij,nkj->nki", pose, ground)
    expected = intrinsics[:, None, :2] * seen[..., :2] / seen[..., 2:] + intrinsics[:, None, 2:]
    found, depth = project(places, overhead(), cameras)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(depth, seen[..., 2])


def test_a_camera_is_turned_and_hangs_above_the_picture():
    pose = rigs(3, 50)[..., 4:].unflatten(-1, (3, 4))
    rotation, shift = pose[..., :3], pose[..., 3:]
    torch.testing.assert_close(
        rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand_as(rotation)
    )
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50, 3, dtype=torch.float64))
    where = -(rotation.mT @ shift)[..., 0]
    assert (where[..., 2] > 0.2).all() and (where[..., 2] < 0.8).all()
    assert (where[:, 1:, 0] > where[:, :-1, 0]).all()
    assert (rotation[..., 2, 2] <= -np.cos(PITCH)).all()


def test_there_and_back_is_where_it_was():
    both = rigs(2, 30)
    points = torch.rand(30, 40, 2, dtype=torch.float64)
    there, depth = project(points, both[:, 0], both[:, 1])
    back, _ = project(there, both[:, 1], both[:, 0])
    assert (depth > 0).all()
    torch.testing.assert_close(back, points)


def test_what_is_behind_a_camera_is_not_seen():
    down = straight(0.0, 0.0, 1.0, 1.0)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    up = camera(torch.zeros(1, 2, dtype=torch.float64), -one, zero, zero, one)
    for here, there in ((down, up[0]), (up[0], down)):
        assert not correspondence(here, there, (4, 4))[1].any()


def test_a_recording_has_its_own_rig_all_the_time():
    world = source(episode_frames=12)
    windows = world.spread("test", 6, 5)
    batch = world.read(windows)
    told = batch.signals["cameras"]
    assert told.shape == (5, 6, 48) == (5, 6, world.signals["cameras"].size)
    assert len(set(world.signals["cameras"].names)) == 48
    assert (told == told[:, :1]).all()
    assert len({tuple(row.tolist()) for row in told[:, 0]}) == 5
    later = world.clip(Window(windows[2].recording, 0.6, 6))
    assert torch.equal(later.signals["cameras"], told[2])


def test_frames_are_of_all_views_and_their_rows_are_strangers():
    world = source(cameras=2, size=(24, 40), episode_frames=12)
    assert world.views == 2 and world.size == (24, 80)
    assert Synthetic(SyntheticConfig()).views == 1
    windows = world.draw("train", 4, 3, 0)
    batch = world.read(windows)
    assert batch.video.shape == (3, 4, 3, 24, 80)
    for row, window in enumerate(windows):
        assert torch.equal(to_frames(batch.video[row]), world.clip(window).frames)


@pytest.mark.parametrize("count", [2, 3])
def test_views_agree_where_they_see_the_same(count):
    world = source(cameras=count)
    batch = world.read(world.spread("test", 2, 12))
    views = batch.video[:, 1].unflatten(-1, (count, 64)).unbind(-2)
    numbers = batch.signals["cameras"][:, 1].unflatten(-1, (count, 16))
    for here in range(count - 1):
        for one, other in ((here, here + 1), (here + 1, here)):
            where, inside = correspondence(numbers[:, one], numbers[:, other], (64, 64))
            brought = grid_sample(views[other], (2 * where - 1).float(), align_corners=False)
            error = (views[one] - brought).square().mean(1)[inside].mean()
            apart = (views[one] - views[other]).square().mean(1)[inside].mean()
            assert 10 * torch.log10(4 / error) > 28
            assert apart > 10 * error


@pytest.mark.parametrize("count", [2, 3])
def test_neighbours_have_a_part_of_their_footprints_in_common(count):
    seen = correspondence(overhead(), rigs(count, 200), (128, 128))[1].flatten(2).double()
    common = (seen[:, :-1] * seen[:, 1:]).sum(-1)
    for area in (seen[:, :-1].sum(-1), seen[:, 1:].sum(-1)):
        assert (common / area > OVERLAP[0] - 0.05).all()
        assert (common / area < OVERLAP[1] + 0.05).all()


@pytest.mark.parametrize(("count", "aspect"), [(2, 1.0), (3, 1.0), (2, 3.0), (3, 1 / 3)])
def test_all_that_is_seen_is_painted(count, aspect):
    num_rigs = 500 if aspect == 1 else 50
    cameras = rigs(count, num_rigs, aspect)
    assert correspondence(cameras, overhead(), (8, 8))[1].all()
    edge = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1.0]], dtype=torch.float64)
    corners, depth = project(edge, cameras, overhead())
    assert (corners >= 0).all() and (corners <= 1).all() and (depth > 0).all()


def test_cameras_change_the_name_of_the_data_and_none_keep_it():
    plain = Synthetic(SyntheticConfig())
    assert plain.fingerprint.startswith("308345fedd75")
    names = {plain.fingerprint, source().fingerprint, source(cameras=2).fingerprint}
    assert len(names) == 3
    assert "cameras" not in plain.signals


def test_cameras_change_the_picture_alone():
    windows = source().spread("test", 8, 4)
    one, other = source().read(windows), Synthetic(SyntheticConfig()).read(windows)
    assert torch.equal(one.signals["actions"], other.signals["actions"])


def test_visitors_fly_over_what_cameras_see():
    world = source(captions="some")
    windows = world.spread("test", 1, 4)
    visit = Visit(Visitor.BALLOON, 0, -1, 0.6, -1.0, 2.0)
    with_it, without = (
        to_frames(world.visited(windows, [visits] * 4).video)[:, 0] for visits in ([visit], [])
    )
    changed = (with_it != without).any(1).unflatten(-1, (3, 64)).transpose(-3, -2)
    assert (changed.flatten(2).double().mean(-1)[:, 1] > 0.1).all()
    assert not changed.all()
    middle = with_it[..., 64:128][changed[:, 1][:, None].expand(-1, 3, -1, -1)]
    assert (middle > 180).double().mean() > 0.5


def test_what_would_have_been_is_seen_by_the_same_cameras():
    world = source()
    windows = world.draw("train", 12, 4, seed=0)
    was = world.read(windows)
    same = world.counterfactual(windows, was.signals["actions"][:, 5:11])
    assert torch.equal(same.video, was.video)
    other = world.counterfactual(windows, torch.tensor([1.0, 0.0]).expand(4, 6, 2))
    assert torch.equal(other.video[:, :6], was.video[:, :6])
    assert (other.video[:, 6:] != was.video[:, 6:]).flatten(2).any(2).float().mean() > 0.9
    assert torch.equal(other.signals["cameras"], was.signals["cameras"])


def test_errors_say_the_cure():
    with pytest.raises(AvenirError, match="leave out one of them"):
        source(labels=True)
    with pytest.raises(AvenirError, match="leave out cameras"):
        source().simulator_at(source().spread("test", 8, 1)[0])
    with pytest.raises(AvenirError, match="that of one view"):
        source(size=(16, 64))
    for count in (0, 1, 4):
        with pytest.raises(AvenirError, match="cameras"):
            source(cameras=count)
