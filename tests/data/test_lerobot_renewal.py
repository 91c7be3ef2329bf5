"""A data set that is renewed is what it would be if it were written now, wherever a cut falls."""

from pathlib import Path

import pytest
import torch
from tests.lerobot_sets import NAMES, film

from avenir.clip import Clip
from avenir.data.lerobot import LeRobotWriter, renewal
from avenir.signals import Signal


def writer(path: Path) -> LeRobotWriter:
    signals = {
        "actions": Signal(role="action", size=2, names=NAMES, change="delta"),
        "state": Signal(role="state", size=3),
    }
    return LeRobotWriter(path, 20.0, (32, 48), signals)


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def fresh(root: Path) -> dict[str, bytes]:
    out = writer(root)
    out.append([film(9, 7)], source="b", split="train", task="push", origin="7", signals="s7")
    out.append([film(8, 2)], source="c", split="train", task="pull", origin="2", signals="s2")
    out.append([film(8, 0)], source="a", split="test", task="push", origin="0", signals="s0")
    return contents(root)


def old(root: Path) -> LeRobotWriter:
    out = writer(root)
    for seed, name in enumerate("abc"):
        about = {"origin": f"{seed}", "signals": f"s{seed}"}
        out.append([film(8, seed)], source=name, split="train", task="pull", **about)
    return out


def renew(out: LeRobotWriter) -> None:
    """Another split and task for a, other frames for b, nothing else for c."""
    a, _, c = out.episodes
    new = renewal.begin(out)
    if len(new.episodes) < 1:
        about = {"split": "train", "task": "push", "origin": "7", "signals": "s7"}
        new.append([film(9, 7)], source="b", **about)
    if len(new.episodes) < 2:
        new.adopt(out, c, split="train", task="pull")
    if len(new.episodes) < 3:
        new.adopt(out, a, split="test", task="push")
    renewal.finish(out.root)


def test_a_renewed_data_set_is_a_fresh_one_bit_for_bit(tmp_path):
    wanted = fresh(tmp_path / "fresh")
    renew(old(tmp_path / "old"))
    assert contents(tmp_path / "old") == wanted
    assert len(writer(tmp_path / "old").episodes) == 3


def test_a_cut_at_any_moment_leaves_a_data_set_that_is_renewed_again(tmp_path, monkeypatch):
    class Cut(Exception):
        pass

    wanted, done, cut_at = fresh(tmp_path / "fresh"), 0, [0]
    for name in ("remove_folder", "move_together", "remove", "write_whole"):
        real = getattr(renewal, name)

        def counted(*words, real=real):
            cut_at[0] -= 1
            if not cut_at[0]:
                raise Cut
            return real(*words)

        monkeypatch.setattr(renewal, name, counted)
    while True:
        done += 1
        root = tmp_path / str(done)
        out = old(root)
        cut_at[0] = done
        try:
            renew(out)
        except Cut:
            renewal.settle(root)
            out = writer(root)
            if [e["source"] for e in out.episodes] == ["a", "b", "c"]:
                renew(out)
            assert contents(root) == wanted
        else:
            break
    assert contents(root) == wanted
    assert done > 6


def test_what_was_begun_for_something_else_leaves_nothing(tmp_path):
    out = old(tmp_path)
    before = contents(tmp_path)
    new = renewal.begin(out)
    new.append([film(9, 7)], source="x")
    assert len(renewal.begin(out).episodes) == 1
    renewal.abandon(tmp_path)
    assert contents(tmp_path) == before
    assert not renewal.begin(out).episodes


def test_rows_that_are_unknown_do_not_count_in_statistics(tmp_path):
    clip = film(8, 0)
    actions = clip.signals["actions"].clone()
    actions[:3] = torch.nan
    actions[:, 1] = torch.nan
    signals = clip.signals | {"actions": actions}
    out = writer(tmp_path)
    out.append([Clip(clip.frames, clip.fps, signals)], source="a")
    found = {key: out.episodes[0][f"stats/action/{key}"] for key in ("min", "max", "mean", "count")}
    known = actions[3:, 0].double()
    assert found["min"] == [known.min(), 0]
    assert found["max"] == [known.max(), 0]
    assert found["mean"] == pytest.approx([float(known.mean()), 0])
    assert found["count"] == [5]
