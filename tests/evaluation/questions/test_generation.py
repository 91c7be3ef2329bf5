"""Sets of clips: what nothing was lost in is nearest, and a judge that was taught is refused."""

import math
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from avenir.card import Card
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.errors import AvenirError
from avenir.evaluation import evaluate
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.questions.generation import SetScorer, distance_table, measure_generation
from avenir.evaluation.readers.readout import Readout, evaluator_for, readout_of
from avenir.evaluation.settings import EvaluationConfig


def world_that_judges(world) -> SimpleNamespace:
    """Another world by name and kind, whose features are the pixels."""
    card = Card(name="judge", fps=10, size=(16, 24), encoder={"kind": "pixels"})
    return SimpleNamespace(encoder=world.encoder, card=card)


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def task(source) -> HeldOut:
    return HeldOut(source, source.spread("test", 16, 12), 6, 10, 1, 5, 0)


def test_a_codec_that_loses_nothing_makes_the_true_set(world, task):
    found = measure_generation(world, task, world_that_judges(world), None, quiet).scores
    assert found["codec"]["frechet"] == pytest.approx(0, abs=1e-6)
    assert found["codec"]["coverage"] == 1
    # What decoding loses counts on both sides; here it loses nothing.
    assert found["world"]["frechet_codec"] == pytest.approx(found["world"]["frechet"], rel=1e-6)
    assert found["copy_last"]["frechet"] > 10 * max(1e-6, found["codec"]["frechet"])
    assert set(found["real"]) == {"kernel_distance", "frechet", "coverage"}
    assert all(math.isfinite(v) for marks in found.values() for v in marks.values())


def test_quality_against_steps_is_that_of_the_same_world_in_so_many(world, task):
    @contextmanager
    def in_steps(count):
        before, world.noise = world.noise, 1 / count
        yield
        world.noise = before

    world.noise, world.predictor = 1 / 4, SimpleNamespace(in_steps=in_steps)
    found = measure_generation(world, task, world_that_judges(world), None, quiet, (1, 2, 4))
    assert list(found.in_steps) == [1, 2, 4]
    assert found.in_steps[4] == found.scores["world"]
    distances = [marks["frechet"] for marks in found.in_steps.values()]
    assert distances == sorted(distances, reverse=True) and distances[0] > distances[2]
    assert "in 1 step<" in distance_table(found) and "in 4 steps<" in distance_table(found)


def test_marks_do_not_depend_on_how_many_clips_are_read_at_once(world, task):
    few, many = (
        SetScorer(task._replace(batch_size=size), world.encoder, None).last_frame_held()
        for size in (2, 12)
    )
    assert few == pytest.approx(many, rel=1e-5, abs=1e-9)


def test_too_few_clips_are_refused(world, task):
    few = task._replace(windows=task.windows[:7])
    with pytest.raises(AvenirError, match="7 clips were given"):
        measure_generation(world, few, world_that_judges(world), None, quiet)


def test_a_judge_that_was_asked_for_must_do_and_another_is_left_out(world, source, tmp_path):
    settings = EvaluationConfig(
        num_clips=8, horizon_seconds=1, num_samples=1, num_train_windows=8, num_examples=0
    )
    found = evaluate(world, source, settings, tmp_path)
    assert "no evaluator ships" in found.results["generation"].left_out
    assert "no evaluator ships" in (tmp_path / "report.html").read_text()
    world.card = world.card.model_copy(update={"provenance": {"key": "own", "steps": 7}})
    with pytest.raises(AvenirError, match="which it would judge"):
        evaluate(world, source, settings, tmp_path, evaluator=world)
    judge = world_that_judges(world)
    found = evaluate(world, source, settings, tmp_path, evaluator=judge)
    assert found.results["generation"].left_out is None
    assert "judge" in (tmp_path / "report.html").read_text()


def test_one_look_serves_the_reader_and_the_distances():
    source = Synthetic(SyntheticConfig(labels=True))
    task = HeldOut(source, source.spread("test", 12, 8), 8, 4, 1, 8, 0)
    evaluator = evaluator_for(source, "cpu")
    shared = readout_of(source, evaluator, "cpu")
    assert shared is not None and shared.encoder is evaluator.encoder
    apart = Readout.of(source, "cpu")
    one, two = (
        SetScorer(task, evaluator.encoder, readout).last_frame_held() for readout in (shared, apart)
    )
    assert {"ego_error", "small_iou", "kernel_distance"} <= set(one)
    assert one == pytest.approx(two, rel=1e-4, abs=1e-6)
