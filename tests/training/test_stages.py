"""The stages that stand on a finished encoder: its decoder, and predictors on latents made once."""

import pytest
import torch

from avenir.data import cached
from avenir.data.cached import Cached, CachedConfig
from avenir.errors import AvenirError
from avenir.training.loop import train
from avenir.training.recipe import Recipe, load_recipe
from avenir.training.tasks import fill_cache, make_source
from avenir.world import load

from .test_resume import WORDS

TINY = [w.removeprefix("encoder.") for w in WORDS if w.startswith("encoder.")]


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory):
    torch.set_num_threads(1)
    recipe = load_recipe("recipes/quickstart_tokenizer.toml", TINY)
    return train(recipe, tmp_path_factory.mktemp("encoder"))


def test_the_decoders_stage_leaves_latents_alone_and_may_add_a_critic(encoder_run, tmp_path):
    (tmp_path / "decoder.toml").write_text(
        f'task = "decoder"\nencoder = "{encoder_run}"\n[data]\nkind = "synthetic"\n'
        "[decoder.weights]\nadversarial = 0.1\n"
        "[train]\nsteps = 3\nbatch_size = 2\nnum_samples = 0\n"
    )
    after = load(train(load_recipe(tmp_path / "decoder.toml"), tmp_path / "runs"), "cpu")
    before = load(encoder_run, "cpu")
    video = torch.rand(1, 4, 3, 32, 32) * 2 - 1
    latents = before.encoder.encode(video)
    assert torch.equal(after.encoder.encode(video), latents)
    assert not torch.equal(after.encoder.decode(latents), before.encoder.decode(latents))


def test_latent_statistics_are_those_of_training_latents(encoder_run):
    world = load(encoder_run, "cpu")
    source = make_source(load_recipe("recipes/quickstart_tokenizer.toml").data)
    with torch.no_grad():
        latents = world.encoder.encode(source.read(source.draw("train", 8, 32, 5)).video)
    assert latents.mean((0, 1, 3, 4)).abs().max() < 0.3
    assert 0.8 < float(latents.std()) < 1.2


def test_cached_latents_are_those_that_encoding_gives(encoder_run, tmp_path):
    world = load(encoder_run, "cpu")
    source = make_source(load_recipe("recipes/quickstart_tokenizer.toml").data)
    recordings = {"train": list(source.recordings("train")[:2])}
    fill_cache(world, source, recordings, tmp_path / "latents", 1, lambda *told: None)
    cache = Cached(CachedConfig(path=str(tmp_path / "latents")))
    [window] = cache.spread("train", 8, 1)
    batch, truth = cache.read([window]), source.read([source.spread("train", 8, 1)[0]])
    assert batch.latents is not None
    posterior = world.encoder.posterior(truth.video)
    torch.testing.assert_close(batch.latents, posterior.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(batch.log_variance, posterior.log_variance, atol=1e-4, rtol=1e-4)
    assert torch.equal(batch.signals["actions"], truth.signals["actions"])


def test_latents_of_another_encoder_are_refused(encoder_run, tmp_path):
    world = load(encoder_run, "cpu")
    source = make_source(load_recipe("recipes/quickstart_tokenizer.toml").data)
    with torch.no_grad():
        next(world.encoder.parameters()).add_(1)
    kept = {"train": list(source.recordings("train")[:2])}
    fill_cache(world, source, kept, tmp_path / "latents", 1, lambda *told: None)
    words = [f"data={tmp_path / 'latents'}", "data.kind=cached", f"encoder={encoder_run}"]
    recipe = load_recipe("recipes/quickstart.toml", [*words, "train.num_samples=0"])
    assert isinstance(recipe, Recipe)
    with pytest.raises(AvenirError, match="another encoder"):
        train(recipe, tmp_path / "runs")


def test_two_runs_at_once_may_fill_one_cache(encoder_run, tmp_path, monkeypatch):
    """The second run fills the whole cache while the first is about to name its first shard."""
    world, folder = load(encoder_run, "cpu"), tmp_path / "latents"
    source = make_source(load_recipe("recipes/quickstart_tokenizer.toml").data)
    kept = {"train": list(source.recordings("train")[:2])}

    def fill() -> None:
        fill_cache(world, source, kept, folder, 1, lambda *told: None)

    def save_while_another_fills(*saved) -> None:
        save_file(*saved)
        monkeypatch.setattr(cached, "save_file", save_file)
        with monkeypatch.context() as other:
            other.setattr(cached.os, "getpid", lambda: -1)
            fill()

    save_file = cached.save_file
    monkeypatch.setattr(cached, "save_file", save_while_another_fills)
    fill()
    assert len(Cached(CachedConfig(path=str(folder))).recordings("train")) == 2
    assert not list(folder.glob("*.partial"))
