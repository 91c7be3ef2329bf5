"""Every predictor keeps the contract, with and without a condition."""

import pytest
import torch

from avenir.clip import Condition, Progress
from avenir.device import SharedGenerator, generator, seed_of
from avenir.errors import AvenirError
from avenir.predictors import FeatureHook, LatentShape, Predictor, TokenPredictor
from avenir.registry import find, kinds
from avenir.rollout import rollout

SHAPE = LatentShape(channels=3, h=4, w=4, vocabulary=7)
SIZE = SHAPE[:3]
TINY = {"width": 16, "depth": 1, "heads": 2, "past": 2, "chunk": 2}
SMALL = {
    "joint_embedding": {"width": 16, "depth": 1, "heads": 2, "past": 2, "rollout": 2},
    "flow": TINY,
    "autoregressive": TINY | {"order": "block"},
    "masked": TINY,
}


@pytest.fixture(params=kinds("predictors"))
def predictor(request) -> Predictor:
    cls = find("predictors", request.param)
    config = cls.Config.parse({"kind": request.param, **SMALL.get(request.param, {})})
    made = cls(config, SHAPE).eval()
    if isinstance(made, TokenPredictor):
        made.codes.normal_()
    return made


@pytest.fixture(params=[True, False], ids=["steered", "free"])
def steer(request, predictor):
    def make(frames: int) -> Condition | None:
        if not request.param:
            return None
        return Condition(
            torch.randn(2, frames, predictor.width), torch.zeros(1, 1, predictor.width)
        )

    return make


def test_losses_are_finite_and_trainable(predictor, steer):
    t = predictor.num_train_frames
    latents = torch.randn(2, t, *SIZE)
    losses = predictor.losses(latents, steer(t), Progress(0, 10, generator("losses")))
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in predictor.parameters())


def test_losses_draw_from_the_given_generator_only(predictor, steer):
    t = predictor.num_train_frames
    latents, condition = torch.randn(2, t, *SIZE), steer(t)
    one, other = (
        predictor.losses(latents, condition, Progress(0, 10, generator("same"))) for _ in range(2)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_tap_sees_the_tokens_of_every_frame_and_its_gradient_goes_back(predictor, steer):
    t, seen = predictor.num_train_frames, []
    latents, condition = torch.randn(2, t, *SIZE), steer(t)

    def through(tokens, counts):
        seen.append((tokens, counts))
        return tokens.clone()

    def losses(hook):
        return predictor.losses(latents, condition, Progress(0, 9, generator("hook")), hook)

    with_tap, without = losses(FeatureHook(predictor.depth, through)), losses(None)
    [(tokens, counts)] = seen
    h, w = SHAPE.h // predictor.patch, SHAPE.w // predictor.patch
    assert tokens.shape == (2, t, predictor.width, h, w)
    assert counts.shape == (2, t) and (counts.sum(dim=1) > 0).all()
    assert all(torch.equal(with_tap[name], without[name]) for name in without)
    tokens.square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in predictor.parameters())


def test_prediction_has_the_shape_asked_for_and_repeats_under_one_seed(predictor, steer):
    past = torch.randn(2, 1, *SIZE)
    condition = steer(3)
    memory = predictor.start(past, None if condition is None else condition[:1])
    assert predictor.room(memory) >= 2
    ahead = None if condition is None else condition[1:]
    one, later = predictor.predict(memory, ahead, 2, generator("same"))
    other, _ = predictor.predict(memory, ahead, 2, generator("same"))
    assert one.shape == (2, 2, *SIZE)
    assert torch.equal(one, other)
    assert later.num_frames <= 3


def test_under_common_chance_every_row_meets_what_it_would_meet_alone(predictor):
    """Futures that differ by nothing are the same, in a batch of any size."""
    condition = Condition(torch.randn(1, 3, predictor.width), torch.zeros(1, 1, predictor.width))
    past = torch.randn(1, 1, *SIZE)

    def drawn(count: int, chance: torch.Generator) -> torch.Tensor:
        memory = predictor.start(past.expand(count, -1, -1, -1, -1), condition[:1].repeated(count))
        return predictor.predict(memory, condition[1:].repeated(count), 2, chance)[0]

    alone = drawn(1, generator("common"))
    together = drawn(3, SharedGenerator.drawn_by(generator("seed")).manual_seed(seed_of("common")))
    torch.testing.assert_close(together, alone.expand_as(together), atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_past", [1, 5])
def test_rollouts_of_any_length_follow_pasts_of_any_length(predictor, steer, num_past):
    past = torch.randn(2, num_past, *SIZE)
    chunks = list(rollout(predictor, past, steer(num_past + 7), 7, generator("rollout")))
    assert sum(chunk.shape[1] for chunk in chunks) == 7
    assert all(torch.isfinite(chunk).all() for chunk in chunks)


def test_drawing_in_other_numbers_of_steps_lasts_while_it_is_asked_for(predictor):
    memory = predictor.start(torch.randn(2, 1, *SIZE), None)

    def drawn() -> torch.Tensor:
        return predictor.predict(memory, None, 2, generator("steps"))[0]

    if predictor.num_steps is None:
        with pytest.raises(AvenirError, match="no such choice"), predictor.in_steps(2):
            pass
        return
    before, own = drawn(), predictor.config
    with predictor.in_steps(1):
        assert predictor.num_steps == 1
        assert drawn().shape == before.shape
    with pytest.raises(KeyError), predictor.in_steps(3):
        raise KeyError
    assert predictor.config is own
    assert torch.equal(drawn(), before)


@pytest.mark.parametrize("kind", ["flow", "autoregressive"])
def test_sinks_stay_and_the_rest_slides(kind):
    cls = find("predictors", kind)
    table = TINY | {"kind": kind, "past": 3, "sinks": 1}
    world = cls(cls.Config.parse(table), SHAPE)
    latents = torch.arange(6.0).view(1, 6, 1, 1, 1).expand(-1, -1, *SIZE)
    steering = Condition(torch.randn(1, 6, 16), torch.zeros(1, 1, 16))
    memory = world.start(latents, steering)
    assert memory.latents[0, :, 0, 0, 0].tolist() == [0, 4, 5]
    assert torch.equal(memory.condition.per_frame, steering.per_frame[:, [0, 4, 5]])
    with pytest.raises(AvenirError, match="sinks are part of the past"):
        cls(cls.Config.parse(table | {"sinks": 3}), SHAPE)


def test_its_weights_are_known_without_memory(predictor):
    with torch.device("meta"):
        described = type(predictor)(predictor.config, SHAPE)
    shapes = [{n: v.shape for n, v in each.state_dict().items()} for each in (described, predictor)]
    assert shapes[0] == shapes[1]
    assert {parameter.device.type for parameter in described.parameters()} <= {"meta"}
