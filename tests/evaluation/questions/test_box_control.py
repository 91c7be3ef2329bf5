"""Who puts things where boxes say is seen to, and who puts them where they were is seen not to."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.data.synthetic.things import MOVING, Class
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.questions.box_control import (
    BoxControl,
    _finding,
    box_table,
    measure_box_control,
    share_filled,
)
from avenir.evaluation.readers.readout import Readout
from avenir.shapes import BOX_NUMBERS, Compression


class Painter:
    """Paints the class of every box that it is told into its first channel, for `Eye` to read."""

    encoder = SimpleNamespace(
        latent_mean=torch.zeros(1),
        compression=Compression(2, 8, 8),
        can_decode=True,
        encode=lambda video: video,
        decode=lambda latents: torch.full_like(latents, 0.5),
    )

    def imagine(self, past, signals, horizon, samples, generator) -> Iterator[torch.Tensor]:
        made = torch.zeros(len(past), horizon, *past.shape[2:])
        made[:, :, 1], made[:, :, 2] = -1, 1
        height, width = past.shape[-2:]
        rows = self.heard(signals["boxes"], past.shape[1])[:, -horizon:]
        rows = rows.unflatten(-1, (-1, BOX_NUMBERS)).nan_to_num()
        for clip, frame, box in (rows[..., 5] > 0).nonzero().tolist():
            x, y, w, h, _, category = rows[clip, frame, box].tolist()
            top, bottom = round((y - h / 2) * height), round((y + h / 2) * height)
            left, right = round((x - w / 2) * width), round((x + w / 2) * width)
            made[clip, frame, 0, top:bottom, left:right] = MOVING[int(category) - 1] / 10
        yield made

    def heard(self, boxes: torch.Tensor, past: int) -> torch.Tensor:
        return boxes


class Deaf(Painter):
    """Lets everything stay where it was last."""

    def heard(self, boxes, past):
        return boxes[:, past - 1 : past].expand_as(boxes)


class Eye(Readout):
    """Reads what `Painter` painted, and real frames as the shipped segmenter does."""

    def read(self, video, seen=None):
        if bool((video[:, :, 1] == -1).all()):
            return SimpleNamespace(classes=(10 * video[:, :, 0]).round().long())
        return super().read(video, seen)


def task(count: int = 10, **settings) -> HeldOut:
    source = Synthetic(SyntheticConfig.parse({"boxes": True, "labels": True} | settings))
    return HeldOut(source, source.spread("test", 20, count), 6, 14, 1, 5, 0)


def measured(world, task: HeldOut) -> BoxControl:
    shipped = Readout.of(task.source, "cpu")
    assert shipped is not None
    found = measure_box_control(world, task, Eye(shipped.encoder), lambda *_: None)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def listens() -> BoxControl:
    return measured(Painter(), task())


def test_who_fills_every_box_is_seen_to_and_owes_it_to_being_told(listens):
    assert min(listens.given.mean, listens.moved.mean) > 0.95  # but for those painted over
    assert listens.absent.mean == listens.moved_absent.mean == listens.overlap_absent.mean == 0
    assert min(listens.more_than_absent.low, listens.more_than_moved_absent.low) > 0.9
    assert listens.seconds == 1.4 and listens.num_clips == 10


def test_real_frames_fill_their_finding(listens):
    assert listens.read.mean > 0.8 and listens.overlap_read.mean > 0.75
    assert listens.kept.mean < 0.2  # a tokenizer that keeps nothing leaves next to nothing


def test_who_does_not_listen_gains_nothing():
    deaf = measured(Deaf(), task())
    assert deaf.more_than_absent.mean == deaf.more_than_moved_absent.mean == 0
    assert 0 < deaf.given.mean < 1 and 0 < deaf.overlap.mean < 1


def test_a_box_is_filled_by_a_third_of_its_own_class():
    boxes = torch.tensor([[[0.25, 0.5, 0.5, 1.0, 1.0, 1.0], [0.75, 0.5, 0.5, 1.0, 1.0, 2.0]]])
    classes = torch.zeros(1, 1, 12, 12, dtype=torch.long)
    classes[..., :4, :] = Class.CAR  # a third of both
    assert share_filled(classes, boxes.flatten(1)[:, None]).tolist() == [0.5]
    classes[..., 3, 0] = Class.ROAD
    assert share_filled(classes, boxes.flatten(1)[:, None]).tolist() == [0]
    assert share_filled(classes, torch.zeros(1, 1, 12)).isnan().all()


def test_where_things_will_be_is_told_of_the_past_alone():
    asked = task(2)
    batch = asked.source.read(asked.windows)
    for past in (None, 9):
        boxes, shown = asked.steering(batch, past)["boxes"], 6 if past is None else past
        assert torch.equal(boxes[:, :shown], batch.signals["boxes"][:, :shown])
        assert boxes[:, shown:].isnan().all()
    assert batch.signals["boxes"].isfinite().all()
    assert asked.steering(batch).keys() == {"actions", "boxes"}


def test_nothing_is_measured_without_boxes_or_a_reader():
    shipped = Readout.of(task().source, "cpu")
    assert measure_box_control(Painter(), task(boxes=None), shipped, lambda *_: None) is None
    assert measure_box_control(Painter(), task(), None, lambda *_: None) is None


def test_one_recording_alone_has_no_other_to_be_told_of():
    alone = measured(Painter(), task(count=1))
    assert alone.given.mean > 0.9 and alone.moved.mean is None


def test_its_table_and_its_sentence_say_what_was_measured(listens):
    table, said = box_table(listens), _finding(listens)
    share = f"{listens.moved.mean:.0%}"
    assert "where those of another recording are, given" in table and share in table
    assert said.number == f"+{share}" and said.tone == "good"
    assert f"fills {share} of these" in said.sentence
