"""The stages that stand on a finished encoder: its decoder, and predictors on latents made once."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
import torch

from avenir.data import Window, cached
from avenir.data.cached import Cached, CachedConfig
from avenir.errors import AvenirError, DamagedError
from avenir.tensors import load_tensors, save_tensors
from avenir.training.latent_cache import fill_cache
from avenir.training.loop import train
from avenir.training.objectives import make_source
from avenir.training.recipe import Recipe, load_recipe
from avenir.world import load

from .test_resume import WORDS

TINY = [w.removeprefix("tokenizer.") for w in WORDS if w.startswith("tokenizer.")]


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory):
    torch.set_num_threads(1)
    recipe = load_recipe("recipes/quickstart_tokenizer.toml", TINY)
    return train(recipe, tmp_path_factory.mktemp("encoder"))


def test_the_decoders_stage_leaves_latents_alone_and_may_add_a_critic(encoder_run, tmp_path):
    (tmp_path / "decoder.toml").write_text(
        f'task = "decoder"\ntokenizer = "{encoder_run}"\n[data]\nkind = "synthetic"\n'
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
    words = [f"data={tmp_path / 'latents'}", "data.kind=cached", f"tokenizer={encoder_run}"]
    recipe = load_recipe("recipes/quickstart.toml", [*words, "train.num_samples=0"])
    assert isinstance(recipe, Recipe)
    with pytest.raises(AvenirError, match="another encoder"):
        train(recipe, tmp_path / "runs")


@pytest.fixture
def latents(encoder_run, tmp_path) -> tuple[Path, Callable[[], None]]:
    """A folder for the latents of two recordings, and what fills it."""
    world, folder = load(encoder_run, "cpu"), tmp_path / "latents"
    source = make_source(load_recipe("recipes/quickstart_tokenizer.toml").data)
    kept = {"train": list(source.recordings("train")[:2])}
    return folder, lambda: fill_cache(world, source, kept, folder, 1, lambda *told: None)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_of_two_runs_that_fill_one_cache_the_second_waits_and_makes_nothing(latents, monkeypatch):
    folder, fill = latents
    save_tensors, made, others = cached.save_tensors, [], []

    def save_while_another_begins(path, *more) -> None:
        made.append(path.name)
        if not others:
            others.append(Thread(target=fill))
            others[0].start()
            time.sleep(0.2)
        save_tensors(path, *more)

    monkeypatch.setattr(cached, "save_tensors", save_while_another_begins)
    fill()
    others[0].join()
    assert made == ["train-000000-0.safetensors", "train-000001-0.safetensors"]
    assert len(Cached(CachedConfig(path=str(folder))).recordings("train")) == 2


@pytest.mark.parametrize("harm", ["a bit", "the end", "all"])
def test_a_damaged_shard_is_named_when_it_is_read_and_made_anew_when_asked(latents, harm):
    folder, fill = latents
    fill()
    before = content(folder)
    shard = folder / "train-000001-0.safetensors"
    whole = shard.read_bytes()
    at = len(whole) - 1000
    flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    shard.write_bytes({"a bit": flipped, "the end": whole[:at], "all": b""}[harm])
    cache = Cached(CachedConfig(path=str(folder)))
    first, second = cache.recordings("train")
    cache.read([Window(first, 0.0, 8)])
    with pytest.raises(DamagedError, match=r"train-000001-0.*damaged.*avenir encode"):
        cache.read([Window(second, 0.0, 8)])
    fill()
    assert content(folder) == before
    Cached(CachedConfig(path=str(folder))).read([Window(second, 0.0, 8)])


def test_a_shard_of_other_latents_is_named(latents):
    folder, fill = latents
    fill()
    shard = folder / "train-000001-0.safetensors"
    save_tensors(shard, load_tensors(shard)[0], {"key": "another"})
    cache = Cached(CachedConfig(path=str(folder)))
    with pytest.raises(DamagedError, match="of another encoder or data set"):
        cache.read([Window(cache.recordings("train")[1], 0.0, 8)])
