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
