"""An encoder, a conditioner with a signal that avenir has never seen, a source: one file each."""

import sys
from pathlib import Path

import pytest
import torch

from avenir.controls import Controls
from avenir.training.loop import train
from avenir.training.recipe import load_recipe
from avenir.world import load

SOURCE = '''
import torch
from avenir.clip import Clip
from avenir.config import Config
from avenir.data import Recording, Source
from avenir.signals import Signal

class TidesConfig(Config):
    kind: str = "tides"

class Tides(Source):
    """Grey pictures, as bright as the water is high; the wind says how it changes."""
    Config = TidesConfig

    def __init__(self, config):
        self.fps, self.size, self.skipped = 10.0, (16, 16), []
        self.signals = {"wind": Signal(role="metadata", size=1, low=(-1.0,), high=(1.0,))}

    def recordings(self, split):
        return [Recording(f"{split} {number}", 4.0) for number in range(4)]

    def clip(self, window):
        first = round(window.start_seconds * self.fps)
        seconds = torch.arange(first, first + window.num_frames) / self.fps
        wind = torch.sin(seconds + len(window.recording.name))[:, None]
        height = (128 + 60 * wind.cumsum(0) / 10).clamp(0, 255).byte()
        frames = height[:, :, None, None].expand(-1, 3, 16, 16).contiguous()
        return Clip(frames, self.fps, {"wind": wind}, window.recording.name)

    @property
    def fingerprint(self):
        return "tides 1"
'''

ENCODER = """
from einops import rearrange
from torch import nn
from avenir.config import Config
from avenir.encoders import ParameterGroup, Posterior, Tokenizer
from avenir.shapes import Compression

class BlocksConfig(Config):
    kind: str = "blocks"

class Blocks(Tokenizer):
    Config = BlocksConfig

    def __init__(self, config):
        super().__init__(Compression(2, 8, 8), 4)
        self.inward = nn.Linear(2 * 3 * 8 * 8, 4)
        self.outward = nn.Linear(4, 2 * 3 * 8 * 8)

    def raw_posterior(self, video):
        blocks = rearrange(video, "b (t f) C (h p) (w q) -> b t h w (f C p q)", f=2, p=8, q=8)
        return Posterior(rearrange(self.inward(blocks), "b t h w c -> b t c h w"))

    def raw_decode(self, latents):
        blocks = self.outward(rearrange(latents, "b t c h w -> b t h w c"))
        return rearrange(blocks, "b t h w (f C p q) -> b (t f) C (h p) (w q)", f=2, p=8, q=8)

    def decoding_losses(self, posterior, video, progress, hide=lambda latents: latents):
        return {"l2": (self.raw_decode(hide(posterior.mean)) - video).square().mean()}

    def parameter_groups(self):
        return [ParameterGroup([p for p in self.parameters() if p.requires_grad], {"l2": 1.0})]

    def freeze_encoder(self):
        self.inward.requires_grad_(False)
"""

CONDITIONER = """
import torch
from torch import nn
from avenir.clip import Condition
from avenir.conditioners import Conditioner, of_latent_frames
from avenir.config import Config

class WindConfig(Config):
    kind: str = "wind"

class Wind(Conditioner):
    Config = WindConfig

    def __init__(self, config, spec):
        super().__init__()
        self.config, self.f_t, self.size = config, spec.f_t, spec.sizes["wind"]
        self.embed = nn.Linear(self.size, spec.width)
        self.null = nn.Parameter(torch.zeros(1, 1, spec.width))

    @classmethod
    def needs(cls, settings):
        return ("wind",)

    def forward(self, signals, num_frames, batch_size, generator=None, latents=None):
        shape = (batch_size, num_frames, self.size)
        wind = of_latent_frames(signals.get("wind"), shape, self.f_t, self.null.device)
        known = wind.isfinite().all(-1, keepdim=True)
        vectors = torch.where(known, self.embed(wind.nan_to_num()), self.null)
        return Condition(vectors, self.null)

    def fit(self, signals):
        pass
"""

RECIPE = """
task = "predictor"
name = "tides"
[data]
kind = "PACKAGE.tides"
[tokenizer]
task = "encoder"
name = "blocks"
data = {kind = "PACKAGE.tides"}
encoder = {kind = "PACKAGE.blocks"}
train = {steps = 2, batch_size = 2, num_samples = 1}
[conditioner]
kind = "PACKAGE.wind"
[predictor]
kind = "flow"
width = 16
depth = 1
heads = 2
patch = 1
past = 2
chunk = 1
[train]
steps = 3
batch_size = 2
num_samples = 1
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch) -> str:
    """A package that is nowhere in this repository, in the working directory."""
    name = "a_lab_of_tides"
    (tmp_path / name).mkdir()
    for kind, text in {"tides": SOURCE, "blocks": ENCODER, "wind": CONDITIONER}.items():
        (tmp_path / name / f"{kind}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    yield name
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]


def test_three_files_make_a_world_that_a_new_signal_steers(package, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("PACKAGE", package))
    folder = train(load_recipe(tmp_path / "recipe.toml"), tmp_path / "runs")
    trust = [f"{package}.{kind}" for kind in ("tides", "blocks", "wind")]
    world = load(folder, "cpu", trust)
    assert list(world.takes) == ["wind"] and world.takes["wind"].role == "metadata"
    source = sys.modules[f"{package}.tides"].Tides(None)
    past = source.clip(source.spread("test", 6, 1)[0])
    for weights in [*world.predictor.parameters(), *world.encoder.parameters()]:
        torch.nn.init.normal_(weights, std=0.2)  # three steps teach it little
    futures = [
        world.predict(past, 0.4, controls=Controls(signals={"wind": torch.tensor([wind])})).frames
        for wind in (-1.0, 1.0, -1.0)
    ]
    assert futures[0].shape == (4, 3, 16, 16)
    assert torch.equal(futures[0], futures[2]) and not torch.equal(futures[0], futures[1])
