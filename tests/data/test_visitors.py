"""Visitors come as their captions say, change nothing else, and keep some pairs from training."""

import numpy as np
import pytest
import torch

from avenir.clip import to_frames
from avenir.data.synthetic import CAPTION, Synthetic, SyntheticConfig
from avenir.data.synthetic.visitors import (
    HELD_OUT,
    NOTHING,
    PAIRS,
    Visit,
    Visitor,
    draw_visits,
    visit_of,
)


def source(**settings) -> Synthetic:
    return Synthetic(SyntheticConfig.parse(settings))


def test_some_pairs_are_kept_from_training():
    some, every = (
        {visit[:2] for seed in range(400) for visit in draw_visits(seed, 6.4, every_pair)}
        for every_pair in (False, True)
    )
    assert some == set(PAIRS) - set(HELD_OUT)
    assert every == set(PAIRS)


@pytest.mark.parametrize(
    ("split", "captions"), [("train", "some"), ("train", "all"), ("test", "some")]
)
def test_a_source_keeps_them_from_training_recordings_alone(split, captions):
    world = source(captions=captions, labels=True)
    visitors = world.read(world.spread(split, 64, 60)).signals["visitor"].flatten(0, 1)
    there = visitors[visitors[:, :3].amax(1) > 0]
    pairs = set(zip(there[:, :3].argmax(1).tolist(), there[:, 3:].argmax(1).tolist(), strict=True))
    kept = {(int(kind), colour) for kind, colour in HELD_OUT} & pairs
    assert bool(kept) == (split == "test" or captions == "all")


def test_they_come_one_at_a_time():
    for seed in range(50):
        visits = draw_visits(seed, 20.0, True)
        for one, other in zip(visits, visits[1:], strict=False):
            assert one.begins + one.lasts < other.begins


@pytest.mark.parametrize("side", [-1, 1])
def test_a_visitor_enters_on_its_side_and_leaves_on_the_other(side):
    visit = Visit(Visitor.PLANE, 0, side, 0.5, 1.0, 2.0)
    assert visit.shows(0.99) == visit.shows(3.0) == 0
    assert visit.shows(2.0) == 1
    assert (visit.across(1.2) < 32) == (side < 0)
    assert visit.across(2.0) == pytest.approx(32)
    assert visit.shows(1.25) == pytest.approx(visit.shows(2.75))


def test_pictures_differ_only_while_something_is_said_to_fly():
    with_them, without = source(captions="some", labels=True), source()
    windows = with_them.spread("test", 24, 6)
    one, other = with_them.read(windows), without.read(windows)
    quiet = (one.signals["caption"] == CAPTION.encode_text(NOTHING)).all(-1)
    same = (one.video == other.video).flatten(2).all(-1)
    assert quiet.any() and not quiet.all()
    assert same[quiet].all()
    assert not same[one.signals["visitor"].amax(-1) > 0.5].any()
    assert (one.signals["visitor"][quiet] == 0).all()
    assert torch.equal(one.signals["actions"], other.signals["actions"])


def test_whoever_visits_instead_is_painted_and_told():
    world = source(captions="some", labels=True)
    windows = world.spread("test", 20, 4)
    visits = [[visit_of(0, number, 0.0)] for number in range(4)]
    batch = world.visited(windows, visits)
    for row, (visit,) in enumerate(visits):
        words = bytes(int(x) for x in batch.signals["caption"][row, 5] if x).decode()
        assert words == visit.caption
        expected = [visit.shows(frame / 10) for frame in range(20)]
        shown = batch.signals["visitor"][row]
        np.testing.assert_allclose(shown[:, visit.kind], expected, atol=1e-6)
        np.testing.assert_allclose(shown[:, 3 + visit.colour], expected, atol=1e-6)


def test_a_white_balloon_is_white():
    world = source(captions="some")
    windows = world.spread("test", 1, 1)
    batch = world.visited(windows, [[Visit(Visitor.BALLOON, 0, -1, 0.5, -1.0, 2.0)]])
    middle = to_frames(batch.video)[0, 0, :, 26, 32]
    assert (middle > 180).all()


def test_captions_change_the_name_of_the_data_and_none_keep_it():
    assert source().fingerprint.startswith("308345fedd75")
    assert source(captions="some").fingerprint != source().fingerprint
    assert "caption" in source(captions="some").signals and "caption" not in source().signals


def test_a_visit_begins_at_its_frame_wherever_the_window_does():
    world = source(captions="some")
    windows = world.spread("test", 38, 24)
    visits = [[visit_of(0, number, 18 / 10)] for number in range(24)]
    said = world.visited(windows, visits).signals["caption"]
    for row, (visit,) in enumerate(visits):
        assert torch.equal(said[row, 17], CAPTION.encode_text(NOTHING))
        assert torch.equal(said[row, 18], CAPTION.encode_text(visit.caption))
