"""Views imagined from others: worlds that do a known thing score what is known."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.data.synthetic.rig import correspondence
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.metrics.frames import BEST_PSNR
from avenir.evaluation.question import About, Measured
from avenir.evaluation.questions.novel_views import (
    NovelViews,
    NovelViewsQuestion,
    ViewPictures,
    _brought,
    _imagined,
    measure_novel_views,
    novel_views_table,
)
from avenir.evaluation.readers.readout import evaluator_for
from avenir.shapes import Compression

SIZE = (32, 32)


@pytest.fixture(scope="module")
def source() -> Synthetic:
    return Synthetic(SyntheticConfig(size=SIZE, cameras=2, episode_frames=24))


@pytest.fixture(scope="module")
def task(source) -> HeldOut:
    return HeldOut(source, source.spread("test", 6, 6), 2, 4, 1, batch_size=3, seed=0)


def world(paint: Any, taught: bool = True) -> Any:
    """Make a world of two views that says of a hidden one what `paint` does of all there is."""
    return SimpleNamespace(
        card=SimpleNamespace(views=2),
        encoder=SimpleNamespace(
            compression=Compression(2, 8, 8),
            latent_mean=torch.zeros(1),
            encode=lambda video: video,
            decode=lambda latents: latents,
        ),
        predictor=SimpleNamespace(inpaints=taught),
        imagine_views=lambda video, signals, views, chance: paint(video, signals, *views),
    )


def measured(world: Any, task: HeldOut) -> NovelViews:
    found = measure_novel_views(world, task, lambda *a: None)
    assert found is not None
    return found[0]


def in_place(video: torch.Tensor, signals: dict[str, torch.Tensor], view: int) -> torch.Tensor:
    """Show the other view in the place of the hidden one."""
    halves = list(video.split(SIZE[1], dim=-1))
    halves[view] = halves[1 - view]
    return torch.cat(halves, dim=-1)


def by_geometry(video: torch.Tensor, signals: dict[str, torch.Tensor], view: int) -> torch.Tensor:
    """Move the other view to where it belongs."""
    cameras = signals["cameras"][:, 0].unflatten(1, (2, 16))
    halves = list(video.split(SIZE[1], dim=-1))
    moved = correspondence(cameras[:, view], cameras[:, 1 - view], SIZE)
    halves[view] = _brought(halves[1 - view], *moved)[0]
    return torch.cat(halves, dim=-1)


def test_who_says_the_truth_is_as_good_as_can_be(task):
    found = measured(world(lambda video, signals, view: video), task)
    assert (found.num_clips, found.num_frames, len(found.views)) == (6, 6, 2)
    for view in found.views:
        assert view.imagined.mean == pytest.approx(BEST_PSNR)
        assert view.kept.mean == pytest.approx(BEST_PSNR)
        assert view.consistency == view.consistency_of_truth
        assert view.consistency.mean is not None and view.consistency.mean > 22


def test_who_shows_the_nearest_view_gains_nothing_and_agrees_with_nobody(task):
    for view in measured(world(in_place), task).views:
        assert view.more_than_nearest.mean == pytest.approx(0, abs=1e-5)
        assert view.imagined.mean == pytest.approx(view.nearest.mean)
        assert view.consistency.mean < view.consistency_of_truth.mean - 5


def test_who_knows_the_geometry_scores_what_it_gives(task):
    for view in measured(world(by_geometry), task).views:
        assert view.imagined.mean == pytest.approx(view.warped.mean, abs=1e-3)
        assert view.more_than_nearest.mean > 1


def test_every_view_is_hidden_by_itself_and_from_its_own_chance(source, task):
    drawn: list[tuple[int, int]] = []

    def paint(video, signals, views, chance):
        drawn.append((*views, int(torch.randint(10**9, (), generator=chance))))
        return video

    made = world(None)
    made.imagine_views = paint
    measured(made, task)
    again = drawn.copy()
    assert [view for view, _ in drawn] == [0, 1, 0, 1] and len({x for _, x in drawn}) == 4
    drawn.clear()
    measured(made, task)
    assert drawn == again
    assert _imagined(made, torch.zeros(1, 2, 3, 32, 64), {}, 0, 0, 0).shape == (2, 1, 2, 3, 32, 32)


def test_one_view_and_worlds_that_were_not_taught_are_left_out(task):
    flat = task._replace(source=Synthetic(SyntheticConfig(size=SIZE)))
    right = world(lambda video, signals, view: video)
    assert measure_novel_views(right, flat, lambda *a: None) is None
    untaught = world(lambda video, signals, view: video, taught=False)
    assert measure_novel_views(untaught, task, lambda *a: None) is None


def test_nobody_reads_several_views_as_the_picture_from_above():
    both = Synthetic(SyntheticConfig(size=(64, 32), cameras=2))
    assert both.size == (64, 64)
    assert evaluator_for(both, "cpu") is None and both.labelled() is both


def test_the_page_shows_both_and_the_numbers(task):
    found = measure_novel_views(world(in_place), task, lambda *a: None)
    assert found is not None
    imagined, looks = found
    assert isinstance(looks, ViewPictures) and looks.true.shape == looks.made.shape == (
        6,
        3,
        32,
        64,
    )
    assert torch.equal(looks.made[..., :32], looks.true[..., 32:])
    page = NovelViewsQuestion().section(Measured(imagined, looks), About(10.0, None, None))
    assert "data:video/mp4" in page and novel_views_table(imagined) in page
    assert f"{imagined.views[1].nearest.mean:.2f}" in page
