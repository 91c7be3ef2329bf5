"""Prediction of latents: nothing looks ahead, what is kept changes nothing, dynamics are learnt."""

import torch

from avenir.clip import Condition, Progress
from avenir.device import generator
from avenir.predictors import LatentShape
from avenir.predictors.joint_embedding import JointEmbedding, JointEmbeddingConfig
from avenir.rollout import rollout

SHAPE = LatentShape(channels=3, h=2, w=2)
SIZE = SHAPE[:3]


def predictor(**settings) -> JointEmbedding:
    torch.manual_seed(2)
    small = {"width": 32, "depth": 2, "heads": 4, "past": 3, "rollout": 2}
    return JointEmbedding(JointEmbeddingConfig.parse(small | settings), SHAPE).eval()


def lively(world: JointEmbedding) -> JointEmbedding:
    for parameter in world.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return world


def steering(frames: int) -> Condition:
    chance = generator("steering")
    return Condition(torch.randn(2, frames, 32, generator=chance), torch.zeros(1, 1, 32))


def some_latents(frames: int) -> torch.Tensor:
    return torch.randn(2, frames, *SIZE, generator=generator("latents"))


def test_at_first_every_frame_is_the_one_before():
    latents = some_latents(3)
    chunks = list(rollout(predictor(), latents, steering(7), 4, generator("rollout")))
    held = latents[:, -1:].expand(-1, 4, -1, -1, -1)
    torch.testing.assert_close(torch.cat(chunks, dim=1), held)


def test_no_frame_depends_on_later_ones_or_on_their_actions():
    world, latents, condition = lively(predictor()), some_latents(5), steering(5)
    before, _ = world(latents, condition)
    later = latents.clone()
    later[:, 3] += 1
    moved = (world(later, condition)[0] - before).abs().amax((0, 2, 3, 4))
    assert moved[:3].max() < 1e-6 and moved[3:].min() > 1e-3
    condition.per_frame[:, 2] += 1
    moved = (world(latents, condition)[0] - before).abs().amax((0, 2, 3, 4))
    assert moved[:2].max() < 1e-6 and moved[2:].min() > 1e-3


def test_frames_that_were_kept_give_what_the_whole_past_gives():
    world, latents, condition = lively(predictor(rollout=4)), some_latents(3), steering(7)
    chunk, memory = world.predict(
        world.start(latents, condition[:3]), condition[3:], 4, generator("no")
    )
    frames = latents
    for _ in range(4):
        said, _ = world(frames, condition[1 : frames.shape[1] + 1])
        frames = torch.cat([frames, said[:, -1:]], dim=1)
    torch.testing.assert_close(chunk, frames[:, 3:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(memory.latents, frames[:, -3:], atol=1e-5, rtol=1e-4)


def test_the_losses_are_those_of_every_next_frame_and_of_a_rollout_written_out():
    world, latents, condition = lively(predictor()), some_latents(5), steering(5)
    losses = world.losses(latents, condition, Progress(0, 1, generator("no")))
    said = [world(latents[:, : i + 1], condition[1 : i + 2])[0][:, -1] for i in range(4)]
    error = (torch.stack(said, dim=1) - latents[:, 1:]).abs().mean()
    torch.testing.assert_close(losses["teacher_forced"], error)
    chunk, _ = world.predict(
        world.start(latents[:, :3], condition[:3]), condition[3:], 2, generator("no")
    )
    torch.testing.assert_close(losses["rolled_out"], (chunk - latents[:, 3:]).abs().mean())


def test_a_turn_that_the_action_steers_is_learnt():
    """Latents turn in a plane, to the left or to the right as the action says."""
    world, chance = predictor(past=2, rollout=2), generator("turns")
    optimiser = torch.optim.Adam(world.parameters(), 3e-3)

    def batch(rows: int) -> tuple[torch.Tensor, Condition]:
        way = 2.0 * torch.randint(2, (rows, 4), generator=chance) - 1
        angle = 6.3 * torch.rand(rows, 1, generator=chance) + 0.5 * way.cumsum(1)
        plane = torch.stack([angle.cos(), angle.sin(), 0 * angle], dim=2)
        per_frame = torch.zeros(rows, 4, 32)
        per_frame[..., 0] = way
        latents = plane[..., None, None].expand(-1, -1, -1, 2, 2)
        return latents, Condition(per_frame, torch.zeros(1, 1, 32))

    for step in range(200):
        losses = world.losses(*batch(64), Progress(step, 200, generator("no")))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    latents, condition = batch(256)
    chunk, _ = world.predict(
        world.start(latents[:, :2], condition[:2]), condition[2:], 2, generator("no")
    )
    error = (chunk - latents[:, 2:]).square().mean()
    held = (latents[:, 1:2] - latents[:, 2:]).square().mean()
    assert error < 0.05 * held
