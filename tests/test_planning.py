"""Planning where the best plan is known: latents that are the sum of all actions."""

from types import SimpleNamespace

import pytest
import torch

from avenir.clip import Clip
from avenir.controls import Controls
from avenir.device import SharedGenerator, generator, normal
from avenir.errors import AvenirError
from avenir.planning import Agent, PlanningConfig, bounds_of, latents_of, plan
from avenir.signals import Signal
from avenir.world import World, load

from .conftest import save_tiny_world


class Sums:
    """A world whose two latent numbers are sums of its two actions: it ends where they lead."""

    card = SimpleNamespace(name="sums")
    action_signal = Signal(role="action", size=2, low=(-1.0, -1.0), high=(1.0, 0.5))
    takes = {"actions": action_signal}
    encoder = SimpleNamespace(compression=SimpleNamespace(t=2))

    def foresee(self, state, controls, generator):
        assert len(controls.actions) == len(state)
        return controls.actions.cumsum(1)[:, 1::2, :, None, None]


class Here(torch.Tensor):
    """A state of this world: nothing but how many there are."""

    def repeated(self, count):
        return torch.zeros(count)

    seen = torch.zeros(1)


@pytest.mark.parametrize("method", ["cem", "mppi"])
def test_the_plan_that_is_best_is_found(method):
    config = PlanningConfig(method=method, num_rounds=12, num_candidates=256, num_elites=16)
    goal = torch.tensor([5.0, -3.0]).view(1, 1, 2, 1, 1)
    found = plan(Sums(), Here(), goal, config, generator("p"))
    ends = 2 * found.actions.sum(0)
    torch.testing.assert_close(ends, torch.tensor([5.0, -3.0]), atol=0.15, rtol=0)
    assert found.lowest[-1] < found.lowest[0]
    assert found.cost == pytest.approx(float((ends - goal.view(2)).abs().mean()), abs=1e-5)


def test_what_cannot_be_reached_is_gone_toward_within_bounds():
    goal = torch.tensor([100.0, 100.0]).view(1, 1, 2, 1, 1)
    config = PlanningConfig(num_rounds=15, num_candidates=512, num_elites=32)
    found = plan(Sums(), Here(), goal, config, generator("p"))
    expected = torch.tensor([1.0, 0.5]).expand(6, 2)
    torch.testing.assert_close(found.actions, expected, atol=0.05, rtol=0)


class Noisy(Sums):
    """The same world under chance, which tells what it was asked and what came of it."""

    def __init__(self):
        self.rounds = []

    def foresee(self, state, controls, generator):
        ends = super().foresee(state, controls, generator)
        ends = ends + 3 * normal(ends.shape, generator)
        self.rounds.append((controls.actions, ends))
        return ends


@pytest.mark.parametrize("method", ["cem", "mppi"])
def test_candidates_of_a_round_meet_the_same_chance_and_rounds_meet_others(method):
    """So candidates are ranked by their actions: one that is lucky is so for all."""
    world, config = Noisy(), PlanningConfig(method=method, num_rounds=3, num_candidates=32)
    plan(world, Here(), torch.zeros(1, 1, 2, 1, 1), config, generator("p"))
    chances = []
    for actions, ends in world.rounds:
        luck = ends - Sums().foresee(torch.zeros(len(actions)), Controls(actions), None)
        torch.testing.assert_close(luck, luck[:1].expand_as(luck), atol=1e-5, rtol=0)
        chances.append(luck[0].flatten())
    assert torch.pdist(torch.stack(chances)).min() > 0.1


def test_actions_are_held_and_the_search_goes_on_from_where_it_was():
    goal = torch.tensor([4.0, 0.0]).view(1, 1, 2, 1, 1)
    config = PlanningConfig(num_steps=5, hold=2, num_rounds=8)
    found = plan(Sums(), Here(), goal, config, generator("p"))
    assert found.actions.shape == (3, 2)
    steps = found.actions.repeat_interleave(2, 0)[:5]
    assert 2 * steps.sum(0)[0] == pytest.approx(4.0, abs=0.2)
    again = plan(Sums(), Here(), goal, config, generator("q"), start=found.actions)
    assert again.lowest[0] <= 0.1 < plan(Sums(), Here(), goal, config, generator("q")).lowest[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return load(save_tiny_world(tmp_path_factory.mktemp("worlds") / "plans", (64, 64), chunk=1))


def clip(num_frames: int) -> Clip:
    frames = torch.randint(0, 255, (num_frames, 3, 64, 64), dtype=torch.uint8)
    return Clip(frames, 10.0, {"actions": torch.zeros(num_frames, 2)})


def test_what_is_foreseen_is_what_stepping_leads_to(world):
    given, actions = clip(6), torch.rand(1, 8, 2)
    state = world.start(given.video, {"actions": given.signals["actions"][None]})
    seen = world.foresee(state, Controls(actions), generator("f"))
    chance, latents = generator("f"), []
    for first in range(0, 8, 2):
        state = world.step(state, Controls(actions[:, first : first + 2]), chance)
        latents.append(state.memory.latents[:, -1:])
    torch.testing.assert_close(seen, torch.cat(latents, 1), atol=1e-5, rtol=1e-5)


def test_what_actions_cost_depends_on_nothing_but_the_actions(world):
    """The same ones cost the same, and in another order they cost the same in that order."""
    given, actions = clip(6), torch.rand(4, 4, 2)
    actions[1] = actions[0]
    signals = {"actions": given.signals["actions"][None]}
    state = world.start(given.video, signals).repeated(4)

    def foreseen(rows: list[int]) -> torch.Tensor:
        chance = SharedGenerator.drawn_by(generator("f"))
        return world.foresee(state, Controls(actions[rows]), chance)[:, -1]

    ends = foreseen([0, 1, 2, 3])
    torch.testing.assert_close(ends[0], ends[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(foreseen([3, 0, 2, 1]), ends[[3, 0, 2, 1]], atol=1e-5, rtol=0)
    assert (ends[2] - ends[3]).abs().max() > 1e-3


def test_an_agent_acts_the_same_for_the_same_seed_and_reaches_for_its_goal(world):
    config, past = PlanningConfig(num_candidates=8, num_elites=2, num_steps=2), clip(6)
    goal = clip(1)

    def acted(goal: Clip, seed: int) -> torch.Tensor:
        agent = Agent(world, goal, config, seed)
        return torch.stack([agent.act(past), agent.act(past)])

    assert acted(goal, 0).shape == (2, 2, 2)
    assert torch.equal(acted(goal, 0), acted(goal, 0))
    assert not torch.equal(acted(goal, 0), acted(goal, 1))
    assert not torch.equal(acted(goal, 0), acted(clip(1), 0))
    low, high = bounds_of(world)
    assert (acted(goal, 0) >= low).all() and (acted(goal, 0) <= high).all()
    assert latents_of(world, goal).shape[:2] == (1, 1)


def test_an_action_that_is_to_be_held_is_held(world):
    config = PlanningConfig(num_candidates=4, num_elites=2, num_rounds=1, hold=2)
    agent, past = Agent(world, clip(1), config), clip(6)
    acts = [agent.act(past) for _ in range(4)]
    assert torch.equal(acts[0], acts[1]) and torch.equal(acts[2], acts[3])
    assert not torch.equal(acts[1], acts[2])


def test_keeping_all_candidates_is_no_choice(world):
    config = PlanningConfig(num_candidates=8)
    with pytest.raises(AvenirError, match="nothing would be chosen"):
        Agent(world, clip(1), config).act(clip(6))
    with pytest.raises(AvenirError, match="whole latents"):
        state = world.start(clip(6).video, {})
        world.foresee(state, Controls(torch.zeros(1, 3, 2)), generator("f"))


def test_worlds_without_actions_are_refused(tmp_path):
    encoder = load(save_tiny_world(tmp_path / "encoder", (64, 64), predicts=False))
    with pytest.raises(AvenirError, match="nothing can be planned"):
        bounds_of(encoder)
