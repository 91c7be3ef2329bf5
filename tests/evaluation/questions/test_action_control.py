"""Steering to either side: who knows the simulator goes its way, who is deaf goes nowhere."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.questions.action_control import measure_counterfactuals
from avenir.evaluation.readers.readout import Readout

_ENCODER = SimpleNamespace(latent_mean=torch.zeros(1))


class Knows(Synthetic):
    """The simulator, which remembers what it was last asked."""

    def counterfactual(self, windows, actions):
        self.asked = super().counterfactual(windows, actions)
        return self.asked


class Oracle:
    """Imagines what the simulator was last asked; `changed` makes something else of it."""

    def __init__(self, source: Knows, changed=lambda frames, past: frames) -> None:
        self.source, self.changed, self.encoder = source, changed, _ENCODER

    def imagine(self, past, signals: dict[str, Tensor], horizon, samples, generator) -> Iterator:
        frames = self.source.asked.video
        # What steers must be what the simulator was told, the past as it was recorded.
        assert torch.equal(signals["actions"], self.source.asked.signals["actions"])
        yield self.changed(frames[:, past.shape[1] :], past)


@pytest.fixture(scope="module")
def source() -> Knows:
    return Knows(SyntheticConfig(labels=True))


@pytest.fixture(scope="module")
def task(source) -> HeldOut:
    return HeldOut(source, source.spread("test", 16, 24), 6, 10, 1, 8, 0)


def measured(source, task, changed=lambda frames, past: frames):
    readout = Readout.of(source, "cpu")
    found = measure_counterfactuals(Oracle(source, changed), task, readout, lambda *_: None)
    assert found is not None and found.num_clips == 24
    return found.rows[-1]


def test_the_simulator_itself_goes_the_right_way(source, task):
    row = measured(source, task)
    assert row.seconds == 1.0 and row.num_pairs >= 12
    assert row.right_way == row.read_right_way
    assert row.right_way.mean == 1.0
    assert row.reach.mean == pytest.approx(1.0, abs=0.1)
    assert row.rank_correlation.rho is not None and row.rank_correlation.rho > 0.9
    assert row.psnr.mean == 60.0


def test_a_deaf_world_goes_nowhere(source, task):
    row = measured(source, task, lambda frames, past: past[:, -1:].expand_as(frames))
    assert row.right_way.mean == 0.0 and row.reach.mean == 0.0
    assert row.rank_correlation.rho is None
    assert row.read_right_way.mean == 1.0


def test_a_world_that_mixes_up_left_and_right_is_found_out(source, task):
    row = measured(source, task, lambda frames, past: frames.flip(-1))
    assert row.right_way.mean == 0.0
    assert row.reach.mean == pytest.approx(-1.0, abs=0.15)
    assert row.rank_correlation.rho is not None and row.rank_correlation.rho < -0.9


def test_an_ego_that_is_lost_is_not_the_right_way(source, task):
    def without(frames: Tensor, past: Tensor) -> Tensor:
        rows = torch.arange(len(frames)) % 2 == 0
        return torch.where(rows[:, None, None, None, None], torch.zeros(()), frames)

    row = measured(source, task, without)
    assert row.right_way.mean == pytest.approx(0.5, abs=0.15)


def test_nobody_can_say_for_other_data(source, task):
    assert measure_counterfactuals(Oracle(source), task, None, lambda *_: None) is None
