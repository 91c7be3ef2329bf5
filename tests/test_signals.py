"""Signals have roles, and what is to be predicted is hidden from a world."""

import pytest
import torch

from avenir.card import Card
from avenir.signals import PREDICTED, Signal, observed, role_of, with_role

EVERY = {
    "actions": "action",
    "caption": "caption",
    "cameras": "camera",
    "boxes": "box",
    "state": "state",
    "weather": "metadata",
}


def test_a_card_from_before_there_were_roles_has_them_by_name():
    signals = {name: {"size": 2} for name in EVERY}
    card = Card.parse({"fps": 10, "size": [8, 8], "encoder": {}, "signals": signals})
    assert {name: signal.role for name, signal in card.signals.items()} == EVERY
    assert {name: role_of(name) for name in EVERY} == EVERY


def test_a_card_keeps_the_role_that_is_written():
    signals = {"actions": {"size": 2, "role": "state"}, "gripper": Signal(role="action", size=1)}
    card = Card.parse({"fps": 10, "size": [8, 8], "encoder": {}, "signals": signals})
    again = Card.model_validate_json(card.model_dump_json())
    assert [again.signals[n].role for n in ("actions", "gripper")] == ["state", "action"]
    assert list(with_role(again.signals, "action")) == ["gripper"]


@pytest.mark.parametrize("wrong", [[], {"actions": 3}, {"actions": {"role": "boss", "size": 2}}])
def test_what_describes_no_signal_is_refused(wrong):
    with pytest.raises(ValueError, match="signals"):
        Card.model_validate({"fps": 10, "size": [8, 8], "encoder": {}, "signals": wrong})


def test_the_future_of_what_is_predicted_is_hidden_and_of_what_steers_is_not():
    described = {f"its {role}": Signal(role=role, size=3) for role in EVERY.values()}
    signals = {name: torch.randn(2, 7, 3) for name in [*described, "labels"]}
    before = {name: rows.clone() for name, rows in signals.items()}
    known = observed(signals, 4, described)
    assert known.keys() == described.keys()
    for name, rows in known.items():
        hidden = described[name].role in PREDICTED
        assert torch.equal(rows[:, :4], before[name][:, :4])
        assert rows[:, 4:].isnan().all() if hidden else torch.equal(rows, before[name])
    assert all(torch.equal(rows, before[name]) for name, rows in signals.items())


def test_what_is_observed_whole_is_known_whole():
    signals = {"state": torch.randn(1, 5, 2)}
    described = {"state": Signal(role="state", size=2)}
    assert torch.equal(observed(signals, 5, described)["state"], signals["state"])
    assert observed(signals, 0, described)["state"].isnan().all()
