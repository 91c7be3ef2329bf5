"""Ranking policies: a world that is the simulator ranks as that does, a frozen one not at all."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from avenir.clip import to_video
from avenir.controls import Controls
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.data.synthetic.simulator import Simulator
from avenir.evaluation.initial_states import Start, starts_of
from avenir.evaluation.questions import policy_ranking as ranking
from avenir.evaluation.questions.policy_ranking import (
    POLICIES,
    Kendall,
    Policy,
    kendall,
    located,
    measure_policy_ranking,
)
from avenir.evaluation.readers.readout import Readout
from avenir.world import load


def quiet(what: str, done: int, total: int) -> None:
    pass


class Simulated:
    """Imagines what the simulators of its starts do; `mirrored`, as if left were right."""

    def __init__(self, starts: list[Start], mirrored: bool = False) -> None:
        self.starts, self.sign = starts, torch.tensor([-1.0 if mirrored else 1.0, 1.0])
        compression = SimpleNamespace(t=2)
        self.seeds = set[int]()
        self.encoder = SimpleNamespace(latent_mean=torch.zeros(1), compression=compression)

    def start(self, past: Tensor, signals: dict[str, Tensor]) -> SimpleNamespace:
        assert torch.equal(past, torch.cat([start.past.video for start in self.starts]))
        assert signals["actions"].shape == (*past.shape[:2], 2)
        simulators = [start.simulator for start in self.starts]
        return SimpleNamespace(video=past[:, -2:], simulators=simulators)

    def imagine_step(
        self, state: SimpleNamespace, controls: Controls, seed: int
    ) -> SimpleNamespace:
        self.seeds.add(seed)
        simulators, videos = [copy.copy(each) for each in state.simulators], []
        actions = (controls.actions[:, 0] * self.sign).numpy()
        for simulator, action in zip(simulators, actions, strict=True):
            frames = [simulator.step(action[None])[0].copy() for _ in range(2)]
            videos.append(to_video(torch.from_numpy(np.concatenate(frames))))
        return SimpleNamespace(video=torch.cat(videos), simulators=simulators)


class Copies(Simulated):
    """Imagines the last frame for ever."""

    def imagine_step(
        self, state: SimpleNamespace, controls: Controls, seed: int
    ) -> SimpleNamespace:
        return state


@pytest.fixture(scope="module")
def source() -> Synthetic:
    return Synthetic(SyntheticConfig())


@pytest.fixture(scope="module")
def starts(source) -> list[Start]:
    return starts_of(source, 6, 6, 12, 0, quiet)


@pytest.fixture
def few(monkeypatch) -> list[str]:
    return only(monkeypatch, "keeps to the middle", "half to the right", "away from the middle")


def only(monkeypatch, *names: str) -> list[str]:
    monkeypatch.setattr(ranking, "POLICIES", {name: POLICIES[name] for name in names})
    return list(names)


def test_the_simulator_itself_ranks_as_it_is_read(source, starts, few):
    world = Simulated(starts)
    found = measure_policy_ranking(world, source, starts, 1.6, 0, quiet)
    assert len(world.seeds) == 1  # one noise for all policies
    assert found is not None and found.num_starts == 6 and found.seconds == 1.6
    assert list(found.policies) == few
    assert found.imagined == found.read
    assert all(each.imagined == each.read for each in found.policies.values())
    assert found.imagined.tau == 1.0
    best, _, worst = (found.policies[name].true.mean for name in few)
    assert best > 0.9 and worst < 0.7


def test_a_world_that_copies_its_last_frame_ranks_none(source, starts, few):
    found = measure_policy_ranking(Copies(starts), source, starts, 0.4, 0, quiet)
    assert found is not None and found.imagined.tau is None and found.imagined.p_value is None
    assert len({each.imagined for each in found.policies.values()}) == 1


def test_a_world_that_mixes_up_left_and_right_takes_good_for_bad(source, starts, monkeypatch):
    only(monkeypatch, "keeps to the middle", "away from the middle")
    found = measure_policy_ranking(Simulated(starts, mirrored=True), source, starts, 1.6, 0, quiet)
    assert found is not None
    assert found.read.tau == 1.0 and found.imagined.tau == -1.0


def test_the_same_seed_gives_the_same(source, starts, monkeypatch, tiny_run):
    only(monkeypatch, "keeps to the middle", "steers at random")
    first, again, other = (
        measure_policy_ranking(load(tiny_run), source, starts, 1.6, seed, quiet)
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_starts_side_by_side_do_not_touch(starts):
    noise, policy, readout = torch.randn(3, len(starts)), Policy(1.0, noise=0.5), reader()

    def returns(rows: slice) -> Tensor:
        return ranking._in_simulator(policy, starts[rows], readout, noise[:, rows], 2)

    alone = [returns(slice(row, row + 1)) for row in range(len(starts))]
    assert torch.equal(returns(slice(None)), torch.cat(alone, dim=1))


def reader() -> Readout:
    readout = Readout.of(Synthetic(SyntheticConfig(labels=True)), "cpu")
    assert readout is not None
    return readout


def test_where_it_is_seen_to_be_is_where_it_is():
    """Steered to all sides for a while, many over the edge; what hides the ego is not counted."""
    simulator, rng = Simulator(), np.random.default_rng(0)
    simulator.reset(range(96), "test")
    actions = np.stack([rng.uniform(-1, 1, 96), np.full(96, 0.2)], axis=1)
    for _ in range(10):
        frames, labels = simulator.step(actions)
    place, on_road = located(reader(), to_video(torch.from_numpy(frames.copy())))
    ego, layout = simulator.ego, simulator.layout
    seen = torch.from_numpy(labels["ego_visible"][:, 0] > 0.5)
    true = torch.from_numpy((ego.x - layout.centre(ego.y - 9)) / layout.half_road)
    assert (place - true)[seen].abs().median() < 0.1
    off_road = torch.from_numpy(simulator.off_road)
    assert 0.2 < off_road.float().mean() < 0.8
    assert (on_road == ~off_road)[seen].float().mean() > 0.9
    nowhere, nor_on_it = located(reader(), torch.zeros(1, 2, 3, 64, 64))
    assert nowhere.isnan().all() and not nor_on_it.any()


def test_a_policy_steers_to_where_it_wants_to_be():
    place, noise = torch.tensor([-1.0, 0.0, 1.0, torch.nan]), torch.ones(4)
    steer = Policy(gain=0.5, place=0.5, turn=0.125).act(place, noise)[:, 0]
    assert steer.tolist() == [0.875, 0.375, -0.125, 0.0]
    assert Policy(noise=0.5).act(place, noise)[:3, 0].tolist() == [0.5] * 3
    assert Policy(turn=3.0).act(place, noise)[0, 0] == 1.0


def taus(x, y) -> Kendall:
    groups = [str(number) for number in range(np.shape(x)[1])]
    return kendall(torch.as_tensor(x), torch.as_tensor(y), groups, 0)


def test_tau_is_scipys_with_ties_and_without():
    rng = np.random.default_rng(0)
    for levels in (3, 5, 1000):
        x, y = rng.integers(levels, size=(2, 9, 1)).astype(np.float64)
        reference = stats.kendalltau(x[:, 0], y[:, 0])
        found = taus(x, y)
        assert found.tau == pytest.approx(reference.statistic)
        assert found.p_value == pytest.approx(reference.pvalue)
        assert found.low is None and found.high is None  # one recording


def test_tau_by_hand():
    # Of three pairs one is tied in x, one is ranked alike, one the other way.
    assert taus([[1.0], [1.0], [2.0]], [[1.0], [3.0], [2.0]]).tau == 0.0
    assert taus([[1.0], [2.0], [3.0]], [[1.0], [1.0], [2.0]]).tau == pytest.approx(2 / 6**0.5)
    assert taus([[1.0], [1.0], [1.0]], [[1.0], [3.0], [2.0]]).tau is None


def test_tau_of_one_ranking_and_its_reverse():
    returns = torch.rand(8, 20, generator=torch.Generator().manual_seed(0))
    assert taus(returns, returns).tau == 1.0 and taus(returns, returns).low == 1.0
    assert taus(returns, -returns).tau == -1.0 and taus(returns, 1 - returns).high == -1.0


def test_tau_lies_in_its_interval_and_that_narrows_with_starts():
    noise, widths = torch.Generator().manual_seed(0), []
    for count in (10, 1000):
        skill = torch.linspace(0, 1, 8)[:, None]
        x, y = (skill + torch.randn(8, count, generator=noise) for _ in range(2))
        found = taus(x, y)
        assert found.low <= found.tau <= found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2
