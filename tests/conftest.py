"""What every test shares: shapes checked at run time, one seed, a tiny world, real video if any."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from avenir.world import World

# What is asked bit for bit holds on a CPU. Whether there is a GPU is asked once, after this.
if "AVENIR_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# Shapes written in annotations are checked while tests run, and cost nothing otherwise.
_SHAPED = (
    "clip conditioners degradation encoders environment losses nn predictors rollout samplers world"
)
_hook = install_import_hook([f"avenir.{name}" for name in _SHAPED.split()], "beartype.beartype")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line tells its workers not to look for modules here; later tests do."""
    monkeypatch.setitem(os.environ, "PYTHONSAFEPATH", "")


@pytest.fixture
def real_data() -> Path:
    """The folder of real video, where there is one."""
    folder = os.environ.get("AVENIR_TEST_DATA")
    if not folder:
        pytest.skip("AVENIR_TEST_DATA is not set: no real video to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a small steered world of random weights, 64×64 at 10 fps."""
    return save_tiny_world(tmp_path_factory.mktemp("runs") / "tiny", (64, 64))


def save_tiny_world(
    folder: Path, size: tuple[int, int], *, predicts: bool = True, chunk: int = 3
) -> Path:
    """Write a world of random weights as a run folder."""
    from avenir.card import Card
    from avenir.signals import Signal
    from avenir.world import World

    encoder = {"kind": "kl", "compression": (2, 8, 8), "width": 8, "depth": 1, "decoder_depth": 1}
    predictor = {"kind": "flow", "width": 16, "depth": 1, "past": 2, "chunk": chunk}
    card = Card(
        fps=10.0,
        size=size,
        signals={"actions": Signal(role="action", size=2, low=(-1.0, -1.0), high=(1.0, 1.0))},
        encoder=encoder,
        conditioner={"kind": "actions"} if predicts else None,
        predictor=predictor if predicts else None,
    )
    torch.manual_seed(0)
    world = World.build(card)
    with torch.no_grad():  # what starts at zero would make every future the same
        for parameter in world.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    world.save(folder)
    (folder / "recipe.toml").write_text('name = "tiny"\n[data]\nkind = "synthetic"\n')
    return folder


@pytest.fixture
def discovering() -> "World":
    """A tiny untrained world that finds nine actions of its own."""
    from avenir.card import Card
    from avenir.signals import Signal
    from avenir.world import World

    card = Card(
        name="found",
        fps=10.0,
        size=(16, 16),
        signals={"actions": Signal.choice(9)},
        encoder={"kind": "patches", "compression": [2, 4, 4]},
        conditioner={"kind": "latent_actions", "hidden": 8},
        predictor={"kind": "flow", "width": 16, "depth": 1, "heads": 1, "past": 2, "chunk": 1},
    )
    torch.manual_seed(0)
    return World.build(card).eval()
