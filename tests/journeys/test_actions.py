"""Actions from a csv: each drives what its name says, or a sentence says why not."""

import json
import sys
from pathlib import Path

import pytest
import torch

from avenir import cli
from avenir.clip import Clip
from avenir.control_script import read_actions
from avenir.errors import AvenirError
from avenir.signals import Signal
from avenir.video import read, write
from tests.conftest import save_tiny_world

TAKES = {
    "actions": Signal(
        role="action", size=2, names=("steer", "accelerate"), low=(-1.0, -1.0), high=(1.0, 1.0)
    )
}
UNNAMED = {"actions": TAKES["actions"].model_copy(update={"names": ()})}
DRIVEN = [[0.5, 0.25], [-0.5, 0.25], [0.125, 0.0], [1.0, -1.0]]


def actions_of(path: Path, text: str, takes=TAKES, num_frames: int = 4) -> list[list[float]]:
    (path / "t.csv").write_text(text)
    return read_actions(path / "t.csv", takes, num_frames, 10.0)[0].tolist()


def told(header: str, *orders: str) -> str:
    """Write the rows of DRIVEN: `s` and `a` stand for its numbers, `k` for the row's."""
    lines = [header]
    for k, (s, a) in enumerate(DRIVEN):
        values = {"s": s, "a": a, "k": k, "t": k / 10}
        lines.append(",".join(str(values[order]) for order in orders))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("header", "orders"),
    [
        ("steer,accelerate", "sa"),
        ("accelerate,steer", "as"),
        ("Accelerate, STEER", "as"),
        ("timestamp,steer,accelerate", "tsa"),
        ("accelerate,frame,steer", "aks"),
        (",steer,accelerate", "ksa"),
    ],
)
def test_columns_are_found_by_name(tmp_path, header, orders):
    assert actions_of(tmp_path, told(header, *orders)) == DRIVEN


def test_without_names_they_are_in_order(tmp_path):
    headless = told("", "s", "a")
    assert actions_of(tmp_path, headless) == DRIVEN
    assert actions_of(tmp_path, told("x,y", "s", "a"), UNNAMED) == DRIVEN
    assert actions_of(tmp_path, headless, num_frames=2) == DRIVEN  # more than there are frames


def test_rows_of_another_rate_are_resampled(tmp_path):
    rows = [[k / 30, k / 12, 0.0] for k in range(12)]
    text = "t,steer,accelerate\n" + "\n".join(",".join(map(str, row)) for row in rows)
    found = torch.tensor(actions_of(tmp_path, text))
    torch.testing.assert_close(found[:, 0], torch.tensor([2.0, 5.0, 8.0, 11.0]) / 12)
    late = told("frame,steer,accelerate", "k", "s", "a").replace("\n0,", "\n1,", 1).splitlines()
    found = torch.tensor(actions_of(tmp_path, "\n".join([late[0], *late[2:]])))
    assert found[0].isnan().all()  # nothing is said of it
    assert found[1:].tolist() == DRIVEN[1:]
    assert len(actions_of(tmp_path, told("frame,steer,accelerate", *"ksa"), num_frames=30)) == 4
    assert actions_of(tmp_path, told("frame,steer,accelerate", *"ksa"), num_frames=2) == DRIVEN[:2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (told("throttle,brake", "s", "a"), "it has throttle, brake; the world takes steer, acc"),
        (told("steer", "s"), "it has steer; the world takes steer, accelerate"),
        (told("steer,accelerate,brake", "s", "a", "a"), "it has steer, accelerate, brake; the"),
        (told("", "s", "a", "a"), "it has 3 columns; the world takes steer, accelerate"),
        (
            "steer,accelerate\n30,0\n",
            "line 2, column 'steer' is 30, and the world was trained on -1",
        ),
        ("steer,accelerate\n0,0\n\n0,-1.1\n", "line 4, column 'accelerate' is -1.1"),
        ("steer,accelerate\n30,nan\n30,20\n", "line 2, column 'accelerate' holds no finite"),
        ("frame,steer,accelerate\n0,0,0\n1,0,7\n", "the row at 0.10 s, column 'accelerate' is 7"),
        ("steer,accelerate\n", "no rows"),
    ],
)
def test_what_the_world_does_not_take_is_refused(tmp_path, text, reason):
    with pytest.raises(AvenirError, match=r"t\.csv' does not hold actions of this world") as caught:
        actions_of(tmp_path, text)
    assert reason in str(caught.value)


def test_a_world_that_is_not_steered_takes_none(tmp_path):
    with pytest.raises(AvenirError, match="trained without any"):
        actions_of(tmp_path, told("steer,accelerate", "s", "a"), takes={})


def test_swapped_columns_imagine_the_same(tmp_path, monkeypatch):
    run = save_tiny_world(tmp_path / "tiny", (64, 64))
    card = json.loads((run / "card.json").read_text())
    card["signals"]["actions"]["names"] = ["steer", "accelerate"]
    (run / "card.json").write_text(json.dumps(card))
    frames = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 64, 64) * 9
    write(tmp_path / "clip.mp4", Clip(frames.contiguous(), 10.0))
    made = {}
    for header, orders in (
        ("steer,accelerate", "sa"),
        ("accelerate,steer", "as"),
        ("steer,accelerate", "as"),
    ):
        out = tmp_path / f"{header}{orders}.mp4"
        (tmp_path / "t.csv").write_text(told(header, *orders))
        words = ["predict", run, tmp_path / "clip.mp4", "--observe", 0.6, "--seconds", 0.4]
        words += ["--actions", tmp_path / "t.csv", "--out", out]
        monkeypatch.setattr(sys, "argv", ["avenir", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        made[header, orders] = read(out).frames
    one, other, swapped = made.values()
    assert torch.equal(one, other)
    assert not torch.equal(one, swapped)
