from pathlib import Path

import pytest
import torch

from avenir.clip import Batch, Progress
from avenir.config import read_toml
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.data.synthetic.things import Class
from avenir.device import generator
from avenir.encoders.regressor import Regressor, RegressorConfig
from avenir.encoders.segmenter import Segmenter, SegmenterConfig
from avenir.errors import AvenirError
from avenir.evaluation.readers.readout import (
    CUT_OFF,
    FOLDER,
    Readout,
    StateReadout,
    _object_errors,
    _returned,
    _returned_errors,
    class_overlap,
)
from avenir.registry import parse
from avenir.training.optim import OptimConfig, Optimiser
from avenir.world import World


@pytest.fixture(scope="module")
def source() -> Synthetic:
    return Synthetic(SyntheticConfig(labels=True))


@pytest.fixture(scope="module")
def readout(source: Synthetic) -> Readout:
    found = Readout.of(source, "cpu")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def batch(source: Synthetic) -> Batch:
    return source.read(source.spread("test", 3, 12))


def test_what_ships_is_small():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 2 * 2**20


def test_what_ships_is_what_its_recipe_makes_of_todays_pictures(source):
    recipe = read_toml(Path(__file__).parents[3] / "recipes/synthetic_segmenter.toml")
    card = World.load(FOLDER, "cpu").card
    assert card.encoder == parse("encoders", recipe["encoder"]).model_dump(mode="json")
    assert card.provenance["steps"] == recipe["train"]["steps"]
    assert card.provenance["data"] == source.fingerprint


def test_it_reads_real_test_frames_well_and_says_so(source, readout):
    score = readout.held_out(source, num_clips=24, num_frames=2)
    assert score.ego_iou.mean is not None and score.ego_iou.mean >= 0.88
    assert score.ego_error.mean is not None and score.ego_error.mean <= 0.5
    assert score.object_error.mean is not None and score.object_error.mean <= 1.0
    assert score.large_iou.mean is not None and score.large_iou.mean >= 0.75
    assert score.small_iou.mean is not None and score.small_iou.mean >= 0.4
    assert score.pixel_accuracy.mean is not None and score.pixel_accuracy.mean >= 0.95


def test_the_middle_read_is_the_label_where_nothing_hides_the_ego(readout, batch):
    whole = batch.signals["ego_visible"][..., 0] > 0.99
    error = (readout.read(batch.video).ego - batch.signals["ego"]).norm(dim=-1)[whole]
    assert error.mean() < 0.6


def test_shifting_the_picture_shifts_what_is_read(readout, batch):
    moved = batch.video.roll(5, dims=-1)
    scores = readout.compare(moved, batch, 0)
    assert scores["ego_error"].nanmedian().item() == pytest.approx(5, abs=0.5)
    assert scores["ego_iou"].nanmean() < readout.compare(batch.video, batch, 0)["ego_iou"].nanmean()


def test_a_picture_without_an_ego_counts_the_cut_off(readout, batch):
    empty = torch.zeros_like(batch.video)
    scores = readout.compare(empty, batch, 0)
    known = ~scores["ego_error"].isnan()
    assert (scores["ego_error"][known] == CUT_OFF).all()
    assert (scores["ego_iou"][known] == 0).all()


def test_an_ego_that_is_hidden_is_not_scored(readout, batch):
    hidden = batch.signals["ego_visible"][..., 0] < 0.5
    scores = readout.compare(batch.video, batch, 0)
    assert torch.equal(scores["ego_error"].isnan(), hidden)


def test_a_held_picture_reads_as_its_copies_do(readout, batch):
    held = batch.video[:, :1].expand(-1, 3, -1, -1, -1)
    one, each = readout.read(held), readout.read(held.contiguous())
    assert torch.equal(one.classes, each.classes)


def test_labels_are_taken_from_the_frame_the_future_begins_at(readout, batch):
    future = readout.compare(batch.video[:, 1:], batch, 1)
    whole = readout.compare(batch.video, batch, 0)
    assert torch.allclose(future["ego_iou"], whole["ego_iou"][:, 1:], equal_nan=True)


def test_what_was_seen_then_hidden_and_is_back_has_returned():
    """Six frames, three of them past. Things: hidden and back, hidden in the past only, never
    hidden, first seen in the future, hidden as the past ends."""
    clear = torch.tensor(
        [
            [1, 1, 1, 0, 0, 1],
            [1, 0, 1, 1, 1, 1],
            [1, 1, 1, 1, 1, 1],
            [0, 0, 0, 1, 0, 1],
            [1, 1, 0, 0, 1, 1],
        ]
    ).bool()
    returned = _returned(clear.T[None], ~clear.T[None], 3)[0].T.int().tolist()
    assert returned == [[0, 0, 0, 0, 0, 1], [0] * 6, [0] * 6, [0] * 6, [0, 0, 0, 0, 1, 1]]
    never_gone = torch.zeros_like(clear)  # only half covered in between
    assert not _returned(clear.T[None], never_gone.T[None], 3).any()


def test_what_is_back_is_looked_for_where_it_is():
    objects = torch.zeros(1, 2, 2, 4)
    objects[0, :, 0] = torch.tensor([4.0, 6.0, Class.CAR, 1.0])
    objects[0, :, 1] = torch.tensor([9.0, 2.0, Class.TRUCK, 1.0])
    returned = torch.tensor([[[True, False], [False, False]]])
    found = torch.zeros(1, 2, 12, 12, dtype=torch.bool)
    assert _returned_errors(found, objects, returned)[0, 0] == CUT_OFF
    found[0, :, 9, 4] = True
    errors = _returned_errors(found, objects, returned)
    assert errors[0, 0] == 3 and errors[0, 1].isnan()


def test_object_error_is_zero_for_the_truth_and_the_cut_off_for_nothing():
    objects = torch.zeros(1, 1, 3, 4)
    objects[0, 0, 0] = torch.tensor([4.0, 6.0, Class.CAR, 1.0])
    objects[0, 0, 1] = torch.tensor([9.0, 2.0, Class.TRUCK, 1.0])
    found = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    assert _object_errors(found, objects).item() == CUT_OFF
    found[0, 0, 6, 4] = found[0, 0, 2, 9] = True
    assert _object_errors(found, objects).item() == 0
    found[0, 0, 2, 9] = False
    # One of two is missed by the distance to the other; the one found is right.
    assert _object_errors(found, objects).item() == pytest.approx((41**0.5 / 2) / 2)


def test_overlap_is_of_the_classes_asked_for_and_only_where_there_are_any():
    true = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    true[0, :2, 0] = Class.CAR
    true[0, 1, 1] = Class.PEDESTRIAN
    read = true.long()
    read[0, 0, 0, :2] = Class.TRUCK  # another of the two large classes
    read[0, 1, 0, 2:] = 0
    large = class_overlap(read, true, (Class.CAR, Class.TRUCK))[0]
    assert large[:2].tolist() == [1.0, 0.5] and large[2].isnan()
    small = class_overlap(read, true, (Class.MOTORBIKE, Class.PEDESTRIAN))[0]
    assert small[1] == 1 and small[[0, 2]].isnan().all()


def test_worlds_without_a_key_are_not_read():
    assert Readout.of(Synthetic(SyntheticConfig()), "cpu") is None
    assert Readout.of(Synthetic(SyntheticConfig(labels=True, size=(32, 32))), "cpu") is None


def test_a_segmenter_learns_from_labels_and_cannot_decode(source, batch):
    torch.manual_seed(0)
    segmenter = Segmenter(SegmenterConfig(widths=(8, 8)))
    losses = segmenter.losses(batch, Progress(0, 1, torch.Generator().manual_seed(0)))
    assert set(losses) == set(segmenter.config.weights.model_dump())
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for g in segmenter.parameter_groups() for p in g.parameters)
    assert segmenter.encode(batch.video[:, :, :, :37, :41]).shape == (12, 3, 11, 37, 41)
    with pytest.raises(AvenirError, match="cannot make any"):
        segmenter.decode(torch.zeros(1, 1, 11, 8, 8))


# A robot's state ---------------------------------------------------------------------------------


def squares(num: int, seed: int) -> Batch:
    """Frames with a bright square; the state says where it is, in units of its own."""
    chance = torch.Generator().manual_seed(seed)
    place = torch.randint(0, 24, (num, 4, 2), generator=chance)
    rows = torch.arange(32)
    inside = (rows >= place[..., None]) & (rows < place[..., None] + 8)
    picture = (inside[..., 0, :, None] & inside[..., 1, None, :]).float() * 2 - 1
    state = place * torch.tensor([0.01, 3.0]) + torch.tensor([5.0, -40.0])
    return Batch(picture[:, :, None].expand(-1, -1, 3, -1, -1), {"state": state})


@pytest.fixture(scope="module")
def reader() -> Regressor:
    torch.manual_seed(0)
    encoder = Regressor(RegressorConfig(outputs=2, widths=(8, 16), channels=8))
    optimiser = Optimiser(encoder.parameters(), OptimConfig())
    for number in range(80):
        progress = Progress(number, 80, generator("reader", number))
        loss = encoder.losses(squares(8, number), progress)["signal"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return encoder.eval()


def test_a_state_is_read_from_frames_that_were_never_seen(reader):
    batch = squares(32, 1000)
    readout = StateReadout(reader)
    assert batch.video is not None
    here = readout.compare(batch.video, batch, 0)["state_error"]
    elsewhere = readout.compare(batch.video.roll(1, 0), batch, 0)["state_error"]
    assert here.shape == (32, 4)
    assert here.mean() < 0.4 < 1.0 < elsewhere.mean()


def test_an_error_of_the_state_is_in_its_deviations(reader):
    batch = squares(4, 2000)
    assert batch.video is not None
    found = StateReadout(reader).compare(batch.video[:, 1:], batch, 1)["state_error"]
    every = torch.cat([squares(8, seed).signals["state"].flatten(0, 1) for seed in range(80)])
    said = reader.read(reader.encode(batch.video[:, 1:]))
    for i in range(4):
        for j in range(3):
            true = (batch.signals["state"][i, j + 1] - every.mean(0)) / every.std(0)
            expected = (said[i, j] - true).square().mean().sqrt()
            torch.testing.assert_close(found[i, j], expected, atol=0.03, rtol=0.03)


def test_a_state_of_another_size_is_refused():
    encoder = Regressor(RegressorConfig(outputs=3, widths=(8,), channels=4))
    with pytest.raises(AvenirError, match=r"has 2 numbers .* encoder.outputs=2"):
        encoder.losses(squares(2, 0), Progress(0, 1, generator("size")))
