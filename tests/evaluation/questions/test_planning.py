"""Planning in the true simulator: a script that reads it gets there, doing nothing does not."""

import copy

import pytest
import torch

from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.errors import AvenirError
from avenir.evaluation import plan as driver
from avenir.evaluation.initial_states import AWAY, starts_of
from avenir.evaluation.plan import plan_in_simulator
from avenir.evaluation.questions import planning
from avenir.evaluation.questions.planning import REACHED
from avenir.planning import PlanningConfig
from avenir.world import load


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def source() -> Synthetic:
    return Synthetic(SyntheticConfig())


def test_goals_are_what_the_simulator_shows_and_away_from_the_start(source):
    for start in starts_of(source, 4, 6, 12, 0, quiet):
        now, labels = start.simulator.look()
        assert torch.equal(torch.from_numpy(now[0]), start.past.frames[-1])
        assert abs(float(labels["ego"][0, 0]) - start.where) > AWAY
        assert start.goal.frames.shape == (1, 3, 64, 64)


def test_a_planner_knows_nothing_of_the_simulator_but_past_actions():
    source = Synthetic(SyntheticConfig(boxes=True, labels=True))
    start = starts_of(source, 1, 6, 12, 0, quiet)[0]
    assert start.past.signals.keys() == {"actions"}


def test_what_is_seen_slides_on_with_what_was_done(source):
    start, seen = starts_of(source, 1, 6, 12, 0, quiet)[0], []

    def act(past, simulator):
        frames, _ = simulator.look()
        assert torch.equal(past.frames[-1], torch.from_numpy(frames[0]))
        seen.append(past)
        return torch.full((2, 2), 0.1 * len(seen))

    before = copy.copy(start.simulator.ego)
    planning._end(start, act, 3, 2)
    assert start.simulator.ego == before  # starts are not used up
    assert [past.num_frames for past in seen] == [6, 6, 6]
    assert torch.equal(seen[1].frames[:4], start.past.frames[2:])
    assert torch.equal(seen[1].signals["actions"][3:5], torch.full((2, 2), 0.1))
    assert torch.equal(seen[2].signals["actions"][3:5], torch.full((2, 2), 0.2))
    assert seen[2].signals["actions"][-1].isnan().all()


def test_only_a_script_that_reads_the_simulator_gets_there(source, tiny_run, monkeypatch):
    monkeypatch.setattr(driver, "RANKED_SECONDS", 0.2)
    config = PlanningConfig(num_candidates=4, num_elites=2, num_rounds=1)
    found = plan_in_simulator(load(tiny_run), source, 12, 6, 1.2, config, 0, quiet)
    assert found.num_starts == 12 and found.seconds == 1.2
    reached = {name: acted.reached.mean for name, acted in found.policies.items()}
    assert reached["scripted"] > 0.7
    assert reached["nothing"] < 0.3 and reached["random"] < 0.5
    assert found.policies["random"].above_random.mean == 0
    scripted = found.policies["scripted"]
    assert scripted.above_nothing.low > 0 and scripted.distance.mean < REACHED
    assert found.ranking is not None and found.ranking.num_starts == 12
    with pytest.raises(AvenirError, match="starts were asked for"):
        few = Synthetic(SyntheticConfig(test_recordings=2))
        plan_in_simulator(load(tiny_run), few, 12, 6, 1.2, config, 0, quiet)
