"""What every test shares: shapes checked at run time, one seed, a tiny world, real video if any."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

# Shapes written in annotations are checked while tests run, and cost nothing otherwise.
_SHAPED = "clip conditioners degradation encoders losses nn predictors rollout samplers world"
_hook = install_import_hook([f"avenir.{name}" for name in _SHAPED.split()], "beartype.beartype")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of real video, where there is one."""
    folder = os.environ.get("AVENIR_TEST_DATA")
    if not folder:
        pytest.skip("AVENIR_TEST_DATA is not set: no real video to test on")
    return Path(folder)
