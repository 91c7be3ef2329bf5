"""Discovered actions: what is read in video steers as it did while they were learnt."""

import numpy as np
import pytest
import torch

from avenir.clip import Clip
from avenir.conditioners import ConditionSpec
from avenir.conditioners.latent_actions import LatentActionsConditioner, LatentActionsConfig
from avenir.device import generator
from avenir.environment import WorldEnv
from avenir.errors import AvenirError


def conditioner(f_t: int = 2, channels: int = 4, **settings) -> LatentActionsConditioner:
    torch.manual_seed(3)
    made = LatentActionsConditioner(
        LatentActionsConfig(**settings), ConditionSpec({}, f_t, 32, channels)
    )
    for _ in range(20):
        made(dict(), 4, 8, None, latents(8, channels))  # numbers find their spread
    return made.eval()


def latents(count: int = 2, channels: int = 4) -> torch.Tensor:
    return torch.randn(count, 4, channels, 8, 8)


@pytest.mark.parametrize("f_t", [1, 2, 3])
def test_codes_read_in_video_and_given_back_steer_as_what_was_seen(f_t):
    steer, seen = conditioner(f_t), latents()
    actions = steer.discover(seen)
    assert actions.shape == (2, 4 * f_t, 9)
    given = steer({"actions": actions}, 4, 2)
    shown = steer({}, 4, 2, latents=seen)
    torch.testing.assert_close(given.per_frame, shown.per_frame)
    assert (shown.per_frame[:, 1:] - shown.null).abs().amax(-1).min() > 1e-3
    torch.testing.assert_close(shown.per_frame[:, :1], shown.null.expand(2, 1, -1))


def test_a_code_depends_on_its_two_frames_and_on_nothing_else():
    steer, seen = conditioner(levels=(7, 7, 7)), latents()
    other = seen.clone()
    other[:, 3] = torch.randn_like(other[:, 3])
    before, after = (steer({}, 4, 2, latents=each).per_frame for each in (seen, other))
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert (after[:, 3] - before[:, 3]).abs().amax() > 1e-3


@pytest.mark.parametrize("f_t", [2, 3])
def test_a_last_group_that_is_cut_short_is_steered_by_what_is_said_of_it(f_t):
    steer, seen = conditioner(f_t), latents()
    actions = steer.discover(seen)
    short = actions[:, : 3 * f_t + 1]
    short[:, -1] = torch.nan
    both = (steer({"actions": each}, 4, 2).per_frame for each in (actions, short))
    torch.testing.assert_close(*both)


def test_what_is_not_said_or_of_another_size_is_absent_or_refused():
    steer = conditioner()
    actions = steer.discover(latents())
    actions[:, 3:] = torch.nan
    known = steer({"actions": actions}, 4, 2)
    torch.testing.assert_close(known.per_frame[:, 2:], known.null.expand(2, 2, -1))
    with pytest.raises(AvenirError, match="discovered 9 actions"):
        steer({"actions": torch.zeros(2, 8, 2)}, 4, 2)
    with pytest.raises(AvenirError, match="3 or more"):
        conditioner(levels=(3, 2))


def test_training_hides_actions_from_some_frame_on_as_when_nobody_acts():
    steer, seen = conditioner(dropout=0, part_dropout=0.5), latents(400)
    said = steer({}, 4, 400, generator("drop"), seen)
    known = (said.per_frame - said.null).abs().amax(-1)[:, 1:] > 1e-6
    silent = known[:, 0] & ~known[:, -1]
    assert 0.05 < float(silent.float().mean()) < 0.4
    assert float(known.all(1).float().mean()) > 0.5
    whole = conditioner(dropout=0, part_dropout=0)({}, 4, 400, generator("drop"), seen)
    assert ((whole.per_frame - whole.null).abs().amax(-1)[:, 1:] > 1e-6).all()


def test_its_own_loss_teaches_the_eyes_and_the_predictor_does_not():
    steer, seen = conditioner().train(), latents()
    steer({}, 4, 2, latents=seen).per_frame.square().sum().backward()
    assert steer.backbone[0].weight.grad is None
    steer.losses(seen)["discovery"].backward()
    assert steer.backbone[0].weight.grad.abs().max() > 0


def test_what_the_past_does_not_say_becomes_a_code():
    """Frames of one number each, which goes up or down by chance."""
    torch.manual_seed(0)
    steer = LatentActionsConditioner(LatentActionsConfig(levels=(3,)), ConditionSpec({}, 1, 16, 1))
    optimiser = torch.optim.Adam(steer.parameters(), 3e-3)

    def walks(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        chance = generator("walks", seed)
        up = torch.randint(2, (count, 2), generator=chance) * 2 - 1
        start = torch.randn(count, 1, generator=chance)
        levels = torch.cat([start, start + up.cumsum(1)], dim=1)
        return levels[:, :, None, None, None].expand(-1, -1, 1, 8, 8), up[:, 1]

    for step in range(150):
        loss = steer.losses(walks(64, step)[0])["discovery"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    seen, up = walks(256, -1)
    said = steer.eval().discover(seen)[:, 1].argmax(-1)
    # One code when it goes up, another when it goes down.
    assert len(set(zip(said.tolist(), up.tolist(), strict=True))) == len(set(said.tolist())) == 2
    assert float(steer.losses(seen)["discovery"].detach()) < 0.05


def test_a_world_puts_what_it_discovers_in_the_place_of_what_was_recorded(discovering):
    world = discovering
    frames = torch.randint(256, (7, 3, 16, 16), dtype=torch.uint8)
    clip = world.fitted(Clip(frames, 10.0, {"actions": torch.zeros(7, 2)}))
    actions = clip.signals["actions"]
    assert actions.shape == (7, 9)
    # Groups end at the last frame: the first frame is in none, and nothing leads into the first.
    assert actions[:2].isnan().all() and actions[-1].isnan().all()
    torch.testing.assert_close(actions[2:6].sum(-1), torch.ones(4))
    imagined = world.predict(clip, 0.4, torch.eye(9)[:4])
    assert imagined.num_frames == 4
    # Asked for groups from the first frame on, it reads the same in those.
    again = world.discovered(clip.video[:, 1:])[0]
    torch.testing.assert_close(again, actions[1:], equal_nan=True)


def test_a_discovered_world_is_an_environment_of_choices(discovering):
    world = discovering
    frames = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    environment = WorldEnv(world, [Clip(frames, 10.0, {"actions": torch.zeros(8, 2)})])
    environment.reset(seed=0)
    assert environment.action_space.shape == (9,)
    seen, *_ = environment.step(np.eye(9, dtype=np.float32)[3])
    assert seen.shape == (16, 16, 3)
