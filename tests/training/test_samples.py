"""Samples: what a run is watched by is made without seeing what follows."""

import json
from types import SimpleNamespace

import pytest

from avenir.training.log import Log
from avenir.training.samples import write_samples
from tests.oracle import GreySource, Oracle


def psnr_of(role, tmp_path) -> float:
    task = SimpleNamespace(world=Oracle("grey"), data=GreySource(grey=role), num_frames=12)
    write_samples(task, tmp_path / "samples", 1, 0, Log(tmp_path, "samples", 0, 1), count=2)
    return json.loads((tmp_path / "metrics.jsonl").read_text())["validation_psnr"]


@pytest.mark.parametrize("role", ["box", "state"])
def test_a_world_that_reads_what_is_to_be_predicted_gains_nothing(tmp_path, role):
    assert psnr_of(role, tmp_path) < 15


def test_a_world_still_reads_what_steers_it(tmp_path):
    assert psnr_of("metadata", tmp_path) > 40


@pytest.mark.parametrize(("kept", "split"), [(True, "validation"), (False, "train")])
def test_samples_are_never_of_the_test(tmp_path, monkeypatch, kept, split):
    """What a run is watched by is looked at while settings are chosen."""
    source = GreySource(grey="metadata")
    there = source.recordings
    monkeypatch.setattr(source, "recordings", lambda s: there(s) if kept or s == "train" else [])
    asked = []
    spread = source.spread
    monkeypatch.setattr(source, "spread", lambda s, *rest: asked.append(s) or spread(s, *rest))
    task = SimpleNamespace(world=Oracle("grey"), data=source, num_frames=12)
    write_samples(task, tmp_path / "samples", 1, 0, Log(tmp_path, "samples", 0, 1), count=2)
    assert asked == [split]
    assert f"{split}_psnr" in json.loads((tmp_path / "metrics.jsonl").read_text())
