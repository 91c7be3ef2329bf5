"""What cannot be decoded is shown by the training frames nearest to it."""

import pytest
import torch

from avenir.card import Card
from avenir.evaluation.baselines import frames_of, reconstructed
from avenir.evaluation.nearest_decoder import NearestDecoder, with_nearest_decoder
from avenir.shapes import Compression
from avenir.world import World
from tests.evaluation.conftest import HEIGHT, WIDTH, Identity


class Blind(Identity):
    """Sees what there is and cannot draw it."""

    can_decode = False


def quiet(what: str, done: int, total: int) -> None: ...


@pytest.fixture
def world() -> World:
    return World(Card(fps=10, size=(HEIGHT, WIDTH), encoder={}), Blind())


def test_frames_of_the_album_come_back_as_they_are(world, source):
    seen = with_nearest_decoder(world, source, quiet).encoder
    assert isinstance(seen, NearestDecoder) and seen.can_decode
    video = frames_of(source.read(source.spread("train", 1, 9)[3:6])).transpose(0, 1)
    assert torch.equal(reconstructed(seen, video), video)


def test_other_frames_become_the_nearest_of_them(world, source):
    seen = with_nearest_decoder(world, source, quiet).encoder
    video = frames_of(source.read(source.spread("test", 4, 3)))
    made = reconstructed(seen, video)
    bank = seen.groups[:, 0]
    for true, shown in zip(video.flatten(0, 1), made.flatten(0, 1), strict=True):
        distances = (bank - true).flatten(1).norm(dim=1)
        assert torch.equal(shown, bank[distances.argmin()])


def test_groups_of_frames_stay_together():
    class Pairs(Blind):
        def __init__(self) -> None:
            super().__init__()
            self.compression = Compression(2, 1, 1)

    groups = torch.arange(12.0).view(3, 2, 2, 1, 1).expand(-1, -1, -1, 4, 4)
    album = NearestDecoder(Pairs(), torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1), groups)
    latents = torch.tensor([[1.8, 0.2]]).view(1, 2, 1, 1, 1)
    assert torch.equal(album.decode(latents), torch.cat([groups[2], groups[0]])[None])


def test_a_world_that_decodes_is_left_alone(source):
    world = World(Card(fps=10, size=(HEIGHT, WIDTH), encoder={}), Identity())
    assert with_nearest_decoder(world, source, quiet) is world
