"""Who does as it is told is seen to, who does not is not, and the reader can be believed."""

import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from avenir.clip import to_frames, to_video
from avenir.console import silent
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.data.synthetic.visitors import COLOURS, Visit, Visitor, fly_over
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.questions.text_control import _finding, caption_table, measure_text_control
from avenir.evaluation.readers.visitors import FOLDER, VisitorReader
from avenir.shapes import Compression
from avenir.training.objectives import make_source
from avenir.training.recipe import load_recipe
from avenir.world import World


class Dreamer:
    """Holds the last frame, and lets fly over it what `hears` makes of the words."""

    encoder = SimpleNamespace(
        latent_mean=torch.zeros(1), can_decode=False, compression=Compression(2, 8, 8)
    )

    def imagine(self, past, signals, horizon, samples, generator) -> Iterator[torch.Tensor]:
        frames = to_frames(past[:, -1:].expand(-1, horizon, -1, -1, -1)).numpy().copy()
        words = [
            [self.words(row) for row in caption[past.shape[1] :]] for caption in signals["caption"]
        ]
        seconds = torch.arange(horizon).div(10).expand(len(frames), -1).numpy()
        fly_over(frames, [self.hears(told) for told in words], seconds)
        yield to_video(torch.from_numpy(frames))

    def words(self, row: torch.Tensor) -> str:
        return "" if row.isnan().any() else bytes(int(x) for x in row if x).decode()

    def hears(self, told: list[str]) -> list[Visit]:
        """Fly what is said, from when it is said."""
        for frame, words in enumerate(told):
            match = re.fullmatch(r"a (\w+) (\w+) flies in from the (\w+)", words)
            if match:
                kind, side = Visitor[match[2].upper()], -1 if match[3] == "left" else 1
                return [Visit(kind, COLOURS.index(match[1]), side, 0.4, frame / 10, 2.0)]
        return []


class Deaf(Dreamer):
    def hears(self, told):
        return []


class Stubborn(Dreamer):
    def hears(self, told):
        return [Visit(Visitor.PLANE, 1, -1, 0.4, 0.8, 2.0)]


@pytest.fixture(scope="module")
def reader() -> VisitorReader:
    return VisitorReader.shipped("cpu")


def task(**settings) -> HeldOut:
    config = {"captions": "some", "labels": True} | settings
    source = Synthetic(SyntheticConfig.parse(config))
    windows = source.spread("test", 16, 36)
    return HeldOut(source, windows, 10, 6, 1, 12, 0)


def measured(world, reader, **settings):
    return measure_text_control(world, task(**settings), reader, silent)


def test_a_world_that_listens_is_seen_to(reader):
    found = measured(Dreamer(), reader)
    assert found.known.num_clips + found.held_out.num_clips == 36
    assert found.held_out.num_clips == 6
    assert found.known.both.mean >= 0.9
    assert found.refused.mean == found.absent.mean == found.too_soon.mean == 0
    assert found.more_than_refused.low > 0.8


def test_a_world_that_does_not_listen_brings_nothing(reader):
    found = measured(Deaf(), reader)
    assert found.known.appears.mean == found.known.both.mean == found.more_than_refused.mean == 0


def test_a_world_that_always_brings_the_same_does_not_listen(reader):
    found = measured(Stubborn(), reader)
    assert found.known.appears.mean == found.refused.mean == 1
    assert found.more_than_refused.mean == found.more_than_absent.mean == 0
    assert found.known.both.mean < 0.2


def test_the_reader_is_right_on_the_simulators_own_frames(reader):
    source = Synthetic(SyntheticConfig.parse({"captions": "some", "labels": True}))
    windows = source.spread("test", 16, 180)
    chosen = HeldOut(source, windows, 10, 6, 1, 12, 1)
    found = measure_text_control(Deaf(), chosen, reader, silent)
    assert found.read.both.mean >= 0.98


def test_what_the_tokenizer_leaves_is_read_alike(reader):
    """One that keeps every pixel leaves all, and one that keeps the mean of a frame nothing."""

    class Exact(Dreamer):
        encoder = SimpleNamespace(
            latent_mean=torch.zeros(1),
            can_decode=True,
            compression=Compression(1, 1, 1),
            encode=lambda video: video,
            decode=lambda latents: latents,
        )

    class Grey(Dreamer):
        encoder = SimpleNamespace(
            **vars(Exact.encoder)
            | {"decode": lambda latents: latents.mean((-2, -1), True).expand_as(latents)}
        )

    exact = measured(Exact(), reader)
    assert exact.kept == exact.read
    grey = measured(Grey(), reader)
    assert grey.kept.appears.mean == 0 and grey.read == exact.read
    assert "through the tokenizer" in caption_table(grey)
    assert measured(Deaf(), reader).kept is None


def test_without_captions_or_time_nothing_is_measured(reader):
    assert measured(Deaf(), reader, captions=None) is None
    assert measured(Deaf(), reader, episode_frames=33) is None


def test_no_pair_is_held_out_where_training_shows_all(reader):
    found = measured(Dreamer(), reader, captions="all")
    assert found.known.num_clips == 36 and found.held_out.both.mean is None


def test_it_was_trained_as_its_recipe_says(reader):
    recipe = load_recipe(FOLDER.parents[4] / "recipes" / "visitor_reader.toml")
    card = World.load(FOLDER, "cpu").card
    assert card.provenance["data"] == make_source(recipe.data).fingerprint
    assert card.provenance["steps"] == recipe.train.steps


def test_its_table_and_its_sentence_say_what_was_measured(reader):
    found = measured(Stubborn(), reader)
    table = caption_table(found)
    assert "asked for, more than refused" in table and "100%" in table
    said = _finding(found)
    assert (
        said.number == "+0%"
        and said.tone == ""
        and "pairs that training never shows" in said.sentence
    )
    alone = found.model_copy(update={"held_out": measured(Deaf(), reader, captions="all").held_out})
    assert "never shows" not in _finding(alone).sentence
